"""Compaction: the same outputs from what is left, by hand, at random, in real networks and out of the door."""

import zipfile

import keras
import numpy as np
import pytest
from keras import layers as L

import tf_lottery as tfl
from tf_lottery import compaction
from tf_lottery.problems import models


def randomise(model, rng, dead=0.5, density=0.5):
    """Random weights; whole rows and columns of kernels are zero, and some factors of batch normalisations."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            randomise(layer, rng, dead, density)
        for variable in layer.weights if not isinstance(layer, keras.Model) else []:
            values = rng.normal(size=variable.shape)
            if "kernel" in variable.name:
                values *= rng.random(values.shape) < density
                values *= rng.random(values.shape[-1]) >= dead
                values *= rng.random((values.shape[-2], 1)) >= dead
            elif variable.name == "gamma":
                values *= rng.random(values.shape) >= dead
            elif variable.name == "moving_variance":
                values = np.abs(values) + 0.1
            variable.assign(values)
    return model


def outputs(model, inputs):
    return [np.asarray(out) for out in keras.tree.flatten(model(inputs, training=False))]


def sample(model, rng, count=5):
    arrays = [rng.normal(size=(count, *(n or 7 for n in t.shape[1:]))).astype("float32") for t in model.inputs]
    return arrays[0] if len(arrays) == 1 else arrays


def assert_same(model, small, inputs, rtol=1e-5):
    for expected, received in zip(outputs(model, inputs), outputs(small, inputs), strict=True):
        assert received.shape == expected.shape
        np.testing.assert_allclose(received, expected, rtol=rtol, atol=rtol * np.abs(expected).max())


def assert_settled(small):
    again, report = tfl.compact(small)
    assert report.parameters.before == report.parameters.after
    for weight, same in zip(small.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, same)


def random_model(rng):
    """A Functional model of random layers: dense, or convolutional with branches, pooling and padding."""
    pick = lambda *choices: choices[rng.integers(len(choices))]  # noqa: E731
    activation = lambda: pick("relu", "tanh", "sigmoid", "linear", "elu", "gelu")  # noqa: E731
    bias = lambda: bool(rng.random() < 0.7)  # noqa: E731

    def unitwise(x):
        layer = pick(
            L.BatchNormalization(), L.BatchNormalization(scale=False), L.ReLU(), L.LeakyReLU(), L.Dropout(0.5), L.Activation("silu"),
            L.PReLU(), L.PReLU(shared_axes=list(range(1, len(x.shape) - 1)) or None), L.Rescaling(0.5, 1.0), L.Softmax(), L.LayerNormalization(),
        )  # fmt: skip
        return layer(x)

    def convolve(x, filters):
        padding = pick("same", "same", "valid") if x.shape[1] > 4 else "same"
        size, options = pick(1, 2, 3), {"padding": padding, "activation": activation(), "use_bias": bias()}
        kind = pick("conv", "conv", "depthwise", "separable", "transposed", "dilated")
        if kind == "depthwise":
            return L.DepthwiseConv2D(size, depth_multiplier=pick(1, 1, 2), **options)(x)
        if kind == "separable":
            return L.SeparableConv2D(filters, size, depth_multiplier=pick(1, 2), **options)(x)
        if kind == "transposed":
            return L.Conv2DTranspose(filters, size, strides=pick(1, 2), **options)(x) if x.shape[1] < 10 else x
        return L.Conv2D(
            filters,
            size,
            strides=pick(1, 2) if kind == "conv" else 1,
            dilation_rate=2 if kind == "dilated" else 1,
            **options,
        )(x)

    def branch(x):
        filters = x.shape[-1]
        options = {"padding": "same", "activation": activation(), "use_bias": bias()}
        y = L.Conv2D(filters, pick(1, 3), **options)(x) if len(x.shape) == 4 else L.Dense(filters, activation())(x)
        y = unitwise(y) if rng.random() < 0.5 else y
        merge = pick("add", "plus", "concatenate", "multiply", "maximum", "average")
        if merge == "plus":
            return x + y
        if merge == "concatenate":
            return L.Concatenate()([y, x])
        return {"add": L.Add, "multiply": L.Multiply, "maximum": L.Maximum, "average": L.Average}[merge]()([x, y])

    x = inputs = keras.Input(pick((8, 8, 3), (9, 7, 2), (12,), (6, 5)))
    for _ in range(rng.integers(1, 7)):
        step = rng.random()
        if step < 0.3:
            x = unitwise(x)
        elif step < 0.5:
            x = branch(x) if len(x.shape) != 3 else x
        elif len(x.shape) == 4:
            layer = pick(L.MaxPooling2D(2, padding="same"), L.AveragePooling2D(2, padding="same"), L.ZeroPadding2D(1), L.UpSampling2D(2), L.Cropping2D(1), None, None, None)  # fmt: skip
            small = isinstance(layer, L.Cropping2D) and min(x.shape[1:3]) < 4
            x = convolve(x, int(rng.integers(3, 9))) if layer is None or small else layer(x)
        elif len(x.shape) == 3:
            x = L.Conv1D(
                int(rng.integers(3, 9)), 3, padding=pick("same", "causal"), activation=activation(), use_bias=bias()
            )(x)
        else:
            x = L.Dense(int(rng.integers(3, 12)), activation(), use_bias=bias())(x)
    if len(x.shape) == 4:
        x = pick(
            L.Flatten(), L.GlobalAveragePooling2D(), L.GlobalMaxPooling2D(), L.Reshape((-1, x.shape[-1])), L.Flatten()
        )(x)
    if len(x.shape) == 3:
        x = pick(L.Flatten(), L.GlobalMaxPooling1D(), L.Dense(4))(x)
    return keras.Model(inputs, L.Dense(3, pick("softmax", "linear"))(L.Dense(6, activation(), use_bias=bias())(x)))


@pytest.mark.parametrize("seed", range(12))
def test_random_models_compute_the_same(seed):
    rng = np.random.default_rng(seed)
    model = randomise(random_model(rng), rng, dead=rng.choice([0.1, 0.25, 0.5]), density=rng.choice([0.3, 0.7, 1.0]))
    small, report = tfl.compact(model)
    assert_same(model, small, sample(model, rng))
    assert report.parameters.after <= report.parameters.before + sum(
        layer.units.before for layer in report.layers
    )  # new biases
    assert_settled(small)


def set_kernel(layer, kernel, bias=None):
    layer.set_weights([np.asarray(kernel, "float32")] + ([] if bias is None else [np.asarray(bias, "float32")]))


def widths(report):
    return {layer.name: (layer.inputs.after, layer.units.after) for layer in report.layers}


def test_by_hand():
    """Unit a1 is constant, relu(2) = 2; a2 feeds b2 alone, which is dead; b1 = 3 * a1 - 1 is then constant, 5.

    Input 2 is dead too, but a gather of the other two for one unit would cost more than it saves.
    """
    model = keras.Sequential(
        [keras.Input((3,)), L.Dense(3, "relu", name="a"), L.Dense(3, "relu", name="b"), L.Dense(2, name="c")],
        name="net",
    )
    set_kernel(model.layers[0], [[1, 0, 3], [2, 0, 4], [0, 0, 5]], [1, 2, 3])
    set_kernel(model.layers[1], [[1, 0, 1], [4, 3, 0], [0, 0, 1]], [0, -1, 0])
    set_kernel(model.layers[2], [[2, 0], [1, 10], [0, 0]], [1, 1])
    small, report = tfl.compact(model)
    a, b, c = (layer.get_weights() for layer in small.layers if layer.weights)
    np.testing.assert_array_equal(a[0], [[1], [2], [0]])
    np.testing.assert_array_equal(a[1], [1])
    np.testing.assert_array_equal(b[0], [[1]])
    np.testing.assert_array_equal(b[1], [8])  # 4 * 2
    np.testing.assert_array_equal(c[0], [[2, 0]])
    np.testing.assert_array_equal(c[1], [6, 51])
    assert widths(report) == {"a": (3, 1), "b": (1, 1), "c": (1, 2)}
    assert report.multiply_adds == (24, 6) and report.parameters == (32, 10) and report.bytes == (128, 40)
    assert small.name == "net" and small.input_shape == (None, 3) and not report.left
    assert_same(model, small, np.random.default_rng(0).normal(size=(9, 3)))


def test_constants_meet_zero_padding(rng):
    """A channel that always emits 0 goes; of those that emit other constants one stands for all; before "valid" none is kept."""

    def build(padding):
        model = keras.Sequential(
            [keras.Input((6, 6, 1)), L.Conv2D(6, 3, name="a"), L.BatchNormalization(), L.ReLU(), L.Conv2D(2, 3, padding=padding, name="b")]
        )  # fmt: skip
        randomise(model, rng, dead=0, density=1)
        kernel, bias = model.layers[0].get_weights()
        kernel[..., 1:5] = 0
        model.layers[0].set_weights([kernel, bias])
        gamma, _, mean, variance = model.layers[1].get_weights()
        model.layers[1].set_weights([gamma * 0 + 1, np.array([0, -9, 9, 8, 7, 0]), mean, variance])
        return model

    for padding, channels in (("valid", 2), ("same", 3)):
        model = build(padding)
        small, report = tfl.compact(model)
        assert widths(report)["b"] == (channels, 2)
        assert bool(report.left) == (padding == "same")
        assert_same(model, small, sample(model, rng))
        assert_settled(small)


def test_depthwise_constants_share_nine_maps(rng):
    """Behind a padded 3x3 depthwise convolution constants differ in 9 regions, so 9 of 40 channels stand for all."""
    inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(48, 1, activation="relu", name="expand")(inputs)
    x = L.DepthwiseConv2D(3, padding="same", activation="tanh", name="depthwise")(x)
    model = randomise(keras.Model(inputs, L.Conv2D(4, 1, name="project")(x)), rng, dead=0, density=1)
    kernel, bias = model.get_layer("expand").get_weights()
    kernel[..., 8:] = 0
    model.get_layer("expand").set_weights([kernel, np.abs(bias) + 0.1])
    small, report = tfl.compact(model)
    assert widths(report) == {"expand": (3, 17), "depthwise": (17, 17), "project": (17, 4)}
    assert_same(model, small, sample(model, rng))
    assert_settled(small)


def test_residual_units_stay_or_go_together(rng):
    """Of 4 units that are added, 0 is needed after the sum, 1 before it, 2 nowhere; 3 is constant in one summand."""
    inputs = keras.Input((5,))
    x = L.Dense(4, "tanh", name="x")(inputs)
    y = L.Dense(4, "tanh", name="y")(x)
    z = L.Dense(2, name="z")(L.Add(name="sum")([x, y]))
    model = randomise(keras.Model(inputs, z), rng, dead=0, density=1)
    y, z = model.get_layer("y"), model.get_layer("z")
    set_kernel(y, y.kernel * np.array([[0], [1], [0], [0]]) * np.array([1, 1, 1, 0]), y.bias)
    set_kernel(z, z.kernel * np.array([[1], [0], [0], [1]]), z.bias)
    small, report = tfl.compact(model)
    assert widths(report) == {"x": (5, 3), "y": (1, 3), "z": (3, 2)}
    assert list(report.left) == ["sum"]
    np.testing.assert_array_equal(small.get_layer("y").kernel[:, 2], 0)
    assert_same(model, small, sample(model, rng))
    assert_settled(small)


def test_concatenated_and_multiplied_units(rng):
    inputs = keras.Input((5,))
    x, y = L.Dense(3, "relu", name="x")(inputs), L.Dense(4, "relu", name="y")(inputs)
    product = L.Multiply()([L.Concatenate()([x, y]), L.Dense(7, "sigmoid", name="gate")(inputs)])
    model = randomise(keras.Model(inputs, L.Dense(2, name="z")(product)), rng, dead=0, density=1)
    x, y, z = (model.get_layer(name) for name in "xyz")
    set_kernel(x, x.kernel * np.array([0, 1, 1]), [-1, 0, 0])  # relu(-1) = 0, whatever the gate
    set_kernel(z, z.kernel * np.array([1, 1, 1, 0, 0, 1, 1])[:, None], z.bias)
    small, report = tfl.compact(model)
    assert widths(report) == {"x": (5, 2), "y": (5, 2), "gate": (5, 4), "z": (4, 2)}
    assert_same(model, small, sample(model, rng))


class Dense(L.Layer):
    """A layer of one's own that is called like one of Keras."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 4), name="kernel")

    def call(self, x):
        return keras.ops.flip(x @ self.kernel, -1)


