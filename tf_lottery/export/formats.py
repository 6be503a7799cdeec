"""`.keras` files and SavedModels: plain, sparse, and free of everything that only tf_lottery knows."""

from __future__ import annotations

import contextlib
import os
import types
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import keras
import numpy as np

from tf_lottery.base.errors import ExportError, LotteryError
from tf_lottery.base.files import free, whole_file, whole_folder
from tf_lottery.base.quiet import silenced
from tf_lottery.masking import weights, wrapping
from tf_lottery.tickets.ticket import Ticket

LORA = ("lora_rank", "lora_alpha")  # what a layer's config says of it


def keras_file(model: keras.Model, path: str | os.PathLike, *, overwrite: bool = False) -> Path:
    """Writes a model as a `.keras` file without masks and without what `compile` added; loads where tf_lottery is not installed.

    The file was loaded again, and its weights were the same bits, before it has its name.

    Args:
      model: A built Keras 3 model: plain, wrapped, or with `MaskedLayer`s inside.
      path: Where to, ending in `.keras`.
      overwrite: Replace a file that is there.

    Returns:
      The path.

    Raises:
      ExportError: If there is a file already, or Keras cannot save and load the model.

    Examples:

    >>> import tempfile, tf_lottery as tfl
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> path = keras_file(tfl.prune(model, 0.25), Path(tempfile.mkdtemp()) / "sparse.keras")
    >>> int(np.count_nonzero(keras.models.load_model(path).layers[0].kernel))
    8
    """
    path = free(path, overwrite)
    if path.suffix != ".keras":
        raise ExportError(f"Expected a path that ends in .keras, but received {os.fspath(path)!r}.")
    with plain(model) as sparse:
        copy = uncompiled_copy(sparse)
    with whole_file(path) as unfinished:
        try:
            with silenced():
                copy.save(unfinished)
                loaded = keras.models.load_model(unfinished, compile=False, safe_mode=False)  # it was written here
            if hasattr(copy, "outputs") and not hasattr(loaded, "outputs"):  # Keras keeps silent where a call failed
                raise TypeError("what its layers call knows names that are not in the file")
        except Exception as error:  # whatever its layers and functions raise
            raise ExportError(
                f"Expected a model that Keras can save and load, but {model.name!r} is not one ({first_line(error)}): put functions "
                "of your own into layers, and register these with keras.saving.register_keras_serializable."
            ) from error
        same = zip(copy.get_weights(), loaded.get_weights(), strict=True)
        if not all(np.array_equal(a, b, equal_nan=True) for a, b in same):
            raise ExportError(f"Expected a file with the weights of {model.name!r}, but Keras loads others from it.")
    return path


def saved_model(model: keras.Model, path: str | os.PathLike, *, overwrite: bool = False) -> Path:
    """Writes a model as a TensorFlow SavedModel with the signature `serving_default`, without masks or custom objects.

    It is Keras's `model.export`, which (Keras 3.15) stores each variable twice: the folder is about twice the size of the weights.

    Args:
      model: A built Keras 3 model: plain, wrapped, or with `MaskedLayer`s inside.
      path: The folder to make.
      overwrite: Replace a SavedModel that is there.

    Returns:
      The path.

    Raises:
      ExportError: If there is something already, or Keras cannot export the model.

    Examples:

    >>> import tempfile, tensorflow as tf, tf_lottery as tfl
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> path = saved_model(tfl.wrap(model), Path(tempfile.mkdtemp()) / "served")
    >>> "serving_default" in tf.saved_model.load(path).signatures
    True
    """
    path = free(path, overwrite, marker="saved_model.pb")
    with plain(model) as sparse, whole_folder(path) as unfinished:
        try:
            with silenced():
                sparse.export(unfinished, format="tf_saved_model", verbose=False)
        except Exception as error:  # whatever tracing the model raises
            raise ExportError(
                f"Expected a model that Keras can export, but {model.name!r} is not one ({first_line(error)})."
            ) from error
    return path


def load_keras(path: str | os.PathLike, *, compiled: bool = True) -> keras.Model:
    """A model from a `.keras` file; code that the file may hold is not run.

    Args:
      path: The file.
      compiled: Whether the loss, metrics and optimizer that are in it come with it.

    Raises:
      LotteryError: If there is no such file, or Keras does not load it.
    """
    if not Path(path).is_file():
        raise LotteryError(f"Expected a .keras file, but there is none at {os.fspath(path)!r}.")
    try:
        with silenced():
            return keras.models.load_model(path, compile=compiled)
    except Exception as error:  # whatever reading it or building its layers raises
        raise LotteryError(
            f"Expected a model that Keras loads, but {os.fspath(path)!r} is not one ({first_line(error)})."
        ) from None


