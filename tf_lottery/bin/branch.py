"""Retrain levels of a finished run: the controls of the papers.

usage: tf-lottery branch --name=RUN --survivors=reinit [flags]
       tf-lottery branch --name=RUN --random_mask [flags]
       tf-lottery branch --name=RUN --survivors=reinit,reshuffle --workers=2 [flags]

Takes the masks of a run's tickets (or random masks of the same layer-wise densities) and trains them from other weights
than the run did. Results go to RESULTS_DIR/NAME/branches/BRANCH, in the same form as the run's own.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tf_lottery.base.errors import LotteryError
from tf_lottery.bin import main as main_lib
from tf_lottery.bin import tasks, training
from tf_lottery.bin.flags import Flags
from tf_lottery.bin.training import Place
from tf_lottery.runs.executor.task import Task
from tf_lottery.runs.outcome import by_level
from tf_lottery.runs.results import Run
from tf_lottery.runs.settings import BranchSettings, Settings, setting
from tf_lottery.runs.sound import Sound
from tf_lottery.runs.todo import each_of


@dataclass(frozen=True)
class Which:
    """Which branch, of which levels."""

    branch: str | None = setting(None, "The branch's name. Default: what it changes, as in reinit or random_mask.")
    levels: tuple[int, ...] | None = setting(
        None, "The levels to retrain, as in 1,4-6. Default: all tickets that were trained in full."
    )


def main(argv: list[str]) -> None:
    jobs = []
    for values, words in tasks.combinations(argv, BranchSettings):
        place, workers, which, settings = Flags(__doc__, Place, tasks.Workers, Which, BranchSettings).parse(words)
        if not place.name:
            raise LotteryError("Expected --name, the run to branch from, but received none.")
        jobs.append((tasks.suffixed(which.branch, values) if which.branch else default_name(settings), settings))
    run = Run.at(place.results_dir, place.name)
    base = Settings.of(run)
    levels = _tickets(run, base) if which.levels is None else which.levels
    workers.check(place, len(jobs))
    if place.dry_run:
        from tf_lottery.bin import dry_run

        dry_run.conclude([_plan(place, run, run.branch(name), base, levels) for name, _ in jobs], json=place.json)
        return

    def missing(branch: Run) -> list[tuple[int, int]]:
        return branch.missing(base.replicates, levels, place.replicate)

    if len(jobs) == 1 and workers.alone:
        ((name, settings),) = jobs
        arguments = {"name": name, "levels": levels, "settings": settings}
        left = missing(run.branch(name))
        trainings = each_of(left, base.steps or 0)
        training.here(place, "run_branch", run, left, trainings, TELLING, branch=name, **arguments)
        return
    todo: list[Task] = []
    branches: dict[str, Run] = {}
    for name, settings in jobs:
        path = f"{run.name}/branches/{name}"
        branches[path] = run.branch(name)
        tasks.check(branches[path], settings)
        arguments = {"name": name, "levels": tuple(levels), "settings": settings, "data_dir": place.data_dir}
        arguments |= {"loggers": place.loggers}
        trainings = each_of(missing(branches[path]), base.steps or 0)
        also = place.told_too(base.replicates)
        todo += tasks.tasks_of(path, "run_branch", trainings, of=run.name, also=also, **arguments)
    training.at_once(place, workers, todo, branches, argv, TELLING)


def _tickets(run: Run, base: Settings) -> Sequence[int]:
    """All levels but the dense one that were trained in full; those that are not finished are named by `run_branch`."""
    rows = Sound.of(run, branches=False).summary() if run.finished() else []
    short = {level.level for level in by_level(rows) if not level.in_full}
    return [level for level in range(1, (base.levels or 0) + 1) if level not in short]


def _as_json(branch: Run, worked: bool) -> dict[str, Any]:
    levels = [dataclasses.asdict(level) for level in by_level(branch.summary())]
    return {"run": str(branch.folder), "trained": worked, "levels": levels}


def _table(branch: Run):
    from tf_lottery.bin.display import table

    return table(f"{branch.folder}", by_level(branch.summary()))


TELLING = training.Telling(
    _as_json,
    _table,
    Run.remarks,
    "This branch was finished already; nothing was trained. Its results are in {folder}.",
)


def _plan(place: Place, run: Run, branch: Run, base: Settings, levels: Sequence[int]) -> dict[str, Any]:
    from tf_lottery.bin import dry_run

    missing = branch.missing(base.replicates, levels, place.replicate)
    count, todo = len(levels) * (base.replicates if place.replicate is None else 1), each_of(missing, base.steps or 0)
    estimate = dry_run.from_finished(run, todo)
    return dry_run.show(branch, (count - len(missing), count), todo, estimate, quiet=place.json)


def default_name(settings: BranchSettings) -> str:
    """The treatments that differ from those of a plain search, joined by `+`."""
    changed = [
        "random_mask" if settings.random_mask else "",
        settings.survivors if settings.survivors != "rewind" else "",
        settings.pruned if settings.pruned != "zero" else "",
    ]
    name = "+".join(filter(None, changed))
    if not name:
        raise LotteryError("Expected --survivors, --pruned or --random_mask to change something, but received none.")
    return name


if __name__ == "__main__":
    sys.exit(main_lib.guarded("branch", sys.argv[1:]))
