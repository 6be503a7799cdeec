"""Files that were loaded, run and compared with the Keras model before they count."""

from __future__ import annotations

import dataclasses
import gzip
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.base.errors import DataError, ExportError, LotteryWarning
from tf_lottery.base.files import free, whole_file
from tf_lottery.base.quiet import silenced
from tf_lottery.export.formats import plain, uncompiled_copy
from tf_lottery.export.litert import Loaded, latencies, share_of_zeros
from tf_lottery.export.remarks import guessing, lost
from tf_lottery.export.variants import KNOWN_BAD, VARIANTS, Converter, check_variant
from tf_lottery.masking import weights
from tf_lottery.training.accuracy import accuracy_for
from tf_lottery.training.examples import check_metric

BATCH = 256
Metric = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Exported:
    """What was written, and what was measured of it.

    Attributes:
      name: keras, saved_model, or a variant of TFLite.
      path: The file, or the folder of a SavedModel.
      bytes: Its size.
      gzip_bytes: Its size compressed by gzip.
      zeros: The share of exact zeros in its weights.
      difference: The largest difference between its outputs and those of the Keras model.
      accuracy: The mean of the metric on the labels, or None without labels.
      latency_us: The median time of one inference (with one thread: of processor time), or None where it was not measured.
      keras_accuracy: The same of the Keras model, on the same inputs.
      agreement: The share of inputs with labels to which it gives the same answer as the Keras model, or None without labels.
    """

    name: str
    path: Path
    bytes: int
    gzip_bytes: int
    zeros: float
    difference: float
    accuracy: float | None = None
    latency_us: float | None = None
    keras_accuracy: float | None = None
    agreement: float | None = None


def tflite(
    model: keras.Model,
    path: str | os.PathLike,
    x,
    y: np.ndarray | None = None,
    *,
    variant: str = "float32",
    representative=None,
    metric: Metric | None = None,
    tolerance: float | None = None,
    overwrite: bool = False,
) -> Exported:
    """Writes a model as a TFLite file, which has its name only once LiteRT ran it and its outputs were near those of the Keras model.

    The file takes one example at a time, and float32 for float32, also where it computes in integers. Layers that compute in half
    precision compute in float32 there. With labels and no metric, a warning says if the file is right on more than 1 point (and two
    standard errors) fewer of `x` than the Keras model, or if the Keras model itself does no better than guessing.

    Args:
      model: A built Keras 3 model: plain, wrapped, or with `MaskedLayer`s inside.
      path: Where to.
      x: Real inputs to compare on, (N, ...); for several inputs in the structure that the model is called with.
      y: Their labels, to measure accuracy on as well.
      variant: One of `VARIANTS`: float32; float16, half the size; dynamic_int8, a quarter, weights only; int8, a quarter, and computed
        in integers; sparse_float32 and sparse_float16, without the zeros.
      representative: For int8: some hundred typical inputs, as `x`, not those to be compared on; they set the ranges of values.
      metric: A function `(y_true, y_pred)` -> one value per example; by default accuracy.
      tolerance: The largest difference of outputs that is accepted, as a share of the largest output. By default 1e-4 for float32,
        0.05 for float16 and 0.5 for both kinds of int8: wide enough for what rounding to 8 bits does, so it finds a broken file, and not
        one that is less accurate. Labels tell that.
      overwrite: Replace a file that is there.

    Returns:
      What was measured: sizes, zeros, largest difference, and with labels accuracy.

    Raises:
      ExportError: If there is a file already; if the variant is unknown, known not to work or does not pay; if TFLite has no operation
        for the model, with the converter's reason; if LiteRT refuses the file or its outputs differ. Nothing is written then.
      DataError: If the inputs do not fit the model.

    Examples:

    >>> import tempfile, tf_lottery as tfl
    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(256, "relu"), keras.layers.Dense(10)])
    >>> x = np.random.default_rng(0).normal(size=(20, 64)).astype("float32")
    >>> folder, masked = Path(tempfile.mkdtemp()), tfl.prune(model, 0.1)
    >>> dense = tflite(masked, folder / "dense.tflite", x)
    >>> sparse = tflite(masked, folder / "sparse.tflite", x, variant="sparse_float32")
    >>> round(dense.zeros, 2), round(sparse.zeros, 2), sparse.bytes < dense.bytes / 3, sparse.difference < 1e-6
    (0.9, 0.9, True, True)
    """
    path = free(path, overwrite)
    check_variant(variant)
    with plain(model) as sparse, Comparison(sparse, x, y, metric, representative, tolerance) as comparison:
        content, _, found = comparison.checked(variant)
        remarks = comparison.remarks
    with whole_file(path) as unfinished:
        unfinished.write_bytes(content)
    for remark in remarks:
        warnings.warn(LotteryWarning("{}", remark), stacklevel=2)
    return dataclasses.replace(found, path=path)


