"""What compaction knows about each kind of layer: which of its units are constant, which it needs, and how it shrinks.

A unit is an index along the last axis of a tensor: a unit of a Dense layer, a channel of a convolution. `emit` runs forward through
the model and finds the units that do not depend on the inputs. `ask` runs backward and finds the units whose values
matter. `tie` makes the units that layers share a place with, as those of the summands of `Add`, stay or go together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import tree

from tf_lottery.compaction.graph import Graph, Step

ELEMENTWISE = {
    keras.activations.celu,
    keras.activations.elu,
    keras.activations.exponential,
    keras.activations.gelu,
    keras.activations.hard_shrink,
    keras.activations.hard_sigmoid,
    keras.activations.hard_silu,
    keras.activations.hard_tanh,
    keras.activations.leaky_relu,
    keras.activations.linear,
    keras.activations.log_sigmoid,
    keras.activations.mish,
    keras.activations.relu,
    keras.activations.relu6,
    keras.activations.selu,
    keras.activations.sigmoid,
    keras.activations.silu,
    keras.activations.soft_shrink,
    keras.activations.softplus,
    keras.activations.softsign,
    keras.activations.sparse_plus,
    keras.activations.sparse_sigmoid,
    keras.activations.squareplus,
    keras.activations.tanh,
    keras.activations.tanh_shrink,
    keras.activations.threshold,
}
RULES: dict[str, type[Rule]] = {}


@dataclass
class Units:
    """The units of one tensor.

    Attributes:
      shape: The tensor's, with the batch axis.
      constant: The value that each has for all inputs, NaN where it varies; spatial axes of size 1 where it is the same everywhere.
      wanted: Whether its value matters to what follows.
      present: Whether it has a place in the compacted tensor.
    """

    shape: tuple[int | Any, ...]  # None where a size is not known
    constant: np.ndarray = field(init=False)
    wanted: np.ndarray = field(init=False)
    present: np.ndarray = field(init=False)

    def __post_init__(self):
        self.constant = self.spread(np.full(self.count, np.nan))
        self.wanted = np.zeros(self.count, bool)
        self.present = np.zeros(self.count, bool)

    @property
    def count(self) -> int:
        return (self.shape[-1] or 1) if len(self.shape) > 1 else 1

    @property
    def sized(self) -> bool:
        """Whether its positions are known."""
        return None not in self.shape[1:]

    @property
    def full(self) -> np.ndarray:
        """The constants at all positions."""
        return np.broadcast_to(self.constant, self.shape[1:])

    @property
    def maps(self) -> np.ndarray:
        """The constants as (positions, units)."""
        return self.constant.reshape(-1, self.count)

    @property
    def uniform(self) -> np.ndarray:
        """The constant of each unit, (units,), where it is the same at all positions."""
        return np.where((self.maps == self.maps[0]).all(0), self.maps[0], np.nan)

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Values of the units, (units,), in the tensor's rank."""
        return values.reshape((1,) * (len(self.shape) - 2) + (-1,))


class Rule:
    """A layer where it is called; as such, one that needs all its inputs and gives outputs that all vary.

    Attributes:
      reason: Why the layer, or a part of what is dead in it, is left as it is; or None.
    """

    def __init__(self, step: Step, inputs: list[Units], outputs: list[Units], reason: str | None = None):
        self.step, self.layer, self.inputs, self.outputs, self.reason = step, step.layer, inputs, outputs, reason

    @classmethod
    def refuses(cls, step: Step) -> str | None:
        """Why the layer cannot be treated by this rule, or None."""

    def emit(self) -> None:
        """Finds the constants of the outputs from those of the inputs."""

    def ask(self) -> None:
        """Finds which units of the inputs are wanted from those of the outputs."""
        for units in [*self.inputs, *self.outputs]:
            units.wanted[:] = True

    def tie(self) -> None:
        """Adds units that have to be present because others are."""

    def config(self) -> dict:
        """The config of the compacted layer."""
        return self.layer.get_config()

    def weights(self) -> list[np.ndarray]:
        """The weights of the compacted layer."""
        return self.layer.get_weights()

    def select(self, inputs: list[keras.KerasTensor]) -> list[keras.KerasTensor]:
        """What the compacted layer is called with."""
        return inputs


def rule_of(step: Step, graph: Graph, inputs: list[Units], outputs: list[Units]) -> Rule:
    """The rule for a step, or the plain `Rule` with the reason why none of the others fits."""
    kind = RULES.get(step.kind)
    arrays = [leaf for leaf in tree.flatten((step.args, step.kwargs)) if not isinstance(leaf, keras.KerasTensor)]
    weights = isinstance(step.layer, keras.layers.Layer) and step.layer.weights
    if kind is None:
        reason = "there is no rule for its kind"
    elif weights and graph.calls(step.layer) > 1:
        reason = f"it is shared by {graph.calls(step.layer)} calls"
    elif getattr(step.layer, "data_format", None) == "channels_first":
        reason = "its channels come first"
    elif step.kwargs.get("training"):
        reason = "it is called with training=True"
    elif not all(isinstance(leaf, bool | int | float | str | None) for leaf in arrays):
        reason = "it is called with an array"
    else:
        return Rule(step, inputs, outputs, why) if (why := kind.refuses(step)) else kind(step, inputs, outputs)
    return Rule(step, inputs, outputs, reason)


def handles(*kinds: str) -> Callable[[type[Rule]], type[Rule]]:
    """Registers a rule for Keras layers, `"Dense"`, and operations, `"ops.Add"`."""

    def register(rule: type[Rule]) -> type[Rule]:
        RULES.update(dict.fromkeys(kinds, rule))
        return rule

    return register
