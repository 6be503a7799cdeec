"""`RegrowBySchedule`: networks that are sparse from the start and move their masks, in `fit` and in `Trainer`."""

import functools

import keras
import numpy as np
import pytest
import stopping
import tensorflow as tf
from own_steps import MODELS

import tf_lottery as tfl
from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import state
from tf_lottery.masking.probes import Probes
from tf_lottery.masking.weights import fresh_optimizer, value_of
from tf_lottery.rules import regrowth
from tf_lottery.training import checkpoint

L = keras.layers
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
RegrowBySchedule = tfl.callbacks.RegrowBySchedule
STEPS = 40
OPTIONS = {"frequency": 3, "distribution": "uniform"}


trainer = functools.partial(stopping.trainer, steps=STEPS)


def counts(model):
    return [int(mask.sum()) for mask in tfl.get_masks(model).values()]


class Watch(keras.callbacks.Callback):
    """Before each exchange and after it the masks and weights, by step; and that zeros hold after every batch."""

    def __init__(self, regrow):
        super().__init__()
        self.regrow, self.moves, self.not_zero, self.counts = regrow, {}, 0, set()
        act = regrow.act

        def looked_at(step, asked):
            before = self.now()
            act(step, asked)
            self.moves[step] = before, self.now()

        regrow.act = looked_at

    def now(self):
        kernels = {k.path: value_of(k.variable) for k in state.masked_kernels(self.regrow.model)}
        return tfl.get_masks(self.regrow.model), kernels

    def on_train_batch_end(self, batch, logs=None):
        masks, values = self.now()
        self.not_zero += sum(np.count_nonzero(values[path][mask == 0]) for path, mask in masks.items())
        self.counts.add(tuple(int(mask.sum()) for mask in masks.values()))


def test_what_the_papers_say_holds_at_each_exchange(blobs, dense_net):
    """Exact counts, the least magnitudes dropped, the largest gradients of the dense weights grown, from zero; slots; the cosine."""
    masked, (x, y) = tfl.wrap(dense_net(units=40)), blobs
    masked.compile(keras.optimizers.Adam(0.01), LOSS)
    regrow = RegrowBySchedule(0.3, probe=(x, y), probe_size=50, **OPTIONS)
    watch, gradients = Watch(regrow), {}
    act = regrow.act

    def with_gradients(step, asked):
        """By hand: the plain network, with the weights of now as its dense kernels, on the examples drawn for this step."""
        px, py = Probes(x, y).drawn(50, [0, 9, step])
        plain = masked.inner
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(LOSS(py, plain(px)))
        found = tape.gradient(loss, [kernel.variable.value for kernel in masked.kernels])
        gradients[step] = {kernel.path: np.abs(g) for kernel, g in zip(masked.kernels, found)}
        act(step, asked)

    regrow.act = with_gradients
    masked.fit(x, y, batch_size=15, epochs=2, verbose=0, callbacks=[regrow, watch])
    assert list(watch.moves) == list(range(3, 30, 3))  # three quarters of 40 steps
    assert watch.counts == {(72, 36)} and watch.not_zero == 0
    assert all(int(mask.sum()) == round(0.3 * mask.size) for mask in regrow.first_masks.values())
    moved = 0
    for step, ((masks, values), (new, after)) in watch.moves.items():
        for path, mask in masks.items():
            k = round(int(mask.sum()) * 0.15 * (1 + np.cos(np.pi * step / 30)))
            magnitudes, growth = np.abs(values[path]), gradients[step][path]
            dropped = np.zeros(mask.size, bool)
            dropped[np.argsort(np.where(mask, magnitudes, np.inf), axis=None)[:k]] = True
            stays = (mask == 1) & ~dropped.reshape(mask.shape)
            grown = np.argsort(np.where(stays, -1, growth), axis=None)[::-1][:k]
            expected = stays.reshape(-1).copy()
            expected[grown] = True
            np.testing.assert_array_equal(new[path].reshape(-1), expected)
            np.testing.assert_array_equal(after[path], values[path] * (mask & new[path]))
            moved += int(np.sum(mask & ~new[path] & 1))
    assert moved > 20


