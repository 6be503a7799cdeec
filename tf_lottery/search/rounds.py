"""The algorithm of the papers: what one pruning round does between two trainings.

Train; remove the lowest scores of what is kept; give the survivors their starting weights; train again. `Rounds.next` is
that middle part on plain arrays, so `find_ticket`, the callback of one Keras `fit` and the callback of TF-MOT are the
same search. NumPy only.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tf_lottery.base.bounds import whole
from tf_lottery.base.errors import LotteryError
from tf_lottery.rules import criteria, masks, treatments
from tf_lottery.rules.masks import Arrays, Axes
from tf_lottery.tickets.ticket import Ticket
from tf_lottery.tickets.values import arrays

RESETS = ("each_level", "at_end")
Draw = Callable[[str, int], np.ndarray]  # (kernel path, seed) -> a fresh sample of the kernel
# (kind, masks, the values of all variables) -> the gradient of each kernel there
Gradients = Callable[[str | Callable, Arrays, Arrays], Arrays]


class Rounds:
    """How each level of a search follows from the one before; see `find_ticket` for the meaning of the arguments.

    Args:
      fractions: For each round, first to last, the share of its remaining weights that each kernel loses.
      draw: `draw(path, seed)` returns a fresh sample of a kernel from its layer's own initializer; None if nothing is drawn.
      gradients: `gradients(kind, masks, values)` returns a gradient for each kernel, for criteria that need one: it is taken at
        the initial weights of the level that the round starts from, under its masks.
      axes: The kernels whose output channels can be removed, for the scopes in which those compete; see `masks.prune`.

    Raises:
      LotteryError: If an argument is out of range or unknown.
    """

    def __init__(
        self,
        fractions: Sequence[Mapping[str, float]],
        draw: Draw | Any,
        gradients: Gradients | Any = None,
        axes: Axes | None = None,
        *,
        criterion: str | Callable = "large_final",
        survivors: str | Callable = "rewind",
        pruned: str | Callable = "zero",
        scope: str = "layer",
        one_shot: bool = False,
        reset: str = "each_level",
        min_per_kernel: int = 1,
        seed: int = 0,
    ):
        self.fractions, self.draw, self.gradients, self.axes = fractions, draw, gradients, axes
        self.criterion = criteria.get(criterion)
        self.survivors, self.pruned = treatments.get_survivors(survivors), treatments.get_pruned(pruned)
        self.scope, self.one_shot, self.reset, self.seed = scope, one_shot, reset, whole("seed", seed)
        self.min_per_kernel = min_per_kernel
        if not isinstance(min_per_kernel, int) or min_per_kernel < 0:
            raise LotteryError(
                f"Expected min_per_kernel of 0 or more, a whole number, but received {min_per_kernel!r}."
            )
        if reset not in RESETS:
            raise LotteryError(f"Expected reset to be one of {', '.join(RESETS)}, but received {reset!r}.")
        if one_shot and reset == "at_end":
            raise LotteryError(
                "Expected reset='each_level' with one_shot, where every level starts anew from the dense network."
            )
        for round_fractions in fractions or [{}]:
            masks.check_scope(scope, round_fractions, axes=axes)

    @property
    def levels(self) -> int:
        return len(self.fractions)

    def through(self, fractions: Sequence[Mapping[str, float]]) -> Rounds:
        """The same rounds, but so many that prune so much."""
        other = copy.copy(self)
        other.fractions = fractions
        return other

    def next(self, last: Ticket, first: Ticket) -> Ticket:
        """The level after `last`, not trained yet; `first` is the trained dense level of the same search."""
        level = last.level + 1
        parent = first if self.one_shot else last
        new = self.masks(parent, level)
        going_on = self.reset == "at_end" and level < self.levels
        initial = first.initial if self.reset == "at_end" and not going_on else parent.initial
        survivors = treatments.keep if going_on else self.survivors
        start = treat(
            new,
            arrays(initial),
            arrays(parent.final),
            survivors=survivors,
            pruned=self.pruned,
            dense=first,
            draw=self.draw,
            seed=[self.seed, level],
        )
        return Ticket(new, start, level=level, found=last.found)

    def _fractions(self, level: int) -> Mapping[str, float]:
        """Of round `level`; with `one_shot` of all rounds up to there together."""
        if not self.one_shot:
            return self.fractions[level - 1]
        paths = self.fractions[0]
        return {path: 1 - float(np.prod([1 - f[path] for f in self.fractions[:level]])) for path in paths}

    def masks(self, parent: Ticket, level: int) -> Arrays:
        """The masks of `level`, pruned from those of `parent` in as many steps as the criterion wants."""
        rng = np.random.default_rng([self.seed, level, 2])
        shares: Mapping[str, float]
        fractions, steps = self._fractions(level), criteria.needs(self.criterion).iterations
        new = parent.masks
        for step in range(1, steps + 1):
            scores = self._scores(parent, new, rng)
            if step > 1:  # each step counts from the round's start, so that the last one has the exact count
                scores = {path: np.where(mask, scores[path], -np.inf) for path, mask in new.items()}
            if step < steps:
                shares = {path: 1 - (1 - fraction) ** (step / steps) for path, fraction in fractions.items()}
            else:
                shares = fractions
            new = masks.prune(
                parent.masks,
                scores,
                shares,
                scope=self.scope,
                axes=self.axes,
                min_per_kernel=self.min_per_kernel,
                seed=[self.seed, level, 5, step],
            )
        return new

    def _scores(self, parent: Ticket, present: Arrays, rng: np.random.Generator) -> Arrays:
        initial, final = arrays(parent.initial), arrays(parent.final)
        gradients: Arrays = {}
        kind = criteria.needs(self.criterion).gradient
        if kind is not None:  # what the round has pruned so far is 0; what was pruned before is what it is frozen at
            values = {path: initial[path] * (parent.masks[path] <= mask) for path, mask in present.items()}
            gradients = self.gradients(kind, present, {**initial, **values})
        return {
            path: criteria.score(
                self.criterion,
                initial[path] * mask,
                final[path] * mask,
                rng=rng,
                gradient=gradients.get(path),
            )
            for path, mask in present.items()
        }


def treat(
    new: Arrays,
    initial: Mapping[str, np.ndarray],
    final: Mapping[str, np.ndarray],
    *,
    survivors: Callable,
    pruned: Callable,
    dense: Ticket,
    draw: Draw,
    seed: int | Sequence[int],
) -> Arrays:
    """The values that all variables start the next level from.

    Args:
      new: The new masks.
      initial, final: All variables at the start and at the end of the level before.
      survivors, pruned: The two treatments.
      dense: The first level of the search: the constant treatments take their scale from its initial weights.
      draw: See `Rounds`.
      seed: Decides drawn weights and shuffles.

    Raises:
      LotteryError: If a treatment returns something else than finite values in the kernel's shape.
    """
    rng, rng_of_pruned = np.random.default_rng(seed), np.random.default_rng([*np.atleast_1d(seed), 3])
    start = dict(final if survivors is treatments.keep else initial)
    for path, mask in new.items():
        draw_seed = int(rng.integers(2**31))
        values = survivors(
            *(np.array(values[path]) for values in (initial, final)),  # a function of others may work in place
            mask=np.array(mask),
            rng=rng,
            draw=lambda path=path, draw_seed=draw_seed: draw(path, draw_seed),
            scale=float(np.std(arrays(dense.initial)[path])),
        )
        if np.shape(values) != initial[path].shape or not np.isfinite(values).all():
            raise LotteryError(
                f"Expected {getattr(survivors, '__name__', survivors)} to return finite values of shape "
                f"{initial[path].shape} for kernel {path!r}, but received others (shape {np.shape(values)})."
            )
        given = [np.array(array) for array in (values, initial[path], final[path])]
        values = pruned(*given, mask=np.array(mask), rng=rng_of_pruned)
        if np.shape(values) != initial[path].shape or not np.isfinite(values).all():
            raise LotteryError(
                f"Expected {getattr(pruned, '__name__', pruned)} to return finite values of shape "
                f"{initial[path].shape} for kernel {path!r}, but received others (shape {np.shape(values)})."
            )
        start[path] = np.asarray(values, initial[path].dtype)
    return start


def names(**parts) -> dict:
    """Functions by the names they were defined with, all else as it is: how a ticket tells what it was found with."""
    return {key: getattr(part, "__name__", part) for key, part in parts.items()}


def numbers(metrics) -> dict:
    """What a training returned, as a dict of plain numbers."""
    if not isinstance(metrics, Mapping) or any(np.ndim(value) for value in metrics.values()):
        raise LotteryError(
            f"Expected train to return a dict of numbers, a History or None, but received {metrics!r:.80}."
        )
    return {name: value.item() if hasattr(value, "item") else value for name, value in metrics.items()}
