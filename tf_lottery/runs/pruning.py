"""The work of `tf-lottery prune`: it fine-tunes the model under falling masks, and measures and writes what came of it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.base.errors import DataError, LotteryError
from tf_lottery.base.files import whole_file
from tf_lottery.base.quiet import silenced
from tf_lottery.base.table import Table
from tf_lottery.export.before_after import REPRESENTATIVE, Compared, with_files
from tf_lottery.export.evaluation import arrays_of, evaluated
from tf_lottery.export.formats import first_line, keras_file, load_keras
from tf_lottery.masking import state
from tf_lottery.masking.calls import called
from tf_lottery.masking.compiling import compile_arguments
from tf_lottery.masking.own_step import own_step
from tf_lottery.masking.summary import kernels_of, table_of
from tf_lottery.masking.wrapping import wrap
from tf_lottery.rules import criteria
from tf_lottery.rules import masks as masks_lib
from tf_lottery.runs.own_data import Sets
from tf_lottery.runs.prune_plan import Plan
from tf_lottery.search.fine_tuning import Gradually, check_denser, fine_tune
from tf_lottery.search.pruning import prune
from tf_lottery.training.checkpoint import Checkpoint, fingerprint
from tf_lottery.training.resuming import Resume, Shuffled, begun_once_an_epoch

PROBE = 128  # examples that a criterion which needs a gradient takes it on


class Display(Protocol):
    """What shows how far it is."""

    def say(self, sentence: str) -> None: ...

    def begin(self, epoch: int, batches: int | None) -> None: ...

    def advance(self, batches: int) -> None: ...

    def done(self, epoch: int, values: Mapping[str, float]) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
      pruned: The wrapped model.
      compared: The table of before and after.
      contents: The TFLite files by variant.
      epochs: What was measured in each.
      measured_on: What the metrics are of, or None.
    """

    pruned: Any
    compared: Compared
    contents: Mapping[str, bytes]
    epochs: list[dict[str, float]]
    measured_on: str | None

    @property
    def kernels(self) -> Table:
        """A line for each kernel of the pruned model."""
        return table_of(kernels_of(self.pruned))

    @property
    def curve(self) -> Table:
        """A line for each epoch."""
        names = list(self.epochs[0]) if self.epochs else []
        rows = [[f"{row.get(name, float('nan')):.4g}" for name in names] for row in self.epochs]
        return Table(names, rows)

    def write(self, plan: Plan) -> None:
        """Writes the files, the model last."""
        for variant, content in self.contents.items():
            with whole_file(plan.beside(f".{variant}.tflite")) as unfinished:
                unfinished.write_bytes(content)
        with whole_file(plan.beside(".json")) as unfinished:
            numbers = {**self.compared.as_dict(), "epochs": self.epochs, "settings": plan.spec}
            unfinished.write_text(json.dumps(numbers, indent=2) + "\n")
        keras_file(self.pruned, plan.output, overwrite=True)


def work(plan: Plan, display: Display) -> Outcome:
    """Does what the plan says; what it comes to is kept in its folder `unfinished`."""
    keras.utils.set_random_seed(plan.training.seed)
    model = load_keras(plan.source.keras)
    sets = plan.origin.load(plan.training.seed) if plan.origin else None
    if sets:
        _compile(model, plan, sets, display)
        before = evaluated([model], sets.test)[0]
        told = ", ".join(f"{name} {value:.4g}" for name, value in before.items())
        display.say(f"{plan.source.keras} before: {told} on {sets.measured_on}.")
    pruned, epochs = fine_tuned(model, plan, sets, display)
    display.say("Measuring and writing ...")
    dense = load_keras(plan.source.keras)
    if sets and not own_step(dense):
        dense.compile(**compile_arguments(model))
    with silenced() if plan.variants else contextlib.nullcontext():
        compared, contents = with_files(
            dense,
            pruned,
            sets.test if sets else None,
            variants=plan.variants,
            representative=_typical(sets) if plan.variants and sets else None,
            threads=plan.target.threads,
        )
    return Outcome(pruned, compared, contents, epochs, sets.measured_on if sets else None)


