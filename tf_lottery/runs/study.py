"""A study: runs that belong to one question, as data: their rows, their curves, and what tells them apart. No TensorFlow."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from tf_lottery.base.errors import LotteryError
from tf_lottery.runs import gathering
from tf_lottery.runs.gathering import Entry, Row
from tf_lottery.runs.settings import Problem, Settings
from tf_lottery.tickets.ticket import Ticket

MEASURED = (
    "density",
    "trainings",
    "steps",
    "early_stop_step",
    "early_stop_validation_accuracy",
    "early_stop_test_accuracy",
    "final_validation_accuracy",
    "final_test_accuracy",
    "seconds",
)
CURVES = ("step", "train_loss", "validation_loss", "validation_accuracy", "test_accuracy")
_ORDER = ["branch", *(field.name for field in fields(Settings))]
_DEFAULTS = {field.name: field.default for field in fields(Settings)}
_REPEATED = ("replicates", "levels", "seed")  # more of the same: no combination of its own


@dataclass(frozen=True)
class Study:
    """Runs side by side.

    Attributes:
      name: What it is called.
      entries: The runs and their branches that have a finished level.
      notes: What is missing or not as it was written, a sentence each.
    """

    name: str
    entries: Sequence[Entry]
    notes: Sequence[str]

    @functools.cached_property
    def varying(self) -> tuple[str, ...]:
        """The settings that are not the same in all runs: first those that were given several values, as they were, then by the flags of `tf-lottery find`."""
        keys = {key for entry in self.entries for key in entry.settings}
        differ = {key for key in keys if len({_key(_value(entry, key)) for entry in self.entries}) > 1}
        given = [key for entry in self.entries for key in entry.flags]
        order = {key: place for place, key in enumerate(dict.fromkeys(["branch", *given, *_ORDER]))}
        return tuple(sorted(differ - {"replicates", "levels"}, key=lambda key: (order.get(key, len(order)), key)))

    @functools.cached_property
    def flags(self) -> tuple[str, ...]:
        """As few of the settings that vary as tell the combinations apart, and `run` where settings do not."""
        candidates = [key for key in self.varying if key not in _REPEATED]
        swept = {key for entry in self.entries for key in entry.flags if "branch" not in entry.settings}
        chosen: list[str] = []
        for key in sorted(candidates, key=lambda key: key not in swept and key != "branch"):
            if len(self._groups([*chosen, key])) > len(self._groups(chosen)):
                chosen.append(key)
        for key in reversed(chosen):
            others = [other for other in chosen if other != key]
            if key not in swept and len(self._groups(others)) == len(self._groups(chosen)):
                chosen = others
        chosen.sort(key=self.varying.index)
        together = self._groups(chosen).values()
        if any(len({_key(_value(e, "seed")) for e in group}) < len(group) for group in together):
            chosen.append("run")
        return tuple(chosen)

    def _groups(self, keys: Sequence[str]) -> dict[tuple, list[Entry]]:
        groups: dict[tuple, list[Entry]] = {}
        for entry in self.entries:
            groups.setdefault(tuple(_key(_value(entry, key)) for key in keys), []).append(entry)
        return groups

    def values(self, entry: Entry) -> dict[str, Any]:
        """The values of the `flags` in a run."""
        return {flag: _value(entry, flag) for flag in self.flags}

    def rows(self) -> list[Row]:
        """A row for each run, replicate and level.

        Its columns: `run`, each setting that varies, `replicate`, `seed` (of the replicate), `level`, and what was measured; None
        where a file does not say.
        """
        return [row for entry in self.entries for row in self._rows(entry)]

    def curve_rows(self, complaints: list[str] | None = None) -> Iterator[Row]:
        """A row for each measurement during training, with the columns of `rows` up to `density`.

        Args:
          complaints: A list that takes a sentence for each curve that is damaged and left out.
        """
        for entry in self.entries:
            for row in entry.rows:
                at = {**self._place(entry, row["replicate"]), "level": row["level"], "density": row["density"]}
                curve, complaint = gathering.curve_of(entry.run, entry.name, row["replicate"], row["level"])
                if complaint and complaints is not None:
                    complaints.append(complaint)
                for measured in curve:
                    yield {**at, **{column: measured.get(column) for column in CURVES}}

    def select(self, **settings) -> Self:
        """The part of the study whose runs have these settings, as in `criterion="movement"`.

        Raises:
          LotteryError: If no run has such a setting, or none such a value.
        """
        if unknown := settings.keys() - {"run", *(key for entry in self.entries for key in entry.settings)}:
            raise LotteryError(f"Expected settings of the runs of {self.name}, but received {min(unknown)!r}.")
        left = [e for e in self.entries if all(_key(_value(e, key)) == _key(value) for key, value in settings.items())]
        if not left:
            raise LotteryError(f"Expected settings that a run of {self.name} has, but received {settings!r}.")
        return dataclasses.replace(self, entries=tuple(left))

    def tickets(self, replicate: int | None = None, level: int | None = None) -> Iterator[tuple[Row, Ticket]]:
        """The tickets with their rows; each is read when it is asked for, and what has no ticket is left out.

        Args:
          replicate, level: Those of this replicate or level only.
        """
        for entry in self.entries:
            for row, found in zip(self._rows(entry), entry.rows):
                wanted = replicate in (None, found["replicate"]) and level in (None, found["level"])
                at = found["replicate"], found["level"]
                if wanted and (entry.run.level_folder(*at) / "level.ticket").is_file():
                    yield row, entry.run.ticket(*at)

    def _rows(self, entry: Entry) -> list[Row]:
        return [
            {**self._place(entry, row["replicate"]), "level": row["level"], **{c: row.get(c) for c in MEASURED}}
            for row in entry.rows
        ]

    def _place(self, entry: Entry, replicate: int) -> Row:
        settings = {key: _value(entry, key) for key in self.varying if key != "seed"}
        return {"run": entry.name, **settings, "replicate": replicate, "seed": seed_of(entry, replicate)}


def read(paths: Sequence[Path], name: str | None = None) -> Study:
    """The study of the runs that paths stand for; see `gathering.named`.

    Raises:
      LotteryError: If there is no such run, or none with a finished level.
    """
    entries: list[Entry] = []
    notes: list[str] = []
    for run, planned in gathering.named(paths):
        found, said = gathering.read(run, planned)
        entries += found
        notes += said
    name = name or ", ".join(path.name for path in paths)
    if not entries:
        raise LotteryError(" ".join([f"Expected a run with a finished level, but {name} has none.", *notes]))
    return Study(name, tuple(entries), tuple(notes))


def seed_of(entry: Entry, replicate: int) -> int:
    """The seed of a replicate: replicates of different runs that have the same one began alike."""
    return int(entry.settings.get("seed") or 0) + replicate


def problem_of(entry: Entry) -> str:
    """What is trained, on what and how: runs in which it is the same have the same dense networks."""
    return _key({field.name: _value(entry, field.name) for field in fields(Problem) if field.name not in _REPEATED})


def in_words(values: Mapping[str, Any]) -> str:
    """What a combination is called: `movement, reinit`; of what does not say itself what it is with the flag's name."""
    if not values:
        return "the run"
    return ", ".join(text(flag, value) for flag, value in values.items())


def text(flag: str, value: Any) -> str:
    """A value of a flag, so that it can be told what it is."""
    if flag == "branch":
        return str(value).replace("_", " ") if value else "ticket"
    if value is None:
        return f"no {flag}"
    plain = value if isinstance(value, str) else json.dumps(value)
    return plain if isinstance(value, str) else f"{flag}={plain}"


def _value(entry: Entry, key: str) -> Any:
    if key == "run":
        return entry.name
    return entry.settings.get(key, _DEFAULTS.get(key, "" if key == "branch" else None))


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
