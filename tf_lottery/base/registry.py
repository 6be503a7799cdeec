"""One way to name things: a registry maps names to functions, and one `get` accepts a name or the thing itself.

An installed package adds names by entry points of the registry's group, a file of one's own by `import_plugin`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tf_lottery.base.errors import LotteryError
from tf_lottery.base.hints import did_you_mean


class Registry(Mapping):
    """Names of one kind of function: criteria, treatments, models, data sets.

    Args:
      kind: What is registered, in the singular; used in error messages.
      group: The entry-point group whose names belong to the registry too; each is loaded when it is first asked for.
      meant: What others call some of them, for a hint.

    Examples:

    >>> greetings = Registry("greeting")
    >>> @greetings.register
    ... def hello():
    ...     return "hello"
    >>> greetings.get("hello")()
    'hello'
    >>> greetings.get("helo")
    Traceback (most recent call last):
    tf_lottery.base.errors.LotteryError: Expected the name of a greeting (hello) or a function, but received 'helo'. Did you mean 'hello'?
    """

    def __init__(self, kind: str, group: str | None = None, meant: Mapping[str, str] = MappingProxyType({})):
        self.kind, self.group, self.meant = kind, group, meant
        self._functions: dict[str, Callable] = {}

    def register(self, function: Callable, name: str | None = None) -> Callable:
        """Registers `function` under its own name, or under `name`; usable as a decorator.

        Raises:
          LotteryError: If the name is taken by another function.
        """
        name = name or function.__name__
        if self._functions.get(name, function) is not function:
            raise LotteryError(f"Expected a new name for a {self.kind}, but {name!r} is registered already.")
        self._functions[name] = function
        return function

    def get(self, identifier: str | Callable) -> Callable:  # type: ignore[override]  # as keras.losses.get, never a default
        """Returns the function of that name; a function is returned as it is.

        Raises:
          LotteryError: If the name is unknown; the message lists the known ones.
        """
        if callable(identifier):
            return identifier
        if identifier in self:
            return self[identifier]
        raise LotteryError(
            f"Expected the name of a {self.kind} ({', '.join(self)}) or a function, but received {identifier!r}."
            f"{did_you_mean(identifier, self, self.meant)}"
        )

    def __getitem__(self, name: str) -> Callable:
        if name not in self._functions:
            self._load(self._installed()[name])
        return self._functions[name]

    def __contains__(self, name: object) -> bool:
        return name in self._functions or name in self._installed()  # and nothing is loaded

    def __iter__(self) -> Iterator[str]:
        return iter({**self._functions, **self._installed()})

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _installed(self) -> Mapping[str, EntryPoint]:
        return _installed(self.group) if self.group else {}

    def _load(self, entry: EntryPoint) -> None:
        try:
            function = entry.load()
            if not callable(function):
                raise TypeError(f"{entry.value} is not a function")
        except Exception as error:  # whatever the package does when it is imported
            raise LotteryError(
                f"Expected the {self.kind} {entry.name!r} in the installed package {entry.dist.name if entry.dist else '?'}, but loading "
                f"{entry.value} failed ({type(error).__name__}: {error})."
            ) from error
        self.register(function, entry.name)


@functools.cache
def _installed(group: str) -> Mapping[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=group)}


imported: list[str] = []  # the plugins of this process, as they were named


def import_plugin(plugin: str) -> None:
    """Imports a module, by its name or as a file, for the names that it registers.

    Args:
      plugin: As in `my_criteria` or `path/to/my_criteria.py`.

    Raises:
      LotteryError: If there is no such module, or its import fails.
    """
    path = Path(plugin)
    try:
        if path.suffix != ".py":
            importlib.import_module(plugin)
        elif path.stem not in sys.modules:
            if (folder := str(path.parent.resolve())) not in sys.path:
                sys.path.append(folder)  # its neighbours can be imported, as when Python runs it
            spec: Any = importlib.util.spec_from_file_location(path.stem, path)
            module = importlib.util.module_from_spec(spec)
            sys.modules[path.stem] = module  # before it runs, as an import does: dataclasses and pickle look there
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[path.stem]
                raise
    except LotteryError:
        raise
    except Exception as error:
        raise LotteryError(
            f"Expected a plugin that can be imported, a module or a .py file, but {plugin!r} failed ({type(error).__name__}: {error})."
        ) from error
    if plugin not in imported:
        imported.append(plugin)
