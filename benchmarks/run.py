"""How fast: ratios measured side by side in one process, in turn and in changing order.

Each side's fastest round stands against the other's: on a shared machine slow rounds tell of the neighbours.

    python benchmarks/run.py                    # all of it, about 6 minutes on two cores
    python benchmarks/run.py step_lenet         # one of them

Writes docs/results/benchmarks.json and docs/results/benchmarks.md.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from side_by_side import alternate, find, images, machine, row, table

import tf_lottery as tfl
from tf_lottery.runs.results import Run
from tf_lottery.runs.settings import Settings
from tf_lottery.runs.tables import CURVE
from tf_lottery.search.rates import Cubic

tf.get_logger().setLevel("ERROR")
RESULTS = Path(__file__).parents[1] / "docs" / "results"
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def masked(model, kept: float = 0.2):
    rng = np.random.default_rng(1)
    wrapped = tfl.wrap(model)
    tfl.set_masks(wrapped, {path: rng.random(mask.shape) < kept for path, mask in tfl.get_masks(wrapped).items()})
    return wrapped


def trainer_side(model, data, steps: int, rate: float, optimizer=None, batch_size=60, **options) -> Callable[[], float]:
    """Milliseconds a step of `Trainer`."""
    optimizer = optimizer or keras.optimizers.Adam(rate)
    trainer = tfl.Trainer(*data, steps=steps, batch_size=batch_size, optimizer=optimizer, **options)
    return lambda: 1e3 * trainer(model)["seconds"] / steps


def fit_side(model, data, steps: int, rate: float) -> Callable[[], float]:
    """Milliseconds a step of Keras `fit`, in the setting it is usually called in."""
    model.compile(keras.optimizers.Adam(rate), LOSS)
    x, y = (array[: steps * 60] for array in data)

    def run() -> float:
        began = time.perf_counter()
        model.fit(x, y, batch_size=60, epochs=1, verbose=0)
        return 1e3 * (time.perf_counter() - began) / steps

    return run


def lenet():
    return tfl.models.get("lenet_300_100")(seed=0)


def conv2():
    return tfl.models.get("conv2")(seed=0)


def step_lenet() -> list[dict]:
    data, steps = images((28, 28, 1), 55_000), 900
    times = alternate(
        15,
        fit=fit_side(lenet(), data, steps, 1.2e-3),
        fit_masked=fit_side(masked(lenet()), data, steps, 1.2e-3),
        trainer=trainer_side(lenet(), data, steps, 1.2e-3),
        trainer_masked=trainer_side(masked(lenet()), data, steps, 1.2e-3),
    )
    return [
        row("LeNet-300-100, batch 60: Keras fit / Trainer, dense", times, "fit", "trainer", ">= 3", "ms a step"),
        row("LeNet-300-100: Trainer masked / dense", times, "trainer_masked", "trainer", "<= 1.05", "ms a step"),
        row("LeNet-300-100: wrapped / plain in Keras fit", times, "fit_masked", "fit", "<= 1.10", "ms a step"),
    ]


def gradual_trainer() -> list[dict]:
    """What masks that change cost in `Trainer`: the gradual half training of a search, 90 masks in 6,000 steps, and RigL every 100 steps."""
    data, steps = images((28, 28, 1), 55_000), 6_000
    trainer = tfl.Trainer(*data, steps=steps, optimizer=keras.optimizers.Adam(1.2e-3))

    def side(model, *callbacks) -> Callable[[], float]:
        start = model.get_weights()  # masks too

        def run() -> float:
            model.set_weights(start)
            return 1e3 * trainers[model](model, callbacks)["seconds"] / steps

        trainers[model] = copy.copy(trainer)  # each keeps the loop that it compiled
        return run

    trainers: dict = {}
    times = alternate(
        7,
        masked=side(masked(lenet())),
        gradual=side(tfl.wrap(lenet()), tfl.callbacks.PruneBySchedule(Cubic(0.036, steps))),
        regrow=side(tfl.wrap(lenet()), tfl.callbacks.RegrowBySchedule(0.036)),
    )
    return [
        row("LeNet-300-100 in Trainer: gradual pruning / masked", times, "gradual", "masked", "<= 1.10", "ms a step"),
        row("LeNet-300-100 in Trainer: regrowing (RigL) / masked", times, "regrow", "masked", "", "ms a step"),
    ]


def two_trainings() -> list[dict]:
    """A ticket of LeNet-300-100 for a budget of two trainings, against the papers' 15 levels: whole commands, dense reference and start-up too."""
    problem = ["--model=lenet_300_100", "--dataset=mnist", "--steps=12000", "--replicates=1"]
    times = alternate(
        1, warm=False, budget=find(*problem, "--budget=2", "--density=0.036"), full=find(*problem, "--levels=15")
    )
    name = "tf-lottery find of LeNet at 3.6 %, 12,000 steps: --budget=2 / the full search"
    return [row(name, times, "budget", "full", "<= 0.40", "s")]


