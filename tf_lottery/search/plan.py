"""How long a search is: its levels, what each prunes, how long each training lasts, and which tickets are trained in full."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tf_lottery.base.errors import LotteryError
from tf_lottery.rules import patterns
from tf_lottery.rules.masks import Arrays, Axes
from tf_lottery.search.lottery import Train, steps_of
from tf_lottery.search.rates import at_once, rounds_to, spread

LEVELS = 10
LEVELS_OF_BUDGET = 4  # few, short and rewound
WITHIN_ONE = ("gradual", "regrow")  # roads whose masks are made within one training


@dataclass(frozen=True)
class Plan:
    """A search before it begins.

    Attributes:
      fractions: For each round the share of its remaining weights that each kernel loses.
      steps: Those of one training, where trainings are of two lengths.
      search_steps: Those of the search's trainings; None: as many.
      asked: The levels that are trained in full.
      told: What a ticket tells of it.
    """

    fractions: list[dict[str, float]]
    steps: int | None = None
    search_steps: int | None = None
    asked: list[int] = field(default_factory=list)
    told: dict[str, Any] = field(default_factory=dict)


def planned(
    road: str,
    levels: int | None,
    density: float | Sequence[float] | None,
    budget: float | None,
    level_steps: int | None,
    search_steps: int | None,
    dense: bool,
    *,
    train: Train,
    fractions: Mapping[str, float],
    masks: Arrays,
    axes: Axes | None,
) -> Plan:
    """The plan of a search; see `find_ticket` for the arguments.

    Args:
      fractions: What a round of `prune_fraction` removes of each kernel.
      masks: Those of the network at its beginning.
      axes: Of the kernels whose channels compete, where those do.

    Raises:
      LotteryError: If the arguments do not go together, or one is out of range.
    """
    wanted = [] if density is None else _checked(density)
    if budget is not None and (not wanted or level_steps is not None or search_steps is not None):
        raise LotteryError(
            "Expected budget with a density, and without level_steps and search_steps, which follow from it."
        )
    least_budget = 0 if road == "regrow" else 1
    if budget is not None and not (isinstance(budget, numbers.Real) and least_budget < float(budget) < math.inf):
        own = "" if road == "regrow" else ", the ticket's own training"
        raise LotteryError(f"Expected a budget above {least_budget}{own}, but received {budget!r}.")
    if road in WITHIN_ONE and (not wanted or level_steps is not None):
        raise LotteryError(
            f"Expected search={road!r} with a density and without level_steps: search_steps is its length."
        )
    if road not in WITHIN_ONE and search_steps is not None:
        raise LotteryError(
            f"Expected search_steps with search='gradual' or 'regrow' only, but received it with {road!r}."
        )

    levels, per_round, asked = _levels(road, levels, wanted, budget, fractions, masks, axes)
    told: dict[str, Any] = {"search": road, "density": wanted, "levels": levels} if wanted else {}
    length = search_steps if road in WITHIN_ONE else level_steps
    if road not in WITHIN_ONE and budget is None and length is None:
        return Plan(per_round, told=told)
    steps = steps_of(train)
    if road == "regrow":
        length = int(steps * (1 if budget is None else budget)) if length is None else length
    elif budget is not None:
        length = min(steps, int((budget - 1) * steps / (levels if road == "iterative" else 1)))
    elif length is None:
        length = steps // 2
    name = "search_steps" if road in WITHIN_ONE else "level_steps"
    least = getattr(train, "eval_every", 1)
    if not isinstance(length, int | np.integer) or length < least or (length > steps and road != "regrow"):
        most = "on" if road == "regrow" else f"to {steps}, the steps of one training"
        raise LotteryError(f"Expected {name} from {least}, eval_every, {most}, but received {length!r}.")
    told = {"search": road, "density": wanted or None, "levels": levels, name: int(length)}
    return Plan(per_round, steps, int(length), ([0] if dense else []) + asked, told)


def _levels(road, levels, wanted, budget, fractions, masks, axes) -> tuple[int, list[dict[str, float]], list[int]]:
    """How many there are, what each prunes, and which were asked for."""
    if not wanted:
        levels = levels or LEVELS
        return levels, [dict(fractions)] * levels, [*range(1, levels + 1)] if road == "one_shot" else [levels]
    kept, sizes = _counted(masks, axes)
    rounds = [rounds_to(density, fractions, kept, sizes) for density in wanted]
    if road != "iterative":
        if levels not in (None, len(wanted)):
            raise LotteryError(
                f"Expected as many levels as densities with search={road!r}, which takes each at once, but received levels={levels}."
            )
        levels = len(wanted)
    elif levels is None and budget is not None:
        levels = max(LEVELS_OF_BUDGET, len(wanted), math.ceil(budget) - 1)
    elif levels is None:
        levels = max(len(wanted), round(rounds[-1]))
    if levels < len(wanted):
        raise LotteryError(f"Expected a level for each of the {len(wanted)} densities, but received levels={levels}.")
    if road == "iterative":
        lengths, asked = spread(rounds, levels)
    else:
        lengths, asked = [b - a for a, b in zip([0.0, *rounds], rounds)], [*range(1, levels + 1)]
    return levels, [at_once(fractions, length) for length in lengths], asked


def _checked(density: float | Sequence[float]) -> list[float]:
    given: Any = [density] if isinstance(density, numbers.Real) else density
    if isinstance(given, str) or not isinstance(given, Sequence) or not given:
        raise LotteryError(f"Expected density to be a number in (0, 1), or several, but received {density!r}.")
    for one in given:
        if not isinstance(one, numbers.Real) or not 0 < float(one) < 1:
            raise LotteryError(f"Expected a density in (0, 1), but received {one!r}.")
    if list(given) != sorted(set(given), reverse=True):
        raise LotteryError(f"Expected densities in falling order, but received {', '.join(map(str, given))}.")
    return [float(one) for one in given]


def _counted(masks: Arrays, axes: Axes | None) -> tuple[dict[str, int], dict[str, int]]:
    """What each kernel keeps and has, of weights or, where those compete, of channels."""
    if axes is not None:
        masks = {path: patterns.channel_mask(masks[path], axes[path]) for path in axes}
    return {path: int(np.count_nonzero(mask)) for path, mask in masks.items()}, {p: m.size for p, m in masks.items()}
