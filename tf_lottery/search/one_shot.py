"""One-shot pruning: train the dense network once, and prune it at once to each density.

What the search looks at is one training of the dense network, which may be shorter than that of a ticket; so a ticket costs two
trainings at most. The sparser the ticket, the more it is worse than one that was pruned bit by bit.

Reference: Frankle & Carbin (2019), section 2; Renda et al. (2020), section 4.
"""

from __future__ import annotations

from collections.abc import Iterator

from tf_lottery.search.lottery import Lottery
from tf_lottery.tickets.ticket import Ticket


def one_shot(lottery: Lottery) -> Iterator[Ticket]:
    """The dense network, then a ticket for each level, each pruned directly from it."""
    last = lottery.last
    if last.final is None:
        last = lottery.level(last, searches=min(last.level, 1))
        yield last
    first = lottery.given[0] if len(lottery.given) > 1 else last
    dense = lottery.searched(first) if last.level < lottery.rounds.levels else first
    while last.level < lottery.rounds.levels:
        new = lottery.rounds.next(last, dense)
        last = lottery.level(lottery.named(new, last, first), searches=1)
        yield last
