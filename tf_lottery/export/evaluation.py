"""What `evaluate` says of several models by one loss and one set of metrics, and the examples that it is said of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.base.errors import DataError, LotteryError
from tf_lottery.export.formats import first_line, plain, uncompiled_copy
from tf_lottery.masking.calls import called
from tf_lottery.masking.compiling import compile_arguments
from tf_lottery.masking.masked import unwrapped
from tf_lottery.masking.own_step import own_step


def evaluated(models: Sequence[keras.Model], data) -> list[dict[str, float]]:
    """The loss and metrics of each model on data, by those that the first of them was compiled with that was.

    Copies are measured, so that no model is compiled anew. A model with a step of its own is measured by that.

    Args:
      models: Wrapped or plain.
      data: What `evaluate` takes, tuples of arrays as one argument; or None, which nothing is said of.

    Raises:
      LotteryError: If none is compiled, or what it was compiled with cannot be had again.
      DataError: If the data never end, or do not fit.
    """
    if data is None:
        return [{} for _ in models]
    check_ends(data)
    arguments = dict(zip(("x", "y", "sample_weight"), data)) if isinstance(data, tuple | list) else {"x": data}
    own = any(own_step(unwrapped(model)) for model in models)
    found = []
    for model in models:
        if own and not model.compiled:
            raise LotteryError(
                f"Expected {model.name!r}, which is measured by a step of its own, to be compiled, but it is not."
            )
        measured = model if own else _compiled_copy(model, models)
        try:
            found.append(measured.evaluate(**arguments, verbose=0, return_dict=True))
        except Exception as error:  # whatever the loss, the metrics and the layers raise over data that do not fit
            raise DataError(
                f"Expected data to evaluate {model.name!r} on, as (x, y) or a tf.data.Dataset of such, but that failed "
                f"({first_line(error)})."
            ) from error
    return [{name: float(value) for name, value in metrics.items()} for metrics in found]


def compile_settings(models: Sequence[keras.Model]) -> dict[str, Any]:
    """The arguments of `compile`, without the optimizer, of the first model that was compiled; made anew at each call.

    Raises:
      LotteryError: If none was, or they hold functions that Keras cannot name.
    """
    compiled = next((model for model in models if model.get_compile_config()), None)
    if compiled is None:
        raise LotteryError(
            f"Expected a compiled model, whose loss and metrics say what is measured, but {models[0].name!r} is not compiled."
        )
    return {name: value for name, value in compile_arguments(compiled).items() if name != "optimizer"}


def _compiled_copy(model: keras.Model, models: Sequence[keras.Model]) -> keras.Model:
    with plain(model) as sparse:
        copy = uncompiled_copy(sparse)
    copy.compile(**compile_settings(models))
    return copy


def loss_of(models: Sequence[keras.Model]) -> Any:
    """The one loss that the first compiled model has, or None."""
    if not any(model.get_compile_config() for model in models):
        return None
    loss = compile_settings(models).get("loss")
    return None if isinstance(loss, list | tuple | Mapping) else keras.losses.get(loss)


def check_ends(data) -> None:
    """
    Raises:
      DataError: If it is a data set that repeats for ever.
    """
    if isinstance(data, tf.data.Dataset) and int(data.cardinality()) == tf.data.INFINITE_CARDINALITY:
        raise DataError(
            "Expected data that come to an end, but the data set repeats for ever: give it without repeat()."
        )


def arrays_of(data) -> tuple[Any, Any]:
    """Inputs and targets of data, as arrays in the structure that they have; targets are None where there are none."""
    check_ends(data)
    if isinstance(data, keras.utils.PyDataset):
        data = [data[i] for i in range(len(data))]
    if isinstance(data, tuple):
        x, y = (*data, None)[:2]
        return x, y
    batches = [batch if isinstance(batch, tuple | list) else (batch,) for batch in data]
    if not batches:
        raise DataError("Expected data with at least one batch, but received none.")
    pairs = [tuple(batch[:2]) for batch in batches]
    joined = keras.tree.map_structure(lambda *parts: np.concatenate([np.asarray(part) for part in parts]), *pairs)
    return joined[0], joined[1] if len(joined) > 1 else None


def labels_in(y, model: keras.Model, x, loss) -> np.ndarray | None:
    """Targets as the labels that accuracy is measured by, or None if they are none: numbers, or several outputs.

    Args:
      y: Targets.
      model: A plain model.
      x: Its inputs.
      loss: Its loss, or None; one of a regression says that targets are numbers.
    """
    outputs = keras.tree.flatten(
        called(model, keras.tree.map_structure(lambda a: tf.constant(a[:1]), x), training=False)
    )
    if y is None or len(outputs) > 1 or len(keras.tree.flatten(y)) > 1:
        return None
    y, shape = np.asarray(keras.tree.flatten(y)[0]), tuple(outputs[0].shape)
    name = str(getattr(loss, "name", getattr(loss, "__name__", "")))
    if name and not any(word in name for word in ("crossentropy", "hinge", "poisson")):
        return None
    if shape[-1] == 1:
        return y if y.size and np.isin(y, (0, 1)).all() else None
    if y.shape[1:] == shape[1:]:
        return y if np.isin(y, (0, 1)).all() else None
    squeezed = y[..., 0] if y.ndim == len(shape) and y.shape[-1] == 1 else y
    whole = squeezed.dtype.kind in "biu" or (squeezed.dtype.kind == "f" and (squeezed == np.floor(squeezed)).all())
    fits = whole and squeezed.shape[1:] == shape[1:-1] and squeezed.min() >= 0 and squeezed.max() < shape[-1]
    return squeezed.astype(np.int32) if fits else None
