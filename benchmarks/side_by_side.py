"""What the benchmarks have in common: two or more sides measured in turn in one process, and the ratio of their fastest rounds."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf


def alternate(rounds: int, warm: bool = True, **sides: Callable[[], float]) -> dict[str, list[float]]:
    """Runs all sides in turn, each round in another order, after one unmeasured round if `warm`; a side returns its time."""
    for side in sides.values() if warm else ():
        side()
    times: dict[str, list[float]] = {name: [] for name in sides}
    order = np.random.default_rng(0)
    for _ in range(rounds):
        for name in order.permutation(list(sides)):
            times[name].append(sides[name]())
    return times


def find(*flags: str) -> Callable[[], float]:
    """Seconds of `tf-lottery find` with these flags: the command as it is typed, from start to end, in a folder that goes again."""

    def run() -> float:
        with tempfile.TemporaryDirectory() as folder:
            words = ["-m", "tf_lottery.bin.find", "--quiet", f"--results_dir={folder}", *flags]
            began = time.perf_counter()
            subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
            return time.perf_counter() - began

    return run


def fastest(times: dict[str, list[float]], side: str) -> float:
    """The fastest round of a side: what it costs when nothing else disturbs. Other rounds may take twice as long here."""
    return min(times[side])


def images(shape: tuple[int, ...], count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random((count, *shape), dtype=np.float32), rng.integers(0, 10, count).astype(np.int32)


def row(name: str, times: dict[str, list[float]], above: str, below: str, target: str, unit: str) -> dict:
    best = {side: fastest(times, side) for side in (above, below)}
    return {
        "name": name,
        "ratio": round(best[above] / best[below], 3),
        "target": target,
        "fastest": {side: round(value, 3) for side, value in best.items()},
        "rounds": len(times[above]),
        "unit": unit,
    }


def table(rows: Sequence[Mapping]) -> list[str]:
    """The lines of a Markdown table of such rows."""
    lines = ["| what | ratio | target | fastest round |", "|---|--:|---|---|"]
    for row in rows:
        fastest_round = ", ".join(f"{side} {value:g}" for side, value in row["fastest"].items())
        lines.append(f"| {row['name']} | **{row['ratio']:.2f}** | {row['target']} | {fastest_round} {row['unit']} |")
    return lines


def machine() -> dict:
    with contextlib.suppress(OSError):
        models = [
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
    }
