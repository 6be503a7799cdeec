"""Rewinding to a later step, and what it has to do with stability. Frankle & Carbin, section 4; Frankle et al. (2019 and 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tf_lottery.checks.line import STABLE
from tf_lottery.claims.claim import Measured, claim
from tf_lottery.claims.evidence import Evidence, beats, percent
from tf_lottery.claims.papers.comparisons import FRANKLE, ahead

STABILIZING = "Frankle et al. (2019, arXiv 1903.01611)"
CONNECTED = "Frankle et al. (2020, arXiv 1912.05671)"
NAMES = {
    "resnet18": "ResNet-18",
    "resnet8": "the small ResNet",
    "lenet": "LeNet",
    "residual_mlp": "the MNIST-1D network",
}
LIMIT = 100 * STABLE  # points
BEHIND = "87.7 % with 16.7 % of the weights, no more than random masks, dense 90.5 %"
PUBLISHED = {"lenet": "stable from the initialisation on", "residual_mlp": "no figure; LeNet is stable"}
NOTES = {
    "residual_mlp": "The paper's networks were others. With 13 % of the weights this one's tickets are far better than the dense network, and so "
    "are new weights under their masks (docs/cost.md): there the mask does it, whatever it starts from."
}
STABLE_FROM = "stable from step 500 of 63,000 on (tickets) and from step 2,000 on (dense)"


def accuracies(net: str, scale: str, steps: Sequence[int], small: float, widest: float) -> None:
    """What rewinding to these steps does for accuracy; shown at `small`, tickets from `widest` on."""
    start, *later = (f"{net}_rewind_{step}" for step in steps)
    named: dict[str, Any] = {"group": net, "scales": (scale,)}

    @claim(
        name=f"{net}_rewinding_to_0_fails",
        sentence=f"Rewound to their initialisation, small tickets of {NAMES[net]} are worse than the dense network, without warm-up.",
        runs=[start],
        source=f"{FRANKLE}, section 4; figures: {STABILIZING}",
        published=f"no winning tickets at a rate of 0.1; {BEHIND}",
        rule=f"Holds if the dense network beats them, by more than {{tolerance}} points in the mean, at {percent(small)}.",
        measures=f"gain in test accuracy over the dense network at {percent(small)}",
        **named,
    )
    def fails(evidence: Evidence) -> Measured:
        dense, own = evidence.accuracy(start), evidence.accuracy(start, small)
        gain, tolerance = own - dense, evidence.plan.tolerance
        said = f"{own.mean():.2f} % against {dense.mean():.2f} %."
        return Measured(gain, beats(-gain) and bool(gain.mean() < -tolerance), said, -gain - tolerance)

    for step, run in zip(steps[1:], later):

        @claim(
            name=f"{net}_rewinding_to_{step}_holds",
            sentence=f"Rewound to step {step:,}, tickets of {NAMES[net]} match the dense network from {percent(widest)} to {percent(small)}.",
            runs=[run],
            source=STABILIZING,
            published="tickets from step 500 of 30,000 on, without warm-up; useful steps are 0.1 to 7 % of training",
            rule=f"Holds if at every level from {percent(widest)} to {percent(small)} the mean is at most {{tolerance}} points below the dense "
            "network's.",
            measures=f"gain in test accuracy over the dense network at {percent(small)}",
            **named,
        )
        def holds(evidence: Evidence, run=run) -> Measured:
            dense, tolerance = evidence.accuracy(run), evidence.plan.tolerance
            gains = {d: evidence.accuracy(run, d) - dense for d in evidence.densities(run, widest, small)}
            said = ", ".join(f"{gain.mean():+.2f} points at {percent(d)}" for d, gain in gains.items())
            last = gains[min(gains)]
            matches = all(gain.mean() >= -tolerance for gain in gains.values())
            return Measured(last, matches, f"{said}; dense {dense.mean():.2f} %.", last + tolerance)

        @claim(
            name=f"{net}_rewinding_to_{step}_helps",
            sentence=f"Small tickets of {NAMES[net]} are more accurate rewound to step {step:,} than to their initialisation.",
            runs=[run, start],
            source=STABILIZING,
            published="tickets where there were none (curves only)",
            rule=f"Holds if rewinding to step {step:,} beats rewinding to 0 at {percent(small)}.",
            measures=f"how far it is ahead at {percent(small)}",
            **named,
        )
        def helps(evidence: Evidence, run=run) -> Measured:
            own, other = evidence.accuracy(run, small), evidence.accuracy(start, small)
            return Measured(own - other, beats(own - other), f"{own.mean():.2f} % against {other.mean():.2f} %.")


def stability(
    net: str, scale: str, steps: Sequence[int], level: int, dense_from: int | None, tickets_from: int | None
) -> None:
    """Barriers between two trainings, dense and at a pruned level, against the step that they rewind to."""
    for what, at, stable_from in (("dense network", 0, dense_from), ("tickets", level, tickets_from)):
        for step in steps:
            stable = stable_from is not None and step >= stable_from
            run = f"{net}_rewind_{step}/instability"
            whose = f"{NAMES[net][0].upper()}{NAMES[net][1:]}"
            start = "their initialisation" if what == "tickets" else "its initialisation"
            where = start if step == 0 else f"step {step:,}"

            @claim(
                name=f"{net}_{what.split()[0]}_{'stable' if stable else 'unstable'}_at_{step}",
                sentence=f"{whose}'s {what}, begun from {where}, {'are' if what == 'tickets' else 'is'} {'' if stable else 'not '}stable to the order of the data.",
                group=net if net.startswith("resnet") else "stability",
                runs=[run],
                source=CONNECTED,
                published=PUBLISHED.get(net, STABLE_FROM),
                note=NOTES.get(net, ""),
                rule=f"Holds if the mean barrier is {'below' if stable else f'{LIMIT:g} or'} {f'{LIMIT:g}' if stable else 'more'} points.",
                measures=f"barrier between two trainings of {'the smallest tickets' if at else 'the dense network'}",
                scales=(scale,),
            )
            def check(evidence: Evidence, run=run, at=at, stable=stable) -> Measured:
                barriers, density = evidence.barriers(run, at)
                margin = LIMIT - barriers if stable else barriers - LIMIT
                said = f"With {percent(density)} of the weights." if at else ""
                return Measured(barriers, bool(margin.mean() > 0 or (not stable and margin.mean() == 0)), said, margin)


def other_ways() -> None:
    """What else finds tickets of ResNet-18: a small rate, warm-up; and where scores compete."""
    common: dict[str, Any] = {"group": "resnet18", "source": f"{FRANKLE}, section 4", "scales": ("conv",)}

    @claim(
        name="resnet18_warmup_tickets_match",
        sentence="With warm-up, tickets of ResNet-18 match the dense network.",
        runs=["resnet18_warmup"],
        published="90.5 % at 27.1 %, tickets down to 11.8 %; rate 0.03, 20,000 steps of warm-up",
        rule="Holds if at every level down to 17 % the mean is at most {tolerance} points below the dense network's.",
        measures="test accuracy at 26 %",
        unit="%",
        seeds=(90.5, 90.5),
        **common,
    )
    def warm(evidence: Evidence) -> Measured:
        dense, own = evidence.accuracy("resnet18_warmup"), evidence.accuracy("resnet18_warmup", 0.26)
        tolerance = evidence.plan.tolerance
        gains = [evidence.accuracy("resnet18_warmup", d) - dense for d in evidence.densities("resnet18_warmup")]
        holds = all(gain.mean() >= -tolerance for gain in gains)
        return Measured(own, holds, f"The dense network has {dense.mean():.2f} %.", own - dense + tolerance)

    @claim(
        name="resnet18_low_rate_tickets",
        sentence="At a low learning rate, tickets of ResNet-18 are found, below the dense network at a high one.",
        runs=["resnet18_low", "resnet18_rewind_0"],
        published="89.5 % from 41.7 to 21.9 % at 0.01, dense 90.5 % at 0.1",
        rule="Holds if at 41 % the tickets match the dense network of the low rate, at most {tolerance} points below it in the mean, and the "
        "dense network of the high rate beats them.",
        measures="test accuracy at 41 %",
        unit="%",
        seeds=(89.5, 89.5),
        **common,
    )
    def low(evidence: Evidence) -> Measured:
        own, low, high = (
            evidence.accuracy("resnet18_low", 0.41),
            evidence.accuracy("resnet18_low"),
            evidence.accuracy("resnet18_rewind_0"),
        )
        holds = bool((own - low).mean() >= -evidence.plan.tolerance) and beats(high - own)
        return Measured(own, holds, f"Dense {low.mean():.2f} % at 0.01 and {high.mean():.2f} % at 0.1.", high - own)

    @claim(
        name="resnet18_global_beats_layer",
        sentence="Tickets of ResNet-18 pruned across all layers are more accurate than those pruned layer by layer.",
        runs=["resnet18_warmup", "resnet18_warmup_layer"],
        published="global pruning finds smaller tickets (ResNet-18: no figure; VGG-19: down to 1.5 % instead of 6.9 %)",
        rule="Holds if global pruning beats pruning by layer at every level of 41 % or less.",
        measures="how far global pruning is ahead at 17 %",
        **common,
    )
    def scope(evidence: Evidence) -> Measured:
        return ahead(evidence, "resnet18_warmup", "resnet18_warmup_layer", at_most=0.41, shown=0.17)


accuracies("resnet18", "conv", (0, 500, 1_000), small=0.17, widest=0.51)
other_ways()
stability("resnet18", "conv", (0, 500, 2_000), 4, dense_from=2_000, tickets_from=500)
accuracies("resnet8", "rewinding", (0, 100), small=0.17, widest=0.51)
stability("resnet8", "rewinding", (0, 100), 5, dense_from=100, tickets_from=100)
for small in ("lenet", "residual_mlp"):
    stability(small, "rewinding", (0,), 7, dense_from=0, tickets_from=0)
