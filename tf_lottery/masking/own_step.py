"""Models that bring their own step: a GAN, a VAE, a distiller, whatever overrides `train_step`, `compute_loss` or `compile`.

Keras runs such a model by its own methods, so a wrapper does too: `fit`, `evaluate`, `compile` and their kin are those of the model
inside. Its steps read and update the raw kernels; masks hold because they are constraints of these kernels while the
model is wrapped, and an optimizer applies the constraint of a variable after each update:

    w <- w * m        (plus what pruned weights are frozen at)

So pruned weights are exactly zero after each update by any of a model's optimizers, also between two updates of one step. Kernels that a
step moves without an optimizer get their zeros at the end of the batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import keras

from tf_lottery.masking.weights import step_of

STEP = ("train_step", "test_step", "predict_step", "compute_loss", "compute_metrics")
MAKERS = ("make_train_function", "make_test_function", "make_predict_function")
ON_BATCH = ("train_on_batch", "test_on_batch", "predict_on_batch")
OF_METRICS = ("reset_metrics", "get_metrics_result")
METHODS = (*STEP, *MAKERS, "compile", "fit", "evaluate", "predict", *ON_BATCH, "metrics", *OF_METRICS)
COMPILED = ("_loss_tracker", "_compile_metrics")  # metrics that a model has of Keras, once it is compiled
HOOKS = [name for name in dir(keras.callbacks.Callback) if name.startswith("on_")]


def own_methods(model: keras.layers.Layer) -> list[str]:
    """The methods of training that a model brings itself, in the place of Keras's.

    >>> class Autoencoder(keras.Model):
    ...     def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
    ...         return keras.ops.mean((x - y_pred) ** 2)
    >>> own_methods(Autoencoder())
    ['compute_loss']
    """
    if not isinstance(model, keras.Model):
        return []
    names = [name for name in METHODS if _differs(model, name)]
    own = (value for name, value in vars(model).items() if name not in COMPILED)
    if "metrics" not in names and any(_kept(keras.metrics.Metric, own)):
        names.append("metrics")
    return names


def own_step(model: keras.layers.Layer) -> list[str]:
    """Those of them that decide what is trained: steps, losses, and a `compile` with arguments of its own."""
    known = inspect.signature(keras.Model.compile).parameters
    names = own_methods(model)
    arguments = inspect.signature(model.compile).parameters if "compile" in names else {}
    named = [a.name for a in arguments.values() if a.kind not in (a.VAR_KEYWORD, a.VAR_POSITIONAL)]
    return [name for name in names if name in (*STEP, *MAKERS) or (name == "compile" and not set(named) <= set(known))]


def _differs(model: keras.Model, name: str) -> bool:
    """Whether its class overrides the method, or the model has one that was set on itself."""
    return getattr(type(model), name) is not getattr(keras.Model, name) or name in vars(model)


def optimizers_of(model: keras.layers.Layer) -> list[keras.optimizers.Optimizer]:
    """The optimizers that a model is trained with: `model.optimizer`, and those that one with a step of its own keeps.

    That of a plain model is not among its wrapper's: it may have trained the model before it was wrapped.
    """
    inner = getattr(model, "inner", model)
    kept = [getattr(model, "optimizer", None)]
    if own_methods(inner):
        kept += _kept(keras.optimizers.Optimizer, vars(inner).values())
    return list({id(optimizer): optimizer for optimizer in kept if optimizer is not None}.values())


def _kept(kind: type, values: Iterable) -> Iterator:
    """Those of one kind among the attributes of a model, also in its lists and dicts."""
    for value in values:
        if isinstance(value, kind):
            yield value
        elif isinstance(value, Mapping):
            yield from _kept(kind, value.values())
        elif isinstance(value, list | tuple):
            yield from _kept(kind, value)


def step_of_model(model: keras.layers.Layer) -> int:
    """The step that a model's training has come to: its optimizer's, or of several the least that has begun.

    A GAN whose discriminator makes five updates in a step is at the step of its generator; an optimizer that is not used, as the
    one that Keras gives a model by default, does not count.
    """
    return min(filter(None, map(step_of, optimizers_of(model))), default=0)


class Constraint:
    """A mask as the constraint of a kernel, after the one that the kernel had.

    Args:
      effective: Makes the kernel's effective value.
      first: The constraint that the kernel had, or None.

    Attributes:
      applied: Whether an optimizer has taken it up, so that it holds after each update. A teacher that follows the weights of its
        student by assignments, say, has none.
    """

    def __init__(self, effective: Callable, first: Callable | None):
        self.effective, self.first, self.applied = effective, first, False

    def __call__(self, variable):
        self.applied = True
        if self.first is not None:
            variable.assign(self.first(variable))
        return self.effective()


class Relay(keras.callbacks.Callback):
    """Callbacks of a wrapped model, for the `fit` of the model inside: they see the wrapped one.

    Args:
      callbacks: What was given to the wrapped model's `fit`.
      masked: The wrapped model.
    """

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback], masked):
        super().__init__()
        self.callbacks = list(callbacks)
        self.masked = masked

    def set_params(self, params):
        super().set_params(params)
        for callback in self.callbacks:
            callback.set_params(params)

    def set_model(self, model):
        super().set_model(model)
        self.masked.ready()  # Keras has built it by now
        for callback in self.callbacks:
            callback.set_model(self.masked)

    def tell(self, hook: str, *arguments) -> None:
        if hook == "on_train_batch_end":
            self.masked.settle_unconstrained()
        for callback in self.callbacks:
            getattr(callback, hook)(*arguments)


for _name in HOOKS:  # one for each hook that Keras has, with its signature: (logs), (epoch, logs) or (batch, logs)
    _parameters = list(inspect.signature(getattr(keras.callbacks.Callback, _name)).parameters)[1:]
    if len(_parameters) == 1:
        setattr(Relay, _name, lambda self, logs=None, _hook=_name: self.tell(_hook, logs))
    else:
        setattr(Relay, _name, lambda self, at, logs=None, _hook=_name: self.tell(_hook, at, logs))


class SharedState:
    """An attribute that a wrapper has in common with a model that brings its own step, and to itself otherwise."""

    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, masked, owner=None):
        if masked is None:
            return self
        if masked.brings_its_step:
            return getattr(masked.inner, self.name)
        try:
            return masked.__dict__[self.name]
        except KeyError:
            raise AttributeError(f"{type(masked).__name__!r} object has no attribute {self.name!r}") from None

    def __set__(self, masked, value):
        if masked.brings_its_step:
            setattr(masked.inner, self.name, value)
        else:
            masked.__dict__[self.name] = value