@pytest.mark.parametrize("name", ["adam", "adagrad", "momentum"])
def test_slots_of_what_moves_begin_anew_and_others_stay(name, blobs, dense_net):
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9) if name == "momentum" else keras.optimizers.get(name)
    masked = tfl.wrap(dense_net(units=40))
    masked.compile(optimizer, LOSS)
    regrow, slots = RegrowBySchedule(0.3, grow="random", **OPTIONS), []

    def of_kernels():
        shapes = [tuple(kernel.variable.shape) for kernel in masked.kernels]
        return [value_of(slot) for slot in optimizer.variables if tuple(slot.shape) in shapes]

    act = regrow.act

    def looked_at(step, asked):
        masks, before = tfl.get_masks(masked), of_kernels()
        act(step, asked)
        slots.append((masks, tfl.get_masks(masked), before, of_kernels()))

    regrow.act = looked_at
    masked.fit(*blobs, batch_size=15, verbose=0, callbacks=[regrow])
    start = 0.1 if name == "adagrad" else 0
    for masks, new, before, after in slots:
        for one, other in zip(before, after, strict=True):
            stays = next(masks[p] & new[p] for p in masks if masks[p].shape == one.shape) == 1
            np.testing.assert_array_equal(other, np.where(stays, one, np.float32(start)))
            assert np.any(one[stays] != start)


@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.Adam(0.01),
        keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=1e-2, global_clipnorm=1.0),
        keras.optimizers.Adam(0.01, gradient_accumulation_steps=2),
    ],
    ids=["adam", "sgd", "accumulated"],
)
def test_the_weights_and_masks_are_those_of_fit(optimizer, blobs, dense_net):
    """The Trainer's own probe, and the training set given to `fit`, are the same examples."""
    options = OPTIONS | {"probe_size": 50, "seed": 3}
    train, ours, theirs = trainer(blobs, optimizer), tfl.wrap(dense_net()), tfl.wrap(dense_net())
    train(ours, [RegrowBySchedule(0.25, **options)])
    theirs.compile(fresh_optimizer(train.optimizer), LOSS)
    rows = train._feed.order.rows(0, train.steps).ravel()
    regrow = RegrowBySchedule(0.25, probe=blobs, **options)
    theirs.fit(*(array[rows] for array in blobs), batch_size=15, shuffle=False, verbose=0, callbacks=[regrow])
    masks, expected = tfl.get_masks(ours), tfl.get_masks(theirs)
    for path, mask in masks.items():
        np.testing.assert_array_equal(mask, expected[path])
        assert mask.sum() == round(0.25 * mask.size) and not np.any(state.get_values(ours)[path][mask == 0])
        assert np.any(mask != regrow.first_masks[path])
    for path, value in state.get_values(theirs).items():
        np.testing.assert_allclose(state.get_values(ours)[path], value, rtol=1e-4, atol=1e-5)


def test_goes_on_bit_for_bit(blobs, dense_net, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "MOST_SHARE", 1e9)
    options = {"checkpoint": tmp_path / "training.checkpoint", "checkpoint_every": 0.0}

    def run(stop=None, density=0.3, **options):
        regrow = RegrowBySchedule(density, **OPTIONS)
        found, first = stopping.trained(trainer(blobs, **options), dense_net(), regrow, stop)
        return (*found, [mask.tobytes() for mask in regrow.first_masks.values()]), first

    expected, _ = run()
    for stopped in (6, 20, 33):
        with pytest.raises(stopping.Stop):
            run(stopped, **options)
        found, first = run(**options)
        assert found == expected and first > 3
    with pytest.raises(stopping.Stop):
        run(20, **options)
    _, first = run(density=0.2, **options)  # another training
    assert first == 3


def test_random_growth_is_the_seeds(blobs, dense_net):
    def grown(seed):
        masked = tfl.wrap(dense_net(units=40))
        trainer(blobs)(masked, [RegrowBySchedule(0.2, grow="random", seed=seed, **OPTIONS)])
        return b"".join(mask.tobytes() for mask in tfl.get_masks(masked).values()), counts(masked)

    (one, kept), (again, _), (other, _) = grown(1), grown(1), grown(2)
    assert one == again != other and kept == [48, 24]


def test_growth_at_random_is_even():
    """Mocanu et al. (2018): each of the pruned weights is as likely to grow."""
    mask, times = np.repeat([1, 0], [10, 90]).reshape(10, 10), np.zeros((10, 10))
    for seed in range(400):
        growth = np.random.default_rng(seed).random((10, 10))
        times += regrowth.exchanged(mask, np.arange(100.0).reshape(10, 10), growth, 5, seed=seed)
    assert np.all(times.reshape(-1)[5:10] == 400)  # the largest
    others = times.reshape(-1)[10:]
    assert others.sum() + times.reshape(-1)[:5].sum() == 400 * 5
    assert others.min() > 5 and others.max() < 50  # 400 * 5 / 95 = 21


