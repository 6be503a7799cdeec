"""One wrapper masks anything: `MaskedLayer` around a Keras 3 layer, `MaskedModel` around a model.

Both call what they wrap inside a `keras.StatelessScope`, in which each prunable kernel `w` is replaced by its effective
value `w * m` (plus `held`, what pruned weights are frozen at, where the wrapper has `held=True`). So sequential,
functional, subclassed, nested and shared layers, recurrent cells and attention are all masked in the same way, the chain
rule masks the gradients, and nothing has to be remembered by a callback. The raw kernels hold the effective values
too, so weight decay, regularisers, checkpoints and `strip` see the sparse weights.

>>> import keras, numpy as np
>>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="d")], name="net")
>>> masked = wrap(model)
>>> set_masks(masked, {"net/d/kernel": np.array([[1, 0], [0, 1], [1, 1]])})
>>> np.asarray(strip(masked).layers[0].kernel != 0).astype(int)
array([[1, 0],
       [0, 1],
       [1, 1]])
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import keras
import numpy as np

from tf_lottery import masks as masks_lib
from tf_lottery import weights
from tf_lottery.errors import LotteryError, TicketError
from tf_lottery.masks import Arrays
from tf_lottery.ticket import Ticket
from tf_lottery.weights import Kernel, Prunable


class _Masked:
    """What the two wrappers share: a mask for each prunable kernel, and a call in which masked kernels stand in."""

    kernels: tuple[Kernel, ...] = ()  # empty until the wrapped layer is built

    def _add_masks(self) -> None:
        found = weights.prunable_kernels(self.inner, self._prunable)
        positions = {id(v): i for i, v in enumerate(self.inner.variables)}
        self._positions = [positions[id(kernel.variable)] for kernel in found]
        self._masks = [self._add_array(kernel, "mask", "ones") for kernel in found]
        self._held = [self._add_array(kernel, "held", "zeros") for kernel in found] if self._holds else None
        self.kernels = tuple(found)

    def _add_array(self, kernel: Kernel, suffix: str, initializer: str) -> keras.Variable:
        name = f"{kernel.path.replace('/', '_')}_{suffix}"
        variable = self.add_weight(
            shape=kernel.variable.shape,
            initializer=initializer,
            dtype=kernel.variable.dtype,
            trainable=False,
            autocast=False,
            name=name,
        )
        setattr(self, name, variable)  # tf.train.Checkpoint sees attributes, but not the lists of a Keras layer
        return variable

    def effective(self, index: int):
        """The value that stands in for kernel number `index`: `w * m`, plus what pruned weights hold."""
        value = self.kernels[index].variable.value * self._masks[index].value
        return value if self._held is None else value + self._held[index].value

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
            standing_in[id(kernel.variable)] = (kernel.variable, self.effective(index))
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
class MaskedLayer(_Masked, keras.layers.Wrapper):
    """A Keras layer whose prunable kernels are masked.

    Args:
      layer: Any Keras 3 layer, built or not.
      prunable: What to prune; see `weights.prunable_kernels`.
      held: Whether pruned weights can be frozen at values other than zero (one more array per kernel).

    Example:

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
class MaskedModel(_Masked, keras.Model):
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
        """As `keras.Model.compile`; the loss is scaled if the *wrapped* model computes in float16."""
        if auto_scale_loss:
            optimizer = weights.loss_scaling(keras.optimizers.get(optimizer), self.model)
        super().compile(optimizer, *args, **kwargs)

    def compile_from_config(self, config: dict) -> None:
        """Keras compiles a reloaded model only if a model with its own `compile` says how."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)


def wrap(model, prunable: Prunable = None, *, held: bool = False) -> MaskedLayer | MaskedModel:
    """Masks a Keras 3 model or layer, in one call; all masks are 1 at first.

    The wrapped model shares the variables of the original, trains in `fit` with pruned weights staying pruned, and has
    the same outputs, output names and dtype policies. Compile the wrapped model: the original's `compile` does not carry
    over. A model that is wrapped already is returned as it is.

    Args:
      model: Any Keras 3 model or layer.
      prunable: What to prune, if not the kernels; see `weights.prunable_kernels`.
      held: Whether pruned weights can be frozen at values other than zero, as the `pruned` treatments of `find_ticket` and
        tickets that were found with them do.

    Raises:
      TypeError: If it is not a Keras 3 model or layer.
      LotteryError: If there is nothing to prune in it.

    Example:

    >>> masked = wrap(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), prunable="kernel$")
    >>> {path: mask.shape for path, mask in get_masks(masked).items()}.popitem()[1]
    (3, 2)
    """
    if not isinstance(model, keras.layers.Layer):
        kind = f"{type(model).__module__.partition('.')[0]}.{type(model).__name__}"
        raise TypeError(f"Expected a Keras 3 model or layer, but received a {kind}.")
    if isinstance(model, _Masked):
        if prunable is not None and prunable != model._prunable:
            raise LotteryError(
                f"Expected prunable when {model.name!r} was wrapped, but it is wrapped already: wrap the plain model."
            )
        return model
    masked = (MaskedModel if isinstance(model, keras.Model) else MaskedLayer)(model, prunable, held)
    if masked.built and not masked.kernels:
        raise LotteryError(
            f"Expected a model with at least one prunable kernel that is trainable, but {model.name!r} has none."
        )
    return masked


def strip(model) -> keras.layers.Layer:
    """The plain model or layer without masks, pruned weights exactly zero (or what they were frozen at).

    It shares its variables with the wrapped one. A Sequential or Functional model that has `MaskedLayer`s inside is
    rebuilt around the plain layers.
    """
    for part in _masked_parts(model):
        settle(part)
    if isinstance(model, _Masked):
        return strip(model.inner) if _masked_parts(model.inner) else model.inner
    if not _masked_parts(model):
        return model
    if not isinstance(model, keras.Sequential) and not hasattr(model, "inputs"):
        raise LotteryError(
            f"Expected a Sequential or Functional model around masked layers, but {model.name!r} is a {type(model).__name__}."
        )
    return keras.models.clone_model(model, clone_function=strip)


def get_masks(model) -> Arrays:
    """The masks of a wrapped model, or of a model with `MaskedLayer`s inside: {variable path: uint8 array}, 1 = kept."""
    named = _named_masks(model)
    return {path: weights.value_of(mask).astype(np.uint8) for path, (mask, *_) in named.items()}


def set_masks(model, masks: Mapping[str, np.ndarray]) -> None:
    """Sets masks by variable path; kernels that are not named keep theirs.

    Pruned weights become zero, and so do weights that a mask brings back. The state of a compiled optimizer (not its
    step and learning rate) starts anew, so that old momentum moves nothing.

    Raises:
      LotteryError: If a path is unknown, a shape does not fit or a value is not 0 or 1; the model is unchanged then.
    """
    named = _named_masks(model)
    masks = masks_lib.checked(masks, {path: tuple(mask.shape) for path, (mask, *_) in named.items()})
    for path, value in masks.items():
        mask, held, part, index = named[path]
        mask.assign(value)
        if held is not None:
            held.assign(np.zeros(held.shape))
        settle(part, index)
    reset_optimizer(model, keep_step=True)


def named_variables(model) -> dict[str, keras.Variable]:
    """The variables of the plain model under unique paths, weights and random seeds alike."""
    return weights.by_path((model.inner if isinstance(model, _Masked) else model).variables)


def get_values(model) -> Arrays:
    """The values of the plain model's variables: {path: array}."""
    return {path: weights.value_of(variable) for path, variable in named_variables(model).items()}


