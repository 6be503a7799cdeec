"""How the combinations of a study compare: the best level of each, a ranking, and paired differences over the same seeds. No TensorFlow."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tf_lottery.base.errors import LotteryError
from tf_lottery.base.student import reach
from tf_lottery.base.table import Table
from tf_lottery.runs.gathering import Row
from tf_lottery.runs.outcome import Statistic
from tf_lottery.runs.study import Study, in_words, problem_of, seed_of, text

TEST = "early_stop_test_accuracy"
VALIDATION = "early_stop_validation_accuracy"
DENSE = 1 - 1e-9  # a mask of all ones may be a rounding away from 1
FAR = 2  # times a density that is asked for, or one part in so many of it: no level next to it


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences, and its interval of confidence.

        mean +- t(n - 1) s / sqrt(n)

    Attributes:
      mean: Over the seeds that both have.
      low, high: The ends of Student's interval of 95 %; NaN with one seed.
      seeds: How many there are, n.
    """

    mean: float
    low: float
    high: float
    seeds: int

    @classmethod
    def of(cls, differences: Sequence[float]) -> Difference | None:
        """
        >>> Difference.of([1.0, 2.0, 3.0])
        Difference(mean=2.0, low=-0.484..., high=4.484..., seeds=3)
        """
        n = len(differences)
        if not n:
            return None
        mean, own = statistics.fmean(differences), reach(differences) if n > 1 else math.nan
        return cls(mean, mean - own, mean + own, n)

    @property
    def told_apart(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0

    @property
    def points(self) -> str:
        """The difference in points of accuracy, with its interval."""
        return f"{100 * self.mean:+.2f}" + (f" ± {100 * (self.high - self.mean):.2f}" if self.seeds > 1 else "")

    @property
    def doubt(self) -> str:
        """What is to be said where nothing is told apart."""
        return "one seed" if self.seeds == 1 else "" if self.told_apart else "not told apart"

    def __str__(self) -> str:
        return f"{self.points}, one seed" if self.seeds == 1 else f"{self.points} *" if self.told_apart else self.points


@dataclass(frozen=True)
class Combination:
    """The runs of a study that differ in their seed alone.

    Attributes:
      values: Those of the study's flags.
      rows: By level and seed of the replicate.
      dense: The rows of dense networks that began alike, by seed.
    """

    values: Mapping[str, Any]
    rows: Mapping[int, Mapping[int, Row]]
    dense: Mapping[int, Row]

    @property
    def name(self) -> str:
        return in_words(self.values)

    @property
    def levels(self) -> list[int]:
        """Those that the most replicates have: a mean over fewer would be one of others."""
        return [level for level, rows in self.rows.items() if len(rows) == self.replicates]

    @property
    def replicates(self) -> int:
        return max(map(len, self.rows.values()))

    def statistic(self, level: int, column: str) -> Statistic | None:
        """Mean and range over the replicates of a level; None if one of them does not tell."""
        values = [float(value) for row in self.rows[level].values() if (value := row.get(column)) is not None]
        return Statistic.of(values) if values and len(values) == len(self.rows[level]) else None


@dataclass(frozen=True)
class Standing:
    """How a combination does at one of its levels.

    Attributes:
      combination: Which.
      level: The level that was chosen for it.
      rank: Its place in the ranking, from 1.
      asked: The density that was asked for; None where the best level was.
      to_dense: The difference in test accuracy at early stop to the dense networks of the same seeds, if there are some.
      to_best: The same to the first in the ranking; None for that one, and where no seed is the same.
    """

    combination: Combination
    level: int
    rank: int = 1
    asked: float | None = None
    to_dense: Difference | None = None
    to_best: Difference | None = None

    def statistic(self, column: str) -> Statistic | None:
        return self.combination.statistic(self.level, column)

    @property
    def seeds(self) -> int:
        return len(self.combination.rows[self.level])


def combinations(study: Study) -> list[Combination]:
    """The combinations of a study, in the order of its runs, without levels that only lead to a ticket."""
    found: dict[str, tuple[dict[str, Any], dict[int, dict[int, Row]], str]] = {}
    dense: dict[str, dict[int, Row]] = {}
    for entry in study.entries:
        values, problem = study.values(entry), problem_of(entry)
        _, rows, _ = found.setdefault(repr(values), (values, {}, problem))
        longest = max((row.get("steps") or 0 for row in entry.rows), default=0)
        for row in entry.rows:
            if (row.get("steps") or longest) < longest:
                continue  # trained for the search alone: no ticket
            seed = seed_of(entry, row["replicate"])
            rows.setdefault(row["level"], {}).setdefault(seed, dict(row))
            if row["level"] == 0 and row["density"] >= DENSE:
                dense.setdefault(problem, {}).setdefault(seed, dict(row))
    return [
        Combination(values, {level: rows[level] for level in sorted(rows)}, {**dense.get(problem, {}), **_dense(rows)})
        for values, rows, problem in found.values()
    ]


def _dense(rows: Mapping[int, Mapping[int, Row]]) -> Mapping[int, Row]:
    return {seed: row for seed, row in rows.get(0, {}).items() if row["density"] >= DENSE}


def judge(combinations: Sequence[Combination]) -> str:
    """The column that levels are chosen and ranked by: validation accuracy at early stop, or of older runs test accuracy."""
    rows = [row for each in combinations for level in each.rows.values() for row in level.values()]
    return VALIDATION if all(row.get(VALIDATION) is not None for row in rows) else TEST


def ranking(study: Study, density: float | None = None) -> list[Standing]:
    """The combinations of a study, best first, each at its best pruned level or at the one next to a density.

    Levels are chosen, and combinations ranked, by their mean validation accuracy at early stop, and told apart by test accuracy.

    Args:
      study: The study.
      density: In (0, 1]; the pruned level whose density is nearest on a logarithmic scale counts, within a factor of two.

    Raises:
      LotteryError: If the density is out of range.
    """
    if density is not None and not 0 < density <= 1:
        raise LotteryError(f"Expected a density in (0, 1], but received {density!r}.")
    every = combinations(study)
    column = judge(every)
    chosen = [(each, level) for each in every if (level := _level(each, column, density)) is not None]

    def place(one: tuple[Combination, int]):
        reached, left = one[0].statistic(one[1], column), one[0].statistic(one[1], "density")
        return -reached.mean if reached else math.inf, left.mean if left else 1.0

    chosen.sort(key=place)
    return [
        Standing(
            each,
            level,
            at + 1,
            density,
            difference(each.rows[level], each.dense),
            difference(each.rows[level], chosen[0][0].rows[chosen[0][1]]) if at else None,
        )
        for at, (each, level) in enumerate(chosen)
    ]


def _level(combination: Combination, column: str, density: float | None) -> int | None:
    """The level that counts, of those that the most replicates have; None if there is none."""
    mean = {
        level: found.mean
        for level in combination.levels
        if (found := combination.statistic(level, "density")) and 0 < found.mean < (DENSE if density != 1 else math.inf)
    }
    if density is not None:
        away = {level: abs(math.log(left / density)) for level, left in mean.items()}
        return min((level for level in away if away[level] <= math.log(FAR)), key=away.__getitem__, default=None)
    reached = {level: found.mean for level in mean if (found := combination.statistic(level, column)) is not None}
    return max(reached, key=lambda level: (reached[level], -mean[level]), default=None)


def difference(rows: Mapping[int, Row], others: Mapping[int, Row]) -> Difference | None:
    """The difference in test accuracy at early stop over the seeds that both have."""
    pairs = [(rows[seed].get(TEST), others[seed].get(TEST)) for seed in sorted(rows.keys() & others.keys())]
    return Difference.of([one - other for one, other in pairs if one is not None and other is not None])


def table(study: Study, densities: Sequence[float] = ()) -> Table:
    """The table of a study: a row for each combination, best first; of each density that is asked for, or at its best."""
    flags = list(study.flags) or ["run"]
    headings = [*flags, *(["asked for %"] if densities else []), "weights %", "validation % at early stop"]
    headings += ["test % at early stop", "to the best", "to dense", "trainings", "test % at the end", "seeds"]
    rows = []
    for density in densities or (None,):
        for standing in ranking(study, density):
            values = standing.combination.values or {"run": study.entries[0].name}
            cells = [text(flag, value).removeprefix(f"{flag}=") for flag, value in values.items()]
            cells += [f"{100 * density:.3g}"] if density else []
            to_best = "best" if standing.rank == 1 else str(standing.to_best or "-")
            forms = {"density": "{:.3g}", VALIDATION: "{:.2f}", TEST: "{:.2f}"}
            cells += [_range(standing.statistic(column), form, 100) for column, form in forms.items()]
            cells += [to_best, str(standing.to_dense or "-"), _range(standing.statistic("trainings"), "{:.3g}", 1)]
            cells += [_range(standing.statistic("final_test_accuracy"), "{:.2f}", 100), str(standing.seeds)]
            rows.append(cells)
    return Table(headings, rows, note(study, bool(densities)), words=range(1, len(flags)), whole=len(flags))


def levels(study: Study) -> Table:
    """Every level of every combination: what its curves are drawn from."""
    flags = list(study.flags) or ["run"]
    headings = [*flags, "level", "weights %", "early-stop step", "validation % at early stop", "test % at early stop"]
    rows = []
    for each in combinations(study):
        values = each.values or {"run": study.entries[0].name}
        cells = [text(flag, value).removeprefix(f"{flag}=") for flag, value in values.items()]
        forms = {"density": ("{:.3g}", 100), "early_stop_step": ("{:,.0f}", 1), VALIDATION: ("{:.2f}", 100)}
        forms |= {TEST: ("{:.2f}", 100), "final_test_accuracy": ("{:.2f}", 100)}
        for level, seeds in each.rows.items():
            told = [_range(each.statistic(level, column), *form) for column, form in forms.items()]
            rows.append([*cells, str(level), *told, str(len(seeds))])
    return Table([*headings, "test % at the end", "seeds"], rows, words=range(1, len(flags)))


def note(study: Study, asked: bool = False) -> str:
    """How the table is to be read."""
    by = "validation" if judge(combinations(study)) == VALIDATION else "test"
    which = (
        "the level next to the density that was asked for" if asked else f"its pruned level of highest {by} accuracy"
    )
    biased = (
        ""
        if by == "validation"
        else ", because older runs do not tell their validation accuracy: the best of many is a little too good"
    )
    return (
        f"Each combination at {which}, ranked by mean {by} accuracy at early stop{biased}. Mean, and in brackets the smallest and the largest "
        "replicate. Differences are points of test accuracy at early stop, paired over the same seeds, ± Student's intervals of 95 %, "
        "each by itself; where one leaves out 0, the two are told apart: *."
    )


def sentence(study: Study, density: float | None = None) -> str:
    """One sentence: which combination is best, and which others cannot be told from it."""
    order = ranking(study, density)
    if not order:
        return f"{study.name} has no pruned level to compare yet."
    best, others = order[0], order[1:]
    reached = best.statistic(TEST)
    by = "validation" if judge(combinations(study)) == VALIDATION else "test"
    left = best.statistic("density")
    words = (
        f"Best by {by} accuracy: {best.combination.name}"
        if others
        else best.combination.name[:1].upper() + best.combination.name[1:]
    )
    words += f", with {100 * left.mean:.3g} % of the weights" if left else ""
    words += f" {100 * reached.mean:.2f} % test accuracy at early stop" if reached else ""
    if best.to_dense:
        doubt = f" ({best.to_dense.doubt})" if best.to_dense.doubt else ""
        words += f", {best.to_dense.points} points to the dense network of the same seeds{doubt}"
    if not others:
        return f"{words}."
    near = [each for each in others if not (each.to_best and each.to_best.told_apart)]
    if not near:
        return f"{words}; all {len(others)} others are told apart from it."
    if best.seeds == 1:
        return f"{words}; with one seed none of the {len(others)} others can be told from it."
    named = ": " + "; ".join(each.combination.name for each in near) if len(near) <= 3 else ""
    return f"{words}; not told apart from it: {len(near)} of {len(others)} others{named}."


def looks(settings: Mapping[str, Any], enough: int = 30) -> str | None:
    """What is to be said where a training looks too rarely at its validation set to find its early stop."""
    steps, every = settings.get("steps"), settings.get("eval_every")
    if not steps or not every or steps / every >= enough:
        return None
    return (
        f"The early stop is one of {max(1, steps // every)} looks at the validation set (eval_every={every}, steps={steps}); "
        f"{enough} or more tell it well."
    )


def unranked(study: Study, densities: Sequence[float] = ()) -> list[str]:
    """Which combinations have no place in a ranking, and why; a sentence each."""
    every = combinations(study)
    column, said = judge(every), []
    for density in densities or (None,):
        for each in every:
            if _level(each, column, density) is None:
                at = "" if density is None else f" at {100 * density:.3g} % of the weights"
                near = "" if density is None else f" within a factor of {FAR} of that"
                said.append(
                    f"{each.name} is not ranked{at}: no pruned level{near} is finished in all of its replicates."
                )
    return said


def remarks(study: Study, densities: Sequence[float] = ()) -> list[str]:
    """The notes of a study, what is not ranked, and where an early stop is not well known."""
    few: dict[str, list[str]] = {}
    for entry in study.entries:
        if "branch" not in entry.settings and (said := looks(entry.settings)):
            few.setdefault(said, []).append(entry.name)
    every = sum("branch" not in entry.settings for entry in study.entries)
    return [*study.notes, *unranked(study, densities), *(_of(names, every, said) for said, names in few.items())]


def _of(names: Sequence[str], every: int, said: str) -> str:
    return said if len(names) == every else f"{', '.join(names)}: {said}"


def _range(value: Statistic | None, form: str, scale: float) -> str:
    if value is None:
        return "-"
    mean, low, high = (form.format(scale * number) for number in (value.mean, value.low, value.high))
    return mean if low == high else f"{mean} ({low} to {high})"
