"""Policies: which layers are pruned, for a purpose, and whether the model suits it.

A policy is any object with the two methods of TF-MOT's `PruningPolicy`: `allow_pruning(layer) -> bool` and
`ensure_model_supports_pruning(model)`. It is given where the model is wrapped: `tfl.wrap(model, prunable=policy)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras

from tf_lottery.base.errors import LotteryError

L = keras.layers
ACTIVATIONS = {"relu", "relu6", "leaky_relu", "elu", "sigmoid"}
OPERATIONS = {"Identity", "Add", "Subtract", "Multiply", "Relu", "ReLU", "Relu6", "LeakyRelu", "Elu", "Sigmoid"}


class PruneForLatencyOnXNNPack:
    """Prunes the 1x1 convolutions only, in a model whose sparse inference XNNPACK can speed up on a phone.

    XNNPACK runs a part of the network sparsely that begins with a 3x3 convolution of the 3 input channels with stride 2
    (`ZeroPadding2D(1)` and `padding="valid"`), ends in `GlobalAveragePooling2D(keepdims=True)`, and holds nothing in between but
    1x1 convolutions, depthwise 3x3 and 5x5 convolutions, additions, multiplications, such poolings and elementwise activations.
    The rules are those of TF-MOT's policy of the same name; but the last pooling has to keep its dimensions, as the delegate
    asks, and a model inside the model is refused.

    Examples:

    >>> from tf_lottery import get_masks, wrap
    >>> model = keras.Sequential([
    ...     keras.Input((16, 16, 3)), L.ZeroPadding2D(1), L.Conv2D(8, 3, strides=2), L.ReLU(), L.Conv2D(16, 1, name="pointwise"),
    ...     L.GlobalAveragePooling2D(keepdims=True), L.Flatten(), L.Dense(10)], name="net")
    >>> list(get_masks(wrap(model, prunable=PruneForLatencyOnXNNPack())))
    ['net/pointwise/kernel']

    References: Elsen et al., "Fast Sparse ConvNets" (2020, arXiv 1911.09723); TensorFlow Lite's XNNPACK delegate, "Sparse
    inference".
    """

    def allow_pruning(self, layer: keras.layers.Layer) -> bool:
        """Whether the layer is a convolution with a window of 1x1."""
        return isinstance(layer, L.Conv2D) and layer.kernel_size == (1, 1)

    def ensure_model_supports_pruning(self, model: keras.Model) -> None:
        """Raises a `LotteryError` that names the first layer that keeps XNNPACK from running the model sparsely."""
        self.sparse_part(model)

    def sparse_part(self, model: keras.Model) -> set[str]:
        """The names of the layers behind the first convolution, up to the pooling: what XNNPACK runs sparsely.

        Raises:
          LotteryError: Names the first layer that keeps XNNPACK from it.
        """
        graph = _Graph(model)
        starts = graph.search(graph.inputs, lambda name: self._starts(graph, name), graph.consumers)
        if not starts:
            raise LotteryError(
                "Expected every input to reach a Conv2D 3x3 of 3 channels with strides=2 and padding='valid' behind a ZeroPadding2D(1), "
                f"for XNNPACK to run {model.name!r} sparsely, but one does not."
            )
        ends = graph.search(
            graph.outputs, lambda name: isinstance(graph.layer(name), L.GlobalAveragePooling2D), graph.producers
        )
        if not ends:
            raise LotteryError(
                f"Expected every output to come from a GlobalAveragePooling2D, for XNNPACK to run {model.name!r} sparsely, but one does not."
            )

        part = set()

        def visit(name: str) -> bool:
            part.add(name)
            if name not in ends and not self._supports(graph, name):
                raise LotteryError(
                    f"Expected layers that XNNPACK runs sparsely between the first convolution and the pooling, but {name!r} is a "
                    f"{graph.class_name(name)} it does not run so."
                )
            if name in ends and not graph.layer(name).keepdims:
                raise LotteryError(f"Expected {name!r} with keepdims=True, for XNNPACK to run {model.name!r} sparsely.")
            return name in ends

        graph.search([n for start in starts for n in graph.consumers(start)], visit, graph.consumers)
        return part

    def _starts(self, graph: _Graph, name: str) -> bool:
        layer, before = graph.layer(name), graph.producers(name)
        return (
            type(layer) is L.Conv2D
            and tuple(layer.kernel.shape[:3]) == (3, 3, 3)
            and layer.strides == (2, 2)
            and layer.padding == "valid"
            and len(before) == 1
            and _pads_by(graph.layer(before[0]), 1)
        )

    def _supports(self, graph: _Graph, name: str) -> bool:
        layer = graph.layer(name)
        if layer is None:
            return graph.class_name(name) in OPERATIONS
        if isinstance(layer, L.DepthwiseConv2D):
            return _runs_depthwise(layer, [graph.layer(before) for before in graph.producers(name)])
        if isinstance(layer, L.Conv2D):
            one = layer.kernel_size == (1, 1) and layer.strides == (1, 1) and layer.dilation_rate == (1, 1)
            return one and layer.groups == 1
        if isinstance(layer, L.GlobalAveragePooling2D):
            return layer.keepdims
        if isinstance(layer, L.BatchNormalization):
            return layer.axis in (-1, 3)
        if isinstance(layer, L.UpSampling2D):
            return layer.interpolation == "bilinear"
        if isinstance(layer, L.Activation):
            return keras.activations.serialize(layer.activation) in ACTIVATIONS
        return isinstance(layer, L.Add | L.Multiply | L.ZeroPadding2D | L.ReLU | L.LeakyReLU | L.ELU | L.Dropout)


def _pads_by(layer, width: int) -> bool:
    return isinstance(layer, L.ZeroPadding2D) and layer.padding == ((width, width), (width, width))


def _runs_depthwise(layer, before: list) -> bool:
    """3x3 or 5x5, with `same` padding and stride 1, or with stride 1 or 2 and padded by a layer before it."""
    window = layer.kernel_size
    if layer.depth_multiplier != 1 or layer.dilation_rate != (1, 1) or window not in ((3, 3), (5, 5)):
        return False
    if layer.padding == "same":
        return layer.strides == (1, 1)
    return layer.strides in ((1, 1), (2, 2)) and len(before) == 1 and _pads_by(before[0], window[0] // 2)


class _Graph:
    """The layers of a Sequential or Functional model by name, and who feeds whom, read from the model's config."""

    def __init__(self, model: keras.Model):
        if not model.built:
            raise LotteryError(f"Expected a built model, but {model.name!r} has no weights yet.")
        self._layers = {layer.name: layer for layer in model.layers}
        if isinstance(model, keras.Sequential):
            chain = [layer.name for layer in model.layers]
            self._classes = {name: type(layer).__name__ for name, layer in self._layers.items()}
            self._producers = dict(zip(chain, [[], *([name] for name in chain)]))
            self.inputs, self.outputs = chain[:1], chain[-1:]
        elif hasattr(model, "inputs") and "input_layers" in (config := model.get_config()):
            self._classes = {layer["name"]: layer["class_name"] for layer in config["layers"]}
            self._producers = {layer["name"]: list(_tensors(layer["inbound_nodes"])) for layer in config["layers"]}
            self.inputs, self.outputs = (_names(config[key]) for key in ("input_layers", "output_layers"))
        else:
            raise LotteryError(
                f"Expected a Sequential or Functional model, whose layers XNNPACK's rules can follow, but {model.name!r} is a {type(model).__name__}."
            )

    def layer(self, name: str) -> keras.layers.Layer | Any:
        """The layer of that name; None for a bare operation of the graph."""
        return self._layers.get(name) if isinstance(self._layers.get(name), keras.layers.Layer) else None

    def class_name(self, name: str) -> str:
        return self._classes[name]

    def producers(self, name: str) -> list[str]:
        return self._producers[name]

    def consumers(self, name: str) -> list[str]:
        return [other for other, producers in self._producers.items() if name in producers]

    @staticmethod
    def search(sources: Iterable[str], found: Callable[[str], bool], onwards: Callable[[str], list[str]]) -> set[str]:
        """The first layers on each way from the sources that are what is looked for; none, if a way ends without one."""
        waiting, seen, hits = list(sources), set(sources), set()
        while waiting:
            name = waiting.pop()
            if found(name):
                hits.add(name)
                continue
            following = onwards(name)
            if not following:
                return set()
            waiting += [other for other in following if other not in seen]
            seen.update(following)
        return hits


def _tensors(config) -> Iterable[str]:
    """The names of the layers whose outputs are named anywhere in the config of a call."""
    if isinstance(config, dict):
        history = (
            config.get("config", {}).get("keras_history") if config.get("class_name") == "__keras_tensor__" else None
        )
        if history:
            yield history[0]
        else:
            for value in config.values():
                yield from _tensors(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _tensors(value)


def _names(config) -> list[str]:
    """The layer names of a model's inputs or outputs: `[name, 0, 0]`, or any nest of such."""
    if isinstance(config, dict):
        return [name for value in config.values() for name in _names(value)]
    if config and isinstance(config[0], str):
        return [config[0]]
    return [name for part in config for name in _names(part)]
