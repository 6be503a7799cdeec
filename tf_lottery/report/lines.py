"""Lines of a study's combinations on axes: what was measured at each level, its mean and range, against density or another column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from tf_lottery.report.style import banded, density_axis, line_look, thousands
from tf_lottery.runs.comparison import DENSE, Combination
from tf_lottery.runs.outcome import Statistic

LABELS = {
    "density": "weights remaining (%)",
    "trainings": "trainings spent",
    "early_stop_step": "early-stop step",
    "early_stop_validation_accuracy": "validation accuracy at early stop (%)",
    "early_stop_test_accuracy": "test accuracy at early stop (%)",
    "final_validation_accuracy": "validation accuracy at the end (%)",
    "final_test_accuracy": "test accuracy at the end (%)",
    "seconds": "seconds of training",
}


def draw(
    axes: Axes,
    combinations: Sequence[Combination],
    x: str,
    y: str,
    looks: Mapping[str, Mapping[str, Any]] | None = None,
    few: bool = False,
) -> bool:
    """Draws a line for each combination that tells both columns; returns whether there was one.

    Args:
      axes: Where.
      combinations: What.
      x, y: Columns of MEASURED.
      looks: How the line of a combination looks, by its name. Default: one after the other.
      few: Whether there is room for few labels only.
    """
    points = {each.name: _points(each, x, y) for each in combinations}
    drawn = {name: found for name, found in points.items() if found}
    for i, (name, found) in enumerate(drawn.items()):
        look = dict(looks[name]) if looks else line_look(i)
        banded(axes, [at for at, _ in found], [value for _, value in found], label=name, **look)
    if not drawn:
        return False
    places = [at for found in drawn.values() for at, _ in found]
    values = [value for found in drawn.values() for _, value in found]
    axes.set_xlabel(LABELS.get(x, x))
    axes.set_ylabel(LABELS.get(y, y))
    if x == "density":
        density_axis(axes, places, 4 if few else 9)
    if y.endswith("accuracy"):
        starts = [value.mean for each in combinations for value in _dense(each, y)]
        axes.set_ylim(*readable(values, starts))
    else:
        axes.set_ylim(0, 1.08 * max(value.high for value in values) or 1)
        thousands(axes.yaxis)
    return True


def readable(values: Sequence[Statistic], dense: Sequence[float]) -> tuple[float, float]:
    """The ends of the axis: collapsed points fall out of it; of the means it holds three quarters with as much room again below."""
    low, high = min(value.low for value in values), max(value.high for value in values)
    if dense:
        start = min(dense)
        means = sorted(value.mean for value in values)
        reach = max(3 * (high - start), 2 * (start - means[len(means) // 4]), 0.02 * start)
        low = max(low, start - reach)
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def _points(combination: Combination, x: str, y: str) -> list[tuple[float, Statistic]]:
    found = []
    for level in combination.levels:
        at, value = (combination.statistic(level, column) for column in (x, y))
        if at and value and (x != "density" or at.mean > 0):
            found.append(
                (_scale(x) * at.mean, Statistic(*(_scale(y) * v for v in (value.mean, value.low, value.high))))
            )
    return sorted(found, key=lambda point: point[0], reverse=x == "density")


def _dense(combination: Combination, y: str) -> list[Statistic]:
    found = combination.statistic(0, y) if 0 in combination.rows else None
    density = combination.statistic(0, "density") if found else None
    if not found or not density or density.mean < DENSE:
        return []
    return [Statistic(*(_scale(y) * value for value in (found.mean, found.low, found.high)))]


def _scale(column: str) -> int:
    return 100 if column == "density" or column.endswith("accuracy") else 1
