"""What all wrappers share: a mask for each prunable kernel, and a call in which masked kernels stand in.

What is wrapped is called inside a scope in which each prunable kernel `w` is replaced by its effective value `w * m` (plus `held`,
what pruned weights are frozen at, where the wrapper has `held=True`). So sequential, functional, subclassed, nested and shared
layers, recurrent cells and attention are all masked in the same way, the chain rule masks the gradients, and nothing has to be
remembered by a callback. The raw kernels hold the effective values too, so weight decay, regularisers, checkpoints and `strip` see
the sparse weights. (Muon, which mixes the weights of a kernel, moves raw pruned weights in between; they are zero again when the
model is saved or stripped, and at the end of an epoch with one of the callbacks.)
"""

from __future__ import annotations

import functools
import gc
import inspect
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.base.errors import LotteryError, LotteryWarning
from tf_lottery.masking import weights
from tf_lottery.masking.calls import has_weights
from tf_lottery.masking.scope import StandIns
from tf_lottery.masking.weights import Kernel

_WRAPPERS: weakref.WeakSet = weakref.WeakSet()  # which of them mask a kernel
_STILL = (keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)  # at zeros: no penalty, no gradient


class Masked(keras.layers.Layer):
    """What the two wrappers share: a mask for each prunable kernel, and a call in which masked kernels stand in."""

    kernels: tuple[Kernel, ...] = ()  # empty until the wrapped layer is built
    learns = False  # whether the masks are trained, and the kernels are not

    def _add_masks(self) -> None:
        found = weights.prunable_kernels(self.inner, self._prunable, self._exclude)
        self._masks = [self._add_array(kernel, f"mask_{i}", "ones") for i, kernel in enumerate(found)]
        self._held: list[keras.Variable] | Any = None
        if self._holds:
            self._held = [self._add_array(kernel, f"held_{i}", "zeros") for i, kernel in enumerate(found)]
        self.kernels = tuple(found)
        for i, kernel in enumerate(found):
            first = kernel.variable.regularizer
            if first is not None and (self._holds or type(first) not in _STILL):
                kernel.variable.regularizer = _Regularizer(self, i, first)
        self._warn_of_others()
        _WRAPPERS.add(self)

    def _warn_of_others(self) -> None:
        """A kernel that two wrappers share would have two masks, and each of them would undo the other's."""
        own = {id(kernel.variable) for kernel in self.kernels}

        def shared() -> dict[str, str]:
            return {k.path: other.name for other in _WRAPPERS for k in other.kernels if id(k.variable) in own}

        if shared():
            gc.collect()  # a wrapper that nobody holds any more is in nobody's way
            for path, name in list(shared().items())[:1]:
                warnings.warn(
                    LotteryWarning(
                        "{} is masked by another wrapper too, of {!r}, and each holds a mask of its own: strip that one first, or wrap "
                        "one model that holds both.",
                        *(path, name),
                    ),
                    stacklevel=6,
                )

    def warn_of_forgotten(self) -> None:
        """Kernels that the rule finds now and did not when the model was wrapped have no mask: layers that were frozen then."""
        if not self.kernels or self.learns:
            return
        own = {id(kernel.variable) for kernel in self.kernels}
        found = weights.prunable_kernels(self.inner, self._prunable, self._exclude)
        if forgotten := [kernel.path for kernel in found if id(kernel.variable) not in own]:
            warnings.warn(
                LotteryWarning(
                    "{} of {!r} stay dense, because they were not trainable when it was wrapped: wrap the model that strip gives, or "
                    "name them in {prunable}.",
                    *(", ".join(forgotten), self.name),
                ),
                stacklevel=4,
            )

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
        """The value that stands in for kernel number `index`: `w * m`, plus what pruned weights hold.

        Where the layer adds a low-rank update to its kernel (LoRA), it is taken off pruned weights: their sum is what is zero.
        """
        return self._under_mask(index, self.kernels[index].variable.value)

    def _under_mask(self, index: int, value):
        kernel = self.kernels[index]
        mask = tf.cast(self._masks[index].value, value.dtype)  # a layer that assigns its kernel may read it in 16 bits
        effective = value * mask
        if self._held is not None:
            effective += tf.cast(self._held[index].value, value.dtype)
        if getattr(kernel.layer, "lora_enabled", False):
            effective -= (1 - mask) * tf.cast(_low_rank_update(kernel), value.dtype)
        return effective

    def mask(self, index: int) -> np.ndarray:
        """The mask of kernel number `index`, uint8."""
        return view_of(self._masks[index]).astype(np.uint8)

    def thaw(self) -> None:
        """Gives up the kernels of the model, which is used without its masks from now on."""
        _WRAPPERS.discard(self)
        for kernel in self.kernels:
            if isinstance(regularizer := kernel.variable.regularizer, _Regularizer):
                kernel.variable.regularizer = regularizer.first

    def _takes_what_the_model_takes(self) -> None:
        """Has Keras read the arguments of a call as those of what is wrapped: tensors, masks, and what is neither."""
        theirs = self.inner._call_signature
        parameters = dict(theirs.parameters)
        last = [parameters.pop(name) for name, p in theirs.parameters.items() if p.kind is p.VAR_KEYWORD]
        parameters.setdefault("training", inspect.Parameter("training", inspect.Parameter.KEYWORD_ONLY, default=None))
        self._call_signature = theirs.replace(parameters=[*parameters.values(), *last])

    def build(self, input_shape=None) -> None:
        if not has_weights(self.inner):
            needed = [p for p in inspect.signature(self.inner.build).parameters.values() if p.default is p.empty]
            if sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in needed) > 1:
                raise LotteryError(
                    f"Expected a layer with weights, but {self.inner.name!r}, which takes several inputs, has none yet: build it or call it on data first."
                )
            self.inner.build_from_config({"input_shape": input_shape})
        if not self.kernels:
            self._add_masks()
        self.built = True

    def call(self, *args, training=None, **kwargs):
        values = [
            (kernel.variable, functools.partial(self.effective, index, bool(training)))
            for index, kernel in enumerate(self.kernels)
        ]
        if training is not None:
            kwargs["training"] = (
                training  # `stateless_call` opens no call context, through which it would reach the layers
            )
        with StandIns(values) as scope:
            outputs = self.inner(*args, **kwargs)
        for loss in scope.losses:
            self.add_loss(loss)
        return outputs

    def compute_mask(self, inputs, previous_mask):
        return self.inner.compute_mask(inputs, previous_mask)

    def save_own_variables(self, store) -> None:
        """What is saved is sparse, whatever the optimizer did to the raw kernels since they were last used."""
        settle(self)
        super().save_own_variables(store)

    def load_own_variables(self, store) -> None:
        super().load_own_variables(store)
        self._check_masks()

    def set_weights(self, weights) -> None:
        """As `keras.Layer.set_weights`; masks have to be whole.

        Raises:
          LotteryError: If a mask has other values than 0 and 1, as averages of several masks have; nothing is set then.
        """
        before = self.get_weights()
        super().set_weights(weights)
        try:
            self._check_masks()
        except LotteryError:
            super().set_weights(before)
            raise
        settle(self)

    def _check_masks(self) -> None:
        for kernel, mask in zip(self.kernels, () if self.learns else self._masks):
            if not np.isin(value := mask.numpy(), (0, 1)).all():
                raise LotteryError(
                    f"Expected masks of zeros and ones, but received {value[(value != 0) & (value != 1)].flat[0]:g} in that of "
                    f"{kernel.path!r}: average the weights of models under one mask, or of the plain models that strip gives."
                )

    def get_config(self) -> dict:
        """Names the wrapped kernels by their positions, which outlive a predicate and automatic layer names."""
        return {
            "name": self.name,
            "inner": keras.saving.serialize_keras_object(self.inner),
            "prunable": self._positions() if self.kernels else self._prunable,
            "exclude": None if self.kernels else self._exclude,
            "held": self._holds,
        }

    def _positions(self) -> list[int]:
        """Where the masked kernels stand among the variables, now: LoRA and freezing add and move some."""
        at = {id(variable): i for i, variable in enumerate(self.inner.variables)}
        return [at[id(kernel.variable)] for kernel in self.kernels]

    @classmethod
    def from_config(cls, config: dict, custom_objects=None):
        config = dict(config)
        inner = keras.saving.deserialize_keras_object(config.pop("inner"), custom_objects=custom_objects)
        return cls(inner, **config)


