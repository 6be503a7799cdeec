"""The analyses, on cases with a known answer."""

import keras
import numpy as np
import pytest

import tf_lottery as tfl
from tf_lottery.base.errors import LotteryError
from tf_lottery.checks import walk
from tf_lottery.masking import state
from tf_lottery.rules import masks as masks_lib

STEPS = 150


@pytest.fixture
def blobs():
    """Points in 6 dimensions whose class no straight line tells."""
    x = np.random.default_rng(1).normal(size=(300, 6)).astype("float32")
    return x, (x[:, 0] * x[:, 1] > 0).astype("int32") + (x[:, 2] > 0.5)


def trainer_of(blobs, **options):
    options = {"steps": STEPS, "batch_size": 30, "eval_every": 50, "jit_compile": False} | options
    return tfl.Trainer(*blobs, validation=blobs, test=blobs, optimizer=keras.optimizers.Adam(0.02), **options)


@pytest.fixture
def found(blobs, dense_net):
    """A search of one level, its trainer and its model."""
    model, trainer = tfl.wrap(dense_net()), trainer_of(blobs)
    return *tfl.find_ticket(model, trainer, levels=1, prune_fraction=0.5), trainer, model


def permuted(model, order):
    """A copy of a network whose hidden units stand in another order: the same function."""
    copy = keras.models.clone_model(model)
    kernel, bias, out, out_bias = model.get_weights()
    copy.set_weights([kernel[:, order], bias[order], out[order], out_bias])
    return copy


def test_a_permuted_copy_is_behind_a_barrier_and_without_one_when_it_is_permuted_back(found, blobs, dense_net):
    dense, _, trainer, _ = found
    model = tfl.strip(dense.apply(dense_net(), weights="final"))
    before, order = model.get_weights(), np.roll(np.arange(16), 5)
    copy = permuted(model, order)
    assert np.allclose(copy(blobs[0]), model(blobs[0]), atol=1e-5)
    line = tfl.analysis.barrier(model, copy, trainer)
    assert len(line.errors) == len(line.alphas) == 30 and line.alphas[0] == 0 and line.alphas[-1] == 1
    assert line.errors[0] == pytest.approx(line.errors[-1], abs=1e-6) and line.barrier > 0.1 and not line.stable
    back = permuted(copy, np.argsort(order))
    joined = tfl.analysis.barrier(model, back, trainer)
    assert joined.barrier == 0 and joined.stable and len(set(joined.errors)) == 1
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))  # it is as it was


