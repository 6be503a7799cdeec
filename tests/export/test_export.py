"""Out of the door: every format loads in a fresh process without tf_lottery, gives the same outputs, and keeps its zeros."""

import json
import subprocess
import sys

import forked
import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import tf_lottery as tfl
from tf_lottery import export
from tf_lottery.base.errors import DataError, ExportError
from tf_lottery.base.files import whole_file, whole_folder
from tf_lottery.bin import main
from tf_lottery.export.conversion import apart
from tf_lottery.export.kernels import sparse_kernels
from tf_lottery.export.litert import Loaded, share_of_zeros
from tf_lottery.export.remarks import guessing, lost
from tf_lottery.export.variants import Converter
from tf_lottery.masking.state import get_values

L = keras.layers
FRESH = """
import importlib.abc, os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tf_lottery":
            raise ModuleNotFoundError("No module named 'tf_lottery'")
sys.meta_path.insert(0, Absent())
from pathlib import Path
import keras, numpy as np, tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
try:
    import tf_lottery
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("tf_lottery was importable")
found = {}
for folder in map(Path, sys.argv[2:]):
    x = np.load(folder.with_suffix(".npy"))
    model = keras.models.load_model(folder / "model.keras")
    found[f"{folder.name}/keras"] = np.asarray(model(x))
    assert not model.compiled and type(model).__module__.startswith("keras."), type(model)
    served = tf.saved_model.load(folder / "saved_model")
    (output,) = served.signatures["serving_default"](tf.constant(x)).values()
    found[f"{folder.name}/saved_model"] = output.numpy()
    for name, kernels in (("keras", model.variables), ("saved_model", served.variables)):
        found[f"{folder.name}/{name}/zeros"] = sum(int((np.asarray(v) == 0).sum()) for v in kernels if len(v.shape) >= 2)
    for file in folder.glob("*.tflite"):
        run = Interpreter(str(file)).get_signature_runner()
        found[f"{folder.name}/{file.stem}"] = np.concatenate([run(input_0=one[None])["output_0"] for one in x])
root = Path(sys.argv[1]).parent
found["compacted"] = np.asarray(keras.models.load_model(root / "compacted.keras")(np.load(root / "compacted.npy")))
np.savez(sys.argv[1], **found)
"""


def dense():
    """Wrapped as a whole, and compiled with what only tf_lottery has: it must not be in the file."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((64,)), L.Dense(96, "relu"), L.Dense(10)], name="dense_net")
    model.compile(keras.optimizers.SGD(tfl.WarmUpThenDrop(0.1, 5, (10,))), "mse")
    return tfl.prune(model, 0.1)


def conv():
    """With masked layers inside."""
    keras.utils.set_random_seed(1)
    layers = [
        tfl.wrap(L.Conv2D(16, 3, activation="relu", padding="same")),
        L.BatchNormalization(),
        L.MaxPooling2D(),
        L.DepthwiseConv2D(3),
        tfl.wrap(L.Conv2D(32, 1, activation="relu")),
        L.Flatten(),
        tfl.wrap(L.Dense(10)),
    ]
    model = keras.Sequential([keras.Input((12, 12, 3)), *layers], name="conv_net")
    masks = {path: np.random.default_rng(2).random(mask.shape) < 0.1 for path, mask in tfl.get_masks(model).items()}
    tfl.set_masks(model, masks)
    return model


def supermask():
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((64,)), L.Dense(96, "relu"), L.Dense(10)], name="supermask_net")
    return tfl.supermask.wrap(model, by="edge_popup", density=0.1, seed=4)


MODELS = {build.__name__: build for build in (dense, conv, supermask)}


def inputs(model, count=24):
    return np.random.default_rng(5).normal(size=(count, *tfl.strip(model).input_shape[1:])).astype("float32")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Three models in all formats: {name: (model, inputs, outputs, report)}, and what a fresh process found in the files.

    It also finds one of them compacted, that gathers what it needs of inputs a third of which are constant.
    """
    root, found = tmp_path_factory.mktemp("exported"), {}
    for name, build in MODELS.items():
        model = build()
        x = inputs(model)
        before = [v.trainable for v in model.variables]
        report = export.side_by_side(model, root / name, x, representative=x)
        assert [v.trainable for v in model.variables] == before  # a supermask's weights are as frozen as they were
        np.save(root / f"{name}.npy", x)
        found[name] = (model, x, np.asarray(model(x)), report)
    x = found["dense"][1] * (np.arange(64) >= 20)
    small, _ = tfl.compact(found["dense"][0], calibration=x)
    np.save(root / "compacted.npy", x)
    export.keras_file(small, root / "compacted.keras")
    out = root / "found.npz"
    argv = [sys.executable, "-c", FRESH, str(out), *(str(root / name) for name in MODELS)]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    return found, dict(np.load(out)), root


