"""The levels of a run: which are missing, how one is trained and watched, and how it is written; all experiments share it."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import math
import platform
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import tensorflow as tf

from tf_lottery.base.errors import LotteryError, NonFiniteLossError
from tf_lottery.masking import health, state
from tf_lottery.masking.distribution import Replicas
from tf_lottery.masking.health import Connections
from tf_lottery.problems import data
from tf_lottery.rules import masks
from tf_lottery.runs.known import Known, save
from tf_lottery.runs.logged import Logs
from tf_lottery.runs.results import Onlooker, Run
from tf_lottery.runs.settings import Problem
from tf_lottery.runs.todo import reference_in_words
from tf_lottery.search.logger import Log
from tf_lottery.tickets.ticket import Ticket
from tf_lottery.training.trainer import Trainer


class Display(Protocol):
    """What an experiment tells about its progress."""

    def begin(
        self, replicate: int, level: int, density: float | None, steps: int | None = None, search: int = 0
    ) -> Sequence:
        """A training of a level begins, of so many steps; returns Keras callbacks to be called while it trains.

        Args:
          search: Which of the level's trainings for the search alone it is, from 1 on; 0: it is its ticket's.
        """

    def skipped(self, steps: int) -> None:
        """So many steps are not trained, because another run of the sweep has done it."""

    def done(self, row: Mapping[str, Any]) -> None:
        """A level is finished; `row` is its row of the summary, with its `notes`, and the run that it was `taken_from`, if so."""

    def tell(self, sentence: str, about: Sequence[str] = ()) -> None:
        """Something that its reader should know; where it is `about` nothing that was not told of already, nothing is said."""


class Train:
    """The `train` of an experiment: the `Trainer`, with the display told which level begins.

    Args:
      trainer: The trainer of the replicate.
      run: Where its results go.
      display: Is told.
      replicate: Which.
      classes: Of the data; who guesses is told by them.
      connects: Whether signals pass the masks alone.
      known: The trainings that need not be done again; None if all are.
      reference: The road of the search, where the dense network is trained as a reference beside it.
    """

    def __init__(
        self,
        trainer: Trainer,
        run: Run,
        display: Display,
        replicate: int,
        classes: int,
        connects: bool,
        known: Known | None = None,
        reference: str | None = None,
    ):
        self.reference = reference
        self.log: Log | None = None  # is told of what is measured
        self.trainer, self.run, self.display, self.replicate, self.known = trainer, run, display, replicate, known
        self.steps, self.eval_every, self.test_accuracy = trainer.steps, trainer.eval_every, trainer.test_accuracy
        self.guessing, self.connects = math.log(classes), connects
        self.level, self.search = 0, 0
        self.notes: list[str] = []
        self.key: str | None = None
        self.shared_with: str | None = None
        self._connections: Connections | None = None
        self._alone = contextlib.ExitStack()

    @property
    def probe(self):
        return self.trainer.probe

    @property
    def curve(self):
        return self.trainer.curve

    def comes(self, level: int, search: int) -> None:
        """Which training is next: that of a level's ticket, or one of its network for the search alone."""
        self.level, self.search = level, search

    def __call__(self, model, callbacks, *, steps: int | None = None):
        self.release()
        self.shared_with = None
        checkpoint = self.run.checkpoint(self.replicate, self.level, self.search)
        density, length = masks.density(state.get_masks(model)), steps or self.steps
        if self.known:
            own = self.search and self.run.searched(self.replicate, self.level, self.search).is_file()
            self.key = self.known.key(self.trainer, model, callbacks, steps, self.search)
        if self.known and self.key:
            self._alone.enter_context(self.known.alone(self.key))
            if (metrics := self._known(model, callbacks, length, self.known, self.key)) is not None:
                if self.trainer.replicas.is_chief:
                    checkpoint.unlink(missing_ok=True)  # this run was stopped in it, and another one was faster
                if not own:
                    self.display.skipped(length)
                return metrics
        self.trainer.checkpoint = checkpoint
        shown = self.display.begin(self.replicate, self.level, density, length, self.search)
        if self.log and not self.search:
            shown = [*shown, *self.log.callbacks(self.level)]
        metrics = self.trainer(model, [*callbacks, *shown], steps=steps)
        if self.search:
            self._searched(model, callbacks, length)
        else:
            self.notes = self._looked_at(model)
        return metrics

    def _known(self, model, callbacks, length: int, known: Known, key: str) -> Mapping | None:
        """The metrics of a training that is not done again, with the model where it ended; None if it is not known."""
        if not self.search:
            if (level := known.level(self.level, key, model, callbacks)) is None:
                return None
            self.trainer.curve, self.notes, self.shared_with = level.curve, level.notes, level.run
            return level.metrics
        curve = known.searched(self.replicate, self.level, self.search, key, model, callbacks)
        self.trainer.replicas.check_same(curve, f"training for the search of level {self.level} in {self.run.folder}")
        if curve is None:
            return None
        self.trainer.curve = curve
        self._searched(model, callbacks, length)
        return {}

    def _searched(self, model, callbacks, steps: int) -> None:
        """Keeps what came of a training for the search, for who goes on from there."""
        if self.key and self.trainer.replicas.is_chief:
            path = self.run.searched(self.replicate, self.level, self.search)
            save(path, self.key, model, callbacks, steps, self.trainer.curve)
        self.release()

    def release(self) -> None:
        """What this training came to is on disk: others that want it can have it."""
        self._alone.close()

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


