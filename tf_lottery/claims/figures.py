"""The figures behind the claims, one for each section of the page, drawn from result files alone. No TensorFlow.

Each function takes a plan and the folder of its runs and draws what there is of them; it returns None if there is nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from tf_lottery.claims.papers import CRITERIA_BAD, CRITERIA_GOOD, TREATMENTS
from tf_lottery.claims.plan import SIGN_CRITERIA, Experiment, Plan
from tf_lottery.report import COLOURS, STYLE, density_axis, readable_range, save
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


def _lines(plan: Plan, folder: Path, looks: Iterable[tuple[str, str, str, str]]) -> list[Line]:
    """Lines of (run, label, colour, marker), those that have measured nothing left out."""
    return [line for look in looks if (line := Line.of(plan, folder, *look))]


def tickets(plan: Plan, folder: Path) -> Figure | None:
    """Accuracy and early stop against density: tickets, their masks with new weights, random masks."""
    lines = _lines(
        plan,
        folder,
        [
            ("protocol", "winning ticket", BLUE, "o"),
            ("protocol/reinit", "its mask, new weights", RED, "s"),
            ("protocol/random_mask", "random mask", GREEN, "D"),
        ],
    )
    if not lines or lines[0].levels[0].level != 0:
        return None
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    _draw(left, lines, dense=True)
    left.set_ylim(*_close_to_tickets(lines))
    _draw(right, lines, STEP, dense=True)
    right.set_yscale("log")
    _plain_steps(right, lines)
    _legend(figure, [left], ncols=4)
    return figure


def one_shot(plan: Plan, folder: Path) -> Figure | None:
    """Accuracy against density: iterative and one-shot pruning."""
    looks = [("large_final", "iterative", BLUE, "o"), ("one_shot", "one-shot", ORANGE, "v")]
    lines = _lines(plan, folder, looks)
    if not lines:
        return None
    figure, axes = plt.subplots(figsize=(6.4, 4.2))
    _draw(axes, lines, dense=True)
    axes.set_ylim(*_close_to_tickets(lines))
    _legend(figure, [axes], ncols=3)
    return figure


def criteria(plan: Plan, folder: Path) -> Figure | None:
    """Accuracy against density in up to three panels: criteria that find tickets, those that do not, those by sign."""
    colours, markers = (BLUE, RED, GREEN, PINK, ORANGE, SKY), "osD^vP"

    def looks(names: Sequence[str]) -> list[tuple[str, str, str, str]]:
        return [(name, name, colour, marker) for name, colour, marker in zip(names, colours, markers)]

    panels = [
        ("criteria that find tickets", CRITERIA_GOOD),
        ("criteria that do not", ("large_final", *CRITERIA_BAD)),
        ("criteria that look at signs", ("large_final", *SIGN_CRITERIA)),
    ]
    drawn = [(title, lines) for title, names in panels if len(lines := _lines(plan, folder, looks(names))) > 1]
    if not drawn:
        return None
    figure, row = plt.subplots(1, len(drawn), figsize=(3.6 * len(drawn), 5.4), squeeze=False)
    for axes, (title, lines) in zip(row[0], drawn):
        _draw(axes, lines, dense=True, ylabel=axes is row[0][0])
        axes.set_ylim(*_close_to_tickets(lines))
        axes.set_title(title, fontsize=10)
        order = sorted(lines, key=lambda line: -getattr(line.levels[-1], ACCURACY).mean)  # that of their right ends
        _legend(axes, [axes], 1, [line.label for line in order])
    return figure


def signs(plan: Plan, folder: Path) -> Figure | None:
    """Accuracy against density, a panel for each treatment of survivors: rewinding, the treatment with signs and without."""
    rewind = Line.of(plan, folder, "large_final", "rewound", BLUE, "o")
    drawn = []
    for name in TREATMENTS:
        looks = [(f"{name}_same_sign", "with signs", GREEN, "D"), (name, "without signs", RED, "s")]
        if lines := _lines(plan, folder, looks):
            drawn.append((name, [rewind, *lines] if rewind else lines))
    if not drawn:
        return None
    titles = {"reinit": "drawn anew", "reshuffle": "reshuffled", "constant": "set to a constant"}
    return _panels([(titles[name], lines) for name, lines in drawn], width=3.9, ncols=4)


def zeros(plan: Plan, folder: Path) -> Figure | None:
    """Accuracy against density in two panels: what pruned weights hold, and Variant 1 against its controls."""
    zero = ("large_final", "zero", BLUE, "o")
    first = ("variant_1", "Variant 1", GREEN, "D")
    panels = [
        (
            "what pruned weights hold",
            [zero, ("freeze_init", "initial value", RED, "s"), first, ("variant_2", "Variant 2", ORANGE, "v")],
        ),
        (
            "Variant 1 and its controls",
            [
                zero,
                first,
                ("variant_1_reshuffle", "zeros in random places", PINK, "^"),
                ("variant_1_reverse", "zeros for those that moved away", SKY, "P"),
            ],
        ),
    ]
    drawn = [(title, lines) for title, looks in panels if len(lines := _lines(plan, folder, looks)) > 1]
    return _panels(drawn, width=5, ncols=4) if drawn else None


def by_rule(plan: Plan, folder: Path) -> Figure | None:
    """Accuracy of untrained networks against density, by criterion: initial weights and signed constants."""
    rows = plan["by_rule"].rows(folder)
    if not rows:
        return None
    looks = {
        "large_final_same_sign": (GREEN, "D"),
        "magnitude_increase_same_sign": (ORANGE, "v"),
        "large_final": (BLUE, "o"),
        "magnitude_increase": (RED, "s"),
        "movement": (PINK, "^"),
        "large_init_large_final": (SKY, "P"),
    }
    figure, panels = plt.subplots(1, 2, figsize=(10, 4.8), sharey=True)
    for axes, constant in zip(panels, (False, True)):
        others = sorted({row["criterion"] for row in rows} - looks.keys())
        for name in (*others, *looks):
            at: dict[float, list[float]] = {}
            for row in rows:
                if row["criterion"] == name and row["signed_constant"] == constant:
                    at.setdefault(row["density"], []).append(100 * row["test_accuracy"])
            if not at:
                continue
            x = sorted(at)
            values = [Statistic.of(at[density]) for density in x]
            colour, marker = looks.get(name, (GREY, None))
            label = name if name in looks else "the other criteria" if name == others[0] else None
            _banded(axes, [100 * density for density in x], values, colour, marker, label, thin=name not in looks)
        axes.set_title("signed constants" if constant else "initial weights", fontsize=10)
        density_axis(axes, [100 * row["density"] for row in rows])
    panels[0].set_ylim(0, 100)
    panels[0].set_ylabel("test accuracy, untrained (%)")
    _legend(figure, panels[:1], ncols=4, order=[*looks, "the other criteria"])
    return figure


LEARNED_LOOKS = (
    ("learned_dwr_constant_long", "learned: rescaled, signed constants, longer", GREEN, "D"),
    ("learned_dwr_constant", "learned: rescaled, signed constants", GREEN, "D"),
    ("learned_dwr", "learned: rescaled", BLUE, "o"),
    ("edge_popup", "edge-popup: rescaled", PINK, "^"),
    ("edge_popup_unscaled", "edge-popup: plain", BLACK, "X"),
    ("learned_constant", "learned: signed constants", ORANGE, "v"),
    ("learned_long", "learned: plain, longer", RED, "s"),
    ("learned", "learned: plain", RED, "s"),
)


def learned(plan: Plan, folder: Path) -> Figure | None:
    """Test accuracy of the most likely mask over epochs; a marker where the mean of sampled masks ends. Longer runs are dashed."""
    known = {experiment.name for experiment in plan.experiments}
    found = [look for look in LEARNED_LOOKS if look[0] in known and plan[look[0]].rows(folder)]
    if not found:
        return None
    figure, axes = plt.subplots(figsize=(10, 4.6))
    ends: dict[str, float] = {}
    looks: dict[str, dict[str, Any]] = {
        name: {"color": colour, "marker": marker, "markersize": 7}
        | ({"linestyle": (0, (4, 1.5)), "fillstyle": "none"} if name.endswith("_long") else {})
        for name, _, colour, marker in found
    }
    for name, _, colour, _ in found:
        settings, rows = plan[name].settings, plan[name].rows(folder)
        at: dict[float, list[float]] = {}
        per_epoch = EXAMPLES[settings.dataset] / settings.batch_size
        for curve in curves(plan[name], folder).values():
            for step, value in curve.items():
                at.setdefault(step, []).append(100 * value)
        steps = sorted(step for step, values in at.items() if len(values) == len(rows))
        drawn = _banded(axes, [s / per_epoch for s in steps], [Statistic.of(at[s]) for s in steps], colour, None, None)
        drawn.set_linestyle(looks[name].get("linestyle", "-"))
        sampled = Statistic.of([100 * (row["sampled_accuracy"] or row["mask_accuracy"]) for row in rows])
        end = 1.06 * settings.steps / per_epoch
        axes.plot([end, end], [sampled.low, sampled.high], color=colour)
        axes.plot([end], [sampled.mean], **looks[name] | {"linestyle": "none"})
        ends[name] = sampled.mean
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    lowest, highest = min(ends.values()), max(ends.values())
    axes.set_ylim(lowest - 0.6 * (highest + 1 - lowest), min(highest + 1, 100))
    axes.set_xlabel("epoch")
    axes.set_ylabel("test accuracy, untrained (%)")
    handles = [
        axes.plot([], [], **looks[name], label=f"{label}: {ends[name]:.1f} %")[0]
        for name, label, _, _ in sorted(found, key=lambda look: -ends[look[0]])
    ]
    figure.legend(handles=handles, loc="outside right center", title="test accuracy at the end", alignment="left")
    return figure


def curves(experiment: Experiment, folder: Path) -> dict[int, dict[float, float]]:
    """Test accuracy of the most likely mask by step, for each finished replicate that has a curve."""
    run, found = experiment.run(folder), {}
    for row in experiment.rows(folder):
        replicate = int(row["replicate"])
        measured = {at["step"]: at["test_accuracy"] for at in run.curve(replicate, 0) or ()}
        if measured := {step: value for step, value in measured.items() if value is not None}:
            found[replicate] = measured
    return found


EXAMPLES = {"mnist": 55_000, "mnist1d": 3_500}  # of the training sets: an epoch is a run through one

FIGURES: dict[str, Callable[[Plan, Path], Figure | None]] = {
    "tickets": tickets,
    "one_shot": one_shot,
    "criteria": criteria,
    "signs": signs,
    "zeros": zeros,
    "by_rule": by_rule,
    "learned": learned,
}


def write(plan: Plan, folder: Path, output: Path) -> list[str]:
    """Draws into `output` what the result files in `folder` allow; returns the names of the figures, keys of FIGURES."""
    written = []
    with plt.rc_context(STYLE):
        for name, draw in FIGURES.items():
            if figure := draw(plan, folder):
                save(figure, output / f"{name}.png")
                written.append(name)
    return written


def _panels(drawn: Sequence[tuple[str, list[Line]]], *, width: float, ncols: int) -> Figure:
    """Panels side by side with one y-axis, close to the tickets, and one legend."""
    figure, row = plt.subplots(1, len(drawn), figsize=(width * len(drawn), 4.4), sharey=True, squeeze=False)
    for axes, (title, lines) in zip(row[0], drawn):
        _draw(axes, lines, dense=True, ylabel=axes is row[0][0])
        axes.set_title(title, fontsize=10)
    row[0][0].set_ylim(*_close_to_tickets([line for _, lines in drawn for line in lines]))
    _legend(figure, row[0], ncols)
    return figure


def _legend(where: Figure | Axes, of: Iterable[Axes], ncols: int, order: Sequence[str] = ()) -> None:
    """One legend below for these axes, each label once; those in `order` first."""
    handles = {label: handle for axes in of for handle, label in zip(*axes.get_legend_handles_labels())}
    labels = [label for label in (*order, *(label for label in handles if label not in order)) if label in handles]
    below = {"loc": "outside lower center"} if isinstance(where, Figure) else BELOW
    where.legend([handles[label] for label in labels], labels, ncols=ncols, **below)


BELOW = {"loc": "upper left", "bbox_to_anchor": (0, -0.16), "borderaxespad": 0, "fontsize": 9, "columnspacing": 1}


def _draw(
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
        _banded(axes, x, scaled, line.colour, line.marker, line.label)
    density_axis(axes, [100 * level.density.mean for line in lines for level in line.levels])
    if ylabel:
        axes.set_ylabel("test accuracy at early stop (%)" if column == ACCURACY else "early-stop step")


def _banded(axes: Axes, x, values: Sequence[Statistic], colour, marker, label, *, thin: bool = False) -> Line2D:
    if not thin:
        low, high = [value.low for value in values], [value.high for value in values]
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    means = [value.mean for value in values]
    return axes.plot(x, means, color=colour, marker=marker, linewidth=0.8 if thin else 1.5, label=label)[0]


def _close_to_tickets(lines: Sequence[Line]) -> tuple[float, float]:
    return readable_range([(line.label, line.levels) for line in lines], ACCURACY, 100)


def _plain_steps(axes: Axes, lines: Sequence[Line]) -> None:
    """Steps on a logarithmic axis with whole numbers: 2,000, 5,000, 10,000 ..."""
    values = [level.early_stop_step for line in lines for level in line.levels]
    bottom, top = min(value.low for value in values), max(value.high for value in values)
    ticks = [digit * 10**power for power in range(7) for digit in (1, 2, 5)]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="y", which="minor", length=0)
    axes.set_ylim(bottom / 1.2, top * 1.2)