def test_densities_are_shared_out_as_said(blobs):
    model = keras.Sequential(
        [keras.Input((20,)), L.Dense(30, "relu", name="a"), L.Dense(10, "relu", name="b"), L.Dense(5, name="c")]
    )
    x, y = np.ones((60, 20), "float32"), np.zeros(60, "int32")

    def kept(density, **options):
        masked = tfl.wrap(model)
        tfl.set_masks(masked, {path: np.ones_like(mask) for path, mask in tfl.get_masks(masked).items()})
        masked.compile("sgd", LOSS)
        regrow = RegrowBySchedule(density, grow="random", frequency=1, **options)
        masked.fit(x, y, batch_size=15, verbose=0, callbacks=[regrow])
        return counts(masked)

    # ERK by hand: 600, 300 and 50 weights with sides 50, 40 and 15; e = 0.2 * 950 / 105
    assert kept(0.2) == [round(50 * 190 / 105), round(40 * 190 / 105), round(15 * 190 / 105)]
    # at 0.6 the last is dense (15 * 570 / 105 > 50), and the others share 570 - 50 by their 90
    assert kept(0.6) == [round(50 * 520 / 90), round(40 * 520 / 90), 50]
    assert kept(0.2, distribution="uniform") == [120, 60, 10]
    assert kept({"output": 1, "": 0.1}) == [60, 30, 50]
    *_, ticket = tfl.find_ticket(model, tfl.Trainer(x, y, steps=5, batch_size=15, eval_every=5), density=0.2, levels=1)
    assert kept(0.2, distribution="papers") == pytest.approx([int(m.sum()) for m in ticket.masks.values()], abs=1)


def test_goes_on_in_the_next_fit_and_beside_early_stopping(blobs, dense_net, recwarn):
    masked, data = tfl.wrap(dense_net()), {"validation_data": blobs, "batch_size": 15, "verbose": 0}
    masked.compile("adam", LOSS)
    regrow = RegrowBySchedule(0.25, probe=blobs, end_step=50, **OPTIONS)
    masked.fit(*blobs, **data, callbacks=[regrow])
    watch = Watch(regrow)
    stop = keras.callbacks.EarlyStopping(patience=0, min_delta=10.0, restore_best_weights=True)
    history = masked.fit(
        *blobs, **data, epochs=4, callbacks=[regrow, watch, stop]
    )  # ends after two epochs, back by one
    assert list(watch.moves) == list(range(21, 50, 3)) and history.history["density"] == [0.25, 0.25]
    assert counts(masked) == [24, 12]
    for kernel, mask in zip(masked.kernels, tfl.get_masks(masked).values()):
        assert not np.any(value_of(kernel.variable)[mask == 0]) and np.all(value_of(kernel.variable)[mask == 1])
    masks = tfl.get_masks(masked)
    masked.fit(*blobs, **data, callbacks=[regrow])  # beyond its end: the mask stays
    assert all(np.array_equal(masks[path], mask) for path, mask in tfl.get_masks(masked).items())
    assert not [w for w in recwarn if "put back" in str(w.message)]


def test_in_16_bits_gradients_are_of_32(blobs):
    """Losses so small that float16 would make the gradients zero."""
    inputs = keras.Input((6,))
    hidden = L.Dense(16, "relu", dtype="mixed_float16", kernel_initializer=keras.initializers.GlorotNormal(1))(inputs)
    model = keras.Model(
        inputs, L.Dense(3, dtype="mixed_float16", kernel_initializer=keras.initializers.Zeros())(hidden)
    )
    masked = tfl.wrap(model)
    masked.compile("adam", LOSS)
    tiny = lambda y, outputs: 1e-9 * LOSS(y, tf.cast(outputs, tf.float32))  # noqa: E731
    regrow = RegrowBySchedule(0.5, probe=(*blobs, tiny), **OPTIONS)
    seen = []
    growth = regrow._growth
    regrow._growth = lambda *given: seen.append(growth(*given)) or growth(*given)
    masked.fit(*blobs, batch_size=15, verbose=0, callbacks=[regrow])
    for found in seen:
        assert all(np.count_nonzero(g) > 0.8 * g.size and g.max() < 1e-7 for g in found.values())
    assert {layer.compute_dtype for layer in model.layers[1:]} == {"float16"}


