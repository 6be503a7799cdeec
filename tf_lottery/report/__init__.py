"""Figures, a table and a page about a run, drawn from its result files alone.

What stands here, and after a colon the names that other rooms take from it:

    measured   figures of what was measured in training: accuracy and early stop against density, and curves
    checked    figures of tickets that were verified: their controls as bars, the lines to others as curves
    untrained  figures of untrained networks: masks that were learned, and masks by rule
    masks      figures of masks: where connections are kept, how alike replicates are
    kernels    each kernel's mask as a picture
    weights    figures of weights: initial against final, and the initial weights that survive
    trained    figures of trained weights: which a round kept, and which signs stay
    census     what the masks of a run are like, counted for the figures
    style      how figures look, and what one is
    table      the table: tickets by level, or learned masks
    page       the page that holds them all: About, plain, write
    study      the report of a study: write
    lines      lines of a study's combinations on axes
    results    runs side by side as data, for Python: `tfl.results`

TensorFlow is loaded only to draw recipes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt

from tf_lottery.base.errors import LotteryError
from tf_lottery.base.files import whole_file
from tf_lottery.report import census, checked, kernels, masks, measured, page, trained, untrained, weights
from tf_lottery.report.style import (
    COLOURS,
    STYLE,
    LeftOut,
    Picture,
    Series,
    density_axis,
    readable_range,
    save,
)
from tf_lottery.report.table import supermask_table, supermask_words, ticket_table
from tf_lottery.runs.folder import Folder
from tf_lottery.runs.outcome import by_level, verdict
from tf_lottery.runs.sound import Sound
from tf_lottery.runs.verified import read_sound

__all__ = ["COLOURS", "STYLE", "conclusion", "density_axis", "readable_range", "save", "series_of", "write"]

FEW = 3  # points that make no curve


def write(run: Folder, folder: Path, levels: Sequence[int] | None = None) -> list[Path]:
    """Draws what the run's files allow into `folder`.

    Args:
      run: A run, finished or not: a search, or learned supermasks.
      folder: Where to write; made if it is not there.
      levels: Levels whose training curves to draw; by default five, spread over those that have curves.

    Returns:
      The files written: the figures as PNG, `table.md`, and `index.html`, one page with all of it in it.

    Raises:
      LotteryError: If the run has no finished level.
    """
    run = Sound.of(run)
    with plt.rc_context(STYLE):
        if learned := run.supermasks():
            table, drawn = supermask_table(learned), _of_supermask(run, learned)
        else:
            series = series_of(run)
            table, drawn = ticket_table(series), _of_search(run, series, levels)
        pictures = [each for each in drawn if isinstance(each, Picture)]
        for picture in pictures:
            save(picture.figure, folder / f"{picture.name}.png")
    words = conclusion(run)
    with whole_file(folder / "table.md") as unfinished:
        remarks = [f"- {remark}\n" for remark in run.remarks()]
        unfinished.write_text("".join([f"{words}\n\n{table.markdown()}", *["\n"][: len(remarks)], *remarks]))
    left_out = [each for each in drawn if isinstance(each, LeftOut)]
    page.write(folder / "index.html", page.about(run, words), pictures, left_out, table)
    return [*(folder / f"{picture.name}.png" for picture in pictures), folder / "table.md", folder / "index.html"]


def conclusion(run: Folder) -> str:
    """One sentence: what the run has found."""
    if learned := run.supermasks():
        return supermask_words(learned)
    (_, levels), *branches = series_of(run)
    return verdict(levels, dict(branches), run.settings() if run.spec() else {})


def series_of(run: Folder) -> Series:
    """The levels of the run and of its branches that have been measured."""
    series = [("ticket", by_level(run.summary()))]
    series += [(branch.name.replace("_", " "), by_level(branch.summary())) for branch in run.branches()]
    if not series[0][1]:
        raise LotteryError(f"Expected a run with a finished level, but {run.folder} has none.")
    return [(name, levels) for name, levels in series if levels]


def _of_search(run: Folder, series: Series, levels: Sequence[int] | None) -> list[Picture | LeftOut]:
    curves = measured.curves(run, levels) or LeftOut("Training", "the run keeps no curves")
    whole = [
        (name, [level for level in levels if level.in_full]) for name, levels in series
    ]  # short ones are no tickets
    if sum(len(levels) for _, levels in whole) <= FEW:
        few = "so few points make no curve, they stand in the table"
        before: list[Picture | LeftOut] = [LeftOut("Accuracy and early stop against density", few)]
        after: list[Picture | LeftOut] = []
    else:
        before = [measured.against_density(whole, name) for name in ("accuracy", "early_stop")]
        after = [measured.against_density(whole, "final_accuracy")]
    drawn = [*before, curves, *after]
    verified, damaged = read_sound(run)
    drawn += [*checked.pictures(verified), *(LeftOut("A ticket and its controls", each) for each in damaged)]
    if rule := run.rule():
        drawn.append(untrained.by_rule(rule))
    counted = census.take(run)
    if not any(level.density < 1 for level in counted):
        why = "the run has no tickets of pruned levels; a copy of its tables alone has none"
        return [*drawn, LeftOut("Figures of masks and weights", why)]
    return [
        *drawn,
        masks.layer_densities(counted),
        masks.first_layer(counted),
        kernels.masks(run, counted),
        weights.scatter(run, counted),
        trained.trained(run, counted),
        weights.survivors(run, counted),
        trained.signs(run, counted),
        masks.overlaps(counted),
        masks.connected_units(counted),
    ]


def _of_supermask(run: Folder, rows: Sequence[Mapping[str, float]]) -> list[Picture | LeftOut]:
    drawn = [untrained.learning(run, rows) or LeftOut("Learning the mask", "the run keeps no curves")]
    counted = census.take(run)
    if not counted:
        return [
            *drawn,
            LeftOut("Figures of masks and weights", "the run has no tickets; a copy of its tables alone has none"),
        ]
    return [
        *drawn,
        masks.layer_densities(counted),
        masks.first_layer(counted),
        kernels.masks(run, counted),
        weights.survivors_of_masks(run, counted[0]),
        masks.overlaps(counted),
        masks.connected_units(counted),
    ]
