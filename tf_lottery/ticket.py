"""A ticket is data, not a model: masks, the weights to start from, and how they were found.

NumPy only: a ticket can be read, compared and sent where no TensorFlow is installed.

**The file** is a `safetensors` container: named arrays and a JSON header, no pickle, safe to open from a stranger. For
each masked kernel it holds the mask, one bit a weight (`mask/<path>`), the start values of the weights that are kept
(`initial/<path>`), what pruned weights are frozen at where that is not zero (`held/<path>`), and the trained values of
the kept weights (`final/<path>`); for every other variable its whole value. Start values that can be drawn again are not in
the file at all: their `Recipe` stands in the header.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tf_lottery import masks as masks_lib
from tf_lottery.errors import TicketError
from tf_lottery.files import whole_file
from tf_lottery.masks import Arrays

FORMAT = "tf_lottery.ticket/1"


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


@dataclass(frozen=True, eq=False)
class Ticket:
    """Masks, starting weights, and how they were found.

    Attributes:
      masks: For each prunable kernel its mask, uint8, 1 = kept.
      initial: For each variable the value the level's training started from. A masked kernel is whole: kept weights
        hold their start value, pruned ones what they are frozen at (zero, unless `pruned` said otherwise). In the place of
        an array a `Recipe` may stand, from which the values of the kept weights are drawn.
      final: The same at the end of that training, or None if nothing was trained.
      level: 0 = the dense network; level k has the mask that k rounds left.
      metrics: What `train` returned.
      found: How the ticket was found: the search's settings, as names and numbers.

    Example:

    >>> ticket = Ticket({"dense/kernel": np.array([[1, 0]])}, {"dense/kernel": np.array([[0.5, 0.0]], "float32")})
    >>> ticket.density
    0.5
    """

    masks: Arrays
    initial: Mapping[str, np.ndarray | Recipe]
    final: Arrays | None = None
    level: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    found: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        missing = [
            path
            for values in (self.initial, self.final)
            if values is not None
            for path in self.masks
            if path not in values
        ]
        if missing:
            raise TicketError(f"Expected weights for every masked kernel, but {missing[0]!r} has none.")

    @property
    def density(self) -> float:
        """Weights kept / weights prunable, in [0, 1]."""
        return masks_lib.density(self.masks)

    def apply(self, model, weights: str = "initial"):
        """Puts the ticket on a Keras 3 model: its masks, and its starting weights, or with "final" the trained ones.

        Variables are matched by path, or where the names differ (Keras numbers layers as it makes them) by their order and
        shapes. Nothing is changed if the ticket does not fit.

        Args:
          model: A built Keras 3 model, plain or wrapped; its variables are assigned.
          weights: `"initial"` or `"final"`.

        Returns:
          The wrapped model (`tf_lottery.wrap`).

        Raises:
          TicketError: If the ticket does not fit the model, or has no trained weights and they are asked for.
        """
        from tf_lottery import state  # the one place where arrays meet Keras: only when a model is handed in

        return state.apply_ticket(self, model, weights)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the ticket to one file; the file has its name only once it is whole."""
        from safetensors.numpy import save_file

        tensors = {f"mask/{path}": np.packbits(mask.astype(bool)) for path, mask in self.masks.items()}
        recipes = {name: value for name, value in self.initial.items() if isinstance(value, Recipe)}
        stored = {name: value for name, value in self.initial.items() if name not in recipes}
        for kind, values in (("initial", stored), ("final", self.final or {})):
            for name, value in values.items():
                kept = self.masks.get(name)
                tensors[f"{kind}/{name}"] = np.ascontiguousarray(value if kept is None else value[kept.astype(bool)])
        for name in self.masks.keys() & stored.keys():
            held = stored[name][~self.masks[name].astype(bool)]
            if held.any():
                tensors[f"held/{name}"] = held
        header = {
            "format": FORMAT,
            "shapes": {name: list(mask.shape) for name, mask in self.masks.items()},
            "variables": list(self.initial),  # their order in the model; the container sorts its arrays
            "recipes": {name: dataclasses.asdict(recipe) for name, recipe in recipes.items()},
            "trained": self.final is not None,
            "level": self.level,
            "density": self.density,
            "metrics": dict(self.metrics),
            "found": dict(self.found),
        }
        with whole_file(path) as unfinished:
            save_file(tensors, unfinished, metadata={"ticket": json.dumps(header)})

    @classmethod
    def load(cls, path: str | os.PathLike) -> Ticket:
        """Reads a ticket file.

        Raises:
          FileNotFoundError: If there is no such file.
          TicketError: If it is not a ticket, or not a whole one.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        header = read_header(path)
        try:
            tensors = load_file(path)
            masks = {name: _unpack(tensors[f"mask/{name}"], shape) for name, shape in header["shapes"].items()}
            held = {name: tensors.get(f"held/{name}") for name in masks}
            recipes = {name: Recipe(**parts) for name, parts in header.get("recipes", {}).items()}
            present = {"initial": recipes, **({"final": {}} if header["trained"] else {})}
            kinds = {
                kind: {name: given.get(name) or tensors[f"{kind}/{name}"] for name in header["variables"]}
                for kind, given in present.items()
            }
            for kind, values in kinds.items():
                for name in masks.keys() - present[kind].keys():
                    values[name] = _scatter(values[name], held[name], masks[name])
        except (SafetensorError, KeyError, ValueError, TypeError, IndexError) as error:
            raise TicketError(f"Expected a whole ticket file, but {os.fspath(path)!r} is damaged ({error}).") from error
        return cls(
            masks,
            kinds["initial"],
            kinds.get("final"),
            level=header["level"],
            metrics=header["metrics"],
            found=header["found"],
        )


def read_header(path: str | os.PathLike) -> dict[str, Any]:
    """The header of a ticket file (level, metrics, found, shapes) without reading its arrays."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {})["ticket"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise TicketError(f"Expected a ticket file, but {os.fspath(path)!r} is not one ({error}).") from error
    if header.get("format") != FORMAT:
        raise TicketError(
            f"Expected a ticket of format {FORMAT!r}, but {os.fspath(path)!r} has {header.get('format')!r}."
        )
    return header


def _unpack(bits: np.ndarray, shape: list[int]) -> np.ndarray:
    count = math.prod(shape)
    if min(shape, default=0) < 0 or bits.dtype != np.uint8 or bits.size != -(-count // 8):
        raise ValueError(f"a mask of shape {tuple(shape)} does not have {bits.size} bytes")
    return np.unpackbits(bits, count=count).reshape(shape)


def _scatter(kept: np.ndarray, held: np.ndarray | None, mask: np.ndarray) -> np.ndarray:
    whole, chosen = np.zeros(mask.shape, kept.dtype), mask.astype(bool)
    for values, places in ((kept, chosen), (held, ~chosen)):
        if values is not None:
            if values.shape != (np.count_nonzero(places),):  # or NumPy would spread a single value over all of them
                raise ValueError(f"{np.count_nonzero(places)} weights do not have {values.size} values")
            whole[places] = values
    return whole
