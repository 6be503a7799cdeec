"""The border with TF-MOT: its schedule, its models and its `fit`, and the same search by three roads."""

import itertools
import json
import os
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import tf_lottery as tfl
from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import state
from tf_lottery.rules import criteria, treatments
from tf_lottery.search.schedules import tfmot
from tf_lottery.search.tfmot import RewindSurvivors

K, L = tf_keras.layers, keras.layers
prune_low_magnitude = tfmot.sparsity.keras.prune_low_magnitude
strip_pruning = tfmot.sparsity.keras.strip_pruning
UpdatePruningStep = tfmot.sparsity.keras.UpdatePruningStep
HALVES = {
    "levels": 2,
    "steps_per_level": 4,
    "prune_fraction": 0.5,
}  # with 4 batches an epoch, levels end when epochs do
RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 6)).astype("float32")
Y = (X @ RNG.normal(size=(6, 3)) + 1).astype("float32")


def tiny():
    initializers = [tf_keras.initializers.GlorotUniform(seed=seed) for seed in range(2)]
    return tf_keras.Sequential(
        [
            K.Dense(8, "relu", kernel_initializer=initializers[0], name="hidden", input_shape=(6,)),
            K.Dense(3, kernel_initializer=initializers[1], name="output"),
        ],
        name="net",
    )


def momentum(rate=0.1):
    return tf_keras.optimizers.SGD(rate, momentum=0.9)


def pruned(model=None, schedule=None, optimizer=None, **options):
    schedule = schedule or tfl.LotterySchedule(**HALVES)
    model = prune_low_magnitude(model or tiny(), pruning_schedule=schedule)
    model.compile(optimizer or momentum(), "mse", **options)
    return model


def fit(model, *callbacks, x=X, y=Y, batch_size=8, epochs=3, **options):
    """Trains with the callbacks; returns the History."""
    arguments = {"batch_size": batch_size, "epochs": epochs, "shuffle": False, "verbose": 0, **options}
    return model.fit(x, y, callbacks=list(callbacks), **arguments)


def search(model=None, epochs=3, fitted=None, callbacks=(), **options):
    """A search with `RewindSurvivors(**options)` in one `fit`; returns its tickets."""
    rewind = RewindSurvivors(**options)
    fit(model or pruned(), rewind, *callbacks, epochs=epochs, **(fitted or {}))
    return rewind.tickets


@pytest.fixture(scope="module")
def restarted():
    """A function that puts one compiled model back to its beginning: TensorFlow traces it once for all searches."""
    model = pruned()
    model.optimizer.build(model.trainable_variables)
    start = [(variable, variable.numpy()) for variable in [*model.variables, *model.optimizer.variables]]

    def restart():
        for variable, value in start:
            variable.assign(value)
        return model

    return restart


def values_of(model, masks=False):
    """{path: value} of the network without what TF-MOT added to it; its masks are left in if wanted."""
    values = {v.name.replace("prune_low_magnitude_", "").partition(":")[0]: v.numpy() for v in model.variables}
    added = {"threshold", "pruning_step"} if masks else {"threshold", "pruning_step", "mask"}
    return {path: value for path, value in values.items() if path.rpartition("/")[2] not in added}


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[path], b[path]) for path in a)


def same(a, b):
    """Whether two searches found the same, bit for bit."""
    return len(a) == len(b) and all(
        equal(p.masks, q.masks) and equal(p.initial, q.initial) and equal(p.final, q.final) for p, q in zip(a, b)
    )


def counts(tickets):
    return [[int(mask.sum()) for mask in ticket.masks.values()] for ticket in tickets]


def one_sentence(error):
    message = str(error.value).partition(" Did you mean")[0]
    return re.fullmatch(r"Expected [^\n]*\.", message) and not re.search(r"\. [A-Z]", message)


# LotterySchedule


def answers(schedule, steps):
    prunes, sparsity = schedule(steps)
    return prunes.numpy().tolist(), sparsity.numpy().tolist()


def test_schedule_is_one_of_tfmot():
    assert isinstance(tfl.LotterySchedule(**HALVES), tfmot.sparsity.keras.PruningSchedule)


def test_rounds_come_every_steps_per_level_after_the_warm_up():
    schedule = tfl.LotterySchedule(levels=3, steps_per_level=5, prune_fraction=0.5, warm_up=2)
    steps = np.arange(-1, 40)
    prunes, sparsity = answers(schedule, tf.constant(steps, tf.int64))
    assert steps[prunes].tolist() == [7, 12, 17]
    expected = np.select([steps < 7, steps < 12, steps < 17], [0, 0.5, 0.75], 0.875)
    assert sparsity == expected.tolist()
    assert (schedule.begin_step, schedule.end_step, schedule.steps) == (7, 17, 22)


