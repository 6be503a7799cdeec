"""What a sweep of `tf-lottery find` leaves beside its runs: the plan of the study, and at its end one table."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_lottery.bin import training
from tf_lottery.bin.display import print_table
from tf_lottery.runs import comparison, gathering, study
from tf_lottery.runs.gathering import Planned
from tf_lottery.runs.results import Run
from tf_lottery.runs.settings import Settings


def plan(folder: Path, runs: Sequence[tuple[Run, Mapping[str, str], Settings]]) -> None:
    """Writes which runs a study has, before they begin: it can be looked at while they train.

    A run of that very name is no study any more.
    """
    if len(runs) == 1 and runs[0][0].folder == folder:
        (folder / gathering.PLAN).unlink(missing_ok=True)
        return
    gathering.write_plan(folder, [Planned(run.name, values, _asked(settings)) for run, values, settings in runs])


def forget(folder: Path, runs: Sequence[Run]) -> None:
    """Removes the plan of a study none of whose runs was begun."""
    if not any(gathering.is_run(run.folder) for run in runs):
        (folder / gathering.PLAN).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it is not there, or something else is in it
            folder.rmdir()


def _asked(settings: Settings) -> dict[str, Any]:
    """The settings that are not left to the device or the network."""
    return {name: value for name, value in dataclasses.asdict(settings).items() if value is not None}


@dataclasses.dataclass(frozen=True)
class Together:
    """How the runs of a study are told together.

    Attributes:
      folder: That of the study.
      densities: Those that were asked for, in all runs.
    """

    folder: Path
    densities: Sequence[float] = ()

    def print(self, runs: Sequence[tuple[Run, bool]]) -> None:
        found = study.read([self.folder])
        print_table(comparison.table(found, self.densities).__rich__())
        for line in (*comparison.remarks(found, self.densities), comparison.sentence(found, *self.densities[:1])):
            print(line)
        if not any(worked for _, worked in runs):
            print("All runs were finished already; nothing was trained.")
        place = "" if self.folder.parent == Path(training.Place.results_dir) else f" --results_dir={self.folder.parent}"
        print(f"The figures: tf-lottery report --name={self.folder.name}{place}")

    def as_json(self) -> dict[str, Any]:
        found = study.read([self.folder])
        table = comparison.table(found, self.densities)
        return {
            "study": str(self.folder),
            "conclusion": comparison.sentence(found, *self.densities[:1]),
            "notes": comparison.remarks(found, self.densities),
            "table": [dict(zip(table.headings, row)) for row in table.rows],
        }
