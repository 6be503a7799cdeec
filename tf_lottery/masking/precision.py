"""Mixed precision: which kind is fast on the devices at hand, models that compute in it, and losses scaled for float16.

Variables and masks are float32 in all of them; layers compute in 16 bits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from tf_lottery.base.errors import LotteryError
from tf_lottery.masking.weights import sublayers

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def fastest() -> str:
    """The precision that the devices at hand compute fast in.

    On a TPU and on GPUs of compute capability 8.0 and more mixed_bfloat16, which needs no loss scaling; on those from 7.0
    mixed_float16; on a CPU and on older GPUs float32.
    """
    if tf.config.list_logical_devices("TPU"):
        return "mixed_bfloat16"
    gpus = tf.config.list_physical_devices("GPU")
    oldest = min(
        (tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in gpus),
        default=(0, 0),
    )
    return "mixed_bfloat16" if oldest >= (8, 0) else "mixed_float16" if oldest >= (7, 0) else "float32"


def check(precision: str) -> None:
    if precision not in PRECISIONS:
        raise LotteryError(f"Expected precision to be one of {', '.join(PRECISIONS)}, but received {precision!r}.")


@contextlib.contextmanager
def layers_in(precision: str) -> Iterator[None]:
    """In this context layers without a dtype policy of their own are made to compute in that precision.

    >>> with layers_in("mixed_bfloat16"):
    ...     layer = keras.layers.Dense(1)
    >>> layer.compute_dtype, layer.variable_dtype, keras.layers.Dense(1).compute_dtype
    ('bfloat16', 'float32', 'float32')
    """
    check(precision)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@keras.saving.register_keras_serializable("tf_lottery")
class LossScaleOptimizer(keras.optimizers.LossScaleOptimizer):
    """Keras's, whose replicas agree on which steps to skip.

    In Keras each of the replicas of a `tf.distribute` strategy looks at its own gradients before they are summed: one that
    overflows is taken for finite by the others, and the weights become NaN.
    """

    def check_finite(self, grads):
        finite, replica = super().check_finite(grads), tf.distribute.get_replica_context()
        if replica is None or replica.num_replicas_in_sync == 1:
            return finite
        return replica.all_reduce(tf.distribute.ReduceOp.SUM, tf.cast(finite, tf.int32)) == replica.num_replicas_in_sync


def loss_scaling(optimizer: keras.optimizers.Optimizer, model: keras.layers.Layer) -> keras.optimizers.Optimizer:
    """The optimizer, in a `LossScaleOptimizer` if a layer computes in float16: small gradients would vanish there."""
    half = any(layer.compute_dtype == "float16" for layer in [model, *sublayers(model)])
    scales = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    return LossScaleOptimizer(optimizer) if half and not scales else optimizer
