"""What was measured on the straight line between two networks. No TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass

POINTS = 30
STABLE = 0.02  # of the error: below it a network is stable (Frankle et al., 2020, section 3)


@dataclass(frozen=True)
class Line:
    """The error of the networks between two, `(1 - alpha) w_a + alpha w_b`.

    Attributes:
      alphas: Where it was measured, from 0, the one network, to 1, the other, at equal distances.
      errors: The share of wrong answers there, in [0, 1].

    >>> Line((0.0, 0.5, 1.0), (0.1, 0.4, 0.2)).barrier
    0.25
    """

    alphas: tuple[float, ...]
    errors: tuple[float, ...]

    @property
    def barrier(self) -> float:
        """The largest error less the mean of those at the two ends; 0 = none."""
        return max(self.errors) - (self.errors[0] + self.errors[-1]) / 2

    @property
    def stable(self) -> bool:
        """Whether the barrier is below 2 points."""
        return self.barrier < STABLE
