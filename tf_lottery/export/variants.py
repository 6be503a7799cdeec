"""The TFLite variants of a model: how each is converted, how far it may differ, and which combinations do not work."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.base.errors import ExportError
from tf_lottery.base.quiet import silenced
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
    """

    def __init__(self, model: keras.Model, inputs):
        self.model, self.inputs = model, inputs
        self._folder = tempfile.TemporaryDirectory()
        signature = [
            tf.TensorSpec((1, *array.shape[1:]), array.dtype, name=f"input_{i}")
            for i, array in enumerate(keras.tree.flatten(inputs))
        ]
        served = tf.Module()
        served.held = [variable.value for variable in model.variables]
        served.call = tf.function(self._serve, input_signature=signature)
        try:
            with silenced():
                tf.saved_model.save(served, self._folder.name, signatures=served.call.get_concrete_function())
        except Exception as error:  # whatever tracing the model raises
            self.close()
            raise ExportError(
                f"Expected a model that TensorFlow can trace, but {model.name!r} is not one ({first_line(error)})."
            ) from error

    def __enter__(self) -> Converter:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self._folder.cleanup()

    def _serve(self, *inputs):
        return keras.tree.flatten(self.model(keras.tree.pack_sequence_as(self.inputs, inputs), training=False))

    def __call__(self, name: str, representative: Sequence[np.ndarray] | Any = None) -> bytes:
        """The content of a `.tflite` file.

        Args:
          name: One of `VARIANTS`.
          representative: For int8: typical inputs, flattened as the model's.

        Raises:
          ExportError: With the converter's reason in one sentence.
        """
        variant = check_variant(name)
        converter = tf.lite.TFLiteConverter.from_saved_model(self._folder.name)
        converter.optimizations = [] if variant.weights == "float32" else [tf.lite.Optimize.DEFAULT]
        if variant.sparse:
            converter.optimizations.append(tf.lite.Optimize.EXPERIMENTAL_SPARSITY)
        if variant.weights == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if variant.weights == "int8":
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.representative_dataset = lambda: (
                {f"input_{i}": array[n : n + 1] for i, array in enumerate(representative)}
                for n in range(len(representative[0]))
            )
        try:
            with silenced():
                return converter.convert()
        except Exception as error:  # the converter raises its own, and those of its C++ side
            raise ExportError(self._reason(name, str(error))) from error

    def _reason(self, name: str, page: str) -> str:
        """One sentence from the page that the converter writes."""
        missing = re.findall(r"'tf\.(\w+)' op is neither a custom op nor a flex op", page)
        if missing:
            operations = ", ".join(dict.fromkeys(missing))
            return f"Expected a model of operations that TFLite has, but {self.model.name!r} needs {operations}."
        said = re.search(r"error: (?:loc\(.*\): )?(.+)", page)
        reason = said[1] if said else page.strip()
        return f"Expected a model that TFLite can take as {name}, but converting {self.model.name!r} failed ({first_line(Exception(reason))})."