@contextlib.contextmanager
def plain(model: keras.Model) -> Iterator[keras.Model]:
    """The plain model while it is exported; variables that a wrapper froze are frozen again afterwards."""
    check_model(model)
    if not isinstance(model, keras.Model) or not model.built:
        raise ExportError(
            f"Expected a built Keras model, but {model.name!r} is not one: export a model that was called."
        )
    trainable = [(variable, variable.trainable) for variable in model.variables]
    try:
        yield wrapping.strip(model)
    finally:
        for variable, before in trainable:
            variable.trainable = before


def check_model(model) -> None:
    """Refuses what is not a Keras 3 model or layer, with a `TypeError`; a ticket first has to be put on its model."""
    if isinstance(model, Ticket):
        raise TypeError(
            "Expected a Keras 3 model, but received a ticket: use ticket.apply(model, weights='final') with the model it is of."
        )
    weights.check_keras_3(model)


def uncompiled_copy(model: keras.Model, *, float32: bool = False) -> keras.Model:
    """The same model again, never compiled: optimizers and losses may be objects that only their author has.

    Where a layer has LoRA, the copy has the kernel that it makes of its parts, as a file of Keras has.

    Args:
      model: A plain model.
      float32: Give all layers of other float types float32 to compute in and to store.
    """
    try:
        with functions_by_name(weights.sublayers(model)):
            config = _without(("compile_config", *LORA), keras.saving.serialize_keras_object(model))
            copy = keras.saving.deserialize_keras_object(_in_float32(config) if float32 else config, safe_mode=False)
        copy.set_weights(_merged_weights(model))
    except Exception as error:  # whatever the get_config and from_config of its layers raise
        raise ExportError(
            f"Expected a model that Keras can save and load, but {model.name!r} is not one ({first_line(error)})."
        ) from error
    return copy


@contextlib.contextmanager
def functions_by_name(layers: Iterable[keras.layers.Layer]) -> Iterator[None]:
    """While layers are copied by their configs: Python functions in them, lambdas too, are those of the original.

    Keras would take a lambda for a danger, and make another of its code that knows none of the names around it.
    """
    inside = [value for layer in layers for value in vars(layer).values() if isinstance(value, types.FunctionType)]
    own = {id(f): f for f in inside if f.__module__.partition(".")[0] != "keras"}
    names = {f"tf_lottery_function_{i}": function for i, function in enumerate(own.values())}
    before = [function.__name__ for function in names.values()]
    known = keras.saving.get_custom_objects()  # a scope would hide those around it
    try:
        for name, function in names.items():
            function.__name__ = name
        known.update(names)
        yield
    finally:
        for (name, function), own_name in zip(names.items(), before):
            function.__name__ = own_name
            known.pop(name, None)


def _merged_weights(model) -> list[np.ndarray]:
    """Its weights, where a layer has LoRA with the kernel that it makes of its parts in the place of these."""
    values = {id(variable): weights.value_of(variable) for variable in model.weights}
    for layer in weights.sublayers(model):
        if not getattr(layer, "lora_enabled", False):
            continue
        for variable in layer.variables:
            if variable.name.startswith("lora_"):
                values.pop(id(variable), None)
            elif variable.name in ("kernel", "embeddings"):
                values[id(variable)] = keras.ops.convert_to_numpy(getattr(layer, variable.name))
    return [values[id(variable)] for variable in model.weights if id(variable) in values]


def _without(names: Sequence[str], config):
    if isinstance(config, dict):
        return {key: _without(names, value) for key, value in config.items() if key not in names}
    return [_without(names, value) for value in config] if isinstance(config, list) else config


def _in_float32(config):
    if isinstance(config, list):
        return [_in_float32(value) for value in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy":
        return {**config, "config": {**config["config"], "name": _float32(config["config"]["name"])}}
    return {key: _float32(value) if key == "dtype" else _in_float32(value) for key, value in config.items()}


def _float32(dtype):
    if isinstance(dtype, dict):
        return _in_float32(dtype)
    return "float32" if isinstance(dtype, str) and "float" in dtype else dtype


def first_line(error: Exception) -> str:
    """What an error says first, short enough for a sentence."""
    return (str(error).strip() or type(error).__name__).partition("\n")[0].rstrip(".")[:200]
