"""Masks as bytes, near their entropy: a range coder whose odds follow the rows and columns of a kernel. NumPy only.

The odds of keeping a weight are those of the whole mask times one factor for its slice along each axis (input, output,
place in a filter):

    p / (1 - p) = odds * 2^(a_i / 4) * 2^(b_j / 4) * ...

Slices that keep nothing are named and left out. The factors are whole quarters of an octave, so all that decoder and encoder
must agree on comes from sums of small integers, one table of constants and single IEEE multiplications and divisions of
float64, which every machine rounds alike; probabilities are cut to 22 bits before the coder sees them. An axis only
has factors where they save more than they cost, and the encoder keeps the plain code, one density, where that is shorter.

    bytes             what
    8                 weights kept, unsigned; all numbers are little-endian
    4                 CRC-32 of the mask, eight weights a byte (`numpy.packbits`), in C order
    1 for each axis   steps an octave of its factors: 0 none, else 1, 2 or 4; followed, if not 0, by
                      1 least factor in steps (signed), 1 number of factors, and for "keeps nothing" and each factor from the
                      least up 1 byte that says how frequent it is
    4 a word          range coder (constriction's queue, 32 bit words, 24 bit probabilities): for each axis with factors the
                      symbol of each slice, then the weights that are left, in C order

A mask that keeps all or none of its weights ends after the first 12 bytes.

Reference: range coding after Martin (1979), as implemented by `constriction` (Bamler 2022, arXiv 2201.01741).
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_lottery.base.errors import TicketError

STEPS = (1, 2, 4)  # factors an octave
ONE = 2**22  # the probabilities are k / ONE, k in [1, ONE - 1]
BLOCK = 2**20  # weights coded at a time
QUARTERS = np.array([1.0, 1.189207115002721, 1.4142135623730951, 1.681792830507429])  # 2^0, 2^(1/4), 2^(1/2), 2^(3/4)
HEAD = struct.Struct("<QI")
AXIS = struct.Struct("<bB")


def encode(mask: np.ndarray) -> bytes:
    """A mask of zeros and ones, of any shape, as bytes; the shape is not among them.

    >>> mask = np.zeros((100, 80), np.uint8)
    >>> mask[:, :40] = 1
    >>> len(encode(mask)) < entropy(mask) / 8 / 20
    True
    """
    mask = np.asarray(mask, bool)
    kept = int(np.count_nonzero(mask))
    head = HEAD.pack(kept, zlib.crc32(np.packbits(mask).data))
    if kept in (0, mask.size):
        return head
    plain = [_PLAIN] * mask.ndim
    fitted = _fitted(mask, kept)
    return head + min((_coded(mask, kept, axes) for axes in (plain, fitted)), key=len)


def decode(data: bytes, shape: Sequence[int]) -> np.ndarray:
    """The mask, uint8, that `encode` made the bytes of.

    Raises:
      TicketError: If they are not those of a mask of this shape.
    """
    import constriction

    shape, size = tuple(shape), math.prod(shape)
    try:
        (kept, check), at = HEAD.unpack_from(data), HEAD.size
        if not 0 <= kept <= size:
            raise ValueError(f"{kept} of {size} weights cannot be kept")
        if kept in (0, size):
            mask = np.full(shape, kept > 0, bool)
        else:
            axes = []
            for _ in shape:
                axis, at = _Axis.read(data, at)
                axes.append(axis)
            words = np.frombuffer(data, "<u4", offset=at).astype(np.uint32, copy=False)
            mask = _decoded(constriction.stream.queue.RangeDecoder(words), shape, kept, axes)
        if zlib.crc32(np.packbits(mask).data) != check:
            raise ValueError("its CRC-32 differs")
    except (struct.error, ValueError, IndexError, AssertionError) as error:
        raise TicketError(
            f"Expected the coded bytes of a mask of shape {shape}, but they are damaged ({error})."
        ) from None
    return mask.view(np.uint8)


def entropy(mask: np.ndarray) -> float:
    """Bits of a mask whose weights are independent and of one density d: N * (-d log2 d - (1 - d) log2(1 - d)).

    >>> entropy(np.array([1, 0, 1, 0]))
    4.0
    """
    kept = int(np.count_nonzero(mask))
    return float(_bits(np.array(kept), mask.size, kept / mask.size)) if 0 < kept < mask.size else 0.0


@dataclass(frozen=True)
class _Axis:
    """How the factors of one axis are written.

    Attributes:
      steps: Factors an octave; 0 if it has none.
      least: The least factor, in steps.
      frequencies: Of the symbols 0, "keeps nothing", and 1 + i, the factor `least + i`.
      symbols: That of each slice, where they are known.
    """

    steps: int
    least: int = 0
    frequencies: bytes = b""
    symbols: np.ndarray | Any = None

    @classmethod
    def of(cls, steps: int, levels: np.ndarray, dead: np.ndarray) -> _Axis:
        least = int(levels[~dead].min())
        symbols = np.where(dead, 0, levels - least + 1).astype(np.int32)
        counts = np.bincount(symbols)
        scaled = (-(-255 * counts // counts.max())).astype(np.uint8)  # a symbol that occurs has at least 1
        return cls(steps, least, scaled.tobytes(), symbols)

    @classmethod
    def read(cls, data: bytes, at: int) -> tuple[_Axis, int]:
        """The axis that is written at a place, and the place after it."""
        if (steps := data[at]) == 0:
            return _PLAIN, at + 1
        least, count = AXIS.unpack_from(data, at + 1)
        frequencies = data[at + 1 + AXIS.size :][: count + 1]
        if steps not in STEPS or len(frequencies) <= count or not any(frequencies[1:]):
            raise ValueError("an axis has no factors")
        return cls(steps, least, frequencies), at + 2 + AXIS.size + count

    def written(self) -> bytes:
        if self.steps == 0:
            return b"\0"
        return bytes([self.steps]) + AXIS.pack(self.least, len(self.frequencies) - 1) + self.frequencies

    def model(self):
        """The distribution of its symbols."""
        import constriction

        weights = np.frombuffer(self.frequencies, np.uint8).astype(np.float64)
        return constriction.stream.model.Categorical(weights, perfect=False)

    def cost(self) -> float:
        """Bits that its factors take."""
        counts = np.bincount(self.symbols)
        counts = counts[counts > 0]
        return 8 * (1 + AXIS.size + len(self.frequencies)) - float(np.sum(counts * np.log2(counts / counts.sum())))

    def factors(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Which slices are left, and their factors in quarters of an octave."""
        if self.steps == 0:
            return np.arange(size), np.zeros(size, np.int16)
        left = np.flatnonzero(self.symbols)
        return left, ((self.symbols[left] - 1 + self.least) * (4 // self.steps)).astype(np.int16)


_PLAIN = _Axis(0)


def _fitted(mask: np.ndarray, kept: int) -> list[_Axis]:
    """For each axis the factors that save the most."""
    others = [tuple(b for b in range(mask.ndim) if b != a) for a in range(mask.ndim)]
    counts = [np.count_nonzero(mask, axis=rest) for rest in others]
    left = [int(np.count_nonzero(count)) for count in counts]
    axes = []
    for a, count in enumerate(counts):
        size = math.prod(left[b] for b in others[a])  # weights of a slice
        dead, base = count == 0, kept / (left[a] * size)
        best, least_cost = _PLAIN, float(_bits(np.array(kept), count.size * size, kept / (count.size * size)))
        octaves = np.log2((count + 0.25) / (size - count + 0.25) * max(1 - base, 1e-9) / base)
        for steps in (0, *STEPS):  # with 0 the slices that are left have no factors
            axis = _Axis.of(steps or 1, np.clip(np.rint(steps * octaves), -99, 99).astype(int), dead)
            levels = axis.factors(count.size)[1]
            cost = axis.cost() + np.sum(_bits(count[~dead], size, _probabilities(kept, left[a] * size, levels)))
            if cost < least_cost:
                best, least_cost = axis, cost
        axes.append(best)
    return axes


def _bits(kept, size, p):
    """Cross-entropy of `kept` of `size` weights under a probability."""
    p = np.clip(p, 1 / ONE, 1 - 1 / ONE)
    return -(kept * np.log2(p) + (size - kept) * np.log2(1 - p))


def _probabilities(kept: int, size: int, quarters: np.ndarray) -> np.ndarray:
    """Of weights whose odds are `kept / (size - kept)` times 2^(quarters / 4): exact operations only."""
    if kept == size:
        return np.full(quarters.shape, 1 - 1 / ONE)
    quarters = np.clip(quarters, -400, 400)
    odds = kept / (size - kept) * np.ldexp(QUARTERS[quarters & 3], quarters >> 2)
    return np.clip(np.floor(odds / (1 + odds) * ONE), 1, ONE - 1) / ONE


def _coded(mask: np.ndarray, kept: int, axes: Sequence[_Axis]) -> bytes:
    import constriction

    coder = constriction.stream.queue.RangeEncoder()
    for axis in axes:
        if axis.steps:
            coder.encode(axis.symbols, axis.model())
    left, quarters = zip(*(axis.factors(size) for axis, size in zip(axes, mask.shape)))
    bits = mask if all(axis.steps == 0 for axis in axes) else mask[np.ix_(*left)]
    bits = bits.reshape(-1)
    for part, model, parameters in _models(kept, quarters):
        coder.encode(bits[part].astype(np.int32), model, *parameters)
    words = coder.get_compressed().astype("<u4")
    return b"".join(axis.written() for axis in axes) + words.tobytes()


def _decoded(coder, shape: tuple[int, ...], kept: int, axes: Sequence[_Axis]) -> np.ndarray:
    known = []
    for axis, size in zip(axes, shape):
        symbols = coder.decode(axis.model(), size) if axis.steps else None
        known.append(_Axis(axis.steps, axis.least, axis.frequencies, symbols))
    left, quarters = zip(*(axis.factors(size) for axis, size in zip(known, shape)))
    sizes = [each.size for each in left]
    if kept > math.prod(sizes):
        raise ValueError(f"{kept} of {math.prod(sizes)} weights cannot be kept")
    bits = np.empty(math.prod(sizes), bool)
    for part, model, parameters in _models(kept, quarters):
        count = (part.stop - part.start,) if not parameters else ()
        bits[part] = coder.decode(model, *parameters, *count)
    if sizes == list(shape):
        return bits.reshape(shape)
    mask = np.zeros(shape, bool)
    mask[np.ix_(*left)] = bits.reshape(sizes)
    return mask


def _models(kept: int, quarters: Sequence[np.ndarray]):
    """The weights in blocks: for each its place, and the coder's model with the parameters it takes."""
    import constriction

    size = math.prod(each.size for each in quarters)
    least, most = (sum(int(end(each)) for each in quarters) for end in (np.min, np.max))
    table = _probabilities(kept, size, np.arange(least, most + 1))
    blocks = [slice(start, min(start + BLOCK, size)) for start in range(0, size, BLOCK)]
    if len(table) == 1:
        model = constriction.stream.model.Bernoulli(float(table[0]), perfect=False)
        yield from ((part, model, ()) for part in blocks)
        return
    places: Any = -least
    for each in quarters:
        places = np.add.outer(places, each).astype(np.int16)
    places, model = places.reshape(-1), constriction.stream.model.Bernoulli(perfect=False)
    for part in blocks:
        yield part, model, (table[places[part]],)
