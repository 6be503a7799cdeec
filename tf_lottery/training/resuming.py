"""A `fit` that was killed and goes on at the end of its last epoch, to the bit: its progress in a file, its data in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.training.checkpoint import Checkpoint, Progress


class Resume(keras.callbacks.Callback):
    """Writes down at the ends of epochs what a `fit` has come to, and puts it back when the next one begins.

    Give the `fit` `initial_epoch=resume.epochs`, and this callback after those that have something to carry over.

    Args:
      checkpoint: The file; it is written when it is due.
      stateful: Callbacks with `saved()` and `resume(arrays)`, see `Trainer`.

    Attributes:
      epochs: How many were done when the file was written.
      rows: What was measured in each of them, and in those since.
    """

    def __init__(self, checkpoint: Checkpoint, stateful: Sequence[keras.callbacks.Callback] = ()):
        super().__init__()
        self.checkpoint, self.stateful = checkpoint, list(stateful)
        found = checkpoint.load([])
        self._progress = found[0] if found else Progress()
        self._found: list[np.ndarray] | None = found[1] if found else None
        self.epochs, self.rows = self._progress.step, self._progress.curve

    def on_train_begin(self, logs=None):
        optimizer = self.model.optimizer
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        if self._found is not None:
            self._put(self._found)
            self.checkpoint.load(self.stateful)
            self._put(self._found)  # what the callbacks did to it to find their places is undone
            self._found = None

    def on_epoch_end(self, epoch, logs=None):
        self.rows.append({"epoch": epoch + 1, **{name: float(value) for name, value in (logs or {}).items()}})
        self._progress.step = epoch + 1
        if self.checkpoint.due or epoch + 1 == self.params["epochs"]:
            self.checkpoint.save(self._progress, [np.asarray(v.value) for v in self._variables()], self.stateful)

    def _put(self, arrays: Sequence[np.ndarray]) -> None:
        for variable, array in zip(self._variables(), arrays, strict=True):
            variable.assign(array)

    def _variables(self) -> list[keras.Variable]:
        return [*self.model.variables, *self.model.optimizer.variables]


class Shuffled(keras.callbacks.Callback):
    """Arrays as a `tf.data.Dataset` whose order in each epoch is decided by a seed and the number of the epoch.

    It is a callback of the `fit` that it is the data of: `fit(shuffled.dataset, callbacks=[shuffled])`.

    Args:
      arrays: A structure of arrays (N, ...), as `(x, y)`.
      batch_size: Examples in a batch; the last one of an epoch has what is left.
      seed: Decides the order.

    >>> shuffled = Shuffled((np.arange(5), np.arange(5) * 10), 2, seed=0)
    >>> shuffled.on_epoch_begin(3)
    >>> [x.tolist() for x, y in shuffled.dataset.as_numpy_iterator()]
    [[3, 0], [2, 1], [4]]
    """

    def __init__(self, arrays: Any, batch_size: int, seed: int):
        super().__init__()
        self.seed, self.examples = seed, len(keras.tree.flatten(arrays)[0])
        self._order = tf.Variable(np.arange(self.examples))
        with tf.device("CPU"):
            held = keras.tree.map_structure(tf.constant, arrays)

        def batch(i):
            rows = self._order[i * batch_size : (i + 1) * batch_size]
            return keras.tree.map_structure(lambda array: tf.gather(array, rows), held)

        batches = -(-self.examples // batch_size)
        self.dataset = tf.data.Dataset.range(batches).map(batch, num_parallel_calls=2).prefetch(2)

    def on_epoch_begin(self, epoch, logs=None):
        self._order.assign(np.random.default_rng([self.seed, epoch]).permutation(self.examples))


def begun_once_an_epoch(data: tf.data.Dataset, epochs: int) -> tf.data.Dataset:
    """A data set for the `fit` that goes on after so many epochs, whose shuffling counts each epoch once.

    `shuffle` draws a new order whenever an iterator is made, and Keras makes more of them than it uses. Here those that nothing is
    taken from do not count. The order is the same to the bit if the data set was made with a seed.
    """
    for _ in range(epochs):
        iter(data)  # counts, and reads nothing
    once = tf.data.Dataset.from_tensors(0).flat_map(lambda _: data)
    cardinality = int(data.cardinality())
    return once.apply(tf.data.experimental.assert_cardinality(cardinality)) if cardinality >= 0 else once
