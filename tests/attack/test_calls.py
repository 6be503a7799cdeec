"""Numbers without end, results that are no numbers, and functions of others that do not keep to what they should."""

import keras
import numpy as np
import pytest

import tf_lottery as tfl
from tf_lottery.base.errors import DataError, LotteryError
from tf_lottery.runs import problem
from tf_lottery.runs.settings import Settings

NO_SEEDS = [-1, None, 1.5, "0", True, 2**31, 10**30, float("nan"), [1], np.float32(1)]


def seeded(blobs, dense_net):
    """Everything that takes a seed, as functions of it."""
    dense = next(tfl.find_ticket(dense_net(), lambda model, callbacks: {}, levels=1))
    return {
        "find_ticket": lambda seed: tfl.find_ticket(dense_net(), lambda model, callbacks: {}, levels=1, seed=seed),
        "retrain_ticket": lambda seed: tfl.retrain_ticket(dense_net(), lambda m, c: {}, dense, dense, seed=seed),
        "prune": lambda seed: tfl.prune(dense_net(), 0.5, seed=seed),
        "Trainer": lambda seed: tfl.Trainer(*blobs, steps=1, seed=seed),
        "PruneBySchedule": lambda seed: tfl.callbacks.PruneBySchedule(lambda step: (False, 0), seed=seed),
        "RegrowBySchedule": lambda seed: tfl.callbacks.RegrowBySchedule(0.5, seed=seed),
        "supermask.wrap": lambda seed: tfl.supermask.wrap(dense_net(), seed=seed),
    }


def test_a_seed_is_a_whole_number_that_the_device_holds(blobs, dense_net):
    for name, made in seeded(blobs, dense_net).items():
        for seed in NO_SEEDS:
            with pytest.raises(LotteryError, match="Expected seed of"):
                made(seed)
                pytest.fail(f"{name} took seed={seed!r}")
        made(np.int64(3))


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"levels": 999_999_999}, "levels of at most 10,000"),
        ({"levels": 0}, "levels of at least 1"),
        ({"replicates": 10**9}, "replicates of at most 10,000"),
        ({"steps": 10**12}, "steps of at most 2,147,483,647"),
        ({"seed": 2**31 - 2}, "seed . replicates of at most"),
        pytest.param({"lr_drops": tuple(range(2_000))}, "the number of lr_drops of at most 1,000", id="2,000 lr_drops"),
        ({"lr_drops": (10, -1)}, "each of lr_drops of 0 or more"),
        ({"batch_size": 1.5}, "batch_size of at least 1, a whole number"),
    ],
    ids=str,
)
def test_settings_have_ends(change, sentence):
    with pytest.raises(LotteryError, match=f"Expected {sentence}"):
        problem.resolved(Settings(**change))


def test_numbers_of_calls_have_ends(blobs, dense_net):
    for made, sentence in [
        (lambda: tfl.find_ticket(dense_net(), lambda m, c: {}, levels=10**9), "levels of at most 10,000"),
        (lambda: tfl.find_ticket(dense_net(), lambda m, c: {}, levels=1.5), "levels of at least 1"),
        (lambda: tfl.find_ticket(dense_net(), lambda m, c: {}, rewind_to=-1), "rewind_to of 0 or more"),
        (lambda: tfl.LotterySchedule(10**9, 1), "levels of at most 10,000"),
        (lambda: tfl.Trainer(*blobs, steps=10**12), "steps of at most"),
    ]:
        with pytest.raises(LotteryError, match=sentence):
            made()


