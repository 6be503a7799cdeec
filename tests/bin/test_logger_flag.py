"""--logger: each level is told once, whoever trained it, and no training is lost for a logger."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from commands import call

from tf_lottery.runs.results import Run
from tf_lottery.search import loggers

TESTS = Path(__file__).parents[1]
EXAMPLES = TESTS.parent / "examples" / "loggers"
FIND = ["find", f"--plugin={TESTS / 'tiny.py'}", "--model=tiny", "--quiet"]

NOTEBOOK = """
import json, os, signal
import tf_lottery as tfl

@tfl.loggers.register
class Notebook:
    def __init__(self, path):
        self.path = path

    def on_run_begin(self, run):
        self.run = run
        self.write(id=run.id, replicate=run.settings["replicate"], seed=run.settings["seed"])

    def on_level_end(self, level):
        self.write(level=level.level, density=round(level.metrics["density"], 2), ticket=level.ticket.level, rows=len(level.curve))
        if os.environ.get("DIE_AT") == f"{self.run.name} {level.level}":
            os.kill(os.getpid(), signal.SIGKILL)
        if os.environ.get("FAIL_AT") == f"{self.run.name} {level.level}":
            raise OSError("no network")

    def on_run_end(self, error=None):
        self.write(end=type(error).__name__ if error else "well")

    def write(self, **what):
        with open(self.path, "a") as file:
            file.write(json.dumps({"run": self.run.name, **what}) + chr(10))
