"""`summary`: the kernels of a model one by one: how dense each is, what pattern its zeros have, and why one stays dense."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np

from tf_lottery.base.errors import LotteryError
from tf_lottery.base.table import Table, in_text
from tf_lottery.masking import matrices, patterns, weights
from tf_lottery.masking.masked import Masked, masked_parts, settle_all, unwrapped
from tf_lottery.masking.roles import Roles
from tf_lottery.masking.weights import Kernel
from tf_lottery.rules import patterns as rules

BLOCKS = ((16, 16), (8, 8), (4, 4), (16, 1), (1, 16), (8, 1), (1, 8), (4, 1), (1, 4), (2, 2), (2, 1), (1, 2))


@dataclass(frozen=True)
class KernelSummary:
    """One line of a summary.

    Attributes:
      path: Its path in the model.
      kind: The class of its layer.
      shape: Its shape.
      kept: How many of its weights are kept: by its mask, or where it has none, those that are not zero.
      zero_channels: How many of its output channels hold zeros alone, and how many there are.
      pattern: What its zeros hold: whole channels, blocks, 2:4, or empty.
      why: Why it is not pruned; empty where it has a mask, or would get one.
    """

    path: str
    kind: str
    shape: tuple[int, ...]
    kept: int
    zero_channels: tuple[int, int]
    pattern: str
    why: str

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def density(self) -> float:
        return self.kept / self.size


def summary(
    model: keras.layers.Layer, *, line_length: int | None = None, print_fn: Callable[[str], object] | None = None
) -> None:
    """Prints a line for each kernel of a model, and totals: what is pruned, how far, in what pattern, and what is not and why.

    A wrapped model shows its masks. A plain one shows its zeros, and which kernels `prune` and `wrap` would leave alone.
    Zero channels are output channels whose weights are all zero. Patterns are whole channels, the largest blocks (inputs x
    outputs) that all zeros lie in, and 2:4.

    Args:
      model: A built Keras 3 model or layer: wrapped, plain, with `MaskedLayer`s inside.
      line_length: How wide to print; by default as wide as the terminal, and 100 where there is none.
      print_fn: Takes the text instead of the screen, as in `keras.Model.summary`.

    Raises:
      TypeError: If it is not a Keras 3 model or layer.
      LotteryError: If it has no weights yet.

    Examples:

    >>> import tf_lottery as tfl
    >>> layers = [keras.layers.Dense(8, name="body"), keras.layers.Dense(2, name="head")]
    >>> model = keras.Sequential([keras.Input((6,)), *layers], name="net")
    >>> summary(tfl.prune(model, sparsity_m_by_n=(2, 4), exclude="head"), line_length=100)
    Model: "net"
    ┏━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━┳━━━━━━━━━┳━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━━━━┓
    ┃ Kernel                  ┃  Shape ┃ Density ┃ Zero channels ┃ Pattern, or why not pruned ┃
    ┡━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━╇━━━━━━━━━╇━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━━━━┩
    │ net/body/kernel (Dense) │ (6, 8) │  66.7 % │           0/8 │ 2:4                        │
    │ net/head/kernel (Dense) │ (8, 2) │   100 % │           0/2 │ left out by exclude        │
    └─────────────────────────┴────────┴─────────┴───────────────┴────────────────────────────┘
     Pruned kernels: 1 of 2, 32 of 48 weights kept (66.7 %)
     All weights: 74, 48 of them not zero (64.9 %)
    """
    weights.check_keras_3(model)
    if not model.built:
        raise LotteryError(
            f"Expected a built model, but {model.name!r} has no weights yet: build it or call it on data first."
        )
    kernels = kernels_of(model)
    if line_length is None:
        line_length = shutil.get_terminal_size().columns if sys.stdout.isatty() else 100
    lines = in_text(f'Model: "{model.name}"', table_of(kernels), *totals(model, kernels), width=line_length)
    (print_fn or print)(lines)


def kernels_of(model: keras.layers.Layer) -> list[KernelSummary]:
    """A line for each weight of rank 2 or more, in the order of the model's variables."""
    settle_all(model)
    plain = unwrapped(model)
    masked = {
        id(kernel.variable): part.mask(i) for part in masked_parts(model) for i, kernel in enumerate(part.kernels)
    }
    named, owners, roles = weights.by_path(_own_variables(model)), weights.owning_layers(plain), Roles(plain)
    chosen = set(masked) or {id(kernel.variable) for kernel in weights.prunable_kernels(plain)}
    two_of_four = {row.path for row in patterns.check(plain) if row.holds}
    found = []
    for path, variable in named.items():
        if len(variable.shape) < 2 or "float" not in keras.backend.standardize_dtype(variable.dtype):
            continue
        kernel = Kernel(path, variable, owners[id(variable)], roles)
        kept = masked.get(id(variable))
        kept = weights.value_of(variable) != 0 if kept is None else kept.astype(bool)
        why = "" if id(variable) in chosen else _why(model, kernel, bool(masked))
        axes = matrices.channel_axes(kernel) or matrices.axes(kernel).outputs
        channels = rules.channel_mask(kept, axes)
        found.append(
            KernelSummary(
                path,
                type(kernel.layer).__name__,
                tuple(variable.shape),
                int(np.count_nonzero(kept)),
                (int(np.count_nonzero(channels == 0)), channels.size),
                _pattern(kernel, kept, channels, axes, path in two_of_four),
                why,
            )
        )
    return found


