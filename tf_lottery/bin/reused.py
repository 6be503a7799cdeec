"""What is not trained again: foreseen for a dry run by the settings, and told at the end by what was taken over."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_lottery.base.errors import LotteryError
from tf_lottery.runs.results import Run
from tf_lottery.runs.settings import Problem, Settings
from tf_lottery.runs.todo import Training

ANY = ("replicates", "levels", "seed", "precision")  # decide no training, or are told apart otherwise, or by the device
OF_ALL = [field.name for field in dataclasses.fields(Settings) if field.name not in ANY]
OF_DENSE = [field.name for field in dataclasses.fields(Problem) if field.name not in ANY]


def in_words(taken: Mapping[str, int]) -> str | None:
    """A sentence about levels that were taken over, by the run that has trained them; None if there were none."""
    if not taken:
        return None
    count, runs = sum(taken.values()), sorted(taken)
    named = ", ".join(runs[:3]) + (f" and {len(runs) - 3} more runs" if len(runs) > 3 else "")
    levels = "1 level was" if count == 1 else f"{count} levels were"
    return f"{levels} not trained again, but taken from {named} (--noreuse trains all anew under a new name)."


class Foreseen:
    """The trainings that need not be done, because another run has done them, or does before.

    It goes by settings, as a plan must that loads no data: the dense networks of runs that differ only in how they prune are one, and of
    runs with all settings the same each level.

    Args:
      results_dir: The folder of all runs.
      pattern: Of the names of the runs that trainings are shared with; None if with none.
    """

    def __init__(self, results_dir: str, pattern: str | None):
        self.shares, self.known = pattern is not None, Counter[str]()
        for folder in sorted(Path(results_dir).glob(pattern)) if pattern else ():
            run = Run(folder)
            with contextlib.suppress(LotteryError, OSError, KeyError, TypeError, ValueError):  # edited by hand
                written = run.spec()
                if written and written["versions"].get("tf_lottery") == importlib.metadata.version("tf_lottery"):
                    settings, finished = written["settings"], set(run.finished())
                    for row in run.summary():
                        at = int(row["replicate"]), int(row["level"])
                        if at in finished:
                            self.known[_key(settings, *at, int(row.get("steps") or settings["steps"]))] += 1

    def left(self, settings: Problem, todo: Sequence[Training]) -> list[Training]:
        """What of the trainings of a run is really to be done; later runs find it then."""
        if not self.shares or not isinstance(settings, Settings):
            return list(todo)
        told, left = dataclasses.asdict(settings), []
        for each in todo:
            key = _key(told, each.replicate, each.level, each.steps)
            if each.search or key not in self.known:
                left.append(each)
            if not each.search:
                self.known[key] += 1
        return left


def _key(settings: Mapping[str, Any], replicate: int, level: int, steps: int) -> str:
    parts = {name: settings.get(name) for name in (OF_ALL if level else OF_DENSE)}
    parts |= {"held": settings.get("pruned") != "zero", "rewind_to": settings.get("rewind_to")}
    return json.dumps([parts, settings["seed"] + replicate, level, steps], sort_keys=True)
