"""Gradual pruning within one training, then rewinding: the mask of a network that was pruned while it trained.

One training of `search_steps` begins with the untrained network; 120 times in it a mask is taken anew, and the density of each layer
(or of the whole, where scores compete globally) falls along a cubic over the first three quarters, without a reset of anything.
Its last mask, with the weights that the network began with, is the ticket, which is trained in full. That costs half a training
beside the ticket's own. Where the dense network's early stop lies early in its training, and it overfits from there on, the mask is
taken from a network that overfits: take another road there, or fewer `search_steps`.

Reference: Zhu & Gupta (2017, arXiv 1710.01878), section 3, for the pruning; the rewinding is that of Frankle & Carbin (2019).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping

from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import state
from tf_lottery.search.callbacks.prune_by_schedule import PruneBySchedule
from tf_lottery.search.lottery import Lottery, densities_of, train_level
from tf_lottery.search.plan import Plan
from tf_lottery.search.rates import Cubic
from tf_lottery.search.rounds import Rounds, treat
from tf_lottery.tickets.ticket import Ticket
from tf_lottery.tickets.values import arrays


def gradual(lottery: Lottery) -> Iterator[Ticket]:
    """The dense network, if it was asked for, then a ticket for each level, of a gradual training of its own."""
    last, rounds = lottery.last, lottery.rounds
    yield from lottery.reference()
    for level in range(last.level + 1, rounds.levels + 1):
        yield lottery.level(
            lottery.named(rewound(lottery, level, lottery.search_steps or 0), lottery.begin), searches=1
        )


def rewound(lottery: Lottery, level: int, steps: int) -> Ticket:
    """A level, not trained yet: the masks of a gradual training of so many steps, with the weights that it began with."""
    rounds, pruned = lottery.rounds, _pruned(lottery, level, steps)
    start = treat(
        pruned.masks,
        arrays(pruned.initial),
        arrays(pruned.final),
        survivors=rounds.survivors,
        pruned=rounds.pruned,
        dense=lottery.begin,
        draw=rounds.draw,
        seed=[rounds.seed, level],
    )
    return Ticket(pruned.masks, start, level=level)


def _pruned(lottery: Lottery, level: int, steps: int) -> Ticket:
    """The dense network after a training in which it was pruned: its masks, and the weights before and after."""
    rounds, masked = lottery.rounds, lottery.masked
    begins = lottery.rewind_to
    densities = densities_of(lottery, level)
    competing = densities if rounds.axes is None else rounds.axes
    schedule: Cubic | Mapping[str, Callable]
    if rounds.scope.startswith("global"):
        schedule = Cubic(min(densities[path] for path in competing), steps, begins)
    else:
        schedule = {
            f"^{re.escape(path)}$": Cubic(density, steps, begins) if path in competing and density < 1 else _never
            for path, density in densities.items()
        }
    pruning = PruneBySchedule(schedule, criterion=rounds.criterion, scope=rounds.scope, seed=rounds.seed)
    pruning.watches = False  # the level that is trained with these masks tells
    trained = train_level(masked, lottery.train, lottery.begin, begins, steps, [pruning], level=level, search=1)
    masks = state.get_masks(masked)
    if all((mask == lottery.begin.masks[path]).all() for path, mask in masks.items()):
        raise LotteryError("Expected train to hand its callbacks on, for gradual pruning, but it did not.")
    return dataclasses.replace(trained, masks=masks)


def _never(step):
    return False, 0.0


def check_kernels(rounds: Rounds, plan: Plan) -> None:
    """Refuses what gradual pruning cannot do with the kernels of a network; see `plan.check` for the rest.

    Raises:
      LotteryError: If there is such a thing.
    """
    competing = plan.fractions[0] if rounds.axes is None else rounds.axes
    if rounds.scope.startswith("global") and not all(plan.fractions[0][path] for path in competing):
        raise LotteryError(
            f"Expected a prune_fraction above 0 for each kernel with search='gradual' and scope={rounds.scope!r}, but received 0 for some."
        )
