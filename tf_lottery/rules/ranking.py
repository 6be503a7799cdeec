"""Ranking: how scores become masks, with exact counts, equal scores in a random order, and what is pruned stays pruned.

One function ranks, `keep_top`; `prune` and `prune_to` say how many weights it keeps, and where they compete. NumPy only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tf_lottery.base.errors import LotteryError
from tf_lottery.rules import patterns

Arrays = dict[str, np.ndarray]  # variable path -> array
Axes = Mapping[str, tuple[int, ...]]  # variable path -> the axes that number the kernel's output channels, from the end
Seed = int | Sequence[int]  # what `numpy.random.default_rng` takes
SCOPES = ("layer", "global")  # where weights compete
CHANNEL_SCOPES = {"channels": "layer", "global_channels": "global"}  # where whole channels do


def keep_top(scores: np.ndarray, count: int, mask: np.ndarray | None = None, *, seed: Seed = 0) -> np.ndarray:
    """The mask that keeps the `count` highest scores among the weights that `mask` keeps.

    The count is exact for any scores: where more weights have the lowest score that is kept than there are places left, the
    seed draws which of them are kept. (A threshold would keep all of them or none; the first of them would be whole rows of
    the kernel.) Takes linear time (`numpy.partition`), not a sort.

    Args:
      scores: Float array of any shape, no NaN; higher = keep.
      count: How many weights to keep, in [0, weights kept by `mask`].
      mask: Array of the same shape, 1 = may be kept, 0 = pruned already; all ones by default.
      seed: Decides among equal scores: a whole number, or several.

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
    present = None if mask is None else np.reshape(mask, -1) != 0  # NumPy is ten times faster with booleans
    values = flat if present is None or present.all() else flat.take(np.flatnonzero(present))
    if np.isnan(values).any():
        raise LotteryError("Expected scores without NaN, but the criterion returned NaN.")
    if not 0 <= count <= values.size:
        raise LotteryError(f"Expected to keep between 0 and {values.size} weights, but received count={count}.")
    if not count:
        return np.zeros(scores.shape, np.uint8)
    cut = np.partition(values, values.size - count)[values.size - count]
    chosen, equal = flat > cut, flat == cut
    if values is not flat:
        chosen &= present
        equal &= present
    places, equals = count - int(np.count_nonzero(chosen)), int(np.count_nonzero(equal))
    if places == equals:
        chosen |= equal
    else:
        chosen[equal] = _drawn(equals, places, seed)
    return chosen.view(np.uint8).reshape(scores.shape)


def _drawn(size: int, count: int, seed: Seed) -> np.ndarray:
    """A random choice of `count` of `size`, as booleans; each is as likely as any other.

    Every one is drawn with the same probability, by one byte, and what is then short of the count or above it is drawn from
    the others: linear time, where a permutation waits for memory.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.bit_generator.random_raw(size // 8 + 1).view(np.uint8)[:size] < round(256 * count / size)
    excess = np.count_nonzero(drawn) - count
    others = np.flatnonzero(drawn == (excess > 0))
    drawn[rng.choice(others, abs(excess), replace=False, shuffle=False)] ^= True
    return drawn


def seed_of(seed: Seed, *parts: int) -> list[int]:
    """A seed of its own for a part of what `seed` decides."""
    return [*np.atleast_1d(seed).tolist(), *parts]


def prune(
    masks: Mapping[str, np.ndarray],
    scores: Mapping[str, np.ndarray],
    fractions: Mapping[str, float],
    *,
    scope: str = "layer",
    axes: Axes | None = None,
    min_per_kernel: int = 1,
    seed: Seed = 0,
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
      seed: Decides among equal scores, in each kernel anew, by its place among the masks; see `keep_top`.

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
        step = functools.partial(prune, min_per_kernel=min_per_kernel, seed=seed)
        return _whole_channels(step, masks, scores, fractions, CHANNEL_SCOPES[scope], axes)
    kept = {path: int(np.count_nonzero(mask)) for path, mask in masks.items()}
    if scope == "global":
        total = sum(kept[path] for path in masks if fractions[path])
        count = total - round(max(fractions.values(), default=0) * total)
        return _keep_globally(masks, scores, [path for path in masks if fractions[path]], count, min_per_kernel, seed)
    counts = {path: kept[path] - round(fractions[path] * kept[path]) for path in masks}
    return _keep_by_layer(masks, scores, counts, min_per_kernel, seed)


def prune_to(
    masks: Mapping[str, np.ndarray],
    scores: Mapping[str, np.ndarray],
    densities: Mapping[str, float],
    *,
    scope: str = "layer",
    axes: Axes | None = None,
    seed: Seed = 0,
) -> Arrays:
    """Prunes down to a density: `round(density * size)` weights of each kernel are kept.

    What is pruned stays pruned: a kernel that is sparser than its density is left as it is. With `scope="global"` all kernels
    whose density is below 1 compete, and together they keep `round(density * size)`; their densities must be equal. At least
    one weight of each kernel is kept. With whole channels the densities are shares of the channels.

    Args:
      masks, scores, scope, axes, seed: As for `prune`.
      densities: For each path the share of *all* its weights to keep, in [0, 1].

    Examples:

    >>> ones, scores = {"a": np.ones(4, np.uint8)}, {"a": np.arange(4.0)}
    >>> half = prune_to(ones, scores, {"a": 0.5})
    >>> half, prune_to(half, scores, {"a": 0.75})
    ({'a': array([0, 0, 1, 1], dtype=uint8)}, {'a': array([0, 0, 1, 1], dtype=uint8)})
    """
    check_scope(scope, {path: 1 - density for path, density in densities.items()}, of="density", axes=axes)
    if scope in CHANNEL_SCOPES:
        step = functools.partial(prune_to, seed=seed)
        return _whole_channels(step, masks, scores, densities, CHANNEL_SCOPES[scope], axes)
    if scope == "global":
        competing = [path for path in masks if densities[path] < 1]
        count = round(min(densities.values(), default=1) * sum(masks[path].size for path in competing))
        return _keep_globally(masks, scores, competing, count, 1, seed)
    counts = {path: round(densities[path] * mask.size) for path, mask in masks.items()}
    return _keep_by_layer(masks, scores, counts, 1, seed)


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


def _keep_by_layer(masks, scores, counts, least: int, seed: Seed) -> Arrays:
    new = {}
    for place, (path, mask) in enumerate(masks.items()):
        _check_scores(mask, scores[path], path)
        kept = int(np.count_nonzero(mask))
        new[path] = keep_top(scores[path], min(kept, max(counts[path], least)), mask, seed=seed_of(seed, place))
    return new


def _keep_globally(masks, scores, competing, count, least: int, seed: Seed) -> Arrays:
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
    chosen, forced = keep_top(ranked, count, mask, seed=seed), np.zeros(mask.size, np.uint8)
    while short := [(part, needed) for part, needed in parts if np.count_nonzero(chosen[part]) < needed]:
        for part, needed in short:  # the best of each kernel survive whatever others have, so that none is cut through
            forced[part] = keep_top(ranked[part], needed, mask[part], seed=seed)
        chosen = forced | keep_top(ranked, count - int(forced.sum()), mask & ~forced, seed=seed)
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
