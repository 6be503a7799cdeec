"""`compare`: what pruning bought, as one table of the model before and after."""

from __future__ import annotations

import dataclasses
import gzip
import importlib.metadata
import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import keras
import numpy as np
import rich.console
import tensorflow as tf

from tf_lottery.base.errors import ExportError, LotteryError
from tf_lottery.base.table import Table, in_text
from tf_lottery.export.comparison import Comparison, Exported
from tf_lottery.export.evaluation import arrays_of, evaluated, labels_in, loss_of
from tf_lottery.export.formats import check_model, keras_file, load_keras, plain
from tf_lottery.export.litert import latencies
from tf_lottery.export.remarks import no_faster
from tf_lottery.export.variants import KNOWN_BAD, VARIANTS, check_variant
from tf_lottery.masking import weights

REPRESENTATIVE = 200  # inputs that set the ranges of int8


@dataclass(frozen=True)
class Side:
    """What was measured of one of the two models.

    Attributes:
      metrics: What `evaluate` says of it, by name; empty without data.
      weights: How many numbers its weights are.
      nonzero: How many of them are not zero.
      bytes: The size of its `.keras` file, without optimizer.
      gzip_bytes: The size of that compressed by gzip.
      files: Its TFLite files by variant.
    """

    metrics: Mapping[str, float]
    weights: int
    nonzero: int
    bytes: int
    gzip_bytes: int
    files: Mapping[str, Exported]


@dataclass(frozen=True)
class Compared:
    """The table of before and after: printed, on a terminal and in a notebook it is one; for programs there is `as_dict`.

    Attributes:
      dense, pruned: The two sides.
      examples: How many examples the metrics are of, or None where the data do not say.
      not_written: TFLite variants that were not written of the pruned model -> why.
      remarks: What nobody should miss: guessing, lost accuracy, files that are no faster.
      names: What the inputs and outputs of the TFLite files are called in the model, where it has several.
      measured_on: The machine, and the versions.
    """

    dense: Side
    pruned: Side
    examples: int | None
    not_written: Mapping[str, str]
    remarks: tuple[str, ...]
    names: Mapping[str, str]
    measured_on: Mapping[str, Any]

    @property
    def table(self) -> Table:
        """What both sides have, and how they differ."""
        rows = [
            [name, *(_metric(name, side.metrics[name]) for side in (self.dense, self.pruned)), _points(name, self)]
            for name in self.dense.metrics
        ]
        rows += [self._row(name, field, "fewer", "more") for name, field in _COUNTS.items()]
        rows += [self._row(name, field, "smaller", "larger") for name, field in _SIZES.items()]
        for variant in self.pruned.files:
            rows += self._rows_of(variant)
        return Table(["", "dense", "pruned", "change"], rows)

    def _row(self, name: str, field: str, less: str, more: str) -> list[str]:
        before, after = getattr(self.dense, field), getattr(self.pruned, field)
        return [name, f"{before:,}", f"{after:,}", _ratio(before, after, less, more)]

    def _rows_of(self, variant: str) -> list[list[str]]:
        """Size, latency, accuracy and agreement of a TFLite file, before and after."""
        twin = variant if variant in self.dense.files else VARIANTS[variant].dense
        before, after = self.dense.files.get(twin), self.pruned.files[variant]
        name = variant if twin == variant else f"{variant} against {twin}"
        sides = (before, after)
        rows = [
            [f"{name}, bytes", *_both(sides, "bytes", "{:,}"), _change(sides, "bytes", "smaller", "larger")],
            [f"{name}, gzip", *_both(sides, "gzip_bytes", "{:,}"), _change(sides, "gzip_bytes", "smaller", "larger")],
            [f"{name}, us", *_both(sides, "latency_us", "{:,.1f}"), _change(sides, "latency_us", "faster", "slower")],
        ]
        if after.accuracy is not None:
            points = "" if before is None or before.accuracy is None else _signed(after.accuracy - before.accuracy)
            rows.append([f"{name}, right", *_both(sides, "accuracy", _PERCENT, 100), points])
            rows.append([f"{name}, agrees with Keras", *_both(sides, "agreement", _PERCENT, 100), ""])
        else:
            rows.append([f"{name}, differs from Keras", *_both(sides, "difference", "{:.2g}"), ""])
        return rows

    @property
    def notes(self) -> list[str]:
        """What stands below the table."""
        notes = list(self.remarks)
        if self.dense.metrics and self.examples is not None:
            notes.append(f"Measured on {self.examples:,} examples.")
        if self.pruned.files:
            where = self.measured_on
            notes.append(
                f"Latency: median, one example at a time, LiteRT {where['litert']}, {where['threads']} "
                f"thread{'s' if where['threads'] > 1 else ''}, {where['machine']}."
            )
        if self.names:
            notes.append("Names: " + ", ".join(f"{own} is {name}" for own, name in self.names.items()) + ".")
        return notes + [f"{name} was not written: {why}." for name, why in self.not_written.items()]

    @property
    def verdict(self) -> str:
        """The outcome in one sentence."""
        words = [_ratio(self.dense.nonzero, self.pruned.nonzero, "fewer", "more") + " weights that are not zero"]
        for name, value in self.dense.metrics.items():
            words.append(f"{name} {_metric(name, self.pruned.metrics[name])}, before {_metric(name, value)}")
        return "; ".join(words) + "."

    def as_dict(self) -> dict[str, Any]:
        """Both sides and their ratios (dense over pruned; of metrics pruned less dense), as numbers and text."""
        sides = {name: _plain(getattr(self, name)) for name in ("dense", "pruned")}
        ratios: dict[str, Any] = {
            field: getattr(self.dense, field) / max(getattr(self.pruned, field), 1)
            for field in (*_COUNTS.values(), *_SIZES.values())
        }
        ratios["metrics"] = {name: self.pruned.metrics[name] - value for name, value in self.dense.metrics.items()}
        rest = {name: getattr(self, name) for name in ("examples", "not_written", "names", "measured_on")}
        return {**sides, "ratios": ratios, **rest, "remarks": list(self.remarks)}

    def __rich__(self) -> rich.console.Group:
        return rich.console.Group(self.table, *self.notes)

    def __str__(self) -> str:
        return in_text(self.table, *self.notes, width=100)

    def _repr_html_(self) -> str:
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        return self.table.html() + (f"<ul>{notes}</ul>" if notes else "")


