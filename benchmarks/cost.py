"""What a ticket costs by each road, and what it is worth: the measurements behind docs/cost.md.

Cost is counted in trainings, the steps spent to have a ticket over the steps of one training; worth is test accuracy at early stop.

    python benchmarks/cost.py                         # all of it, about three hours on two cores; goes on where it was stopped
    python benchmarks/cost.py --problem=mlp_mnist1d   # one problem
    python benchmarks/cost.py --roads=regrow,snip     # some of the roads

Several may run side by side, on other problems or `--replicates`. Writes docs/results/cost/{PROBLEM}.csv; `cost_page.py` makes the page of it.
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

import tf_lottery as tfl
from tf_lottery.masking import state
from tf_lottery.rules import masks

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "cost"
PROBE = 1_000  # examples that SNIP takes its gradient on: a hundred of each class
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
COLUMNS = ["road", "replicate", "asked", "density", "trainings", "early_stop_step", "early_stop_test_accuracy"]
COLUMNS += ["final_test_accuracy", "early_stop_validation_accuracy", "seconds"]


@dataclass(frozen=True)
class Problem:
    """A network on a data set, how it is trained, and the densities that tickets are asked for.

    Attributes:
      levels: The level of the full search that has each density.
    """

    dataset: str
    build: Callable[[int], keras.Model]
    steps: int
    batch_size: int
    rate: float
    eval_every: int
    fractions: float | dict[str, float]
    levels: dict[float, int]
    replicates: int = 5


def small_conv(seed: int) -> keras.Model:
    """Two convolutions and two dense layers, 52,880 weights: a convolutional network that a processor trains in half a minute."""
    draw = iter(keras.initializers.GlorotNormal(seed=seed * 10 + layer) for layer in range(4))
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", kernel_initializer=next(draw)),
            layers.Conv2D(32, 3, strides=2, padding="same", activation="relu", kernel_initializer=next(draw)),
            layers.Flatten(),
            layers.Dense(32, "relu", kernel_initializer=next(draw)),
            layers.Dense(10, kernel_initializer=next(draw), name="output"),
        ]
    )


PROBLEMS = {
    "lenet_mnist": Problem(
        "mnist",
        lambda seed: tfl.models.get("lenet_300_100")(seed=seed),
        *(12_000, 60, 1.2e-3, 100, {"output": 0.1, "": 0.2}),
        {0.211: 7, 0.0358: 15, 0.0119: 20},
    ),
    "mlp_mnist1d": Problem(
        "mnist1d",
        lambda seed: tfl.models.get("residual_mlp")(seed=seed),
        *(1_500, 100, 2e-2, 20, 0.2),
        {0.134: 9, 0.044: 14},
    ),
    "conv_mnist": Problem("mnist", small_conv, *(2_000, 60, 1.2e-3, 50, 0.2), {0.134: 9, 0.044: 14}, replicates=3),
}


@dataclass(frozen=True)
class Road:
    """What `find_ticket` is asked for, beside a density.

    Attributes:
      label: Its row in the table.
      search: Its arguments; `level_steps` as a share of the steps of one training.
      controls: Whether its masks, at the first two densities, are also trained from new weights and shuffled within each layer.
      at_start: The criterion that makes the mask before any training, with global scope, instead of a search.
    """

    label: str
    search: dict
    controls: bool = False
    at_start: str | None = None


ROADS = {
    "full": Road("full search, 20 % a level", {}),
    "budget_1.5": Road("`budget=1.5`", {"budget": 1.5}),
    "budget_2": Road("`budget=2`", {"budget": 2}, controls=True),
    "budget_2.5": Road("`budget=2.5`", {"budget": 2.5}),
    "budget_3": Road("`budget=3`", {"budget": 3}),
    "budget_5": Road("`budget=5`", {"budget": 5}),
    "budget_2_global": Road('`budget=2, scope="global"`', {"budget": 2, "scope": "global", "prune_fraction": 0.2}),
    "gradual": Road("gradual in half the steps", {"search": "gradual"}, controls=True),
    "gradual_in_all": Road("gradual in all the steps", {"search": "gradual", "budget": 2}),
    "gradual_global": Road(
        'gradual in half the steps, `scope="global"`', {"search": "gradual", "scope": "global", "prune_fraction": 0.2}
    ),
    "one_shot": Road("one shot", {"search": "one_shot", "budget": 2}),
    "regrow": Road("sparse from the start: RigL", {"search": "regrow"}),
    "regrow_3": Road("sparse from the start: RigL for three times the steps", {"search": "regrow", "budget": 3}),
    "snip": Road("SNIP, a mask before any training", {}, at_start="snip"),
    "levels_2": Road("2 levels of 1/2, each prunes alike", {"levels": 2, "level_steps": 1 / 2}),
    "levels_4": Road("4 levels of 1/4, each prunes alike", {"levels": 4, "level_steps": 1 / 4}),
    "levels_8": Road("8 levels of 1/8, each prunes alike", {"levels": 8, "level_steps": 1 / 8}),
    "levels_6_quarter": Road("6 levels of 1/4, each prunes alike", {"levels": 6, "level_steps": 1 / 4}),
    "levels_8_quarter": Road("8 levels of 1/4, each prunes alike", {"levels": 8, "level_steps": 1 / 4}),
    "levels_4_longer": Road("4 levels of 3/8, each prunes alike", {"levels": 4, "level_steps": 3 / 8}),
    "levels_4_half": Road("4 levels of 1/2, each prunes alike", {"levels": 4, "level_steps": 1 / 2}),
    "levels_4_eighth": Road("4 levels of 1/8, each prunes alike", {"levels": 4, "level_steps": 1 / 8}),
    "levels_4_global": Road(
        '4 levels of 1/4, each prunes alike, `scope="global"`',
        {"levels": 4, "level_steps": 1 / 4, "scope": "global", "prune_fraction": 0.2},
    ),
}
CONTROLS = {"new weights": {"survivors": "reinit"}, "mask shuffled": {"random_mask": True}}


class Recorded:
    """A `Trainer` that keeps what each of its trainings measured: the gradual ones are answers of their own."""

    def __init__(self, trainer: tfl.Trainer):
        self.trainer, self.steps, self.eval_every, self.measured = trainer, trainer.steps, trainer.eval_every, []

    def __call__(self, model, callbacks=(), *, steps=None):
        self.measured.append(self.trainer(model, callbacks, steps=steps))
        return self.measured[-1]


def rows_of(problem: Problem, road: str, trainer: tfl.Trainer, seed: int) -> Iterator[dict]:
    """Trains one road on one problem; a row for each ticket that was asked for, and for its controls."""

    def row(name: str, asked: float, density: float, trainings: float, metrics: Mapping[str, float]) -> dict:
        kept = {key: f"{metrics[key]:.6g}" for key in COLUMNS if key in metrics and key != "trainings"}
        told = {"road": name, "replicate": seed, "asked": asked, "density": f"{density:.5f}"}
        return {**told, "trainings": f"{trainings:.6g}", **kept}

    given = {"prune_fraction": problem.fractions, "seed": seed, **ROADS[road].search}
    if "level_steps" in given:
        given["level_steps"] = int(given["level_steps"] * problem.steps)
    if road == "full":
        asked = {level: density for density, level in problem.levels.items()} | {0: 1.0}
        for ticket in tfl.find_ticket(problem.build(seed), trainer, levels=max(asked), **given):
            if ticket.level in asked:
                name = road if ticket.level else "dense"
                yield row(name, asked[ticket.level], ticket.density, ticket.metrics["trainings"], ticket.metrics)
        return
    for density in problem.levels:
        if (criterion := ROADS[road].at_start) is not None:
            masked = tfl.wrap(problem.build(seed))
            tfl.prune(
                masked, density, criterion=criterion, scope="global", probe=(*trainer.sample(PROBE), LOSS), seed=seed
            )
            yield row(road, density, masks.density(tfl.get_masks(masked)), 1.0, trainer(masked))
            continue
        train = Recorded(trainer) if given.get("search") == "gradual" else trainer
        *_, ticket = tfl.find_ticket(problem.build(seed), train, density=density, dense=False, **given)
        yield row(road, density, ticket.density, ticket.metrics["trainings"], ticket.metrics)
        if given.get("search") == "gradual":
            cost = ticket.metrics["trainings"] - 1
            yield row(f"{road}: itself", density, ticket.density, cost, train.measured[0])
        controlled = ROADS[road].controls and density in [*problem.levels][:2]
        for name, control in CONTROLS.items() if controlled else ():
            masked = tfl.wrap(problem.build(seed))
            start = state.get_values(masked)
            untrained = tfl.Ticket(tfl.get_masks(masked), start, final=start)
            found = tfl.retrain_ticket(masked, trainer, ticket, untrained, seed=seed + 100, **control)
            yield row(f"{road}: {name}", density, found.density, 1.0, found.metrics)


def trainer_of(problem: Problem, seed: int) -> tfl.Trainer:
    data = tfl.data.load(problem.dataset)
    return tfl.Trainer(
        *data.train,
        validation=data.validation,
        test=data.test,
        optimizer=keras.optimizers.Adam(problem.rate),
        steps=problem.steps,
        batch_size=problem.batch_size,
        eval_every=problem.eval_every,
        seed=seed,
    )


def measure(name: str, replicates: Sequence[int], roads: Sequence[str]) -> None:
    """Trains what is not in the table of a problem yet, road after road."""
    problem, file = PROBLEMS[name], RESULTS / f"{name}.csv"
    for road in roads:
        for seed in replicates:
            if any(row["road"] == road and row["replicate"] == str(seed) for row in rows(file)):
                continue
            found = list(rows_of(problem, road, trainer_of(problem, seed), seed))
            with file.open("a", newline="") as out:  # all of a road's rows at once: several processes write here
                fcntl.flock(out, fcntl.LOCK_EX)
                writer = csv.DictWriter(out, COLUMNS)
                if not out.tell():
                    writer.writeheader()
                writer.writerows(found)
            print(name, road, seed, [one["early_stop_test_accuracy"] for one in found], flush=True)


def rows(file: Path) -> list[dict[str, str]]:
    if not file.exists():
        return []
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", action="append", choices=PROBLEMS)
    parser.add_argument("--replicates", type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--roads", type=lambda text: text.split(","), default=list(ROADS))
    given = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in given.problem or PROBLEMS:
        measure(name, given.replicates or range(PROBLEMS[name].replicates), given.roads)


if __name__ == "__main__":
    main()
