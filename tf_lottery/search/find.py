"""The search for winning tickets: train, prune, reset, again.

`find_ticket` is the loop of the papers, `rounds` what happens between two trainings; the parts (how to train, what to keep, what
weights start from) are handed in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import keras
import numpy as np

from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import gradients, own_step, state, weights, wrapping
from tf_lottery.masking.gradients import Probe
from tf_lottery.masking.masked import settle
from tf_lottery.masking.weights import Fraction, Kernel, Prunable
from tf_lottery.rules import masks, treatments
from tf_lottery.rules.masks import Arrays
from tf_lottery.search.rounds import Rounds, names, numbers, treat
from tf_lottery.tickets import recipes
from tf_lottery.tickets.ticket import Ticket
from tf_lottery.tickets.values import arrays

Train = Callable[
    [keras.Model, Sequence[keras.callbacks.Callback]], Mapping[str, float] | keras.callbacks.History | None
]


def find_ticket(
    model: keras.Model,
    train: Train,
    *,
    levels: int = 10,
    prune_fraction: Fraction = 0.2,
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
    probe: Probe | None = None,
    seed: int = 0,
) -> Iterator[Ticket]:
    """Finds winning tickets by iterative pruning; yields one ticket a level.

    Level 0 trains the dense network. Level k prunes the lowest scores of what level k - 1 kept, gives the survivors their
    starting weights and trains again. With a `prune_fraction` p for all kernels the density of level k is (1 - p)^k, if single
    weights compete.

    Biases, normalisation and other variables return to their initial values with the survivors, statistics and random
    seeds too (with `survivors="keep"` they stay). A compiled optimizer loses its state, so every level starts anew.

    Args:
      model: A built Keras 3 model, plain or wrapped. It is trained in place and holds the last level at the end.
      train: `train(model, callbacks)` trains the wrapped model and returns its metrics: a `Trainer`, or your own function around
        `model.fit(..., callbacks=callbacks)`, whose History may be returned as it is.
      levels: How many pruning rounds, at least 1.
      prune_fraction: The share of the *remaining* weights that a round removes, in (0, 1); or one for each kernel, see
        `weights.prune_fractions`.
      criterion: What to keep; a name from `criteria` or a function.
      survivors: What kept weights start from; a name from `treatments` or a function.
      pruned: What pruned weights hold; a name from `treatments` or a function.
      scope: Whether scores compete within each `"layer"` or in the `"global"` network; or whole output channels and units by the
        norm of their scores (`patterns.channel_scores`), `"channels"` within each layer or `"global_channels"`. Then
        `prune_fraction` is the share of the remaining *channels* that a round removes, and the kernels that have none to
        spare stay dense, the output layer above all; see `state.channel_axes`.
      rewind_to: The step of level 0 whose weights the survivors rewind to; 0 = the initialisation. Later levels train in full
        from there.
      one_shot: Prune every level directly from the dense network, instead of from the level before.
      reset: `"each_level"` (strategy 1 of Frankle & Carbin), or `"at_end"` (strategy 2): training goes on from the trained
        weights, and only the last level starts from its `survivors` treatment of the initial weights.
      min_per_kernel: How many weights of each kernel are kept whatever their scores (with whole channels: how many of those).
      start_from: A ticket to go on from; its level is not trained again, unless it has no trained weights. To end exactly
        where an uninterrupted search would have, give the first and the last ticket of that search: `one_shot`,
        `reset="at_end"` and the constant treatments look back at the first.
      prunable: Which variables are prunable, if not the kernels; see `weights.prunable_kernels`.
      probe: The batch, `(x, y)` or `(x, y, loss)`, that `snip`, `grad`, `grasp` and other criteria take gradients on, at the
        level's initial weights: with `one_shot=True` every level is pruned before training. By default the `probe` of the
        `Trainer`; without a loss the compiled model's.
      seed: Decides everything random in the search: drawn weights, shuffles, random scores, which of equal scores are kept.

    Yields:
      A `Ticket` per level, the dense one first. Its `initial` is what the level started from (at level 0 with `rewind_to`:
      the weights at that step), its `final` what training made of it.

    Raises:
      LotteryError: If an argument is out of range or unknown, or the model has nothing to prune.

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
    _check(levels, rewind_to)
    masked = wrapping.wrap(model, prunable, held=treatments.get_pruned(pruned) is not treatments.zero)
    kernels = _kernels(masked)
    rounds = Rounds(
        [weights.prune_fractions(list(kernels.values()), prune_fraction)] * levels,
        lambda path, seed: recipes.draw(kernels[path], seed),
        lambda kind, masks, values: gradients.take(masked, kind, probe, masks, values),
        state.channel_axes(masked) if scope in masks.CHANNEL_SCOPES else None,
        criterion=criterion,
        survivors=survivors,
        pruned=pruned,
        scope=scope,
        one_shot=one_shot,
        reset=reset,
        min_per_kernel=min_per_kernel,
        seed=seed,
    )
    probe = gradients.checked(rounds.criterion, probe, otherwise=train)
    found = {
        **names(criterion=rounds.criterion, survivors=rounds.survivors, pruned=rounds.pruned),
        **names(prune_fraction=prune_fraction, scope=scope, rewind_to=rewind_to),
        **{"one_shot": one_shot, "reset": reset, "min_per_kernel": min_per_kernel, "seed": seed},
    }
    given = _in_paths_of(masked, [start_from] if isinstance(start_from, Ticket) else start_from)

    def search() -> Iterator[Ticket]:
        last = given[-1] if given else _begin(masked, found)
        if last.final is None:
            last = _trained(masked, train, last, rewind_to)
            yield last
        first = given[0] if len(given) > 1 else last
        while last.level < levels:
            last = _trained(
                masked, train, dataclasses.replace(rounds.next(last, first), found=found).inheriting(last, first)
            )
            yield last

    return search()


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
      The ticket that was trained, of the same level.
    """
    survivors, pruned = treatments.get_survivors(survivors), treatments.get_pruned(pruned)
    found = {**ticket.found, **names(survivors=survivors, pruned=pruned), "random_mask": random_mask, "seed": seed}
    masked = wrapping.wrap(model, held=pruned is not treatments.zero)
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
    return _trained(masked, train, Ticket(new, start, level=ticket.level, found=found).inheriting(dense))


class _Snapshot(keras.callbacks.Callback):
    """The weights at one step of training."""

    def __init__(self, step: int):
        super().__init__()
        self.at_steps = (step,)
        self.values: Arrays | None = None

    def on_train_batch_end(self, batch, logs=None):
        if self.values is not None:
            return
        step, (wanted,) = (logs or {}).get("step") or own_step.step_of_model(self.model), self.at_steps
        if step > wanted:
            raise LotteryError(
                f"Expected training to stop by at step {wanted} for rewind_to, but it went on to step {step} at once."
            )
        if step == wanted:
            self.values = state.get_values(self.model)

    def saved(self) -> Mapping[str, np.ndarray]:
        """What a training that was killed must not lose; see `Trainer`."""
        return {str(i): value for i, value in enumerate((self.values or {}).values())}

    def resume(self, arrays: Mapping[str, np.ndarray]) -> None:
        if arrays:  # in the order of the variables: Keras counts up automatic names
            self.values = {path: arrays[str(i)] for i, path in enumerate(state.named_variables(self.model))}


def _begin(masked, found: Mapping) -> Ticket:
    """The first level, not trained yet, with the recipes of what still holds what its initializer drew."""
    drawn = {recipe.digest: recipe for recipe in recipes.of_model(masked.inner).values()}
    return Ticket(state.get_masks(masked), state.get_values(masked), found=found, recipes=drawn)


def _trained(masked, train: Train, ticket: Ticket, rewind_to: int = 0) -> Ticket:
    """The ticket after training. A dense one that is to be rewound to a later step gets that step's weights as initial."""
    state.set_state(masked, ticket.masks, arrays(ticket.initial))
    snapshot = _Snapshot(rewind_to) if rewind_to and ticket.level == 0 else None
    metrics = metrics_of(train(masked, [snapshot] if snapshot else []))
    if snapshot and snapshot.values is None:
        raise LotteryError(
            f"Expected train to hand its callbacks on and to reach step {rewind_to} for rewind_to, but it did not."
        )
    initial = arrays(snapshot.values if snapshot else ticket.initial)
    settle(masked)
    return dataclasses.replace(ticket, initial=initial, final=state.get_values(masked), metrics=metrics)


