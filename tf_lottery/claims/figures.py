"""The figures behind the claims, one for each section of the page, drawn from result files alone. No TensorFlow.

Each function takes a plan and the folder of its runs and draws what there is of them; it returns None if there is nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from tf_lottery.claims import convolutional_figures
from tf_lottery.claims.experiments import Experiment
from tf_lottery.claims.lines import (
    ACCURACY,
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    RED,
    SKY,
    STEP,
    Line,
    banded,
    close_to_tickets,
    draw_lines,
    legend,
    lines_of,
    panels_of,
    plain_steps,
)
from tf_lottery.claims.papers.criteria import CRITERIA_BAD, CRITERIA_GOOD
from tf_lottery.claims.papers.signs import TREATMENTS
from tf_lottery.claims.plan import SIGN_CRITERIA
from tf_lottery.claims.planned import Plan
from tf_lottery.report import STYLE, density_axis, save
from tf_lottery.runs.outcome import Statistic


def tickets(plan: Plan, folder: Path) -> Figure | None:
    """Accuracy and early stop against density: tickets, their masks with new weights, random masks."""
    lines = lines_of(
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
    draw_lines(left, lines, dense=True)
    left.set_ylim(*close_to_tickets(lines))
    draw_lines(right, lines, STEP, dense=True)
    right.set_yscale("log")
    plain_steps(right, lines)
    legend(figure, [left], ncols=4)
    return figure


def one_shot(plan: Plan, folder: Path) -> Figure | None:
    """Accuracy against density: iterative and one-shot pruning."""
    looks = [("large_final", "iterative", BLUE, "o"), ("one_shot", "one-shot", ORANGE, "v")]
    lines = lines_of(plan, folder, looks)
    if not lines:
        return None
    figure, axes = plt.subplots(figsize=(6.4, 4.2))
    draw_lines(axes, lines, dense=True)
    axes.set_ylim(*close_to_tickets(lines))
    legend(figure, [axes], ncols=3)
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
    drawn = [(title, lines) for title, names in panels if len(lines := lines_of(plan, folder, looks(names))) > 1]
    if not drawn:
        return None
    figure, row = plt.subplots(1, len(drawn), figsize=(3.6 * len(drawn), 5.4), squeeze=False)
    for axes, (title, lines) in zip(row[0], drawn):
        draw_lines(axes, lines, dense=True, ylabel=axes is row[0][0])
        axes.set_ylim(*close_to_tickets(lines))
        axes.set_title(title, fontsize=10)
        order = sorted(lines, key=lambda line: -getattr(line.levels[-1], ACCURACY).mean)  # that of their right ends
        legend(axes, [axes], 1, [line.label for line in order])
    return figure


def signs(plan: Plan, folder: Path) -> Figure | None:
    """Accuracy against density, a panel for each treatment of survivors: rewinding, the treatment with signs and without."""
    rewind = Line.of(plan, folder, "large_final", "rewound", BLUE, "o")
    drawn = []
    for name in TREATMENTS:
        looks = [(f"{name}_same_sign", "with signs", GREEN, "D"), (name, "without signs", RED, "s")]
        if lines := lines_of(plan, folder, looks):
            drawn.append((name, [rewind, *lines] if rewind else lines))
    if not drawn:
        return None
    titles = {"reinit": "drawn anew", "reshuffle": "reshuffled", "constant": "set to a constant"}
    return panels_of([(titles[name], lines) for name, lines in drawn], width=3.9, ncols=4)


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
    drawn = [(title, lines) for title, looks in panels if len(lines := lines_of(plan, folder, looks)) > 1]
    return panels_of(drawn, width=5, ncols=4) if drawn else None


def by_rule(plan: Plan, folder: Path) -> Figure | None:
    """Accuracy of untrained networks against density, by criterion: initial weights and signed constants."""
    rows = plan["by_rule"].rows(folder) if "by_rule" in plan.names() else []
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
            banded(axes, [100 * density for density in x], values, colour, marker, label, thin=name not in looks)
        axes.set_title("signed constants" if constant else "initial weights", fontsize=10)
        density_axis(axes, [100 * row["density"] for row in rows])
    panels[0].set_ylim(0, 100)
    panels[0].set_ylabel("test accuracy, untrained (%)")
    legend(figure, panels[:1], ncols=4, order=[*looks, "the other criteria"])
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
        drawn = banded(axes, [s / per_epoch for s in steps], [Statistic.of(at[s]) for s in steps], colour, None, None)
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
    **convolutional_figures.FIGURES,
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
