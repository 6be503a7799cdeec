"""What version 0.1 wrote, before its modules stood in rooms, is read as it was: models, a ticket, and the folder of a run."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import call

from tf_lottery.runs.outcome import by_level
from tf_lottery.runs.results import Run

OLDER = Path(__file__).parent / "data" / "version_0_1"
EXPECTED = np.load(OLDER / "expected.npz")
FIND = [
    "--dataset=mnist1d",
    "--model=lenet_300_100",
    "--levels=1",
    "--steps=40",
    "--eval_every=20",
    "--replicates=1",
    "--batch_size=50",
    "--name=run",
]

LOAD = """
import sys
import keras
import numpy as np
import tf_lottery

out, *files = sys.argv[1:]
x = np.load(out)["x"]
np.savez(out, **{file: keras.models.load_model(file).predict(x, verbose=0) for file in files})
"""


@pytest.fixture
def run(tmp_path):
    shutil.copytree(OLDER / "run", tmp_path / "run")
    return Run.at(str(tmp_path), "run")


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_models_predict_what_they_predicted(tmp_path):
    """A model under masks, a layer that holds values, a learned supermask; each knows its classes by their saved names."""
    names = ("masked", "layer", "learned")
    np.savez(tmp_path / "out.npz", x=EXPECTED["x"])
    files = [str(OLDER / f"{name}.keras") for name in names]
    subprocess.run([sys.executable, "-c", LOAD, str(tmp_path / "out.npz"), *files], check=True, capture_output=True)
    found = np.load(tmp_path / "out.npz")
    for name, file in zip(names, files):
        np.testing.assert_allclose(found[file], EXPECTED[name], rtol=1e-5, atol=1e-6)


def test_a_ticket_is_read_and_applied():
    import keras

    import tf_lottery as tfl

    ticket = tfl.Ticket.load(OLDER / "level_2.ticket")
    layers = [keras.layers.Dense(16, "relu", name="hidden"), keras.layers.Dense(3, name="output")]
    model = ticket.apply(keras.Sequential([keras.Input((6,)), *layers], name="net"), weights="final")
    assert ticket.level == 2 and ticket.density == 0.25
    assert {path: mask.sum() for path, mask in tfl.get_masks(model).items()} == {
        "net/hidden/kernel": 24,
        "net/output/kernel": 12,
    }
    np.testing.assert_allclose(model.predict(EXPECTED["x"], verbose=0), EXPECTED["ticket"], rtol=1e-5, atol=1e-6)


def test_the_folder_of_a_run_is_read(run):
    assert run.settings()["model"] == "lenet_300_100" and run.finished() == [(0, 0), (0, 1)]
    assert [level.level for level in by_level(run.summary())] == [0, 1]
    assert [row["step"] for row in run.curve(0, 1)] == [20, 40]
    for level, row in enumerate(run.summary()):
        assert row["density"] == pytest.approx(run.ticket(0, level).density, abs=1e-6)


def test_a_report_of_it_is_drawn(run, tmp_path):
    assert call("report", f"--results_dir={tmp_path}", "--name=run", f"--output={tmp_path / 'page'}") == 0
    assert {"index.html", "table.md", "curves.png"} <= {path.name for path in (tmp_path / "page").iterdir()}


def test_of_a_finished_run_nothing_is_left_to_do(run, tmp_path, capfd):
    before = contents(run.folder)
    assert call("find", *FIND, f"--results_dir={tmp_path}", "--json", "--quiet") == 0
    assert '"trained": false' in capfd.readouterr().out
    assert contents(run.folder) == before


def test_such_a_run_is_gone_on_with(run, tmp_path):
    """Its settings know no roads, its table has fewer columns, and its tickets do not tell what they cost."""
    before, levels = run.summary(), [flag for flag in FIND if "levels" not in flag]
    assert call("find", *levels, "--levels=2", f"--results_dir={tmp_path}", "--quiet") == 0
    after = run.summary()
    assert [{name: row[name] for name in before[0]} for row in after[:2]] == before
    assert [row["trainings"] for row in after] == [None, None, 3]
    assert after[1]["final_validation_accuracy"] == pytest.approx(run.ticket(0, 1).metrics["final_validation_accuracy"])
    assert run.settings()["search"] == "iterative"
