"""Many tasks at once: the same results as one after the other, whatever fails, is killed or interrupted."""

import functools
import importlib.util
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import test_claims
from test_command_line import SHORT, call, same, tickets

from tf_lottery import executor
from tf_lottery.bin import tasks as tasks_lib
from tf_lottery.claims import plan as plan_lib
from tf_lottery.errors import LotteryError
from tf_lottery.executor import Task
from tf_lottery.results import Run
from tf_lottery.settings import Settings


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished short run of two replicates, one after the other in one process."""
    folder = tmp_path_factory.mktemp("results")
    assert call("find", f"--results_dir={folder}", "--name=short", *SHORT) == 0
    return folder


class Recorder:
    """A display that keeps what it is told."""

    def __init__(self):
        self.heard = []

    def __getattr__(self, name):
        return lambda task, *rest: self.heard.append((task.name, name, *rest))


def record(name, fails, experiment, folder, display):
    with (folder / "order").open("a") as file:
        file.write(f"{name} ")
    display.tell(name.upper())
    if fails:
        raise LotteryError(f"{name} failed.")


def task(name, after=(), fails=False):
    return Task(name, functools.partial(record, name, fails), "run", 0, (), 0, frozenset(after))


def test_tasks_come_after_those_they_wait_for_and_a_failure_stops_only_those(tmp_path):
    chain = [task("d", ["c"]), task("c", ["b"]), task("b", ["a"], fails=True), task("a"), task("e", ["a", "elsewhere"])]
    recorder = Recorder()
    failed = executor.run(chain, tmp_path, recorder)
    assert (tmp_path / "order").read_text() == "a b e "
    assert str(failed["b"]) == "b failed." and list(failed) == ["b", "c", "d"]
    assert str(failed["c"]) == "c was not begun, because b is not finished." and "because c" in str(failed["d"])
    assert ("a", "tell", "A") in recorder.heard


def test_bad_input_is_refused():
    for options, message in (
        ({"workers": 0}, "workers of at least 1.*0"),
        ({"executor": "slurm"}, "local, ray.*'slurm'"),
    ):
        with pytest.raises(LotteryError, match=message):
            executor.run([], Path(), Recorder(), **options)


def test_processors_are_shared_out():
    cores = len(os.sched_getaffinity(0))
    assert [executor.threads_each(workers) for workers in (1, cores, 10 * cores)] == [cores, 1, 1]


def test_several_values_of_a_flag_are_a_run_each():
    def names(*argv):
        return [tasks_lib.suffixed("x", values) for values, _ in tasks_lib.combinations(argv, Settings)]

    assert names("--levels=3", "--one_shot") == ["x"]
    assert names("--criterion=a,b", "--seed", "1,2", "--name=y,z") == [
        "x+criterion=a+seed=1",
        "x+criterion=a+seed=2",
        "x+criterion=b+seed=1",
        "x+criterion=b+seed=2",
    ]
    assert names("--prune_fraction=0.2,0.5", "--seed=1,1") == [
        "x+prune_fraction=0.2+seed=1",
        "x+prune_fraction=0.5+seed=1",
    ]
    assert names("--prune_fraction=output=0.1,Dense=0.2", "--lr_drops=1,2", "--prunable=a,b") == ["x"]
    lines = [words for _, words in tasks_lib.combinations(["--learning_rate=0.1,0.2", "--quiet"], Settings)]
    assert lines == [["--learning_rate=0.1", "--quiet"], ["--learning_rate=0.2", "--quiet"]]


def test_two_workers_find_what_one_finds(finished, tmp_path, capsys):
    place = [f"--results_dir={tmp_path}", "--name=short", "--workers=2", *SHORT[:-1]]
    assert call("find", *place) == 0
    out = capsys.readouterr().out
    assert out.count("replicate ") >= 6 and "2 replicates" in out and "\x1b" not in out
    assert same(tickets(finished), tickets(tmp_path))
    ours, theirs = (folder / "short" / "spec.json" for folder in (tmp_path, finished))
    assert ours.read_bytes() == theirs.read_bytes() and not list(tmp_path.rglob(".*"))
    assert call("find", *place) == 0 and "finished already" in capsys.readouterr().out
    assert call("find", *place, "--seed=5") == 1 and "seed=5 instead of 0" in capsys.readouterr().err
    broken = tmp_path / "short" / "replicate_1" / "level_02" / "curve.csv"
    broken.write_text("step")
    with Run(tmp_path / "short").alone(0):  # somebody else is at work there
        assert call("find", *place) == 0 and f"{broken} is damaged" in capsys.readouterr().err
    assert same(tickets(finished), tickets(tmp_path))


def test_a_replicate_that_fails_stops_nobody_else(finished, tmp_path, capsys):
    place = [f"--results_dir={tmp_path}", "--name=short", "--workers=2", *SHORT]
    with Run(tmp_path / "short").alone(1):
        assert call("find", *place) == 1
    err = capsys.readouterr().err
    assert "replicate 1" in err and "another one is working on it" in err and err.count("\n") == 1
    assert Run(tmp_path / "short").finished() == [(0, 0), (0, 1), (0, 2)]
    assert call("find", *place, "--strategy=mirrored") == 1 and "--strategy" in capsys.readouterr().err


def children(pid):
    found = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in found.splitlines() if "spawn_main" in line]


def until(condition, process, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)


def test_interrupted_and_killed_workers_go_on_to_the_same_results(finished, tmp_path):
    run = Run(tmp_path / "short")
    command = [sys.executable, "-m", "tf_lottery.bin.find", f"--results_dir={tmp_path}", "--name=short", "--workers=2"]

    def start():
        heeding = functools.partial(
            signal.signal, signal.SIGINT, signal.SIG_DFL
        )  # what runs in the background ignores it
        return subprocess.Popen([*command, *SHORT], stdout=-1, stderr=-1, text=True, preexec_fn=heeding)

    process = start()
    until(run.finished, process)
    own = children(process.pid)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and err.strip().startswith("Interrupted") and err.count("\n") == 2, (out, err)
    assert len(own) == 2 and not any(Path(f"/proc/{pid}").exists() for pid in own)
    before = run.finished()
    assert not list(tmp_path.rglob(".*")) and len(before) < 6

    process = start()
    until(lambda: len(children(process.pid)) == 2 and len(run.finished()) > len(before), process)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    out, err = process.communicate(timeout=300)
    if process.returncode:  # it had still something to do
        assert "ended by signal 9; the same command goes on with it" in err and "Traceback" not in err
    assert subprocess.run([*command, *SHORT], capture_output=True).returncode == 0
    assert same(tickets(finished), tickets(tmp_path)) and not list(tmp_path.rglob(".*"))


def test_a_sweep_makes_a_run_of_each_combination(tmp_path, capsys):
    place = [f"--results_dir={tmp_path}", "--name=s", "--levels=1", "--replicates=1", "--steps=5", "--eval_every=5"]
    assert call("find", *place, "--criterion=random,movement", "--seed=1,2") == 0
    out = capsys.readouterr().out
    folders = {f"s+criterion={c}+seed={s}" for c in ("random", "movement") for s in (1, 2)}
    assert {path.name for path in tmp_path.iterdir()} == folders
    assert all(Run(tmp_path / name).finished() == [(0, 0), (0, 1)] and name in out for name in folders)
    assert Run(tmp_path / "s+criterion=random+seed=2").settings()["criterion"] == "random"
    trunk = [f"--results_dir={tmp_path}", "--name=s+criterion=random+seed=1"]
    assert call("branch", *trunk, "--survivors=reinit,constant", "--quiet") == 0
    assert {b.name for b in Run(tmp_path / "s+criterion=random+seed=1").branches()} == {"reinit", "constant"}


def test_claims_know_what_comes_after_what(tmp_path):
    plan = test_claims.miniature()
    todo = {task.name: task for task in plan.tasks(plan.missing(plan.names(), tmp_path))}
    assert todo["protocol/reinit, replicate 1"].after == {"protocol, replicate 1"}
    assert todo["protocol/reinit, replicate 1"].run == "protocol/branches/reinit"
    by_rule = next(task for name, task in todo.items() if "by_rule" in name)
    assert by_rule.after == {"dense, replicate 0", "dense, replicate 1"} and by_rule.replicate is None
    again = pickle.loads(pickle.dumps(by_rule))
    assert again.work.keywords == by_rule.work.keywords


def test_claims_with_two_workers(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(plan_lib.PLANS, "quick", test_claims.miniature)
    argv = ["claims", test_claims.CLAIMS, f"--results_dir={tmp_path}", "--workers=2"]
    assert call(*argv) == 0
    assert "protocol/reinit, replicate 1: " in capsys.readouterr().out
    runs = tmp_path / "claims_quick"
    assert Run(runs / "protocol").branch("reinit").finished() == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert {row["replicate"] for row in Run(runs / "dense").rule()} == {0, 1}
    assert call(*argv) == 0 and "finished already" in capsys.readouterr().out


@pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="needs Ray: pip install 'tf_lottery[ray]'")
def test_a_local_ray_finds_what_one_process_finds(finished, tmp_path, capsys):
    place = [f"--results_dir={tmp_path}", "--name=short"]
    small = [*SHORT, "--executor=ray", "--workers=2"]
    assert call("find", *place, *small[:0], *SHORT, "--levels=1", "--replicates=1") == 0
    broken = tmp_path / "short" / "replicate_0" / "level_01" / "level.ticket"
    broken.write_bytes(b"damaged")
    assert call("find", *place, *small) == 0
    assert f"{broken} is damaged" in capsys.readouterr().err and broken.with_name("level.ticket.damaged").is_file()
    assert same(tickets(finished), tickets(tmp_path)) and len(Run(tmp_path / "short").summary()) == 6
    assert call("branch", *place, "--survivors=reinit", "--levels=2", "--executor=ray", "--workers=2", "--quiet") == 0
    assert Run(tmp_path / "short").branch("reinit").finished() == [(0, 2), (1, 2)]
    (tmp_path / "short" / "replicate_1" / "level_00" / "level.ticket").unlink()
    assert call("branch", *place, "--survivors=constant", "--executor=ray", "--workers=2", "--quiet") == 1
    assert "level 0 of replicate 1" in capsys.readouterr().err
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="needs Ray: pip install 'tf_lottery[ray]'")
def test_a_cluster_that_is_not_there_is_said_so(tmp_path, capsys):
    address = ["--executor=ray", "--ray_address=127.0.0.1:9"]
    assert call("find", f"--results_dir={tmp_path}", "--name=x", *SHORT, *address) == 1
    assert "Expected a Ray cluster at '127.0.0.1:9'" in capsys.readouterr().err and not list(tmp_path.iterdir())
