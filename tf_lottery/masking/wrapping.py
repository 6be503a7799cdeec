"""In and out of masks, in one call each: `wrap` puts a model under masks, `strip` gives the plain sparse model back.

>>> import keras, numpy as np
>>> from tf_lottery import get_masks, set_masks
>>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="d")], name="net")
>>> masked = wrap(model)
>>> set_masks(masked, {"net/d/kernel": np.array([[1, 0], [0, 1], [1, 1]])})
>>> np.asarray(strip(masked).layers[0].kernel != 0).astype(int)
array([[1, 0],
       [0, 1],
       [1, 1]])
"""

from __future__ import annotations

import keras

from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import weights
from tf_lottery.masking.distribution import scope_of
from tf_lottery.masking.layers import MaskedLayer, MaskedModel
from tf_lottery.masking.masked import Masked, stripped
from tf_lottery.masking.weights import Prunable


def wrap(
    model, prunable: Prunable = None, *, exclude: Prunable = None, held: bool = False, keep_zeros: bool = False
) -> MaskedLayer | MaskedModel:
    """Masks a Keras 3 model or layer, in one call; all masks are 1 at first.

    The wrapped model shares the variables of the original, trains in `fit` with pruned weights staying pruned, and has
    the same outputs, output names and dtype policies. Compile the wrapped model: the original's `compile` does not carry
    over. A model that is wrapped already is returned as it is.

    Args:
      model: Any Keras 3 model or layer.
      prunable: What to prune, if not the kernels; see `weights.prunable_kernels`.
      exclude: What to leave out of that, in the same words.
      held: Whether pruned weights can be frozen at values other than zero, as the `pruned` treatments of `find_ticket` and
        tickets that were found with them do.
      keep_zeros: Prune the weights that are exactly zero now, to fine-tune a sparse model that was stripped or loaded. A
        kernel that is zero as a whole (by its initializer, say) is left dense.

    Raises:
      TypeError: If it is not a Keras 3 model or layer.
      LotteryError: If there is nothing to prune in it, or it has no weights yet and `keep_zeros` asks for them.

    Examples:

    >>> from tf_lottery import get_masks
    >>> masked = wrap(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), prunable="kernel$")
    >>> {path: mask.shape for path, mask in get_masks(masked).items()}.popitem()[1]
    (3, 2)
    """
    weights.check_keras_3(model)
    if isinstance(model, Masked):
        if (prunable is not None and prunable != model._prunable) or (
            exclude is not None and exclude != model._exclude
        ):
            raise LotteryError(
                f"Expected prunable and exclude when {model.name!r} was wrapped, but it is wrapped already: wrap the plain model."
            )
        masked = model
        masked.warn_of_forgotten()
    else:
        with scope_of(model):
            kind: type[MaskedModel | MaskedLayer] = MaskedModel if isinstance(model, keras.Model) else MaskedLayer
            masked = kind(model, prunable, held, exclude)
    check_kernels(masked, prunable, exclude)
    if keep_zeros:
        if not masked.built:
            raise LotteryError(f"Expected a built model for keep_zeros, but {model.name!r} has no weights yet.")
        for kernel, mask in zip(masked.kernels, masked._masks):
            nonzero = weights.value_of(kernel.variable) != 0
            if nonzero.any():
                mask.assign(mask.numpy() * nonzero)
    return masked


def check_kernels(masked: Masked, prunable: Prunable, exclude: Prunable = None) -> None:
    """Checks that there is something to mask in what was wrapped."""
    if masked.built and not masked.kernels:
        chosen = f" that prunable={prunable!r} chooses" if prunable is not None else ""
        left = f" and exclude={exclude!r} leaves" if exclude is not None else ""
        raise LotteryError(
            f"Expected a model with at least one prunable kernel that is trainable, but {masked.name!r} has none{chosen}{left}."
        )


def strip(model) -> keras.layers.Layer:
    """The plain model or layer without masks, pruned weights exactly zero (or what they were frozen at).

    It shares its variables with the wrapped one. A Sequential or Functional model that has `MaskedLayer`s inside is
    rebuilt around the plain layers.
    """
    weights.check_keras_3(model)
    return stripped(model)


def gradient_masks(model) -> tuple[keras.layers.Layer, dict[int, keras.Variable], dict[int, keras.Variable]]:
    """A wrapped model as its parts, for a training loop that masks gradients itself instead of kernels.

    Returns:
      The plain model to call, and by `id` of the kernel its mask and, if the wrapper has them, its held values. For a
      model that is not wrapped as a whole, or learns its masks: the model itself and nothing.
    """
    if not isinstance(model, Masked) or model.learns:
        return model, {}, {}
    ids = [id(kernel.variable) for kernel in model.kernels]
    return model.inner, dict(zip(ids, model._masks)), dict(zip(ids, model._held or ()))