def table_of(kernels: list[KernelSummary]) -> Table:
    """The lines as a table."""
    headings = ["Kernel", "Shape", "Density", "Zero channels", "Pattern, or why not pruned"]
    rows = [
        [
            f"{kernel.path} ({kernel.kind})",
            str(kernel.shape),
            _percent(kernel.density),
            "{:,}/{:,}".format(*kernel.zero_channels),
            ": ".join(filter(None, [kernel.why, kernel.pattern])),
        ]
        for kernel in kernels
    ]
    return Table(headings, rows, words=(4,))


def totals(model: keras.layers.Layer, kernels: list[KernelSummary]) -> list[str]:
    """Two lines: of the kernels that are pruned or would be, and of all weights of the model."""
    pruned = [kernel for kernel in kernels if not kernel.why]
    kept, size = sum(kernel.kept for kernel in pruned), sum(kernel.size for kernel in pruned)
    what = "Pruned kernels" if masked_parts(model) else "Kernels to prune"
    values = [weights.value_of(v) for v in _own_variables(model) if not weights.is_random_state(v)]
    values = [value for value in values if value.dtype.kind == "f" or value.dtype.name.endswith("float16")]
    total, nonzero = sum(value.size for value in values), sum(int(np.count_nonzero(value)) for value in values)
    share = f" ({_percent(kept / size)})" if size else ""
    all_share = f" ({_percent(nonzero / total)})" if total else ""
    return [
        f" {what}: {len(pruned)} of {len(kernels)}, {kept:,} of {size:,} weights kept{share}",
        f" All weights: {total:,}, {nonzero:,} of them not zero{all_share}",
    ]


def _own_variables(model: keras.layers.Layer) -> list[keras.Variable]:
    """The variables of a model without those of wrappers inside it."""
    added = {id(v) for part in masked_parts(model) for v in [*part._masks, *(part._held or ())]}
    return [variable for variable in unwrapped(model).variables if id(variable) not in added]


def _why(model: keras.layers.Layer, kernel: Kernel, wrapped: bool) -> str:
    """Why a weight of rank 2 or more has no mask, or would get none."""
    variable, layer, roles = kernel.variable, kernel.layer, kernel.roles
    if not variable.name.endswith("kernel"):
        return "no kernel"
    parts = [part for part in masked_parts(model) if part.kernels]
    if any(_excludes(part, kernel) for part in parts):
        return "left out by exclude"
    if not variable.trainable:
        return "frozen"
    if hasattr(layer, "get_prunable_weights"):
        return "its layer does not name it"
    if weights.is_depthwise(variable, layer) or (roles.known and roles.is_depthwise(variable)):
        return "depthwise"
    if roles.known and roles.is_no_matrix(variable):
        return "no matrix product takes it"
    return "left out when it was wrapped" if wrapped else "left out"


def _excludes(part: Masked, kernel: Kernel) -> bool:
    """Whether the `exclude` that a wrapper was given names this kernel; a wrapper that was loaded does not know any more."""
    if part._exclude is None or part._prunable is not None:
        return False
    own = {id(variable) for variable in part.inner.variables}
    without = {id(k.variable) for k in weights.prunable_kernels(part.inner, None)}
    return id(kernel.variable) in own & without and kernel.variable.trainable


def _pattern(kernel: Kernel, kept: np.ndarray, channels: np.ndarray, axes: tuple[int, ...], two_of_four: bool) -> str:
    """What the zeros of a kernel hold."""
    if kept.all() or not kept.any():
        return ""
    if np.array_equal(kept, rules.expand_channels(channels.astype(bool), axes, kept.shape)):
        return "channels"
    stack = rules.stacked(kept, matrices.axes(kernel))
    fitting = (size for size in BLOCKS if all(a <= b for a, b in zip(size, stack.shape[-2:])))
    block = next((size for size in fitting if _in_blocks(stack, size)), None)
    return ", ".join(filter(None, ["2:4" if two_of_four else "", f"blocks {block[0]}x{block[1]}" if block else ""]))


def _in_blocks(stack: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether all zeros lie in blocks of zeros."""
    blocks = rules.pool(stack, size, "MAX")
    return np.array_equal(stack, rules.expand(blocks, size, stack.shape))


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
