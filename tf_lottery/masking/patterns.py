"""Whether the zeros of a model lie where hardware can use them: m in every n inputs, kernel by kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import keras
from rich.console import Console
from rich.table import Table

from tf_lottery.masking import matrices, weights
from tf_lottery.masking.masked import settle_all, unwrapped
from tf_lottery.masking.weights import Kernel, Prunable
from tf_lottery.rules import patterns


@dataclass(frozen=True)
class KernelPattern:
    """One kernel, and whether it holds the pattern.

    Attributes:
      path: Its path in the model.
      kind: The class of its layer.
      inputs, outputs: The sides of its matrix: what it sums over, and what it makes.
      density: The share of its weights that is not zero.
      holds: Whether there are at least m zeros in every n consecutive inputs of every output.
      why: Why not, or what of it is left dense; empty if there is nothing to say.
    """

    path: str
    kind: str
    inputs: int
    outputs: int
    density: float
    holds: bool
    why: str


@dataclass(frozen=True)
class Checked:
    """What `check` found, a row for each kernel; printed it is a table.

    Attributes:
      m_by_n: The pattern, m zeros in every n inputs.
      kernels: The rows, in the order of the model's variables.
    """

    m_by_n: tuple[int, int]
    kernels: tuple[KernelPattern, ...]

    @property
    def holds(self) -> bool:
        """Whether all kernels hold the pattern, but for those that it does not serve."""
        return all(row.holds for row in self.kernels if not row.why.startswith("left dense"))

    def __iter__(self) -> Iterator[KernelPattern]:
        return iter(self.kernels)

    def __getitem__(self, path: str) -> KernelPattern:
        return {row.path: row for row in self.kernels}[path]

    def __rich__(self) -> Table:
        m, n = self.m_by_n
        table = Table(
            "kernel", "layer", "inputs", "outputs", "density", f"{m}:{n}", "why", title=f"{m} zeros in every {n} inputs"
        )
        for column in table.columns[2:5]:
            column.justify = "right"
        for row in self.kernels:
            numbers = f"{row.inputs:,}", f"{row.outputs:,}", f"{row.density:.1%}"
            table.add_row(row.path, row.kind, *numbers, "yes" if row.holds else "no", row.why)
        return table

    def __str__(self) -> str:
        console = Console(width=160, color_system=None, force_terminal=False)
        with console.capture() as capture:
            console.print(self)
        return capture.get().rstrip()


def check(
    model: keras.layers.Layer,
    m_by_n: tuple[int, int] = (2, 4),
    *,
    prunable: Prunable = None,
    exclude: Prunable = None,
) -> Checked:
    """Tells for each kernel of a model whether it has m zeros in every n consecutive inputs, and what was left dense and why.

    Inputs are what a kernel sums over, the axis along which sparse matrix units skip zeros: the last axis but one of a
    matrix or convolution, and of attention what its equation says. Left dense by `prune` are depthwise kernels, grouped and
    transposed convolutions, and those of other ranks than 2 and 4. Inputs at the end that are no whole group count as if
    zeros followed them; the row says that they are there.

    Args:
      model: A built model, plain or wrapped, as it is or stripped.
      m_by_n: `(m, n)`: m zeros in every n inputs, `(2, 4)` for "2:4".
      prunable: Which variables to look at; by default all kernels, depthwise and frozen ones too.
      exclude: What to leave out of that.

    Raises:
      LotteryError: If `m_by_n` is not two whole numbers, 0 < m < n.

    Examples:

    >>> from tf_lottery import prune
    >>> layers = [keras.layers.Dense(8, name="body"), keras.layers.Dense(2, name="head")]
    >>> model = keras.Sequential([keras.Input((6,)), *layers], name="net")
    >>> found = check(prune(model, sparsity_m_by_n=(2, 4), exclude="head"))
    >>> [(row.path, row.holds, row.why) for row in found]
    [('net/body/kernel', True, 'the last 2 of 6 inputs are a remainder'), ('net/head/kernel', False, 'not pruned')]
    """
    m, n = patterns.check_m_by_n(m_by_n)
    weights.check_keras_3(model)
    settle_all(model)
    plain = unwrapped(model)
    chosen = _is_any_kernel if prunable is None else prunable
    kernels = weights.prunable_kernels(plain, chosen, exclude)
    return Checked((m, n), tuple(_looked_at(kernel, m, n) for kernel in kernels))


def _is_any_kernel(layer: keras.layers.Layer, variable: keras.Variable) -> bool:
    return weights.is_kernel(variable, frozen=True)


def _looked_at(kernel: Kernel, m: int, n: int) -> KernelPattern:
    kept = weights.value_of(kernel.variable) != 0
    stack = patterns.stacked(kept, matrices.axes(kernel))
    (inputs, outputs), over = stack.shape[-2:], matrices.not_served(kernel)
    beyond, groups, left = patterns.groups_over(stack, m, n)
    if over:
        holds, why = False, f"left dense: {over}" if kept.all() else over
    elif kept.all():
        holds, why = False, "not pruned"
    elif beyond:
        holds, why = False, f"{beyond:,} of {groups:,} groups have fewer than {m} zeros"
    else:
        at_end = int((stack[..., inputs - left :, :].sum(axis=-2) > n - m).sum()) if left else 0
        holds = not at_end
        why = f"the last {left:,} of {inputs:,} inputs are a remainder" if left else ""
        why += f", and {at_end:,} outputs keep more than {n - m} of them" if at_end else ""
    return KernelPattern(kernel.path, type(kernel.layer).__name__, inputs, outputs, float(kept.mean()), holds, why)
