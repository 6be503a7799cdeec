"""What `--dry_run` prints: how many trainings there are to do, and how much time and disk they will take.

The estimate comes from levels of the run that are finished already, else from a rehearsal: the command itself, in a folder
that is removed again, for one replicate of at most two levels with few steps.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tf_lottery.base import container
from tf_lottery.base.errors import TicketError
from tf_lottery.bin.display import print_json
from tf_lottery.runs.results import Run
from tf_lottery.runs.settings import Problem
from tf_lottery.training import checkpoint

STEPS = 50  # between two measurements in a rehearsal; it trains twice as many
Left = Sequence[tuple[int, int]]  # (replicate, level)


@dataclass(frozen=True)
class Estimate:
    """Seconds and bytes of what is left to do, and what they were estimated from."""

    seconds: float
    bytes: float
    source: str


def show(run: Run, left: Left, levels: int, steps: int, estimate: Estimate | None, *, json: bool = False) -> None:
    """Prints the plan of a run of so many levels in all, `left` of them not finished; nothing is written."""
    begun = sum(_reached(run.checkpoint(*at)) for at in left)
    todo = len(left) * steps - begun
    if estimate and begun:
        estimate = dataclasses.replace(estimate, seconds=estimate.seconds * todo / (todo + begun))
    plan = {"run": str(run.folder), "levels": levels, "trainings": len(left), "steps": todo}
    if json:
        print_json({**plan, **(dataclasses.asdict(estimate) if estimate else {"seconds": 0, "bytes": 0})})
        return
    print(f"The run: {run.folder}, {levels - len(left)} of {levels} levels finished")
    print(f"To do: {len(left)} trainings of {steps:,} steps, {todo:,} steps in all")
    if begun:
        print(f"They go on from checkpoints, after {begun:,} steps that are done.")
    if estimate:
        print(f"Time: about {_duration(estimate.seconds)}; disk: about {_size(estimate.bytes)} ({estimate.source})")
    print("This was a dry run: nothing was trained in that folder, and nothing written.")


def _reached(path: Path) -> int:
    """The step that a checkpoint holds; 0 if there is none that can be read."""
    try:
        return container.read_header(path, checkpoint.FORMAT)["step"]
    except (FileNotFoundError, TicketError):
        return 0


def from_finished(run: Run, left: Left) -> Estimate | None:
    """What finished levels of a run say about those that are left; None if it has none."""
    rows = run.summary() if run.finished() else []
    if not rows or not left:
        return None
    size = {at: (run.level_folder(*at) / "level.ticket").stat().st_size for at in run.finished()}
    by_level: dict[int, list[int]] = {}
    for (_, level), bytes_ in size.items():
        by_level.setdefault(level, []).append(bytes_)
    means = {level: statistics.fmean(sizes) for level, sizes in by_level.items()}
    seconds = statistics.fmean(row["seconds"] for row in rows)

    def of(level: int) -> float:  # a level that no replicate has yet is no larger than the nearest that one has
        return means[min(means, key=lambda known: abs(known - level))]

    return Estimate(
        seconds * len(left), sum(of(level) for _, level in left), f"from {len(rows)} levels that are finished"
    )


def rehearsed(work: Callable[[Run, Problem, Stopwatch], Any], settings: Problem, left: Left) -> Estimate | None:
    """Tries the work out with few steps.

    Args:
      work: `work(run, settings, display)` does what the command does.
      settings: Those of the command, resolved.
      left: What the command has to do.
    """
    if not left:
        return None
    few: dict[str, Any] = {"replicates": 1, "steps": 2 * STEPS, "eval_every": STEPS, "test_every": 2 * STEPS}
    few |= {"levels": 1, "rewind_to": 0} if hasattr(settings, "levels") else {}
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        run = Run.at(folder, "rehearsal")
        work(run, dataclasses.replace(settings, **few), watch)
        sizes = [(run.level_folder(0, row["level"]) / "level.ticket").stat().st_size for row in watch.rows]
    replicates = len({replicate for replicate, _ in left})
    level = watch.around + settings.steps * watch.step
    level += (settings.steps / settings.eval_every + settings.steps / settings.test_every) * watch.evaluation / 2
    densities = [row["density"] for row in watch.rows]
    bytes_ = sum(_interpolated(densities, sizes, densities[-1] ** level) for _, level in left)
    return Estimate(
        replicates * watch.start + len(left) * level,
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

    def begin(self, replicate: int, level: int, density: float | None) -> Sequence:
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

    def done(self, row: Mapping[str, Any]) -> None:
        self.rows.append(row)

    def tell(self, sentence: str) -> None:
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
