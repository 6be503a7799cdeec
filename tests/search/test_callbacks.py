"""The callbacks: the search in one fit, gradual pruning, TensorBoard."""

import forked
import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_lottery as tfl
from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import state
from tf_lottery.rules import criteria, treatments
from tf_lottery.search.schedules import tfmot

L = keras.layers
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
LotteryTicket, PruneBySchedule = tfl.callbacks.LotteryTicket, tfl.callbacks.PruneBySchedule


def equal(a, b) -> bool:
    return set(a) == set(b) and all(np.array_equal(a[path], b[path]) for path in a)


def searched(model, data, schedule, *, epochs=None, compile=None, fit=None, **options):
    """The callback after a fit of full epochs of 20 steps."""
    masked = tfl.wrap(model, held=options.get("pruned", "zero") != "zero")
    masked.compile(**({"optimizer": keras.optimizers.SGD(0.1), "loss": LOSS} | (compile or {})))
    search = LotteryTicket(schedule, **options)
    epochs = epochs or -(-schedule.steps // 20)
    search.history = masked.fit(
        *data, batch_size=15, epochs=epochs, verbose=0, callbacks=[search], **(fit or {})
    ).history
    return search


@pytest.fixture
def schedule():
    return tfl.LotterySchedule(levels=3, steps_per_level=20, prune_fraction=0.5)


# --- LotteryTicket ----------------------------------------------------------------------------------------------------


def test_one_fit_finds_what_find_ticket_finds(blobs, dense_net, schedule):
    """Same weights, same data in the same order, no momentum: the same tickets to the bit."""

    def train(model, callbacks):
        model.compile(keras.optimizers.SGD(0.1), LOSS)
        return model.fit(*blobs, batch_size=15, epochs=1, shuffle=False, verbose=0, callbacks=callbacks)

    theirs = list(tfl.find_ticket(dense_net(), train, levels=3, prune_fraction=0.5))
    ours = searched(dense_net(), blobs, schedule, fit={"shuffle": False}).tickets
    assert len(ours) == len(theirs) == 4
    for a, b in zip(ours, theirs):
        assert a.level == b.level and a.density == b.density
        assert equal(a.masks, b.masks) and equal(a.initial, b.initial) and equal(a.final, b.final)


@pytest.mark.parametrize(
    "options",
    [
        {"survivors": "reinit"},
        {"survivors": "keep", "scope": "global"},
        {"pruned": "variant_2", "criterion": "movement"},
        {"one_shot": True, "criterion": "random", "seed": 3},
        {"reset": "at_end", "survivors": "constant_same_sign"},
        {"rewind_to": 7},
        {"criterion": "large_final_diff_sign", "seed": 4},  # most weights have the score 0
        {"criterion": "magnitude_increase_diff_sign", "scope": "global"},
    ],
    ids=lambda options: "-".join(map(str, options)),
)
def test_its_options_are_those_of_find_ticket(options, blobs, dense_net, schedule):
    def train(model, callbacks):
        model.compile(keras.optimizers.SGD(0.1), LOSS)
        return model.fit(*blobs, batch_size=15, epochs=1, shuffle=False, verbose=0, callbacks=callbacks)

    theirs = list(tfl.find_ticket(dense_net(), train, levels=3, prune_fraction=0.5, **options))
    ours = searched(dense_net(), blobs, schedule, fit={"shuffle": False}, **options).tickets
    for a, b in zip(ours, theirs, strict=True):
        assert equal(a.masks, b.masks) and equal(a.initial, b.initial) and equal(a.final, b.final)


def test_the_history_tells_level_and_density_and_validation_sees_trained_networks(blobs, dense_net, schedule):
    search = searched(dense_net(), blobs, schedule, fit={"validation_data": blobs}, compile={"metrics": ["accuracy"]})
    history = search.history
    assert history["level"] == [0, 1, 2, 3]
    assert history["density"] == pytest.approx([1, 0.5, 0.25, 0.125], abs=0.01)
    for level, ticket in enumerate(search.tickets):
        model = tfl.strip(ticket.apply(dense_net(seed=5), weights="final"))
        model.compile(loss=LOSS, metrics=["accuracy"])
        loss, _ = model.evaluate(*blobs, verbose=0)
        assert history["val_loss"][level] == pytest.approx(loss, rel=1e-4)
        assert ticket.metrics["val_loss"] == history["val_loss"][level]
        assert ticket.metrics["steps"] == 20


def test_fit_ends_with_the_last_level(blobs, dense_net, schedule):
    search = searched(dense_net(), blobs, schedule, epochs=50)
    assert len(search.history["loss"]) == 4
    assert equal(state.get_values(search.model), search.tickets[-1].final)


def test_levels_that_end_in_the_middle_of_an_epoch(blobs, dense_net):
    schedule = tfl.LotterySchedule(levels=3, steps_per_level=13, prune_fraction=[0.5, 0.2, 0.5], warm_up=4)
    search = searched(dense_net(), blobs, schedule)
    assert [ticket.metrics["steps"] for ticket in search.tickets] == [17, 13, 13, 13]
    assert [ticket.density for ticket in search.tickets] == pytest.approx([1, 0.5, 0.4, 0.2], abs=0.01)


def test_a_share_for_each_kernel(blobs, dense_net, schedule):
    search = searched(dense_net(), blobs, schedule, prune_fraction={"output": 0.0, "Dense": 0.5})
    masks = search.tickets[-1].masks
    assert masks["net/output/kernel"].all() and masks["net/hidden/kernel"].mean() == 0.125


@pytest.mark.parametrize(
    "compile, steps",
    [
        ({"steps_per_execution": 4}, [20, 20, 20, 20]),
        ({"optimizer": keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)}, [20, 20, 20, 20]),
        ({"jit_compile": True}, [20, 20, 20, 20]),
        ({"run_eagerly": True}, [20, 20, 20, 20]),
    ],
    ids=["steps_per_execution=4", "gradient_accumulation", "jit_compile", "run_eagerly"],
)
def test_levels_are_counted_in_updates(compile, steps, blobs, dense_net, schedule):
    compile = {key: value() if callable(value) else value for key, value in compile.items()}
    if "optimizer" in compile:
        compile["optimizer"] = type(compile["optimizer"]).from_config(compile["optimizer"].get_config())
    search = searched(dense_net(), blobs, schedule, compile=compile, epochs=8)
    assert [ticket.density for ticket in search.tickets] == pytest.approx([1, 0.5, 0.25, 0.125], abs=0.01)
    assert [ticket.metrics["steps"] for ticket in search.tickets] == steps