def test_two_halves_of_one_training_are_joined(blobs, dense_net):
    model, trainer, weights = dense_net(), trainer_of(blobs), []

    class Halves(keras.callbacks.Callback):
        at_steps = (STEPS // 2, STEPS)

        def on_train_batch_end(self, batch, logs=None):
            if batch + 1 in self.at_steps:
                weights.append(self.model.get_weights())

    trainer(model, [Halves()])
    halves = [dense_net(), dense_net()]
    for half, values in zip(halves, weights):
        half.set_weights(values)
    line = tfl.analysis.barrier(*halves, trainer, points=7)
    assert not np.array_equal(weights[0][0], weights[1][0]) and max(line.errors) <= max(line.errors[::6]) + 0.01
    accuracies = []
    for alpha in line.alphas:  # by hand
        own = [(1 - alpha) * a + alpha * b for a, b in zip(*weights)]
        model.set_weights(own)
        accuracies.append(1 - trainer.test_accuracy(model))
    assert line.errors == pytest.approx(accuracies)


def test_the_line_between_tickets_goes_under_the_masks_of_both(found, blobs):
    dense, ticket, trainer, model = found
    optimizer = keras.optimizers.Adam()
    model.compile(optimizer, "mse")
    optimizer.build(model.trainable_variables)
    optimizer.variables[0].assign(7)
    tfl.set_masks(model, {"net/hidden/kernel": np.zeros((6, 16), np.uint8)})
    before = model.get_weights(), tfl.get_masks(model)
    line = tfl.analysis.barrier(dense, ticket, trainer, model=model, points=3)
    assert all(np.array_equal(a, b) for a, b in zip(before[0], model.get_weights()))
    assert all(np.array_equal(mask, tfl.get_masks(model)[path]) for path, mask in before[1].items())
    assert int(optimizer.variables[0]) == 7
    for one, error in zip((dense, ticket), line.errors[::2]):
        assert 1 - trainer.test_accuracy(one.apply(model, weights="final")) == error
    middle = {path: (value + ticket.final[path]) / 2 for path, value in dense.final.items()}
    state.set_state(model, dense.masks, middle)
    assert 1 - trainer.test_accuracy(model) == pytest.approx(line.errors[1])


def test_batch_statistics_are_estimated_anew(blobs):
    """As long training at rest would leave them; a layer that is called twice, and one that is frozen, as their kind is."""
    x = 3 * blobs[0][:256] + 2
    shared, frozen = keras.layers.BatchNormalization(momentum=0.9), keras.layers.BatchNormalization(trainable=False)
    inputs = keras.Input((6,))
    hidden = keras.layers.BatchNormalization(momentum=0.99)(keras.layers.Dense(6)(inputs))
    outputs = keras.layers.Dense(3)(keras.layers.Dropout(0.2, seed=0)(frozen(shared(shared(hidden)))))
    model = keras.Model(inputs, outputs)
    other = keras.models.clone_model(model)
    model.layers[1].bias.assign(np.arange(6))
    mean, seen = model.layers[2].moving_mean, []

    def accuracy(model):
        seen.append(
            [v.numpy() for v in (mean, model.layers[2].moving_variance, shared.moving_mean, frozen.moving_mean)]
        )
        return 1.0

    before = model.get_weights()
    with pytest.raises(LotteryError, match="Expected x, training inputs"):
        tfl.analysis.barrier(model, other, accuracy)
    tfl.analysis.barrier(model, other, accuracy, x=x, points=3)
    assert len(seen) == 3  # no more evaluations than points
    hidden = x @ model.layers[1].kernel.numpy() + model.layers[1].bias.numpy()
    halves = hidden[:128], hidden[128:]
    weigh = np.array([0.99, 1]) / 1.99  # the later batch counts a little more
    assert np.allclose(seen[0][0], sum(w * h.mean(0) for w, h in zip(weigh, halves)), rtol=1e-3)
    assert np.allclose(seen[0][1], sum(w * h.var(0) for w, h in zip(weigh, halves)), rtol=1e-3)
    assert np.all(np.abs(seen[0][2]) < 0.01)  # what comes into it has been normalised
    assert not seen[0][3].any() and seen[1][0] == pytest.approx((seen[0][0] + seen[2][0]) / 2, rel=1e-3)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))
    layers = walk._moved(model)
    assert [updates for _, updates in walk._Statistics(model, layers, x).layers] == [1, 2]


def test_instability_is_that_of_two_trainings_in_different_order(found, blobs, dense_net):
    _, ticket, trainer, model = found
    line = tfl.analysis.instability(ticket, trainer, model, seeds=(0, 5), points=3)
    again = trainer_of(blobs, seed=5)
    ends = []
    for one in (trainer, again):
        one(own := ticket.apply(dense_net()))
        ends.append(1 - one.test_accuracy(own))
    assert list(line.errors[::2]) == ends and line.stable


def test_a_seed_in_the_call_is_a_seed_of_the_trainer(blobs, dense_net):
    """With augmentation, and the own order again afterwards."""

    def noise(x, seed):
        import tensorflow as tf

        return x + tf.random.stateless_normal(tf.shape(x), seed)

    def weights_of(trainer, **how):
        trainer(model := dense_net(), **how)
        return np.concatenate([w.ravel() for w in model.get_weights()])

    one, other = (trainer_of(blobs, augment=noise, seed=seed, steps=20) for seed in (0, 5))
    own = weights_of(one)
    assert np.array_equal(weights_of(one, seed=5), weights_of(other)) and np.array_equal(weights_of(one), own)
    assert not np.array_equal(own, weights_of(other))
    with pytest.raises(LotteryError, match="Expected seed of 0 or more"):
        one(dense_net(), seed=-1)


