"""Pruning to a density: all at once with `prune`, or bit by bit with `callbacks.PruneBySchedule`.

What TF-MOT's `prune_low_magnitude` does for tf_keras models, for any Keras 3 model, and with any criterion, scope and
distribution over the kernels.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import gradients, health, matrices, state, weights
from tf_lottery.masking.gradients import Probe
from tf_lottery.masking.layers import MaskedLayer, MaskedModel
from tf_lottery.masking.weights import Prunable
from tf_lottery.masking.wrapping import wrap
from tf_lottery.rules import criteria, masks, patterns
from tf_lottery.rules.masks import Arrays

Distribution = str | Callable[[Mapping[str, Sequence[int]], float], Mapping[str, float]]
DISTRIBUTIONS = {"uniform": masks.uniform, "erdos_renyi_kernel": masks.erdos_renyi_kernel}


def prune(
    model: keras.layers.Layer,
    density: float | Mapping[str, float] | None = None,
    *,
    criterion: str | Callable = "large_final",
    scope: str = "layer",
    distribution: Distribution = "uniform",
    block_size: Sequence[int] = (1, 1),
    block_pooling_type: str = "AVG",
    sparsity_m_by_n: Sequence[int] | None = None,
    initial: Mapping[str, np.ndarray] | None = None,
    prunable: Prunable = None,
    exclude: Prunable = None,
    probe: Probe | None = None,
    seed: int = 0,
) -> MaskedModel | MaskedLayer:
    """Prunes a model at once, as it is: no training, no callback, and no data unless the criterion wants a gradient on some.

    Args:
      model: A built Keras 3 model or layer, trained or not, plain or wrapped; its pruned weights become zero in place.
      density: The share of the weights to keep, in (0, 1]; or one for each kernel, as a mapping with the keys of
        `weights.prune_fractions`: `"output"`, the name of a layer class, or a regular expression searched in the path. What
        is pruned already stays pruned.
      criterion: What to keep; a name from `criteria` or a function.
      scope: Whether scores compete within each `"layer"` or in the `"global"` network; or whole output channels and units,
        `"channels"` or `"global_channels"`: then a density is the share of a kernel's channels, and the output layer stays
        dense; see `find_ticket`.
      distribution: How a density of the whole network is shared out: `"uniform"`, `"erdos_renyi_kernel"`
        (`masks.erdos_renyi_kernel`), or your own function `({path: shape}, density) -> {path: density}`.
      block_size: `(height, width)` of the blocks of the (inputs, outputs) matrix that are kept or pruned as a whole.
      block_pooling_type: A block's score: the `"AVG"` or the `"MAX"` of its weights' scores.
      sparsity_m_by_n: `(m, n)`: m zeros in every n consecutive inputs, `(2, 4)` for "2:4", in place of a density. For matrices, those
        of attention too, and two-dimensional convolutions; others are left dense, with a warning that says why, see
        `patterns.check`. Of a group that is cut short at the end, n - m inputs are kept too.
      initial: The weights before training, `{path: array}`, for criteria that look at them. Criteria that need a gradient take
        it there; by default the model counts as untrained as it is.
      prunable: What to prune, if not the kernels; see `weights.prunable_kernels`.
      exclude: What to leave out of that, in the same words.
      probe: The batch, `(x, y)` or `(x, y, loss)`, that `snip`, `grad`, `grasp` and other criteria take gradients on; without a
        loss the compiled model's.
      seed: For criteria that need chance, and decides which of equal scores are kept.

    Returns:
      The wrapped model: `strip` it to save or ship it, or compile and fit it to fine-tune with the zeros kept.

    Raises:
      LotteryError: If an argument is out of range or does not fit the model; the model is unchanged then.

    Warns:
      UserWarning: If the masks all but empty a kernel, leave channels without inputs or outputs, or let no signal pass; see
        `health.Watch`.

    Examples:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16), keras.layers.Dense(4)])
    >>> {path: int(mask.sum()) for path, mask in state.get_masks(prune(model, 0.25)).items()}.values()
    dict_values([32, 16])

    Before training, by the loss on one batch:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(4)])
    >>> x, y = np.ones((100, 8), "float32"), np.zeros((100, 4), "float32")
    >>> masked = prune(model, 0.25, criterion="snip", scope="global", probe=(x, y, "mse"))
    >>> masks.density(state.get_masks(masked))
    0.25

    Reference: Han et al. (2015, arXiv 1506.02626) for magnitude; TF-MOT issue 621 asks for it.
    """
    pruner = Pruner(
        criterion=criterion,
        scope=scope,
        distribution=distribution,
        block_size=block_size,
        block_pooling_type=block_pooling_type,
        sparsity_m_by_n=sparsity_m_by_n,
        seed=seed,
    )
    if (density is None) == (sparsity_m_by_n is None):
        raise LotteryError("Expected either a density or sparsity_m_by_n, but received both or neither.")
    probe = gradients.checked(pruner.criterion, probe)
    masked = wrap(model, prunable, exclude=exclude)
    pruner.prepare(masked, initial, probe)
    if density is None:
        densities = {}  # the pattern has its own
    elif isinstance(density, Mapping):
        densities = weights.per_kernel(state.masked_kernels(masked), density, "density")
        for value in densities.values():
            masks.check_density(value)
    else:
        densities = pruner.shared_out(density)
    pruner(densities)
    pruner.watch(state.get_masks(masked))
    return masked


def shared_out(distribution: Distribution, shapes: Mapping[str, Sequence[int]], density: float) -> dict[str, float]:
    """The density of each kernel, by a distribution or its name.

    Raises:
      LotteryError: If a distribution of one's own returns something else.
    """
    share = distribution if callable(distribution) else DISTRIBUTIONS[distribution]
    densities = dict(share(shapes, density))
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
        self.criterion, self.scope, self.seed = criteria.get(criterion), scope, seed
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
                "sparsity_m_by_n serves matrices and two-dimensional convolutions; left dense: "
                + ", ".join(f"{path} ({why})" for path, why in self.unserved.items()),
                stacklevel=3,
            )
        self.axes = state.channel_axes(model) if self.scope in masks.CHANNEL_SCOPES else None
        self.model, self.initial, self.probe = model, initial, probe
        structured = self.scope in masks.CHANNEL_SCOPES or self.block_size != (1, 1)
        self.watch = health.Watch(model, structured=structured)

    def shared_out(self, density: float) -> dict[str, float]:
        """The density of each kernel, if they are to have `density` together."""
        return shared_out(self.distribution, self.shapes, density)

    def __call__(self, densities: Mapping[str, float], optimizers: Sequence[keras.optimizers.Optimizer] = ()) -> None:
        """Prunes, in as many steps as the criterion wants; the masks only shrink. `optimizers` as for `set_masks`."""
        rng, present = np.random.default_rng(self.seed), state.get_masks(self.model)
        steps = 1 if self.m_by_n else criteria.needs(self.criterion).iterations
        for step in range(1, steps + 1):
            shares = {path: density ** (step / steps) for path, density in densities.items()}
            new = self._pruned(present, self._scores(present, rng), shares)
            present = present | new
        state.set_masks(self.model, new, optimizers=optimizers)

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
        scores, found, starts = {}, {}, self.initial
        if (kind := criteria.needs(self.criterion).gradient) is not None:
            starts = state.get_values(self.model) | dict(self.initial or {})
            found = gradients.take(self.model, kind, self.probe, old, starts)
        for path, mask in old.items():
            final = weights.value_of(self.kernels[path]) * mask
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
