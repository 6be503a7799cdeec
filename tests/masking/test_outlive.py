"""Masks outlive what people do with models: averaging, LoRA, freezing, quantizing, other files, other weights."""

import warnings

import keras
import numpy as np
import pytest

import tf_lottery as tfl
from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import state

L = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 16)).astype("float32")
Y = (X[:, 0] > 0).astype("int32")
IMAGES = RNG.normal(size=(64, 8, 8, 3)).astype("float32")
CE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def net():
    return keras.Sequential([keras.Input((16,)), L.Dense(32, "relu"), L.Dense(2)])


def conv():
    return keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(8, 3, activation="relu"), L.Flatten(), L.Dense(2)])


def fitted(masked, x=X, optimizer="adam", **kwargs):
    masked.compile(optimizer, CE)
    masked.fit(x, Y, verbose=0, batch_size=16, **kwargs)
    return masked


def densities(model):
    return [round(float(mask.mean()), 2) for mask in tfl.get_masks(model).values()]


def test_averages_of_several_masks_are_refused_and_nothing_is_set():
    masks = [tfl.prune(net(), 0.5, criterion="random", seed=seed) for seed in range(2)]
    before = masks[0].get_weights()
    with pytest.raises(
        LotteryError, match="zeros and ones, but received 0.5 in that of.*average the weights of models"
    ):
        masks[0].set_weights([np.mean(w, 0) for w in zip(*(masked.get_weights() for masked in masks))])
    for one, other in zip(before, masks[0].get_weights()):
        np.testing.assert_array_equal(one, other)


def test_averages_under_one_mask_are_taken(tmp_path):
    masked = tfl.prune(net(), 0.3)
    weights = []
    for _ in range(2):
        fitted(masked)
        weights.append(masked.get_weights())
    masked.set_weights([np.mean(w, 0) for w in zip(*weights)])
    before = masked.predict(X, verbose=0)
    for _ in range(2):
        masked.save(tmp_path / "a.keras")
        np.testing.assert_array_equal(before, masked.predict(X, verbose=0))
    assert densities(masked) == [0.3, 0.3]


@pytest.mark.parametrize("frequency", [None, 2])
def test_an_average_that_the_optimizer_keeps_is_as_sparse_as_the_model(frequency):
    """The average is of weights from before the pruning too: it must not bring them back."""
    optimizer = keras.optimizers.Adam(use_ema=True, ema_momentum=0.99, ema_overwrite_frequency=frequency)
    pruning = tfl.callbacks.PruneBySchedule(lambda step: (int(step) == 8, 0.8))
    masked = fitted(tfl.wrap(net()), optimizer=optimizer, epochs=4, callbacks=[pruning])
    masked_outputs = masked.predict(X, verbose=0)
    assert densities(masked) == [0.2, 0.2]
    np.testing.assert_allclose(masked_outputs, tfl.strip(masked).predict(X, verbose=0), atol=1e-6)
    for variable in masked.model.variables:
        if (mask := tfl.get_masks(masked).get(variable.path)) is not None:
            assert not np.asarray(variable)[mask == 0].any()


@pytest.mark.parametrize("build, x", [(net, X), (conv, IMAGES)], ids=["dense", "conv"])
def test_lora_on_a_pruned_model_stays_sparse(build, x, tmp_path):
    masked = tfl.prune(build(), 0.2)
    before = masked.predict(x, verbose=0)
    masked.model.layers[0].enable_lora(2)
    np.testing.assert_allclose(before, masked.predict(x, verbose=0), atol=1e-6)
    fitted(masked, x, epochs=3)
    outputs = masked.predict(x, verbose=0)
    assert np.abs(outputs - before).max() > 1e-3  # it has learned something
    masked.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(outputs, loaded.predict(x, verbose=0), atol=1e-5)
    for model in (tfl.strip(loaded), tfl.strip(masked)):
        assert (np.asarray(model.layers[0].kernel) != 0).mean() < 0.21
        np.testing.assert_allclose(outputs, model.predict(x, verbose=0), atol=1e-5)


def test_layers_frozen_when_wrapped_are_not_forgotten():
    model = net()
    model.layers[0].trainable = False
    masked = tfl.wrap(model)
    fitted(masked)
    model.layers[0].trainable = True
    for use in (lambda: masked.compile("sgd", CE), lambda: tfl.prune(masked, 0.2)):
        with pytest.warns(UserWarning, match="kernel of 'sequential.*' stay dense.*wrap the model that strip gives"):
            use()


def test_layers_frozen_after_compile_change_nothing_for_masks():
    masked = fitted(tfl.wrap(net()), optimizer=keras.optimizers.SGD(0.05, momentum=0.9))
    masked.model.layers[0].trainable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        tfl.prune(masked, 0.4)
        tfl.set_masks(masked, {path: np.ones_like(mask) for path, mask in tfl.get_masks(masked).items()})
    masked.fit(X, Y, verbose=0)
    assert densities(masked) == [1, 1]


@pytest.mark.parametrize("frozen", [False, True])
def test_frozen_or_not_files_bring_the_same_masks_back(frozen, tmp_path):
    model = net()
    masked = tfl.prune(model, 0.5)
    model.layers[0].trainable = not frozen
    masked.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert densities(loaded) == [0.5, 0.5]
    np.testing.assert_array_equal(masked.predict(X, verbose=0), loaded.predict(X, verbose=0))


def test_quantizing_is_refused_and_what_was_quantized_inside_is_named():
    masked = tfl.prune(net(), 0.3)
    with pytest.raises(LotteryError, match="plain model to quantize.*strip on it first"):
        masked.quantize("int8")
    masked.model.quantize("int8")
    with pytest.raises(LotteryError, match="is no variable of.*any more"):
        tfl.get_masks(masked)


def test_weights_loaded_into_the_model_inside_meet_the_masks(tmp_path):
    other, model = net(), net()
    other.save_weights(tmp_path / "w.weights.h5")
    masked = tfl.prune(model, 0.3)
    model.load_weights(tmp_path / "w.weights.h5")
    outputs = masked.predict(X, verbose=0)
    for path, mask in tfl.get_masks(masked).items():
        values = state.get_values(masked)[path]
        assert not values[mask == 0].any()
    np.testing.assert_allclose(outputs, tfl.strip(masked).predict(X, verbose=0), atol=1e-6)


@pytest.mark.parametrize("name", ["m.h5", "m.hdf5"])
def test_h5_says_what_to_do_and_writes_nothing(name, tmp_path):
    with pytest.raises(LotteryError, match=r"ends in \.keras.*tf_lottery.strip gives"):
        tfl.prune(net(), 0.3).save(tmp_path / name)
    assert not list(tmp_path.iterdir())
