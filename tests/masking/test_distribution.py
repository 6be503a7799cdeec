"""Several devices and several workers: what they find is what one device finds; a lost worker is told of."""

import contextlib
import json
import os
import signal
import socket
import time
from pathlib import Path

import forked
import numpy as np
import pytest
import tensorflow as tf

import tf_lottery as tfl
from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import distribution

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture(scope="module")
def two_devices():
    done = forked.run([SCRIPTS / "two_devices.py"])
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", ["plain", "uneven", "clipped", "by_name", "synchronized"])
def test_two_devices_train_like_one(case, two_devices):
    """Weights and every measurement, on sets that two do not divide; both devices hold the same, pruned weights are zero."""
    assert two_devices[case]["weights"] < 1e-4 and two_devices[case]["measurements"] < 1e-5


def test_statistics_and_dropout_are_those_of_all_devices(two_devices):
    """Each device normalises its own part of a batch, so this is not what one device does; but all devices agree on it."""
    assert 0 < two_devices["normalized"]["measurements"] < 0.5


@pytest.mark.parametrize("case", ["search", "search_late", "fit"])
def test_two_devices_find_the_tickets_of_one(case, two_devices):
    assert two_devices[case]["masks"] and two_devices[case]["weights"] < 1e-5


@pytest.mark.parametrize("by", ["learning", "edge_popup"])
def test_two_devices_learn_the_supermask_of_one(by, two_devices):
    assert two_devices[by]["masks"] and np.allclose(*two_devices[by]["loss"], atol=1e-4)


@pytest.mark.parametrize(
    "case", ["fit_5", "fit_25", "trainer_25"]
)  # 5 is in the first device's part, 25 in the second's
def test_all_devices_skip_a_step_that_overflows_on_one(case, two_devices):
    found = two_devices["overflow"][case]
    assert found["finite"] and 0 < found["updates"] < 5 and found["scale"] == 2.0 ** (15 - 5 + found["updates"])


def test_what_strategies_cannot_do_is_one_sentence(two_devices):
    said = two_devices["refused"]
    for message, expected in zip(
        said,
        (
            "the Trainer has MirroredStrategy and 'net' was built under no strategy",
            "the Trainer has no strategy and 'net' was built under MirroredStrategy",
            "Expected jit_compile of False or 'auto' with a strategy",
            "Expected a batch_size of at least the 2 replicas",
            "Expected jit_compile of 'auto' or False for 'net'",
        ),
        strict=True,
    ):
        assert expected in message and "\n" not in message


def test_strategies_by_name(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert distribution.get("none") is None
    assert distribution.get("mirrored") is None or len(tf.config.list_logical_devices()) > 1
    for name, message in (
        ("multi_worker", "TF_CONFIG"),
        ("tpu", "Expected a TPU within reach"),
        ("all", "one of none"),
    ):
        with pytest.raises(LotteryError, match=message) as caught:
            distribution.get(name)
        assert "\n" not in str(caught.value)
    with pytest.raises(LotteryError, match="Expected a tf.distribute.Strategy or None"):
        distribution.Replicas("mirrored")


def test_one_device_strategies_work_too(blobs, dense_net):
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    with strategy.scope():
        model = dense_net()
    plain, options = dense_net(), {"steps": 20, "validation": blobs, "jit_compile": False, "optimizer": "sgd"}
    losses = [
        tfl.Trainer(*blobs, **options)(plain)["final_train_loss"],
        tfl.Trainer(*blobs, **{**options, "jit_compile": "auto"}, strategy=strategy)(model)["final_train_loss"],
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


# --- workers ----------------------------------------------------------------------------------------------------------


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("localhost", 0))
        return [one.getsockname()[1] for one in sockets]


def start(folder: Path, index: int | None, ports=(), *gate: Path) -> forked.Popen:
    """One of two workers, or with index=None a process of its own."""
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    if index is not None:
        cluster = {"worker": [f"localhost:{port}" for port in ports]}
        env["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
    return forked.Popen([SCRIPTS / "worker.py", folder, "30", *gate], env=env)


def ended(process: forked.Popen) -> str:
    out, error = process.communicate(timeout=200)
    assert process.returncode == 0, error[-3000:]
    return out


def test_two_workers_find_the_tickets_of_one_process_and_only_the_chief_writes(tmp_path):
    ports = free_ports(2)
    processes = [start(tmp_path / "two", index, ports) for index in (0, 1)] + [start(tmp_path / "one", None)]
    chief, other, alone = map(ended, processes)
    assert json.loads(chief.splitlines()[-1]) == {"chief": True, "worked": True}
    assert json.loads(other.splitlines()[-1]) == {"chief": False, "worked": True}
    assert json.loads(alone.splitlines()[-1]) == {"chief": True, "worked": True}
    two, one = tfl_run(tmp_path / "two"), tfl_run(tmp_path / "one")
    assert two.finished() == one.finished() == [(0, 0), (0, 1), (0, 2)]
    for level in range(3):
        a, b = two.ticket(0, level), one.ticket(0, level)
        assert all(np.array_equal(a.masks[path], b.masks[path]) for path in b.masks)
        kept = b.final if level == 0 else {path: b.final[path] * b.masks[path] for path in b.masks}
        assert all(np.allclose(a.final[path], value, atol=1e-4) for path, value in kept.items())
        assert a.metrics["final_test_accuracy"] == b.metrics["final_test_accuracy"]


def tfl_run(folder: Path):
    from tf_lottery.runs.results import Run

    return Run(folder)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_worker_ends_the_other_and_the_search_goes_on_when_restarted(lost, tmp_path):
    gate, run, ports = tmp_path / "gate", tfl_run(tmp_path / "run"), free_ports(2)
    gate.touch()
    processes = [start(run.folder, index, ports, gate) for index in (0, 1)]
    deadline = time.monotonic() + 300
    while not run.finished():
        assert time.monotonic() < deadline and all(process.poll() is None for process in processes)
        time.sleep(0.05)
    processes[lost].send_signal(signal.SIGKILL)
    gate.unlink()
    began, left = time.monotonic(), processes[1 - lost]
    _, error = left.communicate(timeout=60)  # within a minute
    processes[lost].communicate()
    assert time.monotonic() - began < 60 and left.returncode == 1
    last = error.strip().splitlines()[-1]
    assert "WorkerLostError: Expected all 2 workers to go on" in last and "start all of them again" in last
    kept = run.finished()
    assert kept == [(0, 0)]
    before = {at: (run.level_folder(*at) / "level.ticket").read_bytes() for at in kept}
    ports = free_ports(2)
    for out in map(ended, [start(run.folder, index, ports) for index in (0, 1)]):
        assert json.loads(out.splitlines()[-1])["worked"]
    assert run.finished() == [(0, 0), (0, 1), (0, 2)]
    assert all((run.level_folder(*at) / "level.ticket").read_bytes() == data for at, data in before.items())


def test_workers_that_do_not_share_their_results_are_told(tmp_path):
    ended(start(tmp_path / "a", None))
    ports = free_ports(2)
    processes = [start(tmp_path / name, index, ports) for index, name in enumerate("ab")]
    for process in processes:
        _, error = process.communicate(timeout=200)
        assert process.returncode == 1
        assert "Expected all workers to see the same levels to train" in error.strip().splitlines()[-1]
