"""Ship a model: as a plain .keras file, a SavedModel, and TFLite files that were run and compared before they count.

usage: tf-lottery export --name=RUN --level=15 [flags]
       tf-lottery export --ticket=FILE [--model=net.keras] [flags]
       tf-lottery export --keras=FILE --dataset=mnist [flags]

Writes model.keras, the folder saved_model and a .tflite file for each variant to the folder --output, with report.json: sizes,
zeros, latency on this machine, accuracy and largest difference side by side, and for each layer whether XNNPACK has a sparse
kernel for it. A .tflite file is written if its outputs are those of the Keras model up to 0.0001 (float32), 0.05 (float16) or 0.5
(int8) of the largest output; how right it is says its accuracy, beside that of the Keras model. Nothing is left if the export fails.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tf_lottery.base.errors import DataError, LotteryError, TicketError
from tf_lottery.base.files import free
from tf_lottery.base.quiet import silenced, tensorflow_loading
from tf_lottery.bin import main as main_lib
from tf_lottery.bin.display import tell
from tf_lottery.bin.flags import Flags
from tf_lottery.runs.results import Run
from tf_lottery.runs.settings import setting
from tf_lottery.runs.sound import Sound
from tf_lottery.tickets.ticket import Ticket

if TYPE_CHECKING:
    import keras

FORMATS = ("keras", "saved_model", "tflite")
VARIANTS = ("float32", "sparse_float32", "float16", "sparse_float16", "dynamic_int8", "int8")
REFUSED = {"sparse_int8", "sparse_dynamic_int8"}  # known: export tells why they do not work
REPRESENTATIVE = 200  # inputs that set the ranges of int8


@dataclass(frozen=True)
class Source:
    """What to export: a level of a run, a ticket, or a Keras model; and the data to compare on."""

    name: str | None = setting(None, "A run: its folder in results_dir.")
    results_dir: str = setting("results", "The folder of all runs.")
    branch: str | None = setting(None, "With --name: a branch of the run.")
    replicate: int = setting(0, "With --name: the replicate.")
    level: int | None = setting(None, "With --name: the level.")
    ticket: str | None = setting(None, "A ticket file.")
    keras: str | None = setting(None, "A .keras file.")
    model: str | None = setting(
        None,
        "The network of a ticket that does not name its own: a name, or a .keras file, of which only the layers matter.",
    )
    weights: str | None = setting(
        None, "Of a ticket: final or initial. Default: final, or initial if it was never trained."
    )
    dataset: str | None = setting(
        None,
        "The data to compare on, as tfl.data.load gives them: float32, images in [0, 1]. For a model with preprocessing of its "
        "own: use --data. Default: those that the ticket was found with.",
    )
    data_dir: str | None = setting(
        None, "Where TFDS data are prepared. Default: $TFDS_DATA_DIR, else TFDS's own folder."
    )
    data: str | None = setting(
        None,
        "In the place of a data set: an .npz file with inputs x, labels y if there are any, and typical inputs representative for "
        f"int8 (default: the first {REPRESENTATIVE} of x).",
    )


@dataclass(frozen=True)
class Target:
    """What to write, and where."""

    format: str = setting("all", f"{', '.join(FORMATS)}, several of them as in keras,tflite, or all.")
    variant: str = setting("all", f"Of tflite: {', '.join(VARIANTS)}, several of them, or all.")
    compact: bool = setting(False, "First remove units and channels that no connection is left to.")
    calibrated: bool = setting(
        False,
        "With --compact: take inputs that are the same in all training examples, as the border of MNIST, for constants; "
        "what is exported is then right only for inputs that are the same there.",
    )
    output: str | None = setting(None, "The folder to make. Default: exported/NAME.")
    overwrite: bool = setting(False, "Replace a folder that an earlier export made.")
    examples: int | None = setting(None, "How many test examples to compare on. Default: all.")
    threads: int = setting(1, "How many threads LiteRT may use when latency is measured.")
    json: bool = setting(False, "Print the report as JSON.")


class Data(NamedTuple):
    """What files are compared on: inputs, labels or None, and typical inputs."""

    x: np.ndarray
    y: np.ndarray | None
    typical: np.ndarray


def main(argv: list[str]) -> None:
    source, target = Flags(__doc__, Source, Target).parse(argv)
    _check(target)
    ticket, name = _ticket_of(source)
    folder = free(target.output or Path("exported") / name, target.overwrite, marker="report.json")

    with tensorflow_loading():
        from tf_lottery import export
    from rich.console import Console

    console = Console(file=sys.stdout, quiet=target.json or not sys.stdout.isatty())
    data, origin = _load(source, ticket)
    model = load_keras(source.keras) if ticket is None else _apply(ticket, origin, source)
    bought = None
    if target.compact:
        from tf_lottery.compaction import compact

        model, bought = compact(model, calibration=data.typical if target.calibrated else None)
    formats = _names(target.format, FORMATS)
    typical = data.typical[np.linspace(0, len(data.typical) - 1, REPRESENTATIVE).astype(int)]
    with console.status("Converting, running and comparing ..."), silenced():
        report = export.side_by_side(
            model,
            folder,
            data.x[: target.examples],
            None if data.y is None else data.y[: target.examples],
            formats=formats,
            variants=None if target.variant == "all" else _names(target.variant, ()),
            representative=typical,
            threads=target.threads,
            overwrite=target.overwrite,
        )
        if bought is not None and "tflite" in formats and not target.json:
            bought = bought.timed()
    if target.json:
        for remark in report.remarks:
            tell(remark)
        print(json.dumps(report.to_json(), indent=2))
        return
    if bought is not None:
        print(f"{bought}\n")
    print(report)
    print(f"Written to {folder}.")


def _ticket_of(source: Source) -> tuple[Ticket | None, str]:
    """The ticket to export, or None for a Keras file; and a name for it."""
    given = [flag for flag in ("name", "ticket", "keras") if getattr(source, flag)]
    if len(given) != 1:
        raise LotteryError(
            f"Expected one of --name, --ticket and --keras, but received {' and '.join(given) or 'none'}."
        )
    if source.keras:
        return None, Path(source.keras).stem
    if source.ticket:
        return Ticket.load(source.ticket), Path(source.ticket).stem
    run = Run.at(source.results_dir, source.name)
    settings = run.settings()
    run = run.branch(source.branch) if source.branch else run
    sound = Sound.of(run, source.replicate, branches=False)
    if (source.replicate, source.level) not in sound.finished():
        levels = [level for _, level in sound.finished()]
        raise LotteryError(
            f"Expected --replicate and --level of a finished level ({levels or 'none'} of replicate {source.replicate} in "
            f"{run.folder}), but received level {source.level}{sound.why_not(source.replicate, source.level or 0)}"
        )
    ticket = run.ticket(source.replicate, source.level)
    known = {"model": settings["model"], "dataset": settings["dataset"]}
    name = "_".join([source.name, *filter(None, [source.branch]), f"level_{source.level:02d}"])
    return dataclasses.replace(ticket, found={**known, **ticket.found}), name


def _check(target: Target) -> None:
    _names(target.format, FORMATS)
    if not set(target.variant.split(",")) & REFUSED:
        _names(target.variant, VARIANTS)
    for flag in ("examples", "threads"):
        if (value := getattr(target, flag)) is not None and value < 1:
            raise LotteryError(f"Expected --{flag} of at least 1, but received {value}.")
    if target.calibrated and not target.compact:
        raise LotteryError("Expected --calibrated together with --compact, but received it alone.")


def _names(text: str, known: tuple[str, ...]) -> list[str]:
    """The names of a flag; with all, the known ones."""
    names = list(known) if text == "all" else [name.strip() for name in text.split(",")]
    if known and (unknown := [name for name in names if name not in known]):
        raise LotteryError(f"Expected {', '.join(known)} or all, but received {unknown[0]!r}.")
    return names


def _load(source: Source, ticket: Ticket | None) -> tuple[Data, dict[str, Any]]:
    """The data, and what they say of the model that a ticket belongs to."""
    if source.data:
        return _load_npz(source.data), {}
    name = source.dataset or (ticket and ticket.found.get("dataset"))
    if not isinstance(name, str):
        raise LotteryError(
            "Expected --dataset or --data, to compare on what the model was made for, but received neither."
        )
    from tf_lottery.problems import data

    dataset = data.load(name, source.data_dir)
    origin = {"input_shape": list(dataset.input_shape), "classes": dataset.classes}
    return Data(*dataset.test, typical=dataset.train[0]), origin


def _load_npz(path: str) -> Data:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("x", "y", "representative") if name in file}
            if "x" not in arrays:
                raise DataError(
                    f"Expected an .npz file with an array x, but {path!r} has {', '.join(file.files) or 'none'}."
                )
        return Data(arrays["x"], arrays.get("y"), arrays.get("representative", arrays["x"][:REPRESENTATIVE]))
    except (FileNotFoundError, DataError):
        raise
    except Exception as error:  # NumPy raises half a dozen kinds
        raise DataError(f"Expected an .npz file with an array x, but {path!r} is not one ({error}).") from None


def is_keras_file(model: str | None) -> bool:
    """Whether `--model` is a file, and not a name in `models`."""
    return model is not None and model.endswith(".keras")


def load_keras(path: str) -> keras.Model:
    from tf_lottery.export.formats import load_keras

    return load_keras(path, compiled=False)


def _apply(ticket: Ticket, origin: dict[str, Any], source: Source) -> keras.Model:
    from tf_lottery.runs import problem

    ticket = dataclasses.replace(ticket, found={**origin, **ticket.found})
    if is_keras_file(source.model):
        model = load_keras(source.model)
    else:
        if not isinstance(source.model or ticket.found.get("model"), str):
            raise TicketError(
                "Expected a ticket that names its model, or --model, a name or a .keras file, but received neither."
            )
        if "input_shape" not in ticket.found:
            raise TicketError(
                "Expected a ticket that tells the shape of its inputs, or --model=net.keras or --dataset, but received neither."
            )
        model = problem.model_of(ticket, source.model)
    return ticket.apply(model, source.weights or ("initial" if ticket.final is None else "final"))


if __name__ == "__main__":
    sys.exit(main_lib.guarded("export", sys.argv[1:]))
