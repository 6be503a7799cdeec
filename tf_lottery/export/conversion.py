"""One conversion of a SavedModel to TFLite: here, or in a process of its own, whose end is an error like any other.

For int8 the converter runs the model on typical inputs, and where it meets a loop or a branch, as in an LSTM, that can end Python
itself. `apart` does the same in a process that has nothing to lose; it starts with `python -c`, so that a script needs no
`if __name__ == "__main__"`.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tf_lottery.base.errors import ExportError
from tf_lottery.base.quiet import silenced
from tf_lottery.export.formats import first_line

CONTROL_FLOW = {"While", "StatelessWhile", "If", "StatelessIf", "Case", "StatelessCase"}
_CHILD = "import sys; from tf_lottery.export import conversion; conversion.main(*sys.argv[1:])"


def convert(
    folder: str, model: str, name: str, weights: str, sparse: bool, representative: Sequence[np.ndarray] | None
) -> bytes:
    """The content of a `.tflite` file.

    Args:
      folder: A SavedModel; its inputs are called `input_0`, ...
      model: What errors call it.
      name, weights, sparse: A variant and what it consists of.
      representative: For int8: typical inputs, arrays (N, ...) in order.

    Raises:
      ExportError: With the converter's reason in one sentence.
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(folder)
    converter.optimizations = [] if weights == "float32" else [tf.lite.Optimize.DEFAULT]
    if sparse:
        converter.optimizations.append(tf.lite.Optimize.EXPERIMENTAL_SPARSITY)
    if weights == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if weights == "int8" and representative is not None:
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: (
            {f"input_{i}": array[n : n + 1] for i, array in enumerate(representative)}
            for n in range(len(representative[0]))
        )
    try:
        with silenced():
            return converter.convert()
    except Exception as error:  # the converter raises its own, and those of its C++ side
        raise ExportError(_reason(model, name, str(error))) from error


def apart(
    folder: str, model: str, name: str, weights: str, sparse: bool, representative: Sequence[np.ndarray] | None
) -> bytes:
    """As `convert`, in a process of its own.

    Raises:
      ExportError: As from `convert`; and if that process was ended, with the way out.
    """
    with tempfile.TemporaryDirectory() as between:
        content, said, inputs = (Path(between, each) for each in ("content", "said", "inputs.npz"))
        np.savez(inputs, *(representative or ()))
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, folder, model, name, weights, "sparse" if sparse else "", between],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "CUDA_VISIBLE_DEVICES": "-1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        if done.returncode == 0 and content.is_file():
            return content.read_bytes()
        if said.is_file():
            raise ExportError(said.read_text())
    ended = _ended(done.returncode, done.stderr)
    raise ExportError(
        f"Expected a model that TFLite can take as {name}, but the converter ended its process ({ended}) over {model!r}, which "
        "has a loop or a branch: build recurrent layers with unroll=True, or choose dynamic_int8, float16 or float32."
    )


def main(folder: str, model: str, name: str, weights: str, sparse: str, between: str) -> None:
    """The process of `apart`: what it makes, or what it has to say, is a file in the folder `between`."""
    with np.load(Path(between, "inputs.npz")) as inputs:
        representative = [inputs[each] for each in inputs.files]
    try:
        Path(between, "content").write_bytes(convert(folder, model, name, weights, bool(sparse), representative))
    except ExportError as error:
        Path(between, "said").write_text(str(error))


def _ended(status: int, stderr: str) -> str:
    if status >= 0:
        return f"exit status {status}: {first_line(Exception(stderr.strip().rpartition(chr(10))[2]))}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def _reason(model: str, name: str, page: str) -> str:
    """One sentence from the page that the converter writes."""
    missing = re.findall(r"'tf\.(\w+)' op is neither a custom op nor a flex op", page)
    if missing:
        operations = ", ".join(dict.fromkeys(missing))
        return f"Expected a model of operations that TFLite has, but {model!r} needs {operations}."
    said = re.search(r"error: (?:loc\(.*\): )?(.+)", page)
    reason = said[1] if said else page.strip()
    return f"Expected a model that TFLite can take as {name}, but converting {model!r} failed ({first_line(Exception(reason))})."
