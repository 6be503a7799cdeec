"""Files and folders that appear under their final name only when they are whole."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tf_lottery.base.errors import ExportError


def free(path: str | os.PathLike, overwrite: bool = False, marker: str | None = None) -> Path:
    """The path, if nothing is there or it may be replaced: of folders only one that holds a file named `marker`.

    Raises:
      ExportError: If something is there that may not be replaced.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise ExportError(
            f"Expected a new path, but {os.fspath(path)!r} exists: remove it, or overwrite it (--overwrite, in Python overwrite=True)."
        )
    if path.is_dir() and not (marker and (path / marker).is_file()):
        raise ExportError(f"Expected to overwrite what an export made, but {os.fspath(path)!r} is another folder.")
    return path


@contextlib.contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path beside `path`; it takes the final name when the block ends, and is removed if it fails.

    >>> folder = tempfile.TemporaryDirectory()
    >>> target = Path(folder.name) / "answer.txt"
    >>> with whole_file(target) as unfinished:
    ...     _ = unfinished.write_text("42")
    >>> target.read_text()
    '42'
    """
    path = Path(path)
    with _folders_above(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        unfinished = Path(name)
        try:
            yield unfinished
            with unfinished.open("rb") as written:
                os.fsync(written.fileno())  # a rename that outlives the bytes it names would leave an empty file
            unfinished.chmod(0o666 & ~_umask())
            unfinished.replace(path)
            _keep_names(path.parent)
        except OSError as error:
            if error.filename in (None, name):  # a full disk, for one, does not say what it was full for
                error.filename = os.fspath(path)
            raise
        finally:
            unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary folder beside `path`; it takes the final name when the block ends, and is removed if it fails.

    A folder that has the name already is replaced as a whole.
    """
    path = Path(path)
    with _folders_above(path), tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as beside:
        unfinished = Path(beside) / path.name
        unfinished.mkdir()
        yield unfinished
        if replaced := path.exists():
            path.replace(Path(beside) / "replaced")
        try:
            unfinished.replace(path)
        except BaseException:
            if replaced:
                (Path(beside) / "replaced").replace(path)
            raise
        _keep_names(path.parent)


@contextlib.contextmanager
def _folders_above(path: Path) -> Iterator[None]:
    """Makes the folders that a path needs; those it made are gone again if the block fails."""
    made = next((folder for folder in reversed(path.parents) if not folder.exists()), None)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if made is not None and not any(found.is_file() for found in made.rglob("*")):
            shutil.rmtree(made, ignore_errors=True)
        raise


def _keep_names(folder: Path) -> None:
    """Puts the names in a folder on the disk, so that files appear there in the order in which they were written."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # file systems that do not know it
            os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
