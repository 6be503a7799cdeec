"""The file of a ticket: coded masks and the values of kept weights, no pickle, checked from end to end.

It is a `container`: a header and named arrays, whose names end in the place of a variable in the header's list.

    mask/<i>      bytes of `codec`, for a masked kernel
    initial/<i>   start values: of the kept weights of a masked kernel in C order, or of the whole variable; not there if the
                  header has a recipe, from which they are drawn
    held/<i>      what the pruned weights of a masked kernel are frozen at, where that is not zero
    final/<i>     trained values, as `initial`, in the variable's own type or a narrower float

`docs/tickets.md` has the format for readers of other languages. Whatever a header claims is checked before anything is
allocated for it. NumPy only.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tf_lottery.base import container
from tf_lottery.base.errors import TicketError
from tf_lottery.rules import masks as masks_lib
from tf_lottery.rules.masks import Arrays
from tf_lottery.tickets import codec
from tf_lottery.tickets.values import Recipe

FORMAT = "tf_lottery.ticket/2"
MAX_WEIGHTS = 2**28  # of a file, if its reader does not allow more
FINALS = ("exact", "float32", "float16", None)
DTYPES = {np.dtype(kind).name for kind in "?bBhHiIqQefd"} | {"bfloat16"}


class Contents(NamedTuple):
    """What a file holds: the parts of a `Ticket`, in its order, with a recipe where start values are to be drawn."""

    masks: Arrays
    initial: dict[str, np.ndarray | Recipe]
    final: Arrays | None
    level: int
    metrics: Mapping[str, float]
    found: Mapping[str, Any]


@dataclass(frozen=True)
class Variable:
    """What the header tells of a variable."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    masked: bool
    recipe: Recipe | None

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def save(contents: Contents, path: str | os.PathLike, final: str | None = "exact") -> None:
    """See `Ticket.save`."""
    if final not in FINALS:
        raise TicketError(f"Expected final to be one of {', '.join(map(str, FINALS))}, but received {final!r}.")
    container.write(path, FORMAT, *_packed(contents, final))


def load(path: str | os.PathLike, max_weights: int = MAX_WEIGHTS) -> Contents:
    """See `Ticket.load`."""
    return read(path, max_weights)[0]


def read(path: str | os.PathLike, max_weights: int = MAX_WEIGHTS) -> tuple[Contents, list[Variable], Arrays]:
    """What a ticket file holds, what its header tells of each variable, and the arrays as they are stored; errors as `Ticket.load`."""
    header, arrays = container.read(path, FORMAT, most_bytes=container.MOST_HEADER + 32 * max_weights)
    try:
        variables = _checked(header)
        count = sum(variable.size for variable in variables)
        if count <= max_weights:
            return _unpacked(header, variables, arrays), variables, arrays
    except (KeyError, TypeError, ValueError) as error:
        raise container.damaged(path, error) from None
    raise TicketError(
        f"Expected a ticket of at most max_weights={max_weights:,} weights, but {os.fspath(path)!r} tells of {count:,}."
    )


def read_header(path: str | os.PathLike) -> dict[str, Any]:
    """The header of a ticket file (level, density, metrics, found, variables) without reading its arrays.

    Raises:
      FileNotFoundError: If there is no such file.
      TicketError: If it is not a ticket.
    """
    header = container.read_header(path, FORMAT)
    try:
        _checked(header)
    except (KeyError, TypeError, ValueError) as error:
        raise container.damaged(path, error) from None
    return header


class Verified(NamedTuple):
    """What a ticket file is that is as it was written.

    Attributes:
      header: Its header, checked.
      fingerprint: A SHA-256 of its level, its masks and its trained weights: the same whenever the same was found.
    """

    header: dict[str, Any]
    fingerprint: str


