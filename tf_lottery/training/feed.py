"""How the examples of a `Trainer` reach its devices: once and for all if they fit, else piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from tf_lottery.masking.distribution import Replicas
from tf_lottery.training.examples import BatchOrder, Examples
from tf_lottery.training.loop import EVAL_BATCH


class Feed:
    """The sets of a `Trainer`, on the devices.

    Args:
      sets: `train`, and the sets to evaluate.
      batch_size, seed, device_bytes: Those of `Trainer`.
      replicas: What the sets are fed to; each of the devices gets a copy.

    Attributes:
      evaluated: By name the sets other than `train`, as iterables of pairs that are the set together.
    """

    def __init__(self, sets: Mapping[str, Examples], batch_size: int, seed: int, device_bytes: int, replicas: Replicas):
        self.train, self.device_bytes, self.replicas = sets["train"], device_bytes, replicas
        self.order = BatchOrder(len(self.train[1]), batch_size, seed)
        self._resident = replicas.copies(self.train) if self._fits(self.train) else None
        self.evaluated = {name: self._parts(pair) for name, pair in sets.items() if name != "train"}

    def stretches(self, ends: Sequence[int], longest: int, start: int = 0, seed: int | None = None) -> Iterator[tuple]:
        """(x, y, rows, count): in step i of a stretch the batch is `x[rows[i]], y[rows[i]]`; only `count` rows are used.

        Args:
          ends: The steps that stretches end at, in order, the last step last.
          longest: No stretch has more steps.
          start: The steps that are done already: one of the ends, or where a stretch ended in between.
          seed: Decides the order of the examples, if not that of the `Trainer`.
        """
        order, batch = self.order, self.order.batch_size
        if seed is not None and seed != order.seed:
            order = BatchOrder(order.examples, batch, seed)
        if self._resident:
            for rows in self._rows(order, ends, longest, start):
                padded = np.zeros((longest, batch), np.int32)
                padded[: len(rows)] = rows
                yield *self._resident, tf.constant(padded), tf.constant(len(rows))
            return
        x, y = self.train
        bytes_a_batch = max(1, (x.nbytes + y.nbytes) // len(y)) * batch
        longest = max(1, min(longest, self.device_bytes // bytes_a_batch))
        own_rows = tf.reshape(tf.range(longest * batch), (longest, batch))

        def gather():
            for rows in self._rows(order, ends, longest, start):
                flat = np.zeros(longest * batch, np.int64)
                flat[: rows.size] = rows.ravel()
                yield x[flat], y[flat], np.int32(len(rows))

        spec = [tf.TensorSpec((longest * batch, *a.shape[1:]), a.dtype) for a in (x, y)]
        feed = tf.data.Dataset.from_generator(gather, output_signature=(*spec, tf.TensorSpec((), tf.int32)))
        for x_part, y_part, count in feed.prefetch(1):
            yield x_part, y_part, own_rows, count

    @staticmethod
    def _rows(order: BatchOrder, ends: Sequence[int], longest: int, step: int) -> Iterator[np.ndarray]:
        """The examples of each step, (steps of a stretch, batch_size), cut where a stretch ends."""
        for end in ends:
            while step < end:
                stop = min(end, step + longest)
                yield order.rows(step, stop)
                step = stop

    def _fits(self, pair: Examples) -> bool:
        return sum(array.nbytes for array in pair) <= self.device_bytes

    def _parts(self, pair: Examples) -> Iterable[tuple]:
        """An evaluation set: as a whole on the device if it fits, else cut from the arrays each time it is asked for."""
        if self._fits(pair):
            return [self.replicas.copies(pair)]
        slices = [slice(start, start + EVAL_BATCH) for start in range(0, len(pair[1]), EVAL_BATCH)]
        return _Lazily(lambda at: tuple(array[at] for array in pair), slices)


class _Lazily:
    """An iterable that maps a function over items anew each time it is walked."""

    def __init__(self, function: Callable, items: Sequence):
        self.function, self.items = function, items

    def __iter__(self) -> Iterator:
        return map(self.function, self.items)
