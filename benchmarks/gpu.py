"""What a GPU changes: the time of a step in each precision, tickets that repeat, replicates that share one GPU.

    python benchmarks/gpu.py                    # all of it, about 6 minutes on one H100
    python benchmarks/gpu.py precisions         # one of them

Writes docs/results/gpu/gpu.json and gpu.md. Needs a GPU and no data sets.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # this process and those that it begins share the GPU

import keras
import numpy as np
import tensorflow as tf
from side_by_side import alternate, find, images, machine, row, table

import tf_lottery as tfl
from tf_lottery.masking import precision
from tf_lottery.training import loop

tf.get_logger().setLevel("ERROR")
RESULTS = Path(__file__).parents[1] / "docs" / "results" / "gpu"


def step(model: str, batch: int, steps: int, kind: str, **options) -> Callable[[], float]:
    """Milliseconds a step of `Trainer` for a wrapped model in that precision."""
    shape = (28, 28, 1) if tfl.models.preset(model).dataset == "mnist" else (32, 32, 3)
    with precision.layers_in(kind):
        wrapped = tfl.wrap(tfl.models.get(model)(seed=0))
    data = images(shape, 10_000)
    trainer = tfl.Trainer(*data, steps=steps, batch_size=batch, optimizer=keras.optimizers.Adam(1e-4), **options)
    return lambda: 1e3 * trainer(wrapped)["seconds"] / steps


def precisions() -> list[dict]:
    rows = []
    for model, batch, steps in (("lenet_300_100", 60, 2_000), ("conv6", 60, 500), ("resnet18", 128, 200)):
        sides = {kind: step(model, batch, steps, kind) for kind in precision.PRECISIONS}
        times = alternate(4, **sides)
        for kind in precision.PRECISIONS[1:]:
            rows.append(row(f"{model}, batch {batch}: {kind} / float32", times, kind, "float32", "< 1", "ms a step"))
    return rows


def compilation() -> list[dict]:
    rows = []
    for model, batch, steps in (("lenet_300_100", 60, 500), ("conv6", 60, 200), ("resnet18", 128, 100)):
        sides = {
            name: step(model, batch, steps, "mixed_bfloat16", jit_compile=on)
            for name, on in (("xla", True), ("plain", False))
        }
        rows.append(
            row(
                f"{model}, batch {batch}, mixed_bfloat16: with XLA / without",
                alternate(3, **sides),
                "xla",
                "plain",
                "< 1",
                "ms a step",
            )
        )
    return rows


def workers() -> list[dict]:
    """Four replicates that share one GPU: the command as it is typed, from start to end."""
    flags = [
        "--model=residual_mlp",
        "--replicates=4",
        "--levels=4",
        "--steps=5000",
        "--eval_every=500",
        "--test_every=500",
    ]
    times = alternate(1, warm=False, workers_4=find(*flags, "--workers=4"), one_process=find(*flags))
    name = "MNIST-1D, four replicates of five levels of 5,000 steps: --workers=4 on one GPU / one after the other"
    return [row(name, times, "workers_4", "one_process", "< 1", "s")]


def search(model: str, deterministic: bool) -> dict[str, np.ndarray]:
    """The arrays and the accuracy of the last ticket of a short search on images that can be told apart."""
    rng = np.random.default_rng(0)
    shape = (28, 28, 1) if model.startswith("lenet") else (32, 32, 3)
    centres, y = rng.normal(size=(10, *shape)), rng.integers(0, 10, 10_000).astype("int32")
    x = (centres[y] + 4 * rng.normal(size=(len(y), *shape))).astype("float32")
    with precision.layers_in(precision.fastest()):
        net = tfl.models.get(model)(seed=0)
    held = {"validation": (x[8_000:9_000], y[8_000:9_000]), "test": (x[9_000:], y[9_000:])}
    compiled = False if deterministic and not loop.has_matrices_only(net) else "auto"  # as --deterministic does
    optimizer = keras.optimizers.Adam(1e-3)
    trainer = tfl.Trainer(
        x[:8_000], y[:8_000], steps=400, eval_every=100, optimizer=optimizer, seed=1, jit_compile=compiled, **held
    )
    *_, last = tfl.find_ticket(net, trainer, levels=2, prune_fraction=0.5)
    masks = {f"mask/{path}": mask for path, mask in last.masks.items()}
    weights = {f"weights/{path}": value for path, value in (last.final or {}).items()}
    return {**masks, **weights, "accuracy": np.float64(last.metrics["final_test_accuracy"])}


def repeats() -> list[dict]:
    """Do two fresh processes find the same ticket, to the bit? As TensorFlow is, and with its deterministic operations."""
    rows = []
    for model in ("lenet_300_100", "conv2"):
        for switched in ("0", "1"):
            with tempfile.TemporaryDirectory() as folder:
                files = [str(Path(folder) / f"{i}.npz") for i in range(2)]
                surroundings = {**os.environ, "TF_DETERMINISTIC_OPS": switched}
                words = [sys.executable, __file__, "search", model, switched]
                both = [subprocess.Popen([*words, file], env=surroundings) for file in files]
                if sum(process.wait() for process in both):
                    sys.exit(f"Expected two searches with {model}, but one failed.")
                one, two = (dict(np.load(file)) for file in files)
            same = sum(np.array_equal(value, two[name], equal_nan=True) for name, value in one.items())
            rows.append({"model": model, "deterministic": switched == "1", "arrays": len(one), "same": same})
    return rows


BENCHMARKS = [repeats, precisions, compilation, workers]


def main(names: list[str]) -> None:
    known = {benchmark.__name__: benchmark for benchmark in BENCHMARKS}
    if names[:1] == ["search"]:
        np.savez(names[3], **search(names[1], names[2] == "1"))
        return
    if unknown := set(names) - set(known):
        sys.exit(f"Expected benchmarks among {', '.join(known)}, but received {', '.join(sorted(unknown))}.")
    if not (gpus := tf.config.list_physical_devices("GPU")):
        sys.exit("Expected a GPU, but TensorFlow sees none.")
    path = RESULTS / "gpu.json"
    for name in names or known:
        results = json.loads(path.read_text()) if path.is_file() else {"results": {}}
        results["results"][name] = known[name]()
        details = tf.config.experimental.get_device_details(gpus[0])
        results["machine"] = {**machine(), "gpu": details["device_name"]}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=2) + "\n")
        (RESULTS / "gpu.md").write_text("\n".join(page(results)) + "\n")


def page(results: dict) -> list[str]:
    found = results["results"]
    lines = table([r for name in ("precisions", "compilation", "workers") for r in found.get(name, ())])
    if "repeats" in found:
        lines += [
            "",
            "| the same search in two processes | deterministic operations | arrays that agree to the bit |",
            "|---|---|--:|",
        ]
        for r in found["repeats"]:
            lines.append(f"| {r['model']} | {'on' if r['deterministic'] else 'off'} | {r['same']} of {r['arrays']} |")
    return [*lines, "", "Machine: " + ", ".join(f"{k} {v}" for k, v in results["machine"].items()) + "."]


if __name__ == "__main__":
    main(sys.argv[1:])
