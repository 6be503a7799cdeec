"""`Trainer`: the fast training loop, and the papers' measurements along the way.

Whole stretches of steps run inside one compiled function, on data that lies on the device. Each call trains a model for
the same number of steps in the same data order with a fresh optimizer: what `find_ticket` does at every level. For anything
this loop does not do, `find_ticket` takes your own function around `model.fit` instead.
"""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.base.bounds import whole
from tf_lottery.base.errors import DataError, LotteryError, NonFiniteLossError
from tf_lottery.masking.distribution import Replicas
from tf_lottery.masking.gradients import Probe
from tf_lottery.masking.probes import Probes
from tf_lottery.masking.weights import sublayers, value_of
from tf_lottery.masking.wrapping import gradient_masks
from tf_lottery.training.checkpoint import EVERY, Checkpoint, Progress, described, fingerprint, sample_of, stateful
from tf_lottery.training.checks import check_model, objective_for
from tf_lottery.training.evaluation import Evaluation
from tf_lottery.training.examples import OWN, check_metric, checked_set, rows_of, size_of, weighted
from tf_lottery.training.feed import Feed, OtherBatches, Stretch
from tf_lottery.training.loop import Loop
from tf_lottery.training.objective import Objective, Wanted, as_loss
from tf_lottery.training.sources import Kept, Source, is_source, kept

BATCH = 60
PROBE = 128  # examples: the batch of SNIP (Lee et al., 2019) for CIFAR; for MNIST it has 100


