"""One-shot pruning, patterns of zeros and densities by layer."""

import warnings

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tf_lottery as tfl
from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import state
from tf_lottery.rules import criteria, masks, patterns

L = keras.layers


@pytest.fixture
def conv_net():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            L.Conv2D(8, 3, activation="relu", name="conv"),
            L.Flatten(),
            L.Dense(16, "relu", name="hidden"),
            L.Dense(10, name="output"),
        ],
        name="net",
    )


def kept(model) -> dict[str, float]:
    return {path: float(mask.mean()) for path, mask in tfl.get_masks(model).items()}


# --- one shot -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("density", [0.5, 0.1, 1.0])
def test_one_shot_reaches_the_density_and_keeps_the_largest(conv_net, density):
    before = [np.array(v) for v in (conv_net.layers[0].kernel, conv_net.layers[2].kernel, conv_net.layers[3].kernel)]
    masked = tfl.prune(conv_net, density)
    for value, mask in zip(before, tfl.get_masks(masked).values()):
        assert mask.sum() == round(density * mask.size)
        if density < 1:
            assert np.abs(value[mask == 1]).min() >= np.abs(value[mask == 0]).max()
    plain = tfl.strip(masked)
    assert plain is conv_net
    assert np.count_nonzero(plain.layers[2].kernel) == round(density * before[1].size)


def test_one_shot_asks_for_no_compile_and_no_data(conv_net):
    tfl.prune(conv_net, 0.2)
    assert not conv_net.compiled


def test_densities_by_layer(conv_net):
    densities = {"output": 1.0, "Conv2D": 0.5, "hidden": 0.1}
    assert list(kept(tfl.prune(conv_net, densities)).values()) == pytest.approx([0.5, 0.1, 1.0], abs=1e-3)


def test_global_scope_shares_one_budget(conv_net):
    masked = tfl.prune(conv_net, 0.2, scope="global")
    assert masks.density(tfl.get_masks(masked)) == pytest.approx(0.2, abs=1e-3)
    assert len({round(share, 3) for share in kept(masked).values()}) > 1


def test_the_same_as_a_round_of_the_search(conv_net):
    values = {path: np.abs(np.array(v)) for path, v in state.named_variables(conv_net).items()}
    ones = {path: np.ones(values[path].shape, np.uint8) for path in tfl.get_masks(tfl.wrap(conv_net))}
    expected = masks.prune(ones, values, dict.fromkeys(ones, 0.75))
    found = tfl.get_masks(tfl.prune(conv_net, 0.25))
    assert all(np.array_equal(found[path], expected[path]) for path in expected)


def test_every_criterion_prunes_or_says_what_it_needs(conv_net):
    initial = {path: 0.5 * np.array(v) for path, v in state.named_variables(conv_net).items()}
    probe = np.ones((20, 8, 8, 4), "float32"), np.eye(20, 10, dtype="float32"), "mse"
    for name in criteria.registry:
        model = keras.models.clone_model(conv_net)
        model.set_weights(conv_net.get_weights())
        masked = tfl.prune(model, 0.3, criterion=name, initial=initial, probe=probe)
        assert masks.density(tfl.get_masks(masked)) == pytest.approx(0.3, abs=2e-3)


