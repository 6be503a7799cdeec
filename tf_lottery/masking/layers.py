"""One wrapper masks anything: `MaskedLayer` around a Keras 3 layer, `MaskedModel` around a model.

Both call what they wrap inside a `keras.StatelessScope`, in which each prunable kernel `w` is replaced by its effective
value `w * m` (plus `held`, what pruned weights are frozen at, where the wrapper has `held=True`). So sequential,
functional, subclassed, nested and shared layers, recurrent cells and attention are all masked in the same way, the chain
rule masks the gradients, and nothing has to be remembered by a callback. The raw kernels hold the effective values
too, so weight decay, regularisers, checkpoints and `strip` see the sparse weights. (Muon, which mixes the weights of a kernel,
moves raw pruned weights in between; they are zero again when the model is saved or stripped, and at the end of an epoch with
one of the callbacks.)

>>> import keras, numpy as np
>>> from tf_lottery import get_masks, set_masks
>>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="d")], name="net")
>>> masked = wrap(model)
>>> set_masks(masked, {"net/d/kernel": np.array([[1, 0], [0, 1], [1, 1]])})
>>> np.asarray(strip(masked).layers[0].kernel != 0).astype(int)
array([[1, 0],
       [0, 1],
       [1, 1]])
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import precision, weights
from tf_lottery.masking.distribution import scope_of
from tf_lottery.masking.weights import Kernel, Prunable


class Masked(keras.layers.Layer):
    """What the two wrappers share: a mask for each prunable kernel, and a call in which masked kernels stand in."""

    kernels: tuple[Kernel, ...] = ()  # empty until the wrapped layer is built
    learns = False  # whether the masks are trained, and the kernels are not

    def _add_masks(self) -> None:
        found = weights.prunable_kernels(self.inner, self._prunable)
        positions = {id(v): i for i, v in enumerate(self.inner.variables)}
        self._positions = [positions[id(kernel.variable)] for kernel in found]
        self._masks = [self._add_array(kernel, f"mask_{i}", "ones") for i, kernel in enumerate(found)]
        self._held: list[keras.Variable] | Any = None
        if self._holds:
            self._held = [self._add_array(kernel, f"held_{i}", "zeros") for i, kernel in enumerate(found)]
        self.kernels = tuple(found)

    def _add_array(self, kernel: Kernel, name: str, initializer: str, trainable: bool = False) -> keras.Variable:
        variable = self.add_weight(
            shape=kernel.variable.shape,
            initializer=initializer,
            dtype=kernel.variable.dtype,
            trainable=trainable,
            autocast=False,
            name=f"{kernel.path.replace('/', '_')}_{name}",
        )
        setattr(self, name, variable)  # tf.train.Checkpoint sees attributes, but not the lists of a Keras layer
        return variable

    def effective(self, index: int, training: bool = False):
        """The value that stands in for kernel number `index`: `w * m`, plus what pruned weights hold."""
        value = self.kernels[index].variable.value * self._masks[index].value
        return value if self._held is None else value + self._held[index].value

    def mask(self, index: int) -> np.ndarray:
        """The mask of kernel number `index`, uint8."""
        return weights.value_of(self._masks[index]).astype(np.uint8)

    def thaw(self) -> None:
        """Makes trainable what the wrapper froze: here nothing."""

    def build(self, input_shape=None) -> None:
        if not self.inner.built:
            self.inner.build_from_config({"input_shape": input_shape})
        if not self.kernels:
            self._add_masks()
        self.built = True

    def call(self, inputs, *args, training=None, **kwargs):
        # Without a mapping of its own a variable would lose what an outer scope says about it, hence all of them.
        raw = {id(v): v for v in self.inner.variables}
        standing_in = {id(v): (v, v.value) for v in raw.values()}
        for index, kernel in enumerate(self.kernels):
            standing_in[id(kernel.variable)] = (kernel.variable, self.effective(index, bool(training)))
        with keras.StatelessScope(list(standing_in.values()), collect_losses=True) as scope:
            before = {key: scope.get_current_value(v) for key, v in raw.items()}
            outputs = self.inner(inputs, *args, **kwargs)  # training reaches it through the call context
        for key, variable in raw.items():  # what layers update in call: statistics, the state of dropout
            if (after := scope.get_current_value(variable)) is not before[key]:
                variable.assign(after)
        for loss in scope.losses:
            self.add_loss(loss)
        return outputs

    def compute_mask(self, inputs, previous_mask):
        return self.inner.compute_mask(inputs, previous_mask)

    def save_own_variables(self, store) -> None:
        """What is saved is sparse, whatever the optimizer did to the raw kernels since they were last used."""
        settle(self)
        super().save_own_variables(store)

    def get_config(self) -> dict:
        """Names the wrapped kernels by their positions, which outlive a predicate and automatic layer names."""
        return {
            "name": self.name,
            "inner": keras.saving.serialize_keras_object(self.inner),
            "prunable": self._positions if self.kernels else self._prunable,
            "held": self._holds,
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects=None):
        config = dict(config)
        inner = keras.saving.deserialize_keras_object(config.pop("inner"), custom_objects=custom_objects)
        return cls(inner, **config)


@keras.saving.register_keras_serializable("tf_lottery")
class MaskedLayer(Masked, keras.layers.Wrapper):
    """A Keras layer whose prunable kernels are masked.

    Args:
      layer: Any Keras 3 layer, built or not.
      prunable: What to prune; see `weights.prunable_kernels`.
      held: Whether pruned weights can be frozen at values other than zero (one more array per kernel).

    Examples:

    >>> import numpy as np
    >>> layer = MaskedLayer(keras.layers.Dense(2))
    >>> layer(np.ones((1, 3), "float32")).shape
    TensorShape([1, 2])
    """

    def __init__(self, layer, prunable: Prunable = None, held: bool = False, **kwargs):
        # The wrapper computes in the variables' dtype: the kernels are masked before the layer casts them.
        super().__init__(layer, dtype=layer.variable_dtype, autocast=False, **{"name": layer.name, **kwargs})
        self._prunable, self._holds, self._held = prunable, held, None
        self.supports_masking = layer.supports_masking
        if layer.built:
            self.build()

    @property
    def inner(self) -> keras.layers.Layer:
        return self.layer


@keras.saving.register_keras_serializable("tf_lottery")
class MaskedModel(Masked, keras.Model):
    """A Keras model whose prunable kernels are masked; compile, fit, save it like any other.

    Args:
      model: Any Keras 3 model; it is shared, not copied. A model that is not built yet gets its masks with its weights.
      prunable: What to prune; see `weights.prunable_kernels`.
      held: Whether pruned weights can be frozen at values other than zero (one more array per kernel).
    """

    def __init__(self, model, prunable: Prunable = None, held: bool = False, **kwargs):
        super().__init__(dtype=model.variable_dtype, autocast=False, **{"name": model.name, **kwargs})
        self.model = model
        self._prunable, self._holds, self._held = prunable, held, None
        self.supports_masking = model.supports_masking
        if model.built:
            self.build()

    @property
    def inner(self) -> keras.Model:
        return self.model

    @property
    def layers(self) -> list[keras.layers.Layer]:
        return self.model.layers

    @property
    def output_names(self) -> list[str] | None:
        return getattr(self.model, "output_names", None)

    def export(self, *args, **kwargs):
        """Exports the plain sparse model: what leaves needs neither masks nor tf_lottery."""
        return strip(self).export(*args, **kwargs)

    def compile(self, optimizer="rmsprop", *args, auto_scale_loss: bool = True, **kwargs) -> None:
        """As `keras.Model.compile`; the loss is scaled if the *wrapped* model computes in float16.

        Raises:
          LotteryError: If XLA is asked for with several replicas, whose meetings it cannot compile.
        """
        if kwargs.get("jit_compile") is True and self.distribute_strategy.num_replicas_in_sync > 1:
            raise LotteryError(
                f"Expected jit_compile of 'auto' or False for {self.name!r} under a strategy of several replicas, but received True."
            )
        if auto_scale_loss:
            optimizer = precision.loss_scaling(keras.optimizers.get(optimizer), self.model)
        super().compile(optimizer, *args, **kwargs)

    def fit(self, *args, **kwargs) -> keras.callbacks.History:
        """As `keras.Model.fit`."""
        if not self.compiled and self.model.compiled:
            raise LotteryError(
                f"Expected {self.name!r} to be compiled after it was wrapped, but only the model inside it was: call compile on what wrap returned."
            )
        return super().fit(*args, **kwargs)

    def compile_from_config(self, config: dict) -> None:
        """Keras compiles a reloaded model only if a model with its own `compile` says how."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)


