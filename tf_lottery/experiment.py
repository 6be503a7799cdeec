"""Whole experiments: settings, replicates, levels, branches, in folders that a later start goes on with.

A level whose ticket is on disk is never trained again; that is all there is to resuming.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import keras

from tf_lottery import criteria, data, find, layers, masks, models, state, supermask, treatments
from tf_lottery.errors import DataError, LotteryError, NonFiniteLossError
from tf_lottery.results import Run
from tf_lottery.settings import BranchSettings, Problem, Settings, SupermaskSettings
from tf_lottery.ticket import Ticket
from tf_lottery.training import Trainer, WarmUpThenDrop


class Display(Protocol):
    """What an experiment tells about its progress."""

    def begin(self, replicate: int, level: int, density: float | None) -> Sequence:
        """A level begins; returns Keras callbacks to be called while it trains."""

    def done(self, row: Mapping[str, Any]) -> None:
        """A level is finished; `row` is its row of the summary."""


def run_find(
    run: Run, settings: Settings, display: Display, *, data_dir: str | None = None, replicate: int | None = None
) -> bool:
    """Runs a whole search, or what is missing of it.

    Args:
      run: The folder of results.
      settings: What decides them.
      display: Is told about progress.
      data_dir: Where TFDS data are prepared.
      replicate: Run this replicate only; processes can share a run in this way.

    Returns:
      Whether anything was left to do.

    Raises:
      LotteryError: If the folder holds a run with other settings, or the settings are not possible.
    """
    settings = settings.resolved()
    _check_numbers(settings)
    spec = dataclasses.asdict(settings)
    growing = ("replicates", "levels") if settings.reset == "each_level" else ("replicates",)
    run.check(spec, growing)
    missing = run.missing(settings.replicates, range(settings.levels + 1), replicate)
    if missing:
        dataset = data.load(settings.dataset, data_dir)
    for r in sorted({r for r, _ in missing}):
        model, trainer = _problem(settings, dataset, r)
        first = min(k for at, k in missing if at == r)
        trained = _Train(trainer, display, r, range(first, settings.levels + 1))
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
            start_from=[run.ticket(r, k) for k in sorted({0, first - 1})] if first else (),
            prunable=settings.prunable,
            seed=settings.seed + r,
        )
        run.open(spec, _versions())  # only now, when the arguments were found to be possible
        _write(run, r, tickets, trained, display)
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
) -> bool:
    """Retrains levels of a finished run under another treatment or with random masks, or what is missing of it.

    Args:
      trunk: The run to branch from.
      name: The branch's name.
      levels: Which levels.
      settings, display, data_dir, replicate: As for `run_find`.

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
    run, own_spec = trunk.branch(name), dataclasses.asdict(settings)
    run.check(own_spec)
    missing = run.missing(base.replicates, levels, replicate)
    if missing:
        dataset = data.load(base.dataset, data_dir)
    for r in sorted({r for r, _ in missing}):
        model, trainer = _problem(base, dataset, r)
        own_levels = sorted(k for at, k in missing if at == r)
        trained, dense = _Train(trainer, display, r, own_levels), trunk.ticket(r, 0)
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
        run.open(own_spec, _versions())
        _write(run, r, tickets, trained, display)
    return bool(missing)


def run_supermask(
    run: Run,
    settings: SupermaskSettings,
    display: Display,
    *,
    data_dir: str | None = None,
    replicate: int | None = None,
) -> bool:
    """Learns a supermask for each replicate, or for those that are missing; see `supermask.train`.

    Args:
      run, display, data_dir, replicate: As for `run_find`.
      settings: What decides the results; by learning or by edge_popup.

    Returns:
      Whether anything was left to do.

    Raises:
      LotteryError: If the folder holds a run with other settings, or the settings are not possible.
    """
    settings = settings.resolved()
    _check_numbers(settings)
    spec = dataclasses.asdict(settings)
    run.check(spec, ("replicates",))
    missing = run.missing(settings.replicates, [0], replicate)
    if missing:
        dataset = data.load(settings.dataset, data_dir)
    for r, _ in missing:
        model, trainer = _problem(settings, dataset, r)
        trained = _Train(trainer, display, r, [0])
        _write(run, r, _learned(model, trained, settings, r, lambda: run.open(spec, _versions())), trained, display)
    run.write_supermasks()
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

    def __init__(self, trainer, display: Display, replicate: int, levels: Sequence[int]):
        self.trainer, self.display, self.replicate, self.levels = trainer, display, replicate, iter(levels)
        self.level = None
        self.test_accuracy = trainer.test_accuracy

    @property
    def probe(self):
        return self.trainer.probe

    def __call__(self, model, callbacks):
        self.level = next(self.levels)
        shown = self.display.begin(self.replicate, self.level, masks.density(state.get_masks(model)))
        return self.trainer(model, [*callbacks, *shown])


def _write(run: Run, replicate: int, tickets: Iterable[Ticket], trained: _Train, display: Display) -> None:
    try:
        for ticket in tickets:
            display.done(run.write_level(replicate, ticket, trained.trainer.curve))
    except NonFiniteLossError as error:
        run.write_curve(replicate, trained.level, trained.trainer.curve)
        raise LotteryError(
            f"Level {trained.level} of replicate {replicate} stopped: expected a finite training loss, but it was not at step "
            f"{error.step}; what was finished is kept in {run.folder}."
        ) from None


def _problem(settings: Problem, dataset: data.Dataset, replicate: int):
    """The model and the trainer of one replicate."""
    seed = settings.seed + replicate
    if settings.augment and len(dataset.input_shape) != 3:
        raise DataError(
            f"Expected images for --augment, but {settings.dataset} has inputs of shape {dataset.input_shape}."
        )
    try:
        model = models.get(settings.model)(dataset.input_shape, dataset.classes, seed)
    except ValueError as error:
        raise DataError(
            f"Expected data that fit {settings.model}, but {settings.dataset} has inputs of shape {dataset.input_shape} "
            f"({str(error).partition(chr(10))[0]})."
        ) from None
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
    )
    return model, trainer


def _check_numbers(settings: Problem) -> None:
    for name in ("replicates", "levels", "steps", "batch_size", "eval_every", "test_every"):
        if (value := getattr(settings, name, None)) is not None and value < 1:
            raise LotteryError(f"Expected {name} of at least 1, but received {value}.")
    for name in ("seed", "rewind_to", "warmup"):
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
