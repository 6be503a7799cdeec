"""Rules for layers with kernels: Dense, convolutions, transposed, depthwise and separable ones.

Their outputs are sums over their inputs, so a constant input can move into the bias, and where no varying input is left the
output is a constant itself.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np

from tf_lottery.compaction.graph import Step
from tf_lottery.compaction.rules import ELEMENTWISE, Rule, handles


@handles("Dense", "Conv1D", "Conv2D", "Conv3D")
class Linear(Rule):
    """A kernel (..., inputs, outputs) and a bias: constant inputs move into the bias.

    Where zero padding makes a constant another one at the border, it cannot. Then a few constant inputs stand for all of
    them, and have their kernels added to their own.
    """

    variables: tuple[str, ...] = ("kernel", "bias")

    def __init__(self, *args):
        super().__init__(*args)
        self.arrays = {v.name: keras.ops.convert_to_numpy(v) for v in self.layer.weights}
        self.activation = getattr(self.layer, "activation", None) or keras.activations.linear

    @classmethod
    def refuses(cls, step: Step) -> str | None:
        if not {v.name for v in step.layer.weights} <= set(cls.variables):
            return "it has other weights than kernels and a bias"
        return "it convolves in groups" if getattr(step.layer, "groups", 1) > 1 else None

    @property
    def connections(self) -> np.ndarray:
        """Whether an output depends on an input, (inputs, outputs)."""
        return _over_positions(np.any, self.arrays["kernel"] != 0)

    def response(self, values: np.ndarray) -> np.ndarray:
        """What inputs with these values, the same everywhere, add to the outputs."""
        return values @ _over_positions(np.sum, self.arrays["kernel"])

    def shrunk(self, kept: np.ndarray) -> dict[str, np.ndarray]:
        """The kernels of the compacted layer; connections outside `kept`, (inputs, outputs), are zero."""
        kernel = np.where(kept, self.arrays["kernel"], 0)
        return {"kernel": kernel[..., self.rows, :][..., self.outputs[0].present]}

    @property
    def padded(self) -> bool:
        return getattr(self.layer, "padding", "valid") != "valid" and set(self.layer.kernel_size) != {1}

    def emit(self) -> None:
        given, out = self.inputs[0], self.outputs[0]
        constant, uniform = ~np.isnan(given.maps).any(0), given.uniform
        self.folded = ~np.isnan(uniform) & ((uniform == 0) | (not self.padded))
        self.stuck = constant & ~self.folded & self.connections.any(1)
        if self.stuck.any():
            self.merge()
        self.connected = self.connections
        bias = self.arrays.get("bias", np.zeros(out.count, self.arrays[self.variables[0]].dtype))
        self.bias = (bias + self.response(np.where(self.folded, uniform, 0))).astype(bias.dtype)
        if self.activation in ELEMENTWISE:
            varies = self.connected[~constant].any(0)
            if given.sized and self.connected[self.stuck].any():
                value = self.step.evaluate(np.nan_to_num(given.full))
            else:
                varies |= self.connected[self.stuck].any(0)
                value = self.activation(keras.ops.convert_to_tensor(self.bias, self.layer.compute_dtype))
                value = out.spread(keras.ops.convert_to_numpy(keras.ops.cast(value, "float64")))
            out.constant = np.where(varies | ~np.isfinite(value), np.nan, value)

    def merge(self) -> None:
        """Lets a few of the constant inputs that cannot move into the bias stand for all.

        As functions of the position they span a space of few dimensions (one, if they only meet padding here): those
        that are multiples or sums of others give their kernels to those.
        """
        maps = np.unique(self.inputs[0].maps[:, self.stuck], axis=0)
        left, basis = maps, []
        while (remains := np.linalg.norm(left, axis=0) > 1e-6 * np.linalg.norm(maps, axis=0)).any():
            basis.append((np.linalg.norm(left, axis=0) * remains).argmax())
            direction = left[:, basis[-1]] / np.linalg.norm(left[:, basis[-1]])
            left = left - np.outer(direction, direction @ left)
        if len(basis) < maps.shape[1]:
            shares = np.linalg.lstsq(maps[:, basis], maps)[0]  # (basis, stuck)
            kernel = self.arrays["kernel"].copy()
            merged = np.einsum("bs,...so->...bo", shares, kernel[..., self.stuck, :])
            kernel[..., self.stuck, :] = 0
            kernel[..., np.flatnonzero(self.stuck)[basis], :] = merged
            self.arrays["kernel"] = kernel

    def ask(self) -> None:
        wanted = self.outputs[0].wanted
        if self.activation not in ELEMENTWISE:  # a softmax, say: each output takes part in all others
            wanted[:] = wanted.any()
        self.kept = self.connected & wanted & ~self.folded[:, None]
        self.inputs[0].wanted |= self.kept.any(1)
        if count := int((self.kept.any(1) & self.stuck).sum()):
            self.reason = f"constant inputs that zero padding keeps out of the bias: {count}"

    @property
    def rows(self) -> np.ndarray:
        """The inputs that the compacted kernel has rows for.

        A Dense layer gathers those it needs where that saves more multiply-adds than it moves numbers.
        """
        there, needed = self.inputs[0].present, self.kept.any(1)
        if not needed.any():
            needed = np.arange(len(there)) == there.argmax()
        pays = (there & ~needed).sum() * self.outputs[0].present.sum() > needed.sum()
        return needed if self.step.kind == "Dense" and pays else there

    def select(self, inputs: list[keras.KerasTensor]) -> list[keras.KerasTensor]:
        there, rows = self.inputs[0].present, self.rows
        chosen = np.flatnonzero(rows[there]).tolist()
        return inputs if len(chosen) == there.sum() else [keras.ops.take(inputs[0], chosen, axis=-1)]

    @property
    def biased(self) -> bool:
        return "bias" in self.arrays or bool(self.bias[self.outputs[0].present].any())

    def config(self) -> dict:
        config = self.layer.get_config()
        size = {key: int(self.outputs[0].present.sum()) for key in ("units", "filters") if key in config}
        return {**config, **size, "use_bias": self.biased}

    def weights(self) -> list[np.ndarray]:
        arrays = {**self.shrunk(self.kept), "bias": self.bias[self.outputs[0].present]}
        return [arrays[name] for name in self.variables if name != "bias" or self.biased]


@handles("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
class Transposed(Linear):
    """Its kernel is (..., outputs, inputs), and how much of it an output sees depends on the position."""

    padded = True

    def __init__(self, *args):
        super().__init__(*args)
        self.arrays["kernel"] = self.arrays["kernel"].swapaxes(-1, -2)

    def shrunk(self, kept):
        return {"kernel": super().shrunk(kept)["kernel"].swapaxes(-1, -2)}


@handles("DepthwiseConv1D", "DepthwiseConv2D")
class Depthwise(Linear):
    """A kernel (..., channels, multiplier): output `c * multiplier + m` comes from input c alone."""

    @property
    def connections(self):
        kernel = _over_positions(np.any, self.arrays["kernel"] != 0)
        return (np.eye(len(kernel), dtype=bool)[:, :, None] & kernel).reshape(len(kernel), -1)

    def response(self, values):
        return (values[:, None] * _over_positions(np.sum, self.arrays["kernel"])).ravel()

    def shrunk(self, kept):
        kernel = self.arrays["kernel"]
        kernel = np.where(kept.any(0).reshape(kernel.shape[-2:]), kernel, 0)
        return {"kernel": kernel[..., self.inputs[0].present, :]}

    def merge(self):
        """Each input has a kernel of its own."""

    def tie(self) -> None:
        given, out = self.inputs[0], self.outputs[0]
        given.present |= out.present.reshape(given.count, -1).any(1)
        out.present[:] = given.present.repeat(out.count // given.count)


@handles("SeparableConv1D", "SeparableConv2D")
class Separable(Linear):
    """A depthwise kernel (..., channels, multiplier), then a pointwise one (1.., channels * multiplier, outputs)."""

    variables = ("depthwise_kernel", "pointwise_kernel", "bias")

    @property
    def pointwise(self) -> np.ndarray:
        """The pointwise kernel as (channels, multiplier, outputs)."""
        kernel = self.arrays["pointwise_kernel"]
        return kernel.reshape(*self.arrays["depthwise_kernel"].shape[-2:], kernel.shape[-1])

    @property
    def connections(self):
        depthwise = _over_positions(np.any, self.arrays["depthwise_kernel"] != 0)
        return (depthwise[:, :, None] & (self.pointwise != 0)).any(1)

    def response(self, values):
        depthwise = values[:, None] * _over_positions(np.sum, self.arrays["depthwise_kernel"])
        return np.einsum("cm,cmo->o", depthwise, self.pointwise)

    def merge(self):
        """Each input has a kernel of its own."""

    def shrunk(self, kept):
        pointwise = np.where(kept[:, None], self.pointwise, 0)[self.rows][..., self.outputs[0].present]
        shape = (*self.arrays["pointwise_kernel"].shape[:-2], -1, pointwise.shape[-1])
        return {
            "depthwise_kernel": self.arrays["depthwise_kernel"][..., self.rows, :],
            "pointwise_kernel": pointwise.reshape(shape),
        }


def _over_positions(reduce: Callable, kernel: np.ndarray) -> np.ndarray:
    return reduce(kernel, axis=tuple(range(kernel.ndim - 2)))
