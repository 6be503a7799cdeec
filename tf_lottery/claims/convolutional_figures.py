"""The figures of convolutional networks: tickets and their controls, dropout, rewinding and stability. No TensorFlow."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from tf_lottery.checks.line import STABLE
from tf_lottery.claims.experiments import Instability
from tf_lottery.claims.lines import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    RED,
    banded,
    draw_lines,
    legend,
    lines_of,
    panels_of,
)
from tf_lottery.claims.papers.convolutional import NAMES
from tf_lottery.claims.planned import Plan
from tf_lottery.runs.outcome import Statistic

REWIND_LOOKS = ((RED, "s"), (BLUE, "o"), (GREEN, "D"), (ORANGE, "v"), (PINK, "^"))


def conv(plan: Plan, folder: Path) -> Figure | None:
    """Accuracy against density, a panel for each network: tickets, their controls, and one-shot pruning."""
    drawn = []
    for net, title in NAMES.items():
        looks = [
            (net, "winning ticket", BLUE, "o"),
            (f"{net}/reinit", "its mask, new weights", RED, "s"),
            (f"{net}/random_mask", "random mask", GREEN, "D"),
            (f"{net}_one_shot", "one-shot", ORANGE, "v"),
        ]
        if lines := lines_of(plan, folder, looks):
            drawn.append((title, lines))
    return panels_of(drawn, width=4.2, ncols=5) if drawn else None


def dropout(plan: Plan, folder: Path) -> Figure | None:
    """Accuracy against density with dropout and without, a panel for each network."""
    drawn = []
    for net, title in NAMES.items():
        looks = [(f"{net}_dropout", "with dropout", PINK, "^"), (net, "without", BLUE, "o")]
        if len(lines := lines_of(plan, folder, looks)) == 2:
            drawn.append((title, lines))
    return panels_of(drawn, width=4.2, ncols=3) if drawn else None


def rewound(net: str, plan: Plan, folder: Path) -> Figure | None:
    """Accuracy against density by the step that tickets rewind to, and barriers against that step."""
    searches = {
        e.settings.rewind_to: e for e in plan.experiments if e.name.startswith(f"{net}_rewind_") and e.of is None
    }
    looks = [
        (searches[step].name, f"rewound to step {step:,}", *look) for step, look in zip(sorted(searches), REWIND_LOOKS)
    ]
    lines = lines_of(plan, folder, looks)
    if not lines:
        return None
    barriers: dict[int, dict[int, list[float]]] = {}  # by level, by step
    for each in plan.experiments:
        if isinstance(each, Instability) and each.of in searches.values():
            for row in each.rows(folder):
                at = barriers.setdefault(int(row["level"]), {})
                at.setdefault(int(row["rewind_to"]), []).append(100 * row["barrier"])
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2))
    draw_lines(left, lines, dense=True)
    for (level, at), (colour, marker) in zip(sorted(barriers.items()), ((GREY, "X"), (PINK, "^"))):
        steps = sorted(at)
        label = "tickets" if level else "dense networks"
        banded(right, steps, [Statistic.of(at[step]) for step in steps], colour, marker, label)
        right.set_xticks(steps)
    right.axhline(100 * STABLE, color="black", linestyle=":", linewidth=1)
    right.set_ylim(bottom=0)
    right.set_xlabel("step that they begin from")
    right.set_ylabel("barrier (points of test error)")
    legend(figure, [left, right], ncols=5)
    return figure


FIGURES: dict[str, Callable[[Plan, Path], Figure | None]] = {
    "conv": conv,
    "dropout": dropout,
    "resnet18": functools.partial(rewound, "resnet18"),
    "resnet8": functools.partial(rewound, "resnet8"),
}
