"""Folders of results that stay sound: one process at a time, nothing damaged trusted, nothing unfinished left lying."""

import csv
import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tf_lottery.base import guard
from tf_lottery.base.errors import FormatError, LotteryError
from tf_lottery.base.files import whole_file
from tf_lottery.runs import looking, results, tables
from tf_lottery.runs.results import Run
from tf_lottery.tickets.ticket import Ticket

METRICS = {"early_stop_step": 1_234_567, "early_stop_test_accuracy": 0.5, "final_test_accuracy": 0.25, "seconds": 1.5}
CURVE = [
    {"step": s, "train_loss": 1 / s, "validation_loss": 0.5, "validation_accuracy": 0.5, "test_accuracy": None}
    for s in (10, 20)
]


def ticket(level=0, notes=(), seed=0, **metrics):
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(20, 10)).astype("float32")
    mask = (rng.random((20, 10)) < 0.8**level).astype(np.uint8)
    found = {"notes": list(notes)}
    return Ticket({"k": mask}, {"k": weights * mask}, {"k": weights * mask}, level, {**METRICS, **metrics}, found)


@pytest.fixture
def run(tmp_path):
    """A run with two replicates of three levels, one of them with something to note."""
    run = Run(tmp_path / "run")
    for r in (0, 1):
        for k in (0, 1, 2):
            run.write_level(r, ticket(k, ["disconnected: k"] * (k == 2 and r == 1), seed=r), CURVE)
    return run


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_sound_run_is_left_as_it_is(run):
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.folder.rglob("*") if path.is_file()}
    assert run.set_aside_damaged() == []
    assert before == {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in run.folder.rglob("*") if p.is_file()}
    assert len(run.finished()) == 6 and run.finished(1) == [(1, 0), (1, 1), (1, 2)]
    assert run.summary()[0]["early_stop_step"] == 1_234_567
    assert run.notes() == {(1, 2): "disconnected: k"}


@pytest.mark.parametrize("name", ["level.ticket", "curve.csv"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "garbage"])
def test_a_damaged_level_is_named_and_set_aside_and_missing(run, name, damage):
    path = run.level_folder(0, 1) / name
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) - 3] ^= 1
    bad = {"truncated": whole[:-5], "empty": b"", "flipped": bytes(flipped), "garbage": b"\x00\xff not a file"}[damage]
    path.write_bytes(bad)
    said = run.set_aside_damaged()
    assert len(said) == 1 and str(path) in said[0] and "damaged" in said[0]
    assert path.with_name(f"{name}.damaged").read_bytes() == bad and not path.exists()
    assert run.missing(2, range(3)) == [(0, 1)] and len(run.summary()) == 5
    assert run.set_aside_damaged() == []
    run.write_level(0, ticket(1), CURVE)
    path.write_bytes(bad)
    assert "damaged.2" in run.set_aside_damaged()[0] and path.with_name(f"{name}.damaged").read_bytes() == bad


def test_every_byte_of_a_ticket_and_a_curve_counts(run):
    for name in ("level.ticket", "curve.csv"):
        path = run.level_folder(0, 0) / name
        whole = path.read_bytes()
        for at in range(0, len(whole), max(1, len(whole) // 30)):
            broken = bytearray(whole)
            broken[at] ^= 4
            path.write_bytes(broken)
            try:
                assert len(run.set_aside_damaged(only=0)) == 1, (name, at)
            except FormatError as error:
                assert name == "level.ticket" and str(path) in str(error)  # the byte turned it into another version's
            run.write_level(0, ticket(0), CURVE)
            for aside in run.level_folder(0, 0).glob("*.damaged*"):
                aside.unlink()


@pytest.mark.parametrize("name", tables.TABLES)
def test_tables_are_what_the_tickets_say(run, name):
    if name == "supermask.csv":
        for r in (0, 1):
            run.write_level(r, ticket(0, seed=r, mask_accuracy=0.75, sampled_accuracy=None), CURVE)
    path = run.folder / name
    whole = path.read_text()
    changed = whole.replace("0.5", "0.6").replace("0.75", "0.85").replace("disconnected", "fine")
    for bad in (changed, whole[:-3], "replicate\n0,x\n", "\x00"):
        path.write_text(bad)
        said = run.set_aside_damaged()
        assert len(said) == 1 and str(path) in said[0] and path.read_text() == whole
        assert path.with_name(f"{name}.damaged").read_text() == bad
        path.with_name(f"{name}.damaged").unlink()
    lines = whole.splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))  # a process was killed before it wrote the table: nothing is damaged
    if name == "summary.csv":
        assert run.set_aside_damaged() == [] and path.read_text() == whole


