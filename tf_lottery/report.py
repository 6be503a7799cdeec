"""Figures and a table of a run, drawn from its result files alone. No TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")  # files only; no screen is needed
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from tf_lottery.errors import LotteryError
from tf_lottery.files import whole_file
from tf_lottery.results import LevelStatistics, Run, Statistic, by_level, verdict

# Okabe and Ito's colours, told apart by colour-blind readers; markers tell the lines apart in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
STYLE = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "figure.figsize": (6.4, 4.0),
    "font.size": 10,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
    "savefig.dpi": 200,
}

Series = list[tuple[str, list[LevelStatistics]]]  # label and statistics: the tickets first, then the branches


def write(run: Run, folder: Path, levels: Sequence[int] | None = None) -> list[Path]:
    """Draws what the run's files allow into `folder`.

    Args:
      run: A run, finished or not.
      folder: Where to write; made if it is not there.
      levels: Levels whose training curves to draw; by default five, spread over those that have curves.

    Returns:
      The files written: `accuracy.png` and `early_stop.png` against density, `curves.png` over training, `table.md`.

    Raises:
      LotteryError: If the run has no finished level.
    """
    series = [("ticket", by_level(run.summary()))]
    series += [(branch.name.replace("_", " "), by_level(branch.summary())) for branch in run.branches()]
    if not series[0][1]:
        raise LotteryError(f"Expected a run with a finished level, but {run.folder} has none.")
    figures = {
        "accuracy.png": lambda: _against_density(
            series, "early_stop_test_accuracy", "test accuracy at early stop (%)", 100
        ),
        "final_accuracy.png": lambda: _against_density(
            series, "final_test_accuracy", "test accuracy at the end of training (%)", 100
        ),
        "early_stop.png": lambda: _against_density(series, "early_stop_step", "early-stop step", 1),
    }
    with_curves = [level for level in series[0][1] if run.curve(0, level.level)]
    chosen = [level for level in with_curves if level.level in levels] if levels else _spread(with_curves, 5)
    if levels and len(chosen) < len(set(levels)):
        absent = sorted(set(levels) - {level.level for level in chosen})
        raise LotteryError(
            f"Expected levels that have a curve.csv, but {run.folder} has none for {', '.join(map(str, absent))}."
        )
    if chosen:
        figures["curves.png"] = lambda: _curves(run, chosen)
    written = []
    with plt.rc_context(STYLE):
        for name, draw in figures.items():
            save(draw(), folder / name)
            written.append(folder / name)
    with whole_file(folder / "table.md") as unfinished:
        unfinished.write_text(_table(series))
    return [*written, folder / "table.md"]


def save(figure: Figure, path: Path) -> None:
    """Writes a figure and lets go of it."""
    with whole_file(path) as unfinished:
        figure.savefig(unfinished)
    plt.close(figure)


def _against_density(series: Series, column: str, label: str, scale: float):
    figure, axes = plt.subplots()
    dense = series[0][1][0]
    if dense.level == 0:
        axes.axhline(
            scale * getattr(dense, column).mean, color="0.5", linestyle="--", linewidth=1, label="dense network"
        )
    for (name, levels), colour, marker in zip(series, COLOURS, MARKERS):
        values: list[Statistic] = [getattr(level, column) for level in levels]
        means = [scale * value.mean for value in values]
        bars = [[scale * (v.mean - v.low) for v in values], [scale * (v.high - v.mean) for v in values]]
        axes.errorbar(
            [100 * level.density.mean for level in levels],
            means,
            bars if any(map(any, bars)) else None,
            color=colour,
            marker=marker,
            capsize=2,
            elinewidth=0.8,
            label=name,
        )
    density_axis(axes, [100 * level.density.mean for _, levels in series for level in levels])
    if column.endswith("accuracy"):
        axes.set_ylim(*readable_range(series, column, scale))
    else:
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_ylabel(label)
    counts = {level.replicates for _, levels in series for level in levels}
    many = "–".join(map(str, sorted({min(counts), max(counts)})))
    axes.legend(title="one replicate" if many == "1" else f"mean, min and max of {many} replicates")
    return figure


def density_axis(axes: Axes, densities: Sequence[float]) -> None:
    """Percent of weights remaining, dense on the left, as the papers draw it; labels at the densities measured."""
    axes.set_xscale("log")
    axes.set_xlim(1.1 * max(densities), min(densities) / 1.15)
    ticks: list[float] = []
    for density in sorted(set(densities), reverse=True):
        if not ticks or ticks[-1] / density > (max(densities) / min(densities)) ** (1 / 9):
            ticks.append(density)
    axes.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", which="minor", length=0)
    axes.grid(False, which="minor")
    axes.set_xlabel("weights remaining (%)")


def readable_range(series: Series, column: str, scale: float) -> tuple[float, float]:
    """The axis leaves out collapsed points: it goes ten times as far below the dense network as the best ticket above."""
    values = [scale * getattr(level, column).mean for level in series[0][1]]
    lowest = min(scale * getattr(level, column).low for _, levels in series for level in levels)
    highest = max(scale * getattr(level, column).high for _, levels in series for level in levels)
    floor = values[0] - max(10 * (max(values) - values[0]), 0.02 * values[0])
    bottom = max(lowest, floor)
    margin = 0.05 * (highest - bottom)
    return bottom - margin, highest + margin


def _curves(run: Run, levels: Sequence[LevelStatistics]):
    """Test accuracy over training for some levels: mean over replicates, with a band from smallest to largest."""
    figure, axes = plt.subplots()
    everything = []
    for level, colour, marker in zip(levels, COLOURS, MARKERS):
        curves = [curve for r in range(level.replicates) if (curve := run.curve(r, level.level))]
        at: dict[float, list[float]] = {}
        for curve in curves:
            for row in curve:
                if row["test_accuracy"] is not None:
                    at.setdefault(row["step"], []).append(100 * row["test_accuracy"])
        # the test set is measured at the same steps in all replicates; an early stop adds a step in one of them
        steps = sorted(step for step, values in at.items() if len(values) == len(curves))
        values = [Statistic.of(at[step]) for step in steps]
        everything += [value.mean for value in values]
        axes.fill_between(
            steps, [v.low for v in values], [v.high for v in values], color=colour, alpha=0.15, linewidth=0
        )
        axes.plot(
            steps,
            [v.mean for v in values],
            color=colour,
            marker=marker,
            markevery=0.1,
            label=f"{100 * level.density.mean:.3g} %",
        )
    everything.sort()
    bottom, top = everything[len(everything) // 10], everything[-1]
    axes.set_ylim(bottom - 0.4 * (top - bottom), top + 0.15 * (top - bottom))
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("training step")
    axes.set_ylabel("test accuracy (%)")
    figure.legend(title="weights remaining", ncols=len(levels), loc="outside upper center", columnspacing=1.2)
    return figure


def _spread(levels: Sequence[LevelStatistics], count: int) -> list[LevelStatistics]:
    if len(levels) <= count:
        return list(levels)
    return [levels[round(i * (len(levels) - 1) / (count - 1))] for i in range(count)]


def _table(series: Series) -> str:
    lines = [
        "| | level | weights remaining (%) | replicates | early-stop step | test accuracy at early stop (%) | at the end (%) |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, levels in series:
        for level in levels:
            stop, early, final = level.early_stop_step, level.early_stop_test_accuracy, level.final_test_accuracy
            lines.append(
                f"| {name} | {level.level} | {100 * level.density.mean:.3g} | {level.replicates} "
                f"| {stop.mean:,.0f} ({stop.low:,.0f} to {stop.high:,.0f}) "
                f"| {100 * early.mean:.2f} ({100 * early.low:.2f} to {100 * early.high:.2f}) "
                f"| {100 * final.mean:.2f} ({100 * final.low:.2f} to {100 * final.high:.2f}) |"
            )
    return "\n".join([verdict(series[0][1]), "", *lines, ""])
