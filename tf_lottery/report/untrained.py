"""Figures of untrained networks: masks that were learned, and masks by rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt

from tf_lottery.report.style import COLOURS, MARKERS, Picture, banded, density_axis, legend_above, some, thousands
from tf_lottery.runs.folder import Folder
from tf_lottery.runs.outcome import Statistic, best_by_rule

NAMED = 6  # criteria with a colour of their own; the others are grey


def learning(run: Folder, rows: Sequence[Mapping[str, float]]) -> Picture | None:
    """Test accuracy while the masks are learned, a line for each replicate; None without curves."""
    figure, axes = plt.subplots()
    last = 0.0
    for row, colour, marker in zip(rows, cycle(COLOURS), cycle(MARKERS)):
        curve = [at for at in run.curve(int(row["replicate"]), 0) or () if at["test_accuracy"] is not None]
        if not curve:
            continue
        steps = [at["step"] for at in curve]
        last = max(last, steps[-1])
        label = f"replicate {row['replicate']:.0f}: {100 * row['density']:.3g} % kept"
        values = [100 * at["test_accuracy"] for at in curve]
        axes.plot(steps, values, color=colour, marker=marker, markevery=some(values), label=label)
    if not last:
        plt.close(figure)
        return None
    sampled = [row for row in rows if row["sampled_accuracy"] is not None]
    for i, (row, colour, marker) in enumerate(zip(sampled, cycle(COLOURS), cycle(MARKERS))):
        mean, low, high = (100 * row[f"sampled_accuracy{end}"] for end in ("", "_low", "_high"))
        bar = [[mean - low], [high - mean]]
        axes.errorbar(
            [(1.03 + 0.03 * i) * last],
            [mean],
            bar,
            color=colour,
            marker=marker,
            mfc="white",
            markersize=6,
            capsize=3,
            clip_on=False,
        )
    axes.set_xlim(0, (1.05 + 0.03 * len(sampled)) * last)
    thousands(axes.xaxis)
    axes.set_xlabel("training step of the mask")
    axes.set_ylabel("test accuracy, weights untrained (%)")
    legend_above(figure, columns=2)
    caption = "Accuracy on the test set of the untrained weights under the mask of each step" + (
        "; at the right mean, least and largest over masks that were sampled at the end." if sampled else "."
    )
    return Picture("learning", "Learning the mask", caption, figure)


def by_rule(rows: Sequence[Mapping[str, Any]]) -> Picture:
    """Accuracy of untrained networks against density, a line for each criterion: weights as drawn, and signed constants."""
    constants = sorted({row["signed_constant"] for row in rows})
    figure, panels = plt.subplots(
        len(constants), 1, figsize=(5.6, 1.4 + 2.7 * len(constants)), squeeze=False, sharex=True
    )
    means = {
        name: Statistic.of([row["test_accuracy"] for row in best]).mean for name, best in best_by_rule(rows).items()
    }
    ranked = sorted(means, key=lambda name: -means[name])
    first, last = _happening(rows)
    beyond = {row["density"] for row in rows} - {row["density"] for row in rows if first <= row["density"] <= last}
    rows = [row for row in rows if first <= row["density"] <= last]
    for axes, constant in zip(panels[:, 0], constants):
        for name in reversed(ranked):
            at: dict[float, list[float]] = {}
            for row in rows:
                if row["criterion"] == name and row["signed_constant"] == constant:
                    at.setdefault(row["density"], []).append(100 * row["test_accuracy"])
            place = ranked.index(name)
            look: dict[str, Any] = (
                {"color": COLOURS[place], "marker": MARKERS[place], "label": name} if place < NAMED else {}
            )
            look = look or {"color": "0.75", "linewidth": 0.8, "label": "the others" if place == NAMED else None}
            x = sorted(at)
            if x:
                banded(axes, [100 * density for density in x], [Statistic.of(at[density]) for density in x], **look)
        axes.set_ylabel("test accuracy, untrained (%)")
        axes.set_title("signed constants" if constant else "weights as drawn", fontsize=10)
        axes.set_ylim(bottom=0)
    density_axis(panels[-1, 0], [100 * row["density"] for row in rows])
    handles = dict(zip(*reversed(panels[0, 0].get_legend_handles_labels())))
    order = [name for name in (*ranked[:NAMED], "the others") if name in handles]
    legend_above(figure, columns=2, handles=[handles[name] for name in order], fontsize=9)
    many = len({row["replicate"] for row in rows})
    caption = (
        "Accuracy on the test set of the untrained weights under masks that criteria choose from the dense network, against the share of "
        f"weights kept, the best {min(NAMED, len(ranked))} criteria with names: "
        f"{f'mean, min and max of {many} replicates' if many > 1 else 'one replicate'}."
    )
    if beyond:
        caption = f"{caption[:-1]}; at the other {len(beyond)} densities nothing is far above chance."
    return Picture("by_rule", "Masks by rule", caption, figure)


def _happening(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """The least and the largest density between which some mask is well above guessing, with one more at each end.

    Guessing is what half of all masks do no better than, or nearly so.
    """
    densities = sorted({row["density"] for row in rows})
    accuracies = sorted(row["test_accuracy"] for row in rows)
    guessing, best = accuracies[len(accuracies) // 4], accuracies[-1]
    above = [row["density"] for row in rows if row["test_accuracy"] > guessing + 0.15 * (best - guessing)]
    if not above:
        return densities[0], densities[-1]
    first, last = densities.index(min(above)), densities.index(max(above))
    return densities[max(first - 1, 0)], densities[min(last + 1, len(densities) - 1)]