def barriers():
    shared = L.Dense(6, name="barrier")
    attention = L.MultiHeadAttention(2, 3, name="barrier")
    return {
        "lstm": lambda x: L.LSTM(6, name="barrier")(x),
        "own": lambda x: Dense(name="barrier")(x),
        "attention": lambda x: attention(x, x, attention_mask=keras.ops.ones((1, 4, 4))),
        "shared": lambda x: L.Concatenate()([shared(x), shared(-x)]),
        "groups": lambda x: L.Conv1D(6, 2, groups=2, name="barrier")(x),
        "softmax": lambda x: L.Softmax(name="barrier")(x),
        "norm": lambda x: L.LayerNormalization(name="barrier")(x),
        "training": lambda x: L.BatchNormalization(name="barrier")(x, training=True),
        "permute": lambda x: L.Permute((2, 1), name="barrier")(x),
        "first": lambda x: L.GlobalMaxPooling1D(data_format="channels_first", name="barrier")(x),
    }


@pytest.mark.parametrize("kind", barriers())
def test_barriers_keep_all_and_are_named(kind, rng):
    inputs = keras.Input((4, 6))
    x = L.Dense(8, "relu", name="before")(L.Dense(5, "relu", name="first")(inputs))
    x = L.Dense(5, name="last")(L.Dense(4, "relu", name="after")(L.Flatten()(barriers()[kind](x))))
    model = randomise(keras.Model(inputs, x), rng, dead=0.5)
    small, report = tfl.compact(model)
    assert [name for name in report.left if name == "barrier"], report.left
    assert widths(report)["before"][1] == 8 and widths(report)["first"][1] < 5
    assert_same(model, small, sample(model, rng))
    assert_settled(small)