def wrap(
    model, prunable: Prunable = None, *, held: bool = False, keep_zeros: bool = False
) -> MaskedLayer | MaskedModel:
    """Masks a Keras 3 model or layer, in one call; all masks are 1 at first.

    The wrapped model shares the variables of the original, trains in `fit` with pruned weights staying pruned, and has
    the same outputs, output names and dtype policies. Compile the wrapped model: the original's `compile` does not carry
    over. A model that is wrapped already is returned as it is.

    Args:
      model: Any Keras 3 model or layer.
      prunable: What to prune, if not the kernels; see `weights.prunable_kernels`.
      held: Whether pruned weights can be frozen at values other than zero, as the `pruned` treatments of `find_ticket` and
        tickets that were found with them do.
      keep_zeros: Prune the weights that are exactly zero now, to fine-tune a sparse model that was stripped or loaded. A
        kernel that is zero as a whole (by its initializer, say) is left dense.

    Raises:
      TypeError: If it is not a Keras 3 model or layer.
      LotteryError: If there is nothing to prune in it, or it has no weights yet and `keep_zeros` asks for them.

    Examples:

    >>> from tf_lottery import get_masks
    >>> masked = wrap(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), prunable="kernel$")
    >>> {path: mask.shape for path, mask in get_masks(masked).items()}.popitem()[1]
    (3, 2)
    """
    weights.check_keras_3(model)
    if isinstance(model, Masked):
        if prunable is not None and prunable != model._prunable:
            raise LotteryError(
                f"Expected prunable when {model.name!r} was wrapped, but it is wrapped already: wrap the plain model."
            )
        masked = model
    else:
        with scope_of(model):
            kind: type[MaskedModel | MaskedLayer] = MaskedModel if isinstance(model, keras.Model) else MaskedLayer
            masked = kind(model, prunable, held)
    check_kernels(masked, prunable)
    if keep_zeros:
        if not masked.built:
            raise LotteryError(f"Expected a built model for keep_zeros, but {model.name!r} has no weights yet.")
        for kernel, mask in zip(masked.kernels, masked._masks):
            nonzero = weights.value_of(kernel.variable) != 0
            if nonzero.any():
                mask.assign(mask.numpy() * nonzero)
    return masked


