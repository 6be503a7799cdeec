"""Kills what is longer than a search of the papers, at random moments, and starts it again: three roads, `prune` and `verify`.

Arguments: a folder, the number of kills. What each ends with is compared, bit for bit, with what it ends with undisturbed; see `killed`.
"""

import functools
import io
import json
import random
import shutil
import sys
import zipfile
from pathlib import Path

import killed
import numpy as np

from tf_lottery.bin import main as command
from tf_lottery.runs.results import Run

SMALL = ["--model=small", "--replicates=1", "--steps=60", "--eval_every=10", "--quiet", "--noreuse"]
ROADS = {
    "gradual": ["--search=gradual", "--density=0.3", "--rewind_to=5"],
    "budget": ["--density=0.3", "--budget=2"],
    "regrow": ["--search=regrow", "--density=0.3"],
}


def find(folder: Path, name: str, *flags: str) -> int:
    return command.dispatch(["find", *SMALL, *flags, f"--results_dir={folder}", f"--name={name}"])


def verify(folder: Path, name: str) -> int:
    return command.dispatch(["verify", "--level=2", "--quiet", f"--results_dir={folder}", f"--name={name}"])


def make_model(folder: Path) -> None:
    """A model and the data to prune it on."""
    import keras

    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 8)).astype("float32")
    y = np.argmax(x[:, :3], -1)
    np.savez(folder / "mine.npz", x=x[:300], y=y[:300], x_test=x[300:], y_test=y[300:])
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(16, "relu"), keras.layers.BatchNormalization(), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((8,)), *layers], name="net")
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model.save(folder / "mine.keras")


def prune(folder: Path, name: str) -> int:
    where = [f"--keras={folder / 'mine.keras'}", f"--data={folder / 'mine.npz'}", f"--output={folder / name}.keras"]
    return command.dispatch(["prune", *where, "--density=0.3", "--epochs=6", "--batch_size=20", "--quiet"])


def of_run(folder: Path, name: str) -> dict[str, object]:
    """All that a run and its branches end with, and what was verified."""
    run = Run(folder / name)
    found = killed.contents(run)
    for branch in run.branches():
        found |= {f"{branch.name} {key}": value for key, value in killed.contents(branch).items()}
    return found | {path.name: path.read_bytes() for path in run.folder.rglob("verify/*/*")}


def of_model(folder: Path, name: str) -> dict[str, object]:
    """The weights of a pruned model, and what was measured at the end of each epoch."""
    import h5py

    found: dict[str, object] = {"epochs": json.loads((folder / f"{name}.json").read_text())["epochs"]}
    with zipfile.ZipFile(folder / f"{name}.keras") as file:
        held = h5py.File(io.BytesIO(file.read("model.weights.h5")))
    held.visititems(lambda path, part: found.update({path: part[()].tobytes()} if hasattr(part, "shape") else {}))
    return found


def main(folder: Path, wanted: int) -> None:
    rng, counts = random.Random(1), {}
    killed.run_until(functools.partial(make_model, folder), None)
    killed.run_until(functools.partial(find, folder, "trunk", "--levels=2"), None)
    kinds = {road: (functools.partial(find, folder), flags, of_run) for road, flags in ROADS.items()}
    kinds |= {"prune": (functools.partial(prune, folder), [], of_model)}
    kinds |= {"verify": (functools.partial(verify, folder), [], of_run)}
    for at, (kind, (work, flags, contents)) in enumerate(kinds.items()):
        share = wanted * (at + 1) // len(kinds) - wanted * at // len(kinds)
        if kind == "verify":
            shutil.copytree(folder / "trunk", folder / f"{kind}_whole")
        _, whole = killed.run_until(functools.partial(work, f"{kind}_whole", *flags), None)
        expected = contents(folder, f"{kind}_whole")
        kills, in_writes, lives = 0, 0, 0
        while kills < share:
            name, ended = f"{kind}_{lives}", False
            if kind == "verify":
                shutil.copytree(folder / "trunk", folder / name)
            while not ended:
                stop = kills < share
                write = rng.randrange(1, 25) if stop and kills % 2 else 0
                seconds = rng.uniform(0.2, 0.9) * whole if stop and not write else None
                was, _ = killed.run_until(functools.partial(work, name, *flags), seconds, write)
                kills, in_writes, ended = kills + was, in_writes + bool(was and write), not was
            found = contents(folder, name)
            for key in expected.keys() | found.keys():
                assert found.get(key) == expected.get(key), f"{name}: {key} differs"
            lives += 1
        counts[kind] = {"kills": kills, "in_writes": in_writes, "compared": lives, "parts": len(expected)}
        print(json.dumps({kind: counts[kind]}), flush=True)
    print(json.dumps({"kills": sum(count["kills"] for count in counts.values())}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
