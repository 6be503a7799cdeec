"""What can go wrong without an error: masks that do harm, kernels that no signal passes, a dead network, a loss that exploded."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.base.errors import LotteryError, LotteryWarning
from tf_lottery.base.quiet import outside
from tf_lottery.masking import gradients, matrices, state
from tf_lottery.masking.calls import called
from tf_lottery.masking.gradients import Network, Probe
from tf_lottery.masking.weights import Kernel
from tf_lottery.rules import masks as masks_lib
from tf_lottery.rules import patterns

EXPLODED = 100  # times the loss of guessing
EMPTIED = 0.05  # the share of its weights below which a kernel is all but empty
SHOWN = 4  # kernels that a warning names
SPARES = {  # what spares kernels of which too little is kept, in the order in which a warning names them
    "density": "a larger {density}",
    "prune_fraction": "a smaller {prune_fraction}",
    "scope": "{scope=layer}",
    "exclude": "{exclude} for these kernels",
    "min_per_kernel": "a larger {min_per_kernel}",
}
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


class MaskWarning(LotteryWarning):
    """A warning of masks that do harm.

    Args:
      about: The kernels and what befell each, a word and a path: where two are the same, the same is told of another mask.
      sentence, given: As for every warning.
    """

    def __init__(self, about: Sequence[str], sentence: str, *given: object):
        super().__init__(sentence, *given)
        self.about = tuple(about)


class Watch:
    """Warns of masks that do harm, in one sentence with numbers, and of the same thing only once.

    What counts as harm:

    - a kernel all but emptied: fewer than 5 % of its weights kept, or in a model of which less than 10 % is kept a quarter of
      that share; or, if single weights are pruned, less than one weight for each of its outputs;
    - if single weights are pruned: outputs of the model without inputs, and kernels of which half of the channels or more have
      no inputs or, but for kernels that read the model's inputs, no outputs;
    - kernels that no signal passes from the inputs to the outputs of the model, see `Connections`.

    Fewer channels that are cut off are what pruning does: LeNet-300-100 loses a quarter of its units at 3.6 % of its weights, and
    most border pixels, without harm.

    Args:
      model: The wrapped model, or a model with `MaskedLayer`s inside.
      scope: Where scores compete. Whole channels leave channels without inputs and outputs.
      blocks: Whether blocks are pruned, which do so too.
      ways: The arguments of the pruning, beside the scope, that spare kernels, of those in SPARES; the warning names them.
    """

    def __init__(
        self, model, scope: str = "layer", *, blocks: bool = False, ways: Sequence[str] = ("density", "exclude")
    ):
        self._model, self._structured = model, blocks or scope in masks_lib.CHANNEL_SCOPES
        self._ways = [way for key, way in SPARES.items() if key in ways or (key == "scope" and scope == "global")]
        self._kernels = state.masked_kernels(model)
        self._connections: Connections | None = None
        self._told: set[tuple[str, str]] = set()

    def __call__(self, masks: Mapping[str, np.ndarray]) -> None:
        """Looks at masks that were made, and warns of what is new."""
        found = self._harm(masks)
        new = {key: words for key, words in found.items() if key not in self._told}
        self._told |= new.keys()
        if not new:
            return
        kinds: dict[str, list[str]] = {}
        for (kind, _), words in new.items():
            kinds.setdefault(kind, []).append(words)
        facts = [
            "; ".join(words[:SHOWN]) + (f"; and {len(words) - SHOWN:,} more like this" if len(words) > SHOWN else "")
            for words in kinds.values()
        ]
        first, *more = self._ways
        ways = f"{', '.join([first, *more[:-1]])} or {more[-1]}" if more else first
        sentence = f"of the weights of {{!r}} {{:.3g}} % are kept, and {{}}. {ways[:1].upper()}{ways[1:]} spares them."
        told = self._model.name, 100 * masks_lib.density(masks), "; ".join(facts)
        warnings.warn(MaskWarning([" ".join(key) for key in new], sentence, *told), stacklevel=outside())

    def _harm(self, masks: Mapping[str, np.ndarray]) -> dict[tuple[str, str], str]:
        """What is wrong, in words, by its kind and the path of the kernel."""
        whole, suspicious = masks_lib.density(masks), False
        found: dict[tuple[str, str], str] = {}
        for kernel in self._kernels:
            path, mask = kernel.path, masks[kernel.path]
            kept = int(np.count_nonzero(mask))
            if kept == mask.size:
                continue
            has_inputs, has_outputs = _connected(kernel, mask)
            without_inputs, without_outputs = (int(np.count_nonzero(~alive)) for alive in (has_inputs, has_outputs))
            few = kept < mask.size * (EMPTIED if whole >= 2 * EMPTIED else whole / 4)
            if few or (kept < has_inputs.size and not self._structured):
                found["emptied", path] = (
                    f"{path} keeps {kept:,} of {mask.size:,} weights ({100 * kept / mask.size:.2g} %) for {has_inputs.size:,} outputs"
                )
            suspicious |= not kept
            if self._structured:
                continue
            most_in, most_out = 2 * without_inputs >= has_inputs.size, 2 * without_outputs >= has_outputs.size
            suspicious |= most_in or most_out
            if most_in or (without_inputs and kernel.roles.known and kernel.is_output):
                found["inputs", path] = f"{without_inputs:,} of {has_inputs.size:,} channels of {path} have no inputs"
            if most_out and kernel.roles.known and not kernel.roles.reads_input(kernel.variable):
                found["outputs", path] = (
                    f"{without_outputs:,} of the {has_outputs.size:,} channels that {path} reads have no outputs there"
                )
        if suspicious:
            self._connections = self._connections or Connections(self._model)
            lost = self._connections.lost(masks)
            if len(lost) == len(masks):
                found["cut", ""] = "no signal passes the network: its outputs do not depend on its inputs"
            elif lost:
                found |= {("cut", path): f"no signal passes {path}" for path in lost}
        return found


def _connected(kernel: Kernel, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each output of a kernel whether it has inputs, and for each input whether it has outputs."""
    if mask.ndim < 2:
        return mask.ravel() != 0, mask.ravel() != 0
    if (axes := matrices.channel_axes(kernel)) is not None and len(axes) == mask.ndim:
        return mask.ravel() != 0, mask.ravel() != 0
    if axes == (-2, -1):  # depthwise: an input is as alive as its own outputs
        alive = patterns.channel_mask(mask, axes) != 0
        return alive, alive
    stack = patterns.stacked(mask, matrices.axes(kernel))
    sides = tuple(range(stack.ndim - 2))
    return np.asarray(stack.any(axis=(*sides, -2))), np.asarray(stack.any(axis=(*sides, -1)))


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
