"""The search inside TF-MOT: tf_keras models, pruned by `prune_low_magnitude`, with rewinding.

    import tensorflow_model_optimization as tfmot
    import tf_lottery as tfl

    schedule = tfl.LotterySchedule(levels=10, steps_per_level=5_000)
    pruned = tfmot.sparsity.keras.prune_low_magnitude(model, pruning_schedule=schedule)
    pruned.compile("adam", loss)
    search = tfl.tfmot.RewindSurvivors()
    pruned.fit(x, y, epochs=..., callbacks=[search])
    ticket, plain = search.tickets[-1], tfmot.sparsity.keras.strip_pruning(pruned)

TF-MOT's own `from_config` knows two schedules; importing this module registers `LotterySchedule` with tf_keras beside
them, so that `with tfl.tfmot.prune_scope():` loads what was saved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import tf_keras

from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import weights
from tf_lottery.rules import criteria, treatments
from tf_lottery.rules.masks import CHANNEL_SCOPES, Arrays, check_scope
from tf_lottery.search.callbacks.clock import due
from tf_lottery.search.rounds import Rounds, names, numbers
from tf_lottery.search.schedules import LotterySchedule, tfmot
from tf_lottery.tickets import recipes
from tf_lottery.tickets.ticket import Ticket
from tf_lottery.tickets.values import arrays


def prune_scope():
    """A scope in which saved models with pruning wrappers and a `LotterySchedule` can be loaded.

    Examples:

    >>> with prune_scope():
    ...     tf_keras.utils.get_registered_object("LotterySchedule").__name__
    'LotterySchedule'
    """
    return tfmot.sparsity.keras.prune_scope()


class RewindSurvivors(tfmot.sparsity.keras.UpdatePruningStep):
    """Turns TF-MOT's magnitude pruning into a lottery-ticket search: after each round the survivors are rewound.

    The one callback that `fit` needs: it does the work of `UpdatePruningStep` too. When TF-MOT prunes at a step of the
    schedule, the weights as they were before that step are the level's trained weights. From them the round is made as in
    `find_ticket`: TF-MOT's mask is replaced by one with exact counts in which pruned weights stay pruned, by any criterion and
    scope; the survivors get their starting weights; the optimizer starts anew with its step and schedule. So the
    step at which TF-MOT prunes is undone, and a level of n steps trains n - 1 (the last one n).

    Each wrapped kernel follows the schedule of its own wrapper, as in TF-MOT, so layers may differ in their sparsity, but not
    in the steps of their rounds.

    Args:
      survivors: What kept weights start from; a name from `treatments` or a function.
      rewind_to: The step of the dense level whose weights the survivors rewind to; 0 = the initialisation.
      criterion: What to keep; a name from `criteria` or a function, without a gradient.
      scope: Whether scores compete within each `"layer"` or in the `"global"` network.
      seed: Decides everything random in the search: drawn weights, shuffles, random scores, which of equal
        scores are kept.

    Attributes:
      tickets: The trained tickets, the dense one first; each is the same kind of `Ticket` as everywhere else, and fits a
        Keras 3 model of the same layers.

    Raises:
      LotteryError: When the training begins, if the model is not pruned by TF-MOT, was trained already, executes several
        steps at once or has an optimizer of tf_keras's legacy kind.
      TypeError: If the model is a Keras 3 model.

    Examples:

    >>> model = tf_keras.Sequential([tf_keras.layers.Dense(8, "relu", input_shape=(4,)), tf_keras.layers.Dense(2)])
    >>> schedule = LotterySchedule(levels=2, steps_per_level=4, prune_fraction=0.5)
    >>> pruned = tfmot.sparsity.keras.prune_low_magnitude(model, pruning_schedule=schedule)
    >>> pruned.compile("sgd", "mse")
    >>> search, x = RewindSurvivors(), np.ones((32, 4), "float32")
    >>> _ = pruned.fit(x, x[:, :2], batch_size=8, epochs=3, verbose=0, callbacks=[search])
    >>> [ticket.density for ticket in search.tickets]
    [1.0, 0.5, 0.25]

    Reference: Frankle & Carbin (2019), section 1; TF-MOT issue 1 asks for it.
    """

    def __init__(
        self,
        survivors: str | Callable = "rewind",
        rewind_to: int = 0,
        *,
        criterion: str | Callable = "large_final",
        scope: str = "layer",
        seed: int = 0,
    ):
        super().__init__()
        if isinstance(survivors, tfmot.sparsity.keras.PruningSchedule):
            raise LotteryError(
                "Expected the schedule in prune_low_magnitude(model, pruning_schedule=...), but RewindSurvivors received it."
            )
        self.survivors = treatments.get_survivors(survivors)
        self.criterion = criteria.without_gradient(criterion, "RewindSurvivors")
        check_scope(scope, {})
        if scope in CHANNEL_SCOPES:
            raise LotteryError(f"Expected single weights to compete with TF-MOT, but received scope={scope!r}.")
        if not isinstance(rewind_to, int) or rewind_to < 0:
            raise LotteryError(f"Expected rewind_to to be a step, 0 or later, but received {rewind_to!r}.")
        self.rewind_to, self.scope, self.seed = rewind_to, scope, seed
        self.tickets: list[Ticket] = []
        self._current: Ticket | Any = None  # the level in training, with what it started from
        self._due: dict[str, float] = {}  # the sparsities of the round that comes in this batch
        self._pending = False  # whether TF-MOT has pruned and the next batch begins with the round
        self._open = self._rewound = False  # whether a batch was begun and not ended, and whether a round began with it
        self._trained: Arrays = {}  # all weights before the step at which TF-MOT prunes

    def set_model(self, model):
        if not isinstance(model, tf_keras.Model):
            raise TypeError(
                f"Expected a tf_keras model pruned by TF-MOT, but received a {type(model).__module__.partition('.')[0]}.{type(model).__name__}: "
                "a Keras 3 model takes tf_lottery.callbacks.LotteryTicket."
            )
        super().set_model(model)

    def on_train_begin(self, logs=None):
        wrappers = _wrappers(self.model)
        if not wrappers:
            raise LotteryError(
                f"Expected a model that TF-MOT prunes, but {self.model.name!r} has no pruning wrappers: call prune_low_magnitude on it first."
            )
        if self._current is None:
            self._check(wrappers)
            super().on_train_begin(logs)
            self._begin(wrappers)
        elif self.model is not self._model:
            raise LotteryError("Expected a new RewindSurvivors for a new model, but this one was used for another.")
        elif self._finished and not self._pending:
            self.tickets.pop()  # the training of its level goes on

    def on_train_batch_begin(self, batch, logs=None):
        self._open, self._rewound = True, self._pending
        if self._pending:
            self._round()
        self._due = self._sparsities(self._step + 1)
        if self._due:
            self._mask_weights()
            self._trained = self._values()

    def on_train_batch_end(self, batch, logs=None):
        self._open = False
        self._step += 1
        if self._step == 1:
            self._check_counts()
        if self._due:
            self._end_level(logs or {})
        elif self._current.level == 0 and self._step == self.rewind_to:
            self._current = replace(self._current, initial=self._values())

    def on_test_begin(self, logs=None):
        if self._current is not None:
            self._take_back_what_no_batch_followed()
            self._mask_weights()

    def on_epoch_end(self, epoch, logs=None):
        self._take_back_what_no_batch_followed()
        self._mask_weights()
        if logs is not None:
            self._logs = dict(logs)
            if self._finished:
                self.tickets[-1] = replace(self.tickets[-1], metrics=numbers(self._logs))
            logs["level"], logs["density"] = self._current.level, self._current.density

    def on_train_end(self, logs=None):
        self._mask_weights()
        if not self._finished:
            self._finish_level(self._values())

    @property
    def _finished(self) -> bool:
        """Whether the current level has its ticket already."""
        return bool(self.tickets) and self.tickets[-1].level == self._current.level

    def _check(self, wrappers) -> None:
        name, schedules = self.model.name, list(dict.fromkeys(wrapper.pruning_schedule for wrapper in wrappers))
        if (step := int(wrappers[0].pruning_step.numpy())) > 0:
            raise LotteryError(
                f"Expected a model before its training, but {name!r} is at step {step}: its initial weights are not known any more."
            )
        if not isinstance(self.model.optimizer, tf_keras.optimizers.Optimizer):
            kind = type(self.model.optimizer)
            raise LotteryError(
                f"Expected an optimizer of tf_keras.optimizers, but received a {kind.__module__}.{kind.__name__}."
            )
        for wrapper in wrappers:
            if tuple(wrapper.block_size) != (1, 1) or wrapper.sparsity_m_by_n:
                raise LotteryError(
                    f"Expected single weights to be pruned, but {wrapper.layer.name!r} was wrapped with a block_size or sparsity_m_by_n."
                )
        if self.scope == "global" and len({str(schedule.get_config()) for schedule in schedules}) > 1:
            raise LotteryError(
                "Expected one prune_fraction for all kernels that compete under scope='global', but the wrappers' schedules differ."
            )
        if not (self.params.get("epochs") and self.params.get("steps")):
            return
        steps = self.params["epochs"] * self.params["steps"]
        rounds = [step for step, _ in due(schedules, 1, steps)]
        if not rounds:
            begins = min(getattr(schedule, "begin_step", 0) for schedule in schedules)
            raise LotteryError(
                f"Expected a schedule with a round in the {steps} steps of this fit, but it begins with step {begins}."
            )
        last = max(getattr(schedule, "end_step", 0) for schedule in schedules)
        if isinstance(schedules[0], LotterySchedule) and steps <= last:
            raise LotteryError(
                f"Expected fit to go beyond the last round of the schedule, at step {last}, but it has {steps} steps: give it "
                f"epochs={last // self.params['steps'] + 1} or more."
            )
        if self.rewind_to >= rounds[0]:
            raise LotteryError(
                f"Expected rewind_to before the first round, at step {rounds[0]}, but received {self.rewind_to}."
            )

    def _check_counts(self) -> None:
        """TF-MOT counts the calls of a layer, not the steps of the training: issue 270."""
        for wrapper in self._wrappers:
            if (count := int(wrapper.pruning_step.numpy())) != 1:
                self._put(self._current.masks, arrays(self._current.initial))
                raise LotteryError(
                    f"Expected each pruned layer to be called once a batch, but {wrapper.layer.name!r} was called {count} "
                    "times: compile with steps_per_execution=1, and leave shared layers unpruned."
                )

    def _begin(self, wrappers) -> None:
        self._model, self._wrappers, self._step, self._logs = self.model, wrappers, 0, {}
        own = _own_variables(wrappers)
        self._variables = weights.by_path([v for v in self.model.variables if id(v) not in own], _path)
        path_of = {id(variable): path for path, variable in self._variables.items()}
        self._kernels = {}
        for wrapper in wrappers:
            for weight, mask, _ in wrapper.pruning_vars:
                self._kernels[path_of[id(weight)]] = (wrapper, weight, mask)
        masks = {path: np.ones(tuple(mask.shape), np.uint8) for path, (*_, mask) in self._kernels.items()}
        found = names(survivors=self.survivors, criterion=self.criterion, scope=self.scope)
        found |= {"pruned": "zero", "rewind_to": self.rewind_to, "seed": self.seed, "one_shot": False}
        found |= {"schedule": wrappers[0].pruning_schedule.get_config()}
        self._current = Ticket(masks, self._values(), found=found)
        self._fractions: list[dict[str, float]] = []
        self._reached = dict.fromkeys(masks, 0.0)  # the sparsity of each kernel

    def _sparsities(self, step: int) -> dict[str, float]:
        """What the schedules ask of each kernel at a step, as TF-MOT counts them; empty if nothing."""
        answers = {}
        for schedule in dict.fromkeys(wrapper.pruning_schedule for wrapper in self._wrappers):
            prunes, sparsity = schedule(np.int64(step))
            if bool(prunes):
                answers[schedule] = float(sparsity)
        return {
            path: answers.get(wrapper.pruning_schedule, self._reached[path])
            for path, (wrapper, *_) in self._kernels.items()
            if answers
        }

    def _end_level(self, logs) -> None:
        """Puts the trained level back, for validation to see it; the round follows with the next batch."""
        if self._current.level == 0 and self.rewind_to > self._step - 1:
            raise LotteryError(
                f"Expected rewind_to before the first round, at step {self._step}, but received {self.rewind_to}."
            )
        shares = {}
        for path, sparsity in self._due.items():
            before, schedule = self._reached[path], self._kernels[path][0].pruning_schedule
            if isinstance(schedule, LotterySchedule):
                shares[path] = schedule.fractions[self._current.level] if sparsity > before else 0.0
            else:  # sparsities are float32
                shares[path] = max(0.0, round(1 - (1 - sparsity) / (1 - before), 6))
            self._reached[path] = max(sparsity, before)
        self._fractions.append(shares)
        self._put(self._current.masks, self._trained)
        self._logs, self._pending, self._due = logs, True, {}

    def _round(self) -> None:
        if not self._finished:
            self._finish_level(self._values())
        rounds = Rounds(
            self._fractions,
            self._draw,
            criterion=self.criterion,
            survivors=self.survivors,
            scope=self.scope,
            seed=self.seed,
        )
        self._current, self._pending = rounds.next(self.tickets[-1], self.tickets[0]), False
        self._put(self._current.masks, arrays(self._current.initial))
        _reset(self.model.optimizer, self.model.trainable_variables)

    def _take_back_what_no_batch_followed(self) -> None:
        """Data of unknown length end with a batch that is begun and never comes; TF-MOT counts it, and may prune for it."""
        if not self._open:
            return
        self._open = False
        if self._rewound:
            self._current, self._pending = self.tickets[-1], True
            self._put(self._current.masks, arrays(self._current.final))
        elif self._due:
            self._put(self._current.masks, self._trained)
        for wrapper in self._wrappers:
            wrapper.pruning_step.assign(self._step)

    def _put(self, masks: Arrays, values: Arrays) -> None:
        for path, (_, _, mask) in self._kernels.items():
            mask.assign(masks[path].astype(mask.dtype.as_numpy_dtype))
        for path, variable in self._variables.items():
            variable.assign(values[path])

    def _finish_level(self, final: Arrays) -> None:
        self.tickets.append(replace(self._current, final=final, metrics=numbers(self._logs)))

    def _mask_weights(self) -> None:
        """Zeroes what the optimizer gave to pruned weights since TF-MOT zeroed them last, in the forward pass."""
        for _, weight, mask in self._kernels.values():
            weight.assign(weight * mask)

    def _values(self) -> Arrays:
        return {path: np.array(variable.numpy()) for path, variable in self._variables.items()}

    def _draw(self, path: str, seed: int) -> np.ndarray:
        wrapper, weight, _ = self._kernels[path]
        name = weight.name.partition(":")[0].rpartition("/")[2]
        owners = [
            layer
            for layer in (wrapper.layer, *wrapper.layer.submodules)
            if any(v is weight for v in vars(layer).values())
        ]
        for attribute in recipes.initializer_names(name):
            if initializer := getattr((owners or [wrapper.layer])[-1], attribute, None):
                config = initializer.get_config()
                fresh = type(initializer).from_config({**config, "seed": seed} if "seed" in config else config)
                return np.array(fresh(tuple(weight.shape), dtype=weight.dtype))
        raise LotteryError(
            f"Expected a layer that knows its kernel's initializer, but {type(wrapper.layer).__name__} has none for {path!r}."
        )


def _wrappers(model) -> list:
    """The pruning wrappers in a model and the models in it."""
    wrappers = []
    for layer in model.layers:
        if isinstance(layer, tf_keras.Model):
            wrappers += _wrappers(layer)
        elif hasattr(layer, "pruning_vars"):
            wrappers.append(layer)
    return wrappers


def _own_variables(wrappers) -> set[int]:
    """The variables of the wrappers themselves: masks, thresholds and steps."""
    own = set()
    for wrapper in wrappers:
        inner = {id(v) for v in wrapper.layer.variables}
        own |= {id(v) for v in wrapper.variables if id(v) not in inner}
    return own


def _path(variable) -> str:
    """The variable's name without what TF-MOT and TensorFlow added to it."""
    return variable.name.partition(":")[0].replace("prune_low_magnitude_", "")


def _reset(optimizer, variables) -> None:
    """The state of a fresh optimizer: no momentum, step 0; the learning rate stays as it is."""
    fresh = type(optimizer).from_config(optimizer.get_config())
    fresh.build(variables)
    for variable, start in zip(optimizer.variables, fresh.variables):
        variable.assign(start)
