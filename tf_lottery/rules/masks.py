"""Masks: 1 = kept, 0 = pruned; one array per kernel, in the kernel's shape, under the kernel's path.

Exact counts, ties by index, and a pruned weight stays pruned. NumPy only.
"""

from __future__ import annotations

import functools
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tf_lottery.base.errors import LotteryError
from tf_lottery.rules import patterns

Arrays = dict[str, np.ndarray]  # variable path -> array
Axes = Mapping[str, tuple[int, ...]]  # variable path -> the axes that number the kernel's output channels, from the end
SCOPES = ("layer", "global")  # where weights compete
CHANNEL_SCOPES = {"channels": "layer", "global_channels": "global"}  # where whole channels do


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

    Examples:

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
    axes: Axes | None = None,
    min_per_kernel: int = 1,
) -> Arrays:
    """One pruning round: removes the lowest scores among the weights that are still kept.

    With `scope="layer"` each kernel loses `round(fraction * kept)` of its own weights. With `scope="global"` all kernels
    whose fraction is not 0 compete, and together they lose `round(fraction * kept)`; their fractions must be equal. A
    fraction of 0 leaves a kernel as it is.

    With `scope="channels"` and `scope="global_channels"` the same is done with output channels in the place of weights: whole
    channels compete by `patterns.channel_scores`, and a fraction is the share of the remaining channels. Kernels that are
    not in `axes` stay as they are.

    Args:
      masks: The present masks.
      scores: Scores in the same shapes; see `criteria`.
      fractions: For each path the share of its remaining weights to remove, in [0, 1).
      scope: `"layer"`, `"global"`, `"channels"` or `"global_channels"`.
      axes: For each path whose channels can be removed, the axes that number them; for the last two scopes.
      min_per_kernel: How many weights of each kernel are kept whatever their scores, or how many of its channels; 0 lets a
        kernel be emptied.

    Returns:
      The new masks; each is contained in the old one.

    Examples:

    >>> ones = {"a": np.ones(4, np.uint8), "b": np.ones(4, np.uint8)}
    >>> scores = {"a": np.arange(4.0), "b": np.arange(4.0) + 2}
    >>> prune(ones, scores, {"a": 0.5, "b": 0.25})
    {'a': array([0, 0, 1, 1], dtype=uint8), 'b': array([0, 1, 1, 1], dtype=uint8)}
    >>> prune(ones, scores, {"a": 0.5, "b": 0.5}, scope="global")
    {'a': array([0, 0, 0, 1], dtype=uint8), 'b': array([0, 1, 1, 1], dtype=uint8)}
    """
    check_scope(scope, fractions, axes=axes)
    if scope in CHANNEL_SCOPES:
        step = functools.partial(prune, min_per_kernel=min_per_kernel)
        return _whole_channels(step, masks, scores, fractions, CHANNEL_SCOPES[scope], axes)
    kept = {path: int(np.count_nonzero(mask)) for path, mask in masks.items()}
    if scope == "global":
        total = sum(kept[path] for path in masks if fractions[path])
        count = total - round(max(fractions.values(), default=0) * total)
        return _keep_globally(masks, scores, [path for path in masks if fractions[path]], count, min_per_kernel)
    counts = {path: kept[path] - round(fractions[path] * kept[path]) for path in masks}
    return _keep_by_layer(masks, scores, counts, min_per_kernel)


