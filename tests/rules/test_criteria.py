"""Criteria: one contract for all of them, and the formulas of the paper in small tables."""

import numpy as np
import pytest

from tf_lottery.base.errors import LotteryError
from tf_lottery.rules import criteria, masks

INITIAL = np.array([0.1, -0.2, 0.3, -0.4, 0.5])
FINAL = np.array([0.6, -0.1, -0.3, -0.9, 0.2])


@pytest.mark.parametrize("name", criteria.registry)
def test_each_says_what_it_is_and_whether_it_looks_at_trained_weights(name, rng):
    criterion = criteria.get(name)
    initial, final, gradient = rng.normal(size=(3, 4, 3, 2)).astype(np.float32)
    if criteria.needs(name).gradient is None:
        gradient = None
    a, b = (
        criteria.score(criterion, initial, values, rng=np.random.default_rng(3), gradient=gradient)
        for values in (final, final + 1)
    )
    assert criterion.__doc__
    assert criteria.needs(name).trained != np.array_equal(a, b)


@pytest.mark.parametrize(
    ("name", "best_first"),
    [
        ("large_final", [3, 0, 2, 4, 1]),
        ("small_final", [1, 4, 2, 0, 3]),
        ("large_init", [4, 3, 2, 1, 0]),
        ("small_init", [0, 1, 2, 3, 4]),
        ("magnitude_increase", [0, 3, 2, 1, 4]),
        ("movement", [2, 0, 3, 4, 1]),
        ("large_final_same_sign", [3, 0, 4, 1, 2]),
        ("large_final_diff_sign", [2, 0, 1, 3, 4]),
        ("magnitude_increase_same_sign", [0, 3, 1, 4, 2]),
        ("magnitude_increase_diff_sign", [2, 0, 1, 3, 4]),
    ],
)
def test_ranking(name, best_first):
    scores = criteria.get(name)(INITIAL, FINAL, rng=None)
    assert np.argsort(-scores, kind="stable").tolist() == best_first


def test_a_flipped_weight_never_outranks_one_that_kept_its_sign():
    """The authors' release scores flipped weights 0, above weights of the same sign that shrank."""
    initial, final = np.array([0.5, 0.5]), np.array([0.1, -0.9])
    scores = criteria.get("magnitude_increase_same_sign")(initial, final, rng=None)
    assert scores[0] > scores[1]


@pytest.mark.parametrize("name", ["large_init_large_final", "small_init_small_final"])
def test_two_sided_criteria_cut_at_one_common_percentile(name, rng):
    """What is kept is what lies above (below) one percentile of |w_i| and of |w_f|: the paper's aligned `a`."""
    initial, final = rng.normal(size=(2, 500))
    scores = criteria.get(name)(initial, final, rng=None)
    sign = 1 if name.startswith("large") else -1
    ranks = [np.argsort(np.argsort(sign * np.abs(values))) for values in (initial, final)]
    for cut in (50, 250, 400):
        both = (ranks[0] >= cut) & (ranks[1] >= cut)
        kept = masks.keep_top(scores, int(both.sum()))
        assert np.array_equal(kept.astype(bool), both)


@pytest.mark.parametrize("name", ["large_init_large_final", "small_init_small_final"])
def test_equal_magnitudes_have_no_order_of_their_own(name, rng):
    """Where all weights start with one magnitude, as survivors with a signed constant do, the final ones decide."""
    initial, final = np.where(rng.random(100) < 0.5, 0.1, -0.1), rng.normal(size=100)
    scores = criteria.get(name)(initial, final, rng=None)
    sign = 1 if name.startswith("large") else -1
    assert np.array_equal(np.argsort(scores), np.argsort(sign * np.abs(final)))
    same = criteria.get(name)(initial, initial, rng=None)
    assert np.ptp(same) == 0


def test_random_takes_its_chance_from_the_generator():
    draw = [criteria.get("random")(INITIAL, FINAL, rng=np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert np.array_equal(draw[0], draw[1]) and not np.array_equal(draw[0], draw[2])


@pytest.mark.parametrize(
    ("name", "best_first"),
    [("snip", [2, 4, 3, 1, 0]), ("grad", [2, 0, 1, 3, 4]), ("grasp", [2, 0, 1, 3, 4]), ("synflow", [2, 0, 1, 3, 4])],
)
def test_ranking_by_gradients(name, best_first):
    gradient = {
        "snip": np.array([0.1, -0.1, 0.9, -0.3, 0.4]),
        "grad": np.array([-0.8, 0.7, 0.9, -0.3, 0.1]),
        "grasp": np.array([0.5, -0.1, 0.9, 0.1, -0.4]),
        "synflow": np.array([6.0, 2.5, 9.0, 0.5, 0.1]),
    }[name]
    scores = criteria.get(name)(INITIAL, FINAL, rng=None, gradient=gradient)
    assert np.argsort(-scores, kind="stable").tolist() == best_first


def test_criteria_say_what_they_need():
    assert criteria.needs("large_final") == criteria.Needs(gradient=None, trained=True, iterations=1, initial=False)
    assert criteria.needs("synflow") == criteria.Needs("synaptic_flow", trained=False, iterations=100)
    assert criteria.needs(lambda initial, final, *, rng: final) == criteria.Needs()
    untrained = {name for name in criteria.registry if not criteria.needs(name).trained}
    assert untrained == {"large_init", "small_init", "random", "snip", "grad", "grasp", "synflow"}
    for iterations in (0, 1.5):
        with pytest.raises(LotteryError, match=f"iterations of at least 1, a whole number, but received {iterations}"):
            criteria.register(lambda *_: 0, "mine", iterations=iterations)
    assert "mine" not in criteria.registry
    with pytest.raises(LotteryError, match="without gradients for gradual pruning, but received 'snip'"):
        criteria.without_gradient("snip", "gradual pruning")
    assert criteria.without_gradient("movement", "gradual pruning") is criteria.movement


def test_registry_accepts_functions_and_names_the_known():
    def mine(initial, final, *, rng):
        return final

    assert criteria.get(mine) is mine
    with pytest.raises(LotteryError, match=r"large_final.*'larg_final'. Did you mean 'large_final'\?"):
        criteria.get("larg_final")
    with pytest.raises(LotteryError, match="registered already"):
        criteria.register(mine, "large_final")
    assert len(set(criteria.registry)) == 17
