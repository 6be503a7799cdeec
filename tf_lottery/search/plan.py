"""How long a search is: its levels, what each prunes, how long each training lasts, and which tickets are trained in full.

What can be known without the network is known without it, and without TensorFlow: a command refuses what does not go together
before it loads either.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tf_lottery.base.errors import LotteryError
from tf_lottery.rules import criteria, patterns
from tf_lottery.rules.masks import Arrays, Axes
from tf_lottery.search.rates import Cubic, at_once, rounds_to, spread

ROADS = ("iterative", "one_shot", "gradual", "auto", "regrow")
LEVELS = 10
LEVELS_OF_BUDGET = 4  # few, short and rewound
LONGEST = 3 / 8  # of a training's steps: a larger budget makes more levels, of a quarter
QUARTER = 1 / 4  # of a training's steps: so far `auto` looks at the validation loss of the first level
LEAST = 6  # measurements there that tell it enough
WITHIN_ONE = ("gradual", "regrow")  # roads whose masks are made within one training
APART = ("auto", *WITHIN_ONE)  # roads with a level for each density alone, which need no dense network


@dataclass(frozen=True)
class Plan:
    """A search before it begins.

    Attributes:
      road: One of `ROADS`; what `auto` chooses is known in the search.
      levels: How many rounds of pruning; level 0 is the dense network.
      steps: Those of one training; None where all are of one length, and nobody said which.
      search_steps: Those of the search's trainings; None: as many.
      asked: The levels whose tickets were asked for: those are trained in full, where the trainings have two lengths.
      told: What a ticket tells of it.
      fractions: For each round the share of its remaining weights that each kernel loses; empty where no network was given.
      short_levels: With `auto`, how many short levels there would be, the dense network's included.
      short: With `auto`, for each level what each of those would prune, in the words of `fractions`.
    """

    road: str
    levels: int
    steps: int | None = None
    search_steps: int | None = None
    asked: list[int] = field(default_factory=list)
    told: dict[str, Any] = field(default_factory=dict)
    fractions: list[dict[str, float]] = field(default_factory=list)
    short_levels: int = 0
    short: list[list[dict[str, float]]] = field(default_factory=list)

    @property
    def first(self) -> int:
        """The first level: where each has a search of its own no dense network is needed, and there may be none."""
        return int(self.road in APART and 0 not in self.asked)

    def own(self, level: int) -> int:
        """The steps of a level's own training."""
        whole = self.search_steps is None or (level in self.asked and not (self.road == "regrow" and level))
        return (self.steps if whole else self.search_steps) or 0

    def searches(self, level: int) -> list[tuple[int, int]]:
        """The trainings for the search alone that a level needs before its own: (the level whose network it is, steps).

        With `auto` what follows on the first one is told as one training, as which it may come.
        """
        if self.search_steps is None or level == 0 or self.road == "regrow":
            return []
        if self.road == "auto":
            return [(0, self.search_steps), (level, self.search_steps * (self.short_levels - 1))]
        if self.road == "gradual":
            return [(level, self.search_steps)]
        parent = 0 if self.road == "one_shot" else level - 1
        return [] if self.own(parent) == self.search_steps else [(parent, self.search_steps)]

    @property
    def gradual_steps(self) -> int:
        """With `auto`: the steps of a gradual training, if that is chosen; no more than one training has."""
        return min((self.short_levels - 1) * (self.search_steps or 0), self.steps or 0)

    def trainings(self, level: int) -> float:
        """What the ticket of a level costs; with `auto`, at most."""
        whole = self.steps or 1
        one = (self.search_steps or whole) / whole
        searches = {"iterative": level, "regrow": 0, "auto": self.short_levels * min(level, 1)}.get(
            self.road, min(level, 1)
        )
        return round(searches * one + (self.own(level) or whole) / whole, 6)


@dataclass(frozen=True)
class Kernels:
    """What a plan needs to know of the network.

    Attributes:
      fractions: What a round of `prune_fraction` removes of each kernel.
      masks: Those of the network at its beginning.
      axes: Of the kernels whose channels compete, where those do.
    """

    fractions: Mapping[str, float]
    masks: Arrays
    axes: Axes | None = None