def prune_command() -> list[dict]:
    """The training of `tf-lottery prune` (masks, their changes, checkpoints) against `fit` alone, on 2 million weights."""
    from tf_lottery.bin.prune import How, Source, Target, Training
    from tf_lottery.export.formats import load_keras
    from tf_lottery.runs import own_data, prune_plan, pruning

    x, y = images((784,), 55_000)
    layers = [keras.layers.Dense(1200, "relu"), keras.layers.Dense(900, "relu"), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((784,)), *layers])
    model.compile(keras.optimizers.Adam(1e-3), LOSS)
    sets = own_data.Sets((x, y), (x[:100], y[:100]), "a part of it")
    how, training = How(density=0.2), Training(epochs=5, batch_size=128)
    display = types.SimpleNamespace(**dict.fromkeys(("say", "begin", "advance", "done"), lambda *_: None))
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/net.keras"
        model.save(path)
        origin = own_data.Origin("images", "images", lambda seed: sets)
        plan = prune_plan.checked(Source(keras=path), how, training, Target(), origin, False)

        def command() -> float:
            plan.unfinished.mkdir()
            loaded, began = load_keras(path), time.perf_counter()
            with plan.begun():
                pruning.fine_tuned(loaded, plan, sets, display)
            return time.perf_counter() - began

        def alone() -> float:
            loaded, began = load_keras(path), time.perf_counter()
            loaded.fit(x, y, batch_size=128, epochs=5, verbose=0)
            return time.perf_counter() - began

        times = alternate(3, command=command, alone=alone)
    name = "tf-lottery prune of 2 million weights, 5 epochs of 55,000 examples / its training alone"
    return [row(name, times, "command", "alone", "<= 1.10", "s")]


def data_set() -> list[dict]:
    """The same images as arrays and as a `tf.data.Dataset`, with the measurements of `evaluation`; and one too large to be kept."""
    arrays, steps = images((28, 28, 1), 55_000), 2_000
    held_out = images((28, 28, 1), 5_000)

    def batched(pair):
        return tf.data.Dataset.from_tensor_slices(pair).shuffle(len(pair[1])).batch(60)

    def side(data, validation, **options):
        return trainer_side(lenet(), data, steps, 1.2e-3, batch_size=None, validation=validation, **options)

    times = alternate(
        9,
        arrays=side(arrays, held_out),
        kept=side((batched(arrays),), batched(held_out)),
        streamed=side((batched(arrays),), batched(held_out), device_bytes=2**26),
    )
    name = "LeNet-300-100 in Trainer, measured every 100 steps"
    return [
        row(f"{name}: a data set that fits / arrays", times, "kept", "arrays", "<= 1.05", "ms a step"),
        row(f"{name}: a data set that is streamed / arrays", times, "streamed", "arrays", "", "ms a step"),
    ]


