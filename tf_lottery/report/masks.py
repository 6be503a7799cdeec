"""Figures of masks: where connections are kept, how alike replicates are, which units lost all of theirs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from tf_lottery.report.census import Level, empty_kernels, is_convolution
from tf_lottery.report.style import (
    SHADES,
    LeftOut,
    Picture,
    banded,
    bare,
    density_axis,
    kernel_looks,
    legend_above,
    log_plain,
    short_names,
    spread,
)
from tf_lottery.runs.outcome import Statistic

ROWS = 3  # replicates in a picture of masks
FILTERS = 32  # of a convolution, in its picture
ALIKE = 0.01  # densities that differ by no more, relative to the larger, are the same line


def layer_densities(levels: Sequence[Level]) -> Picture | LeftOut:
    """The density of each kernel against that of the whole network."""
    title = "Layer by layer"
    if all(max(at) - min(at) <= ALIKE * max(at) for level in levels for at in zip(*level.kernels.values())):
        return LeftOut(title, "at every level all kernels keep the same share of their weights, to a hundredth of it")
    figure, axes = plt.subplots()

    def draw(axes: Axes, path: str, look: dict) -> None:
        _line(axes, levels, lambda level: [100 * density for density in level.kernels[path]], look)

    _for_each_kernel(figure, levels, draw)
    if len(levels) > 1 and not empty_kernels(levels):
        log_plain(axes)
    else:
        axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
    axes.set_ylabel("weights remaining in the kernel (%)")
    where = f"of level {levels[0].level}" if len(levels) == 1 else "and drawn against that of the whole network"
    caption = (
        f"The share of weights that each kernel keeps, counted in the tickets' masks {where}: {_replicates(levels)}."
    )
    return Picture("layer_density", title, caption, figure)


def connected_units(levels: Sequence[Level]) -> Picture:
    """The share of each kernel's units that keep a connection in it."""
    figure, panels = plt.subplots(2, 1, figsize=(5.6, 5.6), sharex=True, sharey=True)
    sides = {"outputs": "output units that receive (%)", "inputs": "input units that send (%)"}
    shares = [
        100 * share for level in levels for kernel in level.connected.values() for each in kernel for share in each
    ]

    def draw(axes: Axes, path: str, look: dict) -> None:
        side = list(sides)[list(panels).index(axes)]
        _line(axes, levels, lambda level: [100 * getattr(each, side) for each in level.connected[path]], look)

    _for_each_kernel(figure, levels, draw)
    for axes, label in zip(panels, sides.values()):
        axes.set_ylabel(label)
    bottom = min(*shares, 90)
    margin = 0.05 * (100 - bottom)
    axes.set_ylim(bottom - margin, 100 + margin)
    empty = empty_kernels(levels)
    names = short_names(list(levels[0].kernels))
    if empty:
        path, replicate, level = empty[0]
        verdict = (
            f"{names[path]} keeps none at level {level} of replicate {replicate}, where nothing passes it any more"
            + (f", and so do {len(empty) - 1} more." if len(empty) > 1 else ".")
        )
    else:
        verdict = "no kernel is empty."
    caption = (
        "The share of each kernel's output units that still receive, and of its input units that still send, at least one kept "
        f"weight, counted in the masks ({_replicates(levels)}): {verdict}"
    )
    return Picture("connected", "Connected units", caption, figure)


def overlaps(levels: Sequence[Level]) -> Picture | LeftOut:
    """Kept weights that two replicates share, as a multiple of chance."""
    title = "Overlap of replicates"
    drawn = [level for level in levels if len(level.replicates) > 1]
    if not drawn:
        return LeftOut(title, "it needs the tickets of two replicates")
    figure, axes = plt.subplots()

    def draw(axes: Axes, path: str, look: dict) -> None:
        at = [level for level in drawn if not np.isnan(level.overlap[path]).any()]
        if at:
            _line(axes, at, lambda level: level.overlap[path], look)

    axes.axhline(1, color="0.5", linestyle="--", linewidth=1, label="chance")
    _for_each_kernel(figure, drawn, draw)
    top = max(axes.get_ylim()[1], 1.2)
    axes.set_ylim(min(axes.get_ylim()[0], 0.8), top)
    axes.set_ylabel("weights kept in common,\nas a multiple of chance")
    pairs = max(math.comb(len(level.replicates), 2) for level in drawn)
    caption = (
        "Weights that the masks of two replicates both keep, position by position, divided by what two random masks of the same "
        f"densities share on average: {f'mean, min and max of {pairs} pairs' if pairs > 1 else 'one pair'} of replicates."
    )
    return Picture("overlap", title, caption, figure)


