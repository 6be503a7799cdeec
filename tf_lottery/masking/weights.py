"""Which variables of a Keras model are prunable, under which name, and at which rate."""

from __future__ import annotations

import math
import numbers
import operator
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import numpy as np

from tf_lottery.base.errors import LotteryError, LotteryWarning
from tf_lottery.masking.roles import Roles

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"Expected Keras to run on TensorFlow, but it runs on {keras.backend.backend()!r}: set KERAS_BACKEND=tensorflow."
    )


class PruningPolicy(Protocol):
    """Which layers are pruned, and whether the model suits the purpose: the two methods of TF-MOT's `PruningPolicy`."""

    def allow_pruning(self, layer: keras.layers.Layer) -> bool: ...

    def ensure_model_supports_pruning(self, model: keras.Model) -> None: ...


Prunable = str | Callable[[keras.layers.Layer, keras.Variable], bool] | Sequence[str | int] | PruningPolicy | None
Fraction = float | Mapping[str, float] | Callable[["Kernel"], float]


L = keras.layers


@dataclass(frozen=True, eq=False)
class Kernel:
    """A prunable kernel: the variable, its unique path in the model, the layer it belongs to, and the roles in its model."""

    path: str
    variable: keras.Variable
    layer: keras.layers.Layer
    roles: Roles

    @property
    def is_output(self) -> bool:
        """Whether its channels reach an output of the model with no other matrix in between; a model has one or many such kernels.

        Raises:
          LotteryError: If the model cannot be asked; see `roles`.
        """
        return self.roles.is_output(self.variable)


def sublayers(layer: keras.layers.Layer, *, recursive: bool = True) -> list[keras.layers.Layer]:
    """The layers inside a layer or model, each once, without itself.

    Keras has no public way to walk the layers of a layer, so this is the one private name the library uses; a test
    notices when it moves.
    """
    return layer._flatten_layers(include_self=False, recursive=recursive)


def by_path(variables: Sequence, path_of: Callable = operator.attrgetter("path")) -> dict:
    """Variables under unique paths: where a path stands more than once, the later ones end in `#2`, `#3`, ..."""
    named: dict = {}
    for variable in variables:
        path, count = path_of(variable), 1
        while path in named:
            count += 1
            path = f"{path_of(variable)}#{count}"
        named[path] = variable
    return named


def value_of(variable: keras.Variable) -> np.ndarray:
    """A copy of the variable's value, which later updates do not change."""
    return np.asarray(variable.value.numpy())  # which copies


def check_keras_3(model) -> None:
    """Refuses what is not a Keras 3 model or layer, with a `TypeError`."""
    if not isinstance(model, keras.layers.Layer):
        kind = f"{type(model).__module__.partition('.')[0]}.{type(model).__name__}"
        hint = "; a tf_keras model is pruned by TF-MOT itself, with tf_lottery.tfmot" if kind[:8] == "tf_keras" else ""
        raise TypeError(f"Expected a Keras 3 model or layer, but received a {kind}{hint}.")


def is_random_state(variable: keras.Variable) -> bool:
    """Whether it is the state of a random generator, as dropout has one, and not a weight."""
    return "float" not in keras.backend.standardize_dtype(variable.dtype) and "seed_generator" in variable.path


def prunable_kernels(model: keras.layers.Layer, prunable: Prunable = None, exclude: Prunable = None) -> list[Kernel]:
    """The kernels of a built model that can be pruned, in the order of `model.variables`.

    By default these are the trainable variables of rank 2 or more whose name ends in `kernel`: those of convolutions,
    dense-like layers, attention projections and recurrent cells; not biases, normalisation or embeddings. Of these stay dense

    - the kernels of depthwise convolutions, those in a SeparableConv too, and of grouped ones with one input channel a group:
      each of their few weights is all that a channel has;
    - in layers that are not Keras' own, what no matrix product or convolution of the model takes, such as a table of
      positions that is added to activations and happens to be called `pos_kernel`. The model is traced for it, see `roles`; what
      it does not use or where it cannot be traced, the name decides.

    A layer that has TF-MOT's `get_prunable_weights()` speaks for itself. Layers of any other kind follow the same rule, so an
    unknown layer is masked or left alone and never an error.

    Args:
      model: A built layer or model.
      prunable: What to prune instead: a regular expression searched in variable paths, a predicate
        `(layer, variable) -> bool`, a sequence of paths or of positions in `model.variables`, or a policy: an object with
        TF-MOT's `allow_pruning(layer)` and `ensure_model_supports_pruning(model)`, see `policies`. Depthwise kernels that it
        chooses are pruned.
      exclude: What to leave out of that: a regular expression, a predicate, or a sequence, as for `prunable`.

    Raises:
      LotteryError: If a path or position is not there, or `exclude` is a regular expression that fits no variable.
    """
    named = by_path(model.variables)
    owners = owning_layers(model)
    roles = Roles(model)
    chosen = _selection(model, named, owners, roles, prunable) - _excluded(named, owners, exclude)
    return [Kernel(path, v, owners[id(v)], roles) for path, v in named.items() if id(v) in chosen]


