"""What was verified of a run's levels, in files: written whole, read without TensorFlow.

<results_dir>/<name>/verify/level_<kk>/controls.csv   a row for each network and replicate
<results_dir>/<name>/verify/level_<kk>/lines.csv      the error along the lines
<results_dir>/<name>/verify/level_<kk>/verdict.json   all of it, and the sentence
<results_dir>/<name>/instability.csv                  barriers between two trainings of a level, where these alone were asked for

The networks themselves are branches of the run.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_lottery.base.errors import LotteryError
from tf_lottery.base.files import whole_folder
from tf_lottery.checks.line import Line
from tf_lottery.checks.verdict import Measured, Verification
from tf_lottery.runs.folder import Folder
from tf_lottery.runs.tables import read_csv, write_csv

CONTROLS = ("network", "replicate", "density", "early_stop_step", "test_accuracy", "trained")
LINES = ("line", "replicate", "alpha", "error")
INSTABILITY = ("replicate", "level", "density", "rewind_to", "barrier", "error")


def folder_of(run: Folder, level: int) -> Path:
    return run.folder / "verify" / f"level_{level:02d}"


def write(run: Folder, found: Verification) -> Path:
    """Writes what was found of a level in the place of what was there; returns its folder."""
    folder = folder_of(run, found.level)
    with whole_folder(folder) as unfinished:
        _write_csv(
            unfinished / "controls.csv",
            CONTROLS,
            [(r.name, r.replicate, r.density, r.step, r.accuracy, r.trained) for r in found.rows],
        )
        _write_csv(
            unfinished / "lines.csv",
            LINES,
            [
                (name, replicate, alpha, error)
                for name, lines in found.lines.items()
                for replicate, line in enumerate(lines)
                for alpha, error in zip(line.alphas, line.errors)
            ],
        )
        held = json.loads(json.dumps(as_json(found)))
        (unfinished / "verdict.json").write_text(
            json.dumps({**held, "sha256": _digest(held)}, indent=2) + "\n", "utf-8"
        )
    return folder


def as_json(found: Verification) -> dict[str, Any]:
    """All of it in the words of JSON, with what follows from it."""
    differences = {name: found.difference(name) for name in dict.fromkeys(row.name for row in found.rows)}
    return {
        "sentence": found.sentence,
        "won": found.won,
        "trainings": found.trainings,
        "differences": {n: dataclasses.asdict(d) for n, d in differences.items() if d is not None and n != "ticket"},
        "barriers": {name: [line.barrier for line in lines] for name, lines in found.lines.items()},
        **dataclasses.asdict(found),
    }


def read(run: Folder, level: int) -> Verification:
    """What was found of a level.

    Raises:
      LotteryError: If it was not verified, or the file is damaged.
    """
    path = folder_of(run, level) / "verdict.json"
    try:
        held = json.loads(path.read_text("utf-8"))
        if held.pop("sha256", None) not in (None, _digest(held)):  # older ones have none
            raise ValueError("it is not as it was written")
        return Verification(
            held["level"],
            [Measured(**row) for row in held["rows"]],
            {
                name: [Line(tuple(line["alphas"]), tuple(line["errors"])) for line in lines]
                for name, lines in held["lines"].items()
            },
            held["signs"],
            held["not_run"],
            held["examples"],
        )
    except FileNotFoundError:
        raise LotteryError(f"Expected level {level} of {run.folder} to be verified, but it was not.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LotteryError(f"Expected what tf-lottery verify wrote in {path}, but it is damaged ({error}).") from None


def read_sound(run: Folder) -> tuple[list[Verification], list[str]]:
    """What was found of all levels, in order, and sentences, without the full stop, about files that are damaged."""
    there = (re.fullmatch(r"level_(\d+)", path.parent.name) for path in run.folder.glob("verify/level_*/verdict.json"))
    found, said = [], []
    for level in sorted(int(match[1]) for match in there if match):
        try:
            found.append(read(run, level))
        except LotteryError as error:
            said.append(str(error).removesuffix("."))
    return found, said


def _digest(held: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()


def _write_csv(path: Path, columns, rows) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(
            [["" if v is None else f"{v:.6g}" if isinstance(v, float) else v for v in row] for row in rows]
        )


def write_instability(run: Folder, rows: Sequence[Mapping[str, Any]]) -> None:
    """Adds rows of INSTABILITY to the run's table, in the place of those of the same replicate and level."""
    at = {(int(row["replicate"]), int(row["level"])): row for row in (*read_instability(run), *rows)}
    whole = [
        {**row, "replicate": r, "level": k, "rewind_to": int(row["rewind_to"])} for (r, k), row in sorted(at.items())
    ]
    write_csv(run.folder / "instability.csv", INSTABILITY, whole)


def read_instability(run: Folder) -> list[dict[str, Any]]:
    """The rows of instability.csv; none if there is no such file.

    Raises:
      LotteryError: If it is damaged.
    """
    path = run.folder / "instability.csv"
    return read_csv(path) if path.is_file() else []
