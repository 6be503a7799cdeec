"""Which kernels are outputs, which read inputs, and which are none: whatever way the model is written."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_lottery as tfl
from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import state, weights
from tf_lottery.masking.roles import Roles

L = keras.layers


def outputs(model) -> list[str]:
    """The layers whose kernels are outputs."""
    return sorted({kernel.path.split("/")[-2] for kernel in weights.prunable_kernels(model) if kernel.is_output})


def sequence(*layers, shape=(6, 4)):
    return keras.Sequential([keras.Input(shape), *layers])


def two_heads():
    hidden = L.Dense(8, "relu", name="body")(inputs := keras.Input((4,)))
    return keras.Model(inputs, {"class": L.Dense(3, name="one")(hidden), "box": L.Dense(2, name="other")(hidden)})


def head_on_head():
    one = L.Dense(3, name="one")(inputs := keras.Input((4,)))
    return keras.Model(inputs, [one, L.Dense(2, name="other")(L.Softmax()(one))])


def concatenated():
    hidden = L.Dense(8, name="body")(inputs := keras.Input((4,)))
    parts = [L.Dense(2, name="one")(hidden), L.Dense(3, name="other")(hidden)]
    return keras.Model(inputs, L.Softmax()(L.Reshape((5,))(L.Concatenate()(parts))))


def residual_end():
    hidden = L.Dense(4, name="one")(inputs := keras.Input((4,)))
    return keras.Model(inputs, L.Add()([hidden, L.Dense(4, name="other")(L.ReLU()(L.Dense(9, name="body")(hidden)))]))


def feature_map():
    features = L.ReLU()(L.BatchNormalization()(L.Conv2D(4, 3, name="one")(inputs := keras.Input((8, 8, 3)))))
    return keras.Model(inputs, [L.Dense(2, name="other")(L.GlobalMaxPooling2D()(features)), features])


def depthwise_end():
    hidden = L.Conv2D(5, 1, name="one")(L.Conv2D(4, 3, name="body")(inputs := keras.Input((8, 8, 3))))
    return keras.Model(inputs, L.DepthwiseConv2D(3, name="depthwise")(hidden))


def nested_heads():
    trunk = sequence(L.Dense(8, name="body"), shape=(4,))
    heads = [sequence(L.Dense(5, name="within"), L.Dense(2, name=name), shape=(8,)) for name in ("one", "other")]
    return keras.Model(inputs := keras.Input((4,)), [head(trunk(inputs)) for head in heads])


def shared_head():
    first, second = keras.Input((4,)), keras.Input((4,))
    body, head = L.Dense(4, name="body"), L.Dense(4, name="one")
    return keras.Model([first, second], [head(body(first)), head(second)])


class Backwards(keras.Model):
    """Makes its head first and its body last, and uses a loop and a condition."""

    def __init__(self):
        super().__init__()
        self.out, self.aux, self.within, self.body = (L.Dense(4, name=n) for n in ("one", "other", "within", "body"))

    def call(self, x):
        hidden = self.body(x)
        _, looped = keras.ops.while_loop(lambda i, h: i < 2, lambda i, h: (i + 1, self.within(h)), (0, hidden))
        chosen = tf.cond(tf.reduce_sum(x) > 0, lambda: self.aux(looped), lambda: tf.zeros_like(looped))
        return {"out": tf.nn.softmax(self.out(looped)), "chosen": chosen}


def subclassed():
    model = Backwards()
    model(np.ones((2, 4), "float32"))
    return model


def graph_function():
    """A subclassed model that was traced already, with indices in and a compiled call."""

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.out, self.body, self.table = L.Dense(3, name="one"), L.Dense(5, name="body"), L.Embedding(9, 4)
            self.compiled_call = tf.function(lambda x: self.out(self.body(self.table(x))), autograph=False)

        def call(self, x):
            return self.compiled_call(x)

    model = Net()
    model(np.ones((2, 3), "int32"))
    return model


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (two_heads, ["one", "other"]),
        (head_on_head, ["one", "other"]),
        (concatenated, ["one", "other"]),
        (residual_end, ["one", "other"]),
        (feature_map, ["one", "other"]),
        (depthwise_end, ["one"]),
        (nested_heads, ["one", "other"]),
        (shared_head, ["one"]),
        (subclassed, ["one", "other"]),
        (graph_function, ["one"]),
        (lambda: sequence(L.Dense(8), L.Dense(3, name="one"), L.BatchNormalization(), L.Softmax()), ["one"]),
        (lambda: sequence(L.Dense(8), L.LSTM(3, name="one")), ["lstm_cell"]),
        (lambda: sequence(L.Dense(8), L.Bidirectional(L.GRU(3, name="one"))), ["gru_cell"]),
        (lambda: sequence(L.Dense(8), L.RNN([L.GRUCell(3, name="within"), L.SimpleRNNCell(2, name="one")])), ["one"]),
        (lambda: sequence(L.Dense(8), L.TimeDistributed(L.Dense(3, name="one"))), ["one"]),
        (lambda: sequence(L.LSTM(5, return_sequences=True), L.Conv1D(3, 2, name="one"), L.Lambda(tf.abs)), ["one"]),
        (lambda: sequence(L.Conv2DTranspose(4, 2), L.Conv2DTranspose(1, 2, name="one"), shape=(6, 6, 3)), ["one"]),
    ],
)
def test_outputs_are_what_the_graph_says(build, expected):
    assert outputs(build()) == expected


def test_attention_as_the_last_layer():
    x = L.Dense(16, name="body")(inputs := keras.Input((6, 16)))
    assert outputs(keras.Model(inputs, L.MultiHeadAttention(2, 8)(x, x))) == ["attention_output"]
    assert outputs(keras.Model(inputs, L.GroupQueryAttention(4, 8, 2)(x, x))) == ["attention_output"]


def test_a_frozen_head_is_the_output_and_hides_what_is_before_it():
    model = two_heads()
    model.get_layer("one").trainable = False
    assert outputs(model) == ["other"]


def test_a_look_changes_nothing():
    model = subclassed()
    before = [np.array(v) for v in model.variables]
    stateful = keras.Model(inputs := keras.Input(batch_shape=(8, 6, 4)), L.LSTM(5, stateful=True)(inputs))
    stateful(np.ones((8, 6, 4), "float32"))
    states = [np.array(v) for v in stateful.non_trainable_variables]
    regular = sequence(L.Dense(3, activity_regularizer="l2"))
    for each in (model, stateful, regular):
        Roles(each).check()
    assert all(np.array_equal(a, v) for a, v in zip(before, model.variables, strict=True))
    assert all(np.array_equal(a, v) for a, v in zip(states, stateful.non_trainable_variables, strict=True))
    assert [float(loss) for loss in regular.losses] == []


def test_what_reads_the_inputs():
    model = two_heads()
    read = [v.path for v in model.variables if Roles(model).reads_input(v)]
    assert read == ["body/kernel"]


class Pair(keras.Model):
    """Cannot be asked: Keras keeps the shape of the first argument only."""

    def __init__(self):
        super().__init__()
        self.out, self.body = L.Dense(2, name="out"), L.Dense(5, name="body")

    def call(self, one, other):
        return self.out(self.body(one + other))


def test_where_outputs_cannot_be_known_a_warning_says_so_and_channels_are_refused():
    x = np.ones((2, 4), "float32")
    model = Pair()
    model(x, x)
    with pytest.raises(LotteryError, match="its outputs.*missing a required argument"):
        tfl.prune(model, 0.5, scope="channels")
    with pytest.warns(UserWarning, match="'output' is taken to mean the last kernel, pair/body/kernel.*argument"):
        masked = tfl.prune(model, {"output": 1.0, "Dense": 0.5})
    assert [float(mask.mean()) for mask in tfl.get_masks(masked).values()] == [0.5, 1.0]
    assert not Roles(model).known


# --- what follows from it -------------------------------------------------------------------------------------------


def test_all_heads_keep_their_outputs_in_every_road(blobs):
    x, y = blobs

    def build():
        hidden = L.Dense(16, "relu", name="body")(inputs := keras.Input(x.shape[1:]))
        return keras.Model(inputs, [L.Dense(3, name="class")(hidden), L.Dense(2, name="box")(hidden)])

    def train(model, callbacks):
        model.compile("sgd", "mse")
        return model.fit(x, [y[:, None] * np.ones(3), x[:, :2]], epochs=1, verbose=0, callbacks=callbacks)

    *_, ticket = tfl.find_ticket(build(), train, levels=2, prune_fraction=0.5, scope="channels")
    gradual = tfl.wrap(build())
    train(gradual, [])
    train(gradual, [tfl.callbacks.PruneBySchedule(lambda step: (True, 0.75), scope="channels")])
    for masks in (ticket.masks, tfl.get_masks(gradual)):
        assert [float(mask.mean()) for mask in masks.values()] == [0.25, 1.0, 1.0]
    outputs = gradual.predict(x, verbose=0)
    assert all((value.std(0) > 0).all() for value in outputs)


def test_the_key_output_means_outputs_and_no_name():
    inputs = keras.Input((8, 16))
    x = L.MultiHeadAttention(2, 8)(inputs, inputs)
    model = keras.Model(inputs, [L.Dense(3, name="head")(x), L.Dense(3, name="other")(L.Dense(4, name="output")(x))])
    kernels = weights.prunable_kernels(model)
    rates = weights.prune_fractions(kernels, {"output": 0.1, "EinsumDense": 0.2, "Dense": 0.3})
    named = {path.split("/")[-2]: rate for path, rate in rates.items()}
    assert named == {
        **dict.fromkeys(("query", "key", "value", "attention_output"), 0.2),
        **{"head": 0.1, "other": 0.1, "output": 0.3},
    }


def test_a_model_with_masked_layers_inside_is_asked_as_a_whole():
    hidden = tfl.MaskedLayer(L.Dense(8, name="body"))(inputs := keras.Input((4,)))
    model = keras.Model(inputs, tfl.MaskedLayer(L.Dense(2, name="head"))(hidden))
    assert [kernel.is_output for kernel in state.masked_kernels(model)] == [False, True]
    assert len(state.channel_axes(model)) == 1


def test_a_model_that_is_built_by_fit_knows_its_outputs(blobs):
    masked = tfl.wrap(Backwards())
    masked.compile("sgd", "mse")
    x = blobs[0][:, :4]
    masked.fit(x, {"out": x, "chosen": x}, verbose=0)
    assert sorted(k.path.split("/")[-2] for k in masked.kernels if k.is_output) == ["one", "other"]


# --- what only happens to be called a kernel -------------------------------------------------------------------------


class Positions(L.Layer):
    """A table that is added, one that scales, a matrix by its usual name, and a matrix that is applied by hand."""

    def build(self, shape):
        self.table = self.add_weight(shape=shape[1:], name="pos_kernel")
        self.gate = self.add_weight(shape=shape[1:], name="gate_kernel")
        self.matrix = self.add_weight(shape=(shape[-1], 5), name="kernel")
        self.by_hand = self.add_weight(shape=(5, 3), name="slow_kernel")

    def call(self, x):
        hidden = keras.ops.matmul(x * keras.ops.sigmoid(self.gate) + self.table, self.matrix)
        return keras.ops.sum(hidden[..., None] * self.by_hand, -2)


class Spatial(L.Layer):
    def build(self, shape):
        self.window = self.add_weight(shape=(3, 3, shape[-1], 1), name="kernel")

    def call(self, x):
        return keras.ops.depthwise_conv(x, self.window)


def test_tables_and_depthwise_kernels_of_custom_layers_stay_dense_unless_asked_for():
    model = sequence(Positions(name="positions"), L.Dense(2))
    names = [kernel.variable.name for kernel in weights.prunable_kernels(model)]
    assert names == ["kernel", "slow_kernel", "kernel"]
    assert [k.variable.name for k in weights.prunable_kernels(model, "pos_kernel$")] == ["pos_kernel"]

    model = sequence(L.Conv2D(4, 1, name="conv"), Spatial(name="spatial"), shape=(6, 6, 3))
    assert [kernel.layer.name for kernel in weights.prunable_kernels(model)] == ["conv"]
    assert [kernel.layer.name for kernel in weights.prunable_kernels(model, "kernel$")] == ["conv", "spatial"]


def test_the_same_for_a_model_that_is_built_later(blobs):
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.positions, self.out = Positions(), L.Dense(2)

        def call(self, x):
            return self.out(self.positions(x))

    masked = tfl.wrap(Net())
    masked(np.ones((2, 6, 4), "float32"))
    assert [kernel.variable.name for kernel in masked.kernels] == ["kernel", "slow_kernel", "kernel"]
