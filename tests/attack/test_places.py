"""Little memory and odd places: names that are no text, folders that were moved, linked or cannot be written, clocks that go backwards."""

import errno
import itertools
import os
import shutil
import time

import filelock
import pytest
import tensorflow as tf
from besieged import FIND, FLAGS, PLUGIN
from commands import call, same, tickets

from tf_lottery.base.errors import LotteryError
from tf_lottery.runs.results import Run
from tf_lottery.training.trainer import Trainer


def test_what_cannot_be_allocated_is_one_sentence(finished, copy, monkeypatch, capsys):
    run = copy("run")
    (run.level_folder(1, 3) / "level.ticket").unlink()
    place = [f"--results_dir={run.folder.parent}", "--name=run", *FLAGS["run"]]
    oom = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[9,9]\n\t [[node]]")

    def fails(error):
        def raised(*_, **__):
            raise error

        return raised

    for owner, name, error, words in (
        (
            Trainer,
            "_trained",
            oom,
            "training of level 3 of replicate 1.*OOM when allocating tensor.*smaller batch_size",
        ),
        (Trainer, "__init__", oom, "OOM when allocating tensor"),
        (Trainer, "__init__", MemoryError("Unable to allocate 9 GiB"), "Unable to allocate 9 GiB"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fails(error))
            assert call(*FIND, *place) == 1
        err = capsys.readouterr().err
        last = err.splitlines()[-1]
        assert last.startswith("tf-lottery: Expected memory for") and "node" not in err and "Traceback" not in err
        assert all(word in last for word in words.split(".*"))
    assert call(*FIND, *place) == 0 and same(tickets(finished / "run"), tickets(run.folder))


@pytest.mark.parametrize("name", [os.fsdecode(b"caf\xe9"), "a\nb", "a\0b", "\x1b[2J", "../x", ".x", ""], ids=ascii)
def test_names_that_are_no_text_are_refused_at_the_start(name, tmp_path, capsys):
    with pytest.raises(LotteryError, match="Expected a name"):
        Run.at(str(tmp_path), name)
    for argv in ([f"--name={name}"], [f"--results_dir={tmp_path}/{name}", "--name="]) if not name.isprintable() else []:
        for command in ("find", "report", "branch"):
            assert call(command, f"--results_dir={tmp_path}", *argv) == 1
            assert (err := capsys.readouterr().err).startswith("tf-lottery: Expected") and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_run_goes_on_where_it_was_moved_and_by_a_link_whatever_the_clock_says(
    finished, tmp_path, trained, monkeypatch
):
    """And with another number of threads, which changes no level that is there."""
    shutil.copytree(finished / "run", tmp_path / "elsewhere" / "moved")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "other").symlink_to(tmp_path / "elsewhere" / "moved")
    clock = itertools.count(10**9, -1_000)
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    for folder, name in ((tmp_path / "elsewhere", "moved"), (tmp_path / "link", "moved"), (tmp_path / "link", "other")):
        shutil.rmtree(folder / name / "replicate_0" / "level_03")
        assert call(*FIND, f"--results_dir={folder}", f"--name={name}", *FLAGS["run"]) == 0
        assert same(tickets(finished / "run"), tickets(folder / name))
        branch = [
            "branch",
            f"--results_dir={folder}",
            f"--name={name}",
            "--survivors=reinit",
            "--levels=1,2",
            "--quiet",
        ]
        assert call(*branch) == 0
    assert len(trained) == 3  # level 3, three times
    monkeypatch.setattr(tf.config.threading, "get_intra_op_parallelism_threads", lambda: 64)
    assert call(*FIND, f"--results_dir={folder}", f"--name={name}", *FLAGS["run"]) == 0 and len(trained) == 3


def test_a_folder_that_cannot_be_written_is_said_and_still_drawn(copy, monkeypatch, capsys):
    run = copy("shot")
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}

    def read_only(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(filelock.FileLock, "acquire", read_only)
    assert call(*FIND, f"--results_dir={run.folder.parent}", "--name=shot", *FLAGS["shot"]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "a folder that can be written" in err and "Read-only file system" in err
    output = f"--output={run.folder.parent / 'page'}"
    assert call("report", f"--results_dir={run.folder.parent}", "--name=shot", PLUGIN, output) == 0
    assert before == {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
