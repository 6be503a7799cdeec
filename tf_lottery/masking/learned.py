"""Masks that are learned: the weights stay as they were drawn, and only the choice among them is trained.

The effective kernel is `w * m(s)`: `w` is frozen, `s` holds one trainable number for each weight, and `m` is one of two rules.

- **learning** (Zhou et al., 2019, section 5): `s` are logits. In training `m ~ Bernoulli(sigmoid(s))`, one sample a step, whose
  gradient goes straight through to the probability. At inference the probabilities are cut at 1/2; `supermask.train` also
  measures sampled masks, as the paper does. With `rescale` (Dynamic Weight Rescaling) `m` is multiplied by
  (weights of the kernel) / (ones of `m`), and the gradient goes through that ratio too.
- **edge_popup** (Ramanujan et al., 2020, section 3): `m` keeps the k weights of the kernel with the highest `|s|`, so the
  density is exact; the gradient goes straight through to `|s|`. With `rescale` `m` is multiplied by sqrt(1 / density).

`SupermaskLayer` and `SupermaskModel` are `MaskedLayer` and `MaskedModel` with another source of masks: they wrap any Keras 3 model,
and train in `fit` and in `Trainer`. `strip` and `get_masks` see the rule's mask without chance.

>>> import keras, numpy as np
>>> from tf_lottery import get_masks
>>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)])
>>> masked = wrap(model, by="edge_popup", density=0.25)
>>> masked.compile("sgd", "mse")
>>> history = masked.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0)
>>> [int(mask.sum()) for mask in get_masks(masked).values()]
[8, 4]
"""

from __future__ import annotations

import math
import numbers
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.base.bounds import whole
from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import layers, weights, wrapping
from tf_lottery.masking.distribution import scope_of
from tf_lottery.masking.masked import Masked, masked_parts
from tf_lottery.masking.own_step import own_step
from tf_lottery.masking.weights import Kernel, Prunable
from tf_lottery.rules import masks

CONSTANTS = ("none", "std", "kaiming")
DEFAULTS = {"learning": "none", "edge_popup": "kaiming"}  # the rules, and the signed_constant of each


class Learned(Masked):
    """What a wrapper that learns its masks adds to `Masked`: frozen weights, scores, and a rule between them."""

    learns = True

    def __init__(
        self,
        inner,
        prunable: Prunable = None,
        *,
        by: str = "learning",
        density: float = 0.5,
        signed_constant: str | None = None,
        rescale: bool = True,
        seed: int = 0,
        **kwargs,
    ):
        _check(by, density, signed_constant, rescale, seed)
        signed_constant = signed_constant or DEFAULTS[by]
        self.rule: dict[str, Any] = {
            "by": by,
            "density": density,
            "signed_constant": signed_constant,
            "rescale": rescale,
            "seed": seed,
        }
        super().__init__(inner, prunable, **kwargs)

    def _add_masks(self) -> None:
        super()._add_masks()
        self._next_sample = self.add_weight(  # the seed of the next sample; a SeedGenerator would not be saved
            shape=(2,),
            initializer="zeros",
            dtype="int64",
            trainable=False,
            name="next_sample",
        )
        self._next_sample.assign([self.rule["seed"], 0])
        self._frozen, self._scores, self.constants = [], [], []
        for i, kernel in enumerate(self.kernels):
            values, constant = _frozen_values(kernel, self.rule["signed_constant"])
            self.constants.append(constant)
            self._frozen.append(self._add_array(kernel, f"frozen_{i}", "zeros"))
            self._frozen[i].assign(values)
            self._scores.append(self._add_array(kernel, f"score_{i}", "zeros", trainable=True))
            self._scores[i].assign(self._first_scores(kernel, i))
        self._freeze()

    def _first_scores(self, kernel: Kernel, index: int) -> np.ndarray:
        shape, density = tuple(kernel.variable.shape), self.rule["density"]
        if self.rule["by"] == "learning":
            return np.full(shape, math.log(density / (1 - density)), np.float32)
        if self._kept(kernel) < 1:
            raise LotteryError(
                f"Expected a density that keeps at least one weight in every kernel, but {density} keeps none of the "
                f"{math.prod(shape)} of {kernel.path!r}."
            )
        bound = weights.fan_in(shape) ** -0.5
        return np.random.default_rng([self.rule["seed"], index]).uniform(-bound, bound, shape).astype(np.float32)

    def _kept(self, kernel: Kernel) -> int:
        return round(self.rule["density"] * math.prod(kernel.variable.shape))

    def effective(self, index: int, training: bool = False):
        """The frozen weights under the mask of the rule; in training a mask that carries gradients to the scores."""
        scores = self._scores[index].value
        if self.rule["by"] == "learning":
            mask = bernoulli(scores, self._take_seed()) if training else tf.cast(scores > 0, scores.dtype)
            if self.rule["rescale"]:
                mask *= mask.shape.num_elements() / tf.maximum(tf.reduce_sum(mask), 1.0)
        else:
            mask = top(scores, self._kept(self.kernels[index]))
            if self.rule["rescale"]:
                mask *= self.rule["density"] ** -0.5
        return self._frozen[index].value * mask

    def _take_seed(self):
        seed = tf.identity(self._next_sample.value)
        self._next_sample.assign(seed + tf.constant([0, 1], tf.int64))
        return seed

    def mask(self, index: int) -> np.ndarray:
        scores = weights.value_of(self._scores[index])
        if self.rule["by"] == "learning":
            return (scores > 0).astype(np.uint8)
        return _is_top(tf.abs(scores), self._kept(self.kernels[index])).numpy().astype(np.uint8)

    def factor(self, mask: np.ndarray) -> float:
        """What `rescale` multiplies the weights by under this mask of a kernel."""
        if not self.rule["rescale"]:
            return 1.0
        if self.rule["by"] == "edge_popup":
            return self.rule["density"] ** -0.5
        return mask.size / max(int(np.count_nonzero(mask)), 1)

    def sample(self, rng: np.random.Generator) -> None:
        """Puts one sampled mask (or with edge_popup the mask) into the raw kernels; `masked.settle` undoes it."""
        for index, kernel in enumerate(self.kernels):
            mask = self.mask(index)
            if self.rule["by"] == "learning":
                odds = np.exp(-np.abs(scores := weights.value_of(self._scores[index])))
                probabilities = np.where(scores >= 0, 1, odds) / (1 + odds)
                mask = rng.random(mask.shape) < probabilities
            frozen = weights.value_of(self._frozen[index])
            kernel.variable.assign(frozen * mask * np.float32(self.factor(mask)))

    def _freeze(self) -> None:
        trainable = [v for v in self.inner.variables if v.trainable]
        self._was_trainable = {id(v) for v in trainable}  # not the variables themselves: Keras would save them here too
        for variable in trainable:
            variable.trainable = False

    def thaw(self) -> None:
        """Makes the wrapped model's own variables trainable again."""
        super().thaw()
        for variable in self.inner.variables if self.kernels else ():
            variable.trainable |= id(variable) in self._was_trainable

    def get_config(self) -> dict:
        config = super().get_config()
        del config["held"]
        return {**config, **self.rule}


