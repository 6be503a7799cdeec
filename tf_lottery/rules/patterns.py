"""Patterns: masks whose zeros lie where hardware can use them, in whole channels, whole blocks or m of every n. NumPy only.

Kernels of any rank of 2 or more are seen as stacks of matrices, (inputs, outputs) in the last two axes: a convolution's
kernel has one for each position of its window. Kernels that lie in another way are brought into this form by `stacked`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tf_lottery.base.errors import LotteryError

POOLING: dict[str, np.ufunc] = {"AVG": np.add, "MAX": np.maximum}


class Axes(NamedTuple):
    """The axes of a kernel that number its inputs and its outputs, counted from the end."""

    inputs: tuple[int, ...] = (-2,)
    outputs: tuple[int, ...] = (-1,)


def stacked(values: np.ndarray, axes: Axes) -> np.ndarray:
    """A kernel as a stack of matrices, shape (..., inputs, outputs).

    Examples:

    >>> stacked(np.zeros((8, 2, 3)), Axes((-3,), (-2, -1))).shape  # to 2 heads of 3 channels each
    (8, 6)
    """
    moved = np.transpose(values, order := _order(values.ndim, axes))
    rest = len(order) - len(axes.inputs) - len(axes.outputs)
    inputs = int(np.prod(moved.shape[rest : rest + len(axes.inputs)]))
    return moved.reshape(*moved.shape[:rest], inputs, -1)


def unstacked(matrices: np.ndarray, axes: Axes, shape: Sequence[int]) -> np.ndarray:
    """The kernel of that shape from its stack of matrices: the way back from `stacked`."""
    order = _order(len(shape), axes)
    return matrices.reshape([shape[axis] for axis in order]).transpose(np.argsort(order))


def _order(rank: int, axes: Axes) -> list[int]:
    ends = [rank + axis for axis in (*axes.inputs, *axes.outputs)]
    return [axis for axis in range(rank) if axis not in ends] + ends


def pool(scores: np.ndarray, block_size: Sequence[int], pooling: str = "AVG") -> np.ndarray:
    """One score for each block of (height, width) in the last two axes: the mean or the largest of its entries.

    Blocks do not overlap; those at the lower and right edge hold what is left. Shape (..., h, w) becomes
    (..., ceil(h / height), ceil(w / width)).

    Examples:

    >>> pool(np.arange(6.0).reshape(2, 3), (2, 2), "MAX")
    array([[4., 5.]])
    """
    (height, width), (rows, columns) = block_size, scores.shape[-2:]
    tops, lefts = np.arange(0, rows, height), np.arange(0, columns, width)
    add = POOLING[pooling]
    pooled = add.reduceat(add.reduceat(scores, tops, axis=-2), lefts, axis=-1)
    if pooling == "MAX":
        return pooled
    return pooled / np.outer(np.diff([*tops, rows]), np.diff([*lefts, columns]))


def expand(blocks: np.ndarray, block_size: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """The mask of a kernel of that shape from the mask of its blocks.

    Examples:

    >>> expand(np.array([[1, 0]]), (2, 2), (2, 3))
    array([[1, 1, 0],
           [1, 1, 0]])
    """
    whole = np.repeat(np.repeat(blocks, block_size[0], axis=-2), block_size[1], axis=-1)
    return whole[..., : shape[-2], : shape[-1]]


def m_by_n(scores: np.ndarray, m: int, n: int, *, seed: int | Sequence[int] = 0) -> np.ndarray:
    """The mask with m zeros in every n consecutive inputs (2 in 4 for "2:4" sparsity), the lowest scores of each group.

    Groups run along the input axis, the last but one; a group that is cut short at the end loses what exceeds n - m.
    Among equal scores the seed draws.

    Args:
      scores: Float array of rank 2 (dense) or 4 (convolution).
      m: Zeros in a group, in [1, n).
      n: Weights in a group.
      seed: Decides among equal scores: a whole number, or several.

    Returns:
      uint8 array of the shape of `scores`.

    Examples:

    >>> m_by_n(np.array([[4.0], [1.0], [3.0], [2.0], [5.0]]), 2, 4).ravel()
    array([1, 0, 1, 0, 1], dtype=uint8)
    """
    inputs = scores.shape[-2]
    padded = np.full((*scores.shape[:-2], -(-inputs // n) * n, scores.shape[-1]), -np.inf)
    padded[..., :inputs, :] = scores
    groups = padded.reshape(*scores.shape[:-2], -1, n, scores.shape[-1])
    chance = np.full(padded.shape, 1.0)  # what fills a group up comes last
    chance[..., :inputs, :] = np.random.default_rng(seed).random(scores.shape)
    order = np.lexsort((chance.reshape(groups.shape), -groups), axis=-2)
    mask = np.zeros(groups.shape, np.uint8)
    np.put_along_axis(mask, order[..., : n - m, :], 1, axis=-2)
    return mask.reshape(padded.shape)[..., :inputs, :]


def groups_over(kept: np.ndarray, m: int, n: int) -> tuple[int, int, int]:
    """How far a kernel is from m zeros in every n inputs: groups of n that have fewer, all whole groups, inputs left at the end.

    Args:
      kept: Truth values, shape (..., inputs, outputs); what is not kept is zero.
      m, n: As for `m_by_n`.

    Examples:

    >>> groups_over(np.array([[1], [1], [1], [0], [1]], bool), 2, 4)
    (1, 1, 1)
    """
    inputs, outputs = kept.shape[-2:]
    whole, left = divmod(inputs, n)
    groups = kept[..., : whole * n, :].reshape(*kept.shape[:-2], whole, n, outputs).sum(axis=-2)
    return int((groups > n - m).sum()), int(groups.size), left


def channel_scores(scores: np.ndarray, mask: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """One score for each output channel: the L2 norm of its weights' scores, as a share of that of the kernel.

        score_c = n_c / sqrt(sum over channels j of n_j^2),  n_c = sign(S_c) sqrt(|S_c|),  S_c = sum of sign(s) s^2 over its kept weights

    For scores s that are not negative, n_c is their L2 norm; a control such as `small_final`, whose scores are those of
    `large_final` with a minus sign, ranks channels the other way round. Dividing by the norm of the kernel's channels together
    makes channels of different kernels comparable. A score of -inf counts as the lowest finite one in the kernel; a
    channel that has no other ranks below all.

    Args:
      scores, mask: Arrays of the kernel's shape; scores of pruned weights are ignored.
      axes: The axes that number the output channels, counted from the end: (-1,) for a dense layer.

    Returns:
      Float array, one entry a channel.

    Examples:

    >>> channel_scores(np.array([[3.0, 0.0], [4.0, 12.0]]), np.ones((2, 2)), (-1,)).round(3)
    array([0.385, 0.923])

    References: Li et al., "Pruning Filters for Efficient ConvNets" (2017, arXiv 1608.08710), section 3.1, with the L1 norm; He et
    al., "Soft Filter Pruning" (2018, arXiv 1808.06866), section 3.2, with the L2 norm; Molchanov et al., "Pruning
    Convolutional Neural Networks for Resource Efficient Inference" (2017, arXiv 1611.06440), section 2.2, for the division.
    """
    kept, values = np.asarray(mask, bool), np.asarray(scores, np.float64)
    bounded, others = kept & ~np.isinf(values), _other_axes(values.ndim, axes)
    if bounded.any():
        values = np.clip(values, values[bounded].min(), values[bounded].max())
    squares = np.where(kept, np.sign(values) * values**2, 0).sum(axis=others)
    norms = np.sign(squares) * np.sqrt(np.abs(squares))
    total = np.sqrt(np.square(norms[np.isfinite(norms)]).sum())
    unbounded = ~bounded.any(axis=others)
    norms = np.where(unbounded, np.where(kept, scores, -np.inf).max(axis=others), norms / (total or 1))
    return norms.reshape(-1)


def channel_mask(mask: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """1 for each output channel of which a weight is kept."""
    return np.any(mask, axis=_other_axes(mask.ndim, axes)).reshape(-1).astype(np.uint8)


def expand_channels(channels: np.ndarray, axes: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """The array of a kernel of that shape from one value for each of its output channels.

    Examples:

    >>> expand_channels(np.array([1, 0]), (-1,), (3, 2))
    array([[1, 0],
           [1, 0],
           [1, 0]])
    """
    sides = [side if axis - len(shape) in axes else 1 for axis, side in enumerate(shape)]
    return np.broadcast_to(np.reshape(channels, sides), shape)


def permute_channels(values: np.ndarray, order: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """The array with its output channels in another order.

    Examples:

    >>> permute_channels(np.array([[1, 2, 3]]), np.array([2, 0, 1]), (-1,))
    array([[3, 1, 2]])
    """
    ends = range(-len(axes), 0)
    last = np.moveaxis(values, axes, ends)
    rows = last.reshape(*last.shape[: -len(axes)], -1)
    return np.moveaxis(rows[..., order].reshape(last.shape), ends, axes)


def _other_axes(rank: int, axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(axis for axis in range(rank) if axis - rank not in axes)


def check_block(block_size: Sequence[int], pooling: str) -> tuple[int, int]:
    """The block size as two whole numbers.

    Raises:
      LotteryError: If it is anything else, or the pooling is unknown.
    """
    pair = tuple(block_size) if isinstance(block_size, Sequence) else ()
    if len(pair) != 2 or not all(isinstance(side, int) and side >= 1 for side in pair):
        raise LotteryError(f"Expected block_size as two whole numbers of at least 1, but received {block_size!r}.")
    if pooling not in POOLING:
        raise LotteryError(f"Expected block_pooling_type to be 'AVG' or 'MAX', but received {pooling!r}.")
    return pair


def check_m_by_n(m_by_n: Sequence[int]) -> tuple[int, int]:
    """(m, n) as two whole numbers, 0 < m < n.

    Raises:
      LotteryError: If it is anything else.
    """
    pair = tuple(m_by_n) if isinstance(m_by_n, Sequence) else ()
    if len(pair) != 2 or not all(isinstance(number, int) for number in pair) or not 0 < pair[0] < pair[1]:
        raise LotteryError(f"Expected sparsity_m_by_n as two whole numbers, 0 < m < n, but received {m_by_n!r}.")
    return pair
