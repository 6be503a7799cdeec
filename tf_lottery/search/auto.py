"""The search that makes the most of a budget: gradual pruning where the network still learns, short rewound levels where it overfits.

The dense network is trained for one short level. Its validation loss is looked at there, within the first quarter of a training, in thirds.
If the mean of the last third is 8 % or more below that of the second, the network goes on to learn while it is pruned, and the rest of
the search is one gradual training, whose mask is rewound. If not, it would learn its training set by heart, and the rest are short
levels, each pruned from the one before and rewound. The ticket is trained in full.

That is decided for each replicate by what its own search has trained; a ticket tells it in `found["chosen"]`. What the 8 % rest on is
in docs/cost.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from tf_lottery.search.gradual import rewound
from tf_lottery.search.lottery import Lottery, Train, train_level
from tf_lottery.search.plan import LEAST, QUARTER
from tf_lottery.tickets.ticket import Ticket

FALL = 0.08  # of the validation loss, from the second third of what is looked at to the last

Losses = list[tuple[float, float]]  # (steps, validation loss)


def auto(lottery: Lottery) -> Iterator[Ticket]:
    """The dense network, if it was asked for, then a ticket for each level, of a search of its own that begins with the same training."""
    last, steps = lottery.last, lottery.search_steps or 1
    yield from lottery.reference()
    chosen, dense = {key: last.found[key] for key in ("chosen", "because") if key in last.found}, None
    for level in range(last.level + 1, lottery.rounds.levels + 1):
        if dense is None and chosen.get("chosen") != "gradual":
            seen = Seen(lottery.train)
            dense = train_level(lottery.masked, seen, lottery.begin, lottery.rewind_to, steps, search=1)
            chosen = chosen or choose(seen.losses, lottery)
        if chosen["chosen"] == "gradual":
            spent = lottery.gradual_steps
            ticket = rewound(lottery, level, spent)
        else:
            spent = (len(lottery.short[level - 1]) - 1) * steps
            ticket = _by_short_levels(lottery, level, dense)
        ticket = lottery.named(ticket, lottery.begin)
        found = {**ticket.found, **chosen}
        yield lottery.level(dataclasses.replace(ticket, found=found), searches=1 + spent / steps)


def _by_short_levels(lottery: Lottery, level: int, dense: Any) -> Ticket:
    """A level, not trained yet, by short levels that follow the first one, the dense network."""
    rounds, last = lottery.rounds.through(lottery.short[level - 1]), dense
    for part in range(1, rounds.levels):
        new = rounds.next(last, dense)
        own: Any = {"steps": lottery.search_steps, "level": level, "search": part}
        last = train_level(lottery.masked, lottery.train, new, lottery.rewind_to, **own)
    return dataclasses.replace(rounds.next(last, dense), level=level)


def choose(losses: Losses, lottery: Lottery) -> dict[str, str]:
    """The road that a search goes on by, and why.

    Args:
      losses: The validation losses of the dense network's short level.
      lottery: The search.
    """
    losses = [(step, loss) for step, loss in losses if step <= QUARTER * (lottery.steps or 1)]
    if lottery.not_gradual is not None:
        return {"chosen": "iterative", "because": lottery.not_gradual}
    if len(losses) < LEAST:
        why = f"the dense network's validation loss was measured {len(losses)} times in the first short level, and it takes {LEAST} to tell"
        return {"chosen": "iterative", "because": why}
    if not np.isfinite([loss for _, loss in losses]).all():
        return {"chosen": "iterative", "because": "the dense network's validation loss was not finite"}
    fall = fall_of(losses)
    falls = "fell" if fall >= 0 else "rose"
    told = f"the dense network's validation loss {falls} by {100 * abs(fall):.2g} % in the first short level"
    least = f", and {100 * FALL:.2g} % are the least for gradual pruning"
    return {"chosen": "gradual", "because": told} if fall >= FALL else {"chosen": "iterative", "because": told + least}


def fall_of(losses: Losses) -> float:
    """How much lower the mean of the last third of a curve is than that of the second, as a share of that; losses may be negative.

    >>> fall_of([(1, 5.0), (2, 4.0), (3, 3.0)]), fall_of([(1, 0.0), (2, -2.0), (3, -3.0)])
    (0.25, 0.5)
    """
    steps, values = np.array(losses, float).T
    third = np.ceil(3 * steps / steps[-1])
    second, last = (float(values[third == place].mean()) for place in (2, 3))
    return (second - last) / max(abs(second), 1e-12)


class Seen:
    """A train function whose validation losses are seen.

    Args:
      train: Keeps a `curve`, as `Trainer` does, or returns a History with `val_loss`; others show none.
    """

    def __init__(self, train: Train):
        self.train, self.losses = train, Losses()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.train, name)

    def __call__(self, model, callbacks, *, steps: int):
        returned = self.train(model, callbacks, steps=steps)
        if isinstance(returned, keras.callbacks.History):
            values = returned.history.get("val_loss", ())
            self.losses = [(steps * (i + 1) / len(values), loss) for i, loss in enumerate(values)]
        else:
            rows = getattr(self.train, "curve", ())
            self.losses = [
                (row["step"], row["validation_loss"]) for row in rows if row.get("validation_loss") is not None
            ]
        return returned
