"""What a command shows while it works: a progress bar on a terminal, plain lines when piped, and the closing table."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table

from tf_lottery.bin.reused import in_words
from tf_lottery.runs.executor.task import named, steps_callback
from tf_lottery.runs.outcome import LevelStatistics, Statistic, best_by_rule
from tf_lottery.runs.todo import cost


class LevelDisplay:
    """Tells which level trains, how far it and all of them are and how long they will take; one line for each finished level.

    Args:
      left: (replicate, level) of what there is to train.
      steps: Steps of all that together.
      quiet: Show nothing.
      aside: Show it on stderr, where stdout is for a program.
    """

    def __init__(
        self,
        left: Sequence[tuple[int, int]],
        steps: int,
        *,
        quiet: bool = False,
        aside: bool = False,
    ):
        self.console, self.once = Console(file=sys.stderr if aside else sys.stdout, quiet=quiet), Once()
        self.progress = progress_on(self.console)
        self.left, self.levels, self.steps, self.taken = list(left), len(left), 0, Counter[str]()
        self.replicates = len({replicate for replicate, _ in left})
        self.all = self.progress.add_task("all", total=steps, told=self.told())
        self.level = self.progress.add_task("reading data, building the network", total=None, told="")

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_) -> None:
        self.progress.stop()
        self.once.count()
        print_reused(self.console, self.taken)

    def told(self) -> str:
        """How many levels and replicates are finished."""
        levels = f"{self.levels - len(self.left)} of {self.levels} levels"
        if self.replicates < 2:
            return levels
        finished = self.replicates - len({replicate for replicate, _ in self.left})
        return f"{levels}, {finished} of {self.replicates} replicates"

    def begin(
        self, replicate: int, level: int, density: float | None, steps: int | None = None, search: int = 0
    ) -> Sequence:
        self.steps, what = steps or 0, self.named(f"replicate {replicate}, {named(level, search)}")
        self.progress.reset(
            self.level,
            description=what if density is None else f"{what} ({100 * density:.3g} %)",
            total=self.steps,
            visible=True,
            told=f"0 of {self.steps:,} steps",
        )
        return [steps_callback(self.advance, self.tell, what)]

    def advance(self, steps: int, reached: int) -> None:
        """So many steps more are done; the level is at step `reached`."""
        self.progress.advance(self.all, steps)
        self.progress.update(self.level, completed=reached, told=f"{reached:,} of {self.steps:,} steps")

    def skipped(self, steps: int) -> None:
        """So many steps need not be done."""
        self.progress.advance(self.all, steps)

    def done(self, row: Mapping[str, Any]) -> None:
        line = self.named(line_of(row))
        self.finish(row)
        self.say(line)

    def named(self, words: str) -> str:
        """What is said of a level, with what else it has to be known by."""
        return words

    def say(self, line: str) -> None:
        self.console.print(line, highlight=False, soft_wrap=True)

    def tell(self, sentence: str, about: Sequence[str] = ()) -> None:
        self.once(sentence, about)

    def finish(self, row: Mapping[str, Any]) -> None:
        """Counts a level as finished."""
        if (at := (row["replicate"], row["level"])) in self.left:
            self.left.remove(at)
        self.taken.update(filter(None, [row.get("taken_from")]))
        self.progress.update(self.all, told=self.told())


def progress_on(console: Console) -> Progress:
    """Bars with words beside them; nothing where the console is no terminal or quiet."""
    return Progress(
        TextColumn(
            "{task.description}", table_column=Column(overflow="fold")
        ),  # on few columns in two lines, never cut
        BarColumn(40 if console.width >= 100 else 8),
        TextColumn("{task.fields[told]}", table_column=Column(overflow="fold")),
        *([TimeElapsedColumn()] if console.width >= 100 else []),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
        console=console,
        disable=console.quiet or not console.is_terminal,
        transient=True,
    )


def print_reused(console: Console, taken: Mapping[str, int]) -> None:
    """What was not trained again, in one line, of a quiet command too."""
    if sentence := in_words(taken):
        print(sentence, file=console.file)


def line_of(row: Mapping[str, Any]) -> str:
    """What is said of a finished level."""
    notes = f"; {row['notes']}" if row["notes"] else ""
    remark = f"; {row['remark']}" if row.get("remark") else ""
    spent = f", {cost(row['trainings'])} spent for it" if row.get("trainings") else ""
    return (
        f"replicate {row['replicate']} level {row['level']:>2}: density {100 * row['density']:6.2f} %, "
        f"early stop at step {row['early_stop_step']:,}, test accuracy {100 * row['early_stop_test_accuracy']:.2f} % there and "
        f"{100 * row['final_test_accuracy']:.2f} % at the end, {row['seconds']:.1f} s{spent}{remark}{notes}"
    )


def tell(sentence: str) -> None:
    """Says what nobody should miss, on stderr, where it is seen whatever was asked for."""
    print(f"tf-lottery: {sentence}", file=sys.stderr)


class Once:
    """Says what nobody should miss, and of each thing once in a command: how often it came again is said at the end."""

    def __init__(self):
        self.told, self.again = set(), 0

    def __call__(self, sentence: str, about: Sequence[str] = ()) -> None:
        if about and self.told.issuperset(about):
            self.again += 1
            return
        self.told.update(about)
        tell(sentence)

    def count(self) -> None:
        if self.again:
            tell(
                f"{self.again} more mask{'s do' if self.again > 1 else ' does'} the like to the kernels that were named."
            )


def display_of(place, left: Sequence[tuple[int, int]], steps: int, chief: bool) -> LevelDisplay:
    """The display that a command asks for with its flags; only the first of several workers shows anything."""
    return LevelDisplay(left, steps, quiet=place.quiet or not chief, aside=place.json)


def print_json(value: Mapping[str, Any]) -> None:
    """The closing table for a program: one object on stdout."""
    print(json.dumps(value, indent=2))


def print_table(shown: Table) -> None:
    """The closing table: framed and fitted to a terminal; in a pipe plain lines, one for each row."""
    console = Console(file=sys.stdout)
    if not console.is_terminal:
        shown.box, console.width = None, 200
    console.print(shown)


def table(title: str, levels: Sequence[LevelStatistics]) -> Table:
    """Density, early stop and test accuracy by level: mean, smallest and largest over replicates."""
    shown = Table(title=title, title_justify="left")
    headings = ("level", "density %", "early-stop step", "test accuracy % at early stop", "at the end", "trainings")
    told = any(level.trainings for level in levels)  # an older run does not say
    for heading in headings if told else headings[:-1]:
        shown.add_column(heading, justify="right")
    for level in levels:
        spent = _range(level.trainings, "{:.4g}") if level.trainings else "-"
        shown.add_row(
            f"{level.level}" if level.in_full else f"{level.level} (short)",
            f"{100 * level.density.mean:.2f}",
            _range(level.early_stop_step, "{:,.0f}"),
            _range(level.early_stop_test_accuracy, "{:.2f}", 100),
            _range(level.final_test_accuracy, "{:.2f}", 100),
            *([spent] if told else []),
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
