"""`PruningSummaries`: what TensorBoard is told of the masks."""

from __future__ import annotations

from pathlib import Path

import keras
import tensorflow as tf

from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import own_step, state, weights
from tf_lottery.search.summaries import write_masks


class PruningSummaries(keras.callbacks.Callback):
    """Tells TensorBoard how a wrapped model is pruned: the density of each kernel, its threshold, and a picture of its mask.

    Scalars `density` (of the whole model), `density/<path>` and `threshold/<path>` (the smallest magnitude that is kept), images
    `mask/<path>` with a convolution's kernel laid out as (window and inputs, outputs); `<path>` is the kernel's, so names are
    distinct where a layer has several kernels.

    Args:
      log_dir: Where TensorBoard looks; the files go to its subfolder `pruning`.
      update_freq: `"epoch"`, or a number of batches.
      images: Whether to write the pictures.
      image_size: The longest side of a picture in pixels; larger masks are averaged down.

    Examples:

    >>> import tempfile
    >>> import numpy as np
    >>> from tf_lottery import wrap
    >>> masked = wrap(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
    >>> masked.compile("sgd", "mse")
    >>> folder, x = tempfile.TemporaryDirectory(), np.ones((8, 4), "float32")
    >>> _ = masked.fit(x, x[:, :2], verbose=0, callbacks=[PruningSummaries(folder.name)])
    >>> len(list(Path(folder.name, "pruning").iterdir()))
    1
    >>> folder.cleanup()
    """

    def __init__(
        self, log_dir: str | Path, *, update_freq: str | int = "epoch", images: bool = True, image_size: int = 256
    ):
        super().__init__()
        if update_freq != "epoch" and not (isinstance(update_freq, int) and update_freq >= 1):
            raise LotteryError(
                f"Expected update_freq to be 'epoch' or a number of batches, but received {update_freq!r}."
            )
        self.log_dir, self.update_freq = Path(log_dir), update_freq
        self.images, self.image_size, self._batches = images, image_size, 0

    def on_train_begin(self, logs=None):
        state.masked_kernels(self.model)  # refuses a model without masks
        self._writer = tf.summary.create_file_writer(str(self.log_dir / "pruning"))

    def on_train_batch_end(self, batch, logs=None):
        self._batches += 1
        if isinstance(self.update_freq, int) and self._batches % self.update_freq == 0:
            step = (logs or {}).get("step")  # a Trainer's; its optimizer is not the model's
            self._write(own_step.step_of_model(self.model) if step is None else step)

    def on_epoch_end(self, epoch, logs=None):
        if self.update_freq == "epoch":
            self._write(epoch)

    def on_train_end(self, logs=None):
        self._writer.close()

    def _write(self, step: int) -> None:
        with self._writer.as_default(step=step):
            values = {kernel.path: weights.value_of(kernel.variable) for kernel in state.masked_kernels(self.model)}
            write_masks(state.get_masks(self.model), values, self.images, self.image_size)
        self._writer.flush()
