"""What the commands that train have in common: they work here or in several processes, plan, and tell what came of it."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tf_lottery.base.quiet import tensorflow_loading
from tf_lottery.bin import tasks
from tf_lottery.bin.reused import Foreseen
from tf_lottery.runs import comparison, spec
from tf_lottery.runs.executor.task import Task
from tf_lottery.runs.results import Run
from tf_lottery.runs.settings import Problem, setting
from tf_lottery.runs.todo import Training


@dataclass(frozen=True)
class Place:
    """Where a command reads, trains and writes; nothing in it changes a result by more than rounding."""

    name: str | None = setting(None, "The run's name: its folder in results_dir. Default: the name of the model.")
    results_dir: str = setting("results", "The folder of all runs.")
    data_dir: str | None = setting(
        None, "Where TFDS data are prepared. Default: $TFDS_DATA_DIR, else TFDS's own folder."
    )
    replicate: int | None = setting(None, "Work on this replicate only; several processes can share a run in this way.")
    strategy: str = setting(
        "none",
        "Train each network on: none, one device; mirrored, all GPUs of this machine; multi_worker, the machines in TF_CONFIG; "
        "tpu.",
    )
    logger: str | None = setting(
        None,
        "Who is told of each level, as in tensorboard=logs,mine: names that --plugin or an installed package registers, with an "
        "argument after =. They are told too of levels that were finished without them.",
    )
    tensorboard: str | None = setting(None, "The folder for TensorBoard: short for --logger=tensorboard=FOLDER.")
    dry_run: bool = setting(False, "Print what there is to do and how long it will take, and do nothing.")
    json: bool = setting(False, "Print the closing table as JSON; progress goes to stderr.")
    quiet: bool = setting(False, "Show no progress, only the closing table.")

    @property
    def loggers(self) -> tuple[str, ...]:
        """The loggers by their names, with their arguments."""
        named = [name for name in (self.logger or "").split(",") if name]
        return (*named, *([f"tensorboard={self.tensorboard}"] if self.tensorboard else []))

    def told_too(self, replicates: int) -> Sequence[int]:
        """The replicates that loggers are told of, also where nothing is left to train."""
        if not self.loggers:
            return ()
        return range(replicates) if self.replicate is None else (self.replicate,)


@dataclass(frozen=True)
class Telling:
    """How a command tells what came of a run.

    Attributes:
      as_json: `(run, whether anything was trained)` -> what `--json` prints.
      table: `run` -> a table for the terminal.
      lines: `run` -> what is printed below it.
      finished: What is said where nothing was left to do, with `{folder}`.
    """

    as_json: Callable[[Run, bool], dict[str, Any]]
    table: Callable[[Run], Any]
    lines: Callable[[Run], Sequence[str]] = lambda run: ()
    finished: str = "This run was finished already; nothing was trained. Its results are in {folder}."

    def print(self, run: Run, worked: bool) -> None:
        from tf_lottery.bin.display import print_table

        print_table(self.table(run))
        for line in self.lines(run):
            print(line)
        if not worked:
            print(self.finished.format(folder=run.folder))


class Together(Protocol):
    """How a command tells what came of all its runs."""

    def print(self, runs: Sequence[tuple[Run, bool]]) -> None:
        """Prints one table; of each run it is told whether anything was left to do."""

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints of them."""


@dataclass(frozen=True)
class Job:
    """A run that a command works on.

    Attributes:
      run, settings: Which, and what decides it, resolved.
      left: (replicate, level) of what is not finished.
      levels: How many levels it has in all.
      todo: The trainings that are left.
      road: What is said of them before they begin.
    """

    run: Run
    settings: Problem
    left: Sequence[tuple[int, int]]
    levels: int
    todo: Sequence[Training]
    road: str | None = None


def work(
    place: Place,
    workers: tasks.Workers,
    function: str,
    jobs: Sequence[Job],
    telling: Telling,
    argv: Sequence[str],
    shared: str | None = None,
    together: Together | None = None,
) -> None:
    """What a command does with its runs: it plans them, works on one here, or on several at once.

    Args:
      place, workers: The flags.
      function: The name of a function `(run, settings, display, ...)` of `experiment`.
      jobs: What there is to do; damaged files are set aside already, see `tasks.check`. Of a finished run it is only told.
      telling: How to tell what came of them.
      argv: The command line, for its plugins.
      shared: For `function`, where trainings are shared with other runs.
      together: How to tell what came of all of them, in the place of each.
    """
    sharing: dict[str, Any] = {} if shared is None else {"shared": shared}
    if place.dry_run:
        _print_plans(place, function, jobs, shared)
        return
    for job in jobs:
        if job.road and job.todo and not place.quiet:
            print(
                f"{job.run.name}: {job.road}" if len(jobs) > 1 else job.road,
                file=sys.stderr if place.json else sys.stdout,
                flush=True,
            )
    if len(jobs) == 1 and workers.alone:
        (job,) = jobs
        if not job.left and place.strategy == "none" and not place.loggers and _is_begun(job):
            _tell(place, telling, job.run, worked=False)
            return
        here(place, function, job.run, job.left, job.todo, telling, settings=job.settings, **sharing)
    else:
        todo = []
        for job in jobs:
            arguments = {"settings": job.settings, "data_dir": place.data_dir, "loggers": place.loggers, **sharing}
            also = place.told_too(job.settings.replicates)
            todo += tasks.tasks_of(job.run.name, function, job.todo, also=also, **arguments)
        at_once(place, workers, todo, {job.run.name: job.run for job in jobs}, argv, telling, together)