def metrics_of(returned: Mapping[str, float] | keras.callbacks.History | None) -> dict[str, float]:
    """What a `train` returned, as a dict of plain numbers; of a History the last epoch."""
    if isinstance(returned, keras.callbacks.History):
        returned = {name: values[-1] for name, values in returned.history.items()}
    return numbers(returned or {})


def _in_paths_of(masked, tickets: Sequence[Ticket]) -> list[Ticket]:
    if not all(isinstance(ticket, Ticket) for ticket in tickets):
        raise LotteryError(f"Expected tickets, as Ticket.load returns them, but received {tickets!r:.80}.")
    return [ticket.in_paths_of(masked) for ticket in tickets]


def _kernels(masked) -> dict[str, Kernel]:
    if not masked.built:
        raise LotteryError(
            f"Expected a built model, but {masked.name!r} has no weights yet: build it or call it on data first."
        )
    return {kernel.path: kernel for kernel in masked.kernels}


def _check(levels, rewind_to) -> None:
    if not isinstance(levels, int) or levels < 1:
        raise LotteryError(f"Expected at least 1 level, a whole number, but received levels={levels!r}.")
    if not isinstance(rewind_to, int) or rewind_to < 0:
        raise LotteryError(f"Expected rewind_to to be a step, 0 or later, but received {rewind_to}.")
