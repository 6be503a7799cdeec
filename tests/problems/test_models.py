"""The papers' networks: their weight counts, and the densities their rates give, to the digits the paper prints."""

import itertools

import keras
import numpy as np
import pytest

from tf_lottery.masking import weights
from tf_lottery.problems import models
from tf_lottery.rules import masks
from tf_lottery.tickets import recipes

PAPER = {  # weights % remaining at the start of the paper's lists; Frankle & Carbin (2019), Figure 2 and labels
    "lenet_300_100": "100 80.0 64.1 51.3 41.1 32.9 26.3 21.1 16.9 13.5 10.8 8.7 7.0 5.6 4.5 3.6 2.9 2.3 1.9 1.5 1.2 0.96 0.77 0.62 0.50",
    "conv2": "100 80.1 64.2 51.4 41.2 33.0 26.5 21.2 17.0 13.7 11.0 8.8 7.1 5.7 4.6 3.7 3.0 2.4 1.9 1.6 1.3 1.0 0.83 0.67 0.54",
    "conv4": "100 81.1 65.8 53.6 43.6 35.6 29.1 23.9 19.6 16.2 13.4 11.1 9.2 7.7 6.4 5.4 4.5 3.8 3.2 2.8 2.3 2.0 1.7 1.5 1.3",
    "conv6": "100 82.5 68.2 56.4 46.7 38.7 32.1 26.6 22.1 18.4 15.3 12.7 10.6 8.9 7.4 6.2 5.2 4.3 3.6 3.0 2.5 2.1 1.8 1.5 1.3",
}
COUNTS = {
    "residual_mlp": 275_000,
    "lenet_300_100": 266_200,
    "conv2": 4_300_992,
    "conv4": 2_425_024,
    "conv6": 2_261_184,
    "resnet18": 267_696 + 2_560 + 640,
    "vgg19": 20_018_880 + 5_120,
    "resnet8": 18_648 + 640 + 320,
    "conv2_dropout": 4_300_992,
    "conv4_dropout": 2_425_024,
    "conv6_dropout": 2_261_184,
}


def kernels_of(name):
    return weights.prunable_kernels(models.get(name)(seed=0))


@pytest.mark.parametrize("name", models.registry)
def test_weight_counts(name):
    kernels = kernels_of(name)
    assert sum(int(np.prod(kernel.variable.shape)) for kernel in kernels) == COUNTS[name]
    fractions = weights.prune_fractions(kernels, models.preset(name).prune_fraction)
    left_out = sum(int(np.prod(k.variable.shape)) for k in kernels if fractions[k.path] == 0)
    assert left_out == {"resnet18": 2_560 + 640, "resnet8": 640 + 320, "vgg19": 5_120}.get(name, 0)
    assert kernels[-1].is_output and "output" in kernels[-1].path


@pytest.mark.parametrize("name", PAPER)
def test_densities_of_24_rounds_are_the_papers_labels(name):
    kernels = kernels_of(name)
    fractions = weights.prune_fractions(kernels, models.preset(name).prune_fraction)
    now = {kernel.path: np.ones(kernel.variable.shape, np.uint8) for kernel in kernels}
    scores = {path: np.arange(mask.size, dtype=np.float32).reshape(mask.shape) for path, mask in now.items()}
    for level, label in enumerate(PAPER[name].split()):
        digits = len(label.partition(".")[2])
        assert abs(100 * masks.density(now) - float(label)) <= 0.51 * 10**-digits + 0.005, f"level {level}"
        now = masks.prune(now, scores, fractions)


@pytest.mark.parametrize("name", models.registry)
def test_weights_are_decided_by_the_seed(name):
    a, again, b = (models.get(name)(seed=seed).get_weights() for seed in (0, 0, 1))
    assert all(np.array_equal(x, y) for x, y in zip(a, again))
    random = [i for i, x in enumerate(a) if x.ndim > 1]
    assert all(not np.array_equal(a[i], b[i]) for i in random)
    by_shape = {}
    for i in random:
        by_shape.setdefault(a[i].shape, []).append(a[i])
    assert all(not np.array_equal(x, y) for same in by_shape.values() for x, y in itertools.pairwise(same))


def test_glorot_normal_everywhere_but_in_the_mlp():
    for name in set(models.registry) - {"residual_mlp"}:
        assert all(isinstance(k.layer.kernel_initializer, keras.initializers.GlorotNormal) for k in kernels_of(name))
    for kernel in kernels_of("residual_mlp"):
        values = np.asarray(kernel.variable)
        limit = values.shape[0] ** -0.5
        assert np.abs(values).max() <= limit and values.std() == pytest.approx(limit / 3**0.5, rel=0.05)


def test_kernels_can_be_drawn_anew():
    for name in models.registry:
        kernel = kernels_of(name)[0]
        assert recipes.draw(kernel, 1).shape == tuple(kernel.variable.shape)


def test_resnet_has_20_layers_and_decays_its_weights():
    kernels = kernels_of("resnet18")
    assert len([k for k in kernels if "shortcut" not in k.path]) == 20
    model = models.get("resnet18")(seed=0)
    norm = sum(float(np.sum(np.square(k.variable))) for k in weights.prunable_kernels(model))
    assert sum(map(float, model.losses)) == pytest.approx(0.5e-4 * norm, rel=1e-4)


def test_dropout_stands_before_each_dense_layer():
    model = models.get("conv2_dropout")(seed=0)
    after = {a.name for a, b in itertools.pairwise(model.layers) if isinstance(b, keras.layers.Dense)}
    assert after == {"dropout_1", "dropout_2", "dropout_3"} and all(
        layer.rate == 0.5 for layer in model.layers if layer.name in after
    )


def test_other_shapes_and_classes():
    assert models.get("lenet_300_100")(input_shape=(40,), classes=3, seed=0).output_shape == (None, 3)
    assert models.get("residual_mlp")(input_shape=(28, 28, 1), classes=10, seed=0).input_shape == (None, 28, 28, 1)
