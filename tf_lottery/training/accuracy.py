"""The default metric."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf


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
