"""Results as data: studies, their tables, rankings and plots, and folders that were edited by hand."""

import json
import math
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from studies import write_sweep, write_tables
from test_report import write_run

import tf_lottery as tfl
from tf_lottery.base.student import quantile
from tf_lottery.runs import comparison, study
from tf_lottery.runs.comparison import Difference

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return write_sweep(tmp_path_factory.mktemp("results"), large_final=0.01, movement=0.0098, random=-0.02)


@pytest.fixture
def without_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)


def test_a_table_has_a_column_for_what_varies_and_a_row_for_each_level(sweep, without_pandas):
    loaded = tfl.results.load(sweep)
    table = loaded.table()
    assert len(table) == 3 * 3 * 4 and loaded.varying == loaded.flags == ("criterion",) and not loaded.notes
    assert list(table[0]) == ["run", "criterion", "replicate", "seed", "level", *study.MEASURED]
    assert table[5] == {
        "run": "cmp+criterion=large_final",
        "criterion": "large_final",
        "replicate": 1,
        "seed": 1,
        "level": 1,
        "density": 0.8,
        "trainings": 2,
        "steps": 1500,
        "early_stop_step": 490,
        "early_stop_validation_accuracy": 0.923,
        "early_stop_test_accuracy": 0.921,
        "final_validation_accuracy": 0.913,
        "final_test_accuracy": 0.911,
        "seconds": 2,
    }


def test_with_pandas_it_is_a_frame(sweep):
    pandas = pytest.importorskip("pandas")
    loaded = tfl.results.load(sweep)
    frame = loaded.table()
    assert isinstance(frame, pandas.DataFrame) and frame.density.dtype == float and len(frame) == 36
    assert frame.groupby("criterion").early_stop_test_accuracy.mean().idxmin() == "random"
    assert list(loaded.ranking().criterion) == ["large_final", "movement", "random"]


def test_what_a_name_stands_for(sweep, without_pandas):
    folder = sweep.parent
    names = {"cmp+criterion=random": 1, "cmp": 3, "cmp*": 3, "*final": 1}
    assert {name: len(tfl.results.load(folder / name).entries) for name in names} == names
    several = tfl.results.load([folder / "cmp+criterion=random", str(folder / "cmp*m*")])
    assert [entry.settings["criterion"] for entry in several.entries] == ["random", "movement"]
    for name in ("other", "cm", "x*"):
        with pytest.raises(tfl.LotteryError, match=f"received '{re.escape(name)}'.*has cmp\\."):
            tfl.results.load(folder / name)


def test_a_ranking_pairs_seeds(sweep, without_pandas):
    best, second, last = tfl.results.load(sweep).ranking()
    assert [row["criterion"] for row in (best, second, last)] == ["large_final", "movement", "random"]
    assert best["to_best"] is None and best["level"] == 3 and best["seeds"] == 3
    noise = [0.001 * ((replicate + 3 + 11) % 2 - (replicate + 11) % 2) for replicate in range(3)]
    differences = [0.03 + each for each in noise]
    reach = 4.302653 * statistics.stdev(differences) / math.sqrt(3)
    assert best["to_dense"] == pytest.approx(statistics.mean(differences))
    assert best["to_dense_high"] - best["to_dense"] == pytest.approx(reach)
    assert last["to_best"] == pytest.approx(-0.05, abs=2e-3) and last["told_apart"] and last["level"] == 1
    asked = tfl.results.load(sweep).ranking(density=0.65)
    assert {row["level"] for row in asked} == {2} and asked[1]["to_best"] == pytest.approx(-0.0004 - 0.001 / 3)
    with pytest.raises(tfl.LotteryError, match="density in"):
        tfl.results.load(sweep).ranking(density=2)


def test_what_is_not_finished_is_not_ranked_and_no_mean_is_over_fewer_replicates(tmp_path, without_pandas):
    """The dense network is no answer at a density, nor is a level far from it, and a replicate alone is not drawn among means."""
    for criterion in ("random", "movement", "snip"):
        write_tables(tmp_path / f"s+criterion={criterion}", criterion=criterion)
    for criterion, least in (("movement", 1), ("snip", 2)):  # of replicates 1 and 2
        path = tmp_path / f"s+criterion={criterion}" / "summary.csv"
        lines = path.read_text().splitlines()
        path.write_text("\n".join([x for x in lines if x[0] in "r0" or int(x.split(",")[1]) < least]) + "\n")
    loaded = tfl.results.load(tmp_path / "s")
    assert {row["criterion"]: row["level"] for row in loaded.ranking(density=0.5)} == {"random": 3, "snip": 1}
    assert [row["criterion"] for row in loaded.ranking(density=0.38)] == ["random"]
    assert {row["level"] for row in loaded.ranking(density=1)} == {0}
    said = comparison.remarks(loaded, [0.38])
    assert (
        "movement is not ranked at 38 % of the weights: no pruned level within a factor of 2 of that is finished"
        in " ".join(said)
    )
    assert comparison.unranked(loaded) == [
        "movement is not ranked: no pruned level is finished in all of its replicates."
    ]
    assert "s+criterion=snip: replicates 1-2 have 2 of 4 levels so far." in loaded.notes
    axes = loaded.plot("early_stop_test_accuracy", "density")
    drawn = {line.get_label(): len(line.get_xdata()) for line in axes.get_lines()}
    assert drawn == {"random": 4, "movement": 1, "snip": 2}


