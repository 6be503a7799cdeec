"""`tf-lottery verify`: levels of a run and their controls on disk, resumed, reported; bad input in one sentence."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
from commands import SHORT, call, same, tickets

from tf_lottery import report
from tf_lottery.checks.verdict import CONTROLS
from tf_lottery.runs import verification, verified
from tf_lottery.runs.results import Run
from tf_lottery.tickets.ticket import Ticket

ONE = [flag for flag in SHORT if "replicates" not in flag] + ["--replicates=1"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A short run whose level 2 was verified."""
    folder = tmp_path_factory.mktemp("results")
    assert call("find", f"--results_dir={folder}", "--name=short", *ONE) == 0
    assert call(*verify(folder)) == 0
    return folder


def verify(folder, *flags, level="2"):
    return "verify", f"--results_dir={folder}", "--name=short", f"--level={level}", "--quiet", *flags


def test_all_of_it_is_on_disk(results):
    run = Run(results / "short")
    found = verified.read(run, 2)
    assert {row.name for row in found.rows} == {"dense", "ticket", *CONTROLS, "other_order"} and not found.not_run
    assert len(found.rows) == 7 and found.trainings == 5 and found.examples == 1_000
    for row in found.rows:
        own = run if row.name in ("dense", "ticket") else run.branch(row.name)
        level = 0 if row.name == "dense" else 2
        metrics = own.ticket(row.replicate, level).metrics
        assert row.accuracy == pytest.approx(metrics["early_stop_test_accuracy"], abs=1e-6)
        assert row.step == metrics["early_stop_step"]
    ticket, other = run.ticket(0, 2), run.branch("other_order").ticket(0, 2)
    assert all(np.array_equal(other.initial[path], value) for path, value in ticket.initial.items())
    assert [len(line.errors) for lines in found.lines.values() for line in lines] == [30] * 2
    folder = results / "short" / "verify" / "level_02"
    rows = list(csv.DictReader((folder / "lines.csv").open()))
    assert len(rows) == 60 and len(list(csv.DictReader((folder / "controls.csv").open()))) == 7
    written = json.loads((folder / "verdict.json").read_text())
    assert written["sentence"] == found.sentence and written["won"] is found.won
    assert [each.level for each in verified.read_sound(run)[0]] == [2]


def test_it_goes_on_after_a_stop_and_takes_what_is_there(results, tmp_path, capsys, monkeypatch):
    """A branch that `tf-lottery branch` trained is one of its controls; a network that is missing is the only one that is trained."""
    shutil.copytree(results / "short", tmp_path / "short")
    folder, before = tmp_path / "short", (results / "short" / "verify" / "level_02" / "verdict.json").read_text()
    for name in ("verify", "branches/random_mask", "branches/inverted", "branches/other_order"):
        shutil.rmtree(folder / name)
    branch = ["branch", f"--results_dir={tmp_path}", "--name=short", "--random_mask", "--levels=2", "--quiet"]
    assert call(*branch) == 0
    retrained = verification._reordered

    def stopped(*arguments):
        monkeypatch.setattr(verification, "_reordered", retrained)
        raise KeyboardInterrupt

    monkeypatch.setattr(verification, "_reordered", stopped)
    assert call(*verify(tmp_path)) == 130
    assert Run(folder).branch("inverted").finished() == [(0, 2)] and not (folder / "verify").exists()
    capsys.readouterr()
    assert call(*verify(tmp_path, "--dry_run")) == 0 and not (folder / "verify").exists()
    assert "1 training of 40 steps, and 60 measurements along lines." in capsys.readouterr().out
    assert call(*verify(tmp_path, "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["trained"] == 1 and [{**told["levels"][0], "sha256": json.loads(before)["sha256"]}] == [
        json.loads(before)
    ]
    assert (folder / "verify" / "level_02" / "verdict.json").read_text() == before
    assert same(tickets(results), tickets(tmp_path))


def test_the_report_shows_it(results, tmp_path):
    written = report.write(Run(results / "short"), tmp_path)
    names = {path.name for path in written}
    assert {"verify_02_controls.png", "verify_02_lines.png"} <= names
    page = (tmp_path / "index.html").read_text()
    found = verified.read(Run(results / "short"), 2)
    assert "Level 2 and its controls" in page and found.sentence.split(":")[0] in page


@pytest.mark.parametrize(
    "change, level, message",
    [
        (None, "3", "Expected a run with level 3 of replicate 0, but"),
        (None, "0", "Expected a ticket of a pruned level, from 1 on, but received"),
        ("early_stop_test_accuracy", "2", "Expected a run with early stops"),
        ("level", "2", "Expected a run with level 2 of replicate 0, but"),
    ],
)
def test_bad_input_is_one_sentence(results, tmp_path, change, level, message, capsys):
    shutil.copytree(results / "short", tmp_path / "short")
    if change == "level":
        shutil.rmtree(tmp_path / "short" / "replicate_0" / "level_02")
    elif change:
        for path in (tmp_path / "short").rglob("level.ticket"):  # the tables are not asked
            ticket = Ticket.load(path)
            metrics = {key: value for key, value in ticket.metrics.items() if key != change}
            dataclasses.replace(ticket, metrics=metrics).save(path)
    capsys.readouterr()
    assert call(*verify(tmp_path, level=level)) == 1
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_what_was_not_verified_or_is_damaged(results, tmp_path, capsys):
    assert call("verify", f"--results_dir={results}", "--name=short") == 1
    assert "Expected --name, a run, and --level" in capsys.readouterr().err
    shutil.copytree(results / "short" / "verify", tmp_path / "verify")
    (tmp_path / "verify" / "level_02" / "verdict.json").write_text("{}")
    for level, message in ((1, "to be verified, but it was not"), (2, "is damaged")):
        with pytest.raises(ValueError, match=message):
            verified.read(Run(tmp_path), level)
