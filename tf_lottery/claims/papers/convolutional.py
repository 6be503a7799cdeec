"""Tickets of Conv-2, Conv-4 and Conv-6, with dropout too, and their learned masks. Frankle & Carbin, section 3; Zhou et al., section 5."""

from __future__ import annotations

from tf_lottery.claims.claim import Measured, claim
from tf_lottery.claims.evidence import Evidence, beats, percent
from tf_lottery.claims.papers.comparisons import FRANKLE, ZHOU, ahead, learned_ahead, meets

NAMES = {"conv2": "Conv-2", "conv4": "Conv-4", "conv6": "Conv-6"}
FASTER = {"conv2": (3.5, 0.088), "conv4": (3.5, 0.092), "conv6": (2.5, 0.151)}  # times, density; section 3
GAINS = {"conv2": (3.4, 0.046), "conv4": (3.5, 0.111), "conv6": (3.3, 0.264)}  # points, density; section 3
VALIDATED = {  # validation accuracy and speed, appendix H.2, with an output layer pruned by 10 % a round
    "conv2": "; on validation data +3.3 points at 3 % and 4.8 times faster at 8.8 %",
    "conv4": "; on validation data +3.7 points at 5.4 % and 4.27 times faster at 11.1 %",
    "conv6": "; on validation data +2.4 points at 9.3 % and 2.61 times faster at 11.9 %",
}
DROPOUT = {
    "conv2": (2.1, 2.3, ""),
    "conv4": (3.0, 4.6, "; validation 77.6 to 82.6 % at 7.6 %"),
    "conv6": (2.4, 4.7, "; validation 81.3 to 84.8 % at 10.5 %"),
}
MASKS = {  # Zhou et al., Table 1: learned, rescaled, rescaled on signed constants, trained weights; all but the last two recalled
    "conv2": (64.4, 65.0, 66.0, 69.2),
    "conv4": (65.4, 71.7, 72.5, 75.4),
    "conv6": (65.3, 76.3, 76.5, 78.3),
}
END = 0.02  # of the weights: down to here tickets are above the dense network
CONV = ("conv",)


def faster(net: str) -> None:
    times, density = FASTER[net]

    @claim(
        name=f"{net}_tickets_learn_faster",
        sentence=f"Tickets of {NAMES[net]} learn faster than the dense network.",
        group="conv",
        runs=[net],
        source=f"{FRANKLE}, section 3",
        published=f"{times} times faster at {percent(density)}{VALIDATED[net]}",
        rule="Holds if the ticket's early stop comes before the dense network's, in the mean and in most replicates.",
        measures=f"step of the dense network's early stop / that of the ticket, at {percent(density)}",
        unit="times",
        scales=CONV,
    )
    def check(evidence: Evidence) -> Measured:
        dense, ticket = evidence.step(net), evidence.step(net, density)
        detail = f"Early stop at step {ticket.mean():,.0f} against {dense.mean():,.0f}."
        return Measured(dense / ticket, beats(dense - ticket), detail, dense - ticket)


def better(net: str) -> None:
    points, density = GAINS[net]

    @claim(
        name=f"{net}_tickets_gain",
        sentence=f"Tickets of {NAMES[net]} are more accurate than the dense network.",
        group="conv",
        runs=[net],
        source=f"{FRANKLE}, section 3",
        published=f"+{points} points at {percent(density)}, and above it down to 2 %",
        rule=f"Holds if tickets beat the dense network at {percent(density)}, and are above it in the mean at every level down to 2 %.",
        measures=f"gain in test accuracy over the dense network at {percent(density)}",
        scales=CONV,
    )
    def check(evidence: Evidence) -> Measured:
        dense, gain = evidence.accuracy(net), evidence.accuracy(net, density) - evidence.accuracy(net)
        over = {d: float((evidence.accuracy(net, d) - dense).mean()) for d in evidence.densities(net, at_least=END)}
        least = min(over, key=over.__getitem__)
        detail = f"Dense {dense.mean():.2f} %; the least gain of {len(over)} levels is {over[least]:+.2f} points, at {percent(least)}."
        return Measured(gain, beats(gain) and over[least] > 0, detail)


