"""The wrapper: it computes what the plain layers compute with masked weights, in `fit`, saved and stripped."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_lottery as tfl
from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import state

L = keras.layers


def sequential():
    return keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(4, 3, activation="relu"), L.Flatten(), L.Dense(3)])


def functional():
    inputs = keras.Input((8, 8, 3))
    x = L.BatchNormalization()(L.Conv2D(4, 3)(inputs))
    x = L.Dropout(0.3, seed=1)(L.DepthwiseConv2D(3)(x))
    return keras.Model(inputs, L.Dense(3, kernel_regularizer="l2")(L.Flatten()(x)))


def shared():
    inputs, twin = keras.Input((8, 8, 3)), L.Dense(6, activation="relu")
    x = L.Flatten()(inputs)
    return keras.Model(inputs, L.Dense(3)(L.Concatenate()([twin(x), twin(-x)])))


def nested():
    inner = keras.Sequential([keras.Input((8, 8, 3)), L.SeparableConv2D(4, 3), L.Flatten()])
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, keras.Sequential([L.Dense(5), L.Dense(3)])(inner(inputs)))


def recurrent():
    inputs = keras.Input((8, 8, 3))
    x = L.Reshape((8, 24))(inputs)
    x = L.Bidirectional(L.GRU(4, return_sequences=True))(x)
    x = L.MultiHeadAttention(2, 4)(x, x)
    return keras.Model(inputs, L.Dense(3)(L.LSTM(4)(x)))


@keras.saving.register_keras_serializable("tests")
class Custom(L.Layer):
    """A layer the library has never heard of, with state that it updates in `call` and a loss of its own."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 5), name="kernel")
        self.calls = self.add_weight(shape=(), name="calls", trainable=False, initializer="zeros")

    def call(self, x):
        self.calls.assign_add(1.0)
        self.add_loss(0.01 * keras.ops.mean(keras.ops.square(x)))
        return keras.ops.matmul(x, self.kernel)


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.flatten, self.odd, self.head = L.Flatten(), Custom(), L.Dense(3)

    def call(self, x, training=None):
        return self.head(self.odd(self.flatten(x)))


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 8, 8, 3), "float32"))
    return model


MODELS = [sequential, functional, shared, nested, recurrent, subclassed]


def half(masked, seed=0):
    rng = np.random.default_rng(seed)
    return {path: rng.integers(0, 2, mask.shape) for path, mask in tfl.get_masks(masked).items()}


@pytest.fixture
def images(rng):
    return rng.normal(size=(48, 8, 8, 3)).astype("float32"), rng.integers(0, 3, 48)


def compiled(model, **kwargs):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"], **kwargs)
    return model


@pytest.mark.parametrize("build", MODELS)
def test_ones_change_nothing_and_masks_equal_masked_weights(build, images):
    model = build()
    plain = model(images[0])
    masked = tfl.wrap(model)
    assert np.array_equal(plain, masked(images[0]))
    before, masks = state.get_values(masked), half(masked)
    raw = state.named_variables(masked)
    tfl.set_masks(masked, masks)
    through_the_wrapper = masked(images[0])
    for path, mask in masks.items():
        assert np.array_equal(np.asarray(raw[path]), before[path] * mask)
        raw[path].assign(before[path])  # dense again behind the mask: the mask alone must do it
    assert np.allclose(through_the_wrapper, masked(images[0]), atol=1e-6)
    for path, mask in masks.items():
        raw[path].assign(before[path] * mask)
    assert np.array_equal(through_the_wrapper, model(images[0]))


@pytest.mark.parametrize("build", MODELS)
@pytest.mark.parametrize("jit", [False, True])
def test_fit_keeps_pruned_weights_pruned(build, jit, images):
    if jit and build is recurrent:
        pytest.skip("XLA on a CPU takes minutes to compile recurrent layers")
    masked = tfl.wrap(build())
    masks = half(masked)
    tfl.set_masks(masked, masks)
    before = state.get_values(masked)
    compiled(masked, jit_compile=jit).fit(*images, epochs=2, batch_size=16, verbose=0)
    after = state.get_values(masked)
    for path, mask in masks.items():
        assert not after[path][mask == 0].any()
        assert (after[path] != before[path])[mask == 1].any()
    assert all((tfl.get_masks(masked)[path] == mask).all() for path, mask in masks.items())


@pytest.mark.parametrize("build", [functional, subclassed])
def test_fit_trains_as_the_plain_model_does(build, images):
    """With masks of ones a wrapped model follows its plain twin: statistics, dropout, added losses, regularisers."""
    results = []
    for wrap in (False, True):
        keras.utils.set_random_seed(0)
        model = build()
        trained = compiled(tfl.wrap(model) if wrap else model)
        history = trained.fit(*images, epochs=2, batch_size=16, verbose=0, shuffle=False).history
        results.append((history["loss"], state.get_values(model)))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    for a, b in zip(results[0][1].values(), results[1][1].values()):
        assert np.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("build", MODELS)
