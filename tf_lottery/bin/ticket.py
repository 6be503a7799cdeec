"""Look into ticket files, put them on models, compare and shrink them.

usage: tf-lottery ticket info FILE...
       tf-lottery ticket apply FILE --output=net.keras [--weights=initial|final] [--evaluate] [flags]
       tf-lottery ticket diff FILE FILE
       tf-lottery ticket pack FILE OUT [--final=float16] [--overwrite]

info: what is in a ticket, and its size against the dense float32 model. apply: makes a plain Keras model of it. diff: what two
tickets' masks have in common, against chance. pack: writes a smaller copy.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_lottery.base.errors import LotteryError
from tf_lottery.base.files import free, whole_file
from tf_lottery.base.hints import did_you_mean
from tf_lottery.base.quiet import tensorflow_loading
from tf_lottery.bin import main as main_lib
from tf_lottery.bin.export import is_keras_file, load_keras
from tf_lottery.bin.flags import Flags
from tf_lottery.rules import masks
from tf_lottery.runs.settings import setting
from tf_lottery.tickets.account import Account, describe
from tf_lottery.tickets.file import FINALS, MAX_WEIGHTS
from tf_lottery.tickets.ticket import Ticket

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

NAMES = {str(final).lower(): final for final in FINALS}


@dataclass(frozen=True)
class Options:
    """How to read, and what to write."""

    output: str | None = setting(None, "apply: the .keras file to write.")
    model: str | None = setting(
        None, "apply: the network to put the ticket on, a name or a .keras file. Default: the one the ticket names."
    )
    weights: str | None = setting(
        None, "apply: final or initial. Default: final, or initial if the ticket has no trained weights."
    )
    evaluate: bool = setting(False, "apply: measure the accuracy on the test set.")
    dataset: str | None = setting(None, "With --evaluate: the data. Default: those that the ticket was found with.")
    data_dir: str | None = setting(
        None, "Where TFDS data are prepared. Default: $TFDS_DATA_DIR, else TFDS's own folder."
    )
    final: str = setting("exact", f"pack: how to write trained weights: {', '.join(NAMES)}.")
    overwrite: bool = setting(False, "Replace an output that exists.")
    max_weights: int = setting(MAX_WEIGHTS, "Refuse tickets that tell of more weights than this.")


def main(argv: list[str]) -> None:
    flags = Flags(__doc__, Options, words=True)
    (options,) = flags.parse(argv)
    action, *files = flags.words or [None]
    if action not in ACTIONS:
        hint = did_you_mean(action, ACTIONS, MEANT) if action else ""
        raise LotteryError(
            f"Expected an action ({', '.join(ACTIONS)}) and files, but received {action or 'none'}.{hint}"
        )
    do, count = ACTIONS[action]
    if len(files) != count if count else not files:
        raise LotteryError(f"Expected {action} with {count or 'one or more'} files, but received {len(files)}.")
    do(options, *files)


def info(options: Options, *files: str) -> None:
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False)
    for i, file in enumerate(files):
        account = describe(file, options.max_weights)
        console.print("\n" * bool(i) + _summary(file, account), soft_wrap=True, markup=False)
        console.print(_parts(account))


def apply(options: Options, file: str) -> None:
    if not options.output and not options.evaluate:
        raise LotteryError("Expected --output, a .keras file to write, or --evaluate, but received neither.")
    if options.output and not options.output.endswith(".keras"):
        raise LotteryError(f"Expected --output to end in .keras, but received {options.output!r}.")
    output = Path(free(options.output, options.overwrite)) if options.output else None
    ticket = Ticket.load(file, max_weights=options.max_weights)
    which = options.weights or ("initial" if ticket.final is None else "final")

    with tensorflow_loading():
        from tf_lottery.masking import wrapping
        from tf_lottery.problems import data
        from tf_lottery.runs import problem
    tests = None
    if options.evaluate:
        name = options.dataset or ticket.found.get("dataset")
        if not isinstance(name, str):
            raise LotteryError(
                "Expected --dataset, the data to evaluate on, but received none, and the ticket names none."
            )
        dataset = data.load(name, options.data_dir)
        tests, origin = dataset.test, {"input_shape": list(dataset.input_shape), "classes": dataset.classes}
        ticket = dataclasses.replace(ticket, found={**origin, **ticket.found})
    model = load_keras(options.model) if is_keras_file(options.model) else problem.model_of(ticket, options.model)
    plain = wrapping.strip(ticket.apply(model, which))
    if output:
        with whole_file(output) as unfinished:
            plain.save(unfinished)
        print(f"Written to {output}: {plain.name} with the {which} weights of {file}.")
    if tests:
        accuracy = np.mean(np.argmax(plain.predict(tests[0], batch_size=1_000, verbose=0), axis=-1) == tests[1])
        print(f"Test accuracy: {100 * accuracy:.2f} % of {len(tests[1]):,} examples.")


def diff(options: Options, one: str, other: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    tickets = [Ticket.load(file, max_weights=options.max_weights) for file in (one, other)]
    found = masks.overlap(*(ticket.masks for ticket in tickets))
    shown = Table(title=Text(f"A: {one}\nB: {other}"), title_justify="left")
    shown.add_column("kernel", overflow="fold")
    for heading in ("A %", "B %", "of A in B %", "by chance %", "Jaccard"):
        shown.add_column(heading, justify="right", overflow="fold")
    total = [sum(getattr(each, name) for each in found.values()) for name in (*masks.Overlap._fields, "by_chance")]
    rows = [*((each, each.by_chance) for each in found.values()), (masks.Overlap(*total[:4]), total[4])]
    names: list[Any] = [*_names(list(found)), "all"]
    numbers: tuple[float, ...]
    for name, (each, by_chance) in zip(names, rows):
        if name == "all":
            shown.add_section()
        numbers = (each.one / each.size, each.other / each.size) if each.size else (0, 0)
        numbers += (each.both / each.one, by_chance / each.one) if each.one else (0, 0)
        shown.add_row(name, *(f"{100 * number:.2f}" for number in numbers), f"{each.jaccard:.4f}")
    Console(file=sys.stdout, highlight=False).print(shown)


def pack(options: Options, file: str, out: str) -> None:
    if options.final not in NAMES:
        raise LotteryError(f"Expected --final to be one of {', '.join(NAMES)}, but received {options.final!r}.")
    before = describe(file, options.max_weights)
    Ticket(*before.contents).save(free(out, options.overwrite), final=NAMES[options.final])
    size = Path(out).stat().st_size
    print(
        f"Written to {out}: {size:,} bytes instead of {before.bytes:,}, {before.dense_bytes / size:.1f} times smaller than "
        "the dense model."
    )


ACTIONS: dict[str, tuple[Callable, int]] = {
    "info": (info, 0),
    "apply": (apply, 1),
    "diff": (diff, 2),
    "pack": (pack, 2),
}


MEANT = {"show": "info", "print": "info", "cat": "info", "inspect": "info", "compare": "diff", "compress": "pack"}


def _summary(file: str, account: Account) -> str:
    ticket, masked = Ticket(*account.contents), [part for part in account.parts if part.density is not None]
    coded, entropy = (sum(getattr(part, name) for part in masked) for name in ("mask_bytes", "entropy_bytes"))
    weights = sum(part.size for part in masked)
    lines = [
        f"{file}: level {ticket.level}, {100 * ticket.density:.4g} % of {weights:,} weights",
        f"{account.bytes:,} bytes, {account.factor:.1f} times smaller than the dense float32 model ({account.dense_bytes:,})",
        f"masks: {coded:,} bytes, {8 * coded / max(weights, 1):.4f} bits a weight; independent bits: {entropy:,.0f} bytes, "
        f"{8 * entropy / max(weights, 1):.4f}",
    ]
    told = (("found with", ticket.found), ("metrics", ticket.metrics))
    return "\n".join([*lines, *(f"{name}: {_words(values)}" for name, values in told if values)])


def _words(values: Mapping[str, Any]) -> str:
    pairs = (f"{key} {value:.6g}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items())
    return _printable(", ".join(pairs))[:2_000]


def _printable(text: str) -> str:
    """The text without the characters that would steer a terminal: a ticket may come from anyone."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _names(paths: Sequence[str]) -> list[Text]:
    """Paths for a column, without the name of the model that all of them begin with."""
    from rich.text import Text

    first, *others = {path.partition("/")[0] + "/" for path in paths} or {""}
    return [Text(_printable(path if others else path.removeprefix(first))) for path in paths]


def _parts(account: Account) -> Table:
    from rich.table import Table

    shown = Table()
    shown.add_column("variable", overflow="fold")
    for heading in ("shape", "kept %", "mask B", "entropy B", "start", "trained"):
        shown.add_column(heading, justify="right", overflow="fold")
    for name, part in zip(_names([part.path for part in account.parts]), account.parts):
        masked = part.density is not None
        shown.add_row(
            name,
            "x".join(map(str, part.shape)) or "one",
            f"{100 * part.density:.2f}" if masked else "",
            f"{part.mask_bytes:,}" if masked else "",
            f"{part.entropy_bytes:,.0f}" if masked else "",
            part.initial,
            part.final or "-",
        )
    return shown


if __name__ == "__main__":
    sys.exit(main_lib.guarded("ticket", sys.argv[1:]))
