"""What layers assign while they are called, and how Keras calls them: a wrapped model is the plain one, to the digit."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_lottery as tfl
from tf_lottery.base.errors import LotteryError
from tf_lottery.masking.calls import called, takes_training
from tf_lottery.masking.scope import StandIns

L, ops = keras.layers, keras.ops
RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 16)).astype("float32")
S = RNG.normal(size=(8, 6, 4)).astype("float32")
FRAMES = RNG.normal(size=(8, 3, 5, 5, 2)).astype("float32")


def sequential(shape, *layers):
    return lambda: keras.Sequential([keras.Input(shape), *(layer() for layer in layers)])


def twice(build, run, wrap=tfl.wrap):
    """What `run` gives for the plain and for the wrapped model, from the same weights and seeds."""
    results = []
    for way in (lambda model: model, wrap):
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(1)
        results.append(run(way(build())))
    return results


def fitted(x, y, epochs=2, **compile):
    def run(model):
        model.compile(**{"optimizer": keras.optimizers.SGD(0.05), "loss": "mse"} | compile)
        losses = model.fit(x, y, epochs=epochs, batch_size=8, verbose=0, shuffle=False).history["loss"]
        return [*losses, *model.evaluate(x, y, batch_size=8, verbose=0, return_dict=True).values()]

    return run


class Cell(L.Layer):
    """A recurrent cell with dropout and statistics inside, whose updates happen within a loop."""

    def __init__(self):
        super().__init__()
        self.state_size = self.output_size = 8
        self.dense, self.drop, self.norm = L.Dense(8), L.Dropout(0.3, seed=1), L.BatchNormalization(momentum=0.5)

    def build(self, shape):
        self.dense.build(shape)
        self.norm.build((shape[0], 8))

    def call(self, inputs, states, training=None):
        hidden = self.norm(self.drop(self.dense(inputs), training=training), training=training)
        return hidden, [hidden]


class StochasticDepth(L.Layer):
    """A branch that is taken by chance, with statistics inside of the condition."""

    def __init__(self):
        super().__init__()
        self.dense, self.norm = L.Dense(16), L.BatchNormalization(momentum=0.5)
        self.chance = keras.random.SeedGenerator(3)

    def build(self, shape):
        self.dense.build(shape)
        self.norm.build(shape)

    def call(self, x, training=None):
        if not training:
            return x + self.norm(self.dense(x), training=False)
        taken = keras.random.uniform((), seed=self.chance) < 0.5
        return ops.cond(taken, lambda: x + self.norm(self.dense(x), training=True), lambda: x)


class Counted(L.Layer):
    """Counts what passes, in a metric and in a weight."""

    def __init__(self):
        super().__init__()
        self.dense, self.seen = L.Dense(2), keras.metrics.Mean("seen")

    def build(self, shape):
        self.dense.build(shape)
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False, name="calls")

    def call(self, z):
        self.seen.update_state(ops.mean(z))
        self.calls.assign_add(1.0)
        return self.dense(z)


class WithoutTraining(keras.Model):
    """Keras calls it without `training` in fit: statistics stay, nothing is dropped."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop, self.out = L.BatchNormalization(momentum=0.5), L.Dropout(0.5, seed=1), L.Dense(1)

    def call(self, z):
        return self.out(self.drop(self.norm(z)))


def without_training():
    model = WithoutTraining()
    model(X[:1])
    return model


RECURRENT = {
    "LSTM": (S, lambda: L.LSTM(5, stateful=True)),
    "GRU": (S, lambda: L.GRU(5, stateful=True, recurrent_dropout=0.2, seed=1)),
    "SimpleRNN": (S, lambda: L.SimpleRNN(5, stateful=True)),
    "ConvLSTM2D": (FRAMES, lambda: L.ConvLSTM2D(3, 3, stateful=True)),
    "Bidirectional": (S, lambda: L.Bidirectional(L.LSTM(5, stateful=True))),
}


@pytest.mark.parametrize("way", ["model", "layer"])
@pytest.mark.parametrize("name", RECURRENT)
def test_states_go_on_from_call_to_call(name, way):
    data, layer = RECURRENT[name]

    def build():
        inputs = keras.Input(batch_shape=data.shape)
        return keras.Model(inputs, (layer() if way == "model" else wrapped(layer()))(inputs))

    wrapping = []

    def wrapped(layer):
        return tfl.MaskedLayer(layer) if wrapping else layer

    def wrap(model):
        return tfl.wrap(model) if way == "model" else model

    def run(model):
        wrapping.append(True)
        return [np.asarray(model(data)) for _ in range(3)] + [model.predict(data, batch_size=8, verbose=0)]

    plain, masked = twice(build, run, wrap)
    np.testing.assert_allclose(plain, masked, atol=1e-6)
    assert not np.allclose(plain[0], plain[1])