def prune_to(
    masks: Mapping[str, np.ndarray],
    scores: Mapping[str, np.ndarray],
    densities: Mapping[str, float],
    *,
    scope: str = "layer",
    axes: Axes | None = None,
) -> Arrays:
    """Prunes down to a density: `round(density * size)` weights of each kernel are kept.

    What is pruned stays pruned: a kernel that is sparser than its density is left as it is. With `scope="global"` all kernels
    whose density is below 1 compete, and together they keep `round(density * size)`; their densities must be equal. At least
    one weight of each kernel is kept. With whole channels the densities are shares of the channels.

    Args:
      masks, scores, scope, axes: As for `prune`.
      densities: For each path the share of *all* its weights to keep, in [0, 1].

    Examples:

    >>> ones, scores = {"a": np.ones(4, np.uint8)}, {"a": np.arange(4.0)}
    >>> half = prune_to(ones, scores, {"a": 0.5})
    >>> half, prune_to(half, scores, {"a": 0.75})
    ({'a': array([0, 0, 1, 1], dtype=uint8)}, {'a': array([0, 0, 1, 1], dtype=uint8)})
    """
    check_scope(scope, {path: 1 - density for path, density in densities.items()}, of="density", axes=axes)
    if scope in CHANNEL_SCOPES:
        return _whole_channels(prune_to, masks, scores, densities, CHANNEL_SCOPES[scope], axes)
    if scope == "global":
        competing = [path for path in masks if densities[path] < 1]
        count = round(min(densities.values(), default=1) * sum(masks[path].size for path in competing))
        return _keep_globally(masks, scores, competing, count, least=1)
    counts = {path: round(densities[path] * mask.size) for path, mask in masks.items()}
    return _keep_by_layer(masks, scores, counts, least=1)


def check_scope(
    scope: str, fractions: Mapping[str, float], of: str = "prune_fraction", axes: Axes | None = None
) -> None:
    """Checks that the scope is known, and that all kernels that compete in a global one have the same fraction."""
    if scope not in (known := (*SCOPES, *CHANNEL_SCOPES)):
        raise LotteryError(f"Expected scope to be one of {', '.join(known)}, but received {scope!r}.")
    rates = {rate for path, rate in fractions.items() if rate and (axes is None or path in axes)}
    if CHANNEL_SCOPES.get(scope, scope) == "global" and len(rates) > 1:
        dense = 0 if of == "prune_fraction" else 1
        given = rates if of == "prune_fraction" else {round(1 - rate, 9) for rate in rates}
        raise LotteryError(
            f"Expected one {of} for all kernels that compete under scope={scope!r} ({dense} leaves a kernel out), but "
            f"received {', '.join(map(str, sorted(given)))}."
        )


def _check_scores(mask: np.ndarray, scores: np.ndarray, path: str) -> None:
    if np.shape(scores) != np.shape(mask):
        raise LotteryError(
            f"Expected scores of shape {np.shape(mask)} for kernel {path!r}, but the criterion returned shape {np.shape(scores)}."
        )


def _keep_by_layer(masks, scores, counts, least: int) -> Arrays:
    new = {}
    for path, mask in masks.items():
        _check_scores(mask, scores[path], path)
        kept = int(np.count_nonzero(mask))
        new[path] = keep_top(scores[path], min(kept, max(counts[path], least)), mask)
    return new


def _keep_globally(masks, scores, competing, count, least: int) -> Arrays:
    for path, mask in masks.items():
        _check_scores(mask, scores[path], path)
    new = {path: np.array(mask, np.uint8) for path, mask in masks.items()}
    if not competing:
        return new
    ends = np.cumsum([new[path].size for path in competing])
    mask = np.concatenate([new[path].reshape(-1) for path in competing])
    ranked = np.concatenate([np.reshape(scores[path], -1) for path in competing])
    parts = [(part, min(least, int(np.count_nonzero(mask[part])))) for part in map(slice, [0, *ends[:-1]], ends)]
    count = max(min(count, int(np.count_nonzero(mask))), sum(needed for _, needed in parts))
    chosen, forced = keep_top(ranked, count, mask), np.zeros(mask.size, np.uint8)
    while short := [(part, needed) for part, needed in parts if np.count_nonzero(chosen[part]) < needed]:
        for part, needed in short:  # the best of each kernel survive whatever others have, so that none is cut through
            forced[part] = keep_top(ranked[part], needed, mask[part])
        chosen = forced | keep_top(ranked, count - int(forced.sum()), mask & ~forced)
    for path, own in zip(competing, np.split(chosen, ends[:-1])):
        new[path] = own.reshape(new[path].shape)
    return new


