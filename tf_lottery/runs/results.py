"""The results on disk: the only module that knows where files lie and what they are called. No TensorFlow is needed to read them.

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
A damaged file is renamed to *.damaged.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tf_lottery.base import guard, registry
from tf_lottery.base.errors import FormatError, LotteryError, TicketError
from tf_lottery.problems import data
from tf_lottery.runs import spec
from tf_lottery.runs.tables import (
    CURVE,
    NOTES,
    RULE,
    SUMMARY,
    TABLES,
    in_text,
    place_of,
    read_csv,
    read_rows,
    read_rule,
    row_of,
    write_csv,
)
from tf_lottery.tickets.file import read_header, verified_header
from tf_lottery.tickets.ticket import Ticket


def _begun_with(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What is not decided by settings, and needed to go on with a run elsewhere."""
    data_dir = data.given.get(settings.get("dataset") or "")
    files = [os.path.relpath(plugin, folder) if plugin.endswith(".py") else plugin for plugin in registry.imported]
    found = {"data_dir": os.path.relpath(data_dir, folder) if data_dir else None, "plugins": files}
    return {name: value for name, value in found.items() if value}


RULE_TABLE = "supermask_by_rule.csv"


@dataclass(frozen=True)
class Run:
    """One folder of results: a search with its replicates and levels, or a branch of one."""

    folder: Path

    @classmethod
    def at(cls, results_dir: str, name: str) -> Run:
        """The run of that name.

        Raises:
          LotteryError: If the name is not that of a folder in `results_dir`.
        """
        return cls(Path(results_dir) / _folder_name(name))

    @property
    def name(self) -> str:
        return self.folder.name

    def check(self, settings: Mapping[str, Any], growing: Sequence[str] = ()) -> None:
        """Checks that the run was not begun with other settings.

        Args:
          settings: What decides the results.
          growing: Settings that may be larger than before, because they only add to the results.

        Raises:
          LotteryError: Names a setting that differs.
        """
        written = self.spec()
        if written is None or not (self.finished() or any(map(guard.is_taken, self.folder.glob("replicate_*")))):
            return  # nothing yet that other settings could be mixed with
        if found := spec.difference(written["settings"], settings, growing):
            key, old, new = found
            raise LotteryError(
                f"Expected the settings that {self.folder} was begun with, but received {key}={new!r} instead of "
                f"{old!r}: give this one another name, or remove that folder."
            )

    def open(self, settings: Mapping[str, Any], versions: Mapping[str, str]) -> None:
        """Writes the settings, if they are new, and the versions they ran with.

        Raises:
          LotteryError: If the folder cannot be written.
        """
        if (self.spec() or {}).get("settings") == spec.in_json(settings):
            return
        try:
            with self._tables():
                spec.write(self.folder / "spec.json", settings, versions, _begun_with(self.folder, settings))
        except OSError as error:
            raise LotteryError(
                f"Expected a folder that can be written, but {self.folder} cannot ({error.strerror})."
            ) from None

    def spec(self) -> dict[str, Any] | None:
        """The settings and versions, or None if the run was never begun."""
        return spec.read(self.folder / "spec.json")

    def begun_with(self) -> dict[str, Any]:
        """The data folder and the plugins that it was begun with, paths as seen from its folder; of older runs nothing is known."""
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

    @contextlib.contextmanager
    def alone(self, replicate: int) -> Iterator[None]:
        """A context in which this process alone works on a replicate; what a killed one left unfinished there is removed.

        Raises:
          LotteryError: If another process works on it.
        """
        folder = self._replicate_folder(replicate)
        with guard.alone(folder, f"replicate {replicate} of {self.folder}"):
            guard.remove_unfinished(folder, *folder.glob("level_*"))
            yield

    def set_aside_damaged(self, only: int | None = None) -> list[str]:
        """Looks at every finished level, or those of one replicate, and at the tables made of them, and renames what is damaged.

        A level whose ticket or curve is not as it was written counts as missing from then on. Tables are written again.
        What another process works on is left to that one.

        Returns:
          A sentence for each damaged file, which names it.

        Raises:
          FormatError: If a ticket was written by another version.
        """
        finished = self.finished(only)
        said: list[str] = []
        sound: list[tuple[int, int]] = []
        for replicate in sorted({replicate for replicate, _ in finished}):
            if guard.is_taken(self._replicate_folder(replicate)):
                continue
            with self.alone(replicate):
                for at in finished:
                    if at[0] == replicate:
                        why = self._check_level(*at)
                        if why:
                            said.append(why)
                        else:
                            sound.append(at)
        rows = {at: self.row(*at) for at in sound}
        said += filter(None, [self._check_table(name, columns, rows) for name, (columns, _) in TABLES.items()])
        try:
            self.rule()
        except LotteryError:
            said.append(_set_aside(self.folder / RULE_TABLE, "tf-lottery supermask --by=rule measures it again"))
        if finished or said:
            self.write_summary(*(rows.values() if said else ()))
        return said

    def _check_level(self, replicate: int, level: int) -> str | None:
        ticket, curve = (self.level_folder(replicate, level) / name for name in ("level.ticket", "curve.csv"))
        try:
            written = verified_header(ticket)["found"].get("curve_sha256")
        except FormatError:
            raise
        except TicketError:
            return _set_aside(ticket, "the level is trained again")
        try:
            if not curve.is_file() or (guard.digest(curve) == written if written else self.curve(replicate, level)):
                return None
        except LotteryError:
            pass  # an older curve, that cannot be read
        guard.set_aside(ticket)
        return _set_aside(curve, "the level is trained again")

    def _check_table(self, name: str, columns: Sequence[str], sound: Mapping[tuple[int, int], Mapping]) -> str | None:
        """The rows that a table has must be what the tickets say."""
        path = self.folder / name
        if not path.is_file():
            return None
        lines = read_rows(path, columns)
        if lines is None or any(
            lines[at].items() - in_text(row, columns).items() for at, row in sound.items() if at in lines
        ):
            return _set_aside(path, "it is written again")
        return None

    def _tables(self) -> contextlib.AbstractContextManager:
        """A context in which this process alone writes the files of the run that are not those of a replicate."""
        return guard.alone(self.folder, f"the tables of {self.folder}", wait=True)

    def _replicate_folder(self, replicate: int) -> Path:
        return self.folder / f"replicate_{replicate}"

    def checkpoint(self, replicate: int, level: int, search: bool = False) -> Path:
        """Where the training of a level that is not finished keeps how far it has come; or that for the search alone."""
        return self.level_folder(replicate, level) / f"{'search_' if search else ''}checkpoint.safetensors"

    def searched(self, replicate: int, level: int) -> Path:
        """What came of the training of a level's network that was for the search alone."""
        return self.level_folder(replicate, level) / "search.safetensors"

    def finished(self, only: int | None = None) -> list[tuple[int, int]]:
        """(replicate, level) of all finished levels, in order; of one replicate if `only` names it."""
        replicates = f"replicate_{'*' if only is None else only}"
        found = []
        for path in self.folder.glob(f"{replicates}/level_*/level.ticket"):
            match = re.fullmatch(r"replicate_(\d+)/level_(\d+)", "/".join(path.parts[-3:-1]))
            if match:
                found.append((int(match[1]), int(match[2])))
        return sorted(found)

    def missing(self, replicates: int, levels: Iterable[int], only: int | None = None) -> list[tuple[int, int]]:
        """(replicate, level) of what is not finished yet, in order; of one replicate if `only` names it."""
        if only is not None and not 0 <= only < replicates:
            raise LotteryError(f"Expected a replicate from 0 to {replicates - 1}, but received replicate={only}.")
        wanted = {(r, k) for r in range(replicates) for k in levels if only in (None, r)}
        return sorted(wanted - set(self.finished(only)))

    def ticket(self, replicate: int, level: int) -> Ticket:
        return Ticket.load(self.level_folder(replicate, level) / "level.ticket")

    def write_curve(self, replicate: int, level: int, curve: Sequence[Mapping[str, Any]]) -> None:
        write_csv(self.level_folder(replicate, level) / "curve.csv", CURVE, curve)

    def write_level(self, replicate: int, ticket: Ticket, curve: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Writes a finished level and the tables with it; returns its row."""
        folder = self.level_folder(replicate, ticket.level)
        self.write_curve(replicate, ticket.level, curve)
        found = {**ticket.found, "curve_sha256": guard.digest(folder / "curve.csv")}
        dataclasses.replace(ticket, found=found).save(folder / "level.ticket")
        row = row_of(replicate, ticket.level, ticket.density, ticket.metrics, found)
        self.write_summary(row)
        return row

    def write_summary(self, *rows: Mapping[str, Any]) -> None:
        """Brings the tables of this run up to date with the levels that are finished.

        Args:
          rows: Those of levels that were just finished. Of others only what a table lacks is read from tickets, so that the cost
            of a level does not grow with the number of those before it.
        """
        with self._tables():
            guard.remove_unfinished(self.folder)
            finished, new = self.finished(), {place_of(row): row for row in rows}
            known = read_rows(self.folder / "summary.csv", SUMMARY) or {}
            if not new and set(known) == set(finished):
                return
            for at in finished:
                if len(known.get(at, ())) < len(SUMMARY) and at not in new:
                    with contextlib.suppress(TicketError):  # who works on that replicate will see to it
                        new[at] = self.row(*at)
            for name, (columns, needed) in TABLES.items():
                path = self.folder / name
                lines = read_rows(path, columns) or {}
                lines |= {at: in_text(row, columns) for at, row in new.items() if row.get(needed) is not None}
                kept = [lines[at] for at in finished if at in lines]
                if kept or path.is_file():
                    write_csv(path, columns, kept)

    def write_rule(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes what was measured of masks by rule, in the place of older rows of the same criterion, constant and replicate."""

        def part(row):
            return row["replicate"], row["criterion"], row["signed_constant"]

        new = set(map(part, rows))
        with self._tables():
            others = [row for row in self.rule() if part(row) not in new]
            write_csv(self.folder / RULE_TABLE, RULE, [*others, *rows])

    def rule(self) -> list[dict[str, Any]]:
        """The rows of supermask_by_rule.csv; none if there is no such file.

        Raises:
          LotteryError: If it is damaged.
        """
        return read_rule(self.folder / RULE_TABLE)

    def supermasks(self) -> list[dict[str, float]]:
        """The rows of supermask.csv; none if there is no such file."""
        path = self.folder / "supermask.csv"
        return read_csv(path) if path.is_file() else []

    def row(self, replicate: int, level: int) -> dict[str, Any]:
        """What the tables say of a finished level, from its ticket."""
        header = read_header(self.level_folder(replicate, level) / "level.ticket")
        return row_of(replicate, level, header["density"], header["metrics"], header["found"])

    def notes(self) -> dict[tuple[int, int], str]:
        """(replicate, level) -> what went wrong there; nothing for most."""
        rows = read_rows(self.folder / "notes.csv", NOTES) or {}
        return {at: row["notes"] for at, row in rows.items()}

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

    def branch(self, name: str) -> Run:
        return type(self)(self.folder / "branches" / _folder_name(name))

    def branches(self) -> list[Run]:
        return [Run(path.parent) for path in sorted(self.folder.glob("branches/*/summary.csv"))]


@dataclass(frozen=True)
class Onlooker(Run):
    """A run as a worker sees it that is not the chief: it reads, and the chief writes."""

    def open(self, settings, versions) -> None:
        pass

    def write_curve(self, replicate, level, curve) -> None:
        pass

    def write_level(self, replicate, ticket, curve) -> dict[str, Any]:
        return row_of(replicate, ticket.level, ticket.density, ticket.metrics, ticket.found)

    def write_summary(self, *rows) -> None:
        pass

    def set_aside_damaged(self, only: int | None = None) -> list[str]:
        return []

    @contextlib.contextmanager
    def alone(self, replicate: int) -> Iterator[None]:
        yield

    def write_rule(self, rows) -> None:
        pass


def _folder_name(name: str) -> str:
    if not re.fullmatch(r"[^/\\.][^/\\]*", name):
        raise LotteryError(f"Expected a name without slashes that does not begin with a dot, but received {name!r}.")
    return name


def _set_aside(path: Path, then: str) -> str:
    name = guard.set_aside(path).name
    return f"{path} is damaged: it was not as it was written. It is kept as {name}, and {then}."