def test_a_damaged_table_of_masks_by_rule_is_named_and_set_aside(run):
    row = {"replicate": 0, "criterion": "movement", "signed_constant": True, "density": 0.5, "test_accuracy": 0.25}
    run.write_rule([row])
    assert run.set_aside_damaged() == [] and run.rule() == [row]
    path = run.folder / "supermask_by_rule.csv"
    for bad in (path.read_text()[:-6], "replicate\n0\n", "\x00", path.read_text().replace("True", "Tsue")):
        path.write_text(bad)
        with pytest.raises(LotteryError, match=r"supermask_by_rule.csv, but it is damaged"):
            run.rule()
        assert str(path) in run.set_aside_damaged()[0] and run.rule() == []
        path.with_name(f"{path.name}.damaged").replace(path)  # for the next one


def test_tickets_of_another_version_are_named_and_left_alone(run, monkeypatch):
    monkeypatch.setattr("tf_lottery.tickets.file.FORMAT", "tf_lottery.ticket/99")
    before = contents(run.folder)
    with pytest.raises(FormatError, match=r"ticket/99.*level.ticket.*ticket/2"):
        run.set_aside_damaged()
    assert contents(run.folder) == before


def test_levels_of_older_versions_are_whole(run):
    """Their tickets have no checksum of the curve, and do not say what they are."""
    for level in (0, 1):
        ticket(level).save(run.level_folder(0, level) / "level.ticket")
    (run.level_folder(0, 0) / "curve.csv").unlink()
    assert run.set_aside_damaged() == []
    (run.level_folder(0, 1) / "curve.csv").write_text("step,train_loss\n1,x\n")
    assert "curve.csv" in run.set_aside_damaged()[0] and run.missing(2, range(3)) == [(0, 1)]


def test_what_a_killed_writer_left_is_ignored_and_removed(run):
    left = [run.level_folder(0, 0) / ".level-abcd_123.ticket", run.folder / "replicate_1" / ".curve-abcd0123.csv"]
    left.append(run.folder / ".summary-zzzz0000.csv")
    kept = [run.level_folder(0, 0) / name for name in (".notes", ".level-mine.ticket", "level.ticket.damaged")]
    for path in left + kept:
        path.write_bytes(b"half")
    assert len(run.finished()) == 6 and run.set_aside_damaged() == []
    with run.alone(0):
        assert not left[0].exists()
    run.write_summary()
    assert not any(path.exists() for path in left) and all(path.exists() for path in kept)


def elsewhere(code, **options):
    """A process of its own that holds something until it is told to go on."""
    code = f"import sys, time, pathlib; from tf_lottery.runs.results import Run\n{code}"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True, **options)
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_replicate_is_worked_on_by_one_process_and_a_killed_one_holds_nothing(run):
    code = f"with Run(pathlib.Path({str(run.folder)!r})).alone(1): print('ready', flush=True); sys.stdin.read()"
    other = elsewhere(code)
    try:
        with pytest.raises(LotteryError, match=r"replicate 1 of .*run for this process alone"), run.alone(1):
            pass
        with run.alone(0):  # replicates are shared
            pass
        (run.level_folder(1, 0) / "level.ticket").write_bytes(b"being written, for all we know")
        (run.level_folder(0, 0) / "level.ticket").write_bytes(b"damaged")
        assert len(said := run.set_aside_damaged()) == 1 and "replicate_0" in said[0]
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert (run.folder / "replicate_1" / ".lock").exists()
    assert "replicate_1" in run.set_aside_damaged()[0]  # the lock file is there, and nobody holds it
    assert not list(run.folder.rglob(".lock"))


def test_other_settings_are_refused_while_a_first_level_is_in_training(tmp_path):
    run = Run(tmp_path / "new")
    with run.alone(0):
        run.open({"steps": 3}, {})
        with pytest.raises(LotteryError, match="steps=5 instead of 3"):
            run.check({"steps": 5})
    run.check({"steps": 5})  # nothing was finished under the name


def test_two_processes_that_write_the_tables_at_once_lose_no_row(tmp_path):
    code = (
        f"sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_guard as t\n"
        f"run, r = Run(pathlib.Path({str(tmp_path / 'run')!r})), int(sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "for k in range(12): run.write_level(r, t.ticket(k, seed=r), t.CURVE)"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", f"import sys, pathlib; from tf_lottery.runs.results import Run\n{code}", r]
        )
        for r in "012"
    ]
    assert [process.wait() for process in processes] == [0, 0, 0]
    with (tmp_path / "run" / "summary.csv").open() as file:
        rows = [(int(row["replicate"]), int(row["level"])) for row in csv.DictReader(file)]
    assert rows == [(r, k) for r in range(3) for k in range(12)]


