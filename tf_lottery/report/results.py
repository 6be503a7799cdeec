"""Results as data: runs side by side, as DataFrames, tickets and plots."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_lottery.base.errors import LotteryError, LotteryWarning
from tf_lottery.report import lines
from tf_lottery.runs import comparison, study
from tf_lottery.runs.study import MEASURED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Study", "load"]

Frame = Any  # a pandas.DataFrame; without pandas a list of dicts, one for each row


class Study(study.Study):
    """Runs side by side: those of a sweep, or any others. `load` makes one; printed, it is the table that `find` ends with.

    Attributes:
      name: What it is called.
      entries: The runs and their branches that have a finished level.
      notes: What is missing or not as it was written, a sentence each.
      varying: The settings that are not the same in all runs.
      flags: As few of them as tell the combinations apart.
    """

    @classmethod
    def of(cls, folders: Sequence[Path], name: str | None = None) -> Study:
        """The study of the runs that paths stand for; see `load`."""
        read = study.read(folders, name)
        return cls(read.name, read.entries, read.notes)

    def table(self) -> Frame:
        """A row for each run, replicate and level.

        Returns:
          A DataFrame, or without pandas a list of dicts, with the columns `run`, each setting that varies, `replicate`, `seed`,
          `level`, `density`, `trainings`, `early_stop_step`, the accuracies at early stop and at the end on the validation and the
          test set in [0, 1], and `seconds`; nothing where a file does not say.
        """
        return _frame(self.rows())

    def curves(self) -> Frame:
        """A row for each measurement during training; a curve that is damaged is left out with a warning.

        Returns:
          As `table`; its columns are those up to `density`, then `step`, `train_loss`, `validation_loss`, `validation_accuracy`
          and `test_accuracy`.
        """
        complaints: list[str] = []
        rows = list(self.curve_rows(complaints))
        if complaints:
            import warnings

            warnings.warn(LotteryWarning("{}", "\n".join(complaints)), stacklevel=2)
        return _frame(rows)

    def ranking(self, density: float | None = None) -> Frame:
        """A row for each combination of settings, best first.

        Each is taken at its pruned level of highest mean validation accuracy at early stop, by which they are ranked too, and
        compared by test accuracy at early stop, over the seeds that both have, with Student's intervals of 95 %:

            to_best = mean(accuracy - accuracy of the best)

        Args:
          density: Take the level whose density is nearest to this one, in (0, 1], in the place of the best.

        Returns:
          As `table`, with a column for each of the `flags`, `level`, `seeds`; the means over replicates of what was measured, with the
          smallest and the largest test accuracy; `to_dense` and `to_best` with the ends of their intervals (nothing with one seed); and
          `told_apart`, whether the interval of `to_best` leaves out 0.
        """
        return _frame(self.standings(density))

    def standings(self, density: float | None = None) -> list[dict[str, Any]]:
        """What `ranking` tells, always as dicts."""
        return [_standing(one) for one in comparison.ranking(self, density)]

    def plot(self, y: str = "early_stop_test_accuracy", x: str = "density", *, axes: Axes | None = None) -> Axes:
        """Draws a line for each combination, its mean over replicates, with a band from the smallest to the largest.

        Args:
          y: A column of `table` that was measured; accuracies are drawn in percent.
          x: `density`, in percent with the dense network on the left, `trainings`, or another such column.
          axes: Where to draw. Default: the axes of a new figure.

        Returns:
          The axes.

        Raises:
          LotteryError: If there is no such column, or nothing of it is known.
        """
        for name in (x, y):
            if name not in MEASURED:
                raise LotteryError(f"Expected one of {', '.join(MEASURED)} to plot, but received {name!r}.")
        if axes is None:
            import matplotlib.pyplot as plt

            _, axes = plt.subplots(layout="constrained")
        if not lines.draw(axes, comparison.combinations(self), x, y):
            raise LotteryError(f"Expected runs that tell their {x} and {y}, but none of {self.name} does.")
        if len(axes.get_lines()) > 1:
            axes.legend(title=", ".join(self.flags))
        return axes

    def __str__(self) -> str:
        shown = comparison.table(self)
        return "\n".join([str(shown), comparison.sentence(self), *comparison.remarks(self)])

    def _repr_html_(self) -> str:
        shown = comparison.table(self)
        said = [comparison.sentence(self), *comparison.remarks(self)]
        return shown.html() + "".join(f"<p>{escape(each)}</p>" for each in said)


def load(runs: str | os.PathLike | Sequence[str | os.PathLike]) -> Study:
    """Reads runs of the command line, side by side. No TensorFlow is loaded.

    Args:
      runs: The folder of a run, of a study or the base name of a sweep (`results/cmp` of `results/cmp+criterion=movement`, ...), a
        pattern as `results/cmp*`, or several of them. Branches come with their runs.

    Returns:
      The study. What is missing or not as it was written is in its `notes`, and the rest is read.

    Raises:
      LotteryError: If there is no such run, or none with a finished level.

    Examples:

    >>> load("docs/results/lenet_mnist").flags
    ('branch',)
    """
    each = [runs] if isinstance(runs, str | os.PathLike) else list(runs)
    if not each:
        raise LotteryError("Expected the folder of a run, or several, but received none.")
    return Study.of([Path(one) for one in each])


def _standing(one: comparison.Standing) -> dict[str, Any]:
    row: dict[str, Any] = {**one.combination.values, "level": one.level, "seeds": one.seeds}
    for column in MEASURED:
        measured = one.statistic(column)
        row[column] = measured.mean if measured else None
        if column == comparison.TEST and measured:
            row |= {f"{column}_low": measured.low, f"{column}_high": measured.high}
    for name, found in (("to_dense", one.to_dense), ("to_best", one.to_best)):
        ends = (found.low, found.high) if found and found.seeds > 1 else (None, None)
        row |= {name: found.mean if found else None, f"{name}_low": ends[0], f"{name}_high": ends[1]}
    row["told_apart"] = one.to_best.told_apart if one.to_best else None
    return row


def _frame(rows: list[dict[str, Any]]) -> Frame:
    try:
        import pandas
    except ImportError:
        return rows
    frame = pandas.DataFrame(rows)
    compared = [f"{name}{end}" for name in ("to_dense", "to_best", comparison.TEST) for end in ("", "_low", "_high")]
    for column in frame.columns.intersection([*MEASURED, *study.CURVES, *compared]):
        frame[column] = pandas.to_numeric(frame[column])  # of nothing but None, which is NaN in a DataFrame
    return frame
