"""Lines with bands, as the figures of the claims draw them: runs against density, their panels and legends. No TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from tf_lottery.claims.planned import Plan
from tf_lottery.report import COLOURS, density_axis, readable_range
from tf_lottery.runs.outcome import LevelStatistics, Statistic, by_level

BLUE, RED, GREEN, PINK, ORANGE, SKY, BLACK = COLOURS
GREY = "0.6"
ACCURACY, STEP = "early_stop_test_accuracy", "early_stop_step"


@dataclass(frozen=True)
class Line:
    """A run against density, and how it is drawn."""

    label: str
    levels: list[LevelStatistics]
    colour: str
    marker: str

    @classmethod
    def of(cls, plan: Plan, folder: Path, name: str, label: str, colour: str, marker: str) -> Line | None:
        """The run's complete replicates; None if the plan has no such run, or it has none yet."""
        own = next((experiment for experiment in plan.experiments if experiment.name == name), None)
        if own is None:
            return None
        complete, planned = own.measured(folder), own.levels()
        levels = by_level([row for row in own.rows(folder) if row["replicate"] in complete and row["level"] in planned])
        if complete and len(complete) < own.replicates:
            label += f" ({len(complete)} of {own.replicates} replicates)"
        return cls(label, levels, colour, marker) if levels else None


def lines_of(plan: Plan, folder: Path, looks: Iterable[tuple[str, str, str, str]]) -> list[Line]:
    """Lines of (run, label, colour, marker), those that have measured nothing left out."""
    return [line for look in looks if (line := Line.of(plan, folder, *look))]


def panels_of(drawn: Sequence[tuple[str, list[Line]]], *, width: float, ncols: int) -> Figure:
    """Panels side by side with one y-axis, close to the tickets, and one legend."""
    figure, row = plt.subplots(1, len(drawn), figsize=(width * len(drawn), 4.4), sharey=True, squeeze=False)
    for axes, (title, lines) in zip(row[0], drawn):
        draw_lines(axes, lines, dense=True, ylabel=axes is row[0][0])
        axes.set_title(title, fontsize=10)
    row[0][0].set_ylim(*close_to_tickets([line for _, lines in drawn for line in lines]))
    legend(figure, row[0], ncols)
    return figure


def legend(where: Figure | Axes, of: Iterable[Axes], ncols: int, order: Sequence[str] = ()) -> None:
    """One legend below for these axes, each label once; those in `order` first."""
    handles = {label: handle for axes in of for handle, label in zip(*axes.get_legend_handles_labels())}
    labels = [label for label in (*order, *(label for label in handles if label not in order)) if label in handles]
    below = {"loc": "outside lower center"} if isinstance(where, Figure) else BELOW
    where.legend([handles[label] for label in labels], labels, ncols=ncols, **below)


BELOW = {"loc": "upper left", "bbox_to_anchor": (0, -0.16), "borderaxespad": 0, "fontsize": 9, "columnspacing": 1}


def draw_lines(
    axes: Axes, lines: Sequence[Line], column: str = ACCURACY, *, dense: bool = False, ylabel: bool = True
) -> None:
    """Mean over replicates with a band from the smallest to the largest."""
    scale = 100 if column == ACCURACY else 1
    first = lines[0].levels[0]
    if dense and first.level == 0:
        axes.axhline(
            scale * getattr(first, column).mean, color=GREY, linestyle="--", linewidth=1, label="dense network"
        )
    for line in lines:
        values = [getattr(level, column) for level in line.levels]
        scaled = [Statistic(scale * v.mean, scale * v.low, scale * v.high) for v in values]
        x = [100 * level.density.mean for level in line.levels]
        banded(axes, x, scaled, line.colour, line.marker, line.label)
    density_axis(axes, [100 * level.density.mean for line in lines for level in line.levels])
    if ylabel:
        axes.set_ylabel("test accuracy at early stop (%)" if column == ACCURACY else "early-stop step")


def banded(axes: Axes, x, values: Sequence[Statistic], colour, marker, label, *, thin: bool = False) -> Line2D:
    if not thin:
        low, high = [value.low for value in values], [value.high for value in values]
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    means = [value.mean for value in values]
    return axes.plot(x, means, color=colour, marker=marker, linewidth=0.8 if thin else 1.5, label=label)[0]


def close_to_tickets(lines: Sequence[Line]) -> tuple[float, float]:
    return readable_range([(line.label, line.levels) for line in lines], ACCURACY, 100)


def plain_steps(axes: Axes, lines: Sequence[Line]) -> None:
    """Steps on a logarithmic axis with whole numbers: 2,000, 5,000, 10,000 ..."""
    values = [level.early_stop_step for line in lines for level in line.levels]
    bottom, top = min(value.low for value in values), max(value.high for value in values)
    ticks = [digit * 10**power for power in range(7) for digit in (1, 2, 5)]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="y", which="minor", length=0)
    axes.set_ylim(bottom / 1.2, top * 1.2)