def test_signs_of_a_pair_made_by_hand(dense_net):
    one, other = dense_net(), dense_net()
    kernel = one.layers[0].kernel.numpy()
    flipped = kernel.copy()
    flipped[0] *= -1
    other.layers[0].kernel.assign(flipped)
    found = tfl.analysis.sign_agreement(one, other)
    assert list(found.layers.values()) == [pytest.approx(5 / 6), 1.0]
    assert found.share == pytest.approx((5 * 16 + 48) / (6 * 16 + 48))
    masked = tfl.wrap(other)
    mask = np.ones((6, 16), np.uint8)
    mask[0] = 0
    tfl.set_masks(masked, {"net/hidden/kernel": mask})
    assert tfl.analysis.sign_agreement(one, masked).share == 1  # what one of them prunes does not count


def test_random_masks_overlap_by_chance(rng):
    shape = (200, 300)
    one, other = ({"a": (rng.random(shape) < density).astype(np.uint8)} for density in (0.2, 0.5))
    found = tfl.analysis.mask_overlap(one, other)["a"]
    assert found.jaccard == pytest.approx(found.jaccard_by_chance, abs=0.005)
    assert found.jaccard_by_chance == pytest.approx(0.1 / 0.6, abs=0.005)
    assert tfl.analysis.mask_overlap(one, one)["a"].jaccard == 1
    shuffled = masks_lib.shuffled(other, rng)
    jaccards = [tfl.analysis.mask_overlap(one, masks_lib.shuffled(other, rng))["a"].jaccard for _ in range(20)]
    assert np.mean(jaccards) == pytest.approx(tfl.analysis.mask_overlap(one, shuffled)["a"].jaccard_by_chance, abs=1e-3)


def test_a_ticket_on_other_data(found, blobs, dense_net):
    dense, ticket, _, _ = found
    x, y = blobs
    there = trainer_of((x, (y + 1) % 3))
    moved = tfl.analysis.transfer(ticket, there, dense_net(), dense)
    assert all(np.array_equal(moved.ticket.masks[path], mask) for path, mask in ticket.masks.items())
    assert all(np.array_equal(moved.ticket.initial[path], value) for path, value in ticket.initial.items())
    assert moved.random.density == ticket.density and moved.dense.density == 1
    own = there(ticket.apply(dense_net()))
    assert own["early_stop_test_accuracy"] == moved.ticket.metrics["early_stop_test_accuracy"]


def test_what_cannot_be_said_is_one_sentence(found, blobs, dense_net):
    dense, ticket, trainer, model = found
    accuracy = trainer.test_accuracy
    cases = {
        "Expected model=, a built model": lambda: tfl.analysis.barrier(dense, ticket, accuracy),
        "has the shape": lambda: tfl.analysis.barrier(dense_net(), dense_net(units=8), accuracy),
        "Expected a ticket of": lambda: tfl.analysis.barrier(dense, ticket, accuracy, model=model, points=1),
        "no trained weights": lambda: tfl.analysis.sign_agreement(tfl.Ticket(ticket.masks, ticket.initial)),
        "Expected accuracy to be a function": lambda: tfl.analysis.barrier(model, model, 0.5),
        "Expected accuracy=": lambda: tfl.analysis.instability(ticket, lambda m, c, seed=0: {}, model),
        "takes another order of the data": lambda: tfl.analysis.instability(ticket, lambda m, c: {}, model),
        "trained the same network to the bit": lambda: tfl.analysis.instability(
            ticket, lambda m, c, seed=0: {}, model, accuracy=accuracy
        ),
        "Expected the dense network that": lambda: tfl.analysis.transfer(dense, trainer, model, ticket),
        r"Expected labels in \[0, 3\)": lambda: tfl.analysis.transfer(
            ticket, trainer_of((blobs[0], blobs[1] + 7)), dense_net(), dense
        ),
    }
    cases["Expected at least 2 points"] = cases.pop("Expected a ticket of")
    for message, wrong in cases.items():
        with pytest.raises(LotteryError, match=message) as error:
            wrong()
        assert "\n" not in str(error.value)
    inside = keras.Sequential([keras.Input((6,)), tfl.MaskedLayer(keras.layers.Dense(3))])
    with pytest.raises(LotteryError, match="has masked layers inside"):
        tfl.analysis.barrier(inside, inside, accuracy)
