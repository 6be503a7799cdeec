"""Find winning tickets by iterative magnitude pruning with rewinding.

usage: tf-lottery find [flags]

Trains the dense network, prunes, rewinds the survivors and trains again, level by level and replicate by replicate, and
says which ticket won. Results go to RESULTS_DIR/NAME. The same command goes on where an interrupted run stopped.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from tf_lottery.bin import main as main_lib
from tf_lottery.bin.flags import Flags
from tf_lottery.results import Run, by_level, verdict
from tf_lottery.settings import Settings, setting


@dataclass(frozen=True)
class Place:
    """Where a command reads and writes; nothing in it changes a result."""

    name: str | None = setting(None, "The run's name: its folder in results_dir. Default: the name of the model.")
    results_dir: str = setting("results", "The folder of all runs.")
    data_dir: str | None = setting(
        None, "Where TFDS data are prepared. Default: $TFDS_DATA_DIR, else TFDS's own folder."
    )
    replicate: int | None = setting(None, "Work on this replicate only; several processes can share a run in this way.")
    quiet: bool = setting(False, "Show no progress, only the closing table.")


def main(argv: list[str]) -> None:
    place, settings = Flags(__doc__, Place, Settings).parse(argv)
    settings = settings.resolved()
    run = Run.at(place.results_dir, settings.model if place.name is None else place.name)

    with main_lib.native_stderr_off():
        from tf_lottery import experiment
    from tf_lottery.bin.display import LevelDisplay, table

    missing = run.missing(settings.replicates, range(settings.levels + 1), place.replicate)
    with LevelDisplay(len(missing), settings.steps, place.quiet) as display:
        worked = experiment.run_find(run, settings, display, data_dir=place.data_dir, replicate=place.replicate)
    statistics = by_level(run.summary())
    display.console.quiet = False
    display.console.print(table(f"{run.folder}", statistics))
    print(verdict(statistics))
    if not worked:
        print(f"This run was finished already; nothing was trained. Its results are in {run.folder}.")


if __name__ == "__main__":
    sys.exit(main_lib.guarded("find", sys.argv[1:]))
