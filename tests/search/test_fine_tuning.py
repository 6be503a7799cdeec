"""`prune` with arguments of `fit`: gradual pruning of a trained model, in one call."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_lottery as tfl
from tf_lottery.base.errors import LotteryError
from tf_lottery.masking.compiling import compile_arguments
from tf_lottery.masking.precision import layers_in
from tf_lottery.rules import masks
from tf_lottery.search.fine_tuning import MASKS, cubic

L = keras.layers
X = np.random.default_rng(0).normal(size=(96, 8)).astype("float32")
Y = np.argmax(X[:, :3], -1)
LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(**compiled):
    keras.utils.set_random_seed(0)
    layers = [L.Dense(16, "relu", name="body"), L.BatchNormalization(), L.Dropout(0.2, seed=1), L.Dense(3, name="head")]
    model = keras.Sequential([keras.Input((8,)), *layers], name="net")
    model.compile(**{"optimizer": keras.optimizers.Adam(0.01), "loss": LOGITS, "metrics": ["accuracy"], **compiled})
    return model


def densities(model):
    return {path.split("/")[1]: float(mask.mean()) for path, mask in tfl.get_masks(model).items()}


def test_is_the_recipe_by_hand_to_the_bit():
    fit = {"x": X, "y": Y, "epochs": 4, "batch_size": 16, "verbose": 0, "shuffle": False}
    masked = tfl.prune(network(), 0.25, **fit)
    by_hand = tfl.wrap(network())
    by_hand.compile(keras.optimizers.Adam(0.01), LOGITS, metrics=["accuracy"])
    by_hand.fit(callbacks=[tfl.callbacks.PruneBySchedule(cubic(0.25, 0, 14))], **fit)  # 60 % of 24 steps
    assert masked.history.history == by_hand.history.history
    for one, other in zip(masked.get_weights(), by_hand.get_weights(), strict=True):
        assert np.array_equal(one, other)
    assert densities(masked) == {"body": 0.25, "head": 0.25}
    assert masked.history.history["density"][-2:] == [0.25, 0.25] and masked.history.history["density"][0] > 0.25


def test_the_cubic_ends_where_it_says():
    for last in (1, 7, 40, 1000):
        due, sparsity = cubic(0.2, 10, 10 + last)(np.arange(10, 12 + last))
        assert due.sum() == min(last, MASKS) and due[last] and not due[0]
        assert sparsity[last] == 0.8 and np.all(np.diff(sparsity) >= 0)


@pytest.mark.parametrize(
    ("how", "found"),
    [
        ({"density": {"output": 1.0, "Dense": 0.5}}, {"body": 0.5, "head": 1.0}),
        ({"density": 0.5, "scope": "channels"}, {"body": 0.5, "head": 1.0}),
        ({"sparsity_m_by_n": (2, 4)}, {"body": 0.5, "head": 0.5}),
        ({"density": 0.25, "block_size": (1, 2), "exclude": "head"}, {"body": 0.25}),
    ],
)
def test_all_that_prune_can_do_is_done_gradually(how, found):
    masked = tfl.prune(network(), x=X, y=Y, epochs=2, verbose=0, **how)
    assert densities(masked) == found
    if "sparsity_m_by_n" in how:
        assert tfl.patterns.check(masked).holds


def test_trains_by_what_the_model_was_compiled_with():
    optimizer = keras.optimizers.AdamW(0.5, weight_decay=0.1, use_ema=True, ema_overwrite_frequency=3)
    model = network(optimizer=optimizer, weighted_metrics=["accuracy"], steps_per_execution=2)
    model.optimizer.learning_rate = 0.002
    model.fit(X, Y, epochs=1, verbose=0)
    data = tf.data.Dataset.from_tensor_slices((X, Y, np.ones(96, "float32"))).batch(16)
    masked = tfl.prune(model, 0.25, x=data, epochs=3, verbose=0, validation_data=data, class_weight=None)
    assert masked.optimizer is not model.optimizer and float(masked.optimizer.learning_rate) == pytest.approx(0.002)
    assert int(masked.optimizer.iterations) == 18 and int(model.optimizer.iterations) == 3
    assert densities(masked) == {
        "body": 0.25,
        "head": 0.25,
    }  # averages of weights that were there before are pruned too
    plain = tfl.strip(masked)
    assert np.count_nonzero(plain.layers[0].kernel) == 32
    assert {"accuracy", "val_accuracy", "density"} <= set(masked.history.history)


def test_several_outputs_keep_their_losses_by_name():
    hidden = L.Dense(16, "relu", name="body")(inputs := keras.Input((8,)))
    model = keras.Model(inputs, {"kind": L.Dense(3, name="kind")(hidden), "size": L.Dense(1, name="size")(hidden)})
    model.compile(
        "adam", {"kind": LOGITS, "size": "mse"}, metrics={"kind": ["accuracy"]}, loss_weights={"kind": 2.0, "size": 0.1}
    )
    targets = {"kind": Y, "size": X[:, :1]}
    masked = tfl.prune(model, 0.25, x=X, y=targets, epochs=2, verbose=0, validation_data=(X, targets))
    model.compile(**compile_arguments(masked))
    assert masked.evaluate(X, targets, verbose=0, return_dict=True) == model.evaluate(
        X, targets, verbose=0, return_dict=True
    )
    assert {"kind_accuracy", "val_size_loss"} <= set(masked.history.history)


def test_a_model_that_is_pruned_already_goes_on_from_there():
    model = tfl.strip(tfl.prune(network(), 0.5))
    zeros = np.asarray(model.layers[0].kernel) == 0
    model.compile(keras.optimizers.Adam(0.01), LOGITS)
    masked = tfl.prune(model, 0.25, x=X, y=Y, epochs=2, verbose=0)
    assert densities(masked)["body"] == 0.25 and not np.any(np.asarray(model.layers[0].kernel)[zeros])
    with pytest.raises(LotteryError, match=r"below the 25 % of its weights .* received 50 %"):
        tfl.prune(masked, 0.5, x=X, y=Y, epochs=2, verbose=0)
    again = tfl.prune(masked, 0.125, x=X, y=Y, epochs=2, verbose=0)  # a wrapped one goes on with its optimizer
    assert again is masked and masks.density(tfl.get_masks(masked)) == 0.125
    assert int(masked.optimizer.iterations) == 12


def test_half_precision_and_frozen_layers_stay_as_they_are():
    with layers_in("mixed_float16"):
        model = network()
    model.layers[0].trainable = False
    model.compile("sgd", LOGITS)
    before = np.asarray(model.layers[0].kernel).copy()
    masked = tfl.prune(model, 0.25, x=X, y=Y, epochs=2, verbose=0)
    assert isinstance(masked.optimizer, keras.optimizers.LossScaleOptimizer)
    assert densities(masked) == {"head": 0.25} and np.array_equal(before, model.layers[0].kernel)


def test_a_training_that_ends_early_is_told():
    stop = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: setattr(stop.model, "stop_training", True))
    with pytest.warns(UserWarning, match="ended before its last pruning"):
        masked = tfl.prune(network(), 0.1, x=X, y=Y, epochs=5, verbose=0, callbacks=[stop])
    assert masks.density(tfl.get_masks(masked)) > 0.1


def test_what_cannot_be_done_is_refused_before_anything_is_changed():
    model = network()
    before = model.get_weights()
    generator = ((X[:8], Y[:8]) for _ in range(100))
    for how, said in [
        ({"density": 0.5, "scop": "global", "x": X}, "received 'scop'. Did you mean 'scope'"),
        ({"density": 0.5, "y": Y}, "Expected x, the data to fine-tune on"),
        ({"density": 0.5, "x": X, "y": Y, "initial": {}}, "pruning at once only"),
        ({"density": 1.5, "x": X, "y": Y}, "density"),
        ({"density": 0.5, "x": generator}, "steps_per_epoch"),
        ({"density": 0.5, "x": X, "y": Y, "criterion": "snip"}, "snip"),
    ]:
        with pytest.raises(LotteryError, match=said):
            tfl.prune(model, epochs=2, verbose=0, **how)
    plain = keras.Sequential([keras.Input((8,)), L.Dense(3)])
    with pytest.raises(LotteryError, match="is not compiled"):
        tfl.prune(plain, 0.5, x=X, y=Y)
    with pytest.raises(LotteryError, match="is a layer"):
        tfl.prune(model.layers[0], 0.5, x=X, y=Y)
    assert all(np.array_equal(one, other) for one, other in zip(before, model.get_weights()))
