"""The optimizer's step as callbacks see it, and at which steps a schedule asks for something."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import own_step


class Clock:
    """The number of updates, read only when the awaited one can have been reached: reading it waits for the device.

    Data of unknown length end with a batch that is begun and never comes; the optimizer counts a step for it, and the clock
    does not.

    Args:
      model: A compiled model; its optimizer is built, or at step 0.
      known_length: Whether Keras knows how many batches an epoch has.
    """

    def __init__(self, model: keras.Model, known_length: bool):
        self.model, self.known_length = model, known_length
        steps = model.steps_per_execution
        self._per_batch = steps if isinstance(steps, int) and known_length else None
        self._ghosts, self._open = 0, False
        self._seen = self.now
        self.await_step(None)

    @property
    def now(self) -> int:
        return own_step.step_of_model(self.model) - self._ghosts

    def await_step(self, step: int | None) -> None:
        """Sets the step at which `end_batch` reports; None for none."""
        self.awaited = step
        self._set_alarm(self.now)

    def begin_batch(self) -> None:
        self._open = True

    @property
    def is_open(self) -> bool:
        """Whether a batch was begun and has not ended."""
        return self._open

    def end_batch(self) -> int | None:
        """The step, once the awaited one is reached."""
        self._open = False
        self._batches -= 1
        if self._batches > 0 or (self.awaited is None and self.known_length):
            return None
        now = self._seen = self.now
        if self.awaited is not None and now >= self.awaited:
            return now
        self._set_alarm(now)
        return None

    def batch_is_missing(self) -> bool:
        """Whether a batch was begun and never came; to be asked where an epoch ends."""
        missing, self._open = self._open, False
        if missing:
            self._ghosts += self.now - self._seen
        return missing

    def _set_alarm(self, now: int) -> None:
        left = 0 if self.awaited is None else self.awaited - now
        self._batches = -(-left // self._per_batch) if self._per_batch else 1  # at the earliest


def due(schedules: Sequence[Callable], first: int, last: int | None) -> Iterator[tuple[int, dict]]:
    """(step, {schedule: sparsity}) for each step from `first` to `last` at which a schedule says to prune, in order.

    With `last=None` schedules are asked for 10,000 steps ahead at a time, and `(step, {})` says where to ask again.
    """
    begin = first
    while last is None or begin <= last:
        end = min(begin + 10_000, begin + 10_000 if last is None else last + 1)
        steps = np.arange(begin, end)
        asked = [(schedule, *_ask(schedule, steps)) for schedule in schedules]
        for i in np.flatnonzero(np.any([prunes & (sparsity != 0) for _, prunes, sparsity in asked], axis=0)):
            yield int(steps[i]), {s: float(sparsity[i]) for s, prunes, sparsity in asked if prunes[i]}
        if last is None:
            yield end, {}
        begin = end


def _ask(schedule: Callable, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A schedule's answers for all steps, checked."""
    prunes, sparsity = _answers(schedule, steps)
    for i in np.flatnonzero(prunes & ~((sparsity >= 0) & (sparsity < 1))):
        raise LotteryError(
            f"Expected a schedule with sparsities in [0, 1), but at step {steps[i]} it asks for {sparsity[i]:g}."
        )
    return prunes, sparsity


def _answers(schedule: Callable, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At once if the schedule can, else one by one."""
    try:
        prunes, sparsity = (np.asarray(answer) for answer in schedule(tf.constant(steps)))
        if prunes.shape == steps.shape and sparsity.shape in ((), steps.shape):
            return prunes, np.broadcast_to(sparsity, steps.shape)
    except Exception:
        pass
    answers = [schedule(tf.constant(step)) for step in steps]
    try:
        return np.array([bool(prunes) for prunes, _ in answers]), np.array([float(sparsity) for _, sparsity in answers])
    except (TypeError, ValueError):
        raise LotteryError(
            f"Expected a schedule to return (should_prune, sparsity), but received {answers[0]!r:.80}."
        ) from None


def updates(optimizer: keras.optimizers.Optimizer, batches: int) -> int:
    """How many updates that many batches are: fewer than batches where gradients are accumulated."""
    return batches // batches_per_update(optimizer)


def batches_per_update(optimizer: keras.optimizers.Optimizer) -> int:
    """1, or of how many batches an optimizer accumulates the gradients."""
    return getattr(optimizer, "gradient_accumulation_steps", None) or 1
