"""What `--dry_run` prints: how many trainings there are to do, and how much time and disk they will take.

The estimate comes from levels of the run that are finished already, else from a rehearsal: the command itself, in a folder
that is removed again, for one replicate of at most two levels with few steps.
"""

from __future__ import annotations

import collections
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tf_lottery.base import container
from tf_lottery.base.errors import TicketError
from tf_lottery.base.quiet import only_errors_of
from tf_lottery.bin.display import print_json
from tf_lottery.runs.results import Run
from tf_lottery.runs.settings import Problem, Settings
from tf_lottery.runs.todo import Training
from tf_lottery.search.plan import APART
from tf_lottery.training import checkpoint

STEPS = 50  # between two measurements in a rehearsal; it trains twice as many


@dataclass(frozen=True)
class Estimate:
    """Seconds and bytes of what is left to do, and what they were estimated from."""

    seconds: float
    bytes: float
    source: str


def show(
    run: Run,
    levels: tuple[int, int],
    todo: Sequence[Training],
    estimate: Estimate | None,
    *,
    quiet: bool = False,
    road: str | None = None,
    known: int = 0,
    said: Set[str] = frozenset(),
) -> dict[str, Any]:
    """Prints the plan of a run, of whose levels so many are finished, of so many, and returns it; nothing is written.

    Args:
      run: The run.
      levels: How many are finished, and how many there are.
      todo: The trainings that are left.
      estimate: What they take.
      quiet: Print nothing.
      road: What is said of the search.
      known: How many more trainings are not done again, because another run has them.
      said: What was said already of where estimates are from.
    """
    begun = sum(_reached(run.checkpoint(each.replicate, each.level, each.search)) for each in todo)
    steps = sum(each.steps for each in todo) - begun
    if estimate and begun:
        estimate = dataclasses.replace(estimate, seconds=estimate.seconds * steps / (steps + begun))
    plan = {"run": str(run.folder), "levels": levels[1], "trainings": len(todo), "steps": steps}
    plan |= {"taken_over": known} if known else {}
    plan |= {"road": road} if road else {}
    plan |= dataclasses.asdict(estimate) if estimate else {"seconds": 0, "bytes": 0}
    if quiet:
        return plan
    print(f"The run: {run.folder}, {levels[0]} of {levels[1]} levels finished")
    if road:
        print(road)
    lengths = collections.Counter(each.steps for each in todo)
    each = " and ".join(f"{count} of {length:,} steps" for length, count in sorted(lengths.items(), reverse=True))
    if len(lengths) < 2:
        each = f"of {todo[0].steps:,} steps" if todo else ""
    if not todo:
        print("To do: 0 trainings")
    else:
        print(f"To do: {len(todo)} trainings{' ' if len(lengths) < 2 else ', '}{each}, {steps:,} steps in all")
    if known:
        print(f"Not trained again: {known} more, which other runs have, or train before.")
    if begun:
        print(f"They go on from checkpoints, after {begun:,} steps that are done.")
    if estimate:
        print(
            f"Time: about {_duration(estimate.seconds)}; disk: about {_size(estimate.bytes)}{'' if estimate.source in said else f' ({estimate.source})'}"
        )
    return plan


def conclude(plans: Sequence[dict[str, Any]], *, json: bool = False, remarks: Iterable[str] = ()) -> None:
    """Prints what several runs take together and what is to be said of them, or all of it as JSON."""
    whole = {name: sum(plan[name] for plan in plans) for name in ("trainings", "steps", "seconds", "bytes")}
    if json:
        print_json({"runs": list(plans), **whole} if len(plans) > 1 else plans[0])
        return
    if len(plans) > 1:
        print(
            f"In all: {len(plans)} runs, {whole['trainings']} trainings, {whole['steps']:,} steps; time: about "
            f"{_duration(whole['seconds'])}; disk: about {_size(whole['bytes'])}"
        )
    for remark in remarks:
        print(remark)
    print("This was a dry run: nothing was trained in that folder, and nothing written.")


@dataclass(frozen=True)
class Rehearsal:
    """What the times of a few steps were, and the bytes of the tickets."""

    watch: Stopwatch
    sizes: Sequence[int]


def network_of(settings: Problem) -> tuple:
    """What a step costs is decided by these settings: runs in which they are the same are rehearsed once."""
    names = (
        "model",
        "dataset",
        "prunable",
        "exclude",
        "batch_size",
        "optimizer",
        "augment",
        "precision",
        "deterministic",
    )
    return (*(getattr(settings, name) for name in names), getattr(settings, "search", None) in APART)


def _reached(path: Path) -> int:
    """The step that a checkpoint holds; 0 if there is none that can be read."""
    try:
        return container.read_header(path, checkpoint.FORMAT)["step"]
    except (FileNotFoundError, TicketError):
        return 0


def from_finished(run: Run, todo: Sequence[Training]) -> Estimate | None:
    """What finished levels of a run say about the trainings that are left; None if it has none."""
    rows = run.summary() if run.finished() else []
    if not rows or not todo:
        return None
    size = {at: (run.level_folder(*at) / "level.ticket").stat().st_size for at in run.finished()}
    by_level: dict[int, list[int]] = {}
    for (_, level), bytes_ in size.items():
        by_level.setdefault(level, []).append(bytes_)
    means = {level: statistics.fmean(sizes) for level, sizes in by_level.items()}
    whole = run.settings().get("steps") or max(each.steps for each in todo)
    a_step = statistics.fmean(row["seconds"] / (row.get("steps") or whole) for row in rows)

    def of(level: int) -> float:  # a level that no replicate has yet is no larger than the nearest that one has
        return means[min(means, key=lambda known: abs(known - level))]

    return Estimate(
        a_step * sum(each.steps for each in todo),
        sum(of(each.level) for each in todo if not each.search),
        f"from {len(rows)} levels that are finished",
    )


