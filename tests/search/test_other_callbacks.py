"""Other people's callbacks beside ours, in one fit."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_lottery as tfl
from tf_lottery.base.errors import LotteryError

CE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture
def masked(dense_net):
    masked = tfl.wrap(dense_net())
    masked.compile(keras.optimizers.Adam(0.01), CE)
    return masked


def search():
    return tfl.callbacks.LotteryTicket(tfl.LotterySchedule(levels=2, steps_per_level=12, prune_fraction=0.5))


def test_reduce_lr_on_plateau_begins_anew_with_each_level(masked, blobs):
    rates = []
    plateau = keras.callbacks.ReduceLROnPlateau(
        "loss", factor=0.5, patience=1, min_delta=10.0
    )  # nothing is ever better
    watch = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs=None: rates.append(round(float(masked.optimizer.learning_rate), 6))
    )
    found = search()
    masked.fit(*blobs, batch_size=100, epochs=12, verbose=0, callbacks=[found, plateau, watch])
    assert [t.level for t in found.tickets] == [0, 1, 2]
    assert rates[:4] == [0.01, 0.01, 0.005, 0.0025]  # four epochs a level
    # the level begins with the first batch of its first epoch
    assert rates[5:8] == rates[1:4] == rates[9:12]


def test_levels_end_with_the_averages_that_the_optimizer_keeps(dense_net, blobs):
    """As a `fit` of each level ends."""

    def averages():
        return keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9)

    def train(model, callbacks):
        model.compile(averages(), CE)
        return model.fit(*blobs, batch_size=100, epochs=4, verbose=0, shuffle=False, callbacks=callbacks)

    keras.utils.set_random_seed(1)
    one = tfl.wrap(dense_net())
    one.compile(averages(), CE)
    found = search()
    one.fit(*blobs, batch_size=100, epochs=12, verbose=0, shuffle=False, callbacks=[found])
    keras.utils.set_random_seed(1)
    for ticket, other in zip(found.tickets, tfl.find_ticket(dense_net(), train, levels=2, prune_fraction=0.5)):
        for value, expected in zip(ticket.final.values(), other.final.values(), strict=True):
            np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6)


def test_steps_of_a_training_before_the_model_was_wrapped_do_not_count(dense_net, blobs):
    """A trained model, compiled itself, is wrapped and pruned while it trains on: the schedule begins at step 0."""
    model, density = dense_net(), []
    model.compile("adam", CE)
    model.fit(*blobs, batch_size=30, epochs=2, verbose=0)  # 20 steps
    before = [np.asarray(v) for v in model.optimizer.variables]
    masked = tfl.wrap(model)
    masked.compile("adam", CE)
    pruning = tfl.callbacks.PruneBySchedule(lambda step: (int(step) == 4, 0.5))
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: density.append(tfl.masks.density(tfl.get_masks(masked)))
    )
    masked.fit(*blobs, batch_size=30, epochs=1, verbose=0, callbacks=[pruning, watch])
    assert density == [1, 1, 1, *[0.5] * 7]
    found = tfl.callbacks.LotteryTicket(tfl.LotterySchedule(levels=1, steps_per_level=10, prune_fraction=0.5))
    other = tfl.wrap(tfl.strip(masked))
    other.compile("adam", CE)
    other.fit(*blobs, batch_size=30, epochs=2, verbose=0, callbacks=[found])
    assert [ticket.metrics["steps"] for ticket in found.tickets] == [10, 10]
    for one, now in zip(before, model.optimizer.variables):
        np.testing.assert_array_equal(one, now)


@pytest.mark.parametrize(
    "callback, sentence",
    [
        (lambda: keras.callbacks.LearningRateScheduler(lambda epoch: 0.1), "no LearningRateScheduler beside"),
        (lambda: keras.callbacks.EarlyStopping("loss"), "EarlyStopping as early_stopping="),
    ],
)
def test_what_knows_nothing_of_levels_is_refused(masked, blobs, callback, sentence):
    before = masked.get_weights()
    with pytest.raises(LotteryError, match=sentence):
        masked.fit(*blobs, epochs=20, verbose=0, callbacks=[search(), callback()])
    for one, other in zip(before, masked.get_weights()):
        np.testing.assert_array_equal(one, other)


def gradual():
    return tfl.callbacks.PruneBySchedule(lambda step: (int(step) % 3 == 0, min(0.8, 0.1 * (int(step) // 3))))


def test_early_stopping_that_puts_denser_weights_back_is_told(masked, blobs):
    stopping = keras.callbacks.EarlyStopping(
        "loss", patience=20, min_delta=10.0, restore_best_weights=True
    )  # the first is best
    with pytest.warns(UserWarning, match="ends with 89.6 % of its weights, though the schedule had come to 20"):
        masked.fit(*blobs, batch_size=100, epochs=10, verbose=0, callbacks=[gradual(), stopping])


@pytest.mark.parametrize("first", [True, False])
def test_a_best_checkpoint_that_is_denser_is_told(masked, blobs, first, tmp_path):
    best = keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", "loss", mode="max", save_best_only=True)
    both = [gradual(), best] if first else [best, gradual()]
    with pytest.warns(UserWarning, match="the best model that ModelCheckpoint kept has 89.6 % of its weights"):
        masked.fit(*blobs, batch_size=100, epochs=10, verbose=0, callbacks=both)
    kept = keras.models.load_model(tmp_path / "best.keras")
    assert np.mean([mask.mean() for mask in tfl.get_masks(kept).values()]) > 0.5


def test_nothing_is_told_where_nothing_is_denser(masked, blobs, tmp_path, recwarn):
    stopping = keras.callbacks.EarlyStopping("loss", patience=20, restore_best_weights=True, start_from_epoch=9)
    best = keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", "density", mode="min", save_best_only=True)
    masked.fit(*blobs, batch_size=100, epochs=11, verbose=0, callbacks=[gradual(), stopping, best])
    assert not [warning for warning in recwarn if "of its weights" in str(warning.message)]


@pytest.mark.parametrize("ends", [True, False], ids=["as Keras", "as TF-MOT documents it"])
def test_a_loop_of_ones_own(dense_net, blobs, ends):
    masked = tfl.wrap(dense_net())
    masked.optimizer = optimizer = keras.optimizers.Adam(0.01)
    pruning, x, y = gradual(), *blobs
    pruning.set_model(masked)
    pruning.on_train_begin()
    for _ in range(2):
        for batch in range(15):
            pruning.on_train_batch_begin(batch=batch)
            with tf.GradientTape() as tape:
                loss = CE(y, masked(x, training=True))
            optimizer.apply(tape.gradient(loss, masked.trainable_variables), masked.trainable_variables)
            if ends:
                pruning.on_train_batch_end(batch=batch)
        pruning.on_epoch_end(batch=-1)
    assert all(abs(mask.mean() - 0.2) < 0.02 for mask in tfl.get_masks(masked).values())


def test_a_fit_that_fails_leaves_no_callbacks_behind(masked, blobs):
    def fail(batch, logs):
        raise RuntimeError

    stopping = keras.callbacks.EarlyStopping("loss")
    with pytest.raises(RuntimeError):
        masked.fit(*blobs, verbose=0, callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=fail), stopping])
    assert not masked.callbacks_in_fit