def against_new_weights(net: str) -> None:
    _, density = GAINS[net]

    @claim(
        name=f"{net}_reinit_is_worse",
        sentence=f"The masks of {NAMES[net]}'s tickets with newly drawn weights are less accurate than the tickets.",
        group="conv",
        runs=[net, f"{net}/reinit"],
        source=f"{FRANKLE}, section 3",
        published="it drops faster as weights are pruned (curves only)",
        rule="Holds if the ticket beats its mask with new weights at every compared level.",
        measures=f"how far the ticket is ahead at {percent(density)}",
        scales=CONV,
    )
    def check(evidence: Evidence) -> Measured:
        return ahead(evidence, net, f"{net}/reinit", at_most=1.0, shown=density)


def new_weights_rise_first(net: str) -> None:
    @claim(
        name=f"{net}_reinit_rises_first",
        sentence=f"With new weights under its masks {NAMES[net]} does not get worse at first as weights are pruned.",
        group="conv",
        runs=[net, f"{net}/reinit"],
        source=f"{FRANKLE}, section 3",
        published="test accuracy at early stop first stays flat or rises (no figure)",
        rule="Holds if the mean at the largest compared level, of about half of the weights, is at most {tolerance} points below the "
        "dense network's.",
        measures="gain in test accuracy of new weights under the mask of about half of the weights over the dense network",
        scales=CONV,
    )
    def check(evidence: Evidence) -> Measured:
        density = max(evidence.densities(f"{net}/reinit"))
        gain = evidence.accuracy(f"{net}/reinit", density) - evidence.accuracy(net)
        tolerance = evidence.plan.tolerance
        return Measured(gain, bool(gain.mean() >= -tolerance), f"At {percent(density)}.", gain + tolerance)


def random_is_as_good(net: str) -> None:
    _, density = GAINS[net]

    @claim(
        name=f"{net}_random_masks_are_as_good",
        sentence=f"Random masks of {NAMES[net]} are no worse than its tickets' masks with newly drawn weights.",
        group="conv",
        runs=[f"{net}/reinit", f"{net}/random_mask"],
        source=f"{FRANKLE}, appendix E",
        published="no significant difference (no figure)",
        rule="Holds if the mean of random masks with new weights is at most {tolerance} points below that of the tickets' masks with new "
        "weights, at the compared level nearest to where tickets gain most.",
        measures=f"how far random masks are ahead at about {percent(density)}",
        scales=CONV,
    )
    def check(evidence: Evidence) -> Measured:
        own = evidence.accuracy(f"{net}/random_mask", density) - evidence.accuracy(f"{net}/reinit", density)
        tolerance = evidence.plan.tolerance
        return Measured(own, bool(own.mean() >= -tolerance), "", own + tolerance)


def round_by_round(net: str) -> None:
    @claim(
        name=f"{net}_iterative_beats_one_shot",
        sentence=f"At small sizes tickets of {NAMES[net]} found round by round are more accurate than those pruned at once.",
        group="conv",
        runs=[net, f"{net}_one_shot"],
        source=f"{FRANKLE}, sections 2 and 3",
        published="iterative tickets match dense at smaller sizes (no figure for this network)",
        rule="Holds if iterative pruning beats one-shot pruning at every level from 7 to 2 %.",
        measures="how far iterative pruning is ahead at 3.6 %",
        scales=CONV,
    )
    def check(evidence: Evidence) -> Measured:
        densities = evidence.densities(net, 0.07, END)
        by = evidence.ahead(net, f"{net}_one_shot", densities)
        shown = evidence.accuracy(net, 0.036) - evidence.accuracy(f"{net}_one_shot", 0.036)
        said = ", ".join(f"{row.mean():+.2f} points at {percent(d)}" for d, row in zip(densities, by))
        return Measured(shown, all(map(beats, by)), f"{said}.")


