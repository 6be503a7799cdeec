"""What the library promises: no public name comes or goes unnoticed, and each says what it is."""

import importlib
import inspect
import sys
from pathlib import Path

import pytest

import tf_lottery as tfl

LIST = Path(__file__).parent / "public_names.txt"
MODULES = [name for name in tfl.__all__ if inspect.ismodule(getattr(tfl, name))]


def public(name: str) -> dict[str, object]:
    """The functions and classes that a public module of the library makes, or that its `__all__` lists."""
    module = importlib.import_module(f"tf_lottery.{name}")
    names = getattr(module, "__all__", None) or [
        each
        for each, value in vars(module).items()
        if each[0] != "_" and callable(value) and getattr(value, "__module__", "").startswith(module.__name__)
    ]
    return {f"tf_lottery.{name}.{each}": getattr(module, each) for each in names}


def names() -> dict[str, object]:
    found = {f"tf_lottery.{name}": getattr(tfl, name) for name in tfl.__all__ if name not in MODULES}
    for name in MODULES:
        found |= public(name)
    return found


def home(name: str, value) -> str:
    """The file in its room in which something is written; of a plain value the one that its public module stands in."""
    module = getattr(value, "__module__", None) or importlib.import_module(name.rpartition(".")[0]).__name__
    return str(Path(sys.modules[module].__file__).relative_to(Path(tfl.__file__).parent))


def signature(value) -> str:
    """The names of its arguments, those with defaults marked; of plain errors nothing."""
    if not callable(value) or (
        inspect.isclass(value) and issubclass(value, Exception) and "__init__" not in vars(value)
    ):
        return ""
    arguments = inspect.signature(value).parameters.values()
    return ", ".join(f"{a}" if a.default is a.empty else f"{a.name}=" for a in map(_bare, arguments))


def _bare(argument: inspect.Parameter) -> inspect.Parameter:
    return argument.replace(annotation=inspect.Parameter.empty)


def test_public_names_are_those_that_are_promised():
    """With their arguments and their homes. What is new is added to the list; what goes is deprecated first, see CONTRIBUTING.md."""
    now = sorted(f"{name}({signature(value)}) -> {home(name, value)}" for name, value in names().items())
    assert now == LIST.read_text().splitlines()


@pytest.mark.parametrize("name", sorted(names()))
def test_public_names_say_what_they_are(name):
    value = names()[name]
    if inspect.isroutine(value) or inspect.isclass(value):
        assert inspect.getdoc(value), name
