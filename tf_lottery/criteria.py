"""Mask criteria: plain functions that score every weight of a kernel; the highest scores are kept.

A criterion is `criterion(initial, final, *, rng) -> scores`:

- `initial`, `final`: float arrays of the kernel's shape, the weights at the start and at the end of the training
  that was just finished. Weights that are pruned already arrive as zeros.
- `rng`: a `numpy.random.Generator`, for criteria that need chance.
- `scores`: a float array of the same shape, without NaN. `masks.prune` keeps the highest scores among the weights
  that are still kept; the scores of pruned weights are ignored.

The names and formulas are those of Zhou et al., "Deconstructing Lottery Tickets" (2019, arXiv 1905.01067, section 2
and Table 1 of its supplement). Ranking is not a criterion's business: counts are exact and ties go to the lower index,
where the authors' release breaks them at random.

Your own criterion is a function in your own file:

>>> import numpy as np
>>> @register
... def large_sum(initial, final, *, rng):
...     return np.abs(initial) + np.abs(final)
>>> get("large_sum") is large_sum
True
>>> _ = registry._functions.pop("large_sum")
"""

from __future__ import annotations

import numpy as np

from tf_lottery.registry import Registry

registry = Registry("criterion")
register, get = registry.register, registry.get


@register
def large_final(initial, final, *, rng):
    """`|w_f|`: magnitude pruning, the criterion of Frankle & Carbin (2019)."""
    return np.abs(final)


@register
def small_final(initial, final, *, rng):
    """`-|w_f|`: a control that keeps what magnitude pruning removes."""
    return -np.abs(final)


@register
def large_init(initial, final, *, rng):
    """`|w_i|`: magnitude at the start; training is not looked at."""
    return np.abs(initial)


@register
def small_init(initial, final, *, rng):
    """`-|w_i|`: a control."""
    return -np.abs(initial)


@register
def large_init_large_final(initial, final, *, rng):
    """`min(a |w_f|, |w_i|)`: large at the start and at the end.

    `a` aligns the percentiles of the two magnitudes, so the score is the smaller of the weight's two rank shares within
    its kernel: the weights above any cut are exactly those above one common percentile of `|w_i|` and of `|w_f|`.
    """
    return np.minimum(_rank_share(np.abs(final)), _rank_share(np.abs(initial)))


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


@register
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


def _rank_share(values):
    """The share of entries that are smaller, in [0, 1); entries that are equal rank by index, the earlier one higher."""
    flat = np.ravel(values)
    ranks = np.empty(flat.size)
    ranks[np.argsort(flat[::-1], kind="stable")] = np.arange(flat.size)
    return (ranks[::-1] / max(flat.size, 1)).reshape(np.shape(values))
