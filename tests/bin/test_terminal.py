"""What the command line shows: progress, plain lines, JSON, plans of dry runs, and summaries for TensorBoard."""

import dataclasses
import io
import json
import re
import shutil

import pytest
from rich.console import Console

from tf_lottery.bin import main
from tf_lottery.bin.display import LevelDisplay, print_table, table
from tf_lottery.bin.verify import ControlDisplay
from tf_lottery.runs.outcome import Statistic, by_level
from tf_lottery.runs.results import Run
from tf_lottery.training.checkpoint import Checkpoint, Progress

SHORT = ["--name=short", "--levels=1", "--replicates=1", "--steps=40", "--eval_every=10", "--test_every=20"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A short run that was planned first, then made with JSON and TensorBoard: (folder, what the plan said, JSON, stderr)."""
    folder = tmp_path_factory.mktemp("results")
    place = ["find", f"--results_dir={folder}", *SHORT]
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", out)
        patch.setattr("sys.stderr", err)
        assert main.dispatch([*place, "--dry_run"]) == 0
        assert not list(folder.iterdir())
        planned, _ = out.getvalue(), out.truncate(out.seek(0))
        assert main.dispatch([*place, "--json", f"--tensorboard={folder / 'board'}"]) == 0
    return folder, planned, json.loads(out.getvalue()), err.getvalue()


def test_a_dry_run_says_what_there_is_to_do_and_writes_nothing(finished):
    _, planned, _, _ = finished
    assert "0 of 2 levels finished" in planned and "2 trainings of 40 steps, 80 steps in all" in planned
    assert re.search(r"Time: about \d+ s; disk: about [\d.]+ MB \(measured just now: [\d.e+-]+ ms a step", planned)


def test_the_disk_of_a_dry_run_is_that_of_the_run(finished):
    folder, planned, _, _ = finished
    tickets = sum(path.stat().st_size for path in folder.glob("short/**/level.ticket"))
    assert float(re.search(r"disk: about ([\d.]+) MB", planned)[1]) == pytest.approx(tickets / 1e6, rel=0.2, abs=0.1)


def test_a_dry_run_of_a_begun_run_goes_by_its_finished_levels(finished, capsys):
    folder, _, _, _ = finished
    place = [f"--results_dir={folder}", "--name=short", "--dry_run", "--json"]
    assert main.dispatch(["find", *place, *SHORT, "--replicates=3"]) == 0
    plan = json.loads(capsys.readouterr().out)
    rows = Run(folder / "short").summary()
    assert (plan["levels"], plan["trainings"], plan["steps"]) == (6, 4, 160)
    assert plan["seconds"] == pytest.approx(4 * sum(row["seconds"] for row in rows) / 2)
    assert main.dispatch(["branch", *place, "--survivors=reinit"]) == 0
    plan = json.loads(capsys.readouterr().out)
    ticket = folder / "short" / "replicate_0" / "level_01" / "level.ticket"
    assert (plan["trainings"], plan["bytes"]) == (1, ticket.stat().st_size)
    assert not (folder / "short" / "branches").exists()


def test_a_dry_run_counts_what_checkpoints_hold(finished, tmp_path, capsys):
    shutil.copytree(finished[0] / "short", tmp_path / "short")
    path = Run(tmp_path / "short").checkpoint(1, 0)
    path.parent.mkdir(parents=True)
    Checkpoint(path, 0.0, "replicate 1").save(Progress(step=30), [], [])
    assert main.dispatch(["find", f"--results_dir={tmp_path}", *SHORT, "--replicates=2", "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert "2 trainings of 40 steps, 50 steps in all\nThey go on from checkpoints, after 30 steps" in out
    place = ["find", f"--results_dir={tmp_path}", *SHORT, "--replicates=2", "--dry_run", "--json"]
    assert main.dispatch(place) == 0
    seconds = json.loads(capsys.readouterr().out)["seconds"]
    path.unlink()
    assert main.dispatch(place) == 0
    assert seconds == pytest.approx(json.loads(capsys.readouterr().out)["seconds"] * 50 / 80)


def test_a_finished_run_has_nothing_to_do(finished, capsys):
    folder, _, _, _ = finished
    assert main.dispatch(["find", f"--results_dir={folder}", *SHORT, "--dry_run"]) == 0
    assert "2 of 2 levels finished\nTo do: 0 trainings" in capsys.readouterr().out


def test_the_closing_table_is_framed_on_a_terminal_and_plain_in_a_pipe(finished, capsys, monkeypatch):
    folder, *_ = finished
    levels = by_level(Run(folder / "short").summary()) * 2
    levels[0] = dataclasses.replace(levels[0], early_stop_step=Statistic(1_000, 2_000_000, 3_000_000))
    print_table(table("short", levels))
    title, _, *rows = capsys.readouterr().out.splitlines()
    assert title.strip() == "short" and len(rows) == 4
    assert rows[0].split()[:6] == ["0", "100.00", "1,000", "(2,000,000", "to", "3,000,000)"]
    monkeypatch.setenv("FORCE_COLOR", "1")
    print_table(table("short", levels))
    assert "┃" in capsys.readouterr().out


def test_json_is_the_summary_and_progress_goes_to_stderr(finished):
    folder, _, told, err = finished
    rows = Run(folder / "short").summary()
    assert told["trained"] is True and [level["level"] for level in told["levels"]] == [0, 1]
    for level, row in zip(told["levels"], rows):
        for name in ("density", "early_stop_step", "early_stop_test_accuracy", "final_test_accuracy"):
            assert level[name]["mean"] == level[name]["low"] == pytest.approx(row[name])
    assert told["verdict"] and err.count("replicate 0 level") == 2 and "\x1b" not in err


def test_by_rule_trains_nothing_that_could_be_planned_or_watched(finished, capsys):
    folder, _, _, _ = finished
    for flag in ("--dry_run", "--tensorboard=x", "--logger=tensorboard"):
        assert main.dispatch(["supermask", f"--results_dir={folder}", "--name=short", "--by=rule", flag]) == 1
        assert "by=rule only measures" in capsys.readouterr().err


@pytest.fixture(scope="module")
def events(finished):
    """What TensorBoard reads of each folder, by tag: for a tensor the steps, for HParams the plugin's content."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder, found = finished[0] / "board" / "short", {}
    for path in [folder / "replicate_0", *sorted(folder.glob("replicate_0/level_*"))]:
        reader = accumulator.EventAccumulator(str(path), size_guidance={"tensors": 0})
        reader.Reload()
        of_tag = {tag: reader.Tensors(tag) for tag in reader.Tags()["tensors"]}
        plugins = {tag: reader.SummaryMetadata(tag).plugin_data for tag in reader.Tags()["tensors"]}
        found[path.name] = of_tag, plugins
    return found


def test_tensorboard_has_the_curve_of_each_level(finished, events):
    from tensorboard.util import tensor_util

    run = Run(finished[0] / "short")
    for level in (0, 1):
        tensors, plugins = events[f"level_{level:02d}"]
        curve = run.curve(0, level)
        for name in ("train_loss", "validation_loss", "validation_accuracy"):
            assert plugins[name].plugin_name == "scalars"
            written = {e.step: float(tensor_util.make_ndarray(e.tensor_proto)) for e in tensors[name]}
            assert written == pytest.approx({row["step"]: row[name] for row in curve}, rel=1e-4)
        assert {20, 40} <= {e.step for e in tensors["test_accuracy"]}


def test_tensorboard_has_histograms_images_and_settings(events):
    from tensorboard.plugins.hparams import plugin_data_pb2
    from tensorboard.util import tensor_util

    for level in (0, 1):
        tensors, plugins = events[f"level_{level:02d}"]
        kept = [tag for tag in tensors if tag.startswith("kept/")]
        pictures = [tag for tag in tensors if tag.startswith("mask/")]
        assert len(kept) == len(pictures) == 3
        assert all(plugins[tag].plugin_name == "histograms" for tag in kept)
        assert all(plugins[tag].plugin_name == "images" for tag in pictures)
        assert [e.step for e in tensors[kept[0]]] == [0, 40] and [e.step for e in tensors[pictures[0]]] == [0, 40]
        counted = tensor_util.make_ndarray(tensors[kept[0]][0].tensor_proto)[:, 2].sum()
        density = float(tensor_util.make_ndarray(tensors[f"density/{kept[0].removeprefix('kept/')}"][0].tensor_proto))
        assert density == pytest.approx(0.8**level, rel=1e-3)
        assert counted == pytest.approx(density * 40 * 500, abs=1)  # the kernel of the first layer
        settings = plugin_data_pb2.HParamsPluginData.FromString(plugins["_hparams_/session_start_info"].content)
        hparams = settings.session_start_info.hparams
        assert hparams["criterion"].string_value == "large_final" and hparams["level"].number_value == level


def test_tensorboard_has_the_outcome_of_each_level(finished, events):
    tensors, _ = events["replicate_0"]
    assert [e.step for e in tensors["by_level/density"]] == [0, 1]
    assert {tag for tag in tensors if tag.startswith("by_level/")} >= {
        "by_level/early_stop_test_accuracy",
        "by_level/seconds",
    }


def test_without_tensorboard_the_flag_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main.dispatch(["find", f"--results_dir={tmp_path}", *SHORT, "--tensorboard=x"]) == 1
    assert "tf_lottery[tensorboard]" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("terminal", [True, False])
def test_a_verification_tells_which_control_is_trained_and_of_how_many_trainings(terminal):
    display = ControlDisplay([(0, 7), (0, 7), (0, 15)], 150)
    shown = Console(file=io.StringIO(), width=80, force_terminal=terminal)
    display.console = display.progress.live.console = shown
    row = {"replicate": 0, "level": 7, "density": 0.2, "early_stop_step": 20, "early_stop_test_accuracy": 0.5}
    display.control("reinit")
    display.begin(0, 7, 0.2, 50)
    display.done({**row, "final_test_accuracy": 0.5, "seconds": 1.0, "notes": None})
    display.control("random_mask")
    display.begin(0, 7, 0.2, 50)
    shown.print(*([display.progress.get_renderable()] if terminal else []))
    words = " ".join(shown.file.getvalue().split())
    assert "training 1 of 3, new weights under its mask: replicate 0 level 7: density 20.00 %" in words
    assert "1 of 3 trainings" in words if terminal else "training 2 of 3, its mask shuffled within" in words
    display.line("instability", 0, 7)
    shown.print(*([display.progress.get_renderable()] if terminal else []))
    assert "between two trainings" in " ".join(shown.file.getvalue().split())


def test_progress_tells_levels_replicates_and_steps():
    display = LevelDisplay([(0, 0), (0, 1), (1, 0)], 150)
    assert display.told() == "0 of 3 levels, 0 of 2 replicates"
    console = display.progress.live.console = Console(file=io.StringIO(), width=160, force_terminal=True)
    display.begin(0, 0, 1.0, 50)
    display.advance(20, 20)
    row = {
        "replicate": 0,
        "level": 0,
        "density": 1.0,
        "early_stop_step": 20,
        "early_stop_test_accuracy": 0.5,
        "notes": None,
    }
    display.done({**row, "final_test_accuracy": 0.5, "seconds": 1.0})
    console.print(display.progress.get_renderable())
    shown = console.file.getvalue()
    assert "1 of 3 levels, 0 of 2 replicates" in shown and "20 of 50 steps" in shown
    assert "replicate 0, level 0 (100 %)" in shown and shown.count("left") == 2
    display.done({**row, "level": 1, "final_test_accuracy": 0.5, "seconds": 1.0})
    assert display.told() == "2 of 3 levels, 1 of 2 replicates"


def test_a_study_tells_once_what_masks_do_harm_and_in_a_line(tmp_path, capfd, forked_workers):
    place = [
        f"--results_dir={tmp_path}",
        "--name=s",
        "--model=residual_mlp",
        "--criterion=random,small_final",
        "--quiet",
    ]
    place += [
        "--levels=1",
        "--replicates=2",
        "--steps=10",
        "--eval_every=5",
        "--test_every=10",
        "--prune_fraction=0.995",
    ]
    assert main.dispatch(["find", *place, "--workers=2"]) == 0
    said = capfd.readouterr().err.splitlines()
    assert all(line.startswith("tf-lottery: ") for line in said) and "UserWarning" not in "".join(said)
    harm = [line for line in said if "of the weights of" in line]
    assert (
        harm
        and len(harm) < 4
        and re.match(r"tf-lottery: s\+criterion=\w+, replicate \d: warning: of the weights", harm[0])
    )
    assert re.fullmatch(rf"tf-lottery: {4 - len(harm)} more masks? do(es)? the like to .*", said[-1])
