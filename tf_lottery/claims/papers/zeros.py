"""What pruned weights hold. Zhou et al., section 3."""

from __future__ import annotations

import numpy as np

from tf_lottery.claims.claim import Measured, claim
from tf_lottery.claims.evidence import Evidence
from tf_lottery.claims.papers.comparisons import ZHOU, ahead, on_average


@claim(
    group="zeros",
    runs=["large_final", "freeze_init"],
    source=f"{ZHOU}, section 3",
    published="significantly worse than zero, except at extreme sizes (no figure)",
    rule="Holds if zeros beat frozen initial values at every level from {fastest} to {smallest}.",
    measures="how far zeros are ahead at these levels",
)
def freezing_at_init_hurts(evidence: Evidence) -> Measured:
    """Pruned weights that are frozen at their initial values do worse than zeros."""
    return ahead(evidence, "large_final", "freeze_init", average=True)


@claim(
    group="zeros",
    runs=["large_final", "variant_1"],
    source=f"{ZHOU}, section 3",
    published="like zero at large sizes, better at small ones (no figure)",
    rule="Holds if on the average over the levels of {small} or less Variant 1 beats zeros.",
    measures="how far Variant 1 is ahead of zeros at these levels",
)
def variant_1_helps(evidence: Evidence) -> Measured:
    """Zero only for pruned weights that moved towards it (Variant 1) does better than zero for all at small sizes."""
    return on_average(evidence, "variant_1", "large_final")


@claim(
    group="zeros",
    runs=["large_final", "variant_1", "variant_2"],
    source=f"{ZHOU}, section 3",
    published="better still (no figure)",
    rule="Holds if on the average over the levels of {small} or less Variant 2 beats zeros and Variant 1.",
    measures="how far Variant 2 is ahead of zeros at these levels",
)
def variant_2_helps_more(evidence: Evidence) -> Measured:
    """Kept weights that moved towards zero start there too (Variant 2): better still at small sizes."""
    own, other = on_average(evidence, "variant_2", "large_final"), on_average(evidence, "variant_2", "variant_1")
    return Measured(own.values, own.holds and other.holds, f"{own.detail} {other.detail}")


@claim(
    group="zeros",
    runs=["variant_1", "variant_1_reshuffle", "variant_1_reverse"],
    source=f"{ZHOU}, section 3, controls",
    published="both controls do worse (no figure)",
    rule="Holds if Variant 1 beats each control on the average over the levels from {fastest} to {smallest}.",
    measures="how far Variant 1 is ahead of the better control at these levels",
)
def which_weights_are_zero_matters(evidence: Evidence) -> Measured:
    """As many zeros in random places, or zeros for the weights that moved away from zero, do worse than Variant 1."""
    fastest = evidence.plan.fastest
    both = [on_average(evidence, "variant_1", name, fastest) for name in ("variant_1_reshuffle", "variant_1_reverse")]
    values = np.min([one.values for one in both], axis=0)
    return Measured(values, all(one.holds for one in both), " ".join(one.detail for one in both))