"""


@pytest.fixture
def notebook(tmp_path):
    """The flags for a logger that writes a line for each call, and what it has written so far."""
    (tmp_path / "notebook.py").write_text(NOTEBOOK)
    flags = [f"--plugin={tmp_path / 'notebook.py'},{TESTS / 'tiny.py'}", f"--logger=Notebook={tmp_path / 'lines'}"]

    def read():
        path = tmp_path / "lines"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    yield flags, read
    loggers.registry._functions.pop("Notebook", None)
    sys.modules.pop("notebook", None)


def levels(lines):
    return [(line["run"], line["level"]) for line in lines if "level" in line]


def test_each_level_is_told_once_whoever_trained_it(tmp_path, notebook, monkeypatch, capsys):
    flags, read = notebook
    place = [*FIND, f"--results_dir={tmp_path / 'r'}", "--replicates=1"]
    assert call(*place, "--name=a") == 0 and read() == []  # without
    assert call(*place, "--name=a", *flags, "--replicates=2") == 0  # later, with one replicate more
    lines = read()
    assert levels(lines) == [(f"a/replicate_{r}", k) for r in (1, 0) for k in range(3)]
    assert {(line["seed"], line["replicate"]) for line in lines if "seed" in line} == {(0, 0), (0, 1)}
    assert [line["end"] for line in lines if "end" in line] == ["well", "well"]
    assert {line["rows"] for line in lines if "level" in line} == {8}
    assert all(line["ticket"] == line["level"] for line in lines if "level" in line)
    assert call(*place, "--name=a", *flags, "--replicates=2") == 0 and read() == []  # again

    assert call(*place, "--name=b", *flags) == 0  # taken over from a, and told like any other
    assert levels(read()) == [("b/replicate_0", k) for k in range(3)]
    monkeypatch.setenv("FAIL_AT", "b/reinit/replicate_0 1")
    capsys.readouterr()
    branch = ["branch", f"--results_dir={tmp_path / 'r'}", "--name=b", "--survivors=reinit", "--quiet", *flags]
    assert call(*branch, "--json") == 0
    said = capsys.readouterr()
    assert "the logger Notebook" in said.err and "failed in on_level_end (OSError: no network)" in said.err
    assert len(json.loads(said.out)["levels"]) == 2  # nothing is lost
    assert levels(read()) == [("b/reinit/replicate_0", 1)]
    monkeypatch.delenv("FAIL_AT")
    assert call(*branch) == 0
    assert levels(read()) == [("b/reinit/replicate_0", k) for k in (1, 2)]  # the first was heard, and not answered

    study = [*place, "--name=s", "--criterion=large_final,random"]
    assert call(*study) == 0 and read() == []
    capsys.readouterr()
    assert call(*study, *flags) == 0  # nothing is left to train, and all of it to tell
    assert levels(read()) == [(f"s+criterion={c}/replicate_0", k) for c in ("large_final", "random") for k in range(3)]
    assert "All runs were finished already; nothing was trained." in capsys.readouterr().out

    assert call(*place, "--name=c", "--logger=nobody") == 1 and "name of a logger" in capsys.readouterr().err
    assert not (tmp_path / "r" / "c").exists()
    assert call(*place, "--name=c", "--executor=ray", *flags) == 1 and "--executor=local" in capsys.readouterr().err


def test_a_killed_run_goes_on_under_its_id(tmp_path, notebook, monkeypatch, capsys, forked_workers):
    flags, read = notebook
    own = [*FIND, "--replicates=2", "--name=k", "--workers=2", *flags]
    monkeypatch.setenv("DIE_AT", "k/replicate_1 1")
    assert call(*own, f"--results_dir={tmp_path / 'r'}") == 1 and "replicate 1" in capsys.readouterr().err
    first = read()
    monkeypatch.delenv("DIE_AT")
    assert call(*own, "--workers=1", f"--results_dir={tmp_path / 'r'}") == 0
    second = read()
    ids = [{line["run"]: line["id"] for line in lines if "id" in line} for lines in (first, second)]
    assert ids[1] == {"k/replicate_1": ids[0]["k/replicate_1"]}
    told = levels(first + second)
    assert sorted(set(told)) == [(f"k/replicate_{r}", k) for r in (0, 1) for k in range(3)]
    assert {at for at in told if told.count(at) > 1} == {("k/replicate_1", 1)}  # killed while it was told
    assert all(len(Run(tmp_path / "r" / "k").finished(r)) == 3 for r in (0, 1))


def run_with(name, tmp_path, monkeypatch):
    """A run with the logger of an example, killed runs imitated: its last level is told by a second process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loggers.registry, "_functions", dict(loggers.registry._functions))
    runpy.run_path(str(EXAMPLES / f"{name}_logger.py"))
    place = [*FIND, "--results_dir=r", "--replicates=1", "--name=e", f"--logger={name}"]
    assert call(*place) == 0
    ids = json.loads(Path("r/e/replicate_0/logged.json").read_text())
    ids["told"][name].remove(2)
    Path("r/e/replicate_0/logged.json").write_text(json.dumps(ids))
    assert call(*place) == 0
    return ids["id"]


def test_mlflow_has_a_run_with_its_levels(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    own = run_with("mlflow", tmp_path, monkeypatch)
    client = mlflow.MlflowClient("sqlite:///mlflow.db")
    (found,) = client.search_runs(["0"], f"tags.tf_lottery = '{own}'")
    assert (found.info.run_name, found.info.status) == ("e/replicate_0", "FINISHED")
    assert found.data.params["criterion"] == "large_final" and found.data.params["replicate"] == "0"
    told = {point.step: point.value for point in client.get_metric_history(found.info.run_id, "density")}
    assert told == pytest.approx({0: 1.0, 1: 0.8, 2: 0.64}, abs=1e-3)


def test_weights_and_biases_has_a_run_with_its_levels(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    own = run_with("wandb", tmp_path, monkeypatch)
    wandb.teardown()  # its process has written all
    first, second = (path.read_bytes() for path in sorted(tmp_path.glob(f"wandb/offline-run-*-{own}/run-{own}.wandb")))
    assert b"e/replicate_0" in first and b"large_final" in first and b"final_test_accuracy" in first
    assert b"0.8" in first and b"0.8" not in second and b"0.64" in second  # the densities of levels 1 and 2
