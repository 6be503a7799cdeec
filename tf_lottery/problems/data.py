"""Data sets, cut into training, validation and test sets as the papers cut them.

`mnist1d` is computed, without a network; every other name is a classification data set of TensorFlow Datasets.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import socket
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tf_lottery.base.errors import DataError
from tf_lottery.base.hints import did_you_mean
from tf_lottery.base.quiet import only_errors_of
from tf_lottery.base.registry import Registry

registry = Registry("data set", "tf_lottery.datasets")
given: dict[str, str] = {}  # the data folders that this process was given, by data set


@dataclass(frozen=True)
class Dataset:
    """Three pairs (x, y): inputs float32 (N, ...), images in [0, 1]; labels int32 (N,).

    In the place of a pair a `tf.data.Dataset` of pairs, batched or not, is read into arrays: images of 8 bits are scaled to [0, 1]. It
    has to give the same in each process, so without a shuffle, or with one that has a seed.

    Raises:
      DataError: If a `tf.data.Dataset` gives something else, or other examples each time.
    """

    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    classes: int

    def __post_init__(self):
        for name in ("train", "validation", "test"):
            if hasattr(part := getattr(self, name), "element_spec"):
                object.__setattr__(self, name, _read(part, name))

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.train[0].shape[1:]


def names() -> list[str]:
    """The data sets that are known by name: the registered ones, and those of TFDS that come with the papers' splits."""
    return [*registry, "mnist", "fashion_mnist", "cifar10"]


def load(name: str = "mnist1d", data_dir: str | os.PathLike | None = None) -> Dataset:
    """Loads a data set.

    The validation set is drawn from the training set, always the same examples: 500 of MNIST-1D's 4,000, and 5,000 of
    MNIST, Fashion-MNIST and CIFAR-10 (Frankle & Carbin, 2019); of others a tenth, unless they bring one.

    Inputs are float32, labels int32. Images of 8 bits are scaled from 0..255 to [0, 1]; the values of other inputs stay as they are. A
    model that rescales its inputs itself needs data of its own.

    Args:
      name: `"mnist1d"`, or the name of a TFDS classification data set whose images have one size.
      data_dir: Where TFDS data are prepared; by default `$TFDS_DATA_DIR`, else TFDS's own folder.

    Raises:
      DataError: If the data set is unknown or cannot be had; the message says what to do.

    Examples:

    >>> load("mnist1d").train[0].shape
    (3500, 40)
    """
    known = isinstance(name, str) and name in registry
    if not known and (
        not isinstance(name, str) or not re.fullmatch(r"\w+", name, re.ASCII)
    ):  # a stranger's ticket may name it
        raise DataError(
            f"Expected {', '.join(names())} or the plain name of another data set of TFDS, without a path or prefix, but received {name!r:.80}."
        )
    if data_dir is not None:
        if not Path(data_dir).is_dir():
            raise DataError(
                f"Expected data_dir to be the folder of prepared data sets, but there is none at {os.fspath(data_dir)!r}: nothing is made "
                "or fetched there."
            )
        given[name] = os.fspath(data_dir)
    if known:
        return registry[name]()
    return _from_tfds(name, data_dir)


@registry.register
def mnist1d() -> Dataset:
    """MNIST-1D (Greydanus & Kobak, arXiv 2011.14439) with its default arguments: 40 features, 10 classes."""
    data = _computed_mnist1d()
    train = data["x"].astype(np.float32), data["y"].astype(np.int32)
    test = data["x_test"].astype(np.float32), data["y_test"].astype(np.int32)
    return _with_validation(train, test, 500, classes=10)


@functools.cache  # a second and more of computing; `mnist1d` returns copies
def _computed_mnist1d() -> dict:
    from mnist1d.data import get_dataset_args, make_dataset

    with _numpy_state_kept():  # the package seeds NumPy's global generator
        return make_dataset(get_dataset_args())


