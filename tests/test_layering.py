"""The house: imports only go up the floors, and what needs no TensorFlow loads none."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tf_lottery

PACKAGE = Path(tf_lottery.__file__).parent
FLOORS = [
    {
        "errors",
        "files",
        "guard",
        "quiet",
        "registry",
        "masks",
        "patterns",
        "criteria",
        "treatments",
        "codec",
        "container",
        "ticket",
        "ticket_file",
        "rounds",
        "outcome",
        "tables",
        "results",
    },  # NumPy only
    {
        "distribution",
        "precision",
        "weights",
        "recipes",
        "layers",
        "learned",
        "state",
        "gradients",
        "health",
        "pruning",
        "policies",
        "schedules",
        "callbacks",
    },  # Keras
    {"checkpoint", "examples", "feed", "loop", "training", "find", "supermask"},  # procedure
    {"tfmot", "export", "compaction"},  # border
    {"models", "data"},  # problems: registry and Keras
    {
        "settings",
        "executor",
        "on_processes",
        "on_ray",
        "problem",
        "experiment",
        "by_rule",
        "report",
        "claims",
        "contracts",
    },
    {"bin"},
]
WITHOUT_TENSORFLOW = [
    *sorted(FLOORS[0]),
    "models",
    "settings",
    "executor",
    "on_processes",
    "on_ray",
    "contracts",
    "report",
    "claims",
    "bin.main",
    "bin.find",
    "bin.branch",
    "bin.claims",
    "bin.export",
    "bin.report",
    "bin.board",
    "bin.display",
    "bin.dry_run",
    "bin.supermask",
    "bin.training",
    "bin.tasks",
    "bin.ticket",
]
MODULES = set().union(*FLOORS)
EXCEPTION = ("ticket", "state")  # Ticket.apply meets Keras when a model is handed in, and not before


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def module(path: Path) -> str:
    """The module of the package, or its sub-package, that a file is."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def floor(module: str) -> int:
    return next(i for i, floor in enumerate(FLOORS) if module in floor)


def imports(path: Path) -> set[str]:
    """The modules of the package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tf_lottery"):
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names if alias.name in MODULES}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("tf_lottery.")}
    return found


def test_every_module_has_a_floor():
    assert {module(path) for path in FILES} == set().union(*FLOORS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE).with_suffix("")))
def test_imports_only_go_up(path):
    own = module(path)
    for name in imports(path):
        allowed = floor(name) <= floor(own) or (own, name) == EXCEPTION
        assert allowed, f"{own} (floor {floor(own)}) imports {name} (floor {floor(name)})"


def test_two_modules_meet_tfmot():
    meet = {module(path) for path in FILES if "tensorflow_model_optimization" in path.read_text()}
    meet |= {module(path) for path in FILES if "import tf_keras" in path.read_text()}
    assert meet == {"schedules", "tfmot"}


def test_procedure_knows_no_models_data_or_flags():
    for module in ("examples", "feed", "loop", "training", "find", "supermask"):
        assert not imports(PACKAGE / f"{module}.py") & {"models", "data", "settings", "experiment", "results", "bin"}


def test_problems_know_only_the_registry():
    for module in ("models", "data"):
        assert imports(PACKAGE / f"{module}.py") <= {"registry", "errors"}


def run(code: str) -> str:
    env = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env).stdout


@pytest.mark.parametrize("module", WITHOUT_TENSORFLOW)
def test_loads_no_tensorflow(module):
    loaded = run(f"import sys, tf_lottery.{module}; print({{'tensorflow', 'keras'}} & set(sys.modules))")
    assert loaded.strip() == "set()"


def test_import_changes_no_environment_and_loads_no_tfmot():
    out = run(
        "import os, sys; before = dict(os.environ); import tf_lottery as tfl; tfl.wrap, tfl.find_ticket, tfl.Trainer;"
        "new = {k for k in os.environ if os.environ[k] != before.get(k)};"
        "print('tensorflow_model_optimization' in sys.modules, 'TF_USE_LEGACY_KERAS' in new)"
    )
    assert out.split() == ["False", "False"]


def test_public_names_are_there():
    for name in tf_lottery.__all__:
        assert getattr(tf_lottery, name) is not None
    assert set(tf_lottery.__all__) <= set(dir(tf_lottery))
    with pytest.raises(AttributeError):
        _ = tf_lottery.no_such_name