TRAINED = {
    "loop": (sequential((6, 4), lambda: L.RNN(Cell()), lambda: L.Dense(1)), S, S[:, 0, :1]),
    "condition": (sequential((16,), StochasticDepth, lambda: L.Dense(1)), X, X[:, :1]),
    "spectral": (sequential((16,), lambda: L.SpectralNormalization(L.Dense(8)), lambda: L.Dense(1)), X, X[:, :1]),
    "counted": (sequential((16,), Counted), X, X[:, :2]),
    "without_training": (without_training, 2 * X + 3, X[:, :1]),
}


@pytest.mark.parametrize("compile", [{}, {"run_eagerly": True}, {"steps_per_execution": 2}], ids=str)
@pytest.mark.parametrize("name", TRAINED)
def test_fit_is_that_of_keras(name, compile):
    build, x, y = TRAINED[name]
    plain, masked = twice(build, fitted(x, y, **compile))
    np.testing.assert_allclose(plain, masked, rtol=1e-5)


@pytest.mark.parametrize("name", ["LSTM", "counted", "condition"])
def test_half_precision_reaches_variables_too(name):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        if name == "LSTM":
            shape = {"batch_shape": S.shape}
            plain, masked = twice(
                lambda: keras.Sequential([keras.Input(**shape), L.LSTM(5, stateful=True), L.Dense(1)]),
                fitted(S, S[:, 0, :1]),
            )
        else:
            build, x, y = TRAINED[name]
            plain, masked = twice(build, fitted(x, y))
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_allclose(plain, masked, rtol=1e-2)


def test_unseeded_noise_is_new_in_every_call_and_in_every_step():
    class Noise(L.Layer):
        def call(self, z):
            return z + keras.random.normal(ops.shape(z))

    masked = tfl.wrap(keras.Sequential([keras.Input((16,)), L.Dense(4), Noise()]))
    assert not np.array_equal(masked(X), masked(X))
    assert not np.array_equal(masked.predict(X, verbose=0), masked.predict(X, verbose=0))


def test_what_is_counted_in_call_is_counted_once():
    layer = Counted()
    masked = tfl.wrap(keras.Sequential([keras.Input((16,)), layer]))
    layer.seen.reset_state()
    before = float(layer.calls)
    masked(np.ones((2, 16), "float32"))
    assert float(layer.seen.result()) == 1 and float(layer.calls) == before + 1


def test_gradients_of_a_kernel_that_is_assigned_in_call():
    build = sequential((16,), lambda: L.SpectralNormalization(L.Dense(8, use_bias=False)), lambda: L.Dense(1))

    def run(model):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(X, training=True) ** 2)
        return [g.numpy().ravel() for g in tape.gradient(loss, [v.value for v in model.trainable_variables])]

    plain, masked = twice(build, run)
    for one, other in zip(plain, masked):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-7)
    masked = tfl.prune(build(), 0.5)
    masked(X, training=True)
    path, mask = next(iter(tfl.get_masks(masked).items()))
    kernel = next(v for v in masked.model.variables if v.path == path)
    assert not np.asarray(kernel)[mask == 0].any()


def test_layers_that_are_built_in_call_have_their_weights_at_once():
    class Lazy(L.Layer):
        def call(self, z):
            if not hasattr(self, "w"):
                self._tracker.unlock()
                self.w = self.add_weight(shape=(4,), initializer="random_normal", name="w")
            return z * self.w

    model = keras.Sequential([L.Dense(4), Lazy()])
    masked = tfl.wrap(model)
    first = masked(X)
    np.testing.assert_array_equal(first, masked(X))


def test_trainer_calls_a_model_as_keras_does():
    model = without_training()
    assert not takes_training(model) and not takes_training(tfl.wrap(model))
    before = [np.asarray(v) for v in model.norm.non_trainable_variables]
    trainer = tfl.Trainer(
        2 * X + 3, X[:, :1], steps=8, batch_size=16, loss="mse", metric=keras.metrics.mean_squared_error, eval_every=4
    )
    trainer(tfl.wrap(model))
    for one, other in zip(before, model.norm.non_trainable_variables):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(called(model, X, training=True), called(model, X, training=False))


