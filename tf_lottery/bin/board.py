"""What `--tensorboard` writes: a folder for each level, and one for each replicate with the outcome of its levels."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_lottery.base.errors import LotteryError
from tf_lottery.runs.outcome import MEASURED, TOLD


class Board:
    """Hands summaries to the levels of a run.

    Args:
      folder: Where TensorBoard looks.
      settings: What the run was begun with, for the HParams tab.

    Raises:
      LotteryError: If TensorBoard is not installed.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]):
        if importlib.util.find_spec("tensorboard") is None:
            raise LotteryError(
                "Expected TensorBoard for --tensorboard, but it is not installed: python -m pip install 'tf_lottery[tensorboard]'."
            )
        self.folder, self.settings = folder, dict(settings)

    def callbacks(self, replicate: int, level: int, density: float | None, search: bool = False) -> Sequence:
        """What a level is to be trained with, or its network for the search alone."""
        from tf_lottery.search.callbacks import LevelSummaries

        own = {"replicate": replicate, "level": level, "weights_remaining": density}
        folder = f"{'search_of_' if search else ''}level_{level:02d}"
        return [LevelSummaries(self._replicate(replicate) / folder, {**self.settings, **own})]

    def done(self, row: Mapping[str, Any]) -> None:
        """Writes the outcome of a level: scalars against the level's number."""
        import tensorflow as tf

        with tf.summary.create_file_writer(str(self._replicate(row["replicate"]))).as_default(step=row["level"]):
            for name in (*MEASURED, *TOLD, "seconds"):
                if row.get(name) is not None:
                    tf.summary.scalar(f"by_level/{name}", row[name])

    def _replicate(self, replicate: int) -> Path:
        return self.folder / f"replicate_{replicate}"
