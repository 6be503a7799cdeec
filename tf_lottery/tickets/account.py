"""What a ticket file takes: an account of its bytes, variable by variable. NumPy only."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from tf_lottery.rules import masks
from tf_lottery.rules.masks import Arrays
from tf_lottery.tickets import codec
from tf_lottery.tickets.file import MAX_WEIGHTS, Contents, Variable, read


@dataclass(frozen=True)
class Part:
    """What the file has of one variable.

    Attributes:
      path: The variable's path.
      shape: Its shape.
      density: Of its mask, or None if it has none.
      mask_bytes: What the coded mask takes; 0 without one.
      entropy_bytes: The entropy of independent bits of the mask's density.
      initial: Where its start values come from: `"recipe"`, or the type they are stored in.
      final: The type its trained values are stored in, or None.
    """

    path: str
    shape: tuple[int, ...]
    density: float | None
    mask_bytes: int
    entropy_bytes: float
    initial: str
    final: str | None

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Account:
    """A ticket's parts with an account of its file.

    Attributes:
      contents: What was read.
      bytes: The size of the file.
      dense_bytes: What the weights of the dense model take in float32.
      parts: For each variable what there is of it.
    """

    contents: Contents
    bytes: int
    dense_bytes: int
    parts: list[Part]

    @property
    def factor(self) -> float:
        """How many times smaller the file is than the dense weights."""
        return self.dense_bytes / self.bytes


def describe(path: str | os.PathLike, max_weights: int = MAX_WEIGHTS) -> Account:
    """Reads a ticket file, and tells what is in it and what that takes; errors as `Ticket.load`."""
    contents, variables, arrays = read(path, max_weights)
    dense = 4 * sum(variable.size for variable in variables if "float" in variable.dtype)
    parts = [_part(i, variable, contents, arrays) for i, variable in enumerate(variables)]
    return Account(contents, Path(path).stat().st_size, dense, parts)


def _part(i: int, variable: Variable, contents: Contents, arrays: Arrays) -> Part:
    mask, final = contents.masks.get(variable.name), arrays.get(f"final/{i}")
    return Part(
        variable.name,
        variable.shape,
        None if mask is None else masks.density({"": mask}),
        0 if mask is None else arrays[f"mask/{i}"].size,
        0.0 if mask is None else codec.entropy(mask) / 8,
        variable.dtype if variable.recipe is None else "recipe",
        None if final is None else variable.dtype if variable.dtype == "bfloat16" else final.dtype.name,
    )
