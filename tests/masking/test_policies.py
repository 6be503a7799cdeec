"""Policies: XNNPACK's rules as TF-MOT's policy has them, and your own."""

import keras
import numpy as np
import pytest
import tf_keras

import tf_lottery as tfl
from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import policies
from tf_lottery.search.schedules import tfmot

L = keras.layers
SHAPE = (16, 16, 3)


def stem(k, x):
    x = k.layers.ZeroPadding2D(1)(x)
    return k.layers.ReLU()(k.layers.Conv2D(8, 3, strides=2, padding="valid", name="stem")(x))


def head(k, x, name="head"):
    x = k.layers.GlobalAveragePooling2D(keepdims=True)(x)
    return k.layers.Dense(4, name=name)(k.layers.Flatten()(x))


def point(k, x, name="point_1", filters=8, **options):
    return k.layers.Conv2D(filters, 1, name=name, **options)(x)


def network(k, body, stem=stem, head=head, shape=SHAPE):
    """The same network in `keras` or `tf_keras`: stem, body, head. The names of 1x1 convolutions begin with `point`."""
    inputs = k.Input(shape)
    return k.Model(inputs, head(k, body(k, stem(k, inputs))))


def depthwise(size, strides=1, pad=None, padding="valid", **options):
    def body(k, x):
        x = x if pad is None else k.layers.ZeroPadding2D(pad)(x)
        return point(k, k.layers.DepthwiseConv2D(size, strides=strides, padding=padding, **options)(x))

    return body


def after_point(layer):
    """A body: a 1x1 convolution, then the layer or operation that `layer(k)` makes."""
    return lambda k, x: layer(k)(point(k, x))


def mobile_block(k, x):
    y = k.layers.ReLU(6.0)(k.layers.BatchNormalization()(point(k, x, filters=16)))
    y = k.layers.ReLU(6.0)(k.layers.BatchNormalization()(k.layers.DepthwiseConv2D(3, padding="same")(y)))
    return k.layers.Add()([x, k.layers.BatchNormalization()(point(k, y, "point_2"))])


def squeeze_and_excite(k, x):
    gate = point(k, k.layers.GlobalAveragePooling2D(keepdims=True)(x), activation="relu")
    return k.layers.Multiply()([x, point(k, gate, "point_2", activation="sigmoid")])


def classified_by_a_convolution(k, x):
    x = k.layers.GlobalAveragePooling2D(keepdims=True)(point(k, x))
    return k.layers.Flatten()(point(k, x, "point_2"))


def two_heads(second):
    def heads(k, x):
        return [head(k, point(k, x, "point_1"), "first"), second(k, point(k, x, "point_2"))]

    return lambda k: network(k, lambda k, x: x, head=heads)


def two_inputs(second_stem):
    def build(k):
        inputs = [k.Input(SHAPE), k.Input(SHAPE)]
        parts = [stem(k, inputs[0]), second_stem(k, inputs[1])]
        return k.Model(inputs, head(k, point(k, k.layers.Add()(parts))))

    return build


def second_stem(k, x):
    return k.layers.Conv2D(8, 3, strides=2)(k.layers.ZeroPadding2D(1)(x))


def sequential(k):
    layers = [k.layers.ZeroPadding2D(1), k.layers.Conv2D(8, 3, strides=2), k.layers.ReLU()]
    layers += [k.layers.Conv2D(8, 1, name="point_1"), k.layers.GlobalAveragePooling2D(keepdims=True)]
    model = k.Sequential([*layers, k.layers.Flatten(), k.layers.Dense(4)])
    model.build((None, *SHAPE))
    return model


def flattened(k, x):
    return k.layers.Dense(4)(k.layers.Flatten()(x))


