"""Learning rates that change with the step, as the papers change them."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from tf_lottery.base.errors import LotteryError


@keras.saving.register_keras_serializable("tf_lottery")
class WarmUpThenDrop(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises linearly from 0 for `warmup` steps, and is multiplied by `factor` at each drop.

    `rate(t) = peak * min(1, t / warmup) * factor ** (number of drops <= t)`: the schedules of Frankle & Carbin (2019,
    section 4) for Resnet-18 and VGG-19.

    Args:
      peak: The learning rate after warm-up.
      warmup: Steps of warm-up; 0 for none.
      drops: Steps from which on the rate is multiplied by `factor` once more.
      factor: In (0, 1].

    Examples:

    >>> schedule = WarmUpThenDrop(0.1, warmup=10, drops=(20, 30))
    >>> [round(float(schedule(step)), 4) for step in (0, 5, 10, 20, 30)]
    [0.0, 0.05, 0.1, 0.01, 0.001]
    """

    def __init__(self, peak: float, warmup: int = 0, drops: Sequence[int] = (), factor: float = 0.1):
        if peak <= 0 or warmup < 0 or not 0 < factor <= 1 or sorted(drops) != list(drops):
            raise LotteryError(
                "Expected peak > 0, warmup >= 0, factor in (0, 1] and rising drops, but received "
                f"peak={peak}, warmup={warmup}, factor={factor}, drops={list(drops)}."
            )
        self.peak, self.warmup, self.drops, self.factor = peak, warmup, tuple(drops), factor

    def __call__(self, step):
        step = tf.cast(step, tf.float32)
        rate = self.peak * (tf.minimum(1.0, step / self.warmup) if self.warmup else 1.0)
        for drop in self.drops:
            rate *= tf.where(step >= drop, self.factor, 1.0)
        return rate

    def get_config(self) -> dict:
        return {"peak": self.peak, "warmup": self.warmup, "drops": list(self.drops), "factor": self.factor}