def test_dead_inputs_are_gathered_and_constant_ones_folded(rng):
    model = keras.Sequential(
        [keras.Input((4, 4, 1)), L.Rescaling(2.0, 1.0), L.Flatten(), L.Dense(8, "relu", name="a"), L.Dense(2)]
    )
    kernel = rng.normal(size=(16, 8)) * (np.arange(16) >= 5)[:, None]
    set_kernel(model.layers[2], kernel, rng.normal(size=8))
    small, report = tfl.compact(model)
    assert widths(report)["a"] == (11, 8) and small.input_shape == (None, 4, 4, 1)
    x = sample(model, rng)
    assert_same(model, small, x)
    x[:, :3] = 0.25
    small, report = tfl.compact(model, calibration=x)
    assert widths(report)["a"] == (4, 8)
    assert_same(model, small, x)
    x[:, :3] = 0.5
    assert np.abs(outputs(model, x)[0] - outputs(small, x)[0]).max() > 1e-3


def test_an_open_size_has_uniform_constants_only(rng):
    model = keras.Sequential(
        [
            keras.Input((None, None, 2)),
            L.Conv2D(4, 3, padding="same", activation="relu"),
            L.ZeroPadding2D(),
            L.Conv2D(3, 3),
        ]
    )
    randomise(model, rng, dead=0.4)
    x = rng.normal(size=(3, 7, 9, 2)).astype("float32")
    x[..., 1], x[:, 0, 0, 0] = 0, 1
    small, _ = tfl.compact(model, calibration=x)
    assert_same(model, small, x)
    assert np.asarray(small(x[:, :5])).shape == np.asarray(model(x[:, :5])).shape