BODIES = {
    "plain": point,
    "two convolutions": lambda k, x: point(k, point(k, x), "point_2"),
    "inverted residual": mobile_block,
    "squeeze and excite": squeeze_and_excite,
    "add of tensors": lambda k, x: x + point(k, x),
    "product of tensors": lambda k, x: x * point(k, x),
    "product with a number": lambda k, x: point(k, x) * 2.0,
    "depthwise 3x3 same": depthwise(3, padding="same"),
    "depthwise 3x3 padded": depthwise(3, pad=1),
    "depthwise 3x3 padded stride 2": depthwise(3, 2, pad=1),
    "depthwise 5x5 same": depthwise(5, padding="same"),
    "depthwise 5x5 padded": depthwise(5, pad=2),
    "depthwise 5x5 padded stride 2": depthwise(5, 2, pad=2),
    "batch normalization": after_point(lambda k: k.layers.BatchNormalization()),
    "relu6": after_point(lambda k: k.layers.ReLU(6.0)),
    "leaky relu": after_point(lambda k: k.layers.LeakyReLU()),
    "elu": after_point(lambda k: k.layers.ELU()),
    "relu activation": after_point(lambda k: k.layers.Activation("relu")),
    "sigmoid activation": after_point(lambda k: k.layers.Activation("sigmoid")),
    "bilinear upsampling": after_point(lambda k: k.layers.UpSampling2D(interpolation="bilinear")),
    "dropout": after_point(lambda k: k.layers.Dropout(0.1)),
}
GOOD = {name: lambda k, body=body: network(k, body) for name, body in BODIES.items()} | {
    "sequential": sequential,
    "classified by a convolution": lambda k: network(k, lambda k, x: x, head=classified_by_a_convolution),
    "two heads": two_heads(lambda k, x: head(k, x, "second")),
    "two inputs": two_inputs(second_stem),
}
BAD_BODIES = {
    "convolution 3x3": lambda k, x: k.layers.Conv2D(8, 3, padding="same")(point(k, x)),
    "convolution 1x1 stride 2": lambda k, x: point(k, x, strides=2),
    "grouped convolution 1x1": lambda k, x: point(k, x, groups=2),
    "depthwise 3x3 unpadded": depthwise(3),
    "depthwise 3x3 same stride 2": depthwise(3, 2, padding="same"),
    "depthwise 3x3 padded by 2": depthwise(3, pad=2),
    "depthwise 5x5 padded by 1": depthwise(5, pad=1),
    "depthwise 7x7": depthwise(7, padding="same"),
    "depthwise multiplier": depthwise(3, padding="same", depth_multiplier=2),
    "depthwise dilated": depthwise(3, padding="same", dilation_rate=2),
    "max pooling": after_point(lambda k: k.layers.MaxPooling2D(2)),
    "average pooling": after_point(lambda k: k.layers.AveragePooling2D(2)),
    "softmax activation": after_point(lambda k: k.layers.Activation("softmax")),
    "swish activation": after_point(lambda k: k.layers.Activation("swish")),
    "softmax layer": after_point(lambda k: k.layers.Softmax()),
    "learned slopes": after_point(lambda k: k.layers.PReLU()),
    "normalized rows": after_point(lambda k: k.layers.BatchNormalization(axis=1)),
    "layer normalization": after_point(lambda k: k.layers.LayerNormalization()),
    "nearest upsampling": after_point(lambda k: k.layers.UpSampling2D()),
    "quotient": lambda k, x: point(k, x) / 2.0,
    "concatenation": lambda k, x: k.layers.Concatenate()([x, point(k, x)]),
    "average of layers": lambda k, x: k.layers.Average()([x, point(k, x)]),
    "inner pooling without keepdims": lambda k, x: k.layers.Multiply()(
        [x, k.layers.Reshape((1, 1, 8))(k.layers.GlobalAveragePooling2D()(point(k, x)))]
    ),
}
BAD_STEMS = {
    "no zero padding": lambda k, x: k.layers.Conv2D(8, 3, strides=2)(x),
    "zero padding of 2": lambda k, x: k.layers.Conv2D(8, 3, strides=2)(k.layers.ZeroPadding2D(2)(x)),
    "one-sided zero padding": lambda k, x: k.layers.Conv2D(8, 3, strides=2)(
        k.layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
    ),
    "stem of stride 1": lambda k, x: k.layers.Conv2D(8, 3)(k.layers.ZeroPadding2D(1)(x)),
    "stem with same padding": lambda k, x: k.layers.Conv2D(8, 3, strides=2, padding="same")(
        k.layers.ZeroPadding2D(1)(x)
    ),
    "stem 5x5": lambda k, x: k.layers.Conv2D(8, 5, strides=2)(k.layers.ZeroPadding2D(1)(x)),
    "layer between padding and stem": lambda k, x: k.layers.Conv2D(8, 3, strides=2)(
        k.layers.ReLU()(k.layers.ZeroPadding2D(1)(x))
    ),
}
BAD = (
    {name: lambda k, body=body: network(k, body) for name, body in BAD_BODIES.items()}
    | {name: lambda k, start=start: network(k, point, start) for name, start in BAD_STEMS.items()}
    | {
        "one channel": lambda k: network(k, point, shape=(16, 16, 1)),
        "no pooling": lambda k: network(k, point, head=flattened),
        "maximum at the end": lambda k: network(
            k, point, head=lambda k, x: k.layers.GlobalMaxPooling2D(keepdims=True)(x)
        ),
        "one head without pooling": two_heads(flattened),
        "a pooled and an unpooled head": two_heads(lambda k, x: k.layers.MaxPooling2D(2)(x)),
        "a bad layer before one of two heads": two_heads(lambda k, x: head(k, k.layers.Softmax()(x), "second")),
        "one input without stem": two_inputs(lambda k, x: k.layers.Conv2D(8, 1, strides=2, name="point_2")(x)),
    }
)