def test_keras_files_bring_masks_back(build, images, tmp_path):
    masked = compiled(tfl.wrap(build()))
    tfl.set_masks(masked, half(masked))
    masked.fit(*images, verbose=0)
    masked.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert np.array_equal(masked.predict(images[0], verbose=0), again.predict(images[0], verbose=0))
    assert all(np.array_equal(a, b) for a, b in zip(tfl.get_masks(masked).values(), tfl.get_masks(again).values()))
    assert again.optimizer.iterations == masked.optimizer.iterations
    again.fit(*images, verbose=0)  # and it goes on pruned
    for kernel, mask in zip(again.kernels, tfl.get_masks(again).values()):
        assert not np.asarray(kernel.variable)[mask == 0].any()


def test_a_predicate_survives_saving(dense_net, tmp_path):
    masked = tfl.wrap(dense_net(), prunable=lambda layer, variable: layer.name == "output")
    masked.save(tmp_path / "m.keras")
    again = tfl.get_masks(keras.models.load_model(tmp_path / "m.keras"))
    assert [path.split("/")[-2:] for path in again] == [["output", "kernel"], ["output", "bias"]]


def test_a_saved_model_loads_in_a_fresh_process(dense_net, tmp_path):
    masked = tfl.wrap(dense_net())
    tfl.set_masks(masked, half(masked))
    masked.save(tmp_path / "m.keras")
    code = (
        f"import keras, tf_lottery as tfl; tfl.wrap; m = keras.models.load_model({str(tmp_path / 'm.keras')!r});"
        "print(sum(int(x.sum()) for x in tfl.get_masks(m).values()))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(out) == sum(int(mask.sum()) for mask in tfl.get_masks(masked).values())


def test_weights_files_and_checkpoints_bring_masks_back(dense_net, tmp_path):
    masked, masks = tfl.wrap(dense_net(), held=True), half(tfl.wrap(dense_net()))
    tfl.set_masks(masked, masks)
    masked.save_weights(tmp_path / "m.weights.h5")
    saved = tf.train.Checkpoint(model=masked).save(str(tmp_path / "checkpoint"))
    for restore in (
        lambda model: model.load_weights(tmp_path / "m.weights.h5"),
        lambda model: tf.train.Checkpoint(model=model).restore(saved).assert_existing_objects_matched(),
    ):
        other = tfl.wrap(dense_net(seed=1), held=True)
        restore(other)
        assert all(np.array_equal(tfl.get_masks(other)[path], mask) for path, mask in masks.items())
        assert np.array_equal(other.kernels[0].variable, masked.kernels[0].variable)


@pytest.mark.parametrize("build", MODELS)
def test_strip_gives_the_plain_sparse_model(build, images, tmp_path):
    model = build()
    masked = tfl.wrap(model)
    masks = half(masked)
    tfl.set_masks(masked, masks)
    outputs = masked(images[0])
    for kernel in masked.kernels:  # as if something had moved the raw kernel
        kernel.variable.assign_add(np.ones(kernel.variable.shape) * (1 - masks[kernel.path]))
    plain = tfl.strip(masked)
    assert plain is model and np.array_equal(outputs, plain(images[0]))
    for path, mask in masks.items():
        assert not np.asarray(state.named_variables(plain)[path])[mask == 0].any()
    assert tfl.strip(plain) is plain


def test_masked_layers_inside_a_model():
    twin = tfl.MaskedLayer(L.Dense(4))
    inputs = keras.Input((3,))
    model = keras.Model(inputs, tfl.MaskedLayer(L.Dense(2))(twin(inputs)))
    masks = half(model)
    assert len(masks) == 2
    tfl.set_masks(model, masks)
    x = np.ones((5, 3), "float32")
    plain = tfl.strip(model)
    assert np.array_equal(model(x), plain(x))
    assert not any(isinstance(layer, tfl.MaskedLayer) for layer in plain.layers)


def test_an_unbuilt_model_gets_its_masks_with_its_weights():
    masked = tfl.wrap(keras.Sequential([L.Dense(4), L.Dense(2)]))
    with pytest.raises(LotteryError, match="no weights yet"):
        tfl.get_masks(masked)
    masked(np.ones((2, 3), "float32"))
    assert [mask.shape for mask in tfl.get_masks(masked).values()] == [(3, 4), (4, 2)]
    masked = compiled(tfl.wrap(Subclassed()))
    masked.fit(np.ones((8, 8, 8, 3)), np.zeros(8), verbose=0)
    assert len(tfl.get_masks(masked)) == 2


def test_outputs_keep_their_names_and_structure(images):
    inputs = keras.Input((8, 8, 3))
    flat = L.Flatten()(inputs)
    model = keras.Model(inputs, {"a": L.Dense(3, name="a")(flat), "b": L.Dense(1, name="b")(flat)})
    masked = tfl.wrap(model)
    assert masked.output_names == model.output_names and masked.name == model.name
    assert [layer.name for layer in masked.layers] == [layer.name for layer in model.layers]
    masked.compile("sgd", {"a": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "b": "mse"})
    history = masked.fit(images[0], {"a": images[1], "b": np.ones((48, 1))}, verbose=0).history
    assert {"a_loss", "b_loss"} <= set(history)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_masks_and_variables_in_float32(policy, images):
    inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(4, 3, dtype=policy)(inputs)
    x = L.Flatten(dtype=policy)(x)
    model = keras.Model(inputs, L.Dense(3, dtype="float32")(x))
    model.dtype_policy = keras.DTypePolicy(policy)
    masked = tfl.wrap(model)
    masks = half(masked)
    tfl.set_masks(masked, masks)
    assert masked(images[0]).dtype == tf.float32 and np.allclose(masked(images[0]), model(images[0]))
    compiled(masked).fit(*images, verbose=0)
    assert isinstance(masked.optimizer, keras.optimizers.LossScaleOptimizer) == (policy == "mixed_float16")
    for path, mask in masks.items():
        variable = state.named_variables(masked)[path]
        assert variable.dtype == "float32" and not np.asarray(variable)[mask == 0].any()


def test_float32_layers_in_a_mixed_model_see_unrounded_kernels():
    model = keras.Sequential([keras.Input((4,)), L.Dense(4, dtype="float32")])
    model.dtype_policy = keras.DTypePolicy("mixed_float16")
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    assert np.array_equal(model(x), tfl.wrap(model)(x))


def test_sequence_masks_pass_through():
    model = keras.Sequential([keras.Input((5,)), L.Embedding(10, 4, mask_zero=True), L.LSTM(3)])
    x = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 0, 0]])
    assert np.allclose(model(x), tfl.wrap(model)(x), atol=1e-6)


