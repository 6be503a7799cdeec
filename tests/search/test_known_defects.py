"""What users of TF-MOT and of its peers have run into, one test each: it does not happen here.

Every docstring names the defect and where it was reported; an issue without a repository is one of
tensorflow/model-optimization.
"""

import json
import os
import subprocess
import sys
import zipfile

import forked
import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_lottery as tfl
from tf_lottery.masking import state
from tf_lottery.rules import masks

L = keras.layers
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
tf_keras, tfmot = tfl.tfmot.tf_keras, tfl.tfmot.tfmot


def alternating(masked):
    """Masks with every second weight pruned."""
    return {path: np.indices(m.shape).sum(0) % 2 for path, m in tfl.get_masks(masked).items()}


def half_pruned(model, **kwargs):
    masked = tfl.wrap(model, **kwargs)
    tfl.set_masks(masked, alternating(masked))
    return masked


def raw(model):
    """What the variables of the masked kernels hold themselves, without the mask's help."""
    return {kernel.path: np.array(kernel.variable.numpy()) for kernel in state.masked_kernels(model)}


def assert_exactly_sparse(model):
    """Every pruned weight is exactly zero in its variable."""
    present = tfl.get_masks(model)
    for path, values in raw(model).items():
        assert np.isfinite(values).all() and not values[present[path] == 0].any(), path


def same(a, b):
    return list(a) == list(b) and all(np.array_equal(a[path], b[path]) for path in a)


def steps_of(*wanted):
    """A schedule as a plain function: {step: sparsity}."""
    table = dict(wanted)
    return lambda step: (int(step) in table, table.get(int(step), 0.0))


