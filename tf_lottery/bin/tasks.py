"""Several tasks of a command at once: the flags for it, sweeps, one progress display for all, and how failures are told."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
import sys
import typing
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from tf_lottery.base.errors import LotteryError
from tf_lottery.bin.display import Once, line_of, print_reused, progress_on, tell
from tf_lottery.bin.flags import plugins
from tf_lottery.runs.executor import executor
from tf_lottery.runs.executor.task import Task, named
from tf_lottery.runs.results import Run
from tf_lottery.runs.settings import BranchSettings, Problem, setting
from tf_lottery.runs.todo import Training


@dataclass(frozen=True)
class Workers:
    """How many tasks at once, and where."""

    workers: int = setting(1, "How many replicates to work on at once; they share the processors.")
    executor: str = setting("local", "Where: local, processes of this machine; or ray, a Ray cluster.")
    ray_address: str | None = setting(
        None,
        "The address of the Ray cluster, as in auto or ray://host:10001. Default: one on this machine, begun for it.",
    )

    @property
    def alone(self) -> bool:
        """Whether this process does the work itself."""
        return self.workers == 1 and self.executor == "local"

    def check(self, place, runs: int = 1) -> None:
        """
        Raises:
          LotteryError: If a flag does not go together with several tasks at once, or with several runs.
        """
        given = getattr(place, "strategy", "none")
        if (not self.alone or runs > 1) and given != "none":
            raise LotteryError(
                f"Expected --strategy with one run in one process only, but received {given!r} and several."
            )
        if self.executor == "ray" and getattr(place, "loggers", None):
            raise LotteryError(
                "Expected --logger with --executor=local, since a cluster's machines write elsewhere, but received --executor=ray: when it "
                "is done, the same command without --executor tells the loggers."
            )


def combinations(
    argv: Sequence[str], settings: type, but: Sequence[str] = ("prunable", "exclude")
) -> list[tuple[dict[str, str], list[str]]]:
    """The command lines that one with several values of a flag stands for, each with the values that it has.

    Args:
      argv: Flags, as `--criterion=large_final,movement`.
      settings: A dataclass: any of its fields that holds a single word, number or truth can be given several values.
      but: Those whose value may have commas in it.

    Examples:

    >>> from tf_lottery.runs.settings import Settings
    >>> combinations(["--criterion=movement,random", "--lr_drops=1,2"], Settings)[1]
    ({'criterion': 'random'}, ['--criterion=random', '--lr_drops=1,2'])
    >>> combinations(["--criterion=movement,random", "--criterion=snip"], Settings)  # of a flag given twice the last counts
    [({}, ['--criterion=snip'])]
    """
    single = {name for name, hint in typing.get_type_hints(settings).items() if _is_single(hint) and name not in but}
    joined: list[str] = []
    for word in argv:  # `--flag value` is `--flag=value`
        if joined and re.fullmatch(r"--?\w+", joined[-1]) and joined[-1].lstrip("-") in single and word[:1] != "-":
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    choices: list[list[tuple[str, str, str]]] = []
    given = [match.groups() if (match := re.fullmatch(r"--?(\w+)=(.*)", word)) else ("", "") for word in joined]
    for at, (word, (name, value)) in enumerate(zip(joined, given)):
        if name in single and any(name == later for later, _ in given[at + 1 :]):
            continue
        several = name in single and "," in value and "=" not in value
        values = list(dict.fromkeys(value.split(","))) if several else []
        choices.append([(name, one, f"--{name}={one}") for one in values] or [("", "", word)])
    return [
        ({name: value for name, value, _ in chosen if name}, [word for *_, word in chosen])
        for chosen in itertools.product(*choices)
    ]


def _is_single(hint) -> bool:
    return bool({str, int, float, bool} & set(typing.get_args(hint) or (hint,)))


def suffixed(name: str, values: Mapping[str, str]) -> str:
    """The name of one run of a sweep: `lenet+criterion=movement+seed=1`."""
    return "+".join([name, *(f"{flag}={value}" for flag, value in values.items())])


class TasksDisplay:
    """A bar for all tasks together and one for each that is at work; a line for each finished level, or for each task.

    Args:
      tasks: What there is to do.
      quiet: Show nothing.
      aside: Show it on stderr, where stdout is for a program.
      brief: Say a line for each finished task only.
    """

    def __init__(self, tasks: Sequence[Task], *, quiet: bool = False, aside: bool = False, brief: bool = False):
        self.console, self.once = Console(file=sys.stderr if aside else sys.stdout, quiet=quiet), Once()
        self.progress, self.brief = progress_on(self.console), brief
        self.left = {task.name: set(task.left) for task in tasks}
        self.levels, self.several = sum(map(len, self.left.values())), len({task.run for task in tasks}) > 1
        self.seconds, self.taken = dict.fromkeys(self.left, 0.0), Counter[str]()
        steps = sum(task.steps for task in tasks)
        self.of: dict[str, int] = {}  # the steps of each task's training
        self.all = self.progress.add_task("all", total=steps, told=self.told())
        self.bars: dict[str, Any] = {}

    def __enter__(self) -> TasksDisplay:
        self.progress.start()
        return self

    def __exit__(self, *_) -> None:
        self.progress.stop()
        self.once.count()
        print_reused(self.console, self.taken)

    def told(self) -> str:
        levels = self.levels - sum(map(len, self.left.values()))
        return f"{levels} of {self.levels} levels, {sum(not left for left in self.left.values())} of {len(self.left)} tasks"

    def begin(
        self, task: Task, replicate: int, level: int, density: float | None, steps: int | None, search: int
    ) -> None:
        if task.name not in self.bars:
            self.bars[task.name] = self.progress.add_task(task.name, total=steps, told="")
        self.of[task.name] = steps or 0
        description = f"{task.name}, {named(level, search)}"
        self.progress.reset(self.bars[task.name], total=steps, description=description, told="")

    def advance(self, task: Task, steps: int, reached: int) -> None:
        self.progress.advance(self.all, steps)
        self.progress.update(
            self.bars[task.name], completed=reached, told=f"{reached:,} of {self.of[task.name]:,} steps"
        )

    def skipped(self, task: Task, steps: int) -> None:
        self.progress.advance(self.all, steps)

    def done(self, task: Task, row: Mapping[str, Any]) -> None:
        self.left[task.name].discard((row["replicate"], row["level"]))
        self.seconds[task.name] += row["seconds"]
        self.taken.update(filter(None, [row.get("taken_from")]))
        self.progress.update(self.all, told=self.told())
        if not self.left[task.name] and task.name in self.bars:  # it has none where nothing had to be trained
            self.progress.remove_task(self.bars.pop(task.name))
        if not self.brief:
            self._say(f"{task.run}, {line_of(row)}" if self.several else line_of(row))
        elif row["notes"]:
            self.tell(task, f"level {row['level']}: {row['notes']}")
        if self.brief and not self.left[task.name]:
            self._say(
                f"{task.name}: {100 * row['early_stop_test_accuracy']:.2f} % test accuracy with {100 * row['density']:.3g} % "
                f"of the weights at the last level, {self.seconds[task.name]:.0f} s"
            )

    def tell(self, task: Task, sentence: str, about: Sequence[str] = ()) -> None:
        self.once(f"{task.name}: {sentence}", about)

    def _say(self, line: str) -> None:
        self.console.print(line, highlight=False, soft_wrap=True)


def work(
    tasks: Sequence[Task], folder: Path, workers: Workers, argv: Sequence[str], *, brief: bool = False, **shown
) -> dict[str, Exception]:
    """Does the tasks of a command, with a display; returns the errors of those that failed.

    Args:
      tasks, folder: As for `executor.run`.
      workers: The flags.
      argv: The command line, for its plugins.
      brief, shown: As for `TasksDisplay`.
    """
    with TasksDisplay(tasks, brief=brief, **shown) as display:
        return executor.run(
            tasks,
            folder,
            display,
            workers=workers.workers,
            executor=workers.executor,
            address=workers.ray_address,
            plugins=plugins(list(argv)),
        )


def raise_first(failed: Mapping[str, Exception]) -> None:
    """Tells of failures: the first is raised, the others are said if they are others."""
    for error in failed.values():
        if not isinstance(error, LotteryError | OSError):
            raise error  # a defect, with its traceback
    first, *others = dict.fromkeys(map(str, failed.values())) or [None]
    for sentence in others:
        tell(sentence)
    if first:
        raise next(iter(failed.values()))


def tasks_of(
    path: str,
    function: str,
    todo: Sequence[Training],
    *,
    of: str | None = None,
    also: Sequence[int] = (),
    **arguments,
) -> list[Task]:
    """A task for each replicate in which something is missing: a call of that function of `experiment`.

    Args:
      path: The folder of the run, in that of all runs.
      function: Its name.
      todo: What is left to train.
      of: The run that a branch belongs to: what the function is called with in its place.
      also: Replicates that are worked on where nothing is missing too, as loggers are to be told of them.
      arguments: For the function, beside the run, the display and the replicate.
    """
    by_replicate: dict[int, list[Training]] = {replicate: [] for replicate in also}
    for training in todo:
        by_replicate.setdefault(training.replicate, []).append(training)
    return [
        Task(
            f"{path.replace('/branches/', '/')}, replicate {replicate}",
            functools.partial(_call, function, of or path, replicate=replicate, **arguments),
            path,
            replicate,
            tuple((training.replicate, training.level) for training in left if not training.search),
            sum(training.steps for training in left),
            reads=of,
            shares=arguments.get("shared"),
        )
        for replicate, left in by_replicate.items()
    ]


def _call(function: str, run: str, experiment, folder: Path, display, **arguments) -> None:
    getattr(experiment, function)(Run(folder / run), display=display, **arguments)


def check(run: Run, settings: Problem | BranchSettings, aside: bool = True, alone: bool = False) -> None:
    """Checks settings that are resolved but for what depends on the device against those that a run was begun with.

    Args:
      aside: Set aside what is damaged too, so that it is missing.
      alone: Whether this process works on it: then a run whose settings are gone is looked at when it does.
    """
    if aside and run.spec() is None and run.finished():
        if alone:
            return
        raise LotteryError(
            f"Expected the settings that the finished levels of {run.folder} were found with, but there is no spec.json: the same command "
            "with one run and without --workers finds out which levels are its own."
        )
    given = {name: value for name, value in dataclasses.asdict(settings).items() if value is not None}
    run.check({**(run.spec() or {"settings": {}})["settings"], **given}, getattr(settings, "growing", ()))
    for sentence in run.set_aside_damaged() if aside else ():
        tell(sentence)
