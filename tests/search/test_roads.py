"""The roads to a ticket: what each trains, for how long, what comes of it, and how it goes on after a stop."""

import dataclasses
import itertools

import keras
import numpy as np
import pytest

import tf_lottery as tfl
from tf_lottery.base.errors import LotteryError
from tf_lottery.search.plan import steps_of
from tf_lottery.search.rates import Cubic, at_once, rounds_to, spread
from tf_lottery.tickets.values import arrays

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
STEPS = 40


class Counting:
    """A `Trainer` that writes down how long it was asked to train."""

    def __init__(self, blobs, **options):
        options = {"steps": STEPS, "batch_size": 15, "eval_every": 5, "jit_compile": False} | options
        self.trainer = tfl.Trainer(*blobs, optimizer=keras.optimizers.Adam(0.01), **options)
        self.steps, self.eval_every, self.trained = self.trainer.steps, self.trainer.eval_every, []
        self.probe = self.trainer.probe

    @property
    def curve(self):
        return self.trainer.curve

    def __call__(self, model, callbacks, *, steps=None):
        self.trained.append(steps or self.steps)
        return self.trainer(model, callbacks, steps=steps)


def equal(one: tfl.Ticket, other: tfl.Ticket) -> bool:
    parts = [(arrays(getattr(one, part)), arrays(getattr(other, part))) for part in ("masks", "initial", "final")]
    same = all(np.array_equal(a[path], b[path]) for a, b in parts for path in a)
    return same and {**one.metrics, "seconds": 0} == {**other.metrics, "seconds": 0}


SHORT = {"search": "iterative", "budget": 2}
ROADS = [  # options, the steps of the trainings, the cost of each ticket, the densities
    ({"density": [0.5, 0.2], "budget": 2}, [40, 10, *[10] * 3, 40, *[10] * 3, 40], [1, 2, 2], [1, 0.5, 0.2]),
    ({"density": 0.2, "budget": 2, "dense": False}, [10, 10, 10, 10, 40], [2], [0.2]),
    ({**SHORT, "density": 0.2}, [40, 10, 10, 10, 10, 40], [1, 0.5, 0.75, 1, 2], [1, None, None, None, 0.2]),
    ({**SHORT, "density": 0.2, "dense": False}, [10, 10, 10, 10, 40], [0.25, 0.5, 0.75, 1, 2], [1, 0.2]),
    ({"search": "iterative", "density": 0.2, "budget": 5}, [40, *[10] * 16, 40], None, [1, 0.2]),
    ({"density": [0.5, 0.2], "levels": 2, "level_steps": 10}, [40, 10, 40, 10, 40], [1, 1.25, 1.5], [1, 0.5, 0.2]),
    ({"density": 0.3, "levels": 2}, [40, 40, 40], [1, 2, 3], [1, None, 0.3]),
    ({"levels": 2, "level_steps": 10}, [40, 10, 10, 40], [1, 0.5, 1.5], [1, 0.8, 0.64]),
    ({"levels": 2}, [40, 40, 40], [1, 2, 3], [1, 0.8, 0.64]),
    ({"search": "one_shot", "levels": 2}, [40, 40, 40], [1, 2, 2], [1, 0.8, 0.64]),
    ({"search": "one_shot", "density": [0.5, 0.2], "level_steps": 20}, [40, 20, 40, 40], [1, 1.5, 1.5], [1, 0.5, 0.2]),
    ({"search": "gradual", "density": [0.5, 0.2]}, [40, 20, 40, 20, 40], [1, 1.5, 1.5], [1, 0.5, 0.2]),
    ({"search": "gradual", "density": 0.2, "search_steps": 30, "dense": False}, [30, 40], [1.75], [0.2]),
    ({"search": "gradual", "density": 0.2, "budget": 1.5}, [40, 20, 40], [1, 1.5], [1, 0.2]),
    ({"search": "regrow", "density": [0.5, 0.2]}, [40, 40, 40], [1, 1, 1], [1, 0.5, 0.2]),
    ({"search": "regrow", "density": 0.2, "budget": 3, "dense": False}, [120], [3], [0.2]),
    ({"search": "regrow", "density": 0.2, "search_steps": 20}, [40, 20], [1, 0.5], [1, 0.2]),
]


