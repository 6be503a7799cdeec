"""What is refused before anything is imported, fetched or made; and what a run remembers of how it was begun."""

import io
import re
import socket
import subprocess
import sys

import forked
import keras
import numpy as np
import pytest
from rich.console import Console

import tf_lottery as tfl
from tf_lottery.bin import display, early, main
from tf_lottery.problems import data
from tf_lottery.runs.outcome import LevelStatistics, Statistic, to_verify, verdict
from tf_lottery.runs.results import Run

PLUGIN = """
import numpy as np
from tf_lottery import criteria, data


@criteria.register
def my_own(initial, final, *, rng):
    return np.abs(final)


@data.registry.register
def my_data():
    return data.load("mnist1d")
"""


def refused(*argv, capsys):
    assert main.dispatch(list(argv)) == 1
    out, err = capsys.readouterr()
    assert err.startswith("tf-lottery: Expected") and err.count("\n") == 1 and "Traceback" not in out + err
    return err


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save("net.keras")
    np.savez("data.npz", x=np.zeros((4, 4), "float32"))
    (tmp_path / "notes.txt").write_text("notes\n" * 99)
    return tmp_path


def test_what_is_not_there_is_refused_and_nothing_is_made(here, capsys):
    before = sorted(here.iterdir())
    for argv, message in (
        (["fnd"], r"Did you mean 'find'\?"),
        (["train"], r"Did you mean 'find'\?"),
        (["find", "--model=mine.keras"], "file 'mine.keras': `tf-lottery prune --keras=mine.keras`.*--plugin=mine.py"),
        (["find", "--data_dir=no/such"], "--data_dir of prepared data sets, but there is no folder 'no/such'"),
        (["find", "--dataset=mnist", "--data_dir", "no/such"], "--data_dir of prepared data sets"),
        (["find", "--criterion=magnitude"], "Did you mean 'large_final'"),
        (["find", "--dataset=mnits"], "received 'mnits'. Did you mean 'mnist'"),
        (["export", "--keras=none.keras", "--dataset=mnist"], "a file for --keras, but there is none at 'none.keras'"),
        (["export", "--keras=net.keras", "--data=none.npz"], "npz file for --data, but there is none at 'none.npz'"),
        (
            ["export", "--keras=net.keras", "--data=data.npz", "--variant=int9"],
            "float32, .*int8 or all, but received 'int9'",
        ),
        (["export", "--keras=net.keras", "--data=data.npz", "--output=notes.txt"], "new path"),
        (["export", "--ticket=notes.txt", "--data=data.npz"], "ticket file, but 'notes.txt' is not one: it is a text"),
        (["ticket", "show", "notes.txt"], r"Did you mean 'info'\?"),
        (["ticket", "inof", "notes.txt"], r"Did you mean 'info'\?"),
        (["ticket", "info", "net.keras"], "'net.keras' is not one: it is a zip file, as .keras"),
    ):
        assert re.search(message, refused(*argv, capsys=capsys)), argv
    assert sorted(here.iterdir()) == before


def test_flags_are_looked_at_without_tensorflow(here):
    code = (
        "import sys; from tf_lottery.bin import main\n"
        "for words in (['find', '--data_dir=none'], ['find', '--model=a.keras'], ['export', '--keras=none.keras', '--dataset=mnist'],\n"
        "              ['export', '--keras=net.keras', '--dataset=mnist', '--variant=int9']):\n"
        "    assert main.dispatch(words) == 1\n"
        "assert not {'tensorflow', 'tensorflow_datasets'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Expected") == 4


def test_without_a_network_the_command_that_prepares_a_data_set_is_named(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise OSError("unreachable")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    monkeypatch.delenv("https_proxy", raising=False)
    with pytest.raises(
        tfl.DataError, match=r"is out of reach: run `tfds build fashion_mnist --data_dir=\S+` where there is"
    ):
        data.load("fashion_mnist", tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))
    with pytest.raises(tfl.DataError, match="TFDS_DATA_DIR to be the folder"):
        data.load("fashion_mnist")
    with pytest.raises(tfl.DataError, match="data_dir to be the folder"):
        data.load("mnist1d", tmp_path / "none")
    assert not list(tmp_path.iterdir())