class AtBatchEnd(keras.callbacks.Callback):
    """Calls a function of the model's step after each batch, behind the callbacks before it."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def on_train_batch_end(self, batch, logs=None):
        self.function(int(self.model.optimizer.iterations))


def python(code, *arguments):
    """Runs code in a fresh process, without a choice of Keras; returns what it printed last, read as JSON."""
    environment = {key: value for key, value in os.environ.items() if key != "TF_USE_LEGACY_KERAS"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


# Which weights are pruned


def test_ties_do_not_survive_together():
    """TF-MOT: the mask is |w| >= the k-th value, so all weights that are equal to it survive."""
    theirs = tf_keras.layers.Dense(8, kernel_initializer="ones")
    theirs = tfmot.sparsity.keras.prune_low_magnitude(theirs, tfmot.sparsity.keras.ConstantSparsity(0.75, 0))
    theirs.build((None, 8))
    theirs.pruning_step.assign(0)
    theirs(np.ones((1, 8), "float32"), training=True)
    assert np.count_nonzero(theirs.pruning_vars[0][1]) == 64  # the contrast: of 64 weights 16 were to stay
    model = keras.Sequential([keras.Input((8,)), *(L.Dense(8, kernel_initializer="ones") for _ in range(2))])
    for scope in masks.SCOPES:
        pruned = tfl.get_masks(tfl.prune(keras.models.clone_model(model), 0.25, scope=scope))
        assert sum(mask.sum() for mask in pruned.values()) == 32


def test_a_kernel_of_zeros_is_pruned_by_count():
    """TF-MOT: where most weights are zero the threshold is 0, and the mask becomes all ones."""
    model = keras.Sequential([keras.Input((8,)), L.Dense(8, kernel_initializer="zeros"), L.Dense(8)])
    masked = tfl.prune(model, 0.25)
    assert [mask.sum() for mask in tfl.get_masks(masked).values()] == [16, 16]


def test_pruned_weights_do_not_come_back_at_a_lower_sparsity(dense_net, blobs):
    """TF-MOT: pruned again at a lower sparsity, the threshold is 0 and all weights come back."""
    masked = tfl.prune(dense_net(), 0.25)
    before = tfl.get_masks(masked)
    assert same(before, tfl.get_masks(tfl.prune(masked, 0.75)))
    masked.compile("adam", LOSS, run_eagerly=True)
    schedule = steps_of((1, 0.5), (2, 0.0), (3, 0.9), (4, 0.1))
    masked.fit(*blobs, batch_size=50, verbose=0, callbacks=[tfl.callbacks.PruneBySchedule(schedule)])
    after = tfl.get_masks(masked)
    assert all((after[path] <= before[path]).all() for path in before)
    assert [mask.sum() for mask in after.values()] == [round(0.1 * mask.size) for mask in after.values()]


def test_counts_are_exact_above_2_to_the_24():
    """TF-MOT: how many weights to keep is computed in float32, which is inexact above 2**24."""
    size, count = 2**24 + 3, 2**24 + 1
    assert int(np.float32(count)) != count
    scores = (np.arange(size, dtype="uint32") % 1021).astype("float32")
    ones = np.ones(size, np.uint8)
    assert np.count_nonzero(masks.prune_to({"a": ones}, {"a": scores}, {"a": count / size})["a"]) == count


def test_masks_are_not_made_by_sorting(monkeypatch, rng):
    """TF-MOT: each update of a mask sorts the whole kernel with a top_k of full size."""

    def refuse(*args, **kwargs):
        raise AssertionError("a whole kernel is sorted")

    scores = rng.normal(size=(30, 30))
    for name in ("sort", "argsort", "lexsort", "unique"):
        monkeypatch.setattr(np, name, refuse)
    monkeypatch.setattr(tf.math, "top_k", refuse)
    assert masks.keep_top(scores, 90).sum() == 90
    ones = {"a": np.ones((30, 30), np.uint8)}
    assert masks.prune_to(ones, {"a": scores}, {"a": 0.1}, scope="global")["a"].sum() == 90


@pytest.mark.parametrize("scope", masks.SCOPES)
def test_nearly_everything_can_be_pruned(scope, dense_net):
    """TF-MOT issue 215: close to 100 % sparsity the index of the threshold was -1 and training crashed."""
    masked = tfl.prune(dense_net(), 1e-9, scope=scope)
    assert [mask.sum() for mask in tfl.get_masks(masked).values()] == [1, 1]


def test_one_shot_pruning_needs_no_data(dense_net):
    """TF-MOT issue 621: no pruning after training; users fit dummy data with a learning rate of 0."""
    model = dense_net()
    before = state.get_values(model)
    plain = tfl.strip(tfl.prune(model, 0.25))
    for path, after in state.get_values(plain).items():
        kept = after != 0
        assert np.array_equal(after[kept], before[path][kept])
        if path.endswith("kernel"):
            assert kept.sum() == round(0.25 * kept.size)
            assert np.abs(before[path][kept]).min() >= np.abs(before[path][~kept]).max()


def test_kernels_can_compete_in_the_whole_network():
    """TF-MOT: magnitudes compete within each layer only, and each layer gets the same sparsity."""
    model = keras.Sequential([keras.Input((4,)), *(L.Dense(4, kernel_initializer=init) for init in ("ones", "zeros"))])
    model.layers[1].kernel.assign_add(np.full((4, 4), 0.5))
    kept = [mask.sum() for mask in tfl.get_masks(tfl.prune(model, 0.5, scope="global")).values()]
    assert kept == [15, 1]  # one weight of each kernel stays, so that no layer is cut through


def test_layers_can_have_different_sparsities(dense_net, blobs):
    """TF-MOT issue 987: Erdős–Rényi and other layer-wise sparsities, which a wrapper without shapes cannot share out."""
    masked = tfl.prune(dense_net(units=64), 0.3, distribution="erdos_renyi_kernel")
    narrow, wide = (mask.mean() for mask in reversed(tfl.get_masks(masked).values()))
    assert narrow > wide
    shapes = {path: mask.shape for path, mask in tfl.get_masks(masked).items()}
    assert masks.density(tfl.get_masks(masked)) == pytest.approx(0.3, abs=1 / sum(map(np.prod, shapes.values())))
    masked = tfl.wrap(dense_net())
    masked.compile("sgd", LOSS, run_eagerly=True)
    schedules = {"output": steps_of((2, 0.25)), "Dense": steps_of((1, 0.5), (3, 0.75))}
    masked.fit(*blobs, verbose=0, callbacks=[tfl.callbacks.PruneBySchedule(schedules)])
    assert [float(mask.mean()) for mask in tfl.get_masks(masked).values()] == [0.25, 0.75]


def test_any_criterion_can_choose(dense_net):
    """TF-MOT: a schedule sees the step only and the criterion is always |w|."""
    model = dense_net()
    smallest = tfl.get_masks(tfl.prune(model, 0.5, criterion=lambda initial, final, *, rng: -np.abs(final)))
    largest = tfl.get_masks(tfl.prune(dense_net(), 0.5))
    assert all((smallest[path] + largest[path] == 1).all() for path in largest)


def test_masks_can_be_read_and_set(dense_net):
    """google-research/rigl issues 2, 11 and 12: no way to the masks but `layer.pruning_vars[0][1]`."""
    masked = tfl.wrap(dense_net())
    tfl.set_masks(masked, alternating(masked))
    read = tfl.get_masks(masked)
    assert same(read, alternating(masked))
    read["net/hidden/kernel"][:] = 1  # a copy
    assert same(tfl.get_masks(masked), alternating(masked))
    assert_exactly_sparse(masked)


# Patterns


def two_to_four():
    inputs = keras.Input((6, 6, 8))
    x = L.Flatten()(L.Conv2D(8, 3)(inputs))
    return keras.Model(inputs, L.Dense(3)(L.Dense(10)(x)))


def assert_two_to_four(model):
    for mask in tfl.get_masks(model).values():
        inputs = mask.shape[-2] // 4 * 4
        groups = mask[..., :inputs, :].reshape(*mask.shape[:-2], -1, 4, mask.shape[-1]).sum(axis=-2)
        assert (groups == 2).all()


def test_two_to_four_survives_save_and_load(tmp_path, rng):
    """TF-MOT: `get_config` drops `sparsity_m_by_n`, so a saved model goes on with unstructured pruning."""
    masked = tfl.wrap(two_to_four())
    masked.compile("adam", "mse")
    x, y = rng.normal(size=(16, 6, 6, 8)).astype("float32"), np.ones((16, 3), "float32")
    schedule = tfmot.sparsity.keras.ConstantSparsity(0.5, begin_step=1, frequency=1)
    pruning = {"schedule": schedule, "sparsity_m_by_n": (2, 4)}
    masked.fit(x, y, batch_size=4, verbose=0, callbacks=[tfl.callbacks.PruneBySchedule(**pruning)])
    assert_two_to_four(masked)
    masked.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert all(map(np.array_equal, tfl.get_masks(again).values(), tfl.get_masks(masked).values()))
    again.fit(x, y, batch_size=4, verbose=0, callbacks=[tfl.callbacks.PruneBySchedule(**pruning)])
    assert_two_to_four(again)
    assert_exactly_sparse(again)


def test_two_to_four_leaves_a_convolution_over_time_dense():
    """TF-MOT: one kernel whose rank is neither 2 nor 4 makes `sparsity_m_by_n` fail for the whole model."""
    model = keras.Sequential([keras.Input((9, 8)), L.Conv1D(4, 3), L.Flatten(), L.Dense(6)])
    with pytest.warns(UserWarning, match="left dense: .*conv1d"):
        masked = tfl.prune(model, sparsity_m_by_n=(2, 4))
    assert [float(mask.mean()) for mask in tfl.get_masks(masked).values()] == [1.0, 0.5]


@pytest.mark.parametrize("pooling", ["AVG", "MAX"])
def test_blocks_are_pruned_in_convolutions_too(pooling):
    """TF-MOT: block sparsity is for weights of rank 2 only and fails on a convolution."""
    model = keras.Sequential([keras.Input((6, 6, 8)), L.Conv2D(8, 3), L.Flatten(), L.Dense(10)])
    masked = tfl.prune(model, 0.25, block_size=(4, 1), block_pooling_type=pooling)
    for mask in tfl.get_masks(masked).values():
        blocks = mask.reshape(*mask.shape[:-2], -1, 4, mask.shape[-1]).sum(axis=-2)
        assert set(np.unique(blocks)) == {0, 4} and mask.mean() == 0.25


# Training


OPTIMIZERS = {
    "SGD": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    "Adam": {"amsgrad": True, "use_ema": True, "ema_overwrite_frequency": 4},
    "AdamW": {"weight_decay": 0.1},
    "RMSprop": {"momentum": 0.9, "centered": True},
    "Muon": {"learning_rate": 0.01},
}
NAMES = {name for name in dir(keras.optimizers) if name[0].isupper()}
NAMES -= {"LossScaleOptimizer", "MultiOptimizer", "Optimizer", "OptimizerMap"}
if keras.__version__ < "3.15":
    NAMES -= {"Muon"}  # that of Keras 3.10 did not run


@pytest.mark.parametrize("name", sorted(NAMES))
def test_optimizers_do_not_move_pruned_weights(name, dense_net, blobs):
    """TF-MOT: gradients and slots are not masked, so every step moves pruned weights until the next forward pass."""
    masked = tfl.wrap(dense_net())
    masked.compile(getattr(keras.optimizers, name)(**OPTIMIZERS.get(name, {})), LOSS, run_eagerly=True)
    kernels = {kernel.variable.path.replace("/", "_"): path for path, kernel in zip(raw(masked), masked.kernels)}

    def check(step):
        if name == "Muon":  # mixes the weights of a kernel: raw ones are zero when the epoch ends
            return
        assert_exactly_sparse(masked)
        present = tfl.get_masks(masked)
        slots = masked.optimizer.variables if step >= 3 and name != "Adafactor" else ()  # its slots are sums over rows
        for slot in slots:
            for prefix, path in kernels.items():
                if prefix in slot.path and slot.shape == present[path].shape:
                    begins = 0.1 if slot.path.endswith("accumulator") else 0
                    assert np.allclose(slot.numpy()[present[path] == 0], begins, rtol=0, atol=1e-8), slot.path

    pruning = tfl.callbacks.PruneBySchedule(steps_of((3, 0.5), (5, 0.75)))
    masked.fit(*blobs, batch_size=50, verbose=0, callbacks=[pruning, AtBatchEnd(check)])
    assert {float(mask.mean()) for mask in tfl.get_masks(masked).values()} == {0.25}
    assert_exactly_sparse(masked)


def test_gradients_of_pruned_weights_are_masked(dense_net, blobs):
    """TF-MOT: the gradient of a pruned weight is that of a dense network."""
    masked = half_pruned(dense_net())
    variables = masked.trainable_variables
    with tf.GradientTape() as tape:
        loss = LOSS(blobs[1], masked(blobs[0], training=True))
    gradients = dict(zip((v.path for v in variables), tape.gradient(loss, [v.value for v in variables])))
    for kernel, mask in zip(masked.kernels, tfl.get_masks(masked).values()):
        gradient = gradients[kernel.variable.path].numpy()
        assert not gradient[mask == 0].any() and gradient[mask == 1].any()


def test_a_forgotten_callback_changes_nothing(dense_net, blobs):
    """TF-MOT issue 271 and tensorflow/tensorflow issue 59679: without its callback, or in a loop of one's own, pruning fails."""
    masked, optimizer = half_pruned(dense_net()), keras.optimizers.Adam(0.01)
    before, variables = raw(masked), masked.trainable_variables

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = LOSS(y, masked(x, training=True))
        optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)

    for _ in range(3):
        step(*blobs)
        assert_exactly_sparse(masked)
    masked.compile(keras.optimizers.SGD(0.1, momentum=0.9), LOSS)
    for _ in range(3):
        masked.train_on_batch(*blobs)
        assert_exactly_sparse(masked)
    assert all((raw(masked)[path] != values)[values != 0].all() for path, values in before.items())