def pruned_by_tfmot(model):
    """The names of the layers that TF-MOT prunes in a tf_keras model under its own policy."""
    policy = tfmot.sparsity.keras.PruneForLatencyOnXNNPack()
    wrapped = tfmot.sparsity.keras.prune_low_magnitude(model, pruning_policy=policy)
    return {layer.layer.name for layer in wrapped.layers if hasattr(layer, "pruning_vars")}


def pruned_here(model, policy=None):
    masks = tfl.get_masks(tfl.wrap(model, prunable=policy or policies.PruneForLatencyOnXNNPack()))
    assert all(path.endswith("/kernel") for path in masks)
    return {path.split("/")[-2] for path in masks}


@pytest.mark.parametrize("name", GOOD)
def test_accepted_and_pruned_as_by_tfmot(name):
    model = GOOD[name](keras)
    points = {layer.name for layer in model.layers if layer.name.startswith("point")}
    assert points and pruned_by_tfmot(GOOD[name](tf_keras)) == points
    assert pruned_here(model) == points


@pytest.mark.parametrize("name", BAD)
def test_refused_as_by_tfmot(name):
    with pytest.raises(ValueError, match="not supported|Could not find"):
        pruned_by_tfmot(BAD[name](tf_keras))
    model = BAD[name](keras)
    before = model.get_weights()
    with pytest.raises(LotteryError, match=r"^Expected [^\n]*XNNPACK [^\n]*\.$"):
        pruned_here(model)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_the_pooling_at_the_end_keeps_its_dimensions():
    """XNNPACK's MEAN does; TF-MOT's policy has the rule too, but its search stops before it looks at the last pooling."""

    def flat_head(k, x):
        return k.layers.Dense(4)(k.layers.GlobalAveragePooling2D(name="pooling")(x))

    with pytest.raises(LotteryError, match="'pooling' with keepdims=True"):
        pruned_here(network(keras, point, head=flat_head))


def test_a_transposed_convolution_is_not_one_of_1x1():
    """In tf_keras it is a kind of Conv2D, so TF-MOT accepts it; XNNPACK runs none sparsely."""
    with pytest.raises(LotteryError, match="Conv2DTranspose"):
        pruned_here(network(keras, lambda k, x: L.Conv2DTranspose(8, 1)(point(k, x))))


