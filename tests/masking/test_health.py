"""What can go wrong in a level without an error is found, and said of the right kernel."""

import keras
import numpy as np
import pytest

import tf_lottery as tfl
from tf_lottery.masking import health
from tf_lottery.masking.health import Connections

L = keras.layers


def reachable(masks):
    """Kernels of a chain of dense layers with a path through them, by plain matrix products of 0 and 1."""
    masks = list(masks)
    forward = [np.ones(masks[0].shape[0], bool)]
    for mask in masks:
        forward.append((forward[-1][:, None] & mask.astype(bool)).any(axis=0))
    backward = [np.ones(masks[-1].shape[1], bool)]
    for mask in reversed(masks):
        backward.append((mask.astype(bool) & backward[-1][None]).any(axis=1))
    backward.reverse()
    return [bool((f[:, None] & mask.astype(bool) & b[None]).any()) for f, mask, b in zip(forward, masks, backward[1:])]


def test_disconnected_kernels_of_a_dense_network_are_those_of_a_plain_search(rng):
    layers = [L.Dense(5, "tanh"), L.Dense(4, "relu"), L.Dense(5, "sigmoid"), L.Dense(3, "softmax")]
    masked = tfl.wrap(keras.Sequential([keras.Input((6,)), *layers]))
    connections, seen = Connections(masked), set()
    assert connections.lost(tfl.get_masks(masked)) == []
    for density in np.repeat([0.05, 0.1, 0.2], 15):
        masks = {path: (rng.random(m.shape) < density).astype(np.uint8) for path, m in tfl.get_masks(masked).items()}
        expected = [path for path, passed in zip(masks, reachable(masks.values())) if not passed]
        assert connections.lost(masks) == expected
        seen.add(len(expected))
    assert {0, 4} <= seen


def test_a_cut_branch_is_told_from_the_rest_of_a_residual_network():
    inputs = keras.Input((8, 8, 2))
    x = L.Conv2D(4, 3, padding="same", name="first")(inputs)
    y = L.ReLU()(L.BatchNormalization()(L.Conv2D(4, 3, padding="same", name="one")(x)))
    y = L.Conv2D(4, 3, padding="same", name="two")(y)
    x = L.GlobalAveragePooling2D()(L.Add()([x, y]))
    masked = tfl.wrap(keras.Model(inputs, L.Dense(3, name="output")(x)))
    masks, connections = tfl.get_masks(masked), Connections(masked)
    one = next(path for path in masks if "one" in path)
    two = next(path for path in masks if "two" in path)
    assert connections.lost(masks) == []
    masks[one][..., 0] = masks[one][..., 1] = 0
    masks[two][:, :, 2:] = 0
    assert connections.lost(masks) == [one, two]


def test_what_cannot_be_judged_is_not_called_disconnected():
    inputs = keras.Input((1, 4))  # a sequence of one: its recurrent kernel is never used
    recurrent = tfl.wrap(keras.Model(inputs, L.Dense(2)(L.LSTM(3)(inputs))))
    assert Connections(recurrent).lost(tfl.get_masks(recurrent)) == []
    inputs = keras.Input((4,))
    blind = tfl.wrap(keras.Model(inputs, L.Dense(2)(L.Lambda(lambda x: 0 * x)(L.Dense(3)(inputs)))))
    assert Connections(blind).lost(tfl.get_masks(blind)) == []


def test_a_model_is_as_it_was_after_a_look(dense_net):
    masked = tfl.wrap(dense_net())
    before = [value.copy() for value in masked.get_weights()]
    Connections(masked).lost(tfl.get_masks(masked))
    assert all(np.array_equal(a, b) for a, b in zip(before, masked.get_weights(), strict=True))


def test_dead_and_exploded_trainings_are_noted(dense_net, blobs):
    model, x = dense_net(), blobs[0]
    curve = [{"step": 10, "train_loss": 1.0}, {"step": 20, "train_loss": 100.0}]
    assert health.notes(model, [], x, curve, guessing=1.1) == []
    assert health.exploded(curve, guessing=0.9) == 20
    model.get_layer("hidden").bias.assign(np.full(16, -1e3, "float32"))  # relu lets nothing through
    found = health.notes(model, ["hidden/kernel"], x, curve, guessing=0.9)
    assert [note.partition(":")[0] for note in found] == ["disconnected", "dead", "exploded"]
    assert "hidden/kernel" in found[0] and "step 20" in found[2]


@pytest.mark.parametrize("criterion", ["random", "large_final"])
def test_a_search_to_the_last_weights_notes_the_level_that_disconnects(criterion, dense_net, blobs):
    trainer = tfl.Trainer(*blobs, steps=4, batch_size=20)
    tickets = list(tfl.find_ticket(dense_net(), trainer, levels=8, prune_fraction=0.5, criterion=criterion))
    masked = tfl.wrap(dense_net())
    lost = [Connections(masked).lost(ticket.masks) for ticket in tickets]
    expected = [[path for path, on in zip(t.masks, reachable(t.masks.values())) if not on] for t in tickets]
    assert lost == expected and lost[0] == []
