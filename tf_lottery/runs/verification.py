"""Levels of a finished run verified: the controls that are missing are trained, as branches of the run, and all is put together.

Three controls are the branches that `tf-lottery branch` trains (`reinit`, `random_mask`, and both), and are taken from there if they
are there; two have branches of their own, `inverted` and `other_order`. So a verification that was stopped goes on where it was.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from tf_lottery.base.errors import LotteryError
from tf_lottery.checks import analysis, controls
from tf_lottery.checks.line import POINTS, Line
from tf_lottery.checks.verdict import DENSE, OTHER_ORDER, TICKET, Measured, Verification
from tf_lottery.masking import wrapping
from tf_lottery.problems import data
from tf_lottery.runs import levels as levels_lib
from tf_lottery.runs import problem, verified
from tf_lottery.runs.experiment import run_branch
from tf_lottery.runs.known import digest_of
from tf_lottery.runs.levels import Train, begun, missing_levels, origin, write
from tf_lottery.runs.results import Run
from tf_lottery.runs.settings import BranchSettings, Settings
from tf_lottery.runs.sound import Sound
from tf_lottery.search.lottery import train_level
from tf_lottery.tickets.ticket import Ticket

METRIC = "early_stop_test_accuracy"


class Display(levels_lib.Display, Protocol):
    """What a verification tells about its progress."""

    def control(self, name: str) -> None:
        """The trainings that come are of that control, one of `verdict.NAMES`."""

    def line(self, name: str, replicate: int, level: int) -> None:
        """A line is measured, one of `verdict.LINES`."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What there is to do for some levels of a run.

    Attributes:
      levels: Which.
      missing: For each control (level, replicate) of the networks that are not trained yet.
      not_run: For each level what cannot be had, and why.
      points: Networks to measure along lines, in all.
    """

    base: Any
    levels: Sequence[int]
    branches: Mapping[str, BranchSettings | None]
    missing: Mapping[str, list[tuple[int, int]]]
    not_run: Mapping[int, Mapping[str, str]]
    points: int

    @property
    def left(self) -> list[tuple[int, int]]:
        """(replicate, level) of each training."""
        return [at for missing in self.missing.values() for at in missing]

    @property
    def sentence(self) -> str:
        """What it costs."""
        count = len(self.left)
        which = "level" if len(self.levels) == 1 else "levels"
        replicates = f"{self.base.replicates} replicate{'s' * (self.base.replicates > 1)}"
        each = f", at most {len(self.missing)} for each ticket" if count > 1 else ""
        return (
            f"To verify {which} {', '.join(map(str, self.levels))} of {replicates}: {count} training{'s' * (count != 1)} of "
            f"{self.base.steps:,} steps{each}, and {self.points} measurements along lines."
        )


def plan(run: Run, levels: Sequence[int]) -> Plan:
    """What verifying levels of a run takes.

    Raises:
      LotteryError: If a level is not there, is dense, was trained for fewer steps than the dense network, or has no early stop.
    """
    base = Settings.of(run)
    sound = Sound.of(run, branches=False)
    rows = {(int(row["replicate"]), int(row["level"])): row for row in sound.summary()}
    branches = _branches(run, base)
    not_run: dict[int, dict[str, str]] = {}
    lines = 0
    sound.check_finished(base.replicates, [0, *levels])
    for level in levels:
        for replicate in range(base.replicates):
            for wanted in (0, level):
                if rows[replicate, wanted]["early_stop_test_accuracy"] is None:
                    raise LotteryError(
                        f"Expected a run with early stops, of data with a validation set, but level {wanted} of {run.folder} has none."
                    )
        tickets = {k: run.ticket(0, k) for k in {0, level, level - 1} if (0, k) in sound.finished(0)}
        controls.check_pruned(tickets[level])
        for one in (tickets[0], tickets[level]):
            if (steps := one.found.get("steps", base.steps)) != base.steps:
                raise LotteryError(
                    f"Expected levels that were trained for {base.steps:,} steps, but level {one.level} was for {steps:,}: it only led "
                    "to the ticket."
                )
        not_run[level] = _not_run(run, base, tickets, level)
        lines += base.replicates * (2 - ("level_before" in not_run[level]))
    missing = {
        name: sound.branch(name).missing(base.replicates, [k for k in levels if name not in not_run[k]])
        for name in branches
    }
    return Plan(base, levels, branches, missing, not_run, POINTS * lines)


def run_verify(run: Run, todo: Plan, display: Display, *, data_dir: str | None = None) -> list[Verification]:
    """Trains what is missing, measures the lines, and writes what was found of each level."""
    base, dataset = todo.base, None
    for name, settings in todo.branches.items():
        levels = sorted({level for _, level in todo.missing[name]})
        display.control(name)
        if levels and settings is not None:
            run_branch(run, name, levels, settings, display, data_dir=data_dir)
        elif levels:
            dataset = dataset or data.load(base.dataset, data_dir)
            run_control(run, name, levels, base, dataset, display)
    dataset = dataset or data.load(base.dataset, data_dir)
    found = []
    walked = {level: _walked(run, base, dataset, level, todo.not_run[level], display) for level in todo.levels}
    for level in todo.levels:
        lines, signs = walked[level]
        rows = _rows(run, todo, level)
        examples = None if dataset.test is None else len(dataset.test[1])
        found.append(Verification(level, rows, lines, signs, todo.not_run[level], examples))
        verified.write(run, found[-1])
    return found


def _branches(run: Run, base: Settings) -> dict[str, BranchSettings | None]:
    """The branches that the controls are; those that were begun already with the seed that they have."""
    how: dict[str, Any] = {"survivors": base.survivors, "pruned": base.pruned}
    own = {
        "reinit": BranchSettings(**{**how, "survivors": "reinit"}),
        "random_mask": BranchSettings(**how, random_mask=True),
        "random_mask+reinit": BranchSettings(**{**how, "survivors": "reinit"}, random_mask=True),
    }
    for name, settings in own.items():
        begun_with = (run.branch(name).spec() or {}).get("settings", {})
        own[name] = dataclasses.replace(settings, seed=begun_with.get("seed", settings.seed))
    return {**own, "inverted": None, OTHER_ORDER: None}


def _not_run(run: Run, base: Settings, tickets: Mapping[int, Ticket], level: int) -> dict[str, str]:
    missing: dict[str, str] = {}
    before = tickets.get(level - 1)
    if (why := controls.why_not_inverted(tickets[level], tickets[0], before)) is not None:
        missing["inverted"] = why
    if before is None:
        missing["level_before"] = "the level before is not there"
    elif before.found.get("steps", base.steps) != base.steps:
        missing["level_before"] = f"the level before was trained for {before.found['steps']:,} steps only"
    elif controls.road_of(tickets[level]) in ("gradual", "regrow") and level > 1:
        missing["level_before"] = "the ticket was not pruned from the level before"
    return missing


def run_control(
    run: Run,
    name: str,
    levels: Sequence[int],
    base: Settings,
    dataset: data.Dataset,
    display: levels_lib.Display,
    replicate: int | None = None,
) -> None:
    """The controls that no `tf-lottery branch` trains: `inverted`, `other_order`, and levels trained again in their own order, `same_order`."""
    branch, spec = run.branch(name), {"control": name, "seed": base.seed}
    branch.check(spec)
    missing = missing_levels(None, branch, spec, display, base.replicates, levels, replicate)
    if missing:
        run.check_data(examples := digest_of(dataset))
    for r in sorted({r for r, _ in missing}):
        model, trainer = problem.of_replicate(base, dataset, r)
        own_levels = sorted(k for at, k in missing if at == r)
        if name == OTHER_ORDER:
            trainer.seed += controls.REORDERED
        trained = Train(trainer, branch, display, r, dataset.classes, base.pruned == "zero")
        masked = wrapping.wrap(model, base.prunable, exclude=base.exclude, held=base.pruned != "zero")
        retrain = _inverted if name == "inverted" else _reordered
        tickets = (retrain(run, masked, trained, base, r, level) for level in own_levels)
        write(branch, r, begun(branch, spec, tickets, examples), trained, display, origin(base, dataset))


def _reordered(run: Run, masked, train: Train, base: Settings, replicate: int, level: int) -> Ticket:
    ticket = run.ticket(replicate, level).in_paths_of(masked)
    return train_level(masked, train, controls.anew(ticket, data_order=train.trainer.seed))


def _inverted(run: Run, masked, train: Train, base: Settings, replicate: int, level: int) -> Ticket:
    ticket, dense = run.ticket(replicate, level), run.ticket(replicate, 0)
    before = run.ticket(replicate, level - 1) if (replicate, level - 1) in run.finished(replicate) else None
    parent = controls.parent_of(ticket, dense, before)
    seed = base.seed + replicate
    return controls.trained("inverted", masked, train, ticket, dense, parent, probe=train.probe, seed=seed)


def _walked(
    run: Run, base: Settings, dataset: data.Dataset, level: int, not_run: Mapping[str, str], display: Display
) -> tuple[dict[str, list[Line]], list[float]]:
    """The lines of each replicate, and the signs that its ticket keeps."""
    lines: dict[str, list[Line]] = {}
    signs = []
    others: dict[str, Callable[[int], Ticket]] = {
        "instability": lambda r: run.branch(OTHER_ORDER).ticket(r, level),
        "level_before": lambda r: run.ticket(r, level - 1),
    }
    for r in range(base.replicates):
        model, trainer = problem.of_replicate(base, dataset, r)
        masked = wrapping.wrap(model, base.prunable, exclude=base.exclude, held=base.pruned != "zero")
        ticket = run.ticket(r, level)
        for name, other in others.items():
            if name not in not_run:
                display.line(name, r, level)
                end: Any = other(r)
                if name == "instability":
                    analysis.check_differ(ticket, end)
                lines.setdefault(name, []).append(analysis.barrier(ticket, end, trainer, model=masked))
        signs.append(analysis.sign_agreement(ticket).share)
    return lines, signs


def _rows(run: Run, todo: Plan, level: int) -> list[Measured]:
    rows = []
    for name in (DENSE, TICKET, *todo.branches):
        own, at = (run, 0 if name == DENSE else level) if name in (DENSE, TICKET) else (run.branch(name), level)
        if name in todo.not_run[level]:
            continue
        for row in Sound.of(own, branches=False).summary():
            if int(row["level"]) == at and int(row["replicate"]) < todo.base.replicates:
                values = (row["density"], row[METRIC], row["early_stop_step"])
                rows.append(Measured(name, int(row["replicate"]), *values, trained=name in todo.branches))
    return rows
