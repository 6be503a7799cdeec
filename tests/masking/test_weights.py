"""What is prunable, at which rate, and fresh draws."""

import keras
import numpy as np
import pytest

import tf_lottery as tfl
from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import weights
from tf_lottery.tickets import recipes

L = keras.layers


def kernels_of(layer, shape, **kwargs):
    layer.build(*shape) if isinstance(shape, list) else layer.build(shape)
    return [kernel.variable.name for kernel in weights.prunable_kernels(layer, **kwargs)]


def test_the_one_private_name_of_keras_is_still_there():
    """Keras has no public walk over the layers of a layer; this is the place that notices when the private one moves."""
    inner = L.Dense(2)
    model = keras.Sequential([keras.Input((3,)), keras.Sequential([keras.Input((3,)), inner])])
    assert inner in weights.sublayers(model)
    assert inner not in weights.sublayers(model, recursive=False) and model not in weights.sublayers(model)


@pytest.mark.parametrize(
    ("layer", "shape", "names"),
    [
        (L.Dense(3), (None, 4), ["kernel"]),
        (L.EinsumDense("ab,bc->ac", 3), (None, 4), ["kernel"]),
        (L.Conv1D(3, 2), (None, 8, 4), ["kernel"]),
        (L.Conv2D(3, 2), (None, 8, 8, 4), ["kernel"]),
        (L.Conv3DTranspose(3, 2), (None, 4, 4, 4, 2), ["kernel"]),
        (L.Conv2D(8, 2, groups=2), (None, 8, 8, 4), ["kernel"]),
        (L.Conv2D(8, 2, groups=4), (None, 8, 8, 4), []),
        (L.DepthwiseConv1D(2), (None, 8, 4), []),
        (L.DepthwiseConv2D(2), (None, 8, 8, 4), []),
        (L.SeparableConv1D(3, 2), (None, 8, 4), ["pointwise_kernel"]),
        (L.SeparableConv2D(3, 2), (None, 8, 8, 4), ["pointwise_kernel"]),
        (L.LSTM(3), (None, 5, 4), ["kernel", "recurrent_kernel"]),
        (L.Bidirectional(L.GRU(3)), (None, 5, 4), ["kernel", "recurrent_kernel"] * 2),
        (L.TimeDistributed(L.Dense(3)), (None, 5, 4), ["kernel"]),
        (L.MultiHeadAttention(2, 3), [(None, 5, 4), (None, 5, 4)], ["kernel"] * 4),
        (L.Embedding(10, 3), (None, 5), []),
        (L.BatchNormalization(), (None, 8, 8, 4), []),
        (L.LayerNormalization(axis=(1, 2)), (None, 8, 4), []),
        (L.PReLU(), (None, 8, 4), []),
        (L.Rescaling(2.0), (None, 4), []),
        (L.Flatten(), (None, 4), []),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, L.Layer) else "",
)
def test_kernels_and_nothing_else(layer, shape, names):
    assert kernels_of(layer, shape) == names


def test_depthwise_kernels_are_pruned_where_they_are_asked_for():
    class Depthwise:
        def allow_pruning(self, layer):
            return isinstance(layer, L.DepthwiseConv2D)

        def ensure_model_supports_pruning(self, model):
            pass

    layers = [L.Conv2D(4, 3), L.DepthwiseConv2D(3, name="depthwise"), L.SeparableConv2D(4, 3, name="separable")]
    model = keras.Sequential([keras.Input((12, 12, 3)), *layers], name="net")

    def named(*args):
        return [kernel.path.split("/")[-2:] for kernel in weights.prunable_kernels(model, *args)]

    assert named(Depthwise()) == [["depthwise", "kernel"]]
    assert named("depthwise") == [
        ["depthwise", "kernel"],
        ["depthwise", "bias"],
        ["separable", "depthwise_kernel"],
    ]
    assert len(named("kernel$")) == 4 and len(named()) == 2