@keras.saving.register_keras_serializable("tf_lottery")
class SupermaskLayer(Learned, layers.MaskedLayer):
    """A Keras layer whose weights are frozen and whose mask is learned; see `wrap` for the arguments."""


@keras.saving.register_keras_serializable("tf_lottery")
class SupermaskModel(Learned, layers.MaskedModel):
    """A Keras model whose weights are frozen and whose masks are learned; see `wrap` for the arguments."""


def wrap(
    model,
    prunable: Prunable = None,
    *,
    exclude: Prunable = None,
    by: str = "learning",
    density: float = 0.5,
    signed_constant: str | None = None,
    rescale: bool = True,
    seed: int = 0,
) -> SupermaskLayer | SupermaskModel:
    """Freezes all weights of a model and gives every prunable one a score to train: compile and fit what is returned.

    The model's own variables are frozen until `strip`; statistics of batch normalisation still move.

    Args:
      model: A Keras 3 model or layer with the weights it was initialised with; it is shared, not copied.
      prunable: What to mask, if not the kernels; see `weights.prunable_kernels`.
      exclude: What to leave out of that.
      by: `"learning"`, sampled masks with a probability for each weight, or `"edge_popup"`, the highest scores of each kernel.
      density: The probability that all weights start from, in (0, 1); with edge_popup the density of each kernel, in (0, 1].
      signed_constant: Frozen weights are `sign(w) * c`: `c` is the kernel's standard deviation with `"std"` (Zhou et al.), and
        sqrt(2 / fan_in) with `"kaiming"` (Ramanujan et al.); with `"none"` they are `w` itself. By default `"none"` with
        learning, `"kaiming"` with edge_popup.
      rescale: Multiply the kept weights: by (weights / kept weights) of the sample with learning, which is Dynamic Weight
        Rescaling, and by sqrt(1 / density) with edge_popup, the paper's scaled initialisation.
      seed: Decides the samples of training, and the first scores of edge_popup.

    Raises:
      TypeError: If it is not a Keras 3 model or layer.
      LotteryError: If an argument is out of range, the density keeps no weight of a kernel, or the model is masked already.

    References: Zhou et al. (2019, arXiv 1905.01067), section 5; Ramanujan et al. (2020, arXiv 1911.13299), section 3.
    """
    weights.check_keras_3(model)
    if isinstance(model, keras.Model) and not model.built:
        raise LotteryError(
            f"Expected a built model, but {model.name!r} has no weights yet: build it or call it on data first."
        )
    if masked_parts(model):
        raise LotteryError(
            f"Expected a plain model, but {model.name!r} is masked already: call tf_lottery.strip on it."
        )
    if steps := own_step(model):
        raise LotteryError(
            f"Expected a model whose masks Keras' own step can train, but {model.name!r} brings {steps[0]}, which trains its weights."
        )
    kind = SupermaskModel if isinstance(model, keras.Model) else SupermaskLayer
    with scope_of(model):
        masked = kind(
            model,
            prunable,
            exclude=exclude,
            by=by,
            density=density,
            signed_constant=signed_constant,
            rescale=rescale,
            seed=seed,
        )
    wrapping.check_kernels(masked, prunable, exclude)
    return masked