def test_what_was_adapted_to_data(rng):
    x = rng.normal(3, 2, size=(50, 4)).astype("float32")
    norm = L.Normalization()
    norm.adapt(x)
    model = randomise(keras.Sequential([keras.Input((4,)), norm, L.Dense(6, "relu"), L.Dense(2)]), rng, dead=0.3)
    norm.adapt(x)
    assert_same(model, tfl.compact(model).model, x)
    words = L.TextVectorization(output_mode="multi_hot")
    words.adapt(np.array([["a b"], ["b c"]]))
    with pytest.raises(tfl.LotteryError, match="was adapted: compact the model behind it"):
        tfl.compact(keras.Sequential([keras.Input((1,), dtype="string"), words, L.Dense(2)]))
    listed = keras.Sequential(
        [keras.Input((1,), dtype="int32"), L.IntegerLookup(vocabulary=[3, 5], output_mode="multi_hot"), L.Dense(2)]
    )
    assert_same(listed, tfl.compact(listed).model, np.array([[3], [5], [4]]))


def test_nothing_left_is_still_a_model(rng):
    for build in (lambda: [keras.Input((6,)), L.Dense(5, "relu"), L.Dense(4, "tanh"), L.Dense(3)],
                  lambda: [keras.Input((6, 6, 2)), L.Conv2D(4, 3), L.BatchNormalization(), L.MaxPooling2D(), L.Flatten(), L.Dense(3)]):  # fmt: skip
        model = randomise(keras.Sequential(build()), rng, dead=1.0)
        small, report = tfl.compact(model)
        assert {layer.units.after for layer in report.layers[:-1]} == {1} and report.layers[-1].units == (3, 3)
        assert_same(model, small, sample(model, rng))
        assert_settled(small)