@pytest.mark.parametrize("exclude", ["out", lambda layer, variable: layer.name == "output", [2], ["net/output/kernel"]])
def test_exclude_leaves_out_of_what_is_chosen(exclude, dense_net, tmp_path):
    model = dense_net()
    assert [k.path for k in weights.prunable_kernels(model, exclude=exclude)] == ["net/hidden/kernel"]
    assert [k.path for k in weights.prunable_kernels(model, "output|hidden/k", exclude="/kernel")] == [
        "net/output/bias"
    ]
    masked = tfl.wrap(model, exclude=exclude)
    masked.save(tmp_path / "net.keras")
    (path,) = tfl.get_masks(keras.models.load_model(tmp_path / "net.keras"))
    assert path.endswith("hidden/kernel")


def test_exclude_before_the_model_is_built_is_kept():
    model = tfl.MaskedModel(
        keras.Sequential([L.Dense(4, name="one"), L.Dense(2, name="two")], name="net"), exclude="two"
    )
    again = tfl.MaskedModel.from_config(model.get_config())
    again(np.ones((2, 3), "float32"))
    assert [kernel.layer.name for kernel in again.kernels] == ["one"]
    layer = tfl.MaskedLayer(L.LSTM(3), exclude="recurrent")
    layer(np.ones((2, 3, 4), "float32"))
    assert [kernel.variable.name for kernel in layer.kernels] == ["kernel"]


def test_exclude_is_taken_wherever_prunable_is(dense_net, blobs):
    trainer = tfl.Trainer(*blobs, steps=2, batch_size=20)
    only = ["net/hidden/kernel"]
    assert list(tfl.get_masks(tfl.prune(dense_net(), 0.5, exclude="output"))) == only
    assert list(next(tfl.find_ticket(dense_net(), trainer, levels=1, exclude="output")).masks) == only
    assert list(tfl.get_masks(tfl.supermask.wrap(dense_net(), exclude="output"))) == only
    ticket = tfl.supermask.train(dense_net(), trainer, exclude="output", accuracy=lambda model: 0.0)
    assert list(ticket.masks) == only


def test_bad_excludes_are_one_sentence(dense_net):
    for exclude, message in (
        ("nothing", "exclude to fit variables.*'nothing' fits none"),
        ("(", "exclude to hold regular expressions"),
        (3, "Expected exclude as a regular expression"),
        (["net/nothing"], "exclude to name variables"),
        (tfl.policies.PruneForLatencyOnXNNPack(), "policy as prunable"),
        ("kernel", "exclude='kernel' leaves"),
    ):
        with pytest.raises(LotteryError, match=message):
            tfl.wrap(dense_net(), exclude=exclude)
    with pytest.raises(LotteryError, match="wrapped already"):
        tfl.wrap(tfl.wrap(dense_net()), exclude="output")


def test_unknown_layers_follow_the_same_rule_and_are_never_an_error():
    class Odd(L.Layer):
        def build(self, shape):
            self.mixing_kernel = self.add_weight(shape=(4, 4), name="mixing_kernel")
            self.table = self.add_weight(shape=(4, 4), name="table")
            self.counts_kernel = self.add_weight(shape=(4, 4), name="counts_kernel", dtype="int32", trainable=False)
            self.scale_kernel = self.add_weight(shape=(4,), name="scale_kernel")

    assert kernels_of(Odd(), (None, 4)) == ["mixing_kernel"]
    assert kernels_of(Odd(), (None, 4), prunable="table$") == ["table"]


def test_a_layer_with_get_prunable_weights_speaks_for_itself():
    class Chooses(L.Dense):
        def get_prunable_weights(self):
            return [self.bias]

    model = keras.Sequential([keras.Input((4,)), Chooses(3), L.Dense(2)])
    assert [k.variable.name for k in weights.prunable_kernels(model)] == ["bias", "kernel"]


def test_overrides(dense_net):
    model = dense_net()

    def named(prunable):
        return [kernel.path for kernel in weights.prunable_kernels(model, prunable)]

    assert named("output/") == ["net/output/kernel", "net/output/bias"]
    assert named(lambda layer, variable: layer.name == "hidden" and len(variable.shape) == 2) == ["net/hidden/kernel"]
    assert named(["net/output/kernel"]) == named([2]) == ["net/output/kernel"]
    for missing in ("net/nothing", 99):
        with pytest.raises(LotteryError, match="net/hidden/kernel"):
            named([missing])


def test_frozen_layers_are_left_alone(dense_net):
    model = dense_net()
    model.layers[0].trainable = False
    assert [kernel.path for kernel in weights.prunable_kernels(model)] == ["net/output/kernel"]


