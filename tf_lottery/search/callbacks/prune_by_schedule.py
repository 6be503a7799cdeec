"""`PruneBySchedule`: gradual pruning during `fit`, or a training of `Trainer`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras

from tf_lottery.base.errors import LotteryError, LotteryWarning
from tf_lottery.masking import state, weights
from tf_lottery.rules import criteria
from tf_lottery.rules import masks as masks_lib
from tf_lottery.search.callbacks.by_schedule import BySchedule
from tf_lottery.search.callbacks.clock import due
from tf_lottery.search.pruner import Distribution, Pruner
from tf_lottery.search.rounds import names


class PruneBySchedule(BySchedule):
    """Prunes a wrapped model while it trains, as a schedule says: TF-MOT's gradual magnitude pruning, for Keras 3.

        masked = tfl.wrap(model)
        masked.compile("adam", loss)
        schedule = tfmot.sparsity.keras.PolynomialDecay(0.0, 0.8, begin_step=0, end_step=10_000)
        masked.fit(x, y, epochs=..., callbacks=[tfl.callbacks.PruneBySchedule(schedule)])
        plain = tfl.strip(masked)

    When `optimizer.iterations` has reached a step at which the schedule says so, the masks go down to a density of
    `1 - sparsity`; for step 0, before the first batch. (TF-MOT counts the step that is about to be taken: its masks come one
    update earlier.) What is pruned stays pruned: weights are zero and optimizer slots as they began where a weight is pruned, at
    the end of every batch (with Muon, which mixes the weights of a kernel, at the end of an epoch).

    `Trainer` takes it as `fit` does, `trainer(masked, [PruneBySchedule(schedule)])`, and prunes between two of its compiled stretches.
    Its early stop is looked for from the last pruning on: the sparse network's.

    Args:
      schedule: A `PruningSchedule` of TF-MOT, or any function `step -> (should_prune, sparsity)`; or a mapping of them, one for
        each kernel, with the keys of `weights.prune_fractions`: `{"output": ..., "Conv2D": ..., "Dense": ...}`.
      criterion, scope, distribution, block_size, block_pooling_type, sparsity_m_by_n, seed: As for `prune`. With
        `sparsity_m_by_n` the pattern is chosen at the first step of the schedule, whatever its sparsity. In a mapping
        `lambda step: (False, 0.0)` leaves a kernel dense. Criteria that need a gradient prune before training: use `prune`.

    Raises:
      LotteryError: If an argument is out of range; when the training begins, if it does not fit the model, the model was not
        wrapped, or the schedule asks for nothing in this `fit` and nothing is pruned yet; the model is unchanged then.

    Examples:

    >>> import numpy as np
    >>> from tf_lottery import LotterySchedule, get_masks, wrap
    >>> masked = wrap(keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)]))
    >>> masked.compile("sgd", "mse")
    >>> x = np.ones((32, 4), "float32")
    >>> pruning = PruneBySchedule(LotterySchedule(levels=2, steps_per_level=3, prune_fraction=0.5))
    >>> _ = masked.fit(x, x[:, :2], batch_size=4, verbose=0, callbacks=[pruning])
    >>> float(np.mean(next(iter(get_masks(masked).values()))))
    0.25

    Reference: Zhu & Gupta (2017, arXiv 1710.01878), section 3.
    """

    def __init__(
        self,
        schedule,
        *,
        criterion: str | Callable = "large_final",
        scope: str = "layer",
        distribution: Distribution = "uniform",
        block_size: Sequence[int] = (1, 1),
        block_pooling_type: str = "AVG",
        sparsity_m_by_n: Sequence[int] | None = None,
        seed: int = 0,
    ):
        super().__init__()
        if isinstance(schedule, Mapping) and (distribution != "uniform" or scope.startswith("global")):
            raise LotteryError("Expected one schedule with a distribution or scope='global', but received several.")
        for part in schedule.values() if isinstance(schedule, Mapping) else [schedule]:
            if not callable(part):
                raise LotteryError(
                    f"Expected a schedule, a function step -> (should_prune, sparsity), but received {part!r}."
                )
        self.schedule = schedule
        options: dict[str, Any] = {
            "criterion": criteria.without_gradient(criterion, "PruneBySchedule"),
            "scope": scope,
            "distribution": distribution,
            "block_size": block_size,
            "block_pooling_type": block_pooling_type,
            "sparsity_m_by_n": sparsity_m_by_n,
            "seed": seed,
        }
        self._pruner, self._options = Pruner(**options), names(**options)
        self.watches = True  # at the end, over the masks that do harm

    def due(self, step: int, last: int | None) -> Iterator[tuple[int, dict]]:
        if self._pruner.model is not self.model:
            self._pruner.prepare(self.model, state.get_values(self.model))
        kernels = state.masked_kernels(self.model)
        per_kernel = self.schedule
        if not isinstance(per_kernel, Mapping):
            per_kernel = {"": self.schedule}
        self._schedules = weights.per_kernel(kernels, per_kernel, "schedule")
        return due(list(dict.fromkeys(per_kernel.values())), step, last)

    def listed(self, plan: Sequence[tuple[int, dict]]) -> None:
        """From which step on the network of a `Trainer` is as sparse as it gets."""
        parts = {schedule: i for i, schedule in enumerate(dict.fromkeys(self._schedules.values()))}
        self._plan = [(step, sorted((parts[s], x) for s, x in found.items() if s in parts)) for step, found in plan]
        self.early_stop_from = self.at_steps[-1] if plan else 0

    def begin(self, step: int, last: int | None) -> None:
        self._reached = masks_lib.density(state.get_masks(self.model))
        if self._next is None and self._reached == 1:
            raise LotteryError(
                f"Expected a schedule that prunes between steps {step} and {last}, which this fit runs, but it never does."
            )
        self._epoch_density: float | None = None
        self._kept: dict[int, tuple] = {}  # by checkpoint: its best value, and the density there

    def act(self, step: int, asked: Sequence[dict]) -> None:
        sparsities: dict = {schedule: x for found in asked for schedule, x in found.items()}
        if not sparsities:
            return
        if isinstance(self.schedule, Mapping):
            densities = {path: 1 - sparsities.get(part, 0.0) for path, part in self._schedules.items()}
        else:
            densities = self._pruner.shared_out(1 - sparsities[self.schedule])
        self._reached = masks_lib.density(self._pruner(densities, self.put))

    def on_epoch_begin(self, epoch, logs=None):
        self._look_at_checkpoints()

    def on_epoch_end(self, epoch=None, logs=None, batch=None):  # TF-MOT's documents name the argument batch
        super().on_epoch_end(epoch, logs, batch)
        self._epoch_density = masks_lib.density(state.get_masks(self.model))

    def on_train_end(self, logs=None):
        super().on_train_end(logs)
        if self.watches:
            self._pruner.watch(state.get_masks(self.model))

    def after_fit(self, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        """Tells what other callbacks of the `fit` kept from before the schedule's end: it is denser than the schedule says.

        Warns:
          LotteryWarning: If `EarlyStopping` put earlier weights back, or `ModelCheckpoint` keeps an earlier model as the best.
        """
        self._look_at_checkpoints()
        if (density := masks_lib.density(state.get_masks(self.model))) > self._reached:
            warnings.warn(
                LotteryWarning(
                    "the model ends with {:.3g} % of its weights, though the schedule had come to {:.3g} %: earlier weights were put "
                    "back, and their masks; give EarlyStopping a start_from_epoch after the last pruning.",
                    *(100 * density, 100 * self._reached),
                ),
                stacklevel=3,
            )
        for checkpoint in callbacks:
            kept = self._kept.get(id(checkpoint), (None, 0.0))[1]
            if kept > self._reached:
                warnings.warn(
                    LotteryWarning(
                        "the best model that ModelCheckpoint kept has {:.3g} % of its weights, though the schedule had come to "
                        "{:.3g} %: begin with it after the last pruning, in a second fit.",
                        *(100 * kept, 100 * self._reached),
                    ),
                    stacklevel=3,
                )

    def _look_at_checkpoints(self) -> None:
        """Which checkpoints found the last epoch the best, and how dense the model was there."""
        for callback in getattr(self.model, "callbacks_in_fit", ()):
            if isinstance(callback, keras.callbacks.ModelCheckpoint) and callback.save_best_only:
                best, _ = self._kept.get(id(callback), (callback.best if self._epoch_density is None else None, 0.0))
                if callback.best != best:
                    self._kept[id(callback)] = callback.best, self._epoch_density
                else:
                    self._kept.setdefault(id(callback), (best, 0.0))

    def settings(self) -> list:
        """What decides the masks, beside the model: the steps with their sparsities, and how weights are ranked."""
        return [self._plan, self._options]