def test_a_round_that_comes_late_takes_its_steps_from_the_next_level(blobs, dense_net):
    schedule = tfl.LotterySchedule(levels=3, steps_per_level=13, prune_fraction=0.5)
    search = searched(dense_net(), blobs, schedule, compile={"steps_per_execution": 4}, epochs=4)
    assert [ticket.metrics["steps"] for ticket in search.tickets] == [
        16,
        12,
        12,
        12,
    ]  # rounds at 16, 28, 40 for 13, 26, 39


@pytest.mark.parametrize("level_ends_with_epoch", [True, False])
def test_data_of_unknown_length(level_ends_with_epoch, blobs, dense_net):
    """Keras begins a batch that never comes at the end of each epoch, and the optimizer counts it."""
    x, y = (array[:60] for array in blobs)
    spec = (tf.TensorSpec((15, 6)), tf.TensorSpec((15,), tf.int32))
    data = tf.data.Dataset.from_generator(
        lambda: ((x[i : i + 15], y[i : i + 15]) for i in range(0, 60, 15)), output_signature=spec
    )
    schedule = tfl.LotterySchedule(levels=2, steps_per_level=4 if level_ends_with_epoch else 3, prune_fraction=0.5)
    found = []
    for given in ({"x": data}, {"x": x, "y": y, "batch_size": 15, "shuffle": False}):
        masked = tfl.wrap(dense_net())
        masked.compile(keras.optimizers.SGD(0.1, momentum=0.9), LOSS)
        search = LotteryTicket(schedule)
        options = {"epochs": 3, "verbose": 0, "validation_data": blobs}
        history = masked.fit(**given, **options, callbacks=[search]).history
        found.append((search.tickets, history))
    (ours, history), (theirs, known) = found
    assert [ticket.metrics["steps"] for ticket in ours] == [ticket.metrics["steps"] for ticket in theirs]
    assert all(equal(a.final, b.final) for a, b in zip(ours, theirs, strict=True))
    assert history["level"] == known["level"]
    assert history["val_loss"] == pytest.approx(known["val_loss"], rel=1e-5)
    if level_ends_with_epoch:
        assert [t.metrics["val_loss"] for t in ours] == pytest.approx([t.metrics["val_loss"] for t in theirs], rel=1e-5)


