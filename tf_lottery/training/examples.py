"""The examples of a `Trainer` as arrays: inputs, targets and weights, each an array, or several in a dict or a list."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from tf_lottery.base.errors import DataError, LotteryError

Examples = tuple  # (inputs, targets) or (inputs, targets, sample weights)
OWN = "for anything else give find_ticket a function around model.fit"


def checked_set(name: str, given: Any) -> Examples:
    """The arrays of a set, float32 in the place of float64.

    Args:
      name: What the set is called in messages.
      given: `(x, y)` or `(x, y, sample weights)`; each of them an array, or several in a dict, a list or a tuple.

    Raises:
      DataError: If they are no arrays of numbers, or not of as many examples.
    """
    parts = tuple(given) if isinstance(given, tuple | list) and len(given) in (2, 3) else ()
    try:
        examples = tuple(map(_arrays, parts))
        leaves = keras.tree.flatten(examples)
        good = bool(parts) and all(a.ndim and a.dtype.kind in "biuf" for a in leaves)
    except (ValueError, TypeError):
        good = False
    if not good:
        received = ", ".join(type(part).__name__ for part in parts) or type(given).__name__
        raise DataError(
            f"Expected {name} data as arrays of numbers, inputs and targets (dicts or lists of such, sample weights third), or as a "
            f"tf.data.Dataset or PyDataset of batches, but received {received}; {OWN}."
        )
    counts = {part: {len(a) for a in keras.tree.flatten(value)} for part, value in zip(_PARTS, examples)}
    if len(set().union(*counts.values())) > 1 or counts["inputs"] == {0}:
        told = [" or ".join(map(str, sorted(count))) for count in counts.values()]
        raise DataError(
            f"Expected as many {name} inputs as targets{' and weights' if len(told) > 2 else ''}, at least one, but received "
            f"{' and '.join(told)}; a list of arrays is several inputs."
        )
    if name != "train":  # training finds it in the loss of a step
        for part, value in zip(_PARTS, examples):
            for array in keras.tree.flatten(value):
                check_finite(name, part, array)
    return keras.tree.map_structure(lambda a: a.astype(np.float32) if a.dtype == np.float64 else a, examples)


def check_finite(name: str, part: str, array: np.ndarray, rows: int = 10_000) -> None:
    """Refuses NaN and infinity in the numbers of a set; some rows at a time, for it may be large."""
    for start in range(0, len(array) if array.dtype.kind == "f" else 0, rows):
        some = array[start : start + rows]
        bad = np.flatnonzero(~np.isfinite(some).reshape(len(some), -1).all(axis=1))
        if bad.size:
            raise DataError(
                f"Expected {name} {part} without NaN and infinity, but example {start + int(bad[0])} holds one."
            )


_PARTS = ("inputs", "targets", "weights")


def _arrays(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _arrays(part) for key, part in value.items()}
    if isinstance(value, tuple | list) and value and all(_is_array(part) for part in value):
        return [_arrays(part) for part in value]
    return np.asanyarray(value)


def _is_array(value: Any) -> bool:
    return isinstance(value, Mapping) or len(getattr(value, "shape", ())) > 0


def size_of(examples: Any) -> int:
    """How many examples there are."""
    return len(keras.tree.flatten(examples)[0])


def bytes_of(examples: Any) -> int:
    return sum(array.nbytes for array in keras.tree.flatten(examples))


def rows_of(examples: Any, rows: Any) -> Any:
    """Some of them."""
    return keras.tree.map_structure(lambda array: array[rows], examples)


def weighted(examples: Examples, class_weight: Mapping[int, float] | None) -> Examples:
    """The examples with the weights of their classes, as `fit` weights them: 1 for a class that is not listed.

    Raises:
      LotteryError: If they have weights already, several targets, or targets that are no labels of examples.
    """
    if class_weight is None:
        return examples
    if not isinstance(class_weight, Mapping):
        raise LotteryError(f"Expected class_weight as in {{0: 1.0, 1: 5.0}}, but received {class_weight!r:.80}.")
    if len(examples) == 3:
        raise LotteryError("Expected either sample weights or class_weight, but received both.")
    x, y = examples
    if keras.tree.is_nested(y):
        raise LotteryError("Expected one output with class_weight, but the targets are several: give sample weights.")
    labels = y
    if y.ndim == 2:
        labels = y[:, 0] if y.shape[1] == 1 else y.argmax(-1)
    one_hot = y.ndim == 2 and y.shape[1] > 1
    if labels.ndim > 1 or (one_hot and not np.isclose(y.sum(-1), 1).all()):
        raise LotteryError(
            f"Expected one label for each example with class_weight, but targets have shape {y.shape[1:]}: give sample weights."
        )
    labels = np.round(labels).astype(np.int64)
    weights = np.ones(len(labels), np.float32)
    for label, weight in class_weight.items():
        weights[labels == label] = weight
    return x, y, weights


def check_metric(metric: Callable | None, y: np.ndarray, outputs: tuple[int, ...] | None = None) -> None:
    """Refuses the default metric, accuracy, for targets that are no labels.

    Args:
      metric: None for the default.
      y: The targets.
      outputs: The shape of the outputs they are compared with, if it is known.

    Raises:
      LotteryError: If the metric is no function, or missing.
    """
    if metric is None and not are_labels(y, outputs):
        raise LotteryError(
            "Expected a metric for targets that are not labels, as in metric=keras.metrics.mean_absolute_error, or labels, whole "
            f"numbers from 0 on (0 and 1 for a single output), but received no metric and targets of type {y.dtype}."
        )
    if metric is not None and (not callable(metric) or isinstance(metric, keras.metrics.Metric)):
        raise LotteryError(f"Expected metric to be a function (y_true, y_pred), but received {metric!r}.")


def are_labels(y: np.ndarray, outputs: tuple[int, ...] | None = None) -> bool:
    """Whether targets can be labels: classes by number, 0 and 1 for a single output, or a share for each class.

    >>> are_labels(np.array([0.0, 2.0, 1.0])), are_labels(np.array([0, 2, 1]), (3, 1)), are_labels(np.array([0.3, 0.7]))
    (True, False, False)
    """
    if bool(((y == 0) | (y == 1)).all()):
        return True
    numbered = y.dtype.kind in "bui" or bool(((y >= 0) & (y == np.floor(y))).all())
    if outputs is None:
        return numbered or _are_shares(y)
    if outputs[-1] == 1:
        return False
    return _are_shares(y) if y.ndim == len(outputs) and y.shape[-1] == outputs[-1] else numbered


def _are_shares(y: np.ndarray) -> bool:
    return y.ndim > 1 and y.shape[-1] > 1 and bool((y >= 0).all()) and np.allclose(y.sum(-1), 1, atol=1e-3)