def check_kernels(masked: Masked, prunable: Prunable) -> None:
    """Checks that there is something to mask in what was wrapped."""
    if masked.built and not masked.kernels:
        raise LotteryError(
            f"Expected a model with at least one prunable kernel that is trainable, but {masked.name!r} has none"
            + (f" that prunable={prunable!r} chooses." if prunable is not None else ".")
        )


def strip(model) -> keras.layers.Layer:
    """The plain model or layer without masks, pruned weights exactly zero (or what they were frozen at).

    It shares its variables with the wrapped one. A Sequential or Functional model that has `MaskedLayer`s inside is
    rebuilt around the plain layers.
    """
    weights.check_keras_3(model)
    settle_all(model)
    for part in masked_parts(model):
        part.thaw()
    if isinstance(model, Masked):
        return strip(model.inner) if masked_parts(model.inner) else model.inner
    if not masked_parts(model):
        return model
    if not isinstance(model, keras.Sequential) and not hasattr(model, "inputs"):
        raise LotteryError(
            f"Expected a Sequential or Functional model around masked layers, but {model.name!r} is a {type(model).__name__}."
        )
    return keras.models.clone_model(model, clone_function=strip)


def gradient_masks(model) -> tuple[keras.layers.Layer, dict[int, keras.Variable], dict[int, keras.Variable]]:
    """A wrapped model as its parts, for a training loop that masks gradients itself instead of kernels.

    Returns:
      The plain model to call, and by `id` of the kernel its mask and, if the wrapper has them, its held values. For a
      model that is not wrapped as a whole, or learns its masks: the model itself and nothing.
    """
    if not isinstance(model, Masked) or model.learns:
        return model, {}, {}
    ids = [id(kernel.variable) for kernel in model.kernels]
    return model.inner, dict(zip(ids, model._masks)), dict(zip(ids, model._held or ()))


def masked_parts(model) -> list[Masked]:
    return [layer for layer in [model, *weights.sublayers(model)] if isinstance(layer, Masked)]


def settle_all(model) -> None:
    """Writes the effective values into all raw kernels of a model."""
    for part in masked_parts(model):
        settle(part)


def settle(part: Masked, index: int | None = None) -> None:
    """Writes the effective values into the raw kernels, whatever moved them."""
    for i in range(len(part.kernels)) if index is None else [index]:
        if part.learns:
            part._masks[i].assign(part.mask(i))
        part.kernels[i].variable.assign(part.effective(i))