def is_depthwise(variable: keras.Variable, layer: keras.layers.Layer) -> bool:
    """Whether a kernel of this layer is that of a depthwise convolution: each of its inputs has outputs of its own."""
    grouped = getattr(layer, "groups", 1) != 1 and variable.shape[-2] == 1
    return isinstance(layer, L.DepthwiseConv1D | L.DepthwiseConv2D) or variable.name == "depthwise_kernel" or grouped


def owning_layers(model: keras.layers.Layer) -> dict[int, keras.layers.Layer]:
    """By `id` of the variable the layer that made it: it holds the variable, and no layer inside it does."""
    found: dict[int, keras.layers.Layer] = {}
    for layer in [model, *sublayers(model)]:
        below = {id(v) for child in sublayers(layer, recursive=False) for v in child.variables}
        found.update((id(v), layer) for v in layer.variables if id(v) not in below)
    return found


def _selection(model, named, owners, roles: Roles, prunable: Prunable) -> set[int]:
    policy: Any = prunable
    if hasattr(policy, "allow_pruning"):
        try:
            policy.ensure_model_supports_pruning(model)
        except (AttributeError, TypeError) as error:
            raise LotteryError(
                f"Expected a policy with allow_pruning(layer) and ensure_model_supports_pruning(model) for Keras 3, as those of "
                f"tf_lottery.policies, but {prunable!r} failed ({error})."
            ) from error
        return {id(v) for v in _matrices(named, owners, roles) if policy.allow_pruning(owners[id(v)])}
    if prunable is None:
        chosen = {id(v) for v in _matrices(named, owners, roles) if not _is_depthwise(v, owners[id(v)], roles)}
        for layer in [model, *sublayers(model)]:
            if hasattr(layer, "get_prunable_weights"):
                chosen -= {id(v) for v in layer.variables}
                chosen |= {id(v) for v in layer.get_prunable_weights()}
        return chosen
    return _chosen(
        named, owners, prunable, "prunable", "a regular expression, a predicate, a policy, paths or positions"
    )


def _excluded(named, owners, exclude: Prunable) -> set[int]:
    if exclude is None:
        return set()
    if hasattr(exclude, "allow_pruning"):
        raise LotteryError(
            f"Expected a policy as prunable, where it says what to prune, but received exclude={exclude!r}."
        )
    chosen = _chosen(named, owners, exclude, "exclude", "a regular expression, a predicate, paths or positions")
    if isinstance(exclude, str) and not chosen:
        raise LotteryError(
            f"Expected exclude to fit variables of the model ({', '.join(named)}), but {exclude!r} fits none."
        )
    return chosen


def _chosen(named, owners, which, name: str, kinds: str) -> set[int]:
    """What a regular expression, a predicate, paths or positions choose."""
    if isinstance(which, str):
        pattern = _compiled(which, name)
        return {id(v) for path, v in named.items() if pattern.search(path)}
    if callable(which):
        return {id(v) for v in named.values() if which(owners[id(v)], v)}
    if not isinstance(which, Iterable):
        raise LotteryError(f"Expected {name} as {kinds}, but received {which!r}.")
    variables = list(named.values())
    chosen = set()
    for key in which:
        known = 0 <= key < len(variables) if isinstance(key, int) else key in named
        if not known:
            raise LotteryError(
                f"Expected {name} to name variables of the model ({', '.join(named)}), but received {key!r}."
            )
        chosen.add(id(variables[key] if isinstance(key, int) else named[key]))
    return chosen


def _compiled(pattern: str, name: str) -> re.Pattern:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise LotteryError(
            f"Expected {name} to hold regular expressions, but {pattern!r} is not one ({error})."
        ) from None


def is_kernel(variable: keras.Variable, *, frozen: bool = False) -> bool:
    """Whether it is called a kernel, is trainable (or with `frozen` was once), and is a matrix or a stack of them."""
    return (
        (variable.trainable or frozen)
        and len(variable.shape) >= 2
        and variable.name.endswith("kernel")
        and "float" in keras.backend.standardize_dtype(variable.dtype)
    )