@pytest.mark.parametrize(
    "as_step",
    [int, np.int64, lambda step: tf.constant(step, tf.int64), lambda step: tf.Variable(step, dtype=tf.int64)],
    ids=["int", "numpy", "int64 tensor", "int64 variable"],
)
def test_a_single_step_in_every_type(as_step):
    schedule = tfl.LotterySchedule(**HALVES, warm_up=3)
    asked = {step: answers(schedule, as_step(step)) for step in (0, 6, 7, 8, 10, 11, 12, 99)}
    assert asked == {
        0: (False, 0.0),
        6: (False, 0.0),
        7: (True, 0.5),
        8: (False, 0.5),
        10: (False, 0.5),
        11: (True, 0.75),
        12: (False, 0.75),
        99: (False, 0.75),
    }


def test_schedule_inside_a_tf_function():
    schedule = tfl.LotterySchedule(**HALVES)
    compiled = tf.function(schedule, input_signature=[tf.TensorSpec((), tf.int64)])
    assert [answers(compiled, tf.constant(step, tf.int64)) for step in range(12)] == [
        answers(schedule, step) for step in range(12)
    ]
    assert schedule(tf.zeros((2, 3), tf.int64))[0].shape == schedule(tf.zeros((2, 3), tf.int64))[1].shape == (2, 3)


def test_sparsities_compound_the_fraction_of_each_round():
    fractions = [0.5, 0.2, 0.1]
    schedule = tfl.LotterySchedule(3, 10, fractions)
    assert schedule.sparsities == pytest.approx([0, *(1 - np.cumprod(1 - np.array(fractions)))], abs=1e-15)
    assert answers(schedule, [9, 10, 20, 30])[1] == pytest.approx([0, 0.5, 0.6, 0.64], abs=1e-7)
    assert tfl.LotterySchedule(20, 10).sparsities[-1] == pytest.approx(1 - 0.8**20, abs=1e-15)


@pytest.mark.parametrize(
    "fraction", [0.2, [0.5, 0.25], (0.5, 0.25), np.float32(0.5), np.array([0.5, 0.25], "float32")], ids=repr
)
def test_config_round_trip(fraction):
    schedule = tfl.LotterySchedule(np.int64(2), 7, fraction, warm_up=3)
    config = json.loads(json.dumps(schedule.get_config()))
    assert config["class_name"] == "LotterySchedule"
    for back in (
        tfl.LotterySchedule.from_config(config),
        tfl.LotterySchedule.from_config(config["config"]),
        tf_keras.utils.deserialize_keras_object(config),
    ):
        assert type(back) is tfl.LotterySchedule and back.get_config() == config
        assert answers(back, np.arange(30)) == answers(schedule, np.arange(30))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("levels", 0, "levels of at least 1"),
        ("levels", -1, "levels of at least 1"),
        ("levels", 1.5, "received 1.5"),
        ("levels", True, "levels of at least 1"),
        ("levels", "2", "received '2'"),
        ("levels", None, "received None"),
        ("steps_per_level", 0, "steps_per_level of at least 1"),
        ("steps_per_level", 2.0, "steps_per_level of at least 1"),
        ("warm_up", -1, "warm_up of 0 or more"),
        ("prune_fraction", 0, r"in \(0, 1\)"),
        ("prune_fraction", 1, r"in \(0, 1\)"),
        ("prune_fraction", -0.2, "received -0.2"),
        ("prune_fraction", 20, "received 20"),
        ("prune_fraction", float("nan"), "received nan"),
        ("prune_fraction", "0.2", "prune_fraction"),
        ("prune_fraction", None, "prune_fraction"),
        ("prune_fraction", [0.5, 1.0], "received 1.0"),
        ("prune_fraction", [0.5, None], "received None"),
        ("prune_fraction", [0.5], "each of the 2 levels, but received 1"),
    ],
)
def test_numbers_out_of_range_are_refused(name, value, message):
    with pytest.raises(LotteryError, match=message) as error:
        tfl.LotterySchedule(**{"levels": 2, "steps_per_level": 4, name: value})
    assert one_sentence(error)


# Saving and loading

SAVED = {"levels": 2, "steps_per_level": 4, "prune_fraction": [0.5, 0.25], "warm_up": 3}
FORMATS = (".h5", ".keras", "")  # the last one is the SavedModel