class Trainer:
    """Trains a model for a fixed number of steps and finds its early stop: a `train` function for `find_ticket`.

    Arrays are reshuffled each epoch, and the last incomplete batch of an epoch is dropped. A data set is trained on as `fit` does:
    batch by batch, as it comes. If it fits it is kept on the device: in its order, or, if it shuffles itself, shuffled by
    `seed`; one that gives other values in each pass, as augmentation does, is read anew in each epoch. `kept` tells which.

    Every `eval_every` steps the validation loss is measured. The early stop is the step of minimum validation loss, found
    afterwards; its test accuracy is exact, whatever `test_every` is, because the weights of that step are kept for it.

    Masked weights are frozen: their gradients are masked before the optimizer sees them.

    Args:
      x: Training inputs, an array (N, ...), or several in a dict or a list; it may be memory-mapped. Or a `tf.data.Dataset` or
        `PyDataset` of batches `(x, y)` or `(x, y, sample_weight)`.
      y: Training targets, an array (N, ...), or several, as the model has outputs.
      steps: Steps (batches) to train.
      validation: `(x, y)` or `(x, y, sample_weight)`, or a data set, for the early stop.
      test: The same for test accuracy.
      sample_weight: Weights of the training examples, an array (N, ...), or one for each output.
      class_weight: Weights of the training examples by their class, as in `{0: 1.0, 1: 5.0}`.
      optimizer: A Keras optimizer, its name or config. Each call starts from a fresh copy, so its state and learning-rate
        schedule start anew.
      loss: A Keras loss, its name or config, or a function; for several outputs a dict or list of them. By default the
        cross-entropy of integer labels and logits, or of probabilities where the model puts those out.
      loss_weights: What the losses of several outputs are multiplied by, a dict or list.
      metric: A function `(y_true, y_pred)` -> one value per example, for example `keras.metrics.mean_absolute_error`, a Keras
        metric or its name, or several; by output in a dict. By default accuracy, over all positions of a sequence. Whatever it is,
        the entries of the first one in the curve and the metrics are called accuracy; several have entries by their names too.
      weighted_metrics: The same for metrics that sample weights count in.
      batch_size: Examples in a step, 60 by default; of data sets only for one that is not batched.
      eval_every: Steps between measurements of the validation set.
      test_every: Steps between measurements of the test set, for the curve; a multiple of `eval_every`, by default ten
        times it.
      augment: A function `(x, seed) -> x` applied to each training batch in the graph; `seed` is an int32 tensor (2,) made of
        `seed` and the step.
      seed: Decides the data order and the augmentation.
      jit_compile: Whether to compile with XLA; `"auto"` compiles on a GPU, and on a CPU for nets of matrix products only,
        because there XLA slows convolutions and recurrent layers down. To repeat convolutions to the bit on a GPU, give False
        and call `tf.config.experimental.enable_op_determinism()` first.
      device_bytes: A data set up to this size is put on the device as a whole; a larger one is fed by a `tf.data` pipeline,
        with the same results.
      strategy: A `tf.distribute.Strategy` to train with: on each of its replicas a part of every batch. `batch_size` is that of
        all replicas together. The model has to be built under the strategy's scope.
      checkpoint: A file to keep the progress of a training in. A training that was killed goes on from there when it is started
        again, and ends bit for bit as it would have; the file is removed at its end. Callbacks then hear of the rest only;
        one that has something to carry over has two methods, `saved()`, which returns arrays by name, and `resume(arrays)`;
        and if its settings decide what becomes of the model a third, `settings()`, by which one training is told from another.
      checkpoint_every: Seconds between two writings of it, at least.

    Attributes:
      curve: After a call, a list of dicts, one per measurement: step, train_loss (mean since the last one),
        validation_loss, validation_accuracy, test_accuracy (None where it was not measured). Measured losses are of the
        targets alone, without the penalties of regularisers.
      kept: By set how it is read: "kept, shuffled", "kept, in its order", or "streamed".

    Raises:
      LotteryError: If a number is out of range.
      DataError: If the data do not fit each other, or the model.

    Examples:

    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(200, 4)).astype("float32"), rng.integers(0, 2, 200)
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> trainer = Trainer(x, y, steps=20, batch_size=50, validation=(x, y), test=(x, y), eval_every=10)
    >>> sorted(trainer(model))[:3]
    ['early_stop_step', 'early_stop_test_accuracy', 'early_stop_validation_accuracy']

    Reference: Frankle & Carbin (2019), section 2 and appendix: early stop, and its test accuracy.
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        *,
        steps: int,
        validation: Any = None,
        test: Any = None,
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | None = None,
        optimizer: keras.optimizers.Optimizer | str | dict = "adam",
        loss: Any = None,
        loss_weights: Any = None,
        metric: Any = None,
        weighted_metrics: Any = None,
        batch_size: int | None = None,
        eval_every: int = 100,
        test_every: int | None = None,
        augment: Callable | None = None,
        seed: int = 0,
        jit_compile: bool | str = "auto",
        device_bytes: int = 2**30,
        strategy: tf.distribute.Strategy | None = None,
        checkpoint: str | os.PathLike | None = None,
        checkpoint_every: float = EVERY,
    ):
        test_every = 10 * eval_every if test_every is None else test_every
        numbers = {"steps": steps, "eval_every": eval_every, "test_every": test_every}
        numbers |= {} if batch_size is None else {"batch_size": batch_size}
        if not checkpoint_every >= 0:
            raise LotteryError(f"Expected checkpoint_every of 0 seconds or more, but received {checkpoint_every!r}.")
        for name, value in numbers.items():
            whole(name, value, 1)
        whole("seed", seed)
        for part in _leaves(loss):
            as_loss(part)
        self.steps, self.seed, self.eval_every, self.test_every = steps, seed, eval_every, test_every
        self.optimizer = keras.optimizers.get(optimizer)
        self.wanted = Wanted(loss, loss_weights, metric, weighted_metrics)
        if loss is None:
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.loss: Any = None if keras.tree.is_nested(loss) else as_loss(loss)  # until a model is there
        self.augment, self.jit_compile, self.replicas = augment, jit_compile, Replicas(strategy)
        train = _train_set(x, y, sample_weight)
        given = {"train": train, "validation": validation, "test": test}
        self.sets = {
            name: _read(name, one, batch_size, class_weight if name == "train" else None, seed, device_bytes)
            for name, one in given.items()
            if one is not None
        }
        own = self.sets["train"]
        if isinstance(own, Source):
            self.batch_size = size_of(own.first)
        else:
            self.batch_size = max(own.sizes) if own.sizes else batch_size or BATCH
            if self.batch_size > len(own):
                raise DataError(
                    f"Expected at least batch_size={self.batch_size} training examples, but received {len(own)}."
                )
            if metric is None and weighted_metrics is None and not keras.tree.is_nested(own.examples[1]):
                check_metric(None, own.examples[1])
        self._check_replicas(own)
        self.curve: list[dict] = []
        self._loop: Loop | None = None
        self._objective: Objective | None = None
        self._evaluation: Evaluation | None = None
        self.checkpoint, self.checkpoint_every = checkpoint, checkpoint_every
        self._feed = Feed(self.sets, self.batch_size, seed, device_bytes, self.replicas)

    @property
    def kept(self) -> dict[str, str]:
        """By set how it is read."""
        return {name: "streamed" if isinstance(own, Source) else _KEPT[own.shuffled] for name, own in self.sets.items()}

    def _check_replicas(self, own: Kept | Source) -> None:
        if isinstance(own, Source) and (self.replicas.cluster is not None or (own.varies and self.replicas.count > 1)):
            raise LotteryError(
                "Expected data that fit in memory, the same in each pass and of one shape, for several replicas or workers, but the train "
                f"data are streamed; {OWN}."
            )
        if isinstance(own, Kept) and own.sizes and min(own.sizes) < self.replicas.count:
            raise DataError(
                f"Expected batches of at least one example for each of the {self.replicas.count} replicas, but the train data have "
                f"one of {min(own.sizes)}: dataset.batch(..., drop_remainder=True) leaves it out."
            )

    def __call__(
        self,
        model: keras.Model,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        *,
        steps: int | None = None,
        seed: int | None = None,
    ) -> dict[str, float]:
        """Trains `model` and returns its metrics.

        Args:
          model: A built model, wrapped or plain.
          callbacks: Keras callbacks; the number of steps is fixed, so none can stop the training. `on_train_begin`,
            `on_train_end` and, at the end of each stretch of steps, `on_train_batch_end(step - 1, logs)` are called;
            `logs` has `step` and, where they were measured, the entries of the curve. A stretch ends at every multiple
            of `eval_every` and at the steps that a callback lists in an attribute `at_steps`. One that changes the model
            does it in a method `on_stretch_end(step)`, which comes before the measurements; with an attribute
            `early_stop_from` it names the first step that may be the early stop. `params["optimizer"]` is the optimizer
            that trains the model, `params["probes"]` what probes of the training set are drawn from, `params["jit_compile"]` whether XLA
            compiles the steps.
          steps: Another number of steps than the Trainer's, for this training alone.
          seed: Another data order and augmentation than the Trainer's, for this training alone.

        Returns:
          early_stop_step, early_stop_validation_loss, early_stop_validation_accuracy, early_stop_test_accuracy,
          final_train_loss, final_validation_accuracy, final_test_accuracy, seconds; those of validation and test only
          where there is such a set.

        Raises:
          NonFiniteLossError: If the training loss becomes NaN, infinite or larger than 1e30, the curve up to there is kept; or if a
            weight is NaN or infinite at the end.
          WorkerLostError: If another of several workers stopped.
        """
        steps = whole("steps", self.steps if steps is None else steps, 1)
        seed = None if seed is None else whole("seed", seed)
        if seed not in (None, self.seed) and self.kept["train"] in _SEEDLESS and self.augment is None:
            raise LotteryError(
                "Expected training data that a seed shuffles, arrays or a data set that fits and shuffles itself, for a seed of its own, "
                f"but they are {self.kept['train']}."
            )
        with self.replicas.together():
            return self._trained(model, callbacks, int(steps), self.seed if seed is None else int(seed))

    def fingerprint(
        self, model: keras.Model, callbacks: Sequence[keras.callbacks.Callback] = (), *, steps: int | None = None
    ) -> str:
        """What tells this training of `model`, as it is now, from others: two that have the same end the same, to the bit.

        Args:
          model, callbacks, steps: Those that the training is to be called with.

        Returns:
          A SHA-256 of the settings, the versions, a sample of the data, and all variables of the model.

        Raises:
          LotteryError: If data are streamed, which nobody knows beforehand.
        """
        if "streamed" in self.kept.values():
            raise LotteryError(
                "Expected data that are kept in memory, to tell one training from others, but they are streamed."
            )
        steps = self.steps if steps is None else steps
        with self.replicas.together():
            return self._owner(model, self._begun(model, callbacks, steps), callbacks, steps, self.seed)

    def _begun(self, model: keras.Model, callbacks: Sequence[keras.callbacks.Callback], steps: int) -> Loop:
        loop = self._loop_for(model)
        probes = self._probes(loop.objective)
        for callback in callbacks:
            params = {"epochs": 1, "steps": steps, "verbose": 0, "optimizer": loop.optimizer, "probes": probes}
            callback.set_params({**params, "jit_compile": loop.jit})
            callback.set_model(model)
            callback.on_train_begin()
        return loop

    def _trained(
        self, model: keras.Model, callbacks: Sequence[keras.callbacks.Callback], steps: int, seed: int
    ) -> dict[str, float]:
        loop = self._begun(model, callbacks, steps)
        early_stop_from = max((getattr(callback, "early_stop_from", 0) for callback in callbacks), default=0)
        progress, checkpoint = Progress(), self._checkpoint_of(model, loop, callbacks, steps, seed)
        stretches = self._stretches(callbacks, steps, progress, seed, notes=checkpoint is not None)
        if checkpoint:
            resumed: list[Iterator[Stretch]] = []
            found = checkpoint.load(
                callbacks, lambda progress: self._goes_on(callbacks, steps, progress, seed, resumed)
            )
            if found is not None:
                progress, state = found
                loop.set_state(state)
                (stretches,) = resumed
            self.replicas.check_same(progress.step, f"checkpoint in {checkpoint.path}")
        began, self.curve = time.perf_counter() - progress.seconds, progress.curve
        for step, stretch, loss in self._train(loop, stretches, progress.step, seed):
            progress.step, progress.read = step, stretch.read
            progress.losses.append((self._share(stretch), loss))
            for callback in callbacks:
                if hasattr(callback, "on_stretch_end"):
                    callback.on_stretch_end(step)
            if step == steps:
                loop.finish()
            row = {}
            if step % self.eval_every == 0 or step == steps:
                mean = sum(n * value for n, value in progress.losses) / sum(n for n, _ in progress.losses)
                row, progress.losses = self._measure(loop, step, mean, last=step == steps), []
                self.curve.append(row)
                if "validation" in self.sets and step >= early_stop_from and self._is_best(progress):
                    progress.best, progress.best_values = len(self.curve) - 1, loop.values()
            for callback in callbacks:
                callback.on_train_batch_end(step - 1, {"step": step, **row})
            if checkpoint and checkpoint.due:
                progress.seconds = time.perf_counter() - began
                checkpoint.save(progress, loop.state(), callbacks)
        for callback in callbacks:
            callback.on_train_end()
        if (path := loop.not_finite()) is not None:
            raise NonFiniteLossError(steps, path)
        metrics = self._early_stop(loop, progress)
        last = self.curve[-1]
        metrics |= {f"final_{key}": last[key] for key in last if key not in ("step", "validation_loss")}
        metrics["seconds"] = round(time.perf_counter() - began, 3)
        if checkpoint:
            checkpoint.remove()
        return metrics

    def _is_best(self, progress: Progress) -> bool:
        """Whether the last measurement is the early stop so far."""
        best = None if progress.best is None else self.curve[progress.best]["validation_loss"]
        return best is None or math.isnan(best) or self.curve[-1]["validation_loss"] < best

    def _early_stop(self, loop: Loop, progress: Progress) -> dict[str, float]:
        """The measurements of the early stop; its test accuracy is measured now if it was not before."""
        if progress.best is None:
            return {}
        row = self.curve[progress.best]
        if "test" in self.sets and row["test_accuracy"] is None:
            final = loop.values()
            loop.assign(progress.best_values)
            row |= self._tested(loop)
            loop.assign(final)
        return {f"early_stop_{key}": value for key, value in row.items() if key != "train_loss"}

    def _checkpoint_of(self, model: keras.Model, loop: Loop, callbacks, steps: int, seed: int) -> Checkpoint | None:
        """The file of this training, which its owner tells from others."""
        if self.checkpoint is None:
            return None
        owner = self._owner(model, loop, callbacks, steps, seed)
        return Checkpoint(self.checkpoint, self.checkpoint_every, owner, writes=self.replicas.is_chief)

    def _owner(self, model: keras.Model, loop: Loop, callbacks, steps: int, seed: int) -> str:
        """A training by its settings, its data, and the model it begins with."""
        settings = {
            "numbers": [steps, self.batch_size, seed, self.eval_every, self.test_every, self.replicas.count],
            "at_steps": _at_steps(callbacks),
            "parts": [described(part) for part in (loop.optimizer, self.augment)] + loop.objective.described(described),
            "kept": self.kept,
            "policies": [layer.dtype_policy.name for layer in sublayers(model)],
            "versions": [tf.__version__, keras.__version__, np.__version__, loop.jit],
        }
        if told := [callback.settings() for callback in stateful(callbacks) if hasattr(callback, "settings")]:
            settings["callbacks"] = told
        values = {f"variable {i}": value_of(variable) for i, variable in enumerate(model.variables)}
        for name, own in self.sets.items():
            if isinstance(own, Kept):
                arrays = keras.tree.flatten(own.examples)
                values |= {f"{name} {i}": sample_of(array) for i, array in enumerate(arrays)}
        return fingerprint(settings, values)

    @property
    def probe(self) -> Probe:
        """One batch of the training set, `(x, y, loss)`: 128 examples at random, or all of a smaller set, augmented if training is.

        What criteria that need a gradient take it on; decided by `seed`, and the same each time. Of a set that is streamed its
        first batch. Its loss is that of the model that was trained last; see `probe_for`.

        Raises:
          LotteryError: If there was none yet, and losses of several outputs go by its outputs.
        """
        x, y, *weights = self._sampled(PROBE)
        if self._objective is not None:
            return x, y, self._objective.on(*weights or [None])
        if self.loss is None or weights:
            raise LotteryError(
                "Expected a model, for whose outputs the losses are, or for sample weights, but the Trainer has trained none yet: "
                "trainer.probe_for(model) gives the probe."
            )
        return x, y, self.loss

    def _probes(self, objective: Objective) -> Probes:
        """What probes are drawn from: the training set, or of one that is streamed its first batch."""
        x, y, *weights = _examples(self.sets["train"])
        if not weights:
            return Probes(x, y, objective.on(None), self.augment)

        def loss(targets_and_weights, outputs):
            return objective.loss(targets_and_weights[0], outputs, targets_and_weights[1])

        loss.from_logits = objective.from_logits  # type: ignore[attr-defined]
        return Probes(x, (y, *weights), loss, self.augment)

    def probe_for(self, model: keras.Model) -> Probe:
        """The probe for a model that is built, with its loss."""
        if self._loop is None or not self._loop.serves(model):
            check_model(model, _examples(self.sets["train"]))
            self._objective = self._objective_for(model)
        return self.probe

    def sample(self, count: int) -> tuple[Any, Any]:
        """So many examples of the training set at random, `(x, y)`, or all of a smaller one, augmented if training is."""
        return self._sampled(count)[:2]

    def _sampled(self, count: int) -> tuple:
        own = self.sets["train"]
        if isinstance(own, Source):
            examples = own.first
        else:
            rng = np.random.default_rng([self.seed, 0, 4])  # epoch e is shuffled by [seed, e]
            examples = rows_of(own.examples, np.sort(rng.permutation(len(own))[:count]))
        x, *others = keras.tree.map_structure(tf.constant, examples)
        return self._augmented(x), *others

    def _augmented(self, x):
        return x if self.augment is None else self.augment(x, tf.constant([self.seed, 0]))

    def test_accuracy(self, model: keras.Model) -> float:
        """The accuracy of a model on the test set, as it is: nothing is trained.

        Raises:
          DataError: If the Trainer was given no test set, or one that does not fit the model.
        """
        if "test" not in self.sets:
            raise DataError("Expected a Trainer with a test set, but it was given none.")
        check_model(model, _examples(self.sets["test"]))
        if self._evaluation is None or self._evaluation.model is not model:
            self._evaluation = Evaluation(model, self._objective_for(model), self.replicas, self._varies)
        with self.replicas.together():
            return self._evaluate(self._evaluation, "test")["accuracy"]

    def _stretches(self, callbacks, steps: int, progress: Progress, seed: int, notes: bool) -> Iterator[Stretch]:
        """What is left to run."""
        ends = {*range(self.eval_every, steps, self.eval_every), *_at_steps(callbacks), steps}
        wanted = sorted(end for end in ends if 0 < end <= steps)
        longest = min(self.eval_every, self.steps)
        return self._feed.stretches(wanted, longest, progress.step, progress.read, notes=notes, seed=seed)

    def _goes_on(self, callbacks, steps: int, progress: Progress, seed: int, resumed: list[Iterator[Stretch]]) -> bool:
        """Whether the data can go on where a training was stopped; then `resumed` gets what is left to run."""
        stretches = self._stretches(callbacks, steps, progress, seed, notes=True)
        try:
            first = list(itertools.islice(stretches, 1))
        except OtherBatches:
            return False
        resumed.append(itertools.chain(first, stretches))
        return True

    def _train(
        self, loop: Loop, stretches: Iterator[Stretch], step: int, seed: int
    ) -> Iterator[tuple[int, Stretch, float]]:
        """Runs stretch after stretch; yields the step reached, the stretch, and its mean loss."""
        for stretch in stretches:
            loss, bad = loop.run(
                stretch.examples, stretch.rows, tf.constant(stretch.steps), tf.constant(step), tf.constant(seed)
            )
            if bad >= 0:
                raise NonFiniteLossError(step + int(bad) + 1)
            step += stretch.steps
            yield step, stretch, float(loss)

    def _share(self, stretch: Stretch) -> float:
        """How much its mean loss counts: its steps, those with smaller batches in part."""
        size = stretch.rows.shape[1]
        return stretch.steps if size == self.batch_size else stretch.steps * size / self.batch_size

    def _measure(self, loop: Loop, step: int, train_loss: float, last: bool) -> dict:
        row: dict[str, float | None] = {"step": step, "train_loss": train_loss}
        if "validation" in self.sets:
            row |= _named("validation", self._evaluate(loop.evaluate, "validation"))
        if "test" in self.sets:
            due = step % self.test_every == 0 or last
            row |= self._tested(loop) if due else {"test_accuracy": None}
        return row

    def _tested(self, loop: Loop) -> dict[str, float]:
        measured = _named("test", self._evaluate(loop.evaluate, "test"))
        return {key: value for key, value in measured.items() if key != "test_loss"}

    def _evaluate(self, evaluate: Evaluation, name: str) -> dict[str, float]:
        """Mean loss and metrics over a whole set."""
        return evaluate(self._feed.evaluated(name, evaluate.objective.by_batch))

    @property
    def _varies(self) -> bool:
        return any(isinstance(own, Source) and own.varies for own in self.sets.values())

    def _objective_for(self, model: keras.Model) -> Objective:
        plain, _, _ = gradient_masks(model)
        objective = objective_for(
            plain, {n: _examples(own) for n, own in self.sets.items()}, self.wanted, self._augmented
        )
        self.loss = objective.one_loss or objective.on(None)
        return objective

    def _loop_for(self, model: keras.Model) -> Loop:
        """The compiled loop of the last model is kept: the levels of a search compile once."""
        check_model(model, _examples(self.sets["train"]))
        self.replicas.check(model, self.batch_size)
        if self._loop is None or not self._loop.serves(model):
            self._objective = self._objective_for(model)
            self._loop = Loop(
                model,
                optimizer=self.optimizer,
                objective=self._objective,
                augment=self.augment,
                jit_compile=self.jit_compile,
                replicas=self.replicas,
                varies=self._varies,
            )
        self._loop.reset()
        return self._loop


def _train_set(x: Any, y: Any, sample_weight: Any) -> Any:
    """What was given for the training set, in one."""
    if not is_source(x):
        return (x, y) if sample_weight is None else (x, y, sample_weight)
    for name, value in {"y": y, "sample_weight": sample_weight}.items():
        if value is not None:
            raise DataError(
                f"Expected no {name} beside a data set, whose batches hold (inputs, targets, sample weights), but received "
                f"{type(value).__name__}."
            )
    return x


def _read(
    name: str, given: Any, batch_size: int | None, class_weight: Any, seed: int, device_bytes: int
) -> Kept | Source:
    if not is_source(given):
        return Kept(weighted(checked_set(name, given), class_weight))
    source = Source(name, given, batch_size, class_weight, seed)
    if name != "train" and source.is_endless:
        raise DataError(f"Expected {name} data that end, but the data set is endless: dataset.take(n) has n batches.")
    return kept(source, device_bytes) or source


def _examples(own: Kept | Source) -> tuple:
    return own.first if isinstance(own, Source) else own.examples


def _leaves(loss: Any) -> list:
    if isinstance(loss, dict) and "class_name" in loss:
        return [loss]
    return [part for part in keras.tree.flatten(loss) if part is not None]


def _named(name: str, measured: Mapping[str, float]) -> dict[str, float]:
    return {f"{name}_{key}": value for key, value in measured.items()}


def _at_steps(callbacks) -> list[int]:
    """The steps at which callbacks want to be called."""
    return sorted({int(at) for callback in callbacks for at in getattr(callback, "at_steps", ())})


_SEEDLESS = ("kept, in its order", "streamed")
_KEPT = {"examples": "kept, shuffled", "batches": "kept, its batches shuffled", "nothing": "kept, in its order"}
