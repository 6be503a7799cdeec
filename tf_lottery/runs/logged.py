"""What loggers are told of a run: of each replicate its levels, from their files.

So a level is told whoever trained it: this process, one that was killed before it told, another run whose training was taken over, or
one without loggers. `logged.json` in the folder of a replicate remembers what was told.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tf_lottery.base.errors import LotteryError
from tf_lottery.runs.results import Onlooker, Run
from tf_lottery.search.logger import RECORD, Log, LoggedLevel
from tf_lottery.search.loggers import made


class Logs:
    """The loggers of a run, some for each replicate.

    Args:
      run: The run.
      loggers: As for `find_ticket`; names and classes are made anew for each replicate.
      settings: What the run is begun with.
      replicates: How many it has.
      only: The one that is worked on, if not all.
      tell: Is told which logger failed.
      name: What the run is called, if not by its folder.

    Raises:
      LotteryError: If there is no such logger.
    """

    def __init__(
        self,
        run: Run,
        loggers: Sequence,
        settings: Mapping[str, Any],
        replicates: int,
        only: int | None,
        tell: Callable[[str], None],
        name: str | None = None,
    ):
        self.run, self.settings, self.tell, self.name = run, settings, tell, name or run.name
        told = loggers and not isinstance(run, Onlooker)
        numbers = range(replicates) if only is None else [only]
        self.logs = {replicate: self._log(replicate, loggers) for replicate in numbers} if told else {}

    @contextlib.contextmanager
    def of(self, replicate: int) -> Iterator[Log | None]:
        """A context in which a replicate is told of, with its lock held; what is finished is told first."""
        if replicate not in self.logs:
            yield None
            return
        with self.logs[replicate] as log:
            self.catch_up(log, replicate)
            yield log

    def catch_up(self, log: Log | None, replicate: int) -> None:
        """Tells of what is finished and was not told yet."""
        for level in [level for _, level in self.run.finished(replicate)] if log else ():
            if log and log.lacking(level):
                try:
                    found = self._level(replicate, level)
                except (LotteryError, OSError) as error:  # edited by hand while it was read
                    self.tell(f"loggers are not told of level {level} of replicate {replicate}: {error}")
                else:
                    log.level(found)

    def rest(self) -> None:
        """Tells of replicates in which nothing was left to train."""
        for replicate, log in self.logs.items():
            if any(log.lacking(level) for _, level in self.run.finished(replicate)):
                try:
                    with self.run.alone(replicate), log:
                        self.catch_up(log, replicate)
                except LotteryError as error:
                    self.tell(f"loggers are not told of replicate {replicate}: {error}")

    def _log(self, replicate: int, loggers: Sequence) -> Log:
        settings = {**self.settings, "replicate": replicate}
        record = self.run.level_folder(replicate, 0).parent / RECORD
        return Log(made(loggers, self.tell), f"{self.name}/replicate_{replicate}", settings, record, self.tell)

    def _level(self, replicate: int, level: int) -> LoggedLevel:
        row = self.run.row(replicate, level)
        notes = row.pop("notes", None)
        numbers = {
            name: value
            for name, value in row.items()
            if isinstance(value, int | float) and name not in ("replicate", "level")
        }
        curve = [{**line, "step": int(line["step"])} for line in self.run.curve(replicate, level) or ()]
        load = self.run.ticket
        return LoggedLevel(level, numbers, curve, notes.split("; ") if notes else (), lambda: load(replicate, level))
