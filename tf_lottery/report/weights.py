"""Figures of weights: initial against final with the criterion's cut, and the initial weights that survive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from tf_lottery.base.errors import LotteryError
from tf_lottery.base.quiet import native_stderr_off
from tf_lottery.report.census import Level
from tf_lottery.report.style import COLOURS, LeftOut, Picture, legend_above, short_names, spread
from tf_lottery.rules import criteria
from tf_lottery.runs.folder import Folder
from tf_lottery.tickets.ticket import Ticket
from tf_lottery.tickets.values import Recipe, arrays

POINTS = 3_000  # of a kernel, drawn by chance, in a scatter
INSIDE = 0.995  # the share of points that the axes are sure to show
GRID = 301  # points on an axis, to draw the cut
BLUE, RED = COLOURS[:2]


@dataclass(frozen=True)
class Round:
    """What one round did to one kernel: the weights it chose from, and which of them it kept."""

    initial: np.ndarray
    final: np.ndarray
    candidates: np.ndarray  # bool
    kept: np.ndarray  # bool


def initial_values(ticket: Ticket, path: str) -> np.ndarray:
    """A kernel's start values; those of a recipe are drawn, all of them, which loads Keras."""
    values = ticket.initial[path]
    if isinstance(values, Recipe):
        with native_stderr_off():  # only where the values are not in the file: it loads TensorFlow
            from tf_lottery.tickets import recipes
        values = recipes.regenerate(values, path)
    return values


def rounds_of(run: Folder, levels: Sequence[Level], ticket: Callable[[int], Ticket]) -> list[tuple[int, int]]:
    """(level, the level it was pruned from) of the first and the last round whose tickets tell what it looked at."""
    replicate = levels[0].replicates[0]
    pruned = [level.level for level in levels if level.level and replicate in level.replicates]
    rounds = []
    for level in dict.fromkeys((pruned[0], pruned[-1])) if pruned else ():
        found = ticket(level).found
        parent = 0 if found.get("one_shot") else level - 1
        if found.get("search") in ("gradual", "auto") or (replicate, parent) not in run.finished():
            continue
        seen = found.get("level_steps") in (
            None,
            ticket(parent).found.get("steps"),
        )  # by the round: what the ticket has
        if seen and ticket(parent).final is not None:
            rounds.append((level, parent))
    return rounds


NEEDED = "it needs the ticket of a level, with the trained weights that the next level was pruned from"


def scatter(run: Folder, levels: Sequence[Level]) -> Picture | LeftOut:
    """Initial against final weights of the first and the last round, with the cut of the criterion."""
    title = "What a round keeps"
    replicate = levels[0].replicates[0]
    ticket = cache(lambda level: run.ticket(replicate, level))
    rounds = rounds_of(run, levels, ticket)
    if not rounds:
        return LeftOut(title, NEEDED)
    criterion = ticket(rounds[0][0]).found.get("criterion")
    paths = spread(list(ticket(rounds[0][0]).masks), 3)
    figure, panels = plt.subplots(len(rounds), len(paths), figsize=(5.6, 0.9 + 2.0 * len(rounds)), squeeze=False)
    names, drawn = short_names(list(levels[0].kernels)), 0
    for axes, path in zip(panels[0], paths):
        axes.set_title(names[path], fontsize=10)
    for row, (level, parent) in zip(panels, rounds):
        for axes, path in zip(row, paths):
            one = what_it_did(ticket(parent), ticket(level), path)
            drawn += _scatter(axes, one, _known(criterion))
        row[0].set_ylabel(f"level {parent} to {level}\nfinal weight", fontsize=9)
    for axes in panels[-1]:
        axes.set_xlabel("initial weight", fontsize=9)
    handles = [
        Line2D([], [], color=BLUE, marker="o", linestyle="", label="kept"),
        Line2D([], [], color=RED, marker="o", linestyle="", label="pruned"),
    ]
    if drawn:
        handles.append(Line2D([], [], color="black", label=f"the cut of {criterion}"))
    handles.append(Line2D([], [], color="0.25", linestyle=":", linewidth=1, label="final = initial"))
    legend_above(figure, handles=handles, fontsize=9)
    cut = (
        f"the line is where {criterion} scores as high as the last weight kept"
        if drawn
        else f"the scores of {criterion or 'the criterion'} make no line in this plane"
    )
    caption = (
        f"Weights at the start and at the end of a level's training, up to {POINTS:,} of each kernel drawn by chance, and whether the "
        f"round after it kept them, replicate {replicate}: {cut}."
    )
    return Picture("weights", title, caption, figure)


