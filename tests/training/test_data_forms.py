"""What `Trainer` takes beside two arrays: plain Keras `fit` on the same data in the same order is the reference."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_lottery as tfl
from tf_lottery.base.errors import LotteryError
from tf_lottery.training import checkpoint, loop

L = keras.layers
CE = keras.losses.SparseCategoricalCrossentropy
N = 70  # three batches of 20, and one of 10
ULP = {"rtol": 2e-6, "atol": 2e-6}  # sums in another order: a step in its XLA, a set in larger pieces


def glorot(seed):
    return keras.initializers.GlorotNormal(seed=seed)


def classifier():
    hidden = L.Dense(8, use_bias=False, kernel_initializer=glorot(0))
    return keras.Sequential(
        [keras.Input((6,)), hidden, L.BatchNormalization(), L.ReLU(), L.Dense(3, kernel_initializer=glorot(1))]
    )


def two_heads():
    left, right = keras.Input((4,), name="left"), keras.Input((2,), name="right")
    x = L.Dense(8, "tanh", kernel_initializer=glorot(0))(L.Concatenate()([left, right]))
    heads = [
        L.Dense(3, kernel_initializer=glorot(1), name="kind")(x),
        L.Dense(1, kernel_initializer=glorot(2), name="size")(x),
    ]
    return keras.Model({"left": left, "right": right}, heads)


def tagger():
    inputs = keras.Input((None,), dtype="int32")
    x = L.Embedding(9, 4, mask_zero=True, embeddings_initializer=glorot(0))(inputs)
    return keras.Model(inputs, L.Dense(3, kernel_initializer=glorot(1))(x))


@pytest.fixture(scope="module")
def points():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(N, 6)).astype("float32"), rng.integers(0, 3, N).astype("int32")
    return x, y, rng.uniform(0.1, 3, N).astype("float32")


def batched(*arrays, size=20):
    return tf.data.Dataset.from_tensor_slices(arrays).batch(size)


def fitted(model, data, steps_an_epoch, epochs=2, **how):
    """The last epoch of `fit`, in the words of `Trainer`."""
    compiled = {key: how.pop(key) for key in ("loss", "loss_weights", "metrics", "weighted_metrics") if key in how}
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), jit_compile=False, **compiled)
    return model.fit(data, epochs=epochs, shuffle=False, verbose=0, **how).history


def trained(model, data, steps, **how):
    sgd = keras.optimizers.SGD(0.1, momentum=0.9)
    trainer = tfl.Trainer(data, steps=steps, optimizer=sgd, **{"jit_compile": False, **how})
    metrics = trainer(model)
    return trainer, metrics


def same_weights(a, b):
    for one, other in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, **ULP)


def test_a_data_set_is_trained_on_and_measured_as_fit_does(points):
    """Partial batches, sample weights, a weighted metric, validation and test as data sets."""
    data, held_out = batched(*points), batched(*(a[:35] for a in points), size=8)
    theirs, ours = classifier(), classifier()
    metrics = {"metrics": ["accuracy"], "weighted_metrics": ["accuracy"]}
    history = fitted(theirs, data, 4, loss=CE(from_logits=True), validation_data=held_out, **metrics)
    sets = {"validation": held_out, "test": held_out, "weighted_metrics": "accuracy", "metric": "accuracy"}
    trainer, found = trained(ours, data, 8, eval_every=4, **sets)
    same_weights(ours, theirs)
    assert found["final_train_loss"] == pytest.approx(history["loss"][-1], rel=1e-6)
    assert trainer.curve[-1]["validation_loss"] == pytest.approx(history["val_loss"][-1], rel=1e-6)
    assert found["final_validation_accuracy"] == pytest.approx(history["val_accuracy"][-1], rel=1e-6)
    weighted = history["val_weighted_accuracy"][-1]
    assert found["final_test_weighted_accuracy"] == pytest.approx(weighted, rel=1e-6) != found["final_test_accuracy"]
    assert set(trainer.kept.values()) == {"kept, in its order"}

    streamed = classifier()
    again, other = trained(streamed, data, 8, eval_every=4, device_bytes=900, **sets)
    assert set(again.kept.values()) == {"streamed"}
    for one, two in zip(streamed.get_weights(), ours.get_weights()):
        assert np.array_equal(one, two)
    assert other["early_stop_step"] == found["early_stop_step"]
    assert other["final_test_accuracy"] == found["final_test_accuracy"]

    x, y, w = points
    weights = {0: 1.0, 1: 4.0, 2: 0.5}
    fitted(theirs := classifier(), batched(x, y), 4, loss=CE(from_logits=True), class_weight=weights)
    trained(
        ours := classifier(), batched(x, y.astype("float32")), 8, jit_compile=False, class_weight=weights
    )  # labels may be floats
    same_weights(ours, theirs)
    by_arrays = [
        tfl.Trainer(x, y, steps=3, batch_size=N, sample_weight=w),
        tfl.Trainer(batched(*points, size=N), steps=3),
    ]
    for trainer, model in zip(by_arrays, models := [classifier(), classifier()]):
        trainer(model)
    same_weights(*models)
    assert trainer.probe[2](trainer.probe[1], models[0](trainer.probe[0])) > 0  # weighted as training is


class Pairs(keras.utils.PyDataset):
    def __init__(self, x, y, augment=False):
        super().__init__()
        self.x, self.y, self.augment, self.epochs = x, y, augment, 0

    def __len__(self):
        return 4

    def __getitem__(self, i):
        rows = slice(20 * i, 20 * i + 20)
        x, y = ({name: a[rows] for name, a in part.items()} for part in (self.x, self.y))
        return ({name: a + self.epochs for name, a in x.items()} if self.augment else x), y

    def on_epoch_end(self):
        self.epochs += 1


def test_dicts_several_outputs_losses_and_metrics_by_name(points):
    x, y, w = points
    inputs = {"left": x[:, :4], "right": x[:, 4:]}
    targets = {"kind": y, "size": x[:, :1] * 2}
    weights = {"kind": w, "size": np.ones(N, "float32")}
    losses = {"loss": {"kind": CE(from_logits=True), "size": "mse"}, "loss_weights": {"kind": 1.0, "size": 0.3}}
    data = batched(inputs, targets, weights)
    metrics = {"kind": ["accuracy"], "size": [keras.metrics.RootMeanSquaredError(name="rmse"), "mae"]}
    theirs, ours = two_heads(), two_heads()
    listed = batched(inputs, targets, (w, weights["size"]))  # fit takes weights in the order of the outputs only
    history = fitted(theirs, listed, 4, metrics=metrics, validation_data=listed, **losses)
    trainer, found = trained(ours, data, 8, metric=metrics, validation=data, test=data, eval_every=4, **losses)
    same_weights(ours, theirs)
    assert trainer.curve[-1]["validation_loss"] == pytest.approx(history["val_loss"][-1], rel=1e-6)
    assert found["final_train_loss"] == pytest.approx(history["loss"][-1], rel=1e-5)
    for name in ("kind_accuracy", "size_rmse", "size_mae"):
        assert found[f"final_validation_{name}"] == pytest.approx(history[f"val_{name}"][-1], rel=1e-5)
    assert found["early_stop_test_accuracy"] == found["early_stop_test_kind_accuracy"]

    tickets = list(tfl.find_ticket(two_heads(), trainer, levels=1, criterion="snip", one_shot=True))  # takes the probe
    assert tickets[1].density < 1 and "final_test_size_mae" in tickets[1].metrics

    pairs = Pairs(inputs, targets)
    trainer, _ = trained(two_heads(), pairs, 6, **losses)
    assert trainer.kept == {"train": "kept, its batches shuffled"}
    orders = [[int(rows[0]) for rows in trainer._feed.order._of_epoch(e)] for e in range(3)]
    assert len({tuple(order) for order in orders}) == 3 and all(sorted(order) == [0, 20, 40, 60] for order in orders)
    trainer, _ = trained(two_heads(), Pairs(inputs, targets, augment=True), 6, **losses)
    assert trainer.kept == {"train": "streamed"}
    only = trained(two_heads(), batched(inputs, {"kind": y}), 2, loss={"kind": CE(from_logits=True)}, test=data)[1]
    assert 0 < only["final_test_accuracy"] < 1
    lists = tfl.Trainer([x[:, :4], x[:, 4:]], [y, x[:, :1]], steps=2, loss=[CE(from_logits=True), "mse"])
    model = two_heads()
    lists(keras.Model(list(model.inputs), model.outputs))
    assert lists.curve[-1]["train_loss"] > 0


def test_sequences_of_any_length_are_tagged_as_fit_does():
    """Masked positions, batches of several lengths, float labels of whole numbers, the default metric."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(2, 7, 40)
    pairs = [(rng.integers(1, 9, n), rng.integers(0, 3, n).astype("float32")) for n in lengths]

    def make():
        yield from pairs

    signature = (tf.TensorSpec((None,), "int64"), tf.TensorSpec((None,), "float32"))
    data = tf.data.Dataset.from_generator(make, output_signature=signature).padded_batch(8)
    theirs, ours = tagger(), tagger()
    history = fitted(theirs, data, 5, loss=CE(from_logits=True), metrics=["accuracy"], validation_data=data)
    trainer, found = trained(ours, data, 10, eval_every=5, validation=data)
    assert set(trainer.kept.values()) == {"streamed"}
    same_weights(ours, theirs)
    assert trainer.curve[-1]["validation_loss"] == pytest.approx(history["val_loss"][-1], rel=1e-6)
    assert found["final_validation_accuracy"] == pytest.approx(history["val_accuracy"][-1], rel=1e-6)

    x = rng.integers(0, 9, (24, 5))  # of one length, with masked positions: a loss that depends on the batch
    y = (x % 3).astype("float32")
    theirs, ours = tagger(), tagger()
    history = fitted(theirs, batched(x, y, size=8), 3, loss=CE(from_logits=True), validation_data=batched(x, y, size=8))
    trainer, _ = trained(ours, batched(x, y, size=8), 6, eval_every=3, validation=batched(x, y, size=8))
    assert trainer.curve[-1]["validation_loss"] == pytest.approx(history["val_loss"][-1], rel=1e-6)


