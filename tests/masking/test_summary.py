"""`summary`: a line for each kernel that says what there is."""

import keras
import numpy as np
import pytest

import tf_lottery as tfl
from tf_lottery.base.errors import LotteryError
from tf_lottery.masking.summary import kernels_of

L = keras.layers


def network():
    x = inputs = keras.Input((8, 8, 4))
    x = L.Conv2D(8, 1, name="mix")(x)
    x = L.DepthwiseConv2D(3, name="deep")(x)
    x = L.Conv2D(8, 3, name="held", trainable=False)(x)
    x = L.Dense(16, name="body")(L.Flatten()(x))
    return keras.Model(inputs, L.Dense(4, name="head")(x), name="net")


def lines(model):
    return {kernel.path.split("/")[0]: kernel for kernel in kernels_of(model)}


def test_says_what_is_not_pruned_and_why():
    model = network()
    assert {name: line.why for name, line in lines(model).items()} == {
        "mix": "",
        "deep": "depthwise",
        "held": "frozen",
        "body": "",
        "head": "",
    }
    masked = tfl.prune(model, 0.25, exclude="head")
    assert lines(masked)["head"].why == "left out by exclude"
    assert lines(masked)["body"].density == 0.25 and lines(masked)["body"].shape == (128, 16)


@pytest.mark.parametrize(
    ("how", "pattern"),
    [
        ({"density": 0.5, "scope": "channels"}, "channels"),
        ({"density": 0.25, "block_size": (1, 4)}, "blocks 1x4"),
        ({"density": 0.25, "block_size": (4, 1)}, "blocks 4x1"),
        ({"sparsity_m_by_n": (2, 4)}, "2:4"),
        ({"density": 0.8}, ""),
    ],
)
def test_tells_the_pattern_of_wrapped_and_of_plain_models(how, pattern):
    masked = tfl.prune(network(), **how)
    assert lines(masked)["body"].pattern == pattern
    plain = lines(tfl.strip(masked))
    assert plain["body"].pattern == pattern and plain["deep"].why == "depthwise"
    assert plain["body"].kept == np.count_nonzero(masked.get_layer("body").kernel)
    assert plain["body"].zero_channels == ((8, 16) if pattern == "channels" else (0, 16))


def test_prints_on_eighty_columns_without_cutting_anything_off():
    said = []
    tfl.summary(tfl.prune(network(), 0.5), line_length=80, print_fn=said.append)
    text = said[0]
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    assert "Pruned kernels: 3 of 5, 1,072 of 2,144 weights kept (50 %)" in text
    with pytest.raises(LotteryError, match="Expected a built model"):
        tfl.summary(keras.Sequential([L.Dense(2)]))
    with pytest.raises(TypeError):
        tfl.summary("net")


def test_values_that_pruned_weights_are_frozen_at_do_not_count():
    model = keras.Sequential([keras.Input((4,)), L.Dense(4, name="one"), L.Dense(2, name="two")], name="net")
    values = {v.path: np.ones(v.shape, "float32") for v in model.variables}
    masks = {path: np.eye(*value.shape, dtype="uint8") for path, value in values.items() if value.ndim == 2}
    tfl.Ticket(masks, values).apply(model)
    masked = tfl.Ticket(masks, values).apply(model)
    assert [kernel.kept for kernel in kernels_of(masked)] == [4, 2]


def test_layers_inside_are_masked_ones_too():
    model = keras.Sequential([keras.Input((4,)), tfl.MaskedLayer(L.Dense(4, name="one")), L.Dense(2, name="two")])
    tfl.set_masks(model, {next(iter(tfl.get_masks(model))): np.eye(4, dtype="uint8")})
    one, two = kernels_of(model)
    assert one.density == 0.25 and one.why == "" and two.why == "left out when it was wrapped"
