"""Keeping what libraries print off the screen; exceptions still get out."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path


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


@contextlib.contextmanager
def warnings_told(tell: Callable[[str], object]) -> Iterator[None]:
    """Warnings of this package are handed to `tell`, each sentence once; those of libraries are nothing for who uses a command.

    >>> with warnings_told(print):
    ...     warnings.warn("a note of this package", stacklevel=1)
    ...     warnings.warn("a note of this package", stacklevel=1)
    a note of this package
    """
    said = set()

    def show(message, *_):
        issuer = sys._getframe(2).f_globals.get("__name__", "")  # below what Python calls this by
        if issuer.partition(".")[0] == "tf_lottery" and str(message) not in said:
            said.add(str(message))
            tell(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show
        yield
