"""The examples a `Trainer` trains on: in which order they come, and whether they fit the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.base.errors import DataError, LotteryError
from tf_lottery.masking.calls import called
from tf_lottery.masking.masked import unwrapped
from tf_lottery.masking.own_step import own_step

Examples = tuple[np.ndarray, np.ndarray]  # inputs and targets


class BatchOrder:
    """Which examples each step sees: a new permutation for each epoch, all decided by one seed."""

    def __init__(self, examples: int, batch_size: int, seed: int):
        self.examples, self.batch_size, self.seed = examples, batch_size, seed
        self.steps_an_epoch = examples // batch_size  # the last incomplete batch is dropped
        self._last: tuple[int, np.ndarray] = -1, np.empty(0)  # the epoch of the last call, and its batches

    def rows(self, start: int, stop: int) -> np.ndarray:
        """The examples of the steps from `start` to before `stop`: int (steps, batch_size)."""
        return np.stack(
            [self._of_epoch(step // self.steps_an_epoch)[step % self.steps_an_epoch] for step in range(start, stop)]
        )

    def _of_epoch(self, epoch: int) -> np.ndarray:
        last, batches = self._last
        if epoch != last:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.examples)
            batches = order[: self.steps_an_epoch * self.batch_size].reshape(self.steps_an_epoch, self.batch_size)
            self._last = epoch, batches
        return batches


def checked_set(name: str, pair: Examples) -> Examples:
    try:
        x, y = (np.asanyarray(a) for a in pair)
        good = all(a.ndim and a.dtype.kind in "biuf" for a in (x, y))
    except (ValueError, TypeError):
        good = False
    if not good:
        raise DataError(
            f"Expected {name} data as two arrays of numbers, inputs and targets, but received {type(pair).__name__} of "
            f"{', '.join(type(a).__name__ for a in pair) if isinstance(pair, tuple | list) else 'another kind'}; for anything "
            "else give find_ticket a function around model.fit."
        )
    if len(x) != len(y) or not len(x):
        raise DataError(f"Expected as many {name} inputs as targets, at least one, but received {len(x)} and {len(y)}.")
    x, y = (a.astype(np.float32) if a.dtype == np.float64 else a for a in (x, y))
    return x, y


def check_metric(metric: Callable | None, y: np.ndarray) -> None:
    if metric is None and y.dtype.kind == "f" and not np.isin(y, (0, 1)).all():
        raise LotteryError(
            "Expected a metric for targets that are not labels, as in metric=keras.metrics.mean_absolute_error, or labels of an "
            f"integer type, as in y.astype('int32'), but received no metric and targets of type {y.dtype}."
        )
    if metric is not None and (not callable(metric) or isinstance(metric, keras.metrics.Metric)):
        raise LotteryError(f"Expected metric to be a function (y_true, y_pred), but received {metric!r}.")


def check_shapes(model: keras.Model, x: np.ndarray, y: np.ndarray) -> None:
    plain = unwrapped(model)
    if not plain.built:
        raise LotteryError(
            f"Expected a built model, but {model.name!r} has no weights yet: build it or call it on data first."
        )
    if steps := own_step(plain):
        raise LotteryError(
            f"Expected a model that Trainer's own step can train, but {plain.name!r} brings {steps[0]}: give find_ticket a function "
            "around model.fit, which trains by it."
        )
    shape = getattr(plain, "input_shape", None)
    if isinstance(shape, tuple) and (
        len(shape) != x.ndim or any(a not in (None, b) for a, b in zip(shape[1:], x.shape[1:]))
    ):
        raise DataError(
            f"Expected inputs of shape {shape[1:]} for model {plain.name!r}, but the data have {x.shape[1:]}."
        )


def check_labels(model: keras.Model, sets: Mapping[str, Examples]) -> None:
    shape = getattr(unwrapped(model), "output_shape", None)
    classes = shape[-1] if isinstance(shape, tuple) else None
    for name, (_, y) in sets.items():
        labels = y.ndim == 1 and y.dtype.kind in "iu" and classes and classes > 1
        if labels and not 0 <= y.min() <= y.max() < classes:
            raise DataError(
                f"Expected labels in [0, {classes}) for model {model.name!r}, but the {name} data have {y.min()} to {y.max()}."
            )


def check_values(
    model: keras.Model, sets: Mapping[str, Examples], loss: Callable | None, metric: Callable, augmented: Callable
) -> Callable:
    """Tries two examples of each set, eagerly: one sentence now instead of a page from the compiled graph later.

    Returns:
      The loss; where none was given, the cross-entropy of labels for what the model puts out.
    """
    for name, (x, y) in sets.items():
        x, y = tf.constant(x[:2]), tf.constant(y[:2])
        try:
            outputs = called(model, augmented(x) if name == "train" else x, training=False)
            loss = loss or _cross_entropy(outputs)
            _check_one_hot(name, y, outputs, loss)
            loss(y, outputs)
            shape = tf.convert_to_tensor(metric(y, outputs)).shape
        except LotteryError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(
                f"Expected {name} data that fit model {model.name!r}, the loss and the metric, but inputs of shape "
                f"{tuple(x.shape)} and targets of shape {tuple(y.shape)} failed ({reason})."
            ) from error
        if tuple(shape) != tuple(y.shape[:1]):
            raise LotteryError(
                f"Expected metric to return one value per example, but for {len(y)} examples it returned shape {tuple(shape)}."
            )
    assert loss  # a Trainer has a training set
    return loss


def _cross_entropy(outputs) -> keras.losses.Loss:
    """Of integer labels and logits, or probabilities: Keras itself tells a softmax only if nothing, such as a cast, follows it."""
    if outputs.shape[-1] == 1:
        raise LotteryError(
            "Expected a loss for a model with a single output, as in loss=keras.losses.BinaryCrossentropy(from_logits=True), "
            "but received none."
        )
    return keras.losses.SparseCategoricalCrossentropy(from_logits=not _are_probabilities(outputs))


def _are_probabilities(outputs) -> bool:
    outputs = tf.cast(outputs, tf.float32)
    return bool(tf.reduce_all(outputs >= 0) & tf.reduce_all(abs(tf.reduce_sum(outputs, -1) - 1) < 0.01))


def _check_one_hot(name: str, y, outputs, loss: Callable) -> None:
    labels = getattr(loss, "name", getattr(loss, "__name__", None)) == "sparse_categorical_crossentropy"
    if labels and y.shape == outputs.shape and y.shape[-1] > 1:
        fitting = "'categorical_crossentropy'"
        if not _are_probabilities(outputs):
            fitting = "keras.losses.CategoricalCrossentropy(from_logits=True)"
        raise DataError(
            f"Expected integer labels, as in y.argmax(-1), or for one-hot targets loss={fitting}, but the {name} targets have the "
            f"shape of the outputs, {tuple(y.shape[1:])}."
        )
