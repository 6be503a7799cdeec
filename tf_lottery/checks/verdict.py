"""What the controls of a ticket say: a table, and one sentence with its numbers. No TensorFlow.

A control counts as beaten where the 95 % interval of the difference to it lies above 0. From three replicates on it is that of Welch's t test,
which takes the replicates of two networks as independent: where they have start weights and data order in common, that is on the
safe side. Of fewer it is what a test set of that size allows, as if the two failed independently of each other, and the spread over replicates is
not known.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tf_lottery.base.student import quantile
from tf_lottery.checks.line import STABLE, Line

DENSE, TICKET, OTHER_ORDER = "dense", "ticket", "other_order"
CONTROLS = {  # what a sentence calls them
    "reinit": "new weights under its mask",
    "random_mask": "its mask shuffled within each layer",
    "random_mask+reinit": "random networks of its layer densities",
    "inverted": "its scores inverted",
}
NAMES = {DENSE: "the dense network", TICKET: "the ticket", **CONTROLS, OTHER_ORDER: "the ticket in other data order"}
LINES = {
    "instability": "between two trainings in different data order",
    "level_before": "to the ticket of the level before",
}
FEWEST = 3  # replicates whose spread is looked at
MATCHING = 0.002  # a ticket may be so far below the dense network (Frankle et al., 2020, section 4.4)


@dataclass(frozen=True)
class Measured:
    """One network that was trained.

    Attributes:
      name: One of NAMES.
      replicate: Of which replicate.
      density: Weights kept.
      accuracy: Its test accuracy at the early stop, or what the metric of another name was, in [0, 1].
      step: The early stop; None where it is not known.
      trained: Whether it was trained for the check, and was not there already.
    """

    name: str
    replicate: int
    density: float
    accuracy: float
    step: float | None = None
    trained: bool = True


@dataclass(frozen=True)
class Difference:
    """Accuracy of the ticket less that of another: the mean over replicates, and a 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{_points(self.mean)} ({_points(self.low)} to {_points(self.high)})"

    @property
    def words(self) -> str:
        return f"{_points(self.mean)} points, {_points(self.low)} to {_points(self.high)}"


