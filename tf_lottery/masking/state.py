"""What a wrapped model holds: its masks, its values, the state of its optimizer, and how others are put on it."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.base.errors import LotteryError, TicketError
from tf_lottery.masking import matrices, own_step, weights
from tf_lottery.masking.layers import MaskedLayer, MaskedModel
from tf_lottery.masking.masked import Masked, masked_parts, settle, unwrapped
from tf_lottery.masking.roles import Roles
from tf_lottery.masking.weights import Kernel, check_keras_3
from tf_lottery.masking.wrapping import wrap
from tf_lottery.rules import masks as masks_lib
from tf_lottery.rules.masks import Arrays

_SLOTS: weakref.WeakKeyDictionary = (
    weakref.WeakKeyDictionary()
)  # of optimizers, which look for them in each mask otherwise


def get_masks(model) -> Arrays:
    """The masks of a wrapped model, or of a model with `MaskedLayer`s inside: {variable path: uint8 array}, 1 = kept."""
    return {path: part.mask(index) for path, (*_, part, index) in named_masks(model).items()}


def set_masks(model, masks: Mapping[str, np.ndarray], *, optimizers: Sequence[keras.optimizers.Optimizer] = ()) -> None:
    """Sets masks by variable path; kernels that are not named keep theirs.

    Pruned weights become zero, and so do weights that a mask brings back. In the state of a compiled optimizer the entries
    of these weights become zero too, so that old momentum moves nothing; where a mask brings weights back the whole state
    (not its step and learning rate) starts anew.

    Args:
      model: A wrapped model, or one with `MaskedLayer`s inside.
      masks: {variable path: array of 0 and 1}.
      optimizers: Others that train the model and whose state is to follow, as a `Trainer`'s.

    Raises:
      LotteryError: If a path is unknown, a shape does not fit or a value is not 0 or 1; the model is unchanged then.
    """
    named = named_masks(model)
    masks = settable(named, masks)
    grown = any(np.any((value != 0) & (named[path][0].numpy() == 0)) for path, value in masks.items())
    slots = [] if grown else [slot for one in built_optimizers(model, optimizers) for slot in slots_of(one)]
    move(named, masks, slots)
    if grown:
        reset_optimizer(model, keep_step=True, optimizers=optimizers)


def move(named: Mapping[str, tuple], masks: Mapping[str, Any], slots: Sequence[tuple]) -> None:
    """Sets masks that were checked: what stays kept stays as it is, with its slots; all else becomes zero, and its slots as they began.

    Args:
      named, slots: The `named_masks` of the model, and the `slots_of` its optimizers.
      masks: {variable path: array of 0 and 1, or tensor}.
    """
    stays = {}
    for path, value in masks.items():
        mask, held, part, index = named[path]
        if held is not None:
            held.assign(tf.zeros_like(held.value))
        settle(part, index)  # an optimizer may have moved a pruned weight that now comes back
        stays[id(part.kernels[index].variable)] = tf.cast(value, bool) & tf.cast(mask.value, bool)
        mask.assign(tf.cast(value, mask.dtype))
        settle(part, index)
    for slot, owner, start in slots:
        kept = stays.get(owner)
        if kept is not None and kept.shape == tuple(slot.shape):
            slot.assign(tf.where(kept, slot.value, tf.constant(start, slot.value.dtype)))


def masked_kernels(model) -> list[Kernel]:
    """The masked kernels of a wrapped model, or of a model with `MaskedLayer`s inside, under their paths in the model."""
    whole = Roles(unwrapped(model))  # the roles in the whole, not in a layer that is wrapped inside
    return [
        dataclasses.replace(part.kernels[i], path=path, roles=part.kernels[i].roles if part is model else whole)
        for path, (*_, part, i) in named_masks(model).items()
    ]


def channel_axes(model) -> dict[str, tuple[int, ...]]:
    """For each masked kernel whose output channels can be removed whole, the axes that number them, counted from the end.

    These are the units of dense layers, filters of convolutions, heads and their channels of attention, see
    `matrices.channel_axes`. Kernels whose channels are outputs of the model have none, for those are what the model says.

    Raises:
      LotteryError: If there is none, or the model cannot be asked for its outputs.
    """
    found: dict[str, tuple[int, ...]] = {}
    for kernel in masked_kernels(model):
        axes = matrices.channel_axes(kernel)
        if axes and not kernel.is_output:
            found[kernel.path] = axes
    if not found:
        raise LotteryError(
            f"Expected kernels before the output layer whose whole channels can be removed, but {model.name!r} masks none."
        )
    return found


def named_variables(model) -> dict[str, keras.Variable]:
    """The variables of the plain model under unique paths, weights and random seeds alike."""
    return weights.by_path(unwrapped(model).variables)


def get_values(model) -> Arrays:
    """The values of the plain model's variables: {path: array}; pruned weights hold what they are to hold."""
    for part in masked_parts(model):
        if not part.learns:  # what learns its masks has frozen its weights, and keeps them apart
            settle(part)
    return {path: weights.value_of(variable) for path, variable in named_variables(model).items()}


