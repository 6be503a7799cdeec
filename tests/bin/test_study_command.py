"""A study from the command line: its plan, its one table, and that nothing is trained twice under any name."""

import json
import linecache
import shutil
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import forked
import pytest
from commands import call, same, tickets

from tf_lottery.bin import dry_run
from tf_lottery.problems import data
from tf_lottery.rules import criteria
from tf_lottery.runs import gathering, study
from tf_lottery.training.trainer import Trainer

PLUGIN = f"--plugin={Path(__file__).parents[1] / 'tiny.py'}"


def test_a_study_grows_and_shrinks_and_trains_nothing_twice(tmp_path, monkeypatch, capsys):
    seen, train = [], Trainer._trained

    def counted(self, model, callbacks, steps, *others):
        seen.append(steps)
        return train(self, model, callbacks, steps, *others)

    monkeypatch.setattr(Trainer, "_trained", counted)
    place = ["find", PLUGIN, "--model=tiny", "--replicates=1", f"--results_dir={tmp_path}"]

    assert call(*place, "--name=s", "--criterion=large_final,random") == 0
    out = capsys.readouterr().out
    assert (
        len(seen) == 1 + 2 * 2
        and "s+criterion=random, replicate 0 level  0" in out
        and "trained for s+criterion=large_final" in out
    )
    table = out[out.index(" criterion ") :].splitlines()
    assert {line.split()[0] for line in table[1:3]} == {"large_final", "random"}
    assert "best" in table[1] and "one seed" in table[2] and "Best by validation accuracy" in out
    assert [run.flags for run in gathering.read_plan(tmp_path / "s")] == [
        {"criterion": "large_final"},
        {"criterion": "random"},
    ]

    seen.clear()  # another name, and no sweep
    assert call(*place, "--name=other", "--criterion=random", "--replicates=2", "--dry_run", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["trainings"], told["taken_over"], told["steps"]) == (3, 3, 120)  # those of the other replicate
    seen.clear()
    assert call(*place, "--name=other", "--criterion=random", "--quiet") == 0
    said = "3 levels were not trained again, but taken from s+criterion=large_final, s+criterion=random ("
    assert not seen and capsys.readouterr().out.count(said) == 1
    assert same(tickets(tmp_path / "other"), tickets(tmp_path / "s+criterion=random"))
    assert not (tmp_path / "other" / gathering.PLAN).exists()

    # a value less, one more, and a flag named that stood at its default
    assert call(*place, "--name=s", "--criterion=random,movement", "--survivors=rewind", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert len(seen) == 2 and len(told["study"]["table"]) == 2 and len(told["runs"]) == 2
    assert [entry.name for entry in study.read([tmp_path / "s"]).entries] == [
        "s+criterion=random",
        "s+criterion=movement",
    ]

    seen.clear()
    assert call(*place, "--name=anew", "--criterion=random", "--noreuse", "--quiet") == 0
    assert len(seen) == 3 and same(tickets(tmp_path / "anew"), tickets(tmp_path / "other"))

    shutil.rmtree(tmp_path / "s+criterion=random")
    assert (
        study.read([tmp_path / "s"]).notes[0]
        == "s+criterion=random is in the plan, but there are no results of it yet."
    )
    plan = json.loads((tmp_path / "s" / gathering.PLAN).read_text())
    plan["runs"][1]["settings"]["learning_rate"] = 1.0
    (tmp_path / "s" / gathering.PLAN).write_text(json.dumps(plan))
    assert call("report", f"--results_dir={tmp_path}", "--name=s") == 1
    assert "it has learning_rate=0.02, and the plan of the study says 1.0" in capsys.readouterr().err
    assert call("report", f"--results_dir={tmp_path}", "--name=s*", f"--output={tmp_path / 'out'}") == 0


@pytest.mark.parametrize("values", ["criterion=nothing,nada", "criterion=random,movment", "scope=layer,globl"])
def test_a_study_that_cannot_begin_leaves_no_plan(tmp_path, values):
    """A name that is not known is found before the first of its runs is trained."""
    assert call("find", f"--results_dir={tmp_path}", "--name=s", f"--{values}") == 1
    assert not list(tmp_path.iterdir())


def test_a_dry_run_of_a_study_rehearses_each_network_once(tmp_path, monkeypatch, capsys):
    watch, seen = dry_run.Stopwatch(), []
    watch.rows, watch.step = [{"density": 1.0, "level": 0}, {"density": 0.8, "level": 1}], 0.01

    def rehearse(work, settings):
        seen.append(settings.model)
        return dry_run.Rehearsal(watch, [1000, 900])

    monkeypatch.setattr(dry_run, "rehearse", rehearse)
    place = [
        "find",
        f"--results_dir={tmp_path}",
        "--name=s",
        "--dry_run",
        "--replicates=1",
        "--levels=1",
        "--steps=100",
    ]
    place += ["--criterion=random,movement", "--model=residual_mlp,lenet_300_100"]
    assert call(*place, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert seen == ["residual_mlp", "lenet_300_100"] and not list(tmp_path.iterdir())
    assert (
        told["trainings"] == 6  # the dense network of each model is trained once
        and told["steps"] == 600
        and told["seconds"] == pytest.approx(6.0)
        and [run.get("taken_over", 0) for run in told["runs"]] == [0, 0, 1, 1]
    )
    assert call(*place) == 0
    out = capsys.readouterr().out
    assert "In all: 4 runs, 6 trainings, 600 steps; time: about 6 s; disk: about 0.0 MB\n" in out
    assert out.count("Not trained again: 1 more, which other runs have, or train before.") == 2
    assert call(*place, "--noreuse", "--criterion=random", "--model=residual_mlp", "--json") == 0
    assert json.loads(capsys.readouterr().out)["trainings"] == 2


@pytest.mark.parametrize("text", ["{", '{"runs": [{"folder": 1}]}', "[]"])
def test_a_damaged_plan_is_named(tmp_path, text):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / gathering.PLAN).write_text(text)
    with pytest.raises(ValueError, match=r"plan of a study in .*study.json, but it cannot be read"):
        study.read([tmp_path / "s"])


def test_an_edited_function_and_other_data_are_refused(tmp_path, monkeypatch, capsys):
    """A run goes on with what it was begun with: else the levels of two criteria, or of two data sets, lie in one table."""
    module = ModuleType("of_ones_own")
    monkeypatch.setitem(sys.modules, "of_ones_own", module)
    monkeypatch.setattr(criteria.registry, "_functions", dict(criteria.registry._functions))
    monkeypatch.setattr(data.registry, "_functions", dict(data.registry._functions))

    def written(text, **registries):
        path = tmp_path / "of_ones_own.py"
        path.write_text(text)
        module.__file__ = str(path)
        exec(compile(text, path, "exec"), vars(module))
        linecache.checkcache()
        for name, registry in registries.items():
            registry._functions[name] = getattr(module, name)

    rule = "def own_rule(initial, final, *, rng):\n    return abs(final)\n"
    load = "def own_data():\n    return load(Path(__file__).with_suffix('.txt').read_text())\n"
    (tmp_path / "of_ones_own.txt").write_text("mnist1d")
    vars(module).update(load=data.load, Path=Path)
    place = [
        "find",
        PLUGIN,
        "--model=tiny",
        "--replicates=1",
        f"--results_dir={tmp_path / 'results'}",
        "--dataset=own_data",
    ]
    place += ["--name=s", "--criterion=own_rule,random", "--quiet"]
    written(rule + load, own_rule=criteria.registry, own_data=data.registry)
    assert call(*place, "--levels=1") == 0
    capsys.readouterr()
    written(rule.replace("abs(final)", "-abs(final)") + load, own_rule=criteria.registry)
    for levels in (1, 2):
        assert call(*place, f"--levels={levels}") == 1
        assert "Expected the criterion 'own_rule' that" in (said := capsys.readouterr().err) and "edited since" in said
    written("# a comment\n" + rule + load, own_rule=criteria.registry, own_data=data.registry)

    def others(name):
        whole = data.load("mnist1d")
        return data.Dataset((whole.train[0] + 1, whole.train[1]), whole.validation, whole.test, classes=10)

    vars(module).update(load=partial(others))  # what no text of the function tells
    assert call(*place, "--levels=2") == 1
    assert "the data set of that name gives others now" in capsys.readouterr().err
    vars(module).update(load=data.load)
    assert call(*place, "--levels=2") == 0


ACTIVATED = """
import keras
from neighbour import slope
from tf_lottery.problems import models


def bent(x):
    return keras.ops.leaky_relu(x, slope)


@models.register(models.Preset("mnist1d", 20, 50, 0.02, levels=1, eval_every=10, test_every=20))
def bent_net(input_shape=(40,), classes=10, seed=0):
    hidden, output = (keras.initializers.GlorotNormal(seed=10 * seed + i) for i in range(2))
    layers = keras.layers.Dense(8, bent, kernel_initializer=hidden), keras.layers.Dense(classes, kernel_initializer=output)
    return keras.Sequential([keras.Input(input_shape), *layers])
"""


def test_other_code_of_a_plugin_or_beside_it_is_another_network(tmp_path):
    """An activation goes by its name in a network's config, and what it imports is in no config at all."""
    plugin, neighbour = tmp_path / "bent_plugin.py", tmp_path / "neighbour.py"

    def told(name):
        find = ["find", f"--plugin={plugin}", "--model=bent_net", "--replicates=1"]
        done = forked.run([*find, f"--results_dir={tmp_path / 'results'}", f"--name={name}"])
        assert done.returncode == 0, done.stderr
        return "trained for one" in done.stdout

    plugin.write_text(ACTIVATED)
    neighbour.write_text("slope = 0.3")
    assert [told("one"), told("same")] == [False, True]
    neighbour.write_text("slope = 0.9")
    assert not told("other")
    assert not same(tickets(tmp_path / "results" / "one"), tickets(tmp_path / "results" / "other"))
