"""What nobody should miss in what was measured: a model that guesses, a file that lost more than chance, one that is no faster."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

NOISE = 0.05  # of a latency: what two measurements of one file differ by
DOT_PRODUCTS = ("vnni", "amx_int8", "asimddp", "i8mm")  # what Linux calls the instructions that multiply and add bytes
MARGIN = 0.01  # of all inputs: what a file may lose against Keras without a remark


def guessing(right: np.ndarray, y: np.ndarray, outputs: np.ndarray) -> str | None:
    """A sentence if a model is right no more often than its inputs' most frequent label, up to two standard errors.

    Args:
      right: For each input 1 where the model is right, or the share of its answers that are, (N,).
      y: Labels (N, ...): whole numbers, or one-hot as the outputs are.
      outputs: The model's, (N, ..., classes), or (N, ..., 1) for two classes.

    >>> y = np.arange(1000) % 4
    >>> guessing(y == 0, y, np.zeros((1000, 4))).partition(":")[0]
    '25.00 % right of 1,000 inputs is guessing among 4 classes'
    >>> guessing(y < 2, y, np.zeros((1000, 4)))
    """
    classes = max(outputs.shape[-1], 2)
    labels = np.argmax(y, -1) if y.shape == outputs.shape and outputs.shape[-1] > 1 else y
    frequent = max(np.unique(labels, return_counts=True)[1].max() / labels.size, 1 / classes)
    limit = frequent + 2 * np.sqrt(frequent * (1 - frequent) / len(right))
    if right.mean() > limit or limit >= 1:  # among few inputs, or with one label only, nothing can be told
        return None
    return (
        f"{100 * right.mean():.2f} % right of {len(right):,} inputs is guessing among {classes} classes: is the model trained, and do "
        "these inputs have the range that it was trained on?"
    )


def lost(name: str, right: np.ndarray, in_keras: np.ndarray) -> str | None:
    """A sentence if a file is right on more than `MARGIN` fewer inputs than its model, and on more than two standard errors fewer.

    Args:
      name: That of the variant.
      right: As for `guessing`, of the file.
      in_keras: The same of the Keras model, on the same inputs; the standard error is that of their difference.
    """
    less = in_keras - right
    if not less.mean() > max(MARGIN, 2 * less.std() / np.sqrt(len(less))):
        return None
    return (
        f"{name} is right on {100 * less.mean():.1f} points fewer than the Keras model: {100 * right.mean():.2f} % against "
        f"{100 * in_keras.mean():.2f} % of {len(less):,} inputs."
        + (" Are the representative inputs like those that it will get?" if name == "int8" else "")
    )


def no_faster(times: Mapping[str, float]) -> list[str]:
    """A sentence for each file that was made to be faster and is not: int8 against float32, sparse against dense.

    Args:
      times: Microseconds of an inference, by the name of the variant.

    >>> no_faster({"float32": 50.0, "float16": 80.0, "int8": 20.0})
    []
    >>> no_faster({"float32": 50.0, "sparse_float32": 50.0})[0].partition(":")[0]
    'sparse_float32 is no faster than float32 on this machine (50 against 50 us)'
    """
    found = []
    for name, time in times.items():
        than = "float32" if "int8" in name else name.removeprefix("sparse_")
        if name == than or than not in times or (name, than) == ("float16", "float32"):
            continue
        if time > times[than] * (1 + NOISE if "int8" in name else 1 - NOISE):
            word = "slower than" if time > times[than] * (1 + NOISE) else "no faster than"
            found.append(
                f"{name} is {word} {than} on this machine ({time:.3g} against {times[than]:.3g} us): {_why_no_faster(name)}."
            )
    return found


def _why_no_faster(name: str) -> str:
    if name.startswith("sparse_"):
        return "XNNPACK has no sparse kernels for this network or this processor, and unpacks the zeros first"
    if name == "dynamic_int8":
        return "it rounds the values between layers anew in each run, and only then computes in 8 bits"
    try:
        known = any(word in Path("/proc/cpuinfo").read_text() for word in DOT_PRODUCTS)
    except OSError:
        known = True
    if not known:
        return "this processor has no instructions for products of 8 bits"
    return "the layers are too small, or of a kind without a kernel for 8 bits, for its rounding to pay"
