"""What somebody may have meant who wrote a name that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType


def did_you_mean(name: object, known: Iterable[str], meant: Mapping[str, str] = MappingProxyType({})) -> str:
    """A question to end an error with, or nothing.

    Args:
      name: What was written.
      known: The names that there are.
      meant: Other words for some of them, as other libraries call them.

    Examples:

    >>> did_you_mean("mnits", ["mnist", "cifar10"])
    " Did you mean 'mnist'?"
    >>> did_you_mean("show", ["info", "diff"], {"show": "info"})
    " Did you mean 'info'?"
    """
    word, known = str(name).lower().replace("-", "_"), list(known)
    if word in meant and meant[word] in known:
        return f" Did you mean {meant[word]!r}?"
    close = [one for one in known if word and one.startswith(word)] or difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