def first_layer(levels: Sequence[Level]) -> Picture | LeftOut:
    """The first kernel's mask in the shape of the input: an image, a strip, or the windows of a convolution."""
    title = "The first layer"
    if any(level.kept_by_input is None for level in levels):
        return LeftOut(title, "the first kernel's shape does not tell how it lies on the input")
    pruned = [level for level in levels if level.density < 1] or list(levels)
    if is_convolution(pruned[0]):
        return _windows(pruned, title)
    return _images(pruned, title) if pruned[0].kept_by_input[0].ndim == 2 else _strip(pruned, title)


def _images(levels: Sequence[Level], title: str) -> Picture:
    """A picture of the input for each of some levels and replicates."""
    chosen = spread(levels, 4)
    shown = min(ROWS, *(len(level.replicates) for level in chosen))
    rows, columns = (
        (shown, len(chosen)) if len(chosen) > 1 else (1, shown)
    )  # replicates side by side if there is one level
    figure, panels = plt.subplots(
        rows, columns, figsize=(5.6, 1.3 * rows + (1.0 if len(chosen) > 1 else 2.0)), squeeze=False
    )
    for at, level in enumerate(chosen):
        own = list(panels[:, at] if len(chosen) > 1 else panels[0])
        most = max(1, *(picture.max() for picture in level.kept_by_input[:shown]))
        for axes, picture, replicate in zip(own, level.kept_by_input, level.replicates):
            image = axes.imshow(picture, cmap=SHADES, vmin=0, vmax=most)
            bare(axes)
            if len(chosen) == 1:
                axes.set_title(f"replicate {replicate}", fontsize=10)
            elif at == 0:
                axes.set_ylabel(f"replicate {replicate}", fontsize=9)
        if len(chosen) > 1:
            own[0].set_title(f"{100 * level.density:.3g} %", fontsize=10)
        bar = figure.colorbar(
            image, ax=own, location="bottom", aspect=12, shrink=0.85 / len(own) ** (rows == 1), pad=0.03
        )
        bar.set_ticks([0, most])
        bar.outline.set_visible(False)
    middle, border = _middle_and_border(chosen[-1].kept_by_input)
    caption = (
        "Connections that each pixel of the input keeps in the first layer's mask, dark for many, by the share of weights kept"
        f"{' and replicate' if shown > 1 else ''}: at {100 * chosen[-1].density:.3g} % the middle quarter of the picture keeps "
        f"{middle:.3g} connections a pixel and the rest {border:.3g}, {_mean_of(len(chosen[-1].replicates))}."
    )
    return Picture("first_layer", title, caption, figure)