def test_calls_write_no_weights(dense_net):
    """TF-MOT: every call assigns weight * mask, at inference too, and reduces all of it over the replicas."""
    masked = half_pruned(dense_net())
    for training in (False, True):
        graph = tf.function(lambda x, training=training: masked(x, training=training))
        concrete = graph.get_concrete_function(tf.TensorSpec((None, 6)))
        kinds = {operation.type for operation in concrete.graph.get_operations()}
        assert "MatMul" in kinds and not any("Assign" in kind or "Reduce" in kind for kind in kinds)


def test_rewound_levels_remember_nothing(blobs):
    """TF-MOT issue 1: no rewinding; and moments, statistics or a learning rate that stay would leak into the next level."""

    def build():
        rate = keras.optimizers.schedules.ExponentialDecay(0.05, 2, 0.5)
        inputs = keras.Input((6,))
        x = L.BatchNormalization(name="norm")(L.Dense(8, "relu", name="hidden")(inputs))
        masked = tfl.wrap(keras.Model(inputs, L.Dense(3, name="output")(x), name="net"))
        masked.compile(keras.optimizers.Adam(rate), LOSS, run_eagerly=True)
        return masked

    masked = build()
    start = state.get_values(masked)
    search = tfl.callbacks.LotteryTicket(tfl.LotterySchedule(levels=2, steps_per_level=4, prune_fraction=0.5))
    masked.fit(*blobs, batch_size=75, epochs=3, shuffle=False, verbose=0, callbacks=[search])
    assert [ticket.level for ticket in search.tickets] == [0, 1, 2]
    for ticket in search.tickets:
        for path, value in ticket.initial.items():
            assert np.array_equal(value, start[path] * ticket.masks.get(path, 1))
    alone = ticket.apply(build())  # the last level, in a network and with an optimizer that know of no other
    alone.fit(*blobs, batch_size=75, shuffle=False, verbose=0)
    assert same(state.get_values(alone), ticket.final)


def densities(masked, x, y, schedule, **kwargs):
    """{optimizer's step: density} as `PruneBySchedule` leaves it at the end of each batch."""
    seen = {}
    look = AtBatchEnd(lambda step: seen.update({step: masks.density(tfl.get_masks(masked))}))
    callbacks = [tfl.callbacks.PruneBySchedule(schedule), look]
    masked.fit(x, y, verbose=0, shuffle=False, callbacks=callbacks, **kwargs)
    return seen


def test_a_layer_called_twice_counts_one_step(rng):
    """TF-MOT issue 270: steps are counted per call, so a layer that is called twice is pruned twice as early, or fails."""
    inputs, twin = keras.Input((4,)), L.Dense(4)
    masked = tfl.wrap(keras.Model(inputs, L.Dense(2)(twin(twin(inputs)))))
    masked.compile("sgd", "mse")
    x = rng.normal(size=(32, 4)).astype("float32")
    seen = densities(masked, x, x[:, :2], steps_of((4, 0.5), (6, 0.75)), batch_size=4)
    assert seen == {1: 1, 2: 1, 3: 1, 4: 0.5, 5: 0.5, 6: 0.25, 7: 0.25, 8: 0.25}


def test_steps_in_one_execution_count_each(dense_net, blobs):
    """Keras calls its callbacks once per execution: what counts their calls falls behind with steps_per_execution."""
    masked = tfl.wrap(dense_net())
    masked.compile("adam", LOSS, steps_per_execution=3)
    seen = densities(masked, *blobs, steps_of((4, 0.5), (11, 0.75)), batch_size=25)
    assert seen == {3: 1, 6: 0.5, 9: 0.5, 12: 0.25}


def test_accumulated_gradients_count_one_step(dense_net, blobs):
    """TF-MOT: steps are counted in the forward pass, so a batch whose gradient is only accumulated counts as one."""
    masked = tfl.wrap(dense_net())
    masked.compile(keras.optimizers.Adam(gradient_accumulation_steps=3), LOSS)
    seen = densities(masked, *blobs, steps_of((2, 0.5), (4, 0.75)), batch_size=25)
    assert seen == {0: 1, 1: 1, 2: 0.5, 3: 0.5, 4: 0.25}
    assert_exactly_sparse(masked)


def test_skipped_steps_do_not_count(dense_net, blobs):
    """TF-MOT: steps are counted in the forward pass, so a step whose update loss scaling skips counts as one."""
    masked, x = tfl.wrap(dense_net()), blobs[0].copy()
    x[:50] = np.inf  # no finite gradient comes out of the first batch
    masked.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()), LOSS)
    seen = []
    look = AtBatchEnd(lambda step: seen.append((step, masks.density(tfl.get_masks(masked)))))
    pruning = tfl.callbacks.PruneBySchedule(steps_of((1, 0.5), (6, 0.75)))
    masked.fit(x, blobs[1], batch_size=50, epochs=2, shuffle=False, verbose=0, callbacks=[pruning, look])
    assert seen == [(0, 1)] + [(step, 0.5) for step in (1, 2, 3, 4, 5, 5)] + [(step, 0.25) for step in range(6, 11)]


# Models and layers


class MyDense(L.Dense):
    """A layer that is a Dense, but not of exactly that class."""


