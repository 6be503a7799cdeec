"""What a `Trainer` minimises and measures: the losses and metrics of one output, or of several by their names.

Losses are Keras losses and are weighted as `fit` weights them. A loss or metric that is a function is wrapped as `compile` wraps it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.base.errors import DataError, LotteryError
from tf_lottery.masking.masked import unwrapped
from tf_lottery.training.accuracy import accuracy_for

BY_BATCH = ("sum", "mean_with_sample_weight")  # reductions that depend on what else is in the batch
DIVIDED = (
    "sum_over_batch_size",
    "mean",
    "mean_with_sample_weight",
)  # by the replicas too: Keras expects to sum over them


@dataclasses.dataclass(frozen=True)
class Measured:
    """A metric of an output, and the function that it is the mean of, if it was made of one."""

    name: str
    metric: keras.metrics.Metric
    weighted: bool
    function: Callable | None = None

    @property
    def is_mean(self) -> bool:
        """Whether its total and count add up over batches; else it goes on from its own state."""
        own, mean = type(self.metric), keras.metrics.MeanMetricWrapper
        return issubclass(own, mean) and own.update_state is mean.update_state and own.result is mean.result


@dataclasses.dataclass(frozen=True)
class Output:
    """An output of a model: where it stands among the outputs, by its key or number, and None if it is the only one."""

    name: str | None
    place: str | int | None
    loss: keras.losses.Loss | None = None
    weight: float = 1.0
    measured: Sequence[Measured] = ()

    def of(self, nest: Any) -> Any:
        """What belongs to it among outputs, targets or weights; weights that are one array are everybody's."""
        if isinstance(nest, Mapping):
            return nest.get(self.name if self.place is None or self.name in nest else self.place)
        if isinstance(nest, tuple | list):
            return nest[self.place if isinstance(self.place, int) else 0]
        return nest


