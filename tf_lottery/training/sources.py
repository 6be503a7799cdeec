"""Sets that come in batches, a `tf.data.Dataset` or a `PyDataset`: whether they can be kept in memory, and their stream if not.

What comes the same in two passes is kept and trained on in its order. What comes in another order, because it shuffles itself, is
kept too, and shuffled by the seed of the `Trainer`. What comes with other values, because it augments, draws or drops at random,
and what is too large or endless, is read anew in each pass.
"""

from __future__ import annotations

import collections
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.base.errors import DataError
from tf_lottery.training.examples import OWN, Examples, bytes_of, checked_set, rows_of, size_of, weighted
from tf_lottery.training.orders import Shuffled


class Source:
    """A data set of batches, pass after pass.

    Args:
      name: What the set is called in messages.
      given: The `tf.data.Dataset` or `PyDataset`.
      batch_size: For a `tf.data.Dataset` that is not batched.
      class_weight: As for `Trainer`.
      seed: Decides the order of a PyDataset's batches, which `fit` shuffles too.

    Attributes:
      first: Its first batch.
      unfinished: Passes that were begun and left.
      varies: Whether its batches are known to differ in more than their number of examples.

    Raises:
      DataError: If its elements are no batches of arrays of numbers.
    """

    def __init__(
        self, name: str, given: Any, batch_size: int | None = None, class_weight: Mapping | None = None, seed: int = 0
    ):
        self.name, self.given, self.class_weight, self.seed = name, given, class_weight, seed
        if isinstance(given, tf.data.Dataset):
            self.given = _batched(name, given, batch_size).prefetch(tf.data.AUTOTUNE)
        elif batch_size is not None:
            raise DataError(
                f"Expected batch_size with arrays only, but the {name} data are a PyDataset, whose batches it makes."
            )
        # Kept until their threads are at rest: what they run may need Python, which waits for an iterator that is closed.
        self.unfinished = [self.pass_()]
        self.first = next(self.unfinished[0])
        specs = [] if self.is_python else keras.tree.flatten(self.given.element_spec)
        self.varies = any(None in spec.shape[1:] for spec in specs)

    @property
    def is_python(self) -> bool:
        return not isinstance(self.given, tf.data.Dataset)

    @property
    def is_endless(self) -> bool:
        if self.is_python:
            return self.given.num_batches is None
        return int(self.given.cardinality()) == tf.data.INFINITE_CARDINALITY

    def pass_(self, epoch: int | None = None) -> Iterator[Examples]:
        """The batches of one pass, of an epoch in which a PyDataset is shuffled, or else in its order."""
        empty = True
        for batch in self._elements(epoch):
            empty = False
            yield self._checked(batch)
        if empty:
            raise DataError(
                f"Expected {self.name} data that can be read again and again, but a pass over them had no batch: a generator that is "
                "used up is no data set, a function that makes it is, as in tf.data.Dataset.from_generator(make, ...)."
            )

    def stream(self) -> Iterator[Examples]:
        """Pass after pass without an end."""
        return itertools.chain.from_iterable(self.pass_(epoch) for epoch in itertools.count())

    def _elements(self, epoch: int | None) -> Iterator[Any]:
        if not self.is_python:
            yield from self.given.as_numpy_iterator()
            return
        places: Iterable[int] = itertools.count()
        if not self.is_endless:
            places = range(self.given.num_batches)
            if epoch is not None:
                places = np.random.default_rng([self.seed, epoch]).permutation(self.given.num_batches).tolist()
        getattr(self.given, "on_epoch_begin", lambda: None)()  # older versions have none
        yield from _ahead(self.given, places)
        self.given.on_epoch_end()

    def _checked(self, batch: Any) -> Examples:
        if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
            raise DataError(
                f"Expected {self.name} batches (inputs, targets) or (inputs, targets, sample weights), but received "
                f"{type(batch).__name__} {f'of {len(batch)}' if isinstance(batch, tuple | list) else ''}; {OWN}."
            )
        return weighted(checked_set(self.name, batch), self.class_weight)