def begun(run: Run, spec: Mapping[str, Any], tickets: Iterable[Ticket], examples: str) -> Iterator[Ticket]:
    """The tickets; before the first one is looked for, the run has its settings on disk, and the fingerprint of its data."""
    run.open(spec, versions(), examples)
    yield from tickets


def write(
    run: Run,
    replicate: int,
    tickets: Iterable[Ticket],
    trained: Train,
    display: Display,
    origin: Mapping[str, Any],
    logs: Logs | None = None,
) -> None:
    """Writes each ticket with its `origin`, so that its file alone is enough to build the model it belongs to; tells loggers."""
    with run.alone(replicate), _masks_told(display), logs.of(replicate) if logs else contextlib.nullcontext() as log:
        trained.log = log
        try:
            for ticket in tickets:
                found = {**ticket.found, **origin, "notes": trained.notes}
                if trained.key:
                    found["training"] = trained.key
                ticket = dataclasses.replace(ticket, found=found)
                row = run.write_level(replicate, ticket, trained.trainer.curve)
                trained.release()
                remarks = [f"trained for {trained.shared_with}"] if trained.shared_with else []
                if trained.known and "chosen" in ticket.found:  # by a search, and no control of one
                    remarks += [f"{ticket.found['chosen']} was chosen: {ticket.found['because']}"]
                if trained.reference and ticket.level == 0:
                    remarks += filter(None, [reference_in_words(trained.trainer.curve, trained.reference)])
                told = {"remark": "; ".join(remarks)} if remarks else {}
                told |= {"taken_from": trained.shared_with} if trained.shared_with else {}
                display.done({**row, **told})
                if logs:
                    logs.catch_up(log, replicate)
        except NonFiniteLossError as error:
            if not trained.search:  # the curve of a level that is finished stays
                run.write_curve(replicate, trained.level, trained.trainer.curve)
            raise LotteryError(
                f"{'The search of level' if trained.search else 'Level'} {trained.level} of replicate {replicate} stopped: expected a finite training loss, but it was not at step "
                f"{error.step}; what was finished is kept in {run.folder}."
            ) from None
        except tf.errors.ResourceExhaustedError as error:
            raise LotteryError(
                f"Expected memory for the training of level {trained.level} of replicate {replicate}, but there is not enough "
                f"({str(error.message).partition(chr(10))[0][:200]}): a smaller batch_size takes less; what was finished is kept in {run.folder}."
            ) from None
        finally:
            trained.release()


@contextlib.contextmanager
def _masks_told(display: Display) -> Iterator[None]:
    """A context in which the display is told of masks that do harm, in the place of a warning."""
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(message, *others):
            if isinstance(message, health.MaskWarning):
                display.tell(f"warning: {message.in_flags()}", message.about)
            else:
                shown(message, *others)

        warnings.simplefilter("always", health.MaskWarning)
        warnings.showwarning = show
        yield


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
    for sentence in run.set_aside_damaged(which[-1], spec):
        display.tell(sentence)
    replicas = Replicas(strategy)
    replicas.check_same(spec, "settings")  # and no worker looks before the chief has set aside what is damaged
    missing = run.missing(*which)
    replicas.check_same(missing, f"levels to train in {run.folder}")
    return missing


def versions() -> dict[str, str]:
    packages = ("tf_lottery", "tensorflow", "keras", "numpy")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in packages}}
