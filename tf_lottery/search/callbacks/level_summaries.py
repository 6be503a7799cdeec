"""`LevelSummaries`: what TensorBoard is told of one level of a search while a `Trainer` trains it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tf_lottery.masking import state, weights
from tf_lottery.search.callbacks.pruning_summaries import write_masks


class LevelSummaries(keras.callbacks.Callback):
    """Tells TensorBoard of one training: its curve, the distributions of its kept weights, its masks, and its settings.

    Scalars are the entries of the Trainer's curve; histograms `kept/<path>` come at the start, with every measurement of the test
    set, and at the end; `density`, thresholds and pictures of the masks, those of `PruningSummaries`, at the start and at the
    end. The settings go to the HParams tab.

    Args:
      log_dir: A folder for this level.
      settings: What the level was trained with: numbers and words; anything else is written as text, None is left out.

    Examples:

    >>> import tempfile
    >>> import numpy as np
    >>> from tf_lottery import Trainer, wrap
    >>> masked = wrap(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
    >>> x, y = np.ones((8, 4), "float32"), np.zeros(8, "int32")
    >>> folder = tempfile.TemporaryDirectory()
    >>> _ = Trainer(x, y, steps=4, batch_size=4, test=(x, y))(masked, [LevelSummaries(folder.name, {"level": 0})])
    >>> len(list(Path(folder.name).iterdir()))
    1
    >>> folder.cleanup()
    """

    def __init__(self, log_dir: str | Path, settings: Mapping[str, Any] | None = None):
        super().__init__()
        self.log_dir, self.settings = Path(log_dir), dict(settings or {})
        self._step = self._drawn = 0

    def on_train_begin(self, logs=None):
        from tensorboard.plugins.hparams import api  # here, because TensorBoard is an extra

        self._writer = tf.summary.create_file_writer(str(self.log_dir))
        with self._writer.as_default(step=0):
            api.hparams({key: _simple(value) for key, value in self.settings.items() if value is not None})
            self._histograms()
            write_masks(self.model)
        self._writer.flush()

    def on_train_batch_end(self, batch, logs=None):
        measured = dict(logs or {})
        self._step = step = measured.pop("step", batch + 1)
        with self._writer.as_default(step=step):
            for name, value in measured.items():
                if value is not None:
                    tf.summary.scalar(name, value)
            if measured.get("test_accuracy") is not None:
                self._histograms()
        self._writer.flush()

    def on_train_end(self, logs=None):
        with self._writer.as_default(step=self._step):
            self._histograms()
            write_masks(self.model)
        self._writer.close()

    def _histograms(self) -> None:
        step = tf.summary.experimental.get_step()
        if step == self._drawn and step:
            return
        self._drawn = step
        masks = state.get_masks(self.model)
        for kernel in state.masked_kernels(self.model):
            tf.summary.histogram(f"kept/{kernel.path}", weights.value_of(kernel.variable)[masks[kernel.path] == 1])


def _simple(value) -> bool | int | float | str:
    return value if isinstance(value, bool | int | float | str) else str(value)
