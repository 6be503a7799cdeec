"""The search: the laws of the papers' algorithm, with everything that can be handed in."""

import itertools

import keras
import numpy as np
import pytest

import tf_lottery as tfl
from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import state
from tf_lottery.rules import criteria, treatments

L = keras.layers


@pytest.fixture
def train(blobs):
    x, y = blobs
    return tfl.Trainer(
        x[:200], y[:200], validation=(x[200:], y[200:]), test=(x[200:], y[200:]), steps=20, batch_size=20, eval_every=10
    )


def kernels(ticket):
    return {path: ticket.initial[path] for path in ticket.masks}


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[path], b[path]) for path in a)


def test_the_laws_of_iterative_pruning_with_rewinding(train, dense_net):
    model = dense_net()
    start = state.get_values(model)
    tickets = list(tfl.find_ticket(model, train, levels=4, prune_fraction=0.2))
    assert [ticket.level for ticket in tickets] == [0, 1, 2, 3, 4]
    for parent, ticket in itertools.pairwise(tickets):
        assert ticket.density == pytest.approx(0.8**ticket.level, abs=0.01)
        for path, mask in ticket.masks.items():
            assert (mask <= parent.masks[path]).all()  # masks nest
            assert np.array_equal(ticket.initial[path], start[path] * mask)  # rewound = mask * initial
            assert not ticket.final[path][mask == 0].any()  # pruned weights stay exactly zero
            kept = np.abs(parent.final[path])[mask == 1]
            gone = np.abs(parent.final[path])[(parent.masks[path] == 1) & (mask == 0)]
            assert kept.min() >= gone.max()  # magnitude pruning
        others = set(start) - set(ticket.masks)
        assert all(np.array_equal(ticket.initial[path], start[path]) for path in others)
    assert equal(state.get_values(model), tickets[-1].final)  # the model holds the last level
    assert {"early_stop_step", "final_test_accuracy"} <= set(tickets[0].metrics)
    assert tickets[2].found["criterion"] == "large_final"


@pytest.mark.parametrize("criterion", ["random", "large_final_diff_sign"])  # which gives most weights the same score
def test_repeats_and_goes_on_bit_for_bit(criterion, train, dense_net):
    def search(**options):
        arguments = {"levels": 3, "survivors": "constant", "criterion": criterion, "seed": 5, "prune_fraction": 0.3}
        return list(tfl.find_ticket(dense_net(), train, **{**arguments, **options}))

    whole, again = search(), search()
    for a, b in zip(whole, again):
        assert equal(a.masks, b.masks) and equal(a.initial, b.initial) and equal(a.final, b.final)
    for start in ([whole[0]], [whole[0], whole[1]]):
        rest = search(start_from=start)
        assert [ticket.level for ticket in rest] == [ticket.level for ticket in whole[len(start) :]]
        assert equal(rest[-1].final, whole[-1].final)
    assert not equal(search(seed=6)[-1].masks, whole[-1].masks)


def test_starts_from_a_ticket(train, dense_net):
    tickets = list(tfl.find_ticket(dense_net(), train, levels=2))
    on_its_own = list(tfl.find_ticket(dense_net(seed=9), train, levels=4, start_from=tickets[-1]))
    assert [ticket.level for ticket in on_its_own] == [3, 4]
    assert equal(on_its_own[-1].final, list(tfl.find_ticket(dense_net(), train, levels=4))[-1].final)
    untrained = tfl.Ticket(tickets[1].masks, tickets[1].initial, level=1)
    first = next(tfl.find_ticket(dense_net(), train, levels=2, start_from=untrained))
    assert first.level == 1 and equal(first.final, tickets[1].final)


def test_one_shot_prunes_every_level_from_the_dense_network(train, dense_net):
    tickets = list(tfl.find_ticket(dense_net(), train, levels=3, prune_fraction=0.3, one_shot=True))
    dense = tickets[0]
    for ticket in tickets[1:]:
        assert ticket.density == pytest.approx(0.7**ticket.level, abs=0.01)
        for path, mask in ticket.masks.items():
            magnitudes = np.abs(dense.final[path])
            assert magnitudes[mask == 1].min() >= magnitudes[mask == 0].max()


