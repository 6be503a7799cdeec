"""The networks on a straight line between two, put on a model one by one and measured.

The weights are interpolated, under the masks of both; what is no real number, such as the state of a random seed, is that of the first.
Averages of two networks' batch statistics are the statistics of no network. So where there are layers of `BatchNormalization`
that training moves, theirs are estimated anew at each point, the ends too, so that all are measured alike: training inputs
pass through the network in batches as in training, and the moving averages of these batches alone, which begin at 0, are divided by
what they would be of ones, `1 - momentum ** updates`.

Reference: Frankle et al., "Linear Mode Connectivity and the Lottery Ticket Hypothesis" (2020, arXiv 1912.05671), section 2; Jordan et al.,
"REPAIR" (2022, arXiv 2211.08403), section 3, for statistics of interpolated networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.base.errors import LotteryError
from tf_lottery.checks.line import Line
from tf_lottery.masking import state
from tf_lottery.masking.calls import called
from tf_lottery.masking.masked import Masked, masked_parts, unwrapped
from tf_lottery.masking.weights import sublayers, value_of
from tf_lottery.rules.masks import Arrays

BATCH = 128
EXAMPLES = 20 * BATCH


class Network(NamedTuple):
    """The masks and the values of one end, under the paths of the model that they are to be put on."""

    masks: Arrays
    values: Arrays


def walk(
    model: keras.Model, one: Network, other: Network, accuracy: Callable[[keras.Model], float], x=None, points: int = 30
) -> Line:
    """Measures the line; the model is as it was at the end.

    Args:
      model: The model that the networks are put on, plain or wrapped.
      one, other: The ends.
      accuracy: `accuracy(model)` -> share of right answers.
      x: Training inputs, for batch statistics.
      points: How many networks, the ends among them.

    Raises:
      LotteryError: If there are batch statistics and no inputs, or fewer than two points.
    """
    if not isinstance(points, int) or points < 2:
        raise LotteryError(f"Expected at least 2 points, the ends, but received points={points!r}.")
    check_whole(model)
    statistics = _moved(model)
    for layer in statistics:
        if getattr(layer, "renorm", False):
            raise LotteryError(
                f"Expected batch statistics that can be estimated anew, but {layer.name!r} normalises by the old ones (renorm=True)."
            )
    if statistics and x is None:
        raise LotteryError(
            f"Expected x, training inputs, because the batch statistics of {statistics[0].name!r} have to be estimated anew along the "
            "line, but received none."
        )
    before = _Kept(model)
    try:
        estimated = _Statistics(model, statistics, x) if statistics else None
        alphas, errors = [i / (points - 1) for i in range(points)], []
        for alpha in alphas:
            _put(model, one, other, alpha)
            if estimated:
                estimated.take()
            errors.append(1 - float(accuracy(model)))
    finally:
        before.put_back()
    return Line(tuple(alphas), tuple(errors))


def check_whole(model) -> None:
    """Refuses models of whose masks a line would make fractions, or that learn them."""
    if isinstance(model, Masked):
        state.check_masks_are_set(model)
    elif masked_parts(model):
        raise LotteryError(
            f"Expected a plain model or one that is wrapped as a whole, but {model.name!r} has masked layers inside: use what "
            "tf_lottery.strip gives."
        )


def _put(model, one: Network, other: Network, alpha: float) -> None:
    values = {path: between(value, other.values.get(path, value), alpha) for path, value in one.values.items()}
    if not isinstance(model, Masked):
        for path, variable in state.named_variables(model).items():
            if path in values:
                variable.assign(values[path])
        return
    masks = {}
    for kernel in model.kernels:
        whole = np.ones(kernel.variable.shape, np.uint8)
        masks[kernel.path] = np.maximum(one.masks.get(kernel.path, whole), other.masks.get(kernel.path, whole))
    state.assign(model, masks, values)


def between(a: np.ndarray, b: np.ndarray, alpha: float) -> np.ndarray:
    """`(1 - alpha) a + alpha b`, exactly `a` at 0 and `b` at 1; what is no real number is `a`.

    >>> between(np.array([0.0, 1.0]), np.array([1.0, 1.0]), 0.25)
    array([0.25, 1.  ])
    """
    if alpha == 0 or "float" not in a.dtype.name:
        return a
    if alpha == 1:
        return b
    return ((1 - alpha) * a.astype(np.float64) + alpha * b.astype(np.float64)).astype(a.dtype)


class _Kept:
    """What a model holds, to be put back: its masks, what pruned weights are held at, all variables."""

    def __init__(self, model):
        self.variables = list({id(v): v for v in [*unwrapped(model).variables, *model.variables]}.values())
        self.values = [value_of(v) for v in self.variables]

    def put_back(self) -> None:
        for variable, value in zip(self.variables, self.values):
            variable.assign(value)


def _moved(model) -> list[keras.layers.BatchNormalization]:
    """The layers whose batch statistics training moves."""
    plain = unwrapped(model)
    return [
        layer
        for layer in [plain, *sublayers(plain)]
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]


class _Statistics:
    """The batch statistics of a model, of training inputs that pass through it."""

    def __init__(self, model, layers: Sequence[keras.layers.BatchNormalization], x):
        x = np.asarray(x)[:EXAMPLES]
        size = min(BATCH, len(x))
        if not size:
            raise LotteryError("Expected training inputs for batch statistics, at least one, but received none.")
        self.batches = [tf.constant(x[at : at + size]) for at in range(0, len(x) - size + 1, size)]
        self._call = tf.function(lambda x: called(model, x, training=True))
        self._random = [
            v for v in unwrapped(model).variables if "float" not in keras.backend.standardize_dtype(v.dtype)
        ]
        self.layers = [(layer, updates) for layer in layers if (updates := self._updates(layer))]

    def _updates(self, layer) -> int:
        """How often a batch moves the averages of a layer: once for each place in which the network calls it in training.

        Told from what is left of a value that the average begins with, `momentum ** updates`.
        """
        before = _value(layer)
        if not 0 < layer.momentum < 1:
            self._once(layer, before)
            moved = not np.array_equal(_value(layer), before)
            layer.moving_mean.assign(before)
            return int(moved)
        start = np.zeros_like(before)
        least = self._once(layer, start)
        large = 1 + 100 * np.abs(least).max()
        left = np.median(self._once(layer, start + large) - least) / large
        layer.moving_mean.assign(before)
        return round(math.log(left) / math.log(layer.momentum))

    def _once(self, layer, start: np.ndarray) -> np.ndarray:
        """The average after one batch."""
        random = [value_of(v) for v in self._random]
        layer.moving_mean.assign(start)
        self._call(self.batches[0])
        for variable, value in zip(self._random, random):
            variable.assign(value)
        return _value(layer)

    def take(self) -> None:
        for layer, _ in self.layers:
            layer.moving_mean.assign(np.zeros(layer.moving_mean.shape))
            layer.moving_variance.assign(np.zeros(layer.moving_variance.shape))
        for batch in self.batches:
            self._call(batch)
        for layer, updates in self.layers:
            whole = 1 - layer.momentum ** (updates * len(self.batches))
            layer.moving_mean.assign(layer.moving_mean.value / whole)
            layer.moving_variance.assign(layer.moving_variance.value / whole)


def _value(layer) -> np.ndarray:
    return value_of(layer.moving_mean).astype(np.float64)