class Comparison:
    """One plain model with the inputs it is compared on: converts, runs and measures; `remarks` gathers what nobody should miss."""

    def __init__(self, model, x, y, metric, representative, tolerance, threads: int = 1, loss=None):
        types = {layer.compute_dtype for layer in [model, *weights.sublayers(model)]}
        others = [name for name in types if name and "float" in name and name != "float32"]
        self.model = uncompiled_copy(model, float32=True) if others else model
        self.structure, self._own_structure = _as_inputs(self.model, x), _as_inputs(model, x)
        self.inputs, self.y = keras.tree.flatten(self.structure), y
        self.representative = None
        if representative is not None:
            self.representative = keras.tree.flatten(_as_inputs(self.model, representative))
        self.tolerance, self.threads = tolerance, threads
        self.expected = self._outputs(lambda inputs: self.model(inputs, training=False), self.structure)
        if not all(np.isfinite(output).all() for output in self.expected):
            raise ExportError(
                f"Expected finite outputs of {model.name!r} to compare with, but it gives NaN or infinity."
            )
        self.metric = metric or accuracy_for(loss)
        self._own_metric = metric is not None  # nobody knows which of its values are good
        if y is not None:
            self.y = np.asarray(y)
            check_metric(metric, self.y, self.expected[0].shape)
            if len(self.y) != len(self.inputs[0]) or len(self.expected) > 1:
                raise DataError(
                    f"Expected a label for each of {len(self.inputs[0])} inputs and a model with one output, but received "
                    f"{len(self.y)} labels for {len(self.expected)} output{'s' if len(self.expected) > 1 else ''}."
                )
        self.values = self._measured(self.expected)
        self.remarks: list[str] = []
        if self.values is not None and self.y is not None and metric is None:
            self.remarks += filter(None, [guessing(self.values, self.y, self.expected[0])])
        self._converter: Converter | None = None
        self._contents: dict[str, bytes] = {}

    def __enter__(self) -> Comparison:
        return self

    def __exit__(self, *_) -> None:
        if self._converter:
            self._converter.close()

    def keras(self, path: Path) -> Exported:
        with silenced():
            loaded = keras.models.load_model(path, compile=False, safe_mode=False)  # it was written here
        outputs = self._outputs(lambda inputs: loaded(inputs, training=False), self._own_structure)
        return self._exported("keras", path, outputs, zeros_of(loaded.variables))

    def saved_model(self, path: Path) -> Exported:
        with silenced():
            loaded = tf.saved_model.load(path)
        outputs = self._outputs(loaded.serve, self._own_structure)
        return self._exported("saved_model", path, outputs, zeros_of(loaded.variables))

    def variants(self, names: Sequence[str], folder: Path) -> tuple[list[Exported], dict[str, str]]:
        """Writes the variants that work and pay; returns them, and for the others why not."""
        files, loaded, errors = {}, {}, {}
        for name in names:
            try:
                content, loaded[name], files[name] = self.checked(name)
            except ExportError as error:
                errors[name] = error
                continue
            files[name] = dataclasses.replace(files[name], path=folder / f"{name}.tflite")
            files[name].path.write_bytes(content)
        if not files:
            raise next(iter(errors.values()))
        times = latencies(loaded)
        why = {name: KNOWN_BAD.get(name, str(error).rstrip(".")) for name, error in errors.items()}
        return [dataclasses.replace(file, latency_us=times[name]) for name, file in files.items()], why

    def checked(self, name: str) -> tuple[bytes, Loaded, Exported]:
        """A variant that was converted, loaded, run and compared."""
        variant = check_variant(name)
        content = self._content(name)
        if variant.sparse and len(content) >= (dense := len(self._content(variant.dense))):
            raise ExportError(
                f"Expected a model whose zeros pay for sparse encoding, but {name} would take {len(content):,} bytes and "
                f"{variant.dense} takes {dense:,}."
            )
        loaded = Loaded(content, self.threads)
        outputs = loaded.outputs(self.inputs)
        tolerance = variant.tolerance if self.tolerance is None else self.tolerance
        for output, expected in zip(outputs, self.expected, strict=True):
            scale = float(np.max(np.abs(expected))) or 1.0
            if not (difference := _difference(output, expected)) <= tolerance * scale:
                raise ExportError(
                    f"Expected outputs as those of {self.model.name!r} up to {tolerance * scale:.2g}, but {name} differs by {difference:.2g}."
                )
        return content, loaded, self._exported(name, Path(), outputs, share_of_zeros(content), content)

    def _content(self, name: str) -> bytes:
        if VARIANTS[name].weights == "int8" and self.representative is None:
            raise ExportError(
                "Expected representative inputs, which set the ranges of values of int8, but received none."
            )
        self._converter = self._converter or Converter(self.model, self.structure)
        if name not in self._contents:
            self._contents[name] = self._converter(name, self.representative)
        return self._contents[name]

    @property
    def accuracy(self) -> float | None:
        """The mean of the metric in Keras."""
        return None if self.values is None else float(self.values.mean())

    def _measured(self, outputs: Sequence[np.ndarray]) -> np.ndarray | None:
        """The metric of each input, (N,), or None without labels."""
        if self.y is None:
            return None
        values = np.asarray(self.metric(self.y, tf.constant(outputs[0])), np.float64)
        return values.reshape(len(values), -1).mean(1) if values.ndim else values[None]

    def _outputs(self, call: Callable, structure) -> list[np.ndarray]:
        parts = []
        for at in range(0, len(self.inputs[0]), BATCH):
            batch = keras.tree.map_structure(lambda array: array[at : at + BATCH], structure)  # noqa: B023
            parts.append([keras.ops.convert_to_numpy(output) for output in keras.tree.flatten(call(batch))])
        return [np.concatenate(output) for output in zip(*parts)]

    def _exported(self, name: str, path: Path, outputs, zeros: float, content: bytes | None = None) -> Exported:
        contents = [content] if content is not None else _contents(path)
        values = self._measured(outputs)
        if values is not None and self.values is not None and not self._own_metric:
            self.remarks += filter(None, [lost(name, values, self.values)])
        return Exported(
            name,
            path,
            bytes=sum(map(len, contents)),
            gzip_bytes=sum(len(gzip.compress(part, 6, mtime=0)) for part in contents),
            zeros=zeros,
            difference=max(map(_difference, outputs, self.expected)),
            accuracy=None if values is None else float(values.mean()),
            keras_accuracy=self.accuracy,
            agreement=self._agreement(outputs[0]),
        )

    def _agreement(self, output: np.ndarray) -> float | None:
        if self.y is None or self._own_metric:
            return None
        if output.shape[-1] > 1:
            return float(np.mean(output.argmax(-1) == self.expected[0].argmax(-1)))
        answers = [self.metric(np.ones_like(each), tf.constant(each)) for each in (output, self.expected[0])]
        return float(np.mean(np.asarray(answers[0]) == np.asarray(answers[1])))

    @property
    def names(self) -> dict[str, str]:
        """What the file's `input_0`, `output_0`, ... are called in the model, where there are several of a kind."""
        given = [".".join(map(str, path)) for path, _ in keras.tree.flatten_with_path(self.structure)]
        if not isinstance(self.structure, Mapping):
            given = [tensor.name for tensor in getattr(self.model, "inputs", None) or ()]
        outputs = list(getattr(self.model, "output_names", None) or ())
        found = {"input": given if len(given) == len(self.inputs) else []}
        found["output"] = outputs if len(outputs) == len(self.expected) else []
        return {f"{kind}_{i}": name for kind, names in found.items() if len(names) > 1 for i, name in enumerate(names)}


