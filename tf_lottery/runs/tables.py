"""The tables of a run: their columns, how they are written, and how they are read. No TensorFlow."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_lottery.base.errors import LotteryError
from tf_lottery.base.files import whole_file

SUMMARY = (
    "replicate",
    "level",
    "density",
    "early_stop_step",
    "early_stop_test_accuracy",
    "final_test_accuracy",
    "seconds",
    "trainings",
    "steps",
    "early_stop_validation_accuracy",
    "final_validation_accuracy",
)
SUPERMASKS = (
    "replicate",
    "density",
    "mask_accuracy",
    "sampled_accuracy",
    "sampled_accuracy_low",
    "sampled_accuracy_high",
    "seconds",
)
NOTES = ("replicate", "level", "notes")
RULE = ("replicate", "criterion", "signed_constant", "density", "test_accuracy")
CURVE = ("step", "train_loss", "validation_loss", "validation_accuracy", "test_accuracy")
OLDER: Mapping[tuple[str, ...], tuple[str, ...]] = {
    SUMMARY: SUMMARY[:7]
}  # the columns of tables that an earlier version wrote
TABLES = {  # made of tickets: the columns, and which of them a level must have to stand there
    "summary.csv": (SUMMARY, "density"),
    "notes.csv": (NOTES, "notes"),
    "supermask.csv": (SUPERMASKS, "mask_accuracy"),
}


def row_of(replicate: int, level: int, density: float, metrics: Mapping, found: Mapping) -> dict[str, Any]:
    notes = found.get("notes")
    return {
        "replicate": replicate,
        "level": level,
        "density": density,
        **metrics,
        "steps": found.get("steps"),
        "notes": "; ".join(notes) if notes else None,
    }


def place_of(row: Mapping[str, Any]) -> tuple[int, int]:
    """(replicate, level); learned masks have no level."""
    return int(row["replicate"]), int(row.get("level") or 0)


def in_text(row: Mapping[str, Any], columns: Sequence[str]) -> dict[str, str]:
    values = {column: _short(row.get(column)) for column in columns}
    return {column: "" if value is None else str(value) for column, value in values.items()}


def read_rows(path: Path, columns: Sequence[str]) -> dict[tuple[int, int], dict[str, str]] | None:
    """The rows of a table as text, by (replicate, level); None if there is no such table, or it cannot be read.

    The rows of a table that an earlier version wrote have fewer columns.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, restkey="", restval=None)
            rows = {place_of(row): row for row in reader}
            there = tuple(reader.fieldnames or ())
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return None
    fits = there in (tuple(columns), OLDER.get(tuple(columns)))
    return rows if fits and all(len(row) == len(there) and None not in row.values() for row in rows.values()) else None


def write_csv(path: Path, columns: Sequence[str], rows) -> None:
    data = as_csv(columns, rows)
    if not path.is_file() or path.read_bytes() != data:
        with whole_file(path) as unfinished:
            unfinished.write_bytes(data)


def as_csv(columns: Sequence[str], rows) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(in_text(row, columns) for row in rows)
    return text.getvalue().encode()


def _short(value):
    return f"{value:.6g}" if isinstance(value, float) else value


def read_csv(path: Path) -> list[dict[str, float | Any]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [in_numbers(row) for row in csv.DictReader(file)]
    except (ValueError, TypeError, AttributeError, csv.Error) as error:
        raise LotteryError(f"Expected a table of numbers in {path}, but it is damaged ({error}).") from None


def in_numbers(row: Mapping[str, str]) -> dict[str, float | Any]:
    """A row as it is read: what stands nowhere is None."""
    return {name: float(cell) if cell else None for name, cell in row.items()}


def why_impossible(row: Mapping[str, Any]) -> str | None:
    """What a row tells that cannot be, as a density of 2; None for most.

    >>> why_impossible({"replicate": 0, "level": 1, "density": 2.0})
    'density=2.0'
    """
    for name in ("replicate", "level"):
        if (value := row.get(name)) is None or not (math.isfinite(value) and value == int(value) >= 0):
            return f"{name}={value}"
    for name, value in row.items():
        if isinstance(value, int | float):
            most = 1 if name == "density" or name.endswith("_accuracy") else math.inf
            if not (0 <= value <= most and math.isfinite(value)):
                return f"{name}={value}"
    return None if row.get("density") is not None else "no density"


def read_rule(path: Path) -> list[dict[str, Any]]:
    """The rows of supermask_by_rule.csv; none if there is no such file.

    Raises:
      LotteryError: If it is damaged.
    """
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != RULE:
                raise ValueError("it has other columns")
            rows = [
                {
                    "replicate": int(row["replicate"]),
                    "criterion": row["criterion"],
                    "signed_constant": {"True": True, "False": False}[row["signed_constant"]],
                    "density": float(row["density"]),
                    "test_accuracy": float(row["test_accuracy"]),
                }
                for row in reader
            ]
        if impossible := next(filter(None, (why_impossible({"level": 0, **row}) for row in rows)), None):
            raise ValueError(f"it has {impossible}")
        return rows
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise LotteryError(f"Expected a table of masks by rule in {path}, but it is damaged ({error}).") from None
