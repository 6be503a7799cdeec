"""What all tests share: quiet TensorFlow, small models, and the data folder if there is one."""

import gc
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import pytest

collect_ignore = ["scripts", "warm.py"]  # for processes of their own, which they change

PREPARED = Path(__file__).parents[2] / "shared" / "data" / "tfds"
if PREPARED.is_dir():
    os.environ.setdefault("TFDS_DATA_DIR", str(PREPARED))


def pytest_collection_finish():
    """What is there before the first test is looked through once: a million objects, a fifth of a second each time otherwise."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def let_go():
    """What a module leaves behind is looked through once too."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture
def tfds_dir():
    """The folder of prepared TFDS data sets; tests that need MNIST or CIFAR-10 are skipped without one."""
    folder = os.environ.get("TFDS_DATA_DIR")
    if not folder or not (Path(folder) / "mnist").is_dir():
        pytest.skip("needs MNIST and CIFAR-10: point TFDS_DATA_DIR to prepared TFDS data")
    return folder


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def blobs():
    """300 points of 3 classes in 6 dimensions, (x, y): a problem that a small network learns in a moment."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, 300).astype("int32")
    centres = 2 * rng.normal(size=(3, 6))
    return (centres[y] + rng.normal(size=(300, 6))).astype("float32"), y


@pytest.fixture
def dense_net():
    """A function that builds a small dense network, the same for the same seed."""
    import keras

    def build(seed=0, units=16):
        glorot = [keras.initializers.GlorotNormal(seed=seed * 10 + i) for i in range(2)]
        return keras.Sequential(
            [
                keras.Input((6,)),
                keras.layers.Dense(units, "relu", kernel_initializer=glorot[0], name="hidden"),
                keras.layers.Dense(3, kernel_initializer=glorot[1], name="output"),
            ],
            name="net",
        )

    return build


@pytest.fixture
def forked_workers(monkeypatch):
    """Workers that do not load TensorFlow anew; how they begin without is tested in `runs/test_executor.py`."""
    import forked

    monkeypatch.setattr("multiprocessing.get_context", lambda kind: forked.Workers)