def planned(
    road: str,
    levels: int | None,
    density: float | Sequence[float] | None,
    budget: float | None,
    level_steps: int | None,
    search_steps: int | None,
    dense: bool,
    *,
    steps: Callable[[], int],
    least: int = 1,
    kernels: Kernels | None = None,
) -> Plan | None:
    """The plan of a search; see `find_ticket` for the arguments.

    Args:
      steps: Returns those of one training; it is called where trainings have two lengths.
      least: The fewest steps of a training.
      kernels: The network's.

    Returns:
      The plan; None if it depends on the network, and that is not given.

    Raises:
      LotteryError: If the arguments do not go together, or one is out of range.
    """
    wanted = [] if density is None else _checked(density)
    if budget is not None and not wanted:
        raise LotteryError("Expected budget with a density, but received none.")
    if budget is not None and (level_steps is not None or search_steps is not None):
        name = "search_steps" if level_steps is None else "level_steps"
        raise LotteryError(f"Expected a budget without {name}, which follows from it, but received both.")
    least_budget = 0 if road == "regrow" else 1
    if budget is not None and not (isinstance(budget, numbers.Real) and least_budget < float(budget) < math.inf):
        own, instead = "", ""
        if road != "regrow":
            own, instead = (
                ", the ticket's own training",
                ": search='regrow' makes a sparse network in one training, or less",
            )
        raise LotteryError(f"Expected a budget above {least_budget}{own}, but received {budget!r}{instead}.")
    if road in WITHIN_ONE and (not wanted or level_steps is not None):
        raise LotteryError(
            f"Expected search={road!r} with a density and without level_steps: search_steps is its length."
        )
    if road not in WITHIN_ONE and search_steps is not None:
        raise LotteryError(
            f"Expected search_steps with search='gradual' or 'regrow' only, but received it with {road!r}."
        )

    rounds = _rounds(wanted, kernels)
    count = _count(road, levels, wanted, budget, rounds)
    short = _of_budget(budget) if road == "auto" and budget is not None else 0
    name = "search_steps" if road in WITHIN_ONE else "level_steps"
    given = search_steps if road in WITHIN_ONE else level_steps
    one_length = road not in WITHIN_ONE and budget is None and given is None
    whole = None if one_length else steps()
    length = None if whole is None else _length(name, road, short or count, budget, given, whole, least)
    if count is None or (rounds is None and road == "iterative" and len(wanted) > 1):
        return None
    per_round, asked = _fractions(road, count, wanted, rounds, kernels, falling=budget is not None)
    if length is None:
        told: dict[str, Any] = {"search": road, "density": wanted, "levels": count} if wanted else {}
        return Plan(road, count, asked=asked, told=told, fractions=per_round)
    told = {"search": road, "density": wanted or None, "levels": count, "budget": budget, name: length}
    plan = Plan(road, count, whole, length, ([0] if dense else []) + asked, told, per_round, short)
    if short and kernels and rounds:
        each = [spread([end], short, falling=True)[0] for end in rounds]
        levels_to = [[at_once(kernels.fractions, one) for one in lengths] for lengths in each]
        plan = dataclasses.replace(plan, short=levels_to)
    return plan


def _rounds(wanted: Sequence[float], kernels: Kernels | None) -> list[float] | None:
    """How many rounds lead to each density; None if the network is not given."""
    if kernels is None:
        return None if wanted else []
    kept, sizes = _counted(kernels.masks, kernels.axes)
    return [rounds_to(density, kernels.fractions, kept, sizes) for density in wanted]


def _count(road, levels, wanted, budget, rounds) -> int | None:
    """How many levels there are; None if that depends on the network."""
    if not wanted:
        return levels or LEVELS
    if road != "iterative":
        if levels not in (None, len(wanted)):
            raise LotteryError(
                f"Expected as many levels as densities with search={road!r}, which takes each at once, but received levels={levels}"
                f"{': search=' + repr('iterative') + ' is the road of levels' if road == 'auto' else ''}."
            )
        return len(wanted)
    if levels is None and budget is not None:
        return max(len(wanted), _of_budget(budget))
    if levels is None:
        return None if rounds is None else max(len(wanted), round(rounds[-1]))
    if levels < len(wanted):
        raise LotteryError(f"Expected a level for each of the {len(wanted)} densities, but received levels={levels}.")
    return levels


def _of_budget(budget: float) -> int:
    """How many short levels a budget has.

    >>> _of_budget(1.5), _of_budget(2.5), _of_budget(3)
    (4, 4, 8)
    """
    search = float(budget) - 1
    return LEVELS_OF_BUDGET if search <= LEVELS_OF_BUDGET * LONGEST else math.ceil(round(4 * search, 6))


def _length(name: str, road: str, levels: int | None, budget, given, steps: int, least: int) -> int:
    """The steps of each of the search's trainings."""
    if road == "regrow":
        given = int(steps * (1 if budget is None else budget)) if given is None else given
    elif budget is not None:
        given = min(steps, int(round((budget - 1) * steps / (levels if road in ("iterative", "auto") else 1), 6)))
    elif given is None:
        given = steps // 2
    if budget is not None and road != "regrow" and given < least:
        raise LotteryError(
            f"Expected a budget that gives the search's trainings at least {least} steps, eval_every, but with {budget:g} of {steps} steps they "
            f"have {given}."
        )
    if not isinstance(given, int | np.integer) or given < least or (given > steps and road != "regrow"):
        most = "on" if road == "regrow" else f"to {steps}, the steps of one training"
        raise LotteryError(f"Expected {name} from {least}, eval_every, {most}, but received {given!r}.")
    return int(given)


