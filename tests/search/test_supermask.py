"""Supermasks by rule and by learning, the tickets that hold their recipe, and their command."""

import csv
import dataclasses
import os
import subprocess
import sys

import forked
import keras
import numpy as np
import pytest

import tf_lottery as tfl
from tf_lottery.base.container import digest
from tf_lottery.bin import main as main_lib
from tf_lottery.masking import weights
from tf_lottery.rules import criteria, masks
from tf_lottery.search import supermask
from tf_lottery.tickets import recipes
from tf_lottery.tickets.ticket import Ticket
from tf_lottery.tickets.values import Recipe


@pytest.fixture
def trainer(blobs):
    return tfl.Trainer(*blobs, test=blobs, validation=blobs, steps=100, batch_size=50, eval_every=50, optimizer="adam")


@pytest.fixture
def dense(dense_net, trainer):
    return next(tfl.find_ticket(dense_net(), trainer, levels=1))


def learner(blobs, steps=150, rate=3.0):
    sgd = keras.optimizers.SGD(rate, momentum=0.9)
    return tfl.Trainer(*blobs, test=blobs, steps=steps, batch_size=50, optimizer=sgd)


def forward(values, x):
    """The network of `dense_net`, with NumPy."""
    hidden = np.maximum(x @ values["net/hidden/kernel"] + values["net/hidden/bias"], 0)
    return hidden @ values["net/output/kernel"] + values["net/output/bias"]


@pytest.mark.parametrize("signed_constant", [False, True])
def test_by_rule_is_initial_times_mask(signed_constant, dense, dense_net, trainer, blobs):
    densities = (1.0, 0.5, 0.2)
    rows = list(
        supermask.evaluate(
            dense_net(), dense, trainer.test_accuracy, densities=densities, signed_constant=signed_constant
        )
    )
    dense = dense.in_paths_of(dense_net())
    for row, density in zip(rows, densities):
        values = dict(dense.initial)
        for path in dense.masks:
            w, final = dense.initial[path], dense.final[path]
            start = np.sign(w) * np.std(w) if signed_constant else w
            score = np.maximum(0, w * final / np.abs(w))
            values[path] = start * masks.keep_top(score, round(density * w.size))
        right = np.mean(np.argmax(forward(values, blobs[0]), 1) == blobs[1])
        assert row == ("large_final_same_sign", signed_constant, pytest.approx(density, abs=0.01), pytest.approx(right))


def test_by_rule_leaves_the_model_as_it_was(dense, dense_net, trainer):
    model = dense_net(seed=3)
    before = model.get_weights()
    rows = supermask.evaluate(model, dense, trainer.test_accuracy, densities=(0.5, 0.3))
    next(rows)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))  # also between two measurements

    def broken(model):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        list(supermask.evaluate(model, dense, broken, densities=(0.5,)))
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))


def test_by_rule_takes_every_criterion(dense, dense_net, trainer):
    rows = list(
        supermask.evaluate(
            dense_net(),
            dense,
            trainer.test_accuracy,
            criterion=list(criteria.registry),
            densities=({"output": 0.5, "Dense": 0.25},),
            probe=trainer.probe,
        )
    )
    assert [row.criterion for row in rows] == list(criteria.registry)
    assert all(row.density == pytest.approx((24 + 24) / 144) for row in rows)


def test_without_trained_weights(dense, dense_net, trainer):
    untrained = Ticket(dense.masks, dense.initial)
    assert len(list(supermask.evaluate(dense_net(), untrained, trainer.test_accuracy, criterion="large_init"))) == 25
    with pytest.raises(tfl.LotteryError, match="final weights of a dense network for criterion 'movement'"):
        supermask.evaluate(dense_net(), untrained, trainer.test_accuracy, criterion=["large_init", "movement"])


@pytest.mark.parametrize("densities", [(0.5, 0.0), (1.2,), ({"Dense": -1},), ("half",)])
def test_densities_are_shares(densities, dense, dense_net, trainer):
    with pytest.raises(tfl.LotteryError, match=r"density in \(0, 1\]"):
        supermask.evaluate(dense_net(), dense, trainer.test_accuracy, densities=densities)


