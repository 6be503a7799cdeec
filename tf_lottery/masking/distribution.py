"""One model on several devices or machines: strategies of `tf.distribute`, and what a training loop needs of them.

>>> replicas = Replicas(None)
>>> replicas.count, replicas.is_chief
(1, True)
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_lottery.base.errors import LotteryError, WorkerLostError

STRATEGIES = ("none", "mirrored", "multi_worker", "tpu")


def get(name: str) -> tf.distribute.Strategy | None:
    """A strategy by its name; None for `"none"`.

    `"mirrored"` is over all GPUs of this machine, or without one over its logical CPU devices, and None where there is but
    one device, which trains faster without; `"multi_worker"` over the workers that `TF_CONFIG` names; `"tpu"` over the TPU
    that `TPU_NAME` or the machine names (not tested on one). The last two have to be made before TensorFlow computes anything.

    Raises:
      LotteryError: If the name is unknown, or the workers or the TPU are not there.
    """
    if name == "none":
        return None
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices]) if len(devices) > 1 else None
    if name == "multi_worker":
        if not os.environ.get("TF_CONFIG"):
            raise LotteryError("Expected the workers in TF_CONFIG for strategy multi_worker, but it is not set.")
        return _reached("the workers of TF_CONFIG", tf.distribute.MultiWorkerMirroredStrategy)
    if name == "tpu":
        return _reached("a TPU", _tpu)
    raise LotteryError(f"Expected strategy to be one of {', '.join(STRATEGIES)}, but received {name!r}.")


def _tpu() -> tf.distribute.Strategy:
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver()
    tf.config.experimental_connect_to_cluster(resolver)
    tf.tpu.experimental.initialize_tpu_system(resolver)
    return tf.distribute.TPUStrategy(resolver)


def _reached(what: str, make: Callable[[], tf.distribute.Strategy]) -> tf.distribute.Strategy:
    try:
        return make()
    except (ValueError, KeyError, TypeError, RuntimeError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:200]
        raise LotteryError(
            f"Expected {what} within reach, but could not begin ({type(error).__name__}: {reason})."
        ) from error


def strategy_of(model: keras.layers.Layer) -> tf.distribute.Strategy | None:
    """The strategy under whose scope a model or layer was built, or None."""
    values = [variable.value for variable in model.variables]
    own = next((value.distribute_strategy for value in values if hasattr(value, "distribute_strategy")), None)
    if own is not None or not isinstance(model, keras.Model):
        return own
    own = model.distribute_strategy  # without one the current strategy, perhaps TensorFlow's default one
    is_default = own is tf.distribute.get_strategy() and not tf.distribute.has_strategy()
    return None if is_default or (values and own.num_replicas_in_sync > 1) else own


def scope_of(model: keras.layers.Layer) -> contextlib.AbstractContextManager:
    """The scope that variables which belong to a model have to be made in."""
    return Replicas(strategy_of(model)).scope()


class Replicas:
    """The devices that train one model together: those of a strategy, or without one the device at hand.

    Args:
      strategy: A synchronous `tf.distribute.Strategy`, or None.

    Raises:
      LotteryError: If the strategy is not synchronous.
    """

    def __init__(self, strategy: tf.distribute.Strategy | None):
        if isinstance(strategy, tf.distribute.ParameterServerStrategy):
            raise LotteryError(
                "Expected a synchronous strategy, as MirroredStrategy is, but Keras 3 has no ParameterServerStrategy."
            )
        if not isinstance(strategy, tf.distribute.Strategy | None):
            raise LotteryError(f"Expected a tf.distribute.Strategy or None, but received {strategy!r}.")
        self.strategy: tf.distribute.Strategy | Any = strategy
        self.count = strategy.num_replicas_in_sync if strategy else 1

    @property
    def cluster(self):
        """The resolver of the cluster if several processes train together, else None."""
        several = isinstance(self.strategy, tf.distribute.MultiWorkerMirroredStrategy)
        return self.strategy.cluster_resolver if several else None

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes files."""
        if self.cluster is None or not (spec := self.cluster.cluster_spec().as_dict()):
            return True
        first = "chief" if "chief" in spec else "worker"
        return (self.cluster.task_type, self.cluster.task_id) == (first, 0)

    def scope(self) -> contextlib.AbstractContextManager:
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()

    def check(self, model: keras.Model, batch_size: int) -> None:
        """Checks that a model was built under this strategy, and that every replica gets a part of a batch."""
        if strategy_of(model) is not self.strategy:
            own, other = (type(s).__name__ if s else "no strategy" for s in (self.strategy, strategy_of(model)))
            raise LotteryError(
                f"Expected a model built under the scope of the Trainer's strategy, but the Trainer has {own} and {model.name!r} "
                f"was built under {other}: build it in `with strategy.scope():` and give Trainer the same strategy."
            )
        if batch_size < self.count or (
            isinstance(self.strategy, tf.distribute.TPUStrategy) and batch_size % self.count
        ):
            kind = "a multiple of" if batch_size >= self.count else "at least"
            raise LotteryError(
                f"Expected a batch_size of {kind} the {self.count} replicas, among which it is split, but received {batch_size}."
            )

    def copies(self, arrays: Any) -> Any:
        """Arrays, nested as they are, as constants: a copy on each device of this process."""
        if self.strategy is None:
            return keras.tree.map_structure(tf.constant, arrays)

        def on_devices(array):
            devices = iter(self.strategy.extended.worker_devices)

            def copy(_):
                with tf.device(next(devices)):
                    return tf.constant(array)

            return self.strategy.experimental_distribute_values_from_function(copy)

        return keras.tree.map_structure(on_devices, arrays)

    def run(self, function: Callable, *args):
        """Calls a function on every replica; returns what the first one of this process returned."""
        if self.strategy is None:
            return function(*args)
        returned = self.strategy.run(function, args)
        return tf.nest.map_structure(lambda value: self.strategy.experimental_local_results(value)[0], returned)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What several workers do together: if one of them stops, the others say so.

        TensorFlow notices a process that ended at once, and one that does not answer in about ten seconds.

        Raises:
          WorkerLostError: If one stopped.
        """
        try:
            yield
        except _LOST as error:
            if self.cluster is None:
                raise
            count = sum(len(addresses) for addresses in self.cluster.cluster_spec().as_dict().values())
            reason = " ".join(str(error).partition("Collective ops is aborted by: ")[2].split()) or type(error).__name__
            raise WorkerLostError(
                f"Expected all {count} workers to go on, but {self.cluster.task_type} {self.cluster.task_id} lost another one: start "
                f"all of them again, and they go on with what was not finished ({reason[:200]})."
            ) from error

    def check_same(self, value: Any, what: str) -> None:
        """Checks that all workers have the same value, of the kind that JSON knows, before they begin.

        Raises:
          LotteryError: If they have not.
        """
        if self.cluster is None:
            return
        number = zlib.crc32(json.dumps(value, sort_keys=True).encode()) >> 4  # its square, summed, is an int64
        own = tf.constant([number, number**2], tf.int64)

        def total():  # AutoGraph reads no lambda in a lambda, and says so at length
            return self.total(own)

        @tf.function
        def in_all():
            return self.run(total)

        with self.together():
            both = in_all().numpy()
        if both[0] ** 2 != both[1] * self.count:
            raise LotteryError(
                f"Expected all workers to see the same {what}, but {self.cluster.task_type} {self.cluster.task_id} sees "
                f"{value!r:.80} and others something else: give all of them the same command, and one folder of results that they share."
            )

    # On a replica:

    def total(self, values):
        """The sums of tensors over all replicas."""
        if self.count == 1:
            return values
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)

    def share(self, size: int):
        """(first, count): which of `size` examples are this replica's; a plain count if all have the same."""
        if self.count == 1:
            return 0, size
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        first = number * size // self.count
        return first, size // self.count if size % self.count == 0 else (number + 1) * size // self.count - first

    def as_first(self, variables: Sequence[keras.Variable]) -> None:
        """Gives all replicas the values of the first one."""
        first = tf.distribute.get_replica_context().replica_id_in_sync_group == 0
        for variable in variables:
            value = variable.value
            number = value if value.dtype.is_floating else tf.cast(value, tf.int64)
            variable.assign(tf.cast(self.total(tf.where(first, number, tf.zeros_like(number))), value.dtype))


_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
    tf.errors.UnknownError,
)


def sums_no_gradients(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer, for gradients that are summed over the replicas already.

    Keras sums them after it has clipped them and looked for overflow, on each replica for itself: clipped gradients would
    not be those of one device, and replicas would disagree about a skipped step. There is no public way to stop it; a test
    notices when the private one moves.
    """
    for part in (optimizer, getattr(optimizer, "inner_optimizer", None)):
        if part is not None:
            part._all_reduce_sum_gradients = lambda grads_and_vars: grads_and_vars
    return optimizer