def test_a_criterion_that_looks_at_initial_weights_wants_them(conv_net):
    before = conv_net.get_weights()
    with pytest.raises(LotteryError, match="Expected initial weights for criterion 'movement'"):
        tfl.prune(conv_net, 0.5, criterion="movement")
    assert all(np.array_equal(a, b) for a, b in zip(before, conv_net.get_weights()))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"density": 0.0}, r"density in \(0, 1\], but received 0.0"),
        ({"density": 1.5}, "received 1.5"),
        ({"density": "half"}, "received 'half'"),
        ({"density": {"Dense": 0.5}}, "cover every kernel"),
        ({"density": {"": 0.0}}, "received 0.0"),
        ({"density": 0.5, "scope": "whole"}, "scope to be one of"),
        ({"density": {"output": 0.5, "": 0.1}, "scope": "global"}, "one density for all kernels"),
        ({"density": 0.5, "scope": "global", "distribution": "erdos_renyi_kernel"}, "distribution='uniform'"),
        ({"density": 0.5, "distribution": "erk"}, "uniform, erdos_renyi_kernel"),
        ({"density": 0.5, "distribution": lambda shapes, density: {}}, "return a density"),
        ({"density": 0.5, "criterion": "large"}, "Did you mean 'large_final'"),
        ({"density": 0.5, "block_size": (0, 4)}, "block_size as two whole numbers"),
        ({"density": 0.5, "block_size": 4}, "block_size as two whole numbers"),
        ({"density": 0.5, "block_size": (2, 2), "block_pooling_type": "SUM"}, "'AVG' or 'MAX'"),
        ({"density": 0.5, "block_size": (64, 1)}, "'net/conv/kernel' is"),
        ({"sparsity_m_by_n": (4, 4)}, "0 < m < n"),
        ({"density": 0.5, "sparsity_m_by_n": (2, 4)}, "received several"),
        ({}, "received none"),
        ({"density": 0.5, "prunable": 3}, "received 3"),
        ({"density": 0.5, "prunable": "nothing"}, "prunable='nothing' chooses"),
        ({"density": 0.5, "prunable": tfl.policies.PruneForLatencyOnXNNPack}, "Expected a policy with"),
        ({"density": 0.5, "sparsity_m_by_n": (2, 4), "block_size": (2, 2)}, "sparsity_m_by_n alone"),
    ],
)
def test_bad_input_is_one_sentence_and_the_model_stays(conv_net, options, message):
    before = conv_net.get_weights()
    with pytest.raises(LotteryError, match=message) as error:
        tfl.prune(conv_net, **options)
    assert "\n" not in str(error.value)
    assert all(np.array_equal(a, b) for a, b in zip(before, conv_net.get_weights()))


# --- layer-wise densities --------------------------------------------------------------------------------------------


@given(
    st.dictionaries(
        st.sampled_from("abcdef"),
        st.lists(st.integers(1, 40), min_size=2, max_size=4).map(tuple),
        min_size=1,
        max_size=6,
    ),
    st.floats(0.01, 1.0),
)
def test_erdos_renyi_kernel_spends_the_budget(shapes, density):
    densities = masks.erdos_renyi_kernel(shapes, density)
    sizes = {path: np.prod(shape) for path, shape in shapes.items()}
    total = sum(densities[path] * sizes[path] for path in shapes)
    assert total == pytest.approx(density * sum(sizes.values()))
    assert all(0 < value <= 1 + 1e-12 for value in densities.values())
    free = [path for path in shapes if densities[path] < 1 - 1e-9]
    factors = [densities[path] * sizes[path] / sum(shapes[path]) for path in free]
    assert np.allclose(factors, factors[:1] * len(factors))


def test_erdos_renyi_kernel_in_a_model(conv_net):
    shares = kept(tfl.prune(conv_net, 0.2, distribution="erdos_renyi_kernel"))
    assert shares["net/hidden/kernel"] < 0.2 < shares["net/output/kernel"]


# --- patterns --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["AVG", "MAX"])
@pytest.mark.parametrize("block", [(1, 4), (4, 1), (2, 3), (7, 5)])
def test_blocks_as_tfmot_chooses_them(rng, pooling, block):
    """At the edge only where one row or column is missing: with more, TF-MOT pools other blocks than it prunes."""
    from tf_lottery.search.schedules import tf_keras, tfmot

    shape = tuple(side * 5 - (side > 1) for side in block)
    value = rng.normal(size=shape).astype("float32")
    dense = tf_keras.layers.Dense(shape[1], use_bias=False)
    theirs = tfmot.sparsity.keras.prune_low_magnitude(
        tf_keras.Sequential([tf_keras.Input((shape[0],)), dense]),
        pruning_schedule=tfmot.sparsity.keras.ConstantSparsity(0.6, 0, frequency=1),
        block_size=block,
        block_pooling_type=pooling,
    ).layers[0]
    dense.set_weights([value])
    theirs.pruning_step.assign(1)
    theirs.pruning_obj.conditional_mask_update()

    model = keras.Sequential([keras.Input((shape[0],)), L.Dense(shape[1], use_bias=False)])
    model.set_weights([value])
    ours = tfl.prune(model, 0.4, block_size=block, block_pooling_type=pooling)
    assert np.array_equal(next(iter(tfl.get_masks(ours).values())), theirs.pruning_vars[0][1].numpy())


def test_blocks_in_a_convolution_are_blocks_of_inputs_and_outputs(conv_net):
    mask = tfl.get_masks(tfl.prune(conv_net, 0.25, block_size=(4, 2), prunable="conv/kernel"))["net/conv/kernel"]
    blocks = mask.reshape(3, 3, 1, 4, 4, 2)
    assert set(blocks.sum(axis=(3, 5)).ravel()) == {0, 8}
    assert mask.mean() == 0.25


