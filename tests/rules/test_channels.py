"""Whole channels and units as the things that compete."""

import itertools

import keras
import numpy as np
import pytest

import tf_lottery as tfl
from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import state
from tf_lottery.rules import criteria, masks, patterns
from tf_lottery.search.schedules import LotterySchedule

L = keras.layers
AXES = [(-1,), (-2,), (-2, -1)]


@pytest.fixture
def train(blobs):
    """Moves the kept weights at random, the same way each time: for masks as good as a training, and a hundred times faster."""

    def drift(model, callbacks):
        rng = np.random.default_rng(2)
        for path, mask in tfl.get_masks(model).items():
            kernel = state.named_variables(model)[path]
            kernel.assign(kernel + rng.normal(scale=0.3, size=mask.shape) * mask)

    drift.probe = (blobs[0][:20], blobs[1][:20], keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return drift


@pytest.fixture
def deep_net():
    """A function that builds a dense network with two hidden layers, the same each time."""

    def build():
        glorot = [keras.initializers.GlorotNormal(seed=i) for i in range(3)]
        layers = [L.Dense(units, "relu", kernel_initializer=g, name=f"{units}") for units, g in zip((16, 12), glorot)]
        output = L.Dense(3, kernel_initializer=glorot[2], name="output")
        return keras.Sequential([keras.Input((6,)), *layers, output], name="net")

    return build


def alive(ticket):
    """The number of channels of each dense kernel that are left."""
    return [int(mask.any(axis=0).sum()) for mask in ticket.masks.values()]


def is_whole(mask, axes=(-1,)):
    """Whether every channel is kept as a whole or gone as a whole."""
    return np.array_equal(mask, patterns.expand_channels(patterns.channel_mask(mask, axes), axes, mask.shape))


def channels_of(array, axes):
    """The entries of each channel, one by one: the plain way."""
    indices = [range(array.shape[axis]) for axis in axes]
    for place in itertools.product(*indices):
        at = [slice(None)] * array.ndim
        for axis, index in zip(axes, place):
            at[axis] = index
        yield array[tuple(at)].ravel()


def test_a_hand_computed_round():
    ones = {"a": np.ones((2, 3), np.uint8), "b": np.ones((3, 2), np.uint8), "out": np.ones((2, 2), np.uint8)}
    scores = {
        "a": np.array([[3.0, 0.0, 6.0], [4.0, 1.0, 8.0]]),  # norms 5, 1, 10; of sqrt(126): 0.445, 0.089, 0.891
        "b": np.array([[2.0, 1.0], [2.0, 0.0], [1.0, 0.0]]),  # norms 3, 1; of sqrt(10): 0.949, 0.316
        "out": np.zeros((2, 2)),
    }
    axes, fractions = {"a": (-1,), "b": (-1,)}, {"a": 1 / 3, "b": 0.5, "out": 0.9}
    new = masks.prune(ones, scores, fractions, scope="channels", axes=axes)
    assert new["a"].tolist() == [[1, 0, 1]] * 2 and new["b"].tolist() == [[1, 0]] * 3 and new["out"].all()
    # two of the five channels go: the smallest shares of their kernels, 0.089 and 0.316, not the smallest norms alone
    new = masks.prune(ones, scores, {"a": 0.4, "b": 0.4, "out": 0.1}, scope="global_channels", axes=axes)
    assert new["a"].tolist() == [[1, 0, 1]] * 2 and new["b"].tolist() == [[1, 0]] * 3 and new["out"].all()
    new = masks.prune(ones, scores, {"a": 0.99, "b": 0.99, "out": 0.1}, scope="global_channels", axes=axes)
    assert [int(new[path].any(axis=0).sum()) for path in axes] == [1, 1]
    half = masks.prune_to(ones, scores, {"a": 0.34, "b": 1.0, "out": 0.1}, scope="channels", axes=axes)
    assert half["a"].tolist() == [[0, 0, 1]] * 2 and half["b"].all() and half["out"].all()


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("signed", [False, True])
def test_scores_are_those_of_a_plain_loop(axes, signed, rng):
    scores, mask = rng.normal(size=(3, 2, 4, 5)), (rng.random((3, 2, 4, 5)) < 0.5).astype(np.uint8)
    scores = scores if signed else np.abs(scores)
    found = patterns.channel_scores(scores, mask, axes)
    sums = []
    for values, kept in zip(channels_of(scores, axes), channels_of(mask, axes)):
        sums.append(sum(np.sign(s) * s * s for s, k in zip(values, kept) if k))
    norms = [np.sign(s) * abs(s) ** 0.5 for s in sums]
    assert np.allclose(found, np.array(norms) / np.sqrt(np.square(norms).sum()))
    assert np.allclose(patterns.channel_scores(-scores, mask, axes), -found)
    if not signed:
        expected = [np.linalg.norm(v * k) for v, k in zip(channels_of(scores, axes), channels_of(mask, axes))]
        assert np.allclose(found / found[0], expected / expected[0]) and np.square(found).sum() == pytest.approx(1)


def test_a_layer_scope_keeps_the_channels_that_a_plain_sort_keeps(rng):
    for axes in AXES:
        now = {"k": np.ones((3, 3, 4, 6), np.uint8)}
        for _ in range(3):
            scores = np.abs(rng.normal(size=now["k"].shape)).round(1)
            new = masks.prune(now, {"k": scores}, {"k": 0.3}, scope="channels", axes={"k": axes})
            pairs = zip(channels_of(scores, axes), channels_of(now["k"], axes))
            present = [(-np.linalg.norm(values), i) for i, (values, kept) in enumerate(pairs) if kept.any()]
            count = len(present) - round(0.3 * len(present))
            expected = sorted(i for _, i in sorted(present)[:count])
            assert np.flatnonzero(patterns.channel_mask(new["k"], axes)).tolist() == expected
            assert is_whole(new["k"], axes) and (new["k"] <= now["k"]).all()
            now = new


def test_equal_channels_are_ranked_at_random_and_nan_and_infinities_have_their_place():
    ones = {"k": np.ones((2, 4), np.uint8)}
    chosen = set()
    for seed in range(40):
        new = masks.prune(ones, {"k": np.ones((2, 4))}, {"k": 0.5}, scope="channels", axes={"k": (-1,)}, seed=seed)
        assert new["k"].sum() == 4 and (new["k"][0] == new["k"][1]).all()
        chosen.add(tuple(new["k"][0]))
    assert len(chosen) == 6  # every pair of the four
    low = -np.inf
    found = patterns.channel_scores(np.array([[1.0, low, 0.5], [low, low, 2.0]]), ones["k"][:, :3], (-1,))
    assert found[1] == low and found[0] < found[2]  # -inf counts as the lowest finite score, 0.5
    assert found[0] / found[2] == pytest.approx((1.25 / 4.25) ** 0.5)
    with pytest.raises(LotteryError, match="NaN"):
        masks.prune(ones, {"k": np.full((2, 4), np.nan)}, {"k": 0.5}, scope="channels", axes={"k": (-1,)})
    with pytest.raises(LotteryError, match=r"shape \(2, 4\).*shape \(4,\)"):
        masks.prune(ones, {"k": np.ones(4)}, {"k": 0.5}, scope="channels", axes={"k": (-1,)})


@pytest.mark.parametrize("criterion", criteria.registry)
@pytest.mark.parametrize("scope", masks.CHANNEL_SCOPES)
def test_every_criterion_removes_whole_units_exactly(criterion, scope, train, deep_net):
    levels = 1 if criterion == "synflow" else 3  # which takes a hundred gradients a round
    options = {"levels": levels, "prune_fraction": 0.25, "criterion": criterion, "scope": scope}
    tickets = list(tfl.find_ticket(deep_net(), train, **options))
    assert [sum(alive(ticket)[:2]) for ticket in tickets] == [28, 21, 16, 12][: levels + 1]  # of 28, by either scope
    assert all(all(map(is_whole, ticket.masks.values())) for ticket in tickets)
    assert all((b.masks[p] <= a.masks[p]).all() for a, b in itertools.pairwise(tickets) for p in a.masks)
    assert all(ticket.masks[path].all() for ticket in tickets for path in [list(ticket.masks)[-1]])
    layerwise = [[16, 12, 3], [12, 9, 3], [9, 7, 3], [7, 5, 3]][: levels + 1]
    assert scope == "global_channels" or [alive(ticket) for ticket in tickets] == layerwise


def test_small_final_keeps_what_large_final_removes(train, deep_net):
    large, small = (
        list(tfl.find_ticket(deep_net(), train, levels=1, prune_fraction=0.5, criterion=c, scope="channels"))[1]
        for c in ("large_final", "small_final")
    )
    for path in list(large.masks)[:2]:
        assert np.array_equal(large.masks[path], 1 - small.masks[path])


def test_one_shot_resuming_and_random_masks(train, deep_net):
    options = {"levels": 3, "prune_fraction": 0.25, "scope": "channels"}
    whole = list(tfl.find_ticket(deep_net(), train, **options))
    *_, last = tfl.find_ticket(deep_net(), train, start_from=[whole[0], whole[1]], **options)
    assert all(np.array_equal(last.masks[path], mask) for path, mask in whole[-1].masks.items())
    one_shot = list(tfl.find_ticket(deep_net(), train, one_shot=True, **options))
    for ticket in one_shot[1:]:
        for path in list(ticket.masks)[:2]:
            norms = np.linalg.norm(one_shot[0].final[path], axis=0)
            kept = ticket.masks[path].any(axis=0)
            assert norms[kept].min() >= norms[~kept].max()
    random = tfl.retrain_ticket(deep_net(), train, last, whole[0], random_mask=True)
    assert alive(random) == alive(last) and all(map(is_whole, random.masks.values()))
    assert any(not np.array_equal(random.masks[path], mask) for path, mask in last.masks.items())


def test_shuffled_channels_stay_whole(rng):
    for axes in AXES:
        mask = patterns.expand_channels(
            (rng.random(2 * 5) < 0.5)[: 5 if axes == (-1,) else 2 if axes == (-2,) else 10], axes, (3, 2, 5)
        )
        new = masks.shuffled({"a": mask, "b": mask}, rng, {"a": axes})
        assert new["a"].sum() == mask.sum() and is_whole(new["a"], axes) and new["b"] is mask


@pytest.fixture
def zoo():
    inputs = keras.Input((12, 12, 3))
    x = L.Conv2D(8, 3, name="conv")(inputs)
    x = L.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(x)
    x = L.SeparableConv2D(6, 3, name="separable")(x)
    x = L.Conv2DTranspose(4, 3, name="transposed")(x)
    x = L.Reshape((-1, 4))(x)
    x = L.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = L.LSTM(5, name="recurrent")(x)
    return keras.Model(inputs, L.Dense(10, name="output")(L.Dense(7, name="dense")(x)))


def test_the_channels_of_every_kind_of_layer(zoo):
    masked = tfl.prune(zoo, 0.5, scope="channels", prunable="kernel$")
    axes = {path: state.channel_axes(masked).get(path) for path in tfl.get_masks(masked)}
    expected = {
        "conv/kernel": (8, (-1,), 4),
        "depthwise/kernel": (16, (-2, -1), 8),
        "separable/depthwise_kernel": (16, (-2, -1), 8),
        "separable/pointwise_kernel": (6, (-1,), 3),
        "transposed/kernel": (4, (-2,), 2),
        **{f"attention/{name}/kernel": (8, (-2, -1), 4) for name in ("query", "key", "value")},
        "attention/attention_output/kernel": (4, (-1,), 2),
        "dense/kernel": (7, (-1,), 4),
    }
    assert {path for path, own in axes.items() if own} == set(expected)
    for path, mask in tfl.get_masks(masked).items():
        if path in expected:
            channels, own, kept = expected[path]
            alive = patterns.channel_mask(mask, own)
            assert axes[path] == own and alive.size == channels and alive.sum() == kept and is_whole(mask, own)
        else:
            assert mask.all()
    plain = tfl.strip(masked)
    x = np.random.default_rng(0).normal(size=(2, 12, 12, 3)).astype("float32")
    conv = keras.Model(plain.inputs, plain.get_layer("transposed").output)(x)
    gone = patterns.channel_mask(tfl.get_masks(masked)["transposed/kernel"], (-2,)) == 0
    assert (
        gone.sum() == 2 and not np.any(conv.numpy()[..., gone]) and np.all(np.any(conv.numpy()[..., ~gone], (0, 1, 2)))
    )


def test_the_output_is_the_models_last_kernel_whatever_is_prunable(deep_net):
    model = deep_net()
    names = [kernel.path for kernel in tfl.wrap(model).kernels]
    assert list(state.channel_axes(tfl.wrap(model, names[:1]))) == names[:1]
    with pytest.raises(LotteryError, match="before the output layer"):
        tfl.find_ticket(model, lambda *_: None, prunable=names[2:], scope="channels")


def test_one_fit_finds_the_same_units(blobs, deep_net):
    masked = tfl.wrap(deep_net())
    masked.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    search = tfl.callbacks.LotteryTicket(
        LotterySchedule(levels=2, steps_per_level=6, prune_fraction=0.25), scope="global_channels"
    )
    masked.fit(*blobs, batch_size=50, epochs=3, verbose=0, callbacks=[search])
    assert [sum(alive(ticket)[:2]) for ticket in search.tickets] == [28, 21, 16]

    masked = tfl.wrap(deep_net())
    masked.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    pruning = tfl.callbacks.PruneBySchedule(lambda step: (step == 6, 0.5), scope="channels")
    masked.fit(*blobs, batch_size=50, epochs=3, verbose=0, callbacks=[pruning])
    assert [int(mask.any(axis=0).sum()) for mask in tfl.get_masks(masked).values()] == [8, 6, 3]
    assert all(map(is_whole, tfl.get_masks(masked).values()))


def test_what_does_not_go_together(deep_net):
    for options, message in (
        ({"density": 0.5, "scope": "channels", "block_size": (2, 1)}, "block_size or scope='channels'"),
        ({"sparsity_m_by_n": (2, 4), "scope": "channels"}, "sparsity_m_by_n alone.*'channels'"),
        ({"density": 0.5, "scope": "global_channels", "distribution": "erdos_renyi_kernel"}, "distribution='uniform'"),
    ):
        with pytest.raises(LotteryError, match=message):
            tfl.prune(deep_net(), **options)
    model = deep_net()
    first, second, _ = (kernel.path for kernel in tfl.wrap(model).kernels)
    with pytest.raises(LotteryError, match="one prune_fraction.*global_channels"):
        tfl.find_ticket(
            model, lambda *_: None, prune_fraction={first: 0.1, second: 0.2, "": 0.3}, scope="global_channels"
        )
    tfl.find_ticket(model, lambda *_: None, prune_fraction={"output": 0.1, "Dense": 0.2}, scope="global_channels")
    with pytest.raises(LotteryError, match="single weights.*TF-MOT"):
        tfl.tfmot.RewindSurvivors(scope="channels")