class Block(L.Layer):
    """A layer with layers inside."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inside = [L.Dense(4, name="a"), MyDense(4, name="b")]

    def build(self, shape):
        for layer in self.inside:
            layer.build(shape)
            shape = layer.compute_output_shape(shape)

    def call(self, x):
        return self.inside[1](self.inside[0](x))


class Told(L.Layer):
    """A layer that says itself what is pruned, as TF-MOT's `PrunableLayer`: a variable that is no kernel by name."""

    def build(self, shape):
        self.table = self.add_weight(shape=(shape[-1], 4), name="table")

    def call(self, x):
        return keras.ops.matmul(x, self.table)

    def get_prunable_weights(self):
        return [self.table]


def called_with_itself(layer):
    return lambda x: layer(x, x)


# By the shape of their input: layers that TF-MOT refuses or refused, and how many kernels each has.
LAYERS = {
    (8, 8, 3): lambda: [
        (L.BatchNormalization(), 0),
        (L.CenterCrop(4, 4), 0),
        (L.DepthwiseConv2D(3), 0),
        (L.RandomContrast(0.1), 0),
        (L.RandomFlip(), 0),
        (L.Rescaling(1 / 255), 0),
        (L.Resizing(4, 4), 0),
        (L.SeparableConv2D(4, 3), 1),
    ],
    (6, 4): lambda: [
        (lambda x: L.AdditiveAttention()([x, x]), 0),
        (lambda x: L.Attention()([x, x]), 0),
        (L.Bidirectional(L.SimpleRNN(2)), 4),
        (L.Conv1DTranspose(2, 3), 1),
        (L.DepthwiseConv1D(3), 0),
        (L.EinsumDense("abc,cd->abd", (6, 5)), 1),
        (L.GRU(3), 2),
        (L.GroupNormalization(2), 0),
        (called_with_itself(L.MultiHeadAttention(2, 2)), 4),
        (L.TimeDistributed(L.Dense(3)), 1),
    ],
    (2, 6, 2): lambda: [(L.ConvLSTM1D(2, 3), 2)],
    (4,): lambda: [
        (Block(), 2),
        (lambda x: L.CategoryEncoding(3, "count")(keras.ops.cast(x, "int32")), 0),
        (lambda x: keras.ops.cast(L.Discretization([0.0, 1.0])(x), "float32"), 0),
        (L.Identity(), 0),
        (MyDense(3), 1),
        (L.Normalization(mean=0.5, variance=2.0), 0),
        (L.PReLU(), 0),
        (L.SpectralNormalization(L.Dense(5)), 1),
        (Told(), 1),
        (L.UnitNormalization(), 0),
        (lambda x: keras.ops.exp(x * 0.1 + 1)[:, :3], 0),
        (L.Lambda(tf.nn.relu), 0),
    ],
}


@pytest.mark.parametrize("shape", LAYERS, ids=lambda shape: f"rank{len(shape)}")
def test_no_layer_is_refused(shape, rng):
    """TF-MOT issues 6, 39, 165, 374, 638, 864, 875 and 1051: one layer of a class it does not know fails the whole model."""
    inputs, layers = keras.Input(shape), LAYERS[shape]()
    flat = [L.Flatten()(layer(inputs)) for layer, _ in layers]
    model = keras.Model(inputs, L.Dense(2)(L.Concatenate()(flat) if len(flat) > 1 else flat[0]))
    x = rng.uniform(0, 2, (4, *shape)).astype("float32")
    expected = model(x, training=False)  # or layers of chance would have their way
    assert np.array_equal(tfl.wrap(model)(x, training=False), expected)
    masked = half_pruned(model)
    assert len(raw(masked)) == sum(kernels for _, kernels in layers) + 1
    before = raw(masked)
    masked.compile("sgd", "mse", run_eagerly=True)
    masked.fit(x, np.ones((4, 2)), batch_size=2, verbose=0)
    assert_exactly_sparse(masked)
    assert any((values != before[path]).any() for path, values in raw(masked).items())


class Loose(keras.Model):
    """A subclassed model with a nested model inside."""

    def __init__(self, base):
        super().__init__()
        self.base, self.head = base, L.Dense(3)

    def call(self, x):
        return self.head(tf.nn.relu(self.base(x)))


def test_nested_and_subclassed_models_are_pruned_as_a_whole(blobs):
    """TF-MOT issues 155, 965, 662, 40 and 656: subclassed models are refused, models within models cannot be pruned whole."""
    model = Loose(keras.Sequential([keras.Input((6,)), Block(), keras.Sequential([L.Dense(5), L.Dense(5)])]))
    model(blobs[0][:1])
    masked = half_pruned(model)
    assert len(tfl.get_masks(masked)) == 5
    masked.compile("adam", LOSS)
    masked.fit(*blobs, verbose=0)
    assert tfl.strip(masked) is model
    assert_exactly_sparse(masked)
    assert all((values != 0).any() for values in raw(masked).values())


def test_outputs_and_metrics_keep_their_names(blobs):
    """TF-MOT issue 28: outputs and metrics are renamed to `prune_low_magnitude_...`, which breaks dicts of losses."""
    inputs = keras.Input((6,))
    model = keras.Model(inputs, {name: L.Dense(3, name=name)(inputs) for name in ("first", "second")})
    layers, paths = [layer.name for layer in model.layers], [v.path for v in model.variables]
    masked = tfl.wrap(model)
    assert masked.name == model.name and masked.output_names == model.output_names
    masked.compile("sgd", {"first": LOSS, "second": LOSS}, metrics={"first": ["accuracy"]})
    y = {"first": blobs[1], "second": blobs[1]}
    assert set(masked.fit(blobs[0], y, verbose=0).history) == {"first_accuracy", "first_loss", "loss", "second_loss"}
    assert set(masked(blobs[0])) == {"first", "second"}
    assert [layer.name for layer in tfl.strip(masked).layers] == layers and [v.path for v in model.variables] == paths


def test_a_stripped_model_can_be_cut(dense_net, blobs):
    """TF-MOT issue 1063: strip_pruning takes the input layer off, so a part of the model cannot be cut out of it."""
    inside = keras.Sequential([keras.Input((6,)), tfl.MaskedLayer(L.Dense(8, name="hidden")), L.Dense(3)])
    for pruned in (half_pruned(dense_net()), inside):
        plain = tfl.strip(pruned)
        part = keras.Model(plain.inputs, plain.get_layer("hidden").output)
        outputs = part.predict(blobs[0], verbose=0)
        assert np.allclose(plain.layers[-1](outputs), pruned(blobs[0]), atol=1e-5)


def test_the_original_is_what_is_pruned_unless_it_is_cloned(dense_net, blobs):
    """TF-MOT issue 570: whether the original, the pruned and the stripped model are one or three is anybody's guess."""
    original = dense_net()
    before, copy = state.get_values(original), keras.models.clone_model(original)
    copy.set_weights(original.get_weights())
    pruned = tfl.prune(copy, 0.5)
    pruned.compile("adam", LOSS, run_eagerly=True)
    pruned.fit(*blobs, verbose=0)
    assert same(state.get_values(original), before)  # a clone's training does not touch it
    assert tfl.strip(pruned) is copy and tfl.strip(tfl.wrap(original)) is original  # and there is no third model


