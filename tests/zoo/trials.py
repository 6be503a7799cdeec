"""What each model of the zoo goes through, and what became of it.

A trial is a function of a `Visit`, which holds the model and what earlier trials made. It returns nothing if all holds; what is refused
raises an error of the library, and what is wrong an `AssertionError` with numbers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from specimens import PACKAGES, Specimen

import tf_lottery as tfl

TRIALS: dict[str, Callable[[Visit], None]] = {}
FRESH = """
import importlib, json, sys
import keras, numpy as np
import tf_lottery as tfl
importlib.import_module(sys.argv[4])
inside = vars(importlib.import_module(sys.argv[5]))  # kimm registers none of its models, and the examples none of theirs
own = {name: kind for name, kind in inside.items() if name == sys.argv[6] or sys.argv[4] == "own_steps"}
model = keras.models.load_model(sys.argv[1], custom_objects=own)
with np.load(sys.argv[2]) as given:
    inputs = [given[f"arr_{i}"] for i in range(len(given.files))]
names = json.loads(sys.argv[7])  # None of one array, True of a list of them, or the keys of a dictionary in order
x = inputs[0] if names is None else inputs if names is True else dict(zip(names, inputs))
outputs = keras.tree.map_structure(np.asarray, model(x, training=False))
np.savez(sys.argv[3], *keras.tree.flatten(outputs), masks=sum(int(mask.sum()) for mask in tfl.get_masks(model).values()))
"""


class Visit:
    """One model with its data, on its way through the trials."""

    def __init__(self, specimen: Specimen, folder: Path):
        self.specimen, self.folder = specimen, folder
        self.x = specimen.inputs(np.random.default_rng(0))
        self.model = self.fresh(1)
        rng = np.random.default_rng(1)
        if specimen.targets:
            self.y = specimen.targets(rng)
        else:
            self.y = keras.tree.map_structure(
                lambda out: rng.normal(size=out.shape).astype("float32"), self.predicted(self.model)
            )
        self.masked: Any = None
        self.tickets: list[tfl.Ticket] = []

    def fresh(self, seed: int) -> keras.Model:
        keras.utils.set_random_seed(seed)
        model = self.specimen.build()
        model(self.x)
        return model

    def predicted(self, model):
        return keras.tree.map_structure(np.asarray, model(self.x, training=False))

    def compile(self, model) -> None:
        keras.utils.set_random_seed(2)
        if self.specimen.compile:
            self.specimen.compile(model)
            return
        loss = keras.tree.map_structure(lambda _: "mse", self.y)
        model.compile(
            keras.optimizers.SGD(1e-3), loss=loss, metrics=[], weighted_metrics=[]
        )  # tasks have metrics of their own

    def losses(self, model) -> list[float]:
        """Of some steps on the one batch."""
        keras.utils.set_random_seed(3)
        return next(iter(self.fit(model, epochs=3).values()))

    def fit(self, model, **options) -> dict[str, list[float]]:
        """The history of the loss and the metrics, on the one batch."""
        return model.fit(self.x, self.y, batch_size=16, shuffle=False, verbose=0, **options).history


def trial(function):
    TRIALS[function.__name__] = function
    return function


def same(found, expected, rtol: float = 1e-4) -> None:
    """Outputs that differ by no more than a share of the largest one."""
    for a, b in zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True):
        a, b = np.asarray(a, "float32"), np.asarray(b, "float32")
        assert a.shape == b.shape, f"shape {a.shape} instead of {b.shape}"
        off = np.abs(a - b).max() / max(np.abs(b).max(), 1e-6)
        assert off <= rtol, f"outputs differ by {off:.2g} of the largest"


@trial
def wrap(visit: Visit) -> None:
    """The wrapped model has the outputs of the plain one, and trains as Keras trains it."""
    model, expected = visit.model, visit.predicted(visit.model)
    start = [np.array(variable) for variable in model.variables]
    visit.compile(model)
    plain = visit.losses(model)
    for variable, value in zip(model.variables, start, strict=True):
        variable.assign(value)
    visit.masked = tfl.wrap(model)
    same(visit.predicted(visit.masked), expected, 1e-6)
    visit.compile(visit.masked)
    wrapped = visit.losses(visit.masked)
    assert np.allclose(plain, wrapped, rtol=1e-3), f"losses {wrapped} instead of {plain}"


@trial
def prune(visit: Visit) -> None:
    """Half of each kernel stays, by count, and the outputs are finite."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tfl.prune(visit.masked, 0.5)
    for path, mask in tfl.get_masks(visit.masked).items():
        assert mask.sum() == max(round(0.5 * mask.size), 1), f"{path} keeps {mask.mean():.3f}"
    assert all(np.isfinite(out).all() for out in keras.tree.flatten(visit.predicted(visit.masked)))


@trial
def fit(visit: Visit) -> None:
    """Something is learnt, and pruned weights are exactly zero."""
    before = [np.array(variable) for variable in visit.masked.trainable_variables]
    history = visit.fit(visit.masked, epochs=2)
    assert all(np.isfinite(values).all() for values in history.values()), f"history {history}"
    moved = [not np.array_equal(a, np.array(b)) for a, b in zip(before, visit.masked.trainable_variables)]
    assert np.mean(moved) > 0.5, f"{np.mean(moved):.2f} of the variables moved"
    _zeros(visit)


