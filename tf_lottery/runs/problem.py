"""The problem of an experiment, out of its settings: the model and the trainer of each replicate, and the model of a ticket."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
import tensorflow as tf

from tf_lottery.base.errors import DataError, LotteryError, TicketError
from tf_lottery.masking import precision, state, weights, wrapping
from tf_lottery.masking.distribution import Replicas
from tf_lottery.problems import contracts, data, models
from tf_lottery.rules import masks
from tf_lottery.runs.settings import Problem, Settings, SupermaskSettings
from tf_lottery.search.plan import Kernels, Plan
from tf_lottery.tickets.ticket import Ticket
from tf_lottery.training import loop
from tf_lottery.training.learning_rates import WarmUpThenDrop
from tf_lottery.training.trainer import Trainer

MOST_INPUTS = 2**24  # numbers in an input times classes: a bound on what a stranger's ticket may ask for


def resolved(settings: Problem) -> Any:
    """The settings without any None for a default, checked.

    Raises:
      LotteryError: If one of them is not possible; the sentence names it.
    """
    settings = settings.resolved()
    if not isinstance(settings, SupermaskSettings):  # whose criterion is of masks by rule: several names
        check_functions(settings)
    settings = dataclasses.replace(settings, precision=settings.precision or precision.fastest())
    precision.check(settings.precision)
    return settings


def of_replicate(
    settings: Problem, dataset: data.Dataset, replicate: int, strategy: tf.distribute.Strategy | None = None
) -> tuple[keras.Model, Trainer]:
    """The model and the trainer of one replicate.

    Args:
      settings: Resolved ones.
      dataset: Their data.
      replicate: Which; its seed is `settings.seed` + `replicate`.
      strategy: As for `Trainer`.

    Raises:
      DataError: If the data do not fit the model, or `augment`.
      LotteryError: If there is no such model or optimizer.
    """
    seed = settings.seed + replicate
    if settings.augment and len(dataset.input_shape) != 3:
        raise DataError(
            f"Expected images for --augment, but {settings.dataset} has inputs of shape {dataset.input_shape}."
        )
    if settings.deterministic and tf.config.list_physical_devices("GPU"):  # on a CPU all operations are
        tf.config.experimental.enable_op_determinism()
    keras.utils.clear_session()  # automatic names must not tell of the replicates that this process trained before
    with Replicas(strategy).scope(), precision.layers_in(settings.precision):
        model = _built(settings.model, dataset.input_shape, dataset.classes, seed, source=settings.dataset)
    plainly = settings.deterministic and not loop.has_matrices_only(model)  # XLA has no deterministic pooling on a GPU
    trainer = Trainer(
        *dataset.train,
        validation=dataset.validation,
        test=dataset.test,
        steps=settings.steps,
        batch_size=settings.batch_size,
        eval_every=settings.eval_every,
        test_every=settings.test_every,
        optimizer=_optimizer(settings),
        augment=data.flip_and_crop if settings.augment else None,
        seed=seed,
        jit_compile=False if plainly else "auto",
        strategy=strategy,
    )
    return model, trainer


def model_of(ticket: Ticket, model: str | None = None) -> keras.Model:
    """Builds the model that a ticket of the command line belongs to, plain, with weights of its own: `ticket.apply` puts it on.

    Args:
      ticket: Its `found` names the model, the shape of an input and the number of classes.
      model: A name in `models`, in the place of the one that the ticket names.

    Raises:
      LotteryError: If the model is not known, or does not take such inputs; a `TicketError` if the ticket does not say.
    """
    name = ticket.found.get("model") if model is None else model
    shape, classes = ticket.found.get("input_shape"), ticket.found.get("classes")
    if not isinstance(name, str):
        raise TicketError(
            f"Expected a ticket that names its model, as those of the command line do, or model= one of "
            f"{', '.join(models.registry)}, but received neither."
        )
    sizes = [*shape, classes] if isinstance(shape, list | tuple) else [None]
    if not all(type(size) is int and size > 0 for size in sizes) or math.prod(sizes) > MOST_INPUTS:
        raise TicketError(
            f"Expected a ticket that tells the input_shape and the classes of its model, but it tells {shape!r:.80} and {classes!r:.80}."
        )
    _check_shapes(ticket, name, tuple(shape), classes)
    return _built(name, tuple(shape), classes, seed=0, source="the ticket")


def plan_of(settings: Settings, dataset: data.Dataset) -> Plan:
    """The trainings of a search that depend on the network; of resolved settings.

    Raises:
      LotteryError: If the settings do not go with the network, as a density that it cannot have.
    """
    with precision.layers_in("float32"):
        model = _built(
            settings.model, dataset.input_shape, dataset.classes, settings.seed, source=settings.dataset or ""
        )
    masked = wrapping.wrap(model, settings.prunable, exclude=settings.exclude)
    axes = state.channel_axes(masked) if settings.scope in masks.CHANNEL_SCOPES else None
    fractions = weights.prune_fractions(list(masked.kernels), settings.prune_fraction)
    plan = settings.plan(Kernels(fractions, state.get_masks(masked), axes))
    assert plan is not None
    return plan


def _check_shapes(ticket: Ticket, name: str, input_shape: tuple[int, ...], classes: int) -> None:
    """Compares the shapes of a model with a ticket's before any weight is drawn: a few bytes may name a network of any size.

    Raises:
      TicketError: If they are others.
    """
    with tf.Graph().as_default():  # where variables have shapes and no values
        try:
            model = _built(name, input_shape, classes, seed=0, source="the ticket")
        except LotteryError:
            raise
        except Exception:  # a builder of one's own that wants values as it builds
            return
        state.matched(model, {path: value.shape for path, value in ticket.initial.items()})


def _built(name: str, input_shape: tuple[int, ...], classes: int, seed: int, source: str) -> keras.Model:
    build = models.get(name)
    try:
        return build(input_shape, classes, seed)
    except ValueError as error:
        raise DataError(
            f"Expected data that fit {name}, but {source} has inputs of shape {input_shape} "
            f"({str(error).partition(chr(10))[0]})."
        ) from None


def check_functions(settings: Any) -> None:
    """Tries the criterion and the treatments that are named on small kernels: a search calls them only after a training.

    Raises:
      LotteryError: If one is unknown, or is not as `contracts` expects.
    """
    for name, check in _CONTRACTS.items():
        if (function := getattr(settings, name, None)) is not None:
            check(function)


_CONTRACTS = {
    "criterion": contracts.check_criterion,
    "survivors": contracts.check_survivors,
    "pruned": contracts.check_pruned,
}


def _optimizer(settings: Problem) -> keras.optimizers.Optimizer:
    rate = settings.learning_rate
    if settings.warmup or settings.lr_drops:
        rate = WarmUpThenDrop(rate, settings.warmup, settings.lr_drops)
    if settings.optimizer == "sgd_momentum":
        return keras.optimizers.SGD(rate, momentum=0.9)
    try:
        return type(keras.optimizers.get(settings.optimizer))(rate)
    except ValueError:
        raise LotteryError(
            f"Expected adam, sgd, sgd_momentum or another optimizer of Keras, but received {settings.optimizer!r}."
        ) from None
