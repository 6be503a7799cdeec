"""What tf_lottery expects of a function that is registered with it, as checks that an author can run in a test.

>>> import numpy as np
>>> def large_sum(initial, final, *, rng):
...     return np.abs(initial) + np.abs(final)
>>> check_criterion(large_sum)
>>> check_criterion(lambda initial, final, *, rng: final.sum())
Traceback (most recent call last):
tf_lottery.base.errors.LotteryError: Expected the criterion <lambda> to return scores of shape (4, 3, 2), but received shape ().

Each check takes a registered name or the function itself, tries it on small random kernels from a fixed seed, and raises
`LotteryError` with the first thing that is not as it should be. The library's own functions pass the same checks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tf_lottery.base.errors import LotteryError
from tf_lottery.problems import data, models
from tf_lottery.rules import criteria, masks, treatments

SHAPE = (4, 3, 2)


def check_criterion(criterion: str | Callable) -> None:
    """Scores of the kernel's shape without NaN, the same for the same generator, and arguments that stay as they were.

    A criterion that says it needs no trained weights (`criteria.register(trained=False)`) must not look at them, nor one that says
    so of initial weights.

    Raises:
      LotteryError: Names what is not so.
    """
    criterion = criteria.get(criterion)
    what, needs = f"the criterion {criteria.name_of(criterion)}", criteria.needs(criterion)
    initial, final, gradient = np.random.default_rng(0).normal(size=(3, *SHAPE)).astype(np.float32)
    initial[0] = final[0] = gradient[0] = 0  # pruned weights arrive as zeros
    given = initial, final, gradient

    def scores(final, initial=initial):
        more = {"gradient": gradient} if needs.gradient else {}  # not by `criteria.score`, which would give it copies
        return criterion(initial, final, rng=np.random.default_rng(1), **more)

    first = _checked(what, "scores", given, lambda: scores(final))
    masks.keep_top(first, 5)  # what is done with them
    if not needs.trained:
        same = np.array_equal(first, scores(final + 1))
        _check(same, what, "not to look at trained weights, as it says", "scores that depend on them")
    if not needs.initial:
        same = np.array_equal(first, scores(final, initial + 1))
        _check(same, what, "not to look at initial weights, as it says", "scores that depend on them")


def check_survivors(treatment: str | Callable) -> None:
    """Finite values of the kernel's shape, the same for the same generator, and arguments that stay as they were.

    Raises:
      LotteryError: Names what is not so.
    """
    treatment = treatments.get_survivors(treatment)
    what, (initial, final, fresh), mask = _treated("survivors", treatment)

    def start():
        rng = np.random.default_rng(1)
        return treatment(initial, final, mask=mask, rng=rng, draw=lambda: fresh.copy(), scale=0.25)

    _checked(what, "values", (initial, final, mask), start)


def check_pruned(treatment: str | Callable) -> None:
    """The whole kernel, finite, the same for the same generator, and arguments that stay as they were.

    Raises:
      LotteryError: Names what is not so.
    """
    treatment = treatments.get_pruned(treatment)
    what, (initial, final, start), mask = _treated("pruned", treatment)

    def whole():
        return treatment(start, initial, final, mask=mask, rng=np.random.default_rng(1))

    _checked(what, "values", (start, initial, final, mask), whole)


def check_model(build: str | Callable) -> None:
    """A built Keras 3 model with kernels to prune, decided by its seed, whose rates cover every kernel.

    It is built with its own default input shape and classes.

    Raises:
      LotteryError: Names what is not so.
    """
    from tf_lottery.masking import weights  # loads Keras

    build = models.get(build)
    what = f"the model {build.__name__}"
    preset: Any = getattr(build, "preset", None)
    _check(isinstance(preset, models.Preset), what, "to have defaults, models.register(Preset(...))", "none")
    model = build(seed=0)
    weights.check_keras_3(model)
    kernels = weights.prunable_kernels(model)
    _check(bool(kernels), what, "to be built and have kernels to prune", "none")
    weights.prune_fractions(kernels, preset.prune_fraction)
    first, again, other = (build(seed=seed).get_weights() for seed in (0, 0, 1))
    same = len(first) == len(again) and all(map(np.array_equal, first, again))
    _check(same, what, "to have the same weights for the same seed", "others")
    _check(not all(map(np.array_equal, first, other)), what, "to have other weights for another seed", "the same")


def check_dataset(load: str | Callable) -> None:
    """Three pairs of float32 inputs of one shape and int32 labels in [0, classes), the same each time.

    Raises:
      LotteryError: Names what is not so.
    """
    load = data.registry.get(load)
    what, sets, again = f"the data set {load.__name__}", load(), load()
    _check(isinstance(sets, data.Dataset), what, "to be a tf_lottery.data.Dataset", type(sets).__name__)
    for part in ("train", "validation", "test"):
        x, y = getattr(sets, part)
        _check(
            x.dtype == np.float32 and y.dtype == np.int32,
            what,
            f"to have float32 inputs and int32 labels in {part}",
            f"{x.dtype} and {y.dtype}",
        )
        _check(
            len(x) == len(y) > 0 and y.ndim == 1,
            what,
            f"to have a label for each input in {part}",
            f"{len(y)} for {len(x)}",
        )
        _check(
            x.shape[1:] == sets.input_shape, what, f"to have inputs of shape {sets.input_shape} in {part}", x.shape[1:]
        )
        _check(
            0 <= y.min() <= y.max() < sets.classes,
            what,
            f"to have labels from 0 to {sets.classes - 1} in {part}",
            f"{y.min()} to {y.max()}",
        )
        _check(np.isfinite(x).all(), what, f"to have finite inputs in {part}", "others")
        _check(
            all(map(np.array_equal, getattr(again, part), (x, y))),
            what,
            f"to be the same each time in {part}",
            "other values",
        )


def _treated(kind: str, treatment: Callable) -> tuple[str, np.ndarray, np.ndarray]:
    """The treatment in words, three kernels, a mask."""
    rng = np.random.default_rng(0)
    kernels = rng.normal(size=(3, *SHAPE)).astype(np.float32)
    return f"the {kind} treatment {criteria.name_of(treatment)}", kernels, (rng.random(SHAPE) < 0.5).astype(np.uint8)


def _checked(what: str, of: str, given: tuple[np.ndarray, ...], call: Callable[[], np.ndarray]) -> np.ndarray:
    """What `call` returns, after checking that it is an array as expected, the same each time, and its arguments are as before."""
    before = [array.copy() for array in given]
    try:
        returned = call()
    except LotteryError:
        raise
    except Exception as error:  # whatever its author's code does
        raise LotteryError(f"Expected {what} to return {of}, but it raised {type(error).__name__}: {error}.") from error
    _check(all(map(np.array_equal, before, given)), what, "to leave its arguments as they are", "changed ones")
    shape = np.shape(returned)
    _check(shape == SHAPE, what, f"to return {of} of shape {SHAPE}", f"shape {shape}")
    _check(not np.isnan(returned).any(), what, f"to return {of} without NaN", "NaN")
    _check(np.array_equal(returned, call()), what, f"to return the same {of} for the same generator", "others")
    return returned


def _check(good: bool, what: str, expected: str, received) -> None:
    if not good:
        raise LotteryError(f"Expected {what} {expected}, but received {received}.")
