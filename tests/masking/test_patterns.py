"""Kernels as the matrices that their layer multiplies with, and patterns of zeros in them."""

import warnings

import keras
import numpy as np
import pytest

import tf_lottery as tfl
from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import matrices, state, weights
from tf_lottery.rules import patterns
from tf_lottery.rules.patterns import Axes

L = keras.layers


def attention(kind=L.MultiHeadAttention, *args):
    x = L.Dense(16, name="body")(inputs := keras.Input((8, 16)))
    return keras.Model(inputs, L.Dense(2, name="head")(kind(*(args or (4, 4)), name="attention")(x, x)), name="net")


def einsum(equation, shape, output_shape):
    layer = L.EinsumDense(equation, output_shape)
    layer.build(shape)
    return weights.prunable_kernels(layer)[0]


@pytest.mark.parametrize(
    ("equation", "shape", "output_shape", "axes"),
    [
        ("abc,cde->abde", (None, 5, 8), (5, 2, 3), Axes((-3,), (-2, -1))),
        ("abcd,cde->abe", (None, 5, 2, 3), (5, 8), Axes((-3, -2), (-1,))),
        ("...x,xy->...y", (None, 5, 8), (5, 4), Axes((-2,), (-1,))),
        ("ab,cb->ac", (None, 8), 4, Axes((-1,), (-2,))),
        ("abc,bcd->abd", (None, 5, 8), (5, 4), Axes((-2,), (-1,))),
    ],
)
def test_the_matrix_is_what_the_equation_says(equation, shape, output_shape, axes, rng):
    kernel = einsum(equation, shape, output_shape)
    assert matrices.axes(kernel) == axes
    x = rng.normal(size=(3, *shape[1:])).astype("float32")
    values = weights.value_of(kernel.variable)
    stack = patterns.stacked(values, axes)
    assert np.array_equal(patterns.unstacked(stack, axes, values.shape), values)
    if stack.ndim == 2:  # the layer is this matrix product
        product = x.reshape(-1, stack.shape[0]) @ stack
        assert np.allclose(np.asarray(kernel.layer(x)).reshape(product.shape), product, atol=1e-5)