@pytest.mark.parametrize("options, trained, costs, densities", ROADS)
def test_what_a_road_trains_and_what_its_tickets_cost(options, trained, costs, densities, blobs, dense_net):
    train = Counting(blobs)
    tickets = list(tfl.find_ticket(dense_net(), train, **options))
    assert train.trained == trained
    assert costs is None or [ticket.metrics["trainings"] for ticket in tickets] == costs
    for expected, ticket in zip([densities[0], *densities[1:]], [tickets[0], *tickets[1 - len(densities) :]]):
        assert expected is None or ticket.density == pytest.approx(expected, abs=0.01)  # of 144 weights, level by level
    start = arrays(tickets[0].initial)
    for before, ticket in itertools.pairwise(tickets):
        for path, mask in ticket.masks.items():
            if options.get("search") == "regrow":
                continue  # its tickets are no rewound ones, see below
            assert np.array_equal(ticket.initial[path], mask * (start[path] if tickets[0].level == 0 else 1))
            assert np.all(mask <= before.masks[path]) or options.get("search")  # of other roads masks need not nest


@pytest.mark.parametrize(
    "options",
    [
        {"density": [0.5, 0.2], "levels": 3, "level_steps": 10},
        {"density": [0.5, 0.2], "budget": 2, "rewind_to": 5},
        {**SHORT, "density": 0.2, "dense": False},
        {**SHORT, "density": 0.2, "rewind_to": 5},
        {"search": "one_shot", "density": [0.5, 0.2], "level_steps": 20},
        {"search": "gradual", "density": [0.5, 0.2]},
        {"search": "gradual", "density": [0.5, 0.2], "dense": False},
        {"search": "gradual", "density": [0.5, 0.2], "rewind_to": 3, "survivors": "reinit"},
        {"search": "regrow", "density": [0.5, 0.2]},
    ],
    ids=str,
)
def test_a_search_that_goes_on_ends_where_it_would_have(options, blobs, dense_net, tmp_path):
    whole = list(tfl.find_ticket(dense_net(), Counting(blobs), **options, seed=3))
    for ticket in whole:
        ticket.save(tmp_path / f"{ticket.level}.ticket")
    for stopped in range(1, len(whole)):
        found = [tfl.Ticket.load(tmp_path / f"{ticket.level}.ticket") for ticket in whole[:stopped]]
        given = [found[0], found[-1]] if stopped > 1 else found
        rest = list(tfl.find_ticket(dense_net(), Counting(blobs), **options, seed=3, start_from=given))
        assert len(rest) == len(whole) - stopped
        assert all(equal(a, b) for a, b in zip(rest, whole[stopped:]))


def test_a_model_that_is_not_where_the_search_began_is_refused(blobs, dense_net):
    options = {"search": "gradual", "density": [0.5, 0.2], "rewind_to": 3}
    dense = next(tfl.find_ticket(dense_net(), Counting(blobs), **options))
    with pytest.raises(LotteryError, match="Expected the model as it was when the search of"):
        next(tfl.find_ticket(dense_net(seed=1), Counting(blobs), **options, start_from=dense))


def test_a_search_of_another_road_is_not_gone_on_with(blobs, dense_net):
    *_, ticket = tfl.find_ticket(dense_net(), Counting(blobs), search="gradual", density=0.5)
    for options in ({"density": 0.5}, {"search": "gradual", "density": [0.5, 0.2]}):
        with pytest.raises(LotteryError, match="to go on from"):
            tfl.find_ticket(dense_net(), Counting(blobs), **options, start_from=ticket)


