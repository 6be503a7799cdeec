"""What pruning buys, and what it does not: size, latency and accuracy of all TFLite variants of dense, pruned and compacted networks.

- LeNet on MNIST: the trained tickets of a run of `tf-lottery find`, level by level, against its dense network. Compacted also with the
  inputs that are the same in all training images taken for constants.
- MobileNetV2 (224 x 224, alpha 1) with random weights and the batch statistics of random images: no accuracy, but every size and
  latency. Pruned in one shot, by single weights to 20 % and by whole channels to half of them.

Latencies of one part are measured side by side, all files of all its networks in turn.

    python benchmarks/export.py --name=lenet_300_100 --levels=0,3,6,9,12,15,18,21    # about 1 minute a level
    python benchmarks/export.py --mobilenet                                          # about 10 minutes

Writes docs/results/export/PART.json for each part, and tables.md from all of them; a part that is there is not measured again.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import tf_lottery as tfl
from tf_lottery.base.errors import LotteryError
from tf_lottery.base.files import whole_file
from tf_lottery.bin.flags import Flags
from tf_lottery.export.litert import Loaded, latencies
from tf_lottery.runs import problem
from tf_lottery.runs.results import Run
from tf_lottery.runs.settings import setting

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "export"
REPRESENTATIVE = 200


@dataclass(frozen=True)
class Parts:
    """What to measure."""

    name: str | None = setting(None, "A run of LeNet on MNIST: its folder in results_dir.")
    results_dir: str = setting("results", "The folder of all runs.")
    data_dir: str | None = setting(
        None, "Where TFDS data are prepared. Default: $TFDS_DATA_DIR, else TFDS's own folder."
    )
    replicate: int = setting(0, "The replicate.")
    levels: tuple[int, ...] | None = setting(None, "The levels of the run, as in 0,3-5.")
    mobilenet: bool = setting(False, "Measure MobileNetV2.")


@dataclass(frozen=True)
class Network:
    """One network of a part, with the multiply-adds of an inference."""

    model: keras.Model
    multiply_adds: int


def main(argv: list[str]) -> None:
    (parts,) = Flags(__doc__, Parts).parse(argv)
    if bool(parts.name) != bool(parts.levels) or not (parts.name or parts.mobilenet):
        raise LotteryError("Expected --name and --levels together, or --mobilenet.")
    if parts.name:
        run, dataset = Run.at(parts.results_dir, parts.name), tfl.data.load("mnist", parts.data_dir)
        for level in parts.levels:
            title = f"{parts.name}_level_{level:02d}"
            if not (path := RESULTS / f"{title}.json").exists():
                networks, about = tickets(run, parts.replicate, level, dataset)
                write(path, about, networks, *dataset.test, dataset.train[0])
    if parts.mobilenet and not (path := RESULTS / "mobilenet_v2.json").exists():
        x = np.random.default_rng(0).normal(size=(64, 224, 224, 3)).astype(np.float32)
        write(path, MOBILENET, mobilenet(x), x[:8], None, x)
    parts = sorted(RESULTS.glob("*.json"))
    for name, text in (("tables.md", "\n".join(map(table, parts))), ("overview.md", overview(parts))):
        with whole_file(RESULTS / name) as unfinished:
            unfinished.write_text(text)
        print(RESULTS / name)


def trained(run: Run, replicate: int, level: int, dataset) -> keras.Model:
    """The plain LeNet with the trained weights of a ticket."""
    ticket = run.ticket(replicate, level)
    known = {"model": "lenet_300_100", "input_shape": list(dataset.input_shape), "classes": dataset.classes}
    ticket = dataclasses.replace(ticket, found={**known, **ticket.found})
    return tfl.strip(ticket.apply(problem.model_of(ticket), "final"))


def tickets(run: Run, replicate: int, level: int, dataset) -> tuple[dict[str, Network], str]:
    """The dense network of a run, a trained ticket, and the ticket compacted, without and with constant inputs."""
    ticket = trained(run, replicate, level, dataset)
    networks = {"dense": plain(trained(run, replicate, 0, dataset)), "pruned": plain(ticket)}
    networks["compacted"] = compacted(ticket)
    networks["compacted with constant inputs"] = compacted(ticket, dataset.train[0])
    density = run.ticket(replicate, level).density
    return (
        networks,
        f"LeNet-300-100 on MNIST, level {level} of the run {run.name}: {density:.1%} of the weights, trained.",
    )


MOBILENET = (
    "MobileNetV2 (224 x 224, alpha 1) with random weights; pruned in one shot, by weights to 20 % of each kernel and by channels to half "
    "of each layer's."
)


def mobilenet(x: np.ndarray) -> dict[str, Network]:
    """The network, pruned by weights and by channels, and both compacted."""

    def fresh() -> keras.Model:
        keras.utils.set_random_seed(0)
        model = keras.applications.MobileNetV2(weights=None, classifier_activation=None)
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = 0.0
        model(x[:16], training=True)  # statistics of these images: with those of a new network all outputs are 0
        return model

    weights, channels = tfl.prune(fresh(), 0.2), tfl.prune(fresh(), 0.5, scope="channels")
    networks = {"dense": plain(fresh()), "pruned by weights": plain(tfl.strip(weights))}
    networks["pruned by weights, compacted"] = compacted(weights)
    networks["pruned by channels"] = plain(tfl.strip(channels))
    networks["pruned by channels, compacted"] = compacted(channels)
    return networks


def plain(model: keras.Model) -> Network:
    return Network(model, int(tfl.compact(model).report.multiply_adds.before))


def compacted(model: keras.Model, calibration=None) -> Network:
    small, report = tfl.compact(model, calibration=calibration)
    return Network(small, int(report.multiply_adds.after))


def write(path: Path, about: str, networks: Mapping[str, Network], x, y, typical) -> None:
    """Exports and measures the networks of a part, and writes its file."""
    print(f"{path.stem}: {', '.join(networks)}", flush=True)
    typical = typical[np.linspace(0, len(typical) - 1, min(REPRESENTATIVE, len(typical))).astype(int)]
    with tempfile.TemporaryDirectory() as folder:
        reports = {}
        for i, (name, network) in enumerate(networks.items()):
            where = Path(folder) / str(i)
            reports[name] = tfl.export.side_by_side(
                network.model, where, x, y, formats=["tflite"], representative=typical
            )
        loaded = {
            f"{name}/{file.name}": Loaded(file.path.read_bytes())
            for name, report in reports.items()
            for file in report.files
        }
        times = latencies(loaded)
    found: dict[str, Any] = {"about": about, "networks": {}}
    for name, report in reports.items():
        files = tuple(dataclasses.replace(f, latency_us=times[f"{name}/{f.name}"]) for f in report.files)
        row = {"multiply_adds": networks[name].multiply_adds, **dataclasses.replace(report, files=files).to_json()}
        found["networks"][name] = row
    with whole_file(path) as unfinished:
        unfinished.write_text(json.dumps(found, indent=1) + "\n")


def table(path: Path) -> str:
    """The Markdown of a part."""
    found = json.loads(path.read_text())
    lines = [f"### {found['about']}", ""]
    lines += [
        "| network | parameters | multiply-adds | file | bytes | gzip | zeros | latency, us | right | difference |"
    ]
    lines += ["|---|---:|---:|---|---:|---:|---:|---:|---:|---:|"]
    for name, network in found["networks"].items():
        for i, file in enumerate(network["files"]):
            start = f"{name} | {network['parameters']:,} | {network['multiply_adds']:,}" if i == 0 else " | | "
            right = "-" if file["accuracy"] is None else f"{100 * file['accuracy']:.2f} %"
            lines.append(
                f"| {start} | {file['name']} | {file['bytes']:,} | {file['gzip_bytes']:,} | {file['zeros']:.1%} | "
                f"{file['latency_us']:,.1f} | {right} | {file['difference']:.2g} |"
            )
    measured = next(iter(found["networks"].values()))
    where = measured["measured_on"]
    lines += [
        "",
        f"Compared on {measured['examples']:,} inputs, outputs of the first network up to {measured['largest_output']:.3g}; latency: median of "
        f"the processor time of one inference, LiteRT {where['litert']} with XNNPACK, {where['threads']} thread, {where['machine']}. {where['note']}",
        "",
    ]
    absent: dict[tuple[str, str], list[str]] = {}
    for name, network in found["networks"].items():
        for variant, why in network["not_written"].items():
            absent.setdefault((variant, why), []).append(name)
    lines += [f"- {variant} was not written for {'; '.join(names)}: {why}." for (variant, why), names in absent.items()]
    return "\n".join([*lines, ""])


def overview(parts: Sequence[Path]) -> str:
    """What is lasting of all parts: against the dense network of the same part, factors by which each gets smaller or faster."""
    lines = [
        "| network | | right | multiply-adds | float32 bytes | its gzip | smallest sparse file | int8 bytes | its gzip | float32 latency | int8 latency |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for path in parts:
        networks = json.loads(path.read_text())["networks"]
        dense = networks["dense"]
        whole = {file["name"]: file for file in dense["files"]}
        for name, network in networks.items():
            if name == "dense" or (network["multiply_adds"], network["zeros"]) == (
                dense["multiply_adds"],
                dense["zeros"],
            ):
                continue
            files = {file["name"]: file for file in network["files"]}
            sparse = min((file["bytes"] for name, file in files.items() if name.startswith("sparse")), default=None)
            right = files["float32"]["accuracy"]
            cells = [
                path.stem,
                name,
                "-" if right is None else f"{100 * right:.2f} %",
                _factor(dense["multiply_adds"], network["multiply_adds"]),
                _factor(whole["float32"]["bytes"], files["float32"]["bytes"]),
                _factor(whole["float32"]["bytes"], files["float32"]["gzip_bytes"]),
                _factor(whole["float32"]["bytes"], sparse),
                _factor(whole["float32"]["bytes"], files["int8"]["bytes"]),
                _factor(whole["float32"]["bytes"], files["int8"]["gzip_bytes"]),
                _factor(whole["float32"]["latency_us"], files["float32"]["latency_us"]),
                _factor(whole["float32"]["latency_us"], files["int8"]["latency_us"]),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _factor(before: float, after: float | None) -> str:
    return "-" if after is None else f"{before / after:.2f}"


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except LotteryError as error:
        sys.exit(str(error))