class Densities(tf_keras.callbacks.Callback):
    """The density of TF-MOT's first mask after each batch."""

    def on_train_begin(self, logs=None):
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(float(tf.reduce_mean(self.model.layers[0].pruning_vars[0][1])))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with one model that TF-MOT pruned for 4 steps, in all formats."""
    folder = tmp_path_factory.mktemp("saved")
    model = pruned(schedule=tfl.LotterySchedule(**SAVED))
    fit(model, UpdatePruningStep(), epochs=1)
    for suffix in FORMATS:
        model.save(str(folder / f"model{suffix}"))
    return folder


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("suffix", FORMATS, ids=["h5", "keras", "SavedModel"])
def test_a_loaded_model_goes_on_pruning_at_the_right_step(suffix, saved):
    with tfl.tfmot.prune_scope():
        model = tf_keras.models.load_model(str(saved / f"model{suffix}"))
    schedule, expected = model.layers[0].pruning_schedule, tfl.LotterySchedule(**SAVED)
    assert type(schedule) is tfl.LotterySchedule and schedule.get_config() == expected.get_config()
    assert answers(schedule, np.arange(20)) == answers(expected, np.arange(20))
    assert int(model.layers[0].pruning_step) == 4
    densities = Densities()
    fit(model, UpdatePruningStep(), densities, epochs=2)
    assert densities.seen == [1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.375, 0.375]  # steps 5 to 12; the rounds are at 7 and 11


def test_a_model_saved_before_its_training_is_searched_as_the_one_in_memory(tmp_path):
    model = pruned()
    model.save(tmp_path / "model.keras")
    with tfl.tfmot.prune_scope():
        loaded = tf_keras.models.load_model(tmp_path / "model.keras")
    for ticket, other in zip(search(model), search(loaded), strict=True):
        for kind in ("masks", "initial", "final"):
            pairs = zip(getattr(ticket, kind).values(), getattr(other, kind).values(), strict=True)
            assert all(np.array_equal(*pair) for pair in pairs)


def test_a_fresh_process_loads_every_format(saved):
    out = run(f"""
        import json, tf_keras, tf_lottery as tfl
        for suffix in {FORMATS}:
            with tfl.tfmot.prune_scope():
                model = tf_keras.models.load_model({str(saved / "model")!r} + suffix)
            schedule = model.layers[0].pruning_schedule
            print(type(schedule) is tfl.LotterySchedule, json.dumps(schedule.get_config()), sep="|")
    """)
    rows = [line.split("|") for line in out.splitlines()]
    assert [kind for kind, _ in rows] == ["True"] * 3
    assert [json.loads(config)["config"] for _, config in rows] == [SAVED] * 3


# What importing does


def start_process(code, legacy=None):
    env = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    env |= {} if legacy is None else {"TF_USE_LEGACY_KERAS": legacy}
    lines = [line.removeprefix(" " * 8) for line in code.strip("\n").splitlines()]
    return subprocess.Popen([sys.executable, "-c", "\n".join(lines)], env=env, stdout=subprocess.PIPE, text=True)


def run(code):
    process = start_process(code)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return out


@pytest.fixture(scope="module")
def imported():
    """What a fresh process says about itself, by what the user set TF_USE_LEGACY_KERAS to."""
    code = """
        import json, os, sys
        import tf_lottery as tfl
        says = {"loads TF-MOT": "tensorflow_model_optimization" in sys.modules}
        import tensorflow as tf
        before = dict(os.environ)
        tfl.LotterySchedule(2, 3), tfl.tfmot.RewindSurvivors
        import keras, tf_keras
        homes = {"keras": keras.layers.Dense, "tf_keras": tf_keras.layers.Dense}
        says["keras"] = [name for name, dense in homes.items() if tf.keras.layers.Dense is dense]
        says["TF-MOT's"] = issubclass(tfl.tfmot.RewindSurvivors, tf_keras.callbacks.Callback)
        says["changed"] = [k for k in {*before, *os.environ} if before.get(k) != os.environ.get(k)]
        says["set"] = os.environ.get("TF_USE_LEGACY_KERAS")
        print(json.dumps(says))
    """
    processes = {legacy: start_process(code, legacy) for legacy in (None, "0", "1")}
    return {legacy: json.loads(process.communicate(timeout=300)[0]) for legacy, process in processes.items()}


@pytest.mark.parametrize(("legacy", "home"), [(None, "keras"), ("0", "keras"), ("1", "tf_keras")])
def test_importing_tfmot_leaves_the_environment_and_tf_keras_to_the_user(legacy, home, imported):
    says = imported[legacy]
    assert not says["loads TF-MOT"]
    assert says["changed"] == [] and says["set"] == legacy
    assert says["keras"] == [home] and says["TF-MOT's"]


# RewindSurvivors


class Recorder(tf_keras.callbacks.Callback):
    """Copies of what a callback after the search sees."""

    def __init__(self):
        super().__init__()
        self.begins, self.ends, self.epochs, self.tests, self.optimizer = [], [], [], [], []

    def on_train_batch_begin(self, batch, logs=None):
        self.begins.append(values_of(self.model))
        optimizer = self.model.optimizer
        slots = [np.abs(v.numpy()).max() for v in optimizer.variables if v.shape.rank]
        self.optimizer.append((int(optimizer.iterations), float(max(slots, default=0))))

    def on_train_batch_end(self, batch, logs=None):
        self.ends.append(values_of(self.model))

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(values_of(self.model))

    def on_test_begin(self, logs=None):
        self.tests.append(values_of(self.model))


class Searched:
    """One search in a network with all that can go wrong: batch statistics, dropout, momentum, validation."""

    def __init__(self):
        dense = tf_keras.Sequential(
            [
                K.Dense(8, name="hidden", input_shape=(6,)),
                K.BatchNormalization(name="norm"),
                K.ReLU(),
                K.Dropout(0.2),
                K.Dense(3, name="output"),
            ]
        )
        self.model = pruned(dense)
        self.start = values_of(self.model)
        self.validation = (X[:16] + 1, Y[:16])
        self.recorder, rewind = Recorder(), RewindSurvivors()
        self.history = fit(self.model, rewind, self.recorder, validation_data=self.validation).history
        self.tickets = rewind.tickets


@pytest.fixture(scope="module")
def searched():
    return Searched()


def test_the_laws_of_iterative_pruning_with_rewinding(searched):
    start, tickets = searched.start, searched.tickets
    assert [ticket.level for ticket in tickets] == [0, 1, 2]
    assert [ticket.density for ticket in tickets] == [1.0, 0.5, 0.25]
    assert counts(tickets) == [[48, 24], [24, 12], [12, 6]]
    for parent, ticket in itertools.pairwise(tickets):
        assert list(ticket.masks) == ["hidden/kernel", "output/kernel"]
        for path, mask in ticket.masks.items():
            assert (mask <= parent.masks[path]).all()  # masks nest
            assert np.array_equal(ticket.initial[path], start[path] * mask)  # rewound = mask * initial
            assert not ticket.final[path][mask == 0].any() and ticket.final[path][mask == 1].all()
            kept = np.abs(parent.final[path])[mask == 1]
            gone = np.abs(parent.final[path])[(parent.masks[path] == 1) & (mask == 0)]
            assert kept.min() >= gone.max()  # magnitude pruning
    assert equal(tickets[0].initial, start)
    assert tickets[2].found["criterion"] == "large_final" and tickets[2].found["schedule"]["config"] == {
        **HALVES,
        "warm_up": 0,
    }


def test_biases_and_batch_statistics_rewind_with_the_survivors(searched):
    others = set(searched.start) - set(searched.tickets[0].masks)
    assert {"norm/moving_mean", "norm/moving_variance", "norm/gamma", "hidden/bias"} <= others
    for ticket in searched.tickets:
        for path in others:
            assert np.array_equal(ticket.initial[path], searched.start[path])
            assert path == "hidden/bias" or not np.array_equal(ticket.final[path], searched.start[path])


def test_the_model_holds_what_the_tickets_say(searched):
    first_steps = [searched.recorder.begins[step] for step in (0, 4, 8)]
    for ticket, values in zip(searched.tickets, first_steps):
        assert all(np.array_equal(values[path], value) for path, value in ticket.initial.items())
    for ticket, values in zip(searched.tickets, searched.recorder.epochs):
        assert all(np.array_equal(values[path], value) for path, value in ticket.final.items())


def test_the_step_at_which_tfmot_prunes_is_undone(searched):
    ends = searched.recorder.ends
    for step in (3, 7):
        level = searched.tickets[step // 4]
        for path, value in level.final.items():
            before = ends[step - 1][path] * level.masks.get(path, 1)
            assert np.array_equal(ends[step][path], before) and np.array_equal(value, before)
    assert not np.array_equal(ends[11]["output/kernel"], ends[10]["output/kernel"])  # the last level trains to its end


def test_pruned_weights_are_zero_at_epoch_ends_and_in_validation(searched):
    recorder = searched.recorder
    assert len(recorder.epochs) == len(recorder.tests) == 3
    for level, ticket in enumerate(searched.tickets):
        for values in (recorder.epochs[level], recorder.tests[level]):
            for path, mask in ticket.masks.items():
                assert not values[path][mask == 0].any() and values[path][mask == 1].any()


def test_pruned_weights_are_zero_at_train_end_within_an_epoch(restarted):
    class Stop(tf_keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = self.epoch == 2 and batch == 1

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

    model = restarted()
    tickets = search(model, callbacks=[Stop()])
    weights = values_of(model)
    assert len(tickets) == 3 and equal(weights, tickets[-1].final)
    assert all(not weights[path][mask == 0].any() for path, mask in tickets[-1].masks.items())


def test_validation_sees_the_trained_network(searched):
    plain = strip_pruning(searched.model)
    plain.compile(loss="mse")
    for ticket, loss in zip(searched.tickets, searched.history["val_loss"]):
        plain.set_weights(list(ticket.final.values()))
        assert plain.evaluate(*searched.validation, verbose=0) == pytest.approx(loss, rel=1e-5)
        assert ticket.metrics["val_loss"] == pytest.approx(loss, rel=1e-6)
    plain.set_weights(list(searched.tickets[-1].final.values()))  # it shares its layers with the pruned model


def test_history_has_level_and_density(searched):
    assert searched.history["level"] == [0, 1, 2]
    assert searched.history["density"] == [1.0, 0.5, 0.25]


def test_strip_pruning_gives_the_ticket(searched):
    plain = strip_pruning(searched.model)
    assert not any("mask" in variable.name for variable in plain.variables)
    for weight, value in zip(plain.get_weights(), searched.tickets[-1].final.values(), strict=True):
        assert np.array_equal(weight, value)


@pytest.mark.parametrize("weights", ["initial", "final"])
def test_a_ticket_fits_a_keras_3_model_of_the_same_layers(weights, searched):
    layers = [L.Dense(8), L.BatchNormalization(), L.ReLU(), L.Dropout(0.2), L.Dense(3)]
    model = keras.Sequential([keras.Input((6,)), *layers])
    ticket = searched.tickets[-1]
    masked = ticket.apply(model, weights)
    plain = strip_pruning(searched.model)
    plain.set_weights(list(getattr(ticket, weights).values()))
    assert np.allclose(masked(X), plain(X), atol=1e-5)
    plain.set_weights(list(ticket.final.values()))
    assert all(np.array_equal(a, b) for a, b in zip(state.get_masks(masked).values(), ticket.masks.values()))


def test_a_ticket_comes_back_from_its_file(searched, tmp_path):
    ticket = searched.tickets[1]
    ticket.save(tmp_path / "a.ticket")
    back = tfl.Ticket.load(tmp_path / "a.ticket")
    assert equal(back.masks, ticket.masks) and equal(back.initial, ticket.initial) and equal(back.final, ticket.final)
    assert back.metrics == ticket.metrics and back.found == ticket.found


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_the_optimizer_starts_anew_after_a_round(optimizer, restarted):
    model = restarted() if optimizer == "momentum" else pruned(optimizer=tf_keras.optimizers.Adam(0.01))
    recorder = Recorder()
    search(model, callbacks=[recorder])
    steps, slots = zip(*recorder.optimizer)
    assert steps == (0, 1, 2, 3) * 3
    assert [step for step, slot in enumerate(slots) if slot == 0] == [0, 4, 8]


def test_a_learning_rate_schedule_starts_anew():
    rate = tf_keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.1, 0.0])  # only two steps of a level move
    model = pruned(optimizer=tf_keras.optimizers.SGD(rate))
    recorder = Recorder()
    search(model, callbacks=[recorder])
    moves = [not np.array_equal(a["output/bias"], b["output/bias"]) for a, b in zip(recorder.begins, recorder.ends)]
    assert moves == [True, True, False, False] * 3


def test_survivors_rewind_to_a_later_step(restarted):
    model = restarted()
    recorder = Recorder()
    tickets = search(model, rewind_to=2, callbacks=[recorder])
    at_2 = recorder.ends[1]
    assert all(np.array_equal(value, at_2[path]) for path, value in tickets[0].initial.items())
    for ticket in tickets[1:]:
        for path, value in ticket.initial.items():
            assert np.array_equal(value, at_2[path] * ticket.masks.get(path, 1))
    assert not np.array_equal(at_2["output/kernel"], recorder.begins[0]["output/kernel"])


def test_survivors_rewind_to_the_last_step_of_the_dense_level(restarted):
    tickets = search(restarted(), rewind_to=3)
    assert equal(tickets[0].initial, tickets[0].final)
    assert all(np.array_equal(tickets[1].initial[p], tickets[0].final[p] * m) for p, m in tickets[1].masks.items())


@pytest.mark.parametrize("survivors", treatments.survivors_registry)
def test_every_survivors_treatment(survivors, restarted):
    dense, *rest = search(restarted(), survivors=survivors, seed=4)
    assert counts([dense, *rest]) == [[48, 24], [24, 12], [12, 6]]
    ticket = rest[0]
    for path, mask in ticket.masks.items():
        assert not ticket.initial[path][mask == 0].any() and not ticket.final[path][mask == 0].any()
        start, trained, value = (a[path][mask == 1] for a in (dense.initial, dense.final, ticket.initial))
        if survivors in ("rewind", "keep"):
            assert np.array_equal(value, start if survivors == "rewind" else trained)
            continue
        assert not np.array_equal(value, start) and not np.array_equal(value, trained)
        if survivors.endswith("same_sign"):
            assert np.array_equal(np.sign(value), np.sign(start))
        else:
            assert not np.array_equal(np.sign(value), np.sign(start))
        if survivors.startswith("reshuffle"):
            assert np.array_equal(np.sort(np.abs(value)), np.sort(np.abs(start)))
        elif survivors.startswith("constant"):
            assert np.allclose(np.abs(value), dense.initial[path].std(), rtol=1e-6)
        else:
            limit = np.sqrt(6 / sum(mask.shape))  # of the layer's own GlorotUniform
            assert np.abs(value).max() <= limit and np.unique(np.abs(value)).size == value.size
    others = dense.final if survivors == "keep" else dense.initial
    assert all(np.array_equal(ticket.initial[path], others[path]) for path in ("hidden/bias", "output/bias"))


@pytest.mark.parametrize("criterion", criteria.of_weights())
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_every_criterion_in_both_scopes(criterion, scope, restarted):
    tickets = search(restarted(), criterion=criterion, scope=scope, seed=2)
    assert [ticket.density for ticket in tickets] == [1.0, 0.5, 0.25]
    assert scope == "global" or counts(tickets) == [[48, 24], [24, 12], [12, 6]]
    for parent, ticket in itertools.pairwise(tickets):
        assert all((ticket.masks[path] <= parent.masks[path]).all() for path in ticket.masks)
        if criterion == "random":
            continue
        score_of = criteria.get(criterion)
        scores = {path: score_of(parent.initial[path], parent.final[path], rng=None) for path in ticket.masks}
        for paths in [list(scores)] if scope == "global" else [[path] for path in scores]:
            score, old, new = (
                np.concatenate([a[path].ravel() for path in paths]) for a in (scores, parent.masks, ticket.masks)
            )
            assert score[new == 1].min() >= score[(old == 1) & (new == 0)].max()


def test_your_own_functions(restarted):
    def first_rows(initial, final, *, rng):
        return -np.indices(final.shape)[0].astype(float)

    def halves(initial, final, **_):
        return initial / 2

    dense, ticket, _ = search(restarted(), criterion=first_rows, survivors=halves)
    for path, mask in ticket.masks.items():
        assert mask[: len(mask) // 2].all() and not mask[len(mask) // 2 :].any()
        assert np.array_equal(ticket.initial[path], dense.initial[path] / 2 * mask)
    assert (ticket.found["criterion"], ticket.found["survivors"]) == ("first_rows", "halves")


def test_levels_that_do_not_end_with_epochs():
    recorder, rewind = Recorder(), RewindSurvivors()
    model = pruned(schedule=tfl.LotterySchedule(2, 5, [0.5, 0.25], warm_up=1))  # rounds at 6 and 11 of 16 steps
    history = fit(model, rewind, recorder, epochs=4).history
    assert counts(rewind.tickets) == [[48, 24], [24, 12], [18, 9]]
    assert [step for step, (done, _) in enumerate(recorder.optimizer) if done == 0] == [0, 6, 11]
    assert history["level"] == [0, 1, 2, 2] and history["density"] == [1.0, 0.5, 0.375, 0.375]
    for level, values in zip(history["level"], recorder.epochs, strict=True):
        for path, mask in rewind.tickets[level].masks.items():
            assert np.array_equal(values[path] != 0, mask == 1)


@pytest.mark.parametrize("batches", [4, 3])
def test_data_of_unknown_length(batches, restarted):
    """Keras begins one batch more than such data have, and TF-MOT and the optimizer count it as a step."""
    x, y = X[: 8 * batches], Y[: 8 * batches]
    examples = [(x[row : row + 8], y[row : row + 8]) for row in range(0, len(x), 8)]
    signature = (tf.TensorSpec((8, 6)), tf.TensorSpec((8, 3)))
    data = tf.data.Dataset.from_generator(lambda: iter(examples), output_signature=signature)
    unknown = {"x": data, "y": None, "batch_size": None, "validation_data": (X, Y), "validation_batch_size": 32}
    known = {"x": x, "y": y, "validation_data": (X, Y), "validation_batch_size": 32}
    found, expected = (search(restarted(), 12 // batches, fitted) for fitted in (unknown, known))
    assert [ticket.density for ticket in found] == [1.0, 0.5, 0.25]
    assert [t.metrics.get("val_loss") for t in found] == [t.metrics.get("val_loss") for t in expected]
    assert same(found, expected)


def test_counts_are_exact_for_fractions_that_binary_floats_do_not_hold():
    """0.3 of 15 is 4.5, which rounds to 4 as in `find_ticket`; 0.3 in single precision is a little more."""
    model = tf_keras.Sequential([K.Dense(5, input_shape=(6,)), K.Dense(3)])
    tickets = search(pruned(model, tfl.LotterySchedule(2, 4, 0.3)))
    expected = [[30, 15]]
    for _ in range(2):
        expected.append([count - round(0.3 * count) for count in expected[-1]])
    assert counts(tickets) == expected


def test_layers_with_schedules_of_their_own():
    def wrapped(layer, fraction, **options):
        return prune_low_magnitude(layer, pruning_schedule=tfl.LotterySchedule(2, 4, fraction), **options)

    model = tf_keras.Sequential(
        [wrapped(K.Dense(8), 0.5, input_shape=(6,)), K.Dense(4, name="dense"), wrapped(K.Dense(3), 0.25)]
    )
    model.compile(momentum(), "mse")
    tickets = search(model)
    assert counts(tickets) == [[48, 12], [24, 9], [12, 7]]
    for ticket in tickets:  # a layer that is not wrapped stays dense, and rewinds
        assert "dense/kernel" not in ticket.masks and ticket.final["dense/kernel"].all()
        assert np.array_equal(ticket.initial["dense/kernel"], tickets[0].initial["dense/kernel"])


def test_schedules_of_tfmot_itself():
    schedule = tfmot.sparsity.keras.PolynomialDecay(0.25, 0.75, begin_step=4, end_step=8, power=1, frequency=4)
    assert counts(search(pruned(schedule=schedule))) == [[48, 24], [36, 18], [12, 6]]


def test_nested_models():
    inner = tf_keras.Sequential([K.Dense(8, "relu", input_shape=(6,)), K.Dense(4)], name="inner")
    inputs = K.Input((6,))
    model = pruned(tf_keras.Model(inputs, K.Dense(3)(inner(inputs))))
    tickets = search(model)
    assert counts(tickets) == [[48, 32, 12], [24, 16, 6], [12, 8, 3]]
    plain = strip_pruning(model)
    assert all(np.array_equal(*pair) for pair in zip(plain.get_weights(), tickets[-1].final.values(), strict=True))
    twin = keras.Sequential([keras.Input((6,)), L.Dense(8, "relu"), L.Dense(4)])
    inputs = keras.Input((6,))
    masked = tickets[-1].apply(keras.Model(inputs, L.Dense(3)(twin(inputs))), "final")
    assert np.allclose(masked(X), plain(X), atol=1e-5)


def test_an_lstm():
    x = np.random.default_rng(0).normal(size=(32, 5, 6)).astype("float32")
    model = pruned(tf_keras.Sequential([K.LSTM(4, input_shape=(5, 6)), K.Dense(3)]))
    tickets = search(model, survivors="reinit", fitted={"x": x})
    assert counts(tickets) == [[96, 64, 12], [48, 32, 6], [24, 16, 3]]
    recurrent = list(tickets[0].masks)[1]
    whole = tickets[0].initial[recurrent]
    assert np.allclose(whole @ whole.T, np.eye(4), atol=1e-5)  # orthogonal, and so is what reinit draws from
    assert not np.isin(tickets[1].initial[recurrent][tickets[1].masks[recurrent] == 1], whole).any()
    masked = tickets[-1].apply(keras.Sequential([keras.Input((5, 6)), L.LSTM(4), L.Dense(3)]), "final")
    assert np.allclose(masked(x), strip_pruning(model)(x), atol=1e-5)


def test_attention_is_drawn_anew_too():
    x = np.random.default_rng(0).normal(size=(32, 5, 6)).astype("float32")
    inputs = K.Input((5, 6))
    attended = K.MultiHeadAttention(2, 3)(inputs, inputs)
    model = pruned(tf_keras.Model(inputs, K.Dense(3)(K.GlobalAveragePooling1D()(attended))))
    tickets = search(model, survivors="reinit", fitted={"x": x})
    assert [ticket.density for ticket in tickets] == pytest.approx([1, 0.5, 0.25], abs=0.01)


def test_fit_again_goes_on_with_the_last_level(restarted):
    rewind, model = RewindSurvivors(), restarted()
    fit(model, rewind)
    before = list(rewind.tickets)
    history = fit(model, rewind, epochs=2).history
    assert history["level"] == [2, 2] and [ticket.level for ticket in rewind.tickets] == [0, 1, 2]
    assert same(rewind.tickets[:2], before[:2])
    assert equal(rewind.tickets[2].masks, before[2].masks) and equal(rewind.tickets[2].initial, before[2].initial)
    assert not equal(rewind.tickets[2].final, before[2].final)
    assert same(rewind.tickets, search(restarted(), epochs=5))


def test_the_same_seed_twice_is_the_same_search(restarted):
    def found(seed):
        return search(restarted(), criterion="random", survivors="reinit", seed=seed)

    first = found(5)
    assert same(first, found(5))
    assert not equal(first[1].masks, found(6)[1].masks)
    assert not same(first, found(6))


# The same search by three roads


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"criterion": "movement", "scope": "global", "survivors": "constant_same_sign"},
        {"criterion": "random", "survivors": "reshuffle", "seed": 7, "rewind_to": 2},
        {"criterion": "large_final_diff_sign", "seed": 2},  # most weights have the score 0
    ],
    ids=["default", "global", "random", "ties"],
)
def test_tfmot_one_fit_and_find_ticket_are_the_same_search(options):
    """Full batches, 5 steps a level: TF-MOT's own pruning step takes one more, and is undone."""
    levels, steps, fraction = 3, 5, 0.2
    rng = np.random.default_rng(3)
    weights = [(rng.normal(size=shape) / 2).astype("float32") for shape in ((6, 8), (8,), (8, 3), (3,))]

    old = tiny()
    old.set_weights(weights)
    old = pruned(old, tfl.LotterySchedule(levels, steps + 1, fraction), momentum(0.05))
    roads = [search(old, epochs=levels * (steps + 1) + steps, fitted={"batch_size": 32}, **options)]

    def keras_3():
        model = keras.Sequential([keras.Input((6,)), L.Dense(8, "relu"), L.Dense(3)])
        model.set_weights(weights)
        return model

    def train(model, callbacks, epochs=steps):
        if not model.compiled:
            model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
        model.fit(X, Y, batch_size=32, shuffle=False, epochs=epochs, verbose=0, callbacks=callbacks)

    one_fit = tfl.callbacks.LotteryTicket(tfl.LotterySchedule(levels, steps, fraction), **options)
    train(tfl.wrap(keras_3()), [one_fit], (levels + 1) * steps)
    roads.append(one_fit.tickets)
    roads.append(list(tfl.find_ticket(keras_3(), train, levels=levels, prune_fraction=fraction, **options)))

    for road in roads[1:]:
        for a, b in zip(roads[0], road, strict=True):
            assert a.level == b.level
            for mask, other in zip(a.masks.values(), b.masks.values(), strict=True):
                assert np.array_equal(mask, other)
            for kind in ("initial", "final"):
                for value, other in zip(getattr(a, kind).values(), getattr(b, kind).values(), strict=True):
                    assert np.allclose(value, other, atol=1e-4)
    assert not np.allclose(roads[0][-1].final["hidden/kernel"], roads[0][-1].initial["hidden/kernel"], atol=1e-2)


