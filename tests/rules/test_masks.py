"""Masks: exact counts, ties by index, pruned stays pruned."""

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
def test_keep_top_is_a_stable_sort(pair, share):
    scores, mask = pair
    count = round(share * mask.sum())
    kept = masks.keep_top(scores, count, mask)
    candidates = np.flatnonzero(mask)
    expected = candidates[np.argsort(-scores[candidates], kind="stable")[:count]]
    assert np.array_equal(np.flatnonzero(kept), np.sort(expected))


def test_equal_and_zero_tensors_are_pruned_exactly():
    for value in (0.0, 3.0):
        kept = masks.keep_top(np.full((10, 10), value), 37)
        assert kept.sum() == 37 and kept.ravel()[:37].all()


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