def test_nested_models_are_inlined(rng):
    def backbone():
        inputs = keras.Input((8,))
        return keras.Model(inputs, L.BatchNormalization(name="norm")(L.Dense(8, "relu", name="dense")(inputs)))

    twice, inner = (
        backbone(),
        keras.Sequential([L.Dense(8, "relu", name="dense"), L.Dropout(0.5), L.Dense(8, name="out")]),
    )
    inputs = keras.Input((8,))
    x = inner(backbone()(inputs, training=False))
    x = L.Dense(3)(twice(twice(x)) + x)
    model = randomise(keras.Model(inputs, x), rng, dead=0.4, density=0.8)
    small, report = tfl.compact(model)
    assert not any(isinstance(layer, keras.Model) for layer in small.layers)
    assert {"dense", "dense_1", "norm", "out"} <= set(widths(report)) and widths(report)["out"][0] < 8
    assert sum("shared" in reason for reason in report.left.values()) == 2
    assert_same(model, small, sample(model, rng))


def test_structures_of_inputs_and_outputs(rng):
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    x = L.Dense(6, "relu", name="x")(L.Concatenate()([a, b]))
    model = keras.Model({"a": a, "b": b}, {"p": L.Dense(2, name="p")(x), "q": L.Dense(1, name="q")(b)})
    randomise(model, rng)
    inputs = {"a": rng.normal(size=(5, 4)).astype("float32"), "b": np.ones((5, 3), "float32")}
    small, _ = tfl.compact(model, calibration=inputs)
    assert set(small(inputs)) == {"p", "q"} and small.output_names == model.output_names
    assert_same(model, small, inputs)


def test_dtype_policies_are_kept(rng):
    policies = ["mixed_float16", "float32", "float64"]
    model = randomise(
        keras.Sequential([keras.Input((6,)), *(L.Dense(6, "relu", dtype=name) for name in policies)]), rng
    )
    small, _ = tfl.compact(model)
    assert [layer.dtype_policy.name for layer in small.layers if layer.weights] == policies
    assert_same(model, small, sample(model, rng), rtol=1e-2)


