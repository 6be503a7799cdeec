"""The TFLite variants of a model: how each is converted, how far it may differ, and which combinations do not work."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.base.errors import ExportError
from tf_lottery.base.quiet import silenced
from tf_lottery.export.conversion import CONTROL_FLOW, apart, convert
from tf_lottery.export.formats import first_line


@dataclass(frozen=True)
class Variant:
    """How to convert, and the largest difference that an output may have, as a share of the largest output."""

    weights: str
    tolerance: float
    sparse: bool = False

    @property
    def dense(self) -> str:
        """The variant with the same weights that are stored densely."""
        return self.weights


VARIANTS: Mapping[str, Variant] = {
    "float32": Variant("float32", 1e-4),
    "sparse_float32": Variant("float32", 1e-4, sparse=True),
    "float16": Variant("float16", 5e-2),
    "sparse_float16": Variant("float16", 5e-2, sparse=True),
    "dynamic_int8": Variant("dynamic_int8", 0.5),
    "int8": Variant("int8", 0.5),
}
_QUANTISED = (
    "the XNNPACK delegate refuses to load sparse weights that are quantised; choose {} for a small file, or sparse_float32 "
    "for a sparse one"
)
KNOWN_BAD: Mapping[str, str] = {f"sparse_{name}": _QUANTISED.format(name) for name in ("dynamic_int8", "int8")}


def check_variant(name: str) -> Variant:
    """The variant of that name.

    Raises:
      ExportError: If it is not known, or known not to work.
    """
    if name in KNOWN_BAD:
        raise ExportError(f"Expected a variant that LiteRT runs, but received {name!r}: {KNOWN_BAD[name]}.")
    if name not in VARIANTS:
        raise ExportError(f"Expected a variant of TFLite ({', '.join(VARIANTS)}), but received {name!r}.")
    return VARIANTS[name]


class Converter:
    """Converts one model into variants; the inputs of what it makes have a batch of one example.

    A fixed batch keeps the shapes of all tensors known, so that XNNPACK takes the whole network. Inputs are named `input_0`, ... and
    outputs `output_0`, ..., in the order of `keras.tree.flatten`.

    Args:
      model: A plain model that computes in float32.
      inputs: Real inputs in the structure that the model is called with; arrays (N, ...).

    Attributes:
      folder: Where its SavedModel lies, until `close`.
    """

    def __init__(self, model: keras.Model, inputs):
        self.model, self.inputs = model, inputs
        self._temporary = tempfile.TemporaryDirectory()
        self.folder = self._temporary.name
        signature = [
            tf.TensorSpec((1, *array.shape[1:]), array.dtype, name=f"input_{i}")
            for i, array in enumerate(keras.tree.flatten(inputs))
        ]
        served = tf.Module()
        served.held = [variable.value for variable in model.variables]
        served.call = tf.function(self._serve, input_signature=signature)
        try:
            with silenced():
                function = served.call.get_concrete_function()
                tf.saved_model.save(served, self.folder, signatures=function)
        except Exception as error:  # whatever tracing the model raises
            self.close()
            raise ExportError(
                f"Expected a model that TensorFlow can trace, but {model.name!r} is not one ({first_line(error)})."
            ) from error
        graph = function.graph.as_graph_def()
        nodes = [
            node for part in (graph, *graph.library.function) for node in getattr(part, "node", None) or part.node_def
        ]
        self._branches = not CONTROL_FLOW.isdisjoint(node.op for node in nodes)

    def __enter__(self) -> Converter:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self._temporary.cleanup()

    def _serve(self, *inputs):
        return keras.tree.flatten(self.model(keras.tree.pack_sequence_as(self.inputs, inputs), training=False))

    def __call__(self, name: str, representative: Sequence[np.ndarray] | Any = None) -> bytes:
        """The content of a `.tflite` file.

        Args:
          name: One of `VARIANTS`.
          representative: For int8: typical inputs, flattened as the model's.

        Raises:
          ExportError: With the converter's reason in one sentence; also if it ended its process.
        """
        variant = check_variant(name)
        how = apart if variant.weights == "int8" and self._branches else convert
        return how(self.folder, self.model.name, name, variant.weights, variant.sparse, representative)
