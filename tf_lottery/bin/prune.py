"""Prune a saved Keras model while it is fine-tuned, and say what that bought.

usage: tf-lottery prune --keras=mine.keras --density=0.2 --data=arrays.npz [flags]
       tf-lottery prune --keras=mine.keras --pattern=2:4 --dataset=mnist --export=int8,float32 [flags]
       tf-lottery prune --keras=mine.keras --density=0.5 --plugin=mine.py --data=my_dataset [flags]

Writes mine.pruned.keras, a plain Keras file, mine.pruned.html and .json with the table of before and after, and with --export
TFLite files that were run and compared. Loss, optimizer and learning rate are those that the file was compiled with, or
flags. The density falls over the first 60 % of the steps. The same command goes on where an interrupted one had come to.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console

from tf_lottery.base import guard
from tf_lottery.base.quiet import tensorflow_loading
from tf_lottery.bin import flags as flags_lib
from tf_lottery.bin import main as main_lib
from tf_lottery.bin.display import print_json, print_table, progress_on
from tf_lottery.bin.flags import Flags
from tf_lottery.report import page
from tf_lottery.runs import own_data, prune_plan
from tf_lottery.runs.settings import setting


@dataclass(frozen=True)
class Source:
    """What to prune, and the data to fine-tune it on."""

    keras: str | None = setting(None, "The model: a .keras file. Code that it may hold is never run.")
    dataset: str | None = setting(
        None,
        "Data by name, as tfl.data.load gives them: float32, images in [0, 1]. For a model with preprocessing of its own: use --data.",
    )
    data_dir: str | None = setting(
        None, "Where TFDS data are prepared. Default: $TFDS_DATA_DIR, else TFDS's own folder."
    )
    data: str | None = setting(
        None,
        "Your own data: an .npz file with arrays x and y, and if there are any x_validation, y_validation, x_test and y_test; or the name "
        "of a function in a --plugin that returns (x, y), a tf.data.Dataset, or a dict of such with train, validation and test.",
    )


@dataclass(frozen=True)
class How:
    """What is pruned, and how far."""

    density: float | Mapping[str, float] | None = setting(
        None,
        "The share of the weights that stays, as 0.2; or one for each kind of kernel: output=1,Dense=0.2, by output, a layer class or a "
        "regular expression over paths.",
    )
    pattern: str | None = setting(
        None,
        "2:4, two zeros in every four inputs, in place of a density; or block:1x4, blocks (inputs x outputs) of a --density.",
    )
    scope: str = setting(
        "layer", "Where weights compete: layer or global; or whole channels do: channels or global_channels."
    )
    criterion: str = setting("large_final", "What decides which weights stay: large_final is magnitude.")
    prunable: str | None = setting(
        None, "What to prune, as a regular expression over variable paths. Default: kernels."
    )
    exclude: str | None = setting(None, "What to leave out of that, as a regular expression over variable paths.")
    one_shot: bool = setting(False, "Prune at once, before the fine-tuning, which --epochs=0 leaves out.")


@dataclass(frozen=True)
class Training:
    """How the model is fine-tuned."""

    epochs: int = setting(5, "How often to train on all of the data.")
    batch_size: int = setting(32, "Examples in a batch; a tf.data.Dataset of your own has its own.")
    loss: str | None = setting(None, "A loss of Keras. Default: the one that the file was compiled with.")
    optimizer: str | None = setting(None, "An optimizer of Keras. Default: the file's, else adam.")
    learning_rate: float | None = setting(None, "Default: the one that the file's optimizer has.")
    seed: int = setting(0, "Decides the order of the examples, and chance.")


@dataclass(frozen=True)
class Target:
    """What to write, and where."""

    output: str | None = setting(None, "The file to write. Default: mine.pruned.keras beside mine.keras.")
    export: str = setting("", "TFLite files to write and compare, several of " + ", ".join(prune_plan.VARIANTS) + ".")
    threads: int = setting(1, "How many threads LiteRT may use when latency is measured.")
    overwrite: bool = setting(False, "Replace files of that name, and begin an unfinished run with other flags anew.")
    json: bool = setting(False, "Print the table as JSON; progress goes to stderr.")
    quiet: bool = setting(False, "Show no progress, only the table.")


class Display:
    """A bar while an epoch runs, and a line for each that is done."""

    def __init__(self, target: Target, epochs: int):
        self.console = Console(file=sys.stderr if target.json else sys.stdout, quiet=target.quiet, highlight=False)
        self.progress, self.epochs = progress_on(self.console), epochs
        self.bar = self.progress.add_task("", total=None, told="", visible=False)

    def say(self, sentence: str) -> None:
        self.console.print(sentence, soft_wrap=True, markup=False)

    def begin(self, epoch: int, batches: int | None) -> None:
        self.progress.reset(self.bar, description=f"epoch {epoch} of {self.epochs}", total=batches, visible=True)

    def advance(self, batches: int) -> None:
        self.progress.update(self.bar, completed=batches, told=f"{batches:,} batches")

    def done(self, epoch: int, values: Mapping[str, float]) -> None:
        self.progress.update(self.bar, visible=False)
        self.say(
            f"epoch {epoch} of {self.epochs}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        )


def main(argv: list[str]) -> None:
    source, how, training, target = Flags(__doc__, Source, How, Training, Target).parse(argv)
    plugins = flags_lib.plugins(argv)
    origin = own_data.origin(source.dataset, source.data, source.data_dir, plugins)
    plan = prune_plan.checked(source, how, training, target, origin, bool(plugins))
    with guard.alone(plan.unfinished, str(plan.unfinished)), plan.begun():
        with tensorflow_loading():
            from tf_lottery.runs import pruning
        display = Display(target, training.epochs)
        with display.progress:
            outcome = pruning.work(plan, display)
        compared = outcome.compared
        on = f"; measured on {outcome.measured_on}" if outcome.measured_on else ""
        about = page.About(
            title=plan.output.name,
            what=f"{source.keras}, pruned {pruning.aim(plan)}{on}",
            words=compared.verdict,
            remarks=compared.notes,
            settings={name: page.plain(value) for name, value in plan.spec.items()},
        )
        more = {"Kernels": outcome.kernels, **({"Epochs": outcome.curve} if outcome.epochs else {})}
        page.write(plan.beside(".html"), about, [], [], compared.table, more)
        outcome.write(plan)
    if target.json:
        print_json(compared.as_dict())
        return
    print_table(compared.table.__rich__())
    of = [f"The metrics are of {outcome.measured_on}."] if outcome.measured_on else []
    for line in [*of, *compared.notes, f"Written: {', '.join(str(path) for path in plan.files if path.exists())}."]:
        print(line)


if __name__ == "__main__":
    sys.exit(main_lib.guarded("prune", sys.argv[1:]))