def _whole_channels(step: Callable, masks, scores, shares, scope: str, axes: Axes | None) -> Arrays:
    """`step`, with one entry for each output channel in the place of the weights."""
    if axes is None:
        raise LotteryError("Expected the axes of the kernels whose whole channels compete, but received none.")
    for path in axes:
        _check_scores(masks[path], scores[path], path)
    chosen = step(
        {path: patterns.channel_mask(masks[path], axes[path]) for path in axes},
        {path: patterns.channel_scores(scores[path], masks[path], axes[path]) for path in axes},
        {path: shares[path] for path in axes},
        scope=scope,
    )
    new = {path: np.array(mask, np.uint8) for path, mask in masks.items()}
    for path, channels in chosen.items():
        new[path] *= patterns.expand_channels(channels, axes[path], new[path].shape)
    return new


def erdos_renyi_kernel(shapes: Mapping[str, Sequence[int]], density: float) -> dict[str, float]:
    """Layer-wise densities that spare small and narrow kernels: each in proportion to (sum of its dimensions) / (their product).

        density_l = min(1, e * (n_in + n_out + w + h) / (n_in * n_out * w * h))

    with the one factor `e` that makes the density of the whole network `density`; kernels that would exceed 1 stay dense.

    Args:
      shapes: For each path the kernel's shape.
      density: Of all kernels together, in (0, 1].

    Examples:

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


def shuffled(masks: Mapping[str, np.ndarray], rng: np.random.Generator, axes: Axes | None = None) -> Arrays:
    """Random masks of the same layer-wise densities: each mask's entries in random order, or with `axes` its channels."""
    if axes is None:
        return {path: rng.permutation(np.reshape(mask, -1)).reshape(np.shape(mask)) for path, mask in masks.items()}
    new = dict(masks)
    for path, own in axes.items():
        order = rng.permutation(patterns.channel_mask(masks[path], own).size)
        new[path] = patterns.permute_channels(masks[path], order, own)
    return new


class Overlap(NamedTuple):
    """What two masks of one shape have in common, in numbers of weights."""

    size: int
    one: int  # kept by the one
    other: int
    both: int

    @property
    def by_chance(self) -> float:
        """How many both would keep if one of them were shuffled: one * other / size."""
        return self.one * self.other / self.size if self.size else 0.0

    @property
    def against_chance(self) -> float:
        """both / by_chance: 1 is chance, two equal masks of density d have 1 / d; NaN if one of them is empty."""
        return self.both / self.by_chance if self.by_chance else math.nan

    @property
    def jaccard(self) -> float:
        """Kept by both / kept by at least one: 1 = the same mask, 0 = nothing in common; of two empty masks 1."""
        union = self.one + self.other - self.both
        return self.both / union if union else 1.0


def overlap(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> dict[str, Overlap]:
    """Compares masks kernel by kernel, under the paths of `one`: matched by path, or if these differ in order.

    Raises:
      LotteryError: If they are not masks of the same kernels.

    Examples:

    >>> overlap({"kernel": np.array([1, 1, 0, 0])}, {"kernel": np.array([1, 0, 0, 0])})
    {'kernel': Overlap(size=4, one=2, other=1, both=1)}
    """
    pairs = {path: path for path in one} if one.keys() == other.keys() else dict(zip(one, other))
    found = {}
    for path, name in pairs.items():
        a, b = np.asarray(one[path], bool), np.asarray(other[name], bool)
        if a.shape != b.shape:
            raise LotteryError(f"Expected masks of one shape for {path!r}, but received {a.shape} and {b.shape}.")
        found[path] = Overlap(a.size, *(int(np.count_nonzero(kept)) for kept in (a, b, a & b)))
    if len(one) != len(other):
        raise LotteryError(f"Expected masks of the same kernels, but received {len(one)} and {len(other)} masks.")
    return found