def _fractions(road, levels, wanted, rounds, kernels, falling) -> tuple[list[dict[str, float]], list[int]]:
    """What each round prunes, where the network is given, and which levels were asked for."""
    fractions = dict(kernels.fractions) if kernels else {}
    if not wanted:
        asked = [*range(1, levels + 1)] if road == "one_shot" else [levels]
        return [fractions] * levels if kernels else [], asked
    if road != "iterative":
        asked = [*range(1, levels + 1)]
        lengths = [b - a for a, b in zip([0.0, *rounds], rounds)] if rounds else []
    elif rounds is None:
        return [], [levels]  # of one density
    else:
        lengths, asked = spread(rounds, levels, falling)
    return [at_once(fractions, length) for length in lengths], asked


def road_of(search: str, one_shot: bool, budget: float | None) -> str:
    """The road that a search takes: `auto` without a budget is that of the papers.

    Raises:
      LotteryError: If there is no such road, or two are named.
    """
    if search not in ROADS:
        raise LotteryError(f"Expected search to be one of {', '.join(ROADS)}, but received {search!r}.")
    if one_shot and search not in ("auto", "iterative", "one_shot"):
        raise LotteryError(f"Expected either one_shot or search={search!r}, but received both.")
    if one_shot:
        return "one_shot"
    return "iterative" if search == "auto" and budget is None else search


def check(plan: Plan | None, road: str, *, criterion, reset: str, min_per_kernel: int, rewind_to: int) -> None:
    """Refuses what a road cannot do, before anything is trained.

    Args:
      plan: As far as it is known.

    Raises:
      LotteryError: If there is such a thing.
    """
    if plan and plan.search_steps is not None and rewind_to > plan.search_steps:
        raise LotteryError(
            f"Expected rewind_to within the {plan.search_steps} steps of the search's trainings, but received {rewind_to}."
        )
    if road == "gradual":
        check_gradual(
            plan.search_steps if plan is not None else None,
            criterion=criterion,
            reset=reset,
            min_per_kernel=min_per_kernel,
            rewind_to=rewind_to,
        )


def check_gradual(steps: int | None, *, criterion, reset: str, min_per_kernel: int, rewind_to: int) -> None:
    """Refuses what gradual pruning cannot do.

    Args:
      steps: Those that it has, if that is known.

    Raises:
      LotteryError: If there is such a thing.
    """
    criteria.without_gradient(criterion, "search='gradual'")
    if reset != "each_level":
        raise LotteryError(f"Expected reset='each_level' with search='gradual', but received {reset!r}.")
    if min_per_kernel != 1:
        raise LotteryError(
            f"Expected min_per_kernel=1 with search='gradual', which keeps one, but received {min_per_kernel}."
        )
    if steps is not None:
        Cubic(0.5, steps, rewind_to)  # has it time?


def steps_of(train: Callable) -> int:
    """How many steps one training has: `train.steps`, or the default of its keyword `steps`.

    Raises:
      LotteryError: If it does not say, or cannot be given another number.

    >>> def train(model, callbacks, steps=3_000): ...
    >>> steps_of(train)
    3000
    """
    parameters = inspect.signature(train).parameters
    steps: Any = getattr(train, "steps", None)
    if steps is None and "steps" in parameters:
        steps = parameters["steps"].default
    if "steps" not in parameters or not isinstance(steps, int | np.integer) or steps < 1:
        raise LotteryError(
            "Expected a train function that takes another number of steps, as in train(model, callbacks, steps=12_000), for a search "
            f"with trainings of two lengths, but received {getattr(train, '__qualname__', train)!r:.80}."
        )
    return int(steps)


def _checked(density: float | Sequence[float]) -> list[float]:
    given: Any = [density] if isinstance(density, numbers.Real) else density
    if isinstance(given, str) or not isinstance(given, Sequence) or not given:
        raise LotteryError(f"Expected density to be a number in (0, 1), or several, but received {density!r}.")
    for one in given:
        if not isinstance(one, numbers.Real) or not 0 < float(one) < 1:
            raise LotteryError(
                f"Expected a density in (0, 1), but received {one!r}: it is the share of the weights that stays."
            )
    if list(given) != sorted(set(given), reverse=True):
        raise LotteryError(f"Expected densities in falling order, but received {', '.join(map(str, given))}.")
    return [float(one) for one in given]


def _counted(masks: Arrays, axes: Axes | None) -> tuple[dict[str, int], dict[str, int]]:
    """What each kernel keeps and has, of weights or, where those compete, of channels."""
    if axes is not None:
        masks = {path: patterns.channel_mask(masks[path], axes[path]) for path in axes}
    return {path: int(np.count_nonzero(mask)) for path, mask in masks.items()}, {p: m.size for p, m in masks.items()}
