"""What can go wrong in a level without an error: kernels that no signal passes any more, a dead network, a loss that exploded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import gradients, state
from tf_lottery.masking.calls import called
from tf_lottery.masking.gradients import Network, Probe

EXPLODED = 100  # times the loss of guessing
SCALES = ("gamma", "scale", "moving_variance")  # variables that are 1 where they change nothing; others are 0


class Connections:
    """Which kernels of a wrapped model signals pass through, by its masks alone.

    A kernel is disconnected if no path from the inputs to the outputs leads through a weight that it keeps. Signals are
    followed with positive weights and no biases, in inference mode: then what an input of ones changes at the outputs, against
    one of zeros, depends on a kernel exactly if there is such a path. What gets none in the dense network either (a layer that ends in a saturated activation,
    the recurrent kernel of a sequence of one) cannot be judged and is left out.

    Args:
      masked: The wrapped model.
      probe: `(x, y)` or `(x, y, loss)`, for the shape of an input where the model does not tell it.

    Examples:

    >>> from tf_lottery import wrap
    >>> masked = wrap(keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="a"), keras.layers.Dense(1, name="b")]))
    >>> one, other = state.get_masks(masked)
    >>> lost = Connections(masked).lost({one: np.array([[1, 0], [1, 0]]), other: np.array([[0], [1]])})
    >>> lost == [one, other]  # the one unit that `b` reads has no inputs, and the other is read by nobody
    True
    """

    def __init__(self, masked, probe: Probe | None = None):
        self.masked, self.probe = masked, probe
        rng = np.random.default_rng(0)
        self._values = {
            path: _neutral(path, variable, rng)
            for path, variable in state.named_variables(masked).items()
            if "float" in keras.backend.standardize_dtype(variable.dtype)
        }
        dense = {path: np.ones_like(mask) for path, mask in state.get_masks(masked).items()}
        self._judged = self._passed(dense)

    def lost(self, masks: Mapping[str, np.ndarray]) -> list[str]:
        """The disconnected kernels, by path."""
        passed = self._passed(masks) if self._judged else []
        return [path for path in self._judged if path not in passed]

    def _passed(self, masks: Mapping[str, np.ndarray]) -> list[str]:
        kept = {path: self._values[path] * mask * _gain(mask) for path, mask in masks.items()}
        try:
            found = gradients.take(self.masked, _flow, self.probe, masks, {**self._values, **kept})
        except LotteryError:  # a model that cannot be asked in this way
            return []
        return [path for path, mask in masks.items() if np.any(found[path] * mask)]


def _flow(network: Network, probe: Probe | None) -> dict[str, tf.Tensor]:
    """The gradient of the outputs for an input of ones, less that for an input of zeros: activations may emit what is no signal.

    Each output has a weight of its own, so that no two of them cancel.
    """
    kernels, ones = network.kernels, gradients.ones_like_input(network.model, probe)

    def gradient(x) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(kernels)
            outputs = [tf.cast(o, tf.float32) for o in keras.tree.flatten(network(kernels, x, training=False))]
            total = tf.add_n([tf.reduce_sum(o * tf.linspace(1.0, 2.0, tf.shape(o)[-1])) for o in outputs])
        return tape.gradient(total, kernels, unconnected_gradients="zero")

    found, of_nothing = gradient(ones), gradient(keras.tree.map_structure(tf.zeros_like, ones))
    return {path: tf.convert_to_tensor(found[path]) - tf.convert_to_tensor(of_nothing[path]) for path in kernels}


def _neutral(path: str, variable: keras.Variable, rng: np.random.Generator) -> np.ndarray:
    """Positive weights of different sizes for what has inputs and outputs; for other variables what changes nothing."""
    if len(variable.shape) >= 2:
        return rng.uniform(0.5, 1.5, variable.shape).astype("float32") / math.prod(variable.shape[:-1])
    return np.full(variable.shape, float(path.rpartition("/")[2].partition("#")[0] in SCALES), "float32")


def _gain(mask: np.ndarray) -> float:
    """Keeps signals at the size that they have in the dense network."""
    return mask.size / max(int(np.count_nonzero(mask)), 1)


def is_constant(model: keras.Model, x) -> bool:
    """Whether the model's outputs are the same for all examples, bit for bit: no signal gets through."""
    outputs = [np.asarray(output) for output in keras.tree.flatten(called(model, x, training=False))]
    return all(np.array_equal(output, np.broadcast_to(output[:1], output.shape)) for output in outputs)


def exploded(curve: Sequence[Mapping[str, float]], guessing: float) -> int | None:
    """The first step at which the training loss was measured at more than 100 times that of guessing; None if there is none.

    >>> exploded([{"step": 10, "train_loss": 2.2}, {"step": 20, "train_loss": 1e6}], guessing=2.3)
    20
    """
    return next((int(row["step"]) for row in curve if row["train_loss"] > EXPLODED * guessing), None)


def notes(
    model: keras.Model, lost: Sequence[str], x, curve: Sequence[Mapping[str, float]], guessing: float
) -> list[str]:
    """What went wrong in a training, in words; nothing, if all is well.

    Args:
      model: The trained model.
      lost: Its disconnected kernels.
      x: A batch of inputs.
      curve: The measurements, with `step` and `train_loss`.
      guessing: The loss of a network that gives every class the same probability.
    """
    found = []
    if lost:
        found.append(f"disconnected: {', '.join(lost)}")
    if is_constant(model, x):
        found.append("dead: the output is the same for every input, so the accuracy is that of guessing")
    if step := exploded(curve, guessing):
        found.append(f"exploded: the training loss at step {step:,} was over {EXPLODED} times that of guessing")
    return found
