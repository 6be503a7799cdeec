"""What one scale consists of: its experiments, what of them is missing, and the numbers that the claims speak of. No TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tf_lottery.base.errors import LotteryError
from tf_lottery.claims.experiments import Experiment
from tf_lottery.runs.executor.task import Task


@dataclass(frozen=True)
class Plan:
    """The experiments of one scale, and the numbers that the claims speak of.

    Attributes:
      experiments: In the order in which they are run.
      enough: How many replicates a verdict needs.
      tolerance, because: What two test accuracies may differ by, in points, and still be called the same, and why.
      published: Whether network, data and protocol are the papers', so that their figures can be met.
      about: What this scale is, for the page.
      gain: By how much the tickets' accuracy is to rise, in points.
      best, fastest, small, smallest, cheap: Densities: where the gain is measured, where tickets learn fastest, from where on
        networks are called small, where the sweep ends, and that of a ticket for two trainings. None where claims have their own.
      hint: Another way to run it, for the page; empty if there is none.
    """

    scale: str
    experiments: tuple[Experiment, ...]
    enough: int
    tolerance: float
    because: str
    published: bool
    about: str
    gain: float | Any = None
    best: float | Any = None
    fastest: float | Any = None
    small: float | Any = None
    smallest: float | Any = None
    cheap: float | Any = None
    hint: str = ""

    def __getitem__(self, name: str) -> Experiment:
        return next(experiment for experiment in self.experiments if experiment.name == name)

    def names(self) -> list[str]:
        return [experiment.name for experiment in self.experiments]

    def needed(self, names: Iterable[str]) -> list[Experiment]:
        """The experiments of those names and the runs they belong to, in the plan's order."""
        wanted = {part for name in names for part in (name, self[name].trunk.name)}
        return [experiment for experiment in self.experiments if experiment.name in wanted]

    def missing(self, names: Iterable[str], folder: Path, only: int | None = None) -> dict[str, list[tuple[int, int]]]:
        """For each experiment that is not finished the (replicate, level) that are left.

        Raises:
          LotteryError: If no run has a replicate of that number.
        """
        most = max(experiment.replicates for experiment in self.experiments)
        if only is not None and not 0 <= only < most:
            raise LotteryError(f"Expected a replicate from 0 to {most - 1}, but received replicate={only}.")
        left = {experiment.name: experiment.missing(folder, only) for experiment in self.needed(names)}
        return {name: levels for name, levels in left.items() if levels}

    def tasks(self, missing: Mapping[str, Iterable[tuple[int, int]]], data_dir: str | None = None) -> list[Task]:
        """What is left to do of the experiments, as tasks for `executor.run`."""
        return [task for name, left in missing.items() for task in self[name].tasks(left, data_dir)]

    def check(self, folder: Path) -> None:
        """
        Raises:
          LotteryError: If a run in the folder was made with other settings than the plan's.
        """
        for experiment in self.experiments:
            if other := experiment.differs(folder):
                raise LotteryError(
                    f"Expected the runs of the plan {self.scale!r} in {folder}, but {experiment.name} was made with "
                    f"{other}: remove that folder, or give another --results_dir."
                )
