"""Runs of the command line that cannot be lost: damaged files, other processes, full disks, levels that went wrong."""

import csv
import resource
import shutil
import signal

import forked
import pytest
from commands import SHORT, call, same, tickets

from tf_lottery.runs.results import Run

ONE = [flag for flag in SHORT if "replicates" not in flag] + ["--replicates=1"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished short run of one replicate."""
    folder = tmp_path_factory.mktemp("results")
    assert call("find", f"--results_dir={folder}", "--name=short", *ONE) == 0
    return folder


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished / "short", tmp_path / "short")
    return tmp_path


@pytest.mark.parametrize("name", ["level.ticket", "curve.csv"])
def test_a_damaged_level_is_trained_again_and_nothing_else_is(finished, copy, name, capsys):
    broken = copy / "short" / "replicate_0" / "level_01" / name
    whole, others = broken.read_bytes(), {p: p.stat().st_mtime_ns for p in copy.glob("*/*/level_0[02]/*")}
    broken.write_bytes(whole[:-20])
    assert call("find", f"--results_dir={copy}", "--name=short", *ONE) == 0
    out, err = capsys.readouterr()
    assert f"{broken} is damaged" in err and f"{name}.damaged" in err and "finished already" not in out
    assert broken.with_name(f"{name}.damaged").read_bytes() == whole[:-20]
    assert same(tickets(finished), tickets(copy)) and (name == "level.ticket" or broken.read_bytes() == whole)
    assert others and others == {p: p.stat().st_mtime_ns for p in others}


def test_a_damaged_branch_is_trained_again(copy, capsys):
    branch = ["branch", f"--results_dir={copy}", "--name=short", "--survivors=reinit", "--levels=2", "--quiet"]
    assert call(*branch) == 0
    before, folder = tickets(copy), copy / "short" / "branches" / "reinit"
    (folder / "replicate_0" / "level_02" / "curve.csv").write_text("step\n")
    (folder / "summary.csv").write_text("replicate\n")
    assert call(*branch) == 0
    assert capsys.readouterr().err.count("is damaged") == 2 and same(before, tickets(copy))


def test_the_second_process_on_a_replicate_is_refused(copy):
    place = [f"--results_dir={copy}", "--name=short", *SHORT]
    with Run(copy / "short").alone(1):
        other = forked.run(["find", *place])
        assert other.returncode == 1 and other.stderr.count("\n") == 1
        assert "replicate 1" in other.stderr and "another one is working on it" in other.stderr
        assert call("find", *place, "--replicate=0") == 0  # finished, and nobody else's
    assert Run(copy / "short").finished() == [(0, 0), (0, 1), (0, 2)] and not list(copy.rglob(".lock"))


def test_a_full_disk_is_one_sentence_and_no_half_file(tmp_path, capsys):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        status = call("find", f"--results_dir={tmp_path}", "--name=short", *ONE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    err = capsys.readouterr().err
    assert status == 1 and err.count("\n") == 1 and "level.ticket failed (File too large)" in err
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"spec.json", "curve.csv"}


def test_levels_that_disconnect_are_marked(tmp_path, capsys):
    settings = ["--model=lenet_300_100", "--dataset=mnist1d", "--criterion=random", "--prune_fraction=0.98"]
    small = ["--levels=2", "--replicates=1", "--steps=20", "--eval_every=10", f"--results_dir={tmp_path}", "--name=cut"]
    assert call("find", *settings, *small) == 0
    out = capsys.readouterr().out
    level = next(line for line in out.splitlines() if line.startswith("replicate 0 level  2"))
    assert "disconnected: " in level and "dead: " in level
    assert out.count("disconnected: ") == 2 and "dead" not in next(
        line for line in out.splitlines() if "level  0" in line
    )
    run = Run(tmp_path / "cut")
    assert list(run.notes()) == [(0, 2)] and "disconnected" in run.notes()[0, 2]
    with (run.folder / "summary.csv").open() as file:
        assert "notes" not in csv.DictReader(file).fieldnames
    assert call("report", f"--results_dir={tmp_path}", "--name=cut") == 0
    table = (run.folder / "report" / "table.md").read_text()
    assert "level 2: disconnected" in table and "level 1" not in table
