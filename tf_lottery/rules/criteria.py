"""Mask criteria: plain functions that score every weight of a kernel; the highest scores are kept.

A criterion is `criterion(initial, final, *, rng) -> scores`:

- `initial`, `final`: float arrays of the kernel's shape, the weights at the start and at the end of the training
  that was just finished. Weights that are pruned already arrive as zeros.
- `rng`: a `numpy.random.Generator`, for criteria that need chance.
- `scores`: a float array of the same shape, without NaN. `masks.prune` keeps the highest scores among the weights
  that are still kept; the scores of pruned weights are ignored.

The names and formulas are those of Zhou et al., "Deconstructing Lottery Tickets" (2019, arXiv 1905.01067, section 2
and Table 1 of its supplement). Ranking is not a criterion's business: counts are exact, and equal scores are ranked at
random, as in the authors' release. The last four, `snip`, `grad`, `grasp` and `synflow`, choose before
training, from the initial weights and a gradient at them.

Your own criterion is a function in your own file:

>>> import numpy as np
>>> @register
... def large_sum(initial, final, *, rng):
...     return np.abs(initial) + np.abs(final)
>>> get("large_sum") is large_sum
True
>>> _ = registry._functions.pop("large_sum")

and one that says that it needs a gradient is given it, an array of the kernel's shape that is 0 at pruned weights:

>>> @register(gradient="loss", trained=False)
... def downhill(initial, final, *, rng, gradient):
...     return -gradient * initial
>>> needs("downhill")
Needs(gradient='loss', trained=False, iterations=1, initial=True)
>>> _ = registry._functions.pop("downhill")
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tf_lottery.base.errors import LotteryError
from tf_lottery.base.registry import Registry

registry = Registry(
    "criterion",
    "tf_lottery.criteria",
    {"magnitude": "large_final", "low_magnitude": "large_final", "l1": "large_final", "gradient": "grad"},
)
get = registry.get


@dataclass(frozen=True)
class Needs:
    """What a criterion needs beside the initial weights.

    Attributes:
      gradient: The gradient that it is given as the keyword `gradient`, taken at the initial weights under the present mask:
        a name from `gradients` (`"loss"`, `"hessian_gradient"` or `"synaptic_flow"`) or a function, or None.
      trained: Whether it looks at the final weights.
      iterations: In how many steps a round is to be made, each with new scores under the mask that the step before left;
        after step k of n the share (1 - p)^(k / n) of the weights is kept.
      initial: Whether it looks at the initial weights; who prunes may give None to one that does not.
    """

    gradient: str | Callable | None = None
    trained: bool = True
    iterations: int = 1
    initial: bool = True


def register(function: Callable | None = None, name: str | None = None, **needed) -> Callable:
    """Registers a criterion, with what it needs: the fields of `Needs`; usable as a decorator, with or without them.

    Raises:
      LotteryError: If the name is taken by another function, or `iterations` is not a whole number of at least 1.
    """
    if function is None:
        return lambda function: register(function, name, **needed)
    wanted = Needs(**needed)
    if not isinstance(wanted.iterations, int) or wanted.iterations < 1:
        raise LotteryError(f"Expected iterations of at least 1, a whole number, but received {wanted.iterations!r}.")
    registry.register(function, name)
    if needed:
        function.needs = wanted  # type: ignore[attr-defined]  # functions carry attributes
    return function


def needs(criterion: str | Callable) -> Needs:
    """What a criterion, a name or a function, needs; a function that says nothing needs trained weights and no gradient."""
    wanted = getattr(get(criterion), "needs", None)
    return wanted if isinstance(wanted, Needs) else Needs()


def of_weights() -> list[str]:
    """The names of the registered criteria that look at weights alone."""
    return [name for name in registry if needs(name).gradient is None]


def without_gradient(criterion: str | Callable, where: str) -> Callable:
    """The criterion, if it can be had in the middle of a training.

    Raises:
      LotteryError: If it needs a gradient.
    """
    criterion = get(criterion)
    if needs(criterion).gradient is not None:
        raise LotteryError(
            f"Expected a criterion without gradients for {where}, but received {name_of(criterion)!r}, which prunes before training: "
            "use tf_lottery.prune or find_ticket."
        )
    return criterion


def score(criterion: Callable, initial, final, *, rng, gradient=None) -> np.ndarray:
    """The criterion's scores of one kernel; it sees the gradient only if there is one, and copies if it is not of this package.

    Raises:
      LotteryError: If they are not real numbers in the kernel's shape.
    """
    given = [initial, final, gradient]
    if not getattr(criterion, "__module__", "").startswith("tf_lottery."):  # it may work in place
        given = [None if array is None else np.array(array) for array in given]
    initial, final, gradient = given
    scores = np.asarray(criterion(initial, final, rng=rng, **({} if gradient is None else {"gradient": gradient})))
    if scores.dtype.kind not in "biuf" and scores.dtype.name != "bfloat16":
        raise LotteryError(
            f"Expected {name_of(criterion)} to return real numbers as scores, but received {scores.dtype.name}."
        )
    if scores.shape != np.shape(final):
        raise LotteryError(
            f"Expected scores of shape {np.shape(final)}, but the criterion {name_of(criterion)} returned shape {scores.shape}."
        )
    return scores


def name_of(criterion: Callable) -> str:
    """What messages and tickets call a criterion."""
    return getattr(criterion, "__name__", repr(criterion))


@register(initial=False)
def large_final(initial, final, *, rng):
    """`|w_f|`: magnitude pruning, the criterion of Frankle & Carbin (2019)."""
    return np.abs(final)


@register(initial=False)
def small_final(initial, final, *, rng):
    """`-|w_f|`: a control that keeps what magnitude pruning removes."""
    return -np.abs(final)


@register(trained=False)
def large_init(initial, final, *, rng):
    """`|w_i|`: magnitude at the start; training is not looked at."""
    return np.abs(initial)


@register(trained=False)
def small_init(initial, final, *, rng):
    """`-|w_i|`: a control."""
    return -np.abs(initial)


@register
def large_init_large_final(initial, final, *, rng):
    """`min(a |w_f|, |w_i|)`: large at the start and at the end.

    `a` aligns the percentiles of the two magnitudes, so the score is the smaller of the weight's two rank shares within
    its kernel: the weights above any cut are exactly those above one common percentile of `|w_i|` and of `|w_f|`.
    """
    return np.minimum(_rank_share(np.abs(final), equal=True), _rank_share(np.abs(initial), equal=True))


@register
def small_init_small_final(initial, final, *, rng):
    """`-max(a |w_f|, |w_i|)`: small at the start and at the end; `a` as in `large_init_large_final`."""
    return -np.maximum(_rank_share(np.abs(final)), _rank_share(np.abs(initial)))


@register
def magnitude_increase(initial, final, *, rng):
    """`|w_f| - |w_i|`: how much the magnitude grew."""
    return np.abs(final) - np.abs(initial)


@register
def movement(initial, final, *, rng):
    """`|w_f - w_i|`: how far the weight moved."""
    return np.abs(final - initial)


@register(trained=False, initial=False)
def random(initial, final, *, rng):
    """Uniform chance in [0, 1), from `rng`: the random mask of the same layer-wise densities."""
    return rng.random(np.shape(final))


@register
def large_final_same_sign(initial, final, *, rng):
    """`max(0, w_i w_f / |w_i|)`: `|w_f|` where the sign survived training, else 0.

    The criterion of the supermasks of Zhou et al. (section 4). A weight that starts at exactly 0 has no sign to keep
    and scores 0.
    """
    return np.maximum(0.0, np.sign(initial) * final)


@register
def large_final_diff_sign(initial, final, *, rng):
    """`max(0, -w_i w_f / |w_i|)`: `|w_f|` where the sign flipped, else 0; a control."""
    return np.maximum(0.0, -np.sign(initial) * final)


@register
def magnitude_increase_same_sign(initial, final, *, rng):
    """`|w_f| - |w_i|` where the sign survived training; every other weight ranks below all of those.

    The authors' release scores flipped weights 0, which ranks them above weights of the same sign that shrank. Here
    the condition comes first, as the name says.
    """
    return np.where(np.sign(initial) * final > 0, np.abs(final) - np.abs(initial), -np.inf)


@register
def magnitude_increase_diff_sign(initial, final, *, rng):
    """`|w_f| - |w_i|` where the sign flipped; every other weight ranks below all of those; a control."""
    return np.where(np.sign(initial) * final < 0, np.abs(final) - np.abs(initial), -np.inf)


@register(gradient="loss", trained=False)
def snip(initial, final, *, rng, gradient):
    """`|g w_i|`, g the gradient of the loss on one batch: how much the loss depends on the connection at all.

    Lee et al., "SNIP" (2019, arXiv 1810.02340, section 4.1); their network is pruned at once, before training:
    `one_shot=True`, `scope="global"`.
    """
    return np.abs(gradient * initial)


@register(gradient="loss", trained=False)
def grad(initial, final, *, rng, gradient):
    """`|g|`, g the gradient of the loss on one batch; in the release of Zhou et al. (2019) beside `snip`."""
    return np.abs(gradient)


@register(gradient="hessian_gradient", trained=False)
def grasp(initial, final, *, rng, gradient):
    """`w_i (H g)`, H the Hessian of the loss on one batch and g its gradient: what the flow of gradients rests on.

    Wang et al., "Picking Winning Tickets Before Training by Preserving Gradient Flow" (2020, arXiv 2002.07376, section 4),
    remove the weights of the highest `S = -w (H g)`; ranked globally, at once.
    """
    return gradient * initial


@register(gradient="synaptic_flow", trained=False, iterations=100)
def synflow(initial, final, *, rng, gradient):
    """`|w_i| dR/d|w_i|`, R the sum of the outputs of the net of absolute weights for an input of ones: no data, no loss.

    Tanaka et al., "Pruning neural networks without any data by iteratively conserving synaptic flow" (2020, arXiv
    2006.05467, section 6 and algorithm 1): 100 iterations, ranked globally, with `scope="global"`.
    """
    return np.abs(initial) * gradient


def _rank_share(values, equal: bool = False):
    """The share of the other entries that are smaller, or with `equal` not larger; entries that are equal have the same."""
    flat = np.ravel(values)
    order = np.argsort(flat)
    ascending = flat[order]
    first, places = np.append(True, ascending[1:] != ascending[:-1]), np.arange(flat.size)
    if equal:  # the place of the last of those that are equal, else that of the first
        ranks = np.minimum.accumulate(np.where(np.append(first[1:], True), places, flat.size)[::-1])[::-1]
    else:
        ranks = np.maximum.accumulate(np.where(first, places, 0))
    shares = np.empty(flat.size)
    shares[order] = ranks / max(flat.size, 1)
    return shares.reshape(np.shape(values))
