"""One set of results of a plan: an ordinary run, a branch of one, or masks by rule on one. No TensorFlow."""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tf_lottery.rules import criteria
from tf_lottery.runs import verified
from tf_lottery.runs.executor.task import Task
from tf_lottery.runs.results import Run


@dataclass(frozen=True)
class Experiment(ABC):
    """One set of results; the subclasses know which table holds its measurements and which function fills it.

    Attributes:
      name: The run's name; that of a branch as in `protocol/reinit`.
      settings: What decides the results, resolved.
      of: The search that a branch or masks by rule belong to.
      retrained: The levels of a branch.
    """

    name: str
    settings: Any
    of: Search | Any = None
    retrained: tuple[int, ...] = ()
    table: ClassVar[str] = "summary.csv"

    @property
    def trunk(self) -> Experiment:
        """The run that model, data and replicates are those of."""
        return self.of or self

    @property
    def replicates(self) -> int:
        return self.trunk.settings.replicates

    @property
    def steps(self) -> int:
        """Training steps of one level."""
        return self.trunk.settings.steps

    def run(self, folder: Path) -> Run:
        return Run(folder / self.name)

    def levels(self) -> tuple[int, ...]:
        return (0,)

    def rows(self, folder: Path) -> list[dict[str, Any]]:
        """The rows of the table; none if there is no table yet."""
        run = self.run(folder)
        return run.summary() if (run.folder / self.table).is_file() else []

    def measured(self, folder: Path) -> set[int]:
        """The replicates whose measurements are complete, from the table alone."""
        found: dict[int, set[int]] = {}
        for row in self.rows(folder):
            if row["early_stop_test_accuracy"] is not None:
                found.setdefault(int(row["replicate"]), set()).add(int(row["level"]))
        return {replicate for replicate, has in found.items() if has >= set(self.levels())}

    def missing(self, folder: Path, only: int | None = None) -> list[tuple[int, int]]:
        """(replicate, level) of what is left to do; of one replicate if `only` names it."""
        if only is not None and only >= self.replicates:
            return []
        return self.run(folder).missing(self.replicates, self.levels(), only)

    def tasks(self, left: Iterable[tuple[int, int]], data_dir: str | None = None) -> list[Task]:
        """What is left to do, a task for each replicate, after that of the search it belongs to."""
        by_replicate: dict[int, list[tuple[int, int]]] = {}
        for at in left:
            by_replicate.setdefault(at[0], []).append(at)
        return [
            Task(
                _named(self, replicate),
                functools.partial(self.work, data_dir=data_dir, replicate=replicate),
                str(self.run(Path()).folder),
                replicate,
                tuple(levels),
                self.steps * len(levels),
                after=frozenset([_named(self.of, replicate)] if self.of else ()),
                reads=self.of.name if self.of else None,
            )
            for replicate, levels in by_replicate.items()
        ]

    @abstractmethod
    def work(self, experiment, folder: Path, display, **place) -> None:
        """Does what is missing; `experiment` is the module of that name, which loads TensorFlow."""

    def differs(self, folder: Path) -> str | None:
        """In words, a setting in which the run on disk is not the plan's; None if there is none."""
        spec = self.run(folder).spec()
        now = json.loads(json.dumps(dataclasses.asdict(self.settings)))
        for key, value in spec["settings"].items() if spec else ():
            open_there = (
                value is None or key not in now
            )  # what an older version left open, or knew and this one does not
            open_here = now.get(key) is None  # what the device decides
            if not (open_there or open_here) and now[key] != value and key not in ("replicates", "levels"):
                return f"{key}={value!r} instead of {now[key]!r}"
        return None


class Search(Experiment):
    """A run of `tf-lottery find`; what it has in common with others of the plan is trained once."""

    def levels(self) -> tuple[int, ...]:
        return tuple(range(self.settings.levels + 1))

    def work(self, experiment, folder: Path, display, **place) -> None:
        experiment.run_find(self.run(folder), self.settings, display, shared="*", **place)


