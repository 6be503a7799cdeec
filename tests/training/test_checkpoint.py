"""Checkpoints inside a training: whatever stops it, it ends bit for bit as if nothing had."""

import json
import warnings
from pathlib import Path

import forked
import keras
import numpy as np
import pytest

import tf_lottery as tfl
from tf_lottery.bin.display import LevelDisplay
from tf_lottery.masking import state
from tf_lottery.training import checkpoint

L = keras.layers


class Stop(Exception):
    pass


class StopAt(keras.callbacks.Callback):
    """Stops the training at a step, once, and counts what it hears of."""

    def __init__(self, step=None):
        super().__init__()
        self.step, self.heard = step, []

    def on_train_batch_end(self, batch, logs=None):
        self.heard.append(logs["step"])
        if self.step and logs["step"] >= self.step:
            self.step = None
            raise Stop


def net():
    glorot = [keras.initializers.GlorotNormal(seed=i) for i in range(2)]
    between = [L.BatchNormalization(name="norm"), L.Dropout(0.3, seed=0, name="dropout")]
    hidden = L.Dense(16, "relu", kernel_initializer=glorot[0], name="hidden")
    output = L.Dense(3, kernel_initializer=glorot[1], name="output")
    return keras.Sequential([keras.Input((6,)), hidden, *between, output], name="net")


def trainer(blobs, path=None, **options):
    x, y = blobs
    y = (
        np.random.default_rng(0).integers(0, 3, 300).astype("int32")
    )  # chance; the validation set has others: it stops early
    sets = {"validation": (x[:50], (y[:50] + 1) % 3), "test": (x[50:100], y[50:100])}
    options = {
        "steps": 63,
        "batch_size": 20,
        "jit_compile": False,
        "eval_every": 5,
        "test_every": 60,
        "optimizer": keras.optimizers.Adam(0.05),
        **sets,
        **options,
    }
    return tfl.Trainer(x, y, checkpoint=path, checkpoint_every=0.0, **options)


def stopped_and_started_again(train, start_over, steps, monkeypatch):
    """What `train(callback)` returns at last, and what the callback heard after the last start."""
    monkeypatch.setattr(checkpoint, "MOST_SHARE", 1e9)
    for step in steps:
        with pytest.raises(Stop):
            train(StopAt(step))
        start_over()
    last = StopAt()
    return train(last), last.heard


def outcome(train, model, metrics):
    values = [value.tobytes() for value in state.get_values(model).values()]
    return values, train.curve, {key: value for key, value in metrics.items() if key != "seconds"}


