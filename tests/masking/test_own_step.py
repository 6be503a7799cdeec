"""Models that do not train as Keras' models do, under masks: the numbers are those of masking by hand after each update."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from own_steps import CE, GAN, MODELS, VAE, ActorCritic, Distiller, X, Y, built, net

import tf_lottery as tfl
from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import own_step, state, weights

L = keras.layers


def by_hand(model, masks):
    """A plain model whose kernels are multiplied by masks, now and by Keras after each update."""
    for variable in model.variables:
        if (mask := masks.get(variable.path)) is not None:
            variable.assign(variable * mask)
            variable.constraint = lambda w, mask=mask: w * mask


def both(build):
    """A model masked by hand, then wrapped, from the same weights and seeds: (whether wrapped, model, masks)."""
    for wrapped in (False, True):
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(1)
        model = build()
        rng = np.random.default_rng(3)
        masks = {k.path: rng.random(k.variable.shape) < 0.5 for k in weights.prunable_kernels(model)}
        if wrapped:
            model = tfl.wrap(model)
            tfl.set_masks(model, masks)
        else:
            by_hand(model, masks)
        yield wrapped, model, masks


@pytest.mark.parametrize("name", MODELS)
def test_trains_as_by_hand(name):
    build, compile, data = MODELS[name]
    histories = []
    for wrapped, model, masks in both(build):
        compile(model)
        keras.utils.set_random_seed(2)
        history = model.fit(*data, epochs=3, batch_size=16, verbose=0, shuffle=False).history
        values = [weights.value_of(v) for v in (model.model if wrapped else model).variables]
        histories.append((history, values, masks))
    (plain, plain_values, _), (masked, masked_values, masks) = histories
    assert plain.keys() == masked.keys()
    for key in plain:
        np.testing.assert_allclose(plain[key], masked[key], rtol=1e-4, err_msg=key)
    for one, other in zip(plain_values, masked_values):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
    stripped = tfl.strip(model)
    for variable in stripped.variables:
        if variable.path in masks:
            assert not np.asarray(variable)[~masks[variable.path]].any(), variable.path
            assert variable.constraint is None


@pytest.mark.parametrize("name", ["vae", "gan", "distiller", "siamese"])
def test_found_by_every_road(name):
    build, compile, data = MODELS[name]

    def train(model, callbacks):
        compile(model)
        return model.fit(*data, epochs=2, batch_size=16, verbose=0, callbacks=callbacks)

    tickets = list(tfl.find_ticket(build(), train, levels=2, prune_fraction=0.5))
    assert [round(t.density, 2) for t in tickets] == [1, 0.5, 0.25] and "loss" in tickets[-1].metrics
    for path, mask in tickets[-1].masks.items():
        assert not tickets[-1].final[path][mask == 0].any()
        np.testing.assert_array_equal(tickets[-1].initial[path], tickets[0].initial[path] * mask)
    masked = tfl.wrap(build())
    compile(masked)
    schedule = tfl.LotterySchedule(levels=1, steps_per_level=4, prune_fraction=0.5)
    search = tfl.callbacks.LotteryTicket(schedule)
    masked.fit(*data, epochs=2, batch_size=16, verbose=0, callbacks=[search])
    assert [round(t.density, 2) for t in search.tickets] == [1, 0.5]
    for optimizer in own_step.optimizers_of(masked):
        assert weights.step_of(optimizer) in (0, 4, 8)  # begun anew with the level
    masked = tfl.wrap(build())
    compile(masked)
    steps = []
    pruning = tfl.callbacks.PruneBySchedule(lambda step: (int(step) == 4, 0.8))
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: steps.append(np.mean([m.mean() for m in tfl.get_masks(masked).values()]))
    )
    masked.fit(*data, epochs=2, batch_size=16, verbose=0, callbacks=[pruning, watch])
    assert steps[2] == 1 and steps[4] == pytest.approx(0.2, abs=0.02)


def test_a_trainer_refuses_and_names_the_way_out():
    model = MODELS["vae"][0]()
    with pytest.raises(LotteryError, match=r"brings train_step: give find_ticket a function around model.fit"):
        tfl.Trainer(X, X, steps=5, batch_size=16, loss="mse", metric=keras.metrics.mean_squared_error)(model)
    model = Distiller()
    model(X)
    with pytest.raises(LotteryError, match="brings compute_loss"):
        tfl.Trainer(X, Y, steps=5, batch_size=16)(tfl.wrap(model))
    with pytest.raises(LotteryError, match="masks Keras' own step can train.*compute_loss"):
        tfl.supermask.wrap(model)


def test_a_loop_of_ones_own_through_methods_of_the_model():
    results = []
    reward = Y.astype("float32")
    for _, model, _ in both(lambda: built(ActorCritic(), X)):
        optimizer = keras.optimizers.Adam(0.01)
        results.append([float(model.learn(optimizer, X, reward)) for _ in range(5)])
    np.testing.assert_allclose(*results, rtol=1e-5)


def test_callbacks_see_the_wrapped_model_and_stop_it():
    build, compile, data = MODELS["vae"]
    masked, seen = tfl.wrap(build()), []
    compile(masked)

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append((self.model is masked, sorted(logs)))
            self.model.stop_training = True

    masked.fit(*data, epochs=5, verbose=0, callbacks=Stop())
    assert seen == [(True, ["kl", "loss"])]
    masked.beta = 3  # an attribute that only the wrapper has
    masked.model.beta = 1
    assert masked.beta == 3
    masked.model.alpha = 1
    masked.alpha = 2
    assert masked.model.alpha == 2 and masked.alpha == 2


def test_what_a_model_has_is_reached_through_its_wrapper():
    model = net(8, 2, name="plain")
    masked = tfl.wrap(model)
    assert masked.input_shape == model.input_shape and masked.inputs is model.inputs
    assert masked.outputs is model.outputs
    assert masked.count_params() == model.count_params()
    with pytest.raises(AttributeError, match="no attribute 'no_such'"):
        _ = masked.no_such
    vae = VAE()
    vae(X)
    np.testing.assert_array_equal(tfl.wrap(vae).encoder(X), vae.encoder(X))


def test_saved_and_loaded_it_trains_by_its_step(tmp_path):
    class Net(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.out = L.Dense(2)

        def call(self, x):
            return self.out(x)

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return 100.0 + 0.0 * keras.ops.mean(y_pred)

        def get_config(self):
            return super().get_config()

    model = Net()
    model(X)
    masked = tfl.prune(model, 0.3)
    masked.compile("adam", CE)
    masked.fit(X, Y, verbose=0)
    masked.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras", custom_objects={"Net": Net})
    np.testing.assert_allclose(masked.predict(X, verbose=0), loaded.predict(X, verbose=0), atol=1e-6)
    assert loaded.fit(X, Y, verbose=0).history["loss"] == [100.0]
    for path, mask in tfl.get_masks(loaded).items():
        kernel = next(v for v in loaded.model.variables if v.path == path)
        assert not np.asarray(kernel)[mask == 0].any()


def test_several_optimizers_all_begin_anew():
    model = GAN()
    masked = tfl.wrap(model)
    MODELS["gan"][1](masked)
    masked.fit(X, verbose=0, batch_size=16)
    assert own_step.step_of_model(masked) == 4  # the generator's
    assert [weights.step_of(o) for o in (model.critic_optimizer, model.generator_optimizer)] == [8, 4]
    state.reset_optimizer(masked)
    assert own_step.step_of_model(masked) == 0


def test_a_step_without_an_optimizer_keeps_the_masks():
    class ByHand(keras.Model):
        def __init__(self):
            super().__init__()
            self.out = L.Dense(1)

        def call(self, x):
            return self.out(x)

        def train_step(self, x):
            self.out.kernel.assign_add(keras.ops.ones_like(self.out.kernel))
            return {"loss": keras.ops.sum(self.out.kernel)}

    model = ByHand()
    model(X)
    masked = tfl.prune(model, 0.5)
    masked.compile("sgd")
    masked.fit(X, verbose=0, batch_size=16)
    (mask,) = tfl.get_masks(masked).values()
    assert not np.asarray(model.out.kernel)[mask == 0].any()


class Teacher(keras.Model):
    """A net that an optimizer trains, and one that follows it by assignments; a metric in a list."""

    def __init__(self):
        super().__init__()
        self.student, self.teacher = net(8, 1, name="student"), net(8, 1, name="teacher")
        self.seen = [keras.metrics.Mean("seen")]

    def call(self, x):
        self.seen[0].update_state(keras.ops.mean(x))
        return self.teacher(x)

    def train_step(self, data):
        x = keras.utils.unpack_x_y_sample_weight(data)[0]
        with tf.GradientTape() as tape:
            loss = keras.ops.mean((self.student(x) - self(x) - x[:, :1]) ** 2)
        self.optimizer.apply(tape.gradient(loss, self.student.weights), self.student.weights)
        for own, of_student in zip(self.teacher.weights, self.student.weights):
            own.assign(0.8 * own + 0.2 * of_student)
        return {"loss": loss, "seen": self.seen[0].result()}


@pytest.mark.parametrize("way", ["fit", "train_on_batch"])
def test_what_follows_by_assignments_is_masked_too(way):
    found = []
    for wrapped, model, masks in both(lambda: built(Teacher(), X)):
        model.compile(keras.optimizers.SGD(0.1))
        kernels = [(v, masks[v.path]) for v in getattr(model, "model", model).variables if v.path in masks]
        losses = []
        for _ in range(3):
            if way == "fit":
                losses.append(model.fit(X, batch_size=64, verbose=0).history["loss"][0])
            else:
                losses.append(float(model.train_on_batch(X, return_dict=True)["loss"]))
            for kernel, mask in kernels:
                assert not wrapped or not np.asarray(kernel)[~mask].any(), kernel.path
                kernel.assign(kernel * mask)
        found.append(losses)
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_a_step_or_a_metric_that_only_this_model_has_is_its_own():
    def loss(x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean(abs(y - y_pred[:, 0])) + 100.0

    model = net(1)
    model.compute_loss = loss
    masked = tfl.prune(model, 0.5)
    masked.compile("sgd")
    assert masked.fit(X, X[:, 0], verbose=0).history["loss"][0] > 100
    with pytest.raises(LotteryError, match="compute_loss"):
        tfl.Trainer(X, Y, steps=1)(masked)
    assert own_step.own_methods(Teacher()) == ["train_step", "metrics"]


def test_levels_of_a_model_whose_optimizer_has_another_name():
    class Other(keras.Model):
        def __init__(self):
            super().__init__()
            self.out = L.Dense(1)

        def call(self, x):
            return self.out(x)

        def compile(self, own):
            super().compile(optimizer=None)
            self.own = own

        def train_step(self, x):
            with tf.GradientTape() as tape:
                loss = keras.ops.mean((self(x) - x[:, :1]) ** 2)
            self.own.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
            return {"loss": loss}

    masked = tfl.wrap(built(Other(), X))
    masked.compile(keras.optimizers.SGD(0.1))
    search = tfl.callbacks.LotteryTicket(tfl.LotterySchedule(levels=1, steps_per_level=4, prune_fraction=0.5))
    masked.fit(X, batch_size=16, epochs=2, verbose=0, callbacks=[search])
    assert [ticket.density for ticket in search.tickets] == [1, 0.5]


def test_the_private_names_of_keras_are_where_they_were():
    model = net(2)
    assert model._call_has_training_arg is True
    assert list(model._call_signature.parameters)[:2] == ["inputs", "training"]
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    assert [v.path for v in optimizer._trainable_variables] == [v.path for v in model.trainable_variables]
    assert hasattr(model, "_initial_epoch")
    model.compile("sgd", "mse", metrics=["mae"])
    assert {name for name, value in vars(model).items() if isinstance(value, keras.metrics.Metric)} == {
        *own_step.COMPILED
    }
    assert not own_step.own_methods(model)


def test_two_wrappers_of_one_kernel_are_told_and_one_is_not():
    inputs = keras.Input((12,))
    trunk = L.Dense(8, name="trunk")(inputs)
    actor, critic = keras.Model(inputs, L.Dense(2)(trunk)), keras.Model(inputs, L.Dense(1)(trunk))
    first = tfl.wrap(actor)
    with pytest.warns(UserWarning, match="trunk/kernel is masked by another wrapper"):
        tfl.wrap(critic)
    tfl.strip(first)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tfl.wrap(tfl.strip(first))