def test_what_shuffles_itself_is_shuffled_by_the_seed_and_what_augments_is_read_anew(points, tmp_path, monkeypatch):
    x, y, _ = points
    shuffled = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(N).batch(20)
    trainers = [tfl.Trainer(shuffled, steps=8, seed=3, jit_compile=False) for _ in range(2)]
    for trainer, model in zip(trainers, models := [classifier(), classifier()]):
        assert trainer.kept == {"train": "kept, shuffled"}
        trainer(model)
    assert sorted(map(bytes, trainers[0].sets["train"].examples[0])) == sorted(map(bytes, x))  # each example once
    assert trainers[0].fingerprint(classifier()) == trainers[1].fingerprint(classifier())
    for one, other in zip(*(model.get_weights() for model in models)):  # whatever order they came in
        assert np.array_equal(one, other)
    order = trainers[0]._feed.order
    assert [order.rows(step, step + 9).shape for step in (0, 3, 4)] == [(3, 20), (1, 10), (3, 20)]
    assert not np.array_equal(order.rows(0, 3), order.rows(4, 7))

    generator = tf.random.Generator.from_seed(0)  # it goes on from pass to pass, whatever the global seed

    def noise(x, y):
        return x + generator.uniform(tf.shape(x)), y

    data = batched(x, y).map(noise)
    trainer = tfl.Trainer(data, steps=12, seed=3, jit_compile=False)
    assert trainer.kept == {"train": "streamed"}
    losses = [trainer(classifier())["final_train_loss"] for _ in range(2)]
    assert losses[0] != losses[1]  # other draws
    with pytest.raises(LotteryError, match="data that a seed shuffles"):
        trainer(classifier(), seed=4)
    with pytest.raises(tfl.DataError, match="endless: dataset.take"):
        tfl.Trainer(x, y, steps=1, validation=data.repeat())
    assert tfl.Trainer(data.repeat(), steps=1).kept == {"train": "streamed"}

    # A stream that gives the same batches again is gone on with bit for bit; another starts anew and says so.
    monkeypatch.setattr(checkpoint, "MOST_SHARE", 1e9)

    class StopAt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if logs["step"] >= 7:
                raise InterruptedError

    def resumed(data):
        options = {
            "steps": 12,
            "eval_every": 3,
            "checkpoint": tmp_path / "c",
            "checkpoint_every": 0.0,
            "device_bytes": 900,
            "jit_compile": False,
        }
        with pytest.raises(InterruptedError):
            tfl.Trainer(data, **options)(classifier(), [StopAt()])
        trainer, model, heard = tfl.Trainer(data, **options), classifier(), []
        trainer(model, [keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: heard.append(batch + 1))])
        return trainer, model, heard

    whole, expected = (
        classifier(),
        tfl.Trainer(batched(x, y), steps=12, eval_every=3, jit_compile=False, device_bytes=900),
    )
    expected(whole)
    trainer, model, heard = resumed(batched(x, y))
    assert heard == [7, 8, 9, 10, 11, 12]  # that of the step it was stopped at was not written yet
    assert trainer.curve == expected.curve
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), whole.get_weights()))
    with pytest.warns(UserWarning, match="of other batches than its data set gives now"):
        assert resumed(data)[2][0] == 1


