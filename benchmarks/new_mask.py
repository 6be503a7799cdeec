"""Where the time goes that a new mask takes in the middle of a `Trainer`'s training: gradual pruning of LeNet-300-100.

The training of `benchmarks/run.py gradual_trainer`, 90 masks in 6,000 steps, with a clock around each part of what its callback
does. Medians over all masks: cold, between two stretches of steps, a part takes several times what it takes in a loop of its own.

    python benchmarks/new_mask.py

Writes docs/results/new_mask.json and docs/results/new_mask.md.
"""

from __future__ import annotations

import functools
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import keras
from run import RESULTS, lenet
from side_by_side import images, machine

import tf_lottery as tfl
from tf_lottery.search.callbacks.prune_by_schedule import PruneBySchedule
from tf_lottery.search.pruner import Pruner
from tf_lottery.search.rates import Cubic

STEPS, ROUNDS = 6_000, 7
PARTS = {  # the method that is timed, and what it does
    (Pruner, "_scores"): "the weights read, checked and scored",
    (Pruner, "_pruned"): "ranked",
    (PruneBySchedule, "put"): "the masks set, with weights and optimizer slots",
    (PruneBySchedule, "act"): (ALL := "all of it"),
    (PruneBySchedule, "on_train_end"): (ONCE := "the look at the last masks, once a training"),
}
OTHER = "the masks read, and what is left of the callback"


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
    data, schedule, model = images((28, 28, 1), 55_000), Cubic(0.036, STEPS), tfl.wrap(lenet())
    trainer = tfl.Trainer(*data, steps=STEPS, optimizer=keras.optimizers.Adam(1.2e-3))
    pruning, start = PruneBySchedule(schedule), model.get_weights()  # masks too
    trainer(model, [pruning])  # compiles
    took: dict[tuple[type, str], list[float]] = {part: [] for part in PARTS}
    off = [clocked(*part, took[part]) for part in PARTS]
    for _ in range(ROUNDS):
        model.set_weights(start)
        trainer(model, [pruning])
    for take in off:
        take()
    found = {part: 1e3 * statistics.median(seconds) for part, seconds in took.items()}
    whole, once = found.pop((PruneBySchedule, "act")), found.pop((PruneBySchedule, "on_train_end"))
    parts = {PARTS[part]: ms for part, ms in found.items()}
    parts |= {OTHER: whole - sum(parts.values()), ALL: whole, ONCE: once}
    return {
        "masks": schedule.masks,
        "steps": STEPS,
        "trainings": ROUNDS,
        "ms": {words: round(ms, 3) for words, ms in parts.items()},
        "machine": machine(),
    }


def table(found: dict) -> list[str]:
    """The lines of a Markdown table."""
    lines = ["| of a new mask | ms |", "|---|--:|"]
    for words, ms in found["ms"].items():
        lines.append(f"| {words} | {ms:.2f} |")
    return lines


if __name__ == "__main__":
    found = measured()
    (RESULTS / "new_mask.json").write_text(json.dumps(found, indent=2) + "\n")
    where = ", ".join(f"{key} {value}" for key, value in found["machine"].items())
    text = [
        *table(found),
        "",
        f"Medians over {found['masks']} masks in {found['steps']:,} steps, {found['trainings']} trainings. Machine: {where}.",
        "",
    ]
    (RESULTS / "new_mask.md").write_text("\n".join(text))
    print("\n".join(text))
