"""Check the papers' claims: run what they need, say which hold, and write a page with figures.

usage: tf-lottery claims [--scale=quick|full|conv|rewinding] [flags]

The scale quick takes minutes on two cores (MNIST-1D, and MNIST with little training); full is the papers' protocol on MNIST and takes
hours; conv is that on CIFAR-10, and wants a GPU; rewinding takes an hour of a CPU. Several, as in full,conv, share one page. Each claim is
shown with its source, the published and the measured figure, how sure that is, and whether it holds by a rule that the page states; one
with fewer replicates than it takes is not yet known. The runs are ordinary ones in RESULTS_DIR/claims_SCALE; the same command goes on where it was interrupted.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tf_lottery import claims
from tf_lottery.base.errors import DataError
from tf_lottery.base.quiet import tensorflow_loading
from tf_lottery.bin import main as main_lib
from tf_lottery.bin import tasks
from tf_lottery.bin.display import LevelDisplay, print_json
from tf_lottery.bin.flags import Flags
from tf_lottery.claims.claim import Result
from tf_lottery.claims.plan import PLANS, plan
from tf_lottery.claims.planned import Plan
from tf_lottery.runs.executor.task import named
from tf_lottery.runs.settings import setting


@dataclass(frozen=True)
class Checking:
    """Which claims, and where everything lies."""

    scale: str = setting("quick", f"What to run: {', '.join(PLANS)}; or several, as in full,conv.")
    claim: str | None = setting(
        None, f"Run and show these only, as in reinit_is_worse,reinit_is_slower. All: {', '.join(claims.registry)}."
    )
    results_dir: str = setting("results", "The folder of all runs; those of the claims are in its folder claims_SCALE.")
    data_dir: str | None = setting(
        None, "Where TFDS data are prepared. Default: $TFDS_DATA_DIR, else TFDS's own folder."
    )
    output: str | None = setting(None, "The folder of the page. Default: the folder page beside the runs.")
    replicate: int | None = setting(
        None, "Work on this replicate only; several processes can share the runs in this way."
    )
    train: bool = setting(True, "Train what is missing; with --notrain the page is written from what is there.")
    dry_run: bool = setting(False, "Print the runs and what of each is missing, and do nothing.")
    json: bool = setting(False, "Print the closing table as JSON; progress goes to stderr.")
    quiet: bool = setting(False, "Show no progress, only the closing table.")


class RunsDisplay(LevelDisplay):
    """One line for each finished replicate of a run: a plan has hundreds of levels.

    Args:
      levels: How many levels are missing, of all runs.
      steps: Training steps of everything that is missing.
      quiet: Show nothing.
      aside: Show it on stderr.
    """

    def __init__(self, levels: int, steps: int, *, quiet: bool = False, aside: bool = False):
        self.finished, self.seconds = 0, 0.0
        super().__init__([], 0, quiet=quiet, aside=aside)
        self.levels = levels
        self.progress.update(self.all, total=steps, told=self.told())

    def told(self) -> str:
        return f"{self.finished} of {self.levels} levels"

    def enter(self, run: str, left: Sequence[tuple[int, int]]) -> None:
        """A run begins, of which these (replicate, level) are left to do."""
        self.run, self.left, self.seconds = run, list(left), 0.0
        self.progress.update(self.all, description=run)

    def begin(
        self, replicate: int, level: int, density: float | None, steps: int | None = None, search: int = 0
    ) -> Sequence:
        callbacks = super().begin(replicate, level, density, steps, search)
        self.progress.update(self.level, description=f"replicate {replicate}, {named(level, search)}")
        return callbacks

    def done(self, row: Mapping[str, Any]) -> None:
        self.finished += 1
        self.finish(row)
        self.seconds += row["seconds"]
        if row["notes"]:
            self.tell(f"{self.run}, replicate {row['replicate']}, level {row['level']}: {row['notes']}")
        if not any(replicate == row["replicate"] for replicate, _ in self.left):
            self.console.print(
                f"{self.run}, replicate {row['replicate']}: {100 * row['early_stop_test_accuracy']:.2f} % test accuracy with "
                f"{100 * row['density']:.3g} % of the weights at the last level, {self.seconds:.0f} s",
                highlight=False,
                soft_wrap=True,
            )
            self.seconds = 0.0


def main(argv: list[str]) -> None:
    checking, workers = Flags(__doc__, Checking, tasks.Workers).parse(argv)
    plans = [plan(scale.strip()) for scale in checking.scale.split(",")]
    wanted = claims.chosen(plans, checking.claim)
    folders = [Path(checking.results_dir) / f"claims_{each.scale}" for each in plans]
    missing = []
    for each, folder in zip(plans, folders):
        each.check(folder)
        names = [name for claim in wanted[each.scale] for name in claim.runs] if checking.claim else each.names()
        missing.append(each.missing(names, folder, checking.replicate) if names else {})
        if checking.dry_run and names:
            _print_missing(each, names, missing[-1], folder)
    if checking.dry_run:
        return
    unavailable: dict[str, str] = {}
    failed: dict[str, Exception] = {}
    for each, folder, left in zip(plans, folders, missing):
        if checking.train and left and workers.alone:
            unavailable |= _work(each, left, folder, checking)
        elif checking.train and left:
            lacking, own = _work_at_once(each, left, folder, checking, workers, argv)
            unavailable, failed = unavailable | lacking, failed | own

    import matplotlib

    matplotlib.use("Agg")  # files only; no screen is needed
    from tf_lottery.claims import page as page_lib

    parts = [
        page_lib.Part(each, folder, [claims.measure(c, folder, each, unavailable) for c in claims.of_scale(each)])
        for each, folder in zip(plans, folders)
    ]
    page = page_lib.write(parts, Path(checking.output or folders[0] / "page"))
    shown = [
        (result, part.plan) for part in parts for result in part.results if result.claim in wanted[part.plan.scale]
    ]
    if checking.json:
        print_json({"page": str(page), "not_run": unavailable, "claims": [_as_json(*each) for each in shown]})
        tasks.raise_first(failed)
        return
    _print_table(shown, checking.scale)
    for reason in unavailable.values():
        print(f"Not run: {reason}")
    print(page_lib.closing([result for result, _ in shown]))
    if not any(missing):
        print("All runs were finished already; nothing was trained.")
    print(f"The page: {page}")
    tasks.raise_first(failed)


def _work(plan: Plan, missing: Mapping[str, Sequence], folder: Path, checking: Checking) -> dict[str, str]:
    """Does what is missing; returns the data sets that could not be had, and why."""
    with tensorflow_loading():
        from tf_lottery.runs import experiment
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns where one process trains many models

    unavailable: dict[str, str] = {}
    steps = sum(plan[name].steps * len(left) for name, left in missing.items())
    levels = sum(map(len, missing.values()))
    with RunsDisplay(levels, steps, quiet=checking.quiet, aside=checking.json) as display:
        for at, (name, left) in enumerate(missing.items(), 1):
            dataset = plan[name].trunk.settings.dataset
            if dataset in unavailable:
                continue
            display.enter(f"{at} of {len(missing)}: {name}", left)
            try:
                plan[name].work(experiment, folder, display, data_dir=checking.data_dir, replicate=checking.replicate)
            except DataError as error:  # the other data sets' claims do not depend on it
                unavailable[dataset] = str(error)
    return unavailable


def _work_at_once(
    plan: Plan,
    missing: Mapping[str, Sequence],
    folder: Path,
    checking: Checking,
    workers: tasks.Workers,
    argv: Sequence[str],
) -> tuple[dict[str, str], dict[str, Exception]]:
    """As `_work`, several replicates at once; returns the errors of the others too."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    todo = plan.tasks(missing, checking.data_dir)
    failed = tasks.work(todo, folder, workers, argv, brief=True, quiet=checking.quiet, aside=checking.json)
    dataset = {name: plan[name.partition(",")[0]].trunk.settings.dataset for name in failed}
    lacking = {dataset[name]: str(error) for name, error in failed.items() if isinstance(error, DataError)}
    return lacking, {name: error for name, error in failed.items() if dataset[name] not in lacking}


