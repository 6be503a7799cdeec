"""The papers' networks, each with the hyper-parameters of its paper.

Keras is imported where a network is built, not above: the command line lists the names without loading TensorFlow.

>>> lenet = registry["lenet_300_100"](input_shape=(28, 28, 1), classes=10, seed=0)
>>> sum(v.shape.num_elements() if hasattr(v.shape, "num_elements") else int(np.prod(v.shape)) for v in lenet.weights[::2])
266200
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_lottery.base.errors import LotteryError
from tf_lottery.base.registry import Registry

if TYPE_CHECKING:
    import keras

registry = Registry("model", "tf_lottery.models")
get = registry.get
OUTPUT = "float32"  # logits are computed in full precision where the other layers are not


@dataclass(frozen=True)
class Preset:
    """The defaults of `tf-lottery find` for one model. Steps are batches; rates and fractions are shares.

    `prune_fraction` is a number or a mapping as `weights.prune_fractions` reads it. The learning rate rises from 0 during
    `warmup` steps and is divided by ten at each of `lr_drops`.
    """

    dataset: str
    steps: int
    batch_size: int
    learning_rate: float
    optimizer: str = "adam"
    warmup: int = 0
    lr_drops: tuple[int, ...] = ()
    prune_fraction: float | Mapping[str, float] = field(
        default_factory=lambda: {"output": 0.1, "Conv2D": 0.1, "Dense": 0.2}
    )
    scope: str = "layer"
    levels: int = 24
    eval_every: int = 100
    test_every: int = 1_000
    augment: bool = False


def register(preset: Preset) -> Callable[[Callable], Callable]:
    """Registers a function `(input_shape, classes, seed) -> keras.Model` under its name, with its defaults."""

    def decorate(build: Any) -> Callable:
        build.preset = preset
        return registry.register(build)

    return decorate


def preset(name: str) -> Preset:
    """The defaults of a registered model.

    Raises:
      LotteryError: If the name is unknown, or the model was registered without them.
    """
    if name not in registry and name.endswith((".keras", ".h5", ".keras/")):
        raise LotteryError(
            f"Expected the name of a network ({', '.join(registry)}), but received the file {name!r}: `tf-lottery prune --keras={name}` "
            "prunes a model of your own, and a function that is registered in mine.py is found with --plugin=mine.py."
        )
    found = getattr(get(name), "preset", None)
    if not isinstance(found, Preset):
        raise LotteryError(
            f"Expected the model {name!r} to be registered by tf_lottery.models.register(Preset(...)), but it was not."
        )
    return found


def _seeds(seed: int) -> Iterator[int]:
    """A seed for each initializer of a network, all decided by one."""
    return map(int, np.random.SeedSequence(seed).generate_state(64))


@register(Preset("mnist1d", 1_500, 100, 2e-2, prune_fraction=0.2, levels=12, eval_every=50, test_every=50))
def residual_mlp(input_shape=(40,), classes=10, seed=0) -> keras.Model:
    """The MNIST-1D network of Greydanus & Kobak (arXiv 2011.14439): 500-500 units, the second layer residual.

    Kernels and biases start uniform in +-1/sqrt(fan_in), fan_in = 500 for the biases of the later layers.
    """
    import keras

    seeds = _seeds(seed)

    def dense(units, fan_in, **kwargs):
        limit = fan_in**-0.5
        uniform = [keras.initializers.RandomUniform(-limit, limit, seed=next(seeds)) for _ in range(2)]
        return keras.layers.Dense(units, kernel_initializer=uniform[0], bias_initializer=uniform[1], **kwargs)

    inputs = keras.Input(input_shape)
    x = keras.layers.Flatten()(inputs)
    x = dense(500, int(np.prod(input_shape)), activation="relu", name="dense_1")(x)
    x = keras.layers.Add()([x, dense(500, 500, activation="relu", name="dense_2")(x)])
    return keras.Model(inputs, dense(classes, 500, dtype=OUTPUT, name="output")(x), name="residual_mlp")


@register(Preset("mnist", 50_000, 60, 1.2e-3))
def lenet_300_100(input_shape=(28, 28, 1), classes=10, seed=0) -> keras.Model:
    """Lenet-300-100 of Frankle & Carbin (2019, Figure 2): 266,200 weights on MNIST."""
    return _plain("lenet_300_100", [], (300, 100), input_shape, classes, seed)


@register(Preset("cifar10", 20_000, 60, 2e-4))
def conv2(input_shape=(32, 32, 3), classes=10, seed=0) -> keras.Model:
    """Conv-2 of Frankle & Carbin (2019, Figure 2): 64-64-pool, 256-256-10; 4,300,992 weights on CIFAR-10."""
    return _plain("conv2", [64], (256, 256), input_shape, classes, seed)


@register(Preset("cifar10", 25_000, 60, 3e-4))
def conv4(input_shape=(32, 32, 3), classes=10, seed=0) -> keras.Model:
    """Conv-4 of Frankle & Carbin (2019, Figure 2): Conv-2 with 128-128-pool; 2,425,024 weights on CIFAR-10."""
    return _plain("conv4", [64, 128], (256, 256), input_shape, classes, seed)


@register(Preset("cifar10", 30_000, 60, 3e-4, prune_fraction={"output": 0.1, "Conv2D": 0.15, "Dense": 0.2}))
def conv6(input_shape=(32, 32, 3), classes=10, seed=0) -> keras.Model:
    """Conv-6 of Frankle & Carbin (2019, Figure 2): Conv-4 with 256-256-pool.

    Its layers have 2,261,184 weights on CIFAR-10, not the 1.7 million that the paper's table gives.
    """
    return _plain("conv6", [64, 128, 256], (256, 256), input_shape, classes, seed)


@register(Preset("cifar10", 60_000, 60, 3e-4))
def conv2_dropout(input_shape=(32, 32, 3), classes=10, seed=0) -> keras.Model:
    """Conv-2 with dropout of 0.5 before each dense layer, trained three times as long: Frankle & Carbin (2019), section 3.

    The paper does not say which layers have dropout.
    """
    return _plain("conv2_dropout", [64], (256, 256), input_shape, classes, seed, dropout=0.5)


@register(Preset("cifar10", 75_000, 60, 2e-4))
def conv4_dropout(input_shape=(32, 32, 3), classes=10, seed=0) -> keras.Model:
    """Conv-4 with dropout, as `conv2_dropout`."""
    return _plain("conv4_dropout", [64, 128], (256, 256), input_shape, classes, seed, dropout=0.5)


@register(Preset("cifar10", 90_000, 60, 2e-4, prune_fraction={"output": 0.1, "Conv2D": 0.15, "Dense": 0.2}))
def conv6_dropout(input_shape=(32, 32, 3), classes=10, seed=0) -> keras.Model:
    """Conv-6 with dropout, as `conv2_dropout`."""
    return _plain("conv6_dropout", [64, 128, 256], (256, 256), input_shape, classes, seed, dropout=0.5)


def _plain(name, filters, units, input_shape, classes, seed, dropout=0.0) -> keras.Model:
    """Pairs of 3x3 convolutions with a pool after each, then dense layers; Glorot normal, no normalisation."""
    import keras

    seeds = _seeds(seed)

    def glorot():
        return keras.initializers.GlorotNormal(seed=next(seeds))

    model = keras.Sequential([keras.Input(input_shape)], name=name)
    for i, count in enumerate(np.repeat(filters, 2), start=1):
        model.add(
            keras.layers.Conv2D(
                int(count), 3, padding="same", activation="relu", kernel_initializer=glorot(), name=f"conv_{i}"
            )
        )
        if i % 2 == 0:
            model.add(keras.layers.MaxPooling2D(name=f"pool_{i // 2}"))
    model.add(keras.layers.Flatten(name="flatten"))

    def dropped(i):
        if dropout:
            model.add(keras.layers.Dropout(dropout, seed=next(seeds), name=f"dropout_{i}"))

    for i, count in enumerate(units, start=1):
        dropped(i)
        model.add(keras.layers.Dense(count, activation="relu", kernel_initializer=glorot(), name=f"dense_{i}"))
    dropped(len(units) + 1)
    model.add(keras.layers.Dense(classes, kernel_initializer=glorot(), dtype=OUTPUT, name="output"))
    return model


_SGD: dict[str, Any] = {
    "dataset": "cifar10",
    "learning_rate": 0.1,
    "optimizer": "sgd_momentum",
    "scope": "global",
    "prune_fraction": {"shortcut": 0.0, "output": 0.0, "Conv2D": 0.2},
    "augment": True,
}


@register(Preset(steps=30_000, batch_size=128, lr_drops=(20_000, 25_000), **_SGD))
def resnet18(input_shape=(32, 32, 3), classes=10, seed=0) -> keras.Model:
    """Resnet-18 of Frankle & Carbin (2019, section 4), the 20-layer network for CIFAR-10: 270,896 weights.

    They found winning tickets at a learning rate of 0.03 with 20,000 steps of warm-up, and none at the default of 0.1.
    """
    return _residual("resnet18", (16, 32, 64), 3, 1, input_shape, classes, seed)


@register(Preset(steps=2_000, batch_size=64, lr_drops=(1_400, 1_800), **_SGD))
def resnet8(input_shape=(32, 32, 3), classes=10, seed=0) -> keras.Model:
    """A ResNet-8 of 8, 16 and 32 filters whose first convolution halves the image: 19,608 weights for CIFAR-10.

    `resnet18` in small, for experiments on a CPU: one block in each stage, and its rates of learning and pruning.
    """
    return _residual("resnet8", (8, 16, 32), 1, 2, input_shape, classes, seed)


def _residual(name, filters, blocks, stride, input_shape, classes, seed) -> keras.Model:
    """A convolution with that stride, stages of residual blocks with so many filters, and the average of the last ones."""
    import keras

    block = _Blocks(seed)
    inputs = keras.Input(input_shape)
    x = block.relu(block.conv(inputs, filters[0], stride=stride, name="conv_0"))
    for stage, count in enumerate(filters, start=1):
        for number in range(1, blocks + 1):
            prefix, stride = f"stage_{stage}_block_{number}", 2 if stage > 1 and number == 1 else 1
            y = block.relu(block.conv(x, count, stride=stride, name=f"{prefix}_conv_1"))
            y = block.conv(y, count, name=f"{prefix}_conv_2")
            if stride > 1:
                x = block.conv(x, count, size=1, stride=2, name=f"{prefix}_shortcut")
            x = block.relu(keras.layers.Add(name=f"{prefix}_add")([x, y]))
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    return keras.Model(inputs, block.dense(classes)(x), name=name)


@register(Preset(steps=112_480, batch_size=64, lr_drops=(56_240, 84_360), **_SGD))
def vgg19(input_shape=(32, 32, 3), classes=10, seed=0) -> keras.Model:
    """VGG-19 of Frankle & Carbin (2019, section 4) for CIFAR-10, with batch normalisation: 20,024,000 weights.

    They found winning tickets at the default learning rate of 0.1 with 10,000 steps of warm-up, and none without.
    """
    import keras

    block = _Blocks(seed)
    x = inputs = keras.Input(input_shape)
    for group, (filters, count) in enumerate(((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)), start=1):
        if group > 1:
            x = keras.layers.MaxPooling2D(name=f"pool_{group - 1}")(x)
        for number in range(1, count + 1):
            x = block.relu(block.conv(x, filters, name=f"group_{group}_conv_{number}"))
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    return keras.Model(inputs, block.dense(classes)(x), name="vgg19")


class _Blocks:
    """Normalised convolutions with Glorot normal kernels and a weight decay of 1e-4 (half its square in the loss)."""

    def __init__(self, seed: int):
        self.seeds = _seeds(seed)

    def _kernel(self) -> dict:
        import keras

        return {
            "kernel_initializer": keras.initializers.GlorotNormal(seed=next(self.seeds)),
            "kernel_regularizer": keras.regularizers.L2(0.5e-4),
        }

    def conv(self, x, filters, *, name, size=3, stride=1):
        import keras

        conv = keras.layers.Conv2D(
            filters, size, strides=stride, padding="same", use_bias=False, name=name, **self._kernel()
        )
        return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(conv(x))

    def relu(self, x):
        import keras

        return keras.layers.ReLU()(x)

    def dense(self, classes):
        import keras

        return keras.layers.Dense(classes, dtype=OUTPUT, name="output", **self._kernel())