def what_it_did(parent: Ticket, child: Ticket, path: str) -> Round:
    candidates = parent.masks[path].astype(bool)
    kept = child.masks[path].astype(bool)
    return Round(initial_values(parent, path) * candidates, arrays(parent.final)[path] * candidates, candidates, kept)


def _known(criterion: str | None) -> Callable | None:
    """The criterion, if weights alone decide; one of another program, or that needs a gradient, makes no line."""
    try:
        return criteria.without_gradient(criterion, "a figure") if criterion else None
    except LotteryError:
        return None


def _scatter(axes: Axes, one: Round, criterion: Callable | None) -> bool:
    """Draws one panel; returns whether there is a line of the cut in it."""
    chosen = np.flatnonzero(one.candidates)
    chosen = np.random.default_rng(0).permutation(chosen)[:POINTS]
    x, y, kept = one.initial.ravel()[chosen], one.final.ravel()[chosen], one.kept.ravel()[chosen]
    for part, colour, marker in ((kept, BLUE, "o"), (~kept, RED, "x")):
        axes.scatter(
            x[part], y[part], s=3, color=colour, marker=marker, alpha=0.5, linewidths=0.3 if marker == "x" else 0
        )
    reach = [1.2 * max(float(np.quantile(np.abs(values), INSIDE)), 1e-6) if x.size else 1.0 for values in (x, y)]
    axes.plot([-9, 9], [-9, 9], color="0.25", linestyle=":", linewidth=1, zorder=3)
    axes.set_xlim(-reach[0], reach[0])
    axes.set_ylim(-reach[1], reach[1])
    axes.tick_params(labelsize=8)
    axes.locator_params(axis="x", nbins=3)
    axes.locator_params(axis="y", nbins=4)
    level = cut(one, criterion) if criterion else None
    if criterion is None or level is None:
        return False
    xs, ys = np.meshgrid(*(np.linspace(-side, side, GRID) for side in reach))
    scores = criteria.score(criterion, xs, ys, rng=np.random.default_rng(0))
    lowest = scores[np.isfinite(scores)].min()
    scores = np.where(np.isfinite(scores), scores, min(lowest, level) - 1)  # a score of -inf is below any cut
    if not scores.min() < level < scores.max():
        return False
    axes.contour(xs, ys, scores, levels=[level], colors="black", linewidths=1.2, zorder=4)
    return True


def cut(one: Round, criterion: Callable) -> float | None:
    """The score between the lowest that was kept and the highest that was pruned, if the two values of a weight decide.

    None if they do not: if the criterion is one of chance, ranks the kernel as a whole, or scored something else than
    these weights. That is tried, not assumed.
    """
    rng = np.random.default_rng(0)
    scores = criteria.score(criterion, one.initial, one.final, rng=rng)[one.candidates]
    some = slice(None, None, 7)
    flat = one.initial[one.candidates][some], one.final[one.candidates][some]
    alone = criteria.score(criterion, *flat, rng=np.random.default_rng(0))
    kept = one.kept[one.candidates]
    if kept.all() or not kept.any() or not np.array_equal(alone, scores[some]):
        return None
    lowest, highest = scores[kept].min(), scores[~kept].max()
    if not lowest >= highest or not np.isfinite(lowest):
        return None
    return float(lowest if not np.isfinite(highest) else (lowest + highest) / 2)