def test_the_old_name_of_one_shot(blobs, dense_net):
    ours = list(tfl.find_ticket(dense_net(), Counting(blobs), levels=2, search="one_shot"))
    theirs = list(tfl.find_ticket(dense_net(), Counting(blobs), levels=2, one_shot=True))
    assert all(equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert ours[0].found == theirs[0].found


def test_gradual_is_prune_by_schedule_then_rewinding(blobs, dense_net):
    """Put together by hand: the masks of a gradual training, the weights of before, a training in full."""
    *_, ticket = tfl.find_ticket(dense_net(), Counting(blobs), search="gradual", density=0.2, prune_fraction=0.2)
    masked, trainer = tfl.wrap(dense_net()), Counting(blobs).trainer
    start = arrays(next(tfl.find_ticket(dense_net(), Counting(blobs), levels=1)).initial)
    trainer(masked, [tfl.callbacks.PruneBySchedule(Cubic(0.2, 20))], steps=20)
    masks = tfl.get_masks(masked)
    assert all(np.array_equal(masks[path], ticket.masks[path]) for path in masks)
    again = tfl.Ticket(masks, {path: value * masks.get(path, 1) for path, value in start.items()}).apply(dense_net())
    trainer(again)
    for value, expected in zip(again.inner.weights, arrays(ticket.final).values()):
        np.testing.assert_array_equal(np.array(value), expected)


def test_learning_rate_rewinding(blobs, dense_net):
    """Renda et al. (2020): trained weights, and the schedule from its beginning; by hand with plain Keras."""

    def schedule():
        return keras.optimizers.schedules.PiecewiseConstantDecay([20, 30], [0.05, 0.01, 0.001])

    trainer = tfl.Trainer(
        *blobs, optimizer=keras.optimizers.SGD(schedule(), 0.9), steps=STEPS, batch_size=15, eval_every=40
    )
    dense, ticket = tfl.find_ticket(dense_net(), trainer, levels=1, prune_fraction=0.5, survivors="keep")
    model, masks = dense_net(), ticket.masks
    for variable, value in zip(model.variables, arrays(dense.final).values()):
        variable.assign(value)
    for kernel, mask in zip([model.layers[0].kernel, model.layers[1].kernel], masks.values()):
        kernel.assign(kernel * mask)
        kernel.constraint = lambda w, mask=mask: w * mask
    model.compile(keras.optimizers.SGD(schedule(), 0.9), LOSS)
    rows = trainer._feed.order.rows(0, STEPS).ravel()
    model.fit(*(array[rows] for array in blobs), batch_size=15, shuffle=False, verbose=0)
    for variable, value in zip(model.variables, arrays(ticket.final).values()):
        np.testing.assert_allclose(variable, value, rtol=1e-4, atol=1e-5)


def test_regrow_is_one_training_and_its_ticket_says_what_it_is(blobs, dense_net, tmp_path):
    """The callback by itself gives the same network; weights that grew on the way began at zero."""
    (ticket,) = tfl.find_ticket(dense_net(), Counting(blobs), search="regrow", density=0.3, dense=False, seed=4)
    masked, start = tfl.wrap(dense_net()), dense_net().get_weights()
    regrow = tfl.callbacks.RegrowBySchedule(0.3, frequency=1, distribution="papers", seed=4)
    Counting(blobs).trainer(masked, [regrow])
    grown = 0
    values = zip(ticket.initial.items(), arrays(ticket.final).values(), masked.inner.weights, start, strict=True)
    for (path, initial), final, trained, drawn in values:
        np.testing.assert_array_equal(final, np.array(trained))
        if path in ticket.masks:
            first, last = regrow.first_masks[path], ticket.masks[path]
            np.testing.assert_array_equal(last, tfl.get_masks(masked)[path])
            np.testing.assert_array_equal(initial, drawn * (first & last))
            grown += int(np.sum(last > first))
    assert grown > 0 and ticket.found["search"] == "regrow" and "survivors" not in ticket.found
    ticket.save(tmp_path / "regrown.ticket")
    assert equal(tfl.Ticket.load(tmp_path / "regrown.ticket").in_paths_of(dense_net()), ticket)


@pytest.mark.parametrize("scope", ["global", "channels", "global_channels"])
@pytest.mark.parametrize("search", ["iterative", "gradual", "one_shot"])
def test_a_density_of_the_whole_or_of_channels(search, scope, blobs, dense_net):
    *_, ticket = tfl.find_ticket(dense_net(units=20), Counting(blobs), search=search, scope=scope, density=0.4)
    if scope == "global":
        assert ticket.density == pytest.approx(0.4, abs=0.006)
    else:
        hidden, output = ticket.masks
        assert np.any(ticket.masks[hidden], axis=0).sum() == 8
        assert np.all(ticket.masks[output])


def test_a_function_around_fit(blobs, dense_net):
    steps_seen = []

    def train(model, callbacks, steps=STEPS):
        steps_seen.append(steps)
        model.compile("adam", LOSS)
        data = (np.resize(array, (15 * steps, *array.shape[1:])) for array in blobs)
        return model.fit(*data, batch_size=15, shuffle=False, verbose=0, callbacks=callbacks)

    for options, expected in [
        ({"search": "gradual", "density": 0.2}, [40, 20, 40]),
        ({"density": 0.2, "budget": 2}, [40, 10, 10, 10, 10, 40]),
    ]:
        steps_seen.clear()
        *_, ticket = tfl.find_ticket(dense_net(), train, **options)
        assert steps_seen == expected and ticket.density == pytest.approx(0.2, abs=0.006)

    def deaf(model, callbacks, steps=STEPS):
        return {}

    with pytest.raises(LotteryError, match="to hand its callbacks on, for gradual pruning"):
        list(tfl.find_ticket(dense_net(), deaf, search="gradual", density=0.2))
    with pytest.raises(LotteryError, match="to hand its callbacks on, for search='regrow'"):
        list(tfl.find_ticket(dense_net(), deaf, search="regrow", density=0.2, probe=blobs))
    with pytest.raises(LotteryError, match="to take gradients on for search='regrow'"):
        tfl.find_ticket(dense_net(), train, search="regrow", density=0.2)
    *_, ticket = tfl.find_ticket(dense_net(), train, search="regrow", density=0.2, probe=blobs)
    assert ticket.metrics["trainings"] == 1 and ticket.density == pytest.approx(0.2, abs=0.006)


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"search": "random"}, "search to be one of iterative, one_shot, gradual, auto, regrow"),
        ({"search": "gradual"}, "search='gradual' with a density"),
        ({"search": "gradual", "one_shot": True, "density": 0.5}, "either one_shot or"),
        ({"density": 1.0}, r"a density in \(0, 1\), but received 1.0"),
        ({"density": 0.0, "budget": 2}, r"a density in \(0, 1\)"),
        ({"density": [0.2, 0.5]}, "in falling order"),
        ({"density": "0.5"}, "density to be a number"),
        ({"density": 0.05, "prune_fraction": {"output": 0.0, "": 0.2}}, "what is never pruned"),
        ({"density": 0.5, "budget": 1}, "budget above 1"),
        ({"budget": 2}, "budget with a density"),
        ({"density": 0.5, "budget": 2, "level_steps": 10}, "a budget without level_steps"),
        ({"density": 0.5, "level_steps": 4}, "level_steps from 5, eval_every, to 40"),
        ({"density": 0.5, "level_steps": 41}, "level_steps from 5, eval_every, to 40"),
        ({"density": 0.5, "search_steps": 10}, "search_steps with search='gradual' or 'regrow' only"),
        ({"density": 0.5, "search": "gradual", "search_steps": 12}, "at least 10 masks"),
        ({"density": 0.5, "search": "gradual", "rewind_to": 10}, "at least 10 masks"),
        ({"density": 0.5, "search": "gradual", "criterion": "snip"}, "snip"),
        ({"density": 0.5, "search": "gradual", "reset": "at_end"}, "reset='each_level'"),
        ({"density": 0.5, "search": "gradual", "min_per_kernel": 0}, "min_per_kernel=1"),
        ({"density": 0.5, "search": "gradual", "levels": 3}, "as many levels as densities"),
        ({"density": 0.5, "budget": 2, "levels": 3}, "as many levels as densities with search='auto'"),
        ({"density": 0.5, "budget": 2, "rewind_to": 11}, "rewind_to within the 10 steps"),
        ({"density": 0.5, "budget": 1.2}, "at least 5 steps, eval_every, but with 1.2 of 40 steps they have 2"),
        ({"search": "regrow"}, "search='regrow' with a density"),
        ({"density": 0.5, "search": "regrow", "one_shot": True}, "either one_shot or search='regrow'"),
        ({"density": 0.5, "search": "regrow", "budget": 0}, "budget above 0"),
        ({"density": 0.5, "search": "regrow", "search_steps": 10}, "at least 10 times"),
        ({"density": 0.5, "search": "regrow", "survivors": "reinit"}, "survivors='rewind' with search='regrow'"),
        ({"density": 0.5, "search": "regrow", "criterion": "movement"}, "criterion='large_final' with search='regrow'"),
        ({"density": 0.5, "search": "regrow", "scope": "global"}, "scope='layer' with search='regrow'"),
        ({"density": 0.5, "search": "regrow", "rewind_to": 3}, "rewind_to=0 with search='regrow'"),
        ({"density": [0.5, 0.2], "levels": 1}, "a level for each of the 2 densities"),
        ({"levels": 2, "level_steps": 10, "rewind_to": 11}, "rewind_to within the 10 steps"),
        ({"levels": 0}, "levels of at least 1"),
    ],
    ids=str,
)
def test_bad_input_is_refused_before_anything_is_trained(options, sentence, blobs, dense_net):
    train = Counting(blobs)
    with pytest.raises(LotteryError, match=sentence):
        tfl.find_ticket(dense_net(), train, **options)
    assert not train.trained