@pytest.mark.parametrize(
    "rule", [{"by": "learning"}, {"by": "edge_popup", "density": 0.4}], ids=lambda rule: rule["by"]
)
def test_a_learned_ticket_is_a_recipe(rule, dense_net, blobs, tmp_path):
    train = learner(blobs)
    model = dense_net(units=128)
    drawn = [weights.value_of(layer.kernel) for layer in model.layers]
    ticket = supermask.train(model, train, **rule)
    assert all(isinstance(value, Recipe) for value in ticket.initial.values()) and ticket.final is None
    assert ticket.metrics["mask_accuracy"] == pytest.approx(train.test_accuracy(model)) and len(ticket.initial) == 4
    assert ticket.metrics["mask_accuracy"] > 0.8
    if rule["by"] == "learning":
        low, high = ticket.metrics["sampled_accuracy_low"], ticket.metrics["sampled_accuracy_high"]
        assert 0.5 < low <= ticket.metrics["sampled_accuracy"] <= high <= 1
    for layer, before, mask in zip(model.layers, drawn, ticket.masks.values()):  # the weights as drawn, under the mask
        np.testing.assert_array_equal(np.sign(weights.value_of(layer.kernel)), np.sign(before) * mask)
    ticket.save(tmp_path / "super.ticket")
    assert (tmp_path / "super.ticket").stat().st_size < 4_000  # 1,152 weights are 144 bytes of mask
    masked = Ticket.load(tmp_path / "super.ticket").apply(dense_net(seed=7, units=128))
    assert train.test_accuracy(masked) == ticket.metrics["mask_accuracy"]
    for a, b in zip(tfl.strip(masked).get_weights(), model.get_weights()):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_recipe_says_where_its_values_come_from(dense_net, blobs):
    model = dense_net()
    kernel = weights.value_of(model.layers[0].kernel)
    ticket = supermask.train(model, learner(blobs, steps=2), by="edge_popup", rescale=False)
    recipe = next(iter(ticket.initial.values()))
    assert (
        recipe.initializer
        == {
            "class_name": "GlorotNormal",
            "config": {"seed": 0, "input_axes": None, "output_axes": None},
        }
        or recipe.initializer["config"]["seed"] == 0
    )  # what an initializer's config holds is Keras's own business
    np.testing.assert_array_equal(recipes.regenerate(recipe, "k"), np.sign(kernel) * np.float32(np.sqrt(2 / 6)))
    assert recipe.digest == digest(recipes.regenerate(recipe, "k"))


def test_weights_that_no_initializer_made_are_stored(dense_net, blobs, tmp_path):
    model = dense_net()
    model.layers[0].kernel.assign(model.layers[0].kernel + 1)
    model.layers[1].bias.assign([1, 2, 3])
    ticket = supermask.train(model, learner(blobs, steps=2))
    kinds = [type(value) for value in ticket.initial.values()]
    assert kinds == [np.ndarray, Recipe, Recipe, np.ndarray]
    ticket.save(tmp_path / "mixed.ticket")
    again = Ticket.load(tmp_path / "mixed.ticket")
    assert list(again.initial) == list(ticket.initial) and [type(v) for v in again.initial.values()] == kinds
    for value, other in zip(ticket.initial.values(), again.initial.values()):
        assert value == other if isinstance(value, Recipe) else np.array_equal(value, other)


def test_an_unseeded_initializer_has_a_seed_all_the_same(blobs):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)])
    values = weights.value_of(model.layers[0].kernel)
    recipe = next(iter(recipes.of_model(model).values()))
    np.testing.assert_array_equal(recipes.regenerate(recipe, "k"), values)


def test_a_recipe_that_draws_other_values_names_the_kernel(dense_net, blobs):
    ticket = supermask.train(dense_net(), learner(blobs, steps=2))
    path = next(iter(ticket.initial))
    wrong = dataclasses.replace(ticket.initial[path], scale=7.0)
    model = dense_net(seed=2)
    before = model.get_weights()
    with pytest.raises(tfl.TicketError, match=f"Expected the values of '{path}' that the ticket was made with"):
        dataclasses.replace(ticket, initial={**ticket.initial, path: wrong}).apply(model)
    hostile = dataclasses.replace(ticket.initial[path], initializer={"class_name": "deserialize", "config": {}})
    with pytest.raises(tfl.TicketError, match="is no initializer"):
        dataclasses.replace(ticket, initial={**ticket.initial, path: hostile}).apply(model)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))


