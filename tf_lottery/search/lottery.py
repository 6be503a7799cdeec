"""What the roads to a ticket have in common: one training of a level, of its own length, and what it costs.

A road is a function that turns a `Lottery` into tickets. Its trainings are of two kinds: those of the search, which only say what
to prune and may be short, and those of the tickets that were asked for, which are as long as `train` makes them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_lottery.base.container import digest
from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import own_step, state
from tf_lottery.masking.gradients import Probe
from tf_lottery.masking.masked import settle
from tf_lottery.rules.masks import Arrays
from tf_lottery.search.rounds import Rounds, numbers
from tf_lottery.tickets import recipes
from tf_lottery.tickets.ticket import Ticket
from tf_lottery.tickets.values import arrays

Train = Callable[..., Mapping[str, float] | keras.callbacks.History | None]


@dataclasses.dataclass
class Lottery:
    """A model, how it is trained, and how a level follows from the one before; see `find_ticket`.

    Attributes:
      masked: The wrapped model.
      train: `train(model, callbacks)`, and with `steps=` where a training is to be shorter.
      rounds: What happens between two trainings.
      found: How the tickets are found.
      begin: The untrained network.
      given: Tickets to go on from.
      rewind_to: The step of the first training whose weights the survivors rewind to.
      steps: Those of one training; None where nobody asks.
      search_steps: Those of each training of the search; None: as many.
      asked: The levels whose tickets are trained in full.
      short: With `search="auto"`, for each level what the short levels that lead there prune.
      gradual_steps: With `search="auto"`, the steps of a gradual training.
      not_gradual: With `search="auto"`, why gradual pruning cannot lead there; None if it can.
      probe: What gradients are taken on, where a road takes some while it trains.
      watch: Told of each level's masks before it is trained: warns of those that do harm.
      callbacks: Keras callbacks for the training of a level.
    """

    masked: Any
    train: Train
    rounds: Rounds
    found: Mapping[str, Any]
    begin: Ticket
    given: Sequence[Ticket]
    rewind_to: int = 0
    steps: int | None = None
    search_steps: int | None = None
    asked: Sequence[int] = ()
    short: Sequence[Sequence[Mapping[str, float]]] = ()
    gradual_steps: int = 0
    not_gradual: str | None = None
    probe: Probe | None = None
    watch: Callable[[Mapping[str, np.ndarray]], None] = lambda masks: None
    callbacks: Callable[[int], Sequence] = lambda level: ()

    @property
    def last(self) -> Ticket:
        """The ticket to go on from; it may be the untrained network."""
        return self.given[-1] if self.given else self.begin

    def reference(self) -> Iterator[Ticket]:
        """The dense network after its training in full, of a search that does not need that, if it was asked for and is not there."""
        if self.last.final is None and 0 in self.asked:
            yield self.level(self.begin, searches=0)

    def level(self, ticket: Ticket, searches: float) -> Ticket:
        """A level after its own training, in full if it was asked for; its metrics tell what it cost, in `trainings`.

        Args:
          ticket: The level, not trained yet.
          searches: How many trainings of the search came before, each of `search_steps`.
        """
        steps = None if self.search_steps is None or ticket.level in self.asked else self.search_steps
        if ticket.level:
            self.watch(ticket.masks)
        trained = train_level(self.masked, self.train, ticket, self.rewind_to, steps, self.callbacks(ticket.level))
        own, one = (1.0 if steps is None else self.share), self.share
        found = {**trained.found, "steps": steps or self.steps} if self.search_steps else trained.found
        return dataclasses.replace(
            trained, metrics={**trained.metrics, "trainings": round(searches * one + own, 6)}, found=found
        )

    def searched(self, ticket: Ticket) -> Ticket:
        """A trained level as the training of the search leaves it: what the next round prunes."""
        if self.search_steps is None or ticket.found.get("steps", self.steps) == self.search_steps:
            return ticket
        start = self.begin if ticket.level == 0 else ticket
        return train_level(self.masked, self.train, start, self.rewind_to, self.search_steps, search=1)

    def named(self, ticket: Ticket, *parents: Ticket) -> Ticket:
        """The same ticket, which says how it is found, with the recipes of its parents."""
        return dataclasses.replace(ticket, found=self.found).inheriting(*parents)

    @property
    def share(self) -> float:
        """A training of the search, in trainings."""
        return self.search_steps / self.steps if self.search_steps and self.steps else 1.0


def densities_of(lottery: Lottery, level: int) -> dict[str, float]:
    """What each kernel is to keep at a level, of all its weights."""
    left = {path: float(mask.mean()) for path, mask in lottery.begin.masks.items()}
    for fractions in lottery.rounds.fractions[:level]:
        left = {path: density * (1 - fractions[path]) for path, density in left.items()}
    return left


def check_train(train: Any) -> None:
    """Refuses what is no function that trains.

    Raises:
      LotteryError: If so.
    """
    if not callable(train) or isinstance(train, type | keras.Model | keras.losses.Loss):
        raise LotteryError(
            "Expected train to be a Trainer, as in Trainer(x, y, steps=1_000, optimizer='adam'), or a function (model, callbacks) around "
            f"model.fit, but received {train!r:.80}."
        )


def begin(masked, found: Mapping) -> Ticket:
    """The first level, not trained yet, with the recipes of what still holds what its initializer drew."""
    drawn = {recipe.digest: recipe for recipe in recipes.of_model(masked.inner).values()}
    return Ticket(state.get_masks(masked), state.get_values(masked), found=found, recipes=drawn)


def beginning(masked, found: Mapping, given: Sequence[Ticket], rewind_to: int) -> Ticket:
    """The untrained network of a search that goes on: what its first ticket started from, or the model as it is, if it is that.

    Raises:
      LotteryError: If it is not.
    """
    if given and given[0].level == 0 and not rewind_to:
        return dataclasses.replace(given[0], final=None, metrics={}, found={**found, "start": _start(given[0])})
    ticket = begin(masked, found)
    start = _start(ticket)
    if given and given[0].found.get("start") != start:
        raise LotteryError(
            f"Expected the model as it was when the search of {given[0]} began, to go on with it, but its weights are others."
        )
    return dataclasses.replace(ticket, found={**found, "start": start})


def _start(ticket: Ticket) -> str:
    """What tells the weights that a search began with from others."""
    values = arrays(ticket.initial).values()
    return digest(np.frombuffer("".join(map(digest, values)).encode(), np.uint8))


def train_level(
    masked,
    train: Train,
    ticket: Ticket,
    rewind_to: int = 0,
    steps: int | None = None,
    callbacks=(),
    *,
    level: int | None = None,
    search: int = 0,
):
    """The ticket after training. A dense one that is to be rewound to a later step gets that step's weights as initial.

    A `train` with a method `comes(level, search)` is told first which training this is.

    Args:
      level: The level that the training is of, if not the ticket's.
      search: Which of the level's trainings for the search alone it is, from 1 on; 0: it is the ticket's own.
    """
    state.set_state(masked, ticket.masks, arrays(ticket.initial))
    snapshot = Snapshot(rewind_to) if rewind_to and ticket.level == 0 else None
    length = {} if steps is None else {"steps": steps}
    if comes := getattr(train, "comes", None):
        comes(ticket.level if level is None else level, search)
    metrics = metrics_of(train(masked, [*callbacks, *([snapshot] if snapshot else [])], **length))
    if snapshot and snapshot.values is None:
        raise LotteryError(
            f"Expected train to hand its callbacks on and to reach step {rewind_to} for rewind_to, but it did not."
        )
    initial = arrays(snapshot.values if snapshot else ticket.initial)
    settle(masked)
    final = state.get_values(masked)
    for path, value in final.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise LotteryError(
                f"Expected train to end with finite weights, but {path!r} holds NaN or infinity: the training diverged."
            )
    return dataclasses.replace(ticket, initial=initial, final=final, metrics=metrics)


def cost_of_search(ticket: Ticket) -> float | None:
    """The trainings that were spent before a ticket's own, as far as it tells."""
    cost, found = ticket.metrics.get("trainings"), ticket.found
    if cost is None:
        return None
    length = found.get("level_steps")
    short = length is not None and found.get("steps") == length
    return round(cost - (cost / (ticket.level + 1) if short else 1), 6)  # short levels are those of an iterative search


