"""The results of a run as they are written: by one process at a time, whole, and what is damaged is set aside. No TensorFlow."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tf_lottery.base import guard
from tf_lottery.base.errors import LotteryError, TicketError
from tf_lottery.base.files import whole_file
from tf_lottery.runs import identity, origins, spec
from tf_lottery.runs.folder import RULE_TABLE, Folder
from tf_lottery.runs.looking import DAMAGED, At, Bad, check_table, look, made_of
from tf_lottery.runs.tables import CURVE, RULE, SUMMARY, TABLES, as_csv, in_text, place_of, read_rows, row_of, write_csv
from tf_lottery.tickets.file import read_header
from tf_lottery.tickets.ticket import Ticket


@dataclass(frozen=True)
class Run(Folder):
    """One folder of results: a search with its replicates and levels, or a branch of one."""

    def check(self, settings: Mapping[str, Any], growing: Sequence[str] = ()) -> None:
        """Checks that the run was not begun with other settings, nor with other functions of one's own under the same names.

        Args:
          settings: What decides the results.
          growing: Settings that may be larger than before, because they only add to the results.

        Raises:
          LotteryError: Names a setting that differs.
        """
        written = self.spec()
        if written is None or not self._holds_something():
            return  # nothing yet that other settings could be mixed with
        if found := spec.difference(written["settings"], settings, growing):
            key, old, new = found
            raise LotteryError(
                f"Expected the settings that {self.folder} was begun with, but received {key}={new!r} instead of "
                f"{old!r}: give this one another name, or remove that folder."
            )
        if setting := origins.edited(written.get("begun_with", {}), settings):
            raise LotteryError(
                f"Expected the {setting} {settings[setting]!r} that {self.folder} was begun with, but its code was edited since: give this one "
                "another name, or remove that folder."
            )

    def check_data(self, examples: str) -> None:
        """Checks that the run was not begun on other data under the same name.

        Args:
          examples: The fingerprint of all of them, see `known.digest_of`.

        Raises:
          LotteryError: If they are others.
        """
        if self._holds_something() and self.begun_with().get("data", examples) != examples:
            raise LotteryError(
                f"Expected the data that {self.folder} was begun with, but the data set of that name gives others now: give this one another "
                "name, or remove that folder (a data set that is shuffled needs a seed)."
            )

    def _holds_something(self) -> bool:
        return bool(self.finished()) or any(map(guard.is_taken, self.folder.glob("replicate_*")))

    def open(self, settings: Mapping[str, Any], versions: Mapping[str, str], examples: str | None = None) -> None:
        """Writes the settings, if they are new, and the versions they ran with.

        Args:
          settings, versions: These.
          examples: The fingerprint of the data, if they are loaded.

        Raises:
          LotteryError: If the folder cannot be written.
        """
        if (self.spec() or {}).get("settings") == spec.in_json(settings):
            return
        try:
            with self._tables():
                before = self.spec() or {}
                known = before.get("begun_with", {}).get("data") if self._holds_something() else None
                begun_with = origins.of(self.folder, settings, examples or known)
                tables = before.get("tables")
                spec.write(self.folder / "spec.json", settings, versions, begun_with=begun_with, tables=tables)
        except OSError as error:
            raise LotteryError(
                f"Expected a folder that can be written, but {self.folder} cannot ({error.strerror})."
            ) from None

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

    def set_aside_damaged(self, only: int | None = None, settings: Mapping[str, Any] | None = None) -> list[str]:
        """Looks at every finished level, or those of one replicate, and at the tables made of them, and renames what is not to be trusted.

        A level that is not as it was written, or not what its folder says, counts as missing from then on. Tables are written again.
        What another process works on is left to that one.

        Args:
          only: The replicate.
          settings: Those of the run; by default what its file says.

        Returns:
          A sentence for each file that is set aside, which names it.

        Raises:
          FormatError: If a ticket was written by another version.
        """
        said: list[str] = []
        rows: dict[At, dict[str, Any]] = {}
        others: set[int] = set()
        bad: set[At] = set()
        replicates = sorted({replicate for replicate, _ in self.finished(only)})
        for replicate in replicates:
            if guard.is_taken(self._replicate_folder(replicate)):
                others.add(replicate)
                continue
            with self.alone(replicate):
                found = look(self, replicate, settings)
                said += [_set_aside(each, "the level is trained again") for each in found.bad.values()]
                said += [_set_aside(each, "nothing is read of it") for each in found.strays]
            rows |= found.rows
            bad |= found.bad.keys()
        if replicates or self._has_tables():
            with self._tables():
                said += [_set_aside(each, "it is written again") for each in self._bad_tables(rows, bad, others)]
                said += [
                    _set_aside(each, "tf-lottery supermask --by=rule measures it again") for each in self._bad_rule()
                ]
        if replicates or said:
            self.write_summary(*(rows.values() if said else ()))
        return said

    def set_aside_rule(self) -> list[str]:
        """Renames the table of masks by rule if it is not as it was written; returns a sentence that says so."""
        then = "what is missing is measured again by tf-lottery supermask --by=rule"
        with self._tables():
            return [_set_aside(each, then) for each in self._bad_rule()]

    def _has_tables(self) -> bool:
        return any((self.folder / name).is_file() for name in (*TABLES, RULE_TABLE))

    def _bad_tables(self, rows: Mapping[At, Mapping], bad: set[At], others: set[int]) -> list[Bad]:
        """Tables that are not what the tickets say; of replicates that others work on nothing is known."""
        found = []
        for name, (columns, _) in TABLES.items():
            theirs = {at for at in read_rows(self.folder / name, columns) or () if at[0] in others}
            found.append(check_table(self, name, columns, rows, bad | theirs))
        return [each for each in found if each is not None]

    def _bad_rule(self) -> list[Bad]:
        try:
            self.rule()
        except LotteryError:
            return [Bad([self.folder / RULE_TABLE], DAMAGED)]
        return []

    def _tables(self) -> contextlib.AbstractContextManager:
        """A context in which this process alone writes the files of the run that are not those of a replicate."""
        return guard.alone(self.folder, f"the tables of {self.folder}", wait=True)

    def write_curve(self, replicate: int, level: int, curve: Sequence[Mapping[str, Any]]) -> None:
        write_csv(self.level_folder(replicate, level) / "curve.csv", CURVE, curve)

    def write_level(self, replicate: int, ticket: Ticket, curve: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Writes a finished level, with what it is, and the tables with it; returns its row."""
        folder = self.level_folder(replicate, ticket.level)
        self.write_curve(replicate, ticket.level, curve)
        found = {
            **ticket.found,
            "curve_sha256": guard.digest(folder / "curve.csv"),
            **self._identity(replicate, ticket),
        }
        dataclasses.replace(ticket, found=found).save(folder / "level.ticket")
        row = row_of(replicate, ticket.level, ticket.density, ticket.metrics, found)
        self.write_summary(row)
        return row

    def _identity(self, replicate: int, ticket: Ticket) -> dict[str, Any]:
        """What a ticket is to say of its level; nothing in a folder without settings."""
        if (written := self.spec()) is None:
            return {}
        settings = written["settings"]
        parents = made_of(self, settings, (replicate, ticket.level))
        return {identity.KEY: identity.of_level(identity.of_settings(settings), replicate, parents)}

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
        path = self.folder / RULE_TABLE
        with self._tables():
            others = [row for row in self.rule() if part(row) not in new]
            whole, written = as_csv(RULE, [*others, *rows]), self.spec()
            if written is not None:  # of a process that is killed in between the table is as it was, or as it is to be
                there = [guard.digest(path)] if path.is_file() else []
                written["tables"] = {RULE_TABLE: [*there, hashlib.sha256(whole).hexdigest()]}
                spec.write(self.folder / "spec.json", **written)
            with whole_file(path) as unfinished:
                unfinished.write_bytes(whole)

    def row(self, replicate: int, level: int) -> dict[str, Any]:
        """What the tables say of a finished level, from its ticket."""
        header = read_header(self.level_folder(replicate, level) / "level.ticket")
        return row_of(replicate, level, header["density"], header["metrics"], header["found"])


@dataclass(frozen=True)
class Onlooker(Run):
    """A run as a worker sees it that is not the chief: it reads, and the chief writes."""

    def open(self, settings, versions, examples=None) -> None:
        pass

    def write_curve(self, replicate, level, curve) -> None:
        pass

    def write_level(self, replicate, ticket, curve) -> dict[str, Any]:
        return row_of(replicate, ticket.level, ticket.density, ticket.metrics, ticket.found)

    def write_summary(self, *rows) -> None:
        pass

    def set_aside_damaged(self, only: int | None = None, settings: Mapping[str, Any] | None = None) -> list[str]:
        return []

    @contextlib.contextmanager
    def alone(self, replicate: int) -> Iterator[None]:
        yield

    def write_rule(self, rows) -> None:
        pass


def _set_aside(bad: Bad, then: str) -> str:
    for path in bad.files[1:]:
        if path.exists():
            guard.set_aside(path)
    return f"{bad} It is kept as {guard.set_aside(bad.files[0]).name}, and {then}."
