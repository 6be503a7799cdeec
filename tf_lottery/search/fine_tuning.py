"""Gradual pruning over one `fit` of a trained model: the schedule that fits its length, and the `fit` itself."""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_lottery.base.errors import LotteryError, LotteryWarning
from tf_lottery.masking import state, weights
from tf_lottery.masking.compiling import compile_arguments
from tf_lottery.masking.masked import unwrapped
from tf_lottery.rules import masks as masks_lib
from tf_lottery.search.callbacks.clock import updates
from tf_lottery.search.callbacks.prune_by_schedule import PruneBySchedule

MASKS = 25  # so often a mask is taken, if there are as many steps
UNTIL = 0.6  # of all steps: from there on the mask stays, and the rest of the training is for it


class Gradually(PruneBySchedule):
    """`PruneBySchedule` down to a density within one `fit`, whatever its length.

    Of `steps` updates, after f of the first 60 % of them the density of each kernel (or of the whole) is

        1 - (1 - density) (1 - (1 - f)^3)

    with a mask at 25 of these steps. An m-by-n pattern has no way down: it is chosen before the first step.

    Args:
      density: The density at the end; or one for each kernel, as for `prune`; None with `sparsity_m_by_n`.
      first_epoch: The epoch that the `fit` begins with, if it is given an `initial_epoch`.
      options: The other arguments of `PruneBySchedule`.

    Reference: Zhu & Gupta (2017, arXiv 1710.01878), section 3.
    """

    def __init__(self, density: float | Mapping[str, float] | None, *, first_epoch: int = 0, **options: Any):
        super().__init__(_never, **options)
        self.density, self.first_epoch = density, first_epoch

    def due(self, step: int, last: int | None) -> Iterator[tuple[int, dict]]:
        if self.density is None:
            self.last, self.schedule = step, lambda at: (np.asarray(at) == step, 0.5)
            return super().due(step, last)
        self.last = step + max(1, round(UNTIL * self._steps()))
        if isinstance(self.density, Mapping):
            self.schedule = {key: cubic(value, step, self.last) for key, value in self.density.items()}
        else:
            self.schedule = cubic(self.density, step, self.last)
        return super().due(step, last)

    def _steps(self) -> int:
        """How many updates this `fit` makes."""
        epochs, batches = self.given("epochs"), self.given("steps")
        if not batches:
            raise LotteryError(
                "Expected data whose number of batches is known, for pruning that is done before they end, but it is not: give "
                "steps_per_epoch."
            )
        steps = updates(self.model.optimizer, (epochs - self.first_epoch) * batches)
        if steps < 2:
            raise LotteryError(f"Expected at least 2 steps to prune in, but this fit has {steps}: give more epochs.")
        return steps

    def check_done(self) -> None:
        """Tells if the training ended before the last mask was taken.

        Warns:
          LotteryWarning: If it did, as `EarlyStopping` makes it.
        """
        if self._next is not None:
            density = masks_lib.density(state.get_masks(self.model))
            warnings.warn(
                LotteryWarning(
                    "the training ended before its last pruning, which was due at step {}, and the model keeps {:.3g} % of its "
                    "prunable weights: give EarlyStopping a start_from_epoch after it, or prune at once what fit returned.",
                    *(self.last, 100 * density),
                ),
                stacklevel=3,
            )


def cubic(density: float, begin: int, last: int) -> Callable:
    """A schedule whose sparsity rises along a cubic, to `1 - density` at step `last`; for a density of 1 it never prunes.

    >>> [(step, bool(due), float(round(sparsity, 3))) for step in (0, 5, 10) for due, sparsity in [cubic(0.2, 0, 10)(step)]]
    [(0, False, 0.0), (5, True, 0.7), (10, True, 0.8)]
    """
    masks_lib.check_density(density)
    steps = max(last - begin, 1)
    due = begin + np.unique(np.ceil(np.linspace(0, steps, MASKS + 1)).astype(int)[1:])

    def schedule(step):
        f = np.clip((np.asarray(step) - begin) / steps, 0, 1)
        return np.isin(step, due) & (density < 1), (1 - density) * (1 - (1 - f) ** 3)

    return schedule


def _never(step):
    return False, 0.0


def check_fit(fit: Mapping[str, Any]) -> None:
    """Refuses what is no argument of `fit`, or lacks data.

    Raises:
      LotteryError: If there is such a thing.
    """
    known = [name for name in inspect.signature(keras.Model.fit).parameters if name != "self"]
    for name in fit:
        if name not in known:
            close = difflib.get_close_matches(
                name, ["density", "sparsity", "criterion", "scope", "exclude", *known], n=1
            )
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise LotteryError(f"Expected arguments of prune, or of Keras' fit, but received {name!r}.{hint}")
    if fit.get("x") is None:
        raise LotteryError(
            f"Expected x, the data to fine-tune on, beside {', '.join(fit)}, but received none: without arguments of fit "
            "prune prunes at once."
        )


def check_denser(masked: keras.layers.Layer, density: float | Mapping[str, float] | None) -> None:
    """Refuses a density that a model is below already: there would be nothing to prune.

    Raises:
      LotteryError: If it is.
    """
    if density is None:
        return
    present = state.get_masks(masked)
    own = masks_lib.density(present)
    if isinstance(density, Mapping):
        asked = weights.per_kernel(state.masked_kernels(masked), density, "density")
        if any(asked[path] < mask.mean() for path, mask in present.items()):
            return
        told = ", ".join(f"{100 * value:.3g} %" for value in dict.fromkeys(asked.values()))
    elif density < own:
        return
    else:
        told = f"{100 * density:.3g} %"
    raise LotteryError(
        f"Expected a density below the {100 * own:.3g} % of its weights that {masked.name!r} keeps now, but received {told}."
    )


def fine_tune(
    masked, model: keras.Model, fit: Mapping[str, Any], pruning: Sequence[keras.callbacks.Callback]
) -> keras.callbacks.History:
    """Trains a wrapped model as the plain one was compiled to be, with a new optimizer; callbacks for pruning come first.

    A wrapped model that is compiled itself is trained by that, and goes on with its optimizer.

    Raises:
      LotteryError: If neither is compiled.
    """
    if not masked.compiled:
        masked.compile(**compile_arguments(unwrapped(model)))
    given = fit.get("callbacks") or []
    given = list(given) if isinstance(given, list | tuple) else [given]
    history = masked.fit(**{**fit, "callbacks": [*pruning, *given]})
    for callback in pruning:
        if isinstance(callback, Gradually):
            callback.check_done()
    return history