def test_results_that_are_no_numbers_are_no_results(blobs, dense_net):
    for name in ("validation", "test"):
        for part, value in ((0, np.nan), (0, np.inf), (1, np.nan)):
            pair = [array[:60].astype("float32") for array in blobs]
            pair[part][17] = value
            what = ("inputs", "targets")[part]
            with pytest.raises(DataError, match=f"{name} {what} without NaN and infinity, but example 17"):
                tfl.Trainer(*blobs, steps=5, metric=keras.metrics.mean_absolute_error, **{name: tuple(pair)})

    def huge(y, outputs):
        return 1e31 + 0 * keras.ops.mean(outputs)

    with pytest.raises(tfl.NonFiniteLossError, match="step 1:"):
        tfl.Trainer(*blobs, steps=5, loss=huge, metric=keras.metrics.sparse_categorical_accuracy)(dense_net())

    class Last(keras.optimizers.SGD):
        """Its last update is no number, which no loss tells of."""

        def update_step(self, gradient, variable, learning_rate):
            last = keras.ops.cast(self.iterations, "float32") == 4
            self.assign(variable, keras.ops.where(last, np.nan, variable))

    tickets = tfl.find_ticket(dense_net(), tfl.Trainer(*blobs, steps=5, optimizer=Last(), jit_compile=False), levels=1)
    with pytest.raises(
        tfl.NonFiniteLossError, match="'(net/)?hidden/kernel' holds NaN or infinity after step 5"
    ) as caught:
        next(tickets)
    assert caught.value.step == 5 and caught.value.variable.endswith("hidden/kernel")

    def diverges(model, callbacks):
        model.inner.layers[-1].bias.assign(np.full(3, np.inf))

    with pytest.raises(LotteryError, match="train to end with finite weights, but .*bias"):
        next(tfl.find_ticket(dense_net(), diverges, levels=1))


def in_place(*arrays):
    for array in arrays:
        array[...] = 7
    return arrays[-1]


def test_functions_of_others_get_copies(dense_net):
    """A criterion and treatments that work in place change neither weights nor masks nor each other's arguments."""
    from tf_lottery.tickets.values import arrays

    def criterion(initial, final, *, rng):
        scores = np.abs(final)
        in_place(initial, final)
        return scores

    def survivors(initial, final, *, mask, rng, draw, scale):
        start = initial.copy()
        in_place(initial, final, mask)
        return start

    def pruned(values, initial, final, *, mask, rng):
        whole = np.where(mask, values, 0)
        in_place(values, initial, final, mask)
        return whole

    def train(model, callbacks):
        for kernel in model.kernels:
            kernel.variable.assign(kernel.variable + 0.5)

    plain = list(tfl.find_ticket(dense_net(), train, levels=2))
    theirs = list(
        tfl.find_ticket(dense_net(), train, levels=2, criterion=criterion, survivors=survivors, pruned=pruned)
    )
    for one, other in zip(plain, theirs):
        for part in ("masks", "initial", "final"):
            values = arrays(getattr(one, part)), arrays(getattr(other, part))
            assert all(np.array_equal(values[0][path], values[1][path]) for path in values[0])
    pruned_at_once = tfl.prune(
        dense_net(), 0.5, criterion=lambda initial, final, *, rng: in_place(np.abs(final), final)
    )
    assert np.isin(np.array(pruned_at_once.kernels[0].variable.value), 7).sum() == 0

    def distribution(shapes, density):
        return {shapes.popitem()[0]: density for _ in range(len(shapes))}

    assert tfl.masks.density(tfl.get_masks(tfl.prune(dense_net(), 0.5, distribution=distribution))) == 0.5


@pytest.mark.parametrize(
    "scores, sentence",
    [
        (lambda final: final.astype("complex64"), "real numbers as scores, but received complex64"),
        (lambda final: final.astype(str), "real numbers as scores, but received str"),
        (lambda final: np.full(final.shape, None), "real numbers as scores, but received object"),
        (lambda final: final[0], "scores of shape"),
        (lambda final: 1.0, "scores of shape"),
        (lambda final: None, "real numbers as scores"),
    ],
)
def test_scores_are_real_numbers_in_the_kernels_shape(scores, sentence, dense_net):
    def criterion(initial, final, *, rng):
        return scores(final)

    for made in (
        lambda: tfl.prune(dense_net(), 0.5, criterion=criterion),
        lambda: list(tfl.find_ticket(dense_net(), lambda m, c: {}, levels=1, criterion=criterion)),
    ):
        with pytest.raises(LotteryError, match=sentence):
            made()


@pytest.mark.parametrize("bad", [lambda values: values * np.nan, lambda values: values[0]], ids=["nan", "shape"])
def test_pruned_weights_are_frozen_at_numbers(bad, dense_net):
    with pytest.raises(LotteryError, match="to return finite values of shape"):
        list(tfl.find_ticket(dense_net(), lambda m, c: {}, levels=1, pruned=lambda values, *_, mask, rng: bad(values)))
