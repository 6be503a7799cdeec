"""What survivors start from: their signs. Zhou et al., section 4."""

from __future__ import annotations

import numpy as np

from tf_lottery.claims.claim import Measured, claim
from tf_lottery.claims.evidence import Evidence, beats
from tf_lottery.claims.papers.comparisons import ZHOU, down

TREATMENTS = ("reinit", "reshuffle", "constant")


@claim(
    group="signs",
    runs=["large_final", *TREATMENTS],
    source=f"{ZHOU}, section 4",
    published="none of the three does as well as rewinding (no figure)",
    rule="Holds if rewinding beats each of the three at every level of {small} or less.",
    measures="how far rewinding is ahead of the three at these levels",
)
def without_signs_treatments_fail(evidence: Evidence) -> Measured:
    """Survivors that are reinitialised, reshuffled or set to a constant without regard to their signs do worse than rewound ones."""
    densities = down(evidence, "large_final", evidence.plan.small)
    ahead = {name: evidence.ahead("large_final", name, densities) for name in TREATMENTS}
    return Measured(
        np.mean([a.mean(0) for a in ahead.values()], axis=0),
        all(beats(row) for a in ahead.values() for row in a),
        "Mean over these levels: rewinding is ahead of "
        + ", ".join(f"{name} by {a.mean():.2f}" for name, a in ahead.items())
        + " points.",
    )


@claim(
    group="signs",
    runs=["large_final", *TREATMENTS, *(f"{name}_same_sign" for name in TREATMENTS)],
    source=f"{ZHOU}, section 4",
    published="all three train nearly as well as rewinding (no figure)",
    rule="Holds if at every level of {small} or less each of the three with signs is nearer in the mean to rewinding than to itself "
    "without signs, and beats that.",
    measures="how far rewinding is ahead of the three with signs at these levels",
)
def with_signs_treatments_work(evidence: Evidence) -> Measured:
    """With the signs of the initial weights all three treatments do nearly as well as rewinding."""
    densities = down(evidence, "large_final", evidence.plan.small)
    behind = {name: evidence.ahead("large_final", f"{name}_same_sign", densities) for name in TREATMENTS}
    gained = {name: evidence.ahead(f"{name}_same_sign", name, densities) for name in TREATMENTS}
    return Measured(
        np.mean([b.mean(0) for b in behind.values()], axis=0),
        all(
            beats(gain) and abs(lag.mean()) < gain.mean()
            for name in TREATMENTS
            for lag, gain in zip(behind[name], gained[name])
        ),
        "Mean over these levels, with signs: "
        + ", ".join(
            f"{name} is {-behind[name].mean():+.2f} points from rewinding and {gained[name].mean():+.2f} from itself without"
            for name in TREATMENTS
        )
        + ".",
        np.min([g.mean(0) - np.abs(b.mean(0)) for g, b in zip(gained.values(), behind.values())], axis=0),
    )
