"""Pruning to a density: all at once, or bit by bit while the model is fine-tuned.

What TF-MOT's `prune_low_magnitude` does for tf_keras models, for any Keras 3 model, and with any criterion, scope and
distribution over the kernels.
"""

from __future__ import annotations

import numbers
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import gradients, state, weights
from tf_lottery.masking.gradients import Probe
from tf_lottery.masking.layers import MaskedLayer, MaskedModel
from tf_lottery.masking.masked import Masked
from tf_lottery.masking.weights import Prunable
from tf_lottery.masking.wrapping import wrap
from tf_lottery.rules import masks
from tf_lottery.search.fine_tuning import Gradually, check_denser, check_fit, fine_tune
from tf_lottery.search.pruner import Distribution, Pruner


def prune(
    model: keras.layers.Layer,
    density: float | Mapping[str, float] | None = None,
    *,
    sparsity: float | Mapping[str, float] | None = None,
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
    **fit: Any,
) -> MaskedModel | MaskedLayer:
    """Prunes a model to a density: at once, as it is, or with arguments of `fit` bit by bit while it is fine-tuned.

        masked = tfl.prune(model, 0.2)  # at once: no training, and no data unless the criterion wants a gradient on some
        masked = tfl.prune(model, 0.2, x=x, y=y, epochs=5)  # gradually, within a fit of 5 epochs

    Fine-tuning keeps far more accuracy. Over the first 60 % of its steps the density falls along a cubic, in 25 masks; the rest trains
    under the last one. The model is trained by what it was compiled with, its loss, metrics and optimizer, which begins anew with
    the learning rate that it has. Weights that are zero already stay so.

    Args:
      model: A built Keras 3 model or layer, trained or not, plain or wrapped; its pruned weights become zero in place.
      density: The share of the weights to keep, in (0, 1]; or one for each kernel, as a mapping with the keys of
        `weights.prune_fractions`: `"output"`, the name of a layer class, or a regular expression searched in the path. What
        is pruned already stays pruned.
      sparsity: In place of a density the share of the weights to remove, in [0, 1), or one for each kernel: 1 - density.
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
      fit: Arguments of `keras.Model.fit`, of which `x` says that the model is to be fine-tuned: `x`, `y`, `epochs`,
        `validation_data`, `callbacks`, and so on. Without `x` there is only `verbose`: whether to print a line that says what
        share of the weights was kept, by default on a terminal and in a notebook.

    Returns:
      The wrapped model: `strip` it to save or ship it, or compile and fit it to fine-tune with the zeros kept. Of a `fit`,
      `masked.history` is the history.

    Raises:
      LotteryError: If an argument is out of range or does not fit the model, or a model that is to be fine-tuned was never
        compiled; the model is unchanged then.

    Warns:
      LotteryWarning: If the masks all but empty a kernel, leave channels without inputs or outputs, or let no signal pass; see
        `health.Watch`. If a callback ended the training before the last mask.

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

    While it is fine-tuned:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(4)])
    >>> model.compile("adam", "mse")
    >>> masks.density(state.get_masks(prune(model, 0.25, x=x, y=y, epochs=2, verbose=0)))
    0.25

    Reference: Han et al. (2015, arXiv 1506.02626) for magnitude, at once; Zhu & Gupta (2017, arXiv 1710.01878), section 3, for the
    cubic.
    """
    options: dict[str, Any] = {
        "criterion": criterion,
        "scope": scope,
        "distribution": distribution,
        "block_size": block_size,
        "block_pooling_type": block_pooling_type,
        "sparsity_m_by_n": sparsity_m_by_n,
        "seed": seed,
    }
    pruner = Pruner(**options)
    given = [value for value in (density, sparsity, sparsity_m_by_n) if value is not None]
    if len(given) != 1:
        raise LotteryError(
            "Expected one of density (the share of the weights that stays), sparsity (the share that is removed) and sparsity_m_by_n, but "
            f"received {'several' if given else 'none'}."
        )
    if sparsity is not None:
        density = _density_of(sparsity)
    verbose = fit.get("verbose", "auto") if "x" in fit else fit.pop("verbose", "auto")
    if fit:
        if initial is not None or probe is not None:
            raise LotteryError(
                "Expected initial and probe for pruning at once only, but received them with arguments of fit."
            )
        masked: Any = _while_fitting(model, density, options, prunable, exclude, fit)
        _tell(masked, verbose)
        return masked
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
    _tell(masked, verbose)
    return masked


def _tell(masked: MaskedModel | MaskedLayer, verbose: Any) -> None:
    watched = sys.stdout.isatty() or hasattr(sys, "ps1") or type(sys.stdout).__module__.startswith("ipykernel")
    if watched if verbose == "auto" else verbose:
        print(kept_line(masked))


def kept_line(masked: MaskedModel | MaskedLayer) -> str:
    """What share of the weights is kept, in a line.

    >>> kept_line(wrap(keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)], name="net")))
    'net keeps 32 of 32 weights: 100 % stay, 0 % are pruned (density 1, sparsity 0).'
    """
    counts = [(np.count_nonzero(mask), mask.size) for mask in state.get_masks(masked).values()]
    kept, size = map(sum, zip(*counts))
    density = kept / size
    return (
        f"{masked.name} keeps {kept:,} of {size:,} weights: {100 * density:.3g} % stay, {100 - 100 * density:.3g} % are pruned "
        f"(density {density:.3g}, sparsity {1 - density:.3g})."
    )


def _density_of(sparsity: Any) -> Any:
    def density(value):
        if not isinstance(value, numbers.Real) or not 0 <= float(value) < 1:
            raise LotteryError(
                f"Expected a sparsity in [0, 1), but received {value!r}: it is the share of the weights that is removed."
            )
        return 1 - float(value)

    mapping = isinstance(sparsity, Mapping)
    return {key: density(value) for key, value in sparsity.items()} if mapping else density(sparsity)


def _while_fitting(
    model, density, options: Mapping[str, Any], prunable, exclude, fit: Mapping[str, Any]
) -> MaskedModel:
    """Bit by bit; see `prune`."""
    check_fit(fit)
    for value in density.values() if isinstance(density, Mapping) else [] if density is None else [density]:
        masks.check_density(value)
    weights.check_keras_3(model)
    if not isinstance(model, keras.Model):
        raise LotteryError(f"Expected a model to fine-tune, but {model.name!r} is a layer.")
    gradually = Gradually(density, first_epoch=fit.get("initial_epoch") or 0, **options)
    masked: Any = wrap(model, prunable, exclude=exclude, keep_zeros=not isinstance(model, Masked))
    check_denser(masked, None if options["scope"] in masks.CHANNEL_SCOPES else density)
    fine_tune(masked, model, fit, [gradually])
    return masked
