"""Masks as bytes: what is encoded comes back, near or below the entropy, and the bytes are the same everywhere."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tf_lottery.base.errors import TicketError
from tf_lottery.tickets import codec

GOLDEN = "8b02274dbe2614227d8b3a49333d25ea84a10615804b05dea9fc9b594b0a9cc5"
LENET = [(784, 300), (300, 100), (100, 10)]


@settings(max_examples=300, deadline=None)
@given(arrays.arrays(bool, arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=9), elements=st.booleans()))
def test_any_mask_comes_back(mask):
    back = codec.decode(codec.encode(mask), mask.shape)
    assert back.dtype == np.uint8 and back.shape == mask.shape and np.array_equal(back, mask)


@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 0, 2), (60, 40), (3, 3, 8, 16), (2, 3, 2, 20, 30)])
@pytest.mark.parametrize("density", [0, 0.001, 0.1, 0.5, 0.999, 1])
def test_masks_with_rows_and_columns_come_back(shape, density, rng):
    odds = np.full(shape, 1.0)
    for axis, size in enumerate(shape):
        factors = np.exp(rng.normal(size=size)) * (rng.random(size) < 0.8)  # some slices keep nothing
        odds = odds * factors.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    mask = (rng.random(shape) < np.clip(density * odds, 0, 1)).astype(np.uint8)
    assert np.array_equal(codec.decode(codec.encode(mask), shape), mask)


@pytest.mark.parametrize("density", [0.5, 0.2, 0.1, 0.07, 0.036, 0.02, 0.01])
def test_random_masks_of_lenet_take_their_entropy(density, rng):
    masks = [rng.random(shape) < density for shape in LENET]
    coded, entropy = (sum(map(of, masks)) for of in (lambda mask: len(codec.encode(mask)), codec.entropy))
    assert coded <= 1.005 * entropy / 8 + 100  # a tenth of the kilobyte that it may be more


def structured(rng, shape=(784, 300), density=0.07):
    """As the first layer of a trained net: rows differ by the pixel, columns by the unit, and some rows are dead."""
    rows = np.exp(1.2 * rng.normal(size=shape[0])) * (rng.random(shape[0]) < 0.85)
    odds = density * rows[:, None] * np.exp(0.5 * rng.normal(size=shape[1]))
    return rng.random(shape) < odds / (1 + odds)


@pytest.mark.parametrize("axes", [(0, 1), (1, 0)])
def test_rows_and_columns_of_different_density_pay(axes, rng):
    mask = structured(rng).transpose(axes)
    assert 8 * len(codec.encode(mask)) < 0.9 * codec.entropy(mask)


def test_whole_channels_cost_almost_nothing(rng):
    inputs, outputs = rng.random((64, 1)) < 0.5, rng.random((1, 128)) < 0.3
    mask = np.broadcast_to(inputs & outputs, (3, 3, 64, 128))
    assert 8 * len(codec.encode(mask)) < 0.02 * codec.entropy(mask)


def test_the_ends_cost_a_few_bytes():
    for fill in (0, 1):
        assert len(codec.encode(np.full((300, 100), fill))) == 12 and codec.entropy(np.full(9, fill)) == 0


def test_the_bytes_are_the_same_on_every_machine():
    """Golden bytes of a mask that uses factors on both axes: an other coder or another rounding would change them."""
    i, j = np.indices((40, 50))
    mask = (i * i * 31 + j * 17 + i * j * 7) % 101 < np.array([1, 5, 20, 60])[i % 4] * np.array([1, 2])[j % 2]
    coded = codec.encode(mask)
    assert coded[12] in codec.STEPS and len(coded) < codec.entropy(mask) / 8
    assert hashlib.sha256(coded).hexdigest() == GOLDEN
    assert np.array_equal(codec.decode(coded, mask.shape), mask)


def test_probabilities_are_fixed_point_numbers():
    quarters = np.arange(-420, 421)
    p = codec._probabilities(123, 4567, quarters)
    assert np.array_equal(p * codec.ONE, np.round(p * codec.ONE)) and p.min() * codec.ONE == 1 and p.max() < 1
    exact = [123 / 4444 * 2 ** (q / 4) for q in quarters[300:540]]
    assert np.allclose(p[300:540], [odds / (1 + odds) for odds in exact], atol=1 / codec.ONE)


def test_damaged_bytes_are_refused(rng):
    mask = structured(rng, (60, 40), 0.2)
    coded = codec.encode(mask)
    for bad in (
        b"",
        coded[:11],
        coded[:13],
        coded[:-4],
        coded[:20],
        b"\xff" * 8 + coded[8:],
        coded[:12] + b"\x03" + coded[13:],
    ):
        with pytest.raises(TicketError, match="damaged"):
            codec.decode(bad, mask.shape)
    for shape in ((40, 60), (60, 41), (2400,), (60, 40, 1)):
        with pytest.raises(TicketError, match="damaged"):
            codec.decode(coded, shape)


@settings(max_examples=1_000, deadline=None, derandomize=True)
@given(st.binary(max_size=80), st.lists(st.integers(0, 12), max_size=4))
def test_any_bytes_are_a_mask_or_refused(data, shape):
    try:
        mask = codec.decode(data, shape)
    except TicketError:
        return
    assert mask.shape == tuple(shape) and mask.max(initial=0) <= 1


def test_every_flipped_bit_is_refused():
    mask = structured(np.random.default_rng(0), (60, 40), 0.2)
    whole = codec.encode(mask)
    for at in range(8 * len(whole)):
        coded = bytearray(whole)
        coded[at // 8] ^= 1 << at % 8
        try:
            same = codec.decode(bytes(coded), mask.shape)
        except TicketError:
            continue
        assert at >= 8 * (len(whole) - 4) and np.array_equal(same, mask)  # the last word has bits to spare
