"""How Keras itself calls a model: whether it says that it trains, and when the model has its weights."""

from __future__ import annotations

import inspect

import keras

from tf_lottery.masking.weights import sublayers


def takes_training(model: keras.layers.Layer) -> bool:
    """Whether Keras hands `training` to the model in a step: only where its `call` has an argument of that name.

    A model whose `call` has none is called without in `fit`, so that dropout does not drop and statistics do not move.
    """
    if hasattr(model, "inner"):
        return takes_training(model.inner)
    return "training" in inspect.signature(model.call).parameters


def called(model: keras.layers.Layer, x, *, training: bool):
    """The model's outputs, called as Keras' own steps call it."""
    return model(x, training=training) if takes_training(model) else model(x)


def has_weights(model: keras.layers.Layer) -> bool:
    """Whether all of its variables are there: it is built, or only made of layers that are.

    A model with a step of its own, like a GAN, may never be called itself.
    """
    if model.built:
        return True
    makes_its_own = (
        type(model).build is not (keras.Model if isinstance(model, keras.Model) else keras.layers.Layer).build
    )
    parts = sublayers(model)
    return not makes_its_own and bool(model.variables) and bool(parts) and all(part.built for part in parts)
