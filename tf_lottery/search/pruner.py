"""What brings the masks of a wrapped model down to given densities, for all who prune to a density."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tf_lottery.base.bounds import whole
from tf_lottery.base.errors import LotteryError, LotteryWarning
from tf_lottery.masking import gradients, health, matrices, state
from tf_lottery.masking.gradients import Probe
from tf_lottery.masking.masked import view_of
from tf_lottery.rules import criteria, masks, patterns
from tf_lottery.rules.masks import Arrays

Distribution = str | Callable[[Mapping[str, Sequence[int]], float], Mapping[str, float]]
DISTRIBUTIONS = {"uniform": masks.uniform, "erdos_renyi_kernel": masks.erdos_renyi_kernel}


def shared_out(distribution: Distribution, shapes: Mapping[str, Sequence[int]], density: float) -> dict[str, float]:
    """The density of each kernel, by a distribution or its name.

    Raises:
      LotteryError: If a distribution of one's own returns something else.
    """
    share = distribution if callable(distribution) else DISTRIBUTIONS[distribution]
    densities = dict(share(dict(shapes), density))
    if set(densities) != set(shapes) or not all(0 < value <= 1 for value in densities.values()):
        raise LotteryError(
            f"Expected distribution to return a density in (0, 1] for each of {', '.join(shapes)}, but received {densities!r:.200}."
        )
    return densities


class Pruner:
    """Brings the masks of a wrapped model down to given densities; the arguments are those of `prune`."""

    def __init__(
        self,
        *,
        criterion: str | Callable,
        scope: str,
        distribution: Distribution,
        block_size: Sequence[int],
        block_pooling_type: str,
        sparsity_m_by_n: Sequence[int] | None,
        seed: int,
    ):
        self.criterion, self.scope, self.seed = criteria.get(criterion), scope, whole("seed", seed)
        masks.check_scope(scope, {})
        if not callable(distribution) and distribution not in DISTRIBUTIONS:
            raise LotteryError(
                f"Expected distribution to be one of {', '.join(DISTRIBUTIONS)} or a function, but received {distribution!r}."
            )
        self.distribution = distribution if callable(distribution) else DISTRIBUTIONS[distribution]
        if scope.startswith("global") and self.distribution is not masks.uniform:
            raise LotteryError(f"Expected distribution='uniform' with scope={scope!r}, where the scores decide.")
        self.block_size = patterns.check_block(block_size, block_pooling_type)
        self.pooling = block_pooling_type
        self.m_by_n: Any = None if sparsity_m_by_n is None else patterns.check_m_by_n(sparsity_m_by_n)
        if self.m_by_n and (self.block_size != (1, 1) or scope != "layer" or self.distribution is not masks.uniform):
            raise LotteryError(
                f"Expected sparsity_m_by_n alone, but received it together with block_size, scope={scope!r} or a distribution."
            )
        if self.block_size != (1, 1) and scope in masks.CHANNEL_SCOPES:
            raise LotteryError(
                f"Expected either block_size or scope={scope!r}, where whole channels are pruned, not both."
            )
        self._rng = np.random.default_rng(self.seed)
        self._rng_state = self._rng.bit_generator.state
        self.model: Any = None
        self.initial: Mapping[str, np.ndarray] | None = None
        self.probe: Probe | None = None

    def prepare(self, model, initial: Mapping[str, np.ndarray] | None, probe: Probe | None = None) -> None:
        """Binds the pruner to a wrapped model, after a look whether they fit; `initial` may be None if nobody asks for it."""
        kernels = state.masked_kernels(model)
        self.kernels = {kernel.path: kernel.variable for kernel in kernels}
        self.matrices = {kernel.path: matrices.axes(kernel) for kernel in kernels}
        self.shapes = {path: tuple(variable.shape) for path, variable in self.kernels.items()}
        for path, shape in self.shapes.items():
            sides = patterns.stacked(np.empty(shape, bool), self.matrices[path]).shape[-2:] if len(shape) >= 2 else ()
            fits = bool(sides) and all(side <= axis for side, axis in zip(self.block_size, sides))
            if self.block_size != (1, 1) and not fits:
                raise LotteryError(
                    f"Expected kernels of at least block_size={self.block_size}, but {path!r} is {sides} (inputs, outputs): "
                    "choose a smaller block, or leave it out with exclude."
                )
        self.unserved = {kernel.path: why for kernel in kernels if (why := matrices.not_served(kernel))}
        if self.m_by_n and self.unserved:
            warnings.warn(
                LotteryWarning(
                    "{sparsity_m_by_n} serves matrices and two-dimensional convolutions; left dense: {}",
                    ", ".join(f"{path} ({why})" for path, why in self.unserved.items()),
                ),
                stacklevel=3,
            )
        self.axes = state.channel_axes(model) if self.scope in masks.CHANNEL_SCOPES else None
        self.model, self.initial, self.probe = model, initial, probe
        self.watch = health.Watch(model, self.scope, blocks=self.block_size != (1, 1))

    def shared_out(self, density: float) -> dict[str, float]:
        """The density of each kernel, if they are to have `density` together."""
        return shared_out(self.distribution, self.shapes, density)

    def __call__(self, densities: Mapping[str, float], put: Callable[[Arrays], Any] | None = None) -> Arrays:
        """Prunes, in as many steps as the criterion wants; returns the masks, which only shrink. `put` sets them, `set_masks` by default."""
        rng, present = self._dice(), state.get_masks(self.model)
        steps = 1 if self.m_by_n else criteria.needs(self.criterion).iterations
        for step in range(1, steps + 1):
            shares = {path: density ** (step / steps) for path, density in densities.items()}
            new = self._pruned(present, self._scores(present, rng), shares)
            present = present | new
        state.set_masks(self.model, new) if put is None else put(new)
        return present

    def _dice(self) -> np.random.Generator:
        """The same chance each time; a generator is made once, which takes as long as scoring a small kernel."""
        self._rng.bit_generator.state = self._rng_state
        return self._rng

    def _pruned(self, old: Arrays, scores: Arrays, densities: Mapping[str, float]) -> Arrays:
        among_equals = [self.seed, 5, *(int(np.count_nonzero(mask)) for mask in old.values())]  # anew at each density
        if self.m_by_n:
            return {
                path: self._m_by_n(path, mask, scores[path], seed=[*among_equals, place])
                for place, (path, mask) in enumerate(old.items())
                if path not in self.unserved
            }
        if self.block_size == (1, 1):
            return masks.prune_to(old, scores, densities, scope=self.scope, axes=self.axes, seed=among_equals)
        return self._in_blocks(old, scores, densities, among_equals)

    def _scores(self, old: Arrays, rng: np.random.Generator) -> Arrays:
        needs = criteria.needs(self.criterion)
        scores, found, starts = {}, {}, self.initial if needs.initial else None
        if (kind := needs.gradient) is not None:
            starts = state.get_values(self.model) | dict(self.initial or {})
            found = gradients.take(self.model, kind, self.probe, old, starts)
        for path, mask in old.items():
            final = view_of(self.kernels[path]) * mask
            if not np.isfinite(final).all():
                raise LotteryError(
                    f"Expected finite weights to prune, but {path!r} holds NaN or infinity: the training diverged."
                )
            initial = None if starts is None else starts[path] * mask
            try:
                scores[path] = criteria.score(self.criterion, initial, final, rng=rng, gradient=found.get(path))
            except TypeError as error:
                if initial is not None or "NoneType" not in str(error):
                    raise
                raise LotteryError(
                    f"Expected initial weights for criterion {self.criterion.__name__!r}, which looks at them, but received none."
                ) from error
        return scores

    def _m_by_n(self, path: str, mask: np.ndarray, scores: np.ndarray, seed: Sequence[int]) -> np.ndarray:
        ranked = patterns.stacked(np.where(mask, scores, -np.inf), self.matrices[path])
        kept = patterns.m_by_n(ranked, *self.m_by_n, seed=seed)
        return mask * patterns.unstacked(kept, self.matrices[path], mask.shape)

    def _in_blocks(self, old: Arrays, scores: Arrays, densities: Mapping[str, float], seed: Sequence[int]) -> Arrays:
        stacks = {path: patterns.stacked(mask, self.matrices[path]) for path, mask in old.items()}
        ranked = {path: patterns.stacked(scores[path], self.matrices[path]) for path in old}
        pooled = {path: patterns.pool(ranked[path], self.block_size, self.pooling) for path in old}
        blocks = {path: patterns.pool(stack, self.block_size, "MAX") for path, stack in stacks.items()}
        kept = masks.prune_to(blocks, pooled, densities, scope=self.scope, seed=seed)
        whole = {path: patterns.expand(kept[path], self.block_size, stacks[path].shape) for path in old}
        return {
            path: mask * patterns.unstacked(whole[path], self.matrices[path], mask.shape) for path, mask in old.items()
        }
