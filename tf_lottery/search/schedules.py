"""`LotterySchedule`: the rounds of a lottery-ticket search as a pruning schedule of TensorFlow Model Optimization.

Importing TF-MOT sets `TF_USE_LEGACY_KERAS` and, if `tf.keras` was not used before, decides which Keras it is. Neither is
the business of a library, so this module settles `tf.keras` first and puts the environment back.
"""

from __future__ import annotations

import numbers
import os
from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from tf_lottery.base.bounds import MOST_LEVELS, whole
from tf_lottery.base.errors import LotteryError


def _import_tfmot():
    _ = tf.keras.layers  # the first use decides what tf.keras is, by the environment as the user left it
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    try:
        import tensorflow_model_optimization
    finally:
        if before is None:
            os.environ.pop("TF_USE_LEGACY_KERAS", None)
        else:
            os.environ["TF_USE_LEGACY_KERAS"] = before
    return tensorflow_model_optimization


tfmot = _import_tfmot()
import tf_keras  # noqa: E402 - the Keras of TF-MOT


class LotterySchedule(tfmot.sparsity.keras.PruningSchedule):  # type: ignore[name-defined]  # tfmot is a variable
    """Iterative pruning: a round every `steps_per_level` steps, each removing a share of the weights that are left.

    Round k of `levels` comes at step `warm_up + k * steps_per_level`. Before it the sparsity is that of round k - 1, from it on

        sparsity = 1 - (1 - p_1) (1 - p_2) ... (1 - p_k)

    with the `prune_fraction` p_i of each round. The last level trains for `steps_per_level` steps like the others, so the whole
    search takes `steps = warm_up + (levels + 1) * steps_per_level`.

    It serves `callbacks.LotteryTicket` and `callbacks.PruneBySchedule` on Keras 3 models, and on tf_keras models
    TF-MOT's `prune_low_magnitude` together with `tfmot.RewindSurvivors`.

    Args:
      levels: How many pruning rounds, at least 1.
      steps_per_level: Steps of training between two rounds, at least 1.
      prune_fraction: The share of the *remaining* weights that a round removes, in (0, 1); or one for each round.
      warm_up: Further steps before the first round, at least 0.

    Raises:
      LotteryError: If a number is out of range.

    Examples:

    >>> schedule = LotterySchedule(levels=2, steps_per_level=100, prune_fraction=0.5)
    >>> [(step, bool(schedule(step)[0]), float(schedule(step)[1])) for step in (99, 100, 200)]
    [(99, False, 0.0), (100, True, 0.5), (200, True, 0.75)]
    >>> schedule.steps
    300

    Reference: Frankle & Carbin (2019), section 2: one round removes 20 % of what is left.
    """

    def __init__(
        self, levels: int, steps_per_level: int, prune_fraction: float | Sequence[float] = 0.2, warm_up: int = 0
    ):
        levels = whole("levels", levels, 1, MOST_LEVELS)
        steps_per_level, warm_up = whole("steps_per_level", steps_per_level, 1), whole("warm_up", warm_up)
        one = isinstance(prune_fraction, numbers.Real)
        if not one and not (isinstance(prune_fraction, Iterable) and not isinstance(prune_fraction, str)):
            raise LotteryError(
                f"Expected prune_fraction in (0, 1), or one for each level, but received {prune_fraction!r}."
            )
        fractions: list[Any] = [prune_fraction] * levels if one else list(prune_fraction)  # type: ignore[arg-type]  # checked above
        if len(fractions) != levels:
            raise LotteryError(
                f"Expected one prune_fraction or one for each of the {levels} levels, but received {len(fractions)}."
            )
        for fraction in fractions:
            if not isinstance(fraction, numbers.Real) or not 0 < float(fraction) < 1:
                raise LotteryError(f"Expected prune_fraction in (0, 1), but received {fraction!r}.")
        self.levels, self.steps_per_level, self.warm_up = int(levels), int(steps_per_level), int(warm_up)
        self.fractions = tuple(float(fraction) for fraction in fractions)
        self.prune_fraction = self.fractions[0] if one else list(self.fractions)
        self._validate_step(self.begin_step, self.end_step, self.steps_per_level, False)

    @property
    def begin_step(self) -> int:
        """The step of the first round."""
        return self.warm_up + self.steps_per_level

    @property
    def end_step(self) -> int:
        """The step of the last round."""
        return self.warm_up + self.levels * self.steps_per_level

    @property
    def steps(self) -> int:
        """The steps of the whole search, the last level's training included."""
        return self.end_step + self.steps_per_level

    @property
    def sparsities(self) -> tuple[float, ...]:
        """The sparsity of each level, the dense one first."""
        kept = [1.0]
        for fraction in self.fractions:
            kept.append(kept[-1] * (1 - fraction))
        return tuple(1 - density for density in kept)

    def __call__(self, step):
        """`(should_prune, sparsity)`: a bool and a float32 tensor, of the shape of `step`."""
        step = tf.convert_to_tensor(step)
        level = tf.clip_by_value((step - self.warm_up) // self.steps_per_level, 0, self.levels)
        due = self._should_prune_in_step(step, self.begin_step, self.end_step, self.steps_per_level)
        return due, tf.gather(tf.constant(self.sparsities, tf.float32), level)

    def get_config(self) -> dict:
        """As TF-MOT's own schedules: the class name beside the arguments."""
        return {
            "class_name": type(self).__name__,
            "config": {
                "levels": self.levels,
                "steps_per_level": self.steps_per_level,
                "prune_fraction": self.prune_fraction,
                "warm_up": self.warm_up,
            },
        }

    @classmethod
    def from_config(cls, config: dict) -> LotterySchedule:
        """From the arguments, or from the whole of what `get_config` returned."""
        return cls(**config.get("config", config))


# TF-MOT's wrapper looks its schedule up by class name when a saved model is loaded, and knows its own two only.
tf_keras.utils.get_custom_objects()["LotterySchedule"] = LotterySchedule
