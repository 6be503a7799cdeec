"""Find supermasks: masks that make weights perform that were never trained.

usage: tf-lottery supermask --by=learning|edge_popup [flags]
       tf-lottery supermask --by=rule --name=RUN [flags]

By learning and by edge_popup the weights stay as they were drawn, and the mask is trained; results go to RESULTS_DIR/NAME, each
mask with the recipe of its weights in a ticket. By rule the dense network of a finished run of `tf-lottery find` is masked by
criteria, at many densities, and its untrained weights are measured; results go to RESULTS_DIR/RUN/supermask_by_rule.csv.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tf_lottery.bin import main as main_lib
from tf_lottery.bin.find import Place
from tf_lottery.bin.flags import Flags
from tf_lottery.errors import LotteryError
from tf_lottery.results import Run
from tf_lottery.settings import Settings, SupermaskSettings


def main(argv: list[str]) -> None:
    place, settings = Flags(__doc__, Place, SupermaskSettings).parse(argv)
    settings = settings.resolved()
    (_by_rule if settings.by == "rule" else _by_learning)(place, settings)


def _by_learning(place, settings: SupermaskSettings) -> None:
    run = Run.at(place.results_dir, f"{settings.model}_{settings.by}" if place.name is None else place.name)

    with main_lib.native_stderr_off():
        from tf_lottery import experiment
    from tf_lottery.bin.display import LevelDisplay, supermask_table

    missing = run.missing(settings.replicates, [0], place.replicate)
    with LevelDisplay(len(missing), settings.steps, place.quiet) as display:
        worked = experiment.run_supermask(run, settings, display, data_dir=place.data_dir, replicate=place.replicate)
    display.console.quiet = False
    display.console.print(supermask_table(f"{run.folder}", run.supermasks()))
    if not worked:
        print(f"This run was finished already; nothing was trained. Its results are in {run.folder}.")


def _by_rule(place, settings: SupermaskSettings) -> None:
    if not place.name:
        raise LotteryError("Expected --name, a run of tf-lottery find with a dense network, but received none.")
    run = Run.at(place.results_dir, place.name)
    Settings.of(run)

    with main_lib.native_stderr_off():
        from tf_lottery import experiment
    from rich.console import Console

    from tf_lottery.bin.display import rule_table

    rows: list[Mapping[str, Any]] = []
    for row in experiment.evaluate_supermasks(run, settings, data_dir=place.data_dir, replicate=place.replicate):
        if rows and not place.quiet and rows[-1]["criterion"] != row["criterion"]:
            print(_best(rows, rows[-1]["replicate"], rows[-1]["criterion"]))
        rows.append(row)
    if not place.quiet:
        print(_best(rows, rows[-1]["replicate"], rows[-1]["criterion"]))
    Console(file=sys.stdout).print(rule_table(f"{run.folder}", rows))


def _best(rows: Sequence[Mapping[str, Any]], replicate: int, criterion: str) -> str:
    best = max(
        (row for row in rows if row["replicate"] == replicate and row["criterion"] == criterion),
        key=lambda row: row["test_accuracy"],
    )
    return (
        f"replicate {replicate} {criterion}: best {100 * best['test_accuracy']:.2f} % with "
        f"{100 * best['density']:.3g} % of the weights"
    )


if __name__ == "__main__":
    sys.exit(main_lib.guarded("supermask", sys.argv[1:]))
