"""`PruneBySchedule` in a `Trainer`: what it does in `fit`, between two compiled stretches."""

import keras
import numpy as np
import pytest
from stopping import Stop, trained, trainer

import tf_lottery as tfl
from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import state
from tf_lottery.masking.weights import fresh_optimizer, value_of
from tf_lottery.search.schedules import tfmot
from tf_lottery.training import checkpoint

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
PruneBySchedule = tfl.callbacks.PruneBySchedule
CUBIC = tfmot.sparsity.keras.PolynomialDecay(0.0, 0.8, begin_step=0, end_step=40, frequency=4)


def by_fit(model, blobs, train, callback):
    """The training of a `Trainer`, by Keras: the same batches in the same order."""
    masked = tfl.wrap(model)
    masked.compile(fresh_optimizer(train.optimizer), LOSS)
    rows = train._feed.order.rows(0, train.steps).ravel()
    data = (array[rows] for array in blobs)
    masked.fit(*data, batch_size=train.batch_size, shuffle=False, verbose=0, callbacks=[callback])
    return masked


@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.Adam(0.01),
        keras.optimizers.Adagrad(0.05),
        keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=1e-2, global_clipnorm=1.0),
        keras.optimizers.Adam(0.01, gradient_accumulation_steps=3),
    ],
    ids=["adam", "adagrad", "sgd", "accumulated"],
)
@pytest.mark.parametrize("options", [{}, {"scope": "global"}], ids=["layer", "global"])
def test_the_weights_and_masks_are_those_of_fit(optimizer, options, blobs, dense_net):
    schedule = CUBIC
    if optimizer.gradient_accumulation_steps:
        schedule = tfmot.sparsity.keras.PolynomialDecay(0.0, 0.8, begin_step=0, end_step=16, frequency=4)
    train, ours = trainer(blobs, optimizer), tfl.wrap(dense_net())
    train(ours, [PruneBySchedule(schedule, **options)])
    theirs = by_fit(dense_net(), blobs, train, PruneBySchedule(schedule, **options))
    masks, expected = state.get_masks(ours), state.get_masks(theirs)
    assert tfl.masks.density(masks) == pytest.approx(0.2, abs=0.02)
    for path in masks:
        assert np.array_equal(masks[path], expected[path])
        assert not np.any(state.get_values(ours)[path][masks[path] == 0])
    for path, value in state.get_values(theirs).items():
        np.testing.assert_allclose(state.get_values(ours)[path], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("begin", [0, 10])
def test_the_trainers_slots_are_masked_and_those_of_kept_weights_kept(begin, blobs, dense_net):
    train, masked = trainer(blobs, steps=10), tfl.wrap(dense_net())
    train(masked, [PruneBySchedule(lambda step: (int(step) == begin, 0.5))])
    adam = train._loop.optimizer
    slots = {slot.path.rpartition("/")[2]: value_of(slot) for slot in adam.variables}
    for kernel, mask in zip(masked.kernels, state.get_masks(masked).values()):
        prefix = kernel.variable.path.replace("/", "_")
        for kind in ("momentum", "velocity"):
            slot = slots[f"{prefix}_{kind}"]
            assert not np.any(slot[mask == 0]) and np.any(slot[mask == 1])


def test_a_weight_decayed_pruned_weight_stays_zero_under_xla(blobs, dense_net):
    masked = tfl.wrap(dense_net())
    trainer(blobs, keras.optimizers.AdamW(0.01), jit_compile=True)(masked, [PruneBySchedule(CUBIC)])
    for path, mask in state.get_masks(masked).items():
        assert not np.any(state.get_values(masked)[path][mask == 0])


def test_nothing_is_traced_again(blobs, dense_net):
    traced = []

    def loss(y_true, y_pred):
        traced.append(1)
        return LOSS(y_true, y_pred)

    train, masked = trainer(blobs, eval_every=30, loss=loss), tfl.wrap(dense_net())
    train(masked, [])
    before = len(traced)
    train(masked, [PruneBySchedule(CUBIC)])
    train(masked, [PruneBySchedule(lambda step: (int(step) % 7 == 0, 0.9))])
    assert before and len(traced) == before
    assert tfl.masks.density(state.get_masks(masked)) == pytest.approx(0.1, abs=0.02)


def test_the_early_stop_is_the_sparse_networks(blobs, dense_net):
    """What is measured at the step of a pruning is the pruned network; an early stop before the last one does not count."""
    x, y = blobs
    sets = {"validation": (x[:60], (y[:60] + 1) % 3), "test": (x[60:120], y[60:120])}  # its loss rises before long
    assert trainer(blobs, **sets)(tfl.wrap(dense_net()))["early_stop_step"] < 35
    for last in (35, 40, 60):
        schedule = lambda step: (int(step) in (5, last), 0.3 if int(step) == 5 else 0.8)  # noqa: B023, E731
        masked, train = tfl.wrap(dense_net()), trainer(blobs, **sets)
        metrics = train(masked, [PruneBySchedule(schedule)])
        rows = [row for row in train.curve if row["step"] >= last]
        assert metrics["early_stop_step"] == min(rows, key=lambda row: row["validation_loss"])["step"]
        assert metrics["final_test_accuracy"] == pytest.approx(train.test_accuracy(masked))


@pytest.mark.parametrize("stopped", [4, 10, 22, 40, 51])
def test_goes_on_bit_for_bit_in_the_middle_of_pruning(stopped, blobs, dense_net, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "MOST_SHARE", 1e9)
    options = {"checkpoint": tmp_path / "training.checkpoint", "checkpoint_every": 0.0}
    schedule = tfmot.sparsity.keras.PolynomialDecay(0.2, 0.8, begin_step=0, end_step=42, frequency=4)

    def run(stop=None, **options):
        return trained(trainer(blobs, **options), dense_net(), PruneBySchedule(schedule, criterion="movement"), stop)

    expected, _ = run()
    with pytest.raises(Stop):
        run(stopped, **options)
    found, first = run(**options)
    assert found == expected
    assert first > min(stopped, 5) - 4 and (stopped < 8 or first > 4)  # it did go on


def test_a_checkpoint_of_another_schedule_is_left_unread(blobs, dense_net, tmp_path, monkeypatch):
    """Two schedules that prune at the same steps, to other densities."""
    monkeypatch.setattr(checkpoint, "MOST_SHARE", 1e9)
    options = {"checkpoint": tmp_path / "training.checkpoint", "checkpoint_every": 0.0}

    def halves(step):
        return int(step) in (10, 40), 0.5

    def tenths(step):
        return int(step) in (10, 40), 0.9

    with pytest.raises(Stop):
        trained(trainer(blobs, **options), dense_net(), PruneBySchedule(tenths), stop=30)
    masked = tfl.wrap(dense_net())
    trainer(blobs, **options)(masked, [PruneBySchedule(halves)])
    assert tfl.masks.density(state.get_masks(masked)) == pytest.approx(0.5, abs=0.02)


def test_a_layer_wrapped_alone_and_a_schedule_for_each_kernel(blobs):
    inner = keras.layers.Dense(8, "relu")
    model = keras.Sequential([keras.Input((6,)), tfl.wrap(inner), keras.layers.Dense(3)])
    trainer(blobs)(model, [PruneBySchedule({"Dense": CUBIC})])
    (mask,) = state.get_masks(model).values()
    assert float(mask.mean()) == pytest.approx(0.2, abs=0.02)
    assert not np.any(value_of(inner.kernel)[mask == 0])


def test_what_cannot_be_is_refused(blobs, dense_net):
    with pytest.raises(LotteryError, match="prunes between steps 0 and 60"):
        trainer(blobs)(tfl.wrap(dense_net()), [PruneBySchedule(lambda step: (int(step) == 61, 0.5))])
    with pytest.raises(LotteryError, match="Expected a wrapped model"):
        trainer(blobs)(dense_net(), [PruneBySchedule(CUBIC)])
