"""The search for winning tickets: train, prune, reset, again.

`find_ticket` is the loop of the papers, `rounds` what happens between two trainings; the parts (how to train, what to keep, what
weights start from) are handed in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_lottery.base.bounds import MOST_LEVELS, whole
from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import calls, gradients, health, state, weights, wrapping
from tf_lottery.masking.gradients import Probe
from tf_lottery.masking.masked import Masked
from tf_lottery.masking.weights import Fraction, Kernel, Prunable
from tf_lottery.rules import masks, treatments
from tf_lottery.search.auto import auto
from tf_lottery.search.gradual import check_kernels, gradual
from tf_lottery.search.iterative import iterative
from tf_lottery.search.logger import Log, Logger, logged
from tf_lottery.search.loggers import made
from tf_lottery.search.lottery import Lottery, Train, begin, beginning, check_train, cost_of_search, train_level
from tf_lottery.search.one_shot import one_shot as from_dense
from tf_lottery.search.plan import Kernels, Plan, check, check_gradual, planned, road_of, steps_of
from tf_lottery.search.rates import PAPERS
from tf_lottery.search.regrow import check_regrow, regrow
from tf_lottery.search.rounds import Rounds, names, treat
from tf_lottery.tickets import recipes
from tf_lottery.tickets.ticket import Ticket
from tf_lottery.tickets.values import arrays

ROADS: dict[str, Callable[[Lottery], Iterator[Ticket]]] = {
    "iterative": iterative,
    "one_shot": from_dense,
    "gradual": gradual,
    "auto": auto,
    "regrow": regrow,
}


def find_ticket(
    model: keras.Model,
    train: Train,
    *,
    search: str = "auto",
    levels: int | None = None,
    density: float | Sequence[float] | None = None,
    budget: float | None = None,
    level_steps: int | None = None,
    search_steps: int | None = None,
    dense: bool = True,
    prune_fraction: Fraction | None = None,
    criterion: str | Callable = "large_final",
    survivors: str | Callable = "rewind",
    pruned: str | Callable = "zero",
    scope: str = "layer",
    rewind_to: int = 0,
    one_shot: bool = False,
    reset: str = "each_level",
    min_per_kernel: int = 1,
    start_from: Ticket | Sequence[Ticket] = (),
    prunable: Prunable = None,
    exclude: Prunable = None,
    probe: Probe | None = None,
    seed: int = 0,
    logger: Logger | str | Callable | Sequence = (),
) -> Iterator[Ticket]:
    """Finds winning tickets; yields one ticket a level.

    With `search="iterative"` level 0 trains the dense network. Level k prunes the lowest scores of what level k - 1 kept, gives
    the survivors their starting weights and trains again. With a `prune_fraction` p for all kernels the density of level k is (1 - p)^k, if single
    weights compete.

    Biases, normalisation and other variables return to their initial values with the survivors, statistics and random
    seeds too (with `survivors="keep"` they stay). A compiled optimizer loses its state, so every level starts anew.

    A search in full costs a training for each level. A cheaper one has a budget, as in `density=0.036, budget=2`. Each ticket's
    metrics tell what it cost in `trainings`: the steps of its search and its own, over the steps of one training.

    Args:
      model: A built Keras 3 model, plain or wrapped. It is trained in place and holds the last level at the end.
      train: `train(model, callbacks)` trains the wrapped model and returns its metrics: a `Trainer`, or your own function around
        `model.fit(..., callbacks=callbacks)`, whose History may be returned as it is. If trainings of the search are shorter
        than the ticket's, it takes `steps` too, as in `train(model, callbacks, steps=12_000)`, with the steps of one training.
      search: The road: `"iterative"` prunes each level from the one before; `"one_shot"` each directly from the dense network;
        `"gradual"` each in a training of its own, bit by bit, and rewinds it then; `"regrow"` searches nothing: it trains a network
        that is sparse from the start (`callbacks.RegrowBySchedule`), which is no rewound ticket, see `search.regrow`. `"auto"` is
        `"iterative"`, and with a `budget` the one of short levels and gradual pruning that the network is made for, see `search.auto`.
      levels: How many pruning rounds, at least 1; by default 10, or as many as rounds of `prune_fraction` lead to `density`.
      density: What the last ticket is to keep, in (0, 1), or several densities in falling order; with whole channels shares of these. Each
        level prunes as many rounds of `prune_fraction` at once as it takes. The tickets of these densities are trained in full.
      budget: The trainings that the last ticket may cost, its own included. `search="iterative"` has 4 levels of
        (budget - 1) / 4 of the steps then (above a budget of 2.5 more levels, of a quarter of the steps), of which the first half
        prunes three rounds where the second prunes two; `search="auto"` the first of these, and what it chooses for the rest; with
        `search="regrow"` it is how long the one training is.
      level_steps: Steps of the levels that only lead to a ticket; by default they are trained in full.
      search_steps: With `search="gradual"` the steps of the training that prunes, by default half of the steps; with
        `search="regrow"` those of the one that there is, by default all.
      dense: Whether the dense network is trained in full, as a reference that counts for no ticket, where the search does not
        need that.
      prune_fraction: The share of the *remaining* weights that a round removes, in (0, 1); or one for each kernel, see
        `weights.prune_fractions`. By default 0.2; with `density` half of it in the output layer, if scores compete within layers.
      criterion: What to keep; a name from `criteria` or a function.
      survivors: What kept weights start from; a name from `treatments` or a function.
      pruned: What pruned weights hold; a name from `treatments` or a function.
      scope: Whether scores compete within each `"layer"` or in the `"global"` network; or whole output channels and units by the
        norm of their scores (`patterns.channel_scores`), `"channels"` within each layer or `"global_channels"`. Then
        `prune_fraction` is the share of the remaining *channels* that a round removes, and the kernels that have none to
        spare stay dense, the output layer above all; see `state.channel_axes`.
      rewind_to: The step of level 0 whose weights the survivors rewind to; 0 = the initialisation. Later levels train in full
        from there.
      one_shot: The same as `search="one_shot"`.
      reset: `"each_level"` (strategy 1 of Frankle & Carbin), or `"at_end"` (strategy 2): training goes on from the trained
        weights, and only the last level starts from its `survivors` treatment of the initial weights.
      min_per_kernel: How many weights of each kernel are kept whatever their scores (with whole channels: how many of those).
      start_from: A ticket to go on from; its level is not trained again, unless it has no trained weights. To end exactly
        where an uninterrupted search would have, give the first and the last ticket of that search: `one_shot`,
        `reset="at_end"` and the constant treatments look back at the first.
      prunable: Which variables are prunable, if not the kernels; see `weights.prunable_kernels`.
      exclude: What to leave out of that, in the same words.
      probe: The batch, `(x, y)` or `(x, y, loss)`, that `snip`, `grad`, `grasp` and other criteria take gradients on, at the
        level's initial weights: with `one_shot=True` every level is pruned before training; with `search="regrow"` what weights grow by. By default the `probe` of the
        `Trainer`; without a loss the compiled model's.
      seed: Decides everything random in the search: drawn weights, shuffles, random scores, which of equal scores are kept.
      logger: Who is told that the search begins, of each ticket before it is yielded, and that the search ends: a `Logger`, a
        name from `loggers` as `"tensorboard=logs"`, or several.

    Yields:
      A `Ticket` per level, the dense one first. Its `initial` is what the level started from (at level 0 with `rewind_to`:
      the weights at that step), its `final` what training made of it.

    Raises:
      LotteryError: If an argument is out of range or unknown, or the model has nothing to prune.

    Warns:
      LotteryWarning: If a level's masks all but empty a kernel, leave channels without inputs or outputs, or let no signal pass; see
        `health.Watch`. If a logger fails; it is told no more.

    Examples:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)])
    >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    >>> def train(model, callbacks):
    ...     model.compile("sgd", "mse")
    ...     return model.fit(x, x[:, :2], verbose=0, callbacks=callbacks)
    >>> [round(ticket.density, 3) for ticket in find_ticket(model, train, levels=2, prune_fraction=0.5)]
    [1.0, 0.5, 0.25]

    References: Frankle & Carbin (2019), section 1 and appendix B; Zhou et al. (2019), sections 2 to 4; Frankle et al. (2019,
    arXiv 1903.01611) for `rewind_to`.
    """
    check_train(train)
    road = road_of(search, one_shot, budget)
    _check(levels, rewind_to)
    held = treatments.get_pruned(pruned) is not treatments.zero
    masked = wrapping.wrap(model, prunable, exclude=exclude, held=held)
    kernels = _kernels(masked)
    axes = state.channel_axes(masked) if scope in masks.CHANNEL_SCOPES else None
    if prune_fraction is None:
        prune_fraction = PAPERS if density is not None and scope == "layer" else 0.2
    fractions = weights.prune_fractions(list(kernels.values()), prune_fraction)
    plan = planned(
        *(road, levels, density, budget, level_steps, search_steps, dense),
        steps=lambda: steps_of(train),
        least=getattr(train, "eval_every", 1),
        kernels=Kernels(fractions, state.get_masks(masked), axes),
    )
    assert plan is not None
    limits: Any = {"criterion": criterion, "reset": reset, "min_per_kernel": min_per_kernel, "rewind_to": rewind_to}
    check(plan, road, **limits)
    rounds = Rounds(
        plan.fractions,
        lambda path, seed: recipes.draw(kernels[path], seed),
        lambda kind, masks, values: gradients.take(masked, kind, probe, masks, values),
        axes,
        criterion=criterion,
        survivors=survivors,
        pruned=pruned,
        scope=scope,
        one_shot=road == "one_shot",
        reset=reset,
        min_per_kernel=min_per_kernel,
        seed=seed,
    )
    if road == "gradual":
        check_kernels(rounds, plan)
    if road == "regrow":
        check_regrow(rounds, plan, rewind_to, probe, train)
    else:
        probe = gradients.checked(rounds.criterion, probe, otherwise=train, model=masked)
    found = {
        **names(criterion=rounds.criterion, survivors=rounds.survivors, pruned=rounds.pruned),
        **names(prune_fraction=prune_fraction, scope=scope, rewind_to=rewind_to),
        **{"one_shot": rounds.one_shot, "reset": reset, "min_per_kernel": min_per_kernel, "seed": seed},
        **plan.told,
    }
    given = _in_paths_of(masked, [start_from] if isinstance(start_from, Ticket) else start_from)
    _check_given(given, road, plan.told)

    log = Log(made(logger), model.name, found)

    def tickets() -> Iterator[Ticket]:
        if plan.search_steps is not None:
            start = beginning(masked, found, given, rewind_to)
        else:
            start = given[-1] if given else begin(masked, found)
        own: dict[str, Any] = {"steps": plan.steps, "search_steps": plan.search_steps, "asked": plan.asked}
        if road == "auto":
            own |= {"short": plan.short, "gradual_steps": plan.gradual_steps}
            own["not_gradual"] = _why_not_gradual(rounds, plan, limits)
        own["probe"] = probe if road == "regrow" else None
        ways = ["prune_fraction" if density is None else "density", "exclude"]
        ways += [] if road in ("gradual", "auto") else ["min_per_kernel"]
        own["watch"] = health.Watch(masked, scope, ways=ways)
        lottery = Lottery(masked, train, rounds, {**found, **_begun_with(start)}, start, given, rewind_to, **own)
        lottery.callbacks = log.callbacks
        yield from logged(ROADS[road](lottery), log, train) if log.loggers else ROADS[road](lottery)

    return tickets()


def retrain_ticket(
    model: keras.Model,
    train: Train,
    ticket: Ticket,
    dense: Ticket,
    *,
    survivors: str | Callable = "rewind",
    pruned: str | Callable = "zero",
    random_mask: bool = False,
    seed: int = 0,
) -> Ticket:
    """Trains a ticket's mask from other weights, or a random mask in its place: the controls of the papers.

    Args:
      model, train: As for `find_ticket`.
      ticket: Whose masks to use.
      dense: The level-0 ticket of the same search: its initial and final weights are what the treatments are given.
      survivors: What kept weights start from: `"reinit"` is the control of Frankle & Carbin.
      pruned: What pruned weights hold.
      random_mask: Put a random mask of the same layer-wise densities in the place of the ticket's; of whole channels if those
        competed in its search.
      seed: Decides everything random: drawn weights, shuffles, the random mask.

    Returns:
      The ticket that was trained, of the same level and in full; its `trainings` count the search that found the mask.
    """
    check_train(train)
    survivors, pruned, seed = treatments.get_survivors(survivors), treatments.get_pruned(pruned), whole("seed", seed)
    found = {**ticket.found, **names(survivors=survivors, pruned=pruned), "random_mask": random_mask, "seed": seed}
    found.pop("steps", None)  # of the ticket's own training, which may have been short
    kept = None if isinstance(model, Masked) or not calls.has_weights(model) else _masked_by(ticket, model)
    masked = wrapping.wrap(model, kept, held=pruned is not treatments.zero)
    kernels = _kernels(masked)
    ticket, dense = _in_paths_of(masked, [ticket, dense])
    rng = np.random.default_rng([seed, ticket.level, 1])
    axes = state.channel_axes(masked) if ticket.found.get("scope") in masks.CHANNEL_SCOPES else None
    new = masks.shuffled(ticket.masks, rng, axes) if random_mask else ticket.masks
    start = treat(
        new,
        arrays(dense.initial),
        arrays(dense.final),
        survivors=survivors,
        pruned=pruned,
        dense=dense,
        draw=lambda path, seed: recipes.draw(kernels[path], seed),
        seed=[seed, ticket.level],
    )
    trained = train_level(masked, train, Ticket(new, start, level=ticket.level, found=found).inheriting(dense))
    if (searched := cost_of_search(ticket)) is None:
        return trained
    return dataclasses.replace(trained, metrics={**trained.metrics, "trainings": round(searched + 1, 6)})


def _in_paths_of(masked, tickets: Sequence[Ticket]) -> list[Ticket]:
    if not all(isinstance(ticket, Ticket) for ticket in tickets):
        raise LotteryError(f"Expected tickets, as Ticket.load returns them, but received {tickets!r:.80}.")
    found = [ticket.in_paths_of(masked) for ticket in tickets]
    for ticket in found:
        if set(ticket.masks) != (own := {kernel.path for kernel in masked.kernels}):
            raise LotteryError(
                f"Expected tickets that mask the kernels of {masked.name!r}, but one masks {', '.join(sorted(set(ticket.masks) ^ own))} "
                "and the model not, or the other way round: say what is pruned with prunable and exclude."
            )
    return found


def _masked_by(ticket: Ticket, model) -> list[str]:
    """The kernels that a ticket masks, by their paths in the model."""
    shapes = {name: value.shape for name, value in ticket.initial.items()}
    return [path for path, name in state.matched(model, shapes).items() if name in ticket.masks]


def _kernels(masked) -> dict[str, Kernel]:
    if not masked.built:
        raise LotteryError(
            f"Expected a built model, but {masked.name!r} has no weights yet: build it or call it on data first."
        )
    return {kernel.path: kernel for kernel in masked.kernels}


def _begun_with(start: Ticket) -> dict:
    return {"start": start.found["start"]} if "start" in start.found else {}


def _check_given(given: Sequence[Ticket], road: str, told: Mapping) -> None:
    """Refuses to go on with a search of another road."""
    for ticket in given:
        if ticket.level and "one_shot" in ticket.found:
            theirs = ticket.found.get("search", "one_shot" if ticket.found["one_shot"] else "iterative")
            if theirs != road:
                raise LotteryError(f"Expected tickets of search={road!r} to go on from, but {ticket} is of {theirs!r}.")
        for key in ("density", "budget", "level_steps", "search_steps"):
            if ticket.level and ticket.found.get(key) != told.get(key):
                raise LotteryError(
                    f"Expected tickets of a search with {key}={told.get(key)} to go on from, but {ticket} is of {ticket.found.get(key)}."
                )


def _why_not_gradual(rounds: Rounds, plan: Plan, limits: Mapping[str, Any]) -> str | None:
    """Why gradual pruning cannot take the place of short levels; None if it can."""
    try:
        check_gradual(plan.gradual_steps, **limits)
        check_kernels(rounds, plan)
    except LotteryError as error:
        return f"gradual pruning cannot do that: {error}"
    return None


def _check(levels, rewind_to) -> None:
    if levels is not None:
        whole("levels", levels, 1, MOST_LEVELS)
    whole("rewind_to", rewind_to)
