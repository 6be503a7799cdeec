"""Keeping what libraries print off the screen; exceptions still get out."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tf_lottery.base.errors import LotteryWarning

PACKAGE = Path(__file__).parents[1]


@contextlib.contextmanager
def native_stderr_off() -> Iterator[None]:
    """While TensorFlow is loaded or converts: its C++ side prints lines there that no setting silences."""
    sys.stderr.flush()
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextlib.contextmanager
def tensorflow_loading() -> Iterator[None]:
    """`native_stderr_off` while a command imports TensorFlow, which takes seconds: a terminal says so until it is there."""
    told = sys.stderr.isatty() and "tensorflow" not in sys.modules
    if told:
        print("Loading TensorFlow ...", end="", file=sys.stderr, flush=True)
    try:
        with native_stderr_off():
            yield
    finally:
        if told:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def native_stderr_off_but_python() -> Iterator[None]:
    """As `native_stderr_off`, while somebody else's Python runs, which may have something to say."""
    with contextlib.ExitStack() as stack:
        if sys.stderr is sys.__stderr__:
            own = stack.enter_context(os.fdopen(os.dup(2), "w", buffering=1))
            stack.enter_context(native_stderr_off())
            stack.enter_context(contextlib.redirect_stderr(own))
        yield


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Nothing of what is printed, warned or logged gets out, by Python or by C++; for calls that print pages.

    >>> with silenced():
    ...     print("a page of notes")
    """
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            native_stderr_off(),
            Path(os.devnull).open("w") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def only_errors_of(name: str) -> Iterator[None]:
    """Of what a library logs under that name, errors alone get out.

    >>> with only_errors_of("urllib3"):
    ...     logging.getLogger("urllib3").isEnabledFor(logging.WARNING)
    False
    """
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def outside(libraries: Sequence[str] = ("tf_lottery", "keras", "tensorflow")) -> int:
    """The `stacklevel` of a warning that is to point at the line that called this package.

    >>> outside(libraries=())
    1
    """
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in libraries:
        level, frame = level + 1, frame.f_back
    return level


@contextlib.contextmanager
def warnings_told(tell: Callable[[str], object]) -> Iterator[None]:
    """For commands: each warning of this package is handed to `tell` once, in their words; those of libraries are nothing for who uses one.

    What other code warns of, as a plugin, is shown as Python shows it.

    >>> with warnings_told(print):
    ...     warnings.warn(LotteryWarning("a larger {density} spares them"), stacklevel=1)
    ...     warnings.warn(LotteryWarning("a larger {density} spares them"), stacklevel=1)
    a larger --density spares them
    """
    said, shown = set(), warnings.showwarning
    libraries = [PACKAGE, *(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib"))]

    def show(message, category, filename, *rest):
        if isinstance(message, LotteryWarning):
            if (sentence := message.in_flags()) not in said:
                said.add(sentence)
                tell(sentence)
        elif not any(Path(filename).is_relative_to(folder) for folder in libraries):
            shown(message, category, filename, *rest)

    with warnings.catch_warnings():
        warnings.simplefilter("always", LotteryWarning)
        warnings.showwarning = show
        yield
