"""What the tables of a run say over its replicates: statistics of each level, the best of each criterion, the verdict."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Statistic:
    """Mean, smallest and largest value over replicates."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Statistic:
        low, high = min(values), max(values)
        return cls(
            min(max(statistics.fmean(values), low), high), low, high
        )  # rounding may take a mean of equals past them


@dataclass(frozen=True)
class LevelStatistics:
    """One level over all its replicates.

    Attributes:
      trainings: What its ticket cost; None where an older run does not say, as with the validation accuracies.
      in_full: Whether it was trained as long as any; levels that only lead to a ticket may be shorter.
    """

    level: int
    replicates: int
    density: Statistic
    early_stop_step: Statistic
    early_stop_test_accuracy: Statistic
    final_test_accuracy: Statistic
    trainings: Statistic | None = None
    early_stop_validation_accuracy: Statistic | None = None
    final_validation_accuracy: Statistic | None = None
    in_full: bool = True


MEASURED = ("density", "early_stop_step", "early_stop_test_accuracy", "final_test_accuracy")
TOLD = ("trainings", "early_stop_validation_accuracy", "final_validation_accuracy")  # older runs do not


def by_level(rows: Sequence[Mapping[str, float]]) -> list[LevelStatistics]:
    """The rows of a summary, gathered over replicates; rows without test accuracy are left out."""
    levels, longest = [], max((row.get("steps") or 0 for row in rows if row["level"]), default=0)
    for level in sorted({int(row["level"]) for row in rows}):
        of_level = [row for row in rows if int(row["level"]) == level and row["early_stop_test_accuracy"] is not None]
        if of_level:
            columns: dict[str, Any] = {name: [row.get(name) for row in of_level] for name in (*MEASURED, *TOLD)}
            known: Any = {name: Statistic.of(values) for name, values in columns.items() if None not in values}
            if level:
                in_full = all((row.get("steps") or longest) == longest for row in of_level)
            else:
                in_full = all((row.get("trainings") or 1) >= 1 for row in of_level)
            levels.append(LevelStatistics(level, len(of_level), **known, in_full=in_full))
    return levels


def best_by_rule(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """For each criterion the row of the best density of each replicate, as in Table 1 of Zhou et al. (2019)."""
    best: dict[tuple, Mapping[str, Any]] = {}
    for row in rows:
        at = row["criterion"], row["replicate"]
        if at not in best or row["test_accuracy"] > best[at]["test_accuracy"]:
            best[at] = row
    by_criterion: dict[str, list[Mapping[str, Any]]] = {}
    for (criterion, _), row in best.items():
        by_criterion.setdefault(criterion, []).append(row)
    return by_criterion


# The papers' controls: branches by name, and what a sentence calls them.
CONTROLS = {"reinit": "reinitialised", "random mask": "random masks"}


def verdict(
    levels: Sequence[LevelStatistics],
    branches: Mapping[str, Sequence[LevelStatistics]] = MappingProxyType({}),
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """One sentence: which ticket won, and by how much. The winner has the highest mean test accuracy at early stop.

    Args:
      levels: Those of the search.
      branches: Those of its branches, by name; the controls among them are named where they have the winner's level.
      settings: Those of the search: one that is a control itself has no winning ticket, nor has one that rewinds nothing.
    """
    best = _best(levels)
    if best is None:
        return "There is no ticket to compare with a dense network yet."
    dense = levels[0]
    if dense.level != 0 or not dense.in_full:
        return f"The best: {_reached(best)}; there is no dense network to compare it with ({_means(best)})."
    gain = 100 * (best.early_stop_test_accuracy.mean - dense.early_stop_test_accuracy.mean)
    step, dense_step = (f"{level.early_stop_step.mean:,.0f}" for level in (best, dense))
    compared = (
        f"{abs(gain):.2f} points {'above' if gain > 0 else 'below'} the dense network's "
        f"{100 * dense.early_stop_test_accuracy.mean:.2f} %, at "
        + (f"step {step} instead of {dense_step}" if step != dense_step else f"the same step, {step}")
    )
    controls = ", ".join(
        f"{words} {100 * level.early_stop_test_accuracy.mean:.2f} %"
        + (f" ({level.replicates} of the replicates)" if level.replicates < best.replicates else "")
        for name, words in CONTROLS.items()
        for level in branches.get(name, ())
        if level.level == best.level
    )
    won = "The winning ticket" if gain > 0 else "No ticket won; the best"
    if control := control_of(settings):
        won = f"The best level of this control ({control})"
    elif settings.get("search") == "regrow":
        won = "The best sparse network (no ticket: it was trained sparse from the start)"
    return f"{won}: {_reached(best)}, {'; '.join(filter(None, (compared, controls)))} ({_means(best)})."


def to_verify(
    levels: Sequence[LevelStatistics], name: str, settings: Mapping[str, Any] = MappingProxyType({})
) -> str | None:
    """Where a ticket won: what tells whether it is one, for beating the dense network does not."""
    best = _best(levels)
    if best is None or control_of(settings) or settings.get("search") == "regrow":
        return None
    if levels[0].level or _accuracy(best) <= _accuracy(levels[0]):
        return None
    return f"Whether its weights are what won, or its mask alone: tf-lottery verify --name={name} --level={best.level}"


def control_of(settings: Mapping[str, Any]) -> str | None:
    """What makes a search a control of the papers, which looks for no winning ticket: its survivors or masks are random.

    >>> control_of({"survivors": "reinit", "criterion": "large_final"})
    'survivors=reinit'
    """
    if str(settings.get("survivors", "")).startswith(("reinit", "reshuffle")):
        return f"survivors={settings['survivors']}"
    return "criterion=random" if settings.get("criterion") == "random" else None


def _best(levels: Sequence[LevelStatistics]) -> LevelStatistics | None:
    """The ticket with the highest mean accuracy, of those that were trained in full."""
    tickets = (level for level in levels if level.level > 0 and level.in_full)
    return max(tickets, key=_accuracy, default=None)


def _accuracy(level: LevelStatistics) -> float:
    return level.early_stop_test_accuracy.mean


def _reached(best: LevelStatistics) -> str:
    return (
        f"level {best.level} with {100 * best.density.mean:.3g} % of the weights reaches "
        f"{100 * best.early_stop_test_accuracy.mean:.2f} % test accuracy at its early stop"
    )


def _means(best: LevelStatistics) -> str:
    means = (
        f"means of {best.replicates} replicates" if best.replicates > 1 else "one replicate: its spread is not known"
    )
    return f"{means}; {best.trainings.mean:.4g} trainings spent for each" if best.trainings else means