_PERCENT = "{:.2f} %"
_COUNTS = {"weights": "weights", "weights that are not zero": "nonzero"}
_SIZES = {".keras, bytes": "bytes", ".keras, gzip": "gzip_bytes"}


def compare(
    dense: keras.Model | str | os.PathLike,
    pruned: keras.Model | str | os.PathLike,
    data=None,
    *,
    variants: Sequence[str] = (),
    representative=None,
    threads: int = 1,
) -> Compared:
    """Measures a model before and after pruning: metrics, weights that are not zero, file sizes, and TFLite files side by side.

        print(tfl.compare("mine.keras", pruned, (x_test, y_test), variants=["float32", "int8"]))

    Metrics are those of `evaluate`, by the loss and metrics that `dense` was compiled with (or, if it was not, `pruned`), of both
    models. Neither of the models is changed.

    Args:
      dense: The model before: a Keras 3 model, or a `.keras` file. `prune` and `wrap` work on the weights of the model they are
        given, so after them it is no dense model any more: give the file, or a copy that was made before.
      pruned: The model after: wrapped, plain, compacted, or a `.keras` file.
      data: What `evaluate` takes: `(x, y)`, `(x, y, sample_weight)`, a `tf.data.Dataset` or a `keras.utils.PyDataset`. Without it
        nothing is said of metrics, and there are no TFLite files.
      variants: TFLite variants to convert both models into, of `export.VARIANTS`: their size, latency and accuracy, measured side
        by side, and how often they agree with the Keras model that they are made of.
      representative: For int8: typical inputs, which set the ranges of values; by default some of those in `data`.
      threads: How many threads LiteRT may use when latency is measured.

    Returns:
      The table.

    Raises:
      LotteryError: If the two share their weights, or if there are data and neither is compiled.
      DataError: If the data do not fit, or never end.
      ExportError: If Keras cannot save a model, or a variant is unknown.

    Examples:

    >>> import tf_lottery as tfl
    >>> def network():
    ...     layers = [keras.layers.Dense(64, "relu"), keras.layers.Dense(4)]
    ...     return keras.Sequential([keras.Input((16,)), *layers])
    >>> dense, pruned = network(), network()
    >>> pruned.set_weights(dense.get_weights())
    >>> dense.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    >>> x, y = np.random.default_rng(0).normal(size=(100, 16)).astype("float32"), np.arange(100) % 4
    >>> compared = compare(dense, tfl.prune(pruned, 0.25), (x, y))
    >>> compared.pruned.nonzero, compared.as_dict()["ratios"]["nonzero"] > 3
    (320, True)
    """
    return with_files(dense, pruned, data, variants=variants, representative=representative, threads=threads)[0]


def with_files(
    dense, pruned, data=None, *, variants: Sequence[str] = (), representative=None, threads: int = 1
) -> tuple[Compared, dict[str, bytes]]:
    """As `compare`, and the contents of the pruned model's TFLite files by variant."""
    dense, pruned = (load_keras(m) if isinstance(m, str | os.PathLike) else m for m in (dense, pruned))
    for variant in variants:
        if variant not in KNOWN_BAD:
            check_variant(variant)
    if variants and data is None:
        raise LotteryError("Expected data to compare TFLite files on, but received variants and no data.")
    _check_apart(dense, pruned)
    with plain(dense) as before, plain(pruned) as after, tempfile.TemporaryDirectory() as folder:
        metrics = evaluated([dense, pruned], data)
        sides = [
            _side(model, found, Path(folder, f"{i}.keras"))
            for i, (model, found) in enumerate(zip((before, after), metrics))
        ]
        if not variants:
            return _compared(sides, data, threads), {}
        x, y = arrays_of(data)
        if representative is None:
            count = len(keras.tree.flatten(x)[0])
            rows = np.unique(np.linspace(0, count - 1, REPRESENTATIVE).astype(int))
            representative = keras.tree.map_structure(lambda array: array[rows], x)
        loss = loss_of([dense, pruned])
        y = labels_in(y, before, x, loss)
        both = (Comparison(m, x, y, None, representative, None, threads, loss) for m in (before, after))
        with next(both) as first, next(both) as second:
            files, contents, why = _files(first, second, variants)
            sides = [dataclasses.replace(side, files=found) for side, found in zip(sides, files)]
            times = {name: file.latency_us for name, file in files[1].items() if file.latency_us is not None}
            remarks = [*dict.fromkeys([*second.remarks, *no_faster(times)])]
            return _compared(sides, data, threads, why, remarks, second.names), contents


