"""Which runs a name stands for, and what can be read of each; what was edited by hand is named, and the rest is read. No TensorFlow."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tf_lottery.base import guard
from tf_lottery.base.errors import LotteryError
from tf_lottery.base.files import whole_file
from tf_lottery.runs import identity, spec
from tf_lottery.runs.looking import elsewhere
from tf_lottery.runs.results import Run
from tf_lottery.runs.tables import SUMMARY, in_text, row_of, why_impossible
from tf_lottery.tickets.file import read_header

PLAN = "study.json"
MORE = (
    "trainings",
    "early_stop_validation_accuracy",
    "final_validation_accuracy",
)  # beside SUMMARY; older tables lack them
GROWING = ("replicates", "levels")  # what a run may have more or less of than was asked for
Row = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """A run of a study, or a branch of one.

    Attributes:
      run: Its folder.
      name: What it is called: the folder's name, for a branch `RUN/BRANCH`.
      settings: What it was begun with; of a branch those of its run, with its own over them and its name as `branch`.
      flags: The values of flags that a sweep made it for.
      rows: One for each replicate and level, with the columns of the summary; None where a value is not known.
      notes: What is missing in it or not as it was written, a sentence each.
    """

    run: Run
    name: str
    settings: Mapping[str, Any]
    flags: Mapping[str, str]
    rows: Sequence[Row]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Planned:
    """A run that a study is to have: its folder in the folder of all runs, its flags, and the settings that were asked for."""

    folder: str
    flags: Mapping[str, str]
    settings: Mapping[str, Any]


def write_plan(folder: Path, runs: Sequence[Planned]) -> None:
    """Writes which runs a study has, in its folder."""
    plan = {"runs": [{"folder": run.folder, "flags": dict(run.flags), "settings": dict(run.settings)} for run in runs]}
    text = json.dumps(plan, indent=2) + "\n"
    path = folder / PLAN
    if not path.is_file() or path.read_text() != text:
        with whole_file(path) as unfinished:
            unfinished.write_text(text)


def read_plan(folder: Path) -> list[Planned] | None:
    """The runs of a study, or None if it has no plan.

    Raises:
      LotteryError: If the plan is damaged.
    """
    path = folder / PLAN
    try:
        runs = json.loads(path.read_text())["runs"]
        return [Planned(str(Path(run["folder"]).name), dict(run["flags"]), dict(run["settings"])) for run in runs]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LotteryError(f"Expected the plan of a study in {path}, but it cannot be read ({error}).") from None


def named(folders: Sequence[Path]) -> list[tuple[Run, Planned | None]]:
    """The runs that paths stand for, each once: a run, a study, the base name of a sweep, or a pattern as `results/cmp*`.

    Raises:
      LotteryError: If there is none for one of them.
    """
    found: dict[Path, tuple[Run, Planned | None]] = {}
    for path in folders:
        if any(sign in path.name for sign in "*?["):
            matches = [folder for folder in sorted(path.parent.glob(path.name)) if is_run(folder) or _has_plan(folder)]
        else:
            matches = [path] if is_run(path) or _has_plan(path) else _swept(path)
        if not matches:
            there = {
                folder.name.partition("+")[0] for folder in path.parent.glob("*") if is_run(folder) or _has_plan(folder)
            }
            known = sorted(there)
            has = f"has {', '.join(known[:12])}{', ...' * (len(known) > 12)}" if known else "has no runs"
            raise LotteryError(
                f"Expected a run, a study or a pattern of runs, but received {path.name!r}, and {path.parent} {has}."
            )
        for folder in matches:
            plan = read_plan(folder)
            runs: list[tuple[Run, Planned | None]] = [(Run(folder), None)]
            if plan:
                runs = [(Run(folder.parent / each.folder), each) for each in plan]
            for run, planned in runs:
                if found.get(run.folder, (run, None))[1] is None:
                    found[run.folder] = run, planned
    return list(found.values())


def _swept(path: Path) -> list[Path]:
    """The runs of a sweep of that base name."""
    return [
        folder for folder in sorted(path.parent.glob("*")) if folder.name.startswith(f"{path.name}+") and is_run(folder)
    ]


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run."""
    return (folder / "spec.json").is_file() or (folder / "summary.csv").is_file()


