"""Figures of trained weights: which of them a round kept, and which signs stay."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.lines import Line2D

from tf_lottery.report.census import Level
from tf_lottery.report.style import (
    LeftOut,
    Picture,
    banded,
    density_axis,
    kernel_looks,
    legend_above,
    short_names,
    spread,
    thousands,
)
from tf_lottery.report.weights import (
    BLUE,
    NEEDED,
    RED,
    edges_of,
    initial_values,
    panels_for,
    rounds_of,
    what_it_did,
)
from tf_lottery.runs.folder import Folder
from tf_lottery.runs.outcome import Statistic

SOME, LEVELS = 3, 12  # replicates and levels whose signs are looked at


def trained(run: Folder, levels: Sequence[Level]) -> Picture | LeftOut:
    """How the trained weights that the last round chose from are distributed: those it kept, those it pruned, and how all began."""
    title = "Trained weights"
    replicate = levels[0].replicates[0]
    ticket = cache(lambda level: run.ticket(replicate, level))
    rounds = rounds_of(run, levels, ticket)
    if not rounds:
        return LeftOut(title, NEEDED)
    level, parent = rounds[-1]
    paths = spread(list(ticket(level).masks), 4)
    ones = {path: what_it_did(ticket(parent), ticket(level), path) for path in paths}
    figure, panels = panels_for(short_names(list(levels[0].kernels)), paths)
    for axes, one in zip(panels, ones.values()):
        initial, final = one.initial[one.candidates], one.final[one.candidates]
        kept = one.kept[one.candidates]
        edges = edges_of([final])
        axes.hist(initial, edges, color="0.85")
        for part, colour in ((kept, BLUE), (~kept, RED)):
            axes.hist(final[part], edges, histtype="step", color=colour, linewidth=1.3)
        if kept.any() and np.percentile(counted := np.histogram(final, edges)[0], 95) < counted.max() / 20:
            axes.set_yscale("symlog", linthresh=10)  # a peak at 0 hides all else
        thousands(axes.yaxis)
    figure.supxlabel("weight", fontsize=10)
    handles: list[Artist] = [plt.Rectangle((0, 0), 1, 1, color="0.85", label="initial")]
    handles += [Line2D([], [], color=c, label=name) for c, name in ((BLUE, "trained, kept"), (RED, "trained, pruned"))]
    legend_above(figure, handles=handles)
    before, after = (100 * ticket(at).density for at in (parent, level))
    caption = (
        f"How many weights have which value at the end of level {parent}, kept and pruned by the round from {before:.3g} to "
        f"{after:.3g} % of the weights, and which they had at its start (grey): replicate {replicate}."
    )
    return Picture("trained", title, caption, figure)


def signs(run: Folder, levels: Sequence[Level]) -> Picture | LeftOut:
    """The share of each kernel's kept weights that end with the sign they began with."""
    title = "Signs that stay"
    found: dict[int, dict[str, list[float]]] = {}
    for level in spread(levels, LEVELS):
        for replicate in level.replicates[:SOME]:
            ticket = run.ticket(replicate, level.level)
            if ticket.final is None:
                continue
            for path in level.kernels:
                kept = ticket.masks[path].astype(bool)
                if kept.any():
                    ends = (initial_values(ticket, path)[kept], ticket.final[path][kept])
                    share = float(np.mean(np.sign(ends[0]) == np.sign(ends[1])))
                    found.setdefault(level.level, {}).setdefault(path, []).append(100 * share)
    drawn = [level for level in levels if level.level in found]
    if len(drawn) < 2:
        return LeftOut(title, "it needs the trained weights of two levels")
    figure, axes = plt.subplots()
    for path, look in kernel_looks(list(levels[0].kernels)).items():
        at = [level for level in drawn if path in found[level.level]]
        banded(
            axes,
            [100 * level.density for level in at],
            [Statistic.of(found[level.level][path]) for level in at],
            **look,
        )
    density_axis(axes, [100 * level.density for level in drawn])
    axes.set_ylabel("kept weights whose sign stays (%)")
    legend_above(figure, fontsize=9)
    many = max(len(values) for kernels in found.values() for values in kernels.values())
    spoken = f"mean, min and max of {many} replicates" if many > 1 else "one replicate"
    caption = (
        "The share of each kernel's kept weights that have the same sign before and after the level's training, against the "
        f"share of weights kept: {spoken}."
    )
    return Picture("signs", title, caption, figure)
