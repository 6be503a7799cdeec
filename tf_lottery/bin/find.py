"""Find winning tickets by iterative magnitude pruning with rewinding.

usage: tf-lottery find [flags]
       tf-lottery find --criterion=large_final,movement --workers=2 [flags]

Trains the dense network, prunes, rewinds the survivors and trains again, level by level and replicate by replicate, and
says which ticket won. Results go to RESULTS_DIR/NAME. The same command goes on where an interrupted run stopped.

A flag of one word or number that is given several values makes a run for each, and several such flags one for each
combination, in RESULTS_DIR/NAME+criterion=movement.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

from tf_lottery.bin import main as main_lib
from tf_lottery.bin import tasks, training
from tf_lottery.bin.flags import Flags
from tf_lottery.runs.outcome import by_level, verdict
from tf_lottery.runs.results import Run
from tf_lottery.runs.settings import Settings


def main(argv: list[str]) -> None:
    jobs = []
    for values, words in tasks.combinations(argv, Settings):
        place, workers, settings = Flags(__doc__, training.Place, tasks.Workers, Settings).parse(words)
        settings = settings.resolved()
        name = tasks.suffixed(settings.model if place.name is None else place.name, values)
        jobs.append((Run.at(place.results_dir, name), settings))
    workers.check(place)

    def missing(run: Run, settings: Settings) -> list[tuple[int, int]]:
        return run.missing(settings.replicates, range(settings.levels + 1), place.replicate)

    training.work(place, workers, "run_find", jobs, missing, lambda settings: settings.levels + 1, TELLING, argv)


def _as_json(run: Run, worked: bool) -> dict[str, Any]:
    statistics = by_level(run.summary())
    levels = [dataclasses.asdict(level) for level in statistics]
    return {"run": str(run.folder), "trained": worked, "verdict": verdict(statistics), "levels": levels}


def _table(run: Run):
    from tf_lottery.bin.display import table

    return table(f"{run.folder}", by_level(run.summary()))


TELLING = training.Telling(_as_json, _table, lambda run: [*run.remarks(), verdict(by_level(run.summary()))])


if __name__ == "__main__":
    sys.exit(main_lib.guarded("find", sys.argv[1:]))