def test_intervals_are_those_of_student():
    stats = pytest.importorskip("scipy.stats")
    for freedom in (1, 2, 3, 4, 9, 30, 101):
        assert quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom))
    one = Difference.of([0.1])
    assert str(one) == "+10.00, one seed" and not one.told_apart and Difference.of([]) is None
    assert Difference.of([0.1, 0.1]).told_apart and not Difference.of([0.0, 0.0]).told_apart


def test_the_best_level_is_chosen_by_validation_and_not_by_test(tmp_path, without_pandas):
    run = write_tables(tmp_path / "run", 0.01)
    path = run.folder / "summary.csv"
    lines = path.read_text().splitlines()
    changed = [lines[0]]
    for line in lines[1:]:
        cells = line.split(",")
        cells[8] = "0.99" if cells[1] == "2" else cells[8]
        changed.append(",".join(cells))
    path.write_text("\n".join(changed) + "\n")
    assert tfl.results.load(run.folder).ranking()[0]["level"] == 2
    write_tables(tmp_path / "older", 0.01, newer=False)
    older = tfl.results.load(tmp_path / "older")
    (row,) = older.ranking()
    assert row["level"] == 3 and row["trainings"] is None and "older runs do not tell" in comparison.note(older)


def test_runs_that_differ_in_their_seed_alone_are_replicates(tmp_path, without_pandas):
    for seed in (0, 2):
        for criterion in ("large_final", "random"):
            write_tables(tmp_path / f"s+seed={seed}+criterion={criterion}", 0.01, seed=seed, criterion=criterion)
    loaded = tfl.results.load(tmp_path / "s")
    assert loaded.flags == ("criterion",) and {row["seeds"] for row in loaded.ranking()} == {5}  # 0 1 2 and 2 3 4
    assert {row["seed"] for row in loaded.table()} == {0, 1, 2, 3, 4}


def test_the_same_settings_under_two_names_are_both_shown(tmp_path, without_pandas):
    for name in "ab":
        write_tables(tmp_path / name)
    loaded = tfl.results.load([tmp_path / "a", tmp_path / "b"])
    assert loaded.flags == ("run",) and [row["run"] for row in loaded.ranking()] == ["a", "b"]


def test_settings_that_follow_from_others_tell_nothing_apart(tmp_path, without_pandas):
    for model in ("residual_mlp", "lenet_300_100"):
        write_tables(tmp_path / f"s+model={model}", model=model)
    loaded = tfl.results.load(tmp_path / "s")
    assert loaded.flags == ("model",) and {"steps", "batch_size", "dataset"} < set(loaded.varying)


def test_branches_come_with_their_run(without_pandas):
    loaded = tfl.results.load(ROOT / "docs" / "results" / "lenet_mnist")
    assert loaded.flags == ("branch",) and {row["branch"] for row in loaded.table()} == {"", "reinit", "random_mask"}
    reinit = {row["branch"]: row for row in loaded.ranking()}["reinit"]
    assert reinit["to_dense"] < 0 and reinit["seeds"] == 3  # to the dense networks of its run