def verified(path: str | os.PathLike, max_weights: int = MAX_WEIGHTS) -> Verified:
    """The header and the fingerprint of a ticket file, after checking all of the file against its checksum.

    Raises:
      FileNotFoundError: If there is no such file.
      TicketError: If it is not as it was written; a `FormatError` if another version wrote it.
    """
    header, arrays = container.read(path, FORMAT, most_bytes=container.MOST_HEADER + 32 * max_weights)
    try:
        _checked(header)
    except (KeyError, TypeError, ValueError) as error:
        raise container.damaged(path, error) from None
    found = {name: array for name, array in arrays.items() if name.partition("/")[0] in ("mask", "held", "final")}
    return Verified(header, container.checksum(f"level {header['level']}", found))


def _packed(contents: Contents, final: str | None) -> tuple[dict[str, Any], Arrays]:
    """The header and the arrays of a file."""
    arrays: Arrays = {}
    variables = []
    trained = None if final is None else contents.final
    value: Any  # an array or a recipe
    for i, (name, value) in enumerate(contents.initial.items()):
        mask = contents.masks.get(name)
        kept: Any = ... if mask is None else np.asarray(mask, bool)
        drawn = isinstance(value, Recipe)
        dtype = value.dtype if drawn else value.dtype.name
        variables.append({"name": name, "shape": list(value.shape), "dtype": dtype, "masked": mask is not None})
        if mask is not None:
            arrays[f"mask/{i}"] = np.frombuffer(codec.encode(mask), np.uint8)
        if drawn:
            variables[-1]["recipe"] = {key: getattr(value, key) for key in ("initializer", "digest", "signed", "scale")}
        else:
            arrays[f"initial/{i}"] = _stored(value[kept], name)
            if mask is not None and np.any(held := value[~kept]):
                arrays[f"held/{i}"] = _stored(held, name)
        if final is not None and trained is not None:
            if name not in trained or trained[name].shape != tuple(value.shape):
                raise TicketError(
                    f"Expected trained weights of {name!r} in the shape {tuple(value.shape)}, but there are none."
                )
            arrays[f"final/{i}"] = _stored(_narrowed(trained[name][kept], final, name), name)
    header = {
        "level": contents.level,
        "density": masks_lib.density(contents.masks),
        "trained": trained is not None,
        "metrics": dict(contents.metrics),
        "found": dict(contents.found),
        "variables": variables,  # in the order they have in the model
    }
    return header, arrays


def _stored(values: np.ndarray, name: str) -> np.ndarray:
    if values.dtype.name not in DTYPES:
        raise TicketError(
            f"Expected weights of {name!r} as numbers that a ticket file holds, but received {values.dtype}."
        )
    return values.view(np.uint16) if values.dtype.name == "bfloat16" else values


def _narrowed(values: np.ndarray, final: str, name: str) -> np.ndarray:
    if final == "exact" or values.dtype.kind != "f" or values.dtype.itemsize <= np.dtype(final).itemsize:
        return values
    with np.errstate(over="ignore"):
        narrow = values.astype(final)
    if np.any(np.isinf(narrow) & np.isfinite(values)):
        raise TicketError(
            f"Expected trained weights that {final} can hold, up to {np.finfo(final).max:g}, but {name!r} has "
            f"{np.abs(values[np.isfinite(values)]).max():g}."
        )
    return narrow


def _checked(header: Mapping[str, Any]) -> list[Variable]:
    """The variables of a header, after checking that all of it is what it should be; nothing is allocated yet."""

    def expect(fits: bool, what: str) -> None:
        if not fits:
            raise ValueError(f"its header has no {what}")

    expect(type(header["level"]) is int and header["level"] >= 0, "level")
    expect(type(header["density"]) in (int, float) and 0 <= header["density"] <= 1, "density")
    expect(type(header["trained"]) is bool, "word on trained weights")
    expect(type(header["found"]) is dict, "account of how it was found")
    expect(type(header["variables"]) is list, "variables")
    metrics = header["metrics"]
    expect(type(metrics) is dict, "metrics")
    expect(all(value is None or type(value) in (bool, int, float, str) for value in metrics.values()), "plain metrics")
    variables = []
    for each in header["variables"]:
        expect(type(each) is dict and type(each["name"]) is str and type(each["masked"]) is bool, "names of variables")
        shape, dtype, parts = each["shape"], each["dtype"], each.get("recipe")
        expect(type(shape) is list and len(shape) <= 32, "shapes")
        expect(all(type(side) is int and 0 <= side < 2**48 for side in shape), "shapes")
        expect(type(dtype) is str and dtype in DTYPES, "types of variables")
        recipe = None
        if parts is not None:
            expect(type(parts) is dict and parts.keys() == {"initializer", "digest", "signed", "scale"}, "recipe")
            kind = parts["initializer"]
            expect(
                type(kind) is dict and type(kind["class_name"]) is str and type(kind["config"]) is dict, "initializer"
            )
            expect(type(parts["signed"]) is bool and type(parts["scale"]) in (int, float), "recipe")
            expect(type(parts["digest"]) is str and bool(re.fullmatch("[0-9a-f]{64}", parts["digest"])), "digest")
            recipe = Recipe(shape=shape, dtype=dtype, **parts)
        variables.append(Variable(each["name"], tuple(shape), dtype, each["masked"], recipe))
    expect(len({variable.name for variable in variables}) == len(variables), "different names of variables")
    return variables


