"""A Sequential or Functional model as a flat list of calls, nested models inlined, and the same calls made again."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import tree

from tf_lottery.base.errors import LotteryError
from tf_lottery.export.formats import check_model, plain, uncompiled_copy
from tf_lottery.masking import weights
from tf_lottery.masking.masked import unwrapped


@dataclass(frozen=True)
class Step:
    """One call of a layer, or of a Keras operation such as the `+` of two tensors."""

    layer: keras.layers.Layer | keras.Operation
    args: tuple
    kwargs: dict
    inputs: list[keras.KerasTensor]
    outputs: list[keras.KerasTensor]

    @property
    def kind(self) -> str:
        """Its name among Keras layers (`"Add"`) or operations (`"ops.Add"`, as in saved models); of others the class's."""
        kind = type(self.layer)
        if not is_keras(kind):
            return f"{kind.__module__}.{kind.__name__}"
        return kind.__name__ if isinstance(self.layer, keras.layers.Layer) else f"ops.{kind.__name__}"

    def call(self, layer: Callable, values: Iterable):
        """Calls `layer` as this step calls its own, with other `values` for the tensors."""
        values = iter(values)
        args, kwargs = tree.map_structure(
            lambda leaf: next(values) if isinstance(leaf, keras.KerasTensor) else leaf, (self.args, self.kwargs)
        )
        return layer(*args, **kwargs)

    def evaluate(self, *arrays: np.ndarray) -> np.ndarray:
        """What it computes, for arrays without a batch axis."""
        batches = [keras.ops.convert_to_tensor(a[None], dtype=t.dtype) for a, t in zip(arrays, self.inputs)]
        result = self.call(self.layer, batches)
        return keras.ops.convert_to_numpy(keras.ops.cast(result, "float64"))[0]


class Graph:
    """The steps of a model, in an order in which they can be made; nested models are inlined.

    It is taken from a copy, so that the given model stays as it is. A tensor that goes into or comes out of a nested model has
    two faces, inside and outside; `step.inputs` and `step.outputs` show the one that all steps agree on.

    Raises:
      TypeError: If it is not a Keras 3 model.
      LotteryError: If it is neither Sequential nor Functional, is not built, or has layers that cannot be copied.
    """

    def __init__(self, model: keras.Model):
        self.model = _plain_copy(model)
        self.steps: list[Step] = []
        self._faces: dict[int, keras.KerasTensor] = {}
        self.inputs = [keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name) for t in self.model.inputs]
        self.outputs = self._trace(self.model, self.inputs)

    @property
    def tensors(self) -> list[keras.KerasTensor]:
        """All tensors between the steps, inputs first."""
        return [*self.inputs, *(t for step in self.steps for t in step.outputs)]

    def calls(self, layer) -> int:
        """How often the model calls a layer."""
        return sum(step.layer is layer for step in self.steps)

    def rebuild(self, call: Callable[[Step, list], Any]) -> keras.Model:
        """The model whose steps are `call(step, new input tensors) -> new outputs`."""
        inputs = [keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name) for t in self.inputs]
        new = {id(old): tensor for old, tensor in zip(self.inputs, inputs)}
        for step in self.steps:
            outputs = tree.flatten(call(step, [new[id(t)] for t in step.inputs]))
            new.update((id(old), tensor) for old, tensor in zip(step.outputs, outputs))
        outputs = [new[id(t)] for t in self.outputs]
        return keras.Model(
            tree.pack_sequence_as(structure(self.model, "input"), inputs),
            tree.pack_sequence_as(structure(self.model, "output"), outputs),
            name=self.model.name,
        )

    def _trace(self, model, inputs: list, training: bool | None = None) -> list[keras.KerasTensor]:
        """Records the steps of a model on `inputs` and returns its outputs."""

        def call(layer, *args, **kwargs):
            if training is not None and "training" in inspect.signature(layer.call).parameters:
                kwargs = {"training": training, **kwargs}
            return self._record(layer, args, kwargs)

        if isinstance(model, keras.Sequential):
            return [self._face(functools.reduce(lambda x, layer: call(layer, x), model.layers, inputs[0]))]
        traced = keras.models.clone_model(
            model,
            input_tensors=tree.pack_sequence_as(model.input, inputs),
            clone_function=lambda layer: layer,
            call_function=call,
        )
        return [self._face(t) for t in traced.outputs]

    def _record(self, layer, args: tuple, kwargs: dict):
        outputs = layer(*args, **kwargs)
        tensors = [self._face(t) for t in tree.flatten((args, kwargs)) if isinstance(t, keras.KerasTensor)]
        given = {name for name, value in kwargs.items() if value is not None}
        if _is_open(layer) and given <= {"training"} and len(tensors) == len(layer.inputs):
            inside = [keras.Input(batch_shape=t.shape, dtype=t.dtype) for t in layer.inputs]
            self._faces.update((id(t), outside) for t, outside in zip(inside, tensors))
            results = self._trace(layer, inside, kwargs.get("training"))
            self._faces.update((id(t), result) for t, result in zip(tree.flatten(outputs), results))
        else:
            self.steps.append(Step(layer, args, kwargs, tensors, tree.flatten(outputs)))
        return outputs

    def _face(self, tensor: keras.KerasTensor) -> keras.KerasTensor:
        return self._faces.get(id(tensor), tensor)


def is_keras(kind: type) -> bool:
    return kind.__module__.split(".")[0] == "keras"


def _is_open(model) -> bool:
    """Whether a layer is a model whose calls can be followed."""
    return isinstance(model, keras.Model) and (isinstance(model, keras.Sequential) or hasattr(model, "inputs"))


def structure(model: keras.Model, name: str):
    """The `input` or `output` of a model: a tensor, or a list, tuple or dictionary of them."""
    return getattr(model, f"{name}s")[0] if isinstance(model, keras.Sequential) else getattr(model, name)


def _plain_copy(model) -> keras.Model:
    """A copy with weights of its own, without masks and not compiled."""
    check_model(model)
    if not isinstance(model, keras.Model) or not model.built:
        raise LotteryError(f"Expected a Keras model that is built, but {model.name!r} is not one.")
    inner = unwrapped(model)
    if not _is_open(inner):
        raise LotteryError(
            f"Expected a Sequential or Functional model, but {inner.name!r} is subclassed ({type(inner).__name__}): compact "
            "follows the calls of layers, and those of a call method of one's own are hidden."
        )
    layers = weights.sublayers(model)
    for layer in layers:
        if (
            hasattr(layer, "adapt")
            and not isinstance(layer, keras.layers.Normalization)
            and not _says_what_it_knows(layer)
        ):
            raise LotteryError(
                f"Expected layers that can be copied, but {layer.name!r} was adapted: compact the model behind it."
            )
    own = [type(layer) for layer in [model, *layers] if not is_keras(type(layer))]
    with keras.saving.custom_object_scope({kind.__name__: kind for kind in own}), plain(model) as sparse:
        copy = uncompiled_copy(sparse)
    fill(copy, copy.get_weights())
    return copy


def fill(layer: keras.layers.Layer, values: list[np.ndarray]) -> None:
    """Sets the weights, and what normalisations that were adapted to data derive from theirs."""
    layer.set_weights(values)
    for part in [layer, *weights.sublayers(layer)]:
        if isinstance(part, keras.layers.Normalization):
            part.finalize_state()


def _says_what_it_knows(layer: keras.layers.Layer) -> bool:
    """Whether a vocabulary or the like stands in the config; one that was adapted to data does not."""
    config = layer.get_config()
    return any(config.get(name) is not None for name in ("vocabulary", "bin_boundaries"))
