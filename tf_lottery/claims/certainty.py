"""How sure a measured figure is: its interval over replicates, and a paired test of the rule that it is to meet. No TensorFlow."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tf_lottery.base.student import CONFIDENCE, reach, two_sided


@dataclass(frozen=True)
class Certainty:
    """
    Attributes:
      values: The measured figure of each replicate.
      margins: By how much each replicate meets the rule, in the unit that the rule speaks of; below 0 it does not.

    >>> sure = Certainty([0.3, 0.4, 0.5], [0.3, 0.4, 0.5])
    >>> [round(end, 3) for end in sure.interval], round(sure.p, 2), sure.decided
    ([0.152, 0.648], 0.02, True)
    >>> Certainty([0.4], [0.4]).interval is None
    True
    """

    values: Sequence[float]
    margins: Sequence[float]

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the mean of the figure, by Student's t; None of a single replicate, whose spread is not known."""
        if len(self.values) < 2:
            return None
        mean, own = statistics.fmean(self.values), reach(self.values)
        return mean - own, mean + own

    @property
    def p(self) -> float | None:
        """How likely margins so far from 0 would be by chance, on either side: the t test of paired replicates; None of one."""
        count = len(self.margins)
        if count < 2:
            return None
        mean, spread = statistics.fmean(self.margins), statistics.stdev(self.margins)
        if spread <= 1e-9 * abs(mean) or not spread:
            return 0.0 if mean else 1.0
        return two_sided(mean * math.sqrt(count) / spread, count - 1)

    @property
    def decided(self) -> bool:
        """Whether the margins differ from 0 at 95 %."""
        return self.p is not None and self.p < 1 - CONFIDENCE
