"""How the examples of a `Trainer` reach its devices: once and for all if they fit, else piece by piece."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.base.errors import DataError
from tf_lottery.masking.distribution import Replicas
from tf_lottery.training.evaluation import EVAL_BATCH
from tf_lottery.training.examples import Examples, bytes_of, rows_of, size_of
from tf_lottery.training.orders import BatchOrder
from tf_lottery.training.sources import Kept, Source

STRETCH_BYTES = 2**26  # of a data set that is streamed: what one compiled call is given


class Stretch(NamedTuple):
    """Steps that are run in one call: in step i the batch is `examples[rows[i]]`; only `steps` rows are used.

    `read` tells what was streamed up to its end from anything else, and is None where nothing is.
    """

    examples: Examples
    rows: tf.Tensor
    steps: int
    read: str | None = None


class Feed:
    """The sets of a `Trainer`, on the devices.

    Args:
      sets: `train`, and the sets to evaluate.
      batch_size, seed, device_bytes: Those of `Trainer`.
      replicas: What the sets are fed to; each of the devices gets a copy.
    """

    def __init__(
        self,
        sets: Mapping[str, Kept | Source],
        batch_size: int,
        seed: int,
        device_bytes: int,
        replicas: Replicas,
    ):
        self.sets, self.batch_size, self.device_bytes, self.replicas = sets, batch_size, device_bytes, replicas
        self.train: Kept | Source = sets["train"]
        self._evaluated: dict[str, Any] = {}
        if isinstance(self.train, Kept):
            sizes, shuffled = self.train.sizes, self.train.shuffled
            self.order = BatchOrder(len(self.train), batch_size, seed, sizes=sizes, shuffled=shuffled)
            fits = bytes_of(self.train.examples) <= device_bytes
            self._resident = replicas.copies(self.train.examples) if fits else None

    def stretches(
        self,
        ends: Sequence[int],
        longest: int,
        start: int = 0,
        read: str | None = None,
        *,
        notes: bool = False,
        seed: int | None = None,
    ) -> Iterator[Stretch]:
        """What to run from one end to the next.

        Args:
          ends: The steps that stretches end at, in order, the last step last.
          longest: No stretch has more steps.
          start: The steps that are done already: one of the ends, or where a stretch ended in between.
          read: What a stream had given until then; see `Stretch`.
          notes: Whether what is streamed is to be told from anything else.
          seed: Decides the order of the examples, if not that of the `Trainer`.

        Raises:
          OtherBatches: If a stream does not give that again.
        """
        if isinstance(self.train, Source):
            return self._streamed(self.train, ends, longest, start, read, notes)
        order = self.order if seed is None else self.order.by(seed)
        if self._resident is None:
            return self._gathered(self.train, order, ends, longest, start)
        return self._picked(self._resident, order, ends, longest, start)

    def _picked(
        self, examples: Examples, order: BatchOrder, ends: Sequence[int], longest: int, start: int
    ) -> Iterator[Stretch]:
        """From what lies on the device."""
        for rows in self._rows(order, ends, longest, start):
            padded = np.zeros((longest, rows.shape[1]), np.int32)
            padded[: len(rows)] = rows
            yield Stretch(examples, tf.constant(padded), len(rows))

    def _gathered(
        self, train: Kept, order: BatchOrder, ends: Sequence[int], longest: int, start: int
    ) -> Iterator[Stretch]:
        """From arrays that are too large for the device."""
        examples, batch = train.examples, self.batch_size
        bytes_a_batch = max(1, bytes_of(examples) // len(train)) * batch
        longest = max(1, min(longest, self.device_bytes // bytes_a_batch))
        own_rows = tf.reshape(tf.range(longest * batch), (longest, batch))

        def gather():
            for rows in self._rows(order, ends, longest, start):
                flat = np.zeros(longest * batch, np.int64)
                flat[: rows.size] = rows.ravel()
                yield (*(array[flat] for array in arrays), np.int32(len(rows)))

        arrays = keras.tree.flatten(examples)
        spec = [tf.TensorSpec((longest * batch, *a.shape[1:]), a.dtype) for a in arrays]
        feed = tf.data.Dataset.from_generator(gather, output_signature=(*spec, tf.TensorSpec((), tf.int32)))
        for *parts, count in feed.prefetch(1):
            yield Stretch(keras.tree.pack_sequence_as(examples, parts), own_rows, int(count))

    def _streamed(
        self, source: Source, ends: Sequence[int], longest: int, start: int, read: str | None, notes: bool
    ) -> Iterator[Stretch]:
        stream, digest = source.stream(), hashlib.blake2b(digest_size=16)
        usual = size_of(source.first)
        longest = max(1, min(longest, min(self.device_bytes, STRETCH_BYTES) // max(1, bytes_of(source.first))))
        longest = 1 if source.varies else longest
        waiting: list[Examples] = []

        def taken() -> Examples:
            batch = waiting.pop() if waiting else next(stream)
            if size_of(batch) < self.replicas.count:
                raise DataError(
                    f"Expected batches of at least one example for each of the {self.replicas.count} replicas, but the train data "
                    f"have one of {size_of(batch)}: dataset.batch(..., drop_remainder=True) leaves it out."
                )
            return batch

        def noted(batch: Examples) -> None:
            for array in keras.tree.flatten(batch) if notes else ():
                digest.update(np.ascontiguousarray(array).data)

        for _ in range(start):
            noted(next(stream))
        if start and digest.hexdigest() != read:
            raise OtherBatches
        step = start
        for end in ends:
            while step < end:
                batches = [taken()]
                while len(batches) < min(longest, end - step):
                    batch = taken()
                    if size_of(batch) != size_of(batches[0]) or not _alike(batch, batches[0]):
                        waiting.append(batch)
                        break
                    batches.append(batch)
                for batch in batches:
                    noted(batch)
                size, count = size_of(batches[0]), len(batches)
                length = longest if size == usual else count
                padding = [batches[0]] * (length - count)
                joined = keras.tree.map_structure(lambda *a: tf.constant(np.concatenate(a)), *batches, *padding)
                rows = tf.reshape(tf.range(length * size), (length, size))
                yield Stretch(joined, rows, count, digest.hexdigest() if notes else None)
                step += count

    @staticmethod
    def _rows(order: BatchOrder, ends: Sequence[int], longest: int, step: int) -> Iterator[np.ndarray]:
        """The examples of each step, (steps of a stretch, size of a batch), cut where a stretch ends."""
        for end in ends:
            while step < end:
                rows = order.rows(step, min(end, step + longest))
                yield rows
                step += len(rows)

    def evaluated(self, name: str, by_batch: bool) -> Iterable[Examples]:
        """A set other than `train`, in pieces that are the set together.

        Args:
          name: Its name.
          by_batch: Whether what is measured depends on how the set is cut into batches: the pieces are these then.
        """
        found, key = self.sets[name], f"{name} {by_batch}"
        if isinstance(found, Source):
            return found.pass_()
        if key not in self._evaluated:
            fits = bytes_of(found.examples) <= self.device_bytes
            if by_batch:
                sizes = found.sizes or _cut(len(found), self.batch_size)
                pieces = _slices(sizes)
            else:
                pieces = _slices(_cut(len(found), len(found) if fits else EVAL_BATCH))
            if fits:
                self._evaluated[key] = [self.replicas.copies(rows_of(found.examples, piece)) for piece in pieces]
            else:
                self._evaluated[key] = _Lazily(lambda at: rows_of(found.examples, at), pieces)
        return self._evaluated[key]


class OtherBatches(Exception):
    """A stream gave other batches than it did before."""


def _cut(examples: int, size: int) -> list[int]:
    return [min(size, examples - start) for start in range(0, examples, size)]


def _slices(sizes: Sequence[int]) -> list[slice]:
    ends = np.cumsum(sizes).tolist()
    return [slice(end - size, end) for size, end in zip(sizes, ends)]


def _alike(one: Examples, other: Examples) -> bool:
    return [a.shape for a in keras.tree.flatten(one)] == [a.shape for a in keras.tree.flatten(other)]


class _Lazily:
    """An iterable that maps a function over items anew each time it is walked."""

    def __init__(self, function: Callable, items: Sequence):
        self.function, self.items = function, items

    def __iter__(self) -> Iterator:
        return map(self.function, self.items)
