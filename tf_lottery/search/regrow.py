"""Sparse from the start: a random mask that moves while the network trains, RigL's way. No search, and no rewound ticket.

One training, in which smallest weights give way to those of the largest gradient 90 times in its first three quarters. What comes of it is a
sparse network that is trained, for the cost of one training, and the baseline that tickets have to beat. Its `Ticket` says so: `masks` and
`final` are the network's; `initial` is what the weights that it ends with began from, zero for those that grew on the way. Trained
again from there it is another network, for its mask was not found with these weights.

Reference: Evci et al. (2020, arXiv 1911.11134), section 3.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

import numpy as np

from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import state
from tf_lottery.masking.gradients import Probe
from tf_lottery.rules import criteria, treatments
from tf_lottery.search.callbacks.regrow_by_schedule import RegrowBySchedule
from tf_lottery.search.lottery import Lottery, Train, densities_of, train_level
from tf_lottery.search.plan import Plan
from tf_lottery.search.rounds import Rounds
from tf_lottery.tickets.ticket import Ticket
from tf_lottery.tickets.values import arrays

LEAST = 10  # exchanges
EVERY = 100  # steps between two, at most, as in the paper
NOT_TOLD = ("criterion", "survivors", "rewind_to", "reset", "min_per_kernel")  # of a ticket that nothing was done with


def regrow(lottery: Lottery) -> Iterator[Ticket]:
    """The dense network, if it was asked for, then a sparse network for each density, of a training of its own."""
    last = lottery.last
    yield from lottery.reference()
    for level in range(last.level + 1, lottery.rounds.levels + 1):
        yield _grown(lottery, level)


def _grown(lottery: Lottery, level: int) -> Ticket:
    steps, begin = lottery.search_steps or 0, lottery.begin
    regrow = RegrowBySchedule(
        {f"^{re.escape(path)}$": density for path, density in densities_of(lottery, level).items()},
        frequency=_frequency(steps),
        probe=lottery.probe,
        seed=lottery.rounds.seed,
    )
    callbacks = [regrow, *lottery.callbacks(level)]
    trained = train_level(lottery.masked, lottery.train, begin, steps=steps, callbacks=callbacks, level=level)
    if not regrow.first_masks:
        raise LotteryError("Expected train to hand its callbacks on, for search='regrow', but it did not.")
    masks, initial = state.get_masks(lottery.masked), dict(arrays(begin.initial))
    for path, mask in masks.items():
        initial[path] = np.where(mask & regrow.first_masks[path], initial[path], 0).astype(initial[path].dtype)
    found = {key: value for key, value in lottery.found.items() if key not in NOT_TOLD}
    told = {"steps": steps, "fraction": regrow.fraction, "frequency": regrow.frequency}
    return dataclasses.replace(
        Ticket(masks, initial, trained.final, level).inheriting(begin),
        metrics={**trained.metrics, "trainings": round(lottery.share, 6)},
        found=found | told,
    )


def _frequency(steps: int) -> int:
    return max(1, min(EVERY, steps // 120))


def check_regrow(rounds: Rounds, plan: Plan, rewind_to: int, probe: Probe | None, train: Train) -> None:
    """Refuses what means nothing for a network that is sparse from the start, before anything is trained.

    Raises:
      LotteryError: If there is such a thing.
    """
    wanted = {
        "criterion": (rounds.criterion, criteria.large_final),
        "survivors": (rounds.survivors, treatments.rewind),
        "pruned": (rounds.pruned, treatments.zero),
        "scope": (rounds.scope, "layer"),
        "rewind_to": (rewind_to, 0),
        "reset": (rounds.reset, "each_level"),
        "min_per_kernel": (rounds.min_per_kernel, 1),
    }
    for name, (given, only) in wanted.items():
        if given != only:
            only, given = (getattr(part, "__name__", part) for part in (only, given))
            raise LotteryError(
                f"Expected {name}={only!r} with search='regrow', which drops by magnitude and rewinds nothing, but received {given!r}."
            )
    steps = plan.search_steps or 0
    if 3 * steps // 4 // _frequency(steps) < LEAST:
        raise LotteryError(
            f"Expected search_steps in which search='regrow' moves weights at least {LEAST} times, but received {steps}."
        )
    if probe is None and getattr(train, "probe", None) is None:
        raise LotteryError(
            "Expected probe=(x, y), of the training set, to take gradients on for search='regrow', but received none."
        )
