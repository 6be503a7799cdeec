"""Trainings that are not done again: what came of them lies on disk, in this run or in another one.

A training is known by its fingerprint: what it starts from, on which data, how, and for how long. Two trainings with the same one
end the same, to the bit; whatever setting of two runs differs, a training that it touches has another.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_lottery.base import container, guard, registry
from tf_lottery.base.errors import LotteryError, TicketError
from tf_lottery.masking import state
from tf_lottery.masking.weights import sublayers
from tf_lottery.problems import data
from tf_lottery.runs.results import Run
from tf_lottery.runs.todo import SEARCHED
from tf_lottery.search.callbacks.prune_by_schedule import PruneBySchedule
from tf_lottery.search.lottery import Snapshot
from tf_lottery.tickets.file import read_header
from tf_lottery.tickets.values import arrays
from tf_lottery.training.trainer import Trainer

MOST_BYTES = 2**40


class Outcome(NamedTuple):
    """What came of the training of a level, and the run that has done it."""

    metrics: Mapping[str, float]
    curve: list[dict[str, Any]]
    notes: list[str]
    run: str


@dataclass(frozen=True)
class Known:
    """The trainings that a run may find on disk.

    Attributes:
      run: The run.
      dataset: Its data, all of them, by `digest_of`.
      tell: Is told of files that are damaged.
      shared: A pattern of the names of the runs that trainings are shared with, as `*`; None: with none.
      deterministic: Whether it uses only operations that give the same bits each time.
    """

    run: Run
    dataset: str
    tell: Callable[[str], None]
    shared: str | None = None
    deterministic: bool = False

    def key(self, trainer: Trainer, model, callbacks: Sequence, steps: int | None, search: int) -> str | None:
        """The fingerprint of a training that is about to begin; None if its callbacks learn on the way what no file tells."""
        told = (Snapshot, PruneBySchedule) if search else Snapshot
        if not all(isinstance(callback, told) for callback in callbacks):
            return None
        threading = tf.config.threading
        parts = [
            trainer.fingerprint(model, callbacks, steps=steps),
            self.dataset,
            _config(model),
            importlib.metadata.version("tf_lottery"),
            _own_code(model),
            self.deterministic,
            [threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads()],
            [device.device_type for device in tf.config.list_logical_devices()],
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @contextlib.contextmanager
    def alone(self, key: str) -> Iterator[None]:
        """A context in which no other run of the sweep is at this training: who wants it too waits, and finds it then."""
        if self.shared is None:
            yield
            return
        folder = self.run.folder.parent
        try:
            with guard.alone(folder / f".training-{key[:16]}", "a training of several runs", wait=True):
                yield
        finally:
            for place in folder.glob(".training-*"):  # this one, and those of killed processes
                if not guard.is_taken(place):
                    with contextlib.suppress(OSError):  # another one waits there, or has removed it
                        place.rmdir()

    def searched(
        self, replicate: int, level: int, search: int, key: str, model, callbacks: Sequence
    ) -> list[dict[str, Any]] | None:
        """Puts a model where one of its trainings for the search alone has brought it; returns its curve, or None if that is not known."""
        own = self.run.searched(replicate, level, search)
        for path in (own, *self._elsewhere(level, own.name)):
            try:
                header = container.read_header(path, SEARCHED)
                if header.get("training") == key:
                    _put(path, model, callbacks)
                    return header["curve"]
            except FileNotFoundError:
                pass
            except (TicketError, KeyError):
                if path == own:
                    aside = guard.set_aside(own).name
                    self.tell(f"{own} is damaged: it is kept as {aside}, and its training is done again.")
        return None

    def level(self, level: int, key: str, model, callbacks: Sequence) -> Outcome | None:
        """Puts a model where the training of a level in another run has brought it; None if there is none."""
        alike = all(
            isinstance(callback, Snapshot) for callback in callbacks
        )  # others learn on the way what no ticket tells
        for path in self._elsewhere(level, "level.ticket") if alike else ():
            folder = path.parent
            run, replicate = Run(folder.parents[1]), int(folder.parent.name.removeprefix("replicate_"))
            with contextlib.suppress(FileNotFoundError, LotteryError):  # of a run that is being made, or removed
                found = read_header(path)["found"]
                if found.get("training") != key or guard.digest(folder / "curve.csv") != found["curve_sha256"]:
                    continue
                ticket = run.ticket(replicate, level).in_paths_of(model)
                state.set_state(model, ticket.masks, arrays(ticket.final))
                _give(callbacks, model, arrays(ticket.initial))
                curve = [{**row, "step": int(row["step"])} for row in run.curve(replicate, level) or ()]
                metrics = {name: value for name, value in ticket.metrics.items() if name != "trainings"}
                return Outcome(metrics, curve, list(found.get("notes") or ()), run.name)
        return None

    def _elsewhere(self, level: int, name: str) -> list[Path]:
        """Where other runs of the sweep have such a file, the oldest first: that of the run that has trained it."""
        if self.shared is None:
            return []
        found = self.run.folder.parent.glob(f"{self.shared}/replicate_*/level_{level:02d}/{name}")
        others = [(_age(path), path) for path in found if path.parents[2] != self.run.folder]
        return [path for _, path in sorted(others)]


def _age(path: Path) -> int:
    """When a file was written; one that is gone meanwhile comes last."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return sys.maxsize