def test_steps_that_loss_scaling_skips_do_not_count(blobs, dense_net, schedule):
    x, y = np.array(blobs[0]), blobs[1]
    model = dense_net()
    for layer in model.layers:
        layer.dtype_policy = keras.DTypePolicy("mixed_float16")
    model = keras.Sequential.from_config(model.get_config() | {"dtype": "mixed_float16"})
    masked = tfl.wrap(model)
    inner = keras.optimizers.SGD(0.1)
    scaled = keras.optimizers.LossScaleOptimizer(
        inner, initial_scale=2.0**40
    )  # overflows until it is halved often enough
    masked.compile(scaled, LOSS)
    search = LotteryTicket(schedule)
    masked.fit(x, y, batch_size=15, epochs=30, verbose=0, callbacks=[search])
    assert [ticket.metrics["steps"] for ticket in search.tickets] == [20] * 4
    assert sum(1 for _ in search.tickets) == 4


def test_every_level_has_a_fresh_optimizer(blobs, dense_net, schedule):
    rates, momenta = [], []

    class Spy(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            optimizer = self.model.optimizer
            rates.append(float(optimizer.learning_rate))
            momenta.append(
                max(float(np.abs(v).max()) for v in optimizer.variables if "momentum" in v.path)
                if optimizer.built
                else 0
            )

    decay = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.9)
    masked = tfl.wrap(dense_net())
    masked.compile(keras.optimizers.SGD(decay, momentum=0.9), LOSS)
    masked.fit(*blobs, batch_size=15, epochs=4, verbose=0, callbacks=[LotteryTicket(schedule), Spy()])
    assert rates == pytest.approx(4 * [0.1 * 0.9**step for step in range(20)], rel=1e-4)
    assert [momenta[step] for step in (0, 20, 40, 60)] == [0] * 4 and min(momenta[1:20]) > 0


def test_a_rate_that_another_callback_lowered_starts_anew(blobs, dense_net, schedule):
    seen = []

    def halve(epoch, logs):
        masked.optimizer.learning_rate = float(masked.optimizer.learning_rate) / 2

    lower = keras.callbacks.LambdaCallback(on_epoch_begin=halve)
    spy = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(float(masked.optimizer.learning_rate))
    )
    masked = tfl.wrap(dense_net())
    masked.compile(keras.optimizers.SGD(0.1), LOSS)
    masked.fit(*blobs, batch_size=15, epochs=4, verbose=0, callbacks=[LotteryTicket(schedule), lower, spy])
    assert seen[0] == pytest.approx(0.05) and seen[25] == pytest.approx(0.1)


def test_early_stopping_in_every_level(blobs, dense_net):
    schedule = tfl.LotterySchedule(levels=2, steps_per_level=200, prune_fraction=0.5)
    stopping = keras.callbacks.EarlyStopping("val_loss", patience=2, min_delta=10.0, restore_best_weights=True)
    search = searched(dense_net(), blobs, schedule, epochs=60, early_stopping=stopping, fit={"validation_data": blobs})
    # Nothing improves by 10: each level ends after the epochs it was patient for, from its first epoch's weights.
    assert [ticket.level for ticket in search.tickets] == [0, 1, 2]
    assert all(ticket.metrics["steps"] < 200 for ticket in search.tickets)
    assert len(search.history["loss"]) < 15
    for level, ticket in enumerate(search.tickets):
        first = search.history["level"].index(level)
        model = tfl.strip(ticket.apply(dense_net(), weights="final"))
        model.compile(loss=LOSS)
        assert model.evaluate(*blobs, verbose=0) == pytest.approx(search.history["val_loss"][first], rel=1e-4)