@tf.custom_gradient
def bernoulli(logits, seed):
    """A sample of 0s and 1s with probabilities `sigmoid(logits)`; its gradient is that of the probabilities.

    A weight is 1 if `(byte + fraction) / 256 < sigmoid(logit)`, with a random byte of its own and one random fraction in [0, 1)
    for all weights of a unit (the last axis). So each probability is met exactly, and one random number serves eight weights.
    """
    count, units = logits.shape.num_elements(), logits.shape[-1]
    words = tf.random.stateless_uniform((-(-count // 8) + units,), seed, None, None, tf.uint64, alg="philox")
    fractions = tf.cast(_shifted(words[:units], 40), tf.float32) * 2.0**-24
    drawn = tf.concat([_shifted(words[units:], shift) & 255 for shift in range(0, 64, 8)], 0)
    drawn = tf.cast(tf.reshape(drawn[:count], logits.shape), tf.float32)
    probabilities = tf.sigmoid(tf.cast(logits, tf.float32))
    sample = tf.cast(drawn + fractions < 256.0 * probabilities, logits.dtype)

    def straight_through(upstream):
        return upstream * tf.cast(probabilities * (1.0 - probabilities), logits.dtype), None

    return sample, straight_through


def _shifted(words, count: int):
    return tf.bitwise.right_shift(words, tf.constant(count, words.dtype))


def top(scores, count: int):
    """1 for the `count` highest `|scores|`, else 0; of equal ones, rare as they are drawn, the first. Its gradient goes straight through to `|scores|`."""
    sizes = tf.abs(scores)
    return tf.cast(_is_top(sizes, count), scores.dtype) + (sizes - tf.stop_gradient(sizes))  # plus exactly 0


def _is_top(sizes, count: int):
    """The `count` highest in the graph: bisection on the bits of the cut, then on the index among ties.

    The bits of floats that are not negative order them like whole numbers; 31 counts cost less than a sort.
    """
    bits = tf.bitcast(tf.cast(tf.reshape(tf.stop_gradient(sizes), [-1]), tf.float32), tf.int32)
    index = tf.range(tf.size(bits))

    def highest(holds, digits: int):
        """The highest number of so many binary digits for which `holds`, which holds up to a point and not beyond."""

        def tried(digit, found):
            larger = found + tf.bitwise.left_shift(1, digit)
            return digit - 1, tf.where(holds(larger), larger, found)

        # A loop, because XLA would take seconds to compile so many counts of each kernel, and does not count them faster.
        started = tf.constant(digits - 1), tf.constant(0)
        return tf.while_loop(lambda digit, found: digit >= 0, tried, started, maximum_iterations=digits)[1]

    def how_many(chosen):
        return tf.reduce_sum(tf.cast(chosen, tf.int32))

    cut = highest(lambda value: how_many(bits >= value) >= count, 31)
    above, ties = bits > cut, bits == cut
    room = count - how_many(above)
    end = tf.cond(
        how_many(ties) == room,
        lambda: tf.constant(tf.int32.max),  # nearly always: nothing to choose among ties
        lambda: highest(lambda last: how_many(ties & (index < last)) <= room, 31),
    )
    return tf.reshape(above | (ties & (index < end)), sizes.shape)


def _frozen_values(kernel: Kernel, signed_constant: str | None) -> tuple[np.ndarray, float | None]:
    values = weights.value_of(kernel.variable)
    if signed_constant == "none":
        return values, None
    constant = float(np.std(values)) if signed_constant == "std" else math.sqrt(2 / weights.fan_in(values.shape))
    return np.sign(values) * np.asarray(constant, values.dtype), constant


def _check(by, density, signed_constant, rescale, seed) -> None:
    if not isinstance(rescale, bool):
        raise LotteryError(f"Expected rescale to be True or False, but received {rescale!r}.")
    whole("seed", seed)
    if by not in DEFAULTS:
        raise LotteryError(f"Expected by to be one of {', '.join(DEFAULTS)}, but received {by!r}.")
    if signed_constant not in (None, *CONSTANTS):
        raise LotteryError(
            f"Expected signed_constant to be one of {', '.join(CONSTANTS)}, but received {signed_constant!r}."
        )
    if by == "edge_popup":
        masks.check_density(density)
    elif not isinstance(density, numbers.Real) or isinstance(density, bool) or not 0 < float(density) < 1:
        raise LotteryError(f"Expected a density in (0, 1) to start learning from, but received {density!r}.")
