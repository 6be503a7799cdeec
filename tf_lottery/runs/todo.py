"""What is left to train of a run, training by training, and the road that it takes in words. No TensorFlow."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tf_lottery.base import container
from tf_lottery.base.errors import LotteryError
from tf_lottery.runs.results import Run
from tf_lottery.runs.settings import Settings
from tf_lottery.search.plan import LEAST, QUARTER, Plan

BUDGET = 2
SEARCHED = "tf_lottery.searched/2"  # the format of what came of a training for the search alone


@dataclass(frozen=True)
class Training:
    """A training that is left to do: that of a level's ticket, or one of its network for the search alone, the first or another."""

    replicate: int
    level: int
    steps: int
    search: int = 0


def trainings_left(run: Run, plan: Plan, left: Sequence[tuple[int, int]]) -> list[Training]:
    """The trainings that lead to the (replicate, level) that are left, in the order in which they come."""
    todo: list[Training] = []
    for replicate, level in left:
        for of, steps in plan.searches(level):
            done = _searched(run, replicate, of)
            if plan.road == "auto" and of and not any(length > (plan.search_steps or 0) for length in done):
                steps -= sum(done)  # short levels, some of which are there
            elif done:
                continue
            search = Training(replicate, of, steps, search=len(done) + 1)
            if steps and search not in todo:
                todo.append(search)
        todo.append(Training(replicate, level, plan.own(level)))
    return todo


def _searched(run: Run, replicate: int, level: int) -> list[int]:
    """How many steps each training had that is done, of a level's network and for the search alone."""
    lengths: list[int] = []
    while (path := run.searched(replicate, level, len(lengths) + 1)).is_file():
        with contextlib.suppress(LotteryError):  # damaged: it is seen, and told, by who wants what is in it
            lengths.append(container.read_header(path, SEARCHED)["steps"])
            continue
        break
    return lengths


def each_of(left: Sequence[tuple[int, int]], steps: int) -> list[Training]:
    """A training for each (replicate, level), all of one length."""
    return [Training(replicate, level, steps) for replicate, level in left]


def in_words(settings: Settings, plan: Plan) -> str:
    """The road of a search: what is trained, for how long, and what a ticket costs."""
    last = [level for level in plan.asked if level]
    short, rounds = plan.search_steps or plan.own(plan.levels), f"{plan.levels} level{'s' * (plan.levels > 1)}"
    how = {
        "auto": f"{short:,} steps of the dense network; {plan.gradual_steps:,} more of it, pruned bit by bit, if its validation loss still falls "
        f"then, else {plan.short_levels - 1} short levels of {short:,} steps{_looks(settings, plan)}",
        "iterative": f"{rounds} of {short:,} steps",
        "one_shot": f"a dense network of {short:,} steps, pruned at once",
        "gradual": f"pruned bit by bit in {short:,} steps",
        "regrow": f"sparse from the start, for {short:,} steps",
    }[plan.road]
    if plan.road != "regrow" and (plan.search_steps is not None or plan.road == "one_shot"):
        how += f", then the ticket{'s' * (len(last) > 1)} in full, {plan.steps or 0:,} steps{' each' * (len(last) > 1)}"
    densities = [f"{100 * density:.3g} % of the weights" for density in settings.density or ()]
    most = "at most " if plan.road == "auto" and plan.gradual_steps < (plan.short_levels - 1) * short else ""
    costs = [most + cost(plan.trainings(level)) for level in last]
    if len(densities) == len(costs):
        costs = [f"{one} for {density}" for one, density in zip(costs, densities)]
    reference = "; beside it the dense network in full" if plan.search_steps is not None and 0 in plan.asked else ""
    return f"The road is {plan.road}: {how}; {', '.join(costs)}{reference}."


def _looks(settings: Settings, plan: Plan) -> str:
    """What is to be said where the validation loss will be measured too seldom to choose by it."""
    looks = int(min(plan.search_steps or 0, QUARTER * (plan.steps or 0)) // (settings.eval_every or 1))
    if looks >= LEAST:
        return ""
    return f" (it will be these: of the {LEAST} measurements that tell it, eval_every={settings.eval_every} leaves {looks})"


EARLY, WORSE = 1 / 4, 1.1  # of a dense training's steps; the loss at its end, over that at its early stop


def overfits(curve: Sequence[Mapping[str, Any]]) -> bool | None:
    """Whether a training has its early stop in its first quarter, and a validation loss at its end that is a tenth higher at least.

    The mask of gradual pruning within such a training is that of a network that overfits. None if it was not measured.
    """
    measured = [row for row in curve if row.get("validation_loss") is not None]
    if not measured:
        return None
    best, last = min(measured, key=lambda row: row["validation_loss"]), measured[-1]
    return best["step"] < EARLY * last["step"] and last["validation_loss"] > WORSE * best["validation_loss"]


def reference_in_words(curve: Sequence[Mapping[str, Any]], road: str = "gradual") -> str | None:
    """Where the early stop of the dense network lies, and whether gradual pruning is to be trusted; see `overfits`."""
    if (bad := overfits(curve)) is None:
        return None
    best = min((row for row in curve if row.get("validation_loss") is not None), key=lambda row: row["validation_loss"])
    at = f"the dense network has its early stop at step {best['step']:,.0f} of {curve[-1]['step']:,.0f}"
    rise = curve[-1]["validation_loss"] / best["validation_loss"]
    if bad:
        other = ", and take short levels, --search=iterative --budget=2" if road == "gradual" else ""
        return f"{at} and overfits from there, to {rise:.3g} times the validation loss: distrust gradual pruning here{other}"
    return f"{at}: nothing speaks against gradual pruning here"


def cheap_road(settings: Settings, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What `budget=2` would have taken for the last ticket of a search in full, by the seconds that this one took.

    Args:
      settings, rows: Of a finished search, and its summary.

    Returns:
      density, trainings and seconds of the cheap road, and those of the search itself (`instead_of_...`), for a replicate; None where
      there is nothing to save.
    """
    plan = settings.plan()
    if plan is None or plan.road != "iterative" or plan.search_steps is not None or settings.reset != "each_level":
        return None
    trainings, replicates = plan.levels + 1, {row["replicate"] for row in rows}
    if trainings <= BUDGET + 1 or len(rows) < trainings * len(replicates):
        return None
    by_level = [[row["seconds"] for row in rows if row["level"] == level] for level in range(trainings)]
    one = statistics.median(second for level in by_level for second in level)
    begin = max(0.0, statistics.fmean(by_level[0]) - one)  # what the first training has to compile
    density = statistics.fmean(row["density"] for row in rows if row["level"] == plan.levels)
    return {
        "density": float(f"{density:.3g}"),
        "trainings": BUDGET,
        "seconds": begin + BUDGET * one,
        "instead_of_trainings": trainings,
        "instead_of_seconds": sum(map(statistics.fmean, by_level)),
    }


def cheap_road_in_words(cheap: Mapping[str, Any]) -> str:
    return (
        f"A cheaper road to {100 * cheap['density']:.3g} % of the weights is --budget={cheap['trainings']} --density={cheap['density']:.3g}: "
        f"{cheap['trainings']} trainings in place of {cheap['instead_of_trainings']}, about {cheap['seconds']:.0f} s a replicate in place of "
        f"{cheap['instead_of_seconds']:.0f} s, as measured here."
    )


def cost(trainings: float) -> str:
    """
    >>> cost(1.0), cost(1.5)
    ('1 training', '1.5 trainings')
    """
    return f"{trainings:.4g} training{'s' * (trainings != 1)}"
