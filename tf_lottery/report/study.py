"""The report of a study: figures of all its combinations, a ranking, one table, and a page with all of it in it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tf_lottery.base.files import whole_file
from tf_lottery.report import lines, page
from tf_lottery.report.style import COLOURS, STYLE, LeftOut, Picture, legend_above, line_look, save
from tf_lottery.runs import comparison
from tf_lottery.runs.comparison import TEST, Combination, Standing
from tf_lottery.runs.study import Study, text

LINES = len(COLOURS)  # in one panel: more cannot be told apart
PANELS = 6
RANKED = 40
FIGURES = {
    "accuracy": ("density", TEST, "Accuracy against density", "Test accuracy at the step of least validation loss"),
    "early_stop": ("density", "early_stop_step", "Early stop against density", "The step of least validation loss"),
    "accuracy_by_trainings": (
        "trainings",
        TEST,
        "Accuracy against what was spent",
        "Test accuracy at early stop against the trainings that a ticket cost, its own included",
    ),
    "final_accuracy": (
        "density",
        "final_test_accuracy",
        "Accuracy at the end of training",
        "Test accuracy after the last training step",
    ),
}


def write(study: Study, folder: Path, densities: Sequence[float] = ()) -> list[Path]:
    """Draws a study into `folder`.

    Args:
      study: The study.
      folder: Where to write; made if it is not there.
      densities: Those that the table and the ranking are about; by default each combination's best ticket.

    Returns:
      The files written: the figures as PNG, `table.md`, and `index.html`, one page with all of it in it.
    """
    shown = comparison.table(study, densities)
    words = comparison.sentence(study, densities[0] if densities else None)
    remarks = comparison.remarks(study, densities)
    with plt.rc_context(STYLE):
        drawn = [ranked(study, densities[0] if densities else None), *_curves(study)]
        pictures = [each for each in drawn if isinstance(each, Picture)]
        for picture in pictures:
            save(picture.figure, folder / f"{picture.name}.png")
    with whole_file(folder / "table.md") as unfinished:
        said = [f"- {remark}\n" for remark in remarks]
        unfinished.write_text("".join([f"{words}\n\n{shown.markdown()}\n{shown.note}\n", *["\n"][: len(said)], *said]))
    left_out = [each for each in drawn if isinstance(each, LeftOut)]
    about = page.About(study.name, _what(study), words, remarks, _settings(study))
    every = {"Every level": comparison.levels(study)}
    page.write(folder / "index.html", about, pictures, left_out, shown, every, "The ranking in numbers")
    return [*(folder / f"{picture.name}.png" for picture in pictures), folder / "table.md", folder / "index.html"]


def _curves(study: Study) -> list[Picture | LeftOut]:
    every = comparison.combinations(study)
    panels, drawn = _arranged(study, every)
    found: list[Picture | LeftOut] = []
    for name, (x, y, title, measured) in FIGURES.items():
        told = any(each.statistic(level, x) for each in every for level in each.levels)
        if told and max(len(each.levels) for each in every) < 3:
            found.append(LeftOut(title, "no combination has three levels; the table says it all"))
        else:
            found.append(_figure(study, panels, drawn < len(every), x, y, name, title, measured))
    return found


def _arranged(study: Study, every: Sequence[Combination]) -> tuple[list[tuple[str, list[Combination]]], int]:
    """The combinations of each panel, with its title: a panel for each value of all flags but the one with most values.

    Where those would be too many, one panel with the first in the ranking.
    """
    flags = list(every[0].values)
    if len(flags) > 1:
        counts = {flag: len({repr(each.values[flag]) for each in every}) for flag in flags}
        most = max((flag for flag in flags if counts[flag] <= LINES), key=lambda flag: counts[flag], default=None)
        others = [flag for flag in flags if flag != most]
        panels: dict[str, list[Combination]] = {}
        for each in every:
            title = ", ".join(text(flag, each.values[flag]) for flag in others)
            panels.setdefault(title, []).append(replace(each, values={most: each.values[most]}) if most else each)
        if most and len(panels) <= PANELS:
            return list(panels.items()), len(every)
    if len(every) <= LINES:
        return [("", list(every))], len(every)
    first = [standing.combination for standing in comparison.ranking(study)[:LINES]]
    return [("", first)], len(first)


def _figure(
    study: Study,
    panels: Sequence[tuple[str, Sequence[Combination]]],
    part: bool,
    x: str,
    y: str,
    name: str,
    title: str,
    measured: str,
) -> Picture | LeftOut:
    names = list(dict.fromkeys(each.name for _, own in panels for each in own))
    small = {"linewidth": 1.2, "markersize": 3} if len(panels) > 1 else {}
    looks = {each: {**line_look(i), **small} for i, each in enumerate(names)}
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    size = (5.6, 3.9) if len(panels) == 1 else (5.6, 0.8 + 2.5 * rows)
    figure, grid = plt.subplots(rows, columns, figsize=size, sharey=True, squeeze=False)
    ends = []
    for axes, (heading, own) in zip(grid.flat, panels):
        if lines.draw(axes, own, x, y, looks, few=len(panels) > 1):
            ends.append(axes.get_ylim())
        axes.set_title(heading, fontsize=10)
        if len(panels) > 1:
            axes.tick_params(labelsize=9)
            axes.xaxis.label.set_size(9)
            axes.set_ylabel("")
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    if not ends:
        plt.close(figure)
        return LeftOut(title, f"no run tells its {x if x == 'trainings' else y.replace('_', ' ')}")
    grid[0, 0].set_ylim(min(low for low, _ in ends), max(high for _, high in ends))
    if len(panels) > 1:
        figure.supylabel(lines.LABELS[y], fontsize=10)
    _legend(figure, names, looks, study)
    counts = sorted({each.replicates for _, own in panels for each in own})
    several = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    spoken = (
        f"mean of {several} replicates, with a band from the lowest to the highest"
        if counts[-1] > 1
        else "one replicate"
    )
    bottom = grid[0, 0].get_ylim()[0]
    if any(min(line.get_ydata(), default=bottom) < bottom for axes in grid.flat for line in axes.get_lines()):
        spoken += "; points that have collapsed lie below the axis"
    which = f"the first {len(names)} of the ranking" if part else "all combinations"
    against = "" if "against" in measured else " against the share of weights kept"
    return Picture(name, title, f"{measured}{against}, of {which}: {spoken}.", figure)


def _legend(figure: Figure, names: Sequence[str], looks: Mapping[str, Mapping[str, Any]], study: Study) -> None:
    if len(names) < 2:
        return
    handles = [Line2D([], [], label=name, **looks[name]) for name in names]
    longest = max(map(len, names))
    legend_above(figure, None, columns=max(1, min(4, 60 // (longest + 6))), handles=handles, fontsize=9)


def ranked(study: Study, density: float | None = None) -> Picture | LeftOut:
    """The ranking: differences in test accuracy to the first, with their intervals."""
    title = "Ranking"
    order = comparison.ranking(study, density)
    if len(order) < 2:
        return LeftOut(title, "there is nothing to compare")
    shown = order[:RANKED]
    figure, axes = plt.subplots(figsize=(5.6, 1.0 + 0.25 * len(shown)))
    axes.axvline(0, color="0.5", linewidth=1, linestyle="--")
    single, cut = False, False
    for place, standing in enumerate(shown):
        found = standing.to_best
        if found is None:
            axes.plot(0, place, marker="D" if place == 0 else "", color=COLOURS[0], markersize=6)
            continue
        apart, single = found.told_apart, single or found.seeds == 1
        reach = 0 if found.seeds == 1 else 100 * (found.high - found.mean)
        axes.errorbar(
            100 * found.mean,
            place,
            xerr=reach or None,
            marker="o",
            color="0.45" if apart else COLOURS[0],
            markerfacecolor="0.45" if apart else "white",
            capsize=2,
        )
    axes.set_yticks(range(len(shown)), [_short(standing) for standing in shown], fontsize=9)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    figure.supxlabel("test accuracy: points to the first of the ranking", fontsize=10)
    low, high = _reach(shown)
    axes.set_xlim(low, high)
    for place, found in enumerate(standing.to_best for standing in shown):
        if found is None:
            continue
        colour = "0.45" if found.told_apart else COLOURS[0]
        for end, beyond, sign in ((low, 100 * found.low < low, "<"), (high, 100 * found.high > high, ">")):
            if beyond:
                axes.plot(end, place, sign, color=colour, markersize=6, clip_on=False)
                cut = True
    at = "at its best ticket" if density is None else f"at the level next to {100 * density:.3g} % of the weights"
    first = f", the first {RANKED} of {len(order)}" if len(order) > RANKED else ""
    bars = (
        "one seed, which tells nothing apart"
        if single
        else "bars are intervals of 95 % of paired differences over the same seeds"
    )
    caption = (
        f"Each combination {at}, ranked by {'validation' if comparison.judge([s.combination for s in order]) != TEST else 'test'} accuracy"
        f"{first}, and its difference to the first in test accuracy: {bars}, open circles are not told apart from it"
        f"{'; where an arrow stands, a bar goes on' if cut else ''}."
    )
    return Picture("ranking", title, caption, figure)


def _short(standing: Standing) -> str:
    density = standing.statistic("density")
    return f"{standing.combination.name} ({100 * density.mean:.3g} %)" if density else standing.combination.name


def _reach(shown: Sequence[Standing]) -> tuple[float, float]:
    """The ends of the axis: all means, and intervals as far as they leave the others readable."""
    means = [100 * each.to_best.mean for each in shown if each.to_best] or [0.0]
    low, high = min(0.0, *means), max(0.0, *means)
    room = max(3 * (high - low), 0.2)
    ends = [
        100 * end
        for each in shown
        if each.to_best and each.to_best.seeds > 1
        for end in (each.to_best.low, each.to_best.high)
    ]
    low, high = max(min([low, *ends]), low - room), min(max([high, *ends]), high + room)
    margin = 0.06 * (high - low) or 0.2
    return low - margin, high + margin


def _what(study: Study) -> str:
    """What was compared on what, in words."""
    shared = study.entries[0].settings
    on = " on ".join(str(shared[key]) for key in ("model", "dataset") if shared.get(key) and key not in study.varying)
    flags = " and ".join(study.flags) if len(study.flags) < 3 else ", ".join(study.flags)
    return f"{on or 'Runs'}: {len(study.entries)} runs by {flags}" if study.flags else on or "A run of tf-lottery"


def _settings(study: Study) -> dict[str, str]:
    """What all runs have in common, and what they are called."""
    first = study.entries[0].settings
    same = {key: value for key, value in first.items() if key not in study.varying and key in _common(study)}
    values = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in same.items()
        if value not in (None, [], {})
    }
    return {**values, "runs": ", ".join(dict.fromkeys(entry.name for entry in study.entries))}


def _common(study: Study) -> set[str]:
    first = study.entries[0].settings
    return {
        key for key, value in first.items() if all(entry.settings.get(key, value) == value for entry in study.entries)
    }
