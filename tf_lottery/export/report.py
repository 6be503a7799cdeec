"""All formats of a model side by side: what was written, what was measured, and what was not possible and why."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.base.errors import ExportError, LotteryWarning
from tf_lottery.base.files import free, whole_folder
from tf_lottery.export.comparison import Comparison, Exported, Metric, zeros_of
from tf_lottery.export.formats import keras_file, plain, saved_model
from tf_lottery.export.kernels import LayerKernels, processor_note, sparse_kernels
from tf_lottery.export.remarks import no_faster
from tf_lottery.export.variants import KNOWN_BAD, VARIANTS, check_variant

FORMATS = ("keras", "saved_model", "tflite")


@dataclass(frozen=True)
class Report:
    """All that was exported of a model, side by side.

    Attributes:
      model: Its name.
      parameters: How many numbers its weights are.
      zeros: The share of exact zeros in its weights of rank 2 and more.
      examples: How many inputs each file was run on.
      largest_output: The largest absolute value of the outputs; differences are to be read against it.
      accuracy: The mean of the metric of the Keras model, or None without labels.
      files: What was written.
      not_written: Variant -> why it was not.
      layers: For each layer with prunable weights whether XNNPACK has a sparse kernel for it.
      measured_on: The machine, the version of LiteRT and its threads.
      metric: The name of the metric that was given, or None for accuracy.
      remarks: What nobody should miss: a model that only guesses, a file that is right less often than the Keras model.
      slow: Files that were made to be faster and are not on this machine, and why.
      names: What the inputs and outputs of the TFLite files, `input_0` and so on, are called in the model, where it has several.
    """

    model: str
    parameters: int
    zeros: float
    examples: int
    largest_output: float
    accuracy: float | None
    files: tuple[Exported, ...]
    not_written: Mapping[str, str]
    layers: tuple[LayerKernels, ...]
    measured_on: Mapping[str, Any]
    metric: str | None = None
    remarks: tuple[str, ...] = ()
    slow: tuple[str, ...] = ()
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The report as numbers and text; paths are names in the folder."""
        return {
            **dataclasses.asdict(self),
            "files": [{**dataclasses.asdict(file), "path": file.path.name} for file in self.files],
        }

    def __str__(self) -> str:
        heading = (self.metric or "right")[:20]
        width = max(10, len(heading) + 2)
        right = "" if self.accuracy is None else f", {self._measured(self.accuracy)} in Keras"
        lines = [
            *_wrapped(
                f"{self.model}: {self.parameters:,} parameters, {self.zeros:.1%} zeros; compared on {self.examples:,} inputs, with "
                f"outputs up to {self.largest_output:.3g}{right}"
            ),
            f"{'':<16}{'bytes':>12}{'gzip':>12}{'zeros':>9}{'latency us':>12}{heading:>{width}}{'difference':>13}",
        ]
        for file in self.files:
            latency = "-" if file.latency_us is None else f"{file.latency_us:,.1f}"
            accuracy = "-" if file.accuracy is None else self._measured(file.accuracy, named=False)
            lines.append(
                f"{file.name:<16}{file.bytes:>12,}{file.gzip_bytes:>12,}{file.zeros:>9.1%}{latency:>12}{accuracy:>{width}}"
                f"{file.difference:>13.2g}"
            )
        measured = any(file.latency_us is not None for file in self.files)
        lines += [line for remark in self.remarks for line in _wrapped(remark)]
        return "\n".join(lines + (self._about_tflite() if measured else []))

    def _measured(self, value: float, named: bool = True) -> str:
        if self.metric is None:
            return f"{100 * value:.2f} %" + (" right" if named else "")
        return (f"{self.metric} " if named else "") + f"{value:.4g}"

    def _about_tflite(self) -> list[str]:
        """How latency was measured, what was not written, and which layers have sparse kernels."""
        where = self.measured_on
        lines = _wrapped(
            f"Latency: median{'' if where['threads'] > 1 else ' of processor time'}, one example at a time, LiteRT {where['litert']} with "
            f"XNNPACK, {where['threads']} thread{'s' if where['threads'] > 1 else ''}, {where['machine']}."
        )
        lines += [line for remark in self.slow for line in _wrapped(remark)]
        if self.names:
            lines += _wrapped("Names: " + ", ".join(f"{own} is {name}" for own, name in self.names.items()) + ".")
        if self.not_written:
            lines.append("Not written:")
            lines += [line for name, why in self.not_written.items() for line in _wrapped(f"{name}: {why}.", "  ")]
        lines.append("Sparse kernels of XNNPACK:")
        reasons: dict[tuple[bool, str], list[LayerKernels]] = {}
        for layer in self.layers:
            reasons.setdefault((layer.sparse, layer.reason), []).append(layer)
        for (sparse, reason), layers in reasons.items():
            names = ", ".join(layer.layer for layer in layers[:4])
            names += f" and {len(layers) - 4} more" if len(layers) > 4 else ""
            lines += _wrapped(f"{'yes' if sparse else 'no'}: {names}: {reason}.", "  ")
        return [*lines, *_wrapped(where["note"], "  ")]


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        100,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def side_by_side(
    model: keras.Model,
    folder: str | os.PathLike,
    x,
    y: np.ndarray | None = None,
    *,
    formats: Sequence[str] = FORMATS,
    variants: Sequence[str] | None = None,
    representative=None,
    metric: Metric | None = None,
    threads: int = 1,
    overwrite: bool = False,
) -> Report:
    """Writes a model in several formats into a new folder, with a report on all of them, also as `report.json`.

    Args:
      model, x, y, representative, metric: As for `tflite`.
      folder: The folder to make; it appears when everything in it is there.
      formats: Of `FORMATS`: keras (`model.keras`), saved_model (`saved_model/`), tflite (`VARIANT.tflite`).
      variants: Those of TFLite; by default all. A variant that does not work or does not pay is not written, and the report says
        why.
      threads: How many threads LiteRT may use when latency is measured.
      overwrite: Replace a folder that an earlier export made.

    Raises:
      ExportError: If the folder exists, a name is unknown, or a format cannot be written at all; nothing is written then.
      DataError: If the inputs do not fit the model.

    Examples:

    >>> import tempfile, tf_lottery as tfl
    >>> from pathlib import Path
    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(256, "relu"), keras.layers.Dense(10)])
    >>> x = np.random.default_rng(0).normal(size=(20, 64)).astype("float32")
    >>> folder = Path(tempfile.mkdtemp()) / "out"
    >>> report = side_by_side(tfl.prune(model, 0.1), folder, x, formats=["tflite"], variants=["float32", "sparse_float32", "int8"])
    >>> [file.name for file in report.files], list(report.not_written)
    (['float32', 'sparse_float32'], ['int8'])
    """
    folder = free(folder, overwrite, marker="report.json")
    if unknown := [name for name in formats if name not in FORMATS]:
        raise ExportError(f"Expected formats of {', '.join(FORMATS)}, but received {unknown[0]!r}.")
    for name in variants or ():
        if name not in KNOWN_BAD:
            check_variant(name)
    names = variants or [*VARIANTS, *KNOWN_BAD]
    with (
        plain(model) as sparse,
        Comparison(sparse, x, y, metric, representative, None, threads) as comparison,
        whole_folder(folder) as unfinished,
    ):
        files = []
        if "keras" in formats:
            files.append(comparison.keras(keras_file(sparse, unfinished / "model.keras")))
        if "saved_model" in formats:
            files.append(comparison.saved_model(saved_model(sparse, unfinished / "saved_model")))
        not_written: dict[str, str] = {}
        if "tflite" in formats:
            tflite_files, not_written = comparison.variants(names, unfinished)
            files += tflite_files
        report = Report(
            model=sparse.name,
            parameters=sparse.count_params(),
            zeros=zeros_of(sparse.variables),
            examples=len(comparison.inputs[0]),
            largest_output=max(float(np.max(np.abs(output))) for output in comparison.expected),
            accuracy=comparison.accuracy,
            files=tuple(dataclasses.replace(file, path=folder / file.path.name) for file in files),
            not_written=not_written,
            layers=tuple(sparse_kernels(sparse)),
            measured_on={
                "machine": f"{platform.machine()} with {os.cpu_count()} cores",
                "litert": importlib.metadata.version("ai-edge-litert"),
                "tensorflow": tf.__version__,
                "threads": threads,
                "note": processor_note(),
            },
            metric=None if metric is None else str(getattr(metric, "__name__", type(metric).__name__)),
            remarks=tuple(comparison.remarks),
            slow=tuple(no_faster({f.name: f.latency_us for f in files if f.latency_us is not None})),
            names=comparison.names,
        )
        (unfinished / "report.json").write_text(json.dumps(report.to_json(), indent=2) + "\n")
    for remark in report.remarks:
        warnings.warn(LotteryWarning("{}", remark), stacklevel=2)
    return report
