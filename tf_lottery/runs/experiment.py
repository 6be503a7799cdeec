"""Whole experiments: settings, replicates, levels, branches, in folders that a later start goes on with.

A level whose ticket is on disk is never trained again, and one that was not finished goes on from its checkpoint; that is all
there is to resuming.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import itertools
import math
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import tensorflow as tf

from tf_lottery.base.errors import LotteryError, NonFiniteLossError
from tf_lottery.masking import health, layers, state
from tf_lottery.masking.distribution import Replicas
from tf_lottery.masking.health import Connections
from tf_lottery.problems import data
from tf_lottery.rules import masks
from tf_lottery.runs import problem
from tf_lottery.runs.results import Onlooker, Run
from tf_lottery.runs.settings import BranchSettings, Problem, Settings, SupermaskSettings
from tf_lottery.search import find, supermask
from tf_lottery.tickets.ticket import Ticket
from tf_lottery.training.trainer import Trainer


class Display(Protocol):
    """What an experiment tells about its progress."""

    def begin(self, replicate: int, level: int, density: float | None) -> Sequence:
        """A level begins; returns Keras callbacks to be called while it trains."""

    def done(self, row: Mapping[str, Any]) -> None:
        """A level is finished; `row` is its row of the summary, with its `notes`."""

    def tell(self, sentence: str) -> None:
        """Something that its reader should know."""


def run_find(
    run: Run,
    settings: Settings,
    display: Display,
    *,
    data_dir: str | None = None,
    replicate: int | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> bool:
    """Runs a whole search, or what is missing of it.

    Args:
      run: The folder of results.
      settings: What decides them.
      display: Is told about progress.
      data_dir: Where TFDS data are prepared.
      replicate: Run this replicate only; processes can share a run in this way.
      strategy: Train on its replicas, as in `Trainer`; of several workers all read `run`, and the chief writes.

    Returns:
      Whether anything was left to do.

    Raises:
      LotteryError: If the folder holds a run with other settings, or the settings are not possible.
    """
    settings = problem.resolved(settings)
    run, spec = _seen(run, strategy), dataclasses.asdict(settings)
    run.check(spec, settings.growing)
    missing = _missing(strategy, run, spec, display, settings.replicates, range(settings.levels + 1), replicate)
    if missing:
        dataset = data.load(settings.dataset, data_dir)
    for r, first, last in _stretches(missing):
        model, trainer = problem.of_replicate(settings, dataset, r, strategy)
        trained = _Train(trainer, run, display, r, range(first, last + 1), dataset.classes, settings.pruned == "zero")
        tickets = find.find_ticket(
            model,
            trained,
            levels=settings.levels,
            prune_fraction=settings.prune_fraction,
            criterion=settings.criterion,
            survivors=settings.survivors,
            pruned=settings.pruned,
            scope=settings.scope,
            rewind_to=settings.rewind_to,
            one_shot=settings.one_shot,
            reset=settings.reset,
            min_per_kernel=settings.min_per_kernel,
            start_from=[run.ticket(r, k) for k in sorted({0, first - 1})] if first else (),
            prunable=settings.prunable,
            seed=settings.seed + r,
        )
        tickets = _begun(run, spec, itertools.islice(tickets, last + 1 - first))
        _write(run, r, tickets, trained, display, _origin(settings, dataset))
    run.open(spec, _versions())
    return bool(missing)


def run_branch(
    trunk: Run,
    name: str,
    levels: Sequence[int],
    settings: BranchSettings,
    display: Display,
    *,
    data_dir: str | None = None,
    replicate: int | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> bool:
    """Retrains levels of a finished run under another treatment or with random masks, or what is missing of it.

    Args:
      trunk: The run to branch from.
      name: The branch's name.
      levels: Which levels.
      settings, display, data_dir, replicate, strategy: As for `run_find`.

    Returns:
      Whether anything was left to do.

    Raises:
      LotteryError: If the trunk lacks a level, or the branch was begun with other settings.
    """
    problem.check_functions(settings)  # before a folder is made
    base = Settings.of(trunk)
    absent = trunk.missing(base.replicates, [0, *levels], replicate)
    if absent:
        raise LotteryError(
            f"Expected a run with level {absent[0][1]} of replicate {absent[0][0]}, but {trunk.folder} has not finished that."
        )
    run, own_spec = _seen(trunk.branch(name), strategy), dataclasses.asdict(settings)
    run.check(own_spec)
    missing = _missing(strategy, run, own_spec, display, base.replicates, levels, replicate)
    if missing:
        dataset = data.load(base.dataset, data_dir)
    for r in sorted({r for r, _ in missing}):
        model, trainer = problem.of_replicate(base, dataset, r, strategy)
        own_levels = sorted(k for at, k in missing if at == r)
        trained = _Train(trainer, run, display, r, own_levels, dataset.classes, settings.pruned == "zero")
        dense = trunk.ticket(r, 0)
        masked = layers.wrap(model, base.prunable, held=settings.pruned != "zero")
        tickets = (
            find.retrain_ticket(
                masked,
                trained,
                trunk.ticket(r, level),
                dense,
                survivors=settings.survivors,
                pruned=settings.pruned,
                random_mask=settings.random_mask,
                seed=settings.seed + r,
            )
            for level in own_levels
        )
        _write(run, r, _begun(run, own_spec, tickets), trained, display, _origin(base, dataset))
    return bool(missing)


def run_supermask(
    run: Run,
    settings: SupermaskSettings,
    display: Display,
    *,
    data_dir: str | None = None,
    replicate: int | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> bool:
    """Learns a supermask for each replicate, or for those that are missing; see `supermask.train`.

    Args:
      run, display, data_dir, replicate, strategy: As for `run_find`.
      settings: What decides the results; by learning or by edge_popup.

    Returns:
      Whether anything was left to do.

    Raises:
      LotteryError: If the folder holds a run with other settings, or the settings are not possible.
    """
    settings = problem.resolved(settings)
    run, spec = _seen(run, strategy), dataclasses.asdict(settings)
    run.check(spec, settings.growing)
    missing = _missing(strategy, run, spec, display, settings.replicates, [0], replicate)
    if missing:
        dataset = data.load(settings.dataset, data_dir)
    for r, _ in missing:
        model, trainer = problem.of_replicate(settings, dataset, r, strategy)
        trained = _Train(trainer, run, display, r, [0], dataset.classes, connects=False)
        tickets = _learned(model, trained, settings, r, lambda: run.open(spec, _versions()))
        _write(run, r, tickets, trained, display, _origin(settings, dataset))
    return bool(missing)


def _learned(model, trained: _Train, settings: SupermaskSettings, replicate: int, then: Callable) -> Iterator[Ticket]:
    """One supermask; `then` is called when it is there."""
    ticket = supermask.train(
        model,
        trained,
        by=settings.by,
        density=settings.density,
        signed_constant=settings.signed_constant,
        rescale=settings.rescale,
        accuracy=trained.test_accuracy,
        samples=settings.samples,
        prunable=settings.prunable,
        seed=settings.seed + replicate,
    )
    then()
    yield ticket


class _Train:
    """The `train` of an experiment: the `Trainer`, with the display told which level begins."""

    def __init__(
        self,
        trainer: Trainer,
        run: Run,
        display: Display,
        replicate: int,
        levels: Sequence[int],
        classes: int,
        connects: bool,
    ):
        self.trainer, self.run, self.display = trainer, run, display
        self.replicate, self.levels = replicate, iter(levels)
        self.guessing, self.connects = math.log(classes), connects  # whether signals pass the masks alone
        self.level: int | Any = None
        self.notes: list[str] = []
        self.test_accuracy = trainer.test_accuracy
        self._connections: Connections | None = None

    @property
    def probe(self):
        return self.trainer.probe

    def __call__(self, model, callbacks):
        self.level = next(self.levels)
        self.trainer.checkpoint = self.run.checkpoint(self.replicate, self.level)
        shown = self.display.begin(self.replicate, self.level, masks.density(state.get_masks(model)))
        metrics = self.trainer(model, [*callbacks, *shown])
        self.notes = self._looked_at(model)
        return metrics

    def _looked_at(self, model) -> list[str]:
        """What went wrong in the training that was just finished."""
        probe, lost = self.trainer.probe, []
        if self.connects:
            self._connections = self._connections or Connections(model, probe)
            lost = self._connections.lost(state.get_masks(model))
        return health.notes(model, lost, probe[0], self.trainer.curve, self.guessing)


def _stretches(missing: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """(replicate, first, last) of levels that are missing one after the other."""
    found: list[tuple[int, int, int]] = []
    for replicate, level in missing:
        if found and found[-1][0] == replicate and found[-1][2] == level - 1:
            found[-1] = (replicate, found[-1][1], level)
        else:
            found.append((replicate, level, level))
    return found


def _begun(run: Run, spec: Mapping[str, Any], tickets: Iterable[Ticket]) -> Iterator[Ticket]:
    """The tickets; before the first one is looked for, the run has its settings on disk."""
    run.open(spec, _versions())
    yield from tickets


def _write(
    run: Run,
    replicate: int,
    tickets: Iterable[Ticket],
    trained: _Train,
    display: Display,
    origin: Mapping[str, Any],
) -> None:
    """Writes each ticket with its `origin`, so that its file alone is enough to build the model it belongs to."""
    with run.alone(replicate):
        try:
            for ticket in tickets:
                found = {**ticket.found, **origin, "notes": trained.notes}
                ticket = dataclasses.replace(ticket, found=found)
                display.done(run.write_level(replicate, ticket, trained.trainer.curve))
        except NonFiniteLossError as error:
            run.write_curve(replicate, trained.level, trained.trainer.curve)
            raise LotteryError(
                f"Level {trained.level} of replicate {replicate} stopped: expected a finite training loss, but it was not at step "
                f"{error.step}; what was finished is kept in {run.folder}."
            ) from None


def _origin(settings: Problem, dataset: data.Dataset) -> dict[str, Any]:
    """What `model_of` needs to know, in the words of JSON, and the data that the ticket was found with."""
    return {
        "model": settings.model,
        "dataset": settings.dataset,
        "input_shape": list(dataset.input_shape),
        "classes": dataset.classes,
    }


def _seen(run: Run, strategy: tf.distribute.Strategy | None) -> Run:
    """The run as this process may treat it: of several workers only the chief writes."""
    return run if Replicas(strategy).is_chief else Onlooker(run.folder)


def _missing(strategy, run: Run, spec: Mapping[str, Any], display: Display, *which) -> list[tuple[int, int]]:
    """`run.missing`, the same for all workers; what is damaged is missing."""
    for sentence in run.set_aside_damaged(only=which[-1]):
        display.tell(sentence)
    replicas = Replicas(strategy)
    replicas.check_same(spec, "settings")  # and no worker looks before the chief has set aside what is damaged
    missing = run.missing(*which)
    replicas.check_same(missing, f"levels to train in {run.folder}")
    return missing


def _versions() -> dict[str, str]:
    packages = ("tf_lottery", "tensorflow", "keras", "numpy")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in packages}}
