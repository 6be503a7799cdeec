"""Gradients at given weights, for criteria that choose before training.

A kind of gradient is a function `(network, probe) -> {kernel path: tensor}`, registered by a decorator; a criterion names the
one it needs (`criteria.Needs`). `network` is a `Network`, the wrapped model as a function of its kernels; `probe` is one batch
with its loss, `(x, y, loss)`. Gradients at pruned weights are 0, as the masks make them.

Every variable of the model is substituted in the call (`keras.StatelessScope`), so weights, statistics, random states and the
optimizer stay untouched, whatever happens.

>>> from tf_lottery import wrap
>>> masked = wrap(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")]))
>>> x, y = np.array([[1.0, 3.0]], "float32"), np.zeros((1, 1), "float32")
>>> next(iter(take(masked, "loss", (x, y, "mse")).values()))  # 2 x (x w - y)
array([[ 8.],
       [24.]], dtype=float32)
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.base.errors import LotteryError
from tf_lottery.base.registry import Registry
from tf_lottery.masking import state, weights
from tf_lottery.masking.calls import called
from tf_lottery.masking.masked import masked_parts, unwrapped
from tf_lottery.masking.wrapping import gradient_masks
from tf_lottery.rules import criteria
from tf_lottery.rules.masks import Arrays

Probe = tuple  # (x, y) or (x, y, loss): inputs and targets of one batch, and a Keras loss or its name
Kernels = dict[str, tf.Tensor]
TEMPERATURE = 200.0  # of GraSP: logits are divided by it

registry = Registry("gradient")


class Network:
    """A wrapped model as a function of its kernels; nothing that its layers update in a call is kept.

    Args:
      model: The wrapped model, or a model with `MaskedLayer`s inside.
      masks, values: Masks and variables by path, in the place of those that it has now.

    Attributes:
      kernels: The raw kernels, which the masks multiply: {path: tensor}.
    """

    def __init__(self, model, masks: Mapping[str, np.ndarray] | None = None, values: Mapping | None = None):
        masks, values = masks or {}, values or {}
        self.model = model
        self._variables = {id(v): v for v in model.variables}
        self._values = {id(v): tf.convert_to_tensor(v.value) for v in model.variables}
        for path, variable in state.named_variables(model).items():
            if path in values:
                self._values[id(variable)] = tf.constant(values[path], variable.dtype)
        mask_of: dict[int, keras.Variable] = {}
        held_of: dict[int, keras.Variable] = {}
        for part in masked_parts(model):
            _, part_masks, part_held = gradient_masks(part)
            mask_of |= part_masks
            held_of |= part_held
        self._masks = [id(mask) for mask in mask_of.values()]
        self._ids = {kernel.path: id(kernel.variable) for kernel in state.masked_kernels(model)}
        for path, key in self._ids.items():
            if path in masks:
                self._values[id(mask_of[key])] = tf.constant(masks[path], mask_of[key].dtype)
                if key in held_of and path in values:
                    held = np.where(masks[path], 0, values[path])
                    self._values[id(held_of[key])] = tf.constant(held, held_of[key].dtype)

    @property
    def kernels(self) -> Kernels:
        return {path: self._values[key] for path, key in self._ids.items()}

    @property
    def is_dense(self) -> bool:
        """Whether no weight is pruned."""
        return all(bool(tf.reduce_all(self._values[key] == 1)) for key in self._masks)

    def absolute(self) -> Network:
        """The same network with the absolute value of every parameter, statistics included."""
        other = copy.copy(self)
        other._values = {key: tf.abs(v) if v.dtype.is_floating else v for key, v in self._values.items()}
        return other

    def __call__(self, kernels: Kernels, x, *, training: bool):
        values = self._values | {self._ids[path]: value for path, value in kernels.items()}
        with keras.StatelessScope([(self._variables[key], value) for key, value in values.items()]):
            return called(self.model, x, training=training)


def take(
    model,
    kind: str | Callable,
    probe: Probe | None = None,
    masks: Mapping[str, np.ndarray] | None = None,
    values: Mapping[str, np.ndarray] | None = None,
) -> Arrays:
    """The gradients of one kind for every masked kernel of a wrapped model, which stays as it is.

    Args:
      model: The wrapped model, or a model with `MaskedLayer`s inside; half-precision layers compute in float32 for it.
      kind: A name from `registry` or a function.
      probe: `(x, y)` or `(x, y, loss)`; without a loss the compiled model's.
      masks, values: Where to take them, masks and variables by path; by default where the model is now.

    Raises:
      LotteryError: If there is no loss, the probe does not fit the model, or a gradient is not finite.
    """
    gradient = registry.get(kind)
    name = getattr(gradient, "__name__", str(gradient))
    try:
        probe = None if probe is None else _with_loss(model, probe)
        with _full_precision(model):
            found = gradient(Network(model, masks, values), probe)
    except LotteryError:
        raise
    except LookupError as error:
        raise LotteryError(
            f"Expected layers that TensorFlow can differentiate as often as {name} asks, but {model.name!r} has others ({error})."
        ) from error
    except Exception as error:
        raise LotteryError(
            f"Expected a probe that fits model {model.name!r} and the loss, but {name} failed ({' '.join(str(error).split())[:200]})."
        ) from error
    found = {path: np.array(tf.cast(value, tf.float32)) for path, value in found.items()}
    for path, value in found.items():
        if not np.isfinite(value).all():
            raise LotteryError(f"Expected finite gradients, but {name} of kernel {path!r} holds NaN or infinity.")
    return found


def checked(criterion: Callable, probe: Probe | None, otherwise: Any = None, model: Any = None) -> Probe | None:
    """The probe of a criterion; None if it needs no gradient.

    Args:
      criterion: The criterion.
      probe: What the user gave.
      otherwise: Has a probe of its own, as a `Trainer`, or none.
      model: The model that it is for.

    Raises:
      LotteryError: If the criterion needs data and there are none, or they have not the form of a probe.
    """
    kind = criteria.needs(criterion).gradient
    if kind is None:
        return None
    if probe is None:
        its_own = getattr(otherwise, "probe_for", None)
        probe = its_own(model) if its_own and model is not None else getattr(otherwise, "probe", None)
    if probe is None and registry.get(kind) is not synaptic_flow:
        raise LotteryError(
            f"Expected probe=(x, y), one batch to take gradients on, for criterion {criteria.name_of(criterion)!r}, but received none."
        )
    if probe is not None and (not isinstance(probe, tuple | list) or len(probe) not in (2, 3)):
        raise LotteryError(f"Expected probe as (x, y) or (x, y, loss), but received {probe!r:.80}.")
    return probe


@registry.register
def loss(network: Network, probe: Probe) -> Kernels:
    """`dL/dw`, L the mean loss of the probe as a training step sees it: statistics of the batch, dropout; no regularisers.

    Reference: Lee et al. (2019, arXiv 1810.02340), section 4.1.
    """
    kernels = network.kernels
    with tf.GradientTape() as tape:
        tape.watch(kernels)
        value = _loss(network, kernels, probe)
    return _dense(tape.gradient(value, kernels, unconnected_gradients="zero"))


@registry.register
def hessian_gradient(network: Network, probe: Probe) -> Kernels:
    """`H g`: g = dL/dw as in `loss`, H its derivative, both over the masked kernels only; logits are divided by 200.

        H g = d(g . stop(g))/dw

    The temperature is for losses `from_logits`.
    Reference: Wang et al. (2020, arXiv 2002.07376), section 4 and algorithm 1.
    """
    kernels = network.kernels
    with tf.GradientTape() as outer:
        outer.watch(kernels)
        with tf.GradientTape() as inner:
            inner.watch(kernels)
            value = _loss(network, kernels, probe, TEMPERATURE)
        first = _dense(inner.gradient(value, kernels, unconnected_gradients="zero"))
        product = tf.add_n([tf.reduce_sum(g * tf.stop_gradient(g)) for g in first.values()])
    return _dense(outer.gradient(product, kernels, unconnected_gradients="zero"))


@registry.register
def synaptic_flow(network: Network, probe: Probe | None = None) -> Kernels:
    """`dR/d|w|`, R the sum of the outputs for an input of ones when every parameter has its absolute value, in inference mode.

    No data are looked at; a probe tells the shape of an input where the model does not. In a deep net R exceeds what a float32
    holds: then the input and R are scaled down, which without biases changes no ranking.
    Reference: Tanaka et al. (2020, arXiv 2006.05467), section 6 and algorithm 1.
    """
    network, ones = network.absolute(), ones_like_input(network.model, probe)
    kernels = network.kernels
    for scale in (1.0, 1e-15, 1e-30):
        with tf.GradientTape() as tape:
            tape.watch(kernels)
            x = keras.tree.map_structure(lambda one, s=scale: one * s if one.dtype.is_floating else one, ones)
            outputs = keras.tree.flatten(network(kernels, x, training=False))
            total = tf.add_n([tf.reduce_sum(tf.cast(output, tf.float32)) * scale for output in outputs])
        found = _dense(tape.gradient(total, kernels, unconnected_gradients="zero"))
        flows = {path: float(abs(tf.reduce_sum(kernels[path] * found[path]))) for path in kernels}
        if np.isfinite([*flows.values(), total]).all():
            break
    # without biases the flow through each layer is R: the paper's conservation law
    if max(flows.values()) < 1e-3 * abs(float(total)):
        raise LotteryError(
            f"Expected outputs that grow with the weights for synaptic flow, but those of {network.model.name!r} do not: "
            "end the model in logits, without a softmax or sigmoid."
        )
    if network.is_dense and total and (stopped := [path for path, flow in flows.items() if flow == 0]):
        raise LotteryError(
            f"Expected synaptic flow through every kernel of a dense network, but none gets through {stopped[0]!r}: activations "
            "that saturate, as relu6 does, and kernels of zeros stop it."
        )
    return found


def _loss(network: Network, kernels: Kernels, probe: Probe, temperature: float = 1.0) -> tf.Tensor:
    x, y, loss = probe
    outputs = network(kernels, x, training=True)
    if getattr(loss, "from_logits", False):
        outputs = keras.tree.map_structure(lambda output: output / temperature, outputs)
    return tf.reduce_mean(tf.cast(loss(y, outputs), tf.float32))


def _dense(gradients: Kernels) -> Kernels:
    """An embedding's gradient lists the rows that were looked up."""
    return {path: tf.convert_to_tensor(gradient) for path, gradient in gradients.items()}


