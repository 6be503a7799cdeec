"""Supermasks: masks that make weights perform that were never trained.

- `evaluate`: masks by rule. A dense network was trained once; a criterion looks at its initial and final weights, and the
  network of the *initial* weights under the criterion's mask is measured at many densities.
- `train`: masks by learning, on weights that stay as they were drawn; see `learned` for the two rules.
- `wrap`: the model that `train` trains, for a `fit` of your own.

References: Zhou et al., "Deconstructing Lottery Tickets" (2019, arXiv 1905.01067), section 5; Ramanujan et al., "What's Hidden in a
Randomly Weighted Neural Network?" (2020, arXiv 1911.13299).
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import keras
import numpy as np

from tf_lottery.base.container import digest
from tf_lottery.base.errors import LotteryError, LotteryWarning
from tf_lottery.masking import gradients, state, weights, wrapping
from tf_lottery.masking.gradients import Probe
from tf_lottery.masking.learned import Learned, wrap
from tf_lottery.masking.masked import settle
from tf_lottery.masking.weights import Prunable
from tf_lottery.rules import criteria, masks
from tf_lottery.search.lottery import Train, check_train, metrics_of
from tf_lottery.search.rounds import Rounds
from tf_lottery.tickets import recipes
from tf_lottery.tickets.ticket import Ticket
from tf_lottery.tickets.values import Recipe, arrays

__all__ = ["Evaluated", "evaluate", "train", "wrap"]

Accuracy = Callable[[keras.Model], float]  # measures a plain model


class Evaluated(NamedTuple):
    """One untrained masked network: how its mask was found, and how well it does."""

    criterion: str
    signed_constant: bool
    density: float
    accuracy: float


def evaluate(
    model: keras.Model,
    dense: Ticket,
    accuracy: Accuracy,
    *,
    criterion: str | Callable | Sequence[str | Callable] = "large_final_same_sign",
    densities: Sequence[float | Mapping[str, float]] = tuple(0.8**k for k in range(25)),  # type: ignore[name-defined]  # mypy loses k
    signed_constant: bool = False,
    probe: Probe | None = None,
    seed: int = 0,
) -> Iterator[Evaluated]:
    """Measures untrained networks under masks by rule, one-shot: `w_i * m(w_i, w_f)`.

    Args:
      model: A built Keras 3 model, plain or wrapped; it has its own weights again at the end.
      dense: Level 0 of a search: the initial and the final weights of a dense network.
      accuracy: `accuracy(model) -> number`; that of a `Trainer` is `trainer.test_accuracy`.
      criterion: What to keep, one or several; names from `criteria` or functions.
      densities: Shares of the weights to keep in each kernel, in (0, 1]; or mappings with one for each kind of kernel, with the
        keys of `weights.prune_fractions`.
      signed_constant: Measure `sign(w_i) * s` in place of `w_i`; `s` is the standard deviation of the kernel's initial weights, all
        of them. (It is what `"std"` is to `wrap`.)
      probe: As for `find_ticket`, for criteria that need a gradient; that of a `Trainer` is `trainer.probe`.
      seed: For criteria that need chance, and decides which of equal scores are kept.

    Yields:
      An `Evaluated` for each criterion and density. The best density of a run is `max(rows, key=lambda row: row.accuracy)`.

    Raises:
      LotteryError: If a density is out of range, or a criterion looks at trained weights and `dense` has none.

    Examples:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)])
    >>> masked, x = wrapping.wrap(model), np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    >>> initial = state.get_values(masked)
    >>> model.compile("adam", "sparse_categorical_crossentropy")
    >>> history = model.fit(x, x[:, 0] > 0, epochs=2, verbose=0)
    >>> dense = Ticket(state.get_masks(masked), initial, state.get_values(masked))
    >>> accuracy = lambda model: float(np.mean(np.argmax(model(x), 1) == (x[:, 0] > 0)))
    >>> [round(row.density, 2) for row in evaluate(model, dense, accuracy, densities=(0.5, 0.25))]
    [0.5, 0.25]

    Reference: Zhou et al. (2019), section 5 and Table 1, "L.F. same sign" with initial weights and signed constants.
    """
    several = [criterion] if isinstance(criterion, str) or callable(criterion) else criterion
    functions = [criteria.get(one) for one in several]
    masked = wrapping.wrap(model)
    kernels = state.masked_kernels(masked)
    per_kernel = []
    for density in densities:
        for value in density.values() if isinstance(density, Mapping) else [density]:
            masks.check_density(value)
        per_kernel.append(
            weights.per_kernel(kernels, density, "density")
            if isinstance(density, Mapping)
            else {kernel.path: density for kernel in kernels}
        )
    if not isinstance(signed_constant, bool):
        raise LotteryError(f"Expected signed_constant to be True or False, but received {signed_constant!r}.")
    dense = dense.in_paths_of(masked)
    if not all(mask.all() for mask in dense.masks.values()):
        raise LotteryError(f"Expected the ticket of a dense network, level 0, but received one of level {dense.level}.")
    for function in functions:
        if dense.final is None and criteria.needs(function).trained:
            raise LotteryError(
                f"Expected the final weights of a dense network for criterion {criteria.name_of(function)!r}, but this ticket was "
                "never trained."
            )
    if dense.final is None:
        dense = dataclasses.replace(dense, final=arrays(dense.initial))
    probes = [gradients.checked(function, probe) for function in functions]

    def new_masks(function, probe, densities):
        """Those of one round that goes from the dense network to these densities at once."""

        def take(kind, at_masks, values):
            return gradients.take(masked, kind, probe, at_masks, values)

        fractions = {path: 1 - density for path, density in densities.items()}
        return Rounds([fractions], None, take, criterion=function, seed=seed).masks(dense, 1)

    def measurements() -> Iterator[Evaluated]:
        own = state.get_values(masked)
        start = dict(arrays(dense.initial))
        for path in dense.masks if signed_constant else ():
            start[path] = np.sign(start[path]) * np.std(start[path])
        for function, own_probe in zip(functions, probes):
            for densities in per_kernel:
                new = new_masks(function, own_probe, densities)
                try:
                    _assign(masked, {path: value * new.get(path, 1) for path, value in start.items()})
                    measured = float(accuracy(masked.inner))
                finally:
                    _assign(masked, own)
                yield Evaluated(criteria.name_of(function), signed_constant, masks.density(new), measured)

    return measurements()


def train(
    model: keras.Model,
    train: Train,
    *,
    by: str = "learning",
    density: float = 0.5,
    signed_constant: str | None = None,
    rescale: bool = True,
    accuracy: Accuracy | None = None,
    samples: int = 10,
    prunable: Prunable = None,
    exclude: Prunable = None,
    seed: int = 0,
) -> Ticket:
    """Learns a supermask: the weights stay as they were drawn, `train` moves one score for each of them.

    Args:
      model: A built Keras 3 model, plain, with the weights it was initialised with. At the end it holds them under the mask.
      train: As for `find_ticket`: a `Trainer`, or your own function around `model.fit`. With learning the gradients are
        small and learning rates large: Zhou et al. use SGD with momentum 0.9 and a rate of 100.
      by, density, signed_constant, rescale, prunable, exclude, seed: See `wrap`.
      accuracy: `accuracy(model) -> number` for the measurements at the end; by default the `test_accuracy` of a Trainer that has a
        test set.
      samples: How many sampled masks to measure, with learning.

    Returns:
      A ticket whose starting weights are a `Recipe` (initializer, seed, constant) for each variable that still holds what its
      initializer made, and which has no final weights. Its mask keeps the weights whose probability is above 1/2, or those
      of edge_popup. Its metrics are those of `train`, and with an `accuracy` also `mask_accuracy`, of the ticket's own mask,
      and with learning `sampled_accuracy` with `_low` and `_high`: mean, least and largest over the sampled masks.

    Raises:
      LotteryError: If an argument is out of range. The model is as it was then, and so it is if `train` fails.

    Warns:
      LotteryWarning: If the mask keeps no weight of a kernel.

    Examples:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(2)])
    >>> x, _train = np.random.default_rng(0).normal(size=(64, 4)).astype("float32"), train
    >>> def fit(masked, callbacks):
    ...     masked.compile(keras.optimizers.SGD(10.0, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(True))
    ...     return masked.fit(x, x[:, 0] > 0, epochs=2, verbose=0, callbacks=callbacks)
    >>> ticket = _train(model, fit)
    >>> list(ticket.initial.values())[0].initializer["class_name"]
    'GlorotUniform'

    References: Zhou et al. (2019), section 5; Ramanujan et al. (2020), section 3.
    """
    weights.check_keras_3(model)
    check_train(train)
    if not isinstance(samples, int) or samples < 1:
        raise LotteryError(f"Expected at least 1 sample, a whole number, but received samples={samples!r}.")
    if accuracy is None and "test" in getattr(train, "sets", ()):
        accuracy = train.test_accuracy  # type: ignore[attr-defined]  # a Trainer, or one that wraps it
    drawn = recipes.of_model(model)
    masked = wrap(
        model,
        prunable,
        exclude=exclude,
        by=by,
        density=density,
        signed_constant=signed_constant,
        rescale=rescale,
        seed=seed,
    )
    own = state.get_values(masked)
    try:
        metrics = metrics_of(train(masked, []))
        metrics = {**metrics, **(_measured(masked, accuracy, samples, seed) if accuracy else {})}
    except BaseException:  # also when interrupted: the model is trainable again, with the weights it had
        masked.thaw()
        _assign(masked, own)
        raise
    new = state.get_masks(masked)
    wrapping.strip(masked)
    if empty := [path for path, mask in new.items() if not mask.any()]:
        warnings.warn(
            LotteryWarning(
                "the mask keeps no weight of {}: train for longer, at a larger rate, or from a larger {density}",
                ", ".join(empty),
            ),
            stacklevel=2,
        )
    return Ticket(new, _start(masked, new, drawn), metrics=metrics, found=dict(masked.rule))


def _assign(masked, values: Mapping[str, np.ndarray]) -> None:
    variables = state.named_variables(masked)
    for path, value in values.items():
        variables[path].assign(value)


def _measured(masked: Learned, accuracy: Accuracy, samples: int, seed: int) -> dict[str, float]:
    """The accuracies of sampled masks, where there is chance, and of the mask that stays."""
    metrics, rng = {}, np.random.default_rng([seed, samples])
    if masked.rule["by"] == "learning":
        sampled = []
        for _ in range(samples):
            masked.sample(rng)
            sampled.append(float(accuracy(masked.inner)))
        metrics = {"sampled_accuracy": float(np.mean(sampled))}
        metrics |= {"sampled_accuracy_low": min(sampled), "sampled_accuracy_high": max(sampled)}
    settle(masked)
    return {**metrics, "mask_accuracy": float(accuracy(masked.inner))}


def _start(masked: Learned, new: masks.Arrays, drawn: Mapping[str, Recipe]) -> dict[str, np.ndarray | Recipe]:
    """What the ticket starts from: recipes where they still hold, else values."""
    own = state.get_values(masked)
    start: dict[str, np.ndarray | Recipe] = dict(own)
    for path, recipe in drawn.items():
        if path not in new and digest(own[path]) == recipe.digest:
            start[path] = recipe
    for kernel, constant in zip(masked.kernels, masked.constants):
        if kernel.path in drawn:
            scale = (1.0 if constant is None else constant) * masked.factor(new[kernel.path])
            start[kernel.path] = recipes.scaled(drawn[kernel.path], signed=constant is not None, scale=scale)
    return start
