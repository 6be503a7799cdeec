"""Many tasks at once: the same results as one after the other, whatever fails, is killed or interrupted."""

import functools
import importlib.util
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import forked
import pytest
from commands import SHORT, call, same, tickets
from miniature import CLAIMS, miniature

from tf_lottery.base import guard
from tf_lottery.base.errors import LotteryError, LotteryWarning
from tf_lottery.bin import tasks as tasks_lib
from tf_lottery.claims import plan as plan_lib
from tf_lottery.runs.executor import executor
from tf_lottery.runs.executor import processes as on_processes
from tf_lottery.runs.executor import task as task_lib
from tf_lottery.runs.executor.task import Task
from tf_lottery.runs.results import Run
from tf_lottery.runs.settings import Settings


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished short run of two replicates, one after the other in one process with the threads of one of two."""
    folder = tmp_path_factory.mktemp("results")
    threads = str(task_lib.threads_each(2))
    env = {**os.environ, "TF_NUM_INTRAOP_THREADS": threads, "TF_NUM_INTEROP_THREADS": threads}
    done = forked.run(["find", f"--results_dir={folder}", "--name=short", *SHORT], env=env)
    assert done.returncode == 0, done.stderr
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
    warnings.warn(LotteryWarning("{density} of {}", name), stacklevel=1)
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
    assert {("a", "tell", "A"), ("a", "tell", "warning: --density of a")} <= set(recorder.heard)


def test_bad_input_is_refused():
    for options, message in (
        ({"workers": 0}, "workers of at least 1.*0"),
        ({"executor": "slurm"}, "local, ray.*'slurm'"),
    ):
        with pytest.raises(LotteryError, match=message):
            executor.run([], Path(), Recorder(), **options)


def test_processors_are_shared_out():
    cores = len(os.sched_getaffinity(0))
    assert [task_lib.threads_each(workers) for workers in (1, cores, 10 * cores)] == [cores, 1, 1]


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


def test_a_replicate_that_fails_stops_nobody_else(finished, tmp_path, capsys, forked_workers):
    place = [f"--results_dir={tmp_path}", "--name=short", "--workers=2", *SHORT]
    with Run(tmp_path / "short").alone(1):
        assert call("find", *place) == 1
    err = capsys.readouterr().err
    assert "replicate 1" in err and "another one is working on it" in err and err.count("\n") == 1
    assert Run(tmp_path / "short").finished() == [(0, 0), (0, 1), (0, 2)]
    assert call("find", *place, "--strategy=mirrored") == 1 and "--strategy" in capsys.readouterr().err


PAUSE = """
import functools, os, pathlib, time
from tf_lottery.rules import criteria

here, real = pathlib.Path(__file__).parent, criteria.registry["large_final"]

@functools.wraps(real)
def paused(initial, *args, **kwargs):
    if initial.ndim == 2:  # no trial on a small kernel, as each process makes one first
        (here / f"at_work_{os.getpid()}").touch()
        while (here / "gate").exists():
            time.sleep(0.02)
    return real(initial, *args, **kwargs)

