"""What the masks of a run's tickets are like, counted kernel by kernel. NumPy only, one level in memory at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from tf_lottery.rules.masks import Arrays, overlap
from tf_lottery.runs.folder import Folder

MOST = 8  # replicates of a level whose masks are counted: enough for a band, and a report of hundreds does not read them all


class Connected(NamedTuple):
    """The shares of a kernel's units, in [0, 1], that still have a connection in it."""

    inputs: float  # units with at least one kept weight that leaves them
    outputs: float  # units with at least one kept weight that reaches them


@dataclass(frozen=True)
class Level:
    """One level over the replicates that have it.

    Attributes:
      level: Its number.
      replicates: Which replicates were counted, at most MOST.
      there: How many replicates have the level.
      densities: The density of each replicate's ticket.
      kernels: For each kernel the density in each replicate.
      connected: For each kernel the units that are connected, in each replicate.
      overlap: For each kernel and pair of replicates the kept weights they share, as a multiple of chance; see `masks.overlap`.
      kept_by_input: For each replicate the number of kept connections of each unit of the input, in the shape of the input;
        None if no kernel is known to be the first. Of a convolution: (height, width, filters), summed over its inputs.
    """

    level: int
    replicates: list[int]
    there: int
    densities: list[float]
    kernels: dict[str, list[float]]
    connected: dict[str, list[Connected]]
    overlap: dict[str, list[float]]
    kept_by_input: list[np.ndarray] | Any

    @property
    def density(self) -> float:
        return float(np.mean(self.densities))


def take(run: Folder) -> list[Level]:
    """Counts the masks of a run's tickets level by level, of the first MOST replicates that have a level."""
    replicates: dict[int, list[int]] = {}
    for replicate, level in run.finished():
        replicates.setdefault(level, []).append(replicate)
    return [_level(run, level, replicates[level]) for level in sorted(replicates)]


def _level(run: Folder, level: int, there: Sequence[int]) -> Level:
    replicates = there[:MOST]
    tickets = [run.ticket(replicate, level) for replicate in replicates]
    paths = [path for path in tickets[0].masks if all(path in ticket.masks for ticket in tickets)]
    common = [{path: ticket.masks[path] for path in paths} for ticket in tickets]
    shared = [overlap(one, other) for one, other in combinations(common, 2)]
    by_input: list[Any] = [by_input_unit(ticket.masks, ticket.found.get("input_shape")) for ticket in tickets]
    return Level(
        level,
        list(replicates),
        len(there),
        [ticket.density for ticket in tickets],
        {path: [float(ticket.masks[path].mean()) for ticket in tickets] for path in paths},
        {path: [connected(ticket.masks[path]) for ticket in tickets] for path in paths},
        {path: [pair[path].against_chance for pair in shared] for path in paths},
        None if any(counted is None for counted in by_input) else by_input,
    )


def connected(mask: np.ndarray) -> Connected:
    """Which share of a kernel's units it still connects; units are the last two axes, (inputs, outputs).

    >>> connected(np.array([[1, 1, 0], [0, 0, 0]]))
    Connected(inputs=0.5, outputs=0.6666666666666666)
    """
    matrix = np.any(mask.reshape(-1, *mask.shape[-2:]), axis=0)
    return Connected(float(np.any(matrix, axis=1).mean()), float(np.any(matrix, axis=0).mean()))


def by_input_unit(masks: Arrays, input_shape: Sequence[int] | None) -> np.ndarray | None:
    """The kept connections of each unit of the input in the first kernel, in the shape of the input without channels.

    A convolution shares its weights over positions: for its kernel (height, width, channels, filters) the kept weights are
    counted over the channels. None if the first kernel does not fit the input.

    >>> by_input_unit({"kernel": np.array([[1, 1], [1, 0], [0, 0], [0, 1]])}, [2, 2, 1])
    array([[2, 1],
           [0, 1]])
    """
    if not masks:
        return None
    first = next(iter(masks.values()))
    if first.ndim == 4 and input_shape and len(input_shape) == 3 and first.shape[2] == input_shape[-1]:
        return first.sum(axis=2, dtype=int)
    if first.ndim != 2 or (input_shape and math.prod(input_shape) != first.shape[0]):
        return None
    counted = first.sum(axis=1, dtype=int)
    if not input_shape or len(input_shape) != 3:
        return counted
    return counted.reshape(input_shape).sum(axis=-1)


def is_convolution(level: Level) -> bool:
    return level.kept_by_input is not None and level.kept_by_input[0].ndim == 3


def empty_kernels(levels: Sequence[Level]) -> list[tuple[str, int, int]]:
    """(kernel, replicate, level) of all kernels that keep no weight: there the layer is disconnected."""
    return [
        (path, replicate, level.level)
        for level in levels
        for path, densities in level.kernels.items()
        for replicate, density in zip(level.replicates, densities)
        if density == 0
    ]