def save(path: Path, key: str, model, callbacks: Sequence, steps: int, curve: Sequence[Mapping[str, Any]]) -> None:
    """Writes what came of a training for the search alone, with the validation losses on its way."""
    kept = {f"mask/{i}": mask for i, mask in enumerate(state.get_masks(model).values())}
    kept |= {f"value/{i}": value for i, value in enumerate(state.get_values(model).values())}
    for callback in callbacks:
        if isinstance(callback, Snapshot):
            kept |= {f"start/{i}": value for i, value in callback.saved().items()}
    seen = [{name: row[name] for name in ("step", "validation_loss") if name in row} for row in curve]
    container.write(path, SEARCHED, {"training": key, "steps": steps, "curve": seen}, kept)


def digest_of(dataset: data.Dataset) -> str:
    """What tells data from others: a SHA-256 of all of them."""
    sets = (dataset.train, dataset.validation, dataset.test)
    digests = [container.digest(np.asarray(part)) for pair in sets for part in pair]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _put(path: Path, model, callbacks: Sequence) -> None:
    _, kept = container.read(path, SEARCHED, MOST_BYTES)
    masks = {kernel: kept[f"mask/{i}"] for i, kernel in enumerate(state.get_masks(model))}
    names = list(state.named_variables(model))
    state.set_state(model, masks, {name: kept[f"value/{i}"] for i, name in enumerate(names)})
    if "start/0" in kept:
        _give(callbacks, model, {name: kept[f"start/{i}"] for i, name in enumerate(names)})


def _give(callbacks: Sequence, model, start: Mapping[str, np.ndarray]) -> None:
    """The weights that a training was to note on its way."""
    for callback in callbacks:
        if isinstance(callback, Snapshot):
            callback.values = {name: start[name] for name in state.named_variables(model)}


def _config(model) -> Any:
    """What the network is made of, as far as it can tell."""
    try:
        return json.loads(json.dumps(getattr(model, "inner", model).get_config()))
    except (NotImplementedError, TypeError, ValueError):
        return None


def _own_code(model) -> list[str]:
    """The SHA-256 of the files that one's own layers and plugins are written in, and of what lies beside those: other code is another network."""
    network = getattr(model, "inner", model)
    layers = {type(layer).__module__ for layer in (network, *sublayers(network, recursive=True))}
    files = [Path(plugin).absolute() for plugin in registry.imported if plugin.endswith(".py")]
    folders = {folder for file in files for folder in (file.parent, file.parent.resolve())}
    packages = {plugin.partition(".")[0] for plugin in registry.imported if not plugin.endswith(".py")}
    found = set()
    for name, module in list(sys.modules.items()):
        package, path = name.partition(".")[0], Path(getattr(module, "__file__", None) or os.devnull).absolute()
        if package not in ("keras", "tf_lottery", "tensorflow"):
            installed = not {"site-packages", "dist-packages"}.isdisjoint(path.parts)
            beside = not installed and not folders.isdisjoint(path.parents)
            if name in layers or package in packages or beside:
                found.add(path)
    return sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in found if path.is_file())