def test_a_killed_writer_leaves_the_old_file_or_the_new_one(tmp_path):
    code = (
        f"sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_guard as t\n"
        f"run = Run(pathlib.Path({str(tmp_path / 'run')!r}))\n"
        "run.write_level(0, t.ticket(0), t.CURVE); print('ready', flush=True)\n"
        "for i in range(10**6): run.write_level(0, t.ticket(i % 2), t.CURVE)"
    )
    run, rng = Run(tmp_path / "run"), np.random.default_rng(0)
    for _ in range(4):
        process = elsewhere(code)
        time.sleep(rng.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        for r, k in run.finished():
            assert Ticket.load(run.level_folder(r, k) / "level.ticket").level == k
        said = run.set_aside_damaged()  # killed between a level's curve and its ticket, which are alike here
        assert said == [] and len(run.summary()) == len(run.finished())


def test_a_full_disk_leaves_no_half_file(tmp_path):
    """A limit on the size of files fails a write in the middle, as a full disk does."""
    big = np.random.default_rng(0).normal(size=(300, 300)).astype("float32")
    large = Ticket({"k": np.ones((300, 300), np.uint8)}, {"k": big}, {"k": big})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        with pytest.raises(Exception, match=r"(?i)file too large") as caught:
            Run(tmp_path / "run").write_level(0, large, CURVE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert isinstance(caught.value, OSError) and caught.value.filename.endswith("level.ticket")
    assert [path.name for path in (tmp_path / "run").rglob("*") if path.is_file()] == ["curve.csv"]


def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_before_the_next_file(tmp_path, monkeypatch):
    target, seen = tmp_path / "a.csv", []

    def fsync(handle):
        seen.append((stat.S_ISDIR(os.fstat(handle).st_mode), target.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    with whole_file(target) as unfinished:
        unfinished.write_text("whole")
    assert seen == [(False, False), (True, True)]


def test_an_error_of_the_disk_names_the_file(tmp_path):
    with pytest.raises(OSError) as caught, whole_file(tmp_path / "a.csv"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "a.csv") and not list(tmp_path.iterdir())


def test_ctrl_c_in_the_middle_of_a_file_leaves_none(tmp_path):
    with pytest.raises(KeyboardInterrupt), whole_file(tmp_path / "new" / "a.csv") as unfinished:
        unfinished.write_text("half")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_waiting_for_a_lock_ends_when_it_is_free(tmp_path):
    code = (
        f"from tf_lottery.base import guard\nwith guard.alone(pathlib.Path({str(tmp_path)!r}), 'it'):\n"
        "    print('ready', flush=True); time.sleep(0.3)"
    )
    for options in ({"wait": True}, {"patience": 60}):  # the second: whoever only looks holds it for a moment too
        process = elsewhere(code)
        with guard.alone(tmp_path, "it", **options):
            assert process.wait() == 0


def test_settings_are_not_written_while_another_process_writes_tables(tmp_path):
    """It would take the unfinished file for what a killed process left."""
    code = (
        f"run = Run(pathlib.Path({str(tmp_path / 'run')!r}))\nwith run._tables():\n"
        "    print('ready', flush=True); time.sleep(0.3)\n    assert [path.name for path in run.folder.iterdir()] == ['.lock']"
    )
    process = elsewhere(code)
    Run(tmp_path / "run").open({"steps": 3}, {})
    assert process.wait() == 0 and Run(tmp_path / "run").settings() == {"steps": 3}


def test_the_cost_of_a_level_does_not_grow_with_those_before_it(tmp_path, monkeypatch):
    read, run = [], Run(tmp_path / "run")
    for module, name in ((results, "read_header"), (looking, "verified")):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda path, real=real: (read.append(path), real(path))[1])
    for r in range(4):
        for k in range(5):
            run.write_level(r, ticket(k, seed=r), CURVE)
    assert read == [] and len(run.summary()) == 20  # no ticket but the new one is looked at
    run.missing(4, range(5))
    assert read == []
    run.set_aside_damaged()
    assert len(read) == 20  # each is verified, and compared with its row
    (run.folder / "summary.csv").unlink()
    read.clear()
    run.write_summary()
    assert len(read) == 20


def test_a_report_asks_once_what_is_finished_whatever_the_number_of_runs(tmp_path, monkeypatch):
    from tf_lottery import report

    asked = {}
    real = Run.finished
    for replicates in (2, 5):
        run = Run(tmp_path / f"run_{replicates}")
        for r in range(replicates):
            for k in (0, 1):
                run.write_level(r, ticket(k, seed=r), CURVE)
        calls = asked[replicates] = []
        monkeypatch.setattr(
            Run, "finished", lambda self, only=None, calls=calls: (calls.append(1), real(self, only))[1]
        )
        report.write(run, tmp_path / "out")
        monkeypatch.setattr(Run, "finished", real)
    assert len(asked[2]) == len(asked[5])