def dropout(net: str) -> None:
    dense_gain, ticket_gain, validated = DROPOUT[net]

    @claim(
        name=f"{net}_dropout_helps",
        sentence=f"Dropout makes the dense {NAMES[net]} more accurate.",
        group="dropout",
        runs=[net, f"{net}_dropout"],
        source=f"{FRANKLE}, section 3",
        published=f"+{dense_gain} points",
        rule="Holds if the dense network with dropout beats that without.",
        measures="gain in test accuracy at early stop",
        scales=CONV,
    )
    def helps(evidence: Evidence) -> Measured:
        own, other = evidence.accuracy(f"{net}_dropout"), evidence.accuracy(net)
        return Measured(own - other, beats(own - other), f"{own.mean():.2f} % against {other.mean():.2f} %.")

    @claim(
        name=f"{net}_dropout_tickets_gain",
        sentence=f"With dropout too, tickets of {NAMES[net]} are more accurate than the dense network.",
        group="dropout",
        runs=[f"{net}_dropout"],
        source=f"{FRANKLE}, section 3",
        published=f"up to +{ticket_gain} points{validated}",
        rule="Holds if the tickets of the level with the largest mean, of 2 % of the weights or more, beat the dense network.",
        measures="gain in test accuracy over the dense network at that level",
        scales=CONV,
    )
    def gain(evidence: Evidence) -> Measured:
        name = f"{net}_dropout"
        best = max(evidence.densities(name, at_least=END), key=lambda d: evidence.accuracy(name, d).mean())
        own = evidence.accuracy(name, best) - evidence.accuracy(name)
        return Measured(own, beats(own), f"At {percent(best)}, which was chosen by these accuracies.")


def masks(net: str) -> None:
    plain, rescaled, constants, trained = MASKS[net]
    by_label = {"": plain, "_dwr": rescaled, "_dwr_constant": constants}
    told = {"": "", "_dwr": "With Dynamic Weight Rescaling ", "_dwr_constant": "With that and signed constants "}
    for kind, figure in by_label.items():

        @claim(
            name=f"{net}_masks{kind}_reach_{figure:.0f}",
            sentence=f"{told[kind]}{'l' if kind else 'L'}earned masks of an untrained {NAMES[net]} reach {figure:g} % on CIFAR-10.",
            group="conv_masks",
            runs=[f"{net}_masks{kind}"],
            source=f"{ZHOU}, section 5, Table 1",
            published=f"{figure} %{'' if kind == '_dwr_constant' else ' (recalled)'}; trained weights {trained} %",
            rule="Holds if the mean is at most half a point below the published figure.",
            measures="test accuracy, mean of sampled masks, after 100 epochs",
            unit="%",
            seeds=(figure, figure),
            scales=CONV,
        )
        def check(evidence: Evidence, run=f"{net}_masks{kind}") -> Measured:
            return meets(evidence, evidence.learned(run), or_more=True)

    @claim(
        name=f"{net}_rescaling_helps",
        sentence=f"Dynamic Weight Rescaling makes learned masks of {NAMES[net]} better.",
        group="conv_masks",
        runs=[f"{net}_masks_dwr", f"{net}_masks"],
        source=f"{ZHOU}, section 5, Table 1",
        published=f"{rescaled} % against {plain} % (recalled)",
        rule="Holds if masks learned with Dynamic Weight Rescaling beat those learned without it.",
        measures="gain in test accuracy",
        scales=CONV,
    )
    def helps(evidence: Evidence) -> Measured:
        return learned_ahead(evidence, (f"{net}_masks_dwr", f"{net}_masks"))


for each in (faster, better, against_new_weights, random_is_as_good, round_by_round, dropout, masks):
    for network in NAMES:
        each(network)
for network in ("conv2", "conv4"):
    new_weights_rise_first(network)
