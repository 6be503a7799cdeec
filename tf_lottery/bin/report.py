"""Draw the figures of a run, or of several side by side, from result files alone.

usage: tf-lottery report --name=RUN [flags]
       tf-lottery report --name=STUDY [flags]
       tf-lottery report --name=RUN,RUN,RUN [flags]
       tf-lottery report --name='RUN*' [flags]

Writes figures, a table, and index.html, one page with all of it in it. Of a run: test accuracy and early-stop step against density (the
tickets and all branches of the run together, with bars from the smallest to the largest replicate), training curves, and from the
tickets what the masks and the surviving weights are like; of learned supermasks how they were learned. Of a study, which is what a sweep
of `tf-lottery find` makes under its name, and of any several runs: accuracy and early stop against density, accuracy against the trainings
spent, a line for each combination of settings, and a ranking that says which cannot be told from the first.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tf_lottery.base.errors import LotteryError
from tf_lottery.bin import main as main_lib
from tf_lottery.bin.display import print_json, tell
from tf_lottery.bin.flags import Flags
from tf_lottery.runs import comparison, gathering
from tf_lottery.runs.results import Run
from tf_lottery.runs.settings import setting
from tf_lottery.runs.sound import Sound


@dataclass(frozen=True)
class Drawing:
    """What to draw, and where."""

    name: str | None = setting(
        None,
        "The run's name: its folder in results_dir. For several side by side a sweep's name, names as in a,b,c, or a pattern as in 'cmp*'.",
    )
    results_dir: str = setting("results", "The folder of all runs.")
    output: str | None = setting(
        None, "The folder for the figures. Default: report in the run's or study's, or in reports beside the runs."
    )
    json: bool = setting(False, "Print the files and the table as JSON.")
    levels: tuple[int, ...] | None = setting(
        None, "Levels whose training curves to draw, as in 0,3-5. Default: five of them."
    )
    densities: tuple[float, ...] | None = setting(
        None, "Of a study: the densities to compare at, as in 0.2,0.05. Default: the best ticket of each combination."
    )


def main(argv: list[str]) -> None:
    (drawing,) = Flags(__doc__, Drawing).parse(argv)
    if not drawing.name:
        raise LotteryError("Expected --name, the run to report on, but received none.")
    import matplotlib

    matplotlib.use("Agg")  # files only; no screen is needed
    names = [name for name in drawing.name.split(",") if name]
    if len(names) == 1 and not drawing.densities and _is_one(Run.at(drawing.results_dir, names[0])):
        _of_run(drawing, Run.at(drawing.results_dir, names[0]))
    elif drawing.levels:
        raise LotteryError(f"Expected --levels with one run only, but received --name={drawing.name}.")
    else:
        _of_study(drawing, names)


def _is_one(run: Run) -> bool:
    """Whether a name is that of one run, and of nothing else."""
    return gathering.is_run(run.folder) and not (run.folder / gathering.PLAN).is_file()


def _of_study(drawing: Drawing, names: Sequence[str]) -> None:
    from tf_lottery.report import results
    from tf_lottery.report import study as study_report

    folders = [Run.at(drawing.results_dir, name).folder for name in names]
    if len(folders) > 1 or any(sign in drawing.name for sign in "*?["):
        folder = Path(drawing.results_dir) / "reports" / re.sub(r"[*?\[\]]", "_", drawing.name)
    else:
        folder = folders[0] / "report"
    found = results.Study.of(folders, drawing.name)
    densities = drawing.densities or ()
    written = study_report.write(found, Path(drawing.output or folder), densities)
    words = comparison.sentence(found, *densities[:1])
    remarks = comparison.remarks(found, densities)
    if drawing.json:
        order = {f"{100 * density:.3g} %": found.standings(density) for density in densities} or found.standings()
        print_json(
            {
                "runs": [str(entry.run.folder) for entry in found.entries],
                "conclusion": words,
                "ranking": order,
                "notes": remarks,
                "files": [str(path) for path in written],
            }
        )
        return
    for path in written:
        print(path)
    for remark in remarks:
        print(remark)
    print(words)


def _of_run(drawing: Drawing, run: Run) -> None:
    sound = Sound.of(run)
    for sentence in sound.complaints():
        tell(sentence)
    sound.summary()

    from tf_lottery import report

    written = report.write(sound, Path(drawing.output or run.folder / "report"), drawing.levels)
    if drawing.json:
        learned = sound.supermasks()
        levels = {} if learned else {name: list(map(asdict, levels)) for name, levels in report.series_of(sound)}
        files = [str(path) for path in written]
        print_json(
            {
                "run": str(run.folder),
                "conclusion": report.conclusion(sound),
                "levels": levels,
                "supermasks": learned,
                "files": files,
            }
        )
        return
    for path in written:
        print(path)
    print(report.conclusion(sound))


if __name__ == "__main__":
    sys.exit(main_lib.guarded("report", sys.argv[1:]))