def test_wrapped_models_and_the_given_one_stays(rng):
    model = keras.Sequential(
        [keras.Input((6,)), L.Dense(8, "relu", name="a"), L.Dense(8, "relu", name="b"), L.Dense(2, name="c")]
    )
    model.compile("adam", "mse")
    wrapped = tfl.wrap(model)
    masks = {path: rng.random(mask.shape) < 0.2 for path, mask in tfl.get_masks(wrapped).items()}
    tfl.set_masks(wrapped, masks)
    before, expected = wrapped.get_weights(), outputs(wrapped, x := sample(model, rng))
    small, report = tfl.compact(wrapped)
    assert report.multiply_adds.factor > 1.2
    np.testing.assert_allclose(outputs(small, x)[0], expected[0], rtol=1e-5, atol=1e-6)
    for now, then in zip(wrapped.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert model.layers[0].output is not None  # each layer was called once
    assert not {id(v) for v in small.variables} & {id(v) for v in wrapped.variables}
    parts = keras.Sequential([keras.Input((6,)), tfl.wrap(L.Dense(8, "relu")), L.Dense(2)])
    tfl.set_masks(parts, {path: rng.random(mask.shape) < 0.1 for path, mask in tfl.get_masks(parts).items()})
    small, report = tfl.compact(parts)
    assert report.multiply_adds.factor > 1 and {type(layer) for layer in small.layers} >= {L.Dense}
    assert_same(parts, small, x)


def test_real_networks(rng):
    small_inputs = {"weights": None, "input_shape": (32, 32, 3), "classes": 10}
    networks = [
        models.get("resnet18")(),
        models.get("conv2")(),
        keras.applications.MobileNetV2(alpha=0.35, **small_inputs),
    ]
    for model in networks:
        for layer in model.layers:  # a third of the channels, and what batch normalisation adds to half of these
            if isinstance(layer, L.Conv2D | L.DepthwiseConv2D):
                kernel, *bias = layer.get_weights()
                axis = -2 if isinstance(layer, L.DepthwiseConv2D) else -1
                kept = rng.random(kernel.shape[axis]) > 0.33
                layer.set_weights(
                    [kernel * (kept[:, None] if axis == -2 else kept), *(rng.normal(size=b.shape) for b in bias)]
                )
            elif isinstance(layer, L.BatchNormalization):
                gamma, beta, mean, variance = layer.get_weights()
                layer.set_weights([4 * gamma, rng.normal(size=beta.shape), mean, variance])
        small, report = tfl.compact(model)
        x = sample(model, rng)
        assert np.ptp(outputs(model, x)[0], axis=0).max() > 1e-6  # it still looks at its inputs
        assert_same(model, small, x)
        assert report.multiply_adds.factor > 1.3, model.name


def test_what_comes_out_loads_without_us_and_runs_in_litert(rng, tmp_path):
    """Its layers are Keras's own; that such files load in a fresh process is tested with the formats."""
    model = randomise(models.get("lenet_300_100")(), rng, dead=0.3, density=0.1)
    small, report = tfl.compact(model)
    assert [type(layer).__module__.split(".")[0] for layer in small.layers] == ["keras"] * len(small.layers)
    x = rng.random((4, 28, 28, 1)).astype("float32")
    small.save(tmp_path / "small.keras")
    assert b"tf_lottery" not in zipfile.ZipFile(tmp_path / "small.keras").read("config.json")
    expected = outputs(model, x)[0]
    assert_same(model, keras.models.load_model(tmp_path / "small.keras"), x)

    exported = tfl.export.tflite(small, tmp_path / "small.tflite", x)
    assert exported.difference < 1e-5 * np.abs(expected).max()
    timed = report.timed()
    assert report.latency is None and timed.latency.before > 0 and timed.latency.after > 0
    assert "microseconds an example" in str(timed) and "microseconds" not in str(report)


def test_the_report_reads_as_a_table(rng):
    model = randomise(
        keras.Sequential([keras.Input((6,)), L.Dense(40, "relu", name="a"), L.Softmax(name="s"), L.Dense(2, name="b")]),
        rng,
    )
    report = str(tfl.compact(model).report)
    assert "6 → " in report or "6 " in report
    assert "multiply-adds: 320" in report and "left as it is: s: there is no rule for its kind" in report
    assert max(map(len, report.splitlines())) <= 120


def test_multiply_adds_are_half_of_tensorflows_flops(rng):
    """TensorFlow's profiler counts a multiplication and an addition for each; without biases and activations nothing else is left."""
    import tensorflow as tf

    options = {"use_bias": False, "padding": "same"}
    layers = [L.Conv2D(4, 3, strides=2, **options), L.DepthwiseConv2D(3, **options), L.SeparableConv2D(6, 3, **options)]
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers, L.Flatten(), L.Dense(5, use_bias=False)])
    traced = tf.function(lambda x: model(x)).get_concrete_function(tf.TensorSpec((1, 8, 8, 3)))
    profile = tf.compat.v1.profiler.ProfileOptionBuilder(tf.compat.v1.profiler.ProfileOptionBuilder.float_operation())
    flops = tf.compat.v1.profiler.profile(traced.graph, options=profile.with_empty_output().build()).total_float_ops
    assert tfl.compact(model).report.multiply_adds.before * 2 == flops