class _Regularizer:
    """A kernel's own regularizer, of what stands in for the kernel: one like Orthogonal, or of a custom kind, moves pruned weights.

    Args:
      part: The wrapper; the kernel may outlive it.
      index: The number of the kernel in it.
      first: The regularizer that the kernel had.
    """

    def __init__(self, part: Masked, index: int, first: Callable):
        self.part, self.index, self.first = weakref.ref(part), index, first

    def __call__(self, kernel):
        part = self.part()
        if part is None or getattr(part, "brings_its_step", False):  # whose steps read the raw kernels
            return self.first(kernel)
        return self.first(part._under_mask(self.index, keras.ops.convert_to_tensor(kernel)))


def unwrapped(model) -> keras.layers.Layer:
    """The model inside the wrapper; of one that is not wrapped as a whole itself."""
    return model.inner if isinstance(model, Masked) else model


def masked_parts(model) -> list[Masked]:
    return [layer for layer in [model, *weights.sublayers(model)] if isinstance(layer, Masked)]


def view_of(variable: keras.Variable) -> np.ndarray:
    """The variable's value to be read at once: where its memory is the host's, this is that memory, which updates may use again."""
    return np.asarray(tf.convert_to_tensor(variable.value))


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


def stripped(model) -> keras.layers.Layer:
    """See `wrapping.strip`."""
    settle_all(model)
    for part in masked_parts(model):
        part.thaw()
    if isinstance(model, Masked):
        return stripped(model.inner) if masked_parts(model.inner) else model.inner
    if not masked_parts(model):
        return model
    if not isinstance(model, keras.Sequential) and not hasattr(model, "inputs"):
        raise LotteryError(
            f"Expected a Sequential or Functional model around masked layers, but {model.name!r} is a {type(model).__name__}."
        )
    return keras.models.clone_model(model, clone_function=stripped)


def _low_rank_update(kernel: Kernel):
    """What a layer with LoRA adds to its kernel, to the digit: what it takes for the kernel where that is zero."""
    variable = kernel.variable
    with StandIns([(variable, lambda: tf.zeros_like(variable.value))]):
        return keras.ops.convert_to_tensor(getattr(kernel.layer, variable.name))