def _has_plan(folder: Path) -> bool:
    return (folder / PLAN).is_file()


def read(run: Run, planned: Planned | None = None) -> tuple[list[Entry], list[str]]:
    """A run and its branches, as far as they can be read, and what is missing in them or not as it was written.

    Args:
      run: The run.
      planned: What a study's plan says of it.
    """
    if not is_run(run.folder):
        return [], [f"{run.name} is in the plan, but there are no results of it yet."]
    try:
        written = run.spec()
    except LotteryError as error:
        return [], [f"{run.name} is left out. {error}"]
    settings = written["settings"] if written else {}
    asked = {key: value for key, value in planned.settings.items() if key not in GROWING} if planned else {}
    if written and (found := spec.difference(settings, {**settings, **asked})):
        key, there, planned_for = found
        return [], [f"{run.name} is left out: it has {key}={there!r}, and the plan of the study says {planned_for!r}."]
    flags = planned.flags if planned else dict(each.split("=", 1) for each in run.name.split("+")[1:] if "=" in each)
    entries, notes = [_entry(run, run.name, settings, flags)], []
    for branch in run.branches():
        try:
            its = (branch.spec() or {"settings": {}})["settings"]
        except LotteryError as error:
            notes.append(f"The branch {branch.name} of {run.name} is left out. {error}")
            continue
        its = {**settings, **{key: value for key, value in its.items() if key != "seed"}, "branch": branch.name}
        entries.append(_entry(branch, f"{run.name}/{branch.name}", its, flags))
    if not entries[0].rows:
        notes.append(f"{run.name} has no finished level yet.")
    return [entry for entry in entries if entry.rows], [note for entry in entries for note in entry.notes] + notes


def _entry(run: Run, name: str, settings: Mapping[str, Any], flags: Mapping[str, str]) -> Entry:
    notes: list[str] = []
    rows = _rows(run, notes, name)
    branch = "branch" in settings
    for row in rows:
        row["steps"] = row["steps"] or settings.get("steps")
    notes += [f"{name}: {sentence}" for sentence in _gaps(rows, {} if branch else settings)]
    with contextlib.suppress(LotteryError):
        notes += [f"{name}, {remark}." for remark in run.remarks()]
    return Entry(run, name, settings, flags, rows, notes)


def _rows(run: Run, notes: list[str], name: str) -> list[Row]:
    """The rows of a run: what its tickets say where it has tickets, else what its table says."""
    table, complaints = _table(run.folder / "summary.csv")
    notes += [f"{name}: {complaint}" for complaint in complaints]
    rows, others, lost = dict(table), [], []
    finished, written = run.finished(), run.spec()
    own = identity.of_settings(written["settings"]) if written else None
    for at in finished:
        path = run.level_folder(*at) / "level.ticket"
        try:
            header = read_header(path)
            row = row_of(*at, header["density"], header["metrics"], header["found"])
        except (LotteryError, OSError) as error:
            notes.append(f"{name}: the ticket of {_words(at)} cannot be read. {error}")
            continue
        if why := elsewhere(header, at, own):
            notes.append(f"{name}: the ticket of {_words(at)} is left out: it is {why}.")
            rows.pop(at, None)
            continue
        columns = [column for column in SUMMARY if at in table and column in table[at]]
        if columns and in_text(row, columns) != in_text(table[at], columns):
            others.append(at)
        rows[at] = row
    if others:
        notes.append(
            f"{name}: summary.csv is not what the tickets say of {'; '.join(map(_words, others))}; theirs is shown."
        )
    if finished:  # a copy of the tables alone has no tickets
        lost = sorted(table.keys() - set(finished))
    if lost:
        notes.append(f"{name}: {'; '.join(map(_words, lost))} stands in summary.csv, but its ticket is gone.")
    wanted = (*SUMMARY, *(column for column in MORE if column not in SUMMARY))
    return [{column: row.get(column) for column in wanted} for _, row in sorted(rows.items())]