def test_scopes_within_scopes():
    w, seen = keras.Variable(2.0), keras.Variable(0.0)
    with StandIns([(w, lambda: w.value * 10)]) as outer:
        with StandIns([(w, lambda: w.value + 1)]):
            assert float(w.value) == 21
            w.assign(3.0)
            assert float(w.value) == 31
            seen.assign(w.value)
        assert float(w.value) == 30 and not outer.losses
    assert float(w) == 3 and float(seen) == 31
    with keras.StatelessScope() as stateless, StandIns([(w, lambda: w.value * 2)]):
        seen.assign(w.value)
    assert float(seen) == 31 and float(stateless.get_current_value(seen)) == 6


def test_arguments_are_those_of_what_is_wrapped():
    class Two(keras.Model):
        def __init__(self):
            super().__init__()
            self.one, self.other = L.Dense(3), L.Dense(3)

        def call(self, features, more=None, scale=1.0, training=None):
            return scale * (self.one(features) if more is None else self.one(features) + self.other(more))

    model, attention = Two(), L.MultiHeadAttention(2, 3)
    model(X, more=X)
    masked = tfl.wrap(model)
    for args, kwargs in (((X, X), {"scale": 2.0}), ((X,), {"scale": 3.0}), ((), {"features": X, "more": X})):
        np.testing.assert_array_equal(masked(*args, **kwargs), model(*args, **kwargs))
    with pytest.raises(LotteryError, match="several inputs, has none yet: build it"):
        tfl.MaskedLayer(attention)(S, S)
    expected = attention(S, S, return_attention_scores=True)
    found = tfl.MaskedLayer(attention)(query=S, value=S, return_attention_scores=True)
    assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))


def test_stateless_call_returns_what_training_moved():
    model = keras.Sequential([keras.Input((16,)), L.Dense(4), L.BatchNormalization(), L.Dropout(0.5, seed=1)])
    found = []
    for one in (model, tfl.wrap(model)):
        own = [v.value for v in one.non_trainable_variables]
        state = dict(zip([v.path for v in one.non_trainable_variables], own))
        outputs, moved = one.stateless_call([v.value for v in one.trainable_variables], own, X, training=True)
        after = dict(zip(state, moved))
        found.append((outputs, *(after[v.path] for v in model.non_trainable_variables)))
        assert all(np.array_equal(v, state[v.path]) for v in one.non_trainable_variables)
    for plain, wrapped in zip(*found):
        np.testing.assert_array_equal(plain, wrapped)


def test_levels_begin_with_the_first_states_again():
    """States of recurrent layers are no variables of the model, but every level starts from what the first one did."""
    first = []

    class First(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            first.append(float(tf.reduce_sum(tf.abs(self.model.layers[1].states[0].value))))

    def train(model, callbacks):
        model.compile("sgd", "mse")
        return model.fit(S, S[:, 0, :1], batch_size=8, verbose=0, callbacks=[*callbacks, First()])

    inputs = keras.Input(batch_shape=(8, 6, 4))
    model = keras.Model(inputs, L.Dense(1)(L.GRU(3, stateful=True)(inputs)))
    assert [t.level for t in tfl.find_ticket(model, train, levels=1, prune_fraction=0.5)] == [0, 1]
    assert first == [0, 0]
    with pytest.raises(LotteryError, match="carries its state from batch to batch"):
        tfl.Trainer(S, S[:, 0, :1], steps=1, batch_size=8, loss="mse", metric="mae")(model)


def test_layers_that_recompute_are_trained_by_trainer_and_told_in_fit():
    class Recomputed(L.Layer):
        def __init__(self):
            super().__init__()
            self.dense = L.Dense(4)

        def build(self, shape):
            self.dense.build(shape)

        def call(self, x):
            return keras.remat(lambda x: self.dense(x))(x)

    layer = Recomputed()
    masked = tfl.prune(keras.Sequential([keras.Input((16,)), layer, L.Dense(1)]), 0.5)
    before = layer.dense.kernel.numpy()
    masked.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="Gradients do not exist for variables.*kernel"):
        masked.fit(X, X[:, :1], verbose=0)
    tfl.Trainer(X, X[:, :1], steps=1, loss="mse", metric="mae")(masked)
    moved = layer.dense.kernel.numpy() - before
    (mask, _) = tfl.get_masks(masked).values()
    assert moved[mask == 1].any() and not moved[mask == 0].any()
