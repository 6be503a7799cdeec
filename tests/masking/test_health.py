"""What can go wrong in a level without an error is found, and said of the right kernel."""

import warnings

import keras
import numpy as np
import pytest

import tf_lottery as tfl
from tf_lottery.masking import health
from tf_lottery.masking.health import Connections

L = keras.layers


def reachable(masks):
    """Kernels of a chain of dense layers with a path through them, by plain matrix products of 0 and 1."""
    masks = list(masks)
    forward = [np.ones(masks[0].shape[0], bool)]
    for mask in masks:
        forward.append((forward[-1][:, None] & mask.astype(bool)).any(axis=0))
    backward = [np.ones(masks[-1].shape[1], bool)]
    for mask in reversed(masks):
        backward.append((mask.astype(bool) & backward[-1][None]).any(axis=1))
    backward.reverse()
    return [bool((f[:, None] & mask.astype(bool) & b[None]).any()) for f, mask, b in zip(forward, masks, backward[1:])]


def test_disconnected_kernels_of_a_dense_network_are_those_of_a_plain_search(rng):
    layers = [L.Dense(5, "tanh"), L.Dense(4, "relu"), L.Dense(5, "sigmoid"), L.Dense(3, "softmax")]
    masked = tfl.wrap(keras.Sequential([keras.Input((6,)), *layers]))
    connections, seen = Connections(masked), set()
    assert connections.lost(tfl.get_masks(masked)) == []
    for density in np.repeat([0.05, 0.1, 0.2], 15):
        masks = {path: (rng.random(m.shape) < density).astype(np.uint8) for path, m in tfl.get_masks(masked).items()}
        expected = [path for path, passed in zip(masks, reachable(masks.values())) if not passed]
        assert connections.lost(masks) == expected
        seen.add(len(expected))
    assert {0, 4} <= seen


def test_a_cut_branch_is_told_from_the_rest_of_a_residual_network():
    inputs = keras.Input((8, 8, 2))
    x = L.Conv2D(4, 3, padding="same", name="first")(inputs)
    y = L.ReLU()(L.BatchNormalization()(L.Conv2D(4, 3, padding="same", name="one")(x)))
    y = L.Conv2D(4, 3, padding="same", name="two")(y)
    x = L.GlobalAveragePooling2D()(L.Add()([x, y]))
    masked = tfl.wrap(keras.Model(inputs, L.Dense(3, name="output")(x)))
    masks, connections = tfl.get_masks(masked), Connections(masked)
    one = next(path for path in masks if "one" in path)
    two = next(path for path in masks if "two" in path)
    assert connections.lost(masks) == []
    masks[one][..., 0] = masks[one][..., 1] = 0
    masks[two][:, :, 2:] = 0
    assert connections.lost(masks) == [one, two]


def test_what_cannot_be_judged_is_not_called_disconnected():
    inputs = keras.Input((1, 4))  # a sequence of one: its recurrent kernel is never used
    recurrent = tfl.wrap(keras.Model(inputs, L.Dense(2)(L.LSTM(3)(inputs))))
    assert Connections(recurrent).lost(tfl.get_masks(recurrent)) == []
    inputs = keras.Input((4,))
    blind = tfl.wrap(keras.Model(inputs, L.Dense(2)(L.Lambda(lambda x: 0 * x)(L.Dense(3)(inputs)))))
    assert Connections(blind).lost(tfl.get_masks(blind)) == []


def test_a_model_is_as_it_was_after_a_look(dense_net):
    masked = tfl.wrap(dense_net())
    before = [value.copy() for value in masked.get_weights()]
    Connections(masked).lost(tfl.get_masks(masked))
    assert all(np.array_equal(a, b) for a, b in zip(before, masked.get_weights(), strict=True))


def test_dead_and_exploded_trainings_are_noted(dense_net, blobs):
    model, x = dense_net(), blobs[0]
    curve = [{"step": 10, "train_loss": 1.0}, {"step": 20, "train_loss": 100.0}]
    assert health.notes(model, [], x, curve, guessing=1.1) == []
    assert health.exploded(curve, guessing=0.9) == 20
    model.get_layer("hidden").bias.assign(np.full(16, -1e3, "float32"))  # relu lets nothing through
    found = health.notes(model, ["hidden/kernel"], x, curve, guessing=0.9)
    assert [note.partition(":")[0] for note in found] == ["disconnected", "dead", "exploded"]
    assert "hidden/kernel" in found[0] and "step 20" in found[2]


