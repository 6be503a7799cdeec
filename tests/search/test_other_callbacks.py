"""Other people's callbacks beside ours, in one fit."""

import keras
import numpy as np
import pytest

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
