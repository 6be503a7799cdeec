"""What keeps a folder of results sound: one process at a time, nothing damaged trusted, nothing unfinished left lying.

The locks are the operating system's: they end with the process that holds them, however it ends. No TensorFlow.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import filelock

from tf_lottery.base.errors import LotteryError

GRACE = 1.0  # seconds: who only asks whether a folder is taken holds it for a moment
UNFINISHED = re.compile(r"\.[^/]+-[a-z0-9_]{8}(\.\w+)?")  # what `files.whole_file` calls a file until it is whole


@contextlib.contextmanager
def alone(folder: Path, what: str, *, wait: bool = False, patience: float = GRACE) -> Iterator[None]:
    """A context that only one process at a time can be in, for each folder.

    Args:
      folder: Holds the lock file while it is held; made if it is not there, and removed again if nothing was put in it.
      what: What the process has to itself, for the message.
      wait: Wait for the other process, and do not refuse.
      patience: Seconds to wait for it otherwise.

    Raises:
      LotteryError: If another process is in it, or the folder cannot be written.

    Examples:

    >>> import tempfile
    >>> home = tempfile.TemporaryDirectory()
    >>> with alone(Path(home.name) / "replicate_0", "replicate 0"):
    ...     with alone(Path(home.name) / "replicate_0", "replicate 0"):
    ...         pass
    Traceback (most recent call last):
    tf_lottery.base.errors.LotteryError: Expected replicate 0 for this process alone, but another one is working on it.
    """
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    path = folder / ".lock"
    lock = filelock.FileLock(path)
    for retries in reversed(range(10)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=-1 if wait else patience)
            break
        except filelock.Timeout:
            raise LotteryError(f"Expected {what} for this process alone, but another one is working on it.") from None
        except OSError as error:
            if isinstance(error, FileNotFoundError) and retries:
                continue  # who held it had made the folder, put nothing in it, and removed it
            raise LotteryError(
                f"Expected a folder that can be written, but {folder} cannot ({error.strerror})."
            ) from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: who waits for it notices, and makes a new one
        lock.release()
        with contextlib.suppress(OSError):  # those that are not empty
            for parent in made:
                parent.rmdir()


def is_taken(folder: Path) -> bool:
    """Whether a process is in `alone` for that folder."""
    if not (folder / ".lock").exists():
        return False
    try:
        with alone(folder, "", patience=0):
            return False
    except LotteryError:
        return True


def set_aside(path: Path) -> Path:
    """Renames a damaged file, so that nobody trusts it and nobody loses it; returns its new name."""
    names = (f"{path.name}.damaged{number}" for number in ("", *(f".{i}" for i in range(2, 1_000))))
    aside = next(path.with_name(name) for name in names if not path.with_name(name).exists())
    return path.replace(aside)


def remove_unfinished(*folders: Path) -> None:
    """Removes the files that a killed process left unfinished in these folders, where no other process writes now."""
    for path in (path for folder in folders for path in folder.glob(".*")):
        if UNFINISHED.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def digest(path: str | os.PathLike) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