@pytest.mark.parametrize("criterion", ["random", "large_final"])
def test_a_search_to_the_last_weights_notes_the_level_that_disconnects(criterion, dense_net, blobs):
    trainer = tfl.Trainer(*blobs, steps=4, batch_size=20)
    tickets = list(tfl.find_ticket(dense_net(), trainer, levels=8, prune_fraction=0.5, criterion=criterion))
    masked = tfl.wrap(dense_net())
    lost = [Connections(masked).lost(ticket.masks) for ticket in tickets]
    expected = [[path for path, on in zip(t.masks, reachable(t.masks.values())) if not on] for t in tickets]
    assert lost == expected and lost[0] == []


# --- masks that do harm ----------------------------------------------------------------------------------------------


def told(make) -> list[str]:
    """The warnings of harm that something makes."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        make()
    return [str(w.message) for w in seen if issubclass(w.category, tfl.LotteryWarning) and "are kept" in str(w.message)]


def small_in_the_middle():
    """A network whose second kernel is a hundred times smaller than the others."""
    keras.utils.set_random_seed(0)
    layers = [L.Dense(32, "relu", name=name) for name in ("one", "small", "three")]
    model = keras.Sequential([keras.Input((16,)), *layers, L.Dense(4, name="out")], name="net")
    model.get_layer("small").kernel.assign(model.get_layer("small").kernel * 0.01)
    return model


def test_an_emptied_kernel_is_told_in_one_warning_with_numbers_and_the_way_out():
    model = small_in_the_middle()
    (words,) = told(lambda: tfl.prune(model, 0.2, scope="global"))
    assert "20 % are kept" in words and "net/small/kernel keeps 1 of 1,024 weights (0.098 %) for 32 outputs" in words
    assert "31 of 32 channels of net/small/kernel have no inputs" in words
    assert words.endswith("A larger density, scope='layer' or exclude for these kernels spares them.")
    assert not told(lambda: tfl.prune(small_in_the_middle(), 0.2))
    assert not told(lambda: tfl.prune(small_in_the_middle(), 0.2, scope="global", exclude="small"))


def test_less_than_a_weight_for_each_output_is_told():
    model = keras.Sequential([keras.Input((64,)), L.Dense(64, name="one"), L.Dense(64, name="two")], name="net")
    (words,) = told(lambda: tfl.prune(model, 0.01))
    assert "net/one/kernel keeps 41 of 4,096 weights (1 %) for 64 outputs" in words


def test_an_output_without_inputs_is_told_and_dead_inputs_and_a_few_units_are_not():
    model = keras.Sequential([keras.Input((40,)), L.Dense(20, "relu", name="one"), L.Dense(4, name="two")], name="net")
    first, second = (np.array(layer.kernel) for layer in model.layers)
    first[:19], first[:, :6], second[:6] = 0, 0, 0  # borders of images, and units that nobody needs
    model.set_weights([first, np.zeros(20), second, np.zeros(4)])
    assert not told(lambda: tfl.prune(model, {"one": 21 * 14 / 800, "two": 14 / 20}))
    second[:, 1] = 0
    model.set_weights([first, np.zeros(20), second, np.zeros(4)])
    model = keras.models.clone_model(model)
    model.set_weights([first, np.zeros(20), second, np.zeros(4)])
    (words,) = told(lambda: tfl.prune(model, {"one": 21 * 14 / 800, "two": 14 * 3 / 80}))
    assert "1 of 4 channels of net/two/kernel have no inputs" in words and "net/one" not in words


def test_a_network_that_no_signal_passes_is_told():
    model = keras.Sequential([keras.Input((8,)), L.Dense(8, name="one"), L.Dense(8, name="two")], name="net")
    one, two = np.full((8, 8), 0.01, "float32"), np.full((8, 8), 0.01, "float32")
    one[:, :4], two[4:] = 1, 1  # the units that the first makes are those that the second does not read
    model.set_weights([one, np.zeros(8), two, np.zeros(8)])
    (words,) = told(lambda: tfl.prune(model, 0.5))
    assert "no signal passes the network" in words
    assert "4 of 8 channels of net/one/kernel have no inputs" in words
    assert "4 of the 8 channels that net/two/kernel reads have no outputs" in words


def test_one_cut_branch_is_told_by_its_kernels():
    inputs = keras.Input((8,))
    branch = L.Dense(8, name="two")(L.Dense(8, name="one")(inputs))
    model = keras.Model(inputs, L.Dense(2, name="out")(L.Add()([inputs, branch])), name="net")
    one, two = np.full((8, 8), 0.01, "float32"), np.full((8, 8), 0.01, "float32")
    one[:, :4], two[4:] = 1, 1
    model.get_layer("one").kernel.assign(one)
    model.get_layer("two").kernel.assign(two)
    (words,) = told(lambda: tfl.prune(model, {"out": 1.0, "": 0.5}))
    assert "no signal passes one/kernel; no signal passes two/kernel" in words


def test_a_search_tells_each_thing_once(blobs):
    def train(model, callbacks):
        return {}

    def model():
        keras.utils.set_random_seed(0)
        small = L.Dense(12, "relu", kernel_initializer=keras.initializers.RandomNormal(stddev=1e-3), name="small")
        return keras.Sequential([keras.Input(blobs[0].shape[1:]), small, L.Dense(12), L.Dense(3)], name="net")

    def search(**options):
        return told(
            lambda: list(tfl.find_ticket(model(), train, levels=6, prune_fraction=0.4, scope="global", **options))
        )

    seen = search()
    assert sum("net/small/kernel keeps" in words for words in seen) == 1
    assert sum("channels of net/small/kernel have no inputs" in words for words in seen) == 1
    assert not any("net/small" in words for words in search(exclude="small"))


def test_a_warning_points_at_the_line_that_called_this_package_and_says_what_it_is_about():
    def train(model, callbacks):
        return {}

    with pytest.warns(health.MaskWarning) as seen:
        list(tfl.find_ticket(small_in_the_middle(), train, levels=1, prune_fraction=0.8, scope="global"))
    assert {warning.filename for warning in seen} == {__file__}
    (warning,) = seen
    assert {"emptied net/small/kernel", "inputs net/small/kernel"} <= set(warning.message.about)


@pytest.mark.parametrize("road", ["gradual", "one fit"])
def test_the_callbacks_tell_too(road, blobs):
    masked = tfl.wrap(small_in_the_middle())
    masked.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = np.random.default_rng(0).normal(size=(64, 16)).astype("float32")
    if road == "gradual":
        callback = tfl.callbacks.PruneBySchedule(lambda step: (True, min(0.8, 0.2 * int(step))), scope="global")
    else:
        schedule = tfl.LotterySchedule(levels=2, steps_per_level=2, prune_fraction=0.6)
        callback = tfl.callbacks.LotteryTicket(schedule, scope="global")
    seen = told(lambda: masked.fit(x, np.zeros(64), batch_size=8, verbose=0, callbacks=[callback]))
    assert sum("net/small/kernel keeps" in words for words in seen) == 1


def test_ordinary_searches_and_whole_channels_are_not_commented_on(dense_net, blobs):
    """LeNet's shapes down to 3.5 %, with inputs that are always zero; and channels that are pruned because they were asked for."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(256, 784)).astype("float32")
    x[:, :250] = 0
    y = np.random.default_rng(1).integers(0, 10, 256)
    layers = [L.Dense(300, "relu"), L.Dense(100, "relu"), L.Dense(10)]
    lenet = keras.Sequential([keras.Input((784,)), *layers])
    trainer = tfl.Trainer(x, y, steps=20, batch_size=64)
    rates = {"output": 0.1, "Dense": 0.2}
    assert not told(lambda: list(tfl.find_ticket(lenet, trainer, levels=15, prune_fraction=rates)))
    assert not told(lambda: tfl.prune(small_in_the_middle(), 0.25, scope="channels"))
    assert not told(lambda: tfl.prune(small_in_the_middle(), 0.25, block_size=(4, 4)))
    assert not told(lambda: tfl.prune(small_in_the_middle(), sparsity_m_by_n=(2, 4)))