def test_shared_layers_count_once_and_equal_paths_are_told_apart():
    shared = L.Dense(4, name="twin")
    inputs = keras.Input((4,))
    inner = keras.Sequential([keras.Input((4,)), L.Dense(4, name="twin")], name="inner")
    model = keras.Model(inputs, inner(shared(shared(inputs))))
    other = keras.Model(inputs, keras.Sequential([L.Dense(4, name="twin"), L.Dense(4, name="last")])(model.output))
    paths = [kernel.path for kernel in weights.prunable_kernels(other)]
    assert len(paths) == len(set(paths)) == 4
    doubles = weights.by_path([shared.kernel, shared.bias, shared.kernel])
    assert list(doubles) == ["twin/kernel", "twin/bias", "twin/kernel#2"]


def test_the_owner_is_the_layer_that_made_the_variable():
    model = keras.Sequential([keras.Input((5, 4)), L.Bidirectional(L.LSTM(3)), L.Dense(2)])
    kernels = weights.prunable_kernels(model)
    assert {type(kernel.layer).__name__ for kernel in kernels} == {"LSTMCell", "Dense"}
    assert [kernel.is_output for kernel in kernels] == [False] * 4 + [True]


def test_prune_fractions(dense_net):
    kernels = weights.prunable_kernels(dense_net())
    hidden, output = (kernel.path for kernel in kernels)
    assert weights.prune_fractions(kernels, 0.2) == {hidden: 0.2, output: 0.2}
    assert weights.prune_fractions(kernels, {"output": 0.1, "Dense": 0.2}) == {hidden: 0.2, output: 0.1}
    assert weights.prune_fractions(kernels, {"hid.en": 0.3, "Layer": 0}) == {hidden: 0.3, output: 0}
    assert weights.prune_fractions(kernels, lambda k: 0.1 if k.is_output else 0.4) == {hidden: 0.4, output: 0.1}
    for bad, message in (
        (0, "in \\(0, 1\\)"),
        (1.0, "received 1.0"),
        (-0.1, "received -0.1"),
        ({"Dense": 1.5}, "received 1.5"),
        ({"Conv2D": 0.2}, "cover every kernel.*net/hidden/kernel"),
        ({"Dense": 0}, "all are 0"),
    ):
        with pytest.raises(LotteryError, match=message):
            weights.prune_fractions(kernels, bad)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (L.Dense(30, kernel_initializer="he_normal"), (None, 40)),
        (L.LSTM(9, recurrent_initializer="orthogonal"), (None, 5, 4)),
        (L.DepthwiseConv2D(3, depthwise_initializer="glorot_uniform"), (None, 8, 8, 40)),
        (L.SeparableConv2D(30, 3), (None, 8, 8, 40)),
        (L.Dense(3, kernel_initializer=keras.initializers.RandomUniform(2, 3, seed=7)), (None, 4)),
        (L.Dense(3, kernel_initializer="ones"), (None, 4)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, L.Layer) else "",
)
def test_draws_come_from_the_layers_own_initializer(layer, shape):
    layer.build(shape)
    for kernel in weights.prunable_kernels(layer, "kernel$"):
        first, again, other = (recipes.draw(kernel, seed) for seed in (1, 1, 2))
        now = np.asarray(kernel.variable)
        assert first.shape == now.shape and np.array_equal(first, again)
        random = now.std() > 0
        assert np.array_equal(first, other) != random and np.array_equal(first, now) != random
        assert first.std() == pytest.approx(now.std(), rel=0.35)
        assert first.mean() == pytest.approx(now.mean(), abs=0.5)


def test_a_kernel_of_unknown_origin_cannot_be_drawn():
    class Odd(L.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(4, 4), name="kernel")

    layer = Odd()
    layer.build((None, 4))
    with pytest.raises(LotteryError, match="initializer"):
        recipes.draw(weights.prunable_kernels(layer)[0], 0)


def test_fresh_optimizers_have_no_state():
    optimizer = keras.optimizers.Adam(0.1)
    variable = keras.Variable(np.ones(3, "float32"))
    optimizer.build([variable])
    optimizer.apply([np.ones(3, "float32")], [variable])
    fresh = weights.fresh_optimizer(optimizer)
    assert not fresh.built and float(fresh.learning_rate) == pytest.approx(0.1)