@dataclass(frozen=True)
class Verification:
    """A ticket beside its controls; printed, it is the table with the sentence.

    Attributes:
      level: The ticket's.
      rows: All networks.
      lines: By the names of LINES the line of each replicate.
      signs: The share of kept weights that end with the sign they began with, of each replicate.
      not_run: What could not be had, and why.
      examples: How many the test set has; None if that is not known.
    """

    level: int
    rows: Sequence[Measured]
    lines: Mapping[str, Sequence[Line]] = field(default_factory=dict)
    signs: Sequence[float] = ()
    not_run: Mapping[str, str] = field(default_factory=dict)
    examples: int | None = None

    def of(self, name: str) -> list[Measured]:
        return sorted((row for row in self.rows if row.name == name), key=lambda row: row.replicate)

    @property
    def trainings(self) -> int:
        """How many networks were trained for it."""
        return sum(row.trained for row in self.rows)

    @property
    def accuracy(self) -> float:
        return statistics.fmean(row.accuracy for row in self.of(TICKET))

    def difference(self, name: str) -> Difference | None:
        """To a network of NAMES; None if there is none, or nothing is known of how sure it is."""
        samples = [[row.accuracy for row in self.of(each)] for each in (TICKET, name)]
        if not all(samples):
            return None
        mean = statistics.fmean(samples[0]) - statistics.fmean(samples[1])
        if min(map(len, samples)) >= FEWEST:
            margin = _welch(*samples)
        elif self.examples:
            margin = 1.96 * math.sqrt(sum(p * (1 - p) for p in map(statistics.fmean, samples)) / self.examples)
        else:
            return None
        margin = max(margin, 1 / self.examples if self.examples else 0.0)  # a test set tells no less than one example
        return Difference(mean, mean - margin, mean + margin)

    def barrier(self, name: str) -> float | None:
        """The largest barrier of any replicate, of a line of LINES."""
        return max((line.barrier for line in self.lines.get(name, ())), default=None)

    @property
    def won(self) -> bool:
        """Whether it is a winning ticket: every control was run and is beaten, it matches the dense network, and it is stable."""
        return self._finding()[0] == "A winning ticket"

    @property
    def sentence(self) -> str:
        """What it is, with its numbers."""
        found, named = self._finding()
        density = 100 * statistics.fmean(row.density for row in self.of(TICKET))
        said = [
            f"{found}: level {self.level} with {density:.3g} % of the weights reaches {100 * self.accuracy:.2f} % test accuracy"
        ]
        beside = [name for name in (*CONTROLS, DENSE) if name not in named and self._told(name)]
        if beside:
            said.append(f"beside {self._listed(beside)}")
        if (barrier := self.barrier("instability")) is not None:
            stable = "stable" if barrier < STABLE else "not stable"
            said.append(f"{stable}, with a barrier of {_points(barrier, '')} points {LINES['instability']}")
        if (barrier := self.barrier("level_before")) is not None:
            said.append(f"one of {_points(barrier, '')} {LINES['level_before']}")
        if self.signs:
            said.append(f"{100 * statistics.fmean(self.signs):.0f} % of its weights keep their sign")
        count = len(self.of(TICKET))
        means = f"means of {count} replicates" if count > 1 else "one replicate: its spread is not known"
        intervals = "95 % intervals" + ("" if count >= FEWEST else " from the size of the test set")
        missing = f"; not run: {', '.join(map(_name_of, self.not_run))}" if self.not_run else ""
        return f"{'; '.join(said)} ({means}, {intervals}{missing})."

    def _finding(self) -> tuple[str, list[str]]:
        """What a sentence begins with, and which networks it names there."""
        known = {name: difference for name in CONTROLS if (difference := self.difference(name))}
        worse = [name for name, difference in known.items() if difference.high < 0]
        level = [name for name, difference in known.items() if difference.low <= 0 <= difference.high]
        dense, barrier = self.difference(DENSE), self.barrier("instability")
        if not {"reinit", "random_mask"} <= known.keys():
            return "Not yet known to be a ticket", []
        if worse:
            return f"Worse than {self._listed(worse)}", worse
        if level == ["reinit"]:
            return f"A sparse network whose mask alone does it, not told apart from {self._listed(level)}", level
        if level:
            return f"Not told apart from {self._listed(level)}", level
        if dense and dense.high < 0 and dense.mean < -MATCHING:
            return f"No winning ticket, though better than its controls: worse than {self._listed([DENSE])}", [DENSE]
        if barrier is not None and barrier >= STABLE:
            return "No winning ticket, though better than its controls: it is not stable", []
        if dense is None or barrier is None or len(known) < len(CONTROLS):
            return "A winning ticket, as far as it was looked at", []
        return "A winning ticket", []

    def _listed(self, names: Sequence[str]) -> str:
        return _joined([f"{NAMES[name]} ({told})" for name in names if (told := self._told(name))])

    def _told(self, name: str) -> str | None:
        return difference.words if (difference := self.difference(name)) else None

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Headings, and a row of text for each network."""
        headings = [
            "",
            "weights kept (%)",
            "early-stop step",
            "test accuracy (%)",
            "ticket less it (points)",
            "trainings",
        ]
        rows = []
        for name, words in NAMES.items():
            if measured := self.of(name):
                steps = [row.step for row in measured if row.step is not None]
                rows.append(
                    [
                        words,
                        f"{100 * statistics.fmean(row.density for row in measured):.3g}",
                        _range(steps, "{:,.0f}") if steps else "-",
                        _range([100 * row.accuracy for row in measured], "{:.2f}"),
                        "" if name == TICKET else str(self.difference(name) or "not known"),
                        str(sum(row.trained for row in measured)),
                    ]
                )
        return headings, rows

    def remarks(self) -> list[str]:
        """What was not run, and why."""
        return [f"{_name_of(name)} was not run: {why}" for name, why in self.not_run.items()]

    def __str__(self) -> str:
        headings, rows = self.table()
        widths = [max(map(len, column)) for column in zip(headings, *rows)]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in (headings, *rows)]
        return "\n".join([*lines, *self.remarks(), self.sentence])


def _welch(*samples: Sequence[float]) -> float:
    """Half of the 95 % interval of the difference of two means."""
    parts = [(statistics.variance(sample) / len(sample), len(sample) - 1) for sample in samples]
    variance = sum(part for part, _ in parts)
    freedom = variance**2 / sum(part**2 / count for part, count in parts) if variance else 1.0
    return quantile(freedom) * math.sqrt(variance)


def _joined(said: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(said[:-1]), *said[-1:]]))


def _name_of(name: str) -> str:
    return NAMES.get(name) or f"the line {LINES[name]}"


def _points(value: float, sign: str = "+") -> str:
    return f"{100 * value:{sign}.2f}"


def _range(values: Sequence[float], form: str) -> str:
    mean, low, high = (form.format(value) for value in (statistics.fmean(values), min(values), max(values)))
    return mean if low == high else f"{mean} ({low} to {high})"
