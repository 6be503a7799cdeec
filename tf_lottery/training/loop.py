"""The compiled part of `Trainer`: stretches of training steps and whole measurements, one call each."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.base.errors import LotteryError
from tf_lottery.masking.calls import called
from tf_lottery.masking.distribution import Replicas, sums_no_gradients
from tf_lottery.masking.precision import loss_scaling
from tf_lottery.masking.weights import fresh_optimizer, sublayers, value_of
from tf_lottery.masking.wrapping import gradient_masks

EVAL_BATCH = 1_000


class Loop:
    """The compiled steps and measurements of one model; the arguments are those of `Trainer`.

    With a strategy each replica takes its part of every batch. Losses and gradients are weighted so that their sums over
    the replicas are those of the whole batch, and summed before the optimizer sees them.
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        optimizer,
        loss,
        metric,
        augment,
        jit_compile: bool | str,
        replicas: Replicas,
    ):
        self.model, self.loss, self.augment, self.replicas = model, loss, augment, replicas
        self.plain, self.masks, self.held = gradient_masks(model)
        self.trained = list(self.plain.trainable_variables)
        with replicas.scope():
            self.optimizer = loss_scaling(fresh_optimizer(optimizer), self.plain)
            self.optimizer.build(self.trained)
        if replicas.count > 1:
            sums_no_gradients(self.optimizer)
        self._start = [value_of(v) for v in self.optimizer.variables]
        self.jit = _compiles(jit_compile, self.plain, replicas)
        self.run = tf.function(self._run, jit_compile=self.jit)
        self.evaluate = Evaluation(self.plain, loss, metric, replicas)
        self._agree = tf.function(lambda: replicas.run(replicas.as_first, model.variables))

    def serves(self, model: keras.Model) -> bool:
        """Whether this loop was compiled for that model as it is now: the same masks, the same trainable variables."""
        if model is not self.model:
            return False
        now = gradient_masks(model)[0].trainable_variables
        return len(now) == len(self.trained) and all(a is b for a, b in zip(now, self.trained))

    def reset(self) -> None:
        """The optimizer as it was built: no momentum, step 0; masks and weights of several workers as the chief has them."""
        for variable, value in zip(self.optimizer.variables, self._start):
            variable.assign(value)
        if self.replicas.cluster is not None:
            self._agree()

    def state(self) -> list[np.ndarray]:
        """All that training moves: the model's variables and the optimizer's."""
        return [value_of(v) for v in (*self.plain.variables, *self.optimizer.variables)]

    def set_state(self, state: list[np.ndarray]) -> None:
        for variable, value in zip((*self.plain.variables, *self.optimizer.variables), state, strict=True):
            variable.assign(value)

    def values(self) -> list[np.ndarray]:
        return [value_of(v) for v in self.plain.variables]

    def assign(self, values: list[np.ndarray]) -> None:
        for variable, value in zip(self.plain.variables, values):
            variable.assign(value)

    def _run(self, x, y, rows, count, first, seed):
        """`count` training steps, augmented by `seed`; returns their mean loss and the first step whose loss was not finite, or -1."""
        total, bad = tf.constant(0.0), tf.constant(-1)
        statistics = self.replicas.run(self._statistics) if self.replicas.count > 1 else ()
        for i in tf.range(count):
            loss = self.replicas.run(self._step, x, y, rows[i], first + i, seed)
            total += loss
            bad = tf.where((bad < 0) & ~tf.math.is_finite(loss), i, bad)
        if self.replicas.count > 1:
            self.replicas.run(self._average, statistics)
        return total / tf.cast(count, tf.float32), bad

    def _step(self, x, y, rows, step, seed):
        x, y, share = self._batch(x, y, rows, step, seed)
        weight = 1.0 if getattr(self.loss, "reduction", None) == "sum" else share
        with tf.GradientTape() as tape:
            loss = mean_loss(self.loss, y, called(self.plain, x, training=True))
            extras = [tf.cast(extra, tf.float32) for extra in self.plain.losses]
            if self.replicas.count > 1:
                loss, extras = loss * weight, [extra * share for extra in extras]
            total = tf.add_n([loss, *extras])
            scaled = self.optimizer.scale_loss(total)
        gradients = tape.gradient(scaled, [v.value for v in self.trained])
        gradients = [
            g if g is None or id(v) not in self.masks else g * self.masks[id(v)].value
            for g, v in zip(gradients, self.trained)
        ]
        if self.replicas.count > 1:
            present = [g for g in gradients if g is not None]
            total, *present = self.replicas.total([total, *present])
            gradients = [g if g is None else present.pop(0) for g in gradients]
        self.optimizer.apply(gradients, self.trained)
        for v in self.trained:  # optimizers that mix the weights of a kernel, and weight decay, move pruned weights too
            if id(v) in self.masks:
                kept = v.value * self.masks[id(v)].value
                v.assign(kept + self.held[id(v)].value if id(v) in self.held else kept)
        return total

    def _batch(self, x, y, rows, step, seed):
        """This replica's part of a batch, and its share of the examples. All replicas augment the whole batch alike."""
        size = rows.shape[0]
        first, count = self.replicas.share(size)

        def part(array):
            return array if self.replicas.count == 1 else array[first : first + count]

        if self.augment is None:
            x = tf.gather(x, part(rows))
        else:
            x = part(self.augment(tf.gather(x, rows), tf.stack([seed, step])))
        return x, tf.gather(y, part(rows)), tf.cast(count, tf.float32) / size

    def _statistics(self):
        """What training moves without gradients, each replica for itself: statistics of batch normalisation."""
        return [tf.identity(v.value) for v in self.plain.non_trainable_variables if v.value.dtype.is_floating]

    def _average(self, before):
        """Moves the statistics of all replicas by the mean of their moves; what did not move stays as it is, bit for bit."""
        moving = [v for v in self.plain.non_trainable_variables if v.value.dtype.is_floating]
        for v, start in zip(moving, before):
            v.assign(start + self.replicas.total(v.value - start) / self.replicas.count)


