"""Whole experiments: settings, replicates, levels, branches, in folders that a later start goes on with.

A level whose ticket is on disk is never trained again, and one that was not finished goes on from its checkpoint; that is all
there is to resuming.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import itertools
import math
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import keras
import tensorflow as tf

from tf_lottery import criteria, data, find, health, layers, masks, models, precision, state, supermask, treatments
from tf_lottery.distribution import Replicas
from tf_lottery.errors import DataError, LotteryError, NonFiniteLossError, TicketError
from tf_lottery.health import Connections
from tf_lottery.results import Onlooker, Run
from tf_lottery.settings import BranchSettings, Problem, Settings, SupermaskSettings
from tf_lottery.ticket import Ticket
from tf_lottery.training import Trainer, WarmUpThenDrop

MOST_INPUTS = 2**24  # numbers in an input times classes: a bound on what a stranger's ticket may ask for


class Display(Protocol):
    """What an experiment tells about its progress."""

    def begin(self, replicate: int, level: int, density: float | None) -> Sequence:
        """A level begins; returns Keras callbacks to be called while it trains."""

    def done(self, row: Mapping[str, Any]) -> None:
        """A level is finished; `row` is its row of the summary, with its `notes`."""

    def tell(self, sentence: str) -> None:
        """Something that its reader should know."""


def run_find(
    run: Run,
    settings: Settings,
    display: Display,
    *,
    data_dir: str | None = None,
    replicate: int | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> bool:
    """Runs a whole search, or what is missing of it.

    Args:
      run: The folder of results.
      settings: What decides them.
      display: Is told about progress.
      data_dir: Where TFDS data are prepared.
      replicate: Run this replicate only; processes can share a run in this way.
      strategy: Train on its replicas, as in `Trainer`; of several workers all read `run`, and the chief writes.

    Returns:
      Whether anything was left to do.

    Raises:
      LotteryError: If the folder holds a run with other settings, or the settings are not possible.
    """
    settings = _resolved(settings)
    run, spec = _seen(run, strategy), dataclasses.asdict(settings)
    run.check(spec, settings.growing)
    missing = _missing(strategy, run, spec, display, settings.replicates, range(settings.levels + 1), replicate)
    if missing:
        dataset = data.load(settings.dataset, data_dir)
    for r, first, last in _stretches(missing):
        model, trainer = _problem(settings, dataset, r, strategy)
        trained = _Train(trainer, run, display, r, range(first, last + 1), dataset.classes, settings.pruned == "zero")
        tickets = find.find_ticket(
            model,
            trained,
            levels=settings.levels,
            prune_fraction=settings.prune_fraction,
            criterion=settings.criterion,
            survivors=settings.survivors,
            pruned=settings.pruned,
            scope=settings.scope,
            rewind_to=settings.rewind_to,
            one_shot=settings.one_shot,
            reset=settings.reset,
            min_per_kernel=settings.min_per_kernel,
            start_from=[run.ticket(r, k) for k in sorted({0, first - 1})] if first else (),
            prunable=settings.prunable,
            seed=settings.seed + r,
        )
        tickets = _begun(run, spec, itertools.islice(tickets, last + 1 - first))
        _write(run, r, tickets, trained, display, _origin(settings, dataset))
    run.open(spec, _versions())
    return bool(missing)


def run_branch(
    trunk: Run,
    name: str,
    levels: Sequence[int],
    settings: BranchSettings,
    display: Display,
    *,
    data_dir: str | None = None,
    replicate: int | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> bool:
    """Retrains levels of a finished run under another treatment or with random masks, or what is missing of it.

    Args:
      trunk: The run to branch from.
      name: The branch's name.
      levels: Which levels.
      settings, display, data_dir, replicate, strategy: As for `run_find`.

    Returns:
      Whether anything was left to do.

    Raises:
      LotteryError: If the trunk lacks a level, or the branch was begun with other settings.
    """
    treatments.get_survivors(settings.survivors)  # known, before a folder is made
    treatments.get_pruned(settings.pruned)
    base = Settings.of(trunk)
    absent = trunk.missing(base.replicates, [0, *levels], replicate)
    if absent:
        raise LotteryError(
            f"Expected a run with level {absent[0][1]} of replicate {absent[0][0]}, but {trunk.folder} has not finished that."
        )
    run, own_spec = _seen(trunk.branch(name), strategy), dataclasses.asdict(settings)
    run.check(own_spec)
    missing = _missing(strategy, run, own_spec, display, base.replicates, levels, replicate)
    if missing:
        dataset = data.load(base.dataset, data_dir)
    for r in sorted({r for r, _ in missing}):
        model, trainer = _problem(base, dataset, r, strategy)
        own_levels = sorted(k for at, k in missing if at == r)
        trained = _Train(trainer, run, display, r, own_levels, dataset.classes, settings.pruned == "zero")
        dense = trunk.ticket(r, 0)
        masked = layers.wrap(model, base.prunable, held=settings.pruned != "zero")
        tickets = (
            find.retrain_ticket(
                masked,
                trained,
                trunk.ticket(r, level),
                dense,
                survivors=settings.survivors,
                pruned=settings.pruned,
                random_mask=settings.random_mask,
                seed=settings.seed + r,
            )
            for level in own_levels
        )
        _write(run, r, _begun(run, own_spec, tickets), trained, display, _origin(base, dataset))
    return bool(missing)


def run_supermask(
    run: Run,
    settings: SupermaskSettings,
    display: Display,
    *,
    data_dir: str | None = None,
    replicate: int | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> bool:
    """Learns a supermask for each replicate, or for those that are missing; see `supermask.train`.

    Args:
      run, display, data_dir, replicate, strategy: As for `run_find`.
      settings: What decides the results; by learning or by edge_popup.

    Returns:
      Whether anything was left to do.

    Raises:
      LotteryError: If the folder holds a run with other settings, or the settings are not possible.
    """
    settings = _resolved(settings)
    run, spec = _seen(run, strategy), dataclasses.asdict(settings)
    run.check(spec, settings.growing)
    missing = _missing(strategy, run, spec, display, settings.replicates, [0], replicate)
    if missing:
        dataset = data.load(settings.dataset, data_dir)
    for r, _ in missing:
        model, trainer = _problem(settings, dataset, r, strategy)
        trained = _Train(trainer, run, display, r, [0], dataset.classes, connects=False)
        tickets = _learned(model, trained, settings, r, lambda: run.open(spec, _versions()))
        _write(run, r, tickets, trained, display, _origin(settings, dataset))
    return bool(missing)


def _learned(model, trained: _Train, settings: SupermaskSettings, replicate: int, then: Callable) -> Iterator[Ticket]:
    """One supermask; `then` is called when it is there."""
    ticket = supermask.train(
        model,
        trained,
        by=settings.by,
        density=settings.density,
        signed_constant=settings.signed_constant,
        rescale=settings.rescale,
        accuracy=trained.test_accuracy,
        samples=settings.samples,
        prunable=settings.prunable,
        seed=settings.seed + replicate,
    )
    then()
    yield ticket


def evaluate_supermasks(
    run: Run, settings: SupermaskSettings, *, data_dir: str | None = None, replicate: int | None = None
) -> Iterator[dict[str, Any]]:
    """Measures the untrained networks of a run under masks by rule; see `supermask.evaluate`.

    Args:
      run: A run of `run_find` whose dense level is finished.
      settings: `criterion`, `densities`, `signed_constant` and `seed` count.
      data_dir, replicate: As for `run_find`.

    Yields:
      Rows: replicate, criterion, signed_constant, density, test_accuracy. All together are in the run's folder at the end.

    Raises:
      LotteryError: If the run has no dense level, or a criterion or density is not possible.
    """
    base = Settings.of(run)
    absent = run.missing(base.replicates, [0], replicate)
    if absent:
        raise LotteryError(
            f"Expected a run whose level 0 is finished, but {run.folder} has none of replicate {absent[0][0]}."
        )
    if settings.signed_constant not in (None, "none", "std"):
        raise LotteryError(
            f"Expected signed_constant to be none or std with by='rule', but received {settings.signed_constant!r}."
        )
    dataset = data.load(base.dataset, data_dir)
    chosen = rule_criteria(settings.criterion)
    densities = settings.densities or _densities_of_rounds(base)
    rows = []
    for r in range(base.replicates) if replicate is None else [replicate]:
        model, trainer = _problem(base, dataset, r)
        for row in supermask.evaluate(
            layers.wrap(model, base.prunable),
            run.ticket(r, 0),
            trainer.test_accuracy,
            criterion=chosen,
            densities=densities,
            probe=trainer.probe,
            signed_constant=settings.signed_constant == "std",
            seed=settings.seed + r,
        ):
            rows.append({"replicate": r, **row._asdict(), "test_accuracy": row.accuracy})
            yield rows[-1]
    run.write_rule(rows)


def rule_criteria(text: str) -> list[str]:
    """The criteria of `--criterion` for masks by rule: all that look at weights alone, or a list of names."""
    if text == "all":
        return criteria.of_weights()
    return [criteria.get(name.strip()) and name.strip() for name in text.split(",")]


def _densities_of_rounds(base: Settings, rounds: int = 24) -> list:
    """What 1, 2, ... rounds of the run's own pruning leave of each kernel."""
    rates = base.prune_fraction
    if not isinstance(rates, Mapping):
        return [(1 - rates) ** k for k in range(rounds + 1)]
    return [{kind: (1 - rate) ** k for kind, rate in rates.items()} for k in range(rounds + 1)]