def test_an_interrupted_fit_goes_on_with_the_same_callback(blobs, dense_net, schedule):
    whole = searched(dense_net(), blobs, schedule, fit={"shuffle": False})
    masked = tfl.wrap(dense_net())
    masked.compile(keras.optimizers.SGD(0.1), LOSS)
    search = LotteryTicket(schedule)

    class Interrupt(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        masked.fit(*blobs, batch_size=15, epochs=4, shuffle=False, verbose=0, callbacks=[search, Interrupt()])
    masked.fit(*blobs, batch_size=15, epochs=4, initial_epoch=2, shuffle=False, verbose=0, callbacks=[search])
    assert all(equal(a.final, b.final) for a, b in zip(search.tickets, whole.tickets, strict=True))


def test_a_killed_search_goes_on_from_its_directory(blobs, dense_net, schedule, tmp_path):
    whole = searched(dense_net(), blobs, schedule, fit={"shuffle": False}, directory=tmp_path / "whole").tickets
    again = [tfl.Ticket.load(path) for path in sorted((tmp_path / "whole").glob("*.ticket"))]
    assert all(equal(a.final, b.final) for a, b in zip(again, whole, strict=True))

    part = tmp_path / "part"
    part.mkdir()
    for level in (0, 1):
        whole[level].save(part / f"level_{level:02d}.ticket")
    search = searched(dense_net(seed=9), blobs, schedule, fit={"shuffle": False}, directory=part)
    assert all(equal(a.final, b.final) for a, b in zip(search.tickets, whole, strict=True))

    with pytest.raises(LotteryError, match="all tickets are in"):
        searched(dense_net(), blobs, schedule, directory=part)
    with pytest.raises(LotteryError, match="to be of this search"):
        searched(dense_net(), blobs, schedule, directory=part, criterion="movement")


def test_a_model_saved_in_the_middle_of_a_level_goes_on_there(blobs, dense_net, tmp_path):
    schedule = tfl.LotterySchedule(levels=2, steps_per_level=40, prune_fraction=0.5)
    rates = {"output": 0.2, "Dense": 0.5}
    options = {"fit": {"shuffle": False}, "rewind_to": 5, "prune_fraction": rates}
    whole = searched(dense_net(), blobs, schedule, **options).tickets
    masked = tfl.wrap(dense_net())
    masked.compile(keras.optimizers.SGD(0.1), LOSS)
    saving = keras.callbacks.ModelCheckpoint(tmp_path / "model.keras")

    class Kill(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 2:  # level 1, half trained
                raise KeyboardInterrupt

    search = LotteryTicket(schedule, rewind_to=5, prune_fraction=rates, directory=tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        masked.fit(*blobs, batch_size=15, epochs=6, shuffle=False, verbose=0, callbacks=[search, saving, Kill()])
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    assert int(reloaded.optimizer.iterations) == 20
    search = LotteryTicket(schedule, rewind_to=5, prune_fraction=rates, directory=tmp_path / "run")
    reloaded.fit(*blobs, batch_size=15, epochs=6, initial_epoch=3, shuffle=False, verbose=0, callbacks=[search])
    assert [ticket.metrics["steps"] for ticket in search.tickets] == [40, 40, 40]
    for a, b in zip(search.tickets, whole, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a.final.values(), b.final.values()))


def test_the_same_seed_gives_the_same_tickets(blobs, dense_net, schedule):
    def once():
        keras.utils.set_random_seed(3)
        return searched(dense_net(), blobs, schedule, survivors="reinit", compile={"optimizer": "adam"}).tickets

    assert all(equal(a.final, b.final) for a, b in zip(once(), once(), strict=True))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"criterion": "lage_final"}, "Did you mean 'large_final'"),
        ({"survivors": "rewnd"}, "Did you mean 'rewind'"),
        ({"scope": "whole"}, "scope to be one of"),
        ({"reset": "never"}, "reset to be one of"),
        ({"rewind_to": 20}, "a step of level 0, which has 20"),
        ({"rewind_to": -1}, "received -1"),
    ],
)
def test_bad_options_are_refused_at_once(options, message, schedule):
    with pytest.raises(LotteryError, match=message):
        LotteryTicket(schedule, **options)


def test_bad_fits_are_refused_and_the_model_stays(blobs, dense_net, schedule):
    plain = dense_net()
    before = plain.get_weights()
    plain.compile("sgd", LOSS)
    with pytest.raises(LotteryError, match="call tf_lottery.wrap on it"):
        plain.fit(*blobs, verbose=0, callbacks=[LotteryTicket(schedule)])
    with pytest.raises(LotteryError, match="compiled after it was wrapped"):
        tfl.wrap(plain).fit(*blobs, verbose=0)
    with pytest.raises(LotteryError, match=r"80 steps of the schedule \(4 levels\), but 3 epochs of 20 .*epochs=4"):
        searched(dense_net(), blobs, schedule, epochs=3)
    with pytest.raises(LotteryError, match="held=True"):
        masked = tfl.wrap(plain)
        masked.compile("sgd", LOSS)
        masked.fit(
            *blobs, batch_size=15, epochs=4, verbose=0, callbacks=[LotteryTicket(schedule, pruned="freeze_init")]
        )
    with pytest.raises(LotteryError, match="Expected a LotterySchedule"):
        LotteryTicket(tfmot.sparsity.keras.ConstantSparsity(0.5, 0))
    assert all(np.array_equal(a, b) for a, b in zip(before, plain.get_weights()))


