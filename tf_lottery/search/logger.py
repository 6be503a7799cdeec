"""What a logger is told of a search, and by whom: each level once, whatever a logger does."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from tf_lottery.base.errors import LotteryWarning
from tf_lottery.base.files import whole_file
from tf_lottery.tickets.ticket import Ticket

RECORD = "logged.json"
METHODS = ("on_run_begin", "on_level_end", "on_run_end")


@dataclass(frozen=True)
class LoggedRun:
    """A search that begins, or goes on.

    Attributes:
      name: On the command line `<run>/replicate_<r>`; of `find_ticket` and `LotteryTicket` the model's name.
      id: A new one for each search; the same one when a run that was stopped goes on.
      settings: What decides its results: names, numbers, lists of these, or None.
    """

    name: str
    id: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class LoggedLevel:
    """A level that is finished.

    Attributes:
      level: 0 = the dense network.
      metrics: Its numbers: `density` and what `train` returned; those of a `Trainer` are the columns of a study's table.
      curve: What a `Trainer` measured on the way, row by row, each with its `step`; empty with other functions.
      notes: What went wrong in it, in words.
      load: Gets the ticket.
    """

    level: int
    metrics: Mapping[str, float]
    curve: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()
    load: Callable[[], Ticket] | Any = field(default=None, repr=False)

    @cached_property
    def ticket(self) -> Ticket:
        """Its masks and weights; on the command line they are read from the run's folder when they are asked for."""
        return self.load()


class Logger(Protocol):
    """What is told how a search goes.

    A logger that also has `on_measurement(level, row)` is told of each row of a `Trainer`'s curve as it is measured.
    """

    def on_run_begin(self, run: LoggedRun) -> None:
        """A search begins. One that was stopped and goes on begins again, with the same `run.id`."""

    def on_level_end(self, level: LoggedLevel) -> None:
        """A level is finished. Each is told once; only a process that was killed while it told may tell it again."""

    def on_run_end(self, error: BaseException | None = None) -> None:
        """The search ends, or is stopped by an error. A killed process tells nobody."""


class Log:
    """Tells the loggers of one search, each of each level once; a context that begins and ends it.

    Args:
      loggers: By name, see `made`.
      name: Of the search.
      settings: Of the search.
      record: A file that remembers, over processes, which search this is and who was told of which level.
      tell: Is told which logger failed; by default a warning.
    """

    def __init__(
        self,
        loggers: Mapping[str, Logger],
        name: str,
        settings: Mapping[str, Any],
        record: Path | None = None,
        tell: Callable[[str], None] | None = None,
    ):
        self.loggers, self.record, self.tell = dict(loggers), record, tell or _warn
        known = _read(record)
        self.id: str = known.get("id") or uuid.uuid4().hex
        self.told: dict[str, list[int]] = {name: list(levels) for name, levels in known.get("told", {}).items()}
        self.run = LoggedRun(name, self.id, dict(settings))

    def __enter__(self) -> Log:
        self._write()  # before a logger uses the name, so that a killed run goes on under it
        self._call(METHODS[0], self.run)
        return self

    def __exit__(self, kind, error: BaseException | None, trace) -> None:
        self._call(METHODS[2], None if isinstance(error, GeneratorExit) else error)

    def lacking(self, level: int) -> list[str]:
        """The loggers that were not told of a level yet."""
        return [name for name in self.loggers if level not in self.told.get(name, ())]

    def level(self, level: LoggedLevel) -> None:
        """Tells who was not told of it yet."""
        told = self._call(METHODS[1], level, only=self.lacking(level.level))
        for name in told:
            self.told.setdefault(name, []).append(level.level)
        if told:
            self._write()

    def callbacks(self, level: int) -> Sequence:
        """Keras callbacks that tell of each measurement of a `Trainer`, for the loggers that want it."""
        if not (wanting := [name for name, logger in self.loggers.items() if hasattr(logger, "on_measurement")]):
            return ()
        import keras

        log = self

        class Measurements(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                if logs and "step" in logs and len(logs) > 1:  # a Trainer's, and something was measured
                    log._call("on_measurement", level, dict(logs), only=wanting)

        return [Measurements()]

    def _call(self, method: str, *arguments, only: Sequence[str] | None = None) -> list[str]:
        """Calls a method of the loggers; returns which did not fail."""
        done = []
        for name in [name for name in self.loggers if only is None or name in only]:
            try:
                getattr(self.loggers[name], method)(*arguments)
                done.append(name)
            except Exception as error:  # whatever it is: a training must not be lost for a logger
                del self.loggers[name]
                said = " ".join(str(error).split())
                self.tell(
                    f"the logger {name} failed in {method} ({type(error).__name__}: {said:.200}); it hears no more."
                )
        return done

    def _write(self) -> None:
        if self.record is not None:
            try:
                with whole_file(self.record) as unfinished:
                    unfinished.write_text(json.dumps({"id": self.id, "told": self.told}))
            except OSError as error:
                self.tell(f"{self.record} cannot be written ({error.strerror}): loggers may be told again of a level.")


def logged(tickets: Iterator[Ticket], log: Log, train: Any) -> Iterator[Ticket]:
    """The tickets of a search, after the loggers were told of each."""
    with log:
        for ticket in tickets:
            curve = [dict(row) for row in getattr(train, "curve", None) or ()]
            log.level(level_of(ticket, curve))
            yield ticket


def level_of(ticket: Ticket, curve: Sequence[Mapping[str, Any]] = ()) -> LoggedLevel:
    """A ticket as loggers are told of it; they get a copy, for the search goes on from the ticket itself."""

    def load() -> Ticket:
        copies: dict[str, Any] = {name: _copies(getattr(ticket, name)) for name in ("masks", "initial", "final")}
        return dataclasses.replace(ticket, **copies)

    return LoggedLevel(ticket.level, {"density": ticket.density, **ticket.metrics}, curve, load=load)


def _copies(values: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return values and {path: value.copy() if hasattr(value, "copy") else value for path, value in values.items()}


def in_words(error: BaseException) -> str:
    """An error of somebody else's, in one line."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said:.200}"


def _read(record: Path | None) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, TypeError):
        if record is not None and isinstance(found := json.loads(record.read_text()), dict):
            return found
    return {}


def _warn(sentence: str) -> None:
    warnings.warn(LotteryWarning("{}", sentence), stacklevel=2)
