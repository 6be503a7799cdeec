"""Levels in the wrong place: what is not what its folder says is named, set aside and trained again, and only that."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from besieged import FIND, FLAGS, OTHERS
from commands import call, same, tickets

from tf_lottery.runs.results import Run


def swap(one, other):
    one.rename(one.with_name("x"))
    other.rename(one)
    one.with_name("x").rename(other)


def replace(folder, by):
    shutil.rmtree(folder)
    shutil.copytree(by, folder)


OF_LEVEL, OF_REPLICATE, OTHER = "of level {}", "of replicate {}", "of a run with other settings"
ATTACKS = {  # what is done to a run, how many levels are trained again, and what is said of them
    "levels": ("run", lambda f, o: swap(f(0, 1), f(0, 2)), 2, [OF_LEVEL.format(2), OF_LEVEL.format(1)]),
    "replicates": ("run", lambda f, o: swap(f(0, 0).parent, f(1, 0).parent), 8, [OF_REPLICATE.format(1)]),
    "copied": ("run", lambda f, o: replace(f(1, 2), f(1, 1)), 1, [OF_LEVEL.format(1)]),
    "of another replicate": ("run", lambda f, o: replace(f(1, 2), f(0, 2)), 1, [OF_REPLICATE.format(0)]),
    "another seed": ("run", lambda f, o: replace(f(0, 3), o("seed").level_folder(0, 3)), 1, [OTHER]),
    "another rate": ("run", lambda f, o: replace(f(0, 0), o("rate").level_folder(0, 0)), 1, [OTHER]),
    "another road": ("run", lambda f, o: replace(f(0, 1), o("shot").level_folder(0, 1)), 1, [OTHER]),
    "shot": ("shot", lambda f, o: swap(f(0, 1), f(0, 2)), 2, [OF_LEVEL.format(2), OF_LEVEL.format(1)]),
    "gradual": ("gradual", lambda f, o: swap(f(0, 1), f(0, 2)), 2, [OF_LEVEL.format(2), OF_LEVEL.format(1)]),
    "no curve": ("run", lambda f, o: (f(1, 0) / "curve.csv").unlink(), 1, ["has lost its curve.csv"]),
    "other curve": (
        "run",
        lambda f, o: shutil.copy(f(1, 2) / "curve.csv", f(1, 1) / "curve.csv"),
        1,
        ["curve.csv is damaged"],
    ),
    "twice": (
        "run",
        lambda f, o: shutil.copytree(f(0, 1), f(0, 1).with_name("level_1")),
        0,
        ["in no folder of a level"],
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_level_is_known_by_what_it_is(finished, copy, trained, capsys, attack):
    name, change, again, words = ATTACKS[attack]
    run = copy(name)
    change(run.level_folder, lambda other: Run(finished / other))
    place = [f"--results_dir={run.folder.parent}", f"--name={name}", *FLAGS[name]]
    assert call(*FIND, *place) == 0
    err = capsys.readouterr().err
    said = [line for line in err.splitlines() if "It is kept as" in line]
    assert len(said) == max(again, 1) and all(any(word in line for line in said) for word in words), err
    assert len(trained) == again + 2 * (attack == "gradual")  # the trainings of the search lay in these folders too
    assert same(tickets(finished / name), {k: v for k, v in tickets(run.folder).items() if "level_1/" not in k})
    assert len(list(run.folder.rglob("level.ticket.damaged"))) == max(again, 1)
    assert (run.folder / "summary.csv").read_text().count("\n") == 1 + len(run.finished())
    trained.clear()
    assert call(*FIND, *place) == 0 and not trained and "It is kept as" not in capsys.readouterr().err


def test_what_was_made_of_a_level_that_is_another_one_now_is_made_again(finished, copy, trained, capsys):
    """As when a level is trained again on a machine that rounds differently; and a branch of it."""
    run = copy("run")
    path = run.level_folder(0, 1) / "level.ticket"
    ticket = run.ticket(0, 1)
    ticket.final[next(iter(ticket.masks))][:] *= np.random.default_rng(0).uniform(
        0.1, 2, (40, 16)
    )  # says it is of this run
    ticket.save(path)
    place = [f"--results_dir={run.folder.parent}", "--name=run"]
    branch = ["branch", *place, "--survivors=reinit", "--levels=1,2", "--quiet"]
    assert call(*branch) == 1
    assert "has not finished that: " in (err := capsys.readouterr().err) and "level_02/level.ticket is not what" in err
    assert call(*FIND, *place, *FLAGS["run"]) == 0
    err = capsys.readouterr().err
    assert f"{run.level_folder(0, 2) / 'level.ticket'} is not what its folder says: it is made of another level" in err
    assert len(trained) == 2 and run.finished() == Run(finished / "run").finished()
    assert not same(tickets(finished / "run"), tickets(run.folder))
    trained.clear()
    assert call(*FIND, *place, *FLAGS["run"]) == 0 and not trained
    capsys.readouterr()
    assert call(*branch) == 0 and len(trained) == 2  # of both levels of the replicate, which know its tickets
    assert capsys.readouterr().err.count("made of another level than the one that is there now") == 2


def test_a_stranger_that_says_nothing_is_found_out_by_the_next_level(finished, copy, trained, capsys):
    """A ticket of an older version in the place of one: the level after it was made of another."""
    run = copy("run")
    other = Run(finished / "seed").ticket(1, 1)
    for key in ("level_of", "curve_sha256"):
        other.found.pop(key)
    other.save(run.level_folder(1, 1) / "level.ticket")
    assert call(*FIND, f"--results_dir={run.folder.parent}", "--name=run", *FLAGS["run"]) == 0
    assert "level_01/level.ticket is not what level_02 was made of" in capsys.readouterr().err
    assert len(trained) == 1 and same(tickets(finished / "run"), tickets(run.folder))


def test_settings_that_are_gone_are_no_way_in(finished, copy, trained, capsys):
    run = copy("run")
    (run.folder / "spec.json").unlink()
    place = [f"--results_dir={run.folder.parent}", "--name=run", *FLAGS["run"]]
    assert call(*FIND, *place, OTHERS["seed"], "--workers=2") == 1
    assert "there is no spec.json" in capsys.readouterr().err and not trained
    assert call(*FIND, *place, OTHERS["seed"]) == 0
    assert capsys.readouterr().err.count(OTHER) == 8 and len(trained) == 8
    shutil.rmtree(run.folder / "branches")
    assert same(tickets(finished / "seed"), tickets(run.folder))


def test_a_checkpoint_of_another_run_is_named_and_set_aside(finished, copy, trained, capsys):
    run, holder = copy("run"), {}

    class Copied(Exception):
        pass

    from tf_lottery.training import checkpoint

    real = checkpoint.Checkpoint.save

    def save(self, *rest):
        real(self, *rest)
        holder["bytes"] = self.path.read_bytes()
        raise Copied

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint.Checkpoint, "save", save)
        patch.setattr(checkpoint.Checkpoint, "due", True)
        with pytest.raises(Copied):
            call(*FIND, f"--results_dir={run.folder.parent}", "--name=other", *FLAGS["run"], OTHERS["seed"])
    shutil.rmtree(run.level_folder(1, 3))
    path = run.checkpoint(1, 3)
    path.parent.mkdir()
    path.write_bytes(holder["bytes"])
    capsys.readouterr()
    call(*FIND, f"--results_dir={run.folder.parent}", "--name=run", *FLAGS["run"])
    assert re.search("checkpoint.safetensors is of another training .* is set aside as", capsys.readouterr().err)
    assert path.with_name("checkpoint.safetensors.damaged").read_bytes() == holder["bytes"]
    assert same(tickets(finished / "run"), tickets(run.folder))


def test_a_finished_run_is_looked_at_without_tensorflow(finished, copy, trained):
    run = copy("run")
    argv = [*FIND, f"--results_dir={run.folder.parent}", "--name=run", *FLAGS["run"]]
    code = (
        "import json, sys; from tf_lottery.bin import main\n"
        "assert main.dispatch(json.loads(sys.argv[1])) == int(sys.argv[2])\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    for flags, status in ([], 0), (["--replicate=1", "--json"], 0), (["--seed=1"], 1):
        done = subprocess.run(
            [sys.executable, "-c", code, json.dumps([*argv, *flags]), str(status)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert ("finished already" in done.stdout) == (not flags) and ("seed=1 instead of 0" in done.stderr) == status
