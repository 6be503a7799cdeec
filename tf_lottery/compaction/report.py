"""What compaction bought: widths, parameters, multiply-adds and bytes before and after, and what was left as it is."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import NamedTuple

import keras
import numpy as np
from keras import tree
from rich.console import Console
from rich.table import Table

from tf_lottery.compaction.graph import is_keras, structure
from tf_lottery.export.formats import uncompiled_copy
from tf_lottery.export.litert import Loaded, latencies
from tf_lottery.export.variants import Converter

COUNTED = {f"{kind}Conv{n}D" for kind in ("", "Depthwise", "Separable") for n in (1, 2, 3)} | {"Dense"}
RECURRENT = {"LSTM", "GRU", "SimpleRNN"}
TRANSPOSED = {f"Conv{n}DTranspose" for n in (1, 2, 3)}


class Change(NamedTuple):
    """A number before and after compaction."""

    before: float
    after: float

    @property
    def factor(self) -> float:
        """How many times less it is."""
        return self.before / self.after if self.after else math.nan


@dataclass(frozen=True)
class LayerChange:
    """A layer with weights: its name and class, inputs and units along the last axis, parameters, multiply-adds of a sample.

    Of kinds whose multiply-adds are not counted they are None.
    """

    name: str
    kind: str
    inputs: Change
    units: Change
    parameters: Change
    multiply_adds: Change | None


@dataclass(frozen=True)
class Report:
    """What `compact` did.

    Attributes:
      layers: The layers with weights, in the order of their calls.
      left: What was left as it is, {layer name: reason}.
      before: The plain model, a copy of what was given.
      after: The compacted model.
      latency: Median microseconds of one example in LiteRT, or None before `timed`.
    """

    layers: tuple[LayerChange, ...]
    left: dict[str, str]
    before: keras.Model = field(repr=False)
    after: keras.Model = field(repr=False)
    latency: Change | None = None

    @property
    def parameters(self) -> Change:
        """All weights, also those that are not trainable."""
        return Change(self.before.count_params(), self.after.count_params())

    @property
    def multiply_adds(self) -> Change:
        """Of Dense layers, convolutions, LSTM, GRU and SimpleRNN, for one sample: kernel weights times the positions where they are applied.

        For recurrent layers these are the kernel and the recurrent kernel, and the steps, in both directions if it is Bidirectional. Other
        layers with kernels, as attention, are not counted; the printed report names them.
        Zeros in a kernel count, as a device computes with them too. A floating-point operation is a multiplication or an addition, so
        FLOPs are twice as many. Positions along an axis of unknown length count as one.
        """
        counted = [layer.multiply_adds for layer in self.layers if layer.multiply_adds]
        return Change(*(sum(getattr(change, side) for change in counted) for side in Change._fields))

    @property
    def bytes(self) -> Change:
        """Of the parameters as float32."""
        return Change(*(4 * count for count in self.parameters))

    def timed(self) -> Report:
        """This report with the latency on this machine: both models as float32 TFLite files in LiteRT, in turn, on one thread.

        An axis of unknown length gets 32 positions.

        Raises:
          ExportError: If TFLite cannot take the model.
        """
        return dataclasses.replace(self, latency=_latency(self.before, self.after))

    def __str__(self) -> str:
        table = Table(
            "layer", "kind", *(f"{name}\nbefore → after" for name in ("inputs", "units", "parameters", "multiply-adds"))
        )
        for column in table.columns[2:]:
            column.justify = "right"
        for layer in self.layers:
            changes = (layer.inputs, layer.units, layer.parameters, layer.multiply_adds)
            table.add_row(
                layer.name,
                layer.kind,
                *(
                    "?" if c is None else f"{c.before:,} → {c.after:,}" if c.before != c.after else f"{c.after:,}"
                    for c in changes
                ),
            )
        console = Console(width=120, color_system=None, force_terminal=False)
        with console.capture() as capture:
            console.print(table)
        totals = {"parameters": self.parameters, "multiply-adds": self.multiply_adds, "bytes (float32)": self.bytes}
        lines = [
            f"{name}: {c.before:,} → {c.after:,}" + (f", {c.factor:.2f} times fewer" if c.after else "")
            for name, c in totals.items()
        ]
        if uncounted := [layer.name for layer in self.layers if layer.multiply_adds is None]:
            lines.append(f"multiply-adds are not counted of: {', '.join(uncounted)}")
        if any(None in t.shape[1:] for t in self.before.inputs):
            lines.append("multiply-adds: positions along an axis of unknown length count as one")
        if self.latency:
            lines.append(
                f"microseconds an example: {self.latency.before:,.1f} → {self.latency.after:,.1f}, {self.latency.factor:.2f} times faster"
            )
        lines += [f"left as it is: {name}: {reason}" for name, reason in self.left.items()]
        return capture.get() + "\n".join(lines)


def multiply_adds(layer, inputs: tuple[int | None, ...], outputs: tuple[int | None, ...]) -> int | None:
    """Multiply-adds of one call on one sample, for tensors of these shapes; None for layers with kernels that are not counted."""
    kinds = {type(layer).__name__}
    if isinstance(layer, keras.layers.Bidirectional):
        kinds = {type(part).__name__ for part in (layer.forward_layer, layer.backward_layer)}
    elif isinstance(layer, keras.layers.TimeDistributed):
        kinds = {type(layer.layer).__name__}
    kernels = [math.prod(v.shape) for v in layer.weights if v.name.endswith("kernel")]
    if not kinds <= COUNTED | RECURRENT | TRANSPOSED:
        own = not is_keras(type(layer)) and any(len(v.shape) >= 2 for v in layer.weights)  # kernels by any name
        return None if kernels or own else 0
    if kinds <= RECURRENT:
        return (inputs[1] or 1) * sum(kernels)
    return math.prod(n or 1 for n in (inputs if kinds <= TRANSPOSED else outputs)[1:-1]) * sum(kernels)


def _latency(before: keras.Model, after: keras.Model) -> Change:
    """Median microseconds that one example takes in LiteRT, measured side by side."""
    files = {}
    for name, model in (("before", before), ("after", after)):
        ones = [np.ones((1, *(n or 32 for n in t.shape[1:])), t.dtype) for t in model.inputs]
        inputs = tree.pack_sequence_as(structure(model, "input"), ones)
        with Converter(uncompiled_copy(model, float32=True), inputs) as convert:
            files[name] = Loaded(convert("float32"))
        files[name].outputs(ones)
    return Change(**latencies(files))
