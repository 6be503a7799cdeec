"""What several claims ask of an `Evidence`, and the papers they are from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tf_lottery.claims.claim import MARGIN, Measured
from tf_lottery.claims.evidence import Evidence, beats, nearest, percent

FRANKLE = "Frankle & Carbin (2019)"
ZHOU = "Zhou et al. (2019)"
RERUN = "5 seeds of their code"


def ahead(
    evidence: Evidence,
    one: str,
    other: str,
    *,
    at_most: float | None = None,
    shown: float | None = None,
    average: bool = False,
) -> Measured:
    """Whether `one` beats `other` at every compared level of `at_most` or less; the value is that at `shown`, or the average."""
    plan = evidence.plan
    fewer = min((one, other), key=lambda name: len(evidence.densities(name)))  # a branch has some of the levels
    densities = evidence.densities(fewer, at_most or plan.fastest)
    ahead = evidence.ahead(one, other, densities)
    at = densities.index(nearest(densities, shown or plan.fastest))
    values = ahead.mean(0) if average else ahead[at]
    return Measured(values, all(map(beats, ahead)), means(densities, ahead))


def on_average(evidence: Evidence, one: str, other: str, at_most: float | None = None) -> Measured:
    """Whether `one` beats `other` in the average over the levels of `at_most` (by default what is called small) or less."""
    densities = evidence.densities(one, at_most or evidence.plan.small)
    ahead = evidence.ahead(one, other, densities).mean(0)
    detail = f"{one} against {other}: {ahead.mean():+.2f} points on average over {len(densities)} levels."
    return Measured(ahead, beats(ahead), detail)


def learned_ahead(evidence: Evidence, *pairs: tuple[str, str]) -> Measured:
    """Whether of every pair of learned masks the first beats the second; the values are the differences of the first pair."""
    each = [(evidence.learned(one), evidence.learned(other)) for one, other in pairs]
    detail = ", ".join(
        f"{one} {own.mean():.2f} % against {other} {its.mean():.2f} %" for (one, other), (own, its) in zip(pairs, each)
    )
    return Measured(each[0][0] - each[0][1], all(beats(own - its) for own, its in each), f"{detail}.")


def meets(evidence: Evidence, values: np.ndarray, or_more: bool = False) -> Measured:
    """Whether the mean is within the published range, or at most half a point outside; above it is as good if `or_more`."""
    low, high = evidence.seeds
    holds = values.mean() >= low - MARGIN and (or_more or values.mean() <= high + MARGIN)
    above = values - (low - MARGIN)
    return Measured(values, bool(holds), "", above if or_more else np.minimum(above, high + MARGIN - values))


def down(evidence: Evidence, name: str, at_most: float) -> list[float]:
    return evidence.densities(name, at_most, evidence.plan.smallest)


def means(densities: Sequence[float], ahead: np.ndarray) -> str:
    return ", ".join(f"{row.mean():+.2f} points at {percent(d)}" for d, row in zip(densities, ahead)) + "."
