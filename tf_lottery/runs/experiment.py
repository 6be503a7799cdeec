"""Whole experiments: settings, replicates, levels, branches, in folders that a later start goes on with.

A level whose ticket is on disk is never trained again, and one that was not finished goes on from its checkpoint; that is all
there is to resuming.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf

from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import wrapping
from tf_lottery.problems import data
from tf_lottery.runs import problem
from tf_lottery.runs.known import Known, digest_of
from tf_lottery.runs.levels import Display, Train, begun, missing_levels, origin, seen_by, stretches, versions, write
from tf_lottery.runs.logged import Logs
from tf_lottery.runs.results import Run
from tf_lottery.runs.settings import BranchSettings, Settings, SupermaskSettings
from tf_lottery.runs.sound import Sound
from tf_lottery.search import find, lottery, supermask
from tf_lottery.tickets.ticket import Ticket
from tf_lottery.tickets.values import arrays

# What survivors can start from where only the first weights of the dense network are known.
OF_FIRST_WEIGHTS = {"rewind"} | {
    f"{name}{sign}" for name in ("reinit", "reshuffle", "constant") for sign in ("", "_same_sign")
}


def run_find(
    run: Run,
    settings: Settings,
    display: Display,
    *,
    data_dir: str | None = None,
    replicate: int | None = None,
    strategy: tf.distribute.Strategy | None = None,
    shared: str | None = None,
    loggers: Sequence = (),
) -> bool:
    """Runs a whole search, or what is missing of it.

    Args:
      run: The folder of results.
      settings: What decides them.
      display: Is told about progress.
      data_dir: Where TFDS data are prepared.
      replicate: Run this replicate only; processes can share a run in this way.
      strategy: Train on its replicas, as in `Trainer`; of several workers all read `run`, and the chief writes.
      shared: A pattern of the names of runs beside this one, those of its sweep: what one of them has trained, no other
        trains again.
      loggers: Who is told of each replicate, see `logged.Logs`.

    Returns:
      Whether anything was left to do.

    Raises:
      LotteryError: If the folder holds a run with other settings, or the settings are not possible.
    """
    settings = problem.resolved(settings)
    plan, dataset = settings.plan(), None
    if plan is None:
        dataset = data.load(settings.dataset, data_dir)
        plan = problem.plan_of(settings, dataset)
        settings = dataclasses.replace(settings, levels=plan.levels)
    run, spec = seen_by(run, strategy), dataclasses.asdict(settings)
    run.check(spec, settings.growing)
    levels = range(plan.first, plan.levels + 1)
    worked, known, examples = False, None, ""
    logs = Logs(run, loggers, spec, settings.replicates, replicate, display.tell)
    while missing := missing_levels(strategy, run, spec, display, settings.replicates, levels, replicate):
        worked, dataset = True, dataset or data.load(settings.dataset, data_dir)
        if not examples:
            run.check_data(examples := digest_of(dataset))
        if plan.search_steps is not None or shared is not None:
            known = known or Known(run, examples, display.tell, shared, settings.deterministic)
        for r, first, last in stretches(missing):
            model, trainer = problem.of_replicate(settings, dataset, r, strategy)
            beside = plan.search_steps is not None and 0 in plan.asked
            reference = plan.road if beside and plan.road != "auto" else None
            trained = Train(trainer, run, display, r, dataset.classes, settings.pruned == "zero", known, reference)
            tickets = find.find_ticket(
                model,
                trained,
                search=settings.search,
                levels=settings.levels,
                density=settings.density,
                budget=settings.budget,
                level_steps=settings.level_steps,
                search_steps=settings.search_steps,
                dense=settings.dense,
                prune_fraction=settings.prune_fraction,
                criterion=settings.criterion,
                survivors=settings.survivors,
                pruned=settings.pruned,
                scope=settings.scope,
                rewind_to=settings.rewind_to,
                reset=settings.reset,
                min_per_kernel=settings.min_per_kernel,
                start_from=[run.ticket(r, k) for k in sorted({plan.first, first - 1})] if first > plan.first else (),
                prunable=settings.prunable,
                exclude=settings.exclude,
                seed=settings.seed + r,
            )
            tickets = begun(run, spec, itertools.islice(tickets, last + 1 - first), examples)
            write(run, r, tickets, trained, display, origin(settings, dataset), logs)
        if not any(level + 1 in levels and (r, level + 1) not in missing for r, level in missing):
            break  # else what was made of a level that is another one now is looked for once more
    run.open(spec, versions())
    logs.rest()
    return worked


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
    loggers: Sequence = (),
) -> bool:
    """Retrains levels of a finished run under another treatment or with random masks, or what is missing of it.

    Args:
      trunk: The run to branch from.
      name: The branch's name.
      levels: Which levels.
      settings, display, data_dir, replicate, strategy, loggers: As for `run_find`.

    Returns:
      Whether anything was left to do.

    Raises:
      LotteryError: If the trunk lacks a level, or the branch was begun with other settings.
    """
    problem.check_functions(settings)  # before a folder is made
    base = Settings.of(trunk)
    trunk.check(trunk.settings())
    if base.first:
        _check_untrained(trunk, base, settings)
    Sound.of(trunk, replicate, branches=False).check_finished(
        base.replicates, [*([] if base.first else [0]), *levels], replicate
    )
    run, own_spec = seen_by(trunk.branch(name), strategy), dataclasses.asdict(settings)
    run.check(own_spec)
    missing = missing_levels(strategy, run, own_spec, display, base.replicates, levels, replicate)
    both = {**dataclasses.asdict(base), **own_spec, "branch": name}
    called = f"{trunk.name}/{name}"
    logs = Logs(run, loggers, both, base.replicates, replicate, display.tell, called)
    if missing:
        dataset = data.load(base.dataset, data_dir)
        trunk.check_data(examples := digest_of(dataset))
    for r in sorted({r for r, _ in missing}):
        model, trainer = problem.of_replicate(base, dataset, r, strategy)
        own_levels = sorted(k for at, k in missing if at == r)
        trained = Train(trainer, run, display, r, dataset.classes, settings.pruned == "zero")
        masked = wrapping.wrap(model, base.prunable, exclude=base.exclude, held=settings.pruned != "zero")
        dense = _untrained(masked) if base.first else trunk.ticket(r, 0)
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
        write(run, r, begun(run, own_spec, tickets, examples), trained, display, origin(base, dataset), logs)
    logs.rest()
    return bool(missing)


def _check_untrained(trunk: Run, base: Settings, settings: BranchSettings) -> None:
    """Refuses what needs more of the dense network than its first weights, where the run has not trained it."""
    first_weights = settings.survivors in OF_FIRST_WEIGHTS and settings.pruned in ("zero", "freeze_init")
    if base.rewind_to or not first_weights:
        raise LotteryError(
            f"Expected a run with its dense network for a branch with survivors={settings.survivors} and pruned={settings.pruned}, but "
            f"{trunk.folder} was found with dense=False{f' and rewind_to={base.rewind_to}' if base.rewind_to else ''}."
        )


def _untrained(masked) -> Ticket:
    """The dense network of a run that has not trained it: its treatments look at the first weights alone."""
    begin = lottery.begin(masked, {})
    return dataclasses.replace(begin, final=arrays(begin.initial))


def run_supermask(
    run: Run,
    settings: SupermaskSettings,
    display: Display,
    *,
    data_dir: str | None = None,
    replicate: int | None = None,
    strategy: tf.distribute.Strategy | None = None,
    loggers: Sequence = (),
) -> bool:
    """Learns a supermask for each replicate, or for those that are missing; see `supermask.train`.

    Args:
      run, display, data_dir, replicate, strategy, loggers: As for `run_find`.
      settings: What decides the results; by learning or by edge_popup.

    Returns:
      Whether anything was left to do.

    Raises:
      LotteryError: If the folder holds a run with other settings, or the settings are not possible.
    """
    settings = problem.resolved(settings)
    run, spec = seen_by(run, strategy), dataclasses.asdict(settings)
    run.check(spec, settings.growing)
    missing = missing_levels(strategy, run, spec, display, settings.replicates, [0], replicate)
    logs = Logs(run, loggers, spec, settings.replicates, replicate, display.tell)
    if missing:
        dataset = data.load(settings.dataset, data_dir)
        run.check_data(examples := digest_of(dataset))
    for r, _ in missing:
        model, trainer = problem.of_replicate(settings, dataset, r, strategy)
        trained = Train(trainer, run, display, r, dataset.classes, connects=False)
        tickets = _learned(model, trained, settings, r, lambda: run.open(spec, versions(), examples))
        write(run, r, tickets, trained, display, origin(settings, dataset), logs)
    logs.rest()
    return bool(missing)


def _learned(model, trained: Train, settings: SupermaskSettings, replicate: int, then: Callable) -> Iterator[Ticket]:
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
        exclude=settings.exclude,
        seed=settings.seed + replicate,
    )
    then()
    yield ticket