class Shown(Counting):
    """The same, with validation losses as they are given; in thirds their means are those."""

    def __init__(self, blobs, *thirds, **options):
        super().__init__(blobs, **options)
        self.thirds = thirds

    @property
    def curve(self):
        losses = [loss for loss in self.thirds for _ in range(3)]
        curve = [{"step": i + 1, "validation_loss": loss} for i, loss in enumerate(losses)]
        return [*curve, {"step": self.steps // 4 + 1, "validation_loss": 9.0}]  # after the first quarter nobody looks


@pytest.mark.parametrize(
    ("budget", "steps", "rest"),
    [(2, 80, 60), (1.5, 160, 60), (3, 80, 80)],  # no longer than one training
    ids=str,
)
def test_a_budget_goes_to_gradual_pruning_while_the_loss_falls(budget, steps, rest, blobs, dense_net):
    """As by `search="gradual"` with what the first short level has left."""
    options = {"density": 0.2, "dense": False, "seed": 3, "prune_fraction": 0.2}
    (ticket,) = tfl.find_ticket(
        dense_net(), train := Shown(blobs, 2.0, 1.0, 0.9, steps=steps), budget=budget, **options
    )
    first = round(steps * (budget - 1) / (4 if budget < 3 else 8))
    assert train.trained == [first, rest, steps] and ticket.found["chosen"] == "gradual"
    assert ticket.found["because"].endswith("fell by 10 % in the first short level")
    assert (
        ticket.metrics["trainings"] == pytest.approx(1 + (first + rest) / steps)
        and ticket.metrics["trainings"] <= budget
    )
    own = Counting(blobs, steps=steps)
    (gradual,) = tfl.find_ticket(dense_net(), own, search="gradual", search_steps=rest, **options)
    assert all(np.array_equal(ticket.masks[path], gradual.masks[path]) for path in ticket.masks)
    assert all(np.array_equal(value, gradual.final[path]) for path, value in arrays(ticket.final).items())


@pytest.mark.parametrize("thirds", [(2.0, 1.0, 0.93), (2.0, 1.0, 1.2), (2.0, 1.0, np.nan), (2.0,), ()], ids=str)
def test_a_budget_goes_to_short_levels_else(thirds, blobs, dense_net):
    """As by `search="iterative"`, to the bit; also where the losses cannot tell."""
    options = {"budget": 2, "density": 0.2, "dense": False, "seed": 3}
    (ticket,) = tfl.find_ticket(dense_net(), train := Shown(blobs, *thirds), **options)
    assert train.trained == [10, 10, 10, 10, 40] and ticket.found["chosen"] == "iterative"
    *_, last = tfl.find_ticket(dense_net(), Counting(blobs), search="iterative", **options)
    assert equal(dataclasses.replace(ticket, level=4), last)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"criterion": "grad"}, "grad"),
        ({"reset": "at_end"}, "reset='each_level'"),
        ({"min_per_kernel": 2}, "min_per_kernel=1"),
        ({"scope": "global", "prune_fraction": {"output": 0.0, "": 0.2}}, "a prune_fraction above 0"),
    ],
    ids=str,
)
def test_what_gradual_pruning_cannot_do_short_levels_do(options, why, blobs, dense_net):
    (ticket,) = tfl.find_ticket(dense_net(), Shown(blobs, 3.0, 2.0, 1.0), budget=2, density=0.5, dense=False, **options)
    assert ticket.found["chosen"] == "iterative"
    assert (
        ticket.found["because"].startswith("gradual pruning cannot do that: Expected")
        and why in ticket.found["because"]
    )