def _matrices(named, owners, roles: Roles) -> list[keras.Variable]:
    """The kernels, without what is only called so."""
    return [
        v
        for v in named.values()
        if is_kernel(v) and not (_is_custom(owners[id(v)]) and roles.known and roles.is_no_matrix(v))
    ]


def _is_depthwise(variable: keras.Variable, layer: keras.layers.Layer, roles: Roles) -> bool:
    return is_depthwise(variable, layer) or (_is_custom(layer) and roles.known and roles.is_depthwise(variable))


def _is_custom(layer: keras.layers.Layer) -> bool:
    """Whether the layer is not Keras' own, so that the name of a variable does not tell what it does with it."""
    return type(layer).__module__.partition(".")[0] != "keras"


def prune_fractions(kernels: Sequence[Kernel], prune_fraction: Fraction) -> dict[str, float]:
    """The share of its remaining weights that each kernel loses in a round.

    Args:
      kernels: The prunable kernels.
      prune_fraction: A number in (0, 1) for all; or a mapping whose keys are tried in order, the first that fits a kernel
        decides: `"output"` (the kernels whose channels are outputs of the model, and no other whose path has the word in it; see
        `Kernel.is_output`), the name of a layer class or of one of its bases (`"Dense"`), or a
        regular expression searched in the path; or a function of the `Kernel`. 0 leaves a kernel dense.

    Raises:
      LotteryError: If a fraction is out of range, a kernel is not covered, or nothing would be pruned.

    Example: the rates of Frankle & Carbin (2019, Figure 2) for Conv-2 are
    `{"output": 0.1, "Conv2D": 0.1, "Dense": 0.2}`.
    """
    if callable(prune_fraction):
        fractions = {kernel.path: prune_fraction(kernel) for kernel in kernels}
    elif isinstance(prune_fraction, Mapping):
        fractions = per_kernel(kernels, prune_fraction, "prune_fraction")
    else:
        if not isinstance(prune_fraction, numbers.Real) or not 0 < prune_fraction < 1:
            raise LotteryError(
                f"Expected prune_fraction in (0, 1), but received {prune_fraction!r}: it is the share of the remaining weights that a round "
                "removes."
            )
        fractions = {kernel.path: prune_fraction for kernel in kernels}
    for path, fraction in fractions.items():
        if not 0 <= fraction < 1:
            raise LotteryError(f"Expected a prune_fraction in [0, 1) for kernel {path!r}, but received {fraction}.")
    if not any(fractions.values()):
        raise LotteryError("Expected a prune_fraction above 0 for at least one kernel, but all are 0.")
    return fractions


def per_kernel(kernels: Sequence[Kernel], values: Mapping, name: str) -> dict:
    """For each kernel the value of the first key that fits it: `"output"`, a layer class, or a regular expression.

    Raises:
      LotteryError: If no key fits a kernel; `name` says what the values are.

    Warns:
      LotteryWarning: If `"output"` is a key and the model cannot be asked for its outputs: then it means the last kernel.
    """
    outputs = _outputs(kernels) if "output" in values and kernels else set()
    return {kernel.path: _first_fit(kernel, values, outputs, name) for kernel in kernels}


def _outputs(kernels: Sequence[Kernel]) -> set[str]:
    """The paths of the kernels that are outputs."""
    try:
        return {kernel.path for kernel in kernels if kernel.is_output}
    except LotteryError as error:
        last = kernels[-1].path
        warnings.warn(
            LotteryWarning("the key 'output' is taken to mean the last kernel, {}. {}", last, error), stacklevel=4
        )
        return {last}


def _first_fit(kernel: Kernel, values: Mapping, outputs: set[str], name: str):
    classes = {base.__name__ for base in type(kernel.layer).__mro__}
    for key, value in values.items():
        if key == "output":
            fits = kernel.path in outputs
        else:
            fits = key in classes or bool(_compiled(key, name).search(kernel.path))
        if fits:
            return value
    raise LotteryError(
        f"Expected {name} to cover every kernel, but none of {', '.join(map(repr, values))} fits {kernel.path!r} of a {type(kernel.layer).__name__}."
    )


def fan_in(shape: Sequence[int]) -> int:
    """How many inputs a unit of a kernel of this shape (..., inputs, outputs) has."""
    return math.prod(shape[:-1])


def step_of(optimizer: keras.optimizers.Optimizer) -> int:
    """How many updates the optimizer has made, under a distribution strategy too."""
    iterations = optimizer.iterations  # a variable, or with gradient accumulation a tensor
    return int(getattr(iterations, "value", iterations).numpy())


def fresh_optimizer(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """A new optimizer of the same configuration, without state."""
    return type(optimizer).from_config(optimizer.get_config())
