"""A file of named arrays and a header that is safe to open from a stranger: no pickle, checked from end to end.

It is a `safetensors` file. One of its arrays, `header`, is JSON compressed with zlib; its metadata has one entry, whose name is the
format and whose value the SHA-256 of everything in the file. Reading takes time and memory in proportion to the file, and the header is
bounded; what the header claims about more than that is for the caller to check before anything is allocated for it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import operator
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tf_lottery.base.errors import FormatError, TicketError
from tf_lottery.base.files import whole_file

HEADER = "header"
# types of numbers that NumPy has not, as safetensors knows some, raise half of these
_NOT_AS_WRITTEN = (KeyError, ValueError, TypeError, AttributeError, ImportError, zlib.error, RecursionError)
MOST_HEADER = 2**22  # bytes of the header, and of the container's own table of arrays


def write(path: str | os.PathLike, format: str, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes the file; it has its name only once it is whole.

    Raises:
      TicketError: If the header is larger than a reader would take.
      TypeError: If it is not JSON.
    """
    from safetensors.numpy import save

    text = json.dumps(header, separators=(",", ":")).encode()
    if len(text) > MOST_HEADER:
        raise TicketError(f"Expected a header of at most {MOST_HEADER:,} bytes, but it has {len(text):,}.")
    packed = {HEADER: np.frombuffer(zlib.compress(text, 9), np.uint8)}
    packed |= {name: np.asarray(array, order="C") for name, array in arrays.items()}
    with whole_file(path) as unfinished:
        unfinished.write_bytes(save(packed, {format: checksum(format, packed)}))


def read(path: str | os.PathLike, format: str, most_bytes: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the arrays of a file.

    Args:
      path: The file.
      format: What it must be.
      most_bytes: How large it may be.

    Raises:
      FileNotFoundError: If there is no such file.
      TicketError: If it is of another format, larger, or not as it was written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = _file(path)
    if (size := path.stat().st_size) > most_bytes:
        raise TicketError(f"Expected a file of at most {most_bytes:,} bytes, but {os.fspath(path)!r} has {size:,}.")
    data = path.read_bytes()
    _check_kind(path, data[:HEAD])
    try:
        metadata = _metadata(data[8 : 8 + _length(data[:8])])
        _check_format(path, metadata, format)
        arrays = load(data)
        if metadata[format] != checksum(format, arrays):
            raise ValueError("its checksum differs")
        header = _header(arrays.pop(HEADER).tobytes())
    except FormatError:
        raise
    except (SafetensorError, *_NOT_AS_WRITTEN) as error:
        raise damaged(path, error) from None
    return header, arrays


def read_header(path: str | os.PathLike, format: str) -> dict[str, Any]:
    """The header alone, without reading the arrays: their checksum is not checked.

    Raises:
      FileNotFoundError: If there is no such file.
      TicketError: If it is of another format, or its header is damaged.
    """
    from safetensors import SafetensorError, safe_open

    path = _file(path)
    with path.open("rb") as file:
        _check_kind(path, file.read(HEAD))
    try:
        with path.open("rb") as file:
            metadata = _metadata(file.read(_length(file.read(8))))
        _check_format(path, metadata, format)
        with safe_open(path, framework="numpy") as file:
            return _header(file.get_tensor(HEADER).tobytes())
    except FormatError:
        raise
    except (SafetensorError, *_NOT_AS_WRITTEN) as error:
        raise damaged(path, error) from None


def checksum(format: str, arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256, in hexadecimal, of the JSON text `[format,[[name,dtype,shape,SHA-256 of its bytes],...]]`, sorted by name.

    >>> checksum("example/1", {"a": np.zeros(3, np.uint8)})[:16]
    '970466c13f13c208'
    """
    parts = [[name, _name(arrays[name].dtype), arrays[name].shape, digest(arrays[name])] for name in sorted(arrays)]
    return hashlib.sha256(json.dumps([format, parts], separators=(",", ":")).encode()).hexdigest()


def digest(values: np.ndarray) -> str:
    """SHA-256 of the values' bytes, in hexadecimal."""
    return hashlib.sha256(values.tobytes()).hexdigest()


_name = functools.cache(operator.attrgetter("name"))  # NumPy makes the name of a type anew each time


def _file(path: str | os.PathLike) -> Path:
    path = Path(path)
    if not path.is_file() and path.exists():  # a device would never end
        raise TicketError(f"Expected a file, but {os.fspath(path)!r} is something else.")
    return path


def _check_kind(path: Path, head: bytes) -> None:
    """Refuses what was never a file of ours, so that it is not called damaged."""
    if b"tf_lottery." in head or b'"ticket' in head:
        return
    kind = next((kind for first, kind in _KINDS.items() if head.startswith(first)), "something else")
    if not head:
        kind = "empty"
    elif head[8:].lstrip().startswith(b"{"):
        kind = "a safetensors file of something else"
    elif not set(head) & _NO_TEXT:
        kind = "a text"
    raise TicketError(f"Expected a ticket file, but {os.fspath(path)!r} is not one: it is {kind}.")


HEAD = 4_096  # bytes that name the format, if there is one: it stands first in the table
_KINDS = {
    b"PK": "a zip file, as .keras and .npz files are",
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "a gzip file",
    b"\x93NUMPY": "a NumPy file",
}
_NO_TEXT = frozenset(range(32)) - set(b"\t\n\r\f")


def _length(first: bytes) -> int:
    """Of the container's table, from the first eight bytes of the file."""
    length = int.from_bytes(first, "little")
    if len(first) < 8 or length > MOST_HEADER:
        raise ValueError("it does not begin with the length of a table of arrays")
    return length


def _metadata(table: bytes) -> dict[str, str]:
    """The words of the container's table; in which no name may stand twice, as the container's own reader would allow."""
    metadata = _json(table).get("__metadata__")
    if not isinstance(metadata, dict):
        raise ValueError("it has no metadata")
    return metadata


def _check_format(path: Path, metadata: Mapping[str, str], format: str) -> None:
    if format in metadata:
        return
    found = next(iter(metadata), "none")
    if not found.startswith(("tf_lottery.", "ticket")):  # what versions before this one wrote
        raise ValueError("it names no format")
    raise FormatError(f"Expected a file of format {format!r}, but {os.fspath(path)!r} has {found!r:.80}.")


def _header(packed: bytes) -> dict[str, Any]:
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(packed, MOST_HEADER)
    if not unpacker.eof:
        raise ValueError(f"its header is not whole, or larger than {MOST_HEADER:,} bytes")
    return _json(text)


def _json(text: bytes) -> dict[str, Any]:
    found = json.loads(text, object_pairs_hook=_unique)
    if not isinstance(found, dict):
        raise ValueError("its header is no JSON object")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("its header has a name twice")
    return found


def damaged(path: str | os.PathLike, error: Exception) -> TicketError:
    """What is raised for a file that is not as it was written."""
    return TicketError(f"Expected a whole ticket file, but {os.fspath(path)!r} is damaged ({str(error)[:200]}).")
