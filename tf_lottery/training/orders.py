"""In which order the examples of a training come, decided by one seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

Shuffled = Literal["examples", "batches", "nothing"]


class BatchOrder:
    """Which examples each step sees, epoch after epoch.

    Args:
      examples: How many there are.
      batch_size: Those in a step; the last incomplete batch of an epoch is dropped.
      seed: Decides what is shuffled.
      sizes: In the place of `batch_size` the sizes of all batches of an epoch.
      shuffled: What is shuffled anew in each epoch: the examples, whole batches, or nothing.
    """

    def __init__(
        self,
        examples: int,
        batch_size: int,
        seed: int,
        *,
        sizes: Sequence[int] | None = None,
        shuffled: Shuffled = "examples",
    ):
        self.sizes = list(sizes) if sizes is not None else [batch_size] * (examples // batch_size)
        self.examples, self.batch_size, self.seed, self.shuffled = examples, batch_size, seed, shuffled
        self._last: tuple[int, list[np.ndarray]] = -1, []  # the epoch of the last call, and its batches

    def by(self, seed: int) -> BatchOrder:
        """The order that another seed decides."""
        if seed == self.seed:
            return self
        return BatchOrder(self.examples, self.batch_size, seed, sizes=self.sizes, shuffled=self.shuffled)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """The examples of the steps from `start` to before `stop`, or to before the first whose batch has another size.

        Returns:
          int (steps, size of a batch).
        """
        found = [self._of_step(start)]
        for step in range(start + 1, stop):
            rows = self._of_step(step)
            if len(rows) != len(found[0]):
                break
            found.append(rows)
        return np.stack(found)

    def _of_step(self, step: int) -> np.ndarray:
        epoch, place = divmod(step, len(self.sizes))
        last, batches = self._last
        if epoch != last:
            batches = self._of_epoch(epoch)
            self._last = epoch, batches
        return batches[place]

    def _of_epoch(self, epoch: int) -> list[np.ndarray]:
        order, rng = np.arange(self.examples), np.random.default_rng([self.seed, epoch])
        if self.shuffled == "examples":
            order = rng.permutation(self.examples)
        batches = np.split(order[: sum(self.sizes)], np.cumsum(self.sizes)[:-1])
        return [batches[i] for i in rng.permutation(len(batches))] if self.shuffled == "batches" else batches
