"""A run as far as it is to be trusted: for whoever only reads it. Nothing is renamed or written. No TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tf_lottery.base.errors import LotteryError
from tf_lottery.runs.folder import RULE_TABLE, Folder
from tf_lottery.runs.looking import At, check_table, in_words, look
from tf_lottery.runs.tables import NOTES, SUMMARY, SUPERMASKS, TABLES, in_numbers, in_text, why_impossible


@dataclass(frozen=True)
class Sound(Folder):
    """A run that was looked at: its levels are those that are sound, its tables are what their tickets say.

    A copy of the tables alone, without any ticket, is read as it is.

    Attributes:
      rows: What the tickets say of each level that is sound; None in a copy of the tables.
      said: What is not as it was written, a sentence each: it is left out.
      shoots: The branches, looked at as well.
      curveless: Levels of a copy of the tables whose curves cannot be read or hold no numbers.
    """

    rows: Mapping[At, Mapping[str, Any]] | None = None
    said: Sequence[str] = ()
    shoots: Sequence[Sound] = field(default=())
    curveless: Collection[At] = frozenset()

    @classmethod
    def of(cls, run: Folder, only: int | None = None, *, branches: bool = True) -> Sound:
        """Looks at a run, or one replicate of it, and at its branches.

        Raises:
          LotteryError: If its settings cannot be read, or another version wrote it.
        """
        if isinstance(run, Sound):
            return run
        found = look(run, only)
        said = [f"{bad} It is left out." for bad in (*found.bad.values(), *found.strays)]
        curveless: Sequence[At] = ()
        rows: dict[At, Mapping[str, Any]] | None = dict(found.rows) if found.rows or found.bad else None
        if rows is not None:
            for at in [at for at, row in rows.items() if why_impossible(row)]:
                said.append(f"The ticket of {in_words([at])} tells {why_impossible(rows.pop(at))}. It is left out.")
            tables = [check_table(run, name, columns, rows, found.bad) for name, (columns, _) in TABLES.items()]
            said += [f"{bad} What the tickets say is shown." for bad in tables if bad is not None]
        else:
            curveless = [at for at in _curves(run) if not _has_numbers(run, at)]
            said += [
                f"The curve.csv of {in_words([at])} holds what are no numbers. It is left out." for at in curveless
            ]
        shoots = [cls.of(Folder(each.folder), only, branches=False) for each in run.branches()] if branches else []
        return cls(run.folder, rows, tuple(said), tuple(shoots), frozenset(curveless))

    def finished(self, only: int | None = None) -> list[At]:
        return sorted(at for at in self.rows or () if only in (None, at[0]))

    def check_finished(self, replicates: int, levels: Sequence[int], only: int | None = None) -> None:
        """
        Raises:
          LotteryError: If one of these levels is not there, or is not to be trusted.
        """
        if absent := self.missing(replicates, levels, only):
            replicate, level = absent[0]
            raise LotteryError(
                f"Expected a run with level {level} of replicate {replicate}, but {self.folder} has not finished "
                f"that{self.why_not(replicate, level)}"
            )

    def why_not(self, replicate: int, level: int) -> str:
        """The end of a sentence that says a level is not there: what is wrong with it, if there is something."""
        folder = f"{self.level_folder(replicate, level)}/"
        said = next((said for said in self.said if folder in said), "")
        return f": {said.removesuffix(' It is left out.')}" if said else "."

    def summary(self) -> list[dict[str, Any]]:
        if self.rows is None:
            return _possible(super().summary(), self.folder / "summary.csv")[0]
        return [in_numbers(in_text(row, SUMMARY)) for _, row in sorted(self.rows.items())]

    def supermasks(self) -> list[dict[str, Any]]:
        if self.rows is None:
            return super().supermasks()
        learned = [row for _, row in sorted(self.rows.items()) if row.get(TABLES["supermask.csv"][1]) is not None]
        return [in_numbers(in_text(row, SUPERMASKS)) for row in learned]

    def notes(self) -> dict[At, str]:
        if self.rows is None:
            return super().notes()
        return {at: in_text(row, NOTES)["notes"] for at, row in sorted(self.rows.items()) if row["notes"]}

    def curve(self, replicate: int, level: int) -> list[dict[str, Any]] | None:
        return None if (replicate, level) in self.curveless else super().curve(replicate, level)

    def remarks(self) -> list[str]:
        return [*super().remarks(), *(sentence.removesuffix(".") for sentence in self.complaints())]

    def rule(self) -> list[dict[str, Any]]:
        try:
            return super().rule()
        except LotteryError:
            return []

    def branch(self, name: str) -> Sound:
        return self.of(Folder(self.folder).branch(name), branches=False)

    def branches(self) -> list[Any]:
        return list(self.shoots)

    def complaints(self) -> list[str]:
        """All that is left out of it and of its branches."""
        said = [*self.said]
        if self.rows is None and (self.folder / "summary.csv").is_file():
            said += _possible(super().summary(), self.folder / "summary.csv")[1]
        try:
            super().rule()
        except LotteryError:
            said.append(f"{self.folder / RULE_TABLE} is not as it was written. It is left out.")
        return [*said, *(sentence for shoot in self.shoots for sentence in shoot.complaints())]


def _curves(run: Folder) -> list[At]:
    """The levels that have a curve."""
    found = (run.place_of(path) for path in run.folder.glob("replicate_*/level_*/curve.csv"))
    return sorted(at for at in found if at is not None)


def _has_numbers(run: Folder, at: At) -> bool:
    try:
        rows = run.curve(*at) or []
    except LotteryError:
        return False
    return all(value is None or math.isfinite(value) for row in rows for value in row.values())


def _possible(rows: Sequence[dict[str, Any]], path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of a table whose numbers can be, and a sentence for each other one."""
    said = [
        f"Line {number} of {path} tells {why}. It is left out."
        for number, row in enumerate(rows, 2)
        if (why := why_impossible(row))
    ]
    return [row for row in rows if not why_impossible(row)], said
