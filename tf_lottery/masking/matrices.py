"""Which axes of a kernel are its inputs and its outputs, by the layer it belongs to.

>>> attention = keras.layers.MultiHeadAttention(2, 3)
>>> attention.build((None, 5, 8), (None, 5, 8))
>>> [(k.path.split("/")[-2], axes(k)) for k in weights.prunable_kernels(attention)[2:]]
[('value', Axes(inputs=(-3,), outputs=(-2, -1))), ('attention_output', Axes(inputs=(-3, -2), outputs=(-1,)))]
"""

from __future__ import annotations

import keras

from tf_lottery.masking import weights
from tf_lottery.masking.weights import Kernel
from tf_lottery.rules.patterns import Axes

L = keras.layers
TRANSPOSED = (L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose)
CHANNELLED = (L.Dense, L.Conv1D, L.Conv2D, L.Conv3D, L.SeparableConv1D, L.SeparableConv2D, L.EinsumDense, *TRANSPOSED)


def axes(kernel: Kernel) -> Axes:
    """The axes over which a kernel sums, and those that number its outputs; it is a stack of such matrices along the others.

    For most kernels they are the last two. A transposed convolution has them the other way round, and of an EinsumDense, as
    attention has four, its equation says them: inputs are the letters of the kernel that are summed over, outputs those that the
    result has from the kernel alone.
    """
    if isinstance(kernel.layer, TRANSPOSED):
        return Axes((-1,), (-2,))
    if isinstance(kernel.layer, L.EinsumDense) and (letters := _letters(kernel)):
        data, own, result = letters
        of = {letter: place - len(own) for place, letter in enumerate(own)}
        inputs = tuple(of[letter] for letter in own if letter not in result)
        outputs = tuple(of[letter] for letter in own if letter in result and letter not in data)
        if inputs and outputs:
            return Axes(inputs, outputs)
    return Axes()


def channel_axes(kernel: Kernel) -> tuple[int, ...] | None:
    """The axes that number its output channels, counted from the end; None if they cannot be removed one by one.

    Recurrent kernels, whose gates lie side by side, have none, and neither have those of layers that are not known.
    """
    if weights.is_depthwise(kernel.variable, kernel.layer):
        grouped = (
            not isinstance(kernel.layer, L.DepthwiseConv1D | L.DepthwiseConv2D) and kernel.variable.name == "kernel"
        )
        return (-1,) if grouped else (-2, -1)
    if not isinstance(kernel.layer, CHANNELLED):
        return None
    found = axes(kernel)
    if isinstance(kernel.layer, L.EinsumDense):  # a letter that data, kernel and result share numbers channels too
        rank = len(kernel.variable.shape)
        return tuple(axis for axis in range(-rank, 0) if axis not in found.inputs)
    return found.outputs


def not_served(kernel: Kernel) -> str:
    """Why m zeros in every n inputs are nothing for this kernel: no hardware computes it so; empty if it is served."""
    layer, rank = kernel.layer, len(kernel.variable.shape)
    if weights.is_depthwise(kernel.variable, layer):
        return "depthwise: each output has one input"
    if getattr(layer, "groups", 1) != 1:
        return f"grouped: {layer.groups} groups with inputs of their own"
    if isinstance(layer, TRANSPOSED):
        return "transposed: hardware has no such convolution"
    if isinstance(layer, L.EinsumDense):
        found, letters = axes(kernel), _letters(kernel)
        if letters and len(found.inputs) + len(found.outputs) == rank:
            return ""
        return f"grouped: {layer.equation} is no single matrix"
    if rank not in (2, 4):
        return f"rank {rank}: only matrices and two-dimensional convolutions are served"
    return ""


def _letters(kernel: Kernel) -> tuple[str, str, str] | None:
    """The letters of data, kernel and result in the equation of an EinsumDense, if they fit the kernel."""
    left, _, result = kernel.layer.equation.replace(" ", "").replace(".", "").partition("->")
    data, _, own = left.partition(",")
    return (data, own, result) if len(own) == len(kernel.variable.shape) else None
