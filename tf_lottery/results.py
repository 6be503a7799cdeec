"""The results on disk: the only module that knows the names of files and columns. No TensorFlow is needed to read them.

<results_dir>/<name>/spec.json                                 settings and versions
<results_dir>/<name>/summary.csv                               one row per replicate and level
<results_dir>/<name>/replicate_<r>/level_<kk>/curve.csv        measurements during training
<results_dir>/<name>/replicate_<r>/level_<kk>/level.ticket     written last: a level that has it is finished
<results_dir>/<name>/branches/<branch>/...                     the same shape, for controls
<results_dir>/<name>/supermask.csv                             one row per replicate of learned masks
<results_dir>/<name>/supermask_by_rule.csv                     untrained networks under masks of the dense level
"""

from __future__ import annotations

import csv
import json
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tf_lottery.errors import LotteryError
from tf_lottery.files import whole_file
from tf_lottery.ticket import Ticket, read_header

SUMMARY = (
    "replicate",
    "level",
    "density",
    "early_stop_step",
    "early_stop_test_accuracy",
    "final_test_accuracy",
    "seconds",
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
RULE = ("replicate", "criterion", "signed_constant", "density", "test_accuracy")
CURVE = ("step", "train_loss", "validation_loss", "validation_accuracy", "test_accuracy")


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
        spec, now = self.spec(), json.loads(json.dumps(settings))
        if spec is None or not self.finished():
            return  # nothing yet that other settings could be mixed with
        before = spec["settings"]
        for key in sorted(before.keys() | now.keys()):
            old, new = before.get(key), now.get(key)
            if old != new and not (key in growing and new > old):
                raise LotteryError(
                    f"Expected the settings that {self.folder} was begun with, but received {key}={new!r} instead of "
                    f"{old!r}: give this one another name, or remove that folder."
                )

    def open(self, settings: Mapping[str, Any], versions: Mapping[str, str]) -> None:
        """Writes the settings, if they are new, and the versions they ran with.

        Raises:
          LotteryError: If the folder cannot be written.
        """
        if (self.spec() or {}).get("settings") == json.loads(json.dumps(settings)):
            return
        try:
            with whole_file(self.folder / "spec.json") as unfinished:
                unfinished.write_text(json.dumps({"settings": settings, "versions": versions}, indent=2) + "\n")
        except OSError as error:
            raise LotteryError(
                f"Expected a folder that can be written, but {self.folder} cannot ({error.strerror})."
            ) from None

    def spec(self) -> dict[str, Any] | None:
        """The settings and versions, or None if the run was never begun."""
        path = self.folder / "spec.json"
        try:
            return json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise LotteryError(f"Expected the settings of a run in {path}, but it cannot be read ({error}).") from None

    def settings(self) -> dict[str, Any]:
        """The settings the run was begun with.

        Raises:
          LotteryError: If it was never begun.
        """
        spec = self.spec()
        if spec is None:
            raise LotteryError(f"Expected a run in {self.folder}, but there is none: `tf-lottery find` makes one.")
        return spec["settings"]

    def level_folder(self, replicate: int, level: int) -> Path:
        return self.folder / f"replicate_{replicate}" / f"level_{level:02d}"

    def finished(self) -> list[tuple[int, int]]:
        """(replicate, level) of all finished levels, in order."""
        found = []
        for path in self.folder.glob("replicate_*/level_*/level.ticket"):
            match = re.fullmatch(r"replicate_(\d+)/level_(\d+)", str(path.parent.relative_to(self.folder)))
            if match:
                found.append((int(match[1]), int(match[2])))
        return sorted(found)

    def missing(self, replicates: int, levels: Iterable[int], only: int | None = None) -> list[tuple[int, int]]:
        """(replicate, level) of what is not finished yet, in order; of one replicate if `only` names it."""
        if only is not None and not 0 <= only < replicates:
            raise LotteryError(f"Expected a replicate from 0 to {replicates - 1}, but received replicate={only}.")
        wanted = {(r, k) for r in range(replicates) for k in levels if only in (None, r)}
        return sorted(wanted - set(self.finished()))

    def ticket(self, replicate: int, level: int) -> Ticket:
        return Ticket.load(self.level_folder(replicate, level) / "level.ticket")

    def write_curve(self, replicate: int, level: int, curve: Sequence[Mapping[str, Any]]) -> None:
        _write_csv(self.level_folder(replicate, level) / "curve.csv", CURVE, curve)

    def write_level(self, replicate: int, ticket: Ticket, curve: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Writes a finished level and the summary with it; returns its row."""
        self.write_curve(replicate, ticket.level, curve)
        ticket.save(self.level_folder(replicate, ticket.level) / "level.ticket")
        return self.write_summary()[replicate, ticket.level]

    def write_summary(self) -> dict[tuple[int, int], dict[str, Any]]:
        rows = {at: self._row(*at) for at in self.finished()}
        _write_csv(self.folder / "summary.csv", SUMMARY, rows.values())
        return rows

    def write_supermasks(self) -> list[dict[str, Any]]:
        """Writes what was measured of learned masks; returns the rows."""
        rows = [self._row(*at) for at in self.finished()]
        _write_csv(self.folder / "supermask.csv", SUPERMASKS, rows)
        return rows

    def write_rule(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes what was measured of masks by rule, in the place of older rows of the same criterion, constant and replicate."""

        def part(row):
            return row["replicate"], row["criterion"], row["signed_constant"]

        new = set(map(part, rows))
        others = [row for row in self.rule() if part(row) not in new]
        _write_csv(self.folder / "supermask_by_rule.csv", RULE, [*others, *rows])

    def rule(self) -> list[dict[str, Any]]:
        """The rows of supermask_by_rule.csv; none if there is no such file."""
        path = self.folder / "supermask_by_rule.csv"
        if not path.is_file():
            return []
        with path.open(newline="") as file:
            return [
                {
                    "replicate": int(row["replicate"]),
                    "criterion": row["criterion"],
                    "signed_constant": row["signed_constant"] == "True",
                    "density": float(row["density"]),
                    "test_accuracy": float(row["test_accuracy"]),
                }
                for row in csv.DictReader(file)
            ]

    def supermasks(self) -> list[dict[str, float]]:
        """The rows of supermask.csv; none if there is no such file."""
        path = self.folder / "supermask.csv"
        return _read_csv(path) if path.is_file() else []

    def _row(self, replicate: int, level: int) -> dict[str, Any]:
        header = read_header(self.level_folder(replicate, level) / "level.ticket")
        return {"replicate": replicate, "level": level, "density": header["density"], **header["metrics"]}

    def summary(self) -> list[dict[str, float]]:
        """The rows of summary.csv.

        Raises:
          LotteryError: If there is none.
        """
        path = self.folder / "summary.csv"
        if not path.is_file():
            raise LotteryError(f"Expected the results of a run in {self.folder}, but there is no summary.csv in it.")
        return _read_csv(path)

    def curve(self, replicate: int, level: int) -> list[dict[str, float]] | None:
        """The rows of a level's curve.csv, or None if there is none."""
        path = self.level_folder(replicate, level) / "curve.csv"
        return _read_csv(path) if path.is_file() else None

    def branch(self, name: str) -> Run:
        return Run(self.folder / "branches" / _folder_name(name))

    def branches(self) -> list[Run]:
        return [Run(path.parent) for path in sorted(self.folder.glob("branches/*/summary.csv"))]


@dataclass(frozen=True)
class Statistic:
    """Mean, smallest and largest value over replicates."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Statistic:
        return cls(statistics.fmean(values), min(values), max(values))


@dataclass(frozen=True)
class LevelStatistics:
    """One level over all its replicates."""

    level: int
    replicates: int
    density: Statistic
    early_stop_step: Statistic
    early_stop_test_accuracy: Statistic
    final_test_accuracy: Statistic


def by_level(rows: Sequence[Mapping[str, float]]) -> list[LevelStatistics]:
    """The rows of a summary, gathered over replicates; rows without test accuracy are left out."""
    levels = []
    for level in sorted({int(row["level"]) for row in rows}):
        of_level = [row for row in rows if int(row["level"]) == level and row["early_stop_test_accuracy"] is not None]
        if of_level:
            columns = ("density", "early_stop_step", "early_stop_test_accuracy", "final_test_accuracy")
            levels.append(
                LevelStatistics(
                    level, len(of_level), *(Statistic.of([row[column] for row in of_level]) for column in columns)
                )
            )
    return levels


def best_by_rule(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """For each criterion the row of the best density of each replicate, as in Table 1 of Zhou et al. (2019)."""
    best: dict[tuple, Mapping[str, Any]] = {}
    for row in rows:
        at = row["criterion"], row["replicate"]
        if at not in best or row["test_accuracy"] > best[at]["test_accuracy"]:
            best[at] = row
    by_criterion: dict[str, list[Mapping[str, Any]]] = {}
    for (criterion, _), row in best.items():
        by_criterion.setdefault(criterion, []).append(row)
    return by_criterion


def verdict(levels: Sequence[LevelStatistics]) -> str:
    """One sentence: which ticket won, and by how much. The winner has the highest mean test accuracy at early stop."""
    dense, tickets = levels[0], levels[1:]
    if dense.level != 0 or not tickets:
        return "There is no ticket to compare with a dense network yet."
    best = max(tickets, key=lambda level: level.early_stop_test_accuracy.mean)
    gain = 100 * (best.early_stop_test_accuracy.mean - dense.early_stop_test_accuracy.mean)
    means = f"means of {best.replicates} replicates" if best.replicates > 1 else "one replicate"
    reaches = (
        f"level {best.level} with {100 * best.density.mean:.3g} % of the weights reaches "
        f"{100 * best.early_stop_test_accuracy.mean:.2f} % test accuracy at its early stop"
    )
    compared = (
        f"{abs(gain):.2f} points {'above' if gain > 0 else 'below'} the dense network's "
        f"{100 * dense.early_stop_test_accuracy.mean:.2f} %, at step {best.early_stop_step.mean:,.0f} instead of "
        f"{dense.early_stop_step.mean:,.0f} ({means})."
    )
    return (
        f"The winning ticket: {reaches}, {compared}" if gain > 0 else f"No ticket won; the best: {reaches}, {compared}"
    )


def _folder_name(name: str) -> str:
    if not re.fullmatch(r"[^/\\.][^/\\]*", name):
        raise LotteryError(f"Expected a name without slashes that does not begin with a dot, but received {name!r}.")
    return name


def _write_csv(path: Path, columns: Sequence[str], rows) -> None:
    with whole_file(path) as unfinished, unfinished.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows({c: _short(row.get(c)) for c in columns} for row in rows)


def _short(value):
    return f"{value:.6g}" if isinstance(value, float) else value


def _read_csv(path: Path) -> list[dict[str, float]]:
    try:
        with path.open(newline="") as file:
            return [{k: float(v) if v else None for k, v in row.items()} for row in csv.DictReader(file)]
    except (ValueError, TypeError) as error:
        raise LotteryError(f"Expected a table of numbers in {path}, but it is damaged ({error}).") from None
