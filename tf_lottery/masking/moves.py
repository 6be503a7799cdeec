"""Masks that change in the middle of a training, with the weights and the optimizer's slots: at once, or compiled for many times."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.masking import state
from tf_lottery.masking.tracing import Traced


class Moves:
    """Sets masks again and again: what stays kept, stays as it is, with its optimizer slots.

    Pruned weights become zero, those that are brought back begin at zero, and the slots of both at their first values. Where
    nothing is brought back, this is what `set_masks` does.

    Args:
      model: A wrapped model, or one with `MaskedLayer`s inside.
      optimizers: Others than its own that train it and whose slots are to follow, as a `Trainer`'s.
      jit_compile: Whether XLA makes one pass over memory of it, which it takes a tenth of a second to compile: for masks that
        change often under steps that are compiled too.

    Raises:
      LotteryError: When called, as `set_masks`.
    """

    def __init__(self, model, optimizers: Sequence[keras.optimizers.Optimizer] = (), *, jit_compile: bool = False):
        self.model, self._given, self._named = model, list(optimizers), state.named_masks(model)
        self._slots = [slot for one in state.built_optimizers(model, optimizers) for slot in state.slots_of(one)]
        self._move = Traced(tf.function(self._moved, jit_compile=True)) if jit_compile else self._moved

    def serves(self, model, optimizers: Sequence[keras.optimizers.Optimizer]) -> bool:
        """Whether it was made for this model and these optimizers, and they are still made of the same variables."""
        if model is not self.model or not _same(optimizers, self._given):
            return False
        now = Moves(model, optimizers)
        masks = ([mask for mask, *_ in one._named.values()] for one in (self, now))
        return _same(*masks) and _same(*([slot for slot, *_ in one._slots] for one in (self, now)))

    def __call__(self, masks: Mapping[str, np.ndarray]) -> None:
        """Sets masks by variable path; kernels that are not named keep theirs."""
        checked = state.settable(self._named, masks)
        joined = np.concatenate([mask.reshape(-1) for mask in checked.values()])
        self._move(tf.constant(joined), tuple(checked))

    def _moved(self, masks, paths: tuple[str, ...]) -> None:
        """`masks` are one array: each array that is handed to a compiled function takes its time."""
        shapes = [self._named[path][0].shape for path in paths]
        parts = tf.split(masks, [math.prod(shape) for shape in shapes])
        state.move(self._named, {path: tf.reshape(*part) for path, *part in zip(paths, parts, shapes)}, self._slots)


def _same(some: Sequence, others: Sequence) -> bool:
    return len(some) == len(others) and all(a is b for a, b in zip(some, others))
