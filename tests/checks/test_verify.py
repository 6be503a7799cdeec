"""`verify` in memory: what each control changes and nothing else, what it costs, what cannot be had."""

import keras
import numpy as np
import pytest

import tf_lottery as tfl
from tf_lottery.base.errors import LotteryError
from tf_lottery.checks import controls
from tf_lottery.checks.verdict import CONTROLS
from tf_lottery.search.find import retrain_ticket

PATH = "net/hidden/kernel"
QUICK = {"steps": 60, "batch_size": 30, "eval_every": 20, "jit_compile": False}


@pytest.fixture(scope="module")
def search():
    """A search of two levels of a small network, and its data."""
    x = np.random.default_rng(1).normal(size=(300, 6)).astype("float32")
    blobs = x, (x[:, 0] * x[:, 1] > 0).astype("int32") + (x[:, 2] > 0.5)
    trainer = tfl.Trainer(*blobs, validation=blobs, test=blobs, optimizer=keras.optimizers.Adam(0.02), **QUICK)
    return blobs, trainer, list(tfl.find_ticket(net(), trainer, levels=2, prune_fraction=0.4))


def net():
    initializers = [keras.initializers.GlorotNormal(seed=i) for i in range(2)]
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(16, "relu", kernel_initializer=initializers[0], name="hidden"),
            keras.layers.Dense(3, kernel_initializer=initializers[1], name="output"),
        ],
        name="net",
    )


def test_seven_trainings_that_differ_in_what_they_check_alone(search):
    _, trainer, (dense, before, ticket) = search
    began, said = [], []

    def train(model, callbacks, seed=0):
        began.append((tfl.get_masks(model)[PATH], model.inner.layers[0].kernel.numpy(), seed))
        return trainer(model, callbacks, seed=seed)

    train.test_accuracy = trainer.test_accuracy
    found = tfl.verify(ticket, train, net(), dense=dense, before=before, points=3, examples=300, tell=said.append)
    assert (
        said == ["7 trainings like that of the ticket, and 6 measurements along lines."]
        and len(began) == 7 == found.trainings
    )
    masks, kernels, seeds = zip(*began)
    own, start = ticket.masks[PATH], dense.initial[PATH]
    as_ticket, as_dense, reinit, shuffled, random, inverted, reordered = range(7)
    for at, mask, values in ((as_ticket, own, start), (as_dense, np.ones_like(own), start), (reordered, own, start)):
        assert np.array_equal(masks[at], mask) and np.array_equal(kernels[at], values * mask)
    assert np.array_equal(masks[reinit], own) and not np.any(kernels[reinit] == start, where=own == 1)
    assert np.array_equal(kernels[shuffled], start * masks[shuffled]) and not np.array_equal(masks[shuffled], own)
    assert not np.array_equal(masks[random], own) and not np.any(kernels[random] == start, where=masks[random] == 1)
    assert {mask.sum() for mask in masks} == {own.sum(), own.size}
    scores, candidates = np.abs(before.final[PATH]), before.masks[PATH] == 1
    assert np.array_equal(kernels[inverted], start * masks[inverted]) and np.all(masks[inverted] <= before.masks[PATH])
    assert scores[masks[inverted] == 1].max() <= scores[candidates & (masks[inverted] == 0)].min()
    assert seeds[:reordered] == (0,) * 6 and seeds[reordered] != 0
    assert [row.name for row in found.rows] == ["ticket", "dense", *CONTROLS, "other_order"]
    assert found.of("ticket")[0].accuracy == ticket.metrics["early_stop_test_accuracy"]
    assert found.of("dense")[0].step == dense.metrics["early_stop_step"]
    again = retrain_ticket(net(), trainer, ticket, dense, survivors="reinit")
    assert found.of("reinit")[0].accuracy == again.metrics["early_stop_test_accuracy"]
    lines = {name: line.errors for name, (line,) in found.lines.items()}
    ends = [1 - trainer.test_accuracy(one.apply(net(), weights="final")) for one in (ticket, before)]
    assert list(lines["level_before"][::2]) == ends and lines["instability"][0] == ends[0]
    assert found.signs == [tfl.analysis.sign_agreement(ticket).share] and not found.not_run


