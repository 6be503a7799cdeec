"""The command line from end to end: find, branch, report, killed and started again, and what it says to bad input."""

import csv
import importlib.metadata
import os
import re
import signal
import subprocess
import sys
import time

import forked
import numpy as np
import pytest
from commands import SHORT, call, same, tickets

from tf_lottery.runs.results import Run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished short run with two branches, made through the command line."""
    folder = tmp_path_factory.mktemp("results")
    place = [f"--results_dir={folder}", "--name=short"]
    assert call("find", *place, *SHORT) == 0
    assert call("branch", *place, "--survivors=reinit", "--quiet") == 0
    assert call("branch", *place, "--random_mask", "--levels=2", "--quiet") == 0
    return folder


def test_files_are_where_the_design_says(finished):
    run = finished / "short"
    expected = {
        f"replicate_{r}/level_{k:02d}/{name}"
        for r in (0, 1)
        for k in (0, 1, 2)
        for name in ("curve.csv", "level.ticket")
    }
    assert expected <= {str(path.relative_to(run)) for path in run.glob("**/*")}
    with (run / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    columns = "replicate,level,density,early_stop_step,early_stop_test_accuracy,final_test_accuracy,seconds"
    columns += ",trainings,steps,early_stop_validation_accuracy,final_validation_accuracy"
    assert list(rows[0]) == columns.split(",") and len(rows) == 6
    assert [float(row["density"]) for row in rows[:3]] == pytest.approx([1, 0.8, 0.64])
    with (run / "replicate_0/level_01/curve.csv").open() as file:
        curve = list(csv.DictReader(file))
    assert list(curve[0]) == ["step", "train_loss", "validation_loss", "validation_accuracy", "test_accuracy"]
    assert [row["step"] for row in curve] == ["10", "20", "30", "40"]
    assert {b.name for b in Run(run).branches()} == {"reinit", "random_mask"}
    assert Run(run).branch("random_mask").finished() == [(0, 2), (1, 2)]


def test_replicates_differ_and_branches_share_the_trunks_masks(finished):
    found = tickets(finished / "short")
    assert not same({"": found["replicate_0/level_02/level.ticket"]}, {"": found["replicate_1/level_02/level.ticket"]})
    trunk, reinit, random = (
        found[f"{branch}replicate_0/level_02/level.ticket"].masks
        for branch in ("", "branches/reinit/", "branches/random_mask/")
    )
    for path, mask in trunk.items():
        assert np.array_equal(mask, reinit[path]) and mask.sum() == random[path].sum()
        assert not np.array_equal(mask, random[path])


def test_a_finished_run_says_so_and_does_nothing(finished, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.glob("**/*") if path.is_file()}
    place = [f"--results_dir={finished}", "--name=short"]
    assert call("find", *place, *SHORT) == 0 and "finished already" in capsys.readouterr().out
    assert call("branch", *place, "--survivors=reinit") == 0 and "finished already" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_the_closing_words_name_the_winner(finished, capsys):
    call("find", f"--results_dir={finished}", "--name=short", *SHORT)
    out = capsys.readouterr().out
    assert re.search(
        r"(The winning ticket:|No ticket won; the best:) level [12] with (80|64) % of the weights.*2 replicates", out
    )


def test_reports_are_drawn_from_result_files_alone(finished, tmp_path, capsys):
    copy = tmp_path / "results" / "short"
    for path in (finished / "short").glob("**/*.*"):
        if path.suffix in (".csv", ".json"):  # no tickets
            (copy / path.relative_to(finished / "short")).parent.mkdir(parents=True, exist_ok=True)
            (copy / path.relative_to(finished / "short")).write_bytes(path.read_bytes())
    assert call("report", f"--results_dir={tmp_path / 'results'}", "--name=short", "--levels=0,2") == 0
    figures = {"accuracy.png", "final_accuracy.png", "early_stop.png", "curves.png"}
    assert {path.name for path in (copy / "report").iterdir()} == {*figures, "table.md", "index.html"}
    assert all((copy / "report" / name).read_bytes().startswith(b"\x89PNG") for name in figures)
    table = (copy / "report" / "table.md").read_text()
    assert table.count("| reinit |") == 2 and table.count("| random mask |") == 1 and table.count("| ticket |") == 3


def test_levels_without_curves_and_damaged_tables_are_named(finished, tmp_path, capsys):
    assert call("report", f"--results_dir={finished}", "--name=short", "--levels=0,9", f"--output={tmp_path}") == 1
    assert "none for 9" in capsys.readouterr().err
    (tmp_path / "short").mkdir()
    (tmp_path / "short" / "summary.csv").write_text("replicate,level\n0,x\n")
    assert call("report", f"--results_dir={tmp_path}", "--name=short") == 1
    assert "summary.csv, but it is damaged" in capsys.readouterr().err


def test_a_name_is_free_again_if_nothing_was_finished_under_it(tmp_path):
    place = [f"--results_dir={tmp_path}", "--name=short"]
    assert call("find", *place, *SHORT, "--learning_rate=1e38", "--optimizer=sgd") == 1
    assert call("find", *place, *SHORT, "--levels=1", "--replicates=1") == 0


def test_more_replicates_and_levels_extend_a_run(finished, tmp_path):
    place = [f"--results_dir={tmp_path}", "--name=short"]
    small = [flag for flag in SHORT if not flag.startswith(("--levels", "--replicates"))]
    assert call("find", *place, *small, "--levels=1", "--replicates=1") == 0
    assert call("find", *place, *small, "--levels=2", "--replicates=2", "--replicate=1") == 0
    assert Run(tmp_path / "short").finished() == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    assert call("find", *place, *SHORT) == 0
    trunk = {name: ticket for name, ticket in tickets(finished / "short").items() if "branches" not in name}
    assert same(trunk, tickets(tmp_path / "short"))


def test_killed_and_started_again_gives_the_same_results(finished, tmp_path):
    command = ["find", f"--results_dir={tmp_path}", "--name=short", *SHORT]
    for level in ("replicate_0/level_00", "replicate_1/level_00"):
        process = forked.Popen(command)
        while not (tmp_path / "short" / level / "level.ticket").is_file():
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(Run(tmp_path / "short").finished()) < 6
    assert forked.run(command).returncode == 0
    trunk = {name: ticket for name, ticket in tickets(finished / "short").items() if "branches" not in name}
    assert same(trunk, tickets(tmp_path / "short"))


BAD = [
    (["find", "--model=lenet"], "lenet_300_100.*'lenet'"),
    (["find", "--criterion=magnitude"], "large_final.*'magnitude'"),
    (["find", "--survivors=x"], "rewind, keep.*'x'"),
    (["find", "--pruned=x"], "zero, freeze_init.*'x'"),
    (["find", "--scope=x"], "layer, global.*'x'"),
    (["find", "--reset=x"], "each_level, at_end.*'x'"),
    (["find", "--optimizer=x"], "adam, sgd.*'x'"),
    (["find", "--dataset=x"], "mnist1d, mnist.*'x'"),
    (["find", "--prune_fraction=0"], r"\(0, 1\).*0"),
    (["find", "--prune_fraction=1"], r"\(0, 1\).*1"),
    (["find", "--prune_fraction=Dense=2"], r"received 2\.$"),
    (["find", "--prune_fraction=Conv2D=0.1"], "cover every kernel"),
    (["find", "--prune_fraction=a=b"], "kind=number"),
    (["find", "--levels=0"], "levels of at least 1.* 0"),
    (["find", "--replicates=0"], "replicates of at least 1.* 0"),
    (["find", "--replicate=3"], "0 to 2.*replicate=3"),
    (["find", "--seed=-1"], "seed of 0 or more.*-1"),
    (["find", "--steps=-5"], "steps of at least 1.*-5"),
    (["find", "--test_every=0"], "test_every of at least 1.*0"),
    (["find", "--learning_rate=-1"], "learning_rate above 0.*-1"),
    (["find", "--learning_rate=nan"], "learning_rate above 0.*nan"),
    (["find", "--prune_fraction=nan"], r"\(0, 1\).*nan"),
    (["find", "--prunable=("], "regular expressions.*'\\('"),
    (["find", "--augment"], r"images for --augment, but mnist1d.*\(40,\)"),
    (["find", "--scope=global", "--prune_fraction=output=0.1,Dense=0.2"], "one prune_fraction.*0.1, 0.2"),
    (["find", "--name=../x"], "without slashes.*'../x'"),
    (["find", "--name="], "without slashes.*''"),
    (["branch", "--name=x", "--levels=5-2", "--survivors=reinit"], "5-2"),
    (["find", "--steps=0"], "steps of at least 1"),
    (["find", "--batch_size=9999"], "batch_size=9999"),
    (["find", "--prunable=nothing"], "at least one prunable kernel"),
    (["find", "--model=conv2", "--dataset=mnist1d"], r"fit conv2, but mnist1d.*\(40,\)"),
    (["find", "--results_dir=/proc/nowhere"], "can be written.*/proc/nowhere"),
    (["find", "--levels=many"], "--levels=many"),
    (["find", "--lr_drops=1,x"], "1,x"),
    (["find", "--lr_drops=5,1"], "rising drops"),
    (["find", "--modl=lenet"], "modl.*model"),
    (["find", "lenet"], "flags only.*'lenet'"),
    (["find", "--rewind_to=-1"], "rewind_to of 0 or more.*-1"),
    (["find", "--rewind_to=999999", "--steps=5"], "within the 5 steps.*999999"),
    (["find", "--learning_rate=1e38", "--optimizer=sgd", "--steps=20"], "Level 0 of replicate 0 stopped.*finite.*step"),
    (["branch"], "--name"),
    (["branch", "--name=none", "--survivors=reinit"], "there is none"),
    (["find", "--levels=two"], r"levels=two: expected a whole number, but received 'two'\. --help"),
    (["find", "--learning_rate=fast"], r"expected a number, but received 'fast'\. --help"),
    (["find", "--criteron=random"], r"Did you mean: criterion\? --help lists the flags\."),
    (["report", "--name=none"], "received .none."),
    (["report"], "--name"),
    (["fnd"], "find, branch, .*supermask, .*claims, report.*'fnd'"),
]


@pytest.mark.parametrize(("argv", "message"), BAD, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_bad_input_is_one_sentence_and_leaves_nothing_behind(argv, message, tmp_path, capsys):
    place = [] if any("results_dir" in flag for flag in argv) or argv == ["fnd"] else [f"--results_dir={tmp_path}"]
    assert call(*argv, *place) == 1
    out, err = capsys.readouterr()
    assert re.search(message, err), err
    assert err.startswith("tf-lottery: ") and err.count("\n") == 1 and "Traceback" not in out + err
    assert not list(tmp_path.glob("**/*.ticket"))
    began = "--learning_rate=1e38" in argv  # only this one failed while training
    assert began or not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["find", *SHORT, "--seed=1"], "seed=1 instead of 0"),
        (["find", *SHORT, "--levels=1"], "levels=1 instead of 2"),
        (["branch", "--survivors=reinit", "--seed=1"], "seed=1 instead of 0"),
        (["branch", "--survivors=reinit", "--levels=7"], "level 7 of replicate 0"),
        (["branch"], "--survivors, --pruned or --random_mask"),
        (["branch", "--survivors=again"], "Did you mean 'rewind'|rewind, keep"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_run_is_never_mixed_with_other_settings(finished, argv, message, capsys):
    before = {path: path.read_bytes() for path in finished.glob("**/*") if path.is_file()}
    assert call(*argv, f"--results_dir={finished}", "--name=short") == 1
    assert re.search(message, capsys.readouterr().err)
    assert before == {path: path.read_bytes() for path in finished.glob("**/*") if path.is_file()}


def test_a_damaged_spec_or_ticket_is_named(finished, tmp_path, capsys):
    (tmp_path / "short").mkdir()
    (tmp_path / "short" / "spec.json").write_text("{")
    assert call("find", f"--results_dir={tmp_path}", "--name=short", *SHORT) == 1
    assert "spec.json" in capsys.readouterr().err
    spec = (finished / "short" / "spec.json").read_text()
    (tmp_path / "short" / "spec.json").write_text(spec.replace('"seed": 0', '"seed": 1'))
    assert call("find", f"--results_dir={tmp_path}", "--name=short", *SHORT) == 1
    assert "spec.json, but it cannot be read (it is not as it was written: " in capsys.readouterr().err
    (tmp_path / "short" / "spec.json").write_text(spec)
    level = tmp_path / "short" / "replicate_0" / "level_00"
    level.mkdir(parents=True)
    (level / "level.ticket").write_bytes(b"not a ticket")
    assert call("find", f"--results_dir={tmp_path}", "--name=short", *SHORT) == 0
    assert "level.ticket is damaged" in capsys.readouterr().err and (level / "level.ticket.damaged").is_file()


def test_help_lists_commands_and_flags_without_tensorflow():
    code = (
        "import sys; from tf_lottery.bin import main\n"
        "for argv in (['--help'], ['find', '--help'], ['branch', '--help'], ['report', '--help']):\n"
        "    try: main.dispatch(argv)\n"
        "    except SystemExit as stop: assert stop.code == 0\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for word in (
        "find",
        "branch",
        "report",
        "--prune_fraction",
        "--survivors",
        "--random_mask",
        "--output",
        "large_final",
    ):
        assert word in out


def test_piped_output_is_plain_lines_without_noise(tmp_path):
    command = [sys.executable, "-m", "tf_lottery.bin.main", "find", f"--results_dir={tmp_path}", "--steps=5"]
    env = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [*command, "--levels=1", "--replicates=1"], capture_output=True, text=True, check=True, env=env
    )
    if importlib.metadata.version("tensorflow") >= "2.21":  # before, XLA announces itself whatever is set
        assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert [line for line in done.stdout.splitlines() if line.startswith("replicate 0 level  1: density  80.00 %")]
