"""Draw the figures of a run from its result files alone.

usage: tf-lottery report --name=RUN [flags]

Writes test accuracy and early-stop step against density (the tickets and all branches of the run together, with bars from
the smallest to the largest replicate), test accuracy over training for chosen levels, and a table.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from tf_lottery.bin import main as main_lib
from tf_lottery.bin.flags import Flags
from tf_lottery.errors import LotteryError
from tf_lottery.results import Run, by_level, verdict
from tf_lottery.settings import setting


@dataclass(frozen=True)
class Drawing:
    """What to draw, and where."""

    name: str | None = setting(None, "The run's name: its folder in results_dir.")
    results_dir: str = setting("results", "The folder of all runs.")
    output: str | None = setting(None, "The folder for the figures. Default: the folder report in the run's.")
    levels: tuple[int, ...] | None = setting(
        None, "Levels whose training curves to draw, as in 0,3-5. Default: five of them."
    )


def main(argv: list[str]) -> None:
    (drawing,) = Flags(__doc__, Drawing).parse(argv)
    if not drawing.name:
        raise LotteryError("Expected --name, the run to report on, but received none.")
    run = Run.at(drawing.results_dir, drawing.name)
    run.summary()

    from tf_lottery import report

    for path in report.write(run, Path(drawing.output or run.folder / "report"), drawing.levels):
        print(path)
    print(verdict(by_level(run.summary())))


if __name__ == "__main__":
    sys.exit(main_lib.guarded("report", sys.argv[1:]))
