"""The compiled part of `Trainer`: stretches of training steps and whole measurements, one call each."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.layers import gradient_masks
from tf_lottery.weights import fresh_optimizer, loss_scaling, sublayers, value_of

EVAL_BATCH = 1_000


class Loop:
    """The compiled steps and measurements of one model; the arguments are those of `Trainer`."""

    def __init__(self, model: keras.Model, *, optimizer, loss, metric, augment, seed: int, jit_compile: bool | str):
        self.model, self.loss, self.augment, self.seed = model, loss, augment, seed
        self.plain, self.masks, self.held = gradient_masks(model)
        self.trained = list(self.plain.trainable_variables)
        self.optimizer = loss_scaling(fresh_optimizer(optimizer), self.plain)
        self.optimizer.build(self.trained)
        self._start = [value_of(v) for v in self.optimizer.variables]
        self.jit = xla_pays(self.plain) if jit_compile == "auto" else bool(jit_compile)
        self.run = tf.function(self._run, jit_compile=self.jit)
        self.evaluate = Evaluation(self.plain, loss, metric)

    def serves(self, model: keras.Model) -> bool:
        """Whether this loop was compiled for that model as it is now: the same masks, the same trainable variables."""
        if model is not self.model:
            return False
        now = gradient_masks(model)[0].trainable_variables
        return len(now) == len(self.trained) and all(a is b for a, b in zip(now, self.trained))

    def reset(self) -> None:
        """The optimizer as it was built: no momentum, step 0."""
        for variable, value in zip(self.optimizer.variables, self._start):
            variable.assign(value)

    def values(self) -> list[np.ndarray]:
        return [value_of(v) for v in self.plain.variables]

    def assign(self, values: list[np.ndarray]) -> None:
        for variable, value in zip(self.plain.variables, values):
            variable.assign(value)

    def _run(self, x, y, rows, count, first):
        """`count` training steps; returns their mean loss and the first step whose loss was not finite, or -1."""
        total, bad = tf.constant(0.0), tf.constant(-1)
        for i in tf.range(count):
            loss = self._step(tf.gather(x, rows[i]), tf.gather(y, rows[i]), first + i)
            total += loss
            bad = tf.where((bad < 0) & ~tf.math.is_finite(loss), i, bad)
        return total / tf.cast(count, tf.float32), bad

    def _step(self, x, y, step):
        if self.augment is not None:
            x = self.augment(x, tf.stack([self.seed, step]))
        with tf.GradientTape() as tape:
            loss = mean_loss(self.loss, y, self.plain(x, training=True))
            total = tf.add_n([loss, *(tf.cast(extra, tf.float32) for extra in self.plain.losses)])
            scaled = self.optimizer.scale_loss(total)
        gradients = tape.gradient(scaled, [v.value for v in self.trained])
        self.optimizer.apply(
            [
                g if g is None or id(v) not in self.masks else g * self.masks[id(v)].value
                for g, v in zip(gradients, self.trained)
            ],
            self.trained,
        )
        for v in self.trained:  # optimizers that mix the weights of a kernel, and weight decay, move pruned weights too
            if id(v) in self.masks:
                kept = v.value * self.masks[id(v)].value
                v.assign(kept + self.held[id(v)].value if id(v) in self.held else kept)
        return total


class Evaluation:
    """The compiled measurement of one model: summed loss and summed metric of a set."""

    def __init__(self, model: keras.Model, loss, metric):
        self.model, self.loss, self.metric = model, loss, metric
        self._call = tf.function(self._in_batches)  # large batches: faster without XLA on a CPU, as measured

    def __call__(self, x, y):
        return self._call(x, y)

    def _in_batches(self, x, y):
        sums = tf.zeros(2, tf.float64)
        for start in tf.range(0, tf.shape(y)[0], EVAL_BATCH):
            sums += self._sums(x[start : start + EVAL_BATCH], y[start : start + EVAL_BATCH])
        return sums

    def _sums(self, x, y):
        outputs = self.model(x, training=False)
        loss = mean_loss(self.loss, y, outputs) * tf.cast(tf.shape(y)[0], tf.float32)
        return tf.cast(tf.stack([loss, tf.reduce_sum(tf.cast(self.metric(y, outputs), tf.float32))]), tf.float64)


def mean_loss(loss, y, outputs):
    """The mean over examples; a loss given by its name returns one value for each."""
    return tf.reduce_mean(tf.cast(loss(y, outputs), tf.float32))


def xla_pays(model: keras.Model) -> bool:
    """On a GPU always; on a CPU for nets of matrix products only, where it is several times faster, as measured."""
    if tf.config.list_physical_devices("GPU"):
        return True
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
