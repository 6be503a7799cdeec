"""Rules for layers without kernels: those that work unit by unit, and those that move positions or units."""

from __future__ import annotations

import functools

import keras
import numpy as np

from tf_lottery.compaction.graph import Step
from tf_lottery.compaction.rules import ELEMENTWISE, Rule, handles

LAYERS = [
    *("ReLU", "LeakyReLU", "ELU", "Identity", "Add", "Subtract", "Average", "Maximum", "Minimum"),
    *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "AlphaDropout", "GaussianDropout"),
    *("GaussianNoise", "ActivityRegularization"),
]
OPERATIONS = [
    *("Add", "Subtract", "Maximum", "Minimum", "Divide", "TrueDivide", "Negative", "Absolute", "Square", "Exp", "Clip"),
    *("Relu", "Relu6", "LeakyRelu", "Elu", "Gelu", "Silu", "Sigmoid", "HardSigmoid", "HardSilu", "Tanh", "Softplus"),
]


class Tied(Rule):
    """The inputs and the output share their units: all are present or none is."""

    @classmethod
    def refuses(cls, step: Step) -> str | None:
        shapes = {(len(t.shape), t.shape[-1]) for t in [*step.inputs, *step.outputs] if len(t.shape) > 1}
        return None if len(shapes) == 1 and len(step.outputs) == 1 else "it does not work unit by unit"

    def ask(self) -> None:
        for units in self.inputs:
            units.wanted |= self.outputs[0].wanted

    def tie(self) -> None:
        present = np.any([units.present for units in [*self.inputs, *self.outputs]], axis=0)
        for units in [*self.inputs, *self.outputs]:
            units.present[:] = present
        if len(self.inputs) > 1 and (count := int((present & ~self.outputs[0].wanted).sum())):
            self.reason = f"dead units that keep a place, because an input has them: {count}"


@handles(*LAYERS, *(f"ops.{kind}" for kind in OPERATIONS))
class Elementwise(Tied):
    """Constants go through the layer itself; a result varies where an input does."""

    def emit(self) -> None:
        given = [units.constant for units in self.inputs]
        result = self.step.evaluate(*[np.nan_to_num(values) for values in given])
        varies = functools.reduce(np.logical_or, map(np.isnan, given))
        self.outputs[0].constant = np.where(varies & ~self.settled(given) | ~np.isfinite(result), np.nan, result)

    def settled(self, given: list[np.ndarray]) -> np.ndarray | bool:
        """Where the result is the same whatever the inputs are."""
        return False


@handles("Multiply", "ops.Multiply")
class Multiply(Elementwise):
    """A product is zero where one of its factors always is."""

    def settled(self, given):
        return functools.reduce(np.logical_or, [values == 0 for values in given])


@handles("Activation")
class Activation(Elementwise):
    """An activation function that looks at each unit alone."""

    @classmethod
    def refuses(cls, step):
        return None if step.layer.activation in ELEMENTWISE else "its activation does not work unit by unit"


@handles("BatchNormalization")
class BatchNormalization(Elementwise):
    """At inference a factor and an offset for each unit; a unit is constant where the factor is zero."""

    @classmethod
    def refuses(cls, step):
        last = len(step.inputs[0].shape) - 1
        return None if step.layer.axis in (-1, last) else "its axis is not the last"

    def settled(self, given):
        return keras.ops.convert_to_numpy(self.layer.gamma) == 0 if self.layer.scale else False

    def weights(self):
        return [array[self.inputs[0].present] for array in self.layer.get_weights()]


@handles("PReLU")
class PReLU(Elementwise):
    """A slope for each unit and position; positions may share theirs."""

    @classmethod
    def refuses(cls, step):
        shape = step.inputs[0].shape
        return "its size is not known" if None in shape[1:] else super().refuses(step)

    def emit(self) -> None:
        given = self.inputs[0]
        given.constant = given.full
        super().emit()

    def weights(self):
        (alpha,) = self.layer.get_weights()
        return [alpha[..., self.inputs[0].present] if alpha.shape[-1] == self.inputs[0].count else alpha]


@handles("Normalization", "Rescaling")
class Preprocessing(Elementwise):
    """Layers that stand behind an input and may have a number for each unit: they stay whole."""

    def tie(self) -> None:
        for units in [*self.inputs, *self.outputs]:
            units.present[:] = True


@handles(
    *(f"{kind}Pooling{n}D" for kind in ("Max", "Average", "GlobalMax", "GlobalAverage") for n in (1, 2, 3)),
    *(f"{kind}{n}D" for kind in ("UpSampling", "Cropping") for n in (1, 2, 3)),
    "RepeatVector",
)
class Spatial(Tied):
    """Moves or summarises the positions of each unit."""

    border = False

    @classmethod
    def refuses(cls, step):
        return None

    def emit(self) -> None:
        given, out = self.inputs[0], self.outputs[0]
        constant, uniform = ~np.isnan(given.maps).any(0), given.uniform
        simple = ~constant | (~np.isnan(uniform) & ((uniform == 0) | (not self.border)))
        if given.sized and not simple.all():
            out.constant = np.where(constant, self.step.evaluate(np.nan_to_num(given.full)), np.nan)
        else:
            out.constant = out.spread(np.where(constant & simple, uniform, np.nan))


@handles("ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D")
class ZeroPadding(Spatial):
    """A constant other than zero is another constant at the border."""

    border = True


@handles("Flatten", "Reshape")
class Regroup(Rule):
    """Unit `i` of the output comes from unit `i % units` of the input."""

    @classmethod
    def refuses(cls, step):
        given, out = step.inputs[0].shape, step.outputs[0].shape
        if None in given[1:] or None in out[1:]:
            return "its size is not known"
        return "it splits units" if len(given) < 2 or out[-1] % given[-1] else None

    def emit(self) -> None:
        given, out = self.inputs[0], self.outputs[0]
        out.constant = given.full.reshape(out.shape[1:])

    def ask(self) -> None:
        self.inputs[0].wanted |= self.outputs[0].wanted.reshape(-1, self.inputs[0].count).any(0)

    def tie(self) -> None:
        given, out = self.inputs[0], self.outputs[0]
        given.present |= out.present.reshape(-1, given.count).any(0)
        out.present[:] = np.tile(given.present, out.count // given.count)

    def config(self) -> dict:
        config = self.layer.get_config()
        if "target_shape" in config and config["target_shape"][-1] != -1:
            config["target_shape"] = (*config["target_shape"][:-1], int(self.outputs[0].present.sum()))
        return config


@handles("Concatenate", "ops.Concatenate")
class Concatenate(Rule):
    """The units of its inputs one after the other."""

    @classmethod
    def refuses(cls, step):
        last = len(step.outputs[0].shape) - 1
        return None if step.layer.axis in (-1, last) else "its axis is not the last"

    def parts(self, values: np.ndarray) -> list[np.ndarray]:
        return np.split(values, np.cumsum([units.count for units in self.inputs])[:-1])

    def emit(self) -> None:
        given = [units.constant for units in self.inputs]
        positions = np.broadcast_shapes(*[values.shape[:-1] for values in given])
        given = [np.broadcast_to(values, (*positions, values.shape[-1])) for values in given]
        self.outputs[0].constant = np.concatenate(given, -1)

    def ask(self) -> None:
        for units, wanted in zip(self.inputs, self.parts(self.outputs[0].wanted)):
            units.wanted |= wanted

    def tie(self) -> None:
        out = self.outputs[0]
        out.present |= np.concatenate([units.present for units in self.inputs])
        for units, present in zip(self.inputs, self.parts(out.present)):
            units.present[:] = present