def test_the_same_seed_the_same_ticket(dense_net, blobs):
    first, second = (supermask.train(dense_net(), learner(blobs), seed=5) for _ in range(2))
    assert first.metrics | {"seconds": 0} == second.metrics | {"seconds": 0} and first.initial == second.initial
    assert all(np.array_equal(first.masks[path], second.masks[path]) for path in first.masks)
    other = supermask.train(dense_net(), learner(blobs), seed=6)
    assert any(not np.array_equal(first.masks[path], other.masks[path]) for path in first.masks)


def test_with_a_fit_of_ones_own(dense_net, blobs):
    def fit(masked, callbacks):
        masked.compile(keras.optimizers.SGD(3.0, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(True))
        return masked.fit(*blobs, epochs=15, verbose=0, callbacks=callbacks)

    model = dense_net(units=128)
    ticket = supermask.train(model, fit, by="edge_popup")
    assert "loss" in ticket.metrics and "mask_accuracy" not in ticket.metrics
    assert np.mean(np.argmax(model(blobs[0]), 1) == blobs[1]) > 0.8


def test_a_training_that_fails_leaves_the_model_as_it_was(dense_net, blobs):
    def interrupted(masked, callbacks):
        masked.compile(keras.optimizers.SGD(3.0), keras.losses.SparseCategoricalCrossentropy(True))
        masked.fit(*blobs, verbose=0)
        raise KeyboardInterrupt

    model = dense_net()
    before = model.get_weights()
    with pytest.raises(KeyboardInterrupt):
        supermask.train(model, interrupted)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))
    assert len(model.trainable_variables) == 4


def test_a_trainer_without_a_test_set_measures_nothing(dense_net, blobs):
    ticket = supermask.train(dense_net(), tfl.Trainer(*blobs, steps=2), by="edge_popup")
    assert "mask_accuracy" not in ticket.metrics


def test_an_empty_mask_is_told(dense_net, blobs):
    with pytest.warns(UserWarning, match="keeps no weight of .*hidden/kernel"):
        supermask.train(dense_net(), learner(blobs, steps=1, rate=1e-6), density=0.1)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rescale": "no"}, "rescale to be True or False"),
        ({"seed": 1.5}, "seed of 0 or more, a whole number"),
        ({"density": True}, "density in"),
    ],
)
def test_bad_options_of_training(options, sentence, dense_net, blobs):
    with pytest.raises(tfl.LotteryError, match=sentence):
        supermask.train(dense_net(), learner(blobs), **options)


def test_models_without_weights_and_other_tickets(dense_net, blobs, trainer, dense):
    with pytest.raises(tfl.LotteryError, match="Expected a built model"):
        supermask.train(keras.Sequential([keras.layers.Dense(3)]), learner(blobs))
    *_, sparse = tfl.find_ticket(dense_net(), trainer, levels=1)
    with pytest.raises(tfl.LotteryError, match="level 0, but received one of level 1"):
        supermask.evaluate(dense_net(), sparse, trainer.test_accuracy)
    with pytest.raises(tfl.LotteryError, match="signed_constant to be True or False"):
        supermask.evaluate(dense_net(), dense, trainer.test_accuracy, signed_constant="none")


