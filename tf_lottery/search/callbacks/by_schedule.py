"""What callbacks have in common that change masks at certain steps: of a `fit`, of a training of `Trainer`, of a loop of one's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_lottery.masking import own_step, state, weights
from tf_lottery.masking.masked import settle_all
from tf_lottery.masking.moves import Moves
from tf_lottery.rules import masks as masks_lib
from tf_lottery.search.callbacks.clock import Clock, batches_per_update, updates


class BySchedule(keras.callbacks.Callback):
    """Acts when `optimizer.iterations` has reached certain steps; a subclass says at which, and what is done there.

    Attributes:
      at_steps: In a training of `Trainer` the steps, in batches, at which its compiled stretches are to end.
    """

    _clock: Clock | Any = None  # in a Trainer none is needed
    _moves: Moves | None = None  # compiled with the steps of a Trainer

    def due(self, step: int, last: int | None) -> Iterable[tuple[int, Any]]:
        """(step, what is asked for there), in order, from `step` to `last`; without a `last` it never ends."""
        raise NotImplementedError

    def listed(self, plan: Sequence[tuple[int, Any]]) -> None:
        """Told of all that is due in a training of `Trainer`."""

    def begin(self, step: int, last: int | None) -> None:
        """Told that the training begins; `self._next` is what is due first. Nothing is changed before."""

    def act(self, step: int, asked: Sequence[Any]) -> None:
        """Does what is due: all that was asked for up to this step since the last time, at least one thing."""
        raise NotImplementedError

    def set_model(self, model):
        weights.check_keras_3(model)
        super().set_model(model)

    def on_train_begin(self, logs=None):
        trainers = self.given("optimizer")  # a Trainer's, which is not the model's
        self._optimizers = [] if trainers is None else [trainers]
        step = own_step.step_of_model(self.model) if trainers is None else weights.step_of(trainers)
        self._compile_moves()
        last, self._step = self._last_step(step), step
        self._due: Iterator[tuple[int, Any]] = iter(self.due(step, last))
        if trainers is not None:
            plan = list(self._due)
            self.at_steps = [at * batches_per_update(trainers) for at, _ in plan]
            self.listed(plan)
            self._due = iter(plan)
        self._next = next(self._due, None)
        self.begin(step, last)
        self._clock = None
        if trainers is None:
            self._clock = Clock(self.model, known_length=self.given("steps") is not None)
        self._act_if_due(step)

    def put(self, masks: Mapping[str, np.ndarray]) -> None:
        """Sets masks in the middle of the training."""
        (self._moves or Moves(self.model, self._optimizers))(masks)

    def on_train_batch_begin(self, batch, logs=None):
        self._end_batch_of_a_loop()
        self._clock.begin_batch()

    def on_train_batch_end(self, batch, logs=None):
        if self._clock and (step := self._clock.end_batch()) is not None:
            self._act_if_due(step)

    def on_stretch_end(self, step: int) -> None:
        """Acts if it is time: a `Trainer` has come to this step."""
        self._act_if_due(updates(self._optimizers[0], step))

    def on_epoch_end(self, epoch=None, logs=None, batch=None):  # TF-MOT's documents name the argument batch
        self._end_batch_of_a_loop()
        self._clock.batch_is_missing()
        settle_all(self.model)
        if logs is not None:
            logs["density"] = masks_lib.density(state.get_masks(self.model))

    def on_train_end(self, logs=None):
        settle_all(self.model)

    def saved(self) -> Mapping[str, np.ndarray]:
        """What a training that was killed must not lose; see `Trainer`."""
        masks = {str(i): mask for i, mask in enumerate(state.get_masks(self.model).values())}
        return {"step": np.array(self._step), **masks}

    def resume(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Goes on with what `saved` returned; the model's own state is put back after it."""
        masks = {path: arrays[str(i)] for i, path in enumerate(state.get_masks(self.model))}
        state.set_masks(self.model, masks, optimizers=self._optimizers)
        self._asked_for(int(arrays["step"]))
        if self._clock:
            self._clock.await_step(self._next and self._next[0])

    def _compile_moves(self) -> None:
        if not self.given("jit_compile"):
            self._moves = None
        elif self._moves is None or not self._moves.serves(self.model, self._optimizers):
            self._moves = Moves(self.model, self._optimizers, jit_compile=True)

    def given(self, name: str) -> Any:
        """What the training says of itself; a loop of one's own says nothing."""
        return (self.params or {}).get(name)

    def _last_step(self, step: int) -> int | None:
        epochs, steps = self.given("epochs"), self.given("steps")
        optimizer = [*self._optimizers, getattr(self.model, "optimizer", None)][0]
        return step + updates(optimizer, epochs * steps) if epochs and steps else None

    def _end_batch_of_a_loop(self) -> None:
        """In a loop of one's own, where Keras has said nothing of its length, a batch ends where the next one begins."""
        if self.params is None and self._clock.is_open:
            self.on_train_batch_end(None)

    def _asked_for(self, step: int) -> list:
        """What is due up to a step, since it was asked for last."""
        self._step = step
        asked = []
        while self._next is not None and self._next[0] <= step:
            asked.append(self._next[1])
            self._next = next(self._due, None)
        return asked

    def _act_if_due(self, step: int) -> None:
        asked = self._asked_for(step)
        if self._clock:
            self._clock.await_step(self._next and self._next[0])
        if asked:
            self.act(step, asked)
