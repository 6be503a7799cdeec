"""Figures of a ticket that was verified: its controls as bars, the lines to other networks as curves."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt

from tf_lottery.checks.verdict import DENSE, LINES, NAMES, OTHER_ORDER, TICKET, Verification
from tf_lottery.report.style import COLOURS, Picture, banded, legend_above, line_look
from tf_lottery.runs.outcome import Statistic


def pictures(verified: Sequence[Verification]) -> list[Picture]:
    """Two figures for each level."""
    return [picture for found in verified for picture in (_controls(found), *_lines(found))]


def _density(found: Verification) -> str:
    return f"{100 * Statistic.of([row.density for row in found.of(TICKET)]).mean:.3g} % of the weights"


def _spoken(found: Verification) -> str:
    count = len(found.of(TICKET))
    return f"mean, min and max of {count} replicates" if count > 1 else "one replicate"


def _controls(found: Verification) -> Picture:
    """Test accuracy of the ticket and of what it has to beat."""
    figure, axes = plt.subplots(figsize=(5.6, 3.4))
    names = [name for name in NAMES if found.of(name)]
    values = [Statistic.of([100 * row.accuracy for row in found.of(name)]) for name in names]
    for at, (name, value) in enumerate(zip(names, values)):
        colour = {TICKET: COLOURS[0], OTHER_ORDER: COLOURS[5], DENSE: "0.5"}.get(name, COLOURS[1])
        bars = [[value.mean - value.low], [value.high - value.mean]]
        axes.barh(at, value.mean, color=colour, alpha=0.75, xerr=bars if any(map(any, bars)) else None, capsize=3)
        axes.annotate(
            f"{value.mean:.2f}", (value.high, at), xytext=(6, 0), textcoords="offset points", va="center", fontsize=9
        )
    axes.set_yticks(range(len(names)), [NAMES[name] for name in names], fontsize=9)
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    left = _left([value.low for value in values], next(v.mean for n, v in zip(names, values) if n == TICKET))
    highest = max(value.high for value in values)
    axes.set_xlim(left, highest + 0.18 * (highest - left))
    axes.set_xlabel("test accuracy at early stop (%)")
    below = f"; the axis begins at {left:.4g} %" if left > 0 else ""
    caption = (
        f"Accuracy on the test set at the step of least validation loss, of the ticket with {_density(found)} and of its controls: "
        f"{_spoken(found)}{below}. {found.sentence}"
    )
    return Picture(f"verify_{found.level:02d}_controls", f"Level {found.level} and its controls", caption, figure)


def _left(lowest: Sequence[float], ticket: float) -> float:
    """Where the axis begins: what is far below the others, as inverted scores are, runs out of the picture."""
    near = [value for value in lowest if value > ticket - 5]
    least = min(near)
    return max(0.0, least - max(0.25 * (max(lowest) - least), 0.5)) if least > 5 else 0.0


def _lines(found: Verification) -> list[Picture]:
    """The error on the way to other networks."""
    if not any(found.lines.values()):
        return []
    figure, axes = plt.subplots()
    for i, (name, lines) in enumerate((name, lines) for name, lines in found.lines.items() if lines):
        errors = [Statistic.of([100 * error for error in errors]) for errors in zip(*(line.errors for line in lines))]
        banded(axes, lines[0].alphas, errors, **line_look(i), label=LINES[name])
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, 1)
    axes.set_xlabel("way from the ticket to the other network")
    axes.set_ylabel("test error (%)")
    legend_above(figure, _spoken(found), columns=1)
    barriers = "; ".join(
        f"{100 * barrier:.2f} points {LINES[name]}"
        for name in found.lines
        if (barrier := found.barrier(name)) is not None
    )
    caption = (
        f"Test error of the networks on the straight line from the ticket with {_density(found)} to others. Largest barrier of a "
        f"replicate: {barriers}; below 2 points a network is called stable."
    )
    return [
        Picture(f"verify_{found.level:02d}_lines", f"Level {found.level}: the way to other networks", caption, figure)
    ]
