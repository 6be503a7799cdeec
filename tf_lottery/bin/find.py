"""Find winning tickets by magnitude pruning with rewinding.

usage: tf-lottery find --budget=2 --density=0.13 [flags]
       tf-lottery find --search=gradual --density=0.2,0.05 [flags]
       tf-lottery find --criterion=large_final,movement --workers=2 [flags]

Trains the dense network, prunes, rewinds the survivors and trains again, level by level and replicate by replicate, and
says which ticket won. With a density and a budget it spends so many trainings on the ticket; by itself it makes the search of the
papers, each level in full. Results go to RESULTS_DIR/NAME. The same command goes on where an interrupted run stopped.

A flag of one word or number that is given several values makes a run for each, and several such flags one for each
combination, in RESULTS_DIR/NAME+criterion=movement: the study NAME, with one table at its end. What any run in RESULTS_DIR has
trained is not trained again.
"""

from __future__ import annotations

import dataclasses
import glob
import sys
from dataclasses import dataclass
from typing import Any

from tf_lottery.base.quiet import tensorflow_loading
from tf_lottery.bin import main as main_lib
from tf_lottery.bin import study, tasks, training
from tf_lottery.bin.flags import Flags
from tf_lottery.runs import comparison
from tf_lottery.runs.outcome import by_level, to_verify, verdict
from tf_lottery.runs.results import Run
from tf_lottery.runs.settings import Settings, setting
from tf_lottery.runs.todo import cheap_road, cheap_road_in_words, in_words, trainings_left
from tf_lottery.search.plan import Plan


@dataclass(frozen=True)
class Sharing:
    """What is trained only once."""

    reuse: bool = setting(
        True,
        "Take what any run in results_dir has trained from the same weights, on the same data, in the same way: a training is known by "
        "what it is, not by its run's name. --noreuse trains anew what other names hold.",
    )

    def pattern(self, place: training.Place, workers: tasks.Workers, base: str, swept: bool) -> str | None:
        """Of the names of the runs that trainings are shared with."""
        if self.reuse and (place.strategy, workers.executor) == ("none", "local"):
            return "*"
        return f"{glob.escape(base)}+*" if swept else None


def main(argv: list[str]) -> None:
    runs = []
    for values, words in tasks.combinations(argv, Settings):
        place, workers, sharing, settings = Flags(__doc__, training.Place, tasks.Workers, Sharing, Settings).parse(
            words
        )
        settings = settings.resolved()
        base = settings.model if place.name is None else place.name
        runs.append((Run.at(place.results_dir, tasks.suffixed(base, values)), values, settings))
    workers.check(place, len(runs))
    elsewhere = not place.dry_run and (len(runs) > 1 or not workers.alone)
    jobs = [_job(place, run, settings, elsewhere) for run, _, settings in runs]
    together = None
    if not place.dry_run:
        folder = Run.at(place.results_dir, base).folder
        study.plan(folder, runs)
        same = {settings.density for *_, settings in runs}
        together = study.Together(folder, (len(same) == 1 and settings.density) or ()) if len(runs) > 1 else None
    shared = sharing.pattern(place, workers, base, len(runs) > 1)
    try:
        training.work(place, workers, "run_find", jobs, TELLING, argv, shared, together)
    finally:
        study.forget(Run.at(place.results_dir, base).folder, [run for run, *_ in runs])


def _job(place: training.Place, run: Run, settings: Settings, elsewhere: bool) -> training.Job:
    """What is left to do of a run, once what is damaged is set aside; without TensorFlow, unless only the network says what that is."""
    if settings.levels is None and (written := run.spec()):  # what the network says was found out before
        settings = dataclasses.replace(settings, levels=written["settings"].get("levels"))
    tasks.check(run, settings, aside=not place.dry_run, alone=not elsewhere)
    plan = settings.plan() if settings.levels else None
    levels = range(settings.first, (settings.levels or 0) + 1)
    left = run.missing(settings.replicates, levels, place.replicate)
    if plan is None and (left or not settings.levels):
        plan = _plan_of_network(place, settings)
        settings, levels = dataclasses.replace(settings, levels=plan.levels), range(plan.levels + 1)
        left = run.missing(settings.replicates, levels, place.replicate)
    todo = trainings_left(run, plan, left) if plan else []
    told = plan and (settings.density is not None or plan.search_steps is not None)
    return training.Job(run, settings, left, len(levels), todo, in_words(settings, plan) if plan and told else None)


def _plan_of_network(place: training.Place, settings: Settings) -> Plan:
    with tensorflow_loading():
        from tf_lottery.problems import data
        from tf_lottery.runs import problem
    return problem.plan_of(settings, data.load(settings.dataset, place.data_dir))


def _as_json(run: Run, worked: bool) -> dict[str, Any]:
    statistics = by_level(run.summary())
    levels = [dataclasses.asdict(level) for level in statistics]
    cheap = cheap_road(Settings.of(run), run.summary())
    more = {"cheap_road": cheap} if cheap else {}
    return {
        "run": str(run.folder),
        "trained": worked,
        "verdict": verdict(statistics, settings=run.settings()),
        "levels": levels,
        **more,
    }


def _table(run: Run):
    from tf_lottery.bin.display import table

    return table(f"{run.folder}", by_level(run.summary()))


def _lines(run: Run) -> list[str]:
    cheap, levels = cheap_road(Settings.of(run), run.summary()), by_level(run.summary())
    return [
        *(f"{said[0].upper()}{said[1:]}." for said in run.chosen()),
        *run.remarks(),
        *filter(None, [comparison.looks(run.settings())]),
        verdict(levels, settings=run.settings()),
        *filter(None, [to_verify(levels, run.folder.name, run.settings())]),
        *([cheap_road_in_words(cheap)] if cheap else []),
    ]


TELLING = training.Telling(_as_json, _table, _lines)


if __name__ == "__main__":
    sys.exit(main_lib.guarded("find", sys.argv[1:]))
