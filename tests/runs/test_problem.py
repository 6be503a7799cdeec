"""The model and the trainer that settings describe."""

import forked
import pytest

from tf_lottery.base.errors import LotteryError
from tf_lottery.masking.distribution import Replicas
from tf_lottery.problems import data
from tf_lottery.runs import problem
from tf_lottery.runs.results import Run
from tf_lottery.runs.settings import Settings
from tf_lottery.training import loop


@pytest.fixture
def gpu(monkeypatch):
    """TensorFlow says that there is a GPU, and notes that its deterministic operations were asked for."""
    asked = []
    monkeypatch.setattr(loop.tf.config, "list_physical_devices", lambda kind: [kind])
    monkeypatch.setattr(problem.tf.config.experimental, "enable_op_determinism", lambda: asked.append(True))
    return asked


@pytest.mark.parametrize("word", ["criterion", "survivors", "pruned", "scope", "reset"])
def test_words_that_are_none_are_refused_with_the_settings(word):
    with pytest.raises(LotteryError, match="Expected .*, but received 'magnitud'"):
        Settings(**{word: "magnitud"}).resolved()


@pytest.mark.parametrize("fraction", [20, 0, {"output": 0, "Dense": 1}])
def test_a_share_that_is_none_is_refused_with_the_settings(fraction):
    with pytest.raises(LotteryError, match=r"Expected prune_fraction, .*, in \(0, 1\), but received"):
        Settings(prune_fraction=fraction).resolved()


@pytest.mark.parametrize(
    ("model", "shape", "deterministic", "compiled"),
    [
        ("lenet_300_100", (28, 28, 1), False, True),
        ("lenet_300_100", (28, 28, 1), True, True),  # it repeats itself all the same
        ("conv2", (32, 32, 3), False, True),
        ("conv2", (32, 32, 3), True, False),
    ],
)
def test_what_a_gpu_compiles(gpu, rng, model, shape, deterministic, compiled):
    part = (rng.random((100, *shape), dtype="float32"), rng.integers(0, 10, 100).astype("int32"))
    settings = problem.resolved(Settings(model, deterministic=deterministic, precision="float32"))
    net, trainer = problem.of_replicate(settings, data.Dataset(part, part, part, classes=10), 0)
    assert loop._compiles(trainer.jit_compile, net, Replicas(None), varies=False) is compiled
    assert bool(gpu) is deterministic


def test_on_a_cpu_deterministic_operations_change_nothing(tmp_path):
    words = ["--levels=1", "--steps=30", "--eval_every=10", "--replicates=1", "--quiet", f"--results_dir={tmp_path}"]
    for name, flag in (("plain", []), ("switched", ["--deterministic"])):
        forked.run(["find", *words, f"--name={name}", *flag], check=True)
    one, two = (Run(tmp_path / name) for name in ("plain", "switched"))
    assert (one.settings()["deterministic"], two.settings()["deterministic"]) == (False, True)
    first, second = (run.ticket(0, 1).final for run in (one, two))
    assert first and all((first[path] == value).all() for path, value in second.items())


def test_functions_of_a_plugin_are_tried_before_a_training():
    def wants_another(initial, final, *, seed):
        return final

    with pytest.raises(LotteryError, match=r"criterion wants_another to return scores, but it raised TypeError"):
        problem.resolved(Settings(criterion=wants_another))
    with pytest.raises(LotteryError, match=r"survivors treatment total to return values of shape"):
        problem.resolved(Settings(survivors=total))


def total(initial, final, *, mask, rng, draw, scale):
    return initial.sum()
