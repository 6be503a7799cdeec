"""The tables and the figure of docs/cost.md, from what `cost.py` measured.

python benchmarks/cost_page.py        # writes docs/results/cost/cost.png and the measured part of docs/cost.md
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from pathlib import Path

import cost
import matplotlib.pyplot as plt
from matplotlib.lines import Line2D

from tf_lottery.base.files import whole_file
from tf_lottery.report import style

PAGE = Path(__file__).parents[1] / "docs" / "cost.md"
BEGIN, END = "<!-- written by benchmarks/cost_page.py -->\n", "<!-- end -->"
TITLES = {
    "lenet_mnist": "LeNet-300-100 on MNIST, 12,000 steps a training",
    "mlp_mnist1d": "Residual MLP on MNIST-1D, 1,500 steps a training",
    "conv_mnist": "A small convolutional network on MNIST, 2,000 steps a training",
    "conv2_cifar10": "Conv-2 on CIFAR-10, 10,000 steps a training, on an H200",
    "resnet18_cifar10": "ResNet-18 on CIFAR-10, 30,000 steps a training, on a GPU",
}
FAMILIES = {  # label in the figure -> marker, line, roads, cheapest first
    "a budget": ("*", "", ["budget_1.5", "budget_2", "budget_3"]),
    "few short levels": ("o", "-", ["short_1.5", "short_2", "short_2.5", "short_3", "short_5"]),
    "full search": ("s", "", ["full"]),
    "gradual, rewound": ("D", "--", ["gradual", "gradual_in_all"]),
    "gradual, the sparse network itself": ("^", ":", ["gradual: itself", "gradual_in_all: itself"]),
    "one shot": ("v", "", ["one_shot"]),
    "RigL, sparse from the start": ("P", "-.", ["regrow", "regrow_3"]),
    "SNIP": ("X", "", ["snip"]),
}

Cells = dict[tuple[str, float], list[dict[str, str]]]  # (road, density asked for) -> a row for each replicate


def cells_of(problem: str) -> Cells:
    cells: Cells = defaultdict(list)
    for row in cost.rows(cost.RESULTS / f"{problem}.csv"):
        cells[row["road"], float(row["asked"])].append(row)
    return cells


def accuracies(rows: list[dict[str, str]]) -> list[float]:
    return [100 * float(row["early_stop_test_accuracy"]) for row in rows]


def place_of(road: str) -> tuple[int, str]:
    """In the order of `cost.ROADS`, each with its controls."""
    name, _, control = road.partition(": ")
    return list(cost.ROADS).index(name), control


def label_of(road: str) -> str:
    name, _, control = road.partition(": ")
    if name == "dense":
        return "the dense network"
    if control == "itself":
        return f"{cost.ROADS[name].label}, the sparse network itself"
    controls = {"new weights": ", its mask with new weights", "mask shuffled": ", its mask shuffled within layers"}
    return cost.ROADS[name].label + controls.get(control, "")


def table(problem: str) -> list[str]:
    """Mean and range for each road and density, with what it cost."""
    cells, densities = cells_of(problem), list(cost.PROBLEMS[problem].levels)
    dense = cells["dense", 1.0]
    lines = ["| road | " + " | ".join(f"trainings | {100 * density:.3g} %" for density in densities) + " |"]
    lines.append("|---|" + "--:|--:|" * len(densities))
    for road in sorted({road for road, _ in cells if road != "dense"}, key=place_of):
        parts = []
        for density in densities:
            rows = cells.get((road, density), [])
            parts += [f"{float(rows[0]['trainings']):.3g}", told(rows)] if rows else ["", ""]
        lines.append(f"| {label_of(road)}{replicates(problem, road)} | " + " | ".join(parts) + " |")
    count = cost.PROBLEMS[problem].replicates
    caption = f"Test accuracy in percent at early stop, means of {count} replicates (smallest to largest), and after the slash at the end. "
    caption += f"The dense network, one training: {told(dense)}."
    return [f"### {TITLES[problem]}", "", caption, "", *lines, ""]


def told(rows: list[dict[str, str]]) -> str:
    found = accuracies(rows)
    end = statistics.mean(100 * float(row["final_test_accuracy"]) for row in rows)
    return f"{statistics.mean(found):.2f} ({min(found):.2f}-{max(found):.2f}) / {end:.2f}"


def replicates(problem: str, road: str) -> str:
    """A remark where a road has fewer replicates than the problem."""
    count = min(len(rows) for (name, _), rows in cells_of(problem).items() if name == road)
    return "" if count >= cost.PROBLEMS[problem].replicates else f" ({count} replicate{'s' * (count > 1)})"


def figure(problems: list[str]) -> None:
    """Accuracy against trainings, a colour for each density, the dense network as a band."""
    with plt.rc_context(style.STYLE):
        drawing, panels = plt.subplots(len(problems), 1, figsize=(6.4, 3.6 * len(problems)), squeeze=False)
        for axes, problem in zip(panels[:, 0], problems):
            draw(axes, problem)
        looks = [Line2D([], [], color="0.3", **look_of(name), label=name) for name in FAMILIES]
        style.legend_above(drawing, handles=looks, columns=2)
        style.save(drawing, cost.RESULTS / "cost.png")


def draw(axes, problem: str) -> None:
    cells = cells_of(problem)
    dense = accuracies(cells["dense", 1.0])
    axes.axhspan(min(dense), max(dense), color="0.85", zorder=0)
    axes.annotate("dense", (0.01, statistics.mean(dense)), xycoords=("axes fraction", "data"), ha="left", va="center")
    for colour, density in zip(style.COLOURS, cost.PROBLEMS[problem].levels):
        points = {
            family: [(float(rows[0]["trainings"]), statistics.mean(accuracies(rows))) for rows in found]
            for family, (*_, roads) in FAMILIES.items()
            if (found := [cells[road, density] for road in roads if (road, density) in cells])
        }
        if {"few short levels", "full search"} <= set(points):  # the end of the same curve: more levels, longer ones
            points["few short levels"] = points["few short levels"] + points["full search"]
        for family, own in points.items():
            axes.plot(*zip(*own), color=colour, **look_of(family))
        axes.plot([], [], color=colour, linewidth=4, label=f"{100 * density:.3g} % of the weights")
    axes.set_xscale("log")
    axes.set_xticks([0.25, 0.5, 1, 1.5, 2, 3, 5, 8, 16], ["0.25", "0.5", "1", "1.5", "2", "3", "5", "8", "16"])
    axes.minorticks_off()
    axes.set(xlabel="trainings", ylabel="test accuracy at early stop (%)", title=TITLES[problem])
    axes.legend()


def look_of(family: str) -> dict:
    marker, line, _ = FAMILIES[family]
    return {"marker": marker, "linestyle": line, "markersize": 9 if marker == "*" else 5}


def main() -> None:
    problems = [name for name in TITLES if ("dense", 1.0) in cells_of(name)]
    figure([problem for problem in problems if cost.PROBLEMS[problem].replicates > 1])
    before, _, rest = PAGE.read_text().partition(BEGIN)
    written = "\n".join(line for problem in problems for line in table(problem))
    with whole_file(PAGE) as unfinished:
        Path(unfinished).write_text(before + BEGIN + "\n" + written + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
