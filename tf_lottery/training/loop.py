"""The compiled part of `Trainer`: stretches of training steps and whole measurements, one call each."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.base.errors import LotteryError
from tf_lottery.masking.calls import called
from tf_lottery.masking.distribution import Replicas, sums_no_gradients
from tf_lottery.masking.precision import loss_scaling
from tf_lottery.masking.tracing import Traced
from tf_lottery.masking.weights import fresh_optimizer, sublayers, value_of
from tf_lottery.masking.wrapping import gradient_masks
from tf_lottery.training.evaluation import Evaluation
from tf_lottery.training.objective import Objective

MOST_LOSS = 1e30  # what is larger has no meaning, and soon no number


class Loop:
    """The compiled steps and measurements of one model; the arguments are those of `Trainer`, and `varies` of `Source`.

    With a strategy each replica takes its part of every batch. Losses and gradients are weighted so that their sums over
    the replicas are those of the whole batch, and summed before the optimizer sees them.
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        optimizer,
        objective: Objective,
        augment,
        jit_compile: bool | str,
        replicas: Replicas,
        varies: bool = False,
    ):
        self.model, self.objective, self.augment, self.replicas = model, objective, augment, replicas
        self.plain, self.masks, self.held = gradient_masks(model)
        self.trained = list(self.plain.trainable_variables)
        with replicas.scope():
            self.optimizer = loss_scaling(fresh_optimizer(optimizer), self.plain)
            self.optimizer.build(self.trained)
        if replicas.count > 1:
            sums_no_gradients(self.optimizer)
        self._start = [value_of(v) for v in self.optimizer.variables]
        self.jit = _compiles(jit_compile, self.plain, replicas, varies)
        run = tf.function(self._run, jit_compile=self.jit, reduce_retracing=varies)
        self.run = run if varies or replicas.strategy is not None else Traced(run)
        self.evaluate = Evaluation(self.plain, objective, replicas, varies)
        self._agree = tf.function(lambda: replicas.run(replicas.as_first, model.variables))

    def serves(self, model: keras.Model) -> bool:
        """Whether this loop was compiled for that model as it is now: the same masks, the same trainable variables."""
        if model is not self.model:
            return False
        now = gradient_masks(model)[0].trainable_variables
        return len(now) == len(self.trained) and all(a is b for a, b in zip(now, self.trained))

    def reset(self) -> None:
        """The optimizer as it was built: no momentum, step 0; masks and weights of several workers as the chief has them."""
        for variable, value in zip(self.optimizer.variables, self._start):
            variable.assign(value)
        if self.replicas.cluster is not None:
            self._agree()

    def state(self) -> list[np.ndarray]:
        """All that training moves: the model's variables and the optimizer's."""
        return [value_of(v) for v in (*self.plain.variables, *self.optimizer.variables)]

    def set_state(self, state: list[np.ndarray]) -> None:
        for variable, value in zip((*self.plain.variables, *self.optimizer.variables), state, strict=True):
            variable.assign(value)

    def values(self) -> list[np.ndarray]:
        return [value_of(v) for v in self.plain.variables]

    def not_finite(self) -> str | None:
        """The path of a variable that holds NaN or infinity."""
        for variable in self.plain.variables:
            if variable.value.dtype.is_floating and not np.isfinite(value_of(variable)).all():
                return variable.path
        return None

    def finish(self) -> None:
        """What `fit` does at its end: of an optimizer with `use_ema` the averages are the weights now, under the masks."""
        self.optimizer.finalize_variable_values(self.trained)
        self._mask()

    def assign(self, values: list[np.ndarray]) -> None:
        for variable, value in zip(self.plain.variables, values):
            variable.assign(value)

    def _run(self, examples, rows, count, first, seed):
        """`count` training steps, augmented by `seed`; returns their mean loss and the first step whose loss was not finite, or -1."""
        total, bad = tf.constant(0.0), tf.constant(-1)
        statistics = self.replicas.run(self._statistics) if self.replicas.count > 1 else ()
        for i in tf.range(count):
            loss = self.replicas.run(self._step, examples, rows[i], first + i, seed)
            total += loss
            bad = tf.where((bad < 0) & ~(tf.abs(loss) < MOST_LOSS), i, bad)  # NaN is not below it
        if self.replicas.count > 1:
            self.replicas.run(self._average, statistics)
        return total / tf.cast(count, tf.float32), bad

    def _step(self, examples, rows, step, seed):
        (x, y, *weights), share = self._batch(examples, rows, step, seed)
        with tf.GradientTape() as tape:
            outputs = called(self.plain, x, training=True)
            loss = self.objective.loss(y, outputs, *weights, share=share if self.replicas.count > 1 else None)
            extras = [tf.cast(extra, tf.float32) for extra in self.plain.losses]
            if self.replicas.count > 1:
                extras = [extra * share for extra in extras]
            total = tf.add_n([loss, *extras])
            scaled = self.optimizer.scale_loss(total)
        gradients = tape.gradient(scaled, [v.value for v in self.trained])
        gradients = [
            g if g is None or id(v) not in self.masks else g * self.masks[id(v)].value
            for g, v in zip(gradients, self.trained)
        ]
        if self.replicas.count > 1:
            present = [g for g in gradients if g is not None]
            total, *present = self.replicas.total([total, *present])
            gradients = [g if g is None else present.pop(0) for g in gradients]
        self.optimizer.apply(gradients, self.trained)
        self._mask()  # optimizers that mix the weights of a kernel, and weight decay, move pruned weights too
        return total

    def _mask(self):
        for v in self.trained:
            if id(v) in self.masks:
                kept = v.value * self.masks[id(v)].value
                v.assign(kept + self.held[id(v)].value if id(v) in self.held else kept)

    def _batch(self, examples, rows, step, seed):
        """This replica's part of a batch, and its share of the examples. All replicas augment the whole batch alike."""
        size = rows.shape[0] if rows.shape[0] is not None else tf.shape(rows)[0]
        first, count = self.replicas.share(size)

        def part(array):
            return array if self.replicas.count == 1 else array[first : first + count]

        def gathered(arrays, rows):
            return keras.tree.map_structure(lambda array: tf.gather(array, rows), arrays)

        x, *others = examples
        if self.augment is None:
            x = gathered(x, part(rows))
        else:
            x = keras.tree.map_structure(part, self.augment(gathered(x, rows), tf.stack([seed, step])))
        return (x, *gathered(others, part(rows))), tf.cast(count, tf.float32) / tf.cast(size, tf.float32)

    def _statistics(self):
        """What training moves without gradients, each replica for itself: statistics of batch normalisation."""
        return [tf.identity(v.value) for v in self.plain.non_trainable_variables if v.value.dtype.is_floating]

    def _average(self, before):
        """Moves the statistics of all replicas by the mean of their moves; what did not move stays as it is, bit for bit."""
        moving = [v for v in self.plain.non_trainable_variables if v.value.dtype.is_floating]
        for v, start in zip(moving, before):
            v.assign(start + self.replicas.total(v.value - start) / self.replicas.count)


def _compiles(jit_compile: bool | str, model: keras.Model, replicas: Replicas, varies: bool) -> bool:
    if replicas.strategy is None:  # XLA compiles anew for every shape
        return xla_pays(model) and not varies if jit_compile == "auto" else bool(jit_compile)
    if jit_compile is True:
        raise LotteryError(
            "Expected jit_compile of False or 'auto' with a strategy, whose replicas meet outside of XLA, but received True."
        )
    return False


def xla_pays(model: keras.Model) -> bool:
    """On a GPU, and on a CPU for nets of matrix products only, where it is several times faster, as measured.

    Never for layers that XLA does not know, as some that augment images.
    """
    recurrent = keras.layers.RNN  # says so where cuDNN could serve it
    if not all(layer.supports_jit or isinstance(layer, recurrent) for layer in sublayers(model)):
        return False
    if tf.config.list_physical_devices("GPU"):
        return True
    return has_matrices_only(model)


def has_matrices_only(model: keras.Model) -> bool:
    """Whether a net is made of matrix products: no convolutions, no recurrence."""
    recurrent = any(isinstance(layer, keras.layers.RNN) for layer in sublayers(model))
    return not recurrent and all(len(v.shape) <= 2 for v in model.trainable_variables)
