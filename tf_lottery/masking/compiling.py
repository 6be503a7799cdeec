"""What a model was compiled with, made again for another one."""

from __future__ import annotations

from typing import Any

import keras

from tf_lottery.base.errors import LotteryError


def compile_arguments(model: keras.Model) -> dict[str, Any]:
    """The arguments of `compile` that a model was compiled with, made anew: optimizer without state, loss, metrics and the rest.

    The optimizer has the learning rate that it has now, or its schedule.

    Raises:
      LotteryError: If the model is not compiled, or with functions that Keras cannot find by their names.

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(0.25), "mse")
    >>> arguments = compile_arguments(model)
    >>> float(arguments["optimizer"].learning_rate), arguments["loss"], arguments["optimizer"] is model.optimizer
    (0.25, 'mse', False)
    """
    if not (config := model.get_compile_config()):
        raise LotteryError(f"Expected a compiled model, but {model.name!r} is not compiled.")
    try:
        return keras.saving.deserialize_keras_object(config)
    except Exception as error:  # whatever from_config of its parts raises
        reason = " ".join(str(error).split())[:200]
        raise LotteryError(
            f"Expected {model.name!r} to be compiled with parts of Keras, or registered with "
            f"keras.saving.register_keras_serializable, but they cannot be made again ({reason})."
        ) from error
