"""The wrappers: `MaskedLayer` around a Keras 3 layer, `MaskedModel` around a model."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence

import keras

from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import precision
from tf_lottery.masking.calls import has_weights, takes_training
from tf_lottery.masking.masked import Masked, settle, stripped
from tf_lottery.masking.own_step import OF_METRICS, ON_BATCH, STEP, Constraint, Relay, SharedState, own_methods
from tf_lottery.masking.weights import Prunable


@keras.saving.register_keras_serializable("tf_lottery")
class MaskedLayer(Masked, keras.layers.Wrapper):
    """A Keras layer whose prunable kernels are masked.

    Args:
      layer: Any Keras 3 layer, built or not.
      prunable: What to prune; see `weights.prunable_kernels`.
      held: Whether pruned weights can be frozen at values other than zero (one more array per kernel).
      exclude: What to leave out of what `prunable` chooses.

    Examples:

    >>> import numpy as np
    >>> layer = MaskedLayer(keras.layers.Dense(2))
    >>> layer(np.ones((1, 3), "float32")).shape
    TensorShape([1, 2])
    """

    def __init__(self, layer, prunable: Prunable = None, held: bool = False, exclude: Prunable = None, **kwargs):
        # The wrapper computes in the variables' dtype: the kernels are masked before the layer casts them.
        super().__init__(layer, dtype=layer.variable_dtype, autocast=False, **{"name": layer.name, **kwargs})
        self._prunable, self._exclude, self._holds, self._held = prunable, exclude, held, None
        self.supports_masking = layer.supports_masking
        self._takes_what_the_model_takes()
        if layer.built:
            self.build()

    @property
    def inner(self) -> keras.layers.Layer:
        return self.layer


@keras.saving.register_keras_serializable("tf_lottery")
class MaskedModel(Masked, keras.Model):
    """A Keras model whose prunable kernels are masked; compile, fit, save it like any other.

    What the model has that Keras' models do not, methods and attributes, is reached through the wrapper. A model that brings
    its own step (`train_step`, `compute_loss`, its own `compile`, ...) is compiled and trained by it; see `own_step`.

    Args:
      model: Any Keras 3 model; it is shared, not copied. A model that is not built yet gets its masks with its weights.
      prunable: What to prune; see `weights.prunable_kernels`.
      held: Whether pruned weights can be frozen at values other than zero (one more array per kernel).
      exclude: What to leave out of what `prunable` chooses.
    """

    brings_its_step = False  # until there is a model
    callbacks_in_fit: Sequence[keras.callbacks.Callback] = ()  # so that they can know of each other
    compiled, optimizer, loss = SharedState(), SharedState(), SharedState()
    steps_per_execution, stop_training = SharedState(), SharedState()
    _initial_epoch = SharedState()  # where a callback says that an earlier fit had come to

    def __init__(self, model, prunable: Prunable = None, held: bool = False, exclude: Prunable = None, **kwargs):
        super().__init__(dtype=model.variable_dtype, autocast=False, **{"name": model.name, **kwargs})
        self.model = model
        self._prunable, self._exclude, self._holds, self._held = prunable, exclude, held, None
        self.supports_masking = model.supports_masking
        self._takes_what_the_model_takes()
        self._call_has_training_arg = takes_training(model)  # Keras asks this before it passes `training` in a step
        self.brings_its_step = bool(own_methods(model))
        if has_weights(model):
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

    def count_params(self) -> int:
        """As `keras.Model.count_params`, of the model without its masks."""
        return self.model.count_params()

    def __getattr__(self, name: str):
        """What the model has that wrappers do not: `inputs`, `input_shape`, the methods and attributes of a subclass."""
        if name.startswith("_") or name == "model" or hasattr(type(self), name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        value = getattr(self.model, name)
        if inspect.ismethod(value):  # it may train, and calls the layers without the wrapper
            self._constrain()
        return value

    def __setattr__(self, name: str, value) -> None:
        """Attributes that only the model has are set there."""
        own = name.startswith("_") or name in self.__dict__ or hasattr(type(self), name) or "model" not in self.__dict__
        if own or not hasattr(self.model, name):
            super().__setattr__(name, value)
        else:
            setattr(self.model, name, value)

    def build(self, input_shape=None) -> None:
        super().build(input_shape)
        if self.brings_its_step:
            self._constrain()

    def _constrain(self) -> None:
        """Makes the masks constraints of the kernels, which optimizers apply after each update."""
        for index, kernel in enumerate(self.kernels):
            if not isinstance(kernel.variable.constraint, Constraint):
                effective = functools.partial(self.effective, index)
                kernel.variable.constraint = Constraint(effective, kernel.variable.constraint)
                self.model.train_function = None  # an older one was made without it

    def settle_unconstrained(self) -> None:
        """Gives those kernels their zeros that a step has moved without an optimizer, which would have applied the masks."""
        for index, kernel in enumerate(self.kernels):
            if not getattr(kernel.variable.constraint, "applied", False):
                settle(self, index)

    def thaw(self) -> None:
        super().thaw()
        for kernel in self.kernels:
            if isinstance(constraint := kernel.variable.constraint, Constraint):
                kernel.variable.constraint = constraint.first
                self.model.train_function = None

    def ready(self) -> None:
        """Before the model runs by its own methods: it may have got its weights just now, or other ones."""
        if not self.built and has_weights(self.model):
            self.build()
        if any(getattr(kernel.layer, "lora_enabled", False) for kernel in self.kernels):
            raise LotteryError(
                f"Expected no LoRA in {self.model.name!r}, which trains by {own_methods(self.model)[0]} of its own: strip it first."
            )
        self._constrain()
        settle(self)

    def export(self, *args, **kwargs):
        """Exports the plain sparse model: what leaves needs neither masks nor tf_lottery."""
        return stripped(self).export(*args, **kwargs)

    def save(self, filepath, *args, **kwargs) -> None:
        """As `keras.Model.save`, masks included, in the `.keras` format.

        Raises:
          LotteryError: If it is to be an `.h5` file, which does not hold masks.
        """
        if str(filepath).endswith((".h5", ".hdf5")):
            raise LotteryError(
                f"Expected a name that ends in .keras for a model with masks, but received {str(filepath)!r}: save it as .keras, or "
                "what tf_lottery.strip gives as .h5."
            )
        super().save(filepath, *args, **kwargs)

    def quantize(self, *args, **kwargs) -> None:
        """Refused: what is quantized are the weights of a plain model.

        Raises:
          LotteryError: Always.
        """
        raise LotteryError(
            f"Expected a plain model to quantize, but {self.name!r} is masked: call tf_lottery.strip on it first."
        )

    def compile(self, *args, **kwargs) -> None:
        """As `keras.Model.compile`, or that of the model inside if it brings its own step.

        The loss is scaled if the *wrapped* model computes in float16.

        Raises:
          LotteryError: If XLA is asked for with several replicas, whose meetings it cannot compile.
        """
        self.warn_of_forgotten()
        if self.brings_its_step:
            return self.model.compile(*args, **kwargs)
        return self._compile(*args, **kwargs)

    def _compile(self, optimizer="rmsprop", *args, auto_scale_loss: bool = True, **kwargs) -> None:
        if kwargs.get("jit_compile") is True and self.distribute_strategy.num_replicas_in_sync > 1:
            raise LotteryError(
                f"Expected jit_compile of 'auto' or False for {self.name!r} under a strategy of several replicas, but received True."
            )
        if auto_scale_loss:
            optimizer = precision.loss_scaling(keras.optimizers.get(optimizer), self.model)
        super().compile(optimizer, *args, **kwargs)

    def get_compile_config(self):
        """None if the model brings its own step: then its own is saved with it."""
        return None if self.brings_its_step else super().get_compile_config()

    def compile_from_config(self, config: dict) -> None:
        """Keras compiles a reloaded model only if a model with its own `compile` says how."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def fit(self, *args, **kwargs) -> keras.callbacks.History:
        """As `keras.Model.fit`, or that of the model inside if it brings its own step."""
        if not self.brings_its_step and not self.compiled and self.model.compiled:
            raise LotteryError(
                f"Expected {self.name!r} to be compiled after it was wrapped, but only the model inside it was: call compile on what wrap returned."
            )
        method = self.model.fit if self.brings_its_step else super().fit
        callbacks = _callbacks_in(method, args, kwargs)[0]
        self.__dict__["callbacks_in_fit"] = callbacks  # as an attribute Keras and TensorFlow would track them
        try:
            history = self._run("fit", args, kwargs) if self.brings_its_step else method(*args, **kwargs)
        finally:
            del self.__dict__["callbacks_in_fit"]
        settle(self)  # an average of weights that an optimizer kept is of weights that were not pruned yet
        for callback in callbacks:
            if hasattr(callback, "after_fit"):
                callback.after_fit(callbacks)
        return history

    def evaluate(self, *args, **kwargs):
        """As `keras.Model.evaluate`, or that of the model inside if it brings its own step."""
        return self._run("evaluate", args, kwargs) if self.brings_its_step else super().evaluate(*args, **kwargs)

    def predict(self, *args, **kwargs):
        """As `keras.Model.predict`, or that of the model inside if it brings its own step."""
        return self._run("predict", args, kwargs) if self.brings_its_step else super().predict(*args, **kwargs)

    def _run(self, name: str, args: tuple, kwargs: dict):
        """A method of the model inside that takes callbacks, which see the wrapped model."""
        self.ready()
        method = getattr(self.model, name)
        callbacks, rest, named = _callbacks_in(method, args, kwargs)
        return method(*rest, **named, callbacks=[Relay(callbacks, self)])

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return self.model.metrics if self.brings_its_step else super().metrics


def _callbacks_in(method, args: tuple, kwargs: dict) -> tuple[list, list, dict]:
    """The callbacks among the arguments of a `fit`, and the other arguments."""
    rest, names = dict(kwargs), list(inspect.signature(method).parameters)
    at = names.index("callbacks") if "callbacks" in names else len(args)
    given = rest.pop("callbacks", None) if len(args) <= at else args[at]
    given = getattr(given, "callbacks", given)  # of a CallbackList
    rest |= dict(zip(names[at + 1 :], args[at + 1 :]))
    return list(given) if isinstance(given, list | tuple) else [given] if given else [], list(args[:at]), rest


def _handed_on(name: str):
    """A method of Keras that is the model's own if it brings its own step."""
    plain = getattr(keras.Model, name)

    @functools.wraps(plain)
    def method(self, *args, **kwargs):
        if not self.brings_its_step:
            return plain(self, *args, **kwargs)
        if name in ON_BATCH:
            self.ready()
        found = getattr(self.model, name)(*args, **kwargs)
        if name == "train_on_batch":
            self.settle_unconstrained()
        return found

    return method


for _name in (*STEP, *ON_BATCH, *OF_METRICS):
    setattr(MaskedModel, _name, _handed_on(_name))
