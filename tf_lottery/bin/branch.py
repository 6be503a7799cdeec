"""Retrain levels of a finished run: the controls of the papers.

usage: tf-lottery branch --name=RUN --survivors=reinit [flags]
       tf-lottery branch --name=RUN --random_mask [flags]

Takes the masks of a run's tickets (or random masks of the same layer-wise densities) and trains them from other weights
than the run did. Results go to RESULTS_DIR/NAME/branches/BRANCH, in the same form as the run's own.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from tf_lottery.bin import main as main_lib
from tf_lottery.bin.find import Place
from tf_lottery.bin.flags import Flags
from tf_lottery.errors import LotteryError
from tf_lottery.results import Run, by_level
from tf_lottery.settings import BranchSettings, Settings, setting


@dataclass(frozen=True)
class Which:
    """Which branch, of which levels."""

    branch: str | None = setting(None, "The branch's name. Default: what it changes, as in reinit or random_mask.")
    levels: tuple[int, ...] | None = setting(
        None, "The levels to retrain, as in 1,4-6. Default: all but the dense one."
    )


def main(argv: list[str]) -> None:
    place, which, settings = Flags(__doc__, Place, Which, BranchSettings).parse(argv)
    if not place.name:
        raise LotteryError("Expected --name, the run to branch from, but received none.")
    run = Run.at(place.results_dir, place.name)
    name = which.branch or default_name(settings)
    base = Settings.of(run)

    with main_lib.native_stderr_off():
        from tf_lottery import experiment
    from tf_lottery.bin.display import LevelDisplay, table

    levels = range(1, base.levels + 1) if which.levels is None else which.levels
    missing = run.branch(name).missing(base.replicates, levels, place.replicate)
    with LevelDisplay(len(missing), base.steps, place.quiet) as display:
        worked = experiment.run_branch(
            run, name, levels, settings, display, data_dir=place.data_dir, replicate=place.replicate
        )
    display.console.quiet = False
    display.console.print(table(f"{run.branch(name).folder}", by_level(run.branch(name).summary())))
    if not worked:
        print(f"This branch was finished already; nothing was trained. Its results are in {run.branch(name).folder}.")


def default_name(settings: BranchSettings) -> str:
    """The treatments that differ from those of a plain search, joined by `+`."""
    changed = [
        "random_mask" if settings.random_mask else "",
        settings.survivors if settings.survivors != "rewind" else "",
        settings.pruned if settings.pruned != "zero" else "",
    ]
    name = "+".join(filter(None, changed))
    if not name:
        raise LotteryError("Expected --survivors, --pruned or --random_mask to change something, but received none.")
    return name


if __name__ == "__main__":
    sys.exit(main_lib.guarded("branch", sys.argv[1:]))