OPERATIONS = {
    "ops.relu": lambda x, y: keras.ops.relu(y),
    "ops.relu6": lambda x, y: keras.ops.relu6(y),
    "ops.leaky_relu": lambda x, y: keras.ops.leaky_relu(y),
    "ops.elu": lambda x, y: keras.ops.elu(y),
    "ops.sigmoid": lambda x, y: keras.ops.sigmoid(y),
    "ops.add": lambda x, y: keras.ops.add(x, y),
    "ops.multiply": lambda x, y: keras.ops.multiply(x, y),
    "x + y": lambda x, y: x + y,
    "x - y": lambda x, y: x - y,
    "x * y": lambda x, y: x * y,
    "relu(x + y)": lambda x, y: keras.ops.relu(x + y),
    "activations.relu": lambda x, y: keras.activations.relu(y),
    "activations.relu6": lambda x, y: keras.activations.relu6(y),
    "activations.sigmoid": lambda x, y: keras.activations.sigmoid(y),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_of_keras(name):
    assert pruned_here(network(keras, lambda k, x: OPERATIONS[name](x, point(k, x)))) == {"point_1"}


@pytest.mark.parametrize("name", ["softmax", "silu", "tanh", "exp"])
def test_other_operations_are_refused(name):
    with pytest.raises(LotteryError, match=f"'{name}.*' is a {name.title()} it does not run so"):
        pruned_here(network(keras, lambda k, x: getattr(keras.ops, name)(point(k, x))))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.inner = sequential(keras)

    def call(self, x):
        return self.inner(x)


def test_a_subclassed_model_is_refused():
    model = Subclassed()
    model(np.zeros((1, *SHAPE), "float32"))
    with pytest.raises(LotteryError, match=r"^Expected a Sequential or Functional model[^\n]*Subclassed\.$"):
        pruned_here(model)


def test_a_model_inside_is_refused():
    inside = keras.Sequential([keras.Input((8, 8, 8)), L.Conv2D(8, 1)], name="inside")
    with pytest.raises(LotteryError, match="'inside' is a Sequential"):
        pruned_here(network(keras, lambda k, x: inside(x)))


def test_an_unbuilt_model_is_judged_when_it_is_built():
    def unbuilt(*layers):
        rest = [L.GlobalAveragePooling2D(keepdims=True), L.Flatten(), L.Dense(4)]
        return keras.Sequential([L.ZeroPadding2D(1), L.Conv2D(8, 3, strides=2), *layers, *rest])

    policy = policies.PruneForLatencyOnXNNPack()
    with pytest.raises(LotteryError, match="^Expected a built model.*no weights yet"):
        policy.ensure_model_supports_pruning(unbuilt(L.Conv2D(8, 1)))
    good, bad = (tfl.wrap(unbuilt(layer), prunable=policy) for layer in (L.Conv2D(8, 1), L.Softmax()))
    images = np.zeros((1, *SHAPE), "float32")
    good(images)
    assert [mask.shape for mask in tfl.get_masks(good).values()] == [(1, 1, 8, 8)]
    with pytest.raises(LotteryError, match="is a Softmax"):
        bad(images)


class Named(tfmot.sparsity.keras.PruningPolicy):
    """A policy as a user of TF-MOT writes it: prunes the layers of some names, in models without dropout."""

    def __init__(self, *names):
        self.names, self.asked = names, []

    def allow_pruning(self, layer):
        return layer.name in self.names

    def ensure_model_supports_pruning(self, model):
        self.asked.append(model)
        if any(isinstance(layer, L.Dropout) for layer in model.layers):
            raise ValueError("no dropout, please")


def test_your_own_policy():
    model, policy = sequential(keras), Named("point_1", "dense")
    dense = model.layers[-1].name
    assert pruned_here(model, Named("point_1", dense)) == {"point_1", dense}
    assert pruned_here(model, policy) == {"point_1"} and policy.asked == [model]
    with pytest.raises(LotteryError, match="at least one prunable kernel"):
        tfl.wrap(sequential(keras), prunable=Named("none"))
    with pytest.raises(ValueError, match="no dropout, please"):
        tfl.wrap(GOOD["dropout"](keras), prunable=Named("point_1"))


def test_a_policy_never_prunes_what_is_no_kernel():
    model = keras.Sequential([keras.Input((4,)), L.Dense(3, name="dense"), L.BatchNormalization(name="norm")])
    assert pruned_here(model, Named("dense", "norm")) == {"dense"}


def test_the_search_and_one_shot_pruning_take_a_policy():
    policy, images = policies.PruneForLatencyOnXNNPack(), np.random.default_rng(0).normal(size=(8, *SHAPE))

    def train(model, callbacks):
        model.compile("sgd", "mse")
        return model.fit(images, np.ones((8, 4)), verbose=0, callbacks=callbacks)

    ticket = list(tfl.find_ticket(sequential(keras), train, levels=1, prune_fraction=0.5, prunable=policy))[-1]
    assert [(path.split("/")[-2], mask.mean()) for path, mask in ticket.masks.items()] == [("point_1", 0.5)]
    model = sequential(keras)
    tfl.prune(model, 0.25, prunable=policy)
    density = {v.path.split("/")[-2]: np.mean(v.numpy() != 0) for v in model.variables if v.name == "kernel"}
    assert density.pop("point_1") == 0.25 and set(density.values()) == {1.0}


def test_a_saved_model_needs_no_policy(tmp_path):
    masked = tfl.prune(sequential(keras), 0.25, prunable=policies.PruneForLatencyOnXNNPack())
    masked.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for mask, other in zip(tfl.get_masks(masked).values(), tfl.get_masks(loaded).values(), strict=True):
        assert np.array_equal(mask, other) and mask.mean() == 0.25