def _from_tfds(name: str, data_dir: str | os.PathLike | None) -> Dataset:
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    if data_dir is None and (data_dir := os.environ.get("TFDS_DATA_DIR")) and not Path(data_dir).is_dir():
        raise DataError(
            f"Expected TFDS_DATA_DIR to be the folder of prepared data sets, but there is none at {data_dir!r}."
        )
    try:
        with only_errors_of("absl"):  # of folders that are not finished
            builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        hint = did_you_mean(name, names()) or did_you_mean(name, tfds.list_builders(with_community_datasets=False))
        raise DataError(
            f"Expected {', '.join(names())} or another data set of TFDS, but received {name!r}.{hint}"
        ) from None
    if not builder.is_prepared():
        command = f"tfds build {name}" + (f" --data_dir={os.fspath(data_dir)}" if data_dir else "")
        if (host := _out_of_reach(builder)) is not None:
            raise DataError(
                f"Expected {name!r} prepared in {builder.data_dir}, or a network to fetch it, but {host} is out of reach: run "
                f"`{command}` where there is a network, and point --data_dir or TFDS_DATA_DIR to the result."
            )
        print(f"{name} is not prepared in {builder.data_dir}; fetching it, which takes minutes", file=sys.stderr)
    try:
        # TFDS says on stdout what it fetches, and without a network tries for minutes: its page of warnings says no more than the
        # error at the end.
        with contextlib.redirect_stdout(sys.stderr), only_errors_of("urllib3"):
            builder.download_and_prepare()
    except Exception as error:  # whatever the download raises, the way out is the same
        reason = str(error).strip().partition("\n")[0][:120]
        raise DataError(
            f"Expected {name!r} prepared in {builder.data_dir} or a network to fetch it ({type(error).__name__}: {reason}): "
            f"run `tfds build {name}` where there is a network and point --data_dir or TFDS_DATA_DIR to the result."
        ) from None
    if not builder.info.supervised_keys or "test" not in builder.info.splits:
        raise DataError(f"Expected a classification data set with a test split, but {name!r} is not one.")
    sets = {}
    for split in {"train", "validation", "test"} & set(builder.info.splits):
        try:
            x, y = tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1, as_supervised=True))
        except (ValueError, TypeError) as error:
            raise DataError(
                f"Expected a data set whose inputs have one shape, but {name!r} has not ({error})."
            ) from None
        sets[split] = x.astype(np.float32) / (255 if x.dtype == np.uint8 else 1), y.astype(np.int32)
    classes = int(sets["train"][1].max()) + 1
    if "validation" in sets:
        return Dataset(**sets, classes=classes)
    size = len(sets["train"][1]) // 10
    return _with_validation(sets["train"], sets["test"], min(5_000, size), classes)


def _read(dataset, part: str) -> tuple[np.ndarray, np.ndarray]:
    """A `tf.data.Dataset` as a pair of arrays."""
    if not isinstance(dataset.element_spec, tuple) or len(dataset.element_spec) != 2:
        raise DataError(f"Expected pairs (x, y) in {part}, but received {dataset.element_spec}.")
    if dataset.cardinality() < -1 or dataset.cardinality() >= 0:
        read = list(dataset.as_numpy_iterator())
    else:
        raise DataError(f"Expected a data set that ends as {part}, but received one that repeats for ever.")
    again = zip(read, dataset.as_numpy_iterator(), strict=True)
    if not read or not all(np.array_equal(a, b) for one, other in again for a, b in zip(one, other)):
        raise DataError(
            f"Expected the same examples in {part} each time, but received {'others' if read else 'none'}: shuffle with a seed and "
            "reshuffle_each_iteration=False, or not at all, training does it."
        )
    join = np.concatenate if np.ndim(read[0][1]) else np.stack
    try:
        x, y = (join(values) for values in zip(*read))
    except ValueError as error:
        raise DataError(f"Expected inputs of one shape in {part}, but received others ({error}).") from None
    if y.ndim != 1 or y.dtype.kind not in "iu" or x.dtype.kind not in "fiu":
        raise DataError(
            f"Expected numbers and a label, a whole number, for each in {part}, but received {x.dtype} {x.shape} and {y.dtype} {y.shape}."
        )
    return x.astype(np.float32) / (255 if x.dtype == np.uint8 else 1), y.astype(np.int32)


def _with_validation(train, test, size: int, classes: int) -> Dataset:
    order = np.random.default_rng(0).permutation(len(train[1]))
    chosen, rest = np.sort(order[:size]), np.sort(order[size:])
    return Dataset(tuple(a[rest] for a in train), tuple(a[chosen] for a in train), test, classes)


def flip_and_crop(x, seed):
    """Random flips and shifts by up to 4 pixels, one for each image: the augmentation of Frankle & Carbin for CIFAR-10.

    Args:
      x: Images (N, height, width, channels), a tensor.
      seed: int32 tensor (2,).
    """
    import tensorflow as tf

    count, height, width = tf.shape(x)[0], x.shape[1], x.shape[2]
    draws = tf.random.stateless_uniform((2, count), seed, 0, 9, tf.int32, alg="philox")
    flips = tf.random.stateless_uniform((count, 1, 1, 1), seed + 1, alg="philox") < 0.5
    x = tf.where(flips, tf.reverse(x, [2]), x)
    x = tf.pad(x, [[0, 0], [4, 4], [4, 4], [0, 0]])
    x = tf.gather(x, draws[0][:, None] + tf.range(height), axis=1, batch_dims=1)
    return tf.gather(x, draws[1][:, None] + tf.range(width), axis=2, batch_dims=1)


def _out_of_reach(builder, seconds: float = 5.0) -> str | None:
    """The host that a data set is fetched from, if it cannot be reached, or the proxy of this machine in its place."""
    url = next(iter(getattr(builder, "url_infos", None) or ()), None)
    if url is None:  # not known beforehand
        return None
    parts = urllib.parse.urlsplit(url)
    if (proxy := urllib.request.getproxies().get(parts.scheme)) and not urllib.request.proxy_bypass(
        parts.hostname or ""
    ):
        parts = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}")
    host = parts.hostname or ""
    try:
        port = parts.port or {"http": 80, "ftp": 21}.get(parts.scheme, 443)
        socket.create_connection((host, port), timeout=seconds).close()
    except (OSError, ValueError):
        return host
    return None


@contextlib.contextmanager
def _numpy_state_kept() -> Iterator[None]:
    state = np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