@pytest.mark.parametrize("kind", [(L.MultiHeadAttention, 4, 4), (L.GroupQueryAttention, 4, 4, 2)])
def test_attention_holds_two_of_four_along_its_inputs(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        masked = tfl.prune(attention(*kind), sparsity_m_by_n=(2, 4))
    masks = tfl.get_masks(masked)
    assert len(masks) == 6 and all(mask.mean() == 0.5 for mask in masks.values())
    for path, mask in masks.items():
        inputs = mask.reshape(16, -1)  # of the query (16, heads, size), of the output (heads, size, 16)
        assert (inputs.reshape(4, 4, -1).sum(1) == 2).all(), path
    found = tfl.patterns.check(tfl.strip(masked))
    assert found.holds and all(row.holds and row.inputs == 16 and not row.why for row in found)


def test_the_largest_of_each_group_stay():
    model = attention()
    query = next(v for v in model.variables if "query/kernel" in v.path)
    before = np.abs(query.numpy()).reshape(4, 4, 16)
    mask = next(m for p, m in tfl.get_masks(tfl.prune(model, sparsity_m_by_n=(2, 4))).items() if "query" in p)
    mask = mask.reshape(4, 4, 16)
    assert np.where(mask, before, np.inf).min(1).min() > 0
    assert (np.where(mask, before, np.inf).min(1) >= np.where(mask, 0, before).max(1)).all()


def test_blocks_and_channels_of_attention():
    masks = tfl.get_masks(tfl.prune(attention(), 0.25, block_size=(4, 8), exclude="head"))
    for mask in masks.values():
        if mask.size == 256:
            blocks = mask.reshape(16, 16).reshape(4, 4, 2, 8).sum(axis=(1, 3))
            assert set(blocks.ravel()) == {0, 32} and mask.mean() == 0.25
    masked = tfl.prune(attention(), 0.5, scope="channels", exclude="head")
    axes = state.channel_axes(masked)
    assert {path.split("/")[-2]: own for path, own in axes.items()} == {
        **dict.fromkeys(("query", "key", "value"), (-2, -1)),
        **dict.fromkeys(("body", "attention_output"), (-1,)),
    }
    for path, mask in tfl.get_masks(masked).items():
        channels = mask.reshape(16, 16)  # inputs, outputs
        assert set(channels.sum(0)) == {0, 16} and channels.any(0).sum() == 8, path


@pytest.fixture
def mixed():
    """A network with a kernel of each kind that the pattern does not serve, or not to the end."""
    x = L.Conv2D(8, 3, name="conv")(inputs := keras.Input((12, 12, 6)))
    x = L.Conv2D(8, 1, groups=2, name="grouped")(L.DepthwiseConv2D(3, name="depthwise")(x))
    x = L.SeparableConv2D(10, 1, name="separable")(L.Conv2DTranspose(8, 2, name="transposed")(x))
    x = L.Conv1D(8, 1, name="rank3")(L.Reshape((-1, 10))(x))
    x = L.EinsumDense("abc,cd->abd", (None, 8), name="einsum")(x)
    return keras.Model(inputs, L.Dense(3, name="head")(L.GRU(8, name="recurrent")(x)), name="net")


def test_what_is_left_dense_is_told_with_the_reason(mixed):
    with pytest.warns(UserWarning, match="left dense: .*grouped.*transposed.*rank3.*rank 3"):
        masked = tfl.prune(mixed, sparsity_m_by_n=(2, 4), exclude="head")
    for model in (masked, tfl.strip(masked)):
        found = tfl.patterns.check(model)
        rows = {"/".join(row.path.split("/")[-2:]): row for row in found}
        assert {name: row.why for name, row in rows.items()} == {
            "conv/kernel": "the last 2 of 6 inputs are a remainder",
            "depthwise/kernel": "left dense: depthwise: each output has one input",
            "grouped/kernel": "left dense: grouped: 2 groups with inputs of their own",
            "transposed/kernel": "left dense: transposed: hardware has no such convolution",
            "separable/depthwise_kernel": "left dense: depthwise: each output has one input",
            "separable/pointwise_kernel": "",
            "rank3/kernel": "left dense: rank 3: only matrices and two-dimensional convolutions are served",
            "einsum/kernel": "",
            "gru_cell/kernel": "",
            "gru_cell/recurrent_kernel": "",
            "head/kernel": "not pruned",
        }
        assert all(row.holds == (row.why in ("", "the last 2 of 6 inputs are a remainder")) for row in found)
        assert not found.holds and tfl.patterns.check(model, exclude="head").holds
        assert found[rows["head/kernel"].path].density == 1.0
        text = str(found)
        assert "2 zeros in every 4 inputs" in text and "depthwise" in text and "50.0%" in text
        assert [
            line.split()[0] for line in text.splitlines() if "kernel" in line and "/" in line.split()[0]
        ] or "│" in text


def test_zeros_elsewhere_do_not_hold():
    model = keras.Sequential([keras.Input((8,)), L.Dense(8, name="one"), L.Dense(8, name="two")], name="net")
    along_outputs = np.tile(np.array([1.0, 1, 0, 0]), (8, 2))
    model.set_weights([along_outputs, np.zeros(8), along_outputs.T, np.zeros(8)])
    one, two = tfl.patterns.check(model)
    assert not one.holds and one.why == "8 of 16 groups have fewer than 2 zeros"
    assert two.holds and tfl.patterns.check(model, (1, 2))["net/two/kernel"].holds is False
    assert tfl.patterns.check(model, (4, 8))["net/two/kernel"].holds
    with pytest.raises(LotteryError, match="0 < m < n"):
        tfl.patterns.check(model, (4, 4))


def test_a_remainder_that_keeps_too_much_does_not_hold():
    model = keras.Sequential([keras.Input((7,)), L.Dense(2)], name="net")
    kernel = np.array([[1, 1, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 0, 1]], "float32").T
    model.set_weights([kernel, np.zeros(2)])
    (row,) = tfl.patterns.check(model)
    assert not row.holds and row.why == "the last 3 of 7 inputs are a remainder, and 1 outputs keep more than 2 of them"