def test_folders_edited_by_hand_are_named_and_the_rest_is_shown(tmp_path, without_pandas):
    """A missing level, a cut table, other settings, a damaged curve and ticket, and a table that says otherwise than the tickets."""
    cut, edited, sound = (
        write_tables(tmp_path / f"s+criterion={c}", criterion=c) for c in ("random", "movement", "snip")
    )
    text = (cut.folder / "summary.csv").read_text()
    (cut.folder / "summary.csv").write_text(text[:-4])
    spec = json.loads((edited.folder / "spec.json").read_text())
    spec["settings"]["criterion"] = "large_final"
    (edited.folder / "spec.json").write_text(json.dumps(spec))
    gap = write_run(tmp_path / "s+gap=1", levels=3, replicates=2)
    (gap.level_folder(1, 2) / "level.ticket").unlink()
    (gap.level_folder(0, 1) / "curve.csv").write_text("step,train_loss\n10,")
    (gap.level_folder(0, 3) / "level.ticket").write_bytes(b"no ticket")
    summary = (gap.folder / "summary.csv").read_text()
    (gap.folder / "summary.csv").write_text(summary.replace("0,0,1,20,0.9,", "0,0,1,20,0.99,"))
    loaded = tfl.results.load(tmp_path / "s")
    said = "\n".join(loaded.notes)
    assert {entry.name for entry in loaded.entries} == {cut.name, sound.name, gap.name}
    for part in (
        f"{cut.name}: summary.csv is cut",
        f"{cut.name}: replicate 2 has 3 of 4 levels so far",
        f"{edited.name} is left out",
        f"{gap.name}: level 2 of replicate 1 stands in summary.csv, but its ticket is gone",
        f"{gap.name}: the ticket of level 3 of replicate 0 cannot be read",
        f"{gap.name}: summary.csv is not what the tickets say of level 0 of replicate 0",
    ):
        assert part in said
    row = loaded.select(run=gap.name).table()[0]
    assert row["early_stop_test_accuracy"] == 0.9 and len(loaded.table()) == 11 + 12 + 8
    with pytest.warns(UserWarning, match=r"curve.csv of level 1 of replicate 0 is not as it was written"):
        curves = loaded.curves()
    assert len(curves) == 3 * 7 and {row["level"] for row in curves} == {0, 1, 2, 3}


def test_tickets_and_curves_of_a_run(tmp_path, without_pandas):
    loaded = tfl.results.load(write_run(tmp_path / "run", levels=2).folder)
    found = list(loaded.tickets(replicate=1))
    assert [(row["replicate"], row["level"], ticket.level) for row, ticket in found] == [
        (1, 0, 0),
        (1, 1, 1),
        (1, 2, 2),
    ]
    assert list(loaded.curves()[0]) == ["run", "replicate", "seed", "level", "density", *study.CURVES]
    for settings, message in (({"colour": 1}, "received 'colour'"), ({"model": "other"}, "has, but received")):
        with pytest.raises(tfl.LotteryError, match=message):
            loaded.select(**settings)


def test_plots_on_given_or_new_axes(sweep):
    loaded = tfl.results.load(sweep)
    axes = loaded.plot()
    assert [line.get_label() for line in axes.get_lines()] == ["large_final", "movement", "random"]
    assert list(axes.get_lines()[0].get_xdata()) == pytest.approx([100, 80, 64, 51.2])
    _, given = plt.subplots()
    assert loaded.plot("early_stop_step", "trainings", axes=given) is given
    assert list(given.get_lines()[0].get_ydata()) == [500, 490, 480, 470] and given.get_xlabel() == "trainings spent"
    with pytest.raises(tfl.LotteryError, match="received 'accuracy'"):
        loaded.plot("accuracy")
    plt.close("all")


def test_a_study_prints_its_table_and_who_won(sweep):
    loaded = tfl.results.load(sweep)
    text = str(loaded)
    assert (
        text.count("│\n") >= 3
        and "Best by validation accuracy: large_final" in text
        and "1 of 2 others: movement" in text
    )
    assert loaded._repr_html_().count("<tr>") == 4


def test_results_are_read_without_tensorflow_and_without_another_screen(sweep):
    code = (
        f"import sys, matplotlib, tf_lottery as tfl; s = tfl.results.load({str(sweep)!r}); s.table(), str(s), s.plot()"
    )
    code += "; assert not {'tensorflow', 'keras'} & set(sys.modules); print(matplotlib.get_backend())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "MPLBACKEND": "svg"},
    )
    assert done.returncode == 0 and done.stdout.strip() == "svg", done.stderr


def test_the_page_about_results_says_what_is_there(sweep, tmp_path, monkeypatch):
    """Every file and every column; and its code runs."""
    page = (ROOT / "docs" / "results.md").read_text()
    from tf_lottery.runs import tables

    columns = {*tables.SUMMARY, *tables.NOTES, *tables.SUPERMASKS, *tables.RULE, *tables.CURVE, *study.MEASURED}
    assert not [column for column in columns if f"`{column}`" not in page]
    (tmp_path / "results").mkdir()
    write_sweep(tmp_path / "results", large_final=0.01, movement=0.0)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```py\n(.*?)```", page, re.DOTALL)
    assert blocks
    for code in blocks:
        exec(compile(code, "results.md", "exec"), {})
    plt.close("all")
