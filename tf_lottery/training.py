"""`Trainer`: the fast training loop, and the papers' measurements along the way.

Whole stretches of steps run inside one compiled function, on data that lies on the device. Each call trains a model for
the same number of steps in the same data order with a fresh optimizer: what `find_ticket` does at every level. For anything
this loop does not do, `find_ticket` takes your own function around `model.fit` instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.errors import DataError, LotteryError, NonFiniteLossError
from tf_lottery.examples import BatchOrder, Examples, check_labels, check_metric, check_shapes, checked_set
from tf_lottery.gradients import Probe
from tf_lottery.layers import gradient_masks
from tf_lottery.loop import EVAL_BATCH, Evaluation, Loop, accuracy_for

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
      loss: A Keras loss, its name or config; by default the cross-entropy of integer labels and logits.
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
        because there XLA slows convolutions and recurrent layers down.
      device_bytes: A data set up to this size is put on the device as a whole; a larger one is fed by a `tf.data` pipeline,
        with the same results.

    Attributes:
      curve: After a call, a list of dicts, one per measurement: step, train_loss (mean since the last one),
        validation_loss, validation_accuracy, test_accuracy (None where it was not measured).

    Raises:
      LotteryError: If a number is out of range.
      DataError: If the data do not fit each other, or the model.

    Example:

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
    ):
        test_every = 10 * eval_every if test_every is None else test_every
        numbers = {"steps": steps, "batch_size": batch_size, "eval_every": eval_every, "test_every": test_every}
        for name, value in numbers.items():
            if not isinstance(value, int | np.integer) or value < 1:
                raise LotteryError(f"Expected {name} of at least 1, a whole number, but received {value!r}.")
        self.sets = {"train": (x, y), "validation": validation, "test": test}
        self.sets = {name: checked_set(name, pair) for name, pair in self.sets.items() if pair is not None}
        if batch_size > len(y):
            raise DataError(f"Expected at least batch_size={batch_size} training examples, but received {len(y)}.")
        self.steps, self.batch_size, self.seed = steps, batch_size, seed
        self.eval_every, self.test_every = eval_every, test_every
        self.optimizer = keras.optimizers.get(optimizer)
        self.loss = keras.losses.get(loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        self.metric, self.augment = metric or accuracy_for(self.loss), augment
        check_metric(metric, self.sets["train"][1])
        self.jit_compile, self.device_bytes = jit_compile, device_bytes
        self.curve: list[dict] = []
        self._loop: Loop | None = None
        self._evaluation: Evaluation | None = None
        self._resident = tuple(map(tf.constant, self.sets["train"])) if self._fits("train") else None
        self._evaluated = {name: self._parts(name) for name in self.sets if name != "train"}

    def __call__(self, model: keras.Model, callbacks: Sequence[keras.callbacks.Callback] = ()) -> dict[str, float]:
        """Trains `model` and returns its metrics.

        Args:
          model: A built model, wrapped or plain.
          callbacks: Keras callbacks; the number of steps is fixed, so none can stop the training. `on_train_begin`,
            `on_train_end` and, at the end of each stretch of steps, `on_train_batch_end(step - 1, logs)` are called;
            `logs` has `step` and, where they were measured, the entries of the curve. A stretch ends at every multiple
            of `eval_every` and at the steps that a callback lists in an attribute `at_steps`.

        Returns:
          early_stop_step, early_stop_validation_loss, early_stop_validation_accuracy, early_stop_test_accuracy,
          final_train_loss, final_validation_accuracy, final_test_accuracy, seconds; those of validation and test only
          where there is such a set.

        Raises:
          NonFiniteLossError: If the training loss becomes NaN or infinite; the curve up to there is kept.
        """
        began, self.curve = time.perf_counter(), []
        loop = self._loop_for(model)
        for callback in callbacks:
            callback.set_model(model)
            callback.on_train_begin()
        best, metrics = None, {}
        losses: list[tuple[int, float]] = []
        for step, count, loss in self._train(loop, callbacks):
            losses.append((count, loss))
            row = {}
            if step % self.eval_every == 0 or step == self.steps:
                mean = sum(n * value for n, value in losses) / sum(n for n, _ in losses)
                row, losses = self._measure(loop, step, mean), []
                self.curve.append(row)
                if best is None or row.get("validation_loss", np.inf) < best[0]["validation_loss"]:
                    best = (row, loop.values()) if "validation" in self.sets else None
            for callback in callbacks:
                callback.on_train_batch_end(step - 1, {"step": step, **row})
        for callback in callbacks:
            callback.on_train_end()
        if best:
            row, values = best
            if "test" in self.sets and row["test_accuracy"] is None:
                final = loop.values()
                loop.assign(values)
                row["test_accuracy"] = self._evaluate(loop.evaluate, "test")[1]
                loop.assign(final)
            metrics |= {f"early_stop_{key}": value for key, value in row.items() if key != "train_loss"}
        last = self.curve[-1]
        metrics |= {f"final_{key}": last[key] for key in last if key in _FINAL}
        metrics["seconds"] = round(time.perf_counter() - began, 3)
        return metrics

    @property
    def probe(self) -> Probe:
        """One batch of the training set, `(x, y, loss)`: 128 examples at random, or all of a smaller set, augmented if training is.

        What criteria that need a gradient take it on; decided by `seed`, and the same each time.
        """
        x, y = self.sets["train"]
        rng = np.random.default_rng([self.seed, 0, 4])  # epoch e is shuffled by [seed, e]
        rows = np.sort(rng.permutation(len(y))[:PROBE])
        x, y = tf.constant(x[rows]), tf.constant(y[rows])
        return x if self.augment is None else self.augment(x, tf.constant([self.seed, 0])), y, self.loss

    def test_accuracy(self, model: keras.Model) -> float:
        """The accuracy of a model on the test set, as it is: nothing is trained.

        Raises:
          DataError: If the Trainer was given no test set, or one that does not fit the model.
        """
        if "test" not in self.sets:
            raise DataError("Expected a Trainer with a test set, but it was given none.")
        check_shapes(model, *self.sets["test"])
        if self._evaluation is None or self._evaluation.model is not model:
            self._evaluation = Evaluation(model, self.loss, self.metric)
        return self._evaluate(self._evaluation, "test")[1]

    def _train(self, loop: Loop, callbacks) -> Iterator[tuple[int, int, float]]:
        """Runs stretch after stretch; yields the step reached, the steps since the last one, and their mean loss."""
        extra = sorted({at for callback in callbacks for at in getattr(callback, "at_steps", ())})
        step = 0
        for x, y, rows, count in self._stretches(extra):
            loss, bad = loop.run(x, y, rows, count, tf.constant(step))
            if bad >= 0:
                raise NonFiniteLossError(step + int(bad) + 1)
            step += int(count)
            yield step, int(count), float(loss)

    def _stretches(self, extra: Sequence[int]) -> Iterator[tuple]:
        """(x, y, rows, count): in step i of a stretch the batch is `x[rows[i]], y[rows[i]]`; only `count` rows are used."""
        longest = min(self.eval_every, self.steps)
        if self._resident:
            for rows in self._orders(extra, longest):
                padded = np.zeros((longest, self.batch_size), np.int32)
                padded[: len(rows)] = rows
                yield *self._resident, tf.constant(padded), tf.constant(len(rows))
            return
        x, y = self.sets["train"]
        bytes_a_batch = max(1, (x.nbytes + y.nbytes) // len(y)) * self.batch_size
        longest = max(1, min(longest, self.device_bytes // bytes_a_batch))
        own_rows = tf.reshape(tf.range(longest * self.batch_size), (longest, self.batch_size))

        def gather():
            for rows in self._orders(extra, longest):
                flat = np.zeros(longest * self.batch_size, np.int64)
                flat[: rows.size] = rows.ravel()
                yield x[flat], y[flat], np.int32(len(rows))

        spec = [tf.TensorSpec((longest * self.batch_size, *a.shape[1:]), a.dtype) for a in (x, y)]
        feed = tf.data.Dataset.from_generator(gather, output_signature=(*spec, tf.TensorSpec((), tf.int32)))
        for x_part, y_part, count in feed.prefetch(1):
            yield x_part, y_part, own_rows, count

    def _orders(self, extra: Sequence[int], longest: int) -> Iterator[np.ndarray]:
        """The examples of each step, (steps of a stretch, batch_size), cut where a stretch ends."""
        order = BatchOrder(len(self.sets["train"][1]), self.batch_size, self.seed)
        ends = {*range(self.eval_every, self.steps, self.eval_every), *extra, self.steps}
        step = 0
        for end in sorted(end for end in ends if 0 < end <= self.steps):
            while step < end:
                stop = min(end, step + longest)
                yield order.rows(step, stop)
                step = stop

    def _measure(self, loop: Loop, step: int, train_loss: float) -> dict:
        row = {"step": step, "train_loss": train_loss}
        if "validation" in self.sets:
            row["validation_loss"], row["validation_accuracy"] = self._evaluate(loop.evaluate, "validation")
        if "test" in self.sets:
            due = step % self.test_every == 0 or step == self.steps
            row["test_accuracy"] = self._evaluate(loop.evaluate, "test")[1] if due else None
        return row

    def _evaluate(self, evaluate: Evaluation, name: str) -> tuple[float, float]:
        """Mean loss and mean metric over a whole set."""
        sums = sum(evaluate(x, y).numpy() for x, y in self._evaluated[name])
        return tuple((sums / len(self.sets[name][1])).tolist())

    def _fits(self, name: str) -> bool:
        return sum(array.nbytes for array in self.sets[name]) <= self.device_bytes

    def _parts(self, name: str) -> Sequence[tuple]:
        """An evaluation set: as a whole on the device if it fits, else cut from the arrays each time it is asked for."""
        if self._fits(name):
            return [tuple(map(tf.constant, self.sets[name]))]
        slices = [slice(start, start + EVAL_BATCH) for start in range(0, len(self.sets[name][1]), EVAL_BATCH)]
        return _Lazily(lambda at: tuple(array[at] for array in self.sets[name]), slices)

    def _check_values(self, model: keras.Model) -> None:
        """Tries two examples of each set, eagerly: one sentence now instead of a page from the compiled graph later."""
        for name, (x, y) in self.sets.items():
            x, y = tf.constant(x[:2]), tf.constant(y[:2])
            try:
                if name == "train" and self.augment is not None:
                    x = self.augment(x, tf.constant([self.seed, 0]))
                outputs = model(x, training=False)
                self.loss(y, outputs)
                shape = tf.convert_to_tensor(self.metric(y, outputs)).shape
            except Exception as error:
                reason = " ".join(str(error).split())[:200]
                raise DataError(
                    f"Expected {name} data that fit model {model.name!r}, the loss and the metric, but inputs of shape "
                    f"{tuple(x.shape)} and targets of shape {tuple(y.shape)} failed ({reason})."
                ) from error
            if tuple(shape) != tuple(y.shape[:1]):
                raise LotteryError(
                    f"Expected metric to return one value per example, but for {len(y)} examples it returned shape {tuple(shape)}."
                )

    def _loop_for(self, model: keras.Model) -> Loop:
        """The compiled loop of the last model is kept: the levels of a search compile once."""
        check_shapes(model, *self.sets["train"])
        if self._loop is None or not self._loop.serves(model):
            check_labels(model, self.sets)
            self._check_values(gradient_masks(model)[0])
            self._loop = Loop(
                model,
                optimizer=self.optimizer,
                loss=self.loss,
                metric=self.metric,
                augment=self.augment,
                seed=self.seed,
                jit_compile=self.jit_compile,
            )
        self._loop.reset()
        return self._loop


_FINAL = ("train_loss", "validation_accuracy", "test_accuracy")


class _Lazily:
    """An iterable that maps a function over items anew each time it is walked."""

    def __init__(self, function: Callable, items: Sequence):
        self.function, self.items = function, items

    def __iter__(self) -> Iterator:
        return map(self.function, self.items)


@keras.saving.register_keras_serializable("tf_lottery")
class WarmUpThenDrop(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises linearly from 0 for `warmup` steps, and is multiplied by `factor` at each drop.

    `rate(t) = peak * min(1, t / warmup) * factor ** (number of drops <= t)`: the schedules of Frankle & Carbin (2019,
    section 4) for Resnet-18 and VGG-19.

    Args:
      peak: The learning rate after warm-up.
      warmup: Steps of warm-up; 0 for none.
      drops: Steps from which on the rate is multiplied by `factor` once more.
      factor: In (0, 1].

    Example:

    >>> schedule = WarmUpThenDrop(0.1, warmup=10, drops=(20, 30))
    >>> [round(float(schedule(step)), 4) for step in (0, 5, 10, 20, 30)]
    [0.0, 0.05, 0.1, 0.01, 0.001]
    """

    def __init__(self, peak: float, warmup: int = 0, drops: Sequence[int] = (), factor: float = 0.1):
        if peak <= 0 or warmup < 0 or not 0 < factor <= 1 or sorted(drops) != list(drops):
            raise LotteryError(
                "Expected peak > 0, warmup >= 0, factor in (0, 1] and rising drops, but received "
                f"peak={peak}, warmup={warmup}, factor={factor}, drops={list(drops)}."
            )
        self.peak, self.warmup, self.drops, self.factor = peak, warmup, tuple(drops), factor

    def __call__(self, step):
        step = tf.cast(step, tf.float32)
        rate = self.peak * (tf.minimum(1.0, step / self.warmup) if self.warmup else 1.0)
        for drop in self.drops:
            rate *= tf.where(step >= drop, self.factor, 1.0)
        return rate

    def get_config(self) -> dict:
        return {"peak": self.peak, "warmup": self.warmup, "drops": list(self.drops), "factor": self.factor}