def test_continued_training_resets_only_at_the_end(train, dense_net):
    tickets = list(tfl.find_ticket(dense_net(), train, levels=3, prune_fraction=0.3, reset="at_end"))
    for parent, ticket in itertools.pairwise(tickets[:-1]):
        assert all(np.array_equal(ticket.initial[p], parent.final[p] * m) for p, m in ticket.masks.items())
    last = tickets[-1]
    assert all(np.array_equal(last.initial[p], tickets[0].initial[p] * m) for p, m in last.masks.items())


def test_rewinding_to_a_later_step(train, dense_net, blobs):
    tickets = list(tfl.find_ticket(dense_net(), train, levels=1, rewind_to=7))
    x, y = blobs
    to_step_7 = tfl.Trainer(x[:200], y[:200], steps=7, batch_size=20)
    model = dense_net()
    to_step_7(model)
    at_7 = state.get_values(model)
    assert equal(tickets[0].initial, at_7)
    for path, mask in tickets[1].masks.items():
        assert np.array_equal(tickets[1].initial[path], at_7[path] * mask)


def test_rewinding_inside_keras_fit(blobs, dense_net):
    def fit(model, callbacks, **options):
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), **options)
        return model.fit(*blobs, epochs=2, batch_size=50, verbose=0, shuffle=False, callbacks=callbacks)

    tickets = list(tfl.find_ticket(dense_net(), fit, levels=1, rewind_to=9))
    model = dense_net()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for step in range(9):
        rows = slice(50 * (step % 6), 50 * (step % 6) + 50)
        model.train_on_batch(blobs[0][rows], blobs[1][rows])
    for path, value in state.get_values(model).items():
        assert np.allclose(tickets[0].initial[path], value, atol=1e-6)
    assert set(tickets[0].metrics) == {"loss", "trainings"}
    with pytest.raises(LotteryError, match="step 9"):  # six steps at once go past it
        next(tfl.find_ticket(dense_net(), lambda m, c: fit(m, c, steps_per_execution=6), levels=1, rewind_to=9))
    with pytest.raises(LotteryError, match="hand its callbacks on"):
        next(tfl.find_ticket(dense_net(), lambda m, c: fit(m, []), levels=1, rewind_to=9))


