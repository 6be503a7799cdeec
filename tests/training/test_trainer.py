"""`Trainer`: Keras's own training is the reference; measurements are exact; results repeat bit for bit."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_lottery as tfl
from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import state
from tf_lottery.training.orders import BatchOrder

L = keras.layers
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def sets(blobs):
    x, y = blobs
    return {"x": x[:200], "y": y[:200], "validation": (x[200:250], y[200:250]), "test": (x[250:], y[250:])}


def batches(size, batch_size, steps, seed):
    order = BatchOrder(size, batch_size, seed)
    return [order.rows(step, step + 1)[0] for step in range(steps)]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
@pytest.mark.parametrize("masked", [False, True])
def test_follows_keras_step_by_step(optimizer, masked, blobs, dense_net):
    x, y = blobs
    ours, theirs = dense_net(), dense_net()
    if masked:
        ours, theirs = tfl.wrap(ours), tfl.wrap(theirs)
        masks = {path: np.random.default_rng(0).integers(0, 2, m.shape) for path, m in tfl.get_masks(ours).items()}
        for model in (ours, theirs):
            tfl.set_masks(model, masks)
    tfl.Trainer(x, y, steps=25, batch_size=50, eval_every=10, optimizer=optimizer, seed=3)(ours)
    theirs.compile(optimizer, LOSS)
    for rows in batches(len(y), 50, 25, seed=3):
        theirs.train_on_batch(x[rows], y[rows])
    for a, b in zip(state.get_values(ours).values(), state.get_values(theirs).values()):
        assert np.allclose(a, b, atol=1e-5)
    if masked:
        for kernel in ours.kernels:
            assert not np.asarray(kernel.variable)[masks[kernel.path] == 0].any()


@pytest.mark.parametrize(
    "optimizer",
    [keras.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=0.1), "lion"]
    + ([keras.optimizers.Muon(0.01)] if keras.__version__ >= "3.15" else []),  # that of Keras 3.10 did not run
)
def test_optimizers_that_look_at_the_whole_kernel_move_no_pruned_weight(optimizer, blobs, dense_net):
    model = tfl.wrap(dense_net())
    tfl.set_masks(model, {path: np.indices(m.shape).sum(0) % 2 for path, m in tfl.get_masks(model).items()})
    tfl.Trainer(*blobs, steps=20, eval_every=20, optimizer=optimizer)(model)
    for kernel, mask in zip(model.kernels, tfl.get_masks(model).values()):
        assert not np.asarray(kernel.variable)[mask == 0].any()


def test_held_weights_do_not_decay(blobs, dense_net):
    model = tfl.wrap(dense_net(), held=True)
    masks = {path: np.indices(m.shape).sum(0) % 2 for path, m in tfl.get_masks(model).items()}
    values = state.get_values(model)
    state.set_state(model, masks, values)
    tfl.Trainer(*blobs, steps=20, optimizer=keras.optimizers.AdamW(0.01, weight_decay=0.5))(model)
    for kernel in model.kernels:
        after, pruned = np.asarray(kernel.variable), masks[kernel.path] == 0
        assert (
            np.array_equal(after[pruned], values[kernel.path][pruned]) and (after != values[kernel.path])[~pruned].any()
        )


def test_statistics_dropout_regularisers_and_added_losses_are_trained_with(blobs):
    inputs = keras.Input((6,))
    x = L.BatchNormalization()(L.Dense(8, kernel_regularizer=keras.regularizers.L2(10.0))(inputs))
    model = keras.Model(inputs, L.Dense(3)(L.Dropout(0.5, seed=0)(L.ActivityRegularization(l2=0.1)(x))))
    before = state.get_values(tfl.wrap(model))
    tfl.Trainer(*blobs, steps=50, optimizer="sgd")(model)
    after = state.get_values(model)
    assert all((before[path] != after[path]).any() for path in before)
    first = next(path for path in after if path.endswith("dense/kernel") or "kernel" in path)
    assert np.abs(after[first]).sum() < 0.1 * np.abs(before[first]).sum()  # the regulariser pulled


def test_measurements_are_those_of_keras(blobs, dense_net):
    data, model = sets(blobs), dense_net()
    trainer = tfl.Trainer(**data, steps=40, batch_size=20, eval_every=10, test_every=20)
    metrics = trainer(model)
    assert [row["step"] for row in trainer.curve] == [10, 20, 30, 40]
    measured = [row["step"] for row in trainer.curve if row["test_accuracy"] is not None]
    assert set(measured) == {20, 40, metrics["early_stop_step"]}
    model.compile("sgd", LOSS, metrics=["accuracy"])
    loss, accuracy = model.evaluate(*data["validation"], verbose=0)
    assert trainer.curve[-1]["validation_loss"] == pytest.approx(loss, rel=1e-5)
    assert metrics["final_validation_accuracy"] == pytest.approx(accuracy)
    assert metrics["final_test_accuracy"] == pytest.approx(model.evaluate(*data["test"], verbose=0)[1])
    best = min(trainer.curve, key=lambda row: row["validation_loss"])
    assert metrics["early_stop_step"] == best["step"]


def test_early_stop_accuracy_is_exact_however_rarely_the_test_set_is_measured(blobs, dense_net):
    data = sets(blobs)
    data["y"] = np.random.default_rng(0).integers(0, 3, 200).astype("int32")  # labels of chance: early stop is early
    options = {**data, "steps": 60, "batch_size": 20, "eval_every": 5, "optimizer": keras.optimizers.Adam(0.05)}
    rarely, often = tfl.Trainer(**options, test_every=60), tfl.Trainer(**options, test_every=5)
    models = dense_net(), dense_net()
    a, b = rarely(models[0]), often(models[1])
    assert a["early_stop_step"] == b["early_stop_step"] < 60
    assert a["early_stop_test_accuracy"] == b["early_stop_test_accuracy"]
    assert a["final_test_accuracy"] == b["final_test_accuracy"]
    for x, y in zip(models[0].get_weights(), models[1].get_weights()):
        assert np.array_equal(x, y)  # measuring the early stop left the final weights alone


@pytest.mark.parametrize("jit", [True, False])
def test_repeats_bit_for_bit_and_starts_anew_at_each_call(jit, blobs, dense_net):
    trainer = tfl.Trainer(**sets(blobs), steps=30, batch_size=20, eval_every=7, seed=1, jit_compile=jit)
    results = []
    model = dense_net()
    start = model.get_weights()
    for _ in range(2):  # the same trainer and model: its optimizer, its data order start anew
        model.set_weights(start)
        metrics = trainer(model)
        results.append((model.get_weights(), {k: v for k, v in metrics.items() if k != "seconds"}))
    other = dense_net()
    again = tfl.Trainer(**sets(blobs), steps=30, batch_size=20, eval_every=7, seed=1, jit_compile=jit)
    metrics = again(other)
    results.append((other.get_weights(), {k: v for k, v in metrics.items() if k != "seconds"}))
    for weights, metrics in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(weights, results[0][0]))
        assert metrics == results[0][1]


@pytest.mark.parametrize("limit", [0, 3_000])
def test_data_too_large_for_the_device_give_the_same_results(limit, blobs, dense_net, tmp_path):
    np.save(tmp_path / "x.npy", blobs[0])
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    options = {"steps": 33, "batch_size": 20, "eval_every": 8, "validation": blobs, "test": blobs}
    models = dense_net(), dense_net()
    resident = tfl.Trainer(*blobs, **options)
    streamed = tfl.Trainer(mapped, blobs[1], **options, device_bytes=limit)
    metrics = resident(models[0]), streamed(models[1])
    for a, b in zip(models[0].get_weights(), models[1].get_weights()):
        assert np.allclose(a, b, atol=1e-6) and (limit == 0 or np.array_equal(a, b))
    assert metrics[0]["early_stop_step"] == metrics[1]["early_stop_step"]


def test_every_epoch_sees_every_example_once_in_a_new_order():
    order = BatchOrder(103, 10, seed=0)
    epochs = [order.rows(10 * e, 10 * e + 10) for e in range(2)]
    for rows in epochs:
        assert rows.shape == (10, 10) and len(np.unique(rows)) == 100  # the last incomplete batch is dropped
    assert not np.array_equal(*epochs)
    assert np.array_equal(order.rows(7, 13), np.concatenate([*epochs])[7:13])


def test_convolutions_train_without_xla_on_a_cpu(rng):
    x, y = rng.normal(size=(64, 8, 8, 1)).astype("float32"), rng.integers(0, 2, 64)
    model = keras.Sequential([keras.Input((8, 8, 1)), L.Conv2D(4, 3), L.Flatten(), L.Dense(2)])
    trainer = tfl.Trainer(x, y, steps=40, batch_size=32, optimizer=keras.optimizers.Adam(0.05))
    assert trainer(tfl.wrap(model))["final_train_loss"] < 0.6
    if not tf.config.list_physical_devices("GPU"):
        assert not trainer._loop.jit


def test_other_losses_and_metrics(rng):
    x = rng.normal(size=(100, 3)).astype("float32")
    y = x @ np.array([[1.0], [2.0], [3.0]], "float32")
    model = keras.Sequential([keras.Input((3,)), L.Dense(1)])
    metric = keras.metrics.mean_absolute_error
    metrics = tfl.Trainer(
        x, y, validation=(x, y), test=(x, y), loss="mse", metric=metric, steps=300, optimizer=keras.optimizers.Adam(0.1)
    )(model)
    assert metrics["final_test_accuracy"] < 0.1  # here the mean absolute error


@pytest.mark.parametrize("from_logits", [True, False])
def test_accuracy_of_a_single_output_is_cut_where_the_loss_says(from_logits, rng):
    x = rng.normal(size=(400, 3)).astype("float32")
    y = (x.sum(1) > 0).astype("int32")
    model = keras.Sequential([keras.Input((3,)), L.Dense(1, None if from_logits else "sigmoid")])
    loss = keras.losses.BinaryCrossentropy(from_logits=from_logits)
    metrics = tfl.Trainer(x, y[:, None], test=(x, y[:, None]), loss=loss, steps=30)(model)
    right = (np.asarray(model(x))[:, 0] > (0 if from_logits else 0.5)) == y
    assert metrics["final_test_accuracy"] == pytest.approx(right.mean())


def test_one_hot_labels(blobs, dense_net):
    x, y = blobs
    options = {"steps": 20, "optimizer": keras.optimizers.Adam(0.05)}
    hot = np.eye(3, dtype="float32")[y]
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    a = tfl.Trainer(x, hot, test=(x, hot), loss=loss, **options)(dense_net())
    b = tfl.Trainer(x, y, test=(x, y), **options)(dense_net())
    assert a["final_test_accuracy"] == b["final_test_accuracy"] > 0.7


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("head", [L.Dense(3, "softmax"), L.Softmax()])
@pytest.mark.filterwarnings("error:.*from_logits")
def test_the_default_loss_is_that_of_a_softmax_where_there_is_one(policy, head, blobs):
    results = []
    for loss in (None, keras.losses.SparseCategoricalCrossentropy()):
        layer = {**head.get_config(), "dtype": policy, "name": "head"}
        body = [keras.Input((6,)), L.Dense(3, kernel_initializer="ones", dtype=policy)]
        model = keras.Sequential([*body, type(head).from_config(layer)])
        model.set_weights([np.random.default_rng(0).normal(size=w.shape) for w in model.get_weights()])
        results.append(tfl.Trainer(*blobs, steps=30, test=blobs, loss=loss)(model))
    given = {key: value for key, value in results[1].items() if key != "seconds"}
    assert given.items() <= results[0].items()


def test_the_default_loss_is_that_of_the_model_at_hand(blobs, dense_net):
    trainer = tfl.Trainer(*blobs, steps=2)
    for model, from_logits in (
        (dense_net(), True),
        (keras.Sequential([dense_net(), L.Softmax()]), False),
        (dense_net(), True),
    ):
        model.build((None, 6))
        trainer(model)
        assert trainer.loss.from_logits == from_logits


def test_callbacks_hear_of_stretches_and_may_ask_for_steps(blobs, dense_net):
    class Listener(keras.callbacks.Callback):
        at_steps = (3, 17)
        heard, logged = (), ()

        def on_train_batch_end(self, batch, logs=None):
            assert logs["step"] == batch + 1 and self.model is model
            self.heard += (logs["step"],)
            self.logged += ("validation_loss" in logs,)

    model, listener = dense_net(), Listener()
    tfl.Trainer(**sets(blobs), steps=25, eval_every=10)(model, [listener])
    assert listener.heard == (3, 10, 17, 20, 25) and listener.logged == (False, True, False, True, True)


def test_augmentation_differs_by_step_and_repeats(rng):
    x = rng.random((40, 8, 8, 3)).astype("float32")
    flips = [np.asarray(tfl.data.flip_and_crop(x, tf.constant([0, step]))) for step in (1, 1, 2)]
    assert np.array_equal(flips[0], flips[1]) and not np.array_equal(flips[0], flips[2])
    assert flips[0].shape == x.shape
    padded = np.pad(x, [(0, 0), (4, 4), (4, 4), (0, 0)])
    for image, got in zip(padded, flips[0]):
        windows = [image[a : a + 8, b : b + 8] for a in range(9) for b in range(9)]
        windows += [image[:, ::-1][a : a + 8, b : b + 8] for a in range(9) for b in range(9)]
        assert any(np.array_equal(got, window) for window in windows)
    losses = []
    for augment in (None, tfl.data.flip_and_crop):
        model = keras.Sequential([keras.Input((8, 8, 3)), L.Flatten(), L.Dense(2, kernel_initializer="ones")])
        trainer = tfl.Trainer(x, np.arange(40) % 2, steps=3, batch_size=20, augment=augment, optimizer="sgd")
        losses.append(trainer(model)["final_train_loss"])
    assert losses[0] != losses[1]


def test_a_loss_that_is_not_finite_stops_and_says_where(blobs, dense_net):
    x = blobs[0].copy()
    step = next(i for i, rows in enumerate(batches(300, 50, 30, seed=0), start=1) if 0 in rows)
    x[0, 0] = np.nan
    trainer = tfl.Trainer(x, blobs[1], steps=30, batch_size=50, eval_every=2, seed=0)
    with pytest.raises(tfl.NonFiniteLossError, match=f"step {step}:") as caught:
        trainer(dense_net())
    assert caught.value.step == step and [row["step"] for row in trainer.curve] == list(range(2, step, 2))


def test_a_measurement_that_is_no_number_is_no_early_stop(blobs, dense_net, monkeypatch):
    trainer = tfl.Trainer(*blobs, steps=20, eval_every=5, validation=blobs)
    losses = iter([float("nan"), 0.5, float("nan"), 0.7])
    monkeypatch.setattr(trainer, "_evaluate", lambda *_: {"loss": next(losses), "accuracy": 0.5})
    assert trainer(dense_net())["early_stop_step"] == 10


def test_mixed_float16_is_loss_scaled_and_trains(blobs):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = keras.Sequential([keras.Input((6,)), L.Dense(16, "relu"), L.Dense(3, dtype="float32")])
    finally:
        keras.config.set_dtype_policy("float32")
    masked = tfl.wrap(model)
    tfl.set_masks(masked, {path: np.indices(m.shape).sum(0) % 2 for path, m in tfl.get_masks(masked).items()})
    trainer = tfl.Trainer(*blobs, steps=100, optimizer=keras.optimizers.Adam(0.02), validation=blobs)
    assert trainer(masked)["final_validation_accuracy"] > 0.8
    assert isinstance(trainer._loop.optimizer, keras.optimizers.LossScaleOptimizer)
    for kernel, mask in zip(masked.kernels, tfl.get_masks(masked).values()):
        assert kernel.variable.dtype == "float32" and not np.asarray(kernel.variable)[mask == 0].any()


def test_bad_input_is_one_sentence(blobs, dense_net):
    x, y = blobs
    for options, message in (
        ({"steps": 0}, "steps of at least 1"),
        ({"steps": 1, "batch_size": 0}, "batch_size of at least 1"),
        ({"steps": 1, "eval_every": -1}, "eval_every of at least 1"),
        ({"steps": 1, "batch_size": 1000}, "at least batch_size=1000"),
        ({"steps": 1, "validation": (x, y[:3])}, "as many validation inputs as targets"),
    ):
        with pytest.raises(LotteryError, match=message):
            tfl.Trainer(x, y, **options)
    with pytest.raises(tfl.DataError, match=r"shape \(6,\) for model 'net', but the data have \(5,\)"):
        tfl.Trainer(x[:, :5], y, steps=1)(dense_net())
    with pytest.raises(tfl.DataError, match=r"labels in \[0, 3\) for model 'net', but the train data have 1 to 3"):
        tfl.Trainer(x, y + 1, steps=1)(dense_net())
    dataset = tf.data.Dataset.from_tensor_slices((x, y))
    for arguments, message in (
        ((dataset, y), "no y beside a data set"),
        ((x, None), "train data as arrays of numbers.*NoneType; .*around model.fit"),
        (([x, x[:5]], y), "as many train inputs as targets.*a list of arrays is several inputs"),
        ((x, y.astype(str)), "arrays of numbers"),
        ((x, x[:, :1]), "Expected a metric for targets that are not labels"),
    ):
        with pytest.raises(LotteryError, match=message):
            tfl.Trainer(*arguments, steps=1)
    with pytest.raises(LotteryError, match=r"whole numbers from 0 on .* of type float32"):
        tfl.Trainer(x, y + 0.5, steps=1)
    hot, softmax = np.eye(3, dtype="float32")[y], keras.Sequential([dense_net(), L.Softmax()])
    for model, loss, message in (
        (dense_net(), None, r"one-hot targets loss=keras.losses.CategoricalCrossentropy\(from_logits=True\)"),
        (softmax, None, "one-hot targets loss='categorical_crossentropy', but the train targets"),
        (softmax, "sparse_categorical_crossentropy", "one-hot targets loss='categorical_crossentropy'"),
    ):
        model.build((None, 6))
        with pytest.raises(tfl.DataError, match=message):
            tfl.Trainer(x, hot, steps=1, loss=loss)(model)
    with pytest.raises(LotteryError, match="Expected a loss for a model with a single output"):
        tfl.Trainer(x, y, steps=1)(keras.Sequential([keras.Input((6,)), L.Dense(1)]))
    for options, error, message in (
        ({"validation": (x[:, :3], y)}, tfl.DataError, "Expected validation data that fit model 'net'"),
        ({"test": (x, y + 5)}, tfl.DataError, "the test data have 5 to 7"),
        ({"augment": lambda images: images}, tfl.DataError, "Expected train data that fit"),
        ({"metric": lambda a, b: tf.reduce_mean(b)}, LotteryError, "one value per example"),
    ):
        with pytest.raises(error, match=message) as caught:
            tfl.Trainer(x, y, steps=1, **options)(dense_net())
        assert "\n" not in str(caught.value)
    for metric in ("maee", 3):
        with pytest.raises(LotteryError, match="metric to be a function"):
            tfl.Trainer(x, y, steps=1, metric=metric)(dense_net())
    with pytest.raises(LotteryError, match="no weights yet"):
        tfl.Trainer(x, y, steps=1)(keras.Sequential([L.Dense(3)]))


def test_warm_up_then_drop_round_trips_and_checks():
    schedule = tfl.WarmUpThenDrop(0.5, warmup=4, drops=(10, 20))
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    steps = [0, 1, 4, 9, 10, 19, 20, 100]
    rates = [float(again(step)) for step in steps]
    assert rates == pytest.approx([0, 0.125, 0.5, 0.5, 0.05, 0.05, 0.005, 0.005])
    for bad in ({"peak": 0}, {"warmup": -1}, {"factor": 2}, {"drops": (20, 10)}):
        with pytest.raises(LotteryError, match="rising drops"):
            tfl.WarmUpThenDrop(**{"peak": 0.1, **bad})


def test_schedules_start_anew_at_each_call(blobs, dense_net):
    rate = tfl.WarmUpThenDrop(0.1, warmup=50)
    trainer, model = tfl.Trainer(*blobs, steps=5, optimizer=keras.optimizers.SGD(rate)), dense_net()
    start = model.get_weights()
    moved = []
    for _ in range(2):
        model.set_weights(start)
        trainer(model)
        moved.append(model.get_weights())
    assert all(np.array_equal(a, b) for a, b in zip(*moved))
