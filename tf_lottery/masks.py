"""Masks: 1 = kept, 0 = pruned; one array per kernel, in the kernel's shape, under the kernel's path.

Exact counts, ties by index, and a pruned weight stays pruned. NumPy only.
"""

from __future__ import annotations

from collections.abc import Mapping

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
    for path, mask in masks.items():
        if np.shape(scores[path]) != np.shape(mask):
            raise LotteryError(
                f"Expected scores of shape {np.shape(mask)} for kernel {path!r}, but the criterion returned shape {np.shape(scores[path])}."
            )
    check_scope(scope, fractions)
    if scope == "global":
        return _prune_globally(masks, scores, fractions)
    return {path: keep_top(scores[path], _remaining(mask, fractions[path]), mask) for path, mask in masks.items()}


def check_scope(scope: str, fractions: Mapping[str, float]) -> None:
    """Checks that the scope is known, and that all kernels that compete in a global one have the same fraction."""
    if scope not in SCOPES:
        raise LotteryError(f"Expected scope to be one of {', '.join(SCOPES)}, but received {scope!r}.")
    rates = {rate for rate in fractions.values() if rate}
    if scope == "global" and len(rates) > 1:
        raise LotteryError(
            "Expected one prune_fraction for all kernels that compete under scope='global' (0 leaves a kernel out), but "
            f"received {', '.join(map(str, sorted(rates)))}."
        )


def _remaining(mask: np.ndarray, fraction: float) -> int:
    kept = int(np.count_nonzero(mask))
    return max(kept - round(fraction * kept), min(kept, 1))


def _prune_globally(masks, scores, fractions) -> Arrays:
    competing = [path for path in masks if fractions[path]]
    rates = {fractions[path] for path in competing}
    new = {path: np.array(mask, np.uint8) for path, mask in masks.items()}
    if not competing:
        return new
    ends = np.cumsum([new[path].size for path in competing])
    mask = np.concatenate([new[path].reshape(-1) for path in competing])
    ranked = np.concatenate([np.reshape(scores[path], -1) for path in competing])
    emptiable = [part for part in map(slice, [0, *ends[:-1]], ends) if mask[part].any()]
    count = max(_remaining(mask, rates.pop()), len(emptiable))
    chosen, forced = keep_top(ranked, count, mask), np.zeros(mask.size, np.uint8)
    while emptied := [part for part in emptiable if not chosen[part].any()]:
        for part in emptied:  # the best weight of each kernel always survives, so that no kernel is cut through
            kept = part.start + np.flatnonzero(mask[part])
            forced[kept[np.argmax(ranked[kept])]] = 1
        chosen = forced | keep_top(ranked, count - int(forced.sum()), mask & ~forced)
    for path, part in zip(competing, np.split(chosen, ends[:-1])):
        new[path] = part.reshape(new[path].shape)
    return new


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