class Objective:
    """The losses and metrics of a model's outputs.

    Args:
      outputs: What is known of each output.
      by_batch: Whether a measured loss depends on how the set is cut into batches.
    """

    def __init__(self, outputs: Sequence[Output], by_batch: bool):
        self.outputs, self.by_batch = [o for o in outputs if o.loss is not None or o.measured], by_batch
        self.measured = [(output, one) for output in self.outputs for one in output.measured]
        losses = [output.loss for output in self.outputs if output.loss is not None]
        self.from_logits = all(getattr(loss, "from_logits", False) for loss in losses)
        self.one_loss = losses[0] if len(outputs) == 1 else None

    def loss(self, y: Any, outputs: Any, weights: Any = None, *, share: Any = None) -> tf.Tensor:
        """The sum of the losses of all outputs, each the mean over examples.

        Args:
          y, outputs: Targets and outputs of a batch.
          weights: Of its examples, or by output.
          share: On one of several replicas the share of the batch's examples that it has: the losses of all add up then.
        """
        total = []
        for output in self.outputs:
            if output.loss is None:
                continue
            target, values, own = output.of(y), output.of(outputs), None if weights is None else output.of(weights)
            value = output.loss(target, values) if own is None else output.loss(target, values, sample_weight=own)
            value = tf.reduce_mean(tf.cast(value, tf.float32))
            reduction = getattr(output.loss, "reduction", None)
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            if replicas > 1 and reduction in DIVIDED:
                value *= replicas
            if share is not None and reduction != "sum":
                value *= share
            total.append(value if output.weight == 1 else output.weight * value)
        return total[0] if len(total) == 1 else tf.add_n(total)

    def on(self, weights: Any) -> Callable:
        """The loss as a function `(y, outputs)` of one batch with these weights, or none."""
        if weights is None and self.one_loss is not None:
            return self.one_loss

        def loss(y, outputs):
            return self.loss(y, outputs, weights)

        loss.from_logits = self.from_logits  # type: ignore[attr-defined]  # GraSP asks
        return loss

    def update(self, states: Sequence[Sequence[tf.Tensor]], y: Any, outputs: Any, weights: Any = None) -> list:
        """The states of the metrics after a batch; those of means start from zero and add up."""
        new = []
        for (output, one), state in zip(self.measured, states, strict=True):
            own = output.of(weights) if one.weighted and weights is not None else None
            start = [tf.zeros_like(v) for v in one.metric.variables] if one.is_mean else state
            new.append(one.metric.stateless_update_state(start, output.of(y), output.of(outputs), sample_weight=own))
        return new

    def begin(self) -> list[list[tf.Tensor]]:
        """The states of all metrics before anything was measured."""
        return [[tf.convert_to_tensor(v.value) for v in one.metric.variables] for _, one in self.measured]

    def described(self, describe: Callable) -> list:
        """What tells it from others, in the words of JSON."""
        return [
            [output.name, output.place, describe(output.loss), output.weight]
            + [[one.name, describe(one.function or one.metric), one.weighted] for one in output.measured]
            for output in self.outputs
        ]


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The losses and metrics that a `Trainer` was given, for any model."""

    loss: Any = None
    loss_weights: Any = None
    metric: Any = None
    weighted_metrics: Any = None

    def of(self, model: keras.Model, y: Any, outputs: Any) -> Objective:
        """Those of a model, for targets and outputs of a few examples.

        Raises:
          LotteryError: If they do not go with its outputs.
        """
        known = _outputs(unwrapped(model), outputs)
        _check_targets(known, y, outputs)
        losses = _spread(self.loss, known, "loss")
        if isinstance(self.loss, Mapping | list | tuple) or len(known) > 1:
            _check_losses(known, losses, y)
        weights = _spread(self.loss_weights, known, "loss_weights")
        metrics, weighted = (
            _spread(given, known, name, several=True)
            for given, name in ((self.metric, "metric"), (self.weighted_metrics, "weighted_metrics"))
        )
        none_given = self.metric is None and self.weighted_metrics is None
        found = []
        for output, loss, weight, plain, by_weight in zip(known, losses, weights, metrics, weighted):
            loss = as_loss(loss) if loss is not None else _default_loss(output, known, outputs)
            given = (
                ["accuracy"]
                if none_given and _has_classes(known, loss) and output.of(y) is not None
                else _listed(plain)
            )
            measured = [_measured(one, loss, False) for one in given] + [
                _measured(one, loss, True) for one in _listed(by_weight)
            ]
            weight = 1.0 if weight is None else float(weight)
            found.append(dataclasses.replace(output, loss=loss, weight=weight, measured=measured))
        if not any(output.measured for output in found):
            raise LotteryError(
                f"Expected a metric for one of the outputs {_names(known)}, as in metric={{{known[0].name!r}: 'mae'}}, but received none."
            )
        masked = any(getattr(tensor, "_keras_mask", None) is not None for tensor in keras.tree.flatten(outputs))
        by_batch = masked or any(getattr(output.loss, "reduction", None) in BY_BATCH for output in found)
        return Objective(_named(found), by_batch)


def as_loss(loss: Any) -> keras.losses.Loss:
    """A Keras loss from one, from its name or configuration, or from a function `(y, outputs)`.

    Raises:
      LotteryError: If it is none.
    """
    try:
        found = keras.losses.get(loss)
    except (ValueError, TypeError):
        found = None
    if found is None or not callable(found):
        raise LotteryError(f"Expected a Keras loss, its name, or a function (y, outputs), but received {loss!r:.80}.")
    return found if isinstance(found, keras.losses.Loss) else Function(found)


class Function(keras.losses.Loss):
    """A function as a loss: targets that lack the last axis of the outputs, of length 1, get it, as in `compile`."""

    def __init__(self, function: Callable):
        name = getattr(function, "__name__", "loss")
        super().__init__(name=name if name.isidentifier() else "loss")  # a lambda's is no name scope
        self.function = function

    def call(self, y_true, y_pred):
        if len(y_true.shape) == len(y_pred.shape) + 1 and y_true.shape[-1] == 1:
            y_true, y_pred = (y_true, y_pred[..., None]) if len(y_pred.shape) == 1 else (y_true[..., 0], y_pred)
        elif len(y_pred.shape) == len(y_true.shape) + 1 and y_pred.shape[-1] == 1:
            y_true, y_pred = (y_true[..., None], y_pred) if len(y_true.shape) == 1 else (y_true, y_pred[..., 0])
        return self.function(y_true, y_pred)

    def get_config(self):
        return {"function": f"{getattr(self.function, '__module__', '')}.{self.name}"}


def cross_entropy(outputs: tf.Tensor) -> keras.losses.Loss:
    """Of integer labels and logits, or probabilities: Keras itself tells a softmax only if nothing, such as a cast, follows it."""
    if outputs.shape[-1] == 1:
        raise LotteryError(
            "Expected a loss for a model with a single output, as in loss=keras.losses.BinaryCrossentropy(from_logits=True), "
            "but received none."
        )
    return keras.losses.SparseCategoricalCrossentropy(from_logits=not are_probabilities(outputs))


def are_probabilities(outputs: tf.Tensor) -> bool:
    outputs = tf.cast(outputs, tf.float32)
    return bool(tf.reduce_all(outputs >= 0) & tf.reduce_all(abs(tf.reduce_sum(outputs, -1) - 1) < 0.01))


def _outputs(model: keras.Model, outputs: Any) -> list[Output]:
    names = getattr(model, "output_names", None) or []
    if isinstance(outputs, Mapping):
        found = [Output(name, name) for name in outputs]
    elif isinstance(outputs, tuple | list):
        names = names if len(names) == len(outputs) else [f"output_{i}" for i in range(len(outputs))]
        found = [Output(name, place) for place, name in enumerate(names)]
    else:
        return [Output(names[0] if len(names) == 1 else None, None)]
    if any(keras.tree.is_nested(output.of(outputs)) for output in found):
        raise LotteryError(
            f"Expected outputs in one dict or list, but those of {model.name!r} are nested: give find_ticket a function around model.fit."
        )
    return found


def _check_targets(known: Sequence[Output], y: Any, outputs: Any) -> None:
    by_name = f"by name, as in {{{known[0].name!r}: ...}}"
    if isinstance(y, Mapping):
        if unknown := set(y) - {output.name for output in known} - {output.place for output in known}:
            raise DataError(f"Expected targets of the outputs {_names(known)}, but received {sorted(unknown)[0]!r}.")
    elif isinstance(y, tuple | list):
        if isinstance(outputs, Mapping):
            raise DataError(f"Expected targets of the outputs {_names(known)} {by_name}, but received a list.")
        if len(y) != len(known):
            raise DataError(
                f"Expected targets for each of the outputs {_names(known)}, or some of them {by_name}, but received {len(y)}."
            )
    elif len(known) > 1:
        raise DataError(f"Expected targets for the outputs {_names(known)} {by_name}, but received one array.")


def _check_losses(known: Sequence[Output], losses: Sequence, y: Any) -> None:
    example = ", ".join(f"{output.name!r}: ..." for output in known)
    if not any(loss is not None for loss in losses):
        raise LotteryError(f"Expected a loss for the outputs, as in loss={{{example}}}, but received none.")
    for output, loss in zip(known, losses):
        if (loss is None) != (output.of(y) is None) and loss is not None:
            raise DataError(f"Expected targets for output {output.name!r}, which has a loss, but received none.")


def _spread(given: Any, known: Sequence[Output], what: str, several: bool = False) -> list:
    """What is given for each output: by name, in their order, or the same for all."""
    if isinstance(given, Mapping) and not (what == "loss" and "class_name" in given):
        if unknown := [name for name in given if all(name not in (o.name, o.place) for o in known)]:
            raise LotteryError(
                f"Expected {what} by the names of the outputs, {_names(known)}, but received {unknown[0]!r}."
            )
        return [given.get(output.name, given.get(output.place)) for output in known]
    if isinstance(given, tuple | list) and not (several and len(known) == 1):
        if len(given) != len(known):
            raise LotteryError(f"Expected {what} for each of the outputs {_names(known)}, but received {len(given)}.")
        return list(given)
    if several and given is not None and len(known) > 1:
        raise LotteryError(
            f"Expected {what} by the names of the outputs, as in {what}={{{known[0].name!r}: ...}}, but received {given!r:.80}."
        )
    return [given] * len(known)


def _default_loss(output: Output, known: Sequence[Output], outputs: Any) -> keras.losses.Loss | None:
    return cross_entropy(output.of(outputs)) if len(known) == 1 else None


def _has_classes(known: Sequence[Output], loss: Any) -> bool:
    """Whether accuracy is the metric of an output where none is given: of the only one, and else by its loss."""
    return loss is not None and (len(known) == 1 or "crossentropy" in getattr(loss, "name", ""))


def _listed(given: Any) -> list:
    return [] if given is None else list(given) if isinstance(given, tuple | list) else [given]


def _measured(given: Any, loss: Any, weighted: bool) -> Measured:
    if given in ("accuracy", "acc"):
        name, metric = given, accuracy_for(loss)
    else:
        try:
            metric = keras.metrics.get(given)
        except (ValueError, TypeError):
            metric = None
        if metric is None or not callable(metric):
            raise LotteryError(
                f"Expected a metric to be a function (y_true, y_pred), a Keras metric or its name, but received {given!r:.80}."
            )
        name = given if isinstance(given, str) else getattr(metric, "name", getattr(metric, "__name__", "metric"))
    if isinstance(metric, keras.metrics.Metric):
        return Measured(name, metric, weighted)
    return Measured(name, keras.metrics.MeanMetricWrapper(metric, name=name), weighted, metric)


def _named(outputs: Sequence[Output]) -> list[Output]:
    """Each metric under the name that `fit` gives it; the first one is called accuracy, whatever it is."""
    taken, found = {"loss"}, []
    for output in outputs:
        measured = []
        for one in output.measured:
            name = f"{output.name}_{one.name}" if len(outputs) > 1 else one.name
            name = f"weighted_{name}" if one.weighted and name in taken else name
            taken.add(name)
            measured.append(dataclasses.replace(one, name=name))
        found.append(dataclasses.replace(output, measured=measured))
    return found


def _names(known: Sequence[Output]) -> str:
    return ", ".join(repr(output.name) for output in known)


def number(value: Any, name: str) -> float:
    """The result of a metric.

    Raises:
      LotteryError: If it is not one number.
    """
    if np.ndim(value) or isinstance(value, Mapping):
        raise LotteryError(f"Expected a metric to be one number, but {name!r} is {value!s:.80}.")
    return float(value)