def _check_apart(dense: keras.Model, pruned: keras.Model) -> None:
    """Refuses two models of the same weights, whose comparison would say that pruning costs nothing."""
    for model in (dense, pruned):
        check_model(model)
    own = {id(variable) for variable in dense.variables}
    if any(id(variable) in own for variable in pruned.variables):
        raise LotteryError(
            f"Expected a model before and one after pruning, but {dense.name!r} and {pruned.name!r} share their weights, since prune "
            "and wrap work on those of the model they are given: give the .keras file from before, or a copy that was made before."
        )


def _side(model: keras.Model, metrics: Mapping[str, float], path: Path) -> Side:
    content = keras_file(model, path).read_bytes()
    values = [weights.value_of(v) for v in model.variables if not weights.is_random_state(v)]
    return Side(
        metrics,
        weights=sum(value.size for value in values),
        nonzero=sum(int(np.count_nonzero(value)) for value in values),
        bytes=len(content),
        gzip_bytes=len(gzip.compress(content, 6, mtime=0)),
        files={},
    )


def _files(
    first: Comparison, second: Comparison, variants: Sequence[str]
) -> tuple[list[dict[str, Exported]], dict[str, bytes], dict[str, str]]:
    """The TFLite files of both, timed together; the contents of the second's; and why some are not there."""
    files: list[dict[str, Exported]] = [{}, {}]
    contents, loaded, why = {}, {}, {}
    twins = list(dict.fromkeys(VARIANTS[v].dense if v in VARIANTS else v for v in variants))
    for side, (comparison, names) in enumerate([(first, twins), (second, variants)]):
        for name in names:
            try:
                content, loaded[f"{side} {name}"], files[side][name] = comparison.checked(name)
                if side:
                    contents[name] = content
            except ExportError as error:
                if side:
                    why[name] = KNOWN_BAD.get(name, str(error).rstrip("."))
    times = latencies(loaded) if loaded else {}
    timed = [
        {name: dataclasses.replace(file, latency_us=times[f"{side} {name}"]) for name, file in found.items()}
        for side, found in enumerate(files)
    ]
    return timed, contents, why


def _compared(sides, data, threads, why=None, remarks=(), names=None) -> Compared:
    machine = {
        "machine": f"{platform.machine()} with {os.cpu_count()} cores",
        "litert": importlib.metadata.version("ai-edge-litert"),
        "tensorflow": tf.__version__,
        "threads": threads,
    }
    examples = len(keras.tree.flatten(data[0])[0]) if isinstance(data, tuple | list) else None
    return Compared(sides[0], sides[1], examples, why or {}, tuple(remarks), names or {}, machine)


def _plain(side: Side) -> dict[str, Any]:
    files = {name: dataclasses.asdict(file) for name, file in side.files.items()}
    kept = {name: {k: v for k, v in file.items() if k not in ("name", "path")} for name, file in files.items()}
    return {**dataclasses.asdict(dataclasses.replace(side, files={})), "files": kept}


def _metric(name: str, value: float) -> str:
    return _PERCENT.format(100 * value) if _is_share(name) else f"{value:.4g}"


def _points(name: str, compared: Compared) -> str:
    change = compared.pruned.metrics[name] - compared.dense.metrics[name]
    return _signed(change) if _is_share(name) else f"{change:+.4g}"


def _is_share(name: str) -> bool:
    return "acc" in name.lower()


def _signed(change: float) -> str:
    return f"{100 * change:+.2f} points"


def _both(sides: Sequence[Exported | None], field: str, form: str, scale: float = 1) -> list[str]:
    values = [None if side is None else getattr(side, field) for side in sides]
    return ["-" if value is None else form.format(scale * value) for value in values]


def _change(sides: Sequence[Exported | None], field: str, less: str, more: str) -> str:
    before, after = (None if side is None else getattr(side, field) for side in sides)
    return "" if before is None or after is None else _ratio(before, after, less, more)


def _ratio(before: float, after: float, less: str, more: str) -> str:
    """How many times less or more.

    >>> _ratio(500, 100, "fewer", "more"), _ratio(1.0, 1.004, "faster", "slower"), _ratio(2, 3, "smaller", "larger")
    ('5.00 times fewer', 'the same', '1.50 times larger')
    """
    if not before or not after:
        return ""
    times, word = (before / after, less) if before >= after else (after / before, more)
    return "the same" if f"{times:.2f}" == "1.00" else f"{times:.2f} times {word}"
