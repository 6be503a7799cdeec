"""`tf-lottery prune`: from a saved model to a pruned one, with the table of before and after, and on where it was killed."""

import contextlib
import json
import os
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from commands import call

from tf_lottery.masking.summary import kernels_of
from tf_lottery.runs import prune_plan
from tf_lottery.training import checkpoint, resuming

L = keras.layers
LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
PLUGIN = """
import numpy as np
import tensorflow as tf
with np.load({path!r}) as file:
    x, y, test = file["x"], file["y"], (file["x_test"], file["y_test"])
def my_dataset():
    train = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(80, seed=3).batch(16)
    return {{"train": train, "test": tf.data.Dataset.from_tensor_slices(test).batch(16)}}
def broken():
    raise RuntimeError("no disk")
not_a_function = 3
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with models, arrays and a plugin; tests write below it."""
    home, rng = tmp_path_factory.mktemp("mine"), np.random.default_rng(0)
    x = rng.normal(size=(120, 8)).astype("float32")
    y = np.argmax(x[:, :3], -1)
    np.savez(home / "mine.npz", x=x[:80], y=y[:80], x_test=x[80:], y_test=y[80:])
    np.savez(home / "train.npz", x=x, y=y)
    np.savez(home / "no_labels.npz", x=x)
    (home / "my_plugin.py").write_text(PLUGIN.format(path=str(home / "mine.npz")))
    (home / "old.h5").write_bytes(b"")
    keras.utils.set_random_seed(0)
    layers = [L.Dense(16, "relu", name="body"), L.BatchNormalization(), L.Dropout(0.3), L.Dense(3, name="head")]
    model = keras.Sequential([keras.Input((8,)), *layers], name="net")
    model.save(home / "plain.keras")
    optimizer = keras.optimizers.AdamW(0.02, weight_decay=0.01, use_ema=True, ema_momentum=0.9)
    model.compile(optimizer, LOGITS, metrics=["accuracy"])
    model.fit(x[:80], y[:80], epochs=5, verbose=0)
    model.save(home / "mine.keras")
    return home


def prune(home, *argv, keras_file="mine.keras", data="mine.npz", epochs=4):
    data = [f"--data={home / data}"] if data else []
    return call(
        "prune", f"--keras={home / keras_file}", *data, f"--epochs={epochs}", "--batch_size=16", "--quiet", *argv
    )


def weights_in(path):
    return keras.models.load_model(path).get_weights()


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(weights_in(one), weights_in(other), strict=True))


@pytest.fixture(scope="module")
def pruned(home):
    assert prune(home, "--density=0.25", "--export=float32") == 0
    return home / "mine.pruned.keras"


def test_writes_a_plain_model_and_what_was_measured(home, pruned):
    with zipfile.ZipFile(pruned) as archive:
        assert b"tf_lottery" not in archive.read("config.json")
    model = keras.models.load_model(pruned)
    assert [kernel.density for kernel in kernels_of(model)] == [0.25, 0.25]
    numbers = json.loads((home / "mine.pruned.json").read_text())
    with np.load(home / "mine.npz") as file:
        test = file["x_test"], file["y_test"]
    model.compile(loss=LOGITS, metrics=["accuracy"])
    assert numbers["pruned"]["metrics"] == model.evaluate(*test, verbose=0, return_dict=True)
    dense = keras.models.load_model(home / "mine.keras")
    assert numbers["dense"]["metrics"] == dense.evaluate(*test, verbose=0, return_dict=True)
    assert [row["epoch"] for row in numbers["epochs"]] == [1, 2, 3, 4] and numbers["epochs"][-1]["density"] == 0.25
    file = home / "mine.pruned.float32.tflite"
    assert file.stat().st_size == numbers["pruned"]["files"]["float32"]["bytes"]
    page = (home / "mine.pruned.html").read_text()
    assert "times fewer weights that are not zero" in page and "body/kernel (Dense)" in page and "<td>0.25</td>" in page
    assert not (home / "mine.pruned.unfinished").exists()


def test_warnings_are_told_once_in_the_words_of_the_command(home, tmp_path, capsys):
    layers = [L.Conv1D(2, 3, name="conv"), L.Flatten(), L.Dense(12, name="small"), L.Dense(12), L.Dense(2)]
    model = keras.Sequential([keras.Input((8, 1)), *layers])
    model.get_layer("small").kernel.assign(model.get_layer("small").kernel * 0.01)
    model.save(tmp_path / "net.keras")
    argv = [f"--keras={tmp_path / 'net.keras'}", "--one_shot", "--epochs=0", "--quiet", "--overwrite"]
    assert call("prune", *argv, "--pattern=2:4") == 0
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith("tf-lottery: warning: --pattern=m:n serves matrices") and "left dense: conv/kernel" in told
    assert call("prune", *argv, "--density=0.3", "--scope=global") == 0
    (told,) = capsys.readouterr().err.splitlines()
    assert "small/kernel keeps 1 of 144 weights" in told
    assert told.endswith("A larger --density, --scope=layer or --exclude for these kernels spares them.")


