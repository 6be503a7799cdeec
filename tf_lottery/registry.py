"""One way to name things: a registry maps names to functions, and one `get` accepts a name or the thing itself."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping

from tf_lottery.errors import LotteryError


class Registry(Mapping):
    """Names of one kind of function: criteria, treatments, models, data sets.

    Args:
      kind: What is registered, in the singular; used in error messages.

    Example:

    >>> greetings = Registry("greeting")
    >>> @greetings.register
    ... def hello():
    ...     return "hello"
    >>> greetings.get("hello")()
    'hello'
    >>> greetings.get("helo")
    Traceback (most recent call last):
    tf_lottery.errors.LotteryError: Expected the name of a greeting (hello) or a function, but received 'helo'. Did you mean 'hello'?
    """

    def __init__(self, kind: str):
        self.kind = kind
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

    def get(self, identifier: str | Callable) -> Callable:
        """Returns the function of that name; a function is returned as it is.

        Raises:
          LotteryError: If the name is unknown; the message lists the known ones.
        """
        if callable(identifier):
            return identifier
        if identifier in self._functions:
            return self._functions[identifier]
        name = str(identifier)
        close = [known for known in self if name and known.startswith(name)] or difflib.get_close_matches(
            name, self, n=1
        )
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise LotteryError(
            f"Expected the name of a {self.kind} ({', '.join(self)}) or a function, but received {identifier!r}.{hint}"
        )

    def __getitem__(self, name: str) -> Callable:
        return self._functions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._functions)

    def __len__(self) -> int:
        return len(self._functions)
