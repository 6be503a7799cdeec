"""Where the time goes that a new mask takes in the middle of a `Trainer`'s training: gradual pruning of LeNet-300-100.

The training of `benchmarks/run.py gradual_trainer`, 90 masks in 6,000 steps, with a clock around each part of what its callback
does, and a second one whose compiled stretches end at the same steps for nothing. Medians over all masks; cold, between two
stretches of steps, a part takes several times what it takes in a loop of its own.

    python benchmarks/new_mask.py

Writes docs/results/new_mask.json and docs/results/new_mask.md.
"""

from __future__ import annotations

import collections
import functools
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import keras
from run import RESULTS, lenet, masked
from side_by_side import alternate, fastest, images, machine

import tf_lottery as tfl
from tf_lottery.search.callbacks.prune_by_schedule import PruneBySchedule
from tf_lottery.search.pruner import Pruner
from tf_lottery.search.rates import Cubic

STEPS, ROUNDS = 6_000, 7
PARTS = {  # the method that is timed, and what it does
    (Pruner, "_scores"): "the weights read, checked and scored",
    (Pruner, "_pruned"): "ranked",
    (PruneBySchedule, "put"): "the masks set, with weights and optimizer slots",
    (PruneBySchedule, "act"): "all of the callback",
    (PruneBySchedule, "on_train_end"): "the look at the last masks, once a training",
}
OTHER = "the masks read, and what is left of the callback"
STRETCH = "an end of a compiled stretch, and the begin of the next"


class Ends(keras.callbacks.Callback):
    """Ends compiled stretches and does nothing there."""

    def __init__(self, at_steps: list[int]):
        super().__init__()
        self.at_steps = at_steps


def clocked(owner: type, name: str, seconds: list[float]) -> Callable[[], None]:
    """Notes how long each call of a method takes; returns what takes the clock off."""
    method: Any = owner.__dict__.get(name) or getattr(owner, name)

    @functools.wraps(method)
    def timed(*args, **kwargs):
        began = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            seconds.append(time.perf_counter() - began)

    setattr(owner, name, timed)
    return lambda: setattr(owner, name, method)


def measured() -> dict:
    data, schedule = images((28, 28, 1), 55_000), Cubic(0.036, STEPS)
    at_steps = [step for step in range(STEPS) if schedule(step)[0]]

    def side(model, *callbacks) -> Callable[[], float]:
        trainer = tfl.Trainer(*data, steps=STEPS, optimizer=keras.optimizers.Adam(1.2e-3))
        start = model.get_weights()  # masks too

        def run() -> float:
            model.set_weights(start)
            return 1e3 * trainer(model, callbacks)["seconds"]

        return run

    took: dict[tuple[type, str], list[float]] = collections.defaultdict(list)
    gradual = side(tfl.wrap(lenet()), PruneBySchedule(schedule))

    def with_clocks() -> float:
        off = [clocked(*part, took[part]) for part in PARTS]
        try:
            return gradual()
        finally:
            for take in off:
                take()

    gradual()  # compiles
    sides = {"masked": side(masked(lenet())), "ends": side(masked(lenet()), Ends(at_steps)), "gradual": with_clocks}
    times = alternate(ROUNDS, **sides)
    once = {words: 1e3 * statistics.median(took[part]) for part, words in PARTS.items()}
    callback = PARTS[PruneBySchedule, "act"]
    parts = {words: once[words] for part, words in PARTS.items() if part[0] is Pruner or part[1] == "put"}
    parts[OTHER] = once[callback] - sum(parts.values())
    more = len(set(at_steps) - set(range(0, STEPS, 100)))  # stretches end every 100 steps anyway
    per_stretch = (statistics.median(times["ends"]) - statistics.median(times["masked"])) / more
    return {
        "masks": len(at_steps),
        "steps": STEPS,
        "ms a mask": {words: round(ms, 3) for words, ms in parts.items()},
        "ms": {words: round(once[words], 3) for part, words in PARTS.items() if words not in parts}
        | {STRETCH: round(per_stretch, 3)},
        "fastest, ms a training": {name: round(fastest(times, name), 1) for name in times},
        "machine": machine(),
    }


def table(found: dict) -> list[str]:
    """The lines of a Markdown table."""
    lines = ["| of a new mask | ms |", "|---|--:|"]
    for words, ms in (found["ms a mask"] | found["ms"]).items():
        lines.append(f"| {words} | {ms:.2f} |")
    return lines


if __name__ == "__main__":
    found = measured()
    (RESULTS / "new_mask.json").write_text(json.dumps(found, indent=2) + "\n")
    where = ", ".join(f"{key} {value}" for key, value in found["machine"].items())
    text = [
        *table(found),
        "",
        f"Medians over {found['masks']} masks in {found['steps']:,} steps, {ROUNDS} trainings. Machine: {where}.",
        "",
    ]
    (RESULTS / "new_mask.md").write_text("\n".join(text))
    print("\n".join(text))