def fine_tuned(model: keras.Model, plan: Plan, sets: Sets | None, display: Display) -> tuple[Any, list[dict]]:
    """The wrapped model, pruned and fine-tuned, and what was measured in each epoch."""
    training, how = plan.training, plan.how
    chosen: dict[str, Any] = {"prunable": how.prunable, "exclude": how.exclude}
    options: dict[str, Any] = {**plan.options, "seed": training.seed}
    masked: Any = wrap(model, **chosen, keep_zeros=True)
    kept = masks_lib.density(state.get_masks(masked))
    if kept < 1:
        display.say(f"{100 * (1 - kept):.3g} % of its prunable weights are zero already, and stay so.")
    check_denser(masked, None if how.scope in masks_lib.CHANNEL_SCOPES else plan.density)
    pruning: list[keras.callbacks.Callback] = []
    if how.one_shot:
        prune(masked, plan.density, **options, probe=_probe(plan, sets))
    else:
        pruning.append(Gradually(plan.density, **options))
    if not sets or not training.epochs:
        return masked, []
    settings = {"spec": plan.spec}
    checkpoint = Checkpoint(plan.state, 0.0, fingerprint(settings, {}))
    if not masked.compiled:
        masked.compile(**compile_arguments(model))
    resume = Resume(checkpoint, pruning)
    data, callbacks = sets.train, []
    if isinstance(data, tuple):
        shuffled = Shuffled(data, training.batch_size, training.seed)
        data, callbacks = shuffled.dataset, [shuffled]
    elif isinstance(data, tf.data.Dataset):
        data = begun_once_an_epoch(data, resume.epochs)
    if resume.epochs:
        display.say(f"Going on after epoch {resume.epochs}.")
    rate = masked.optimizer.learning_rate
    rate = f"{float(rate):g}" if np.ndim(rate) == 0 else "a schedule"
    display.say(
        f"Pruning {aim(plan)}, {'at once' if how.one_shot or plan.density is None else 'bit by bit'}, and training {training.epochs} epoch{'s' if training.epochs > 1 else ''} with "
        f"{type(masked.optimizer).__name__}, learning rate {rate}."
    )
    fit = {
        "x": data,
        "epochs": training.epochs,
        "initial_epoch": resume.epochs,
        "validation_data": sets.validation,
        "verbose": 0,
        "shuffle": not isinstance(data, tf.data.Dataset),
    }
    fit["callbacks"] = [*callbacks, _Shown(display)]
    try:
        fine_tune(masked, model, fit, [*pruning, resume])
    except LotteryError:
        raise
    except Exception as error:  # whatever the loss, the layers and the data raise
        raise DataError(
            f"Expected data that the model can be trained on, but that failed ({first_line(error)})."
        ) from error
    if (bad := next((row["epoch"] for row in resume.rows if not np.isfinite(row["loss"])), None)) is not None:
        raise LotteryError(
            f"Expected a loss that is finite, but in epoch {bad:.0f} it was not: a smaller --learning_rate may help."
        )
    return masked, resume.rows


class _Shown(keras.callbacks.Callback):
    """Tells the display."""

    def __init__(self, display: Display):
        super().__init__()
        self.display = display

    def on_epoch_begin(self, epoch, logs=None):
        self.display.begin(epoch + 1, self.params["steps"])

    def on_train_batch_end(self, batch, logs=None):
        self.display.advance(batch + 1)

    def on_epoch_end(self, epoch, logs=None):
        self.display.done(epoch + 1, logs or {})


