"""Student's t, for tests and intervals of 95 % over few replicates."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence

CONFIDENCE = 0.95
MANY = 1_000


def quantile(freedom: float) -> float:
    """Student's t of so many degrees of freedom, 1 or more, that an interval of 95 % reaches to.

    Between whole degrees of freedom, as Welch's test has them, and from 1,000 on to the normal distribution, it is a line along
    their inverse.

    >>> round(quantile(2), 3), round(quantile(30), 3)
    (4.303, 2.042)

    Reference: Abramowitz & Stegun (1964), 26.7.3 and 26.7.4, solved by halving.
    """
    if freedom > MANY:
        normal = statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
        return normal + (_quantile(MANY) - normal) * MANY / freedom
    whole = int(freedom)
    if whole == freedom:
        return _quantile(whole)
    share = (1 / whole - 1 / freedom) * whole * (whole + 1)
    return (1 - share) * _quantile(whole) + share * _quantile(whole + 1)


def reach(values: Sequence[float]) -> float:
    """Half of the 95 % interval of the mean of two values or more.

    >>> round(reach([1.0, 2.0, 3.0]), 3)
    2.484
    """
    return quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def two_sided(t: float, freedom: int) -> float:
    """The chance that Student's t of so many degrees of freedom is so far from 0, or further, on either side.

    >>> round(two_sided(4.303, 2), 3), two_sided(0.0, 5)
    (0.05, 1.0)

    Reference: Abramowitz & Stegun (1964), 26.7.3 and 26.7.4.
    """
    return 1 - _inside(math.atan(abs(t) / math.sqrt(freedom)), freedom)


@functools.cache
def _quantile(freedom: int) -> float:
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _inside(middle, freedom) < CONFIDENCE else (low, middle)
    return math.tan(low) * math.sqrt(freedom)


def _inside(angle: float, freedom: int) -> float:
    """The share of the distribution with |t| < tan(angle) sqrt(freedom)."""
    odd, cosine = freedom % 2, math.cos(angle)
    term, total = cosine if odd else 1.0, 0.0
    for k in range(3 if odd else 2, freedom + 1, 2):
        total += term
        term *= cosine**2 * ((k - 1) / k)
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
