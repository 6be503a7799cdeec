"""Is it a ticket? `verify` trains the controls of a ticket and says what they say."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tf_lottery.base.errors import LotteryError
from tf_lottery.checks import analysis, controls
from tf_lottery.checks.line import POINTS
from tf_lottery.checks.verdict import CONTROLS, DENSE, OTHER_ORDER, TICKET, Measured, Verification
from tf_lottery.masking.gradients import Probe
from tf_lottery.rules import criteria
from tf_lottery.search.lottery import Train, train_level
from tf_lottery.tickets.ticket import Ticket

METRIC = "early_stop_test_accuracy"


def verify(
    ticket: Ticket,
    train: Train,
    model: keras.Model,
    *,
    dense: Ticket | None = None,
    before: Ticket | None = None,
    metric: str = METRIC,
    accuracy: Callable[[keras.Model], float] | Any = None,
    examples: int | None = None,
    probe: Probe | None = None,
    x: np.ndarray | None = None,
    points: int = POINTS,
    seed: int = 0,
    tell: Callable[[str], Any] = print,
) -> Verification:
    """Trains the controls of a ticket and says whether it is one, in a table and a sentence.

    At most seven trainings, all with `train`, so that they differ in what they check alone: the ticket and the dense network again; new
    weights under the ticket's mask; its mask shuffled within each layer, and random networks of its layer densities (a shuffled mask
    and new weights); its scores inverted; and the ticket in another data order, for the instability test. The lines to that
    network and to the ticket of the level before are measured at 30 points. A winning ticket beats each control, is not worse than the
    dense network by more than 0.2 points, and its barrier to itself in another order is below 2 points.

    Args:
      ticket: A ticket of a pruned level.
      train: As for `find_ticket`; with `train(model, callbacks, seed=0)`, as a `Trainer` has it, the data come in another order for
        the instability test, which is left out otherwise.
      model: A built model, which is trained; it is wrapped if it is not yet.
      dense: Level 0 of the ticket's search. Without it there is nothing to compare with and no start weights for shuffled masks.
      before: The trained ticket of the level before, for inverted scores and the line to it. (Of level 1 it is `dense`.)
      metric: The test accuracy among what `train` returns, in [0, 1].
      accuracy: As for `analysis.barrier`; by default `train`, if it is a `Trainer`.
      examples: How many the test set has, for intervals; that of a `Trainer` is known.
      probe: As for `find_ticket`, for criteria that need a gradient.
      x: Training inputs for batch statistics, see `analysis.barrier`.
      points: How many networks of a line are measured.
      seed: Decides what is drawn and shuffled.
      tell: Called with a sentence on what it will cost before it begins.

    Returns:
      A `Verification`: print it, or ask for its `sentence`, `won`, `difference("reinit")`, `barrier("instability")`. Replicates of a run are
      verified together by `tf-lottery verify`.

    Raises:
      LotteryError: If the ticket is dense, the tickets do not belong together, or `train` returns no such metric; a `TicketError` if the
        model's shapes are not the ticket's, a `DataError` of the `Trainer` if the data do not fit the model.

    Examples:

    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(200, 4)).astype("float32"), rng.integers(0, 2, 200)
    >>> from tf_lottery import Trainer, find_ticket, wrap
    >>> model = wrap(keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)]))
    >>> trainer = Trainer(x, y, steps=20, validation=(x, y), test=(x, y), eval_every=10)
    >>> dense, ticket = find_ticket(model, trainer, levels=1)
    >>> found = verify(ticket, trainer, model, dense=dense)
    7 trainings like that of the ticket, and 60 measurements along lines.
    >>> found.won
    False

    References: Frankle et al. (2021, arXiv 2009.08576), section 5; Sreenivasan et al., "Rare Gems" (2022, arXiv 2202.12002), section 2, for the
    sanity checks; Frankle et al. (2020, arXiv 1912.05671) and Paul et al. (2023, arXiv 2210.03044) for the lines.
    """
    controls.check_pruned(ticket)
    _check_metric(train, metric)
    masked = ticket.apply(model)
    ticket = ticket.in_paths_of(masked)
    dense, before = (None if each is None else each.in_paths_of(masked) for each in (dense, before))
    if dense is not None:
        analysis.check_parent(ticket, dense)
    before = dense if ticket.level == 1 and before is None else before
    accuracy = train if accuracy is None and hasattr(train, "test_accuracy") else accuracy
    not_run = _not_run(ticket, train, dense, before, accuracy)
    names = [name for name in (TICKET, DENSE, *CONTROLS, OTHER_ORDER) if name not in not_run]
    lines = [name for name in ("instability", "level_before") if name not in not_run]
    measured = f", and {len(lines) * points} measurements along lines" if lines else ""
    tell(f"{len(names)} trainings like that of the ticket{measured}.")
    if probe is None and criteria.needs(ticket.found.get("criterion", "large_final")).gradient is not None:
        probe = getattr(train, "probe", None)
    trained: dict[str, Ticket] = {}
    for name in names:
        if name in CONTROLS:
            parent = controls.parent_of(ticket, dense, before)
            given = ticket if dense is None else dense
            trained[name] = controls.trained(name, masked, train, ticket, given, parent, probe=probe, seed=seed)
        elif name == OTHER_ORDER:
            trained[name] = train_level(
                masked, functools.partial(train, seed=_seed_of(train) + controls.REORDERED), controls.anew(ticket)
            )
            analysis.check_differ(trained[TICKET], trained[name])
        else:
            trained[name] = train_level(
                masked, train, controls.anew(ticket if name == TICKET or dense is None else dense)
            )
        _accuracy_of(trained[name], metric)
    ends: dict[str, Any] = {"instability": trained.get(OTHER_ORDER), "level_before": before}
    walked = {
        name: [analysis.barrier(trained[TICKET], ends[name], accuracy, model=masked, x=x, points=points)]
        for name in lines
    }
    early = metric.startswith("early_stop_")
    rows = [
        Measured(name, 0, one.density, _accuracy_of(one, metric), one.metrics.get("early_stop_step") if early else None)
        for name, one in trained.items()
    ]
    test: Any = getattr(train, "sets", {}).get("test")  # one that is streamed has no length
    count = len(test) if examples is None and hasattr(test, "__len__") else examples
    return Verification(ticket.level, rows, walked, [analysis.sign_agreement(trained[TICKET]).share], not_run, count)


def _not_run(ticket: Ticket, train: Train, dense, before, accuracy) -> dict[str, str]:
    """What cannot be had, and why."""
    missing: dict[str, str] = {}
    if dense is None:
        why = "dense=, level 0 of the search, was not given"
        missing |= {DENSE: why, "random_mask": f"{why}, which has the start weights that the ticket prunes"}
    if (lacks := controls.why_not_inverted(ticket, dense, before)) is not None:
        missing["inverted"] = lacks
    if accuracy is None:
        missing |= dict.fromkeys(("instability", "level_before"), "accuracy=, a function of a model, was not given")
    if "seed" not in inspect.signature(train).parameters:
        missing["instability"] = "train takes no other data order, as train(model, callbacks, seed=0) does"
    if "instability" in missing:
        missing[OTHER_ORDER] = missing.pop("instability")
        missing["instability"] = "there is no training in other data order"
    if before is None:
        missing["level_before"] = "before=, the ticket of the level before, was not given"
    elif before.final is None:
        missing["level_before"] = "the ticket of the level before has no trained weights"
    return missing


def _seed_of(train: Train) -> int:
    """The seed of the data order that `train` has by itself."""
    own = getattr(train, "seed", None)
    own = inspect.signature(train).parameters["seed"].default if own is None else own
    return own if isinstance(own, int) else 0


def _check_metric(train: Train, metric: str) -> None:
    """Before anything is trained: a Trainer without the sets that its metrics need."""
    sets = getattr(train, "sets", None)
    if sets is not None and metric == METRIC and not {"validation", "test"} <= sets.keys():
        raise LotteryError(
            "Expected a Trainer with a validation and a test set, for test accuracy at the early stop, but it has "
            f"{', '.join(sets)}; metric= names another accuracy."
        )


def _accuracy_of(ticket: Ticket, metric: str) -> float:
    value = ticket.metrics.get(metric)
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise LotteryError(
            f"Expected train to return {metric} in [0, 1], or metric= to name an accuracy that it returns, but received "
            f"{', '.join(f'{name}={number!r:.12}' for name, number in ticket.metrics.items()) or 'nothing'}."
        )
    return float(value)