def _compile(model: keras.Model, plan: Plan, sets: Sets, display: Display) -> None:
    """Compiles the model as its file says and the flags ask for."""
    training = plan.training
    flags = [name for name in ("loss", "optimizer", "learning_rate") if getattr(training, name) is not None]
    if own := own_step(model):
        if flags:
            raise LotteryError(f"Expected no --{flags[0]} for {model.name!r}, which trains by {own[0]} of its own.")
        return
    settings: dict[str, Any] = compile_arguments(model) if model.compiled else {"optimizer": "adam"}
    if training.optimizer is not None:
        settings["optimizer"] = keras.optimizers.get(training.optimizer)
    if training.learning_rate is not None:
        settings["optimizer"] = _at_rate(keras.optimizers.get(settings["optimizer"]), training.learning_rate)
    x, _ = _some(sets.test, 256)
    try:
        outputs = keras.tree.flatten(called(model, keras.tree.map_structure(tf.constant, x), training=False))
    except Exception as error:  # whatever its layers raise
        raise DataError(
            f"Expected inputs that {model.name!r} can be called on, but that failed ({first_line(error)})."
        ) from error
    if training.loss is not None:
        settings["loss"] = _loss(training.loss, outputs[0])
    if (loss := settings.get("loss")) is None:
        raise LotteryError("Expected a file that was compiled with a loss, or --loss, but received neither.")
    loss = None if isinstance(loss, list | tuple | Mapping) or len(outputs) > 1 else keras.losses.get(loss)
    if "crossentropy" in _name(loss):
        logits = getattr(loss, "from_logits", False)
        if not logits and not _are_probabilities(outputs[0], "binary" in _name(loss)):
            display.say(
                "the loss of the file takes probabilities, but the model puts out other numbers: was from_logits=True forgotten?"
            )
        if not settings.get("metrics") and not settings.get("weighted_metrics"):
            binary = keras.metrics.BinaryAccuracy(threshold=0.0 if logits else 0.5, name="accuracy")
            settings["metrics"] = [binary if "binary" in _name(loss) else "accuracy"]
    model.compile(**settings)


def _at_rate(optimizer: keras.optimizers.Optimizer, rate: float) -> keras.optimizers.Optimizer:
    """The same optimizer with another learning rate, whatever it had, a schedule too."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer  # compile scales the loss again
    return type(optimizer).from_config({**optimizer.get_config(), "learning_rate": rate})


def _loss(name: str, output) -> Any:
    """The loss of that name, of logits where the model puts those out."""
    classes = {
        "sparse_categorical_crossentropy": keras.losses.SparseCategoricalCrossentropy,
        "categorical_crossentropy": keras.losses.CategoricalCrossentropy,
        "binary_crossentropy": keras.losses.BinaryCrossentropy,
    }
    if name in classes:
        return classes[name](from_logits=not _are_probabilities(output, name.startswith("binary")))
    try:
        return keras.losses.get(name)
    except Exception as error:  # Keras knows no such loss
        raise LotteryError(
            f"Expected --loss as the name of a loss, but received {name!r} ({first_line(error)})."
        ) from None


def _name(loss) -> str:
    return str(getattr(loss, "name", getattr(loss, "__name__", "")))


def _are_probabilities(output, binary: bool) -> bool:
    values = np.asarray(keras.ops.convert_to_numpy(output), np.float32)
    within = bool(np.all((values >= 0) & (values <= 1.001)))
    return within and (binary or bool(np.all(np.abs(values.sum(-1) - 1) < 0.01)))


def _some(data, count: int) -> tuple[Any, Any]:
    """The first examples of data, as arrays: inputs and targets."""
    if isinstance(data, tf.data.Dataset):
        data = data.unbatch().take(count).batch(count)
    x, y = arrays_of(data)

    def first(part: Any) -> Any:
        return None if part is None else keras.tree.map_structure(lambda array: np.asarray(array[:count]), part)

    return first(x), first(y)


def _probe(plan: Plan, sets: Sets | None) -> tuple | None:
    if sets is None or criteria.needs(criteria.get(plan.how.criterion)).gradient is None:
        return None
    return _some(sets.train, PROBE)


def _typical(sets: Sets) -> Any:
    """Typical inputs, which set the ranges of int8: from all over the training data, or their first."""
    if not isinstance(sets.train, tuple):
        return _some(sets.train, REPRESENTATIVE)[0]
    x = sets.train[0]
    rows = np.unique(np.linspace(0, len(keras.tree.flatten(x)[0]) - 1, REPRESENTATIVE).astype(int))
    return keras.tree.map_structure(lambda array: array[rows], x)


def aim(plan: Plan) -> str:
    """How far, in words."""
    if plan.density is None:
        m, n = plan.options["sparsity_m_by_n"]
        return f"to {m} zeros in every {n} inputs"
    if isinstance(plan.density, Mapping):
        return "to " + ", ".join(f"{100 * value:.3g} % of {key}" for key, value in plan.density.items())
    what = "channels" if plan.how.scope in masks_lib.CHANNEL_SCOPES else "weights"
    return f"to {100 * plan.density:.3g} % of the {what}"