class _Train:
    """The `train` of an experiment: the `Trainer`, with the display told which level begins."""

    def __init__(
        self,
        trainer: Trainer,
        run: Run,
        display: Display,
        replicate: int,
        levels: Sequence[int],
        classes: int,
        connects: bool,
    ):
        self.trainer, self.run, self.display = trainer, run, display
        self.replicate, self.levels = replicate, iter(levels)
        self.guessing, self.connects = math.log(classes), connects  # whether signals pass the masks alone
        self.level: int | Any = None
        self.notes: list[str] = []
        self.test_accuracy = trainer.test_accuracy
        self._connections: Connections | None = None

    @property
    def probe(self):
        return self.trainer.probe

    def __call__(self, model, callbacks):
        self.level = next(self.levels)
        self.trainer.checkpoint = self.run.checkpoint(self.replicate, self.level)
        shown = self.display.begin(self.replicate, self.level, masks.density(state.get_masks(model)))
        metrics = self.trainer(model, [*callbacks, *shown])
        self.notes = self._looked_at(model)
        return metrics

    def _looked_at(self, model) -> list[str]:
        """What went wrong in the training that was just finished."""
        probe, lost = self.trainer.probe, []
        if self.connects:
            self._connections = self._connections or Connections(model, probe)
            lost = self._connections.lost(state.get_masks(model))
        return health.notes(model, lost, probe[0], self.trainer.curve, self.guessing)


