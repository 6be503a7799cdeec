"""What a training that was killed goes on from: how far it had come, in a file beside its results.

A file is written now and then, holds its SHA-256, and belongs to one training: the same start, data and settings. What is
damaged or belongs to another training is set aside under another name and told of, and the training starts from its beginning.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tf_lottery.base import container, guard
from tf_lottery.base.errors import LotteryWarning, TicketError

FORMAT = "tf_lottery.checkpoint/1"
EVERY = 60.0  # seconds
MOST_SHARE = 1 / 50  # of the time: a file that takes long to write is written less often
MOST_BYTES = 2**40


@dataclasses.dataclass
class Progress:
    """How far a training has come.

    Attributes:
      step: Steps that are done.
      curve: Its measurements; `best` is the place of the early stop among them, `best_values` are the weights there.
      losses: (steps, mean loss) of the stretches since the last measurement.
      seconds: What it took.
      read: What tells the batches that were streamed until then from others, see `feed.Stretch`.
    """

    step: int = 0
    curve: list[dict] = dataclasses.field(default_factory=list)
    losses: list[tuple[float, float]] = dataclasses.field(default_factory=list)
    best: int | None = None
    best_values: list[np.ndarray] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    read: str | None = None


class Checkpoint:
    """The file of one training.

    Args:
      path: Where it is.
      every: Seconds between two writings, at least; and 50 times what the last one took.
      owner: Says which training it is of; see `fingerprint`.
      writes: Whether this process writes it, or only reads it.
    """

    def __init__(self, path: str | os.PathLike, every: float, owner: str, writes: bool = True):
        self.path, self.every, self.owner, self.writes = Path(path), every, owner, writes
        self._last, self._took = time.monotonic(), 0.0

    @property
    def due(self) -> bool:
        since = time.monotonic() - self._last
        return self.writes and since >= max(self.every, self._took / MOST_SHARE)

    def save(self, progress: Progress, state: Sequence[np.ndarray], callbacks: Sequence) -> None:
        """Writes it.

        Args:
          progress: How far the training has come.
          state: All variables that it moves.
          callbacks: Those that have something to carry over, see `Trainer`.
        """
        began = time.monotonic()
        header = {"owner": self.owner, "step": progress.step, "losses": progress.losses}
        header |= {"best": progress.best, "seconds": progress.seconds, "read": progress.read}
        arrays = {**_numbered("state", state), **_numbered("best", progress.best_values)}
        arrays["curve"] = np.frombuffer(json.dumps(progress.curve).encode(), np.uint8)  # it outgrows a header
        for i, callback in enumerate(stateful(callbacks)):
            arrays |= {f"callback_{i}/{name}": value for name, value in callback.saved().items()}
        container.write(self.path, FORMAT, header, arrays)
        self._last = time.monotonic()
        self._took = self._last - began

    def load(
        self, callbacks: Sequence, goes_on: Callable[[Progress], bool] = lambda progress: True
    ) -> tuple[Progress, list[np.ndarray]] | None:
        """The progress and the variables, if there are some of this training; its callbacks are given what is theirs.

        Args:
          callbacks: Those of the training.
          goes_on: Whether the data set can go on from there.

        Warns:
          LotteryWarning: If the file is damaged or of another training, and renamed then, or the data set cannot.
        """
        if self.writes:
            guard.remove_unfinished(self.path.parent)
        try:
            header, arrays = container.read(self.path, FORMAT, MOST_BYTES)
            if header["owner"] != self.owner:
                self._set_aside("is of another training (another start, other data or settings)")
                return None
            progress = Progress(
                header["step"],
                json.loads(arrays["curve"].tobytes()),
                [(count, loss) for count, loss in header["losses"]],
                header["best"],
                _listed("best", arrays),
                header["seconds"],
                header.get("read"),
            )
        except FileNotFoundError:
            return None
        except (TicketError, KeyError, TypeError, ValueError) as error:
            self._set_aside("was damaged", error)
            return None
        if not goes_on(progress):
            warnings.warn(
                LotteryWarning(
                    "the checkpoint {} is of other batches than its data set gives now, as one that augments at random does; its "
                    "training starts anew",
                    self.path,
                ),
                stacklevel=2,
            )
            return None
        for i, callback in enumerate(stateful(callbacks)):
            prefix = f"callback_{i}/"
            callback.resume({n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)})
        return progress, _listed("state", arrays)

    def remove(self) -> None:
        """Removes it, when the training it is of is done."""
        if self.writes:
            self.path.unlink(missing_ok=True)

    def _set_aside(self, why: str, error: Exception | None = None) -> None:
        if self.writes:
            aside = guard.set_aside(self.path)
            warnings.warn(
                LotteryWarning(
                    "the checkpoint {} {} and is set aside as {}; its training starts anew{}",
                    *(self.path, why, aside.name, f" ({error})" if error else ""),
                ),
                stacklevel=2,
            )


def fingerprint(settings: Mapping[str, Any], values: Mapping[str, np.ndarray]) -> str:
    """What tells one training from another: SHA-256 of its settings and of the values it starts from.

    >>> fingerprint({"steps": 1}, {"w": np.zeros(2)}) == fingerprint({"steps": 2}, {"w": np.zeros(2)})
    False
    """
    digests = {name: [str(a.dtype), list(a.shape), container.digest(a)] for name, a in values.items()}
    return hashlib.sha256(json.dumps([settings, digests], sort_keys=True, default=str).encode()).hexdigest()


def described(part: Any) -> Any:
    """A function or an object by its name, and its configuration if it has one, without the names that Keras counts up."""
    config = part.get_config() if hasattr(part, "get_config") else None
    return [getattr(part, "__module__", None), getattr(part, "__qualname__", type(part).__name__), _nameless(config)]


def _nameless(config: Any) -> Any:
    if isinstance(config, Mapping):
        return {key: _nameless(value) for key, value in config.items() if key != "name"}
    return config


def sample_of(array: np.ndarray, rows: int = 1_000) -> np.ndarray:
    """Some of the rows of a set, from all over it: enough to tell one set from another without reading all of it."""
    return np.ascontiguousarray(array[:: max(1, len(array) // rows)])


def stateful(callbacks: Sequence) -> list:
    """Those that have something to carry over, see `Trainer`."""
    return [callback for callback in callbacks if hasattr(callback, "saved") and hasattr(callback, "resume")]


def _numbered(kind: str, arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{kind}/{i}": array for i, array in enumerate(arrays)}


def _listed(kind: str, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    return [arrays[f"{kind}/{i}"] for i in range(sum(name.startswith(f"{kind}/") for name in arrays))]
