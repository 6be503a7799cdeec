"""Masks: 1 = kept, 0 = pruned; one array per kernel, in the kernel's shape, under the kernel's path.

Exact counts, ties by index, and a pruned weight stays pruned. NumPy only.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence

import numpy as np

from tf_lottery.errors import LotteryError

Arrays = dict[str, np.ndarray]  # variable path -> array
SCOPES = ("layer", "global")


def keep_top(scores: np.ndarray, count: int, mask: np.ndarray | None = None) -> np.ndarray:
    """The mask that keeps the `count` highest scores among the weights that `mask` keeps.

    Ties are broken by index, the lower one is kept, so the count is exact for any scores: a threshold would prune or
    keep all equal weights at once. Takes linear time (`numpy.partition`), not a sort.

    Args:
      scores: Float array of any shape, no NaN; higher = keep.
      count: How many weights to keep, in [0, weights kept by `mask`].
      mask: Array of the same shape, 1 = may be kept, 0 = pruned already; all ones by default.

    Returns:
      uint8 array of the shape of `scores` with exactly `count` ones.

    Raises:
      LotteryError: If a score is NaN or the count is out of range.

    Example:

    >>> keep_top(np.array([3.0, 1.0, 3.0, 2.0]), 2)
    array([1, 0, 1, 0], dtype=uint8)
    >>> keep_top(np.array([3.0, 1.0, 3.0, 2.0]), 2, mask=np.array([0, 1, 1, 1]))
    array([0, 0, 1, 1], dtype=uint8)
    """
    scores = np.asarray(scores)
    flat = scores.reshape(-1)
    candidates = None if mask is None or np.all(mask) else np.flatnonzero(mask)
    values = flat if candidates is None else flat[candidates]
    if np.isnan(values).any():
        raise LotteryError("Expected scores without NaN, but the criterion returned NaN.")
    if not 0 <= count <= values.size:
        raise LotteryError(f"Expected to keep between 0 and {values.size} weights, but received count={count}.")
    chosen = np.zeros(values.size, bool)
    if count:
        cut = np.partition(values, values.size - count)[values.size - count]
        np.greater(values, cut, out=chosen)
        ties = np.flatnonzero(values == cut)
        chosen[ties[: count - np.count_nonzero(chosen)]] = True
    if candidates is None:
        return chosen.view(np.uint8).reshape(scores.shape)
    kept = np.zeros(flat.size, np.uint8)
    kept[candidates] = chosen
    return kept.reshape(scores.shape)


def prune(
    masks: Mapping[str, np.ndarray],
    scores: Mapping[str, np.ndarray],
    fractions: Mapping[str, float],
    *,
    scope: str = "layer",
) -> Arrays:
    """One pruning round: removes the lowest scores among the weights that are still kept.

    With `scope="layer"` each kernel loses `round(fraction * kept)` of its own weights. With `scope="global"` all kernels
    whose fraction is not 0 compete, and together they lose `round(fraction * kept)`; their fractions must be equal. A
    fraction of 0 leaves a kernel as it is. At least one weight of each kernel is kept.

    Args:
      masks: The present masks.
      scores: Scores in the same shapes; see `criteria`.
      fractions: For each path the share of its remaining weights to remove, in [0, 1).
      scope: `"layer"` or `"global"`.

    Returns:
      The new masks; each is contained in the old one.

    Example:

    >>> ones = {"a": np.ones(4, np.uint8), "b": np.ones(4, np.uint8)}
    >>> scores = {"a": np.arange(4.0), "b": np.arange(4.0) + 2}
    >>> prune(ones, scores, {"a": 0.5, "b": 0.25})
    {'a': array([0, 0, 1, 1], dtype=uint8), 'b': array([0, 1, 1, 1], dtype=uint8)}
    >>> prune(ones, scores, {"a": 0.5, "b": 0.5}, scope="global")
    {'a': array([0, 0, 0, 1], dtype=uint8), 'b': array([0, 1, 1, 1], dtype=uint8)}
    """
    check_scope(scope, fractions)
    kept = {path: int(np.count_nonzero(mask)) for path, mask in masks.items()}
    if scope == "global":
        total = sum(kept[path] for path in masks if fractions[path])
        count = total - round(max(fractions.values(), default=0) * total)
        return _keep_globally(masks, scores, [path for path in masks if fractions[path]], count)
    return _keep_by_layer(masks, scores, {path: kept[path] - round(fractions[path] * kept[path]) for path in masks})


def prune_to(
    masks: Mapping[str, np.ndarray],
    scores: Mapping[str, np.ndarray],
    densities: Mapping[str, float],
    *,
    scope: str = "layer",
) -> Arrays:
    """Prunes down to a density: `round(density * size)` weights of each kernel are kept.

    What is pruned stays pruned: a kernel that is sparser than its density is left as it is. With `scope="global"` all kernels
    whose density is below 1 compete, and together they keep `round(density * size)`; their densities must be equal. At least
    one weight of each kernel is kept.

    Args:
      masks, scores, scope: As for `prune`.
      densities: For each path the share of *all* its weights to keep, in [0, 1].

    Example:

    >>> ones, scores = {"a": np.ones(4, np.uint8)}, {"a": np.arange(4.0)}
    >>> half = prune_to(ones, scores, {"a": 0.5})
    >>> half, prune_to(half, scores, {"a": 0.75})
    ({'a': array([0, 0, 1, 1], dtype=uint8)}, {'a': array([0, 0, 1, 1], dtype=uint8)})
    """
    check_scope(scope, {path: 1 - density for path, density in densities.items()}, of="density")
    if scope == "global":
        competing = [path for path in masks if densities[path] < 1]
        count = round(min(densities.values(), default=1) * sum(masks[path].size for path in competing))
        return _keep_globally(masks, scores, competing, count)
    return _keep_by_layer(masks, scores, {path: round(densities[path] * mask.size) for path, mask in masks.items()})


def check_scope(scope: str, fractions: Mapping[str, float], of: str = "prune_fraction") -> None:
    """Checks that the scope is known, and that all kernels that compete in a global one have the same fraction."""
    if scope not in SCOPES:
        raise LotteryError(f"Expected scope to be one of {', '.join(SCOPES)}, but received {scope!r}.")
    rates = {rate for rate in fractions.values() if rate}
    if scope == "global" and len(rates) > 1:
        dense = 0 if of == "prune_fraction" else 1
        given = rates if of == "prune_fraction" else {round(1 - rate, 9) for rate in rates}
        raise LotteryError(
            f"Expected one {of} for all kernels that compete under scope='global' ({dense} leaves a kernel out), but "
            f"received {', '.join(map(str, sorted(given)))}."
        )


def _check_scores(mask: np.ndarray, scores: np.ndarray, path: str) -> None:
    if np.shape(scores) != np.shape(mask):
        raise LotteryError(
            f"Expected scores of shape {np.shape(mask)} for kernel {path!r}, but the criterion returned shape {np.shape(scores)}."
        )


def _keep_by_layer(masks, scores, counts) -> Arrays:
    new = {}
    for path, mask in masks.items():
        _check_scores(mask, scores[path], path)
        kept = int(np.count_nonzero(mask))
        new[path] = keep_top(scores[path], min(kept, max(counts[path], 1)), mask)
    return new


def _keep_globally(masks, scores, competing, count) -> Arrays:
    for path, mask in masks.items():
        _check_scores(mask, scores[path], path)
    new = {path: np.array(mask, np.uint8) for path, mask in masks.items()}
    if not competing:
        return new
    ends = np.cumsum([new[path].size for path in competing])
    mask = np.concatenate([new[path].reshape(-1) for path in competing])
    ranked = np.concatenate([np.reshape(scores[path], -1) for path in competing])
    emptiable = [part for part in map(slice, [0, *ends[:-1]], ends) if mask[part].any()]
    count = max(min(count, int(np.count_nonzero(mask))), len(emptiable))
    chosen, forced = keep_top(ranked, count, mask), np.zeros(mask.size, np.uint8)
    while emptied := [part for part in emptiable if not chosen[part].any()]:
        for part in emptied:  # the best weight of each kernel always survives, so that no kernel is cut through
            kept = part.start + np.flatnonzero(mask[part])
            forced[kept[np.argmax(ranked[kept])]] = 1
        chosen = forced | keep_top(ranked, count - int(forced.sum()), mask & ~forced)
    for path, part in zip(competing, np.split(chosen, ends[:-1])):
        new[path] = part.reshape(new[path].shape)
    return new


def erdos_renyi_kernel(shapes: Mapping[str, Sequence[int]], density: float) -> dict[str, float]:
    """Layer-wise densities that spare small and narrow kernels: each in proportion to (sum of its dimensions) / (their product).

        density_l = min(1, e * (n_in + n_out + w + h) / (n_in * n_out * w * h))

    with the one factor `e` that makes the density of the whole network `density`; kernels that would exceed 1 stay dense.

    Args:
      shapes: For each path the kernel's shape.
      density: Of all kernels together, in (0, 1].

    Example:

    >>> densities = erdos_renyi_kernel({"large": (784, 300), "small": (100, 10)}, 0.1)
    >>> {path: round(density, 3) for path, density in densities.items()}
    {'large': 0.096, 'small': 1.0}

    Reference: Evci et al., "Rigging the Lottery" (2020, arXiv 1911.11134), section 3; kernels after Mocanu et al. (2018).
    """
    check_density(density)
    sizes = {path: int(np.prod(shape)) for path, shape in shapes.items()}
    sums = {path: sum(shape) for path, shape in shapes.items()}
    dense: set[str] = set()
    while True:
        room = density * sum(sizes.values()) - sum(sizes[path] for path in dense)
        free = [path for path in shapes if path not in dense]
        factor = room / sum(sums[path] for path in free) if free else 0.0
        densities = {path: 1.0 if path in dense else factor * sums[path] / sizes[path] for path in shapes}
        if not (over := {path for path in free if densities[path] > 1}):
            return densities
        dense |= over


def uniform(shapes: Mapping[str, Sequence[int]], density: float) -> dict[str, float]:
    """The same density for every kernel."""
    check_density(density)
    return dict.fromkeys(shapes, density)


def check_density(density: float) -> None:
    """Checks that it is a number in (0, 1]."""
    if not isinstance(density, numbers.Real) or not 0 < density <= 1:
        raise LotteryError(f"Expected a density in (0, 1], but received {density!r}.")


def density(masks: Mapping[str, np.ndarray]) -> float:
    """Weights kept / weights prunable, in [0, 1]; the papers' P_m is this in percent."""
    total = sum(mask.size for mask in masks.values())
    return sum(int(np.count_nonzero(mask)) for mask in masks.values()) / total if total else 1.0


def checked(masks: Mapping[str, np.ndarray], shapes: Mapping[str, tuple]) -> Arrays:
    """The masks as uint8 arrays, after checking that every path is known, every shape fits and every value is 0 or 1.

    Raises:
      LotteryError: Names the first kernel that does not fit.
    """
    good = {}
    for path, mask in masks.items():
        if path not in shapes:
            raise LotteryError(f"Expected masks for kernels among {', '.join(shapes)}, but received one for {path!r}.")
        mask = np.asarray(mask)
        if mask.shape != tuple(shapes[path]):
            raise LotteryError(
                f"Expected a mask of shape {tuple(shapes[path])} for kernel {path!r}, but received shape {mask.shape}."
            )
        if not np.isin(mask, (0, 1)).all():
            raise LotteryError(f"Expected a mask of zeros and ones for kernel {path!r}, but received other values.")
        good[path] = mask.astype(np.uint8)
    return good


def shuffled(masks: Mapping[str, np.ndarray], rng: np.random.Generator) -> Arrays:
    """Random masks of the same layer-wise densities: each mask's entries in random order."""
    return {path: rng.permutation(np.reshape(mask, -1)).reshape(np.shape(mask)) for path, mask in masks.items()}