# Bad input


def shared_layer():
    inputs, layer = K.Input((6,)), K.Dense(6)
    return pruned(tf_keras.Model(inputs, K.Dense(3)(layer(layer(inputs)))))


def trained_before():
    model = pruned()
    fit(model, UpdatePruningStep(), epochs=1)
    return model


def unpruned():
    model = tiny()
    model.compile("sgd", "mse")
    return model


def with_pattern(**options):
    schedule = tfl.LotterySchedule(**HALVES)
    model = prune_low_magnitude(tiny(), pruning_schedule=schedule, **options)
    model.compile("sgd", "mse")
    return model


def two_fractions():
    layers = [K.Dense(8, input_shape=(6,)), K.Dense(3)]
    schedules = [tfl.LotterySchedule(2, 4, fraction) for fraction in (0.5, 0.25)]
    model = tf_keras.Sequential(
        [prune_low_magnitude(layer, pruning_schedule=schedule) for layer, schedule in zip(layers, schedules)]
    )
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (unpruned, {}, "no pruning wrappers"),
        (lambda: pruned(schedule=tfl.LotterySchedule(2, 100)), {}, "in the 12 steps of this fit"),
        (lambda: pruned(schedule=tfmot.sparsity.keras.ConstantSparsity(0.5, 1000)), {}, "step 1000"),
        (lambda: pruned(schedule=tfl.LotterySchedule(2, 6)), {}, "beyond the last round .*step 12"),
        (trained_before, {}, "before its training, but 'net' is at step 4"),
        (lambda: pruned(steps_per_execution=4), {}, "steps_per_execution=1"),
        (shared_layer, {}, "leave shared layers unpruned"),
        (lambda: pruned(optimizer=tf_keras.optimizers.legacy.SGD(0.1)), {}, "legacy"),
        (pruned, {"rewind_to": 4}, "rewind_to"),
        (two_fractions, {"scope": "global"}, "one prune_fraction"),
        (lambda: with_pattern(block_size=(2, 1)), {}, "block_size"),
        (lambda: with_pattern(sparsity_m_by_n=(1, 2)), {}, "sparsity_m_by_n"),
    ],
    ids=[
        "unpruned model",
        "schedule beyond this fit",
        "schedule of TF-MOT beyond this fit",
        "too few steps for the last level",
        "trained before",
        "several steps at once",
        "shared layer",
        "legacy optimizer",
        "rewind_to after the dense level",
        "global scope with two fractions",
        "blocks",
        "m by n",
    ],
)
def test_a_model_that_cannot_be_searched_is_refused_and_untouched(build, options, message):
    model = build()
    before = values_of(model, masks=True)
    rewind = RewindSurvivors(**options)
    with pytest.raises(LotteryError, match=message) as error:
        fit(model, rewind)
    assert one_sentence(error) and rewind.tickets == []
    assert equal(values_of(model, masks=True), before)