def _with_loss(model, probe: Probe) -> Probe:
    """The probe as tensors, with its own loss or that of the compiled model."""
    x, y = (keras.tree.map_structure(_tensor, part) for part in probe[:2])
    inner = unwrapped(model)
    given = probe[2] if len(probe) == 3 else getattr(model, "loss", None) or getattr(inner, "loss", None)
    if given is None:
        raise LotteryError(
            f"Expected probe=(x, y, loss) for a model that was not compiled with a loss, but {model.name!r} has none."
        )
    try:
        return x, y, keras.losses.get(given)
    except (ValueError, TypeError) as error:
        raise LotteryError(
            f"Expected probe=(x, y, loss) with one Keras loss, or a function (y, outputs), but received {given!r:.80}."
        ) from error


def _tensor(array) -> tf.Tensor:
    tensor = tf.convert_to_tensor(array)
    return tf.cast(tensor, tf.float32) if tensor.dtype == tf.float64 else tensor


def ones_like_input(model, probe: Probe | None):
    """One input of ones, in the structure of the model's inputs."""
    if probe is not None:
        return keras.tree.map_structure(lambda array: tf.ones_like(array[:1]), probe[0])
    plain = unwrapped(model)
    try:
        return keras.tree.map_structure(lambda like: tf.ones((1, *like.shape[1:]), like.dtype), plain.input)
    except (AttributeError, ValueError, TypeError):  # not a functional model, or of variable size
        pass
    shape = (plain.get_build_config() or {}).get("input_shape")
    if not isinstance(shape, tuple | list) or not all(isinstance(side, int) for side in shape[1:]):
        raise LotteryError(
            f"Expected probe=(x, y), which tells the shape of an input, for {model.name!r}, but received none."
        )
    return tf.ones((1, *shape[1:]))


@contextlib.contextmanager
def _full_precision(model) -> Iterator[None]:
    """Layers that compute in half precision do so in float32 for a while: small gradients vanish there, and flows overflow."""
    halves = [layer for layer in [model, *weights.sublayers(model)] if layer.compute_dtype in ("float16", "bfloat16")]
    policies = [layer.dtype_policy for layer in halves]
    try:
        for layer in halves:
            layer.dtype_policy = "float32"
        yield
    finally:
        for layer, policy in zip(halves, policies):
            layer.dtype_policy = policy