def test_a_finished_search_is_not_begun_again(blobs, dense_net, schedule):
    search = searched(dense_net(), blobs, schedule)
    with pytest.raises(LotteryError, match="a new LotteryTicket"):
        search.model.fit(*blobs, batch_size=15, epochs=4, verbose=0, callbacks=[search])


def test_a_fit_that_another_callback_ended_says_where_it_stands(blobs, dense_net, schedule):
    masked = tfl.wrap(dense_net())
    masked.compile("sgd", LOSS)
    stop = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: setattr(masked, "stop_training", epoch == 1))
    with pytest.warns(UserWarning, match="fit ended in level 1 of 3|level 0"):
        search = LotteryTicket(tfl.LotterySchedule(3, 30, 0.5))
        masked.fit(*blobs, batch_size=15, epochs=6, verbose=0, callbacks=[search, stop])
    assert [ticket.level for ticket in search.tickets] == [0]


# --- PruneBySchedule --------------------------------------------------------------------------------------------------


def pruned(model, data, schedule, *, epochs=3, compile=None, **options):
    masked = tfl.wrap(model)
    masked.compile(**({"optimizer": "adam", "loss": LOSS} | (compile or {})))
    densities = []
    spy = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: densities.append(
            (int(masked.optimizer.iterations), round(tfl.masks.density(tfl.get_masks(masked)), 4))
        )
    )
    pruning = PruneBySchedule(schedule, **options)
    history = masked.fit(*data, batch_size=15, epochs=epochs, verbose=0, callbacks=[pruning, spy])
    return masked, dict(densities), history.history


@pytest.mark.parametrize(
    "schedule",
    [
        tfmot.sparsity.keras.ConstantSparsity(0.5, 0, frequency=7),
        tfmot.sparsity.keras.ConstantSparsity(0.75, begin_step=11, end_step=40, frequency=10),
        tfmot.sparsity.keras.PolynomialDecay(0.0, 0.8, begin_step=0, end_step=60, frequency=5),
        tfmot.sparsity.keras.PolynomialDecay(0.25, 0.9, begin_step=7, end_step=33, frequency=4),
        tfl.LotterySchedule(levels=2, steps_per_level=20, prune_fraction=0.5),
    ],
    ids=lambda schedule: type(schedule).__name__,
)
def test_any_schedule_is_followed_to_the_step(schedule, blobs, dense_net):
    _, densities, history = pruned(dense_net(), blobs, schedule)
    reached = 1.0
    for step in range(61):
        due, sparsity = schedule(np.int64(step))
        if bool(due):
            reached = min(reached, 1 - float(sparsity))
        if step:
            assert densities[step] == pytest.approx(reached, abs=0.01), step
    assert history["density"][-1] == pytest.approx(reached, abs=0.01)


def test_step_zero_prunes_before_the_first_batch(blobs, dense_net):
    _, densities, _ = pruned(dense_net(), blobs, tfmot.sparsity.keras.ConstantSparsity(0.5, 0))
    assert densities[1] == 0.5


def test_a_schedule_that_answers_one_step_at_a_time(blobs, dense_net):
    def schedule(step):
        return int(step) in (3, 9), 0.5 if int(step) == 3 else 0.75

    _, densities, _ = pruned(dense_net(), blobs, schedule, epochs=1)
    assert [densities[step] for step in (2, 3, 8, 9)] == [1.0, 0.5, 0.5, 0.25]


def test_a_schedule_for_each_kernel(blobs, dense_net):
    constant = tfmot.sparsity.keras.ConstantSparsity
    masked, *_ = pruned(dense_net(), blobs, {"output": constant(0.25, 5), "Dense": constant(0.75, 10)})
    shares = [float(mask.mean()) for mask in tfl.get_masks(masked).values()]
    assert shares == pytest.approx([0.25, 0.75], abs=0.02)