def _as_inputs(model: keras.Model, x):
    """The inputs as arrays of the types that the model takes; their number, shapes and sizes are checked."""
    arrays = [np.asarray(array) for array in keras.tree.flatten(x)]
    wanted = getattr(model, "inputs", None) or [None] * len(arrays)
    shapes = [getattr(one, "shape", (None, *array.shape[1:])) for one, array in zip(wanted, arrays)]
    fits = len(wanted) == len(arrays) and all(
        array.dtype.kind in "biuf"
        and array.ndim == len(shape)
        and all(a in (None, b) for a, b in zip(shape[1:], array.shape[1:]))
        for array, shape in zip(arrays, shapes)
    )
    if not fits or len({len(array) for array in arrays}) != 1 or not len(arrays[0]):
        raise DataError(
            f"Expected inputs of shape {', '.join(str(tuple(shape)) for shape in shapes)} for model {model.name!r}, as many of "
            f"each and at least one, but received {', '.join(str(array.shape) for array in arrays)}."
        )
    types = [
        getattr(one, "dtype", None) or ("float32" if a.dtype.kind == "f" else a.dtype) for one, a in zip(wanted, arrays)
    ]
    return keras.tree.pack_sequence_as(x, [array.astype(dtype) for array, dtype in zip(arrays, types)])


def _difference(output: np.ndarray, expected: np.ndarray) -> float:
    return float(np.max(np.abs(output.astype(np.float64) - expected.astype(np.float64)), initial=0.0))


def zeros_of(variables) -> float:
    """The share of exact zeros in the variables of rank 2 and more."""
    kernels = [np.asarray(v) for v in variables if len(v.shape) >= 2]
    return 1 - sum(map(np.count_nonzero, kernels)) / max(sum(kernel.size for kernel in kernels), 1)


def _contents(path: Path) -> list[bytes]:
    return [part.read_bytes() for part in ([path] if path.is_file() else sorted(path.rglob("*"))) if part.is_file()]
