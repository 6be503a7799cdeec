"""Patterns: masks whose zeros lie where hardware can use them, in whole blocks or m of every n. NumPy only.

Kernels of any rank of 2 or more are seen as stacks of matrices, (inputs, outputs) in the last two axes: a convolution's
kernel has one for each position of its window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tf_lottery.errors import LotteryError

POOLING: dict[str, Callable] = {"AVG": np.add, "MAX": np.maximum}


def pool(scores: np.ndarray, block_size: Sequence[int], pooling: str = "AVG") -> np.ndarray:
    """One score for each block of (height, width) in the last two axes: the mean or the largest of its entries.

    Blocks do not overlap; those at the lower and right edge hold what is left. Shape (..., h, w) becomes
    (..., ceil(h / height), ceil(w / width)).

    Example:

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

    Example:

    >>> expand(np.array([[1, 0]]), (2, 2), (2, 3))
    array([[1, 1, 0],
           [1, 1, 0]])
    """
    whole = np.repeat(np.repeat(blocks, block_size[0], axis=-2), block_size[1], axis=-1)
    return whole[..., : shape[-2], : shape[-1]]


def m_by_n(scores: np.ndarray, m: int, n: int) -> np.ndarray:
    """The mask with m zeros in every n consecutive inputs (2 in 4 for "2:4" sparsity), the lowest scores of each group.

    Groups run along the input axis, the last but one; a group that is cut short at the end loses what exceeds n - m.
    Ties go to the lower index.

    Args:
      scores: Float array of rank 2 (dense) or 4 (convolution).
      m: Zeros in a group, in [1, n).
      n: Weights in a group.

    Returns:
      uint8 array of the shape of `scores`.

    Example:

    >>> m_by_n(np.array([[4.0], [1.0], [3.0], [2.0], [5.0]]), 2, 4).ravel()
    array([1, 0, 1, 0, 1], dtype=uint8)
    """
    inputs = scores.shape[-2]
    padded = np.full((*scores.shape[:-2], -(-inputs // n) * n, scores.shape[-1]), -np.inf)
    padded[..., :inputs, :] = scores
    groups = padded.reshape(*scores.shape[:-2], -1, n, scores.shape[-1])
    order = np.argsort(-groups, axis=-2, kind="stable")
    mask = np.zeros(groups.shape, np.uint8)
    np.put_along_axis(mask, order[..., : n - m, :], 1, axis=-2)
    return mask.reshape(padded.shape)[..., :inputs, :]


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