class Snapshot(keras.callbacks.Callback):
    """The weights at one step of training."""

    def __init__(self, step: int):
        super().__init__()
        self.at_steps = (step,)
        self.values: Arrays | None = None

    def on_train_batch_end(self, batch, logs=None):
        if self.values is not None:
            return
        step, (wanted,) = (logs or {}).get("step") or own_step.step_of_model(self.model), self.at_steps
        if step > wanted:
            raise LotteryError(
                f"Expected training to stop by at step {wanted} for rewind_to, but it went on to step {step} at once."
            )
        if step == wanted:
            self.values = state.get_values(self.model)

    def saved(self) -> Mapping[str, np.ndarray]:
        """What a training that was killed must not lose; see `Trainer`."""
        return {str(i): value for i, value in enumerate((self.values or {}).values())}

    def resume(self, arrays: Mapping[str, np.ndarray]) -> None:
        if arrays:  # in the order of the variables: Keras counts up automatic names
            self.values = {path: arrays[str(i)] for i, path in enumerate(state.named_variables(self.model))}


def metrics_of(returned: Mapping[str, float] | keras.callbacks.History | None) -> dict[str, float]:
    """What a `train` returned, as a dict of plain numbers; of a History the last epoch."""
    if isinstance(returned, keras.callbacks.History):
        returned = {name: values[-1] for name, values in returned.history.items()}
    return numbers(returned or {})
