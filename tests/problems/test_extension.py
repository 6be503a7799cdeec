"""Names from outside: contracts that any function can be held to, entry points of installed packages, plugins."""

import os
import subprocess
import sys

import forked
import numpy as np
import pytest

import tf_lottery as tfl
from tf_lottery.base.errors import LotteryError
from tf_lottery.base.registry import import_plugin
from tf_lottery.problems import contracts, data, models
from tf_lottery.rules import criteria, treatments

CHECKS = {
    contracts.check_criterion: criteria.registry,
    contracts.check_survivors: treatments.survivors_registry,
    contracts.check_pruned: treatments.pruned_registry,
    contracts.check_model: models.registry,
    contracts.check_dataset: data.registry,
}


@pytest.mark.parametrize(
    ("check", "name"),
    [(c, name) for c, names in CHECKS.items() for name in names],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_what_is_registered_keeps_its_contract(check, name):
    check(name)


def spoils(initial, final, *, rng):
    initial[:] = 0
    return final


def peeks(initial, final, *, rng):
    return final


peeks.needs = criteria.Needs(trained=False)

BROKEN = [
    (contracts.check_criterion, lambda initial, final, *, rng: final[0], "return scores of shape (4, 3, 2), but received shape (3, 2)"),
    (contracts.check_criterion, lambda initial, final, *, rng: final / 0 * 0, "scores without NaN, but received NaN"),
    (contracts.check_criterion, lambda initial, final, *, rng: np.random.normal(size=final.shape), "the same scores"),  # noqa: NPY002
    (contracts.check_criterion, spoils, "leave its arguments as they are"),
    (contracts.check_criterion, peeks, "not to look at trained weights"),
    (contracts.check_survivors, lambda initial, final, **_: initial.ravel(), "values of shape (4, 3, 2)"),
    (contracts.check_survivors, lambda initial, final, *, mask, **_: np.multiply(mask, 0, out=mask), "leave its arguments"),
    (contracts.check_pruned, lambda start, initial, final, *, mask, rng: start * np.nan, "values without NaN"),
    (contracts.check_model, lambda input_shape=(4,), classes=2, seed=0: None, "to have defaults"),
    (contracts.check_dataset, lambda: 3, "to be a tf_lottery.data.Dataset, but received int"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:(divide|invalid)")
@pytest.mark.parametrize(("check", "function", "says"), BROKEN, ids=[says[:30] for *_, says in BROKEN])
def test_what_breaks_its_contract_is_told(check, function, says):
    with pytest.raises(LotteryError) as error:
        check(function)
    assert says in str(error.value)


def test_a_models_contract():
    import keras

    def unseeded(input_shape=(4,), classes=2, seed=0):
        return keras.Sequential([keras.Input(input_shape), keras.layers.Dense(classes, kernel_initializer="zeros")])

    def without_kernels(input_shape=(4,), classes=2, seed=0):
        return keras.Sequential([keras.Input(input_shape), keras.layers.ReLU()])

    for build, says in ((unseeded, "other weights for another seed"), (without_kernels, "kernels to prune")):
        build.preset = models.Preset("mnist1d", 10, 10, 0.1, prune_fraction=0.2)
        with pytest.raises(LotteryError, match=says):
            contracts.check_model(build)


def test_a_data_sets_contract():
    x, y = np.zeros((4, 3), np.float32), np.arange(4, dtype=np.int32)

    def made(train=(x, y), classes=4):
        return lambda: data.Dataset(train, (x, y), (x, y), classes)

    contracts.check_dataset(made())
    for load, says in (
        (made((x, y.astype(float))), "float32 inputs and int32 labels in train, but received float32 and float64"),
        (made((x, y[:2])), "a label for each input"),
        (made((x[:, :2], y)), "inputs of shape (2,) in validation"),
        (made(classes=3), "labels from 0 to 2"),
        (made((x * np.nan, y)), "finite inputs"),
    ):
        with pytest.raises(LotteryError) as error:
            contracts.check_dataset(load)
        assert says in str(error.value)


PLUGIN = """
import numpy as np
import tf_lottery as tfl

@tfl.criteria.register
def far_from_home(initial, final, *, rng):
    return np.abs(final - initial) * (1 + np.abs(initial))

@tfl.treatments.survivors
def doubled(initial, final, **_):
    return 2 * initial

@tfl.models.register(tfl.models.Preset("three_clouds", steps=200, batch_size=10, learning_rate=0.01, prune_fraction=0.5, levels=1))
def tiny(input_shape=(2,), classes=3, seed=0):
    import keras
    start = keras.initializers.GlorotNormal(seed)
    return keras.Sequential([keras.Input(input_shape), keras.layers.Dense(16, "relu", kernel_initializer=start), keras.layers.Dense(classes)])

@tfl.data.registry.register
def three_clouds():
    rng = np.random.default_rng(0)
    y = np.arange(300, dtype=np.int32) % 3
    corners = np.array([[2, 0], [-1, 2], [-1, -2]])
    x = (corners[y] + 0.2 * rng.normal(size=(300, 2))).astype(np.float32)
    return tfl.data.Dataset((x[:200], y[:200]), (x[200:250], y[200:250]), (x[250:], y[250:]), 3)
"""


def lottery(*argv, path=None):
    env = {**os.environ, **({"PYTHONPATH": str(path)} if path else {})}
    command = [sys.executable, "-m", "tf_lottery.bin.main", *argv]
    return subprocess.run(command, capture_output=True, text=True, env=env)


def test_a_file_of_ones_own_adds_everything_a_search_needs(tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(PLUGIN)
    names = ["--criterion=far_from_home", "--survivors=doubled", "--model=tiny"]
    run = [f"--results_dir={tmp_path}", "--replicates=1", "--quiet", f"--plugin={plugin}"]
    done = forked.run(["find", *run, *names])
    assert done.returncode == 0, done.stderr
    ticket = tfl.Ticket.load(tmp_path / "tiny" / "replicate_0" / "level_01" / "level.ticket")
    assert (ticket.found["criterion"], ticket.found["survivors"]) == ("far_from_home", "doubled")
    assert ticket.metrics["final_test_accuracy"] > 0.9
    assert "far_from_home" in lottery("find", f"--plugin={plugin}", "--help").stdout
    assert "received 'tiny'" in lottery("find", *run[:3], *names).stderr  # without the plugin nobody knows it


def test_a_plugin_can_import_its_neighbours(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "a_neighbour.py").write_text("answer = 42")
    (tmp_path / "asks_its_neighbour.py").write_text("from a_neighbour import answer")
    import_plugin(str(tmp_path / "asks_its_neighbour.py"))
    assert sys.modules["asks_its_neighbour"].answer == 42


def test_plugins_that_fail_are_told_in_one_sentence(tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("import no_such_module_at_all")
    for plugin, reason in (
        (str(broken), "ModuleNotFoundError"),
        ("no.such.plugin", "ModuleNotFoundError"),
        ("gone.py", "FileNotFoundError"),
    ):
        with pytest.raises(LotteryError, match=f"Expected a plugin that can be imported.*{reason}"):
            import_plugin(plugin)
    assert "broken" not in sys.modules
    done = lottery("find", "--plugin")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "Missing value" in done.stderr


@pytest.fixture
def installed(tmp_path):
    """A folder with an installed package that adds a criterion, and one that claims to."""
    (tmp_path / "lottery_extras.py").write_text("def weighty(initial, final, *, rng):\n    return final**2\n")
    info = tmp_path / "lottery_extras-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lottery-extras\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[tf_lottery.criteria]\nweighty = lottery_extras:weighty\nlost = lottery_extras:no_such_function\n"
    )
    return tmp_path


def test_installed_packages_add_names(installed):
    code = """
import tf_lottery as tfl
print("weighty" in tfl.criteria.registry, "lottery_extras" in __import__("sys").modules)
tfl.contracts.check_criterion("weighty")
for name in ("weigthy", "lost"):
    try:
        tfl.criteria.get(name)
    except tfl.LotteryError as error:
        print(error)
"""
    env = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    first, unknown, lost = done.stdout.splitlines()
    assert first == "True False"  # known by name, and loaded only when it is asked for
    assert "weighty" in unknown and "Did you mean 'weighty'?" in unknown
    assert "criterion 'lost' in the installed package lottery-extras" in lost and "AttributeError" in lost
    assert "weighty" in lottery("find", "--help", path=installed).stdout