def test_nothing_is_overwritten_unasked(home, pruned, capsys):
    before = pruned.read_bytes()
    assert prune(home, "--density=0.25") == 1 and "exists" in capsys.readouterr().err
    assert pruned.read_bytes() == before and not (home / "mine.pruned.unfinished").exists()


@pytest.mark.parametrize("data", ["mine.npz", "my_dataset"])
def test_a_killed_run_goes_on_to_the_bit(home, pruned, data, tmp_path, monkeypatch, capsys):
    flags = ["--density=0.25", "--criterion=movement"]
    if data == "my_dataset":
        flags += [f"--plugin={home / 'my_plugin.py'}", "--data=my_dataset"]
    how = {"data": None if data == "my_dataset" else data}
    assert prune(home, *flags, f"--output={tmp_path / 'whole.keras'}", **how) == 0
    monkeypatch.setattr(checkpoint, "MOST_SHARE", 1e9)  # write at every epoch, short as they are
    write_down = resuming.Resume.on_epoch_end

    def killed(self, epoch, logs=None):
        write_down(self, epoch, logs)
        if epoch == 1:
            raise KeyboardInterrupt

    output = f"--output={tmp_path / 'again.keras'}"
    monkeypatch.setattr(resuming.Resume, "on_epoch_end", killed)
    assert prune(home, *flags, output, **how) == 130
    monkeypatch.setattr(resuming.Resume, "on_epoch_end", write_down)
    assert not (tmp_path / "again.keras").exists()
    capsys.readouterr()
    assert prune(home, *flags, output, "--density=0.5", **how) == 1
    assert "--density was 0.25 and is 0.5" in capsys.readouterr().err
    assert prune(home, *flags, output, **how) == 0
    assert same(tmp_path / "whole.keras", tmp_path / "again.keras")
    rows = [json.loads((tmp_path / f"{name}.json").read_text())["epochs"] for name in ("whole", "again")]
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    ("flags", "densities"),
    [
        (["--pattern=2:4"], [0.5, 0.5]),
        (["--pattern=block:1x4", "--density=0.5", "--exclude=head"], [0.5, 1.0]),
        (["--density=output=1,Dense=0.5", "--one_shot"], [0.5, 1.0]),
        (
            [
                "--density=0.5",
                "--scope=channels",
                "--one_shot",
                "--criterion=snip",
                "--loss=sparse_categorical_crossentropy",
            ],
            [0.5, 1],
        ),
    ],
)
def test_prunes_as_the_flags_say(home, tmp_path, flags, densities):
    assert prune(home, *flags, f"--output={tmp_path / 'x.keras'}", epochs=1) == 0
    found = kernels_of(keras.models.load_model(tmp_path / "x.keras"))
    assert [kernel.density for kernel in found] == densities
    patterns = {"--pattern=2:4": "2:4", "--pattern=block:1x4": "blocks 1x4", "--scope=channels": "channels"}
    assert all(pattern in found[0].pattern for flag, pattern in patterns.items() if flag in flags)


def test_loss_and_rate_can_be_flags_and_data_may_be_missing(home, tmp_path, capsys):
    flags = ["--density=0.5", "--optimizer=sgd", "--learning_rate=0.125", "--json"]
    output = f"--output={tmp_path / 'x.keras'}"
    assert prune(home, *flags, output, keras_file="plain.keras", data="train.npz", epochs=1) == 1
    assert (
        "compiled with a loss, or --loss" in capsys.readouterr().err
    )  # before TensorFlow, where the file holds no compile
    assert (
        prune(
            home,
            *flags,
            output,
            "--loss=sparse_categorical_crossentropy",
            "--noquiet",
            keras_file="plain.keras",
            data="train.npz",
        )
        == 0
    )
    out, err = capsys.readouterr()
    assert set(json.loads(out)["pruned"]["metrics"]) == {"accuracy", "loss"}
    assert "SGD, learning rate 0.125" in err and "12 of the 120 examples, which were held out" in err
    assert "from_logits" not in err  # the flag's loss was taken for logits, which the model puts out
    output = f"--output={tmp_path / 'y.keras'}"
    assert prune(home, "--density=0.5", "--one_shot", output, keras_file="plain.keras", data=None, epochs=0) == 0
    assert [kernel.density for kernel in kernels_of(keras.models.load_model(tmp_path / "y.keras"))] == [0.5, 0.5]


