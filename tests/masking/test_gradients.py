"""Criteria that choose before training: their gradients against other computations, and the searches that use them."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_lottery as tfl
from tf_lottery.base.errors import LotteryError
from tf_lottery.bin import main
from tf_lottery.masking import gradients, state
from tf_lottery.rules import criteria, masks, treatments
from tf_lottery.runs.results import Run
from tf_lottery.search.rounds import Rounds

L = keras.layers
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
BY_DATA = ["snip", "grad", "grasp"]
BY_GRADIENT = [*BY_DATA, "synflow"]


@pytest.fixture
def probe(blobs):
    x, y = blobs
    return x[:50], y[:50], LOSS


@pytest.fixture
def train(blobs):
    x, y = blobs
    return tfl.Trainer(x[:200], y[:200], validation=(x[200:], y[200:]), steps=20, batch_size=20, eval_every=10)


@pytest.fixture
def conv_net():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            L.Conv2D(4, 3, activation="relu", name="conv"),
            L.BatchNormalization(name="norm"),
            L.Dropout(0.3, seed=1, name="drop"),
            L.Flatten(name="flat"),
            L.Dense(3, name="output"),
        ],
        name="net",
    )


@pytest.fixture
def images(rng):
    return rng.normal(size=(20, 8, 8, 2)).astype("float32"), rng.integers(0, 3, 20), LOSS


def net_without_biases(widths, seed=0, dtype=None):
    """A ReLU net of the given widths, inputs and outputs included."""
    init = [keras.initializers.HeNormal(seed=seed * 10 + i) for i in range(len(widths))]
    hidden = [
        L.Dense(width, "relu", use_bias=False, kernel_initializer=init[i], name=f"dense_{i}")
        for i, width in enumerate(widths[1:-1])
    ]
    last = L.Dense(widths[-1], use_bias=False, kernel_initializer=init[-1], name="output")
    return keras.Sequential([keras.Input((widths[0],)), *hidden, last], name="net")


def half_masks(model, seed=3):
    rng = np.random.default_rng(seed)
    return {path: rng.integers(0, 2, mask.shape) for path, mask in tfl.get_masks(model).items()}


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[path], b[path]) for path in a)


def close(a, b, rtol=1e-5):
    return a.keys() == b.keys() and all(np.allclose(a[p], b[p], rtol, rtol * np.abs(b[p]).max()) for p in a)


# --- the gradients ----------------------------------------------------------------------------------------------------


def on_the_plain_model(model, probe):
    """Keras, TensorFlow and nothing else."""
    with tf.GradientTape() as tape:
        value = probe[2](probe[1], model(probe[0], training=True))
    kernels = [v for v in model.trainable_variables if v.name == "kernel"]
    return {v.path: np.array(g) for v, g in zip(kernels, tape.gradient(value, [v.value for v in kernels]))}


def test_the_gradient_of_the_loss_is_that_of_a_training_step(dense_net, probe, conv_net, images):
    for model, batch in ((dense_net(), probe), (conv_net, images)):
        ours = gradients.take(tfl.wrap(model), "loss", batch)
        assert close(ours, on_the_plain_model(model, batch))


def test_it_follows_finite_differences(dense_net, probe):
    model = dense_net()
    path, kernel = "net/output/kernel", model.layers[1].kernel
    ours, at = gradients.take(tfl.wrap(model), "loss", probe)[path], np.array(kernel.value)
    for i, j in [(0, 0), (3, 2), (15, 1)]:
        values = []
        for step in (1e-2, -1e-2):
            moved = at.copy()
            moved[i, j] += step
            kernel.assign(moved)
            values.append(float(LOSS(probe[1], model(probe[0]))))
        kernel.assign(at)
        assert ours[i, j] == pytest.approx((values[0] - values[1]) / 2e-2, abs=1e-3)


@pytest.mark.parametrize("kind", gradients.registry)
def test_pruned_weights_have_none_and_the_others_that_of_the_sparse_network(kind, dense_net, probe):
    masked, sparse = tfl.wrap(dense_net()), tfl.wrap(dense_net())
    chosen = half_masks(masked)
    tfl.set_masks(masked, chosen)
    for kernel in sparse.kernels:  # the same network without masks
        kernel.variable.assign(kernel.variable * chosen[kernel.path])
    ours, theirs = (gradients.take(model, kind, probe) for model in (masked, sparse))
    if kind != "hessian_gradient":  # there g too is that of the kept weights only
        assert close(ours, {path: theirs[path] * chosen[path] for path in ours})
    assert not any(ours[path][chosen[path] == 0].any() for path in ours)
    assert all(ours[path].any() for path in ours)


def test_the_hessian_gradient_follows_finite_differences_of_gradients(blobs):
    """H g = (dL(w + e g) - dL(w - e g)) / 2e, on a smooth net in float64, pruned by half, logits at temperature 200."""
    rng = np.random.default_rng(0)
    x, y = blobs[0][:30].astype("float64"), blobs[1][:30]
    layers = [L.Dense(5, "tanh", dtype="float64"), L.Dense(3, dtype="float64")]
    masked = tfl.wrap(keras.Sequential([keras.Input((6,), dtype="float64"), *layers]))
    for kernel in masked.kernels:
        kernel.variable.assign(rng.normal(size=kernel.variable.shape))
    chosen = half_masks(masked)
    tfl.set_masks(masked, chosen)
    kernels, chosen = [layer.kernel for layer in layers], list(chosen.values())
    at = [np.array(kernel.value) for kernel in kernels]

    def gradient(values):
        values = [tf.constant(value) for value in values]
        with tf.GradientTape() as tape:
            tape.watch(values)
            logits = tf.tanh(x.astype("float32").astype("float64") @ values[0]) @ values[1] / 200
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
        return [g.numpy() * mask for g, mask in zip(tape.gradient(loss, values), chosen)]

    first, step = gradient(at), 1e-2
    ahead = gradient([value + step * g for value, g in zip(at, first)])
    behind = gradient([value - step * g for value, g in zip(at, first)])
    expected = [(a - b) / (2 * step) * mask for a, b, mask in zip(ahead, behind, chosen)]
    ours = gradients.take(masked, "hessian_gradient", (x, y, LOSS))
    for value, reference in zip(ours.values(), expected):
        assert np.allclose(value, reference, rtol=1e-3, atol=1e-3 * np.abs(reference).max())


def test_the_temperature_is_for_logits_only(dense_net, probe):
    x, y, _ = probe
    ours = gradients.take(tfl.wrap(dense_net()), "hessian_gradient", (x, np.eye(3, dtype="float32")[y], "mse"))
    gradients.TEMPERATURE, before = 1.0, gradients.TEMPERATURE
    try:
        assert equal(
            ours, gradients.take(tfl.wrap(dense_net()), "hessian_gradient", (x, np.eye(3, dtype="float32")[y], "mse"))
        )
    finally:
        gradients.TEMPERATURE = before


def flows(masked, **where):
    """The sum of the scores of each layer."""
    score, values = criteria.get("synflow"), where.get("values") or state.get_values(masked)
    found = gradients.take(masked, "synaptic_flow", **where)
    return [score(values[path], None, rng=None, gradient=g).sum(dtype=np.float64) for path, g in found.items()]


def test_synaptic_flow_is_conserved_from_layer_to_layer():
    """Tanaka et al. (2020), theorem 1 and its corollary, with and without masks; the flow is R."""
    model = net_without_biases((7, 20, 5, 11, 3))
    masked = tfl.wrap(model)
    for chosen in (tfl.get_masks(masked), half_masks(masked)):
        tfl.set_masks(masked, chosen)
        h = np.ones(7)
        for kernel in masked.kernels:
            h = np.abs(np.array(kernel.variable.value)).astype(np.float64).T @ h
        assert flows(masked) == pytest.approx([h.sum()] * 4, rel=1e-4)


def test_a_flow_that_exceeds_float32_is_scaled():
    """In a deep net R overflows; the scores of the same net with smaller weights rank the same."""
    deep, scores = (100, *[100] * 25, 3), []
    for scale in (1, 8):
        masked = tfl.wrap(net_without_biases(deep))
        for kernel in masked.kernels:
            kernel.variable.assign(scale * kernel.variable)
        found = gradients.take(masked, "synaptic_flow")
        values = np.concatenate([(np.abs(k.variable.numpy()) * found[k.path]).ravel() for k in masked.kernels])
        assert np.isfinite(values).all() and (values > 0).all()
        scores.append(values / values.sum(dtype=np.float64))
    assert np.allclose(*scores, rtol=1e-3, atol=0)


def test_synaptic_flow_looks_at_no_data_and_no_signs(conv_net, images):
    masked = tfl.wrap(conv_net)
    ours = gradients.take(masked, "synaptic_flow")
    assert equal(ours, gradients.take(masked, "synaptic_flow", images))  # a probe tells the shape only
    values = {path: -value for path, value in state.get_values(masked).items() if path.endswith("kernel")}
    assert equal(ours, gradients.take(masked, "synaptic_flow", values=values))


@pytest.mark.parametrize("kind", gradients.registry)
def test_nothing_is_touched(kind, conv_net, images):
    masked = tfl.wrap(conv_net)
    tfl.set_masks(masked, half_masks(masked))
    masked.compile("adam", LOSS)
    masked.fit(*images[:2], verbose=0)
    variables = [*masked.variables, *masked.optimizer.variables]
    before = [np.array(v.value) for v in variables]
    losses, seed = list(masked.losses), keras.random.normal((2,), seed=3)
    first = gradients.take(masked, kind, images)
    assert equal(first, gradients.take(masked, kind, images))  # dropout too falls as it would in the next step
    elsewhere = {path: np.ones_like(mask) for path, mask in tfl.get_masks(masked).items()}
    values = {path: value + 1 for path, value in state.get_values(masked).items() if "seed" not in path}
    assert not equal(first, gradients.take(masked, kind, images, elsewhere, values))
    for bad in (lambda y, outputs: 1 / 0, lambda y, outputs: outputs * np.nan):
        if kind != "synaptic_flow":
            with pytest.raises(LotteryError):
                gradients.take(masked, kind, (*images[:2], bad))
    assert all(np.array_equal(a, np.array(v.value)) for a, v in zip(before, variables))
    assert losses == list(masked.losses) and np.array_equal(seed, keras.random.normal((2,), seed=3))


@pytest.mark.parametrize("kind", gradients.registry)
def test_half_precision_layers_compute_in_full_for_it(kind, images):
    def build(policy):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((8, 8, 2))
        x = L.Conv2D(4, 3, activation="relu", dtype=policy)(inputs)
        x = L.BatchNormalization(dtype=policy)(x)
        return tfl.wrap(keras.Model(inputs, L.Dense(3, dtype=policy)(L.Flatten(dtype=policy)(x))))

    full, half = build("float32"), build("mixed_float16")
    ours, theirs = gradients.take(half, kind, images), gradients.take(full, kind, images)
    assert all(np.array_equal(a, b) and a.dtype == np.float32 for a, b in zip(ours.values(), theirs.values()))
    with pytest.raises(LotteryError):
        gradients.take(half, "loss", (*images[:2], lambda y, outputs: 1 / 0))
    assert half.layers[1].dtype_policy.name == "mixed_float16"


class Branched(keras.Model):
    """A subclassed model with a layer that is called twice."""

    def __init__(self):
        super().__init__(name="branched")
        self.one, self.shared, self.out = (
            L.Dense(6, name="one"),
            L.Dense(6, "relu", name="shared"),
            L.Dense(3, name="out"),
        )

    def call(self, x):
        return self.out(self.shared(self.one(x)) + self.shared(x))


@pytest.mark.parametrize("kind", gradients.registry)
def test_other_kinds_of_models(kind, probe):
    x, y, _ = probe
    subclassed = Branched()
    subclassed(x)
    assert list(gradients.take(tfl.wrap(subclassed), kind, probe)) == [
        f"branched/{n}/kernel" for n in ("one", "shared", "out")
    ]
    recurrent = keras.Sequential([keras.Input((None, 6)), L.GRU(4), L.Dense(3)])
    assert len(gradients.take(tfl.wrap(recurrent), kind, (np.stack([x] * 3, 1), y, LOSS))) == 3
    inputs = {"a": keras.Input((6,)), "b": keras.Input((6,))}
    siamese = tfl.wrap(keras.Model(inputs, L.Dense(3)(L.Dense(5, "relu")(inputs["a"]) + L.Dense(5)(inputs["b"]))))
    assert all(g.any() for g in gradients.take(siamese, kind, ({"a": x, "b": x}, y, LOSS)).values())
    part = keras.Sequential([keras.Input((6,)), tfl.MaskedLayer(L.Dense(5, name="in")), L.Dense(3)])
    chosen = half_masks(part)
    tfl.set_masks(part, chosen)
    (found,) = gradients.take(part, kind, probe).values()
    assert found.any() and not found[next(iter(chosen.values())) == 0].any()


def test_two_inputs_and_no_data():
    inputs = [keras.Input((3,)), keras.Input((4,))]
    model = keras.Model(inputs, L.Dense(2)(L.Concatenate()(inputs)))
    assert np.array_equal(*gradients.take(tfl.wrap(model), "synaptic_flow").values(), np.ones((7, 2)))


def test_it_says_what_is_wrong(dense_net, probe):
    x, y, _ = probe
    masked = tfl.wrap(dense_net())
    for batch, message in (
        ((x, y), r"probe=\(x, y, loss\) for a model that was not compiled with a loss, but 'net' has none"),
        ((x, y, "crossentropies"), "one Keras loss, or a function .*'crossentropies'"),
        ((x, y, ["mse", "mse"]), "one Keras loss"),
        ((x[:, :4], y, LOSS), "Expected a probe that fits model 'net' and the loss, but loss failed"),
        ((x, y[:20], LOSS), "Expected a probe that fits model 'net'"),
        ((x * np.inf, y, LOSS), "finite gradients, but loss of kernel 'net/hidden/kernel' holds NaN or infinity"),
    ):
        with pytest.raises(LotteryError, match=message):
            gradients.take(masked, "loss", batch)
    with pytest.raises(LotteryError, match=r"name of a gradient \(loss, hessian_gradient, synaptic_flow\)"):
        gradients.take(masked, "los", probe)
    for activation in ("softmax", "sigmoid"):
        ends = keras.Sequential([keras.Input((20,)), L.Dense(50, "relu"), L.Dense(30), L.Dense(3, activation)])
        with pytest.raises(LotteryError, match="outputs that grow with the weights .* without a softmax"):
            gradients.take(tfl.wrap(ends), "synaptic_flow")
    flat = keras.Sequential(
        [keras.Input((9,)), L.Dense(9, "relu6", kernel_initializer="ones", name="in"), L.Dense(3)], name="r6"
    )
    with pytest.raises(
        LotteryError, match="through every kernel of a dense network, but none gets through 'r6/in/kernel'"
    ):
        gradients.take(tfl.wrap(flat), "synaptic_flow")
    sizeless = keras.Sequential([keras.Input((None, 6)), L.GRU(4), L.Dense(3)], name="rnn")
    with pytest.raises(LotteryError, match=r"probe=\(x, y\), which tells the shape of an input, for 'rnn'"):
        gradients.take(tfl.wrap(sizeless), "synaptic_flow")


def test_the_compiled_loss_is_the_default(dense_net, probe):
    model = dense_net()
    model.compile("sgd", LOSS)
    masked = tfl.wrap(model)
    assert equal(gradients.take(masked, "loss", probe[:2]), gradients.take(masked, "loss", probe))


# --- rounds in several steps ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_round_in_steps_ends_at_the_same_count(scope, rng):
    """Scores anew under each mask, the share of kept weights (1 - p)^(k / n) after step k, counts as in one step."""
    seen = []

    def gradients_of(kind, present, values):
        assert kind == "mine" and all(not values[path][mask == 0].any() for path, mask in present.items())
        seen.append({path: mask.copy() for path, mask in present.items()})
        return {path: rng.random(mask.shape) for path, mask in present.items()}

    def chance(initial, final, *, rng, gradient):
        return gradient

    chance.needs = criteria.Needs("mine", trained=False, iterations=7)
    values = {"a": rng.normal(size=(13, 9)), "b": rng.normal(size=(5, 3))}
    first = tfl.Ticket({path: np.ones(v.shape, np.uint8) for path, v in values.items()}, values, values)
    fractions = [{"a": 0.83, "b": 0.83}]
    rounds = Rounds(fractions, None, gradients_of, criterion=chance, scope=scope)
    new, once = rounds.next(first, first).masks, masks.prune(first.masks, values, fractions[0], scope=scope)
    assert len(seen) == 7
    chain = [*seen, new]
    assert all((after[p] <= before[p]).all() for before, after in itertools.pairwise(chain) for p in new)
    total = [sum(int(mask.sum()) for mask in step.values()) for step in chain]
    assert total == pytest.approx([132 * 0.17 ** (k / 7) for k in range(8)], abs=1.01)
    assert total[-1] == sum(int(mask.sum()) for mask in once.values())
    if scope == "layer":
        assert [m.sum() for m in new.values()] == [m.sum() for m in once.values()]


def connected(model):
    """Whether a signal gets from the inputs to the outputs."""
    h = np.ones(model.kernels[0].variable.shape[0])
    for mask in tfl.get_masks(model).values():
        h = mask.T @ h > 0
    return h.any()


def test_synaptic_flow_leaves_every_layer_a_path_where_magnitude_cuts_the_net():
    """Tanaka et al. (2020), sections 3 and 6: no layer collapse, at 99 % and beyond, on nets with a wide layer."""
    widths, cut = (30, 300, 300, 40, 10), []
    for criterion in ("synflow", "large_final"):
        for density in (0.01, 0.001):
            pruned = tfl.prune(net_without_biases(widths), density, criterion=criterion, scope="global")
            assert masks.density(tfl.get_masks(pruned)) == pytest.approx(density, rel=0.01)
            cut.append(not connected(pruned))
            if criterion == "synflow":
                assert min(flows(pruned)) > 0
    assert cut[:2] == [False, False] and cut[3]


# --- the searches -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("criterion", BY_GRADIENT)
def test_one_shot_is_pruning_before_training(criterion, train, dense_net):
    tickets = list(
        tfl.find_ticket(dense_net(), train, levels=2, prune_fraction=0.5, criterion=criterion, one_shot=True)
    )
    for ticket in tickets[1:]:
        before = tfl.prune(dense_net(), 0.5**ticket.level, criterion=criterion, probe=train.probe)
        assert equal(ticket.masks, tfl.get_masks(before))
    assert [round(ticket.density, 2) for ticket in tickets] == [1, 0.5, 0.25]
    assert tickets[1].found["criterion"] == criterion


def test_rounds_take_gradients_at_the_rewound_masked_weights(train, dense_net):
    model = dense_net()
    masked = tfl.wrap(dense_net())
    tickets = list(tfl.find_ticket(model, train, levels=3, prune_fraction=0.4, criterion="snip", scope="global"))
    for parent, ticket in itertools.pairwise(tickets):
        state.set_state(masked, parent.masks, parent.initial)
        gradient = gradients.take(masked, "loss", train.probe)
        scores = {path: np.abs(g * parent.initial[path]) for path, g in gradient.items()}
        assert equal(ticket.masks, masks.prune(parent.masks, scores, dict.fromkeys(scores, 0.4), scope="global"))


@pytest.mark.parametrize("criterion", BY_GRADIENT)
def test_searches_repeat_bit_for_bit_with_frozen_weights_too(criterion, train, dense_net):
    def search():
        options = {"levels": 2, "prune_fraction": 0.5, "criterion": criterion, "pruned": "variant_1_reshuffle"}
        return list(tfl.find_ticket(dense_net(), train, **options))

    one, two = search(), search()
    assert all(equal(a.masks, b.masks) and equal(a.final, b.final) for a, b in zip(one, two))
    for path, mask in one[-1].masks.items():
        assert np.array_equal(one[-1].final[path][mask == 0], one[-1].initial[path][mask == 0])
    assert any(values[mask == 0].any() for values, mask in ((one[-1].initial[p], m) for p, m in one[-1].masks.items()))


def test_frozen_weights_take_part_in_the_network_that_is_differentiated(probe, dense_net):
    masked = tfl.wrap(dense_net(), held=True)
    chosen, values = half_masks(masked), state.get_values(masked)
    whole = on_the_plain_model(masked.inner, probe)
    for kernel in masked.kernels:
        kernel.variable.assign(np.zeros(kernel.variable.shape))
    found = gradients.take(masked, "loss", probe, chosen, values)
    assert close(found, {path: whole[path] * mask for path, mask in chosen.items()})


@pytest.mark.parametrize("pruned", ["variant_1", "variant_1_reshuffle", "variant_1_reverse"])
def test_the_controls_of_variant_1_over_the_rounds_of_a_search(pruned, train, dense_net):
    """In each round the zeros among the pruned are as many as the rule of variant 1 (or its reverse) gives."""
    tickets = list(tfl.find_ticket(dense_net(), train, levels=3, prune_fraction=0.4, pruned=pruned))
    rule = treatments.get_pruned("variant_1_reverse" if pruned == "variant_1_reverse" else "variant_1")
    for parent, ticket in itertools.pairwise(tickets):
        for path, mask in ticket.masks.items():
            zeros = rule(parent.initial[path], parent.initial[path], parent.final[path], mask=mask)[mask == 0] == 0
            assert np.count_nonzero(ticket.initial[path][mask == 0] == 0) == np.count_nonzero(zeros) > 0


def test_the_probe_of_a_trainer_is_one_batch(blobs, train):
    x, y, loss = train.probe
    assert x.shape == (128, 6) and y.shape == (128,) and loss is train.loss
    assert all(np.array_equal(a, b) for a, b in zip((x, y), train.probe))
    others = [tfl.Trainer(*blobs, steps=1, seed=seed).probe[0] for seed in (0, 1)]
    assert not np.array_equal(*others)
    small = tfl.Trainer(blobs[0][:70], blobs[1][:70], steps=1, augment=lambda x, seed: x + 100).probe
    assert len(small[1]) == 70 and np.min(small[0]) > 50


def test_your_own_training_function_and_probe(dense_net, probe, blobs):
    def fit(model, callbacks):
        model.compile("sgd", LOSS)
        return model.fit(*blobs, verbose=0, callbacks=callbacks)

    for given in (probe, probe[:2]):  # the loss of the model that fit compiled
        *_, ticket = tfl.find_ticket(dense_net(), fit, levels=1, criterion="snip", one_shot=True, probe=given)
        assert equal(ticket.masks, tfl.get_masks(tfl.prune(dense_net(), 0.8, criterion="snip", probe=probe)))
    fit.probe = probe
    *_, again = tfl.find_ticket(dense_net(), fit, levels=1, criterion="snip", one_shot=True)
    assert equal(again.masks, ticket.masks)


def test_your_own_criterion_and_gradient(dense_net, probe):
    def signal(network, probe):
        """How much the outputs change: no loss."""
        kernels = network.kernels
        with tf.GradientTape() as tape:
            tape.watch(kernels)
            outputs = tf.reduce_sum(network(kernels, probe[0], training=False) ** 2)
        return tape.gradient(outputs, kernels)

    try:

        @criteria.register(gradient=signal, trained=False)
        def by_signal(initial, final, *, rng, gradient):
            return np.abs(gradient)

        found = tfl.get_masks(tfl.prune(dense_net(), 0.3, criterion="by_signal", probe=probe))
        expected = gradients.take(tfl.wrap(dense_net()), signal, probe)
        assert all(
            np.array_equal(found[p], masks.keep_top(np.abs(g), int(found[p].sum()))) for p, g in expected.items()
        )
    finally:
        criteria.registry._functions.pop("by_signal")


def test_a_search_without_a_probe_is_refused_before_anything_is_trained(dense_net, probe):
    model = dense_net()
    before = model.get_weights()
    for criterion in BY_DATA:
        for options, message in (
            ({}, rf"probe=\(x, y\), one batch to take gradients on, for criterion '{criterion}', but received none"),
            ({"probe": probe[0]}, r"Expected probe as \(x, y\) or \(x, y, loss\)"),
            ({"probe": "batch"}, "but received 'batch'"),
        ):
            with pytest.raises(LotteryError, match=message):
                tfl.find_ticket(model, lambda *_: pytest.fail("trained"), criterion=criterion, **options)
            with pytest.raises(LotteryError, match=message):
                tfl.prune(model, 0.5, criterion=criterion, **options)
            with pytest.raises(LotteryError, match=message):
                tfl.callbacks.LotteryTicket(tfl.LotterySchedule(2, 5), criterion=criterion, **options)
    with pytest.raises(LotteryError, match="not compiled with a loss"):
        tfl.prune(model, 0.5, criterion="snip", probe=probe[:2])
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))


@pytest.mark.parametrize("criterion", BY_GRADIENT)
@pytest.mark.parametrize(
    "options", [{"block_size": (2, 1)}, {"distribution": "erdos_renyi_kernel"}, {"scope": "global"}], ids=str
)
def test_pruning_at_once_with_everything_else(criterion, options, dense_net, probe):
    found = tfl.get_masks(tfl.prune(dense_net(), 0.25, criterion=criterion, probe=probe, **options))
    assert masks.density(found) == pytest.approx(0.25, abs=0.02)
    pattern = tfl.prune(dense_net(), criterion=criterion, probe=probe, sparsity_m_by_n=(1, 2))
    assert masks.density(tfl.get_masks(pattern)) == 0.5


def test_pruning_at_once_takes_gradients_at_the_weights_that_count_as_initial(dense_net, probe):
    trained, start = dense_net(seed=5), state.get_values(tfl.wrap(dense_net()))
    found = tfl.prune(trained, 0.3, criterion="snip", probe=probe, initial=start)
    assert equal(tfl.get_masks(found), tfl.get_masks(tfl.prune(dense_net(), 0.3, criterion="snip", probe=probe)))
    assert np.count_nonzero(trained.layers[0].kernel) == round(0.3 * 96)


@pytest.mark.parametrize("criterion", BY_GRADIENT)
def test_the_search_in_one_fit_finds_what_find_ticket_finds(criterion, blobs, dense_net, probe):
    def train(model, callbacks):
        model.compile(keras.optimizers.SGD(0.1), LOSS)
        return model.fit(*blobs, batch_size=15, shuffle=False, verbose=0, callbacks=callbacks)

    options = {"criterion": criterion, "probe": probe[:2]}
    theirs = list(tfl.find_ticket(dense_net(), train, levels=2, prune_fraction=0.5, **options))
    masked = tfl.wrap(dense_net())
    masked.compile(keras.optimizers.SGD(0.1), LOSS)
    search = tfl.callbacks.LotteryTicket(tfl.LotterySchedule(2, 20, 0.5), **options)
    masked.fit(*blobs, batch_size=15, epochs=3, shuffle=False, verbose=0, callbacks=[search])
    assert len(search.tickets) == 3
    assert all(equal(a.masks, b.masks) and equal(a.final, b.final) for a, b in zip(search.tickets, theirs))


@pytest.mark.parametrize("criterion", BY_GRADIENT)
def test_callbacks_in_the_middle_of_a_training_refuse(criterion):
    for callback in (
        lambda **options: tfl.callbacks.PruneBySchedule(lambda step: (True, 0.5), **options),
        tfl.tfmot.RewindSurvivors,
    ):
        with pytest.raises(LotteryError, match=f"without gradients .*'{criterion}', which prunes before training"):
            callback(criterion=criterion)


def test_the_command_line_needs_no_further_flags(tmp_path):
    sizes = ["--levels=2", "--replicates=1", "--steps=4", "--eval_every=4", "--test_every=4", "--quiet"]
    place = [f"--results_dir={tmp_path}", "--name=snip"]
    assert main.dispatch(["find", *place, "--criterion=snip", "--one_shot", "--scope=global", *sizes]) == 0
    assert Run(tmp_path / "snip").ticket(0, 2).found["criterion"] == "snip"