def _unpacked(header: Mapping[str, Any], variables: list[Variable], arrays: Arrays) -> Contents:
    """What a checked header and its arrays tell of."""
    if strange := arrays.keys() - set(_places(variables, header["trained"])):
        raise ValueError(f"it has an array {min(strange)[:80]!r} too many")
    masks: Arrays = {}
    initial: dict[str, np.ndarray | Recipe] = {}
    final: Arrays | None = {} if header["trained"] else None
    for i, variable in enumerate(variables):
        name, mask = variable.name, None
        if variable.masked:
            mask = masks[name] = codec.decode(_bytes(arrays[f"mask/{i}"]), variable.shape)
        held = arrays.get(f"held/{i}")
        initial[name] = variable.recipe or _read(arrays[f"initial/{i}"], held, mask, variable)
        if final is not None:
            final[name] = _read(_widened(arrays[f"final/{i}"], variable.dtype), held, mask, variable)
    if masks_lib.density(masks) != header["density"]:
        raise ValueError("its masks are not of the density in its header")
    return Contents(masks, initial, final, header["level"], header["metrics"], header["found"])


def _places(variables: list[Variable], trained: bool) -> Iterator[str]:
    """The names that arrays of these variables can have."""
    for i, variable in enumerate(variables):
        if variable.masked:
            yield f"mask/{i}"
        if variable.recipe is None:
            yield f"initial/{i}"
            if variable.masked:
                yield f"held/{i}"
        if trained:
            yield f"final/{i}"


def _bytes(coded: np.ndarray) -> bytes:
    if coded.dtype != np.uint8 or coded.ndim != 1:
        raise ValueError(f"a mask has bytes of {coded.dtype} {coded.shape}")
    return coded.tobytes()


def _widened(values: np.ndarray, dtype: str) -> np.ndarray:
    narrow = {"float64": ("float32", "float16"), "float32": ("float16",)}.get(dtype, ())
    return values.astype(dtype) if values.dtype.name in narrow else values


def _read(values: np.ndarray, held: np.ndarray | None, mask: np.ndarray | None, variable: Variable) -> np.ndarray:
    """A variable's whole value, from that of the kept weights and what the pruned ones are held at."""
    if mask is None:
        return _of_type(values, variable, variable.shape)
    chosen = mask.astype(bool)
    count = int(np.count_nonzero(chosen))
    values = _of_type(values, variable, (count,))
    whole = np.zeros(mask.shape, values.dtype)
    whole[chosen] = values
    if held is not None:
        whole[~chosen] = _of_type(held, variable, (mask.size - count,))
    return whole


def _of_type(values: np.ndarray, variable: Variable, shape: tuple[int, ...]) -> np.ndarray:
    if variable.dtype == "bfloat16" and values.dtype == np.uint16:
        import ml_dtypes

        values = values.view(ml_dtypes.bfloat16)
    if values.dtype.name != variable.dtype or values.shape != shape:
        raise ValueError(
            f"{variable.name[:80]!r} has values of {values.dtype} {values.shape} instead of {variable.dtype} {shape}"
        )
    return values