class Branch(Experiment):
    """A control of a search, at some of its levels."""

    def run(self, folder: Path) -> Run:
        return self.of.run(folder).branch(self.name.partition("/")[2])

    def levels(self) -> tuple[int, ...]:
        return self.retrained

    def work(self, experiment, folder: Path, display, **place) -> None:
        experiment.run_branch(
            self.of.run(folder), self.run(folder).name, self.retrained, self.settings, display, **place
        )


class Learned(Experiment):
    """A run of `tf-lottery supermask`."""

    table = "supermask.csv"

    def rows(self, folder: Path) -> list[dict[str, Any]]:
        return self.run(folder).supermasks()

    def measured(self, folder: Path) -> set[int]:
        return {int(row["replicate"]) for row in self.rows(folder)}

    def work(self, experiment, folder: Path, display, **place) -> None:
        experiment.run_supermask(self.run(folder), self.settings, display, **place)


class Instability(Experiment):
    """Levels of a search trained twice in different data order, and the line between the two; level 0 is the dense network."""

    table = "instability.csv"

    def run(self, folder: Path) -> Run:
        return self.of.run(folder)

    def levels(self) -> tuple[int, ...]:
        return self.retrained

    def rows(self, folder: Path) -> list[dict[str, Any]]:
        return verified.read_instability(self.run(folder))

    def measured(self, folder: Path) -> set[int]:
        found = {(int(row["replicate"]), int(row["level"])) for row in self.rows(folder)}
        return {r for r in range(self.replicates) if found >= {(r, level) for level in self.retrained}}

    def missing(self, folder: Path, only: int | None = None) -> list[tuple[int, int]]:
        done = {(int(row["replicate"]), int(row["level"])) for row in self.rows(folder)}
        wanted = {(r, level) for r in range(self.replicates) for level in self.retrained if only in (None, r)}
        return sorted(wanted - done)

    def work(self, experiment, folder: Path, display, **place) -> None:
        from tf_lottery.runs import instability

        instability.run_instability(self.run(folder), self.retrained, display, **place)

    def differs(self, folder: Path) -> None:
        return None  # spec.json is the search's


class ByRule(Experiment):
    """Untrained networks under masks of the dense level of a search, with their initial weights and with signed constants.

    All replicates are measured together, by the process that works on the last of them.
    """

    table = "supermask_by_rule.csv"

    @property
    def steps(self) -> int:
        return 0

    def run(self, folder: Path) -> Run:
        return self.of.run(folder)

    def rows(self, folder: Path) -> list[dict[str, Any]]:
        return self.run(folder).rule()

    def measured(self, folder: Path) -> set[int]:
        wanted = {(name, signs) for name in criteria.of_weights() for signs in (False, True)}
        found: dict[int, set] = {}
        for row in self.rows(folder):
            found.setdefault(row["replicate"], set()).add((row["criterion"], row["signed_constant"]))
        return {replicate for replicate, rows in found.items() if rows >= wanted}

    def missing(self, folder: Path, only: int | None = None) -> list[tuple[int, int]]:
        done = self.measured(folder)
        return [(r, 0) for r in range(self.replicates) if r not in done and only in (None, self.replicates - 1)]

    def tasks(self, left: Iterable[tuple[int, int]], data_dir: str | None = None) -> list[Task]:
        after = frozenset(_named(self.of, replicate) for replicate in range(self.replicates))
        return [Task(self.name, functools.partial(self.work, data_dir=data_dir), self.of.name, None, (), 0, after)]

    def work(self, experiment, folder: Path, display, *, data_dir: str | None = None, **_) -> None:
        from tf_lottery.runs import by_rule

        if self.run(folder).missing(self.replicates, [0]):
            return  # another process is at a dense level; the next start measures them
        for constant in ("none", "std"):
            settings = dataclasses.replace(self.settings, signed_constant=constant)
            collections.deque(by_rule.evaluate(self.run(folder), settings, data_dir=data_dir), maxlen=0)

    def differs(self, folder: Path) -> None:
        return None  # spec.json is the search's


def _named(experiment: Experiment, replicate: int) -> str:
    return f"{experiment.name}, replicate {replicate}"