def test_what_cannot_be_had_is_left_out_and_said(search):
    blobs, _, (dense, before, ticket) = search
    x, y = blobs

    def train(model, callbacks):
        if not model.compiled:
            model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
        return model.fit(x, y, verbose=0, callbacks=callbacks)

    alone = tfl.verify(ticket, train, net(), metric="accuracy", tell=lambda _: None, examples=300)
    assert [row.name for row in alone.rows] == ["ticket", "reinit", "random_mask+reinit"] and not alone.won
    assert alone.sentence.startswith("Not yet known to be a ticket")
    assert set(alone.not_run) == {"dense", "random_mask", "inverted", "instability", "other_order", "level_before"}
    assert alone.rows[0].step is None and "was not run: train takes no other data order" in str(alone)
    for changed, why in (
        ({"criterion": "mine"}, "'mine', is not registered"),
        ({"search": "gradual"}, None),
    ):
        one = tfl.Ticket(ticket.masks, ticket.initial, ticket.final, 2, {}, {**ticket.found, **changed})
        told = controls.why_not_inverted(one, dense, before)
        assert told is None if why is None else why in told
    assert "not there" in controls.why_not_inverted(ticket, dense, None)
    masked = tfl.wrap(net())
    gradual = tfl.Ticket(ticket.masks, ticket.initial, ticket.final, 2, {}, {**ticket.found, "search": "gradual"})
    parent = controls.parent_of(gradual, dense, before)
    mask = controls.inverted(gradual, parent, masked, None)[PATH]
    assert parent is dense and np.abs(dense.final[PATH])[mask == 1].max() <= np.abs(dense.final[PATH])[mask == 0].min()


@pytest.mark.parametrize(
    "options", [{"criterion": "snip", "one_shot": True, "scope": "global"}, {"scope": "channels"}], ids=str
)
def test_scores_are_inverted_for_other_criteria_and_scopes(search, options):
    _, trainer, _ = search
    dense, ticket = tfl.find_ticket(net(), trainer, levels=1, prune_fraction=0.5, **options)
    masked = tfl.wrap(net())
    new = controls.inverted(ticket, controls.parent_of(ticket, dense, None), masked, trainer.probe)
    for path, mask in ticket.masks.items():
        assert new[path].sum() == mask.sum()
    if "criterion" in options:
        (overlap, _) = tfl.analysis.mask_overlap(ticket, new).values()
        assert overlap.jaccard < overlap.jaccard_by_chance
    else:
        assert not np.any(ticket.masks[PATH] & new[PATH]) and set(new[PATH].sum(0)) == {0, 6}


def test_bad_input_is_one_sentence(search):
    blobs, trainer, (dense, before, ticket) = search
    untested = tfl.Trainer(*blobs, **QUICK)
    elsewhere = tfl.Trainer(blobs[0], blobs[1] + 5, validation=blobs, test=blobs, **QUICK)
    narrow = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4), keras.layers.Dense(3)])
    cases = {
        "Expected a ticket of a pruned level": lambda: tfl.verify(dense, trainer, net(), dense=dense),
        "Expected a ticket, as Ticket.load": lambda: tfl.verify("a.ticket", trainer, net()),
        "Expected a Trainer with a validation and a test set": lambda: tfl.verify(ticket, untested, net(), dense=dense),
        "has the shape": lambda: tfl.verify(ticket, trainer, narrow, dense=dense),
        "Expected the dense network that": lambda: tfl.verify(before, trainer, net(), dense=ticket),
        r"Expected labels in \[0, 3\)": lambda: tfl.verify(ticket, elsewhere, net(), dense=dense, tell=lambda _: None),
        "Expected train to return early_stop_test_accuracy in": lambda: tfl.verify(
            ticket, lambda m, c: {"loss": 1.0}, net(), dense=dense, tell=lambda _: None
        ),
        "trained the same network to the bit": lambda: tfl.verify(
            ticket,
            lambda m, c, seed=0: {"early_stop_test_accuracy": 0.5},
            net(),
            accuracy=trainer.test_accuracy,
            tell=lambda _: None,
        ),
    }
    for message, wrong in cases.items():
        with pytest.raises(LotteryError, match=message) as error:
            wrong()
        assert "\n" not in str(error.value)
