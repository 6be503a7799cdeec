"""The report of several runs side by side: its figures, its table, its page, and the command that draws it."""

import itertools
import json

import pytest
from studies import write_sweep, write_tables
from test_report import Page, closed, coarse  # noqa: F401 (fixtures)

from tf_lottery.bin import main
from tf_lottery.report import study as study_report
from tf_lottery.report.style import LeftOut
from tf_lottery.runs import study


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    write_sweep(folder, large_final=0.01, movement=0.0098, random=-0.02)
    for criterion, survivors in itertools.product(("large_final", "random"), ("rewind", "reinit")):
        gain = 0.01 * (criterion == "large_final") - 0.005 * (survivors == "reinit")
        write_tables(
            folder / f"two+criterion={criterion}+survivors={survivors}", gain, criterion=criterion, survivors=survivors
        )
    return folder


def call(results, capsys, *flags):
    status = main.dispatch(["report", f"--results_dir={results}", *flags])
    said = capsys.readouterr()
    return status, said.out, said.err


FIGURES = {"accuracy", "early_stop", "accuracy_by_trainings", "final_accuracy", "ranking"}


def test_a_sweep_by_its_base_name_has_one_page(results, capsys):
    status, out, _ = call(results, capsys, "--name=cmp")
    folder = results / "cmp" / "report"
    assert status == 0 and "not told apart from it: 1 of 2 others: movement" in out
    assert {path.name for path in folder.iterdir()} == {f"{name}.png" for name in FIGURES} | {"table.md", "index.html"}
    page = Page(folder / "index.html")
    assert page.tags.count("img") == len(FIGURES) and "Left out" not in page.text
    table = (folder / "table.md").read_text()
    assert table.count("\n| ") == 5 and "| large_final | 51.2 | 94.23" in table and "| best |" in table
    assert call(results, capsys, "--name=cmp")[0] == 0  # the folder of its page is no run


def test_names_patterns_and_densities(results, capsys):
    names = "cmp+criterion=random,two+criterion=random+survivors=reinit"
    status, out, _ = call(results, capsys, f"--name={names}", "--json", "--densities=0.8,0.5")
    told = json.loads(out)
    assert status == 0 and [path.rpartition("/")[2] for path in told["runs"]] == names.split(",")
    assert list(told["ranking"]) == ["80 %", "50 %"] and told["ranking"]["50 %"][0]["level"] == 3
    assert all("/reports/" in path for path in told["files"])
    assert len(json.loads(call(results, capsys, "--name=*andom*", "--json")[1])["runs"]) == 3
    for flags, message in (
        (["--name=cmp", "--levels=1"], "Expected --levels with one run only"),
        (["--name=other"], "received 'other'"),
        (["--name=cmp", "--densities=2"], "density in (0, 1]"),
    ):
        status, out, err = call(results, capsys, *flags)
        assert status == 1 and not out and message in err


def test_two_flags_are_drawn_in_facets(results):
    found = study.read([results / "two"])
    panels, drawn = study_report._arranged(found, study_report.comparison.combinations(found))
    assert drawn == 4 and [(title, [each.name for each in own]) for title, own in panels] == [
        ("reinit", ["large_final", "random"]),
        ("rewind", ["large_final", "random"]),
    ]
    picture = study_report._curves(found)[0]
    assert [axes.get_title() for axes in picture.figure.axes] == ["reinit", "rewind"]
    assert picture.figure.axes[0].get_ylim() == picture.figure.axes[1].get_ylim()


def test_more_than_two_flags_are_not_refused(tmp_path):
    """Facets while there is room, else those that rank first, and all of them in the ranking."""
    choices = itertools.product(
        ("large_final", "random"), ("rewind", "reinit"), ("layer", "global"), (0, 10), (0.2, 0.4)
    )
    for i, (criterion, survivors, scope, rewind_to, fraction) in enumerate(choices):
        settings = {"criterion": criterion, "survivors": survivors, "scope": scope, "rewind_to": rewind_to}
        write_tables(tmp_path / f"s+run={i}", 0.001 * i, prune_fraction=fraction, **settings)
    three = study.read([tmp_path / "s"]).select(rewind_to=0, prune_fraction=0.2)
    assert len(study_report._arranged(three, study_report.comparison.combinations(three))[0]) == 4
    five = study.read([tmp_path / "s"])
    ((title, first),), drawn = study_report._arranged(five, study_report.comparison.combinations(five))
    assert title == "" and drawn == len(first) == 7
    accuracy = study_report._curves(five)[0]
    assert "the first 7 of the ranking" in accuracy.caption
    (axes,) = study_report.ranked(five).figure.axes
    assert len(axes.get_yticklabels()) == 32


def test_what_would_say_nothing_is_left_out(tmp_path):
    write_tables(tmp_path / "a", levels=1, newer=False)
    one = study.read([tmp_path / "a"])
    drawn = [study_report.ranked(one), *study_report._curves(one)]
    assert all(isinstance(each, LeftOut) for each in drawn)
    assert {each.why for each in drawn} == {
        "there is nothing to compare",
        "no combination has three levels; the table says it all",
        "no run tells its trainings",
    }


def test_what_is_wrong_is_on_the_page_and_the_rest_is_drawn(results, tmp_path, capsys):
    folder = write_tables(tmp_path / "s+criterion=random", criterion="random", eval_every=500).folder
    write_tables(tmp_path / "s+criterion=snip", criterion="snip")
    (folder / "summary.csv").write_text((folder / "summary.csv").read_text()[:-3])
    status, out, _ = call(tmp_path, capsys, "--name=s")
    text = Page(tmp_path / "s" / "report" / "index.html").text
    for said in ("summary.csv is cut", "one of 3 looks at the validation set (eval_every=500, steps=1500)"):
        assert status == 0 and said in out and said in text