def rehearse(work: Callable[[Run, Problem, Stopwatch], Any], settings: Problem) -> Rehearsal:
    """Tries the work out with few steps.

    Args:
      work: `work(run, settings, display)` does what the command does.
      settings: Those of the command, resolved.
    """
    few: dict[str, Any] = {"replicates": 1, "steps": 2 * STEPS, "eval_every": STEPS, "test_every": 2 * STEPS}
    if isinstance(settings, Settings):
        few |= {"levels": 1, "rewind_to": 0, "budget": None, "level_steps": None, "dense": True}
        few |= {"density": settings.density and settings.density[-1:], "search_steps": None}
        few |= {"search_steps": 2 * STEPS} if settings.search in APART else {}
        few |= {"search": "gradual"} if settings.search == "auto" else {}
    watch = Stopwatch()
    # Few steps of many graphs: TensorFlow would warn that they are traced again and again.
    with tempfile.TemporaryDirectory() as folder, only_errors_of("tensorflow"):
        run = Run.at(folder, "rehearsal")
        work(run, dataclasses.replace(settings, **few), watch)
        sizes = [(run.level_folder(0, row["level"]) / "level.ticket").stat().st_size for row in watch.rows]
    return Rehearsal(watch, sizes)


def estimated(rehearsal: Rehearsal, settings: Problem, todo: Sequence[Training]) -> Estimate | None:
    """What a rehearsal says about the trainings that are left."""
    if not todo:
        return None
    watch, sizes = rehearsal.watch, rehearsal.sizes
    replicates = len({each.replicate for each in todo})
    measurements = sum(each.steps / settings.eval_every + each.steps / settings.test_every for each in todo)
    seconds = len(todo) * watch.around + sum(each.steps for each in todo) * watch.step
    densities = [row["density"] for row in watch.rows]
    levels = max(each.level for each in todo)

    def density(level: int) -> float:
        given = settings.density if isinstance(settings, Settings) else None
        if given is None or not isinstance(settings, Settings):
            return densities[-1] ** level
        return given[-1] ** (level / levels) if settings.search == "iterative" else (1.0, *given)[level]

    bytes_ = sum(_interpolated(densities, sizes, density(each.level)) for each in todo if not each.search)
    return Estimate(
        replicates * watch.start + seconds + measurements * watch.evaluation / 2,
        bytes_,
        f"measured just now: {1_000 * watch.step:.2g} ms a step, {1_000 * watch.evaluation:.2g} ms for measuring both sets, "
        f"{watch.around:.1g} s around a level, {watch.start:.2g} s to begin a replicate",
    )


class Stopwatch:
    """A display that takes the times of a rehearsal; those of the last level count, when everything is compiled.

    Attributes:
      rows: The rows of the summary.
      start: Seconds before the first level's first measurement: loading, building, compiling.
      step: Seconds of a training step.
      evaluation: Seconds of one measurement of the validation set and one of the test set.
      around: Seconds between the trainings of two levels: choosing the mask, writing.
    """

    def __init__(self):
        self.rows: list[Mapping[str, Any]] = []
        self.began, self.start, self.ended = time.perf_counter(), 0.0, 0.0
        self.step = self.evaluation = self.around = 0.0

    def begin(
        self, replicate: int, level: int, density: float | None, steps: int | None = None, search: int = 0
    ) -> Sequence:
        import keras

        watch, now = self, time.perf_counter
        if self.ended:
            self.around = now() - self.ended

        class Times(keras.callbacks.Callback):
            at_steps = (STEPS + STEPS // 2,)  # a stretch without a measurement at its end
            reached = 0.0

            def on_train_batch_end(self, batch, logs=None):
                seconds, self.reached = now() - self.reached, now()
                if batch + 1 == STEPS:
                    watch.start = watch.start or self.reached - watch.began
                elif batch + 1 == STEPS + STEPS // 2:
                    watch.step = seconds / (STEPS // 2)
                else:
                    watch.evaluation = max(0.0, seconds - (STEPS - STEPS // 2) * watch.step)

            def on_train_end(self, logs=None):
                watch.ended = now()

        return [Times()]

    def skipped(self, steps: int) -> None:
        pass

    def done(self, row: Mapping[str, Any]) -> None:
        self.rows.append(row)

    def tell(self, sentence: str, about: Sequence[str] = ()) -> None:
        pass  # a rehearsal has nothing to say


def _interpolated(densities: Sequence[float], sizes: Sequence[int], density: float) -> float:
    """A ticket's size is taken to be linear in its density."""
    if len(sizes) < 2 or densities[0] == densities[-1]:
        return sizes[-1]
    slope = (sizes[0] - sizes[-1]) / (densities[0] - densities[-1])
    return max(0.0, sizes[0] + slope * (density - densities[0]))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3_600:.1f} h"


def _size(bytes_: float) -> str:
    return f"{bytes_ / 1e6:,.1f} MB" if bytes_ < 1e9 else f"{bytes_ / 1e9:,.1f} GB"