def test_a_run_remembers_its_data_folder_and_plugins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "c_plugin.py").write_text(PLUGIN)
    (tmp_path / "prepared").mkdir()

    def fresh(command, *words):  # each in a process of its own, as a plugin is loaded once in one
        return forked.run([command, *words])

    short = ["--levels=1", "--replicates=1", "--steps=10", "--eval_every=5", "--test_every=10", "--quiet", "--name=own"]
    own = ["--plugin=mine/c_plugin.py", "--criterion=my_own", "--dataset=my_data", "--data_dir=prepared"]
    done = fresh("find", *short, *own)
    assert done.returncode == 0, done.stderr
    run = Run.at("results", "own")
    begun = run.begun_with()
    assert begun.pop("code").keys() == {"criterion", "dataset"} and len(begun.pop("data")) == 64
    assert begun == {"data_dir": "../../prepared", "plugins": ["../../mine/c_plugin.py"]}
    assert str(tmp_path) not in (run.folder / "spec.json").read_text()
    words = early.remembered("branch", ["--name=own"])
    assert words == ["--name=own", "--plugin=mine/c_plugin.py", "--data_dir=prepared"]
    assert early.remembered("branch", ["--name=own", "--plugin=a", "--data_dir=b"])[1:] == [
        "--plugin=a",
        "--data_dir=b",
    ]
    assert early.remembered("find", ["--name=own"]) == ["--name=own"] != early.remembered("verify", ["--name=own"])
    done = fresh("branch", "--name=own", "--survivors=reinit", "--quiet")
    assert done.returncode == 0, done.stderr


def test_nothing_is_cut_off_on_80_columns():
    shown = display.LevelDisplay([(0, level) for level in range(25)], 50_000)
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    shown.progress = display.progress_on(console)
    what = "lenet_300_100+criterion=magnitude_increase, replicate 0, level 12"
    shown.progress.add_task(what, total=50_000, told="12,000 of 50,000 steps")
    console.print(shown.progress.get_renderable())
    told = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\s", "", console.file.getvalue())
    assert "…" not in told
    for part in ("12,000", "50,000", "level12", "magnitude"):
        assert part in told
    assert "reading data, building the network" in [
        task.description for task in display.LevelDisplay([], 1).progress.tasks
    ]


def test_a_control_has_no_winning_ticket():
    def level(number, accuracy):
        return LevelStatistics(number, 1, *(Statistic(v, v, v) for v in (0.8**number, 100, accuracy, accuracy)))

    levels = [level(0, 0.9), level(1, 0.95)]
    assert verdict(levels).startswith("The winning ticket: level 1")
    for settings, control in (
        ({"survivors": "reinit", "criterion": "large_final"}, "survivors=reinit"),
        ({"survivors": "rewind", "criterion": "random"}, "criterion=random"),
    ):
        said = verdict(levels, settings=settings)
        assert said.startswith(f"The best level of this control ({control}): level 1") and "ticket" not in said
    said = verdict(levels, settings={"search": "regrow", "survivors": "rewind", "criterion": "large_final"})
    assert said.startswith("The best sparse network (no ticket: it was trained sparse from the start): level 1")


def test_what_does_not_train_is_told_what_does(dense_net):
    for train in ("adam", keras.optimizers.Adam(), None, dense_net()):
        with pytest.raises(tfl.LotteryError, match="train to be a Trainer, as in .* or a function") as caught:
            tfl.find_ticket(dense_net(), train)
        assert "\n" not in str(caught.value)


def test_densities_are_given_one_way_or_the_other(dense_net, capsys):
    one, other = tfl.prune(dense_net(), density=0.2, verbose=True), tfl.prune(dense_net(), sparsity=0.8)
    for a, b in zip(tfl.get_masks(one).values(), tfl.get_masks(other).values()):
        assert np.array_equal(a, b)
    assert capsys.readouterr().out == (
        "net keeps 29 of 144 weights: 20.1 % stay, 79.9 % are pruned (density 0.201, sparsity 0.799).\n"
    )
    for arguments, message in (
        (
            {"density": 0.2, "sparsity": 0.8},
            "one of density .the share of the weights that stays., sparsity .*received several",
        ),
        ({}, "received none"),
        ({"sparsity": 80}, "received 80: it is the share of the weights that is removed"),
        ({"density": 80}, "received 80: it is the share of the weights that stays"),
    ):
        with pytest.raises(tfl.LotteryError, match=message):
            tfl.prune(dense_net(), **arguments)
    assert tfl.masks.density(tfl.get_masks(tfl.prune(dense_net(), sparsity={"output": 0.5, "Dense": 0.9}))) < 0.25


def test_a_ticket_that_won_is_still_to_be_verified():
    def level(number, accuracy):
        return LevelStatistics(number, 1, *(Statistic(v, v, v) for v in (0.8**number, 100, accuracy, accuracy)))

    levels = [level(0, 0.9), level(1, 0.95), level(2, 0.93)]
    assert to_verify(levels, "mine").endswith("tf-lottery verify --name=mine --level=1")
    for settings in ({"survivors": "reinit"}, {"criterion": "random"}, {"search": "regrow"}):
        assert to_verify(levels, "mine", settings) is None
    assert to_verify([level(0, 0.96), *levels[1:]], "mine") is None and to_verify(levels[:1], "mine") is None
    assert to_verify(levels[1:], "mine") is None  # nobody trained the dense network