def _stretches(missing: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """(replicate, first, last) of levels that are missing one after the other."""
    found: list[tuple[int, int, int]] = []
    for replicate, level in missing:
        if found and found[-1][0] == replicate and found[-1][2] == level - 1:
            found[-1] = (replicate, found[-1][1], level)
        else:
            found.append((replicate, level, level))
    return found


def _begun(run: Run, spec: Mapping[str, Any], tickets: Iterable[Ticket]) -> Iterator[Ticket]:
    """The tickets; before the first one is looked for, the run has its settings on disk."""
    run.open(spec, _versions())
    yield from tickets


def _write(
    run: Run,
    replicate: int,
    tickets: Iterable[Ticket],
    trained: _Train,
    display: Display,
    origin: Mapping[str, Any],
) -> None:
    """Writes each ticket with its `origin`, so that its file alone is enough to build the model it belongs to."""
    with run.alone(replicate):
        try:
            for ticket in tickets:
                found = {**ticket.found, **origin, "notes": trained.notes}
                ticket = dataclasses.replace(ticket, found=found)
                display.done(run.write_level(replicate, ticket, trained.trainer.curve))
        except NonFiniteLossError as error:
            run.write_curve(replicate, trained.level, trained.trainer.curve)
            raise LotteryError(
                f"Level {trained.level} of replicate {replicate} stopped: expected a finite training loss, but it was not at step "
                f"{error.step}; what was finished is kept in {run.folder}."
            ) from None


def _origin(settings: Problem, dataset: data.Dataset) -> dict[str, Any]:
    """What `model_of` needs to know, in the words of JSON, and the data that the ticket was found with."""
    return {
        "model": settings.model,
        "dataset": settings.dataset,
        "input_shape": list(dataset.input_shape),
        "classes": dataset.classes,
    }


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
    return _built(name, tuple(shape), classes, seed=0, source="the ticket")


def _seen(run: Run, strategy: tf.distribute.Strategy | None) -> Run:
    """The run as this process may treat it: of several workers only the chief writes."""
    return run if Replicas(strategy).is_chief else Onlooker(run.folder)


def _missing(strategy, run: Run, spec: Mapping[str, Any], display: Display, *which) -> list[tuple[int, int]]:
    """`run.missing`, the same for all workers; what is damaged is missing."""
    for sentence in run.set_aside_damaged(only=which[-1]):
        display.tell(sentence)
    replicas = Replicas(strategy)
    replicas.check_same(spec, "settings")  # and no worker looks before the chief has set aside what is damaged
    missing = run.missing(*which)
    replicas.check_same(missing, f"levels to train in {run.folder}")
    return missing


def _resolved(settings: Problem) -> Any:
    """The settings without any None for a default, checked."""
    settings = settings.resolved()
    _check_numbers(settings)
    settings = dataclasses.replace(settings, precision=settings.precision or precision.fastest())
    precision.check(settings.precision)
    return settings


def _problem(
    settings: Problem, dataset: data.Dataset, replicate: int, strategy: tf.distribute.Strategy | None = None
) -> tuple[keras.Model, Trainer]:
    """The model and the trainer of one replicate."""
    seed = settings.seed + replicate
    if settings.augment and len(dataset.input_shape) != 3:
        raise DataError(
            f"Expected images for --augment, but {settings.dataset} has inputs of shape {dataset.input_shape}."
        )
    keras.utils.clear_session()  # automatic names must not tell of the replicates that this process trained before
    with Replicas(strategy).scope(), precision.layers_in(settings.precision):
        model = _built(settings.model, dataset.input_shape, dataset.classes, seed, source=settings.dataset)
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
        strategy=strategy,
    )
    return model, trainer


