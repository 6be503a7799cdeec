"""What a ticket costs by each road, and what it is worth: the measurements behind docs/cost.md.

Cost is counted in trainings, the steps spent to have a ticket over the steps of one training; worth is test accuracy at early stop.

    python benchmarks/cost.py                         # all of it, about three hours on two cores; goes on where it was stopped
    python benchmarks/cost.py --problem=mlp_mnist1d   # one problem
    python benchmarks/cost.py --roads=regrow,snip     # some of the roads
    python benchmarks/cost.py --problem=conv2_cifar10 # on a GPU; without --problem those are left out where there is none

Several may run side by side, on other problems or `--replicates`. Writes docs/results/cost/{PROBLEM}.csv, a row as soon as it is measured;
`cost_page.py` makes the page of it. The problems for a GPU are trained as `tf-lottery find --model=MODEL` trains them, Conv-2 for half its steps, and
need CIFAR-10 in TFDS_DATA_DIR: a training of conv2 took 5 to 10 seconds on an H200 that several processes shared.
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf

import tf_lottery as tfl
from tf_lottery.masking import state
from tf_lottery.rules import masks
from tf_lottery.runs import problem as command_line
from tf_lottery.runs.settings import Settings

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "cost"
PROBE = 1_000  # examples that SNIP takes its gradient on: a hundred of each class
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
COLUMNS = ["road", "replicate", "asked", "density", "trainings", "early_stop_step", "early_stop_test_accuracy"]
COLUMNS += ["final_test_accuracy", "early_stop_validation_accuracy", "seconds", "chosen"]


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
    controls: bool = True

    @property
    def search(self) -> dict[str, Any]:
        return {"prune_fraction": self.fractions}

    @property
    def roads(self) -> list[str]:
        return [name for name, road in ROADS.items() if not road.large and name != "dense"]  # the full search has that

    def made(self, seed: int) -> tuple[keras.Model, tfl.Trainer]:
        data = data_of(self.dataset)
        trainer = tfl.Trainer(
            *data.train,
            validation=data.validation,
            test=data.test,
            optimizer=keras.optimizers.Adam(self.rate),
            steps=self.steps,
            batch_size=self.batch_size,
            eval_every=self.eval_every,
            seed=seed,
        )
        return self.build(seed), trainer


@dataclass(frozen=True)
class OnGpu:
    """A network of the command line, trained and pruned as `tf-lottery find --model=MODEL --density=...` does.

    Attributes:
      roads: The most valuable first.
      levels: The level of the full search that has each density.
      controls: Whether there is time for them.
      given: Settings that are not those of the model.
    """

    model: str
    roads: list[str]
    levels: dict[float, int]
    replicates: int = 5
    controls: bool = True
    given: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def settings(self) -> Settings:
        return command_line.resolved(Settings(model=self.model, density=tuple(self.levels), **self.given))

    @property
    def steps(self) -> int:
        return self.settings.steps or 1

    @property
    def search(self) -> dict[str, Any]:
        return {"prune_fraction": self.settings.prune_fraction, "scope": self.settings.scope}

    def made(self, seed: int) -> tuple[keras.Model, tfl.Trainer]:
        return command_line.of_replicate(self.settings, data_of(self.settings.dataset), seed)


@cache
def data_of(name: str | None) -> tfl.data.Dataset:
    return tfl.data.load(name)


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


PROBLEMS: dict[str, Problem | OnGpu] = {
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
    "conv_mnist": Problem("mnist", small_conv, *(2_000, 60, 1.2e-3, 50, 0.2), {0.134: 9, 0.044: 14}),
    "conv2_cifar10": OnGpu(
        "conv2",
        ["dense", "budget_2", "short_2", "gradual", "one_shot", "full", "regrow"],
        {0.137: 9, 0.0368: 15},
        given={"steps": 10_000},
    ),
    "resnet18_cifar10": OnGpu(
        "resnet18",
        ["dense", "budget_2", "budget_2_late", "one_shot", "one_shot_late"],
        {0.168: 8},
        replicates=1,
        controls=False,
    ),
}


@dataclass(frozen=True)
class Road:
    """What `find_ticket` is asked for, beside a density.

    Attributes:
      label: Its row in the table.
      search: Its arguments; `level_steps` as a share of the steps of one training.
      controls: Whether its masks, at the first two densities, are also trained from new weights and shuffled within each layer.
      at_start: The criterion that makes the mask before any training, with global scope, instead of a search.
      large: Whether it is only for problems that name it: large networks.
    """

    label: str
    search: dict
    controls: bool = False
    at_start: str | None = None
    large: bool = False


SHORT = {"search": "iterative"}  # what a budget goes to where it is not `search="auto"`, the default
ROADS = {
    "dense": Road("the dense network", {}),
    "full": Road("full search, 20 % a level", {}),
    "budget_1.5": Road("`budget=1.5`", {"budget": 1.5}),
    "budget_2": Road("`budget=2`", {"budget": 2}, controls=True),
    "budget_2_late": Road("`budget=2, rewind_to=500`", {"budget": 2, "rewind_to": 500}, large=True),
    "budget_3": Road("`budget=3`", {"budget": 3}),
    "short_1.5": Road("short levels, `budget=1.5`", SHORT | {"budget": 1.5}),
    "short_2": Road("short levels, `budget=2`", SHORT | {"budget": 2}, controls=True),
    "short_2.5": Road("short levels, `budget=2.5`", SHORT | {"budget": 2.5}),
    "short_3": Road("short levels, `budget=3`", SHORT | {"budget": 3}),
    "short_5": Road("short levels, `budget=5`", SHORT | {"budget": 5}),
    "short_2_global": Road(
        'short levels, `budget=2, scope="global"`', SHORT | {"budget": 2, "scope": "global", "prune_fraction": 0.2}
    ),
    "gradual": Road("gradual in half the steps", {"search": "gradual"}, controls=True),
    "gradual_in_all": Road("gradual in all the steps", {"search": "gradual", "budget": 2}),
    "gradual_global": Road(
        'gradual in half the steps, `scope="global"`', {"search": "gradual", "scope": "global", "prune_fraction": 0.2}
    ),
    "one_shot": Road("one shot", {"search": "one_shot", "budget": 2}),
    "one_shot_late": Road(
        "one shot, `rewind_to=500`", {"search": "one_shot", "budget": 2, "rewind_to": 500}, large=True
    ),
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


class Fresh:
    """Gives a masked network as it was built, each time the same one: what is compiled for it serves all roads."""

    def __init__(self, model: keras.Model):
        self.masked = tfl.wrap(model)
        self.masks, self.values = tfl.get_masks(self.masked), state.get_values(self.masked)

    def __call__(self) -> keras.Model:
        state.set_state(self.masked, self.masks, self.values)
        return self.masked


class Recorded:
    """A `Trainer` that keeps what each of its trainings measured: the gradual ones are answers of their own."""

    def __init__(self, trainer: tfl.Trainer):
        self.trainer, self.steps, self.eval_every, self.measured = trainer, trainer.steps, trainer.eval_every, []

    def __call__(self, model, callbacks=(), *, steps=None):
        self.measured.append(self.trainer(model, callbacks, steps=steps))
        return self.measured[-1]


def expected(problem: Problem | OnGpu, road: str) -> list[tuple[str, float]]:
    """(road, density asked for) of the rows that `rows_of` has."""
    if road == "dense":
        return [("dense", 1.0)]
    found = [(road, density) for density in problem.levels]
    if road == "full":
        return [("dense", 1.0), *found]
    if ROADS[road].search.get("search") == "gradual":
        found += [(f"{road}: itself", density) for density in problem.levels]
    if ROADS[road].controls and problem.controls:
        found += [(f"{road}: {control}", density) for control in CONTROLS for density in [*problem.levels][:2]]
    return found


def rows_of(problem: Problem | OnGpu, road: str, fresh: Fresh, trainer: tfl.Trainer, seed: int) -> Iterator[dict]:
    """Trains one road on one problem; a row for each ticket that was asked for, and for its controls."""

    def row(name: str, asked: float, density: float, trainings: float, metrics: Mapping[str, float]) -> dict:
        kept = {key: f"{metrics[key]:.6g}" for key in COLUMNS if key in metrics and key != "trainings"}
        told = {"road": name, "replicate": seed, "asked": asked, "density": f"{density:.5f}"}
        return {**told, "trainings": f"{trainings:.6g}", **kept}

    if road == "dense":
        yield row(road, 1.0, 1.0, 1.0, trainer(fresh()))
        return
    given = {**problem.search, "seed": seed, **ROADS[road].search}
    if "level_steps" in given:
        given["level_steps"] = int(given["level_steps"] * problem.steps)
    if road == "full":
        asked = {level: density for density, level in problem.levels.items()} | {0: 1.0}
        for ticket in tfl.find_ticket(fresh(), trainer, levels=max(asked), **given):
            if ticket.level in asked:
                name = road if ticket.level else "dense"
                yield row(name, asked[ticket.level], ticket.density, ticket.metrics["trainings"], ticket.metrics)
        return
    for density in problem.levels:
        if (criterion := ROADS[road].at_start) is not None:
            masked = fresh()
            tfl.prune(
                masked, density, criterion=criterion, scope="global", probe=(*trainer.sample(PROBE), LOSS), seed=seed
            )
            yield row(road, density, masks.density(tfl.get_masks(masked)), 1.0, trainer(masked))
            continue
        train = Recorded(trainer) if given.get("search") == "gradual" else trainer
        *_, ticket = tfl.find_ticket(fresh(), train, density=density, dense=False, **given)
        found = row(road, density, ticket.density, ticket.metrics["trainings"], ticket.metrics)
        yield {**found, "chosen": ticket.found.get("chosen", "")}  # with search="auto"
        if given.get("search") == "gradual":
            cost = ticket.metrics["trainings"] - 1
            yield row(f"{road}: itself", density, ticket.density, cost, train.measured[0])
        controlled = ROADS[road].controls and problem.controls and density in [*problem.levels][:2]
        for name, control in CONTROLS.items() if controlled else ():
            masked = fresh()
            untrained = tfl.Ticket(fresh.masks, fresh.values, final=fresh.values)
            found = tfl.retrain_ticket(masked, trainer, ticket, untrained, seed=seed + 100, **control)
            yield row(f"{road}: {name}", density, found.density, 1.0, found.metrics)


def measure(name: str, replicates: Sequence[int], roads: Sequence[str]) -> None:
    """Trains what is not in the table of a problem yet, road after road."""
    problem, file = PROBLEMS[name], RESULTS / f"{name}.csv"

    @cache
    def made(seed: int) -> tuple[Fresh, tfl.Trainer]:
        model, trainer = problem.made(seed)
        return Fresh(model), trainer

    for road in roads:
        for seed in replicates:
            if {(one, str(seed), str(asked)) for one, asked in expected(problem, road)} <= set(map(key_of, rows(file))):
                continue
            for found in rows_of(problem, road, *made(seed), seed):
                add(found, file)
                print(name, found["road"], seed, found["asked"], found["early_stop_test_accuracy"], flush=True)


def add(found: Mapping[str, Any], file: Path) -> None:
    """Writes a row, whole, unless it is there: several processes write here, and roads have the dense network in common."""
    with file.open("a", newline="") as out:
        fcntl.flock(out, fcntl.LOCK_EX)
        if key_of({name: str(value) for name, value in found.items()}) in map(key_of, rows(file)):
            return
        writer = csv.DictWriter(out, COLUMNS)
        if not out.tell():
            writer.writeheader()
        writer.writerow(found)


def key_of(row: Mapping[str, str]) -> tuple[str, str, str]:
    return row["road"], row["replicate"], row["asked"]


def rows(file: Path) -> list[dict[str, str]]:
    if not file.exists():
        return []
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", action="append", choices=PROBLEMS)
    parser.add_argument("--replicates", type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--roads", type=lambda text: text.split(","), help="Default: those of the problem.")
    given = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    gpu = tf.config.list_physical_devices("GPU")
    here = [name for name, problem in PROBLEMS.items() if gpu or not isinstance(problem, OnGpu)]
    for name in given.problem or here:
        problem = PROBLEMS[name]
        measure(name, given.replicates or range(problem.replicates), given.roads or problem.roads)


if __name__ == "__main__":
    main()
