"""Figures of what was measured in training: accuracy and early stop against density, and curves. From tables alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from tf_lottery.base.errors import LotteryError
from tf_lottery.report.style import (
    COLOURS,
    MARKERS,
    Picture,
    Series,
    banded,
    density_axis,
    legend_above,
    line_look,
    log_plain,
    near_the_top,
    readable_range,
    some,
    spread,
    thousands,
)
from tf_lottery.runs.folder import Folder
from tf_lottery.runs.outcome import Statistic

FEW = 5  # measurements of the test set that make no curve
COLUMNS = {
    "accuracy": (
        "early_stop_test_accuracy",
        "Test accuracy at early stop",
        "test accuracy at early stop (%)",
        "Accuracy on the test set at the step of least validation loss",
    ),
    "early_stop": (
        "early_stop_step",
        "Early stop",
        "early-stop step",
        "The training step of least validation loss, found after training,",
    ),
    "final_accuracy": (
        "final_test_accuracy",
        "Test accuracy at the end of training",
        "test accuracy at the end of training (%)",
        "Accuracy on the test set after the last training step",
    ),
}


def against_density(series: Series, name: str) -> Picture:
    """One of COLUMNS against density, the tickets and all branches."""
    column, title, label, measured = COLUMNS[name]
    scale = 100 if column.endswith("accuracy") else 1
    figure, axes = plt.subplots()
    dense = series[0][1][0]
    if dense.level == 0:
        axes.axhline(
            scale * getattr(dense, column).mean, color="0.5", linestyle="--", linewidth=1, label="dense network"
        )
    for i, (line, levels) in enumerate(series):
        values: list[Statistic] = [getattr(level, column) for level in levels]
        bars = [[scale * (v.mean - v.low) for v in values], [scale * (v.high - v.mean) for v in values]]
        axes.errorbar(
            [100 * level.density.mean for level in levels],
            [scale * value.mean for value in values],
            bars if any(map(any, bars)) else None,
            **line_look(i),
            capsize=2 + i % 4,
            elinewidth=0.8,
            label=line,
        )
    density_axis(axes, [100 * level.density.mean for _, levels in series for level in levels])
    if scale == 100:
        axes.set_ylim(*readable_range(series, column, scale))
    else:
        axes.set_ylim(0, 1.08 * max(getattr(level, column).high for _, levels in series for level in levels))
        thousands(axes.yaxis)
    axes.set_ylabel(label)
    counts = {level.replicates for _, levels in series for level in levels}
    many = "–".join(map(str, sorted({min(counts), max(counts)})))
    spoken = "one replicate" if many == "1" else f"mean, min and max of {many} replicates"
    legend_above(figure, spoken, columns=3)
    compared = (
        " of the tickets"
        if len(series) == 1
        else f" of the tickets and {len(series) - 1} branch{'es' * (len(series) > 2)}"
    )
    return Picture(name, title, f"{measured}{compared} against the share of weights kept: {spoken}.", figure)


def curves(run: Folder, levels: Sequence[int] | None = None) -> Picture | None:
    """Accuracy over training for some levels; None if the run keeps no curves.

    On the test set, or on the validation set where the test set was measured too rarely to draw a curve.

    Raises:
      LotteryError: If a level that was asked for has none.
    """
    replicates: dict[int, list[int]] = {}
    densities: dict[int, list[float]] = {}
    stops: dict[int, list[float]] = {}
    for row in run.summary():
        if row["early_stop_step"] is not None:
            stops.setdefault(int(row["level"]), []).append(row["early_stop_step"])
        replicates.setdefault(int(row["level"]), []).append(int(row["replicate"]))
        densities.setdefault(int(row["level"]), []).append(100 * row["density"])
    kept = {level: [c for r in replicates[level] if (c := run.curve(r, level))] for level in sorted(replicates)}
    data = "test"
    found = _accuracies(kept, data)
    if max(map(len, found.values()), default=0) < FEW and (closer := _accuracies(kept, "validation")):
        data, found = "validation", closer
    if absent := sorted(set(levels or ()) - found.keys()):
        raise LotteryError(
            f"Expected levels that have a curve.csv, but {run.folder} has none for {', '.join(map(str, absent))}."
        )
    if not found:
        return None
    lost = _measured(kept, "validation_loss")
    figure, panels = plt.subplots(
        1 + bool(lost),
        1,
        figsize=(5.6, 6.2 if lost else 3.9),
        squeeze=False,
        sharex=True,
        height_ratios=[3, 2][: 1 + bool(lost)],
    )
    axes = panels[0, 0]
    everything: list[Statistic] = []
    losses: list[Statistic] = []
    chosen = sorted(set(levels)) if levels else spread(list(found), 5)
    for level, colour, marker in zip(chosen, cycle(COLOURS), cycle(MARKERS)):
        if level in lost:
            losses += (values := list(lost[level].values()))
            banded(panels[1, 0], list(lost[level]), values, color=colour, marker=marker, markevery=some(values))
            _star(panels[1, 0], lost[level], stops.get(level), colour)
        at = found[level]
        values = list(at.values())
        everything += values
        label = f"{Statistic.of(densities[level]).mean:.3g} %"
        banded(axes, list(at), values, color=colour, marker=marker, markevery=some(values), label=label)
        _star(axes, at, stops.get(level), colour)
    _stretch(axes, everything)
    axes.set_xlim(left=0)
    axes.set_ylabel(f"{data} accuracy (%)")
    if losses:
        panels[1, 0].set_ylabel("validation loss")
        low, high = min(value.low for value in losses), max(value.high for value in losses)
        if low > 0 and high > 4 * low:
            log_plain(panels[1, 0])
    thousands(panels[-1, 0].xaxis)
    panels[-1, 0].set_xlabel("training step")
    legend_above(figure, "weights remaining", columns=5, handles=axes.get_legend_handles_labels()[0])
    many = max(map(len, replicates.values()))
    starred = ", a star at the mean early stop" if any(map(stops.get, chosen)) else ""
    loss = " and validation loss" if losses else ""
    caption = f"Accuracy on the {data} set{loss} during training, by the share of weights kept{starred}" + (
        f": mean of {many} replicates, with a band from the lowest to the highest" if many > 1 else ", one replicate"
    )
    return Picture("curves", "Training", f"{caption}.", figure)


def _star(axes: Axes, at: Mapping[float, Statistic], stops: Sequence[float] | None, colour: str) -> None:
    """Marks the mean early stop on a curve."""
    if stops:
        stop = Statistic.of(stops).mean
        value = at[min(at, key=lambda step: abs(step - stop))].mean
        axes.scatter(stop, value, s=110, marker="*", color=colour, edgecolors="white", linewidths=0.8, zorder=5)


def _stretch(axes: Axes, values: Sequence[Statistic]) -> None:
    """An axis for all values of accuracy; where the first steps would press the others together it is stretched towards 100 %."""
    means = sorted(value.mean for value in values)
    low, high = min(value.low for value in values), max(value.high for value in values)
    most = means[len(means) // 10]
    margin = 0.05 * max(high - low, 0.1)
    if high - low > 3 * max(high - most, 0.1):
        near_the_top(axes, low - margin, high)
    else:
        axes.set_ylim(low - margin, high + margin)


def _accuracies(
    curves: Mapping[int, Sequence[Sequence[Mapping[str, float]]]], data: str
) -> dict[int, dict[float, Statistic]]:
    return _measured(curves, f"{data}_accuracy", 100)


def _measured(
    curves: Mapping[int, Sequence[Sequence[Mapping[str, float]]]], column: str, scale: float = 1
) -> dict[int, dict[float, Statistic]]:
    """By level, a column by step, at the steps that all replicates measured: an early stop adds a step in one of them."""
    found = {}
    for level, replicates in curves.items():
        at: dict[float, list[float]] = {}
        for curve in replicates:
            for row in curve:
                if row.get(column) is not None:
                    at.setdefault(row["step"], []).append(scale * row[column])
        if common := {step: Statistic.of(at[step]) for step in sorted(at) if len(at[step]) == len(replicates)}:
            found[level] = common
    return found
