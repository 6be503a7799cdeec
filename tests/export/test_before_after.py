"""`compare`: the model before and after, measured as `evaluate` measures, in one table."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_lottery as tfl
from tf_lottery.base.errors import DataError, LotteryError
from tf_lottery.export.before_after import with_files
from tf_lottery.export.remarks import no_faster
from tf_lottery.export.report import Report

L = keras.layers


def network():
    keras.utils.set_random_seed(0)
    x = inputs = {"b": keras.Input((16,), name="b"), "a": keras.Input((4,), name="a")}
    x = L.BatchNormalization()(L.Dense(24, "relu", name="body")(L.Concatenate()([inputs["b"], inputs["a"]])))
    return keras.Model(inputs, [L.Dense(4, name="kind")(x), L.Dense(1, name="size")(x)], name="net")


def classifier(units=4, activation=None):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((16,)), L.Dense(24, "relu", name="body"), L.Dense(units, activation)], name="net"
    )


def copy_of(model):
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


X = np.random.default_rng(0).normal(size=(70, 16)).astype("float32")
Y = np.argmax(X[:, :4], -1)
LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(scope="module")
def compared():
    dense = classifier()
    dense.compile("adam", LOGITS, metrics=["accuracy"])
    dense.fit(X, Y, epochs=20, verbose=0)
    pruned = tfl.prune(copy_of(dense), 0.2)
    found, contents = with_files(dense, pruned, (X, Y), variants=["float32", "sparse_float32", "int8", "sparse_int8"])
    return dense, pruned, found, contents


def test_metrics_are_those_of_evaluate(compared):
    dense, pruned, found, _ = compared
    assert found.dense.metrics == dense.evaluate(X, Y, verbose=0, return_dict=True)
    assert not pruned.compiled  # it was measured, and not touched
    pruned.compile("adam", LOGITS, metrics=["accuracy"])
    assert found.pruned.metrics == pruned.evaluate(X, Y, verbose=0, return_dict=True)
    assert found.pruned.weights == found.dense.weights == 16 * 24 + 24 + 24 * 4 + 4
    assert found.pruned.nonzero == sum(np.count_nonzero(v) for v in tfl.strip(pruned).get_weights())


def test_files_are_measured_side_by_side(compared):
    _, _, found, contents = compared
    assert list(found.pruned.files) == list(contents) == ["float32", "sparse_float32", "int8"]
    assert list(found.dense.files) == ["float32", "int8", "sparse_int8"][:2]
    assert "refuses to load" in found.not_written["sparse_int8"]
    for name, file in found.pruned.files.items():
        assert file.bytes == len(contents[name]) and file.latency_us > 0 and 0.5 < file.agreement <= 1
    assert found.pruned.files["float32"].accuracy == pytest.approx(found.pruned.metrics["accuracy"])
    assert found.pruned.files["float32"].agreement == 1
    assert found.pruned.files["sparse_float32"].bytes < found.dense.files["float32"].bytes


def test_the_table_is_text_and_html_and_numbers(compared):
    found = compared[2]
    text = str(found)
    assert "times fewer" in text and "sparse_float32 against float32, bytes" in text and "70 examples" in text
    assert max(map(len, text.splitlines())) <= 100
    assert found._repr_html_().startswith("<table>") and "int8, agrees with Keras" in found._repr_html_()
    numbers = json.loads(json.dumps(found.as_dict()))
    assert numbers["ratios"]["nonzero"] == found.dense.nonzero / found.pruned.nonzero
    assert numbers["pruned"]["files"]["int8"]["agreement"] == found.pruned.files["int8"].agreement


def test_several_inputs_and_outputs_are_measured_by_their_names():
    dense = network()
    losses = {"kind": LOGITS, "size": "mse"}
    dense.compile(
        "adam", losses, metrics={"kind": ["accuracy"], "size": ["mae"]}, loss_weights={"kind": 2.0, "size": 0.5}
    )
    inputs = {"b": X, "a": X[:, :4].copy()}
    targets = {"kind": Y, "size": X[:, :1].copy()}
    pruned = copy_of(dense)
    tfl.prune(pruned, 0.5)
    data = tf.data.Dataset.from_tensor_slices((inputs, targets)).batch(32)
    found = tfl.compare(dense, pruned, data, variants=["float32"])
    assert found.dense.metrics == dense.evaluate(data, verbose=0, return_dict=True)
    assert {"kind_accuracy", "size_mae"} <= set(found.pruned.metrics)
    assert found.pruned.metrics["loss"] != found.dense.metrics["loss"]
    assert found.names == {"input_0": "a", "input_1": "b", "output_0": "kind", "output_1": "size"}
    assert found.pruned.files["float32"].accuracy is None and "differs from Keras" in str(found)


def test_what_would_be_wrong_without_a_word_is_refused(tmp_path):
    dense = classifier()
    with pytest.raises(LotteryError, match="share their weights"):
        tfl.compare(dense, tfl.prune(dense, 0.5))
    other = copy_of(dense)
    with pytest.raises(LotteryError, match="Expected a compiled model"):
        tfl.compare(dense, other, (X, Y))
    with pytest.raises(LotteryError, match="variants and no data"):
        tfl.compare(dense, other, variants=["int8"])
    dense.compile("adam", LOGITS)
    with pytest.raises(DataError, match="repeats for ever"):
        tfl.compare(dense, other, tf.data.Dataset.from_tensors((X, Y)).repeat())
    with pytest.raises(DataError, match="Expected data to evaluate"):
        tfl.compare(dense, other, (X[:, :3], Y))
    dense.compile("adam", lambda y, p: keras.ops.mean(p, -1))
    with pytest.raises(LotteryError, match="register_keras_serializable"):
        tfl.compare(dense, other, (X, Y))


def test_a_file_is_a_model_too(tmp_path):
    dense = classifier(1, "sigmoid")
    dense.compile("adam", "binary_crossentropy", metrics=["accuracy", keras.metrics.AUC(name="auc")])
    dense.save(tmp_path / "mine.keras")
    pruned = tfl.prune(dense, 0.25)
    y = (X[:, 0] > 0).astype("float32")
    found = tfl.compare(tmp_path / "mine.keras", pruned, (X, y), variants=["float32"])
    assert found.dense.metrics["auc"] != found.pruned.metrics["auc"]
    assert found.pruned.files["float32"].agreement == 1
    assert found.pruned.files["float32"].accuracy == pytest.approx(found.pruned.metrics["accuracy"])


def test_numbers_are_not_taken_for_labels():
    dense = classifier()
    dense.compile("adam", "mse")
    found = tfl.compare(dense, tfl.prune(copy_of(dense), 0.5), (X, X[:, :4] > 0), variants=["float32"])
    assert found.pruned.files["float32"].accuracy is None


def test_a_file_that_is_no_faster_says_so_and_why():
    times = {"float32": 50.0, "sparse_float32": 49.0, "int8": 60.0, "dynamic_int8": 51.0, "float16": 70.0}
    said = no_faster(times)
    assert [line.partition(" is ")[0] for line in said] == ["sparse_float32", "int8"]
    assert "slower than float32 on this machine (60 against 50 us)" in said[1] and said[1].count(":") == 1
    assert no_faster({"float32": 50.0, "sparse_float32": 20.0, "int8": 20.0}) == []


def test_a_report_says_what_inputs_and_outputs_are_called(tmp_path):
    model = network()
    inputs = {"b": X, "a": X[:, :4].copy()}
    report = tfl.export.side_by_side(model, tmp_path / "out", inputs, formats=["tflite"], variants=["float32"])
    assert "input_0 is a, input_1 is b, output_0 is kind, output_1 is size" in " ".join(str(report).split())
    assert isinstance(report, Report) and report.to_json()["names"]["output_1"] == "size"