def _print_missing(plan: Plan, names: Sequence[str], missing: Mapping[str, Sequence], folder: Path) -> None:
    for experiment in plan.needed(names):
        left = missing.get(experiment.name, ())
        levels = f"{len(left)} of {experiment.replicates * len(experiment.levels())} levels are missing"
        print(f"{experiment.name:<30} {levels if left else 'finished'}")
    total = sum(len(left) * plan[name].steps for name, left in missing.items())
    print(f"{sum(map(len, missing.values()))} levels, {total:,} training steps are missing in {folder}.")


def _as_json(result: Result, plan: Plan) -> dict[str, Any]:
    claim, measured = result.claim, result.measured
    return {
        "claim": claim.name,
        "sentence": claim.sentence(plan),
        "source": claim.source,
        "published": claim.published,
        "verdict": result.verdict,
        "replicates": result.replicates,
        "measured": measured and {"unit": claim.unit, "mean": measured.mean, "values": list(measured.values)},
        "interval": measured and measured.certainty.interval,
        "p": measured and measured.certainty.p,
        "why": result.why,
    }


def _print_table(results: Sequence[tuple[Result, Plan]], scale: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {"holds": "green", "does not hold": "red"}
    table = Table(title=f"The claims, {scale}", title_justify="left", show_lines=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("claim")
    for result, own in results:
        claim = result.claim
        count = f", {result.replicates} replicate{'s' * (result.replicates != 1)}" if result.measured else ""
        said = Text.assemble(
            (claim.sentence(own), "bold"),
            f"\npublished: {claim.published} ({claim.source})",
            f"\nmeasured: {result.figure()}{count}; how sure: {result.sure()}" if result.measured else "",
            f"\n{result.why}" if result.why else "",
        )
        table.add_row(Text(result.verdict, colours.get(result.verdict, "yellow")), said)
    Console(file=sys.stdout).print(table)


if __name__ == "__main__":
    sys.exit(main_lib.guarded("claims", sys.argv[1:]))