class Evaluation:
    """The compiled measurement of one model: summed loss and summed metric of a set, all replicas together."""

    def __init__(self, model: keras.Model, loss, metric, replicas: Replicas):
        self.model, self.loss, self.metric, self.replicas = model, loss, metric, replicas
        # Large batches: faster without XLA on a CPU, as measured.
        self._call = tf.function(lambda x, y: replicas.run(self._part, x, y))

    def __call__(self, x, y):
        return self._call(x, y)

    def _part(self, x, y):
        """Equal parts for all replicas; of the few examples that are left each replica's sums count in part."""
        size, replicas = y.shape[0], self.replicas
        first, count = replicas.share(size - size % replicas.count)
        sums = self._in_batches(x, y, first, count)
        if size % replicas.count:
            sums += self._in_batches(x, y, size - size % replicas.count, size % replicas.count) / replicas.count
        return replicas.total(sums)

    def _in_batches(self, x, y, first, count: int):
        sums, whole = tf.zeros(2, tf.float64), count - count % EVAL_BATCH
        if whole:
            for start in tf.range(first, first + whole, EVAL_BATCH):
                sums += self._sums(_slice(x, start, EVAL_BATCH), _slice(y, start, EVAL_BATCH))
        if count > whole:
            sums += self._sums(_slice(x, first + whole, count - whole), _slice(y, first + whole, count - whole))
        return sums

    def _sums(self, x, y):
        outputs = called(self.model, x, training=False)
        loss = mean_loss(self.loss, y, outputs) * tf.cast(tf.shape(y)[0], tf.float32)
        return tf.cast(tf.stack([loss, tf.reduce_sum(tf.cast(self.metric(y, outputs), tf.float32))]), tf.float64)


def _slice(array, start, size: int):
    """`array[start : start + size]` with a shape that the compiler knows."""
    return tf.slice(array, [start, *[0] * (len(array.shape) - 1)], [size, *array.shape[1:]])


def mean_loss(loss, y, outputs):
    """The mean over examples; a loss given by its name returns one value for each."""
    value = tf.reduce_mean(tf.cast(loss(y, outputs), tf.float32))
    count = tf.distribute.get_strategy().num_replicas_in_sync
    divided = count > 1 and getattr(loss, "reduction", None) in _DIVIDED
    return value * count if divided else value


_DIVIDED = (
    "sum_over_batch_size",
    "mean",
    "mean_with_sample_weight",
)  # by the replicas too: Keras expects to sum over them


def _compiles(jit_compile: bool | str, model: keras.Model, replicas: Replicas) -> bool:
    if replicas.strategy is None:
        return xla_pays(model) if jit_compile == "auto" else bool(jit_compile)
    if jit_compile is True:
        raise LotteryError(
            "Expected jit_compile of False or 'auto' with a strategy, whose replicas meet outside of XLA, but received True."
        )
    return False


def xla_pays(model: keras.Model) -> bool:
    """On a GPU always; on a CPU for nets of matrix products only, where it is several times faster, as measured."""
    if tf.config.list_physical_devices("GPU"):
        return True
    return has_matrices_only(model)


def has_matrices_only(model: keras.Model) -> bool:
    """Whether a net is made of matrix products: no convolutions, no recurrence."""
    recurrent = any(isinstance(layer, keras.layers.RNN) for layer in sublayers(model))
    return not recurrent and all(len(v.shape) <= 2 for v in model.trainable_variables)


def accuracy_for(loss) -> Callable:
    """Accuracy for the outputs that the loss expects: a single output is cut at 0 if it is a logit, else at 1/2."""
    threshold = 0.0 if getattr(loss, "from_logits", False) else 0.5

    def accuracy(y_true, y_pred):
        return _right(y_true, y_pred, threshold)

    return accuracy


def _right(y_true, y_pred, threshold: float):
    """1 where the prediction is right: integer labels, one-hot labels, or a single output per example."""
    if y_pred.shape[-1] == 1:
        right = tf.equal(y_pred > threshold, tf.cast(tf.reshape(y_true, tf.shape(y_pred)), bool))
        return tf.reduce_mean(tf.cast(right, tf.float32), range(1, len(y_pred.shape)))
    if len(y_true.shape) == len(y_pred.shape) and y_true.shape[-1] == y_pred.shape[-1]:
        return keras.metrics.categorical_accuracy(y_true, y_pred)
    return keras.metrics.sparse_categorical_accuracy(y_true, y_pred)
