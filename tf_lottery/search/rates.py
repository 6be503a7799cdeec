"""How much each level of a search prunes, so that it passes through the densities that were asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tf_lottery.base.errors import LotteryError

PAPERS = {"output": 0.1, "": 0.2}  # a round of Frankle & Carbin (2019): half the rate in the output layer


def rounds_to(
    density: float, fractions: Mapping[str, float], kept: Mapping[str, int], sizes: Mapping[str, int]
) -> float:
    """How many rounds of pruning lead to a density of the whole network, as a real number t:

        sum of kept_i (1 - fraction_i)^t  =  density * sum of sizes_i

    The kernels keep the densities then that they have in a search by whole rounds.

    Args:
      density: In (0, 1), below the present one.
      fractions: The share of its remaining weights that each kernel loses in a round.
      kept, sizes: How many weights each kernel keeps so far, and has.

    Raises:
      LotteryError: If the density is out of range, or kernels that are left dense hold more.

    >>> round(rounds_to(0.64, {"a": 0.2}, {"a": 100}, {"a": 100}), 6)
    2.0
    """
    wanted, whole = density * sum(sizes.values()), sum(kept.values())

    def left(rounds: float) -> float:
        return sum(count * (1 - fractions[path]) ** rounds for path, count in kept.items())

    least = sum(count for path, count in kept.items() if not fractions[path])
    if not least < wanted < whole:
        raise LotteryError(
            f"Expected a density between {least / sum(sizes.values()):.3g}, what is never pruned, and {whole / sum(sizes.values()):.3g}, "
            f"what there is, but received {density}."
        )
    low, high = 0.0, 1.0
    while left(high) > wanted:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if left(middle) > wanted else (low, middle)
    return high


def spread(ends: Sequence[float], levels: int, falling: bool = False) -> tuple[list[float], list[int]]:
    """Levels to the places `ends` on a line: the length of each, and after how many each end is reached.

    Args:
      falling: Whether the first half of the levels is longer, by 3 to 2, than the second; otherwise all are about alike.

    >>> spread([1.0, 4.0], 4)
    ([1.0, 1.0, 1.0, 1.0], [1, 4])
    >>> spread([10.0], 4, falling=True)
    ([3.0, 3.0, 2.0, 2.0], [4])
    """
    pace = [3 if falling and 2 * level < levels else 2 for level in range(levels)]
    reached = np.cumsum([0, *pace]) / sum(pace)  # of the line, after each level
    nearest = [int(np.argmin(np.abs(reached - end / ends[-1]))) for end in ends]
    at = [max(i + 1, min(levels - len(ends) + i + 1, level)) for i, level in enumerate(nearest)]
    for i in range(1, len(at)):
        at[i] = max(at[i], at[i - 1] + 1)
    lengths: list[float] = []
    for end, start, a, b in zip(ends, [0.0, *ends[:-1]], [0, *at[:-1]], at):
        lengths += [(end - start) * level / sum(pace[a:b]) for level in pace[a:b]]
    return lengths, at


def at_once(fractions: Mapping[str, float], rounds: float) -> dict[str, float]:
    """The share that each kernel loses in so many rounds together.

    >>> round(at_once({"a": 0.2}, 2.0)["a"], 6)
    0.36
    """
    return {path: 1 - (1 - fraction) ** rounds for path, fraction in fractions.items()}


class Cubic:
    """A density that falls along a cubic, as a schedule for `PruneBySchedule`.

    Step s is answered by

        1 - (1 - density) (1 - (1 - f)^3),    f from 0 to 1 between `begin` and three quarters of `steps`

    with a mask every 1/120 of the steps.

    Args:
      density: The density at the end.
      steps: Steps of the training.
      begin: The step at which the pruning begins.

    Raises:
      LotteryError: If there is time for fewer than 10 masks.

    Reference: Zhu & Gupta (2017, arXiv 1710.01878), section 3.

    >>> [float(Cubic(0.2, 1200)(step)[1].round(3)) for step in (0, 450, 900, 1200)]
    [0.0, 0.7, 0.8, 0.8]
    """

    def __init__(self, density: float, steps: int, begin: int = 0):
        self.density, self.begin = density, begin
        self.every = max(1, steps // 120)
        self.masks = (3 * steps // 4 - begin) // self.every
        if self.masks < 10:
            raise LotteryError(
                f"Expected search_steps in which gradual pruning takes at least 10 masks, but in the first three quarters of {steps} steps, "
                f"from step {begin} on, there are {max(0, self.masks)}."
            )

    def __call__(self, step):
        masks = (np.asarray(step) - self.begin) / self.every
        f = np.clip(masks / self.masks, 0, 1)
        due = (masks == np.floor(masks)) & (masks > 0) & (masks <= self.masks)
        return due, (1 - self.density) * (1 - (1 - f) ** 3)
