"""The house: rooms on floors, imports that only go down, no circles, and no TensorFlow where none is needed."""

import ast
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import tf_lottery

PACKAGE = Path(tf_lottery.__file__).parent
FLOORS = [
    {"base"},
    {"rules"},
    {"masking"},
    {"tickets", "training", "problems"},
    {"search", "export"},
    {"compaction", "checks"},
    {"runs"},
    {"report"},
    {"claims"},
    {"bin"},
]
# A room knows those below it; some know less, and two know a neighbour on their own floor.
KNOWS_ONLY = {
    "rules": {"base"},
    "masking": {"base", "rules"},
    "tickets": {"base", "rules", "masking"},
    "training": {"base", "masking"},
    "problems": {"base", "rules", "masking"},
    "search": {"base", "rules", "masking", "tickets", "training"},
    "export": {"base", "masking", "tickets", "training"},
    "compaction": {"base", "masking", "export"},
    "checks": {"base", "rules", "masking", "tickets", "training", "search"},
}
WITHOUT_TENSORFLOW = [  # rooms or files
    "base",
    "rules",
    "tickets.ticket",
    "tickets.file",
    "tickets.codec",
    "tickets.values",
    "problems.models",
    "problems.contracts",
    "search.rounds",
    "checks.line",
    "runs.settings",
    "runs.results",
    "runs.sound",
    "runs.tables",
    "runs.outcome",
    "runs.own_data",
    "runs.prune_plan",
    "runs.executor",
    "report",
    "claims",
    "bin",
]
MEET_TFMOT = {"search/schedules.py", "search/tfmot.py"}

FILES = {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py")) if path.parent != PACKAGE}
ROOMS = {name.partition("/")[0] for name in FILES}
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def file_of(module: str) -> str | None:
    """The file of a dotted name below the package, or None if it is the name of something in a file."""
    path = module.replace(".", "/")
    return next((name for name in (f"{path}.py", f"{path}/__init__.py") if name in FILES), None)


@cache
def imports(name: str) -> dict[str, set[str]]:
    """The files of the package that a file imports, anywhere in it, with the names that it takes from each."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        modules = []
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} has a relative import"
            modules = [(node.module or "", alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            modules = [(alias.name, "") for alias in node.names]
        for module, taken in modules:
            if module.partition(".")[0] != "tf_lottery":
                continue
            below = module.partition(".")[2]
            whole = file_of(f"{below}.{taken}".strip("."))
            file = whole or file_of(below)
            assert file, f"{name} imports {module}.{taken} through the package, not from its room"
            found.setdefault(file, set()).update({taken} if taken and not whole else ())
    return found


def room(name: str) -> str:
    return name.partition("/")[0]


def circle(files: dict[str, set[str]]) -> list[str]:
    """Files that import each other in a circle, if there are some."""
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        for other in files[name] if name not in done else ():
            if found := walk(other, [*way, name]):
                return found
        done.add(name)
        return []

    return next((found for name in files if (found := walk(name, []))), [])


def test_the_package_is_its_rooms():
    assert set(FLOOR) == ROOMS
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py"}


@pytest.mark.parametrize("name", FILES)
def test_imports_only_go_down(name):
    for other in imports(name):
        own, there = room(name), room(other)
        if own == there:
            continue
        assert FLOOR[there] < FLOOR[own], f"{name} (floor {FLOOR[own] + 1}) imports {other} (floor {FLOOR[there] + 1})"
        assert there in KNOWS_ONLY.get(own, ROOMS), f"{name} imports {other}, but {own} knows only {KNOWS_ONLY[own]}"


def test_no_files_import_each_other_in_a_circle():
    assert not circle({name: set(imports(name)) for name in FILES})


def test_a_circle_would_be_seen():
    turned = {name: set(imports(name)) for name in FILES}
    importer, imported = next((name, other) for name in FILES for other in imports(name))
    turned[imported].add(importer)
    assert circle(turned)


def test_nothing_imports_the_command_line():
    assert not [name for name in FILES if room(name) != "bin" and any(room(other) == "bin" for other in imports(name))]


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith("__init__.py")])
def test_rooms_say_what_is_in_them(name):
    """The first line says what a room is for; each file has a line, with the names that other rooms take from it."""
    text = ast.get_docstring(ast.parse(FILES[name].read_text())) or ""
    first, _, contents = text.partition("\n")
    assert first.endswith("."), f"{name} does not say in one sentence what it is for"
    said = dict(re.findall(r"^    (\w+) +((?:.+(?:\n {8,}.+)*))", contents, re.M))
    inside = FILES[name].parent
    there = {path.stem for path in inside.glob("*.py")} | {path.parent.name for path in inside.glob("*/__init__.py")}
    assert set(said) == there - {"__init__"}
    for stem, line in said.items():
        file = file_of(f"{'.'.join(inside.relative_to(PACKAGE).parts)}.{stem}")
        taken = {n for other in FILES if room(other) != room(name) for n in imports(other).get(file, ())}
        missing = sorted(n for n in taken if not re.search(rf"\b{n}\b", line))
        assert not missing, f"{name} does not say that other rooms take {', '.join(missing)} from {stem}"


def test_two_files_meet_tfmot():
    meet = {n for n, p in FILES.items() if "tensorflow_model_optimization" in p.read_text()}
    meet |= {n for n, p in FILES.items() if "import tf_keras" in p.read_text()}
    assert meet == MEET_TFMOT


def run(code: str) -> str:
    env = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env).stdout


def test_loads_no_tensorflow():
    """All that need none together, and each room's table of contents but for what needs Keras by its nature."""
    modules = []
    for each in WITHOUT_TENSORFLOW:
        inside = [n for n in FILES if n.startswith(each.replace(".", "/") + "/")] or [file_of(each)]
        modules += [n.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for n in inside]
    modules += [name for name in sorted(ROOMS) if name not in ("export", "compaction")]
    code = f"import sys, importlib\nfor m in {modules!r}:\n  importlib.import_module('tf_lottery.' + m)\n"
    code += "  assert not {'tensorflow', 'keras'} & set(sys.modules), m\n"
    run(code)


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


def test_public_modules_can_be_imported_by_their_public_names():
    out = run(
        "from tf_lottery.criteria import register; import tf_lottery.criteria, tf_lottery.rules.criteria as room;"
        "from tf_lottery.callbacks import LotteryTicket; import tf_lottery.export, importlib.util as u;"
        "print(tf_lottery.criteria is room, room.__spec__.name, u.find_spec('tf_lottery.layers'))"
    )
    assert out.split() == ["True", "tf_lottery.rules.criteria", "None"]