def test_layers_that_augment(rng):
    x, y = rng.random((40, 8, 8, 3)).astype("float32"), rng.integers(0, 2, 40)

    def net():
        shift = L.RandomTranslation(0.2, 0.2, seed=1)
        return keras.Sequential([keras.Input((8, 8, 3)), shift, L.Flatten(), L.Dense(2, kernel_initializer=glorot(0))])

    theirs, ours = net(), net()
    fitted(theirs, batched(x, y), 2, loss=CE(from_logits=True))
    trained(ours, batched(x, y), 4)
    same_weights(ours, theirs)
    assert not loop.xla_pays(ours)  # XLA does not know the layer


def test_what_is_refused_is_named_with_the_way_out(points):
    x, y, w = points
    data = batched(x, y)
    ragged = tf.data.Dataset.from_tensors((tf.ragged.constant([[1.0], [1.0, 2.0]]), [0, 1]))
    used_up = iter([(x[:20], y[:20])])
    signature = (tf.TensorSpec((None, 6)), tf.TensorSpec((None,), "int32"))
    once = tf.data.Dataset.from_generator(lambda: used_up, output_signature=signature)
    for arguments, options, message in (
        ((data, y), {}, "no y beside a data set"),
        ((data,), {"batch_size": 5}, "comes in batches: leave batch_size out"),
        ((data.unbatch(),), {}, r"in batches, as dataset.batch\(32\) makes them"),
        ((data.map(lambda a, b: a),), {}, r"batches \(inputs, targets\)"),
        ((ragged,), {}, "dense tensors of numbers.*ragged.to_tensor.*around model.fit"),
        ((once,), {}, "can be read again and again"),
        (((pair for pair in [(x, y)]),), {}, "tf.data.Dataset or PyDataset.*generator, NoneType.*around model.fit"),
        ((x, y), {"sample_weight": w, "class_weight": {0: 2.0}}, "either sample weights or class_weight"),
        ((x, np.stack([y, y], 1)), {"class_weight": {0: 2.0}}, "one label for each example with class_weight"),
        (
            (
                x,
                y,
            ),
            {"loss": "cross_entropi"},
            "Expected a Keras loss",
        ),
    ):
        with pytest.raises(LotteryError, match=message) as caught:
            tfl.Trainer(*arguments, steps=1, **options)
        assert "\n" not in str(caught.value)
    inputs, targets = {"left": x[:, :4], "right": x[:, 4:]}, {"kind": y, "size": x[:, :1]}
    losses = {"kind": CE(from_logits=True), "size": "mse"}
    counts = np.arange(N) % 5
    for model, arguments, options, message in (
        (two_heads(), (inputs, targets), {}, "Expected a loss for the outputs, as in loss={'kind'"),
        (two_heads(), (inputs, y), {"loss": losses}, "targets for the outputs 'kind', 'size' by name"),
        (two_heads(), (inputs, {"kind": y}), {"loss": losses}, "targets for output 'size', which has a loss"),
        (
            two_heads(),
            (inputs, {**targets, "weight": y}),
            {"loss": losses},
            "outputs 'kind', 'size', but received 'weight'",
        ),
        (two_heads(), (inputs, targets), {"loss": {**losses, "sise": "mse"}}, "by the names of the outputs.*'sise'"),
        (two_heads(), (inputs, targets), {"loss": losses, "metric": "mae"}, "metric by the names of the outputs"),
        (two_heads(), (inputs, targets), {"loss": "mse"}, "Expected a metric for one of the outputs"),
        (classifier(), (x, y), {"metric": keras.metrics.F1Score(average=None)}, "Expected"),
    ):
        with pytest.raises(LotteryError, match=message) as caught:
            tfl.Trainer(*arguments, steps=1, **options)(model)
        assert "\n" not in str(caught.value)
    one = keras.Sequential([keras.Input((6,)), L.Dense(1)])
    for labels in (
        counts,
        counts.astype("float32"),
        2 * (y > 0) - 1,
    ):  # counts, or classes -1 and 1: accuracy would lie
        with pytest.raises(LotteryError, match=r"\(0 and 1 for a single output\)"):
            tfl.Trainer(x, labels, steps=1, loss="mse")(one)


@pytest.mark.parametrize("frequency", [None, 3])
def test_averages_of_the_optimizer_are_the_weights_at_the_end(points, frequency):
    """As in `fit`, under the masks; and what is measured last is the network that results."""
    data, how = batched(*points[:2]), {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": frequency}
    models = [tfl.prune(classifier(), 0.5) for _ in range(2)]
    models[0].compile(keras.optimizers.SGD(0.1, **how), CE(from_logits=True), metrics=["accuracy"], jit_compile=False)
    models[0].fit(data, epochs=2, verbose=0)
    trainer = tfl.Trainer(data, steps=8, optimizer=keras.optimizers.SGD(0.1, **how), test=data, jit_compile=False)
    metrics = trainer(models[1])
    same_weights(*models)
    assert metrics["final_test_accuracy"] == pytest.approx(models[0].evaluate(data, verbose=0)[1])
    for kernel, mask in zip(models[1].kernels, tfl.get_masks(models[1]).values()):
        assert not np.asarray(kernel.variable)[mask == 0].any()