def _table(path: Path) -> tuple[dict[tuple[int, int], Row], list[str]]:
    """The rows of a summary that are whole, by (replicate, level), and what is wrong with the others."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return {}, []
    except (OSError, ValueError) as error:
        return {}, [f"summary.csv cannot be read ({error})."]
    complaints, whole = [], text[: text.rfind("\n") + 1]
    if whole != text:
        complaints.append("summary.csv is cut: its last line is left out.")
    reader = csv.reader(io.StringIO(whole))
    rows: dict[tuple[int, int], Row] = {}
    columns: list[str] = next(reader, [])
    if not {"replicate", "level", "density"} <= set(columns):
        return {}, [*complaints, "summary.csv has no columns of a summary."] if text else ["summary.csv is empty."]
    for number, cells in enumerate(reader, 2):
        try:
            if len(cells) != len(columns):
                raise ValueError(f"{len(cells)} cells in {len(columns)} columns")
            row: Row = {key: float(cell) if cell else None for key, cell in zip(columns, cells)}
            at = row["replicate"], row["level"] = int(row["replicate"]), int(row["level"])
            if row.get("early_stop_step") is not None:
                row["early_stop_step"] = int(row["early_stop_step"])
            if impossible := why_impossible(row):
                raise ValueError(impossible)
            rows[at] = row
        except (ValueError, TypeError, OverflowError) as error:
            complaints.append(f"line {number} of summary.csv is damaged and left out ({error}).")
    return rows, complaints


def _gaps(rows: Sequence[Row], settings: Mapping[str, Any]) -> Iterator[str]:
    """What of the replicates and levels that the settings promise is not there."""
    levels: dict[int, set[int]] = {}
    for row in rows:
        levels.setdefault(row["replicate"], set()).add(row["level"])
    promised = settings.get("levels")
    all_levels = (
        set(range(promised + 1)) if isinstance(promised, int) else set().union(*levels.values()) if levels else set()
    )
    for replicate in range(settings.get("replicates") or 0):
        levels.setdefault(replicate, set())
    said: dict[str, list[int]] = {}
    for replicate, there in sorted(levels.items()):
        if absent := sorted(all_levels - there):
            inside = [level for level in absent if there and level < max(there)]
            which = f"level{'s' * (len(absent) > 1)} {_ranges(absent)}"
            lacking = f"{which}, though a later one is there" if inside else ""
            said.setdefault(lacking or f"{len(there)} of {len(all_levels)} levels so far", []).append(replicate)
    for what, replicates in said.items():
        one = len(replicates) == 1
        verb = ("lacks" if one else "lack") if what.startswith("level") else ("has" if one else "have")
        yield f"replicate{'' if one else 's'} {_ranges(replicates)} {verb} {what}."


def _ranges(numbers: Sequence[int]) -> str:
    """Whole numbers in order, those that follow one another as a range.

    >>> _ranges([1, 2, 3, 7])
    '1-3, 7'
    """
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def _words(at: tuple[int, int]) -> str:
    return f"level {at[1]} of replicate {at[0]}"


def curve_of(run: Run, name: str, replicate: int, level: int) -> tuple[list[Row], str | None]:
    """The rows of a level's curve, and what is wrong with it; no rows of one that is damaged."""
    folder = run.level_folder(replicate, level)
    path, ticket = folder / "curve.csv", folder / "level.ticket"
    damaged = f"{name}: curve.csv of {_words((replicate, level))} is not as it was written and left out."
    try:
        if ticket.is_file() and path.is_file():
            written = read_header(ticket)["found"].get("curve_sha256")
            if written and written != guard.digest(path):
                return [], damaged
    except (LotteryError, OSError):
        pass  # what is wrong with the ticket is said with the rows
    try:
        return run.curve(replicate, level) or [], None
    except (LotteryError, OSError):
        return [], damaged
