"""`Trainer`: the fast training loop, and the papers' measurements along the way.

Whole stretches of steps run inside one compiled function, on data that lies on the device. Each call trains a model for
the same number of steps in the same data order with a fresh optimizer: what `find_ticket` does at every level. For anything
this loop does not do, `find_ticket` takes your own function around `model.fit` instead.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.base.errors import DataError, LotteryError, NonFiniteLossError
from tf_lottery.masking.distribution import Replicas
from tf_lottery.masking.gradients import Probe
from tf_lottery.masking.probes import Probes
from tf_lottery.masking.weights import sublayers, value_of
from tf_lottery.masking.wrapping import gradient_masks
from tf_lottery.training.checkpoint import EVERY, Checkpoint, Progress, described, fingerprint, sample_of, stateful
from tf_lottery.training.examples import Examples, check_labels, check_metric, check_shapes, check_values, checked_set
from tf_lottery.training.feed import Feed
from tf_lottery.training.loop import Evaluation, Loop, accuracy_for

PROBE = 128  # examples: the batch of SNIP (Lee et al., 2019) for CIFAR; for MNIST it has 100


class Trainer:
    """Trains a model for a fixed number of steps and finds its early stop: a `train` function for `find_ticket`.

    The training set is reshuffled each epoch and the last incomplete batch of an epoch is dropped. Every `eval_every`
    steps the validation loss is measured. The early stop is the step of minimum validation loss, found afterwards; its
    test accuracy is exact, whatever `test_every` is, because the weights of that step are kept for it.

    Masked weights are frozen: their gradients are masked before the optimizer sees them.

    Args:
      x: Training inputs, an array (N, ...); it may be memory-mapped.
      y: Training targets, an array (N, ...).
      steps: Steps (batches) to train.
      validation: `(x, y)` for the early stop.
      test: `(x, y)` for test accuracy.
      optimizer: A Keras optimizer, its name or config. Each call starts from a fresh copy, so its state and learning-rate
        schedule start anew.
      loss: A Keras loss, its name or config; by default the cross-entropy of integer labels and logits, or of probabilities
        where the model puts those out.
      metric: A function `(y_true, y_pred)` -> one value per example, for example `keras.metrics.mean_absolute_error`; by
        default accuracy. Whatever it is, its entries in the curve and the metrics are called accuracy.
      batch_size: Examples in a step.
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
        validation_loss, validation_accuracy, test_accuracy (None where it was not measured).

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
        x: np.ndarray,
        y: np.ndarray,
        *,
        steps: int,
        validation: Examples | None = None,
        test: Examples | None = None,
        optimizer: keras.optimizers.Optimizer | str | dict = "adam",
        loss: keras.losses.Loss | str | dict | None = None,
        metric: Callable | None = None,
        batch_size: int = 60,
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
        numbers = {"steps": steps, "batch_size": batch_size, "eval_every": eval_every, "test_every": test_every}
        if not checkpoint_every >= 0:
            raise LotteryError(f"Expected checkpoint_every of 0 seconds or more, but received {checkpoint_every!r}.")
        for name, value in numbers.items():
            if not isinstance(value, int | np.integer) or value < 1:
                raise LotteryError(f"Expected {name} of at least 1, a whole number, but received {value!r}.")
        given = {"train": (x, y), "validation": validation, "test": test}
        self.sets = {name: checked_set(name, pair) for name, pair in given.items() if pair is not None}
        if batch_size > len(y):
            raise DataError(f"Expected at least batch_size={batch_size} training examples, but received {len(y)}.")
        self.steps, self.batch_size, self.seed = steps, batch_size, seed
        self.eval_every, self.test_every = eval_every, test_every
        self.optimizer = keras.optimizers.get(optimizer)
        self._given_loss = keras.losses.get(loss)
        self.loss = self._given_loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.metric, self.augment = metric or accuracy_for(self.loss), augment
        check_metric(metric, self.sets["train"][1])
        self.jit_compile, self.replicas = jit_compile, Replicas(strategy)
        self.curve: list[dict] = []
        self._loop: Loop | None = None
        self._evaluation: Evaluation | None = None
        self.checkpoint, self.checkpoint_every = checkpoint, checkpoint_every
        self._feed = Feed(self.sets, batch_size, seed, device_bytes, self.replicas)

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
            that trains the model, `params["probes"]` what probes of the training set are drawn from.
          steps: Another number of steps than the Trainer's, for this training alone.
          seed: Another data order and augmentation than the Trainer's, for this training alone.

        Returns:
          early_stop_step, early_stop_validation_loss, early_stop_validation_accuracy, early_stop_test_accuracy,
          final_train_loss, final_validation_accuracy, final_test_accuracy, seconds; those of validation and test only
          where there is such a set.

        Raises:
          NonFiniteLossError: If the training loss becomes NaN or infinite; the curve up to there is kept.
          WorkerLostError: If another of several workers stopped.
        """
        steps = self.steps if steps is None else steps
        if not isinstance(steps, int | np.integer) or steps < 1:
            raise LotteryError(f"Expected steps of at least 1, a whole number, but received {steps!r}.")
        if seed is not None and (not isinstance(seed, int | np.integer) or seed < 0):
            raise LotteryError(f"Expected seed of 0 or more, a whole number, but received {seed!r}.")
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
        """
        steps = self.steps if steps is None else steps
        with self.replicas.together():
            return self._owner(model, self._begun(model, callbacks, steps), callbacks, steps, self.seed)

    def _begun(self, model: keras.Model, callbacks: Sequence[keras.callbacks.Callback], steps: int) -> Loop:
        loop = self._loop_for(model)
        probes = Probes(*self.sets["train"], self.loss, self.augment)
        for callback in callbacks:
            callback.set_params(
                {"epochs": 1, "steps": steps, "verbose": 0, "optimizer": loop.optimizer, "probes": probes}
            )
            callback.set_model(model)
            callback.on_train_begin()
        return loop

    def _trained(
        self, model: keras.Model, callbacks: Sequence[keras.callbacks.Callback], steps: int, seed: int
    ) -> dict[str, float]:
        loop = self._begun(model, callbacks, steps)
        early_stop_from = max((getattr(callback, "early_stop_from", 0) for callback in callbacks), default=0)
        progress, checkpoint = Progress(), self._checkpoint_of(model, loop, callbacks, steps, seed)
        if checkpoint:
            if (found := checkpoint.load(callbacks)) is not None:
                progress, state = found
                loop.set_state(state)
            self.replicas.check_same(progress.step, f"checkpoint in {checkpoint.path}")
        began, self.curve = time.perf_counter() - progress.seconds, progress.curve
        for step, count, loss in self._train(loop, callbacks, progress.step, steps, seed):
            progress.step = step
            progress.losses.append((count, loss))
            for callback in callbacks:
                if hasattr(callback, "on_stretch_end"):
                    callback.on_stretch_end(step)
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
        metrics = self._early_stop(loop, progress)
        last = self.curve[-1]
        metrics |= {f"final_{key}": last[key] for key in last if key in _FINAL}
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
            row["test_accuracy"] = self._evaluate(loop.evaluate, "test")[1]
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
            "parts": [described(part) for part in (loop.optimizer, self.loss, self.metric, self.augment)],
            "policies": [layer.dtype_policy.name for layer in sublayers(model)],
            "versions": [tf.__version__, keras.__version__, np.__version__, loop.jit],
        }
        if told := [callback.settings() for callback in stateful(callbacks) if hasattr(callback, "settings")]:
            settings["callbacks"] = told
        values = {f"variable {i}": value_of(variable) for i, variable in enumerate(model.variables)}
        for name, arrays in self.sets.items():
            values |= {f"{name} {part}": sample_of(array) for part, array in zip("xy", arrays)}
        return fingerprint(settings, values)

    @property
    def probe(self) -> Probe:
        """One batch of the training set, `(x, y, loss)`: 128 examples at random, or all of a smaller set, augmented if training is.

        What criteria that need a gradient take it on; decided by `seed`, and the same each time.
        """
        return *self.sample(PROBE), self.loss

    def sample(self, count: int) -> tuple[tf.Tensor, tf.Tensor]:
        """So many examples of the training set at random, `(x, y)`, or all of a smaller one, augmented if training is."""
        x, y = self.sets["train"]
        rng = np.random.default_rng([self.seed, 0, 4])  # epoch e is shuffled by [seed, e]
        rows = np.sort(rng.permutation(len(y))[:count])
        return self._augmented(tf.constant(x[rows])), tf.constant(y[rows])

    def _augmented(self, x):
        return x if self.augment is None else self.augment(x, tf.constant([self.seed, 0]))

    def test_accuracy(self, model: keras.Model) -> float:
        """The accuracy of a model on the test set, as it is: nothing is trained.

        Raises:
          DataError: If the Trainer was given no test set, or one that does not fit the model.
        """
        if "test" not in self.sets:
            raise DataError("Expected a Trainer with a test set, but it was given none.")
        check_shapes(model, *self.sets["test"])
        if self._evaluation is None or self._evaluation.model is not model:
            self._evaluation = Evaluation(model, self.loss, self.metric, self.replicas)
        with self.replicas.together():
            return self._evaluate(self._evaluation, "test")[1]

    def _train(self, loop: Loop, callbacks, step: int, last: int, seed: int) -> Iterator[tuple[int, int, float]]:
        """Runs stretch after stretch; yields the step reached, the steps since the last one, and their mean loss."""
        steps = {*range(self.eval_every, last, self.eval_every), *_at_steps(callbacks), last}
        ends = sorted(end for end in steps if 0 < end <= last)
        for x, y, rows, count in self._feed.stretches(ends, min(self.eval_every, self.steps), step, seed):
            loss, bad = loop.run(x, y, rows, count, tf.constant(step), tf.constant(seed))
            if bad >= 0:
                raise NonFiniteLossError(step + int(bad) + 1)
            step += int(count)
            yield step, int(count), float(loss)

    def _measure(self, loop: Loop, step: int, train_loss: float, last: bool) -> dict:
        row: dict[str, float | None] = {"step": step, "train_loss": train_loss}
        if "validation" in self.sets:
            row["validation_loss"], row["validation_accuracy"] = self._evaluate(loop.evaluate, "validation")
        if "test" in self.sets:
            due = step % self.test_every == 0 or last
            row["test_accuracy"] = self._evaluate(loop.evaluate, "test")[1] if due else None
        return row

    def _evaluate(self, evaluate: Evaluation, name: str) -> tuple[float, float]:
        """Mean loss and mean metric over a whole set."""
        sums = sum(evaluate(x, y).numpy() for x, y in self._feed.evaluated[name])
        loss, metric = (sums / len(self.sets[name][1])).tolist()
        return loss, metric

    def _loop_for(self, model: keras.Model) -> Loop:
        """The compiled loop of the last model is kept: the levels of a search compile once."""
        check_shapes(model, *self.sets["train"])
        self.replicas.check(model, self.batch_size)
        if self._loop is None or not self._loop.serves(model):
            check_labels(model, self.sets)
            plain, _, _ = gradient_masks(model)
            self.loss = check_values(plain, self.sets, self._given_loss, self.metric, self._augmented)
            self._loop = Loop(
                model,
                optimizer=self.optimizer,
                loss=self.loss,
                metric=self.metric,
                augment=self.augment,
                jit_compile=self.jit_compile,
                replicas=self.replicas,
            )
        self._loop.reset()
        return self._loop


def _at_steps(callbacks) -> list[int]:
    """The steps at which callbacks want to be called."""
    return sorted({int(at) for callback in callbacks for at in getattr(callback, "at_steps", ())})


_FINAL = ("train_loss", "validation_accuracy", "test_accuracy")
