"""What of a run's files is as it was written and what it should be, and what is not: looked at, and left where it is. No TensorFlow."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tf_lottery.base import guard
from tf_lottery.base.errors import FormatError, LotteryError, TicketError
from tf_lottery.runs import identity
from tf_lottery.runs.folder import Folder
from tf_lottery.runs.tables import in_text, read_rows, row_of
from tf_lottery.tickets.file import Verified, verified

At = tuple[int, int]  # (replicate, level)
DAMAGED = "is damaged: it was not as it was written"


@dataclass(frozen=True)
class Bad:
    """Files that are not to be trusted.

    Attributes:
      files: Which; the sentence is about the first.
      why: Why, in words that follow its path.
    """

    files: Sequence[Path]
    why: str

    def __str__(self) -> str:
        return f"{self.files[0]} {self.why}."


@dataclass
class Look:
    """What was found in a run.

    Attributes:
      rows: The row of each level that is sound.
      bad: Levels that are not.
      strays: Tickets in folders that are none of a level's.
    """

    rows: dict[At, dict[str, Any]] = field(default_factory=dict)
    bad: dict[At, Bad] = field(default_factory=dict)
    strays: list[Bad] = field(default_factory=list)


def look(run: Folder, only: int | None = None, settings: Mapping[str, Any] | None = None) -> Look:
    """Looks at every byte of all finished levels, or of those of one replicate.

    A level is sound if its ticket and its curve are as they were written, and if it is what its folder says: of these settings, this
    replicate and level, and made of the levels that are there now.

    Args:
      run: The run.
      only: The replicate.
      settings: Those of the run; by default what its file says.

    Raises:
      FormatError: If a ticket was written by another version.
      LotteryError: If the settings on file cannot be read.
    """
    if settings is None:
        settings = (run.spec() or {}).get("settings")
    own = None if settings is None else identity.of_settings(settings)
    found, seen = Look(), _Seen()
    for at in run.finished(only):
        ticket = run.level_folder(*at) / "level.ticket"
        bad = _damaged(ticket, seen) or _misplaced(run, at, seen, settings or {}, own) or _curve(run, at, seen)
        if bad is not None and bad.why.endswith(identity.FOLLOWS) and (stranger := _stranger(run, at, found, seen)):
            found.bad[stranger] = Bad(_files(run, stranger), f"is not what {ticket.parent.name} was made of")
            del found.rows[stranger]
            bad = None
        if bad is None:
            header = seen[ticket].header
            found.rows[at] = row_of(*at, header["density"], header["metrics"], header["found"])
        else:
            found.bad[at] = bad
    found.strays = [
        Bad([path], f"is in no folder of a level: that of level {int(match[1])} is {int(match[1]):02d}")
        for path in run.strays(only)
        if (match := re.fullmatch(r"level_(\d+)", path.parent.name))
    ]
    return found


def check_table(
    run: Folder, name: str, columns: Sequence[str], rows: Mapping[At, Mapping], gone: Collection[At] = ()
) -> Bad | None:
    """Compares a table that was made of tickets with them.

    Args:
      run: Whose.
      name, columns: Of the table.
      rows: What sound tickets say.
      gone: Levels that a row may be of though they have no ticket: they are told of already.
    """
    path = run.folder / name
    if not path.is_file():
        return None
    lines = read_rows(path, columns)
    if lines is None:
        return Bad([path], DAMAGED)
    others = [at for at, row in rows.items() if at in lines and lines[at].items() - in_text(row, columns).items()]
    if others:
        return Bad([path], f"{DAMAGED}, and its rows of {in_words(others)} are not what the tickets say")
    there = {*run.finished(), *gone}
    if lost := sorted(lines.keys() - there):
        return Bad([path], f"has rows without a ticket, of {in_words(lost)}")
    return None


def in_words(levels: Sequence[At]) -> str:
    """
    >>> in_words([(0, 3), (1, 0)])
    'level 3 of replicate 0 and level 0 of replicate 1'
    """
    words = [f"level {level} of replicate {replicate}" for replicate, level in levels[:4]]
    if len(levels) > 4:
        words[3:] = [f"{len(levels) - 3} others"]
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


class _Seen(dict[Path, Verified]):
    """Ticket files, each read once."""

    def __missing__(self, path: Path) -> Verified:
        self[path] = found = verified(path)
        return found

    def fingerprint(self, run: Folder, at: At, own: str | None) -> str | None:
        """That of a level; None if it has no sound ticket, or one of another place."""
        try:
            found = self[run.level_folder(*at) / "level.ticket"]
        except (FileNotFoundError, TicketError):
            return None
        return None if elsewhere(found.header, at, own) else found.fingerprint


def made_of(run: Folder, settings: Mapping[str, Any], at: At, seen: Any = None) -> list[str | None]:
    """The fingerprints of the levels that a level is made of: those before it in its search, or in a branch those of its run."""
    seen, (replicate, level) = _Seen() if seen is None else seen, at
    if (trunk := run.trunk) is not None:
        settings, levels = (trunk.spec() or {}).get("settings", {}), [0, level]
    else:
        trunk, levels = run, identity.parents(settings, level)
    own = identity.of_settings(settings) if levels and settings else None
    return [seen.fingerprint(trunk, (replicate, of), own) for of in levels]


def _files(run: Folder, at: At) -> list[Path]:
    return [run.level_folder(*at) / name for name in ("level.ticket", "curve.csv")]


def _damaged(ticket: Path, seen: _Seen) -> Bad | None:
    """That a ticket is not as it was written."""
    try:
        seen[ticket]
    except FormatError:
        raise
    except TicketError:
        return Bad([ticket], DAMAGED)
    return None


def _curve(run: Folder, at: At, seen: _Seen) -> Bad | None:
    """That a level's curve is not the one that its ticket knows."""
    ticket, curve = _files(run, at)
    written = seen[ticket].header["found"].get("curve_sha256")
    if not curve.is_file():
        return Bad([ticket], "has lost its curve.csv") if written else None
    try:
        if guard.digest(curve) == written if written else run.curve(*at):
            return None
    except LotteryError:
        pass  # an older curve, that cannot be read
    return Bad([curve, ticket], DAMAGED)


def _misplaced(run: Folder, at: At, seen: _Seen, settings: Mapping[str, Any], own: str | None) -> Bad | None:
    """How a level is not what its folder says."""
    found = seen[run.level_folder(*at) / "level.ticket"]
    why = elsewhere(found.header, at, own)
    if why is None and own is not None and (said := found.header["found"].get(identity.KEY)) is not None:
        why = identity.why_not_made_of(said, made_of(run, settings, at, seen))
    return Bad(_files(run, at), f"is not what its folder says: it is {why}") if why else None


def elsewhere(header: Mapping[str, Any], at: At, own: str | None) -> str | None:
    """Why a ticket is of another place than that, as it says itself."""
    if header["level"] != at[1]:
        return f"of level {header['level']}"
    return identity.why_not(header["found"].get(identity.KEY), own, at[0])


def _stranger(run: Folder, at: At, found: Look, seen: _Seen) -> At | None:
    """The level before that a level was not made of, if nothing says that it belongs there."""
    before = at[0], at[1] - 1
    if (
        before in found.rows
        and seen[run.level_folder(*before) / "level.ticket"].header["found"].get(identity.KEY) is None
    ):
        return before
    return None
