"""What a function of one's own is, by the text it is written in: an edited one is another, whatever its name."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import sys
import textwrap
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

LIBRARIES = {"tf_lottery", "keras", "tensorflow", "numpy", *sys.stdlib_module_names}
DEFAULTS = ("Preset",)  # what a decorator of that name says are settings, which are compared as such


def digest(function: Callable) -> str | None:
    """The SHA-256 of a function and of all that it names of its own modules: functions, classes, numbers and words.

    Comments, docstrings and layout do not count. Nor does what it reads from files, or what it names of installed packages but its own.

    Args:
      function: Any.

    Returns:
      None for functions of this package, and where there is no source.

    Examples:

    >>> digest(digest) is None
    True
    """
    found: dict[str, str] = {}
    home = getattr(function, "__module__", None) or ""
    _collect(function, found, home)
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest() if found else None


def _collect(thing: Any, found: dict[str, str], home: str) -> None:
    """Adds what a function or class is made of, and what it names; a file that is renamed is the same one, so those at `home` go by their names alone."""
    thing = inspect.unwrap(thing) if isinstance(thing, FunctionType) else thing
    module = getattr(thing, "__module__", None) or ""
    name = _named(module, thing.__qualname__, home)
    if name in found or not _is_own(sys.modules.get(module), home):
        return
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(thing)))
    except (OSError, TypeError, SyntaxError):  # typed in, built in, or a part of a line
        return
    found[name] = ast.unparse(_bare(tree))  # whose text is the same in each version of Python, as a dump is not
    names = vars(sys.modules[module])
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in names:
            _add(_named(module, node.id, home), names[node.id], found, home)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            other = names.get(node.value.id)
            if isinstance(other, ModuleType) and _is_own(other, home) and hasattr(other, node.attr):
                _add(_named(other.__name__, node.attr, home), getattr(other, node.attr), found, home)


def _named(module: str, name: str, home: str) -> str:
    return name if module == home else f"{module}.{name}"


def _add(name: str, value: Any, found: dict[str, str], home: str) -> None:
    if isinstance(value, FunctionType | type):
        _collect(value, found, home)
    elif (plain := _plain(value)) is not None:
        found[name] = plain


def _bare(tree: ast.Module) -> ast.Module:
    """A tree without docstrings, and without decorators that give settings."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            node.body = node.body[1:] or [ast.Pass()]
        node.decorator_list = [each for each in node.decorator_list if not _gives_settings(each)]
    return tree


def _gives_settings(decorator: ast.expr) -> bool:
    nodes = list(ast.walk(decorator))
    return any(getattr(node, "attr", getattr(node, "id", None)) in DEFAULTS for node in nodes)


def _plain(value: Any) -> str | None:
    """A number, a word, or a collection of these in words; None for what says nothing of itself."""
    if isinstance(value, bool | int | float | complex | str | bytes | None):
        return repr(value)
    if isinstance(value, dict):
        value = [*value.items()]
    elif isinstance(value, set | frozenset):
        value = sorted(value, key=repr)
    if not isinstance(value, list | tuple):
        return None
    parts = [_plain(part) for part in value]
    return None if None in parts else f"[{', '.join(filter(None, parts))}]"


def _is_own(module: ModuleType | None, home: str) -> bool:
    """Whether a module is one's own: of the package of the function that was asked about, or not installed."""
    if module is None:
        return False
    top = module.__name__.partition(".")[0]
    if top in LIBRARIES:
        return False
    return top == home.partition(".")[0] or not {"site-packages", "dist-packages"} & set(
        (module.__file__ or "").split("/")
    )
