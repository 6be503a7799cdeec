"""What a ticket has to beat: its weights drawn anew, its mask shuffled, both, and its scores inverted.

Each is a ticket of the same level and layer densities, trained as the ticket was. Where its scores are inverted, the parent's weights of
the *lowest* scores are kept in the place of the highest, as many in each layer as the ticket keeps: of a search level by level the
parent is the level before; where a mask is taken from the dense network, and with gradual pruning, the dense network.

References: Frankle & Carbin (2019), section 2 and Figure 1; Frankle et al., "Pruning Neural Networks at Initialization: Why Are We Missing
the Mark?" (2021, arXiv 2009.08576), section 5.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import gradients, state
from tf_lottery.masking.gradients import Probe
from tf_lottery.masking.masked import Masked
from tf_lottery.rules import criteria, masks, patterns
from tf_lottery.rules.masks import CHANNEL_SCOPES, Arrays
from tf_lottery.search.find import retrain_ticket
from tf_lottery.search.lottery import Train
from tf_lottery.tickets.ticket import Ticket
from tf_lottery.tickets.values import arrays

REORDERED = 1_000_003  # added to a seed for the other data order: no replicate of a run has that one


def anew(ticket: Ticket, **found: Any) -> Ticket:
    """The same ticket before its training."""
    return dataclasses.replace(ticket, final=None, metrics={}, found={**ticket.found, **found})


def check_pruned(ticket: Ticket) -> None:
    """Refuses what is no ticket of a pruned level.

    Raises:
      LotteryError: If it is not.
    """
    if not isinstance(ticket, Ticket):
        raise LotteryError(f"Expected a ticket, as Ticket.load returns it, but received {ticket!r:.80}.")
    if ticket.level < 1 or all(np.all(mask) for mask in ticket.masks.values()):
        raise LotteryError(f"Expected a ticket of a pruned level, from 1 on, but received {ticket}.")


def trained(
    name: str,
    masked: Masked,
    train: Train,
    ticket: Ticket,
    dense: Ticket,
    parent: Ticket | None = None,
    *,
    probe: Probe | None = None,
    seed: int = 0,
) -> Ticket:
    """One of the controls of `verdict.CONTROLS` after its training.

    Args:
      name: Which.
      masked: The wrapped model; it is trained in place.
      train: As for `find_ticket`.
      ticket: The ticket.
      dense: Level 0 of its search: its start weights are those that a shuffled mask keeps.
      parent: What the ticket's masks were chosen from, for `"inverted"`.
      probe: As for `find_ticket`, for criteria that need a gradient.
      seed: Decides what is drawn and shuffled.
    """
    found = ticket.found
    how: dict[str, Any] = {"survivors": found.get("survivors", "rewind"), "pruned": found.get("pruned", "zero")}
    if name == "inverted":
        if parent is None:
            raise LotteryError(
                "Expected the level that the ticket was pruned from, for its scores inverted, but received none."
            )
        ticket = dataclasses.replace(ticket, masks=inverted(ticket, parent, masked, probe, seed), final=None)
    if "reinit" in name:
        how["survivors"] = "reinit"
    return retrain_ticket(masked, train, ticket, dense, **how, random_mask="random_mask" in name, seed=seed)


def road_of(ticket: Ticket) -> str:
    """The road of its search, as `find_ticket` names them."""
    return ticket.found.get("search") or ("one_shot" if ticket.found.get("one_shot") else "iterative")


def why_not_inverted(ticket: Ticket, dense: Ticket | None, before: Ticket | None) -> str | None:
    """What is missing for the control by inverted scores; None if nothing is."""
    name = ticket.found.get("criterion")
    if not isinstance(name, str) or name not in criteria.registry:
        return f"the ticket's criterion, {name!r}, is not registered"
    if road_of(ticket) == "regrow":
        return "its mask was regrown in training, and not chosen by scores"
    parent = parent_of(ticket, dense, before)
    if parent is None:
        return "the level that it was pruned from is not there"
    if parent.final is None:
        return "the level that it was pruned from has no trained weights"
    if any(np.any(mask > parent.masks.get(path, 0)) for path, mask in ticket.masks.items()):
        return "the ticket keeps weights that the level before has pruned"
    return None


def parent_of(ticket: Ticket, dense: Ticket | None, before: Ticket | None) -> Ticket | None:
    """The network whose weights were scored for its masks."""
    if road_of(ticket) != "iterative" or ticket.level == 1:
        return dense
    return before if before is not None and before.level == ticket.level - 1 else None


def inverted(ticket: Ticket, parent: Ticket, masked: Masked, probe: Probe | None, seed: int = 0) -> Arrays:
    """The masks that keep the lowest scores of the parent's weights; all under the paths of the model."""
    ticket, parent = ticket.in_paths_of(masked), parent.in_paths_of(masked)
    criterion = criteria.get(ticket.found["criterion"])
    initial, final = arrays(parent.initial), arrays(parent.final)
    kind = criteria.needs(criterion).gradient
    taken = {} if kind is None else gradients.take(masked, kind, probe, parent.masks, initial)
    rng = np.random.default_rng([seed, ticket.level, 6])
    scores = {}
    for path, mask in parent.masks.items():
        score = criteria.score(criterion, initial[path] * mask, final[path] * mask, rng=rng, gradient=taken.get(path))
        scores[path] = np.minimum(
            -np.asarray(score, np.float64), np.finfo(np.float64).max
        )  # -inf ranks below all, and now above
    if ticket.found.get("scope") in CHANNEL_SCOPES:
        axes = state.channel_axes(masked)
        shares = {path: float(patterns.channel_mask(ticket.masks[path], axes[path]).mean()) for path in axes}
        return masks.prune_to(parent.masks, scores, shares, scope="channels", axes=axes, seed=[seed, ticket.level, 7])
    shares = {path: float(mask.mean()) for path, mask in ticket.masks.items()}
    return masks.prune_to(parent.masks, scores, shares, seed=[seed, ticket.level, 7])