def step_conv2() -> list[dict]:
    data, steps = images((32, 32, 3), 1_200), 20
    times = alternate(
        12,
        fit=fit_side(conv2(), data, steps, 2e-4),
        fit_masked=fit_side(masked(conv2()), data, steps, 2e-4),
        trainer=trainer_side(conv2(), data, steps, 2e-4),
        trainer_masked=trainer_side(masked(conv2()), data, steps, 2e-4),
    )
    return [
        row("conv2, batch 60: Trainer / Keras fit, dense", times, "trainer", "fit", "<= 1.0", "ms a step"),
        row("conv2: wrapped / plain in Keras fit", times, "fit_masked", "fit", "<= 1.10", "ms a step"),
        row("conv2: Trainer masked / dense", times, "trainer_masked", "trainer", "", "ms a step"),
    ]


def step_wrapped() -> list[dict]:
    """`fit` of a wrapped model against plain Keras: a network of many layers, and one whose kernels are read within loops."""
    rng = np.random.default_rng(0)
    series = rng.normal(size=(1_200, 32, 16)).astype("float32"), rng.integers(0, 10, 1_200)

    def lstm():
        layers = [keras.layers.LSTM(64, return_sequences=True), keras.layers.LSTM(64), keras.layers.Dense(10)]
        return keras.Sequential([keras.Input((32, 16)), *layers])

    def mobilenet():
        return _mobilenet_of(keras, (96, 96, 3))

    found = []
    for name, build, data, steps in (
        ("MobileNetV2 at 96 x 96, batch 60", mobilenet, images((96, 96, 3), 300), 5),
        ("two layers of LSTM, batch 60", lstm, series, 20),
    ):
        sides = {
            "fit_masked": fit_side(masked(build()), data, steps, 1e-3),
            "fit": fit_side(build(), data, steps, 1e-3),
        }
        times = alternate(10, **sides)
        found.append(row(f"{name}: wrapped / plain in Keras fit", times, "fit_masked", "fit", "<= 1.05", "ms a step"))
    return found


def step_supermask() -> list[dict]:
    """Learned masks of LeNet, batch 250 and SGD with momentum, as Zhou et al. (2019) train them, against dense training."""
    data, steps = images((28, 28, 1), 55_000), 400

    def side(model, rate: float) -> Callable[[], float]:
        sgd = keras.optimizers.SGD(rate, momentum=0.9)
        return trainer_side(model, data, steps, rate, sgd, batch_size=250, eval_every=steps)

    times = alternate(
        15,
        dense=side(lenet(), 0.01),
        learning=side(tfl.supermask.wrap(lenet(), rescale=False), 100.0),
        rescaled=side(tfl.supermask.wrap(lenet()), 100.0),
        edge_popup=side(tfl.supermask.wrap(lenet(), by="edge_popup"), 1.0),
    )
    name = "LeNet-300-100 in Trainer, batch 250:"
    return [
        row(f"{name} learned supermask / dense", times, "learning", "dense", "<= 1.6", "ms a step"),
        row(f"{name} learned supermask with rescaling / dense", times, "rescaled", "dense", "<= 1.6", "ms a step"),
        row(f"{name} edge-popup / dense", times, "edge_popup", "dense", "", "ms a step"),
    ]


def masks_by_rule() -> list[dict]:
    """25 densities of 13 criteria on 10,000 test images, against as many measurements of one network."""
    test, model = images((28, 28, 1), 10_000), lenet()
    trainer = tfl.Trainer(*test, test=test, steps=1)
    dense = next(tfl.find_ticket(lenet(), tfl.Trainer(*test, steps=500), levels=1))
    chosen = tfl.criteria.of_weights()

    def rule() -> float:
        began = time.perf_counter()
        rows = list(tfl.supermask.evaluate(model, dense, trainer.test_accuracy, criterion=chosen))
        assert len(rows) == 25 * 13
        return time.perf_counter() - began

    def bare() -> float:
        began = time.perf_counter()
        for _ in range(25 * 13):
            trainer.test_accuracy(model)
        return time.perf_counter() - began

    times = alternate(3, rule=rule, bare=bare)
    name = "masks of 13 criteria at 25 densities, LeNet-300-100 on 10,000 images: all / the measurements alone"
    return [row(name, times, "rule", "bare", "all < 30 s", "s")]