def is_source(given: Any) -> bool:
    return isinstance(given, tf.data.Dataset | keras.utils.PyDataset)


def _batched(name: str, dataset: tf.data.Dataset, batch_size: int | None) -> tf.data.Dataset:
    specs = keras.tree.flatten(dataset.element_spec)
    for spec in specs:
        if not isinstance(spec, tf.TensorSpec) or not (
            spec.dtype.is_floating or spec.dtype.is_integer or spec.dtype.is_bool
        ):
            raise DataError(
                f"Expected {name} data of dense tensors of numbers, but the data set has {str(spec)[:80]}: change it with "
                f"dataset.map, as to dense by ragged.to_tensor(); {OWN}."
            )
    firsts = [spec.shape[0] if spec.shape.rank else -1 for spec in specs]
    is_batched = all(first == firsts[0] for first in firsts) and firsts[0] != -1
    if is_batched and batch_size is not None:
        raise DataError(
            f"Expected batch_size for data that are not batched yet, but the {name} data set comes in batches: leave batch_size out, "
            "or dataset.batch."
        )
    if not is_batched and batch_size is None:
        raise DataError(
            f"Expected {name} data in batches, as dataset.batch(32) makes them, or a batch_size, but its elements have shapes "
            f"{', '.join(str(spec.shape) for spec in specs)[:80]}."
        )
    return dataset if is_batched else dataset.batch(batch_size)


def _ahead(given: keras.utils.PyDataset, places: Iterable[int]) -> Iterator[Any]:
    """The batches of a PyDataset in order, some of them made while others are trained on."""
    workers = max(1, given.workers)
    with ThreadPoolExecutor(workers) as pool:
        coming: collections.deque = collections.deque()
        for place in places:
            coming.append(pool.submit(given.__getitem__, place))
            if len(coming) > workers:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


@dataclass
class Kept:
    """A set in memory: its examples, the sizes of its batches, and what is shuffled."""

    examples: Examples
    sizes: list[int] | None = None
    shuffled: Shuffled = "examples"

    def __len__(self) -> int:
        return size_of(self.examples)


def kept(source: Source, most_bytes: int) -> Kept | None:
    """The set in memory, if it fits and has the same examples in each of two passes."""
    if source.is_endless or source.varies:
        return None
    batches, total, shapes = [], 0, _shapes(source.first)
    once, again = source.pass_(), source.pass_()
    source.unfinished += [once, again]
    for batch in once:
        batches.append(batch)
        total += bytes_of(batch)
        source.varies = _shapes(batch) != shapes
        if total > most_bytes or source.varies:
            return None
    examples = keras.tree.map_structure(lambda *parts: np.concatenate(parts), *batches)
    sizes = [size_of(batch) for batch in batches]
    same = 0
    for place, batch in enumerate(again):
        if place >= len(batches) or not _equal(batch, batches[place]):
            break
        same += 1
    else:
        if same == len(batches):
            return Kept(examples, sizes, "batches" if source.is_python else "nothing")
        return None
    digests = list(_digests(examples))
    left = collections.Counter(digests[sum(sizes[:same]) :])
    for other in itertools.chain([batch], again):
        for digest in _digests(other):
            if not left[digest]:
                return None
            left[digest] -= 1
    if any(left.values()):
        return None
    order = sorted(range(len(digests)), key=digests.__getitem__)  # the same whatever order they came in
    return Kept(rows_of(examples, order), sizes, "examples")


def _shapes(batch: Examples) -> list:
    return [(array.shape[1:], array.dtype) for array in keras.tree.flatten(batch)]


def _equal(one: Examples, other: Examples) -> bool:
    """Bit for bit, NaN included."""
    pairs = zip(keras.tree.flatten(one), keras.tree.flatten(other), strict=True)
    return all(a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs)


def _digests(examples: Examples) -> Iterator[bytes]:
    """What tells each example from others."""
    arrays = [np.ascontiguousarray(array) for array in keras.tree.flatten(examples)]
    for row in range(size_of(examples)):
        digest = hashlib.blake2b(digest_size=16)
        for array in arrays:
            digest.update(array[row].tobytes())
        yield digest.digest()