def _middle_and_border(pictures: Sequence[np.ndarray]) -> tuple[float, float]:
    mean = np.mean(pictures, axis=0)
    inside = np.zeros(mean.shape, bool)
    inside[tuple(slice(side // 4, side - side // 4) for side in mean.shape)] = True
    return float(mean[inside].mean()), float(mean[~inside].mean())


def _strip(levels: Sequence[Level], title: str) -> Picture:
    """A row for each level: the connections of every position of the input, over their mean."""
    rows = []
    for level in levels:
        mean = np.mean(level.kept_by_input, axis=0)
        rows.append(mean / max(mean.mean(), 1e-9))
    figure, axes = plt.subplots(figsize=(5.6, min(2.6 + 0.15 * len(rows), 5)))
    shown = axes.imshow(rows, cmap=SHADES, aspect="auto", interpolation="nearest")
    axes.grid(False)
    labelled = spread(range(len(levels)), 9)
    axes.set_yticks(labelled, [f"{100 * levels[i].density:.3g}" for i in labelled])
    axes.set_xlabel("position in the input")
    axes.set_ylabel("weights remaining (%)")
    bar = figure.colorbar(shown, ax=axes, pad=0.02, label="connections, over their mean")
    bar.outline.set_visible(False)
    caption = (
        "Connections that each position of the input keeps in the first layer's mask, over the mean of all positions, dark for "
        f"many, by the share of weights kept: {_replicates(levels)}."
    )
    return Picture("first_layer", title, caption, figure)


def _windows(levels: Sequence[Level], title: str) -> Picture:
    """The filters of a convolution for some levels, one window each."""
    chosen = spread(levels, 3)
    figure, panels = plt.subplots(1, len(chosen), figsize=(5.6, 3.2), squeeze=False)
    for axes, level in zip(panels[0], chosen):
        shown = axes.imshow(_montage(level.kept_by_input[0][:, :, :FILTERS]), cmap=SHADES, vmin=0)
        bare(axes)
        axes.set_title(f"{100 * level.density:.3g} %", fontsize=10)
        bar = figure.colorbar(shown, ax=axes, location="bottom", aspect=12, shrink=0.85, pad=0.03)
        bar.set_ticks([0, int(shown.get_array().max())])
        bar.outline.set_visible(False)
    filters = levels[0].kept_by_input[0].shape[-1]
    which = f"the first {FILTERS} of {filters}" if filters > FILTERS else f"the {filters}"
    caption = (
        f"The windows of {which} filters of the first convolution, dark where more of the input's channels are kept, by the share "
        f"of weights kept in the whole network: masks of replicate {levels[0].replicates[0]}."
    )
    return Picture("first_layer", title, caption, figure)


def _montage(windows: np.ndarray) -> np.ma.MaskedArray:
    """(height, width, filters) -> one picture, four filters wide, with gaps between them."""
    height, width, filters = windows.shape
    rows = -(-filters // 4)
    picture = np.full((rows * (height + 1) - 1, 4 * (width + 1) - 1), -1)
    for i in range(filters):
        top, left = (i // 4) * (height + 1), (i % 4) * (width + 1)
        picture[top : top + height, left : left + width] = windows[:, :, i]
    return np.ma.masked_less(picture, 0)


def _for_each_kernel(figure, levels: Sequence[Level], draw: Callable[[Axes, str, dict], None]) -> None:
    """In each panel lines against density, with one legend; of a single level a point for each kernel, side by side."""
    paths = list(levels[0].kernels)
    looks = kernel_looks(paths)
    bottom = figure.axes[-1]
    if len(levels) > 1:
        for axes in figure.axes:
            for path in paths:
                draw(axes, path, dict(looks[path]))
        density_axis(bottom, [100 * level.density for level in levels])
        legend_above(figure, handles=bottom.get_legend_handles_labels()[0], fontsize=9)
        return
    for axes in figure.axes:
        for at, path in enumerate(paths):
            draw(axes, path, {**looks[path], "marker": looks[path]["marker"] or ".", "at": at})
        axes.grid(False, axis="x")
    names, labelled = short_names(paths), spread(range(len(paths)), 6)
    bottom.set_xticks(labelled, [names[paths[i]] for i in labelled], rotation=0 if len(paths) <= 4 else 20)
    bottom.set_xlim(-0.5, len(paths) - 0.5)
    if handles := bottom.get_legend_handles_labels()[0]:  # chance
        legend_above(figure, handles=handles, fontsize=9)


def _line(axes: Axes, levels: Sequence[Level], of: Callable[[Level], list[float]], look: dict) -> None:
    """Mean with a band from the smallest to the largest; of a single level a point with a bar."""
    values = [Statistic.of(of(level)) for level in levels]
    if "at" not in look:
        banded(axes, [100 * level.density for level in levels], values, **look)
        return
    own = {key: value for key, value in look.items() if key not in ("at", "label", "linewidth", "linestyle")}
    (value,) = values
    axes.errorbar(
        [look["at"]],
        [value.mean],
        [[value.mean - value.low], [value.high - value.mean]],
        capsize=3,
        linestyle="",
        **{**own, "markersize": 7},
    )


def _replicates(levels: Sequence[Level]) -> str:
    most, there = max(len(level.replicates) for level in levels), max(level.there for level in levels)
    some = f"the first {most} of {there}" if there > most else f"{most}"
    return f"mean, min and max of {some} replicates" if most > 1 else "one replicate"


def _mean_of(replicates: int) -> str:
    return f"mean of {replicates} replicates" if replicates > 1 else "one replicate"