def test_a_history_shows_its_losses(blobs, dense_net):
    """Of a function around `fit`; one step an epoch."""
    x, y = blobs

    def train(model, callbacks, steps=STEPS):
        model.compile(keras.optimizers.Adam(0.05), LOSS)
        return model.fit(x, y, epochs=steps, batch_size=len(x), validation_data=(x, y), verbose=0, callbacks=callbacks)

    (ticket,) = tfl.find_ticket(dense_net(), train, budget=2, density=0.5, dense=False)
    assert ticket.found["chosen"] == "gradual"


def test_a_train_function_of_one_length_is_refused_where_two_are_needed(blobs, dense_net):
    with pytest.raises(LotteryError, match="train.model, callbacks, steps=12_000."):
        tfl.find_ticket(dense_net(), lambda model, callbacks: {}, density=0.5, budget=2)
    assert steps_of(lambda model, callbacks, steps=7: {}) == 7


def test_the_rates_lead_to_the_density():
    sizes = {"hidden": 266_200 - 1_000, "output": 1_000}
    papers = {"hidden": 0.2, "output": 0.1}
    rounds = rounds_to(0.0358, papers, sizes, sizes)
    assert rounds == pytest.approx(15, abs=0.2)  # Frankle & Carbin (2019), Figure 1: 3.6 % after 15 rounds
    lengths, asked = spread([rounds / 3, rounds], 4)
    assert asked == [1, 4] and sum(lengths) == pytest.approx(rounds)
    left = dict(sizes)
    for length in lengths:
        left = {path: kept * (1 - at_once(papers, length)[path]) for path, kept in left.items()}
    assert sum(left.values()) / sum(sizes.values()) == pytest.approx(0.0358)
    for levels in range(3, 12):
        lengths, asked = spread([0.1, 0.2, 9.0], levels)
        assert len(lengths) == levels == asked[-1] and sorted(set(asked)) == asked
        falling, (end,) = spread([9.0], levels, falling=True)
        half = -(-levels // 2)
        assert len(falling) == levels == end and sum(falling) == pytest.approx(9)
        np.testing.assert_allclose(falling, [3 * falling[-1] / 2] * half + [falling[-1]] * (levels - half))


def test_the_cubic_schedule():
    schedule = Cubic(0.036, 6_000)
    due, sparsity = schedule(np.arange(6_001))
    assert list(np.flatnonzero(due)) == list(range(50, 4_501, 50))
    f = np.flatnonzero(due) / 4_500
    np.testing.assert_allclose(sparsity[due], 0.964 * (1 - (1 - f) ** 3))
    late, _ = Cubic(0.036, 6_000, begin=500)(np.arange(6_001))
    assert np.flatnonzero(late)[0] == 550 and np.flatnonzero(late)[-1] == 4_500