def test_a_keras_3_model_is_refused():
    model = keras.Sequential([keras.Input((6,)), L.Dense(3)])
    model.compile("sgd", "mse")
    before = model.get_weights()
    with pytest.raises(TypeError, match="callbacks.LotteryTicket") as error:
        fit(model, RewindSurvivors())
    assert one_sentence(error) and all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))


def test_the_other_doors_refuse_tf_keras_too():
    model, (x, y) = pruned(), (np.ones((8, 6), "float32"), np.zeros(8, int))
    ones = {path: np.ones((2, 2)) for path in "a"}
    for wrong in (
        lambda: tfl.strip(model),
        lambda: tfl.prune(model, 0.5),
        lambda: tfl.Ticket(ones, ones).apply(model),
        lambda: model.fit(x, y, verbose=0, callbacks=[tfl.callbacks.LotteryTicket(tfl.LotterySchedule(1, 2))]),
        lambda: model.fit(x, y, verbose=0, callbacks=[tfl.callbacks.PruneBySchedule(tfl.LotterySchedule(1, 2))]),
    ):
        with pytest.raises(TypeError, match="tf_keras.*tf_lottery.tfmot") as error:
            wrong()
        assert one_sentence(error)


def test_a_schedule_in_the_wrong_place():
    with pytest.raises(LotteryError, match="the schedule in prune_low_magnitude"):
        RewindSurvivors(tfl.LotterySchedule(2, 4))


@pytest.mark.parametrize("build", [tiny, lambda: K.Dense(3), pruned], ids=["model", "layer", "pruned model"])
def test_wrap_refuses_tf_keras(build):
    with pytest.raises(TypeError, match="tf_keras.*tf_lottery.tfmot") as error:
        tfl.wrap(build())
    assert one_sentence(error)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"criterion": "large"}, "criterion .*large_final"),
        ({"survivors": "rewinds"}, "Did you mean 'rewind'"),
        ({"scope": "row"}, "layer, global"),
        ({"rewind_to": -1}, "0 or later"),
        ({"rewind_to": 1.5}, "received 1.5"),
    ],
)
def test_unknown_options_are_refused_at_once(options, message):
    with pytest.raises(LotteryError, match=message) as error:
        RewindSurvivors(**options)
    assert one_sentence(error)


def test_one_callback_serves_one_model(restarted):
    rewind = RewindSurvivors()
    fit(restarted(), rewind)
    with pytest.raises(LotteryError, match="new RewindSurvivors"):
        fit(pruned(), rewind)
    assert len(rewind.tickets) == 3