@pytest.mark.parametrize("shape", [(8, 5), (10, 3), (3, 3, 8, 4), (1, 1, 6, 2)])
def test_two_in_four_as_tfmot_chooses_them(rng, shape):
    from tf_lottery.search.schedules import tf_keras, tfmot

    value = rng.normal(size=shape).astype("float32")
    if len(shape) == 2:
        layer, inputs = tf_keras.layers.Dense(shape[1], use_bias=False), tf_keras.Input((shape[0],))
    else:
        layer = tf_keras.layers.Conv2D(shape[3], shape[:2], use_bias=False)
        inputs = tf_keras.Input((8, 8, shape[2]))
    theirs = tfmot.sparsity.keras.prune_low_magnitude(
        tf_keras.Sequential([inputs, layer]), sparsity_m_by_n=(2, 4)
    ).layers[0]
    layer.set_weights([value])
    theirs.pruning_step.assign(1)
    theirs.pruning_obj.conditional_mask_update()
    assert np.array_equal(patterns.m_by_n(np.abs(value), 2, 4), theirs.pruning_vars[0][1].numpy())


@given(st.integers(1, 9), st.integers(1, 5), st.integers(2, 6), st.data())
def test_m_zeros_in_every_n(inputs, outputs, n, data):
    m = data.draw(st.integers(1, n - 1))
    scores = np.random.default_rng(inputs * outputs).integers(0, 3, (inputs, outputs)).astype(float)  # with ties
    mask = patterns.m_by_n(scores, m, n)
    for start in range(0, inputs, n):
        group = mask[start : start + n]
        assert (group.sum(0) == min(len(group), n - m)).all()
        for column in range(outputs):
            kept, lost = scores[start : start + n, column][group[:, column] == 1], None
            lost = scores[start : start + n, column][group[:, column] == 0]
            assert not lost.size or not kept.size or kept.min() >= lost.max()


def test_equal_scores_in_a_group_are_drawn_but_never_for_what_fills_the_group_up():
    masks = np.stack([patterns.m_by_n(np.zeros((6, 50)), 2, 4, seed=seed) for seed in range(20)])
    assert (masks[:, :4].sum(1) == 2).all() and masks[:, 4:].all()
    assert abs(masks[:, :4].mean((0, 2)) - 0.5).max() < 0.08  # of 1,000 draws, a standard deviation of 0.016
    low = patterns.m_by_n(np.full((6, 50), -np.inf), 2, 4)
    assert low[4:].all()


def test_pruning_with_equal_scores_connects_every_input_and_repeats():
    @tfl.criteria.register(name="mostly_equal")
    def mostly_equal(initial, final, *, rng):
        return np.where(np.arange(final.size).reshape(final.shape) < 10, 1.0, 0.0)

    def pruned(seed=0, **options):
        model = keras.Sequential([keras.Input((100,)), L.Dense(100)])
        (mask,) = tfl.get_masks(tfl.prune(model, criterion="mostly_equal", seed=seed, **options)).values()
        return mask

    try:
        for options in ({"density": 0.2}, {"density": 0.2, "scope": "global"}, {"sparsity_m_by_n": (3, 4)}):
            mask = pruned(**options)
            assert mask.ravel()[:2].all() or "sparsity_m_by_n" in options
            assert (mask.sum(1) > 0).mean() > 0.95 and (mask.sum(0) > 0).mean() > 0.95
            assert np.array_equal(mask, pruned(**options)) and not np.array_equal(mask, pruned(seed=1, **options))
        blocks = pruned(density=0.2, block_size=(2, 2))
        assert blocks.sum() == 2000 and (blocks.sum(1) > 0).mean() > 0.95
    finally:
        tfl.criteria.registry._functions.pop("mostly_equal")


def test_kernels_of_other_ranks_are_left_dense_and_named():
    model = keras.Sequential([keras.Input((8, 4)), L.Conv1D(8, 3, name="conv1d"), L.Flatten(), L.Dense(4)], name="net")
    with pytest.warns(UserWarning, match="left dense: net/conv1d/kernel"):
        masked = tfl.prune(model, sparsity_m_by_n=(2, 4))
    assert list(kept(masked).values()) == [1.0, 0.5]


def test_pruning_in_blocks_twice_stays_in_blocks(conv_net):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        masked = tfl.prune(conv_net, 0.5, block_size=(2, 2))
        first = tfl.get_masks(masked)
        second = tfl.get_masks(tfl.prune(masked, 0.25, block_size=(2, 2)))
    for path in first:
        assert not (second[path] & ~first[path]).any()
        assert second[path].mean() == pytest.approx(0.25, abs=0.02)
