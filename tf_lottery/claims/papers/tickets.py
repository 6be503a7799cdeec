"""Winning tickets of a fully connected network, found round by round or at once. Frankle & Carbin, section 2 and figure 4."""

from __future__ import annotations

import numpy as np

from tf_lottery.claims.claim import Measured, claim
from tf_lottery.claims.evidence import Evidence, beats, percent
from tf_lottery.claims.papers.comparisons import FRANKLE, RERUN, ahead, down


@claim(
    group="tickets",
    runs=["protocol"],
    source=f"{FRANKLE}, section 2; range: {RERUN}",
    published="98.0 % at 3.6 %, dense 98.0 ± 0.2 %",
    rule="Holds if at every level down to {smallest} the mean is at most {tolerance} points below the dense network's.",
    measures="test accuracy at {smallest}",
    unit="%",
    seeds=(97.89, 98.09),
)
def tickets_match_dense(evidence: Evidence) -> Measured:
    """Winning tickets match or beat the dense network down to {smallest} of the weights."""
    dense, plan = evidence.accuracy("protocol"), evidence.plan
    behind = {d: float(np.mean(dense - evidence.accuracy("protocol", d))) for d in down(evidence, "protocol", 1.0)}
    worst = max(behind, key=behind.__getitem__)
    return Measured(
        evidence.accuracy("protocol", plan.smallest),
        behind[worst] <= plan.tolerance,
        f"The dense network has {dense.mean():.2f} %; of {len(behind)} levels that of {percent(worst)} is the furthest behind "
        f"it, at {-behind[worst]:+.2f} points.",
        evidence.accuracy("protocol", worst) - dense + plan.tolerance,
    )


@claim(
    group="tickets",
    runs=["protocol"],
    source=f"{FRANKLE}, section 2",
    published="more than +0.3 points at 13.5 %",
    rule="Holds if the mean is more than {gain} points above the dense network's.",
    measures="gain in test accuracy over the dense network at {best}",
)
def tickets_gain(evidence: Evidence) -> Measured:
    """At {best} of the weights tickets are more than {gain} points more accurate than the dense network."""
    dense, ticket = evidence.accuracy("protocol"), evidence.accuracy("protocol", evidence.plan.best)
    gain = ticket - dense
    said = f"{ticket.mean():.2f} % against {dense.mean():.2f} %."
    return Measured(gain, gain.mean() > evidence.plan.gain, said, gain - evidence.plan.gain)


@claim(
    group="tickets",
    runs=["protocol"],
    source=f"{FRANKLE}, section 2",
    published="38 % earlier at 21.1 %",
    rule="Holds if the ticket's early stop comes before the dense network's, in the mean and in most replicates.",
    measures="how much earlier the early stop comes at {fastest} than in the dense network",
    unit="%",
)
def tickets_learn_faster(evidence: Evidence) -> Measured:
    """At {fastest} of the weights tickets learn faster than the dense network."""
    dense, ticket = evidence.step("protocol"), evidence.step("protocol", evidence.plan.fastest)
    detail = f"Early stop at step {ticket.mean():,.0f} against {dense.mean():,.0f}."
    return Measured(100 * (1 - ticket / dense), beats(dense - ticket), detail, dense - ticket)


@claim(
    group="tickets",
    runs=["protocol", "protocol/reinit"],
    source=f"{FRANKLE}, section 2",
    published="0.5 points at 21 %",
    rule="Holds if the ticket beats its mask with new weights at every compared level of {fastest} or less.",
    measures="how far the ticket is ahead at {fastest}",
)
def reinit_is_worse(evidence: Evidence) -> Measured:
    """A ticket's mask with newly drawn weights is less accurate than the ticket."""
    return ahead(evidence, "protocol", "protocol/reinit")


@claim(
    group="tickets",
    runs=["protocol", "protocol/reinit"],
    source=f"{FRANKLE}, section 2",
    published="2.51 times later at 21 %",
    rule="Holds if the early stop of the ticket comes first, in the mean and in most replicates, at every compared level from "
    "{fastest} to {smallest}.",
    measures="step of its early stop / that of the ticket, at {fastest}",
    unit="times",
)
def reinit_is_slower(evidence: Evidence) -> Measured:
    """A ticket's mask with newly drawn weights learns more slowly than the ticket."""
    own, other, plan = "protocol", "protocol/reinit", evidence.plan
    steps = {d: (evidence.step(own, d), evidence.step(other, d)) for d in down(evidence, other, plan.fastest)}
    ticket, reinit = steps[max(steps)]
    return Measured(
        reinit / ticket,
        all(beats(b - a) for a, b in steps.values()),
        "Steps "
        + ", ".join(f"{b.mean():,.0f} against {a.mean():,.0f} at {percent(d)}" for d, (a, b) in steps.items())
        + ".",
        reinit - ticket,
    )


@claim(
    group="tickets",
    runs=["protocol/reinit", "protocol/random_mask"],
    source=f"{FRANKLE}, appendix E",
    published="worse (no figure); no difference in convolutional networks",
    rule="Holds if the ticket's mask with new weights beats a random mask at every compared level of {fastest} or less.",
    measures="how far the ticket's mask is ahead at {small}",
)
def random_masks_are_worse(evidence: Evidence) -> Measured:
    """Random masks of the same layer-wise densities are worse than the ticket's mask with newly drawn weights."""
    return ahead(evidence, "protocol/reinit", "protocol/random_mask", shown=evidence.plan.small)


@claim(
    group="one_shot",
    runs=["large_final", "one_shot"],
    source=f"{FRANKLE}, section 2, one-shot pruning",
    published="iterative tickets match dense at smaller sizes (no figure)",
    rule="Holds if iterative pruning beats one-shot pruning at every level of {small} or less.",
    measures="how far iterative pruning is ahead at {smallest}",
)
def iterative_beats_one_shot(evidence: Evidence) -> Measured:
    """At small sizes tickets found round by round are more accurate than those pruned at once."""
    return ahead(evidence, "large_final", "one_shot", at_most=evidence.plan.small, shown=evidence.plan.smallest)


@claim(
    group="one_shot",
    runs=["protocol", "two_trainings"],
    source="this library, docs/cost.md; no paper",
    published="no figure",
    rule="Holds if the mean is at most {tolerance} points below that of the full search, at the level nearest to {cheap}.",
    measures="how far the cheap ticket is ahead of that of the full search at {cheap}",
)
def two_trainings_are_enough(evidence: Evidence) -> Measured:
    """A ticket for two trainings, of a few short levels, is as accurate as that of the full search at {cheap}."""
    density = evidence.plan.cheap
    cheap, full = evidence.accuracy("two_trainings", density), evidence.accuracy("protocol", density)
    return Measured(
        cheap - full,
        float(np.mean(cheap - full)) >= -evidence.plan.tolerance,
        f"{cheap.mean():.2f} % against {full.mean():.2f} %.",
        cheap - full + evidence.plan.tolerance,
    )
