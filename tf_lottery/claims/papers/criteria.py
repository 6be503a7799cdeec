"""What to keep: the mask criteria. Zhou et al., section 2."""

from __future__ import annotations

from itertools import product

import numpy as np

from tf_lottery.claims.claim import Measured, claim
from tf_lottery.claims.evidence import Evidence, beats
from tf_lottery.claims.papers.comparisons import RERUN, ZHOU, down, means, meets

CRITERIA_GOOD = ("large_final", "magnitude_increase", "movement", "large_init_large_final")
CRITERIA_BAD = ("random", "large_init", "small_init", "small_final", "small_init_small_final")


@claim(
    group="criteria",
    runs=[*CRITERIA_GOOD, *CRITERIA_BAD],
    source=f"{ZHOU}, section 2",
    published="large_final, magnitude_increase, movement and large_init_large_final do well, the other five badly",
    rule="Holds if each of the four beats each of the other five at {smallest}.",
    measures="the last of the four against the first of the five, at {smallest}",
)
def criteria_are_ranked(evidence: Evidence) -> Measured:
    """Of nine criteria four find tickets: those that look for large final weights or for weights that moved or grew."""
    at = {name: evidence.accuracy(name, evidence.plan.smallest) for name in (*CRITERIA_GOOD, *CRITERIA_BAD)}
    good, bad = ([at[name] for name in names] for names in (CRITERIA_GOOD, CRITERIA_BAD))
    order = sorted(at, key=lambda name: -at[name].mean())
    return Measured(
        np.min(good, axis=0) - np.max(bad, axis=0),
        all(beats(one - other) for one, other in product(good, bad)),
        "In order: " + ", ".join(f"{name} {at[name].mean():.2f} %" for name in order) + ".",
    )


@claim(
    group="criteria",
    runs=["large_final", "magnitude_increase"],
    source=f"{ZHOU}, section 2",
    published="on a par on this network (no figure)",
    rule="Holds if at every level of {fastest} or less the mean of magnitude_increase is at most {tolerance} points below that of "
    "large_final.",
    measures="magnitude_increase against large_final at {smallest}",
)
def magnitude_increase_is_as_good(evidence: Evidence) -> Measured:
    """magnitude_increase does as well as large_final."""
    densities = down(evidence, "large_final", evidence.plan.fastest)
    ahead = evidence.ahead("magnitude_increase", "large_final", densities)
    tolerance = evidence.plan.tolerance
    return Measured(ahead[-1], bool(ahead.mean(1).min() >= -tolerance), means(densities, ahead), ahead[-1] + tolerance)


@claim(
    group="criteria",
    runs=["protocol"],
    source=f"{ZHOU}; {RERUN}",
    published="98.34 % (98.26 to 98.42)",
    rule="Holds if the mean is within the published range over seeds, or at most half a point outside.",
    measures="test accuracy at {fastest}",
    unit="%",
    seeds=(98.26, 98.42),
    scales=["full"],
)
def large_final_is_as_published(evidence: Evidence) -> Measured:
    """Tickets by large_final have the published accuracy at {fastest}."""
    return meets(evidence, evidence.accuracy("protocol", evidence.plan.fastest))


@claim(
    group="criteria",
    runs=["random"],
    source=f"{ZHOU}; {RERUN}",
    published="97.71 % (97.56 to 97.90)",
    rule="Holds if the mean is within the published range over seeds, or at most half a point outside.",
    measures="test accuracy at {fastest}",
    unit="%",
    seeds=(97.56, 97.90),
    scales=["full"],
)
def random_is_as_published(evidence: Evidence) -> Measured:
    """Masks by chance have the published accuracy at {fastest}."""
    return meets(evidence, evidence.accuracy("random", evidence.plan.fastest))
