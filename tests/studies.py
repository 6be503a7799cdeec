"""Folders of runs for tests of studies: tables without tickets, written in a moment."""

import dataclasses

from tf_lottery.runs.results import Run
from tf_lottery.runs.settings import Settings

COLUMNS = "replicate,level,density,early_stop_step,early_stop_test_accuracy,final_test_accuracy,seconds"
NEWER = f"{COLUMNS},trainings,early_stop_validation_accuracy,final_validation_accuracy"


def write_tables(folder, gain=0.0, levels=3, replicates=3, newer=True, **settings):
    """A run as a copy of its tables has it: accuracy 0.9 when dense, `gain` more at each level, and a little noise."""
    run = Run(folder)
    begun = Settings(levels=levels, replicates=replicates, **settings).resolved()
    run.open(dataclasses.asdict(begun), {"tf_lottery": "0.1.0"})
    lines = [NEWER if newer else COLUMNS]
    for replicate in range(replicates):
        for level in range(levels + 1):
            accuracy = (
                0.9
                + level * gain
                + 0.01 * ((replicate + begun.seed) % 3)
                + 0.001 * ((replicate + level + len(begun.criterion)) % 2)
            )
            line = f"{replicate},{level},{0.8**level:.6g},{500 - 10 * level},{accuracy:.6g},{accuracy - 0.01:.6g},2"
            lines.append(line + f",{level + 1},{accuracy + 0.002:.6g},{accuracy - 0.008:.6g}" * newer)
    (folder / "summary.csv").write_text("\n".join(lines) + "\n")
    return run


def write_sweep(results, **gains):
    """The runs of a sweep over criteria in their folders, with the base name cmp."""
    for criterion, gain in gains.items():
        write_tables(results / f"cmp+criterion={criterion}", gain, criterion=criterion)
    return results / "cmp"