def set_state(masked: MaskedModel | MaskedLayer, masks: Arrays, values: Mapping[str, np.ndarray]) -> None:
    """Sets masks and variables together: what a pruned position of a kernel holds is what it is frozen at.

    Raises:
      LotteryError: If pruned weights are to hold something and the model was not wrapped with `held=True`.
    """
    for path, mask in masks.items():
        if not masked._holds and np.any(values[path][mask == 0]):
            raise LotteryError(
                f"Expected a model wrapped with held=True to freeze pruned weights of {path!r} at other values than 0."
            )
    for index, kernel in enumerate(masked.kernels):
        mask = masks[kernel.path]
        masked._masks[index].assign(mask)
        if masked._holds:
            masked._held[index].assign(np.where(mask, 0, values[kernel.path]))
    for path, variable in named_variables(masked).items():
        variable.assign(values[path])
    reset_optimizer(masked)


def gradient_masks(model) -> tuple[keras.layers.Layer, dict[int, keras.Variable], dict[int, keras.Variable]]:
    """A wrapped model as its parts, for a training loop that masks gradients itself instead of kernels.

    Returns:
      The plain model to call, and by `id` of the kernel its mask and, if the wrapper has them, its held values. For a
      model that is not wrapped as a whole: the model itself and nothing.
    """
    if not isinstance(model, _Masked):
        return model, {}, {}
    ids = [id(kernel.variable) for kernel in model.kernels]
    return model.inner, dict(zip(ids, model._masks)), dict(zip(ids, model._held or ()))


