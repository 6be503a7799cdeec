"""The examples of `tf-lottery prune`: a data set by name, an .npz file of arrays, or what a function of one's own returns."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tf_lottery.base import guard
from tf_lottery.base.errors import DataError, LotteryError

HELD_OUT = 0.1  # of the training examples, where there are no others to measure on
KEYS = ("x", "y", "x_validation", "y_validation", "x_test", "y_test")


@dataclass(frozen=True)
class Sets:
    """What to train on and what to measure on, each as `fit` and `evaluate` take it.

    Attributes:
      train: `(x, y)` of arrays, or a data set.
      test: What before and after are measured on.
      measured_on: What that is, in words.
      validation: What is measured after each epoch, or None.
    """

    train: Any
    test: Any
    measured_on: str
    validation: Any = None


@dataclass(frozen=True)
class Origin:
    """Where the examples come from; that it is there was seen before TensorFlow is loaded.

    Attributes:
      name: What the data are called.
      identity: What tells these data from others, as far as one can tell without loading TensorFlow.
      load: `seed` -> the sets.
    """

    name: str
    identity: str
    load: Callable[[int], Sets]


def origin(dataset: str | None, data: str | None, data_dir: str | None, plugins: Sequence[str]) -> Origin | None:
    """Where the examples are to come from, by the flags; None if these name none.

    Raises:
      LotteryError: If they name two, or one that is not there or has not the form.
    """
    if dataset and data:
        raise LotteryError(f"Expected either --dataset or --data, but received {dataset!r} and {data!r}.")
    if dataset:
        return Origin(dataset, dataset, lambda seed: _of_name(dataset, data_dir))
    if not data:
        return None
    if data.endswith(".npz"):
        arrays = _arrays_in(data)
        return Origin(Path(data).name, guard.digest(data), lambda seed: _held_out(arrays, seed))
    function = _function(data, plugins)
    files = [guard.digest(plugin) for plugin in plugins if plugin.endswith(".py")]
    return Origin(data, " ".join([data, *files]), lambda seed: _returned(function, data, seed))


def _of_name(name: str, data_dir: str | None) -> Sets:
    from tf_lottery.problems import data

    found = data.load(name, data_dir)
    return Sets(found.train, found.test, "the test set", found.validation)


def _arrays_in(path: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The pairs of inputs and targets in an .npz file, by set."""
    try:
        with np.load(path, allow_pickle=False) as file:
            names = file.files
            arrays = {name: file[name] for name in KEYS if name in names}
    except FileNotFoundError:
        raise DataError(f"Expected an .npz file with arrays x and y, but there is none at {path!r}.") from None
    except Exception as error:  # NumPy raises half a dozen kinds
        raise DataError(f"Expected an .npz file with arrays x and y, but {path!r} is not one ({error}).") from None
    pairs = {}
    for kind in ("", "_validation", "_test"):
        pair = [arrays.get(f"{part}{kind}") for part in "xy"]
        if not kind and None in [None if array is None else 0 for array in pair]:
            raise DataError(
                f"Expected an .npz file with arrays x and y, and if there are any x_validation, y_validation, x_test and y_test, but "
                f"{path!r} has {', '.join(names) or 'none'}."
            )
        if pair[0] is None and pair[1] is None:
            continue
        if pair[0] is None or pair[1] is None or len(pair[0]) != len(pair[1]) or not len(pair[0]):
            told = " and ".join("none" if array is None else str(len(array)) for array in pair)
            raise DataError(f"Expected as many inputs x{kind} as targets y{kind} in {path!r}, but received {told}.")
        pairs[kind.removeprefix("_") or "train"] = (pair[0], pair[1])
    return pairs


def _held_out(pairs: Mapping[str, tuple], seed: int) -> Sets:
    """The sets of arrays; where there is only one, a tenth of it is held out."""
    train, validation = pairs["train"], pairs.get("validation")
    if "test" in pairs:
        return Sets(train, pairs["test"], "the test set", validation)
    if validation:
        return Sets(train, validation, "the validation set", validation)
    import keras

    count = len(keras.tree.flatten(train)[0])
    if (held := round(HELD_OUT * count)) < 1:
        raise DataError(
            f"Expected at least 10 examples, of which a tenth is held out to measure on, but received {count}."
        )
    order = np.random.default_rng([seed, 6]).permutation(count)

    def part(rows: np.ndarray) -> Any:
        return keras.tree.map_structure(lambda array: array[np.sort(rows)], train)

    left_out = part(order[:held])
    return Sets(part(order[held:]), left_out, f"{held:,} of the {count:,} examples, which were held out", left_out)


def _function(name: str, plugins: Sequence[str]) -> Callable:
    modules = [sys.modules.get(Path(plugin).stem if plugin.endswith(".py") else plugin) for plugin in plugins]
    found = [value for module in modules if callable(value := getattr(module, name, None))]
    if not found:
        raise LotteryError(
            f"Expected --data as an .npz file, or as the name of a function in a --plugin that returns the data, but received {name!r}, "
            + (f"and {', '.join(plugins)} has no such function." if plugins else "and there is no --plugin.")
        )
    return found[0]


def _returned(function: Callable, name: str, seed: int) -> Sets:
    """The sets that a function of one's own returns: data, or a mapping of data by set."""
    try:
        data = function()
    except Exception as error:  # it is somebody else's
        raise DataError(f"Expected data from {name}(), but it failed ({type(error).__name__}: {error}).") from error
    sets = data if isinstance(data, Mapping) else {"train": data}
    if "train" not in sets or not set(sets) <= {"train", "validation", "test"}:
        raise DataError(
            f"Expected {name}() to return data, or a dict with train, validation and test, but it has {', '.join(map(str, sets))}."
        )
    if all(isinstance(part, tuple) for part in sets.values()):
        return _held_out(sets, seed)
    for kind, words in (("test", "the test set"), ("validation", "the validation set")):
        if kind in sets:
            return Sets(sets["train"], sets[kind], words, sets.get("validation"))
    return Sets(sets["train"], sets["train"], "the training data, since there are no others")