def test_tickets_are_copies(dense_net, blobs):
    """TF-MOT: models share layers, so what was kept of an earlier state changes with the training that follows."""
    masked = tfl.wrap(dense_net())
    masked.compile("adam", LOSS, run_eagerly=True)
    search = tfl.callbacks.LotteryTicket(tfl.LotterySchedule(levels=1, steps_per_level=3))
    masked.fit(*blobs, batch_size=100, epochs=2, verbose=0, callbacks=[search])
    ticket = search.tickets[-1]
    kept = [{path: a.copy() for path, a in arrays.items()} for arrays in (ticket.masks, ticket.initial, ticket.final)]
    masked.fit(*blobs, verbose=0)
    tfl.prune(masked, 0.1)
    assert all(map(same, kept, (ticket.masks, ticket.initial, ticket.final)))


# Precision


def test_mixed_float16_models_train(blobs):
    """TF-MOT issue 409: with the policy mixed_float16, tensors of two dtypes meet in the wrapper."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = keras.Sequential([keras.Input((6,)), L.Dense(16, "relu"), L.Dense(3, dtype="float32")])
        masked = tfl.wrap(model)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.layers[0].compute_dtype == "float16"
    masked.compile(keras.optimizers.Adam(0.01), LOSS)
    pruning = tfl.callbacks.PruneBySchedule(steps_of((4, 0.5)))
    masked.fit(*blobs, batch_size=50, epochs=4, verbose=0, callbacks=[pruning])
    assert int(masked.optimizer.iterations) > 4 and masks.density(tfl.get_masks(masked)) == 0.5
    assert {values.dtype.name for values in raw(masked).values()} == {"float32"}
    assert_exactly_sparse(masked)
    tfl.prune(masked, 0.25)  # ranks the float32 weights, not the float16 ones that the layers compute with
    for (path, values), mask in zip(raw(masked).items(), tfl.get_masks(masked).values()):
        assert np.array_equal(values != 0, mask == 1), path


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_masks_have_the_dtype_of_the_weights(dtype, blobs, tmp_path):
    """TF-MOT issue 409: the mask's dtype is taken from the layer's policy, or from a cast weight, and not from the variable."""
    model = keras.Sequential([keras.Input((6,)), L.Dense(16, "relu", dtype=dtype), L.Dense(3)])
    masked = half_pruned(model)
    masked.compile("sgd", LOSS, run_eagerly=True)
    masked.fit(*blobs, verbose=0)
    assert_exactly_sparse(masked)
    masked.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert [values.dtype.name for values in raw(again).values()] == [dtype, "float32"]
    assert np.array_equal(again.predict(blobs[0], verbose=0), masked.predict(blobs[0], verbose=0))
    assert {mask.dtype.name for mask in tfl.get_masks(masked).values()} == {"uint8"}


def test_nearly_equal_weights_are_ranked_in_the_precision_they_are_stored_in():
    """TF-MOT issue 409: ranked as float16, the wrong weights would be pruned."""
    model = keras.Sequential([keras.Input((2,)), L.Dense(8, dtype="mixed_float16")])
    values = (1 + np.arange(16) * 1e-6).reshape(2, 8).astype("float32")
    model.layers[0].kernel.assign(values)
    assert np.array_equal(tfl.get_masks(tfl.prune(model, 0.5)).popitem()[1], [[0] * 8, [1] * 8])


# Files

FILES = ["keras", "weights.h5", "checkpoint"]


def save(masked, kind, folder):
    if kind == "keras":
        masked.save(folder / "m.keras")
    elif kind == "weights.h5":
        masked.save_weights(folder / "m.weights.h5")
    else:
        tf.train.Checkpoint(model=masked, optimizer=masked.optimizer).write(str(folder / "m"))


def restore(kind, folder, build):
    """The saved model; `build` makes a compiled one for files that hold the weights only."""
    if kind == "keras":
        return keras.models.load_model(folder / "m.keras")
    again = build()
    again.optimizer.build(again.trainable_variables)
    if kind == "weights.h5":
        again.load_weights(folder / "m.weights.h5")
    else:
        checkpoint = tf.train.Checkpoint(model=again, optimizer=again.optimizer)
        checkpoint.read(str(folder / "m")).assert_existing_objects_matched()
    return again


@pytest.mark.parametrize("kind", FILES)
def test_checkpoints_are_sparse(kind, dense_net, blobs, tmp_path):
    """TF-MOT issues 206 and 205: ModelCheckpoint saves the weights as the optimizer left them, before they are masked again."""

    def build(seed=1):
        masked = tfl.wrap(dense_net(seed))
        masked.compile(keras.optimizers.Adam(0.01), LOSS, run_eagerly=True)
        return masked

    class Checkpoints(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            (tmp_path / str(batch + 1)).mkdir()
            save(self.model, kind, tmp_path / str(batch + 1))

    pruning = tfl.callbacks.PruneBySchedule(steps_of((2, 0.5), (4, 0.75)))
    build(0).fit(*blobs, batch_size=60, verbose=0, callbacks=[pruning, Checkpoints()])
    for batch, density in ((1, 1.0), (2, 0.5), (3, 0.5), (4, 0.25), (5, 0.25)):
        again = restore(kind, tmp_path / str(batch), build)
        assert masks.density(tfl.get_masks(again)) == density
        assert_exactly_sparse(again)


def test_model_checkpoint_saves_sparse_models_in_any_order_of_callbacks(rng, tmp_path):
    """TF-MOT issues 206 and 944: what ModelCheckpoint saves depends on when the callbacks run, and on a GRU it fails."""
    masked = tfl.wrap(keras.Sequential([keras.Input((4, 3)), L.GRU(4), L.Dense(2)]))
    masked.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=True)
    x = rng.normal(size=(20, 4, 3)).astype("float32")
    saving = [keras.callbacks.ModelCheckpoint(tmp_path / (name + "{epoch}.keras")) for name in "ab"]
    pruning = tfl.callbacks.PruneBySchedule(steps_of((2, 0.5), (4, 0.75)))
    callbacks = [saving[0], pruning, saving[1]]
    history = masked.fit(x, x[:, 0, :2], batch_size=10, epochs=2, verbose=0, callbacks=callbacks).history
    assert history["density"] == [0.5, 0.25]
    for file, density in (("a1", 0.5), ("b1", 0.5), ("a2", 0.25), ("b2", 0.25)):
        again = keras.models.load_model(tmp_path / f"{file}.keras")
        assert masks.density(tfl.get_masks(again)) == density
        assert_exactly_sparse(again)


@pytest.mark.parametrize("kind", FILES)
def test_a_schedule_goes_on_where_the_saved_model_was(kind, dense_net, blobs, tmp_path):
    """TF-MOT: the tests of restarting are disabled since TensorFlow 2.2, as a SavedModel does not preserve the step."""
    schedule = tfmot.sparsity.keras.PolynomialDecay(0.0, 0.8, begin_step=2, end_step=9, frequency=1)

    def build(seed=1):
        masked = tfl.wrap(dense_net(seed))
        masked.compile(keras.optimizers.Adam(0.01), LOSS, run_eagerly=True)
        return masked

    def fit(masked, epochs):
        pruning = tfl.callbacks.PruneBySchedule(schedule)
        masked.fit(*blobs, batch_size=60, shuffle=False, epochs=epochs, verbose=0, callbacks=[pruning])
        return masked

    whole, first = fit(build(0), 2), fit(build(0), 1)
    save(first, kind, tmp_path)
    again = restore(kind, tmp_path, build)
    assert int(again.optimizer.iterations) == 5
    fit(again, 1)
    for a, b in ((tfl.get_masks(whole), tfl.get_masks(again)), (state.get_values(whole), state.get_values(again))):
        assert all(map(np.array_equal, a.values(), b.values()))


@pytest.mark.parametrize("kind", ["weights.h5", "checkpoint"])
def test_weights_of_an_unpruned_model_can_be_loaded(kind, dense_net, blobs, tmp_path):
    """TF-MOT: loading an unpruned model's H5 weights into a pruned model fails, and its TensorFlow checkpoint changes nothing."""
    dense, masked = dense_net(seed=3), half_pruned(dense_net())
    dense.compile("adam", LOSS)
    save(dense, kind, tmp_path)
    if kind == "weights.h5":
        masked.model.load_weights(tmp_path / "m.weights.h5")
    else:
        tf.train.Checkpoint(model=masked.model).read(str(tmp_path / "m")).assert_existing_objects_matched()
    expected = tfl.Ticket(alternating(masked), half_values(dense, masked)).apply(dense_net())(blobs[0])
    assert np.allclose(masked(blobs[0]), expected, atol=1e-6)
    assert same(tfl.get_masks(masked), alternating(masked))
    tfl.strip(masked)
    assert_exactly_sparse(masked)