def test_a_file_that_is_pruned_already_goes_on_from_there(home, pruned, tmp_path, capsys):
    argv = [f"--keras={pruned}", f"--output={tmp_path / 'x.keras'}", "--loss=sparse_categorical_crossentropy"]
    assert prune(home, "--density=0.5", *argv, epochs=1) == 1
    assert "below the 25 % of its weights" in capsys.readouterr().err
    assert prune(home, "--density=0.125", *argv, "--overwrite", "--noquiet", epochs=1) == 0
    assert "75 % of its prunable weights are zero already" in capsys.readouterr().out
    zero = weights_in(pruned)[0] == 0
    assert np.all(weights_in(tmp_path / "x.keras")[0][zero] == 0)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--keras=none.keras", "--density=0.5"], "there is none at 'none.keras'"),
        (["--density=0.5", "--keras="], "Expected --keras"),
        (["--density=0.5", "--keras={home}/old.h5"], "save it as .keras"),
        (["--density=0.5", "--keras={home}/mine.npz"], "is not one"),
        ([], "Expected --density"),
        (["--density=0.5", "--pattern=2:4"], "received both"),
        (["--density=1.5"], "in (0, 1], but received 1.5"),
        (["--density=half"], "expected a number"),
        (["--density=0.5", "--pattern=2x4"], "2:4 or block:1x4"),
        (["--density=0.5", "--pattern=block:4"], "as block:1x4"),
        (["--density=0.5", "--scope=layers"], "scope"),
        (["--density=0.5", "--criterion=magnitude"], "criterion"),
        (["--density=0.5", "--criterion=snip"], "snip"),
        (["--density=0.5", "--export=int9"], "received 'int9'"),
        (["--density=0.5", "--optimizer=adm"], "received 'adm'"),
        (["--density=0.5", "--loss=crossentropy"], "received 'crossentropy'"),
        (["--density=0.5", "--learning_rate=0"], "above 0"),
        (["--density=0.5", "--epochs=0"], "Expected --epochs of at least 1"),
        (["--density=0.5", "--data="], "Expected --dataset or --data"),
        (["--density=0.5", "--data=my_dataset"], "there is no --plugin"),
        (["--density=0.5", "--data={home}/no_labels.npz"], "arrays x and y"),
        (["--density=0.5", "--data=none.npz"], "there is none"),
        (["--density=0.5", "--dataset=mnist"], "either --dataset or --data"),
        (["--density=0.5", "--data=", "--dataset=mnist", "--data_dir=/nowhere"], "--data_dir"),
        (["--density=0.5", "--output={home}/mine.keras"], "which is that model"),
        (["--density=0.5", "--output=pruned.tflite"], "ends in .keras"),
        (["--density=0.5", "--plugin={home}/my_plugin.py", "--data=not_a_function"], "no such function"),
        (["--density=0.5", "--plugin={home}/my_plugin.py", "--data=broken"], "no disk"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(home, argv, said, capsys):
    before = sorted(home.iterdir())
    argv = [each.format(home=home) for each in argv]
    assert prune(home, *argv, "--overwrite") == 1
    out, err = capsys.readouterr()
    assert said in err and err.count("\n") == 1 and "Expected" in err.replace("expected", "Expected") and not out
    assert sorted(home.iterdir()) == before


def test_data_that_do_not_fit_are_refused_before_anything_is_trained(home, tmp_path, capsys):
    np.savez(tmp_path / "wide.npz", x=np.zeros((20, 9), "float32"), y=np.zeros(20, int))
    assert prune(home, "--density=0.5", f"--data={tmp_path / 'wide.npz'}", f"--output={tmp_path / 'x.keras'}") == 1
    assert "Expected" in capsys.readouterr().err and not (tmp_path / "x.keras").exists()


def test_code_in_a_file_is_never_run(tmp_path, capsys):
    model = keras.Sequential([keras.Input((8,)), L.Dense(3), L.Lambda(lambda x: x * 1)])
    model.save(tmp_path / "code.keras")
    argv = [f"--keras={tmp_path / 'code.keras'}", "--density=0.5", "--one_shot", "--epochs=0", "--quiet"]
    assert call("prune", *argv) == 1
    assert "Expected a model that Keras loads" in capsys.readouterr().err


def test_nothing_of_tensorflow_reaches_the_screen(home, tmp_path):
    """In a process of its own, where TensorFlow starts, first in a plugin, whose own words do reach it."""
    plugin = tmp_path / "talks.py"
    plugin.write_text("import sys, keras\nprint('a word of mine', file=sys.stderr)\n")
    argv = [
        f"--keras={home / 'mine.keras'}",
        "--density=0.5",
        f"--data={home / 'mine.npz'}",
        "--epochs=1",
        f"--plugin={plugin}",
    ]
    command = [sys.executable, "-m", "tf_lottery.bin.prune", *argv, f"--output={tmp_path / 'x.keras'}"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("TF_CPP")}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("tf-lottery: ")]
    assert done.returncode == 0 and lines == ["a word of mine"], done.stderr
    assert done.stdout.splitlines()[0].endswith("on the test set.")


def test_the_names_are_those_of_keras():
    for name in prune_plan.OPTIMIZERS:
        assert keras.optimizers.get(name)
    for name in prune_plan.LOSSES:
        assert callable(keras.losses.get(name))
    known = set()
    for name in map(str.lower, vars(keras.optimizers)):
        with contextlib.suppress(Exception):  # most of them are no optimizers that one can name
            if isinstance(keras.optimizers.get(name), keras.optimizers.Optimizer):
                known.add(name)
    assert known == set(prune_plan.OPTIMIZERS)
