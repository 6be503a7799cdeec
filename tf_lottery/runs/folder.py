"""The folder of a run: the only module that knows where files lie and what they are called, and how they are read. No TensorFlow.

<results_dir>/<name>/spec.json                                 settings and versions
<results_dir>/<name>/summary.csv                               one row per replicate and level
<results_dir>/<name>/notes.csv                                 what went wrong in a level, if anything did
<results_dir>/<name>/replicate_<r>/level_<kk>/curve.csv        measurements during training
<results_dir>/<name>/replicate_<r>/level_<kk>/level.ticket     written last: a level that has it is finished
<results_dir>/<name>/replicate_<r>/level_<kk>/checkpoint.safetensors   while the level trains
<results_dir>/<name>/replicate_<r>/level_<kk>/search.safetensors       where its network was trained for the search alone: what came of it
<results_dir>/<name>/replicate_<r>/logged.json                 of which levels loggers were told
<results_dir>/<name>/branches/<branch>/...                     the same shape, for controls
<results_dir>/<name>/supermask.csv                             one row per replicate of learned masks
<results_dir>/<name>/supermask_by_rule.csv                     untrained networks under masks of the dense level

Tickets have a checksum of their own and that of the level's curve; the tables are made from tickets, and can be made again.
A ticket tells what its level is, see `identity`. A damaged file is renamed to *.damaged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tf_lottery.base import guard
from tf_lottery.base.errors import LotteryError
from tf_lottery.runs import spec
from tf_lottery.runs.tables import NOTES, read_csv, read_rows, read_rule
from tf_lottery.tickets.file import read_header
from tf_lottery.tickets.ticket import Ticket

RULE_TABLE = "supermask_by_rule.csv"


@dataclass(frozen=True)
class Folder:
    """One folder of results, as it is read."""

    folder: Path

    @classmethod
    def at(cls, results_dir: str, name: str) -> Self:
        """The run of that name.

        Raises:
          LotteryError: If the name is not that of a folder in `results_dir`.
        """
        return cls(Path(results_dir) / _folder_name(name))

    @property
    def name(self) -> str:
        return self.folder.name

    def spec(self) -> dict[str, Any] | None:
        """The settings and versions, or None if the run was never begun."""
        return spec.read(self.folder / "spec.json")

    def begun_with(self) -> dict[str, Any]:
        """The data folder, the plugins, the code and the data that it was begun with, paths as seen from its folder; older runs tell less."""
        return (self.spec() or {}).get("begun_with", {})

    def settings(self) -> dict[str, Any]:
        """The settings the run was begun with.

        Raises:
          LotteryError: If it was never begun.
        """
        written = self.spec()
        if written is None:
            raise LotteryError(f"Expected a run in {self.folder}, but there is none: `tf-lottery find` makes one.")
        return written["settings"]

    def level_folder(self, replicate: int, level: int) -> Path:
        return self._replicate_folder(replicate) / f"level_{level:02d}"

    def _replicate_folder(self, replicate: int) -> Path:
        return self.folder / f"replicate_{replicate}"

    def checkpoint(self, replicate: int, level: int, search: int = 0) -> Path:
        """Where the training of a level that is not finished keeps how far it has come; or one of those for the search alone."""
        return self.level_folder(replicate, level) / f"{_search(search) + '_' if search else ''}checkpoint.safetensors"

    def searched(self, replicate: int, level: int, search: int = 1) -> Path:
        """What came of a training of a level's network that was for the search alone, the first one or another."""
        return self.level_folder(replicate, level) / f"{_search(search)}.safetensors"

    @property
    def trunk(self) -> Self | None:
        """The run that this one is a branch of, if it is one."""
        above = self.folder.absolute().parents
        return (
            type(self)(self.folder.parents[1]) if above[0].name == "branches" and len(self.folder.parents) > 1 else None
        )

    def finished(self, only: int | None = None) -> list[tuple[int, int]]:
        """(replicate, level) of all finished levels, in order; of one replicate if `only` names it."""
        return sorted(at for path in self._tickets(only) if (at := self.place_of(path)) is not None)

    def strays(self, only: int | None = None) -> list[Path]:
        """Tickets that lie in folders that are none of a level's, as in a copy of one."""
        return sorted(path for path in self._tickets(only) if self.place_of(path) is None)

    def _tickets(self, only: int | None) -> Iterator[Path]:
        return self.folder.glob(f"replicate_{'*' if only is None else only}/level_*/level.ticket")

    def place_of(self, path: Path) -> tuple[int, int] | None:
        """(replicate, level) of the folder that a file lies in; None if it is not that of a level."""
        match = re.fullmatch(r"replicate_(\d+)/level_(\d+)", "/".join(path.parts[-3:-1]))
        at = (int(match[1]), int(match[2])) if match else None
        return at if at and self.level_folder(*at) == path.parent else None

    def missing(self, replicates: int, levels: Iterable[int], only: int | None = None) -> list[tuple[int, int]]:
        """(replicate, level) of what is not finished yet, in order; of one replicate if `only` names it."""
        if only is not None and not 0 <= only < replicates:
            raise LotteryError(f"Expected a replicate from 0 to {replicates - 1}, but received replicate={only}.")
        wanted = {(r, k) for r in range(replicates) for k in levels if only in (None, r)}
        return sorted(wanted - set(self.finished(only)))

    def ticket(self, replicate: int, level: int) -> Ticket:
        return Ticket.load(self.level_folder(replicate, level) / "level.ticket")

    def rule(self) -> list[dict[str, Any]]:
        """The rows of supermask_by_rule.csv; none if there is no such file.

        Raises:
          LotteryError: If it is damaged.
        """
        path = self.folder / RULE_TABLE
        written = (self.spec() or {}).get("tables", {}).get(RULE_TABLE)  # older runs have none
        if written and path.is_file() and guard.digest(path) not in written:
            raise LotteryError(
                f"Expected a table of masks by rule in {path}, but it is damaged (it is not as it was written)."
            )
        return read_rule(path)

    def supermasks(self) -> list[dict[str, float]]:
        """The rows of supermask.csv; none if there is no such file."""
        path = self.folder / "supermask.csv"
        return read_csv(path) if path.is_file() else []

    def notes(self) -> dict[tuple[int, int], str]:
        """(replicate, level) -> what went wrong there; nothing for most."""
        rows = read_rows(self.folder / "notes.csv", NOTES) or {}
        return {at: row["notes"] for at, row in rows.items()}

    def chosen(self) -> list[str]:
        """A sentence about the roads that the searches went on by, where those were to be chosen."""
        if ((self.spec() or {}).get("settings") or {}).get("search") != "auto":
            return []
        roads: dict[str, set[int]] = {}
        why: set[str] = set()
        for replicate, level in self.finished():
            found = read_header(self.level_folder(replicate, level) / "level.ticket")["found"]
            if "chosen" in found:
                roads.setdefault(found["chosen"], set()).add(replicate)
                why.add(found["because"])
        own = [
            f"{road} (replicate{'s' * (len(of) > 1)} {', '.join(map(str, sorted(of)))})" for road, of in roads.items()
        ]
        because = f": {why.pop()}" if len(why) == 1 else ""
        return [f"the road that search=auto chose is {' and '.join(own)}{because}"] if own else []

    def remarks(self) -> list[str]:
        """The notes in words, each once for all replicates of a level."""
        replicates: dict[tuple[int, str], list[int]] = {}
        for (replicate, level), said in sorted(self.notes().items(), key=lambda item: item[0][::-1]):
            replicates.setdefault((level, said), []).append(replicate)
        return [
            f"level {level}: {said} (replicate{'s' * (len(own) > 1)} {', '.join(map(str, own))})"
            for (level, said), own in replicates.items()
        ]

    def summary(self) -> list[dict[str, float]]:
        """The rows of summary.csv.

        Raises:
          LotteryError: If there is none.
        """
        path = self.folder / "summary.csv"
        if not path.is_file():
            raise LotteryError(f"Expected the results of a run in {self.folder}, but there is no summary.csv in it.")
        return read_csv(path)

    def curve(self, replicate: int, level: int) -> list[dict[str, float]] | None:
        """The rows of a level's curve.csv, or None if there is none."""
        path = self.level_folder(replicate, level) / "curve.csv"
        return read_csv(path) if path.is_file() else None

    def branch(self, name: str) -> Self:
        return type(self)(self.folder / "branches" / _folder_name(name))

    def branches(self) -> list[Self]:
        return [type(self)(path.parent) for path in sorted(self.folder.glob("branches/*/summary.csv"))]


def _folder_name(name: str) -> str:
    if not re.fullmatch(r"[^/\\.][^/\\]*", name) or not name.isprintable():  # what is no UTF-8 is not printable
        raise LotteryError(
            f"Expected a name of printable characters, without slashes, that does not begin with a dot, but received {name!r:.80}."
        )
    return name


def _search(number: int) -> str:
    return "search" if number == 1 else f"search_{number}"
