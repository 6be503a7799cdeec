"""For each layer: whether XNNPACK, which LiteRT computes with on a CPU, has a sparse kernel for it, and if not, why."""

from __future__ import annotations

import platform
from dataclasses import dataclass

import keras
import numpy as np

from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import weights
from tf_lottery.masking.policies import PruneForLatencyOnXNNPack

ENOUGH = 2 / 3  # the share of zeros in a part of the network beyond which XNNPACK runs it sparsely


@dataclass(frozen=True)
class LayerKernels:
    """One layer with kernels.

    Attributes:
      layer: Its name.
      kind: Its class, with the window of a convolution.
      weights: How many weights its kernels have.
      zeros: The share of them that is exactly zero.
      sparse: Whether XNNPACK runs it with a sparse kernel, from a file with sparse float weights on a processor that has some.
      reason: Why, or why not.
    """

    layer: str
    kind: str
    weights: int
    zeros: float
    sparse: bool
    reason: str


def sparse_kernels(model: keras.Model) -> list[LayerKernels]:
    """What XNNPACK would do with each layer of a plain model that has kernels.

    Reference: XNNPACK, `src/subgraph.c`, rewriting for the NCHW layout; TensorFlow Lite's XNNPACK delegate, "Sparse inference".

    Examples:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="classes")])
    >>> [(row.layer, row.sparse, row.reason[:59]) for row in sparse_kernels(model)]
    [('classes', False, 'XNNPACK has sparse kernels for 1x1 convolutions only, and t')]
    """
    policy = PruneForLatencyOnXNNPack()
    try:
        part, obstacle = policy.sparse_part(model), None
    except LotteryError as error:
        part, obstacle = set(), f"the network does not have the form for it: e{str(error).rstrip('.')[1:]}"
    kernels: dict[str, list[np.ndarray]] = {}
    owners = {}
    for kernel in weights.prunable_kernels(model, lambda layer, variable: weights.is_kernel(variable)):
        owners[kernel.layer.name] = kernel.layer
        kernels.setdefault(kernel.layer.name, []).append(weights.value_of(kernel.variable).ravel())
    zero = {name: np.concatenate(values) == 0 for name, values in kernels.items()}
    inside = [zero[name] for name in zero if name in part and policy.allow_pruning(owners[name])]
    share = float(np.concatenate(inside).mean()) if inside else 0.0

    def reason(name: str) -> str:
        if not policy.allow_pruning(owners[name]):
            return f"XNNPACK has sparse kernels for 1x1 convolutions only, and this is {_kind(owners[name])}"
        if obstacle:
            return obstacle
        if name not in part:
            return "it is not between the first 3x3 convolution and the global pooling, where XNNPACK computes sparsely"
        if share <= ENOUGH:
            return f"{share:.0%} of the weights of the 1x1 convolutions are zero, and XNNPACK wants more than 2/3"
        return ""

    rows = []
    for name, zeros in zero.items():
        why = reason(name)
        rows.append(
            LayerKernels(
                name,
                _kind(owners[name]),
                zeros.size,
                float(zeros.mean()),
                not why,
                why or "a 1x1 convolution in a part that XNNPACK computes sparsely",
            )
        )
    return rows


def _kind(layer: keras.layers.Layer) -> str:
    window = getattr(layer, "kernel_size", None)
    return type(layer).__name__ + (f" {'x'.join(map(str, window))}" if window else "")


def processor_note() -> str:
    """What the processor of this machine makes of sparse files."""
    if platform.machine().lower() in ("x86_64", "amd64", "i386", "i686"):
        return (
            "This is an x86 processor: with AVX, which they have since 2011, XNNPACK computes densely whatever the file, so "
            "a sparse file gains no time here; on ARM, the processor of phones, its sparse kernels run."
        )
    return "XNNPACK has sparse kernels for this processor."