def survivors(run: Folder, levels: Sequence[Level]) -> Picture | LeftOut:
    """How the initial weights that survive are distributed, by level and kernel."""
    title = "Initial weights that survive"
    pruned = [level for level in levels if level.density < 1]
    if not pruned or levels[0].level != 0:
        return LeftOut(title, "it needs the tickets of the first level and of a pruned one")
    chosen = spread(pruned, 3)
    replicates = [r for r in levels[0].replicates if all(r in level.replicates for level in chosen)]
    if not replicates:
        return LeftOut(title, "it needs a replicate with all its tickets")
    paths = spread(list(levels[0].kernels), 4)
    initial: dict[str, list[np.ndarray]] = {path: [] for path in paths}
    kept: dict[tuple[str, int], list[np.ndarray]] = {}
    for replicate in replicates:
        first = run.ticket(replicate, 0)
        values = {path: initial_values(first, path) for path in paths}
        for path in paths:
            initial[path].append(values[path].ravel())
        for level in chosen:
            masks = run.ticket(replicate, level.level).masks
            for path in paths:
                kept.setdefault((path, level.level), []).append(values[path][masks[path].astype(bool)])
    figure, panels = _histograms(initial, short_names(list(levels[0].kernels)))
    for axes, path in zip(panels, paths):
        edges = edges_of(initial[path])
        for level, colour in zip(chosen, COLOURS):
            counted = np.concatenate(kept[path, level.level])
            if counted.size:
                axes.hist(counted, edges, density=True, histtype="step", color=colour, linewidth=1.3)
    handles: list[Artist] = [plt.Rectangle((0, 0), 1, 1, color="0.85", label="all (100 %)")]
    handles += [Line2D([], [], color=c, label=f"{100 * level.density:.3g} %") for level, c in zip(chosen, COLOURS)]
    legend_above(figure, "weights remaining in the network", handles=handles)
    many = f"{len(replicates)} replicates together" if len(replicates) > 1 else f"replicate {replicates[0]}"
    caption = (
        "The values at initialisation of the weights that are still kept, each curve with area 1, against those of all weights "
        f"(grey): {many}."
    )
    return Picture("survivors", title, caption, figure)


def survivors_of_masks(run: Folder, level: Level) -> Picture:
    """How the weights that a learned mask keeps are distributed among all that were drawn."""
    paths = spread(list(level.kernels), 4)
    drawn: dict[str, list[np.ndarray]] = {path: [] for path in paths}
    kept: dict[str, list[np.ndarray]] = {path: [] for path in paths}
    for replicate in level.replicates:
        ticket = run.ticket(replicate, level.level)
        for path in paths:
            values = initial_values(ticket, path)
            drawn[path].append(values.ravel())
            kept[path].append(values[ticket.masks[path].astype(bool)])
    figure, panels = _histograms(drawn, short_names(list(level.kernels)))
    for axes, path in zip(panels, paths):
        axes.hist(
            np.concatenate(kept[path]), edges_of(drawn[path]), density=True, histtype="step", color=BLUE, linewidth=1.3
        )
    stored = not isinstance(run.ticket(level.replicates[0], level.level).initial[paths[0]], Recipe)
    handles = [plt.Rectangle((0, 0), 1, 1, color="0.85", label="all"), Line2D([], [], color=BLUE, label="kept")]
    legend_above(figure, handles=handles)
    which = "of the ticket" if stored else "drawn again from the ticket's recipe"
    caption = (
        f"The untrained weights that the mask keeps, {which}, against all weights (grey), each with area 1: "
        f"{len(level.replicates)} replicate{'s together' if len(level.replicates) > 1 else ''}."
    )
    return Picture("survivors", "Weights that the mask keeps", caption, figure)


def _histograms(all_weights: dict[str, list[np.ndarray]], names: dict[str, str]):
    """A panel for each kernel with the distribution of all its weights in grey."""
    figure, panels = panels_for(names, list(all_weights))
    for axes, values in zip(panels, all_weights.values()):
        axes.hist(np.concatenate(values), edges_of(values), density=True, color="0.85")
        axes.set_yticks([])
    figure.supxlabel("initial weight", fontsize=10)
    return figure, panels


def panels_for(names: dict[str, str], paths: Sequence[str]):
    """A panel for each kernel."""
    rows = -(-len(paths) // 2)
    figure, panels = plt.subplots(rows, min(len(paths), 2), figsize=(5.6, 1.1 + 1.7 * max(rows, 1.4)), squeeze=False)
    for axes, path in zip(panels.flat, paths):
        axes.set_title(names[path], fontsize=10)
        axes.locator_params(axis="x", nbins=5)
        axes.tick_params(labelsize=8)
    for axes in panels.flat[len(paths) :]:
        axes.set_visible(False)
    return figure, list(panels.flat)[: len(paths)]


def edges_of(values: Sequence[np.ndarray]) -> np.ndarray:
    reach = max(float(np.abs(part).max(initial=0)) for part in values) or 1.0
    return np.linspace(-reach, reach, 61)