def reset_optimizer(model, *, keep_step: bool = False) -> None:
    """Gives the model's compiled optimizer the state it was built with; with `keep_step` its step and rate stay."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not optimizer.built:
        return
    fresh = weights.fresh_optimizer(optimizer)
    fresh.build(model.trainable_variables)
    kept = {"iteration", "learning_rate"} if keep_step else set()
    for variable, start in zip(optimizer.variables, fresh.variables):
        if variable.name not in kept:
            variable.assign(start.value)


def apply_ticket(ticket: Ticket, model, which: str = "initial") -> MaskedModel | MaskedLayer:
    """See `Ticket.apply`."""
    if which not in ("initial", "final"):
        raise TicketError(f"Expected weights='initial' or 'final', but received {which!r}.")
    if getattr(ticket, which) is None:
        raise TicketError("Expected a trained ticket for weights='final', but this one has no trained weights.")
    ticket = in_paths_of(model, ticket)
    if not isinstance(model, _Masked):
        holds = any(np.any(ticket.initial[path][mask == 0]) for path, mask in ticket.masks.items())
        model = wrap(model, prunable=list(ticket.masks), held=holds)
    if set(ticket.masks) != {kernel.path for kernel in model.kernels}:
        raise TicketError(
            f"Expected a model that masks {', '.join(ticket.masks)}, but it masks {', '.join(k.path for k in model.kernels)}."
        )
    set_state(model, ticket.masks, getattr(ticket, which))
    return model


def in_paths_of(model, ticket: Ticket) -> Ticket:
    """The same ticket under the model's variable paths.

    Raises:
      TicketError: If the model does not have the ticket's variables, by name or by order and shape.
    """
    path_of = {name: path for path, name in _match(named_variables(model), ticket.initial).items()}

    def renamed(arrays):
        return arrays and {path_of[name]: array for name, array in arrays.items()}

    return dataclasses.replace(
        ticket, masks=renamed(ticket.masks), initial=renamed(ticket.initial), final=renamed(ticket.final)
    )


def _match(named: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Model path -> ticket path: by name if all names agree, else in order if all shapes agree."""
    pairs = [(path, path) for path in named] if set(named) == set(values) else list(zip(named, values))
    for path, name in pairs:
        if tuple(named[path].shape) != values[name].shape:
            raise TicketError(
                f"Expected a model whose {path!r} has the shape {values[name].shape} of the ticket's {name!r}, "
                f"but it has {tuple(named[path].shape)}."
            )
    if len(named) != len(values):
        raise TicketError(f"Expected a model with the ticket's {len(values)} variables, but it has {len(named)}.")
    return dict(pairs)


def _masked_parts(model) -> list[_Masked]:
    return [layer for layer in [model, *weights.sublayers(model)] if isinstance(layer, _Masked)]


def _named_masks(model) -> dict[str, tuple]:
    """Path -> (mask, held or None, wrapper, position in the wrapper) for every masked kernel in the model."""
    parts = _masked_parts(model)
    if not parts:
        raise LotteryError(
            f"Expected a wrapped model, but {model.name!r} has no masks: call tf_lottery.wrap on it first."
        )
    if not all(part.built for part in parts):
        raise LotteryError(
            f"Expected a built model, but {model.name!r} has no weights yet: build it or call it on data first."
        )
    paths = {id(variable): path for path, variable in named_variables(model).items()}
    return {
        paths[id(kernel.variable)]: (part._masks[i], part._held[i] if part._held else None, part, i)
        for part in parts
        for i, kernel in enumerate(part.kernels)
    }


def settle(part: _Masked, index: int | None = None) -> None:
    """Writes the effective values into the raw kernels, whatever moved them."""
    for i in range(len(part.kernels)) if index is None else [index]:
        part.kernels[i].variable.assign(part.effective(i))