def _zeros(visit: Visit) -> None:
    masks = tfl.get_masks(visit.masked)
    for variable in visit.masked.inner.trainable_variables:
        if variable.path in masks:
            assert not np.asarray(variable)[masks[variable.path] == 0].any(), f"pruned weights of {variable.path} moved"


@trial
def find(visit: Visit) -> None:
    """One level of a search: a fifth of what is left goes, and the survivors are rewound."""

    def train(model, callbacks):
        return {name: values[-1] for name, values in visit.fit(model, callbacks=callbacks).items()}

    visit.tickets = list(tfl.find_ticket(visit.masked, train, levels=1))
    dense, ticket = visit.tickets
    assert abs(ticket.density / dense.density - 0.8) < 0.01, f"density {ticket.density:.3f} after {dense.density:.3f}"
    for path, mask in ticket.masks.items():
        assert np.array_equal(ticket.initial[path], dense.initial[path] * mask), f"{path} is not rewound"
    _zeros(visit)


@trial
def save(visit: Visit) -> None:
    """A `.keras` file gives the same outputs and masks in a fresh process."""
    file, given, found = visit.folder / "m.keras", visit.folder / "x.npz", visit.folder / "found.npz"
    visit.masked.save(file)
    np.savez(given, *keras.tree.flatten(visit.x))
    names = json.dumps(sorted(visit.x) if isinstance(visit.x, dict) else True if isinstance(visit.x, list) else None)
    kind = type(visit.model).__module__, type(visit.model).__name__
    if visit.specimen.source == "examples":
        kind = "own_steps", kind[1]
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(file), str(given), str(found), PACKAGES[visit.specimen.source], *kind, names],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    if done.returncode:
        raise RuntimeError(f"the file does not load: {done.stderr.strip().splitlines()[-1]}")
    with np.load(found) as loaded:
        kept = sum(int(mask.sum()) for mask in tfl.get_masks(visit.masked).values())
        assert int(loaded["masks"]) == kept, f"{int(loaded['masks'])} weights are kept instead of {kept}"
        expected = keras.tree.flatten(visit.predicted(visit.masked))
        same([loaded[f"arr_{i}"] for i in range(len(expected))], expected)


@trial
def ticket(visit: Visit) -> None:
    """A ticket file put on a model built anew gives the same outputs."""
    file = visit.folder / "m.ticket"
    visit.tickets[-1].save(file)
    other = tfl.Ticket.load(file).apply(visit.fresh(7), weights="final")
    same(visit.predicted(other), visit.predicted(visit.masked))


@trial
def strip(visit: Visit) -> None:
    """The plain model has the same outputs, and its zeros."""
    expected, masks = visit.predicted(visit.masked), tfl.get_masks(visit.masked)
    plain = tfl.strip(visit.masked)
    assert not isinstance(plain, tfl.MaskedModel)
    same(visit.predicted(plain), expected, 1e-6)
    for variable in plain.variables:
        if variable.path in masks:
            assert not np.asarray(variable)[masks[variable.path] == 0].any(), variable.path


@trial
def saved_model(visit: Visit) -> None:
    """A SavedModel serves the same outputs."""
    tfl.export.saved_model(visit.masked, visit.folder / "served")
    loaded = tf.saved_model.load(str(visit.folder / "served"))
    x = visit.x
    if isinstance(x, dict) and not isinstance(getattr(visit.model, "input", x), dict):
        x = [x[tensor.name] for tensor in visit.model.inputs]  # a list of inputs that Keras lets be given by name
    same(loaded.serve(keras.tree.map_structure(tf.constant, x)), visit.predicted(visit.masked))


@trial
def tflite(visit: Visit) -> None:
    """A TFLite file that LiteRT ran has outputs near those of Keras; `export.tflite` compares them itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tfl.export.tflite(visit.masked, visit.folder / "m.tflite", visit.x)


@trial
def compact(visit: Visit) -> None:
    """What is left after whole channels went computes the same."""
    expected = visit.predicted(visit.masked)
    small = tfl.compact(visit.masked).model
    same(visit.predicted(small), expected, 1e-3)


NEEDS = {name: ("wrap", "prune") for name in TRIALS if name not in ("wrap", "prune")} | {
    "prune": ("wrap",),
    "ticket": ("find",),
    "wrap": (),
}


def run(specimen: Specimen) -> dict[str, str]:
    """What became of each trial: `"holds"`, `"refused: ..."`, `"wrong: ..."`, `"fails: ..."` or `"not tried"`."""
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        visit = Visit(specimen, Path(folder))
        for name, function in TRIALS.items():
            if any(found[needed].startswith(("wrong", "fails", "not")) for needed in NEEDS[name]):
                found[name] = "not tried"
                continue
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    function(visit)
                found[name] = "holds"
            except AssertionError as error:
                found[name] = f"wrong: {_short(error)}"
            except (tfl.LotteryError, tfl.ExportError) as error:
                found[name] = f"refused: {_short(error)}"
            except Exception as error:  # whatever a model that nobody here wrote raises
                found[name] = f"fails: {type(error).__name__}: {_short(error)}"
    keras.backend.clear_session()
    return found


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
