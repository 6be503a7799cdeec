"""Compaction: what a mask has made dead is removed, so that a pruned network gets smaller and faster on every device.

What stands here, and after a colon the names that other rooms take from it:

    graph     a model as a flat list of calls, and the same calls made again
    rules     what is known of a kind of layer: which units are constant, which it needs, how it shrinks
    kernels   the rules for Dense and convolutions
    unitwise  the rules for layers without kernels
    report    what compaction bought

A unit or channel is dead if none of its outgoing connections is left. It is constant if no varying input is left to it; its
constant, seen through activations, batch normalisation and pooling, moves into the biases of what follows. Both are removed
exactly: the weights that stay are copied, and biases change. One pass forward for the constants and one backward for what
is needed find all of them, because nothing that is removed takes part in anything that stays.

Zero padding turns a constant channel into a map that is different at the border, which no bias holds. A convolution needs few
such maps, because the others are multiples or sums of these: they stay, and their kernels take up those of the others.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import keras
import numpy as np
from keras import tree

from tf_lottery.base.errors import LotteryError
from tf_lottery.compaction import kernels, unitwise  # noqa: F401  they register their rules
from tf_lottery.compaction.graph import Graph, Step, fill, is_keras
from tf_lottery.compaction.report import Change, LayerChange, Report, multiply_adds
from tf_lottery.compaction.rules import Rule, Units, rule_of
from tf_lottery.export.formats import first_line, functions_by_name

__all__ = ["Change", "Compacted", "LayerChange", "Report", "compact"]


class Compacted(NamedTuple):
    """A compacted model, and what compaction bought."""

    model: keras.Model
    report: Report


def compact(model: keras.Model, *, calibration=None) -> Compacted:
    """Removes the dead and constant units of a pruned model, exactly: same inputs, same outputs, plain Keras layers.

    Works through Dense, convolutions (also transposed, depthwise and separable), batch normalisation, elementwise activations,
    pooling, padding, Flatten, Reshape, Concatenate, Add and its like, in Sequential, Functional and nested models, which are
    inlined. Layers of other kinds, layers with weights that are shared, and softmax keep all their inputs and outputs, and the
    report names them. Units that are added to each other stay where one of them is needed. Dead inputs of the model are dropped by
    a gather (`keras.ops.take`) in front of the Dense layer that they go into, where that pays. A layer of which nothing is needed
    keeps one unit.

    Args:
      model: A built Sequential or Functional model, wrapped by `wrap` or plain; zeros in its kernels are what matters. It stays
        as it is.
      calibration: Inputs, (samples, ...), or a list, tuple or dictionary of them for a model with several. Inputs that are the same
        in all these samples, the border of MNIST images say, count as constants. The outputs are then the same only for
        inputs that have these values there too.

    Returns:
      The compacted model, not compiled, and the `Report`.

    Raises:
      TypeError: If it is not a Keras 3 model.
      LotteryError: If it is neither Sequential nor Functional, not built, or cannot be copied, or `calibration` does not fit its inputs.

    Example: unit 1 has no input left and always emits its bias, 3; unit 2 has no output left.

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3), keras.layers.Dense(1)])
    >>> model.set_weights([np.array([[1, 0, 5], [2, 0, 6]]), np.array([0, 3, 0]), np.array([[7], [10], [0]]), np.array([1])])
    >>> small, report = compact(model)
    >>> [weight.tolist() for weight in small.get_weights()]
    [[[1.0], [2.0]], [0.0], [[7.0]], [31.0]]
    >>> report.multiply_adds
    Change(before=9, after=3)
    """
    graph = Graph(model)
    units = {id(t): Units(t.shape) for t in graph.tensors}
    inputs, outputs = ([units[id(t)] for t in tensors] for tensors in (graph.inputs, graph.outputs))
    rules = [
        rule_of(step, graph, [units[id(t)] for t in step.inputs], [units[id(t)] for t in step.outputs])
        for step in graph.steps
    ]
    if calibration is not None:
        _calibrate(graph, inputs, calibration)
    _find_wanted(rules, outputs)
    _find_present(rules, list(units.values()), inputs)
    return _rebuild(graph, rules)


def _find_wanted(rules: list[Rule], outputs: list[Units]) -> None:
    """Forward, what is constant; backward, what matters."""
    for rule in rules:
        rule.emit()
    for units in outputs:
        units.wanted[:] = True
    for rule in reversed(rules):
        rule.ask()


def _find_present(rules: list[Rule], tensors: list[Units], inputs: list[Units]) -> None:
    """What keeps a place: what matters, what shares a place with it, and a unit of each tensor that has none."""
    for units in tensors:
        units.present = units.wanted.copy()
    for units in inputs:
        units.present[:] = True

    def settle() -> None:
        count = -1
        while count < (count := sum(int(units.present.sum()) for units in tensors)):
            for rule in [*rules, *reversed(rules)]:
                rule.tie()

    settle()
    for units in tensors:
        if not units.present.any():
            units.present[0] = True
            settle()


def _rebuild(graph: Graph, rules: list[Rule]) -> Compacted:
    """The compacted model, and how each layer that has weights changed."""
    rule_at = dict(zip(map(id, graph.steps), rules))
    copies: dict[int, keras.layers.Layer] = {}
    names = {t.name for t in graph.inputs}
    changes: list[LayerChange] = []
    left: dict[str, str] = {}

    def call(step: Step, tensors: list):
        rule, shared = rule_at[id(step)], id(step.layer) in copies
        tensors = rule.select(tensors)
        layer = copies[id(step.layer)] if shared else _copied(rule, names)
        outputs = step.call(layer, tensors)
        if rule.reason:
            left[layer.name] = rule.reason
        if isinstance(layer, keras.layers.Layer) and layer.weights:
            copies[id(step.layer)] = layer
            if not shared:
                fill(layer, rule.weights())
            changes.append(_change(step, layer, tensors, tree.flatten(outputs)))
        return outputs

    small = graph.rebuild(call)
    return Compacted(small, Report(tuple(changes), left, before=graph.model, after=small))


def _copied(rule: Rule, names: set[str]):
    """The compacted layer or operation, without weights yet.

    A layer that stays whole and is not of Keras is that of the graph's model, which is a copy already: within a model that has a config
    of its own, its own may leave things out.
    """
    if type(rule) is Rule and not is_keras(type(rule.layer)) and rule.layer.name not in names:
        names.add(rule.layer.name)
        return rule.layer
    try:
        with functions_by_name([rule.layer]):
            return type(rule.layer).from_config(_renamed(rule.config(), names))
    except Exception as error:  # whatever the get_config and from_config of a layer raise
        raise LotteryError(
            f"Expected layers that can be copied, but {rule.layer.name!r} cannot ({first_line(error)}): give its class get_config."
        ) from error


def _renamed(config: dict, names: set[str]) -> dict:
    """The config with a name of its own, and the name added to `names`: nested models may each have a "dense"."""
    name = next(n for i in itertools.count() if (n := f"{config['name']}_{i}" if i else config["name"]) not in names)
    names.add(name)
    return {**config, "name": name}


def _change(step: Step, layer: keras.layers.Layer, inputs: list, outputs: list) -> LayerChange:
    """How a layer changed, from the tensors of the step and the new ones."""
    calls = [(step.layer, step.inputs[0], step.outputs[0]), (layer, inputs[0], outputs[0])]
    before, after = (multiply_adds(each, given.shape, out.shape) for each, given, out in calls)
    return LayerChange(
        layer.name,
        type(layer).__name__,
        inputs=Change(*(Units(given.shape).count for _, given, _ in calls)),
        units=Change(*(Units(out.shape).count for _, _, out in calls)),
        parameters=Change(*(each.count_params() for each, _, _ in calls)),
        multiply_adds=None if before is None or after is None else Change(before, after),
    )


def _calibrate(graph: Graph, inputs: list[Units], calibration) -> None:
    """Takes the inputs that are the same in all samples for constants."""
    arrays = [np.asarray(array) for array in tree.flatten(calibration)]
    expected, received = [t.shape[1:] for t in graph.inputs], [array.shape[1:] for array in arrays]
    fits = len(expected) == len(received) and all(
        len(array) and len(e) == len(r) and all(n in (None, m) for n, m in zip(e, r))
        for array, e, r in zip(arrays, expected, received)
    )
    if not fits:
        raise LotteryError(f"Expected calibration inputs of shapes (samples, ...) {expected}, but received {received}.")
    for units, array in zip(inputs, arrays):
        units.constant = np.where((array == array[0]).all(0), array[0], np.nan)
        if None in units.shape[1:]:  # positions along an axis of unknown length have no constants of their own
            units.constant = units.spread(units.uniform)
