"""Masks: 1 = kept, 0 = pruned; one array per kernel, in the kernel's shape, under the kernel's path.

What masks hold, what they have in common, and random ones of the same densities; how they are made stands in `ranking`, how a density
is shared out over kernels in `densities`, and both are had from here. NumPy only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from tf_lottery.base.errors import LotteryError
from tf_lottery.rules import patterns
from tf_lottery.rules.densities import check_density, erdos_renyi_kernel, uniform
from tf_lottery.rules.ranking import CHANNEL_SCOPES as CHANNEL_SCOPES
from tf_lottery.rules.ranking import SCOPES as SCOPES
from tf_lottery.rules.ranking import Arrays as Arrays
from tf_lottery.rules.ranking import Axes as Axes
from tf_lottery.rules.ranking import check_scope, keep_top, prune, prune_to

__all__ = [
    "Overlap",
    "check_density",
    "check_scope",
    "checked",
    "density",
    "erdos_renyi_kernel",
    "keep_top",
    "overlap",
    "prune",
    "prune_to",
    "shuffled",
    "uniform",
]


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
        if np.any(mask > 1 if mask.dtype.kind in "bu" else (mask != 0) & (mask != 1)):
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

    @property
    def jaccard_by_chance(self) -> float:
        """`jaccard` where both keep what they keep `by_chance`."""
        return (chance := self.by_chance) / (self.one + self.other - chance) if self.one + self.other else 1.0


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
