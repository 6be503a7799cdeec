"""How stable the levels of a finished run are: each trained twice in different data order, and the line between the two.

A pruned level has been trained once by its search. So has the dense network that was rewound to its initialisation; one that
is rewound to a later step is trained again from there, as tickets are: in full, from the first step of the learning rate's schedule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tf_lottery.checks import analysis
from tf_lottery.checks.verdict import OTHER_ORDER
from tf_lottery.masking import wrapping
from tf_lottery.problems import data
from tf_lottery.runs import problem, verified
from tf_lottery.runs.levels import Display
from tf_lottery.runs.results import Run
from tf_lottery.runs.settings import Settings
from tf_lottery.runs.sound import Sound
from tf_lottery.runs.verification import run_control

SAME_ORDER = "same_order"  # the branch of dense networks that were trained again from the step that tickets rewind to


def run_instability(
    run: Run, levels: Sequence[int], display: Display, *, data_dir: str | None = None, replicate: int | None = None
) -> None:
    """Trains what is missing and adds the barriers of these levels, dense or pruned, to `instability.csv`.

    Args:
      run: A run of `run_find` that has these levels.
      levels: Which.
      display, data_dir, replicate: As for `run_find`.

    Raises:
      LotteryError: If the run lacks a level.

    Reference: Frankle et al. (2020, arXiv 1912.05671), section 2: instability analysis.
    """
    base: Any = Settings.of(run)
    Sound.of(run, replicate, branches=False).check_finished(base.replicates, levels, replicate)
    dataset = data.load(base.dataset, data_dir)
    again = [level for level in levels if level == 0 and base.rewind_to]
    for name, own in ((SAME_ORDER, again), (OTHER_ORDER, levels)):
        run_control(run, name, own, base, dataset, display, replicate)
    known = {(int(row["replicate"]), int(row["level"])) for row in verified.read_instability(run)}
    for r in range(base.replicates) if replicate is None else [replicate]:
        if left := [level for level in levels if (r, level) not in known]:
            model, trainer = problem.of_replicate(base, dataset, r)
            masked = wrapping.wrap(model, base.prunable, exclude=base.exclude, held=base.pruned != "zero")
            rows = []
            for level in left:
                one = (run.branch(SAME_ORDER) if level in again else run).ticket(r, level)
                other = run.branch(OTHER_ORDER).ticket(r, level)
                analysis.check_differ(one, other)
                line = analysis.barrier(one, other, trainer, model=masked)
                place = {"replicate": r, "level": level, "density": one.density, "rewind_to": base.rewind_to}
                rows.append({**place, "barrier": line.barrier, "error": (line.errors[0] + line.errors[-1]) / 2})
            verified.write_instability(run, rows)
