"""Is it a ticket? Trains the controls of a finished run's level and answers in a table and a sentence.

usage: tf-lottery verify --name=RUN --level=K [flags]

The controls: new weights under the ticket's mask; the mask shuffled within each layer; random networks of its layer densities; its scores
inverted; and the ticket in another data order, for the error along the straight line between the two trainings. Each is a training
like the ticket's, five in all for each replicate; what branches of the run have already is taken from there. What it will cost is
said before it begins. The same command goes on where an interrupted one stopped. Results go to RESULTS_DIR/NAME/verify/level_KK, the
networks to RESULTS_DIR/NAME/branches; `tf-lottery report` draws them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from tf_lottery.base.errors import LotteryError
from tf_lottery.base.quiet import tensorflow_loading
from tf_lottery.bin import main as main_lib
from tf_lottery.bin.display import LevelDisplay, print_json, print_table
from tf_lottery.bin.flags import Flags
from tf_lottery.checks.verdict import LINES, NAMES
from tf_lottery.runs.results import Run
from tf_lottery.runs.settings import Settings, setting


@dataclass(frozen=True)
class Verifying:
    """What to verify, and where."""

    name: str | None = setting(None, "The run's name: its folder in results_dir.")
    level: tuple[int, ...] | None = setting(None, "The level, or several, as in 7,15.")
    results_dir: str = setting("results", "The folder of all runs.")
    data_dir: str | None = setting(
        None, "Where TFDS data are prepared. Default: $TFDS_DATA_DIR, else TFDS's own folder."
    )
    dry_run: bool = setting(False, "Say what there is to train, and do nothing.")
    json: bool = setting(False, "Print the answer as JSON; progress goes to stderr.")
    quiet: bool = setting(False, "Show no progress, only the answer.")


class ControlDisplay(LevelDisplay):
    """Tells which control is trained, of how many trainings, and which line is measured."""

    control_now = ""

    def told(self) -> str:
        return f"{self.levels - len(self.left)} of {self.levels} trainings"

    def control(self, name: str) -> None:
        self.control_now = NAMES[name]

    def begin(self, replicate, level, density, steps=None, search=0) -> Sequence:
        if not self.console.is_terminal:  # where no bar is shown
            self.say(self.named(f"replicate {replicate}, level {level}, {steps:,} steps ..."))
        return super().begin(replicate, level, density, steps, search)

    def named(self, words: str) -> str:
        return f"training {self.levels - len(self.left) + 1} of {self.levels}, {self.control_now}: {words}"

    def line(self, name: str, replicate: int, level: int) -> None:
        what = f"measuring the line {LINES[name]}: replicate {replicate}, level {level}"
        self.progress.reset(self.level, description=what, total=None, visible=True, told="")
        if not self.console.is_terminal:
            self.say(f"{what} ...")


def main(argv: list[str]) -> None:
    (place,) = Flags(__doc__, Verifying).parse(argv)
    if not place.name or not place.level:
        raise LotteryError("Expected --name, a run, and --level, which of its levels, but received none.")
    run = Run.at(place.results_dir, place.name)
    Settings.of(run)  # before TensorFlow is loaded
    with tensorflow_loading():
        from tf_lottery.runs import verification
    todo = verification.plan(run, place.level)
    print(todo.sentence, file=sys.stderr if place.json else sys.stdout)
    if place.dry_run:
        print(
            "This was a dry run: nothing was trained, and nothing written.",
            file=sys.stderr if place.json else sys.stdout,
        )
        return
    steps = len(todo.left) * (todo.base.steps or 0)
    with ControlDisplay(todo.left, steps, quiet=place.quiet, aside=place.json) as display:
        found = verification.run_verify(run, todo, display, data_dir=place.data_dir)
    from tf_lottery.runs import verified

    if place.json:
        print_json({"run": str(run.folder), "trained": len(todo.left), "levels": [*map(verified.as_json, found)]})
        return
    for each in found:
        _print(run, each)


def _print(run: Run, found) -> None:
    from rich.table import Table

    headings, rows = found.table()
    shown = Table(title=f"{run.folder}, level {found.level}", title_justify="left")
    for at, heading in enumerate(headings):
        shown.add_column(heading, justify="right" if at else "left")
    for row in rows:
        shown.add_row(*row)
    print_table(shown)
    for line in [*(f"{remark}." for remark in found.remarks()), found.sentence]:
        print(line)


if __name__ == "__main__":
    sys.exit(main_lib.guarded("verify", sys.argv[1:]))
