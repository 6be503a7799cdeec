"""How many multiply-adds compaction saves, over all replicates of a run, and what its tickets have right next to their dense networks.

Counts, no times: what is counted is the same on every machine.

    python benchmarks/compaction.py --name=lenet --levels=12,15    # some seconds for each ticket

Writes docs/results/export/compaction.csv, a row for each ticket, and compaction.md, their means; rows that are there are not
counted again.
"""

from __future__ import annotations

import csv
import itertools
import os
import sys
from dataclasses import dataclass

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from export import RESULTS, compacted, plain, trained

import tf_lottery as tfl
from tf_lottery.base.errors import LotteryError
from tf_lottery.base.files import whole_file
from tf_lottery.bin.flags import Flags
from tf_lottery.runs.outcome import Statistic
from tf_lottery.runs.results import Run
from tf_lottery.runs.settings import setting

COLUMNS = (
    *("run", "replicate", "level", "density", "early_stop_accuracy", "final_accuracy"),
    *("early_stop_against_dense", "final_against_dense", "dense", "compacted", "with_constant_inputs"),
)


@dataclass(frozen=True)
class What:
    """The tickets to count."""

    name: str | None = setting(None, "A run of LeNet on MNIST: its folder in results_dir.")
    results_dir: str = setting("results", "The folder of all runs.")
    data_dir: str | None = setting(
        None, "Where TFDS data are prepared. Default: $TFDS_DATA_DIR, else TFDS's own folder."
    )
    levels: tuple[int, ...] | None = setting(None, "The levels of the run, as in 12,15; of all its replicates.")


def main(argv: list[str]) -> None:
    (what,) = Flags(__doc__, What).parse(argv)
    if not what.name or not what.levels:
        raise LotteryError("Expected --name and --levels.")
    path = RESULTS / "compaction.csv"
    rows = list(csv.DictReader(path.open())) if path.exists() else []
    known = {(row["run"], int(row["replicate"]), int(row["level"])) for row in rows}
    run, dataset = Run.at(what.results_dir, what.name), tfl.data.load("mnist", what.data_dir)
    for replicate, level in run.finished():
        if level in what.levels and (what.name, replicate, level) not in known:
            rows.append(counted(run, replicate, level, dataset))
    rows.sort(key=lambda row: (row["run"], int(row["level"]), int(row["replicate"])))
    with whole_file(path) as unfinished, unfinished.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    with whole_file(RESULTS / "compaction.md") as unfinished:
        unfinished.write_text(table(list(csv.DictReader(path.open()))))
    print(RESULTS / "compaction.md")


def counted(run: Run, replicate: int, level: int, dataset) -> dict:
    """A row of the table."""
    right = {
        at: [run.ticket(replicate, at).metrics[f"{when}_test_accuracy"] for when in ("early_stop", "final")]
        for at in (0, level)
    }
    model = trained(run, replicate, level, dataset)
    networks = [plain(model), compacted(model), compacted(model, dataset.train[0])]
    accuracies = [f"{value:.4f}" for value in right[level]]
    against = [f"{100 * (value - dense):.2f}" for value, dense in zip(right[level], right[0])]
    density = f"{run.ticket(replicate, level).density:.6g}"
    values = [run.name, replicate, level, density, *accuracies, *against, *(n.multiply_adds for n in networks)]
    return dict(zip(COLUMNS, values, strict=True))


def table(rows: list[dict[str, str]]) -> str:
    """The means over replicates as Markdown, with the least and the most."""
    lines = [
        "| run | level | density | replicates | right at early stop | against dense, points | times fewer multiply-adds | with constant inputs |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for (run, level), group in itertools.groupby(rows, lambda row: (row["run"], row["level"])):
        group = list(group)
        factors = [
            _range([int(row["dense"]) / int(row[name]) for row in group])
            for name in ("compacted", "with_constant_inputs")
        ]
        right = Statistic.of([100 * float(row["early_stop_accuracy"]) for row in group]).mean
        against = _range([float(row["early_stop_against_dense"]) for row in group])
        density = 100 * Statistic.of([float(row["density"]) for row in group]).mean
        cells = [run, level, f"{density:.2f} %", len(group), f"{right:.2f} %", against, *factors]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join([*lines, ""])


def _range(values: list[float]) -> str:
    mean = Statistic.of(values).mean
    return f"{mean:.2f}" + (f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else "")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except LotteryError as error:
        sys.exit(str(error))
