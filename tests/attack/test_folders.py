"""Folders of runs in which files were moved, copied, cut and edited, by rule: what is believed afterwards is what was there before."""

import collections
import itertools
import os
import shutil
import time

import numpy as np
import pytest

from tf_lottery.base.errors import LotteryError
from tf_lottery.runs.looking import look
from tf_lottery.runs.results import Run
from tf_lottery.runs.sound import Sound
from tf_lottery.tickets.file import verified

RUNS = ("run", "shot", "gradual", "seed", "rate")


def facts(run):
    """What each level is, to the bit: its ticket's fingerprint, its curve, and its row."""
    tickets = {at: run.level_folder(*at) for at in run.finished()}
    return {
        at: (verified(folder / "level.ticket").fingerprint, (folder / "curve.csv").read_bytes())
        for at, folder in tickets.items()
    }


def spoil(run, others, rng):
    """Does something to a file or a folder of a run."""
    folders = sorted(run.folder.glob("replicate_*/level_*")) or [run.folder]
    files = [*sorted(path for folder in folders for path in folder.glob("*.*")), *sorted(run.folder.glob("*.csv"))]
    strangers = sorted(path for other in others for path in other.folder.glob("replicate_*/level_*"))
    one, two = (folders[rng.integers(len(folders))] for _ in range(2))
    file, other_file = (files[rng.integers(len(files))] for _ in range(2))
    kind = rng.integers(9)
    if kind == 0 and one != two:  # swapped
        one.rename(one.with_name("x"))
        two.rename(one)
        one.with_name("x").rename(two)
    elif kind == 1 and one != two:  # copied over another
        shutil.rmtree(two)
        shutil.copytree(one, two)
    elif kind == 2:  # from another run
        shutil.rmtree(two)
        shutil.copytree(strangers[rng.integers(len(strangers))], two)
    elif kind == 3:  # under another name
        named = one.with_name(f"level_{rng.integers(30):0{rng.integers(1, 4)}d}")
        if named != one:
            shutil.copytree(one, named, dirs_exist_ok=True)
    elif kind == 4:
        file.unlink()
    elif kind == 5:
        file.write_bytes(file.read_bytes()[: rng.integers(file.stat().st_size + 1)])
    elif kind == 6 and (data := bytearray(file.read_bytes())):
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        file.write_bytes(data)
    elif kind == 7:
        file.write_bytes(other_file.read_bytes())
    elif kind == 8 and file.suffix == ".csv":
        cells = file.read_text(errors="replace").split(",")
        cells[rng.integers(len(cells))] = ["nan", "-1", "1e999", "", "0.5", "7", "x"][rng.integers(7)]
        file.write_text(",".join(cells))


def besiege(finished, folder, seeds, seconds=float("inf")) -> collections.Counter:
    """Spoils a copy of a run for each seed, and compares what is believed of it with what was there."""
    outcomes, began = collections.Counter(), time.monotonic()
    runs = {name: Run(finished / name) for name in RUNS}
    true = {name: facts(run) for name, run in runs.items()}
    tables = {name: {(r["replicate"], r["level"]): r for r in run.summary()} for name, run in runs.items()}
    for seed in seeds:
        if time.monotonic() - began > seconds:
            break
        rng = np.random.default_rng(seed)
        name = RUNS[rng.integers(3)]
        shutil.rmtree(folder / name, ignore_errors=True)
        run = Run(shutil.copytree(finished / name, folder / name))
        for _ in range(rng.integers(1, 5)):
            spoil(run, [other for at, other in runs.items() if at != name], rng)
        try:
            sound = Sound.of(run, branches=False)
            for row in sound.summary() if sound.rows else ():
                at = row["replicate"], row["level"]
                assert at not in tables[name] or row == tables[name][at], (seed, at)
                assert at in tables[name], (seed, at)
            said = run.set_aside_damaged()
        except LotteryError as error:  # as of a ticket that a bit made one of another version
            assert str(error).startswith("Expected") and "\n" not in str(error), seed
            outcomes["refused"] += 1
            continue
        left = facts(run)
        assert all(left[at] == true[name].get(at) for at in left), seed
        assert set(left) == set(sound.finished()) and run.set_aside_damaged() == [], seed
        rows = {(r["replicate"], r["level"]): r for r in run.summary()} if left else {}
        assert rows == {at: tables[name][at] for at in left}, seed
        assert not look(run).bad and not look(run).strays, seed
        outcomes["said" if said else "nothing to say"] += 1
    return outcomes


def test_what_is_believed_is_what_was_there(finished, tmp_path):
    outcomes = besiege(finished, tmp_path, range(80))
    assert outcomes.total() == 80 and outcomes["said"] > 50


@pytest.mark.siege
def test_what_is_believed_is_what_was_there_at_length(finished, tmp_path):
    seconds = float(os.environ.get("ATTACK_SECONDS", "3600"))
    outcomes = besiege(finished, tmp_path, itertools.count(1_000), seconds)
    print(dict(outcomes))
    assert outcomes["said"] > 0