@pytest.mark.parametrize("name", MODELS)
def test_a_fresh_process_without_tf_lottery_gets_the_same_outputs(exported, name):
    found, fresh, _ = exported
    _, _, expected, report = found[name]
    scale = float(np.abs(expected).max())
    assert scale > 0.01 and len({tuple(row) for row in expected}) == len(expected)  # outputs that tell something
    tolerances = {"keras": 1e-6, "saved_model": 1e-6} | {key: v.tolerance for key, v in export.VARIANTS.items()}
    for key, tolerance in tolerances.items():
        difference = np.abs(fresh[f"{name}/{key}"] - expected).max()
        assert difference <= tolerance * scale, key
        measured = next(file for file in report.files if file.name == key).difference
        assert difference == pytest.approx(measured, rel=0.05, abs=2e-6 * scale), key
    assert [file.name for file in report.files] == list(tolerances)


def test_a_fresh_process_gets_the_same_outputs_from_a_compacted_model(exported):
    found, fresh, root = exported
    expected = np.asarray(found["dense"][0](np.load(root / "compacted.npy")))
    assert "Take" in [type(layer).__name__ for layer in keras.models.load_model(root / "compacted.keras").operations]
    assert fresh["compacted"] == pytest.approx(expected, abs=1e-5 * float(np.abs(expected).max()))


@pytest.mark.parametrize("name", MODELS)
def test_zeros_are_exact_in_every_file(exported, name):
    found, fresh, root = exported
    model, _, _, report = found[name]
    pruned = sum(int((mask == 0).sum()) for mask in tfl.get_masks(model).values())
    assert fresh[f"{name}/keras/zeros"] >= pruned and fresh[f"{name}/saved_model/zeros"] >= pruned
    assert all(file.zeros >= report.zeros - 1e-9 for file in report.files) and report.zeros > 0.7
    for variant in ("float32", "sparse_float32", "float16", "sparse_float16"):
        content = (root / name / f"{variant}.tflite").read_bytes()
        assert share_of_zeros(content) == pytest.approx(report.zeros, abs=1e-9)
    plain = keras.models.load_model(root / name / "model.keras")
    for path, mask in tfl.get_masks(model).items():
        kernels = [v for v in plain.variables if v.path.split("/")[-2:] == path.split("/")[-2:]]
        assert len(kernels) == 1 and not np.asarray(kernels[0])[mask == 0].any()


def test_sparse_encoding_and_quantising_make_files_smaller(exported):
    found, _, _ = exported
    for *_, report in found.values():
        size = {file.name: file.bytes for file in report.files}
        assert size["sparse_float32"] < size["float16"] < size["float32"]
        assert size["dynamic_int8"] < size["float16"]
        assert all(0 < file.gzip_bytes < file.bytes for file in report.files)
        assert all((file.latency_us is None) == (file.name in ("keras", "saved_model")) for file in report.files)


def test_the_report_is_readable_and_the_same_as_json(exported):
    found, _, root = exported
    report = found["conv"][3]
    text = str(report)
    assert max(map(len, text.splitlines())) <= 100
    assert "This is an x86" in text or "for this processor" in text
    written = json.loads((root / "conv" / "report.json").read_text())
    assert written == json.loads(json.dumps(report.to_json()))
    assert set(written) == {
        "model",
        "parameters",
        "zeros",
        "examples",
        "largest_output",
        "accuracy",
        "files",
        "not_written",
        "layers",
        "measured_on",
        "metric",
        "remarks",
        "slow",
        "names",
    }
    assert set(written["measured_on"]) == {"machine", "litert", "tensorflow", "threads", "note"}
    for file in written["files"]:
        assert set(file) == {
            "name",
            "path",
            "bytes",
            "gzip_bytes",
            "zeros",
            "difference",
            "agreement",
            "accuracy",
            "latency_us",
            "keras_accuracy",
        }
        assert (root / "conv" / file["path"]).exists()
    for layer in written["layers"]:
        assert set(layer) == {"layer", "kind", "weights", "zeros", "sparse", "reason"} and layer["reason"]
    assert set(written["not_written"]) == set(export.KNOWN_BAD)