def evaluation() -> list[dict]:
    """The papers' protocol: every 100 steps 5,000 validation images; 10,000 test images every 1,000, exact at early stop."""
    data, steps = images((28, 28, 1), 55_000), 10_000
    sets = {"validation": images((28, 28, 1), 5_000), "test": images((28, 28, 1), 10_000)}
    times = alternate(
        5,
        with_evaluation=trainer_side(lenet(), data, steps, 1.2e-3, eval_every=100, test_every=1_000, **sets),
        without=trainer_side(lenet(), data, steps, 1.2e-3, eval_every=100),
    )
    name = "LeNet-300-100 in Trainer: with / without evaluation every 100 steps"
    return [row(name, times, "with_evaluation", "without", "<= 1.35", "ms a step")]


def global_mask() -> list[dict]:
    """A mask over 25 million weights, against the mask update of TF-MOT's own pruning wrapper on as many."""
    rng = np.random.default_rng(0)
    scores = {f"kernel_{i}": np.abs(rng.normal(size=(5_000, 1_000)).astype(np.float32)) for i in range(5)}
    ones = {path: np.ones(array.shape, np.uint8) for path, array in scores.items()}
    fractions = dict.fromkeys(scores, 0.8)

    def ours(scope: str) -> Callable[[], float]:
        def run() -> float:
            began = time.perf_counter()
            tfl.masks.prune(ones, scores, fractions, scope=scope)
            return time.perf_counter() - began

        return run

    times = alternate(5, layer=ours("layer"), whole=ours("global"), tfmot=tfmot_update(list(scores.values())))
    return [
        row("mask over 25 million weights: TF-MOT's update / ours, per layer", times, "tfmot", "layer", "", "s"),
        row("mask over 25 million weights: TF-MOT's update / ours, global", times, "tfmot", "whole", "ours < 1 s", "s"),
    ]


def gradual_lenet() -> list[dict]:
    """PolynomialDecay to 80 %, an update every 100 steps."""
    return gradual("LeNet-300-100, batch 60", (28, 28, 1), batch=60, steps=500, rounds=12, build=_lenet_of)


