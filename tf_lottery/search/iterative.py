"""Iterative pruning, the road of the papers: train, prune, rewind, and again.

The dense network is trained. Of what each level has kept, the next one prunes a share, gives the survivors their starting weights
and trains them. Levels that only lead to a ticket may be short: a few rewound levels of a quarter of the steps, then the
ticket in full, cost two trainings in place of ten.

Reference: Frankle & Carbin (2019), section 1.
"""

from __future__ import annotations

from collections.abc import Iterator

from tf_lottery.search.lottery import Lottery
from tf_lottery.tickets.ticket import Ticket


def iterative(lottery: Lottery) -> Iterator[Ticket]:
    """A ticket for each level, each pruned from the level before; after `searches` trainings of the search."""
    last = lottery.last
    if last.final is None:
        last = lottery.level(last, searches=last.level)
        yield last
    first = lottery.given[0] if len(lottery.given) > 1 else last
    while last.level < lottery.rounds.levels:
        new = lottery.rounds.next(lottery.searched(last), first)
        last = lottery.level(lottery.named(new, last, first), searches=new.level)
        yield last
