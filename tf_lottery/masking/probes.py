"""Examples from which probes are drawn, the batches that gradients are taken on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.base.errors import LotteryError
from tf_lottery.masking.gradients import Probe


class Probes:
    """Inputs and targets, some at a time.

    Args:
      x, y: Arrays, or structures of arrays with as many rows each.
      loss: A Keras loss, or what `gradients.take` knows as one.
      augment: `(x, seed) -> x`, as that of `Trainer`.

    Raises:
      LotteryError: If they have not the same number of examples.

    >>> probes = Probes(np.arange(6.0), np.arange(6) + 10)
    >>> x, y = probes.drawn(2, [0, 1])
    >>> bool((y == x + 10).all()), len(probes.drawn(9, [0])[0])
    (True, 6)
    """

    def __init__(self, x, y, loss: Any = None, augment: Callable | None = None):
        self.x, self.y = (keras.tree.map_structure(np.asarray, part) for part in (x, y))
        self.loss, self.augment = loss, augment
        sizes = {len(array) if array.ndim else 0 for array in keras.tree.flatten((self.x, self.y))}
        if len(sizes) != 1 or not (size := sizes.pop()):
            raise LotteryError(
                "Expected a probe of inputs and targets of the same number of examples, but they differ."
            )
        self.size = size

    def drawn(self, size: int, seed: Sequence[int]) -> Probe:
        """A probe of `size` examples at random, or of all if there are fewer, in the order that they have."""
        rows: Any = slice(None)
        if size < self.size:
            rows = np.sort(np.random.default_rng(seed).choice(self.size, size, replace=False))
        x, y = (keras.tree.map_structure(lambda array: array[rows], part) for part in (self.x, self.y))
        if self.augment is not None:
            x = self.augment(tf.constant(x), tf.constant([seed[0], seed[-1]], tf.int32))
        return (x, y) if self.loss is None else (x, y, self.loss)