def gradual_mobilenet() -> list[dict]:
    """The same for MobileNetV2 at 96 x 96; neither side prunes the depthwise kernels.

    tf_keras normalises batches by TensorFlow's fused kernel, Keras 3 by single operations: hence one more side, with a
    Keras 3 layer that calls the fused one.
    """
    name, shape = "MobileNetV2 at 96 x 96, batch 16", (96, 96, 3)
    return gradual(name, shape, batch=16, steps=100, rounds=4, build=_mobilenet_of, fused=_with_fused_normalization)


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation by one kernel of TensorFlow, for images."""

    def call(self, inputs, training=None, mask=None):
        if not training:
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, self.gamma.value, self.beta.value, epsilon=self.epsilon, is_training=True
        )
        for moving, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + new * (1 - self.momentum))
        return outputs


def start_finished() -> list[dict]:
    """A start of a finished run of LeNet, 24 levels and the dense one of 3 replicates: every byte of it is checked, against a start that only prints its help."""
    with tempfile.TemporaryDirectory() as folder:
        _finished_lenet(Run.at(folder, "lenet"))
        place = [f"--results_dir={folder}", "--name=lenet", "--model=lenet_300_100", "--levels=24", "--replicates=3"]

        def command(*flags: str) -> Callable[[], float]:
            def run() -> float:
                began = time.perf_counter()
                words = [sys.executable, "-m", "tf_lottery.bin.find", *flags]
                subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
                return time.perf_counter() - began

            return run

        times = alternate(7, checked=command(*place), help=command("--help"))
    name = "tf-lottery find of a finished run, 75 tickets and as many curves / its --help"
    return [row(name, times, "checked", "help", "checked < 3 s", "s")]


def _finished_lenet(run: Run) -> None:
    """A run as a search leaves it, of random weights."""
    settings = dataclasses.replace(Settings("lenet_300_100", levels=24, replicates=3).resolved(), precision="float32")
    run.open(dataclasses.asdict(settings), {})
    rng = np.random.default_rng(0)
    curve = [dict.fromkeys(CURVE, 0.5) | {"step": step} for step in range(100, 50_001, 100)]
    for replicate in range(3):
        kernels = {f"{i}/kernel": shape for i, shape in enumerate([(784, 300), (300, 100), (100, 10)])}
        initial = {path: rng.normal(size=shape).astype(np.float32) for path, shape in kernels.items()}
        chances = {path: rng.random(shape) for path, shape in kernels.items()}
        for level in range(25):
            masks = {path: (chance < 0.8**level).astype(np.uint8) for path, chance in chances.items()}
            kept = {path: value * masks[path] for path, value in initial.items()}
            final = {path: value * 1.5 for path, value in kept.items()}
            metrics = dict.fromkeys(("early_stop_test_accuracy", "final_test_accuracy", "seconds"), 0.5)
            run.write_level(
                replicate, tfl.Ticket(masks, kept, final, level, {**metrics, "early_stop_step": 100}), curve
            )


def _with_fused_normalization(model):
    def clone(layer):
        normalizes = isinstance(layer, keras.layers.BatchNormalization)
        return (FusedBatchNormalization if normalizes else type(layer)).from_config(layer.get_config())

    return keras.models.clone_model(model, clone_function=clone)


def _lenet_of(library, shape):
    layers = library.layers
    inputs = library.Input(shape)
    x = layers.Flatten()(inputs)
    x = layers.Dense(100, "relu")(layers.Dense(300, "relu")(x))
    return library.Model(inputs, layers.Dense(10)(x))


def _mobilenet_of(library, shape):
    return library.applications.MobileNetV2(shape, weights=None, classes=10, classifier_activation=None)


def gradual(name: str, shape, *, batch: int, steps: int, rounds: int, build, fused=None) -> list[dict]:
    """Gradual pruning on tf_keras through TF-MOT against `PruneBySchedule` on Keras 3, and both Keras without pruning."""
    from tf_lottery.search.schedules import tf_keras, tfmot

    x, y = images(shape, batch * steps)
    decay = tfmot.sparsity.keras.PolynomialDecay(0.0, 0.8, 0, (rounds + 1) * steps, frequency=100)

    def side(library, model, callbacks=()):
        model.compile(library.optimizers.Adam(1e-3), library.losses.SparseCategoricalCrossentropy(from_logits=True))

        def run() -> float:
            began = time.perf_counter()
            model.fit(x, y, batch_size=batch, verbose=0, callbacks=list(callbacks))
            return 1e3 * (time.perf_counter() - began) / steps

        return run

    def prunable(layer, variable) -> bool:
        return variable.name == "kernel" and not isinstance(layer, keras.layers.DepthwiseConv2D)

    def ours(model):
        return side(keras, tfl.wrap(model, prunable), [tfl.callbacks.PruneBySchedule(decay)])

    theirs = tfmot.sparsity.keras.prune_low_magnitude(build(tf_keras, shape), pruning_schedule=decay)
    sides = {
        "tfmot": side(tf_keras, theirs, [tfmot.sparsity.keras.UpdatePruningStep()]),
        "ours": ours(build(keras, shape)),
        "keras_3": side(keras, build(keras, shape)),
        "tf_keras": side(tf_keras, build(tf_keras, shape)),
    }
    if fused:
        sides["ours_fused"] = ours(fused(build(keras, shape)))
    times = alternate(rounds, **sides)
    more = f"{name}: gradual pruning with fused batch normalisation, ours / TF-MOT"
    rows = [row(more, times, "ours_fused", "tfmot", "<= 1.0", "ms a step")] if fused else []
    rows += [
        row(f"{name}: gradual pruning, ours / TF-MOT", times, "ours", "tfmot", "<= 1.0", "ms a step"),
        row(f"{name}: Keras 3 fit / tf_keras fit, nothing pruned", times, "keras_3", "tf_keras", "", "ms a step"),
        row(f"{name}: gradual pruning / plain fit, Keras 3", times, "ours", "keras_3", "", "ms a step"),
    ]
    return rows


def mask_update() -> list[dict]:
    """One update of a schedule in a model of 25 million weights: scores, choice, masks, weights and optimizer slots."""
    rng = np.random.default_rng(0)
    values = [rng.normal(size=(5_000, 1_000)).astype(np.float32) for _ in range(5)]
    inputs = keras.Input((5_000,))
    masked = tfl.wrap(keras.Model(inputs, [keras.layers.Dense(1_000, use_bias=False)(inputs) for _ in values]))
    masked.compile("adam", ["mse"] * len(values))
    masked.optimizer.build(masked.trainable_variables)
    schedule = tfl.LotterySchedule(levels=1, steps_per_level=1, prune_fraction=0.8)

    def ours() -> float:
        tfl.set_masks(masked, {path: np.ones_like(mask) for path, mask in tfl.get_masks(masked).items()})
        for kernel, value in zip(masked.kernels, values):
            kernel.variable.assign(value)
        callback = tfl.callbacks.PruneBySchedule(schedule)
        callback.set_params({"epochs": 1, "steps": 1})
        callback.set_model(masked)
        masked.optimizer.iterations.assign(0)
        callback.on_train_begin()
        masked.optimizer.iterations.assign(1)
        began = time.perf_counter()
        callback.on_train_batch_end(0)
        return time.perf_counter() - began

    times = alternate(5, ours=ours, tfmot=tfmot_update(values))
    name = "one update of a schedule, 25 million weights: TF-MOT / PruneBySchedule"
    return [row(name, times, "tfmot", "ours", ">= 5", "s")]


def tfmot_update(values: list[np.ndarray]) -> Callable[[], float]:
    """One mask update at 80 % sparsity through TF-MOT's public wrapper; each kernel by itself: it has no global scope."""
    from tf_lottery.search.schedules import tf_keras, tfmot

    wrapped = []
    for value in values:
        dense = tf_keras.layers.Dense(value.shape[1], use_bias=False)
        model = tfmot.sparsity.keras.prune_low_magnitude(
            tf_keras.Sequential([tf_keras.Input((value.shape[0],)), dense]),
            pruning_schedule=tfmot.sparsity.keras.ConstantSparsity(0.8, 0, frequency=1),
        )
        dense.set_weights([value])
        wrapped.append(model.layers[0])
    functions = [tf.function(layer.pruning_obj.conditional_mask_update) for layer in wrapped]  # as in a training step

    def run() -> float:
        for layer in wrapped:
            layer.pruning_step.assign(1)
        began = time.perf_counter()
        for function in functions:
            function()
        return time.perf_counter() - began

    return run