@pytest.mark.parametrize("steps_per_execution", [4, 6])
def test_gradual_pruning_counts_updates(steps_per_execution, blobs, dense_net):
    schedule = tfmot.sparsity.keras.PolynomialDecay(0.0, 0.8, 0, 30, frequency=5)
    compile = {"steps_per_execution": steps_per_execution}
    _, densities, _ = pruned(dense_net(), blobs, schedule, compile=compile)
    for step, density in densities.items():
        due = [s for s in range(step + 1) if bool(schedule(np.int64(s))[0])]
        assert density == pytest.approx(1 - float(schedule(np.int64(due[-1]))[1]), abs=0.01)


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop", "nadam", "lion", "adagrad", "ftrl", "adadelta", "sgd"])
def test_raw_kernels_and_slots_are_zero_where_pruned_after_every_batch(name, blobs, dense_net):
    optimizer = (
        keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=1e-2) if name == "sgd" else keras.optimizers.get(name)
    )
    masked = tfl.wrap(dense_net())
    masked.compile(optimizer, LOSS)
    checked = []

    def check(batch, logs):
        for kernel, mask in zip(masked.kernels, tfl.get_masks(masked).values()):
            checked.append(np.count_nonzero(np.array(kernel.variable.value)[mask == 0]))

    schedule = tfmot.sparsity.keras.PolynomialDecay(0.2, 0.8, 3, 30, frequency=4)
    spy = keras.callbacks.LambdaCallback(on_train_batch_end=check)
    masked.fit(*blobs, batch_size=15, epochs=2, verbose=0, callbacks=[PruneBySchedule(schedule), spy])
    assert checked and not any(checked)


@pytest.mark.parametrize("criterion", criteria.of_weights())
def test_gradual_pruning_by_any_criterion(criterion, blobs, dense_net):
    schedule = tfl.LotterySchedule(levels=2, steps_per_level=5, prune_fraction=0.5)
    masked, *_ = pruned(dense_net(), blobs, schedule, epochs=1, criterion=criterion)
    assert tfl.masks.density(tfl.get_masks(masked)) == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize(
    "options",
    [{"scope": "global"}, {"distribution": "erdos_renyi_kernel"}, {"block_size": (2, 1)}],
    ids=lambda options: next(iter(options)),
)
def test_the_density_of_the_whole_holds_for(options, blobs, dense_net):
    schedule = tfmot.sparsity.keras.PolynomialDecay(0.0, 0.8, 0, 40, frequency=10)
    masked, *_ = pruned(dense_net(), blobs, schedule, **options)
    assert tfl.masks.density(tfl.get_masks(masked)) == pytest.approx(0.2, abs=0.03)


def test_pruning_goes_on_in_the_next_fit(blobs, dense_net):
    schedule = tfmot.sparsity.keras.PolynomialDecay(0.0, 0.8, 0, 40, frequency=10)
    masked = tfl.wrap(dense_net())
    masked.compile("sgd", LOSS)
    pruning = PruneBySchedule(schedule)
    for expected in (0.3, 0.2):
        masked.fit(*blobs, batch_size=15, verbose=0, callbacks=[pruning])
        assert tfl.masks.density(tfl.get_masks(masked)) == pytest.approx(expected, abs=0.02)


def test_pruning_that_is_done_lets_training_go_on(blobs, dense_net):
    schedule = tfmot.sparsity.keras.PolynomialDecay(0.0, 0.8, 0, 20, frequency=5)
    masked = tfl.wrap(dense_net())
    masked.compile("sgd", LOSS)
    for pruning in 2 * [PruneBySchedule(schedule)] + [PruneBySchedule(schedule)]:
        masked.fit(*blobs, batch_size=15, epochs=2, verbose=0, callbacks=[pruning])
        assert tfl.masks.density(tfl.get_masks(masked)) == pytest.approx(0.2, abs=0.02)


def test_gradual_pruning_on_data_of_unknown_length(blobs, dense_net):
    x, y = (array[:60] for array in blobs)
    spec = (tf.TensorSpec((15, 6)), tf.TensorSpec((15,), tf.int32))
    data = tf.data.Dataset.from_generator(
        lambda: ((x[i : i + 15], y[i : i + 15]) for i in range(0, 60, 15)), output_signature=spec
    )
    seen = []
    masked = tfl.wrap(dense_net())
    masked.compile("sgd", LOSS)
    spy = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(tfl.masks.density(tfl.get_masks(masked)))
    )
    schedule = tfl.LotterySchedule(levels=2, steps_per_level=5, prune_fraction=0.5)  # ends; nothing is due thereafter
    masked.fit(data, epochs=3, verbose=0, callbacks=[PruneBySchedule(schedule), spy])
    assert seen == pytest.approx([1] * 4 + [0.5] * 5 + [0.25] * 3, abs=0.01)


