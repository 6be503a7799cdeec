"""What the result files of a plan say of a claim: accuracies, early stops, masks by rule, in percent. No TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tf_lottery.claims.planned import Plan
from tf_lottery.runs.outcome import best_by_rule


class Evidence:
    """What the result files of a plan say, over the replicates that all runs in question have.

    Args:
      folder: Where the runs lie.
      plan: What they are.
      replicates: Which of their replicates count.
      seeds: The published figure of the claim in question.
    """

    def __init__(self, folder: Path, plan: Plan, replicates: Iterable[int], seeds: tuple[float, float] | Any = None):
        self.folder, self.plan, self.replicates, self.seeds = folder, plan, sorted(replicates), seeds
        self._summaries: dict[str, Mapping] = {}

    def densities(self, name: str, at_most: float = 1.0, at_least: float = 0.0) -> list[float]:
        """The densities of a run's levels within these bounds, largest first, the dense network left out.

        A bound takes in the level nearest to it: a claim that says 3.6 % means the level with 3.58 %.
        """
        found = [float(np.mean(self._column(name, level, "density"))) for level in self._levels(name) if level > 0]
        bounds = [nearest(found, bound) if 0 < bound < 1 else bound for bound in (at_least, at_most)]
        return [density for density in found if bounds[0] <= density <= bounds[1]]

    def accuracy(self, name: str, density: float = 1.0) -> np.ndarray:
        """Test accuracy at early stop in percent, one for each replicate, at the level nearest to that density."""
        return 100 * self._column(name, self._level(name, density), "early_stop_test_accuracy")

    def step(self, name: str, density: float = 1.0) -> np.ndarray:
        """The early-stop step, one for each replicate, at the level nearest to that density."""
        return self._column(name, self._level(name, density), "early_stop_step")

    def ahead(self, one: str, other: str, densities: Sequence[float]) -> np.ndarray:
        """(densities, replicates): by how many points `one` is ahead of `other`."""
        return np.stack([self.accuracy(one, density) - self.accuracy(other, density) for density in densities])

    def learned(self, name: str) -> np.ndarray:
        """Test accuracy in percent of learned masks: the mean of the sampled ones, or with edge_popup that of the mask."""
        rows = {int(row["replicate"]): row for row in self.plan[name].rows(self.folder)}
        own = (rows[replicate] for replicate in self.replicates)
        return 100 * np.array([row["sampled_accuracy"] or row["mask_accuracy"] for row in own])

    def learned_mean(self, name: str) -> float | None:
        """The mean over all replicates there are of another run, for a comparison that no verdict rests on."""
        rows = self.plan[name].rows(self.folder)
        return 100 * float(np.mean([row["sampled_accuracy"] or row["mask_accuracy"] for row in rows])) if rows else None

    def by_rule(self, criterion: str, signed_constant: bool) -> tuple[np.ndarray, np.ndarray]:
        """Test accuracy in percent of untrained networks under a criterion's masks, at each replicate's best density; and those."""
        rows = [
            row for row in self.plan["by_rule"].run(self.folder).rule() if row["signed_constant"] == signed_constant
        ]
        best = {row["replicate"]: row for row in best_by_rule(rows)[criterion]}
        own = [best[replicate] for replicate in self.replicates]
        accuracy, density = (100 * np.array([row[column] for row in own]) for column in ("test_accuracy", "density"))
        return accuracy, density

    def barriers(self, name: str, level: int) -> tuple[np.ndarray, float]:
        """The barriers between two trainings of a level in points, one for each replicate; and the density there."""
        rows = {int(row["replicate"]): row for row in self.plan[name].rows(self.folder) if int(row["level"]) == level}
        own = [rows[replicate] for replicate in self.replicates]
        return 100 * np.array([row["barrier"] for row in own]), float(np.mean([row["density"] for row in own]))

    def _summary(self, name: str) -> Mapping[tuple[int, int], Mapping[str, float]]:
        if name not in self._summaries:
            rows = self.plan[name].rows(self.folder)
            self._summaries[name] = {(int(row["level"]), int(row["replicate"])): row for row in rows}
        return self._summaries[name]

    def _levels(self, name: str) -> list[int]:
        planned = set(self.plan[name].levels())  # a longer run than the plan's says no more than the plan's
        return sorted({level for level, _ in self._summary(name)} & planned)

    def _column(self, name: str, level: int, column: str) -> np.ndarray:
        return np.array([self._summary(name)[level, replicate][column] for replicate in self.replicates])

    def _level(self, name: str, density: float) -> int:
        found = {float(np.mean(self._column(name, level, "density"))): level for level in self._levels(name)}
        return found[nearest(found, density)]


def beats(ahead: np.ndarray) -> bool:
    """Whether differences (replicates,) are above 0 in the mean and in most replicates."""
    return bool(np.mean(ahead) > 0 and 2 * np.count_nonzero(ahead > 0) > len(ahead))


def nearest(densities: Iterable[float], density: float) -> float:
    return min(densities, key=lambda found: abs(np.log(found / density)))


def percent(density: float) -> str:
    return f"{100 * density:.3g} %"