@pytest.mark.parametrize(
    "options", [{"jit_compile": True}, {}, {"device_bytes": 3_000}], ids=["xla", "graph", "streamed"]
)
def test_goes_on_where_it_was_stopped_bit_for_bit(options, blobs, tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.safetensors"
    model = tfl.wrap(net())
    train = trainer(blobs, **options)
    expected = outcome(train, model, train(model))
    parts = {}

    def start_over():
        parts["model"], parts["train"] = tfl.wrap(net()), trainer(blobs, path, **options)

    start_over()
    metrics, heard = stopped_and_started_again(
        lambda callback: parts["train"](parts["model"], [callback]), start_over, (17, 52), monkeypatch
    )
    assert outcome(parts["train"], parts["model"], metrics) == expected
    assert (heard[0], heard[-1]) == (55, 63)  # the rest alone, from the last stretch that was written
    assert expected[2]["early_stop_step"] < 50  # the early stop, whose weights were carried over
    assert not list(tmp_path.iterdir())


def test_the_weights_to_rewind_to_are_carried_over(blobs, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "MOST_SHARE", 1e9)
    path = tmp_path / "checkpoint.safetensors"
    expected = list(tfl.find_ticket(net(), trainer(blobs), levels=1, rewind_to=7))
    stopper, found = StopAt(30), []
    for _ in range(2):
        train = trainer(blobs, path)
        try:
            search = tfl.find_ticket(net(), lambda m, c: train(m, [*c, stopper]), levels=1, rewind_to=7)  # noqa: B023
            found = list(search)
        except Stop:
            assert path.is_file()
    for a, b in zip(found, expected, strict=True):
        for part in ("masks", "initial", "final"):
            ours, theirs = getattr(a, part).values(), getattr(b, part).values()
            assert all(np.array_equal(*pair) for pair in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("by", ["learning", "edge_popup"])
def test_learned_masks_are_carried_over(by, blobs, tmp_path, monkeypatch):
    sgd = keras.optimizers.SGD(5.0, momentum=0.9)
    expected = tfl.supermask.train(net(), trainer(blobs, optimizer=sgd), by=by)

    def learn(callback):
        train = trainer(blobs, tmp_path / "checkpoint.safetensors", optimizer=sgd)
        return tfl.supermask.train(net(), lambda m, c: train(m, [*c, callback]), by=by, accuracy=train.test_accuracy)

    ticket, heard = stopped_and_started_again(learn, lambda: None, (25,), monkeypatch)
    assert heard[0] > 20
    assert all(np.array_equal(ticket.masks[path], mask) for path, mask in expected.masks.items())
    assert (
        ticket.metrics["sampled_accuracy" if by == "learning" else "mask_accuracy"]
        == (expected.metrics["sampled_accuracy" if by == "learning" else "mask_accuracy"])
    )


def stopped_at_20(blobs, path, model=None, **options):
    model = model or tfl.wrap(net())
    with pytest.raises(Stop):
        trainer(blobs, path, **options)(model, [StopAt(20)])
    assert path.is_file()


def test_it_is_told_that_a_level_goes_on(blobs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(checkpoint, "MOST_SHARE", 1e9)
    path, model = tmp_path / "checkpoint.safetensors", tfl.wrap(net())
    display = LevelDisplay([(1, 2)], 63, quiet=True)
    with pytest.raises(Stop):
        trainer(blobs, path)(model, [*display.begin(1, 2, 0.64), StopAt(20)])
    assert not capsys.readouterr().err
    again = LevelDisplay([(1, 2)], 63, quiet=True)
    trainer(blobs, path)(tfl.wrap(net()), again.begin(1, 2, 0.64))
    assert capsys.readouterr().err == "tf-lottery: replicate 1, level 2 goes on from step 15.\n"
    assert again.progress.tasks[0].completed == 63  # the steps before it count


def heard_by(train, model=None):
    listener = StopAt()
    train(model or tfl.wrap(net()), [listener])
    return listener.heard


def test_a_checkpoint_of_another_training_is_not_used(blobs, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "MOST_SHARE", 1e9)
    path = tmp_path / "checkpoint.safetensors"
    x, y = blobs
    other = net()
    other.layers[0].kernel.assign(2 * other.layers[0].kernel.value)
    masked = tfl.wrap(net())
    tfl.set_masks(masked, {name: np.indices(mask.shape).sum(0) % 2 for name, mask in tfl.get_masks(masked).items()})
    changes = {
        "seed": (trainer(blobs, path, seed=1), None),
        "steps": (trainer(blobs, path, steps=64), None),
        "rate": (trainer(blobs, path, optimizer=keras.optimizers.Adam(0.1)), None),
        "data": (trainer((x + 1, y), path), None),
        "weights": (trainer(blobs, path), tfl.wrap(other)),
        "masks": (trainer(blobs, path), masked),
    }
    for name, (train, model) in changes.items():
        stopped_at_20(blobs, path)
        assert heard_by(train, model)[0] == 5, name
    stopped_at_20(blobs, path)
    assert heard_by(trainer(blobs, path))[0] > 5  # its own is


def test_a_damaged_checkpoint_is_named_and_set_aside(blobs, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "MOST_SHARE", 1e9)
    path = tmp_path / "checkpoint.safetensors"
    whole = heard_by(trainer(blobs))
    for damage in (
        lambda data: data[:-1],
        lambda data: data[:3000] + bytes([data[3000] ^ 1]) + data[3001:],
        lambda _: b"",
    ):
        stopped_at_20(blobs, path)
        damaged = damage(path.read_bytes())
        path.write_bytes(damaged)
        with pytest.warns(UserWarning, match="checkpoint.safetensors was damaged and is set aside as"):
            assert heard_by(trainer(blobs, path)) == whole
        assert damaged in [kept.read_bytes() for kept in tmp_path.glob("*.damaged*")]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_write_that_fails_leaves_the_last_checkpoint(blobs, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "MOST_SHARE", 1e9)
    path = tmp_path / "checkpoint.safetensors"
    stopped_at_20(blobs, path)
    before, write = path.read_bytes(), Path.write_bytes

    def full(self, data):
        write(self, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        trainer(blobs, path)(tfl.wrap(net()))
    monkeypatch.undo()
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_it_is_written_seldom(blobs, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(checkpoint.Checkpoint, "save", lambda *_: written.append(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tfl.Trainer(*blobs, steps=200, eval_every=5, checkpoint=tmp_path / "checkpoint")(net())
    assert not written  # the default is a minute
    with pytest.raises(tfl.LotteryError, match="checkpoint_every of 0 seconds or more"):
        tfl.Trainer(*blobs, steps=1, checkpoint_every=-1)


def test_twenty_kills_change_nothing(tmp_path):
    script = Path(__file__).parents[1] / "scripts" / "killed.py"
    done = forked.run([script, tmp_path, "20"])
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["kills"] == 20 and told["in_writes"] >= 5 and told["left_checkpoints"] >= 5 and told["searches"] >= 2
