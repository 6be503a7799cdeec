"""Kills searches at random moments and starts them again, and compares what they end with: run by test_checkpoint.

Arguments: a folder, the number of kills. Each life of a search is a forked process: TensorFlow is imported before, and used only
after. Half of the kills are at a random time, half inside a write, when a file is there but does not have its name yet.
"""

# ruff: noqa: E402

import functools
import json
import os
import random
import select
import signal
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"], os.environ["CUDA_VISIBLE_DEVICES"] = "3", "-1"

import numpy as np

from tf_lottery.bin import find as command
from tf_lottery.problems import data, models
from tf_lottery.runs import experiment, problem
from tf_lottery.runs.results import Run
from tf_lottery.tickets.values import Recipe
from tf_lottery.training import checkpoint, loop

DATA = data.load("mnist1d")
FLAGS = [
    "--model=small",
    "--replicates=1",
    "--levels=2",
    "--steps=150",
    "--eval_every=10",
    "--rewind_to=45",
    "--quiet",
    "--noreuse",
]


@models.register(models.Preset("mnist1d", 30, 50, 0.02))
def small(input_shape=(40,), classes=10, seed=0):
    import keras

    glorot = [keras.initializers.GlorotNormal(seed=10 * seed + i) for i in range(2)]
    hidden = keras.layers.Dense(16, "relu", kernel_initializer=glorot[0], name="hidden")
    between = [keras.layers.BatchNormalization(name="norm"), keras.layers.Dropout(0.2, seed=seed, name="dropout")]
    output = keras.layers.Dense(classes, kernel_initializer=glorot[1], name="output")
    return keras.Sequential([keras.Input(input_shape), hidden, *between, output], name="small")


def search(folder: Path, name: str) -> None:
    command.main([*FLAGS, f"--results_dir={folder}", f"--name={name}"])


def live(work: Callable[[], object], stop_in_write: int, pipe: int) -> None:
    """One life of some work; in its write of that number it says so and waits to be killed."""
    experiment.data.load = lambda *_: DATA
    problem.Trainer.__init__.__kwdefaults__["checkpoint_every"] = 0.0  # as often as there is something to keep
    checkpoint.MOST_SHARE = 1e9
    loop.xla_pays = lambda model: False  # compiling takes longer than all the rest
    sync, left = os.fsync, stop_in_write

    def fsync(file):
        nonlocal left
        left -= stat.S_ISREG(os.fstat(file).st_mode)  # of a folder: the file has its name
        if left == 0 and stat.S_ISREG(os.fstat(file).st_mode):
            os.write(pipe, b"w")
            time.sleep(600)
        sync(file)

    os.fsync = fsync
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 1)
    assert not work()  # a command that was not possible says 1


def run_until(work: Callable[[], object], seconds: float | None, write: int = 0) -> tuple[bool, float]:
    """Starts a life and kills it after so many seconds, or inside that write; returns whether it was killed, and its seconds."""
    reader, writer = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            live(work, write, writer)
            status = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        finally:
            os._exit(status)
    os.close(writer)
    select.select([reader], [], [], seconds)  # something to read: inside the write, or ended
    os.close(reader)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0, f"{work} failed"
    return os.WIFSIGNALED(status), time.monotonic() - began


def contents(run: Run) -> dict[str, object]:
    """All that a run ends with, but for the seconds it took."""
    files = sorted(str(path.relative_to(run.folder)) for path in run.folder.rglob("*") if path.is_file())
    found: dict[str, object] = {"files": files}
    for replicate, level in run.finished():
        ticket = run.ticket(replicate, level)
        arrays = {"masks": ticket.masks, "initial": ticket.initial, "final": ticket.final}
        for part, values in arrays.items():
            for path, value in values.items():
                drawn = isinstance(value, Recipe)
                found[f"{replicate} {level} {part} {path}"] = value.digest if drawn else np.asarray(value).tobytes()
        found[f"{replicate} {level} metrics"] = {k: v for k, v in ticket.metrics.items() if k != "seconds"}
        found[f"{replicate} {level} curve"] = (run.level_folder(replicate, level) / "curve.csv").read_bytes()
    return found


def main(folder: Path, wanted: int) -> None:
    rng = random.Random(0)
    killed, whole = run_until(functools.partial(search, folder, "whole"), None)
    assert not killed
    expected = contents(Run(folder / "whole"))
    assert len(Run(folder / "whole").finished()) == 3
    kills, in_writes, searches, checkpoints = 0, 0, 0, 0
    while kills < wanted:
        name, ended = f"search_{searches}", False
        while not ended:
            write = rng.randrange(1, 35) if kills % 2 else 0
            stop = kills < wanted
            seconds = None if write or not stop else rng.uniform(0.2, 0.7) * whole
            killed, _ = run_until(functools.partial(search, folder, name), seconds, write if stop else 0)
            kills, in_writes, ended = kills + killed, in_writes + bool(killed and write), not killed
            checkpoints += any((folder / name).rglob("checkpoint.safetensors"))
        found = contents(Run(folder / name))
        for key in expected.keys() | found.keys():
            assert found.get(key) == expected.get(key), f"{name}: {key} differs"
        searches += 1
    print(json.dumps({"kills": kills, "in_writes": in_writes, "searches": searches, "left_checkpoints": checkpoints}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
