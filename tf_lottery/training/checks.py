"""Whether a model and the sets of a `Trainer` fit each other: one sentence now instead of a page from the compiled graph later."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from tf_lottery.base.errors import DataError, LotteryError
from tf_lottery.masking.calls import called
from tf_lottery.masking.masked import unwrapped
from tf_lottery.masking.own_step import own_step
from tf_lottery.masking.weights import sublayers
from tf_lottery.training.examples import Examples, check_metric, rows_of, size_of
from tf_lottery.training.objective import Objective, Wanted, are_probabilities, number


def check_model(model: keras.Model, examples: Examples) -> None:
    """Refuses a model that `Trainer` cannot train, or that does not take inputs of that shape.

    Raises:
      LotteryError: If so; a `DataError` for the inputs.
    """
    plain, x = unwrapped(model), examples[0]
    if not plain.built:
        raise LotteryError(
            f"Expected a built model, but {model.name!r} has no weights yet: build it or call it on data first."
        )
    if steps := own_step(plain):
        raise LotteryError(
            f"Expected a model that Trainer's own step can train, but {plain.name!r} brings {steps[0]}: give find_ticket a function "
            "around model.fit, which trains by it."
        )
    if carrying := [layer.name for layer in sublayers(plain) if getattr(layer, "stateful", False)]:
        raise LotteryError(
            f"Expected a model that Trainer, which shuffles examples, can train, but {carrying[0]!r} of {plain.name!r} carries its state from "
            "batch to batch: give find_ticket a function around model.fit."
        )
    shape = getattr(plain, "input_shape", None)
    if keras.tree.is_nested(x) or not isinstance(shape, tuple) or not all(isinstance(a, int | None) for a in shape):
        return
    if len(shape) != x.ndim or any(a not in (None, b) for a, b in zip(shape[1:], x.shape[1:])):
        raise DataError(
            f"Expected inputs of shape {shape[1:]} for model {plain.name!r}, but the data have {x.shape[1:]}."
        )


def objective_for(model: keras.Model, sets: Mapping[str, Examples], wanted: Wanted, augmented: Callable) -> Objective:
    """The losses and metrics of a model, after two examples of each set were tried with them.

    Args:
      model: A plain model.
      sets: Their examples, those of `train` first; of a set that is streamed its first batch.
      wanted: What the Trainer was given.
      augmented: Augments inputs as training does.

    Raises:
      LotteryError: If they do not fit.
    """
    objective = None
    for name, examples in sets.items():
        x, y, *weights = few = keras.tree.map_structure(tf.constant, rows_of(examples, slice(2)))
        try:
            outputs = called(model, augmented(x) if name == "train" else x, training=False)
            objective = objective or wanted.of(model, y, outputs)
            _check_one_hot(name, y, outputs, objective)
            _check_labels(model, name, examples[1], outputs, objective, default=wanted.metric is None)
            objective.loss(y, outputs, *weights)
            _check_metrics(objective, few, outputs)
        except LotteryError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(
                f"Expected {name} data that fit model {model.name!r}, the loss and the metric, but inputs of shape "
                f"{_shapes(x)} and targets of shape {_shapes(y)} failed ({reason})."
            ) from error
    assert objective  # a Trainer has a training set
    return objective


def _shapes(nest: Any) -> str:
    return ", ".join(str(tuple(tensor.shape)) for tensor in keras.tree.flatten(nest))


def _check_metrics(objective: Objective, examples: Examples, outputs: Any) -> None:
    _, y, *weights = examples
    count = size_of(examples)
    for output, one in objective.measured:
        if output.of(y) is None:
            raise DataError(f"Expected targets for output {output.name!r}, which has a metric, but received none.")
        if one.function is not None:
            shape = tf.convert_to_tensor(one.function(output.of(y), output.of(outputs))).shape
            if tuple(shape)[:1] != (count,):
                raise LotteryError(
                    f"Expected metric to return one value per example, but for {count} examples it returned shape {tuple(shape)}."
                )
        own = output.of(weights[0]) if one.weighted and weights else None
        one.metric.update_state(output.of(y), output.of(outputs), sample_weight=own)  # some make their variables here
        number(one.metric.result(), one.name)
        one.metric.reset_state()


def _check_labels(model: keras.Model, name: str, y: Any, outputs: Any, objective: Objective, default: bool) -> None:
    for output in objective.outputs:
        own, shape = output.of(y), output.of(outputs).shape
        if own is None:
            continue
        if default and any(one.name.endswith("accuracy") for one in output.measured):
            check_metric(None, own, (*own.shape[:1], *shape[1:]))
        classes = shape[-1] or 1
        if classes == 1 or getattr(output.loss, "ignore_class", None) is not None:
            continue
        labels = own[..., 0] if own.ndim == len(shape) and own.shape[-1] == 1 else own
        sparse = own.dtype.kind in "iu" or getattr(output.loss, "name", "").startswith("sparse")
        if sparse and labels.ndim == len(shape) - 1 and not 0 <= labels.min() <= labels.max() < classes:
            raise DataError(
                f"Expected labels in [0, {classes}) for model {model.name!r}, but the {name} data have {labels.min():g} to "
                f"{labels.max():g}."
            )


def _check_one_hot(name: str, y: Any, outputs: Any, objective: Objective) -> None:
    for output in objective.outputs:
        own, values = output.of(y), output.of(outputs)
        labels = getattr(output.loss, "name", None) == "sparse_categorical_crossentropy"
        if labels and own is not None and own.shape == values.shape and own.shape[-1] > 1:
            fitting = "'categorical_crossentropy'"
            if not are_probabilities(values):
                fitting = "keras.losses.CategoricalCrossentropy(from_logits=True)"
            raise DataError(
                f"Expected integer labels, as in y.argmax(-1), or for one-hot targets loss={fitting}, but the {name} targets have the "
                f"shape of the outputs, {tuple(own.shape[1:])}."
            )