@pytest.mark.parametrize("name", ["vae", "gan", "siamese"])
def test_models_with_a_step_of_their_own(name):
    build, compile, data = MODELS[name]
    masked = tfl.wrap(build())
    compile(masked)
    regrow = RegrowBySchedule(0.2, grow="random", frequency=2, distribution="uniform")
    watch = Watch(regrow)
    masked.fit(*data, epochs=3, batch_size=16, verbose=0, callbacks=[regrow, watch])
    assert len(watch.moves) == 4 and watch.not_zero == 0  # at 2, 4, 6 and 8 of 12 steps
    assert all(int(mask.sum()) == round(0.2 * mask.size) for mask in tfl.get_masks(masked).values())
    with pytest.raises(LotteryError, match="which brings its own"):
        masked.fit(
            *data, verbose=0, callbacks=[RegrowBySchedule(0.2, distribution="uniform", probe=(data[0], data[0]))]
        )


def test_a_loop_of_ones_own_and_several_steps_at_once(blobs, dense_net):
    masked = tfl.wrap(dense_net())
    masked.compile("adam", LOSS, steps_per_execution=4)
    regrow = RegrowBySchedule(0.5, probe=blobs, **OPTIONS)
    watch = Watch(regrow)
    masked.fit(*blobs, batch_size=15, verbose=0, callbacks=[regrow, watch])
    assert list(watch.moves) == [4, 8, 12]  # the first step at or after 3, 6 and 12
    masked = tfl.wrap(dense_net())
    masked.compile("adam", LOSS)
    regrow = RegrowBySchedule(0.5, grow="random", end_step=8, frequency=3, distribution="uniform")
    watch = Watch(regrow)
    regrow.set_model(masked)
    regrow.on_train_begin()
    for batch in range(10):
        regrow.on_train_batch_begin(batch)
        masked.train_on_batch(*(array[:15] for array in blobs))
        regrow.on_train_batch_end(batch)
        watch.on_train_batch_end(batch)
    regrow.on_train_end()
    assert list(watch.moves) == [3, 6] and watch.not_zero == 0


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ({"density": 1}, "density below 1"),
        ({"density": 1.5}, r"a density in \(0, 1\]"),
        ({"density": {"": 0}}, r"a density in \(0, 1\]"),
        ({"grow": "set"}, "grow to be one of gradient, random"),
        ({"fraction": 1}, r"a fraction in \(0, 1\)"),
        ({"frequency": 0}, "frequency of at least 1"),
        ({"end_step": 2.5}, "end_step of at least 1"),
        ({"probe_size": None}, "probe_size of at least 1"),
        ({"seed": -1}, "seed of 0 or more"),
        ({"distribution": "erk"}, "distribution to be one of uniform, erdos_renyi_kernel, papers"),
        ({"probe": np.ones(3)}, r"probe as \(x, y\)"),
        ({"probe": (np.ones(3), np.ones(4))}, "the same number of examples"),
        ({"grow": "random", "probe": (np.ones(3), np.ones(3))}, "no probe with grow='random'"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused_at_once(arguments, sentence):
    with pytest.raises(LotteryError, match=sentence):
        RegrowBySchedule(**{"density": 0.5} | arguments)


def test_bad_trainings_are_refused_and_the_model_stays(blobs, dense_net):
    def refused(sentence, model=None, density=0.25, frequency=3, **options):
        model = dense_net() if model is None else model
        masked = model if hasattr(model, "inner") else tfl.wrap(model)
        before = state.get_masks(masked), state.get_values(masked)
        masked.compile("adam", LOSS)
        options = {"grow": "random", "distribution": "uniform"} | options
        with pytest.raises(LotteryError, match=sentence):
            masked.fit(
                *blobs, batch_size=15, verbose=0, callbacks=[RegrowBySchedule(density, frequency=frequency, **options)]
            )
        for one, other in zip(before, (state.get_masks(masked), state.get_values(masked))):
            assert all(np.array_equal(one[path], other[path]) for path in one)

    refused("Expected an exchange of weights every 100 steps", frequency=100)
    refused("Expected probe=.x, y., of the training set", grow="gradient")
    refused("but it keeps 48 of 96", model=tfl.prune(dense_net(), 0.5))
    frozen = tfl.wrap(dense_net())
    frozen.inner.layers[0].trainable = False
    refused("Expected kernels that are trained", model=frozen)
    held = tfl.wrap(dense_net(), held=True)
    state.set_state(held, {p: np.zeros_like(m) for p, m in tfl.get_masks(held).items()}, state.get_values(held))
    refused("Expected pruned weights of zero", model=held)
    refused("Expected density to cover every kernel", density={"Conv2D": 0.5})
    with pytest.raises(LotteryError, match="Expected a wrapped model"):
        trainer(blobs)(dense_net(), [RegrowBySchedule(0.25, **OPTIONS)])
