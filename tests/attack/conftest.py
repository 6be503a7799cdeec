"""Runs for the attacks: three roads and other settings, each in a copy that may be spoilt."""

import functools
import shutil
from pathlib import Path

import pytest
from besieged import FIND, FLAGS, OTHERS
from commands import call, data_loaded_once

from tf_lottery.problems import data
from tf_lottery.runs.results import Run
from tf_lottery.training.trainer import Trainer

load, loaded = data.load, functools.cache(data.load)


def loaded_once(name="mnist1d", data_dir=None):
    return loaded(name, data_dir) if (name, data_dir) == ("mnist1d", None) else load(name, data_dir)


@pytest.fixture(autouse=True)
def data_once(monkeypatch):
    """Making MNIST-1D takes longer than to train on it. For one test each: what is patched for longer is so in other folders too."""
    monkeypatch.setattr(data, "load", loaded_once)


@pytest.fixture(scope="package")
def finished(tmp_path_factory):
    """A run by each of three roads, one of them with branches, and runs of other settings."""
    with data_loaded_once():
        return made(tmp_path_factory.mktemp("results"))


def made(folder):
    for name, flags in FLAGS.items():
        assert call(*FIND, f"--results_dir={folder}", f"--name={name}", *flags) == 0
    for name, flags in {"seed": FLAGS["run"], "rate": ["--levels=1", "--replicates=1", "--steps=20"]}.items():
        assert call(*FIND, f"--results_dir={folder}", f"--name={name}", *flags, OTHERS[name]) == 0
    assert call("branch", f"--results_dir={folder}", "--name=run", "--survivors=reinit", "--levels=1,2", "--quiet") == 0
    return folder


@pytest.fixture
def copy(finished, tmp_path):
    def copied(name):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
        return Run(Path(shutil.copytree(finished / name, tmp_path / name)))

    return copied


@pytest.fixture
def trained(monkeypatch):
    """How many trainings were begun."""
    seen, train = [], Trainer._trained
    monkeypatch.setattr(Trainer, "_trained", lambda self, *rest: (seen.append(1), train(self, *rest))[1])
    return seen
