"""Find supermasks: masks that make weights perform that were never trained.

usage: tf-lottery supermask --by=learning|edge_popup [flags]
       tf-lottery supermask --by=rule --name=RUN [flags]

By learning and by edge_popup the weights stay as they were drawn, and the mask is trained; results go to RESULTS_DIR/NAME, each
mask with the recipe of its weights in a ticket. By rule the dense network of a finished run of `tf-lottery find` is masked by
criteria, at many densities, and its untrained weights are measured; results go to RESULTS_DIR/RUN/supermask_by_rule.csv.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tf_lottery.base.errors import LotteryError
from tf_lottery.base.quiet import tensorflow_loading
from tf_lottery.bin import main as main_lib
from tf_lottery.bin import tasks, training
from tf_lottery.bin.flags import Flags
from tf_lottery.runs.outcome import best_by_rule
from tf_lottery.runs.results import Run
from tf_lottery.runs.settings import Settings, SupermaskSettings
from tf_lottery.runs.todo import each_of


def main(argv: list[str]) -> None:
    jobs = []
    for values, words in tasks.combinations(argv, SupermaskSettings, but=("prunable", "exclude", "criterion")):
        place, workers, settings = Flags(__doc__, training.Place, tasks.Workers, SupermaskSettings).parse(words)
        if settings.by == "rule":
            _refuse_training(settings)
        jobs.append((values, settings := settings.resolved()))
    if any(settings.by == "rule" for _, settings in jobs):
        if len(jobs) > 1 or not workers.alone:
            raise LotteryError("Expected one process and one value of each flag with by=rule, which only measures.")
        _by_rule(place, settings)
        return
    workers.check(place, len(jobs))
    runs = []
    for values, settings in jobs:
        name = f"{settings.model}_{settings.by}" if place.name is None else place.name
        run = Run.at(place.results_dir, tasks.suffixed(name, values))
        tasks.check(run, settings, aside=not place.dry_run, alone=len(jobs) == 1 and workers.alone)
        left = run.missing(settings.replicates, [0], place.replicate)
        runs.append(training.Job(run, settings, left, 1, each_of(left, settings.steps)))
    training.work(place, workers, "run_supermask", runs, TELLING, argv)


def _as_json(run: Run, worked: bool) -> dict[str, Any]:
    return {"run": str(run.folder), "trained": worked, "supermasks": run.supermasks()}


def _table(run: Run):
    from tf_lottery.bin.display import supermask_table

    return supermask_table(f"{run.folder}", run.supermasks())


TELLING = training.Telling(_as_json, _table)


def _refuse_training(settings: SupermaskSettings) -> None:
    """By rule the run decides all that has to do with training; a flag that would change nothing is refused."""
    counted = {name: getattr(settings, name) for name in ("by", "criterion", "densities", "signed_constant", "seed")}
    unread = SupermaskSettings(**counted)
    for field in dataclasses.fields(settings):
        if (value := getattr(settings, field.name)) != getattr(unread, field.name):
            raise LotteryError(
                f"Expected none of the flags of training with by=rule, which measures the run as it is, but received "
                f"{field.name} {value!r}; what counts is criterion, densities, signed_constant and seed."
            )


def _by_rule(place: training.Place, settings: SupermaskSettings) -> None:
    if not place.name:
        raise LotteryError("Expected --name, a run of tf-lottery find with a dense network, but received none.")
    if place.strategy != "none":
        raise LotteryError(
            f"Expected strategy none with by=rule, which trains nothing, but received {place.strategy!r}."
        )
    if place.loggers or place.dry_run:
        flag = "logger" if place.loggers else "dry_run"
        raise LotteryError(f"Expected --{flag} with a command that trains, but by=rule only measures.")
    run = Run.at(place.results_dir, place.name)
    Settings.of(run)

    with tensorflow_loading():
        from tf_lottery.runs import by_rule

    from tf_lottery.bin.display import print_json, print_table, rule_table, tell

    for sentence in run.set_aside_rule():
        tell(sentence)
    rows: list[Mapping[str, Any]] = []
    quiet = place.quiet or place.json
    for row in by_rule.evaluate(run, settings, data_dir=place.data_dir, replicate=place.replicate):
        if rows and not quiet and rows[-1]["criterion"] != row["criterion"]:
            print(_best(rows, rows[-1]["replicate"], rows[-1]["criterion"]))
        rows.append(row)
    if not quiet:
        print(_best(rows, rows[-1]["replicate"], rows[-1]["criterion"]))
    if place.json:
        print_json({"run": str(run.folder), "best": best_by_rule(rows)})
        return
    print_table(rule_table(f"{run.folder}", rows))


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
