"""Start values and how to draw them: anew from a layer's initializer, or again, bit for bit, from a recipe."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np

from tf_lottery.base.container import digest
from tf_lottery.base.errors import LotteryError, TicketError
from tf_lottery.masking.weights import Kernel, by_path, owning_layers, value_of
from tf_lottery.tickets.values import Recipe


def draw(kernel: Kernel, seed: int) -> np.ndarray:
    """A fresh sample of the kernel from its layer's own initializer, the same for the same seed.

    Raises:
      LotteryError: If the layer does not say how the kernel was initialised.
    """
    initializer = _initializer(kernel.layer, kernel.variable)
    if initializer is None:
        raise LotteryError(
            f"Expected a layer that knows its kernel's initializer, but {type(kernel.layer).__name__} has none of {', '.join(initializer_names(kernel.variable.name))} for {kernel.path!r}."
        )
    return _drawn(_seeded(initializer, seed), kernel.variable.shape, kernel.variable.dtype)


def of_variable(variable: keras.Variable, layer: keras.layers.Layer, values: np.ndarray) -> Recipe | None:
    """How to draw a variable's `values` again, or None if they are not what the layer's initializer and its seed make."""
    initializer = _initializer(layer, variable)
    name, seed = type(initializer).__name__, getattr(initializer, "seed", 0)
    if getattr(keras.initializers, name, None) is not type(initializer) or not isinstance(seed, int):
        return None
    config = _seeded(initializer, seed).get_config()
    if not all(isinstance(value, int | float | str | None) for value in config.values()):
        return None
    recipe = Recipe({"class_name": name, "config": config}, values.shape, str(values.dtype), digest(values))
    return recipe if digest(_grown(recipe)) == recipe.digest else None


def of_model(model: keras.layers.Layer) -> dict[str, Recipe]:
    """How to draw the variables of a built model again, by path; those that hold something else have none."""
    layers = owning_layers(model)
    found = {path: of_variable(v, layers[id(v)], value_of(v)) for path, v in by_path(model.variables).items()}
    return {path: recipe for path, recipe in found.items() if recipe}


def scaled(recipe: Recipe, *, signed: bool, scale: float) -> Recipe:
    """The recipe for the signs or the values that it draws, times `scale`."""
    recipe = dataclasses.replace(recipe, signed=signed, scale=scale)
    return dataclasses.replace(recipe, digest=digest(_grown(recipe)))


def regenerate(recipe: Recipe, path: str) -> np.ndarray:
    """The values of a recipe, bit for bit those it was made of.

    Raises:
      TicketError: If they are not, which names the variable: another version of Keras may draw otherwise.
    """
    try:
        values = _grown(recipe)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise TicketError(f"Expected a recipe that Keras can draw {path!r} from, but it cannot ({reason}).") from None
    if digest(values) != recipe.digest:
        raise TicketError(
            f"Expected the values of {path!r} that the ticket was made with, but its recipe draws others with Keras {keras.__version__}."
        )
    return values


def whole(value: np.ndarray | Recipe, path: str, mask: np.ndarray | None) -> np.ndarray:
    """A value as an array: that of a recipe is drawn, with zeros where a mask prunes."""
    if not isinstance(value, Recipe):
        return value
    values = regenerate(value, path)
    return values if mask is None else np.where(mask, values, 0).astype(values.dtype)


def _grown(recipe: Recipe) -> np.ndarray:
    kind = getattr(keras.initializers, recipe.initializer["class_name"])
    if not (
        isinstance(kind, type) and issubclass(kind, keras.initializers.Initializer)
    ):  # a stranger may have named it
        raise TypeError(f"{recipe.initializer['class_name']} is no initializer")
    values = _drawn(kind(**recipe.initializer["config"]), recipe.shape, recipe.dtype)
    values = np.sign(values) if recipe.signed else values
    return values * np.asarray(recipe.scale, values.dtype)


def _initializer(layer: keras.layers.Layer, variable: keras.Variable) -> keras.initializers.Initializer | None:
    """What the layer says it initialised the variable with."""
    for attribute in initializer_names(variable.name):
        initializer = getattr(layer, attribute, None)
        if isinstance(initializer, keras.initializers.Initializer):
            return initializer
    return None


def _seeded(initializer: keras.initializers.Initializer, seed: int) -> keras.initializers.Initializer:
    config = initializer.get_config()
    return type(initializer).from_config({**config, "seed": seed}) if "seed" in config else initializer


def _drawn(initializer: keras.initializers.Initializer, shape, dtype: str) -> np.ndarray:
    return keras.ops.convert_to_numpy(initializer(shape, dtype=dtype))


def initializer_names(name: str) -> list[str]:
    """`kernel` -> kernel_initializer; `recurrent_kernel` -> recurrent_initializer; a depthwise `kernel` -> its own."""
    names = [f"{name}_initializer", f"{name.removesuffix('_kernel')}_initializer"]
    return list(dict.fromkeys(names + (["depthwise_initializer"] if name == "kernel" else [])))