def test_known_bad_combinations_are_refused_and_still_bad(tmp_path):
    model = dense()
    x = inputs(model)
    for name in export.KNOWN_BAD:
        with pytest.raises(ExportError, match="XNNPACK delegate refuses"):
            export.tflite(model, tmp_path / "bad.tflite", x, variant=name, representative=x)
    assert not list(tmp_path.iterdir())
    plain = tfl.strip(model)
    plain.export(tmp_path / "plain", verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "plain"))
    converter.optimizations = [tf.lite.Optimize.DEFAULT, tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    with pytest.raises(ExportError, match="failed to prepare"):  # once this passes, KNOWN_BAD can go
        Loaded(converter.convert())


class Betainc(L.Layer):
    def call(self, x):
        return tf.raw_ops.Betainc(a=tf.abs(x) + 1, b=tf.abs(x) + 1, x=tf.sigmoid(x))


class Fourier(L.Layer):
    def call(self, x):  # converts without a word, into a file that does not load
        return tf.math.real(tf.signal.fft(tf.cast(x, tf.complex64)))


class Python(L.Layer):
    def call(self, x):
        return tf.ensure_shape(tf.py_function(lambda a: 2 * a, [x], tf.float32), x.shape)


@pytest.mark.parametrize(
    ("layer", "reason"), [(Betainc, "needs Betainc"), (Python, "needs EagerPyFunc"), (Fourier, "refuses")]
)
def test_what_tflite_cannot_take_is_said_in_one_sentence_and_leaves_nothing(layer, reason, tmp_path):
    model = keras.Sequential([keras.Input((8,)), L.Dense(8), layer(), L.Dense(2)], name="odd")
    x = np.ones((3, 8), "float32")
    with pytest.raises(ExportError, match=reason) as raised:
        export.tflite(model, tmp_path / "new" / "odd.tflite", x)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 300
    with pytest.raises(ExportError, match=reason):
        export.side_by_side(model, tmp_path / "all", x, formats=["tflite", "saved_model"], variants=["float32"])
    assert not list(tmp_path.iterdir())


INT8_OF_AN_LSTM = """
import sys, keras, numpy as np, tf_lottery as tfl
model = keras.Sequential([keras.Input((10, 4)), keras.layers.LSTM(8), keras.layers.Dense(2)], name="net")
x = np.random.default_rng(0).normal(size=(8, 10, 4)).astype("float32")
try:
    tfl.export.tflite(model, sys.argv[1] + "/int8.tflite", x, variant="int8", representative=x)
except tfl.ExportError as error:
    print(error)
report = tfl.export.side_by_side(
    model, sys.argv[1] + "/all", x, formats=["tflite"], variants=["float32", "int8"], representative=x
)
print([file.name for file in report.files], *report.not_written.values())
"""


def test_a_conversion_that_ends_its_process_is_an_error_like_any_other(tmp_path):
    """Calibrating int8 of an LSTM ends Python (exit status 139); in a script without `if __name__ == "__main__"` too."""
    done = forked.run(["-c", INT8_OF_AN_LSTM, tmp_path], check=True)
    one, all_of_them = done.stdout.splitlines()
    for said in (one, all_of_them):
        assert "as int8, but the converter ended its process (SIGSEGV) over 'net'" in said and "unroll=True" in said
    assert all_of_them.startswith("['float32']") and not (tmp_path / "int8.tflite").exists()


def test_a_conversion_apart_gives_what_one_at_home_gives(tmp_path):
    model = keras.Sequential([keras.Input((6, 4)), L.GRU(4), L.Dense(2)], name="net")
    x = np.random.default_rng(0).normal(size=(4, 6, 4)).astype("float32")
    with Converter(model, x) as converter:
        content = apart(converter.folder, "net", "float32", "float32", False, None)
        assert np.allclose(Loaded(content).outputs([x])[0], Loaded(converter("float32")).outputs([x])[0], atol=1e-6)
    with (
        Converter(keras.Sequential([keras.Input((8,)), Betainc()]), np.ones((3, 8), "float32")) as converter,
        pytest.raises(ExportError, match="'net' needs Betainc"),
    ):
        apart(converter.folder, "net", "float32", "float32", False, None)
    unrolled = keras.Sequential([keras.Input((6, 4)), L.GRU(4, unroll=True), L.Dense(2)])
    unrolled.set_weights(model.get_weights())
    assert export.tflite(unrolled, tmp_path / "a.tflite", x, variant="int8", representative=x).difference < 0.2


@pytest.mark.parametrize("layer", ["Dense", "EinsumDense", "Conv2D", "Embedding"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_layer_with_lora_leaves_as_one_kernel(layer, when, tmp_path):
    kinds = {
        "Dense": lambda: [keras.Input((6, 6, 4)), L.Dense(8, name="it")],
        "EinsumDense": lambda: [keras.Input((6, 6, 4)), L.EinsumDense("abcd,de->abce", (6, 6, 8), name="it")],
        "Conv2D": lambda: [keras.Input((6, 6, 4)), L.Conv2D(8, 3, name="it")],
        "Embedding": lambda: [keras.Input((6,), dtype="int32"), L.Embedding(5, 8, name="it")],
    }
    model = keras.Sequential([*kinds[layer](), L.Flatten(), L.Dense(3)])
    rng = np.random.default_rng(0)
    x = rng.integers(0, 5, (4, *model.input_shape[1:])).astype(model.inputs[0].dtype)
    if when == "before":
        model.get_layer("it").enable_lora(2)
    masked = tfl.wrap(model, prunable="/kernel$")
    if when == "after":
        model.get_layer("it").enable_lora(2)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    expected = np.asarray(masked(x))
    loaded = keras.models.load_model(export.keras_file(masked, tmp_path / "a.keras"))
    np.testing.assert_allclose(np.asarray(loaded(x)), expected, rtol=1e-5, atol=1e-5)
    assert not loaded.get_layer("it").lora_enabled
    np.testing.assert_allclose(np.asarray(tfl.compact(masked).model(x)), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.asarray(masked(x)), expected, rtol=1e-6)


FACTOR = 3.0


@pytest.mark.parametrize(
    ("layer", "loads"),
    [
        (lambda: L.Lambda(lambda z: z * 2.0), True),
        (lambda: L.Lambda(lambda z: keras.ops.relu(z) * FACTOR), False),  # names that the file does not know
        (lambda: L.Dense(8, activation=lambda z: z * FACTOR), False),
        (lambda: L.Activation(lambda z: z * FACTOR), False),
    ],
    ids=["Lambda", "Lambda with names", "Dense", "Activation"],
)
def test_functions_of_ones_own(layer, loads, tmp_path):
    model = keras.Sequential([keras.Input((8,)), layer(), L.Dense(8, "relu"), L.Dense(2)], name="net")
    x = inputs(model)
    masked = tfl.prune(model, 0.5, scope="channels")
    expected = np.asarray(masked(x))
    np.testing.assert_allclose(np.asarray(tfl.compact(masked).model(x)), expected, atol=1e-5)
    if loads:
        loaded = keras.models.load_model(export.keras_file(masked, tmp_path / "a.keras"), safe_mode=False)
        np.testing.assert_array_equal(np.asarray(loaded(x)), expected)
    else:
        with pytest.raises(ExportError, match="'net' is not one .*register"):
            export.keras_file(masked, tmp_path / "a.keras")
        assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten_unless_asked_and_then_only_what_an_export_made(tmp_path):
    model, x = dense(), inputs(dense())
    keras_file, folder, lite = tmp_path / "a.keras", tmp_path / "served", tmp_path / "a.tflite"

    def write(**how):
        export.keras_file(model, keras_file, **how)
        export.saved_model(model, folder, **how)
        export.tflite(model, lite, x, **how)

    write()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for call in (
        lambda: export.keras_file(model, keras_file),
        lambda: export.saved_model(model, folder),
        lambda: export.tflite(model, lite, x),
        lambda: export.side_by_side(model, folder, x),
        lambda: export.side_by_side(model, folder, x, overwrite=True),  # a folder, but not one of side_by_side
        lambda: export.saved_model(model, tmp_path, overwrite=True),
        lambda: export.keras_file(model, folder, overwrite=True),
    ):
        with pytest.raises(ExportError, match="but .* (exists|is another folder)"):
            call()
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    write(overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {"a.keras", "served", "a.tflite"}


def test_a_failed_write_leaves_no_files_and_no_folders(tmp_path):
    for whole in (whole_file, whole_folder):
        with pytest.raises(RuntimeError), whole(tmp_path / "a" / "b" / "c.x"):
            raise RuntimeError
        assert not list(tmp_path.iterdir())
    (tmp_path / "kept").mkdir()
    with pytest.raises(RuntimeError), whole_file(tmp_path / "kept" / "c.x"):
        raise RuntimeError
    assert (tmp_path / "kept").is_dir() and not list((tmp_path / "kept").iterdir())
    with whole_folder(tmp_path / "a" / "b") as unfinished:
        (unfinished / "one").write_text("1")
    with whole_folder(tmp_path / "a" / "b") as unfinished:
        (unfinished / "two").write_text("2")
    assert [path.name for path in (tmp_path / "a").rglob("*")] == ["b", "two"]


@pytest.mark.parametrize("variant", ["float16", "dynamic_int8", "int8"])
def test_every_variant_takes_and_gives_float32(variant, tmp_path):
    model, x = dense(), inputs(dense())
    export.tflite(model, tmp_path / "a.tflite", x, variant=variant, representative=x)
    run = Interpreter(str(tmp_path / "a.tflite")).get_signature_runner()
    for details in (run.get_input_details()["input_0"], run.get_output_details()["output_0"]):
        assert details["dtype"] == np.float32 and details["shape"][0] == 1


def test_outputs_that_differ_more_than_allowed_are_no_file(tmp_path):
    model = dense()
    with pytest.raises(ExportError, match="float16 differs by"):
        export.tflite(model, tmp_path / "a.tflite", inputs(model), variant="float16", tolerance=1e-9)
    assert not list(tmp_path.iterdir())


def test_bad_arguments_are_named(tmp_path):
    model = keras.Sequential([keras.Input((4,)), L.Dense(2)])
    x, path = np.ones((5, 4), "float32"), tmp_path / "a.tflite"
    for error, message, call in [
        (
            ExportError,
            "variant of TFLite .* but received 'float8'",
            lambda: export.tflite(model, path, x, variant="float8"),
        ),
        (ExportError, "representative inputs", lambda: export.tflite(model, path, x, variant="int8")),
        (ExportError, "zeros pay for sparse encoding", lambda: export.tflite(model, path, x, variant="sparse_float32")),
        (DataError, "inputs of shape", lambda: export.tflite(model, path, np.ones((5, 3)))),
        (DataError, "inputs of shape", lambda: export.tflite(model, path, np.ones((0, 4)))),
        (DataError, "a label for each of 5 inputs", lambda: export.tflite(model, path, x, np.ones(4, int))),
        (ExportError, "ends in .keras", lambda: export.keras_file(model, tmp_path / "a.h5")),
        (ExportError, "formats of keras", lambda: export.side_by_side(model, tmp_path / "b", x, formats=["onnx"])),
        (
            ExportError,
            "a built Keras model",
            lambda: export.keras_file(keras.Sequential([L.Dense(2)]), tmp_path / "a.keras"),
        ),
        (TypeError, "Keras 3 model", lambda: export.saved_model("model", tmp_path / "b")),
        (TypeError, "a ticket: use ticket.apply", lambda: export.tflite(tfl.Ticket({}, {}), path, x)),
    ]:
        with pytest.raises(error, match=message):
            call()
    assert not list(tmp_path.iterdir())


def test_accuracy_is_that_of_the_labels(tmp_path):
    model, x = dense(), inputs(dense(), 40)
    y = np.argmax(model(x), -1)
    y[:10] = (y[:10] + 1) % 10
    found = export.tflite(model, tmp_path / "a.tflite", x, y)
    assert found.accuracy == 0.75 and found.path.stat().st_size == found.bytes
    mean = export.tflite(model, tmp_path / "b.tflite", x, y, metric=lambda y, out: tf.reduce_sum(0 * out, -1) + 0.5)
    assert mean.accuracy == 0.5 == mean.keras_accuracy


def trained():
    """Tells which inputs are larger than 1.2, and inputs up to 1.5 with their labels."""
    model = keras.Sequential([keras.Input((1,)), L.Dense(2)], name="large")
    model.set_weights([np.array([[0.0, 1.0]]), np.array([1.2, 0.0])])
    x = np.random.default_rng(9).uniform(-1.5, 1.5, (400, 1)).astype("float32")
    return model, x, (x[:, 0] > 1.2).astype(int)


def test_a_model_that_only_guesses_is_told(tmp_path):
    model, x, y = trained()
    with pytest.warns(UserWarning, match=r"% right of 400 inputs is guessing among 2 classes: .* range"):
        report = export.side_by_side(model, tmp_path / "a", -x, y, formats=["keras"])
    assert report.remarks and " ".join(str(report).split()).endswith(report.remarks[0])
    assert guessing(np.ones(6), np.arange(6) % 2, np.zeros((6, 2))) is None  # all right
    assert guessing(np.arange(4) % 2, np.arange(4) % 2, np.zeros((4, 2))) is None  # too few to tell
    # as often right as the most frequent label is no better than guessing, however seldom the others are
    skewed = np.arange(1000) % 10 == 0
    assert "90.00 % right" in guessing(~skewed, skewed.astype(int)[:, None], np.zeros((1000, 1)))
    assert guessing(np.arange(1000) % 25 != 0, skewed.astype(int)[:, None], np.zeros((1000, 1))) is None
    onehot = np.eye(2)[skewed.astype(int)]
    assert "90.00 % right" in guessing(~skewed, onehot, np.zeros((1000, 2)))


def test_a_file_that_is_less_accurate_is_told(tmp_path):
    """Within the tolerance, but with ranges from inputs up to 1.05: int8 sees no input that is larger than 1.2."""
    model, x, y = trained()
    with pytest.warns(UserWarning, match=r"int8 is right on \d+\.\d points fewer .* representative"):
        found = export.tflite(model, tmp_path / "a.tflite", x, y, variant="int8", representative=0.7 * x)
    assert found.keras_accuracy == 1 and found.accuracy == 1 - y.mean() < 0.95
    good = export.side_by_side(
        model, tmp_path / "all", x, y, formats=["tflite"], variants=["int8"], representative=x[:100]
    )
    assert good.remarks == () and good.files[0].keras_accuracy == 1 and good.files[0].accuracy > 0.98
    in_keras, few, chance = np.ones(1000), np.arange(1000) >= 9, np.tile([1, 0], 500)
    assert lost("int8", few, in_keras) is None and "float16 is right on 1.1 points fewer" in lost(
        "float16", np.arange(1000) >= 11, in_keras
    )
    assert lost("int8", np.roll(chance, 1), chance) is None


def test_a_metric_of_ones_own_has_its_name_and_no_percent(tmp_path):
    model, x = dense(), inputs(dense(), 10)
    y = np.asarray(model(x)) + 2.17
    mean_error = keras.metrics.mean_absolute_error
    report = export.side_by_side(
        model, tmp_path / "a", x, y, formats=["tflite"], variants=["float32"], metric=mean_error
    )
    text = str(report)
    assert "mean_absolute_error 2.17 in Keras" in " ".join(text.split()) and "right" not in text
    assert report.metric == "mean_absolute_error" and report.remarks == () and "217" not in text
    assert report.accuracy == pytest.approx(2.17, abs=1e-5) and max(map(len, text.splitlines())) <= 100


class Several(keras.Model):
    """A subclassed model: inputs by name, outputs by name, one of them an embedding of integers."""

    def __init__(self):
        super().__init__()
        self.embed, self.left, self.right = L.Embedding(10, 4), L.Dense(3), L.Dense(2)

    def call(self, inputs):
        both = self.embed(inputs["word"]) + self.left(inputs["size"])[:, :1]
        return {"z": self.right(both), "a": both}


def test_several_inputs_and_outputs(tmp_path):
    model, rng = Several(), np.random.default_rng(6)
    x = {"word": rng.integers(0, 10, 12), "size": rng.normal(size=(12, 5)).astype("float32")}
    outputs = model(x)
    found = export.tflite(model, tmp_path / "a.tflite", x)
    assert 0 <= found.difference < 1e-5 < float(tf.reduce_max(tf.abs(outputs["z"])))
    a, b = keras.Input((3,), name="b"), keras.Input((3,), name="a")
    functional = keras.Model([a, b], [L.Dense(2)(a) - L.Dense(2)(b), L.Dense(1)(b)])
    pair = [rng.normal(size=(12, 3)).astype("float32") for _ in range(2)]
    report = export.side_by_side(functional, tmp_path / "all", pair, variants=["float32"])
    assert [file.name for file in report.files] == ["keras", "saved_model", "float32"]
    assert max(file.difference for file in report.files) < 1e-5
    with pytest.raises(DataError, match="one output"):
        export.tflite(functional, tmp_path / "b.tflite", pair, np.zeros(12, int))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_models_in_other_precisions_compute_in_float32_there(policy, tmp_path):
    model = keras.Sequential([keras.Input((8,)), L.Dense(16, "relu", dtype=policy), L.Dense(2, dtype=policy)])
    x = np.random.default_rng(7).normal(size=(9, 8)).astype("float32")
    report = export.side_by_side(model, tmp_path / "all", x, variants=["float32"])
    assert [file.name for file in report.files] == ["keras", "saved_model", "float32"]
    assert report.files[2].difference < 1e-5 and max(file.difference for file in report.files) < 0.05
    outputs = Loaded(report.files[2].path.read_bytes()).outputs([x])[0]
    assert outputs == pytest.approx(np.asarray(keras.ops.cast(model(x), "float32")), abs=0.05)
    assert model.layers[0].compute_dtype == {"float64": "float64"}.get(policy, policy.removeprefix("mixed_"))


def pointwise(zeros, window=3):
    """What XNNPACK runs sparsely, if enough weights of the 1x1 convolutions are zero."""
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            L.ZeroPadding2D(1),
            L.Conv2D(8, 3, strides=2, name="first"),
            L.Conv2D(16, 1, activation="relu", name="one"),
            L.DepthwiseConv2D(window, padding="same", name="depthwise"),
            L.Conv2D(16, 1, name="two"),
            L.GlobalAveragePooling2D(keepdims=True),
            L.Conv2D(8, 1, name="behind"),
            L.Flatten(),
            L.Dense(10, name="classes"),
        ]
    )
    return tfl.strip(tfl.prune(model, 1 - zeros, prunable="(one|two)/kernel"))


def test_each_layer_knows_why_xnnpack_has_no_sparse_kernel_for_it():
    rows = {row.layer: row for row in sparse_kernels(pointwise(0.8))}
    assert [name for name, row in rows.items() if row.sparse] == ["one", "two"]
    assert rows["one"].zeros == pytest.approx(0.8, abs=0.01) and rows["one"].weights == 128
    assert "1x1 convolutions only, and this is Conv2D 3x3" in rows["first"].reason
    assert "this is DepthwiseConv2D 3x3" in rows["depthwise"].reason and "this is Dense" in rows["classes"].reason
    assert "not between the first 3x3 convolution and the global pooling" in rows["behind"].reason
    assert "50% of the weights" in {row.layer: row for row in sparse_kernels(pointwise(0.5))}["two"].reason
    other = {row.layer: row for row in sparse_kernels(pointwise(0.8, window=7))}
    assert not any(row.sparse for row in other.values()) and "'depthwise'" in other["one"].reason


def test_mobilenet_v2_converts_and_its_sparse_file_is_smaller(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV2((96, 96, 3), alpha=0.35, weights=None, classifier_activation=None)
    x = np.random.default_rng(8).normal(size=(16, 96, 96, 3)).astype("float32")
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            layer.momentum = 0.0
    model(x, training=True)  # statistics of these inputs: with those of a new network all outputs are 0
    masked = tfl.prune(model, 0.2)
    report = export.side_by_side(
        masked, tmp_path / "net", x[:4], formats=["tflite"], variants=["float32", "sparse_float32"]
    )
    dense, sparse = report.files
    assert sparse.bytes < 0.4 * dense.bytes and sparse.zeros == pytest.approx(dense.zeros)
    assert report.zeros == pytest.approx(0.79, abs=0.01) and sparse.difference < 1e-3 * report.largest_output
    assert len({round(float(v), 4) for v in np.asarray(masked(x[:1]))[0]}) > 500
    assert not any(row.sparse for row in report.layers) and len(report.layers) == 53


# ---- the command line


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A .keras file and its data, for `tf-lottery export --keras`."""
    folder = tmp_path_factory.mktemp("source")
    model = dense()
    export.keras_file(model, folder / "net.keras")
    x = inputs(model, 60)
    np.savez(folder / "data.npz", x=x, y=np.argmax(model(x), -1))
    np.savez(folder / "bad.npz", z=x)
    (folder / "garbage.keras").write_bytes(b"PK garbage")
    return folder


def test_the_command_prints_its_report_and_nothing_else(source, tmp_path):
    argv = [sys.executable, "-m", "tf_lottery.bin.main", "export", f"--keras={source / 'net.keras'}"]
    argv += [f"--data={source / 'data.npz'}", "--format=tflite", f"--output={tmp_path / 'out'}"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("dense_net: ") and lines[-1] == f"Written to {tmp_path / 'out'}."
    assert [line.split()[0] for line in lines[3:9]] == list(export.VARIANTS)
    assert all(line.split()[5:7] == ["100.00", "%"] for line in lines[3:7])
    assert lines[9].startswith("Latency: ") and "Not written:" in lines


def test_the_command_says_on_stderr_what_nobody_should_miss(tmp_path, capsys):
    model, x, y = trained()
    export.keras_file(model, tmp_path / "net.keras")
    np.savez(tmp_path / "data.npz", x=-x, y=y)
    argv = [f"--keras={tmp_path / 'net.keras'}", f"--data={tmp_path / 'data.npz'}", f"--output={tmp_path / 'out'}"]
    assert main.dispatch(["export", *argv, "--format=keras", "--json"]) == 0
    printed = capsys.readouterr()
    (remark,) = json.loads(printed.out)["remarks"]
    assert printed.err == f"tf-lottery: {remark}\n" and "is guessing among 2 classes" in remark


def test_the_command_prints_json(source, tmp_path, capsys):
    argv = [f"--keras={source / 'net.keras'}", f"--data={source / 'data.npz'}", f"--output={tmp_path / 'out'}"]
    assert main.dispatch(["export", *argv, "--format=keras,tflite", "--variant=float32", "--json", "--examples=7"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [file["name"] for file in printed["files"]] == ["keras", "float32"] and printed["examples"] == 7
    assert printed == json.loads((tmp_path / "out" / "report.json").read_text())


def test_levels_of_a_run_and_their_tickets(tmp_path, capsys):
    place = [f"--results_dir={tmp_path / 'runs'}", "--name=short"]
    short = ["--levels=1", "--prune_fraction=0.9", "--replicates=1", "--steps=40", "--eval_every=20", "--quiet"]
    assert main.dispatch(["find", *place, *short]) == 0
    ticket = next(tmp_path.glob("runs/short/replicate_0/level_01/level.ticket"))
    rest = ["--format=tflite", "--variant=sparse_float32"]
    assert main.dispatch(["export", *place, "--level=1", *rest, f"--output={tmp_path / 'level'}"]) == 0
    assert main.dispatch(["export", f"--ticket={ticket}", *rest, f"--output={tmp_path / 'ticket'}"]) == 0
    one, other = ((tmp_path / name / "sparse_float32.tflite").read_bytes() for name in ("level", "ticket"))
    x = tfl.data.load("mnist1d").test[0][:5]
    assert np.array_equal(Loaded(one).outputs([x]), Loaded(other).outputs([x]))
    final = tfl.Ticket.load(ticket)
    assert json.loads((tmp_path / "level" / "report.json").read_text())["zeros"] == pytest.approx(
        1 - final.density, abs=1e-3
    )
    capsys.readouterr()
    assert main.dispatch(["export", *place, "--level=4"]) == 1
    assert "finished level ([0, 1] of replicate 0" in capsys.readouterr().err


def test_a_ticket_made_in_python_goes_on_a_keras_file(source, tmp_path, capsys):
    model = tfl.prune(dense(), 0.2)
    values = get_values(model)
    tfl.Ticket(tfl.get_masks(model), values, values).save(tmp_path / "mine.ticket")
    ticket, data = f"--ticket={tmp_path / 'mine.ticket'}", f"--data={source / 'data.npz'}"
    rest = ["--format=keras", f"--output={tmp_path / 'out'}"]
    assert main.dispatch(["export", ticket, f"--model={source / 'net.keras'}", data, *rest]) == 0
    shipped = keras.models.load_model(tmp_path / "out" / "model.keras")
    x = np.load(source / "data.npz")["x"]
    np.testing.assert_array_equal(np.asarray(shipped(x)), np.asarray(tfl.strip(model)(x)))
    capsys.readouterr()
    for argv, message in [
        ([data], "names its model, or --model, a name or a .keras file, but received neither"),
        (
            [data, "--model=lenet_300_100"],
            "shape of its inputs, or --model=net.keras or --dataset, but received neither",
        ),
        ([data, f"--model={tmp_path / 'none.keras'}"], "there is none at"),
    ]:
        assert main.dispatch(["export", ticket, *argv, *rest, "--overwrite"]) == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_compacting_first(tmp_path, capsys):
    model = tfl.strip(dense())
    kernel = model.layers[0].kernel.numpy()
    kernel[:, :60] = 0  # 60 of the 96 hidden units are dead
    model.layers[0].kernel.assign(kernel)
    export.keras_file(model, tmp_path / "net.keras")
    x = inputs(model)
    np.savez(tmp_path / "data.npz", x=x, y=np.argmax(model(x), -1))
    argv = [
        f"--keras={tmp_path / 'net.keras'}",
        f"--data={tmp_path / 'data.npz'}",
        "--format=tflite",
        "--variant=float32",
    ]
    assert main.dispatch(["export", *argv, f"--output={tmp_path / 'wide'}"]) == 0
    assert main.dispatch(["export", *argv, f"--output={tmp_path / 'small'}", "--compact"]) == 0
    printed = capsys.readouterr().out
    assert "multiply-adds: " in printed and "microseconds an example: " in printed
    wide, small = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("wide", "small"))
    assert small["parameters"] <= 64 * 36 + 36 + 36 * 10 + 10 < wide["parameters"]
    assert small["files"][0]["bytes"] < wide["files"][0]["bytes"] and small["files"][0]["accuracy"] == 1


def test_what_the_command_cannot_do_is_one_sentence(source, tmp_path, capsys):
    file, data = f"--keras={source / 'net.keras'}", f"--data={source / 'data.npz'}"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    for argv, message in [
        ([], "Expected one of --name, --ticket and --keras, but received none"),
        ([file, "--name=short"], "but received name and keras"),
        ([file, data, "--format=onnx"], "Expected keras, saved_model, tflite or all, but received 'onnx'"),
        ([file, data, "--variant=float8"], "received 'float8'"),
        ([file, data, "--format=tflite", "--variant=sparse_int8"], "XNNPACK delegate refuses"),
        ([file, data, "--examples=0"], "--examples of at least 1"),
        ([file, data, "--calibrated"], "--calibrated together with --compact"),
        ([file], "Expected --dataset or --data"),
        ([file, "--dataset=mnist1d"], "Expected inputs of shape"),
        ([file, f"--data={source / 'bad.npz'}"], "an .npz file with an array x, but"),
        ([file, f"--data={source / 'bad.npz'}"], "bad.npz' has z."),
        ([file, f"--data={source / 'net.keras'}"], "an .npz file with an array x, but"),
        ([file, f"--data={source / 'none.npz'}"], "an .npz file for --data, but there is none at"),
        ([data, f"--keras={source / 'none.keras'}"], "there is none at"),
        ([data, f"--keras={source / 'garbage.keras'}"], "Expected a model that Keras loads"),
        ([f"--results_dir={tmp_path}", "--name=nobody", "--level=1"], "there is none"),
        (
            [file, data, f"--output={tmp_path / 'full'}"],
            "exists: remove it, or overwrite it (--overwrite, in Python overwrite=True)",
        ),
        ([file, f"--output={tmp_path / 'full'}"], "Expected a new path"),
        ([file, data, f"--output={tmp_path / 'full'}", "--overwrite"], "is another folder"),
    ]:
        place = [] if any(flag.startswith("--output") for flag in argv) else [f"--output={tmp_path / 'out'}"]
        assert main.dispatch(["export", *argv, *place]) == 1, argv
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1 and "Traceback" not in error, argv
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "mine.txt"]


def test_the_commands_help_names_what_the_library_has(capsys):
    with pytest.raises(SystemExit):
        main.dispatch(["export", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert ", ".join(export.FORMATS) in text and ", ".join(export.VARIANTS) in text