def test_multiply_adds_of_recurrent_layers_by_hand():
    model = keras.Sequential(
        [
            keras.Input((12, 4)),
            L.Bidirectional(L.LSTM(8, return_sequences=True)),
            L.GRU(5, return_sequences=True),
            L.TimeDistributed(L.Dense(3)),
            L.SimpleRNN(6),
        ]
    )
    report = tfl.compact(model).report
    lstm, gru, dense, simple = 2 * 12 * 4 * (4 * 8 + 8 * 8), 12 * 3 * (16 * 5 + 5 * 5), 12 * 5 * 3, 12 * (3 * 6 + 6 * 6)
    assert [layer.multiply_adds.before for layer in report.layers] == [lstm, gru, dense, simple]
    assert report.multiply_adds.before == lstm + gru + dense + simple and "not counted" not in str(report)
    open_size = tfl.compact(keras.Sequential([keras.Input((None, 4)), L.LSTM(8)])).report
    assert open_size.multiply_adds.before == 4 * (4 * 8 + 8 * 8)
    assert "unknown length count as one" in str(open_size) and "unknown" not in str(report)


def test_layers_that_are_not_counted_are_named():
    class Own(L.Layer):
        def build(self, shape):
            self.w = self.add_weight((shape[-1], 2), name="w")

        def call(self, x):
            return x @ self.w

    x = inputs = keras.Input((6, 8))
    x = L.LayerNormalization(name="norm")(L.Dense(8, name="dense")(x))
    x = Own(name="own")(L.MultiHeadAttention(2, 4, name="attention")(x, x))
    report = tfl.compact(keras.Model(inputs, x)).report
    counts = {layer.name: layer.multiply_adds and layer.multiply_adds.before for layer in report.layers}
    assert counts == {"dense": 6 * 8 * 8, "norm": 0, "attention": None, "own": None}
    assert report.multiply_adds.before == 6 * 8 * 8
    assert "multiply-adds are not counted of: attention, own" in str(report) and str(report).count("? │") == 2