criteria.registry._functions["large_final"] = paused
"""


class Command:
    """`find` with two workers, each of which waits within its replicate, after a level, while the gate is there."""

    def __init__(self, folder):
        self.results, self.aside = folder / "results", folder / "aside"
        self.aside.mkdir()
        (self.aside / "pause.py").write_text(PAUSE)
        self.gate, self.run = self.aside / "gate", Run(self.results / "short")
        self.process = None

    def start(self, at_work):
        """Starts it; returns the processes that are at work, once there are so many, and wait."""
        self.gate.touch()
        for mark in self.aside.glob("at_work_*"):
            mark.unlink()
        place = [f"--results_dir={self.results}", "--name=short", "--workers=2", f"--plugin={self.aside / 'pause.py'}"]
        self.process = forked.Popen(["find", *place, *SHORT])
        self.until(lambda: len(list(self.aside.glob("at_work_*"))) == at_work)
        return [int(mark.name.removeprefix("at_work_")) for mark in self.aside.glob("at_work_*")]

    def until(self, condition, seconds=300):
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def ended(self):
        """(status, out, err)"""
        out, err = self.process.communicate(timeout=300)
        return self.process.returncode, out, err


@pytest.fixture
def command(tmp_path):
    command = Command(tmp_path)
    yield command
    command.gate.unlink(missing_ok=True)
    if command.process and command.process.poll() is None:
        command.process.kill()
        command.process.communicate()


def test_interrupted_and_killed_workers_go_on_to_the_same_results(finished, command):
    own = command.start(at_work=2)
    command.process.send_signal(signal.SIGINT)
    status, out, err = command.ended()
    assert status == 130 and err.strip().startswith("Interrupted") and err.count("\n") == 2, (out, err)
    assert len(own) == 2 and not any(Path(f"/proc/{pid}").exists() for pid in own)
    assert command.run.finished() == [(0, 0), (1, 0)] and not list(command.results.rglob(".*"))

    lost, _ = command.start(at_work=2)
    os.kill(lost, signal.SIGKILL)
    command.gate.unlink()
    status, out, err = command.ended()
    assert status == 1 and "ended by signal 9; the same command goes on with it" in err and "Traceback" not in err
    assert len(command.run.finished()) == 4  # the other replicate was finished

    command.start(at_work=1)
    command.process.kill()
    command.ended()
    folders = list(command.run.folder.glob("replicate_*"))
    deadline = time.monotonic() + 60
    while any(map(guard.is_taken, folders)):  # until the worker has noticed, though it waits
        assert time.monotonic() < deadline
        time.sleep(0.02)
    command.start(at_work=1)
    command.gate.unlink()
    assert command.ended()[0] == 0
    assert same(tickets(finished), tickets(command.results)) and not list(command.results.rglob(".*"))


@pytest.mark.parametrize("joined", [True, False], ids=["before", "meanwhile"])
def test_a_worker_that_ends_before_it_takes_its_task_is_told_of(joined, tmp_path, monkeypatch):
    class Killed(on_processes._Worker):
        def __init__(self, *args):
            super().__init__(*args)
            self.process.kill()
            if joined:
                self.process.join()

    monkeypatch.setattr(on_processes, "_Worker", Killed)
    failed = executor.run([task("a"), task("b", ["a"])], tmp_path, Recorder(), workers=2)
    assert "a is not finished, because its process was ended by signal 9" in str(failed["a"]) and "b" in failed


def test_an_interrupt_while_a_worker_starts_is_not_lost_and_not_the_workers():
    mask = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where a shell began the tests with &
    try:
        with pytest.raises(KeyboardInterrupt), on_processes._interrupts_held():
            os.kill(os.getpid(), signal.SIGINT)
            assert subprocess.run([sys.executable, "-c", mask], capture_output=True, text=True).stdout == "True\n"
    finally:
        signal.signal(signal.SIGINT, before)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_sweep_makes_a_run_of_each_value(tmp_path, capsys):
    place = [f"--results_dir={tmp_path}", "--name=s", "--levels=1", "--replicates=1", "--steps=5", "--eval_every=5"]
    assert call("find", *place, "--criterion=random,movement", "--seed=2") == 0
    out = capsys.readouterr().out
    folders = {f"s+criterion={c}" for c in ("random", "movement")}
    assert {path.name for path in tmp_path.iterdir()} == folders | {"s"}
    assert all(Run(tmp_path / name).finished() == [(0, 0), (0, 1)] and name in out for name in folders)
    settings = Run(tmp_path / "s+criterion=random").settings()
    assert (settings["criterion"], settings["seed"]) == ("random", 2)
    trunk = [f"--results_dir={tmp_path}", "--name=s+criterion=random"]
    assert call("branch", *trunk, "--survivors=reinit,constant", "--quiet") == 0
    assert {b.name for b in Run(tmp_path / "s+criterion=random").branches()} == {"reinit", "constant"}


def test_claims_know_what_comes_after_what(tmp_path):
    plan = miniature()
    todo = {task.name: task for task in plan.tasks(plan.missing(plan.names(), tmp_path))}
    assert todo["protocol/reinit, replicate 1"].after == {"protocol, replicate 1"}
    assert todo["protocol/reinit, replicate 1"].run == "protocol/branches/reinit"
    by_rule = next(task for name, task in todo.items() if "by_rule" in name)
    assert by_rule.after == {"dense, replicate 0", "dense, replicate 1"} and by_rule.replicate is None
    again = pickle.loads(pickle.dumps(by_rule))
    assert again.work.keywords == by_rule.work.keywords


def test_claims_with_two_workers(tmp_path, monkeypatch, capsys, forked_workers):
    monkeypatch.setitem(plan_lib.PLANS, "quick", miniature)
    argv = ["claims", CLAIMS, f"--results_dir={tmp_path}", "--workers=2"]
    assert call(*argv) == 0
    assert "protocol/reinit, replicate 1: " in capsys.readouterr().out
    runs = tmp_path / "claims_quick"
    assert Run(runs / "protocol").branch("reinit").finished() == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert {row["replicate"] for row in Run(runs / "dense").rule()} == {0, 1}
    assert call(*argv) == 0 and "finished already" in capsys.readouterr().out


@pytest.fixture(scope="module")
def local_ray():
    """Ray, which is installed and begins on this machine: it wants memory, ports and several processes."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'tf_lottery[ray]'")
    code = "import ray; ray.init(num_cpus=1, include_dashboard=False); ray.shutdown()"
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180)
    except subprocess.TimeoutExpired:
        pytest.skip("Ray does not begin on this machine within three minutes")
    if done.returncode:
        pytest.skip(f"Ray does not begin on this machine: {done.stderr[-300:]}")


def test_a_local_ray_finds_what_one_process_finds(local_ray, finished, tmp_path, capsys):
    place = [f"--results_dir={tmp_path}", "--name=short"]
    small = [*SHORT, "--executor=ray", "--workers=2"]
    shutil.copytree(finished / "short" / "replicate_0" / "level_00", tmp_path / "short" / "replicate_0" / "level_00")
    shutil.copytree(finished / "short" / "replicate_0" / "level_01", tmp_path / "short" / "replicate_0" / "level_01")
    shutil.copy(finished / "short" / "spec.json", tmp_path / "short")
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
