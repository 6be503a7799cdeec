"""What a ticket has of a variable: its values, or the recipe that draws them. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from tf_lottery.rules.masks import Arrays


@dataclass(frozen=True)
class Recipe:
    """Start values that are not stored but drawn again: those of an initializer with its seed, and what was done to them.

        values = initializer(shape, dtype);  values = sign(values) if signed;  values = values * scale

    Attributes:
      initializer: `class_name`, one of `keras.initializers`, and `config`, its arguments with the seed.
      shape: The variable's shape.
      dtype: Its dtype.
      digest: SHA-256 of the values' bytes, in hexadecimal: regenerating is checked against it.
      signed: Whether only the signs of the drawn values count.
      scale: The factor at the end; with `signed` the constant of signed constants.
    """

    initializer: Mapping[str, Any]
    shape: tuple[int, ...]
    dtype: str
    digest: str
    signed: bool = False
    scale: float = 1.0

    def __post_init__(self):
        object.__setattr__(self, "shape", tuple(self.shape))


def arrays(values: Mapping[str, np.ndarray | Recipe] | None) -> Arrays:
    """A ticket's values for a type checker, where it is known that they are there and that none is a recipe."""
    return cast(Arrays, values)