def set_state(masked: MaskedModel | MaskedLayer, masks: Arrays, values: Mapping[str, np.ndarray]) -> None:
    """Sets masks and variables together: what a pruned position of a kernel holds is what it is frozen at.

    Compiled optimizers start anew.

    Raises:
      LotteryError: If pruned weights are to hold something and the model was not wrapped with `held=True`.
    """
    assign(masked, masks, values)
    reset_optimizer(masked)


def assign(masked: MaskedModel | MaskedLayer, masks: Arrays, values: Mapping[str, np.ndarray]) -> None:
    """`set_state` that leaves optimizers alone."""
    check_masks_are_set(masked)
    for path, mask in masks.items():
        if not masked._holds and np.any(values[path][mask == 0]):
            raise LotteryError(
                f"Expected a model wrapped with held=True to freeze pruned weights of {path!r} at other values than 0."
            )
    for index, kernel in enumerate(masked.kernels):
        mask = masks[kernel.path]
        masked._masks[index].assign(mask)
        if masked._holds:
            masked._held[index].assign(np.where(mask, 0, values[kernel.path]))
    for path, variable in named_variables(masked).items():
        if path in values:  # a ticket of a tf_keras model knows no random states
            variable.assign(values[path])
    for layer in weights.sublayers(masked):
        if getattr(layer, "stateful", False):
            layer.reset_state()  # of recurrent layers, which are no variables of the model


def check_masks_are_set(part: Masked) -> None:
    """Refuses a wrapper that learns its masks where masks are to be set."""
    if part.learns:
        raise LotteryError(
            f"Expected a model whose masks can be set, but {part.name!r} learns its masks: call tf_lottery.strip on it first."
        )


def reset_optimizer(model, *, keep_step: bool = False, optimizers: Sequence[keras.optimizers.Optimizer] = ()) -> None:
    """Gives the model's compiled optimizers, and others, the state they were built with; with `keep_step` step and rate stay."""
    for optimizer in built_optimizers(model, optimizers):
        fresh = weights.fresh_optimizer(optimizer)
        fresh.build(built_with(optimizer))
        kept = {"iteration", "learning_rate"} if keep_step else set()
        for variable, start in zip(optimizer.variables, fresh.variables, strict=True):
            if variable.name not in kept:
                variable.assign(start.value)


