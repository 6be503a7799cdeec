"""The levels of a run: which are missing, how one is trained and watched, and how it is written; all experiments share it."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import tensorflow as tf

from tf_lottery.base.errors import LotteryError, NonFiniteLossError
from tf_lottery.masking import health, state
from tf_lottery.masking.distribution import Replicas
from tf_lottery.masking.health import Connections
from tf_lottery.problems import data
from tf_lottery.rules import masks
from tf_lottery.runs.results import Onlooker, Run
from tf_lottery.runs.settings import Problem
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


class Train:
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


def stretches(missing: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """(replicate, first, last) of levels that are missing one after the other."""
    found: list[tuple[int, int, int]] = []
    for replicate, level in missing:
        if found and found[-1][0] == replicate and found[-1][2] == level - 1:
            found[-1] = (replicate, found[-1][1], level)
        else:
            found.append((replicate, level, level))
    return found


def begun(run: Run, spec: Mapping[str, Any], tickets: Iterable[Ticket]) -> Iterator[Ticket]:
    """The tickets; before the first one is looked for, the run has its settings on disk."""
    run.open(spec, versions())
    yield from tickets


def write(
    run: Run,
    replicate: int,
    tickets: Iterable[Ticket],
    trained: Train,
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


def origin(settings: Problem, dataset: data.Dataset) -> dict[str, Any]:
    """What `model_of` needs to know, in the words of JSON, and the data that the ticket was found with."""
    return {
        "model": settings.model,
        "dataset": settings.dataset,
        "input_shape": list(dataset.input_shape),
        "classes": dataset.classes,
    }


def seen_by(run: Run, strategy: tf.distribute.Strategy | None) -> Run:
    """The run as this process may treat it: of several workers only the chief writes."""
    return run if Replicas(strategy).is_chief else Onlooker(run.folder)


def missing_levels(strategy, run: Run, spec: Mapping[str, Any], display: Display, *which) -> list[tuple[int, int]]:
    """`run.missing`, the same for all workers; what is damaged is missing."""
    for sentence in run.set_aside_damaged(only=which[-1]):
        display.tell(sentence)
    replicas = Replicas(strategy)
    replicas.check_same(spec, "settings")  # and no worker looks before the chief has set aside what is damaged
    missing = run.missing(*which)
    replicas.check_same(missing, f"levels to train in {run.folder}")
    return missing


def versions() -> dict[str, str]:
    packages = ("tf_lottery", "tensorflow", "keras", "numpy")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in packages}}
