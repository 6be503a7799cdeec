"""Treatments: one contract, and what the papers say of each."""

import numpy as np
import pytest

from tf_lottery.rules import treatments


@pytest.fixture
def kernel(rng):
    initial = rng.normal(size=(20, 30)).astype(np.float32)
    final = initial + rng.normal(size=initial.shape).astype(np.float32)
    return initial, final, (rng.random(initial.shape) < 0.3).astype(np.uint8)


def treat(name, kernel, seed=0):
    initial, final, mask = kernel
    rng = np.random.default_rng(seed)
    fresh = np.random.default_rng(99).normal(size=initial.shape).astype(np.float32)
    return treatments.get_survivors(name)(initial, final, mask=mask, rng=rng, draw=lambda: fresh, scale=0.25)


@pytest.mark.parametrize("name", treatments.survivors_registry)
def test_survivors_contract(name, kernel):
    before = [array.copy() for array in kernel]
    start = treat(name, kernel)
    assert start.shape == kernel[0].shape and np.isfinite(start).all()
    assert np.array_equal(start, treat(name, kernel))
    assert all(np.array_equal(a, b) for a, b in zip(before, kernel))
    if name.endswith("_same_sign"):
        kept = kernel[2].astype(bool)
        assert np.array_equal(np.sign(start[kept]), np.sign(kernel[0][kept]))
        magnitudes = np.abs(treat(name.removesuffix("_same_sign"), kernel))
        assert np.allclose(np.abs(start), magnitudes)


def test_rewind_and_keep(kernel):
    assert np.array_equal(treat("rewind", kernel), kernel[0])
    assert np.array_equal(treat("keep", kernel), kernel[1])


def test_reshuffle_permutes_the_kept_weights_only(kernel):
    initial, _, mask = kernel
    start, kept = treat("reshuffle", kernel), mask.astype(bool)
    assert np.array_equal(np.sort(start[kept]), np.sort(initial[kept]))
    assert not np.array_equal(start[kept], initial[kept])
    assert np.array_equal(start[~kept], initial[~kept])


def test_reinit_is_the_fresh_draw(kernel):
    assert not np.isin(treat("reinit", kernel), kernel[0]).any()


def test_constant_has_both_signs_about_equally(kernel):
    start = treat("constant", kernel)
    assert set(np.unique(start)) == {np.float32(-0.25), np.float32(0.25)}
    assert 0.4 < (start > 0).mean() < 0.6


def hold(name, start, initial, final, mask, seed=0):
    return treatments.get_pruned(name)(start, initial, final, mask=mask, rng=np.random.default_rng(seed))


@pytest.mark.parametrize("name", treatments.pruned_registry)
def test_pruned_contract(name, kernel):
    initial, final, mask = kernel
    start = treat("reshuffle", kernel)
    whole = hold(name, start, *kernel)
    assert whole.dtype == start.dtype and np.array_equal(whole, hold(name, start, *kernel))
    kept, shrank = mask.astype(bool), np.abs(initial) > np.abs(final)
    expected = {
        "zero": np.zeros_like(initial),
        "freeze_init": initial,
        "variant_1": np.where(shrank, 0, initial),
        "variant_2": np.where(shrank, 0, initial),
        "variant_1_reshuffle": np.where(whole == 0, 0, initial),
        "variant_1_reverse": np.where(np.abs(initial) < np.abs(final), 0, initial),
    }[name]
    assert np.array_equal(whole[~kept], expected[~kept])
    starts = np.where(shrank, 0, start) if name == "variant_2" else start
    assert np.array_equal(whole[kept], starts[kept])


def test_the_reshuffled_zeros_are_as_many_and_elsewhere(kernel):
    initial, final, mask = kernel
    gone = mask == 0
    whole = hold("variant_1_reshuffle", initial, *kernel)
    zeros, rule = gone & (whole == 0), gone & (np.abs(initial) > np.abs(final))
    assert zeros.sum() == rule.sum() and not np.array_equal(zeros, rule)
    share = rule.sum() / gone.sum()
    assert zeros[rule].mean() == pytest.approx(share, abs=0.15)  # chance, whether the weight shrank or not
    assert not np.array_equal(zeros, gone & (hold("variant_1_reshuffle", initial, *kernel, seed=1) == 0))


@pytest.mark.parametrize("name", ["variant_1", "variant_1_reshuffle", "variant_1_reverse"])
def test_frozen_weights_compose_over_rounds(name, rng):
    """What is frozen stays what it is, but for the reshuffled zeros, and each round adds the zeros of its rule."""
    initial = rng.normal(size=(20, 30)).astype(np.float32)
    mask, zeros = np.ones(initial.shape, np.uint8), 0
    for seed in range(4):
        final = np.where(mask, initial + rng.normal(size=initial.shape).astype(np.float32), initial)
        new = mask * (rng.random(initial.shape) < 0.6)
        rule = np.abs(initial) < np.abs(final) if name == "variant_1_reverse" else np.abs(initial) > np.abs(final)
        zeros += np.count_nonzero(rule & (new == 0))
        whole = hold(name, initial, initial, final, new, seed)
        assert np.count_nonzero((whole == 0) & (new == 0)) == zeros
        assert not whole[(initial == 0) & (new == 0)].any()
        if name != "variant_1_reshuffle":
            assert np.array_equal(whole[mask == 0], initial[mask == 0])
        assert np.array_equal(whole[new == 1], initial[new == 1])
        initial, mask = whole, new
