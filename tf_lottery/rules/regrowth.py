"""Masks that move: in each kernel some kept weights give way to as many pruned ones. NumPy only."""

from __future__ import annotations

import numpy as np

from tf_lottery.rules.ranking import Seed, keep_top, seed_of


def drawn(size: tuple[int, ...], count: int, *, seed: Seed) -> np.ndarray:
    """A random mask of exactly `count` ones.

    >>> int(drawn((4, 5), 7, seed=0).sum())
    7
    """
    return keep_top(np.zeros(size, np.float32), count, seed=seed)


def exchanged(
    mask: np.ndarray, magnitudes: np.ndarray, growth: np.ndarray, count: int, *, seed: Seed = 0
) -> np.ndarray:
    """The mask after `count` kept weights of least magnitude are dropped and `count` weights of highest `growth` are grown.

    A weight that was dropped just now may grow again, and then it has stayed.

    Args:
      mask: The present mask.
      magnitudes: What decides who is dropped, in the mask's shape.
      growth: What decides who grows.
      count: How many, up to those that are kept.
      seed: Decides among equals.

    Returns:
      A mask with as many ones.

    Examples:

    >>> exchanged(np.array([1, 1, 0, 0]), np.array([3.0, 0.1, 0, 0]), np.array([9.0, 0.5, 0.2, 0.7]), 1)
    array([1, 0, 0, 1], dtype=uint8)

    Reference: Evci et al. (2020, arXiv 1911.11134), algorithm 1.
    """
    kept = int(np.count_nonzero(mask))
    stays = keep_top(magnitudes, kept - count, mask, seed=seed_of(seed, 0))
    return stays | keep_top(growth, count, stays == 0, seed=seed_of(seed, 1))


def share(fraction: float, progress: float) -> float:
    """The share of the kept weights that is exchanged: `fraction / 2 (1 + cos(pi progress))`, from `fraction` to 0.

    >>> share(0.3, 0.0), round(share(0.3, 0.5), 6), share(0.3, 1.0)
    (0.3, 0.15, 0.0)

    Reference: Evci et al. (2020), section 3, (2) Update schedule.
    """
    return fraction / 2 * (1 + float(np.cos(np.pi * progress)))
