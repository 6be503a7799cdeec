"""Keeping what libraries print off the screen; exceptions still get out."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
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