def _built(name: str, input_shape: tuple[int, ...], classes: int, seed: int, source: str) -> keras.Model:
    build = models.get(name)
    try:
        return build(input_shape, classes, seed)
    except ValueError as error:
        raise DataError(
            f"Expected data that fit {name}, but {source} has inputs of shape {input_shape} "
            f"({str(error).partition(chr(10))[0]})."
        ) from None


def _check_numbers(settings: Any) -> None:
    for name in ("replicates", "levels", "steps", "batch_size", "eval_every", "test_every"):
        if (value := getattr(settings, name, None)) is not None and value < 1:
            raise LotteryError(f"Expected {name} of at least 1, but received {value}.")
    for name in ("seed", "rewind_to", "warmup", "min_per_kernel"):
        if getattr(settings, name, 0) < 0:
            raise LotteryError(f"Expected {name} of 0 or more, but received {getattr(settings, name)}.")
    if not settings.learning_rate > 0:
        raise LotteryError(f"Expected a learning_rate above 0, but received {settings.learning_rate}.")
    if getattr(settings, "rewind_to", 0) > settings.steps:
        raise LotteryError(f"Expected rewind_to within the {settings.steps} steps, but received {settings.rewind_to}.")


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


def _versions() -> dict[str, str]:
    packages = ("tf_lottery", "tensorflow", "keras", "numpy")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in packages}}
