"""Loggers: who is told how a search goes. Three methods; TensorBoard is one, your experiment tracker another.

A logger follows one search at a time: `find_ticket`, a replicate of `tf-lottery find`, or one `fit` with `LotteryTicket`. It is told
that the search begins, of each level when it is finished, and that it ends. Your own is a class in your own file:

>>> @register
... class Lines:
...     def on_run_begin(self, run):
...         print(run.name, "begins")
...
...     def on_level_end(self, level):
...         print(f"level {level.level}: {level.metrics['density']:.2f}")
...
...     def on_run_end(self, error=None):
...         print("done" if error is None else error)
>>> get("Lines") is Lines
True
>>> _ = registry._functions.pop("Lines")

It can be named where a logger is asked for, as `"Lines"`, and with an argument of its class as `"tensorboard=logs"`. What a logger raises is
told, and it is told no more; the search goes on.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_lottery.base.errors import LotteryError
from tf_lottery.base.registry import Registry
from tf_lottery.search.logger import METHODS, LoggedLevel, LoggedRun, Logger, in_words

__all__ = ["LoggedLevel", "LoggedRun", "Logger", "TensorBoard", "get", "register"]

registry = Registry("logger", "tf_lottery.loggers")
register, get = registry.register, registry.get


def made(given: Logger | str | Callable | Sequence, tell: Callable[[str], None] | None = None) -> dict[str, Logger]:
    """The loggers that are meant, by name: objects, classes, registered names, and names with an argument as `tensorboard=logs`.

    Args:
      given: One, or several.
      tell: Is told of one that cannot be made now, which is left out; without, it is an error.

    Raises:
      LotteryError: If one is unknown, lacks a method, or cannot be made.
    """
    found: dict[str, Any] = {}
    for one in given if isinstance(given, list | tuple) else [given]:
        name = one if isinstance(one, str) else getattr(one, "__name__", type(one).__name__)
        while name in found:
            name += "'"
        argument = ""
        if isinstance(one, str):
            known, _, argument = one.partition("=")
            one = get(known)
        if isinstance(one, type) or (callable(one) and not hasattr(one, METHODS[0])):
            try:
                one = one(argument) if argument else one()
            except LotteryError:
                raise
            except Exception as error:
                why = f"Expected a logger that can be made, but {name} failed ({in_words(error)})"
                if tell is None:
                    raise LotteryError(f"{why}.") from error
                tell(f"{why}; it is told nothing.")
                continue
        if lacks := [method for method in METHODS if not callable(getattr(one, method, None))]:
            raise LotteryError(f"Expected a logger with {', '.join(METHODS)}, but {name} has no {lacks[0]}.")
        found[name] = one
    return found


class TensorBoard:
    """Tells TensorBoard: `<log_dir>/<run>/level_<kk>` has the curve of a level, its settings (HParams), histograms of its kept
    weights and pictures of its masks; `<log_dir>/<run>` the numbers of each level, against the level's.

    A `Trainer`'s curve is there while it trains, all else when the level is finished. Histograms `kept/<path>`, `density/<path>` and
    `threshold/<path>` stand at step 0 for the weights that the level began with, and at its last step for those it ended with.

    Args:
      log_dir: Where TensorBoard looks.

    Raises:
      LotteryError: If TensorBoard is not installed.

    Examples:

    >>> import tempfile
    >>> import numpy as np
    >>> from tf_lottery import Ticket
    >>> from tf_lottery.search.logger import Log, level_of
    >>> ticket = Ticket({"kernel": np.eye(2)}, {"kernel": np.eye(2)}, {"kernel": 2 * np.eye(2)})
    >>> folder = tempfile.TemporaryDirectory()
    >>> with Log({"tensorboard": TensorBoard(folder.name)}, "mine", {"criterion": "random"}) as log:
    ...     log.level(level_of(ticket, [{"step": 10, "train_loss": 0.5}]))
    >>> sorted(path.name for path in Path(folder.name, "mine").iterdir() if path.is_dir())
    ['level_00']
    >>> folder.cleanup()
    """

    def __init__(self, log_dir: str | Path = "logs"):
        if importlib.util.find_spec("tensorboard") is None:
            raise LotteryError(
                "Expected TensorBoard for its logger, but it is not installed: python -m pip install 'tf_lottery[tensorboard]'."
            )
        self.log_dir = Path(log_dir)

    def on_run_begin(self, run: LoggedRun) -> None:
        self._folder, self._settings = self.log_dir / run.name, run.settings
        self._writers: dict[str, Any] = {}
        self._written: dict[int, set[int]] = {}  # the steps of each level's curve

    def on_measurement(self, level: int, row: Mapping[str, Any]) -> None:
        import tensorflow as tf

        with self._writer(f"level_{level:02d}").as_default(step=int(row["step"])):
            for name, value in row.items():
                if name != "step" and value is not None:
                    tf.summary.scalar(name, value)
        self._written.setdefault(level, set()).add(int(row["step"]))
        self._writer(f"level_{level:02d}").flush()

    def on_level_end(self, level: LoggedLevel) -> None:
        import tensorflow as tf
        from tensorboard.plugins.hparams import api

        from tf_lottery.search import summaries

        written = self._written.setdefault(level.level, set())
        for row in level.curve:  # of a level that was trained by another process, or none
            if row["step"] not in written:
                self.on_measurement(level.level, row)
        name = f"level_{level.level:02d}"
        own = {**self._settings, "level": level.level, "weights_remaining": level.metrics.get("density")}
        with self._writer(name).as_default(step=0):
            api.hparams({key: _simple(value) for key, value in own.items() if value is not None})
            summaries.write_weights(level.ticket, "initial")
        if level.ticket.final is not None:
            with self._writer(name).as_default(step=max(written, default=1)):
                summaries.write_weights(level.ticket, "final")
        self._writers.pop(name).close()
        with self._writer("").as_default(step=level.level):
            for metric, value in level.metrics.items():
                if isinstance(value, int | float):
                    tf.summary.scalar(f"by_level/{metric}", value)
        self._writer("").flush()

    def on_run_end(self, error: BaseException | None = None) -> None:
        for writer in self._writers.values():
            writer.close()

    def _writer(self, name: str) -> Any:
        import tensorflow as tf

        if name not in self._writers:
            self._writers[name] = tf.summary.create_file_writer(str(self._folder / name))
        return self._writers[name]


def _simple(value) -> bool | int | float | str:
    return value if isinstance(value, bool | int | float | str) else str(value)


registry.register(TensorBoard, "tensorboard")