def test_bad_pruning_is_refused_and_the_model_stays(blobs, dense_net):
    never = tfmot.sparsity.keras.ConstantSparsity(0.5, 1_000)
    model = dense_net()
    before = model.get_weights()
    with pytest.raises(LotteryError, match="prunes between steps 0 and 60, which this fit runs, but it never does"):
        pruned(model, blobs, never)
    with pytest.raises(LotteryError, match="Expected kernels of at least block_size"):
        pruned(model, blobs, tfmot.sparsity.keras.ConstantSparsity(0.5, 0), block_size=(8, 1))
    with pytest.raises(LotteryError, match="it never does"):  # only at step 0, where its sparsity is 0
        pruned(model, blobs, tfmot.sparsity.keras.PolynomialDecay(0, 0.8, 0, 5))
    with pytest.raises(LotteryError, match="at step 8 it asks for 1.5"):
        pruned(model, blobs, lambda step: (int(step) == 8, 1.5))
    with pytest.raises(LotteryError, match="to return .should_prune, sparsity."):
        pruned(model, blobs, lambda step: 0.5)
    unbuilt = tfl.wrap(keras.Sequential([L.Dense(8), L.Dense(3)]))
    unbuilt.compile("sgd", LOSS)
    with pytest.raises(LotteryError, match="Expected a built model"):
        unbuilt.fit(*blobs, verbose=0, callbacks=[LotteryTicket(tfl.LotterySchedule(1, 1))])
    with pytest.raises(LotteryError, match="a function step ->"):
        PruneBySchedule(0.5)
    with pytest.raises(LotteryError, match="Expected one schedule"):
        PruneBySchedule({"": never}, scope="global")
    plain = dense_net()
    plain.compile("sgd", LOSS)
    with pytest.raises(LotteryError, match="call tf_lottery.wrap"):
        plain.fit(*blobs, verbose=0, callbacks=[PruneBySchedule(never)])
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))


# --- real models ------------------------------------------------------------------------------------------------------


