"""Draw the figures of a run from its result files alone.

usage: tf-lottery report --name=RUN [flags]

Writes figures, a table, and index.html, one page with all of it in it: test accuracy and early-stop step against density (the
tickets and all branches of the run together, with bars from the smallest to the largest replicate), training curves, and from the
tickets what the masks and the surviving weights are like. Of learned supermasks it draws how they were learned.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from tf_lottery.base.errors import LotteryError
from tf_lottery.bin import main as main_lib
from tf_lottery.bin.display import print_json
from tf_lottery.bin.flags import Flags
from tf_lottery.runs.results import Run
from tf_lottery.runs.settings import setting


@dataclass(frozen=True)
class Drawing:
    """What to draw, and where."""

    name: str | None = setting(None, "The run's name: its folder in results_dir.")
    results_dir: str = setting("results", "The folder of all runs.")
    output: str | None = setting(None, "The folder for the figures. Default: the folder report in the run's.")
    json: bool = setting(False, "Print the files and the table as JSON.")
    levels: tuple[int, ...] | None = setting(
        None, "Levels whose training curves to draw, as in 0,3-5. Default: five of them."
    )


def main(argv: list[str]) -> None:
    (drawing,) = Flags(__doc__, Drawing).parse(argv)
    if not drawing.name:
        raise LotteryError("Expected --name, the run to report on, but received none.")
    run = Run.at(drawing.results_dir, drawing.name)
    run.summary()

    import matplotlib

    matplotlib.use("Agg")  # files only; no screen is needed
    from tf_lottery import report

    written = report.write(run, Path(drawing.output or run.folder / "report"), drawing.levels)
    if drawing.json:
        learned = run.supermasks()
        levels = {} if learned else {name: list(map(asdict, levels)) for name, levels in report.series_of(run)}
        files = [str(path) for path in written]
        print_json(
            {
                "run": str(run.folder),
                "conclusion": report.conclusion(run),
                "levels": levels,
                "supermasks": learned,
                "files": files,
            }
        )
        return
    for path in written:
        print(path)
    print(report.conclusion(run))


if __name__ == "__main__":
    sys.exit(main_lib.guarded("report", sys.argv[1:]))