def built_with(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The variables that an optimizer has slots for: those that were trainable when it was built.

    Keras has no public way to tell, so this is one of the private names that the library uses; a test notices when it moves.
    """
    return list(optimizer._trainable_variables)


def built_optimizers(model, others: Sequence[keras.optimizers.Optimizer] = ()) -> list[keras.optimizers.Optimizer]:
    """Those that a model is compiled with, and others, as far as they are built."""
    return [optimizer for optimizer in [*own_step.optimizers_of(model), *others] if optimizer.built]


def slots_of(optimizer: keras.optimizers.Optimizer) -> list[tuple[keras.Variable, int, float]]:
    """(slot, `id` of the variable it is of, the value it begins with); found once for an optimizer, while it has these slots.

    Slots are told by their names, `<optimizer>/<path of the variable, with _ for />_<name of the slot>`, in the order of the
    variables where several have one path.
    """
    variables = optimizer.variables
    known, slots = _SLOTS.get(optimizer, ([], []))
    if [id(one) for one in known] == [id(one) for one in variables]:
        return slots
    owners: dict[str, list] = {}
    for variable in built_with(optimizer):
        owners.setdefault(variable.path.replace("/", "_") + "_", []).append(variable)
    starts, slots = _slot_starts(optimizer), []
    seen: dict[str, int] = {}
    for slot in variables:
        name = slot.path.rpartition("/")[2]
        prefix = max((known for known in owners if name.startswith(known)), key=len, default=None)
        if prefix is None:
            continue
        owner = owners[prefix][seen.get(name, 0) % len(owners[prefix])]
        seen[name] = seen.get(name, 0) + 1
        slots.append((slot, id(owner), starts.get(name.removeprefix(prefix), 0.0)))
    _SLOTS[optimizer] = list(variables), slots
    return slots


def _slot_starts(optimizer: keras.optimizers.Optimizer) -> dict[str, float]:
    """The value that each kind of slot begins with, by its name: an accumulator's is not always 0."""
    probe = keras.Variable(np.zeros((2, 2), "float32"), name="probe")
    fresh = weights.fresh_optimizer(optimizer)
    fresh.build([probe])
    prefix = probe.path.replace("/", "_") + "_"
    named = {slot.path.rpartition("/")[2]: slot for slot in fresh.variables}
    return {
        name.removeprefix(prefix): float(weights.value_of(slot).flat[0])
        for name, slot in named.items()
        if name.startswith(prefix) and slot.shape
    }


def settable(named: Mapping[str, tuple], masks: Mapping[str, np.ndarray]) -> Arrays:
    """Masks that were checked, for a model whose masks can be set; `named` are its `named_masks`."""
    for *_, part, _ in named.values():
        check_masks_are_set(part)
    return masks_lib.checked(masks, {path: tuple(mask.shape) for path, (mask, *_) in named.items()})


def put(model, masks: Arrays, values: Mapping[str, np.ndarray]) -> MaskedModel | MaskedLayer:
    """Puts masks and values on a model, which is wrapped for it if it is not yet.

    Args:
      model: A built model, plain or wrapped.
      masks: For each kernel that is to be masked its mask, under the model's paths.
      values: The values of its variables; see `set_state`.

    Returns:
      The wrapped model.

    Raises:
      TicketError: If the model masks other kernels.
    """
    if not isinstance(model, Masked):
        holds = any(np.any(values[path][mask == 0]) for path, mask in masks.items())
        model = wrap(model, prunable=list(masks), held=holds)
    if set(masks) != {kernel.path for kernel in model.kernels}:
        raise TicketError(
            f"Expected a model that masks {', '.join(masks)}, but it masks {', '.join(k.path for k in model.kernels)}."
        )
    set_state(model, masks, values)
    return model


def matched(model, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Model path -> name of a value of that shape: by name if all names agree, else in order if all shapes agree.

    Raises:
      TicketError: If neither does.
    """
    check_keras_3(model)
    named = named_variables(model)
    if len(named) > len(shapes):
        named = {path: variable for path, variable in named.items() if not weights.is_random_state(variable)}
    pairs = [(path, path) for path in named] if set(named) == set(shapes) else list(zip(named, shapes))
    for path, name in pairs:
        if tuple(named[path].shape) != tuple(shapes[name]):
            raise TicketError(
                f"Expected a model whose {path!r} has the shape {shapes[name]} of the ticket's {name!r}, "
                f"but it has {tuple(named[path].shape)}."
            )
    if len(named) != len(shapes):
        raise TicketError(f"Expected a model with the ticket's {len(shapes)} variables, but it has {len(named)}.")
    return dict(pairs)


def named_masks(model) -> dict[str, tuple]:
    """Path -> (mask, held or None, wrapper, position in the wrapper) for every masked kernel in the model."""
    parts = masked_parts(model)
    if not parts:
        raise LotteryError(
            f"Expected a wrapped model, but {model.name!r} has no masks: call tf_lottery.wrap on it first."
        )
    if not all(part.built for part in parts):
        raise LotteryError(
            f"Expected a built model, but {model.name!r} has no weights yet: build it or call it on data first."
        )
    paths = {id(variable): path for path, variable in named_variables(model).items()}
    if gone := [kernel.path for part in parts for kernel in part.kernels if id(kernel.variable) not in paths]:
        raise LotteryError(
            f"Expected the kernels that were wrapped, but {gone[0]!r} is no variable of {model.name!r} any more: quantize or rebuild "
            "the model that tf_lottery.strip gives."
        )
    return {
        paths[id(kernel.variable)]: (part._masks[i], part._held[i] if part._held else None, part, i)
        for part in parts
        for i, kernel in enumerate(part.kernels)
    }