class Transformer(keras.Model):
    """A block of a transformer, subclassed: attention, normalisation, a feed-forward net, a residual sum."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.embed = L.Embedding(20, 16)
        self.attention = L.MultiHeadAttention(2, 8)
        self.norms = [L.LayerNormalization(), L.LayerNormalization()]
        self.feed, self.back, self.head = L.Dense(32, "gelu"), L.Dense(16), L.Dense(4)

    def call(self, tokens, training=None):
        x = self.embed(tokens)
        x = self.norms[0](x + self.attention(x, x, training=training))
        x = self.norms[1](x + self.back(self.feed(x)))
        return self.head(keras.ops.mean(x, axis=1))


keras.saving.register_keras_serializable("tests")(Transformer)

REAL = {
    "MobileNetV2": lambda: keras.applications.MobileNetV2((32, 32, 3), weights=None, classes=10),
    "EfficientNetV2B0": lambda: keras.applications.EfficientNetV2B0(weights=None, input_shape=(32, 32, 3), classes=10),
    "ResNet50": lambda: keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), classes=10),
    "Transformer": lambda: Transformer(name="transformer"),
}


LARGE = ("EfficientNetV2B0", "ResNet50")  # half a minute each, and the zoo has them


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.zoo if name in LARGE else ()) for name in REAL])
def test_real_models_are_pruned_stripped_saved_and_reloaded(name, tmp_path, rng):
    model = REAL[name]()
    x = rng.integers(0, 20, (8, 6)) if name == "Transformer" else rng.random((8, 32, 32, 3), dtype="float32")
    model(x[:1])
    masked = tfl.wrap(model)
    # Adam's slots are made while the step is traced, which takes Keras a minute for the larger two.
    optimizer = keras.optimizers.Adam(1e-5) if name in ("MobileNetV2", "Transformer") else keras.optimizers.SGD(1e-8)
    masked.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=name[0] == "T"))
    schedule = tfmot.sparsity.keras.PolynomialDecay(0.5, 0.8, 1, 3, frequency=1)
    masked.fit(x, rng.integers(0, 4, 8), batch_size=2, verbose=0, callbacks=[PruneBySchedule(schedule)])
    plain = tfl.strip(masked)
    plain.save(tmp_path / "plain.keras")
    reloaded = keras.models.load_model(tmp_path / "plain.keras", compile=False)
    assert not any(type(layer).__name__.startswith("Masked") for layer in reloaded.layers)
    for path, mask in tfl.get_masks(masked).items():
        assert mask.sum() == max(1, round(0.2 * mask.size)), path
        value = np.array(state.named_variables(plain)[path].value)
        assert not value[mask == 0].any()
    masks, values = tfl.get_masks(masked), {v.path: np.array(v.value) for v in reloaded.variables}
    dense = {v.path for v in plain.variables if v.name.endswith("kernel")} - set(masks)
    assert all("dw" in path or "depthwise" in path for path in dense)
    if name != "Transformer":  # its layers have other names when it is loaded
        assert sum(np.count_nonzero(values[path]) for path in masks) <= sum(mask.sum() for mask in masks.values())
    assert np.allclose(reloaded(x), plain(x), atol=1e-5)


# --- PruningSummaries -------------------------------------------------------------------------------------------------


def events(folder) -> dict[str, list]:
    found: dict[str, list] = {}
    for file in folder.rglob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, tf.make_ndarray(value.tensor)))
    return found


def test_summaries_have_distinct_names_and_true_numbers(tmp_path, rng):
    model = keras.Sequential([keras.Input((5, 3)), L.LSTM(4, name="lstm"), L.Dense(2, name="dense")], name="net")
    masked = tfl.wrap(model)
    masked.compile("sgd", "mse")
    summaries = tfl.callbacks.PruningSummaries(tmp_path, image_size=8)
    pruning = PruneBySchedule(tfl.LotterySchedule(levels=1, steps_per_level=2, prune_fraction=0.75))
    x = rng.normal(size=(32, 5, 3)).astype("float32")
    masked.fit(x, x[:, 0, :2], batch_size=16, epochs=2, verbose=0, callbacks=[pruning, summaries])
    found = events(tmp_path)
    present = tfl.get_masks(masked)
    assert len(present) == 3
    for path, mask in present.items():
        steps, densities = zip(*found[f"density/{path}"])
        assert steps == (0, 1) and densities[-1] == pytest.approx(mask.mean())
        value = np.abs(np.array(state.named_variables(masked)[path].value))
        assert found[f"threshold/{path}"][-1][1] == pytest.approx(value[mask == 1].min())
        width, height, png = found[f"mask/{path}"][-1][1]
        assert png.startswith(b"\x89PNG") and int(width) <= 8 and int(height) <= 8
    assert found["density"][-1][1] == pytest.approx(tfl.masks.density(present))


def test_summaries_every_few_batches(tmp_path, blobs, dense_net):
    masked = tfl.wrap(dense_net())
    masked.compile("sgd", LOSS)
    summaries = tfl.callbacks.PruningSummaries(tmp_path, update_freq=5, images=False)
    masked.fit(*blobs, batch_size=15, verbose=0, callbacks=[summaries])
    assert [step for step, _ in events(tmp_path)["density"]] == [5, 10, 15, 20]
    with pytest.raises(LotteryError, match="update_freq"):
        tfl.callbacks.PruningSummaries(tmp_path, update_freq="batch")


# --- distribution -----------------------------------------------------------------------------------------------------


def test_under_mirrored_strategy_masks_agree_on_all_replicas():
    code = """
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, numpy as np, tf_lottery as tfl
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(3)])
    masked = tfl.wrap(model)
    masked.compile(keras.optimizers.SGD(0.1, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
x, y = np.random.default_rng(0).normal(size=(80, 6)).astype("float32"), np.arange(80) % 3
search = tfl.callbacks.LotteryTicket(tfl.LotterySchedule(levels=2, steps_per_level=10, prune_fraction=0.5))
masked.fit(x, y, batch_size=16, epochs=6, verbose=0, callbacks=[search])
for kernel, mask in zip(masked.kernels, masked._masks):
    a, b = (part.numpy() for part in strategy.experimental_local_results(mask.value))
    v, w = (part.numpy() for part in strategy.experimental_local_results(kernel.variable.value))
    assert (a == b).all() and (v == w).all() and not v[a == 0].any()
print([ticket.density for ticket in search.tickets])
"""
    done = forked.run(["-c", code])
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["[1.0,", "0.5,", "0.25]"]


def test_survivor_treatments_all_run(blobs, dense_net, schedule):
    for name in treatments.survivors_registry:
        assert len(searched(dense_net(), blobs, schedule, survivors=name).tickets) == 4