BENCHMARKS = [
    step_lenet,
    gradual_trainer,
    two_trainings,
    prune_command,
    step_conv2,
    step_wrapped,
    step_supermask,
    masks_by_rule,
    evaluation,
    data_set,
    global_mask,
    gradual_lenet,
    gradual_mobilenet,
    mask_update,
    start_finished,
]


def main(names: list[str]) -> None:
    known = {benchmark.__name__: benchmark for benchmark in BENCHMARKS}
    unknown = set(names) - set(known)
    if unknown:
        sys.exit(f"Expected benchmarks among {', '.join(known)}, but received {', '.join(sorted(unknown))}.")
    if not names:  # each in a process of its own: what one leaves in memory does not slow the next
        for name in known:
            subprocess.run([sys.executable, __file__, name], check=True)
        return
    path = RESULTS / "benchmarks.json"
    results = json.loads(path.read_text()) if path.is_file() else {"results": {}}
    for name in names:
        results["results"][name] = known[name]()
    results["machine"] = machine()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")
    for name in names:
        print("\n".join(table(results["results"][name])))
    where = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    lines = table([row for rows in results["results"].values() for row in rows])
    (RESULTS / "benchmarks.md").write_text("\n".join([*lines, "", f"Machine: {where}.", ""]))


if __name__ == "__main__":
    main(sys.argv[1:])