def half_values(model, masked):
    """The model's values with zeros where the wrapped one is pruned."""
    present = tfl.get_masks(masked)
    return {path: value * present.get(path, 1) for path, value in state.get_values(model).items()}


def test_weights_can_be_read_and_set_with_their_masks(dense_net, blobs):
    """TF-MOT: `get_weights` and `set_weights` of a pruned layer leave out its masks."""
    masked, other = half_pruned(dense_net()), tfl.wrap(dense_net(seed=1))
    other.set_weights(masked.get_weights())
    assert same(tfl.get_masks(masked), tfl.get_masks(other)) and np.array_equal(masked(blobs[0]), other(blobs[0]))


def test_an_exported_model_holds_no_masks(dense_net, blobs, tmp_path):
    """TF-MOT issue 162: masks and thresholds ship with the model; assignments in the graph stop its conversion to TFLite."""
    masked = half_pruned(dense_net())
    masked.compile("adam", LOSS)
    masked.fit(*blobs, verbose=0)
    masked.export(tmp_path / "m", verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "m"))
    assert np.allclose(loaded.serve(blobs[0]), masked(blobs[0]), atol=1e-6)
    stored = [v.numpy() for v in loaded.variables]
    assert sorted(v.size for v in stored) == sorted(v.size for v in state.get_values(masked).values())
    kept = {mask.shape: mask for mask in tfl.get_masks(masked).values()}
    for value in stored:
        if value.shape in kept:
            assert np.array_equal(value != 0, kept[value.shape] == 1)
    definitions = loaded.signatures["serving_default"].graph.as_graph_def()
    nodes = [*definitions.node, *(node for function in definitions.library.function for node in function.node_def)]
    assert any(node.op == "MatMul" for node in nodes) and not any("Assign" in node.op for node in nodes)


