"""Treatments: what weights start the next level from, once a mask is chosen.

Two questions, two kinds of plain function, both on whole kernels:

- A **survivors** treatment answers for the weights that are kept. `survivors(initial, final, *, mask, rng, draw, scale)`
  returns an array of the kernel's shape; its values at pruned positions are not used.
- A **pruned** treatment answers for the weights that are not. `pruned(start, initial, final, *, mask, rng)` is given what
  the survivors treatment returned and returns the whole kernel: where the mask is 1 the value training starts from, where it
  is 0 the value the weight is frozen at.

The arguments, for one kernel:

- `initial`, `final`: its weights at the start and at the end of the level before, frozen ones included. So treatments
  compose over rounds, as in Zhou et al. (2019).
- `mask`: the new mask, 1 = kept.
- `rng`: a `numpy.random.Generator`; the two kinds have each their own, so that neither changes the other's draws.
- `draw`: `draw()` returns a fresh sample of the kernel from its layer's own initializer.
- `scale`: the standard deviation of the initial values of the search's first level, all of the kernel's (population formula).

References: Frankle & Carbin (2019), section 2 (rewind, reinit); Zhou et al. (2019), section 3 (what pruned weights hold)
and section 4 (signs); Renda et al. (2020, arXiv 2003.02389) for `keep`, there "learning rate rewinding".

>>> import numpy as np
>>> rng, mask = np.random.default_rng(0), np.array([1, 0, 1, 1])
>>> initial, final = np.array([0.1, 0.2, -0.3, -0.4]), np.array([0.3, 0.1, -0.6, -0.1])
>>> start = get_survivors("constant_same_sign")(initial, final, mask=mask, rng=rng, draw=None, scale=0.5)
>>> get_pruned("zero")(start, initial, final, mask=mask, rng=rng)
array([ 0.5,  0. , -0.5, -0.5])
"""

from __future__ import annotations

import numpy as np

from tf_lottery.base.registry import Registry

survivors_registry = Registry("survivors treatment", "tf_lottery.treatments.survivors")
survivors, get_survivors = survivors_registry.register, survivors_registry.get

pruned_registry = Registry("pruned treatment", "tf_lottery.treatments.pruned")
pruned, get_pruned = pruned_registry.register, pruned_registry.get


@survivors
def rewind(initial, final, **_):
    """Back to the values the level before started from: the lottery ticket of Frankle & Carbin."""
    return initial


@survivors
def keep(initial, final, **_):
    """The trained values stay and only the learning-rate schedule starts anew: learning-rate rewinding."""
    return final


@survivors
def reinit(initial, final, *, draw, **_):
    """A fresh draw from the layer's own initializer: the control of Frankle & Carbin.

    The release of Zhou et al. permutes the kernel's own initial values instead.
    """
    return draw()


@survivors
def reshuffle(initial, final, *, mask, rng, **_):
    """The kept weights' initial values, permuted among the kept weights of the kernel."""
    start = np.array(initial)
    kept = np.asarray(mask, bool)
    start[kept] = rng.permutation(start[kept])
    return start


@survivors
def constant(initial, final, *, rng, scale, **_):
    """`+scale` or `-scale`, each with probability 1/2."""
    return np.where(rng.random(np.shape(initial)) < 0.5, -scale, scale).astype(np.asarray(initial).dtype)


def _same_sign(treatment):
    """The treatment's magnitudes under the signs of the initial values; a weight that starts at 0 stays there."""

    def with_signs(initial, final, **context):
        return np.abs(treatment(initial, final, **context)) * np.sign(initial)

    with_signs.__doc__ = f"The magnitudes of `{treatment.__name__}`, each under the sign of the weight's initial value."
    with_signs.__name__ = f"{treatment.__name__}_same_sign"
    return survivors(with_signs)


reinit_same_sign = _same_sign(reinit)
reshuffle_same_sign = _same_sign(reshuffle)
constant_same_sign = _same_sign(constant)


@pruned
def zero(start, initial, final, *, mask, **_):
    """Pruned weights are 0."""
    return np.where(mask, start, 0).astype(np.asarray(start).dtype)


@pruned
def freeze_init(start, initial, final, *, mask, **_):
    """Pruned weights are frozen at their initial value."""
    return np.where(mask, start, initial)


@pruned
def variant_1(start, initial, final, *, mask, **_):
    """Pruned weights that moved towards zero (`|w_i| > |w_f|`) are 0, the others are frozen at their initial value."""
    return np.where(mask, start, np.where(_shrank(initial, final), 0, initial)).astype(np.asarray(start).dtype)


@pruned
def variant_2(start, initial, final, *, mask, **_):
    """As `variant_1`, and kept weights that moved towards zero start from 0 too, and are trained."""
    return np.where(_shrank(initial, final), 0, np.where(mask, start, initial)).astype(np.asarray(start).dtype)


@pruned
def variant_1_reshuffle(start, initial, final, *, mask, rng):
    """As many pruned weights as in `variant_1` are 0, but at random positions among the pruned; a control.

    What an earlier round froze at 0 stays 0; the round's own share is drawn from all pruned weights that are not.
    """
    whole, gone = np.where(mask, start, initial).astype(np.asarray(start).dtype), ~np.asarray(mask, bool)
    count = np.count_nonzero(gone & _shrank(initial, final))
    whole.flat[rng.permutation(np.flatnonzero(gone & (whole != 0)))[:count]] = 0
    return whole


@pruned
def variant_1_reverse(start, initial, final, *, mask, **_):
    """Pruned weights that moved away from zero (`|w_i| < |w_f|`) are 0, the others are frozen at their initial value; a control."""
    return np.where(mask, start, np.where(_shrank(final, initial), 0, initial)).astype(np.asarray(start).dtype)


def _shrank(initial, final):
    return np.abs(initial) > np.abs(final)
