"""The measurements of a `Trainer`, compiled: the loss and the metrics of a whole set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

from tf_lottery.masking.calls import called
from tf_lottery.masking.distribution import Replicas
from tf_lottery.training.examples import Examples
from tf_lottery.training.objective import Objective, number

EVAL_BATCH = 1_000


class Evaluation:
    """The compiled measurement of one model: summed loss and metrics of a set, all replicas together.

    Args:
      model: The model.
      objective: What is measured.
      replicas: Where.
      varies: Whether batches differ in more than their number of examples.
    """

    def __init__(self, model: keras.Model, objective: Objective, replicas: Replicas, varies: bool = False):
        self.model, self.objective, self.replicas = model, objective, replicas
        # Large batches: faster without XLA on a CPU, as measured.
        self._call = tf.function(lambda *args: replicas.run(self._part, *args), reduce_retracing=varies)

    def __call__(self, pieces: Iterable[Examples]) -> dict[str, float]:
        """The mean loss and the metrics over all pieces of a set; the first metric is called accuracy."""
        objective = self.objective
        sums, states = self._zeros(), objective.begin()
        for piece in pieces:
            part, states = self._call(piece, states)
            sums += part
        loss, examples, *rest = sums.numpy().tolist()
        found, means = {"loss": loss / examples}, iter(zip(rest[::2], rest[1::2]))
        for (_, one), state in zip(objective.measured, states):
            if one.is_mean:
                total, count = next(means)
                value = total / count if count else 0.0
            else:
                value = number(one.metric.stateless_result(state), one.name)
            found.setdefault("accuracy", value)
            if len(objective.measured) > 1:
                found[one.name] = value
        return found

    def _zeros(self) -> tf.Tensor:
        return tf.zeros(2 + 2 * sum(one.is_mean for _, one in self.objective.measured), tf.float64)

    def _part(self, examples: Examples, states: Any):
        """Equal parts for all replicas; of the few examples that are left each replica's sums count in part."""
        replicas, count = self.replicas, self.replicas.count
        size = keras.tree.flatten(examples)[0].shape[0]
        if size is None:
            return self._sums(examples, states)
        if count == 1:
            return self._in_batches(examples, 0, size, states)
        first, own = replicas.share(size - size % count)
        sums, new = self._in_batches(examples, first, own, states)
        moves = [[b - a for a, b in zip(*pair)] for pair in zip(states, new)]
        if size % count:
            left, new = self._in_batches(examples, size - size % count, size % count, states)
            sums += left / count
            more = [[b - a for a, b in zip(*pair)] for pair in zip(states, new)]
            moves = [[a + b / count for a, b in zip(*pair)] for pair in zip(moves, more)]
        states = [[a + replicas.total(b) for a, b in zip(*pair)] for pair in zip(states, moves)]
        return replicas.total(sums), states

    def _in_batches(self, examples: Examples, first, count: int, states: Any):
        batch = count if self.objective.by_batch else EVAL_BATCH
        sums, whole = self._zeros(), count - count % batch if count else 0
        if whole == batch:
            part, states = self._sums(_slice(examples, first, batch), states)
            sums += part
        elif whole:
            for start in tf.range(first, first + whole, batch):
                part, states = self._sums(_slice(examples, start, batch), states)
                sums += part
        if count > whole:
            part, states = self._sums(_slice(examples, first + whole, count - whole), states)
            sums += part
        return sums, states

    def _sums(self, examples: Examples, states: Any):
        x, y, *weights = examples
        outputs = called(self.model, x, training=False)
        size = tf.cast(tf.shape(keras.tree.flatten(x)[0])[0], tf.float32)
        sums = [self.objective.loss(y, outputs, *weights) * size, size]
        new = []
        updated = self.objective.update(states, y, outputs, *weights)
        for (_, one), before, after in zip(self.objective.measured, states, updated):
            if one.is_mean:
                sums += [tf.cast(number, tf.float32) for number in after]
            new.append(before if one.is_mean else after)
        return tf.cast(tf.stack(sums), tf.float64), new


def _slice(examples: Examples, start, size: int) -> Examples:
    """`[start : start + size]` of each array, with a shape that the compiler knows."""

    def sliced(array):
        return tf.slice(array, [start, *[0] * (len(array.shape) - 1)], [size, *array.shape[1:]])

    return keras.tree.map_structure(sliced, examples)
