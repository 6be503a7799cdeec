"""A ticket is data, not a model: masks, the weights to start from, and how they were found.

NumPy only: a ticket can be read, compared and sent where no TensorFlow is installed; its file is that of `file`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tf_lottery.base.container import digest
from tf_lottery.base.errors import TicketError
from tf_lottery.rules import masks as masks_lib
from tf_lottery.rules.masks import Arrays
from tf_lottery.tickets import file
from tf_lottery.tickets.file import MAX_WEIGHTS
from tf_lottery.tickets.values import Recipe, arrays


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
      recipes: How arrays in `initial` can be drawn again, by the digest of their values: what `save` writes in their place.

    Examples:

    >>> ticket = Ticket({"dense/kernel": np.array([[1, 0]])}, {"dense/kernel": np.array([[0.5, 0.0]], "float32")})
    >>> ticket
    Ticket(level 0, 50 % of 2 weights)
    """

    masks: Arrays
    initial: Mapping[str, np.ndarray | Recipe]
    final: Arrays | None = None
    level: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    found: Mapping[str, Any] = field(default_factory=dict)
    recipes: Mapping[str, Recipe] = field(default_factory=dict)

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

    def __repr__(self) -> str:
        size, trained = sum(mask.size for mask in self.masks.values()), "" if self.final is None else ", trained"
        return f"Ticket(level {self.level}, {100 * self.density:.3g} % of {size:,} weights{trained})"

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
        from tf_lottery.masking import state  # here and below arrays meet Keras: only when a model is handed in

        state.check_keras_3(model)
        if weights not in ("initial", "final"):
            raise TicketError(f"Expected weights='initial' or 'final', but received {weights!r}.")
        if getattr(self, weights) is None:
            raise TicketError("Expected a trained ticket for weights='final', but this one has no trained weights.")
        # starting weights that are not asked for need not be drawn
        asked = self if weights == "initial" else dataclasses.replace(self, initial=arrays(self.final))
        fitting = asked.in_paths_of(model)
        return state.put(model, fitting.masks, arrays(fitting.initial))

    def in_paths_of(self, model) -> Ticket:
        """The same ticket under the model's variable paths; recipes are drawn.

        Raises:
          TicketError: If the model does not have the ticket's variables, by name or by order and shape, or a recipe does not
            give the values it was made of.
        """
        from tf_lottery.masking import state
        from tf_lottery.tickets import recipes

        shapes = {name: value.shape for name, value in self.initial.items()}
        path_of = {name: path for path, name in state.matched(model, shapes).items()}
        values: Mapping[str, Any] | None
        renamed: list[Any] = []
        for values in (self.masks, self.initial, self.final):
            drawn = values and {path_of[n]: recipes.whole(v, n, self.masks.get(n)) for n, v in values.items()}
            renamed.append(drawn)
        masks, initial, final = renamed
        own = {digest(initial[path_of[n]]): v for n, v in self.initial.items() if isinstance(v, Recipe)}
        return dataclasses.replace(self, masks=masks, initial=initial, final=final, recipes={**self.recipes, **own})

    def recipe(self, name: str) -> Recipe | None:
        """How to draw a variable's start values, where that is known: of a masked kernel those of the kept weights.

        Pruned weights that are frozen at other values than zero are not drawn, so such a kernel has none.
        """
        value = self.initial[name]
        if isinstance(value, Recipe):
            return value
        if name in self.masks and np.any(value[self.masks[name] == 0]):
            return None
        recipe = self.recipes.get(digest(value)) if self.recipes else None
        return recipe if recipe and (recipe.shape, recipe.dtype) == (value.shape, value.dtype.name) else None

    def inheriting(self, *parents: Ticket) -> Ticket:
        """The same ticket, with the recipes of its parents that give its own start values too: all it keeps, they kept."""
        recipes = dict(self.recipes)
        value: Any  # an array or a recipe
        for name, value in self.initial.items():
            mask = self.masks.get(name)
            for parent in parents:
                old = parent.masks.get(name)
                if mask is not None and (old is None or np.any(mask > old)):
                    continue
                start: Any = parent.initial[name]
                if np.array_equal(value, start if mask is None else start * mask) and (recipe := parent.recipe(name)):
                    recipes[digest(value)] = recipe
        return dataclasses.replace(self, recipes=recipes)

    def save(self, path: str | os.PathLike, *, final: str | None = "exact") -> None:
        """Writes the ticket to one file; the file has its name only once it is whole.

        Args:
          path: Its name.
          final: How the trained weights are written: `"exact"`, as `"float32"` or `"float16"` where they are wider, or None: not
            at all. They are read in the precision that they had.

        Raises:
          TicketError: If a trained weight is too large for the precision, or weights are of a type that the file does not know.
        """
        values = {name: self.recipe(name) or value for name, value in self.initial.items()}
        file.save(file.Contents(self.masks, values, self.final, self.level, self.metrics, self.found), path, final)

    @classmethod
    def load(cls, path: str | os.PathLike, *, max_weights: int = MAX_WEIGHTS) -> Ticket:
        """Reads a ticket file; anyone may have made it.

        Args:
          path: The file.
          max_weights: How many weights the ticket may have: reading takes up to 20 bytes for each, in float32.

        Raises:
          FileNotFoundError: If there is no such file.
          TicketError: If it is not a ticket, not a whole one, or one of more weights.
        """
        return cls(*file.load(path, max_weights))