def test_outer_stateless_scopes_reach_the_wrapped_variables(dense_net):
    masked, x = tfl.wrap(dense_net()), np.ones((2, 6), "float32")
    ones = [keras.ops.ones(v.shape) for v in masked.trainable_variables]
    others = [v.value for v in masked.non_trainable_variables]
    outputs, _ = masked.stateless_call(ones, others, x)
    assert np.allclose(outputs, 6 * 16 + 16 + 1)  # relu(6 ones + bias 1) = 7, times 16, plus 1


def test_held_values_stand_where_weights_are_pruned(dense_net, images):
    model = dense_net()
    masked = tfl.wrap(model, held=True)
    masks, values = half(masked), state.get_values(masked)
    state.set_state(masked, masks, values)
    x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    assert np.allclose(masked(x), model(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    masked.compile(keras.optimizers.AdamW(0.01, weight_decay=0.1), loss)
    masked.fit(x, np.zeros(64), epochs=3, verbose=0)
    plain = tfl.strip(masked)
    for path, mask in masks.items():
        after = np.asarray(state.named_variables(plain)[path])
        assert np.array_equal(after[mask == 0], values[path][mask == 0]) and (after != values[path])[mask == 1].any()
    with pytest.raises(LotteryError, match="held=True"):
        state.set_state(tfl.wrap(dense_net()), masks, values)


def test_new_masks_clear_old_momentum(dense_net):
    masked = tfl.wrap(dense_net())
    masked.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    x, y = np.ones((16, 6), "float32"), np.ones((16, 3), "float32")
    masked.fit(x, y, verbose=0)
    step = int(masked.optimizer.iterations)
    tfl.set_masks(masked, half(masked))
    assert int(masked.optimizer.iterations) == step
    slots = [np.asarray(v) for v in masked.optimizer.variables if len(v.shape) == 2]
    for slot, mask in zip(slots, tfl.get_masks(masked).values()):
        assert not slot[mask == 0].any() and slot[mask == 1].any()  # only what is pruned is forgotten
    masked.fit(x, y, verbose=0)
    for kernel, mask in zip(masked.kernels, tfl.get_masks(masked).values()):
        assert not np.asarray(kernel.variable)[mask == 0].any()  # the raw kernel, not only the effective one


def test_bad_input_is_one_sentence_and_changes_nothing(dense_net):
    masked = tfl.wrap(dense_net())
    before = tfl.get_masks(masked)
    good = {"net/hidden/kernel": np.zeros((6, 16))}
    for bad, message in (
        ({**good, "net/output/kernel": np.ones((3, 16))}, r"shape \(16, 3\)"),
        ({**good, "net/output/kernel": np.full((16, 3), 2)}, "zeros and ones"),
        ({**good, "other": np.ones(3)}, "'other'"),
    ):
        with pytest.raises(LotteryError, match=message):
            tfl.set_masks(masked, bad)
        assert all(np.array_equal(before[path], mask) for path, mask in tfl.get_masks(masked).items())
    with pytest.raises(TypeError, match="builtins.str"):
        tfl.wrap("model")
    with pytest.raises(LotteryError, match="at least one prunable kernel"):
        tfl.wrap(keras.Sequential([keras.Input((3,)), L.ReLU()]))
    with pytest.raises(LotteryError, match="wrap"):
        tfl.get_masks(dense_net())
    assert tfl.wrap(masked) is masked


def test_a_tf_keras_model_is_refused_by_name():
    code = "import tf_keras, tf_lottery as tfl\ntry: tfl.wrap(tf_keras.Sequential())\nexcept TypeError as e: print(e)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "Expected a Keras 3 model" in out and "tf_keras.Sequential" in out


def test_a_saved_ticket_fits_a_model_whose_layers_have_other_names(tmp_path):
    def build():
        return keras.Sequential([keras.Input((8,)), *(L.Dense(8, use_bias=False) for _ in range(12))])

    model, x = tfl.wrap(build()), np.ones((2, 8), "float32")
    tfl.set_masks(model, half(model))
    tfl.Ticket(tfl.get_masks(model), state.get_values(model)).save(tmp_path / "m.ticket")
    assert np.allclose(tfl.Ticket.load(tmp_path / "m.ticket").apply(build())(x), model(x))


def test_export_gives_the_plain_model(dense_net, tmp_path):
    masked = tfl.wrap(dense_net())
    tfl.set_masks(masked, half(masked))
    masked.export(tmp_path / "saved_model", verbose=False)
    x = np.ones((2, 6), "float32")
    assert np.allclose(tf.saved_model.load(tmp_path / "saved_model").serve(x), masked(x), atol=1e-6)


def test_wrapping_again_with_another_choice_is_refused(dense_net):
    with pytest.raises(LotteryError, match="wrapped already"):
        tfl.wrap(tfl.wrap(dense_net()), prunable="bias")
    with pytest.raises(LotteryError, match="regular expressions.*'\\('"):
        tfl.wrap(dense_net(), prunable="(")


def test_tickets_fit_models_by_name_or_by_order(dense_net, blobs):
    masked = tfl.wrap(dense_net())
    tfl.set_masks(masked, half(masked))
    ticket = tfl.Ticket(tfl.get_masks(masked), state.get_values(masked))
    for other in (dense_net(seed=5), keras.Sequential([keras.Input((6,)), L.Dense(16, "relu"), L.Dense(3)])):
        applied = ticket.apply(other)
        assert np.allclose(applied(blobs[0]), masked(blobs[0]))
        assert [mask.sum() for mask in tfl.get_masks(applied).values()] == [m.sum() for m in ticket.masks.values()]
    untouched = keras.Sequential([keras.Input((6,)), L.Dense(17, "relu"), L.Dense(3)])
    before = untouched.get_weights()
    for wrong in (untouched, keras.Sequential([keras.Input((6,)), L.Dense(16), L.Dense(3), L.Dense(3)])):
        with pytest.raises(tfl.TicketError, match="Expected a model"):
            ticket.apply(wrong)
    assert all(np.array_equal(a, b) for a, b in zip(before, untouched.get_weights()))
    with pytest.raises(tfl.TicketError, match="final"):
        ticket.apply(dense_net(), weights="final")


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize(
    "wrap", [tfl.wrap, lambda m, held: keras.Sequential([tfl.MaskedLayer(m.layers[0], held=held)])]
)
def test_regularizers_see_what_the_kernel_is(wrap, held):
    """Some have gradients at zeros: they neither count nor move what is pruned."""
    own = "l2" if held else keras.regularizers.OrthogonalRegularizer(0.5)
    model = keras.Sequential([keras.Input((6,)), L.Dense(4, kernel_regularizer=own)])
    kernel, of_model = model.layers[0].kernel, model.layers[0].kernel.regularizer
    masked = wrap(model, held=held)
    ((path, mask),) = tfl.get_masks(masked).items()
    mask[::2] = 0
    tfl.set_masks(masked, {path: mask})
    expected = float(of_model(kernel.value * mask))
    kernel.assign_add(1 - mask.astype("float32"))  # as an optimizer might
    with tf.GradientTape() as tape:
        (penalty,) = masked.losses
    assert float(penalty) == pytest.approx(expected)
    gradient = tape.gradient(penalty, kernel.value).numpy()
    assert not gradient[mask == 0].any() and gradient[mask == 1].any()
    tfl.strip(masked)
    assert kernel.regularizer is of_model