def here(
    place: Place,
    function: str,
    run: Run,
    missing: Sequence[tuple[int, int]],
    todo: Sequence[Training],
    telling: Telling,
    branch: str | None = None,
    **arguments,
) -> None:
    """Calls a function of `experiment` in this process, with a display, and tells what came of it.

    Args:
      place: The flags.
      function: Its name.
      run: The run that it is called with.
      missing: (replicate, level) of what is not finished.
      todo: The trainings that are left.
      telling: How to tell.
      branch: The branch of the run that it trains.
      arguments: For the function, beside those that `place` decides.
    """
    with tensorflow_loading():
        from tf_lottery.masking import distribution
        from tf_lottery.runs import experiment

        replicas = distribution.Replicas(distribution.get(place.strategy))  # before TensorFlow computes anything
    from tf_lottery.bin.display import display_of

    steps = sum(training.steps for training in todo)
    display = display_of(place, missing, steps, replicas.is_chief)
    with display, replicas.together():
        worked = getattr(experiment, function)(
            run,
            display=display,
            data_dir=place.data_dir,
            replicate=place.replicate,
            strategy=replicas.strategy,
            loggers=place.loggers,
            **arguments,
        )
    if not replicas.is_chief:
        return
    _tell(place, telling, run if branch is None else run.branch(branch), worked)


def _is_begun(job: Job) -> bool:
    """Whether the settings of a run are on file as they are asked for, but for what depends on the device."""
    written = (job.run.spec() or {}).get("settings")
    given = {name: value for name, value in dataclasses.asdict(job.settings).items() if value is not None}
    return written is not None and spec.difference(written, {**written, **given}) is None


def _tell(place: Place, telling: Telling, run: Run, worked: bool) -> None:
    from tf_lottery.bin.display import print_json

    if place.json:
        print_json(telling.as_json(run, worked))
    else:
        telling.print(run, worked)


def at_once(
    place: Place,
    workers: tasks.Workers,
    todo: Sequence[Task],
    runs: Mapping[str, Run],
    argv: Sequence[str],
    telling: Telling,
    together: Together | None = None,
) -> None:
    """Does the tasks of several runs, or of the replicates of one, and tells what came of each.

    Args:
      place, workers: The flags.
      todo: The tasks.
      runs: By the `run` of their tasks.
      argv: The command line, for its plugins.
      telling: How to tell.
      together: How to tell of all of them, in the place of each.
    """
    from tf_lottery.bin.display import print_json

    failed = tasks.work(todo, Path(place.results_dir), workers, argv, quiet=place.quiet, aside=place.json)
    worked = {task.run for task in todo if task.left}
    begun = [(run, path in worked) for path, run in runs.items() if run.finished()]
    if place.json:
        whole = {"study": together.as_json()} if together and begun else {}
        print_json({"runs": [telling.as_json(*each) for each in begun], **whole})
    elif together and begun:
        together.print(begun)
    else:
        for each in begun:
            telling.print(*each)
    tasks.raise_first(failed)


def _print_plans(place: Place, function: str, jobs: Sequence[Job], shared: str | None) -> None:
    """What `--dry_run` prints of runs that are worked on by a function of `experiment`; each network is rehearsed once."""
    with tensorflow_loading():  # before a rehearsal is timed
        from tf_lottery.runs import experiment
    from tf_lottery.bin import dry_run

    def work(run, settings, display):
        getattr(experiment, function)(run, settings, display, data_dir=place.data_dir)

    rehearsals: dict[tuple, dry_run.Rehearsal] = {}
    plans: list[dict[str, Any]] = []
    foreseen = Foreseen(place.results_dir, shared)
    for job in jobs:
        todo = foreseen.left(job.settings, job.todo)
        estimate = dry_run.from_finished(job.run, todo)
        if estimate is None and todo:
            network = dry_run.network_of(job.settings)
            rehearsals[network] = rehearsals.get(network) or dry_run.rehearse(work, job.settings)
            estimate = dry_run.estimated(rehearsals[network], job.settings, todo)
        replicates = job.settings.replicates if place.replicate is None else 1
        levels = (replicates * job.levels - len(job.left), replicates * job.levels)
        known = len(job.todo) - len(todo)
        said = {plan.get("source", "") for plan in plans}
        plans.append(
            dry_run.show(job.run, levels, todo, estimate, quiet=place.json, road=job.road, known=known, said=said)
        )
    remarks = dict.fromkeys(filter(None, (comparison.looks(vars(job.settings)) for job in jobs if job.todo)))
    dry_run.conclude(plans, json=place.json, remarks=remarks)
