"""Roads from the command line: the tickets of `find_ticket`, after a kill too, what they cost, their controls, and bad input."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import forked
import pytest
from commands import call, data_loaded_once, same, tickets

from tf_lottery.problems import data
from tf_lottery.runs import problem
from tf_lottery.runs.results import Run
from tf_lottery.runs.settings import Settings
from tf_lottery.runs.todo import cheap_road, cheap_road_in_words, overfits, reference_in_words, trainings_left
from tf_lottery.search import auto, plan
from tf_lottery.search.find import ROADS as FUNCTIONS
from tf_lottery.search.find import find_ticket

TINY = f"--plugin={Path(__file__).parents[1] / 'tiny.py'}"
ONE = [TINY, "--model=tiny", "--replicates=1", "--quiet"]
ROADS = {  # flags, and what Python calls them
    "budget": (["--density=0.5,0.2", "--budget=2"], {"density": [0.5, 0.2], "budget": 2.0}),
    "short": (
        ["--density=0.5,0.2", "--budget=2", "--search=iterative"],
        {"density": [0.5, 0.2], "budget": 2.0, "search": "iterative"},
    ),
    "one_shot": (
        ["--search=one_shot", "--density=0.5,0.2", "--level_steps=20", "--rewind_to=5"],
        {"search": "one_shot", "density": [0.5, 0.2], "level_steps": 20, "rewind_to": 5},
    ),
    "gradual": (
        ["--search=gradual", "--density=0.2", "--rewind_to=3"],
        {"search": "gradual", "density": 0.2, "rewind_to": 3},
    ),
    "nodense": (
        ["--search=gradual", "--density=0.5,0.2", "--nodense", "--search_steps=30"],
        {"search": "gradual", "density": [0.5, 0.2], "dense": False, "search_steps": 30},
    ),
    "regrow": (["--search=regrow", "--density=0.3"], {"search": "regrow", "density": 0.3}),
    "rounds": (["--density=0.4"], {"density": 0.4}),
}


@pytest.fixture(autouse=True, scope="module")
def data_once():
    with data_loaded_once():
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data_once):
    """The folder with a run by each road."""
    folder = tmp_path_factory.mktemp("results")
    for name, (flags, _) in ROADS.items():
        assert call("find", f"--results_dir={folder}", f"--name={name}", *ONE, *flags) == 0
    return folder


@pytest.fixture(scope="module")
def in_python(finished):
    """The tickets that `find_ticket` finds, by road, as files hold them."""
    settings = problem.resolved(Settings("tiny", replicates=1))
    found = {}
    for name, (_, options) in ROADS.items():
        model, trainer = problem.of_replicate(settings, data.load("mnist1d"), 0)
        for ticket in find_ticket(model, trainer, prune_fraction=0.2, **options):
            path = finished / f"{name}_{ticket.level}.ticket"
            ticket.save(path)
            found[name, ticket.level] = path
    return found


@pytest.mark.parametrize("road", ROADS)
def test_the_tickets_are_those_of_python(finished, in_python, road):
    ours = {int(Path(name).parent.name[-2:]): ticket for name, ticket in tickets(finished / road).items()}
    theirs = {level: type(ours[level]).load(path) for (name, level), path in in_python.items() if name == road}
    assert same(ours, theirs)
    for level, ticket in ours.items():
        for key in ("search", "density", "levels", "level_steps", "search_steps", "steps", "start"):
            assert ticket.found.get(key) == theirs[level].found.get(key)


def test_what_each_ticket_cost_stands_in_the_tables(finished, capsys):
    with (finished / "short" / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["trainings"], row["steps"]) for row in rows] == [
        ("1", "40"),
        *[("1.25", "40"), ("0.75", "10"), ("1", "10"), ("2", "40")],
    ]
    found = tickets(finished / "short")["replicate_0/level_04/level.ticket"].metrics
    for name in ("early_stop_validation_accuracy", "final_validation_accuracy"):
        assert float(rows[4][name]) == pytest.approx(found[name], rel=1e-5)
    place = [f"--results_dir={finished}", "--name=short"]
    assert call("find", *place, *ONE, *ROADS["short"][0]) == 0
    shown = capsys.readouterr().out
    assert "finished already" in shown and re.search(r"(1\.25|2) trainings spent for each", shown)
    assert re.search(r"^ *2 \(short\) .* 0\.75 *$", shown, re.MULTILINE) and re.search(
        r"^ *4 .* 2 *$", shown, re.MULTILINE
    )
    assert call("find", *place, *ONE, *ROADS["short"][0], "--json") == 0
    levels = json.loads(capsys.readouterr().out)["levels"]
    assert [level["trainings"]["mean"] for level in levels] == [1, 1.25, 0.75, 1, 2]
    assert [level["in_full"] for level in levels] == [True, True, False, False, True]
    assert call("report", *place) == 0
    table = (finished / "short" / "report" / "table.md").read_text()
    assert "| trainings |" in table and "| 2 (short) |" in table


@pytest.mark.parametrize(
    ("road", "dies", "kept"),
    [
        ("one_shot", "search_checkpoint.safetensors:3", 0),
        ("gradual", "checkpoint.safetensors:10", 1),
        ("budget", "search_2_checkpoint.safetensors:1", 2),  # the third of four short levels
    ],
)
def test_a_killed_training_goes_on(finished, tmp_path, road, dies, kept, capfd):
    """In the middle of a training for the search, and in that of a ticket, whose search is not done again."""
    place = [f"--results_dir={tmp_path}", f"--name={road}", *ONE, *ROADS[road][0]]
    assert forked.run(["find", *place], env={**os.environ, "DIE": dies}).returncode == -signal.SIGKILL
    run = Run(tmp_path / road)
    name = dies.partition(":")[0]
    assert run.finished() == [(0, 0)] and len(list(run.folder.rglob(name))) == 1
    assert len(list(run.folder.rglob("search.safetensors"))) == kept
    assert call("find", *place) == 0
    what = {"one_shot": "search of level 0", "budget": "search of level 1"}.get(road, "level 1")
    assert f"replicate 0, {what} goes on from step " in capfd.readouterr().err
    assert same(tickets(finished / road), tickets(run.folder)) and not list(run.folder.rglob("*checkpoint*"))


def test_a_damaged_search_is_done_again(finished, tmp_path, capsys):
    run = Run(tmp_path / "gradual")
    for path in (finished / "gradual").rglob("*"):
        if path.is_file() and "level_01" not in str(path):
            (to := run.folder / path.relative_to(finished / "gradual")).parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(path.read_bytes())
    broken = run.searched(0, 1)
    broken.parent.mkdir()
    broken.write_bytes(Run(finished / "gradual").searched(0, 1).read_bytes()[:-9])
    assert call("find", f"--results_dir={tmp_path}", "--name=gradual", *ONE, *ROADS["gradual"][0]) == 0
    assert f"{broken} is damaged: it is kept as" in capsys.readouterr().err
    assert same(tickets(finished / "gradual"), tickets(run.folder))


def test_all_roads_are_known_without_tensorflow():
    assert set(plan.ROADS) == set(FUNCTIONS)


def test_controls_of_each_road(finished, capsys):
    for road, levels in (("short", [1, 4]), ("nodense", [1, 2])):
        place = [f"--results_dir={finished}", f"--name={road}", TINY, "--quiet"]
        assert call("branch", *place, "--random_mask") == 0
        branch = Run(finished / road).branch("random_mask")
        assert branch.finished() == [(0, level) for level in levels]  # those that were trained in full
        costs = {row["level"]: row["trainings"] for row in Run(finished / road).summary()}
        assert {row["level"]: row["trainings"] for row in branch.summary()} == {k: costs[k] for k in levels}
    assert call("branch", *place, "--survivors=keep") == 1
    assert re.search("with its dense network.*survivors=keep.*dense=False", capsys.readouterr().err)


def test_a_dry_run_says_the_trainings_of_each_road(tmp_path, capsys):
    place = ["find", f"--results_dir={tmp_path}", *ONE[:2], "--replicates=2", "--dry_run"]
    assert call(*place, "--density=0.2", "--budget=2", "--search=iterative") == 0
    out = capsys.readouterr().out
    assert "The road is iterative: 4 levels of 10 steps, then the ticket in full, 40 steps; 2 trainings for 20 %" in out
    assert "0 of 10 levels finished" in out
    assert "To do: 12 trainings, 4 of 40 steps and 8 of 10 steps, 240 steps in all" in out and "Time: about" in out
    assert call(*place, "--density=0.5,0.2", "--search=gradual", "--nodense", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["levels"], plan["trainings"], plan["steps"]) == (4, 8, 240) and "gradual" in plan["road"]
    assert not list(tmp_path.iterdir())


def test_a_budget_says_what_it_chose(finished, tmp_path, capsys, monkeypatch):
    """What is left of a search after each of its trainings, for short levels and for gradual pruning."""
    place = [f"--results_dir={tmp_path}", "--name=falling", *ONE[:3], "--budget=2", "--steps=80", "--eval_every=2"]
    place += ["--density=0.5,0.2"]
    monkeypatch.setattr(auto, "FALL", -1.0)
    assert call("find", *place, "--dry_run") == 0
    out = capsys.readouterr().out
    assert "The road is auto: 20 steps of the dense network; 60 more of it, pruned bit by bit, if its" in out
    assert "else 3 short levels of 20 steps" in out and "2 trainings for 20 % of the weights" in out
    assert "To do: 6 trainings, 3 of 80 steps and 2 of 60 steps and 1 of 20 steps, 380 steps in all" in out
    assert call("find", *place) == 0
    told = capsys.readouterr()
    assert "gradual was chosen: the dense network's validation loss" in told.out
    assert "The road that search=auto chose is gradual (replicate 0): the dense network's" in told.out
    falling, short = Run(tmp_path / "falling"), Run(tmp_path / "budget")
    shutil.copytree(finished / "budget", short.folder)
    few = "the dense network's validation loss was measured 2 times in the first short level, and it takes 6 to tell"
    assert short.chosen() == [f"the road that search=auto chose is iterative (replicate 0): {few}"]
    assert call("find", *place[:1], *ONE, *ROADS["budget"][0], "--name=x", "--dry_run") == 0
    assert "(it will be these: of the 6 measurements that tell it, eval_every=5 leaves 2)" in capsys.readouterr().out
    for run, length, gone, left in ((falling, 60, "search", 0), (short, 30, "search_3", 10)):
        plan = Settings.of(run).plan()
        for name, steps in (("level", 0), (gone, left if run is short else length)):
            for path in run.folder.glob(f"*/level_02/{name}.*"):
                path.unlink()
            assert sum(each.steps for each in trainings_left(run, plan, [(0, 2)]) if each.search) == steps


def test_a_dense_network_that_overfits_early_makes_gradual_pruning_distrusted():
    def curve(*losses):
        return [{"step": 100 * i, "validation_loss": loss} for i, loss in enumerate(losses, 1)]

    overfit = curve(1.0, 0.9, *[1.0] * 7, 1.0)
    assert overfits(overfit) is True
    said = reference_in_words(overfit)
    assert "early stop at step 200 of 1,000" in said and "1.11 times" in said and "distrust gradual pruning" in said
    for sound in (curve(1.0, 0.9, *[1.0] * 7, 0.98), curve(1.0, 1.0, 0.9, *[2.0] * 7), curve(*[1.0] * 10)):
        assert overfits(sound) is False and "nothing speaks against" in reference_in_words(sound)
    assert overfits([{"step": 10, "validation_loss": None}]) is None
    assert reference_in_words([{"step": 10}]) is None


def test_a_search_in_full_says_what_a_cheaper_one_would_have_taken():
    settings = Settings("tiny", replicates=2, levels=3).resolved()
    rows = [
        {"replicate": r, "level": k, "density": 0.8**k, "seconds": 3.0 if k else 5.0} for r in (0, 1) for k in range(4)
    ]
    cheap = cheap_road(settings, rows)
    assert cheap == {
        **{"density": 0.512, "trainings": 2, "seconds": 8.0},
        **{"instead_of_trainings": 4, "instead_of_seconds": 14.0},
    }
    assert "--budget=2 --density=0.512: 2 trainings in place of 4, about 8 s a replicate in place of 14 s" in (
        cheap_road_in_words(cheap)
    )
    assert cheap_road(settings, rows[:-1]) is None  # not finished
    assert cheap_road(Settings("tiny", levels=2).resolved(), rows) is None
    assert cheap_road(Settings("tiny", density=(0.5,), budget=2.0).resolved(), rows) is None


BAD = [
    (["--search=random"], "search to be one of iterative, one_shot, gradual, auto, regrow.*'random'"),
    (["--search=gradual"], "search='gradual' with a density"),
    (["--search=gradual", "--one_shot", "--density=0.5"], "either one_shot or"),
    (["--density=1"], r"a density in \(0, 1\), but received 1.0"),
    (["--density=0.2,0.5"], "in falling order"),
    (["--density=half"], "numbers as in"),
    (["--density=0.5", "--budget=1"], "budget above 1.* 1.0"),
    (["--budget=2"], "budget with a density"),
    (["--density=0.5", "--level_steps=4"], "level_steps from 5, eval_every, to 40.* 4"),
    (["--density=0.5", "--search_steps=10"], "search_steps with search='gradual' or 'regrow' only"),
    (["--density=0.5", "--search=gradual", "--search_steps=12"], "at least 10 masks"),
    (["--density=0.5", "--search=gradual", "--criterion=snip"], "snip"),
    (["--density=0.5", "--search=gradual", "--reset=at_end"], "reset='each_level'"),
    (["--density=0.5,0.2", "--levels=1"], "a level for each of the 2 densities"),
    (["--density=0.5", "--search=gradual", "--levels=3"], "as many levels as densities"),
    (["--level_steps=10", "--rewind_to=11"], "rewind_to within the 10 steps"),
]


def test_bad_input_is_refused_without_tensorflow(finished):
    """All in one fresh process; a run that was begun by another road among them."""
    other = ["--name=budget", f"--results_dir={finished}", "--density=0.2", "--search=gradual"]
    lines = [[*ONE[:2], *flags] for flags, _ in BAD] + [[*ONE, *other]]
    code = (
        "import json, sys; from tf_lottery.bin import main\n"
        "for argv in json.loads(sys.argv[1]): assert main.dispatch(['find', *argv]) == 1\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, json.dumps(lines)], capture_output=True, text=True, cwd=finished)
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert len(said) == len(lines) and not done.stdout
    for (_, message), sentence in zip([*BAD, ((), "density=.*instead of|search='gradual' instead of 'auto'")], said):
        assert sentence.startswith("tf-lottery: ") and re.search(message, sentence), sentence
