"""`RegrowBySchedule`: a network that is sparse from the start and moves its mask while it trains."""

from __future__ import annotations

import numbers
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_lottery.base.bounds import whole
from tf_lottery.base.container import digest
from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import gradients, health, own_step, state, weights
from tf_lottery.masking.distribution import Replicas, strategy_of
from tf_lottery.masking.gradients import Probe
from tf_lottery.masking.masked import settle_all, unwrapped
from tf_lottery.masking.probes import Probes
from tf_lottery.rules import masks as masks_lib
from tf_lottery.rules import regrowth
from tf_lottery.rules.masks import Arrays
from tf_lottery.search.callbacks.by_schedule import BySchedule
from tf_lottery.search.pruner import DISTRIBUTIONS, Distribution, shared_out
from tf_lottery.search.rates import PAPERS, at_once, rounds_to
from tf_lottery.search.rounds import names
from tf_lottery.training.checkpoint import sample_of

GROW = ("gradient", "random")


class RegrowBySchedule(BySchedule):
    """Trains a wrapped model sparse from the start, and moves its mask: RigL, and with `grow="random"` SET.

        masked = tfl.wrap(model)
        masked.compile("adam", loss)
        regrow = tfl.callbacks.RegrowBySchedule(0.1, probe=(x, y))
        masked.fit(x, y, epochs=..., callbacks=[regrow])
        sparse = tfl.strip(masked)

    Before the first step each kernel of a dense model gets a random mask of its density. Every `frequency` updates then, up to `end_step`,
    of the `n` weights that a kernel keeps

        k = round(n fraction/2 (1 + cos(pi t / end_step)))

    of least magnitude are dropped, and as many grow: those of largest `|dL/dw|`, taken in float32 of the dense kernel, pruned
    weights at 0; or at random. A dropped weight may grow again at once, and has stayed then; others grow from 0. Optimizer slots of dropped and of new
    weights begin anew, all other state stays. So densities are exact in every step, and pruned weights zero.

    `Trainer` takes it as `fit` does and gives the same weights; it has a probe of its own.

    Args:
      density: The share of weights to keep, in (0, 1), shared out by `distribution`; or one for each kernel, a mapping with the keys
        of `weights.prune_fractions`: `{"output": 0.5, "": 0.1}`. 1 leaves a kernel dense.
      grow: `"gradient"` (RigL) or `"random"` (SET), which needs no probe.
      fraction: The share of the kept weights that the first exchange moves, in (0, 1); it falls along a cosine.
      frequency: Updates between two exchanges.
      end_step: No exchange at or after this step of the optimizer; by default three quarters of the training, which is then
        counted from where it begins.
      distribution: `"erdos_renyi_kernel"` (`masks.erdos_renyi_kernel`), `"uniform"`, `"papers"` (the densities that rounds of 20 %, and half of
        it in the output layer, lead to), or your own function, as for `prune`.
      probe: `(x, y)` or `(x, y, loss)`: the training set or a part of it, without a loss the compiled model's. Each exchange takes its gradient on some
        of it, without regularisers and class weights. By default the training set of the `Trainer`.
      probe_size: On how many examples, drawn anew for each exchange; all of a smaller probe.
      seed: Decides the first mask, what grows at random, the examples, and among equals.

    Attributes:
      first_masks: The masks that the training began with.

    Raises:
      LotteryError: If an argument is out of range; when the training begins, if it does not fit the model, there is no probe, or
        no exchange in this `fit`; the model is unchanged then. A model whose masks have these counts already goes on with them; one with
        other masks is refused.

    Examples:

    >>> import keras
    >>> from tf_lottery import get_masks, wrap
    >>> masked = wrap(keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)]))
    >>> masked.compile("adam", "mse")
    >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    >>> regrow = RegrowBySchedule(0.25, frequency=2, distribution="uniform", probe=(x, x[:, :2]))
    >>> _ = masked.fit(x, x[:, :2], batch_size=4, verbose=0, callbacks=[regrow])
    >>> [int(mask.sum()) for mask in get_masks(masked).values()]
    [8, 4]

    References: Evci et al. (2020, arXiv 1911.11134), section 3 and algorithm 1, for RigL; Mocanu et al. (2018, arXiv 1707.04780) for SET.
    """

    def __init__(
        self,
        density: float | Mapping[str, float],
        *,
        grow: str = "gradient",
        fraction: float = 0.3,
        frequency: int = 100,
        end_step: int | None = None,
        distribution: Distribution = "erdos_renyi_kernel",
        probe: Probe | None = None,
        probe_size: int = 600,
        seed: int = 0,
    ):
        super().__init__()
        for one in density.values() if isinstance(density, Mapping) else [density]:
            masks_lib.check_density(one)
        if density == 1 or (isinstance(density, Mapping) and all(one == 1 for one in density.values())):
            raise LotteryError("Expected a density below 1, of which some weights are left to grow, but received 1.")
        if grow not in GROW:
            raise LotteryError(f"Expected grow to be one of {', '.join(GROW)}, but received {grow!r}.")
        if not isinstance(fraction, numbers.Real) or not 0 < float(fraction) < 1:
            raise LotteryError(f"Expected a fraction in (0, 1), but received {fraction!r}.")
        if not callable(distribution) and distribution not in (known := [*DISTRIBUTIONS, "papers"]):
            raise LotteryError(
                f"Expected distribution to be one of {', '.join(known)} or a function, but received {distribution!r}."
            )
        if grow == "random" and probe is not None:
            raise LotteryError("Expected no probe with grow='random', which looks at no examples, but received one.")
        self.density: float | Mapping[str, float] = density
        self.distribution: Distribution = distribution
        self.grow: str = grow
        self.fraction: float = float(fraction)
        self.frequency: int = whole("frequency", frequency, 1)
        self.end_step: int | None = None if end_step is None else whole("end_step", end_step, 1)
        self.probe_size: int = whole("probe_size", probe_size, 1)
        self.seed: int = whole("seed", seed)
        self.probe: Probes | None = None if probe is None else Probes(*_checked(probe))
        self.first_masks: Arrays = {}

    def due(self, step: int, last: int | None) -> Iterator[tuple[int, None]]:
        self._kernels = state.masked_kernels(self.model)
        self._counts = self._counted()
        self._check_kernels()
        self._probes = self._probes_of_training()
        self._started, self._end = step, 0
        if self.end_step is not None:
            self._started, self._end = 0, self.end_step
        elif last is not None:
            self._end = step + 3 * (last - step) // 4
        else:
            raise LotteryError(
                "Expected end_step where Keras does not know how long the training is, but received none."
            )
        last = self._end if last is None else min(self._end, last)
        first = (step // self.frequency + 1) * self.frequency
        return ((at, None) for at in range(first, last + 1, self.frequency) if at < self._end)

    def begin(self, step: int, last: int | None) -> None:
        present = state.get_masks(self.model)
        kept = {path: int(np.count_nonzero(mask)) for path, mask in present.items()}
        goes_on = kept == self._counts
        if self._next is None and not (goes_on and self.end_step is not None):
            raise LotteryError(
                f"Expected an exchange of weights every {self.frequency} steps before step {self._end}, but this training goes from step {step} to {last}: "
                "choose another frequency."
            )
        if not goes_on:
            for path, mask in present.items():
                if kept[path] not in (mask.size, self._counts[path]):
                    raise LotteryError(
                        f"Expected a dense model, or one that keeps {self._counts[path]:,} weights of {path!r}, but it keeps {kept[path]:,} of {mask.size:,}."
                    )
            present = {
                path: regrowth.drawn(mask.shape, self._counts[path], seed=[self.seed, 6, place])
                for place, (path, mask) in enumerate(present.items())
            }
            state.set_masks(self.model, present, optimizers=self._optimizers)
        self.first_masks = present
        self._watch = health.Watch(self.model)

    def act(self, step: int, asked: Sequence[None]) -> None:
        """One exchange."""
        settle_all(self.model)
        present, new = state.get_masks(self.model), {}
        growth = self._growth(present, step)
        share = regrowth.share(self.fraction, (step - self._started) / (self._end - self._started))
        for place, kernel in enumerate(self._kernels):
            mask, values = present[kernel.path], weights.value_of(kernel.variable)
            if not np.isfinite(values).all():
                raise LotteryError(
                    f"Expected finite weights, but {kernel.path!r} holds NaN or infinity: the training diverged."
                )
            if (kept := self._counts[kernel.path]) < mask.size:
                seed = [self.seed, 7, step, place]
                new[kernel.path] = regrowth.exchanged(
                    mask, np.abs(values), growth[kernel.path], round(share * kept), seed=seed
                )
        Replicas(strategy_of(self.model)).check_same([digest(mask) for mask in new.values()], "masks")
        self.put(new)

    def on_train_end(self, logs=None):
        super().on_train_end(logs)
        self._watch(state.get_masks(self.model))

    def settings(self) -> list:
        """What decides the masks, beside the model."""
        given = [] if self.probe is None else keras.tree.flatten((self.probe.x, self.probe.y))
        told = names(grow=self.grow, fraction=self.fraction, frequency=self.frequency, seed=self.seed)
        told |= {"counts": list(self._counts.values()), "end": self._end, "probe_size": self.probe_size}
        return [told, [digest(sample_of(array)) for array in given]]

    def _counted(self) -> dict[str, int]:
        """How many weights each kernel keeps."""
        shapes = {kernel.path: tuple(kernel.variable.shape) for kernel in self._kernels}
        sizes = {path: int(np.prod(shape)) for path, shape in shapes.items()}
        if isinstance(self.density, Mapping):
            densities = weights.per_kernel(self._kernels, self.density, "density")
        elif self.distribution == "papers":
            fractions = weights.prune_fractions(self._kernels, PAPERS)
            lost = at_once(fractions, rounds_to(self.density, fractions, sizes, sizes))
            densities = {path: 1 - share for path, share in lost.items()}
        else:
            densities = shared_out(self.distribution, shapes, self.density)
        return {path: max(1, round(density * sizes[path])) for path, density in densities.items()}

    def _check_kernels(self) -> None:
        settle_all(self.model)
        for kernel in self._kernels:
            if not kernel.variable.trainable or getattr(kernel.layer, "lora_enabled", False):
                raise LotteryError(
                    f"Expected kernels that are trained, to drop and grow weights of, but {kernel.path!r} is not: leave it out with exclude."
                )
        for path, mask in state.get_masks(self.model).items():
            if np.any(state.get_values(self.model)[path][mask == 0]):
                raise LotteryError(
                    f"Expected pruned weights of zero, from which others grow, but {path!r} holds others: wrap the model without held."
                )

    def _probes_of_training(self) -> Probes | None:
        if self.grow == "random":
            return None
        probes = self.given("probes") if self.probe is None else self.probe
        if probes is None:
            raise LotteryError(
                "Expected probe=(x, y), of the training set, to take gradients on for grow='gradient', but received none."
            )
        if (own := own_step.own_step(unwrapped(self.model))) and probes.loss is None:
            raise LotteryError(
                f"Expected probe=(x, y, loss) for {self.model.name!r}, which brings its own {own[0]}, or grow='random', but received no loss."
            )
        return probes

    def _growth(self, present: Arrays, step: int) -> Mapping[str, Any]:
        """What decides who grows, for each kernel."""
        if self._probes is None:
            return {
                path: np.random.default_rng([self.seed, 8, step, place]).random(mask.shape, np.float32)
                for place, (path, mask) in enumerate(present.items())
            }
        ones = {path: np.ones_like(mask) for path, mask in present.items()}
        probe = self._probes.drawn(self.probe_size, [self.seed, 9, step])
        found = gradients.take(self.model, "loss", probe, ones)
        return {path: np.abs(gradient) for path, gradient in found.items()}


def _checked(probe: Any) -> Probe:
    if not isinstance(probe, tuple | list) or len(probe) not in (2, 3):
        raise LotteryError(f"Expected probe as (x, y) or (x, y, loss), but received {probe!r:.80}.")
    return tuple(probe)
