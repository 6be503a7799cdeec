"""How figures look, and what a figure is: a drawing with a title and one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from tf_lottery.base.files import whole_file
from tf_lottery.runs.outcome import LevelStatistics, Statistic

# Okabe and Ito's colours, told apart by colour-blind readers; markers tell the lines apart in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
DASHES = ((0, (4, 2)), (0, (1, 1)), (0, (4, 1, 1, 1)))
SHADES = "Blues"  # for pictures of masks: more is darker, on a screen and in print
STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "figure.figsize": (5.6, 3.9),  # readable at the width of a phone
    "font.size": 10,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
    "savefig.dpi": 200,
}

Series = list[tuple[str, list[LevelStatistics]]]  # label and statistics: the tickets first, then the branches
Item = TypeVar("Item")


@dataclass(frozen=True)
class Picture:
    """A figure; its caption says in one sentence what is seen and how it was measured."""

    name: str
    title: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class LeftOut:
    """A figure that could not be drawn, and why."""

    title: str
    why: str


def save(figure: Figure, path: Path) -> None:
    """Writes a figure and lets go of it."""
    with whole_file(path) as unfinished:
        figure.savefig(unfinished)
    plt.close(figure)


def density_axis(axes: Axes, densities: Sequence[float], labels: int = 9) -> None:
    """Percent of weights remaining, dense on the left, as the papers draw it; about so many labels, at the densities measured."""
    axes.set_xscale("log")
    margin = (max(densities) / min(densities)) ** 0.03 if max(densities) > min(densities) else 1.1
    axes.set_xlim(margin * max(densities), min(densities) / margin)
    ticks: list[float] = []
    for density in sorted(set(densities), reverse=True):
        if not ticks or ticks[-1] / density > (max(densities) / min(densities)) ** (1 / labels):
            ticks.append(density)
    axes.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    for panel in axes.get_shared_x_axes().get_siblings(axes):
        panel.tick_params(axis="x", which="minor", length=0)
        panel.grid(False, which="minor")
    axes.set_xlabel("weights remaining (%)")


def readable_range(series: Series, column: str, scale: float) -> tuple[float, float]:
    """The axis leaves out collapsed points: it goes ten times as far below the dense network as the best ticket above."""
    values = [scale * getattr(level, column).mean for level in series[0][1]]
    lowest = min(scale * getattr(level, column).low for _, levels in series for level in levels)
    highest = max(scale * getattr(level, column).high for _, levels in series for level in levels)
    floor = values[0] - max(10 * (max(values) - values[0]), 0.02 * values[0])
    bottom = max(lowest, floor)
    margin = 0.05 * (highest - bottom) or 0.5
    return bottom - margin, highest + margin


def log_plain(axes: Axes) -> None:
    """A logarithmic axis with plain numbers, more of them where it is short."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low > 20 else (1, 1.5, 2, 3, 4, 6, 8)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="y", which="minor", length=0)


def thousands(axis) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` of the items, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def some(points: Sequence) -> int:
    """Which points of a line get a marker, for `markevery`: each of a few, else about ten at equal distances."""
    return 1 if len(points) <= 20 else -(-len(points) // 10)


def line_look(i: int) -> dict[str, Any]:
    """How the i-th line of a figure looks; one that lies under it is seen through its gaps and its larger, open markers."""
    return {
        "color": COLOURS[i % len(COLOURS)],
        "marker": MARKERS[i % len(MARKERS)],
        "linestyle": DASHES[(i - 1) % len(DASHES)] if i else "-",
        "markersize": 4 + 1.5 * (i % 4),
        "markerfacecolor": "none" if i else COLOURS[0],
    }


def banded(axes: Axes, x: Sequence[float], values: Sequence[Statistic], **look) -> None:
    """Means joined by a line, with a band from the smallest to the largest."""
    axes.fill_between(
        x, [v.low for v in values], [v.high for v in values], color=look["color"], alpha=0.15, linewidth=0
    )
    axes.plot(x, [v.mean for v in values], **look)


def bare(axes: Axes) -> None:
    """A picture needs no axes."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def near_the_top(axes: Axes, low: float, high: float) -> None:
    """An axis of percents on which the last points before 100 have as much room as all the others: by the logarithm of what is missing."""
    floor = max(100 - high, 0.02) / 2
    axes.set_yscale(
        "function",
        functions=(lambda y: -np.log(np.maximum(100 - y, floor)), lambda t: 100 - np.exp(-np.asarray(t))),
    )
    bottom, top = max(low, 0), high + (100 - high) / 8
    ticks = [
        tick for tick in (*range(0, 90, 10), *np.arange(90, 98), *np.arange(98, 100, 0.2)) if bottom <= tick <= top
    ]
    apart = np.log((100 - bottom) / max(100 - top, floor)) / 8
    shown: list[float] = []
    for tick in ticks:
        if not shown or np.log((100 - shown[-1]) / (100 - tick)) > apart:
            shown.append(tick)
    axes.set_yticks(shown, [f"{tick:.3g}" for tick in shown])
    axes.set_ylim(bottom, top)


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Kernels by what tells them apart.

    >>> short_names(["net/hidden/kernel", "net/output/kernel"])
    {'net/hidden/kernel': 'hidden', 'net/output/kernel': 'output'}
    """
    parts = [path.removesuffix("/kernel").split("/") for path in paths]
    while len(parts) > 1 and all(len(part) > 1 and part[0] == parts[0][0] for part in parts):
        parts = [part[1:] for part in parts]
    return {path: "/".join(part[-3:]) for path, part in zip(paths, parts)}


def kernel_looks(paths: Sequence[str]) -> Mapping[str, Mapping[str, object]]:
    """Colour and marker of each kernel; of many kernels a shade from the first, dark, to the last, light."""
    names = short_names(paths)
    if len(paths) <= len(COLOURS):
        return {path: {**line_look(i), "label": names[path]} for i, path in enumerate(paths)}
    labelled = spread(range(len(paths)), 5)
    shades = mpl.colormaps["cividis"]
    return {
        path: {
            "color": shades(0.92 * i / (len(paths) - 1)),
            "marker": "",
            "linestyle": "-",
            "linewidth": 1,
            "label": names[path] if i in labelled else None,
        }
        for i, path in enumerate(paths)
    }


def legend_above(
    figure: Figure, title: str | None = None, columns: int = 4, handles: Sequence[Any] = (), **more
) -> None:
    """A legend of all lines, or of `handles`, in at most so many columns, as many in each as may be."""
    handles = handles or [handle for axes in figure.axes for handle in axes.get_legend_handles_labels()[0]]
    rows = -(-len(handles) // columns)
    look = {"ncols": -(-len(handles) // rows), "columnspacing": 1.2, "handlelength": 2, **more}
    figure.legend(loc="outside upper center", handles=handles, title=title, **look)
