"""What a command shows while it works: a progress bar on a terminal, plain lines when piped, and the closing table."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from tf_lottery.results import LevelStatistics, Statistic, best_by_rule


class LevelDisplay:
    """Tells which level trains, how far it is and how long it will take; one line for each finished level.

    Args:
      levels: How many levels there are to train in all.
      steps: Steps of one level.
      quiet: Show nothing.
    """

    def __init__(self, levels: int, steps: int, quiet: bool = False):
        self.console = Console(file=sys.stdout, quiet=quiet)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self.console,
            disable=quiet or not self.console.is_terminal,
            transient=True,
        )
        self.steps = steps
        self.all = self.progress.add_task("all levels", total=levels * steps)

    def __enter__(self) -> LevelDisplay:
        self.progress.start()
        return self

    def __exit__(self, *_) -> None:
        self.progress.stop()

    def begin(self, replicate: int, level: int, density: float) -> Sequence:
        self.progress.update(
            self.all, description=f"replicate {replicate}, level {level} ({100 * density:.3g} % of the weights)"
        )
        return [_step_callback(self)]

    def done(self, row: Mapping[str, Any]) -> None:
        test = row.get("early_stop_test_accuracy")
        self.console.print(
            f"replicate {row['replicate']} level {row['level']:>2}: density {100 * row['density']:6.2f} %, "
            f"early stop at step {row['early_stop_step']:,}, test accuracy {100 * test:.2f} % there and "
            f"{100 * row['final_test_accuracy']:.2f} % at the end, {row['seconds']:.1f} s",
            highlight=False,
            soft_wrap=True,
        )


def _step_callback(display: LevelDisplay):
    import keras

    class Steps(keras.callbacks.Callback):
        last = 0

        def on_train_batch_end(self, batch, logs=None):
            display.progress.advance(display.all, batch + 1 - self.last)
            self.last = batch + 1

    return Steps()


def table(title: str, levels: Sequence[LevelStatistics]) -> Table:
    """Density, early stop and test accuracy by level: mean, smallest and largest over replicates."""
    shown = Table(title=title, title_justify="left")
    for heading in ("level", "density %", "early-stop step", "test accuracy % at early stop", "at the end"):
        shown.add_column(heading, justify="right")
    for level in levels:
        shown.add_row(
            str(level.level),
            f"{100 * level.density.mean:.2f}",
            _range(level.early_stop_step, "{:,.0f}"),
            _range(level.early_stop_test_accuracy, "{:.2f}", 100),
            _range(level.final_test_accuracy, "{:.2f}", 100),
        )
    return shown


def supermask_table(title: str, rows: Sequence[Mapping[str, float]]) -> Table:
    """Learned masks, one line for each replicate."""
    shown = Table(title=title, title_justify="left")
    for heading in ("replicate", "density %", "test accuracy % at the end", "of sampled masks"):
        shown.add_column(heading, justify="right")
    for row in rows:
        sampled = "-"
        if row["sampled_accuracy"] is not None:
            low, high = row["sampled_accuracy_low"], row["sampled_accuracy_high"]
            sampled = _range(Statistic(row["sampled_accuracy"], low, high), "{:.2f}", 100)
        shown.add_row(
            f"{row['replicate']:.0f}", f"{100 * row['density']:.2f}", f"{100 * row['mask_accuracy']:.2f}", sampled
        )
    return shown


def rule_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Masks by rule: for each criterion the best density of each replicate; mean, smallest and largest of those."""
    shown = Table(title=title, title_justify="left")
    for heading in ("criterion", "density %", "test accuracy % untrained"):
        shown.add_column(heading, justify="right")
    for criterion, best in best_by_rule(rows).items():
        shown.add_row(
            criterion,
            _range(Statistic.of([row["density"] for row in best]), "{:.3g}", 100),
            _range(Statistic.of([row["test_accuracy"] for row in best]), "{:.2f}", 100),
        )
    return shown


def _range(value: Statistic, form: str, scale: float = 1) -> str:
    mean, low, high = (form.format(scale * number) for number in (value.mean, value.low, value.high))
    return mean if low == high else f"{mean} ({low} to {high})"