def test_pruning_makes_no_file_larger(dense_net, blobs, tmp_path):
    """TF-MOT issues 162, 722 and 760: a pruned model's file is as large as before, or four times that with masks and optimizer."""
    model = dense_net(units=2000)
    model.save(tmp_path / "dense.keras")
    masked = tfl.prune(model, 0.1)
    masked.compile("adam", LOSS, run_eagerly=True)
    masked.fit(*blobs, batch_size=300, verbose=0)
    tfl.strip(masked).save(tmp_path / "sparse.keras")
    tfl.Ticket(tfl.get_masks(masked), state.get_values(masked)).save(tmp_path / "sparse.ticket")
    dense, sparse, ticket = (
        (tmp_path / name).stat().st_size for name in ("dense.keras", "sparse.keras", "sparse.ticket")
    )
    kernels, others = 2000 * 9, 2003
    assert sparse <= dense
    assert ticket < 4 * (0.1 * kernels + others) + kernels / 8 + 4000  # kept weights, a bit for each weight, a header
    with zipfile.ZipFile(tmp_path / "zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.write(tmp_path / "sparse.keras")
    assert (tmp_path / "zip").stat().st_size < 0.5 * dense


def test_a_stripped_model_is_fine_tuned_with_its_zeros(dense_net, blobs, tmp_path):
    """tensorflow/tensorflow issue 59868: no way to retrain a stripped model so that its zeros stay and no wrapper does."""
    tfl.strip(tfl.prune(dense_net(), 0.25)).save(tmp_path / "m.keras")
    plain = keras.models.load_model(tmp_path / "m.keras")
    before = state.get_values(plain)
    masked = tfl.wrap(plain, keep_zeros=True)
    masked.compile(keras.optimizers.AdamW(0.05), LOSS, run_eagerly=True)
    masked.fit(*blobs, epochs=2, verbose=0)
    stripped = tfl.strip(masked)
    assert stripped is plain and type(stripped) is keras.Sequential
    assert [type(layer) for layer in stripped.layers] == [L.Dense, L.Dense]
    for path, value in state.get_values(stripped).items():
        if path.endswith("kernel"):
            assert np.array_equal(value == 0, before[path] == 0) and (value == 0).mean() == 0.75
        assert (value != before[path]).any()


@pytest.mark.parametrize("kind", ["h5", "keras", "tf"])
def test_a_custom_schedule_is_loaded_with_the_model(kind, tmp_path):
    """TF-MOT: `PruneLowMagnitude.from_config` knows two schedules, and any other one is an unknown object."""
    schedule = tfl.LotterySchedule(levels=2, steps_per_level=3, prune_fraction=[0.5, 0.25], warm_up=1)
    model = tf_keras.Sequential([tf_keras.layers.Dense(4, input_shape=(6,)), tf_keras.layers.Dense(3)])
    pruned = tfmot.sparsity.keras.prune_low_magnitude(model, pruning_schedule=schedule)
    pruned.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
    pruned.fit(x, x[:, :3], batch_size=8, verbose=0, callbacks=[tfmot.sparsity.keras.UpdatePruningStep()])
    file = str(tmp_path / ("m" if kind == "tf" else f"m.{kind}"))
    pruned.save(file, save_format=kind)
    with tfl.tfmot.prune_scope():
        again = tf_keras.models.load_model(file)
    for old, new in zip(pruned.layers, again.layers):
        assert new.pruning_schedule.get_config() == schedule.get_config()
        assert np.array_equal(old.pruning_vars[0][1], new.pruning_vars[0][1])
        assert np.mean(new.pruning_vars[0][1]) == 0.5 and int(new.pruning_step) == 4
    again.fit(x, x[:, :3], batch_size=8, verbose=0, callbacks=[tfmot.sparsity.keras.UpdatePruningStep()])


class Interrupted(Exception):
    pass


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    """A function that runs a search on the same three levels of four steps, and saves and breaks off where it is told to."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6)).astype("float32"), rng.integers(0, 3, 40)

    def build(seed=1):
        glorot = [keras.initializers.GlorotNormal(seed=2 * seed + i) for i in range(2)]
        layers = [L.Dense(units, kernel_initializer=init, name=f"d{units}") for units, init in zip((8, 3), glorot)]
        masked = tfl.wrap(keras.Sequential([keras.Input((6,)), *layers], name="net"))
        masked.compile(keras.optimizers.Adam(0.01), LOSS, run_eagerly=True)  # a few steps are not worth a graph
        return masked

    def run(folder, masked=None, stop_at=None, kind="keras"):
        masked, batches = masked or build(0), iter(range(1, 100))
        schedule = tfl.LotterySchedule(levels=2, steps_per_level=4, prune_fraction=0.5)
        callback = tfl.callbacks.LotteryTicket(schedule, rewind_to=1, directory=folder / "tickets")

        def look(_):
            if next(batches) == stop_at:
                save(masked, kind, folder)
                raise Interrupted

        callbacks = [callback, AtBatchEnd(look)]
        masked.fit(x, y, batch_size=40, epochs=12, shuffle=False, verbose=0, callbacks=callbacks)
        return callback.tickets

    run.build, run.expected = build, run(tmp_path_factory.mktemp("whole"))
    return run


@pytest.mark.parametrize(("step", "kind"), [(1, "keras"), (3, "checkpoint"), (4, "keras"), (6, "keras"), (12, "keras")])
def test_an_interrupted_search_goes_on(step, kind, search, tmp_path):
    """TF-MOT issues 418 and 1: a model that was saved in the middle of pruning cannot go on, and knows no rewinding point."""
    with pytest.raises(Interrupted):
        search(tmp_path, stop_at=step, kind=kind)
    found = search(tmp_path, restore(kind, tmp_path, search.build))
    assert [ticket.level for ticket in found] == [0, 1, 2]
    assert [ticket.metrics["steps"] for ticket in found] == [4, 4, 4]
    for a, b in zip(search.expected, found):
        for old, new in ((a.masks, b.masks), (a.initial, b.initial), (a.final, b.final)):
            assert all(map(np.array_equal, old.values(), new.values())), a.level


@pytest.mark.filterwarnings("ignore:fit ended in level")
def test_a_search_goes_on_from_fit_to_fit(dense_net, blobs, tmp_path):
    """TF-MOT issue 1: no search at all; one that is spread over several calls of fit must lose no level."""
    masked = tfl.wrap(dense_net())
    masked.compile("adam", LOSS, run_eagerly=True)
    schedule = tfl.LotterySchedule(levels=2, steps_per_level=2, prune_fraction=0.5)
    search = tfl.callbacks.LotteryTicket(schedule, directory=tmp_path)
    seen = []
    for _ in range(3):
        masked.fit(*blobs, batch_size=150, verbose=0, callbacks=[search])
        seen.append(masks.density(tfl.get_masks(masked)))
    assert seen == [1.0, 0.5, 0.25] and [ticket.level for ticket in search.tickets] == [0, 1, 2]


def test_checkpoints_find_their_masks_under_automatic_names(tmp_path):
    """TF-MOT: a TensorFlow checkpoint that does not fit is read without effect and without a word."""

    def build():
        return tfl.wrap(keras.Sequential([keras.Input((6,)), L.Dense(8), L.Dense(3)]))

    masked = build()
    tfl.set_masks(masked, alternating(masked))
    tf.train.Checkpoint(model=masked).write(str(tmp_path / "m"))
    again = build()  # Keras numbers its layers on
    tf.train.Checkpoint(model=again).read(str(tmp_path / "m")).assert_existing_objects_matched()
    assert all(map(np.array_equal, tfl.get_masks(again).values(), tfl.get_masks(masked).values()))


# TF-MOT's own models, the process, several replicas, TensorBoard


def tf_keras_model(layers, schedule):
    pruned = tfmot.sparsity.keras.prune_low_magnitude(tf_keras.Sequential(layers), pruning_schedule=schedule)
    pruned.compile("adam", "mse")
    return pruned


def test_stripped_tf_keras_models_are_sparse_and_counted_exactly(rng):
    """TF-MOT: its callback masks at the end of an epoch only, stripping applies no mask, and counts depend on ties."""
    layers = [tf_keras.layers.Dense(10, input_shape=(6,)), tf_keras.layers.Dense(3, kernel_initializer="zeros")]
    pruned = tf_keras_model(layers, tfl.LotterySchedule(levels=2, steps_per_level=3, prune_fraction=0.5))
    x = rng.normal(size=(36, 6)).astype("float32")
    search = tfl.tfmot.RewindSurvivors()
    pruned.fit(x, x[:, :3], batch_size=4, verbose=0, callbacks=[search])
    stripped = tfmot.sparsity.keras.strip_pruning(pruned)
    for layer, mask in zip(stripped.layers, search.tickets[-1].masks.values()):
        assert mask.mean() == pytest.approx(0.25, abs=0.5 / mask.size)
        assert not layer.kernel.numpy()[mask == 0].any() and layer.kernel.numpy().any()


def test_a_shared_tf_keras_layer_is_refused_by_name(rng):
    """TF-MOT issue 270: a layer that is called twice a step is pruned too early, or fails with a hint at the wrong cause."""
    schedule = tfl.LotterySchedule(levels=1, steps_per_level=2)
    twin = tfmot.sparsity.keras.prune_low_magnitude(tf_keras.layers.Dense(6, name="twin"), pruning_schedule=schedule)
    inputs = tf_keras.Input((6,))
    model = tf_keras.Model(inputs, twin(twin(inputs)))
    model.compile("sgd", "mse")
    x = rng.normal(size=(32, 6)).astype("float32")
    with pytest.raises(tfl.LotteryError, match="'twin' was called 2 times"):
        model.fit(x, x, batch_size=4, verbose=0, callbacks=[tfl.tfmot.RewindSurvivors()])


def test_summaries_of_one_layer_do_not_overwrite_each_other(rng, tmp_path):
    """TF-MOT: `PruningSummaries` names each entry after `mask:0`, so the kernels of an LSTM replace one another."""
    model = keras.Sequential([keras.Input((4, 3)), L.LSTM(5, name="lstm"), L.Dense(2, name="head")], name="net")
    masked = half_pruned(model)
    masked.compile("sgd", "mse", run_eagerly=True)
    x = rng.normal(size=(8, 4, 3)).astype("float32")
    masked.fit(x, x[:, 0, :2], epochs=2, verbose=0, callbacks=[tfl.callbacks.PruningSummaries(tmp_path)])
    (file,) = (tmp_path / "pruning").iterdir()
    seen = {}
    for event in tf.compat.v1.train.summary_iterator(str(file)):
        for value in event.summary.value:
            seen.setdefault(value.tag, {})[event.step] = tf.make_ndarray(value.tensor)
    paths = list(tfl.get_masks(masked))
    assert paths == ["net/lstm/lstm_cell/kernel", "net/lstm/lstm_cell/recurrent_kernel", "net/head/kernel"]
    expected = {f"{kind}/{path}" for kind in ("density", "threshold", "mask") for path in paths} | {"density"}
    assert set(seen) == expected
    assert all(set(points) == {0, 1} for points in seen.values())
    for path, values in raw(masked).items():
        kept = tfl.get_masks(masked)[path] == 1
        assert seen[f"density/{path}"][1] == pytest.approx(kept.mean())
        assert seen[f"threshold/{path}"][1] == pytest.approx(np.abs(values[kept]).min())


PROCESS = """
import json, os, sys
import keras
model = keras.models.load_model(sys.argv[1])
loaded = "tf_lottery" in sys.modules
before = dict(os.environ)
import tf_lottery as tfl
tfl.LotterySchedule, tfl.callbacks, tfl.tfmot, tfl.wrap
after = dict(os.environ)
import tensorflow as tf
same = tf.keras.Model is keras.Model
print(json.dumps({"loaded": loaded, "environment": before == after, "keras": same, "zeros": float((model.layers[0].kernel.numpy() == 0).mean())}))
"""


def test_the_process_stays_as_it_is_and_stripped_files_need_no_library(dense_net, tmp_path):
    """TF-MOT: importing it sets TF_USE_LEGACY_KERAS and swaps tf.keras; its files are an "Unknown layer: PruneLowMagnitude"."""
    tfl.strip(tfl.prune(dense_net(), 0.25)).save(tmp_path / "m.keras")
    seen = python(PROCESS, tmp_path / "m.keras")
    assert seen == {"loaded": False, "environment": True, "keras": True, "zeros": 0.75}


REPLICAS = """
import json, traceback
import numpy as np, tensorflow as tf
device, logical = tf.config.list_physical_devices("CPU")[0], tf.config.LogicalDeviceConfiguration()
tf.config.set_logical_device_configuration(device, [logical] * 2)
import keras, tf_lottery as tfl
from tf_lottery.masking import state
tf_keras, tfmot = tfl.tfmot.tf_keras, tfl.tfmot.tfmot
rng = np.random.default_rng(0)
x, y = rng.normal(size=(48, 6)).astype("float32"), rng.integers(0, 3, 48)
table = {2: 0.5, 5: 0.75}
options = {"batch_size": 8, "shuffle": False, "verbose": 0}

def network(keras):
    glorot = [keras.initializers.GlorotNormal(seed=i) for i in range(2)]
    layers = [keras.layers.Dense(n, kernel_initializer=k) for n, k in zip((8, 3), glorot)]
    model = keras.Sequential([keras.Input((6,)), *layers])
    return model, keras.optimizers.SGD(0.1, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True)

def wrapped(strategy):
    with strategy.scope():
        model, *how = network(keras)
        masked = tfl.wrap(model)
        masked.compile(*how)
    return masked

def pruned(strategy, criterion):
    masked = wrapped(strategy)
    schedule = lambda step: (int(step) in table, table.get(int(step), 0.0))
    masked.fit(x, y, **options, callbacks=[tfl.callbacks.PruneBySchedule(schedule, criterion=criterion)])
    return masked

def searched(strategy):
    masked = wrapped(strategy)
    search = tfl.callbacks.LotteryTicket(tfl.LotterySchedule(levels=2, steps_per_level=6, prune_fraction=0.5))
    masked.fit(x, y, epochs=3, **options, callbacks=[search])
    return search.tickets

def searched_by_tfmot(strategy):
    schedule = tfl.LotterySchedule(levels=2, steps_per_level=6, prune_fraction=0.5)
    with strategy.scope():
        model, *how = network(tf_keras)
        model = tfmot.sparsity.keras.prune_low_magnitude(model, pruning_schedule=schedule)
        model.compile(*how)
    search = tfl.tfmot.RewindSurvivors()
    model.fit(x, y, epochs=3, **options, callbacks=[search])
    return search.tickets

def alone_and_on_two(function, *arguments):
    for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
        yield function(strategy, *arguments)

def copies(variable):
    return [np.asarray(v) for v in getattr(variable.value, "values", [variable.value])]

def near(a, b):
    return all(np.allclose(v, w, atol=1e-5) for v, w in zip(a.values(), b.values()))

def equal(a, b):
    return all(map(np.array_equal, a.values(), b.values()))

def gradual(criterion):
    one, two = alone_and_on_two(pruned, criterion)
    slots = [v for v in two.optimizer.variables if len(v.shape) == 2]
    parts = [copies(v) for v in [*(kernel.variable for kernel in two.kernels), *two._masks, *slots]]
    return {
        "copies": [len(part) for part in parts],
        "agree": all(np.array_equal(*part) for part in parts),
        "as alone": equal(tfl.get_masks(one), tfl.get_masks(two)) and near(state.get_values(one), state.get_values(two)),
        "sparse": all(not part[0][m == 0].any() for part, m in zip(parts, tfl.get_masks(two).values())),
        "density": [float(m.mean()) for m in tfl.get_masks(two).values()],
    }

def search(function):
    pairs = list(zip(*alone_and_on_two(function)))
    return [[b.density, equal(a.masks, b.masks) and near(a.initial, b.initial) and near(a.final, b.final)] for a, b in pairs]

seen = {}
for name, function, argument in (
    ("large_final", gradual, "large_final"),
    ("random", gradual, "random"),
    ("LotteryTicket", search, searched),
    ("RewindSurvivors", search, searched_by_tfmot),
):
    if name not in NAMES:
        continue
    try:
        seen[name] = function(argument)
    except Exception:
        seen[name] = traceback.format_exc()
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def replicas():
    """What came out on two logical devices, by the name of what ran there."""
    found = {}
    # The collectives of the two kinds of Keras disturb each other in one process.
    for names in (["large_final", "random", "LotteryTicket"], ["RewindSurvivors"]):
        run = forked.run(["-c", f"NAMES = {names}\n{REPLICAS}"])
        assert run.returncode == 0, run.stderr[-3000:]
        found |= json.loads(run.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("criterion", ["large_final", "random"])
def test_replicas_have_the_same_masks(criterion, replicas):
    """TF-MOT issue 4 and tensorflow/tensorflow issue 24043: masks on several replicas fail, and no test has two real ones."""
    expected = {"copies": [2] * 6, "agree": True, "as alone": True, "sparse": True, "density": [0.25, 0.25]}
    assert replicas[criterion] == expected


@pytest.mark.parametrize("callback", ["LotteryTicket", "RewindSurvivors"])
def test_replicas_search_as_one(callback, replicas):
    """TF-MOT: pruning under tf.distribute is tested with one layer on one real device; google-research/rigl issue 12."""
    assert replicas[callback] == [[density, True] for density in (1.0, 0.5, 0.25)]
