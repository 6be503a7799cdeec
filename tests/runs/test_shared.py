"""Runs of a sweep train what they have in common once, and each ends as it would have alone."""

import os
import signal
from pathlib import Path

import forked
import pytest
from commands import call, data_loaded_once, same, tickets

from tf_lottery.runs.results import Run
from tf_lottery.training.trainer import Trainer

PLUGIN = f"--plugin={Path(__file__).parents[1] / 'tiny.py'}"
TINY = [PLUGIN, "--model=tiny", "--quiet"]


@pytest.fixture(autouse=True, scope="module")
def data_once():
    with data_loaded_once():
        yield


@pytest.fixture
def trained(monkeypatch):
    """The steps of each training that was begun."""
    seen, train = [], Trainer._trained

    def counted(self, model, callbacks, steps, seed):
        seen.append(steps)
        return train(self, model, callbacks, steps, seed)

    monkeypatch.setattr(Trainer, "_trained", counted)
    return seen


def alone(folder, swept):
    """The run of a sweep, made by itself."""
    name, *flags = swept.split("+")
    assert call("find", f"--results_dir={folder}", f"--name={name}", *TINY, *(f"--{flag}" for flag in flags)) == 0
    return tickets(folder / name)


def curves(folder):
    return {path.parts[-3:]: path.read_bytes() for path in folder.rglob("curve.csv")}


def test_the_dense_network_is_trained_once(tmp_path, trained, capsys):
    """With criteria that differ also the dense network of the short search is shared; the levels after it are not."""
    road = ["--density=0.3", "--budget=2", "--replicates=2", "--rewind_to=2"]
    place = [f"--results_dir={tmp_path}", "--name=s", *TINY, *road]
    assert call("find", *place, "--criterion=large_final,random") == 0
    assert trained.count(40) == 2 * (1 + 2) and trained.count(10) == 2 * (1 + 2 * 3)
    trained.clear()
    assert call("find", *place, "--criterion=large_final,random,movement") == 0  # a sweep that grows
    assert trained.count(40) == 2 and trained.count(10) == 2 * 3
    folders = {f"s+criterion={name}" for name in ("large_final", "random", "movement")}
    assert {path.name for path in tmp_path.iterdir()} == folders | {"s"}
    own = alone(tmp_path / "alone", "+".join(["movement", *(flag[2:] for flag in road), "criterion=movement"]))
    assert same(own, tickets(tmp_path / "s+criterion=movement"))
    assert curves(tmp_path / "alone" / "movement") == curves(tmp_path / "s+criterion=movement")
    assert Run(tmp_path / "s+criterion=random").finished() == [(r, level) for r in (0, 1) for level in (0, 1)]


def test_levels_are_shared_as_far_as_settings_agree(tmp_path, trained):
    place = [f"--results_dir={tmp_path}", "--name=s", *TINY, "--replicates=1"]
    assert call("find", *place, "--levels=1,2") == 0
    assert len(trained) == 3  # level 0, 1 and 2, once
    trained.clear()
    assert call("find", *place, "--levels=1", "--learning_rate=0.01,0.02") == 0
    assert len(trained) == 4 - 2  # 0.02 is the default: those of the first sweep
    trained.clear()
    assert call("find", *place, "--density=0.3", "--search=iterative,gradual", "--level_steps=20") == 1
    assert call("find", *place, "--density=0.3", "--budget=1.5,2", "--search=gradual,one_shot") == 0
    # The dense network is that of before, and with one_shot and a budget of 2 what the search looks at.
    assert sorted(trained) == [20, 20, *[40] * 5]


def test_seeds_and_data_are_not_mixed_up(tmp_path, trained):
    place = [f"--results_dir={tmp_path}", "--name=s", *TINY, "--levels=1", "--replicates=2"]
    assert call("find", *place, "--seed=0,1") == 0
    assert len(trained) == 3 * 2  # replicate 1 of seed 0 is replicate 0 of seed 1
    for seed in (0, 1):
        own = alone(tmp_path / "alone", f"{seed}+levels=1+replicates=2+seed={seed}")
        assert same(own, tickets(tmp_path / f"s+seed={seed}"))


def test_two_that_want_the_same_training_and_one_that_is_killed_in_it(tmp_path, forked_workers):
    """With two workers; first all are killed within the training that both runs want."""
    flags = [*TINY, "--levels=1", "--replicates=1", "--survivors=rewind,reinit"]
    command = ["find", f"--results_dir={tmp_path}", "--name=s", *flags]
    dying = {**os.environ, "DIE": "checkpoint.safetensors:3"}
    assert forked.run(command, env=dying).returncode == -signal.SIGKILL
    assert len(list(tmp_path.rglob("checkpoint.safetensors"))) == 1
    assert call("find", *command[1:], "--workers=2") == 0
    assert {path.name for path in tmp_path.iterdir()} == {"s", "s+survivors=rewind", "s+survivors=reinit"}
    runs = [Run(tmp_path / f"s+survivors={name}") for name in ("rewind", "reinit")]
    first, second = (run.ticket(0, 0) for run in runs)
    assert first.metrics == second.metrics  # the seconds too: it is one training
    assert not list(tmp_path.rglob(".*")) and not list(tmp_path.rglob("*checkpoint*"))
    rewound, drawn = (run.ticket(0, 1) for run in runs)
    path = next(iter(rewound.masks))
    assert (rewound.masks[path] == drawn.masks[path]).all() and (rewound.final[path] != drawn.final[path]).any()