def test_a_wrapped_model_loads_in_a_fresh_process(dense_net, tmp_path):
    """After no more than the two imports."""
    supermask.wrap(dense_net()).save(tmp_path / "s.keras")
    tfl.wrap(dense_net()).save(tmp_path / "m.keras")
    code = (
        "import keras\nimport tf_lottery\n"
        f"print([type(keras.models.load_model({str(tmp_path)!r} + f)).__name__ for f in ('/s.keras', '/m.keras')])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert out.stdout.strip() == "['SupermaskModel', 'MaskedModel']"


@pytest.mark.parametrize("samples", [0, 2.5])
def test_samples_are_counted(samples, dense_net, blobs):
    with pytest.raises(tfl.LotteryError, match="at least 1 sample"):
        supermask.train(dense_net(), learner(blobs), samples=samples)


# The command.

TINY = ["--steps=30", "--eval_every=15", "--replicates=2", "--quiet"]


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("by", ["learning", "edge_popup"])
def test_the_command_learns_and_resumes(by, tmp_path, capsys):
    argv = ["supermask", f"--by={by}", f"--results_dir={tmp_path}", "--name=s", *TINY]
    assert main_lib.dispatch([*argv, "--replicate=0"]) == 0
    assert main_lib.dispatch(argv) == 0
    rows = rows_of(tmp_path / "s" / "supermask.csv")
    assert [row["replicate"] for row in rows] == ["0", "1"]
    assert all((row["sampled_accuracy"] == "") == (by == "edge_popup") for row in rows)
    for other in (["branch", "--name=s", "--survivors=reinit"], ["supermask", "--by=rule", "--name=s"]):
        assert main_lib.dispatch([*other, f"--results_dir={tmp_path}"]) == 1
        assert "it was begun by another command" in capsys.readouterr().err
    before = (tmp_path / "s" / "supermask.csv").read_bytes()
    capsys.readouterr()
    assert main_lib.dispatch(argv) == 0
    assert "finished already" in capsys.readouterr().out
    assert (tmp_path / "s" / "supermask.csv").read_bytes() == before
    assert main_lib.dispatch([*argv, "--learning_rate=7"]) == 1
    assert "learning_rate=7.0 instead of" in capsys.readouterr().err


def test_the_command_by_rule(tmp_path, capsys):
    find = ["find", f"--results_dir={tmp_path}", "--name=r", "--levels=1", *TINY]
    assert main_lib.dispatch(find) == 0
    rule = ["supermask", "--by=rule", f"--results_dir={tmp_path}", "--name=r", "--criterion=large_final,random"]
    assert main_lib.dispatch([*rule, "--densities=0.5,0.25"]) == 0
    assert "large_final" in capsys.readouterr().out
    assert main_lib.dispatch([*rule, "--densities=0.5", "--signed_constant=std"]) == 0
    rows = rows_of(tmp_path / "r" / "supermask_by_rule.csv")
    assert len(rows) == 2 * 2 * 2 + 2 * 2
    assert {row["signed_constant"] for row in rows} == {"True", "False"}
    assert main_lib.dispatch([*rule[:-1], "--criterion=small_init"]) == 0  # at the densities of the run's own rounds
    rounds = [float(row["density"]) for row in rows_of(tmp_path / "r" / "supermask_by_rule.csv")[-25:]]
    np.testing.assert_allclose(rounds, [0.8**k for k in range(25)], atol=1e-3)
    assert main_lib.dispatch([*rule, "--signed_constant=kaiming"]) == 1
    assert "none or std with by='rule', but received 'kaiming'" in capsys.readouterr().err
    assert main_lib.dispatch([*rule, "--densities=0.5,3"]) == 1
    assert "density in (0, 1], but received 3.0" in capsys.readouterr().err
    assert main_lib.dispatch([*rule, "--criterion=largest"]) == 1
    assert "Expected the name of a criterion" in capsys.readouterr().err
    (tmp_path / "r" / "replicate_0" / "level_00" / "level.ticket").unlink()
    assert main_lib.dispatch(rule) == 1 and "Expected a run with level 0 of replicate 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--by=hope"], "Expected by to be one of learning, edge_popup, rule, but received 'hope'."),
        (["--by=rule"], "Expected --name, a run of tf-lottery find"),
        (["--by=rule", "--name=none"], "there is none: `tf-lottery find` makes one"),
        (["--by=rule", "--name=r", "--density=0.3"], "of training with by=rule, which measures the run as it is"),
        (["--by=rule", "--name=r", "--steps=3"], "received steps 3"),
        (["--by=edge_popup", "--density=0.0001"], "keeps none of the"),
        (["--by=learning", "--density=1"], "Expected a density in (0, 1) to start learning from"),
        (["--densities=many"], "expected numbers as in 0.5,0.2"),
        (["--criterion=random"], "with by='rule' only"),
    ],
)
def test_what_the_command_refuses(flags, sentence, tmp_path, capsys):
    assert main_lib.dispatch(["supermask", f"--results_dir={tmp_path}", *flags]) == 1
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_recipe_grows_in_a_fresh_process(dense_net, blobs, tmp_path):
    """Bit for bit, so that the file is enough."""
    model = dense_net()
    ticket = supermask.train(model, learner(blobs, steps=5))
    ticket.save(tmp_path / "a.ticket")
    code = (
        "import tf_lottery as tfl, numpy as np\n"
        "from tf_lottery.tickets import recipes\nfrom tf_lottery.base.container import digest\n"
        f"ticket = tfl.Ticket.load({str(tmp_path / 'a.ticket')!r})\n"
        "print([digest(recipes.regenerate(r, p)) == r.digest for p, r in ticket.initial.items()])"
    )
    out = forked.run(["-c", code], check=True)
    assert out.stdout.strip() == "[True, True, True, True]"