def test_a_compiled_optimizer_starts_anew_at_each_level(blobs, dense_net):
    masked = tfl.wrap(dense_net())
    masked.compile(
        keras.optimizers.SGD(0.1, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    starts = []

    def train(model, callbacks):
        if model.optimizer.built:
            starts.append(
                (int(model.optimizer.iterations), max(float(np.abs(v).max()) for v in model.optimizer.variables[2:]))
            )
        model.fit(*blobs, verbose=0, callbacks=callbacks)

    list(tfl.find_ticket(masked, train, levels=2))
    assert starts == [(0, 0.0), (0, 0.0)]


@pytest.mark.parametrize("survivors", ["rewind", "keep"])
def test_batch_statistics_and_dropout_seeds_return_with_the_survivors(survivors, blobs):
    inputs = keras.Input((6,))
    x = L.Dropout(0.2, seed=3)(L.BatchNormalization()(L.Dense(8)(inputs)))
    model = keras.Model(inputs, L.Dense(3)(x))
    start = state.get_values(model)
    trainer = tfl.Trainer(*blobs, steps=10)
    dense, ticket = tfl.find_ticket(model, trainer, levels=1, survivors=survivors)
    expected = start if survivors == "rewind" else dense.final
    others = [path for path in start if path not in ticket.masks]
    assert any("moving_mean" in path for path in others) and any("seed" in path for path in others)
    for path in others:
        assert np.array_equal(ticket.initial[path], expected[path])
        assert path.endswith("bias") or not np.array_equal(dense.final[path], start[path])


@pytest.mark.parametrize("survivors", treatments.survivors_registry)
@pytest.mark.parametrize("pruned", treatments.pruned_registry)
def test_every_treatment_runs_and_freezes_what_is_pruned(survivors, pruned, train, dense_net):
    model = dense_net()
    for ticket in tfl.find_ticket(model, train, levels=2, prune_fraction=0.4, survivors=survivors, pruned=pruned):
        for path, mask in ticket.masks.items():
            assert np.array_equal(ticket.final[path][mask == 0], ticket.initial[path][mask == 0])
            assert (ticket.final[path] != ticket.initial[path])[mask == 1].any()
    held = {path: ticket.initial[path][mask == 0] for path, mask in ticket.masks.items()}
    assert any(values.any() for values in held.values()) == (pruned != "zero")
    if pruned == "freeze_init":
        start = state.get_values(dense_net())
        assert survivors != "rewind" or equal(kernels(ticket), {path: start[path] for path in held})


@pytest.mark.parametrize("criterion", criteria.registry)
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_every_criterion_runs_in_both_scopes(criterion, scope, train, dense_net):
    tickets = list(tfl.find_ticket(dense_net(), train, levels=2, prune_fraction=0.5, criterion=criterion, scope=scope))
    assert [ticket.density for ticket in tickets] == pytest.approx([1, 0.5, 0.25], abs=0.01)
    assert all((b.masks[p] <= a.masks[p]).all() for a, b in itertools.pairwise(tickets) for p in a.masks)


def test_constants_have_the_standard_deviation_of_the_whole_initial_kernel(train, dense_net):
    start = state.get_values(dense_net())
    *_, ticket = tfl.find_ticket(dense_net(), train, levels=3, prune_fraction=0.4, survivors="constant_same_sign")
    for path, mask in ticket.masks.items():
        values = ticket.initial[path][mask == 1]
        assert np.allclose(np.abs(values), start[path].std(), rtol=1e-6)
        assert np.array_equal(np.sign(values), np.sign(start[path][mask == 1]))


def test_your_own_functions(train, dense_net):
    def first_rows(initial, final, *, rng):
        return -np.indices(final.shape)[0].astype(float)

    def halves(initial, final, **_):
        return initial / 2

    start = state.get_values(dense_net())
    _, ticket = tfl.find_ticket(
        dense_net(), train, levels=1, prune_fraction=0.5, criterion=first_rows, survivors=halves
    )
    for path, mask in ticket.masks.items():
        assert mask[: len(mask) // 2].all() and not mask[len(mask) // 2 :].any()
        assert np.allclose(ticket.initial[path], start[path] / 2 * mask)
    assert ticket.found["criterion"] == "first_rows"


def test_rates_by_layer(train, dense_net):
    _, ticket = tfl.find_ticket(dense_net(), train, levels=1, prune_fraction={"output": 0.25, "Dense": 0.5})
    assert [mask.mean() for mask in ticket.masks.values()] == [0.5, 0.75]


def test_retraining_a_ticket_under_controls(train, dense_net):
    dense, ticket = tfl.find_ticket(dense_net(), train, levels=1, prune_fraction=0.5)
    start = dense.initial
    same = tfl.retrain_ticket(dense_net(), train, ticket, dense)
    assert equal(same.masks, ticket.masks) and equal(same.final, ticket.final)
    reinit = tfl.retrain_ticket(dense_net(), train, ticket, dense, survivors="reinit", seed=3)
    assert equal(reinit.masks, ticket.masks) and reinit.level == 1 and reinit.found["survivors"] == "reinit"
    for path, mask in reinit.masks.items():
        assert not np.isin(reinit.initial[path][mask == 1], start[path]).any()
    random = tfl.retrain_ticket(dense_net(), train, ticket, dense, random_mask=True)
    for path, mask in random.masks.items():
        assert mask.sum() == ticket.masks[path].sum() and not np.array_equal(mask, ticket.masks[path])
        assert np.array_equal(random.initial[path], start[path] * mask)
    again = tfl.retrain_ticket(dense_net(), train, ticket, dense, survivors="reinit", seed=3)
    assert equal(again.final, reinit.final)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": 0}, "levels of at least 1"),
        ({"prune_fraction": 0}, r"in \(0, 1\)"),
        ({"prune_fraction": 1}, r"in \(0, 1\)"),
        ({"criterion": "large"}, "criterion .*large_final"),
        ({"survivors": "rewinds"}, "Did you mean 'rewind'"),
        ({"pruned": "nought"}, "zero, freeze_init"),
        ({"scope": "row"}, "layer, global"),
        ({"reset": "never"}, "each_level, at_end"),
        ({"rewind_to": -1}, "rewind_to of 0 or more"),
        ({"one_shot": True, "reset": "at_end"}, "one_shot"),
        ({"prunable": "no_such_kernel"}, "at least one prunable kernel"),
    ],
)
def test_bad_input_is_refused_before_anything_is_trained(options, message, dense_net):
    model = dense_net()
    before = model.get_weights()
    with pytest.raises(LotteryError, match=message):
        tfl.find_ticket(model, lambda *_: pytest.fail("trained"), **options)  # no next() needed
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scope": "global", "prune_fraction": {"output": 0.1, "Dense": 0.2}}, "one prune_fraction"),
        ({"prune_fraction": "0.2"}, "received '0.2'"),
        ({"levels": 1.5}, "levels of at least 1, a whole number"),
        ({"start_from": "a.ticket"}, "Expected tickets"),
    ],
)
def test_more_bad_input_is_refused_before_anything_is_trained(options, message, dense_net):
    with pytest.raises(LotteryError, match=message):
        tfl.find_ticket(dense_net(), lambda *_: pytest.fail("trained"), **options)


