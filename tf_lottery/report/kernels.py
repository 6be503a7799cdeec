"""Each kernel's mask as a picture, weight by weight: kept or pruned."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np

from tf_lottery.report.census import Level
from tf_lottery.report.style import SHADES, LeftOut, Picture, bare, short_names, spread
from tf_lottery.runs.folder import Folder

UNITS = 32  # of the first kernel, each with its window or its image
SIDE = 400  # rows and columns of another kernel
KERNELS = 4


def masks(run: Folder, levels: Sequence[Level]) -> Picture | LeftOut:
    """The masks of the last level's kernels, dark where a weight is kept; the first one's in the shape of the input."""
    title = "Each kernel's mask"
    pruned = [level for level in levels if level.density < 1]
    if not pruned:
        return LeftOut(title, "it needs the ticket of a pruned level")
    level = pruned[-1]
    ticket = run.ticket(level.replicates[0], level.level)
    paths = spread(list(level.kernels), KERNELS)
    pictures = {
        path: _picture(ticket.masks[path], ticket.found.get("input_shape") if not at else None)
        for at, path in enumerate(paths)
    }
    names = short_names(list(level.kernels))
    heights = [min(max(5.5 * picture.shape[0] / picture.shape[1], 0.8), 3.6) for picture, _ in pictures.values()]
    figure, panels = plt.subplots(
        len(paths), 1, figsize=(5.6, sum(heights) + 0.35 * len(paths)), squeeze=False, height_ratios=heights
    )
    for axes, path in zip(panels[:, 0], paths):
        picture, words = pictures[path]
        axes.imshow(picture, cmap=SHADES, vmin=-0.12, vmax=1.25, interpolation="nearest")
        bare(axes)
        mask = ticket.masks[path]
        axes.set_title(f"{names[path]}: {100 * mask.mean():.3g} % of {mask.size:,} weights{words}", fontsize=9)
    caption = (
        f"Which weights are kept (dark) at level {level.level}, where the network keeps {100 * ticket.density:.3g} %: replicate "
        f"{level.replicates[0]}; the first kernel's weights lie as the input does, one picture for each of its units, all others as a "
        "matrix of inputs (down) and outputs (across)."
    )
    return Picture("kernels", title, caption, figure)


def _picture(mask: np.ndarray, input_shape: Sequence[int] | None) -> tuple[np.ma.MaskedArray, str]:
    """A mask as a picture, and what of it is shown where that is not all."""
    windows = _windows(mask, input_shape)
    if windows is None:
        matrix = mask.reshape(-1, mask.shape[-1]) if mask.ndim > 1 else mask.reshape(-1, 1)
        if matrix.shape[0] > 1.5 * matrix.shape[1]:
            matrix, sides = matrix.T, "outputs down"
        else:
            sides = ""
        cut = matrix[:SIDE, :SIDE]
        said = [sides] if sides else []
        if cut.shape != matrix.shape:
            said.append(f"the first {cut.shape[0]} x {cut.shape[1]} of {matrix.shape[0]:,} x {matrix.shape[1]:,}")
        return np.ma.asarray(cut), f" ({', '.join(said)})" if said else ""
    shown = windows[..., :UNITS]
    words = f" (the first {UNITS} of {windows.shape[-1]} units)" if windows.shape[-1] > UNITS else ""
    return _tiled(shown), words


def _windows(mask: np.ndarray, input_shape: Sequence[int] | None) -> np.ndarray | None:
    """(height, width, units) of a kernel that lies on an image; None if it does not.

    Of several channels the first: all of them in one picture would be no 0 and 1.

    >>> _windows(np.ones((12, 5)), [2, 2, 3]).shape, _windows(np.ones((3, 3, 1, 8)), [28, 28, 1]).shape
    ((2, 2, 5), (3, 3, 8))
    """
    if not input_shape or len(input_shape) != 3:
        return None
    if mask.ndim == 4 and mask.shape[2] == input_shape[-1]:
        return mask[:, :, 0, :]
    if mask.ndim == 2 and math.prod(input_shape) == mask.shape[0]:
        return mask.reshape(*input_shape, mask.shape[1])[:, :, 0, :]
    return None


def _tiled(windows: np.ndarray) -> np.ma.MaskedArray:
    """(height, width, units) -> one picture, eight units wide, with gaps between them."""
    height, width, units = windows.shape
    gap = max(1, width // 14)
    across = min(8, units)
    down = -(-units // across)
    picture = np.full((down * (height + gap) - gap, across * (width + gap) - gap), -1)
    for unit in range(units):
        top, left = unit // across * (height + gap), unit % across * (width + gap)
        picture[top : top + height, left : left + width] = windows[:, :, unit]
    return np.ma.masked_less(picture, 0)
