"""The same search by three roads: `find_ticket` with `Trainer`, one Keras 3 `fit`, and TF-MOT on tf_keras.

MNIST-1D with the residual MLP, Adam 2e-2, batch 100, 10 levels of 1,500 steps, 20 % pruned each; the same initial weights on
all three roads, each with its own order of the data. What is compared is test accuracy at the end of each level.

    python benchmarks/three_roads.py            # 5 seeds, about 20 minutes on two cores; goes on where it was stopped

Writes docs/results/three_roads/{accuracy.csv,table.md}.
"""

from __future__ import annotations

import csv
import os
import statistics
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras

import tf_lottery as tfl
from tf_lottery.base.files import whole_file

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "three_roads"
SEEDS, LEVELS, STEPS, BATCH, RATE = range(5), 10, 1_500, 100, 2e-2
ROADS = {
    "find_ticket": "`find_ticket` with `Trainer`",
    "lottery_ticket": "one `fit` with `LotteryTicket`, Keras 3",
    "rewind_survivors": "one `fit` with TF-MOT and `RewindSurvivors`, tf_keras",
}


def find_ticket(data, seed: int) -> list[tfl.Ticket]:
    trainer = tfl.Trainer(
        *data.train, steps=STEPS, batch_size=BATCH, optimizer=keras.optimizers.Adam(RATE), eval_every=STEPS, seed=seed
    )
    return list(tfl.find_ticket(tfl.models.get("residual_mlp")(seed=seed), trainer, levels=LEVELS))


def lottery_ticket(data, seed: int) -> list[tfl.Ticket]:
    masked = tfl.wrap(tfl.models.get("residual_mlp")(seed=seed))
    masked.compile(keras.optimizers.Adam(RATE), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    search = tfl.callbacks.LotteryTicket(tfl.LotterySchedule(LEVELS, STEPS))
    masked.fit(batches(data, seed), **epochs(data), verbose=0, callbacks=[search])
    return search.tickets


def rewind_survivors(data, seed: int) -> list[tfl.Ticket]:
    inputs = tf_keras.Input((40,))
    x = tf_keras.layers.Dense(500, "relu", name="dense_1")(inputs)
    x = tf_keras.layers.Add()([x, tf_keras.layers.Dense(500, "relu", name="dense_2")(x)])
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(10, name="output")(x))
    model.set_weights(tfl.models.get("residual_mlp")(seed=seed).get_weights())
    pruned = tfmot.sparsity.keras.prune_low_magnitude(model, pruning_schedule=tfl.LotterySchedule(LEVELS, STEPS))
    pruned.compile(tf_keras.optimizers.Adam(RATE), tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    search = tfl.tfmot.RewindSurvivors()
    pruned.fit(batches(data, seed), **epochs(data), verbose=0, callbacks=[search])
    return search.tickets


def batches(data, seed: int) -> tf.data.Dataset:
    """Batches in a new order each epoch. (After `set_random_seed`, `fit` would shuffle arrays alike in every epoch.)"""
    order = tf.data.Dataset.from_tensor_slices(data.train).shuffle(len(data.train[1]), seed=seed)
    return order.repeat().batch(BATCH)


def epochs(data) -> dict[str, int]:
    steps = len(data.train[1]) // BATCH
    return {"steps_per_epoch": steps, "epochs": -(-(LEVELS + 1) * STEPS // steps)}


def accuracy(ticket: tfl.Ticket, data) -> float:
    """Test accuracy in percent of a ticket's trained weights, on one Keras 3 model whatever road it came by."""
    x, y = data.test
    model = tfl.strip(ticket.apply(tfl.models.get("residual_mlp")(), weights="final"))
    return float(100 * np.mean(np.argmax(model(x), -1) == y))


def write_table(rows: list[dict]) -> None:
    lines = ["| weights remaining | " + " | ".join(ROADS.values()) + " |", "|--:|" + "---|" * len(ROADS)]
    for level in range(LEVELS + 1):
        cells = []
        for road in ROADS:
            found = [float(row["test_accuracy"]) for row in rows if row["road"] == road and int(row["level"]) == level]
            cells.append(f"{statistics.mean(found):.1f} ({min(found):.1f} to {max(found):.1f})" if found else "")
        density = next(float(row["density"]) for row in rows if int(row["level"]) == level)
        lines.append(f"| {100 * density:.1f} % | " + " | ".join(cells) + " |")
    pruned = {
        road: [float(row["test_accuracy"]) for row in rows if row["road"] == road and row["level"] != "0"]
        for road in ROADS
    }
    means = [f"{statistics.mean(found):.1f}" if found else "" for found in pruned.values()]
    lines.append("| mean of the pruned levels | " + " | ".join(means) + " |")
    (RESULTS / "table.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    file = RESULTS / "accuracy.csv"
    rows = list(csv.DictReader(file.open())) if file.exists() else []
    data = tfl.data.load("mnist1d")
    for seed in SEEDS:
        for road in ROADS:
            if any(row["road"] == road and row["seed"] == str(seed) for row in rows):
                continue
            for ticket in globals()[road](data, seed):
                row = {"road": road, "seed": seed, "level": ticket.level, "density": round(ticket.density, 6)}
                rows.append({key: str(value) for key, value in row.items()})
                rows[-1]["test_accuracy"] = f"{accuracy(ticket, data):.2f}"
            with whole_file(file) as unfinished, Path(unfinished).open("w", newline="") as out:
                writer = csv.DictWriter(out, fieldnames=list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
            write_table(rows)
            print(road, seed, [row["test_accuracy"] for row in rows[-LEVELS - 1 :]], flush=True)


if __name__ == "__main__":
    main()