def test_what_the_parts_return_is_checked(train, dense_net):
    for options, message in (
        ({"survivors": lambda *_, **__: 0}, "finite values of shape"),
        ({"survivors": lambda initial, *_, **__: initial * np.nan}, "finite values"),
        ({"criterion": lambda *_, **__: np.zeros(3)}, "Expected scores of shape"),
    ):
        with pytest.raises(LotteryError, match=message):
            list(tfl.find_ticket(dense_net(), train, levels=1, **options))
    for returned in (0.5, {"curve": [1, 2]}):
        with pytest.raises(LotteryError, match="dict of numbers"):
            next(tfl.find_ticket(dense_net(), lambda *_, returned=returned: returned))


def test_tickets_respect_their_masks_even_if_train_did_not(blobs, dense_net):
    model = dense_net()
    model.compile("sgd", "mse")

    def wrong(masked, callbacks):  # trains the plain model that shares the weights
        model.fit(blobs[0], np.ones((300, 3)), verbose=0)

    *_, ticket = tfl.find_ticket(model, wrong, levels=1)
    assert all(not ticket.final[path][mask == 0].any() for path, mask in ticket.masks.items())


def test_tickets_of_one_model_serve_another(train, dense_net):
    def build():
        return keras.Sequential([keras.Input((6,)), L.Dense(16, "relu"), L.Dense(3)])

    dense, ticket = tfl.find_ticket(build(), train, levels=1)
    assert tfl.retrain_ticket(build(), train, ticket, dense).density == ticket.density
    assert next(tfl.find_ticket(build(), train, levels=2, start_from=ticket)).level == 2


def test_an_unbuilt_model_is_refused():
    with pytest.raises(LotteryError, match="no weights yet"):
        tfl.find_ticket(keras.Sequential([L.Dense(3)]), lambda *_: None)


def test_a_criterion_that_returns_nan_is_named_as_the_cause(train, dense_net):
    search = tfl.find_ticket(dense_net(), train, criterion=lambda initial, final, *, rng: final * np.nan)
    next(search)
    with pytest.raises(LotteryError, match="criterion returned NaN"):
        next(search)
