"""Data sets: the papers' splits, and a sentence where a data set cannot be had."""

import hashlib

import numpy as np
import pytest

from tf_lottery import DataError
from tf_lottery.problems import data


def rows(x):
    return {hashlib.sha256(np.ascontiguousarray(row)).digest() for row in x}


def check(dataset, sizes, shape):
    parts = (dataset.train, dataset.validation, dataset.test)
    assert [len(y) for _, y in parts] == sizes and all(len(x) == len(y) for x, y in parts)
    assert dataset.input_shape == shape and dataset.classes == 10
    assert all(x.dtype == np.float32 and y.dtype == np.int32 and set(y) == set(range(10)) for x, y in parts)
    assert not rows(dataset.train[0]) & rows(dataset.validation[0])


def test_mnist1d_needs_no_network_and_repeats():
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    data._computed_mnist1d.cache_clear()
    dataset = data.load()
    check(dataset, [3_500, 500, 1_000], (40,))
    for own in (*dataset.train, *dataset.validation, *dataset.test):
        own[:] = 0  # what a caller does to its arrays is not seen by the next
    kept = data.load("mnist1d")
    check(kept, [3_500, 500, 1_000], (40,))
    data._computed_mnist1d.cache_clear()
    assert np.array_equal(kept.train[0], data.load("mnist1d").train[0])
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize(
    ("name", "sizes", "shape"),
    [("mnist", [55_000, 5_000, 10_000], (28, 28, 1)), ("cifar10", [45_000, 5_000, 10_000], (32, 32, 3))],
)
def test_the_papers_splits(name, sizes, shape, tfds_dir):
    dataset = data.load(name, tfds_dir)
    check(dataset, sizes, shape)
    assert dataset.train[0].min() == 0 and dataset.train[0].max() == 1


def test_unknown_names_list_the_known():
    with pytest.raises(DataError, match="mnist1d, mnist, fashion_mnist, cifar10 .* received 'minst'"):
        data.load("minst")


def test_a_data_set_that_cannot_be_had_says_what_to_do(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def no_network(self, **_):
        raise ConnectionError("Failed to resolve 'host'\nand a page more")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", no_network)
    with pytest.raises(DataError, match=r"tfds build fashion_mnist.*TFDS_DATA_DIR") as caught:
        data.load("fashion_mnist", tmp_path)
    assert "\n" not in str(caught.value)


def test_tf_data_is_read_into_arrays_and_what_cannot_be_is_refused():
    import tensorflow as tf

    x, y = np.arange(40, dtype="uint8").reshape(10, 4), np.arange(10, dtype="int64") % 2
    made = tf.data.Dataset.from_tensor_slices((x, y))
    found = data.Dataset(made, made.batch(3), (x.astype("float32"), y.astype("int32")), 2)
    for inputs, labels in (found.train, found.validation):
        assert inputs.dtype == np.float32 and labels.dtype == np.int32
        assert np.array_equal(inputs, x.astype("float32") / 255) and np.array_equal(labels, y)
    assert found.input_shape == (4,) and np.array_equal(found.test[0], x)
    for bad, said in (
        (made.repeat(), "repeats for ever"),
        (made.shuffle(10), "the same examples in train each time, but received others"),
        (made.take(0), "but received none"),
        (made.map(lambda x, y: x), "pairs"),
        (made.map(lambda x, y: (x, tf.one_hot(y, 2))), "a label"),
    ):
        with pytest.raises(DataError, match=said):
            data.Dataset(bad, bad, bad, 2)