@keras.saving.register_keras_serializable("test_compaction")
class Own(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = L.Dense(2)

    def call(self, x):
        return self.dense(x)


class Unsaved(keras.Model):
    """Keras cannot copy it: it has no get_config."""

    def __init__(self, units):
        super().__init__(name="sub")
        self.dense = L.Dense(units)

    def call(self, x):
        return self.dense(x)


@keras.saving.register_keras_serializable("test_compaction")
class Backbone(keras.Model):
    """A Functional model with a config of its own, so that a layer in it needs none."""

    def __init__(self, units, **kwargs):
        class Gated(keras.layers.Layer):
            def __init__(self, units, **kwargs):
                super().__init__(**kwargs)
                self.dense = L.Dense(units)

            def build(self, shape):
                self.dense.build(shape)

            def call(self, x):
                return x * keras.ops.sigmoid(self.dense(x))

        inputs = keras.Input((4,))
        hidden = L.Dense(units, "relu", name="hidden")(inputs)
        super().__init__(inputs, L.Dense(2, name="out")(Gated(units, name="gated")(hidden)), **kwargs)
        self.units = units

    def get_config(self):
        return {"units": self.units, "name": self.name}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def test_a_layer_that_has_no_config_stays_whole(rng):
    model = randomise(Backbone(8), rng)
    small, report = tfl.compact(model)
    assert_same(model, small, sample(model, rng))
    assert "gated" in report.left
    before = [np.array(weight) for weight in small.weights]
    for variable in model.weights:
        variable.assign(variable * 2 + 1)  # nothing is shared with the given model
    assert all(np.array_equal(a, np.array(b)) for a, b in zip(before, small.weights))


def test_bad_input_is_refused():
    own = Own()
    own(np.ones((1, 3), "float32"))
    unsaved = Unsaved(3)
    unsaved(np.ones((1, 3), "float32"))
    for model in (own, unsaved, tfl.prune(own, 0.5)):
        with pytest.raises(tfl.LotteryError, match="Expected a Sequential or Functional model, but .* is subclassed"):
            tfl.compact(model)
    with pytest.raises(TypeError, match="ticket.apply"):
        tfl.compact(tfl.Ticket({}, {}))
    with pytest.raises(tfl.LotteryError, match="that is built"):
        tfl.compact(keras.Sequential([L.Dense(2)]))
    with pytest.raises(tfl.LotteryError, match="that is built"):
        tfl.compact(L.Dense(2))
    with pytest.raises(TypeError, match="Expected a Keras 3 model"):
        tfl.compact("model")
    model = keras.Sequential([keras.Input((3,)), L.Dense(2)])
    for calibration in (np.ones((4, 2)), np.ones((0, 3)), (np.ones((4, 3)), np.ones((4, 3)))):
        with pytest.raises(tfl.LotteryError, match="Expected calibration inputs of shapes"):
            tfl.compact(model, calibration=calibration)


def test_operations_are_known_by_the_names_in_saved_models(rng):
    """Keras exports the functions, not the classes that appear in the graph and in saved models."""
    ops = keras.ops
    pairs = [ops.add, ops.subtract, ops.multiply, ops.maximum, ops.minimum]
    ones = [
        ops.relu,
        ops.relu6,
        ops.elu,
        ops.gelu,
        ops.silu,
        ops.sigmoid,
        ops.hard_sigmoid,
        ops.hard_silu,
        ops.tanh,
        ops.softplus,
    ]
    ones += [ops.negative, ops.absolute, ops.square, lambda x: ops.leaky_relu(x, 0.3), lambda x: ops.clip(x, -0.5, 0.5)]
    ones += [lambda x: ops.divide(x, 2.0), lambda x: ops.true_divide(1.0, ops.exp(x))]
    x = inputs = keras.Input((6,))
    branches = [function(L.Dense(4, name=f"branch_{i}")(x)) for i, function in enumerate(ones)]
    x = ops.concatenate(branches, axis=-1)
    for function in pairs:
        x = function(x, L.Dense(4 * len(ones))(x))
    model = randomise(keras.Model(inputs, L.Dense(2)(x)), rng, dead=0.5, density=0.9)
    graph = compaction.graph.Graph(model)
    assert {kind for kind in compaction.rules.RULES if kind.startswith("ops.")} <= {step.kind for step in graph.steps}
    small, report = tfl.compact(model)
    assert sum(units < 4 for _, units in widths(report).values()) > 5
    assert_same(model, small, sample(model, rng))


def test_layers_with_rules_are_layers_of_keras():
    assert all(hasattr(L, kind) for kind in compaction.rules.RULES if not kind.startswith("ops."))
