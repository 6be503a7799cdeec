"""Masks that change in the middle of a training: compiled as at once, and as `set_masks` where nothing comes back."""

import keras
import numpy as np
import pytest

import tf_lottery as tfl
from tf_lottery.masking import state
from tf_lottery.masking.moves import Moves
from tf_lottery.masking.weights import value_of

OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "adagrad": keras.optimizers.Adagrad,
    "adafactor": keras.optimizers.Adafactor,
}


def trained(optimizer, seed=0, held=False):
    """A small net under half masks whose raw kernels and slots have been moved, and what trains it."""
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Dense(6, "relu", name="a"), keras.layers.Dense(3, name="b")]
    masked = tfl.wrap(keras.Sequential([keras.Input((4,)), *layers], name="net"), held=held)
    optimizer = OPTIMIZERS[optimizer](0.1)
    optimizer.build(masked.trainable_variables)
    rng = np.random.default_rng(seed)
    tfl.set_masks(masked, halves(masked, rng))
    for variable in [*masked.trainable_variables, *(slot for slot, *_ in state.slots_of(optimizer))]:
        variable.assign(rng.normal(size=variable.shape))
    return masked, optimizer


def halves(masked, rng):
    return {path: rng.integers(0, 2, mask.shape).astype(np.uint8) for path, mask in tfl.get_masks(masked).items()}


def everything(masked, optimizer):
    return [value_of(variable) for variable in [*masked.variables, *optimizer.variables]]


def equal(some, others):
    return all(
        np.array_equal(a, b) and np.array_equal(np.signbit(a), np.signbit(b)) for a, b in zip(some, others, strict=True)
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_compiled_moves_are_those_that_are_not(optimizer):
    ours, theirs = trained(optimizer), trained(optimizer)
    before = tfl.get_masks(ours[0])
    compiled, plain = (Moves(model, [adam], jit_compile=ours[0] is model) for model, adam in (ours, theirs))
    assert equal(everything(*ours), everything(*theirs))
    for seed in (1, 2):
        new = halves(ours[0], np.random.default_rng(seed))
        compiled(new)
        plain(new)
        assert equal(everything(*ours), everything(*theirs))
    assert any(np.any(new[path] > before[path]) for path in new)


def test_what_comes_back_begins_at_zero_and_what_stays_is_as_it_was():
    masked, adam = trained("adam")
    path, old = next(iter(tfl.get_masks(masked).items()))
    kernel, slot = masked.kernels[0].variable, state.slots_of(adam)[0][0]
    weights, momentum = value_of(kernel), value_of(slot)
    new = 1 - old
    new[0] = 1
    Moves(masked, [adam], jit_compile=True)({path: new})
    stays = (new & old) == 1
    assert np.array_equal(value_of(kernel), np.where(stays, weights, 0)) and stays.any()
    assert np.array_equal(value_of(slot), np.where(stays, momentum, 0)) and np.any(weights[(new == 1) & ~stays])


@pytest.mark.parametrize("held", [False, True])
def test_where_nothing_comes_back_it_is_set_masks(held):
    ours, theirs = trained("adagrad", held=held), trained("adagrad", held=held)
    for masked, _ in (ours, theirs) if held else ():
        values = {path: np.full(value.shape, 0.5) for path, value in state.get_values(masked).items()}
        state.set_state(masked, tfl.get_masks(masked), values)
    smaller = {
        path: mask * (np.arange(mask.size).reshape(mask.shape) % 3 > 0) for path, mask in tfl.get_masks(ours[0]).items()
    }
    Moves(ours[0], [ours[1]])(smaller)
    tfl.set_masks(theirs[0], smaller, optimizers=[theirs[1]])
    assert equal(everything(*ours), everything(*theirs))


def test_it_serves_the_model_and_optimizers_that_it_was_made_for():
    masked, adam = trained("adam")
    moves = Moves(masked, [adam])
    assert (
        moves.serves(masked, [adam]) and not moves.serves(masked, []) and not moves.serves(trained("adam")[0], [adam])
    )
    masked.compile("sgd", "mse")
    masked.optimizer.build(masked.trainable_variables)
    assert moves.serves(masked, [adam])  # this optimizer has no slots
    masked.compile("adam", "mse")
    masked.optimizer.build(masked.trainable_variables)
    assert not moves.serves(masked, [adam])


def test_masks_that_do_not_fit_change_nothing():
    masked, adam = trained("adam")
    before = everything(masked, adam)
    path = next(iter(tfl.get_masks(masked)))
    for wrong in ({path: np.ones((2, 2))}, {"nobody": np.ones((4, 6))}, {path: np.full((4, 6), 2)}):
        with pytest.raises(tfl.LotteryError):
            Moves(masked, [adam], jit_compile=True)(wrong)
    assert equal(before, everything(masked, adam))


def test_what_a_mask_brings_back_begins_at_zero_whatever_it_was_frozen_at():
    masked, _ = trained("adam", held=True)
    before = tfl.get_masks(masked)
    values = {path: np.full(value.shape, 0.5, "float32") for path, value in state.get_values(masked).items()}
    state.set_state(masked, before, values)
    tfl.set_masks(masked, {path: np.ones_like(mask) for path, mask in before.items()})
    for path, mask in before.items():
        assert np.array_equal(state.get_values(masked)[path], 0.5 * mask)
