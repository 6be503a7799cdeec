"""`LotteryTicket`: the whole search in one `fit`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_lottery.base.errors import LotteryError, LotteryWarning
from tf_lottery.masking import gradients, health, own_step, state, weights
from tf_lottery.masking.gradients import Probe
from tf_lottery.masking.layers import MaskedModel
from tf_lottery.masking.masked import settle
from tf_lottery.masking.weights import Fraction
from tf_lottery.rules import treatments
from tf_lottery.rules.masks import CHANNEL_SCOPES
from tf_lottery.search.callbacks.clock import Clock, updates
from tf_lottery.search.logger import RECORD, Log, Logger, level_of
from tf_lottery.search.loggers import made
from tf_lottery.search.rounds import Rounds, names, numbers
from tf_lottery.tickets import recipes
from tf_lottery.tickets.ticket import Ticket
from tf_lottery.tickets.values import arrays


class LotteryTicket(keras.callbacks.Callback):
    """The whole search in one `fit`: train, prune, rewind, train again.

        masked = tfl.wrap(model)
        masked.compile("adam", loss)
        search = tfl.callbacks.LotteryTicket(tfl.LotterySchedule(levels=10, steps_per_level=5_000))
        masked.fit(x, y, epochs=..., callbacks=[search])
        search.tickets[-1].save("winner.ticket")

    Each level starts with a fresh optimizer, its learning-rate schedule included, as in `find_ticket`; `fit` ends with the last
    level. Rounds come before a batch, so the validation at the end of an epoch sees a trained network. The History gets
    the `level` and its `density` for each epoch. Where epochs end when levels do, tickets have the epoch's metrics,
    validation included.

    Args:
      schedule: A `LotterySchedule`, or anything with its `levels`, `steps_per_level`, `warm_up` and `fractions`.
      criterion, survivors, pruned, scope, one_shot, reset, seed: As for `find_ticket`.
      rewind_to: The step of level 0 whose weights the survivors rewind to; 0 = the initialisation.
      prune_fraction: A share for each kernel in place of the schedule's, as for `find_ticket`.
      probe: The batch `(x, y)` for criteria that need a gradient, as for `find_ticket`.
      early_stopping: A `keras.callbacks.EarlyStopping` that is asked in every level anew: where it would stop the training, the
        level ends, with its best weights if it restores them. (An EarlyStopping in `callbacks` ends the whole search.)
      directory: A folder for `level_00.ticket`, `level_01.ticket` and so on, each written when its level begins and again when
        it is trained. A search that was interrupted goes on there, with a new callback of the same settings: given a fresh
        model, from the start of the level that was interrupted, as if nothing had happened; given the model as it was saved
        in the middle of that level (`masked.save`, optimizer included), from there, on data in another order. With a directory
        a `fit` may be shorter than the schedule.
      logger: Who is told that the search begins, of each ticket when the next level has begun, and that the search ends: as for
        `find_ticket`. A `fit` that ends before the search ends the run for it, and the next one begins it again under the
        same id; with a `directory` so does a new process, and tickets that are there already are told of first.

    A `ReduceLROnPlateau` beside it begins anew with each level; an `EarlyStopping` or a `LearningRateScheduler` is refused.

    Attributes:
      tickets: The trained tickets, the dense one first. `metrics` of a ticket has the number of its steps too; with
        `steps_per_execution` a round comes at the first multiple after its step, and the next level is as much shorter.

    Raises:
      LotteryError: When the training begins, if `fit` is too short for the schedule or the model was not wrapped as a whole;
        the model is unchanged then.

    Examples:

    >>> from tf_lottery import LotterySchedule, wrap
    >>> masked = wrap(keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)]))
    >>> masked.compile("sgd", "mse")
    >>> search = LotteryTicket(LotterySchedule(levels=2, steps_per_level=4, prune_fraction=0.5))
    >>> x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    >>> history = masked.fit(x, x[:, :2], batch_size=8, epochs=3, verbose=0, callbacks=[search])
    >>> history.history["density"], [ticket.level for ticket in search.tickets]
    ([1.0, 0.5, 0.25], [0, 1, 2])

    Reference: Frankle & Carbin (2019), section 1, "iterative pruning".
    """

    def __init__(
        self,
        schedule,
        *,
        criterion: str | Callable = "large_final",
        survivors: str | Callable = "rewind",
        pruned: str | Callable = "zero",
        scope: str = "layer",
        rewind_to: int = 0,
        one_shot: bool = False,
        reset: str = "each_level",
        prune_fraction: Fraction | None = None,
        probe: Probe | None = None,
        early_stopping: keras.callbacks.EarlyStopping | None = None,
        directory: str | Path | None = None,
        seed: int = 0,
        logger: Logger | str | Callable | Sequence = (),
    ):
        super().__init__()
        if not all(hasattr(schedule, name) for name in ("levels", "steps_per_level", "warm_up", "fractions")):
            raise LotteryError(f"Expected a LotterySchedule, but received a {type(schedule).__name__}.")
        if not isinstance(rewind_to, int) or not 0 <= rewind_to < schedule.warm_up + schedule.steps_per_level:
            raise LotteryError(
                f"Expected rewind_to to be a step of level 0, which has {schedule.warm_up + schedule.steps_per_level}, but received {rewind_to!r}."
            )
        self.schedule, self.rewind_to, self.prune_fraction = schedule, rewind_to, prune_fraction
        self.options: dict[str, Any] = {
            "criterion": criterion,
            "survivors": survivors,
            "pruned": pruned,
            "scope": scope,
        }
        self.options |= {"one_shot": one_shot, "reset": reset, "seed": seed}
        rounds = Rounds([], None, **self.options)  # bad options are refused here, before any training
        self.probe = gradients.checked(rounds.criterion, probe)
        self.early_stopping = early_stopping
        self.directory = None if directory is None else Path(directory)
        self._loggers = made(logger)
        self._log: Log | Any = None
        self.tickets: list[Ticket] = []
        self._current: Ticket | Any = None  # the level in training, with what it started from
        self._length, self._over, self._waits_for_snapshot = 0, False, False  # of the level in training
        self._logs: dict[str, Any] = {}
        self._late = 0  # the steps that the last level had too many, where several are executed at once

    def set_model(self, model):
        weights.check_keras_3(model)
        super().set_model(model)

    def on_train_begin(self, logs=None):
        if not isinstance(self.model, MaskedModel):
            raise LotteryError(
                f"Expected a wrapped model, but {self.model.name!r} is a plain {type(self.model).__name__}: call tf_lottery.wrap on it, and compile and fit what it returns."
            )
        _check_neighbours(self.model.callbacks_in_fit)
        self._anew = [own for own in self.model.callbacks_in_fit if isinstance(own, keras.callbacks.ReduceLROnPlateau)]
        if self._current is None:
            self._prepare()
            self._resume_or_begin()
        elif self.model is not self._model or len(self.tickets) > self.schedule.levels:
            raise LotteryError("Expected a new LotteryTicket for a new search, but this one was used for another.")
        if self.early_stopping:
            self.early_stopping.set_model(self.model)
            self.early_stopping.on_train_begin()
        if self._loggers:
            self._log.__enter__()
            self._tell()

    def on_train_batch_begin(self, batch, logs=None):
        if self._over:
            self._finish_level()
            if self._current.level < self.schedule.levels:
                self._begin(self._rounds.next(self.tickets[-1], self.tickets[0]))
        self._clock.begin_batch()

    def on_train_batch_end(self, batch, logs=None):
        step = self._clock.end_batch()
        if self._loggers:
            self._tell()
        if len(self.tickets) > self.schedule.levels:
            self.model.stop_training = True  # resumed after the last step of all: on_train_end takes this one back
        elif step is not None and step >= self._length:
            self._late = step - self._length
            self._end_level(logs)
        elif step is not None:
            self._snapshot(step)

    def on_test_begin(self, logs=None):
        if self._current is not None:
            self._take_back_what_no_batch_followed()

    def on_epoch_end(self, epoch, logs=None):
        self._take_back_what_no_batch_followed()
        settle(self.model)
        logs = {} if logs is None else logs
        self._logs = {**logs, "steps": self._logs["steps"] if self._over else self._clock.now}
        if self._finished and self._current.level < self.schedule.levels:
            self.tickets[-1] = replace(self.tickets[-1], metrics=numbers(self._logs))
            self._save(self.tickets[-1])
        logs["level"], logs["density"] = self._current.level, self._current.density
        if self.early_stopping and not self._over:
            stopping, self.model.stop_training = self.model.stop_training, False
            self.early_stopping.on_epoch_end(epoch, logs)
            over, self.model.stop_training = self.model.stop_training, stopping
            if over:
                self._late = 0
                self._end_level(logs)

    def on_train_end(self, logs=None):
        last, step = self._current.level == self.schedule.levels, self._clock.now
        if self._finished:
            state.set_state(self.model, self.tickets[-1].masks, arrays(self.tickets[-1].final))
        elif self._over or (last and step):  # of the last level a step may be missing where loss scaling skipped one
            self._finish_level()
        else:
            warnings.warn(
                LotteryWarning(
                    "fit ended in level {} of {}, at step {} of {}; it can go on with the same callback",
                    *(self._current.level, self.schedule.levels, step, self._length),
                ),
                stacklevel=2,
            )
        if self._loggers:
            self._tell()
            self._log.__exit__(None, None, None)

    def _tell(self) -> None:
        """Tells the loggers of tickets that nothing changes any more: a batch has followed, or the fit is over."""
        for ticket in self.tickets:
            if self._log.lacking(ticket.level):
                self._log.level(level_of(ticket))

    @property
    def _finished(self) -> bool:
        """Whether the current level has its ticket already."""
        return bool(self.tickets) and self.tickets[-1].level == self._current.level

    def _take_back_what_no_batch_followed(self) -> None:
        """Data of unknown length end after a batch was begun: if a level began with it, the one before is put back."""
        if self._clock.batch_is_missing() and self._clock.now == 0 and self._current.level:
            last = self.tickets[-1]
            state.set_state(self.model, last.masks, arrays(last.final))
            self._current, self._over, self._logs = last, True, dict(last.metrics)

    def _prepare(self) -> None:
        model, schedule = self.model, self.schedule
        kernels = {kernel.path: kernel for kernel in state.masked_kernels(model)}
        rates = self.prune_fraction
        shares = [weights.prune_fractions(list(kernels.values()), rates or share) for share in schedule.fractions]
        self._rounds = Rounds(
            shares,
            lambda path, seed: recipes.draw(kernels[path], seed),
            lambda kind, masks, values: gradients.take(model, kind, self.probe, masks, values),
            state.channel_axes(model) if self.options["scope"] in CHANNEL_SCOPES else None,
            **self.options,
        )
        if self._rounds.pruned is not treatments.zero and not model._holds:
            raise LotteryError(
                f"Expected a model wrapped with held=True for pruned={self._rounds.pruned.__name__!r}, but it holds zeros only."
            )
        self._check_length()
        self._model = model
        self._watch = health.Watch(model, self.options["scope"], ways=("prune_fraction", "exclude"))
        found = {key: getattr(self._rounds, key) for key in self.options}
        given = [list(pair) for pair in rates.items()] if isinstance(rates, Mapping) else rates
        found |= {"prune_fraction": given or list(schedule.fractions), "rewind_to": self.rewind_to}
        self._found = names(**found, steps_per_level=schedule.steps_per_level, warm_up=schedule.warm_up)
        record = None if self.directory is None else self.directory / RECORD
        self._log = Log(self._loggers, model.name, self._found, record if self._loggers else None)
        rates_now = [(optimizer, _learning_rate(optimizer)) for optimizer in own_step.optimizers_of(model)]
        self._learning_rates = [(optimizer, rate) for optimizer, rate in rates_now if rate is not None]

    def _check_length(self) -> None:
        epochs, steps = (self.params or {}).get("epochs"), (self.params or {}).get("steps")
        if not epochs or not steps or self.early_stopping or self.directory:
            return
        each = updates(self.model.optimizer, steps)
        needed = self.schedule.warm_up + (self.schedule.levels + 1) * self.schedule.steps_per_level
        if epochs * each < needed:
            raise LotteryError(
                f"Expected fit to run the {needed} steps of the schedule ({self.schedule.levels + 1} levels), but {epochs} epochs of "
                f"{each} steps are {epochs * each}: give it epochs={-(-needed // max(each, 1))}."
            )

    def _files(self) -> list[Path]:
        return sorted(self.directory.glob("level_*.ticket")) if self.directory else []

    def _resume_or_begin(self) -> None:
        """The first level; or what `directory` has of this search, and with the model as it is if it stands in that level."""
        if not (files := self._files()):
            self._begin(Ticket(state.get_masks(self.model), state.get_values(self.model), found=self._found))
            return
        tickets = [Ticket.load(file).in_paths_of(self.model) for file in files]
        for file, ticket in zip(files, tickets):
            if dict(ticket.found) != self._found:
                raise LotteryError(
                    f"Expected {str(file)!r} to be of this search, but it was found with {ticket.found}."
                )
        self.tickets = [ticket for ticket in tickets if ticket.final is not None]
        if len(self.tickets) > self.schedule.levels:
            raise LotteryError(f"Expected a search to go on with, but all tickets are in {str(self.directory)!r}.")
        current = tickets[-1] if tickets[-1].final is None else self._rounds.next(self.tickets[-1], self.tickets[0])
        present, step = state.get_masks(self.model), own_step.step_of_model(self.model)
        if step and all(np.array_equal(present[path], mask) for path, mask in current.masks.items()):
            self._clock = self._new_clock()
            self._follow(current)
        else:
            self._begin(current)

    def _begin(self, ticket: Ticket) -> None:
        """Puts a level's masks and starting weights on the model, with a fresh optimizer."""
        state.set_state(self.model, ticket.masks, arrays(ticket.initial))
        if ticket.level:
            self._watch(ticket.masks)
        for optimizer, rate in self._learning_rates:
            optimizer.learning_rate = rate
        self._clock = self._new_clock()
        self._follow(replace(ticket, found=self._found))
        if ticket.level:
            for callback in [*filter(None, [self.early_stopping]), *self._anew]:
                callback.on_train_begin()
        if not self._waits_for_snapshot:
            self._save(self._current)

    def _follow(self, ticket: Ticket) -> None:
        """Waits for the end of a level, or for the step to rewind to."""
        self._current, self._over, self._logs = ticket, False, {}
        self._length = self.schedule.steps_per_level + (self.schedule.warm_up if ticket.level == 0 else -self._late)
        step = self._clock.now
        self._waits_for_snapshot = ticket.level == 0 and self.rewind_to > step
        self._clock.await_step(self.rewind_to if self._waits_for_snapshot else self._length)
        if step and step >= self._length:  # resumed where the level had had its steps
            self._over, self._logs = True, {"steps": step}

    def _new_clock(self) -> Clock:
        return Clock(self.model, known_length=(self.params or {}).get("steps") is not None)

    def _snapshot(self, step: int) -> None:
        if step > self.rewind_to:
            raise LotteryError(
                f"Expected fit to stop by at step {self.rewind_to} for rewind_to, but it went on to step {step} at once."
            )
        self._follow(replace(self._current, initial=state.get_values(self.model)))
        self._save(self._current)

    def _end_level(self, logs) -> None:
        """The level has had its steps; the next one begins with the next batch, after the validation if there is one."""
        self._over, self._logs = True, {**(logs or {}), "steps": self._clock.now}
        self._clock.await_step(None)
        if self._current.level == self.schedule.levels:
            self.model.stop_training = True

    def _finish_level(self) -> None:
        if self._finished:
            return
        optimizer = getattr(self.model, "optimizer", None)  # a model with a step of its own may have none of this name
        if optimizer is not None and optimizer.built:
            optimizer.finalize_variable_values(
                state.built_with(optimizer)
            )  # puts averages in place, as fit does at its end
        if self.early_stopping:
            self.early_stopping.on_train_end()  # restores the best weights, if it was asked to
        settle(self.model)
        self.tickets.append(replace(self._current, final=state.get_values(self.model), metrics=numbers(self._logs)))
        self._save(self.tickets[-1])

    def _save(self, ticket: Ticket) -> None:
        if self.directory is not None:
            self.directory.mkdir(parents=True, exist_ok=True)
            ticket.save(self.directory / f"level_{ticket.level:02d}.ticket")


def _check_neighbours(callbacks: Sequence[keras.callbacks.Callback]) -> None:
    """Refuses callbacks of the same fit that know nothing of levels."""
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.LearningRateScheduler):
            raise LotteryError(
                "Expected no LearningRateScheduler beside LotteryTicket, because its epochs go on where a level begins anew: give the "
                "optimizer a schedule of keras.optimizers.schedules, which begins anew with it."
            )
        if isinstance(callback, keras.callbacks.EarlyStopping):
            raise LotteryError(
                "Expected EarlyStopping as early_stopping= of LotteryTicket, where it ends a level, but received it beside the callback, "
                "where it ends the search."
            )


def _learning_rate(optimizer: keras.optimizers.Optimizer) -> float | None:
    """Its rate where that is a number; a schedule starts anew with the step."""
    config = keras.optimizers.serialize(optimizer)["config"]
    rate = config.get("inner_optimizer", {}).get("config", config)["learning_rate"]
    return rate if isinstance(rate, float) else None
