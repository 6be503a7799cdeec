"""Wrappers that learn their masks: the two rules against independent computations, in `fit` and in `Trainer`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_lottery as tfl
from tf_lottery.masking import learned, weights

RULES = [{"by": "learning"}, {"by": "edge_popup", "density": 0.3}]


def conv_net():
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.1),
            keras.layers.Dense(3),
        ],
        name="conv",
    )


def scores_of(masked) -> list[np.ndarray]:
    return [weights.value_of(v) for v in masked.trainable_variables]


def test_samples_meet_their_probabilities():
    """Over units, each of which has a fraction of its own; also those that lie between two bytes."""
    rows = np.concatenate(
        [np.linspace(-6, 6, 25), np.log([1e-4, 1e-3, 0.999, 0.9999]) - np.log1p([-1e-4, -1e-3, -0.999, -0.9999])]
    )
    logits = tf.constant(np.tile(rows[:, None].astype("float32"), (1, 40_003)))
    kept = np.mean(learned.bernoulli(logits, tf.constant([1, 2], tf.uint32)), axis=1)
    wanted = 1 / (1 + np.exp(-rows))
    assert np.all(np.abs(kept - wanted) < 5 * np.sqrt(wanted * (1 - wanted) / 40_003))


def test_certain_weights_are_certain():
    seed = tf.constant([1, 2], tf.uint32)
    assert float(tf.reduce_min(learned.bernoulli(tf.fill((1_000,), 60.0), seed))) == 1
    assert float(tf.reduce_max(learned.bernoulli(tf.fill((1_000,), -60.0), seed))) == 0


def test_neighbours_are_independent():
    sample = learned.bernoulli(tf.zeros((200_000,)), tf.constant([3, 4], tf.uint32)).numpy() - 0.5
    for lag in (1, 2, 4, 8, 25_000, 50_000):  # words serve eight weights, an eighth of the kernel apart
        assert abs(np.mean(sample[lag:] * sample[:-lag])) < 5 * 0.25 / np.sqrt(len(sample) - lag)


def test_the_gradient_goes_straight_through_to_the_probability():
    logits = tf.Variable(np.random.default_rng(0).normal(size=(7, 5)).astype("float32"))
    upstream = np.random.default_rng(1).normal(size=(7, 5)).astype("float32")
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(upstream * learned.bernoulli(logits, tf.constant([1, 2], tf.uint32)))
    p = 1 / (1 + np.exp(-logits.numpy()))
    np.testing.assert_allclose(tape.gradient(total, logits), upstream * p * (1 - p), rtol=1e-5)


@pytest.mark.parametrize("rescale", [False, True])
def test_the_gradient_of_a_dense_layer_is_the_papers(rescale):
    """w_eff = w * m [* n / sum(m)], m = sample + p - stop(p), written down with NumPy."""
    layer = keras.layers.Dense(4, use_bias=False, kernel_initializer=keras.initializers.GlorotNormal(seed=1))
    layer.build((None, 6))
    w = weights.value_of(layer.kernel)
    masked = learned.wrap(layer, rescale=rescale, seed=5)
    (logits,) = masked.trainable_variables
    logits.assign(np.random.default_rng(2).normal(size=(6, 4)))
    x = np.random.default_rng(3).normal(size=(10, 6)).astype("float32")
    with tf.GradientTape() as tape:
        y = masked(x, training=True)
        loss = tf.reduce_sum(y**2)
    gradient = tape.gradient(loss, logits.value).numpy()
    effective, _, _, rank = np.linalg.lstsq(x, y.numpy(), rcond=None)
    assert rank.min() > 0
    m = (np.abs(effective) > 1e-5).astype(float)
    factor = m.size / m.sum() if rescale else 1.0
    np.testing.assert_allclose(effective, w * m * factor, atol=1e-5)
    upstream = x.T @ (2 * y.numpy()) * w  # of m * factor
    of_m = upstream * factor - (np.sum(upstream * m) * factor / m.sum() if rescale else 0)
    p = 1 / (1 + np.exp(-logits.numpy()))
    np.testing.assert_allclose(gradient, of_m * p * (1 - p), rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("case", range(20))
def test_top_is_a_stable_sort(case):
    rng = np.random.default_rng(case)
    shape = tuple(rng.integers(1, 30, 2))
    scores = rng.normal(size=shape).astype("float32")
    scores = np.round(scores, 1) if case % 2 else scores  # with many ties, and zeros
    count = int(rng.integers(0, scores.size + 1))
    kept = tf.function(learned.top, jit_compile=case % 4 == 0)(tf.constant(scores), count).numpy()
    expected = np.zeros(scores.size)
    expected[np.argsort(-np.abs(scores).ravel(), kind="stable")[:count]] = 1
    np.testing.assert_array_equal(kept.ravel(), expected)


def test_top_passes_the_gradient_to_the_size_of_the_score():
    scores = tf.Variable([[-2.0, 0.5], [1.0, -0.1]])
    upstream = tf.constant([[1.0, 2.0], [3.0, 4.0]])
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(upstream * learned.top(scores, 2))
    np.testing.assert_allclose(tape.gradient(total, scores), upstream * np.sign(scores.numpy()))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["by"])
@pytest.mark.parametrize("build", ["dense", "conv"])
def test_fit_trains_scores_alone(rule, build, dense_net, blobs):
    x, y = blobs
    model = dense_net() if build == "dense" else conv_net()
    x = x if build == "dense" else np.random.default_rng(0).normal(size=(300, 6, 6, 1)).astype("float32")
    before = {v.path: weights.value_of(v) for v in model.trainable_variables}
    masked = learned.wrap(model, **rule)
    frozen = [weights.value_of(v) for v in masked._frozen]
    first = scores_of(masked)
    masked.compile(keras.optimizers.SGD(1.0), keras.losses.SparseCategoricalCrossentropy(True))
    masked.fit(x, y, epochs=2, verbose=0)
    assert all(np.any(a != b) for a, b in zip(first, scores_of(masked)))
    for a, b in zip(frozen, masked._frozen):
        np.testing.assert_array_equal(a, b.numpy())
    plain = tfl.strip(masked)
    masks_now = tfl.get_masks(masked)
    for kernel, frozen_values, mask in zip(masked.kernels, frozen, masks_now.values()):
        factor = np.float32(masked.factor(mask))
        np.testing.assert_allclose(kernel.variable.numpy(), frozen_values * mask * factor, rtol=1e-6)
    others = {v.path: v for v in plain.trainable_variables if v.name in ("bias", "gamma", "beta")}
    assert others
    for path, v in others.items():
        np.testing.assert_array_equal(before[path], v.numpy())
    np.testing.assert_allclose(plain(x), masked(x, training=False), rtol=1e-5, atol=1e-6)


def test_edge_popup_is_exact_in_every_kernel(dense_net, blobs):
    masked = learned.wrap(dense_net(), by="edge_popup", density=0.3)
    masked.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True))
    masked.fit(*blobs, verbose=0)
    for mask in tfl.get_masks(masked).values():
        assert mask.sum() == round(0.3 * mask.size)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["by"])
def test_it_learns_with_weights_as_drawn(rule, dense_net, blobs):
    """Far above chance (1/3) and above the untrained network, with `Trainer`, the same twice."""
    results = []
    for _ in range(2):
        model = dense_net(units=128)
        trainer = tfl.Trainer(
            *blobs, test=blobs, steps=200, batch_size=50, optimizer=keras.optimizers.SGD(3.0, momentum=0.9), seed=1
        )
        untrained = trainer.test_accuracy(model)
        masked = learned.wrap(model, **rule)
        trainer(masked)
        results.append((trainer.test_accuracy(masked), scores_of(masked)))
    assert results[0][0] > max(0.85, untrained)
    for a, b in zip(results[0][1], results[1][1]):
        np.testing.assert_array_equal(a, b)


def test_saved_in_the_middle_it_goes_on(tmp_path, dense_net, blobs):
    masked = learned.wrap(dense_net(), by="learning", seed=4)
    masked.compile(keras.optimizers.SGD(1.0, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(True))
    masked.fit(*blobs, verbose=0, shuffle=False)
    masked.save(tmp_path / "half.keras")
    assert len(masked._trainable_variables) == 2  # the scores are its own, the frozen weights are not saved twice
    again = keras.models.load_model(tmp_path / "half.keras")
    assert not [v for v in again.model.variables if v.trainable]
    for model in (masked, again):
        model.fit(*blobs, verbose=0, shuffle=False)
    for a, b in zip(scores_of(masked), scores_of(again)):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(masked.predict(blobs[0], verbose=0), again.predict(blobs[0], verbose=0))


def test_a_layer_inside_a_model(blobs):
    inner = learned.wrap(keras.layers.Dense(64, "relu"), by="edge_popup")
    model = keras.Sequential([keras.Input((6,)), inner, keras.layers.Dense(3, name="trained")])
    assert len(model.trainable_variables) == 3  # the scores, and the other layer's kernel and bias
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(True))
    model.fit(*blobs, verbose=0)
    plain = tfl.strip(model)
    np.testing.assert_allclose(plain(blobs[0]), model(blobs[0]), rtol=1e-5, atol=1e-6)
    assert len(plain.trainable_variables) == 4


def test_strip_gives_trainable_variables_back(dense_net):
    model = dense_net()
    masked = learned.wrap(model)
    assert len(model.trainable_variables) == 0
    assert len(tfl.strip(masked).trainable_variables) == 4


def test_signed_constants(dense_net):
    for constant in ("std", "kaiming"):
        model = dense_net()
        kernels = [weights.value_of(layer.kernel) for layer in model.layers]
        masked = learned.wrap(model, signed_constant=constant)
        for values, frozen in zip(kernels, masked._frozen):
            wanted = np.std(values) if constant == "std" else np.sqrt(2 / values.shape[0])
            np.testing.assert_allclose(frozen.numpy(), np.sign(values) * wanted, rtol=1e-6)


def test_the_density_that_learning_starts_from(dense_net):
    masked = learned.wrap(dense_net(units=500), density=0.2, rescale=False)
    kept = np.mean(np.abs(masked.effective(0, training=True).numpy()) > 0)
    assert kept == pytest.approx(0.2, abs=0.03)
    assert not any(mask.any() for mask in tfl.get_masks(masked).values())  # every probability is below 1/2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"by": "hoping"}, "Expected by to be one of learning, edge_popup"),
        ({"density": 1.0}, r"density in \(0, 1\) to start learning from"),
        ({"density": 0}, r"density in \(0, 1\)"),
        ({"by": "edge_popup", "density": 1.5}, r"density in \(0, 1\]"),
        ({"by": "edge_popup", "density": 0.001}, "keeps none of the 96 of 'net/hidden/kernel'|keeps none of the 96"),
        ({"signed_constant": "big"}, "one of none, std, kaiming"),
    ],
)
def test_bad_options(options, sentence, dense_net):
    model = dense_net()
    with pytest.raises(tfl.LotteryError, match=sentence):
        learned.wrap(model, **options)
    assert len(model.trainable_variables) == 4


def test_masks_are_not_set(dense_net):
    masked = learned.wrap(dense_net())
    with pytest.raises(tfl.LotteryError, match="learns its masks"):
        tfl.set_masks(masked, tfl.get_masks(masked))
    with pytest.raises(tfl.LotteryError, match="is masked already"):
        learned.wrap(masked)
    with pytest.raises(tfl.LotteryError, match="is masked already"):
        learned.wrap(tfl.wrap(dense_net()))
