"""Masks: exact counts, equal scores in random order, pruned stays pruned."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tf_lottery.base.errors import LotteryError
from tf_lottery.rules import masks

few_values = st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 1.0, np.inf])  # many ties
scores_and_mask = st.integers(1, 40).flatmap(
    lambda n: st.tuples(hnp.arrays(float, n, elements=few_values), hnp.arrays(np.uint8, n, elements=st.integers(0, 1)))
)


@given(scores_and_mask, st.floats(0, 1))
def test_keep_top_keeps_the_highest_and_counts_exactly(pair, share):
    scores, mask = pair
    count = round(share * mask.sum())
    kept = masks.keep_top(scores, count, mask)
    assert kept.sum() == count and (kept <= mask).all()
    expected = np.sort(scores[mask == 1])[::-1][:count]  # of a sort; which of equal scores is open
    assert np.array_equal(np.sort(scores[kept == 1])[::-1], expected)
    assert np.array_equal(kept, masks.keep_top(scores, count, mask))


@pytest.mark.parametrize("value", [0.0, 3.0, -np.inf, np.inf])
def test_equal_scores_are_ranked_at_random_from_the_seed(value):
    scores, mask = np.full((10, 10), value), np.zeros((10, 10), np.uint8)
    mask[:9] = 1
    kept = np.stack([masks.keep_top(scores, 36, mask, seed=seed) for seed in range(500)])
    assert (kept.sum((1, 2)) == 36).all() and not kept[:, 9].any()
    assert np.array_equal(kept[3], masks.keep_top(scores, 36, mask, seed=3))
    assert len(np.unique(kept.reshape(500, -1), axis=0)) == 500
    share = kept[:, :9].mean(0)  # 0.4 of each weight, with a standard deviation of 0.022
    assert abs(share - 0.4).max() < 0.11
    both = kept[:, 0, 0] & kept[:, 0, 1]  # 36 / 90 * 35 / 89 = 0.157
    assert abs(both.mean() - 0.157) < 0.07


@pytest.mark.parametrize("count", [0, 1, 2, 99, 500, 999, 1000])
def test_the_draw_among_equal_scores_counts_exactly(count):
    scores = np.append(np.zeros(1000), [-1.0, 1.0])
    for seed in range(20):
        kept = masks.keep_top(scores, count + 1, seed=seed)
        assert kept.sum() == count + 1 and kept[-1] and not kept[-2]


def test_only_equal_scores_at_the_cut_are_drawn():
    scores = np.repeat([3.0, 2.0, 1.0], 10)
    masks_of = [masks.keep_top(scores, 20, seed=seed) for seed in range(5)]
    assert all(np.array_equal(mask, np.repeat([1, 1, 0], 10)) for mask in masks_of)


@pytest.mark.parametrize("scope", [*masks.SCOPES, *masks.CHANNEL_SCOPES])
def test_each_kernel_has_its_own_order_among_equal_scores(scope):
    ones = {path: np.ones((30, 30), np.uint8) for path in "ab"}
    axes = dict.fromkeys("ab", (-1,))
    scores = {path: np.zeros((30, 30)) for path in "ab"}
    for prune in (masks.prune, masks.prune_to):
        new = prune(ones, scores, {"a": 0.5, "b": 0.5}, scope=scope, axes=axes, seed=[1, 2])
        assert not np.array_equal(new["a"], new["b"])
        assert sum(mask.sum() for mask in new.values()) == 900
        assert (new["a"].sum(1) > 0).mean() > 0.9  # not whole rows
        again = prune(ones, scores, {"a": 0.5, "b": 0.5}, scope=scope, axes=axes, seed=[1, 2])
        other = prune(ones, scores, {"a": 0.5, "b": 0.5}, scope=scope, axes=axes, seed=[1, 3])
        assert all(np.array_equal(again[path], new[path]) for path in "ab")
        assert not np.array_equal(other["a"], new["a"])


def test_keep_top_refuses_nan_and_bad_counts():
    with pytest.raises(LotteryError, match="NaN"):
        masks.keep_top(np.array([1.0, np.nan]), 1)
    masks.keep_top(np.array([1.0, np.nan]), 1, mask=np.array([1, 0]))  # the score of a pruned weight is ignored
    with pytest.raises(LotteryError, match="between 0 and 2"):
        masks.keep_top(np.array([1.0, 2.0]), 3)


@pytest.mark.parametrize("scope", masks.SCOPES)
def test_rounds_nest_and_count_exactly(scope, rng):
    now = {"a": np.ones((30, 20), np.uint8), "b": np.ones((50,), np.uint8), "c": np.ones((8, 8), np.uint8)}
    fractions = {"a": 0.2, "b": 0.2, "c": 0.0}
    for _ in range(12):
        scores = {path: rng.normal(size=mask.shape) for path, mask in now.items()}
        new = masks.prune(now, scores, fractions, scope=scope)
        assert all((new[path] <= now[path]).all() for path in now)
        if scope == "layer":
            for path in ("a", "b"):
                kept = int(now[path].sum())
                assert new[path].sum() == kept - round(0.2 * kept)
        else:
            kept = int(now["a"].sum() + now["b"].sum())
            assert new["a"].sum() + new["b"].sum() == kept - round(0.2 * kept)
        assert new["c"].all()
        now = new


def test_global_scope_ranks_across_kernels_but_keeps_one_weight_of_each():
    ones = {"small": np.ones(5, np.uint8), "large": np.ones(5, np.uint8)}
    scores = {"small": np.arange(5.0), "large": np.arange(5.0) + 100}
    new = masks.prune(ones, scores, {"small": 0.5, "large": 0.5}, scope="global")
    assert new["small"].tolist() == [0, 0, 0, 0, 1] and new["large"].tolist() == [0, 1, 1, 1, 1]
    for _ in range(20):
        new = masks.prune(new, scores, {"small": 0.5, "large": 0.5}, scope="global")
    assert new["small"].sum() == 1 and new["large"].sum() == 1


@given(st.lists(scores_and_mask, min_size=1, max_size=5), st.floats(0.01, 0.99))
def test_global_scope_counts_exactly_and_empties_no_kernel(pairs, fraction):
    now = {str(i): mask for i, (_, mask) in enumerate(pairs)}
    scores = {str(i): score for i, (score, _) in enumerate(pairs)}
    new = masks.prune(now, scores, dict.fromkeys(now, fraction), scope="global")
    kept = sum(int(mask.sum()) for mask in now.values())
    not_empty = sum(bool(mask.any()) for mask in now.values())
    assert sum(int(mask.sum()) for mask in new.values()) == max(kept - round(fraction * kept), not_empty)
    assert all((new[p] <= now[p]).all() and new[p].any() == now[p].any() for p in now)


def test_layers_keep_their_last_weight():
    new = {"a": np.ones(3, np.uint8)}
    for _ in range(10):
        new = masks.prune(new, {"a": np.arange(3.0)}, {"a": 0.9})
    assert new["a"].tolist() == [0, 0, 1]


def test_global_scope_wants_one_fraction_and_scopes_have_names():
    ones = {"a": np.ones(5, np.uint8), "b": np.ones(5, np.uint8)}
    scores = {path: np.arange(5.0) for path in ones}
    with pytest.raises(LotteryError, match="one prune_fraction"):
        masks.prune(ones, scores, {"a": 0.5, "b": 0.2}, scope="global")
    with pytest.raises(LotteryError, match="layer, global"):
        masks.prune(ones, scores, {"a": 0.5, "b": 0.5}, scope="row")
    with pytest.raises(LotteryError, match=r"shape \(5,\).*shape \(4,\)"):
        masks.prune(ones, {"a": np.arange(4.0), "b": np.arange(5.0)}, {"a": 0.5, "b": 0.5})


def test_checked_names_what_does_not_fit():
    shapes = {"a": (2, 2)}
    assert masks.checked({"a": [[1, 0], [True, False]]}, shapes)["a"].dtype == np.uint8
    for bad, message in (
        ({"b": np.ones((2, 2))}, "received one for 'b'"),
        ({"a": np.ones((2, 3))}, r"shape \(2, 2\) .* received shape \(2, 3\)"),
        ({"a": np.full((2, 2), 0.5)}, "zeros and ones"),
        ({"a": np.full((2, 2), np.nan)}, "zeros and ones"),
    ):
        with pytest.raises(LotteryError, match=message):
            masks.checked(bad, shapes)


def test_shuffled_keeps_layerwise_densities(rng):
    mask = {"a": (rng.random((40, 30)) < 0.2).astype(np.uint8), "b": np.ones((3, 3), np.uint8)}
    new = masks.shuffled(mask, rng)
    assert {p: m.sum() for p, m in new.items()} == {p: m.sum() for p, m in mask.items()}
    assert not np.array_equal(new["a"], mask["a"])


@pytest.mark.parametrize("scope", masks.SCOPES)
def test_how_many_weights_of_a_kernel_are_kept_is_a_choice(scope, rng):
    ones = {"a": np.ones((10, 10), np.uint8), "b": np.ones(6, np.uint8)}
    scores = {"a": rng.random((10, 10)) + 2, "b": rng.random(6)}  # all of `b` ranks below all of `a`
    for least in (0, 1, 4, 9):
        new = masks.prune(ones, scores, {"a": 0.96, "b": 0.96}, scope=scope, min_per_kernel=least)
        if scope == "global":
            expected = {0: (4, 0), 1: (3, 1), 4: (4, 4), 9: (9, 6)}[least]
        else:
            expected = {0: (4, 0), 1: (4, 1), 4: (4, 4), 9: (9, 6)}[least]
        assert (new["a"].sum(), new["b"].sum()) == expected
        for path, mask in new.items():
            assert not mask.any() or mask.all() or scores[path][mask == 1].min() > scores[path][mask == 0].max()
