"""What two networks have in common, and what becomes of a ticket elsewhere: the analyses of the field, as functions.

Each takes tickets or Keras 3 models, plain or wrapped. Models that are trained or walked through have their own weights again at the
end where it says so. `tf_lottery.verify` puts them together, with the controls, into an answer.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tf_lottery.base.errors import LotteryError
from tf_lottery.checks import walk
from tf_lottery.checks.line import POINTS, STABLE, Line
from tf_lottery.checks.walk import EXAMPLES, Network
from tf_lottery.masking import state, weights
from tf_lottery.masking.masked import Masked
from tf_lottery.rules import masks as masks_lib
from tf_lottery.rules.masks import Arrays, Overlap
from tf_lottery.search.find import retrain_ticket
from tf_lottery.search.lottery import Train, train_level
from tf_lottery.tickets import recipes
from tf_lottery.tickets.ticket import Ticket
from tf_lottery.tickets.values import arrays

__all__ = [
    "STABLE",
    "Line",
    "Signs",
    "Transfer",
    "barrier",
    "instability",
    "mask_overlap",
    "sign_agreement",
    "transfer",
]

Accuracy = Callable[[keras.Model], float]


@dataclass(frozen=True)
class Signs:
    """How many kept weights have the same sign in two networks.

    Attributes:
      layers: The share in each kernel, in [0, 1]; NaN where nothing is kept.
      share: That of all kernels together; of independent signs about 1/2.
    """

    layers: Mapping[str, float]
    share: float


@dataclass(frozen=True)
class Transfer:
    """A ticket on other data, beside what it has to beat there; the metrics of each are what `train` returned.

    Attributes:
      ticket: Its masks and start weights, trained on the other data.
      dense: The dense network that the ticket comes from, trained on them.
      random: A random mask of the same layer densities in the ticket's place.
    """

    ticket: Ticket
    dense: Ticket
    random: Ticket


def barrier(
    a: Ticket | keras.Model,
    b: Ticket | keras.Model,
    accuracy: Accuracy | Any,
    *,
    model: keras.Model | None = None,
    x: np.ndarray | None = None,
    points: int = POINTS,
) -> Line:
    """The error on the straight line between two trained networks; its `barrier` is 0 where they are joined.

        barrier = max over alpha of E((1 - alpha) w_a + alpha w_b) - (E(w_a) + E(w_b)) / 2

    Networks that differ in their masks are joined under both: what one of them prunes goes to zero on the way. Where the model has
    batch statistics, they are estimated anew at each point, the ends too, on up to 2,560 training inputs in batches of 128.

    Args:
      a, b: The ends: trained tickets, or models of one architecture.
      accuracy: `accuracy(model)` -> share of right answers in [0, 1]; or a `Trainer`, whose test set and training inputs are taken.
      model: The built model that the networks of the line are put on; by default that of `a` or of `b`. It is measured as it is,
        plain or wrapped, and has its own weights and masks again at the end.
      x: Training inputs for batch statistics; those of a `Trainer` by default.
      points: How many networks are measured, the ends among them, at equal distances.

    Returns:
      A `Line`: `alphas`, `errors`, and `barrier` in [0, 1].

    Raises:
      LotteryError: If there is no model to put them on, no training inputs where there are batch statistics, or a ticket is not
        trained; a `TicketError` if their shapes do not meet.

    Examples:

    >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)])
    >>> accuracy = lambda model: float(np.mean(np.argmax(model(x), 1) == (x[:, 0] > 0)))
    >>> barrier(model, model, accuracy).barrier
    0.0
    >>> barrier(model, keras.models.clone_model(model), accuracy, points=5).alphas
    (0.0, 0.25, 0.5, 0.75, 1.0)

    Reference: Frankle et al. (2020, arXiv 1912.05671), section 2, with 30 points; for tickets of neighbouring levels Paul et al. (2023,
    arXiv 2210.03044), section 3.
    """
    own = [each for each in (model, a, b) if not isinstance(each, Ticket) and each is not None]
    for each in own:
        weights.check_keras_3(each)
        walk.check_whole(each)
    if not own:
        raise LotteryError("Expected model=, a built model, to put two tickets on, but received none.")
    measure, inputs = _measure(accuracy)
    one, other = (_network(each, own[0]) for each in (a, b))
    return walk.walk(own[0], one, other, measure, inputs if x is None else x, points)


def instability(
    ticket: Ticket,
    train: Train,
    model: keras.Model,
    *,
    accuracy: Accuracy | Any = None,
    seeds: Sequence[int] = (0, 1),
    x: np.ndarray | None = None,
    points: int = POINTS,
) -> Line:
    """Trains a ticket twice in different data order, and measures the line between the two; below 2 points it is `stable`.

        instability = max over alpha of E((1 - alpha) w_1 + alpha w_2) - (E(w_1) + E(w_2)) / 2

    Both start from the ticket's masks and start weights, with the same random states, so they differ by the order of the data (and
    its augmentation) alone. A dense network is a ticket too: level 0 of a search. Its instability at a later step is that of a search
    with `rewind_to`.

    Args:
      ticket: Whose masks and start weights to train.
      train: `train(model, callbacks, seed=0)`, where `seed` decides the order of the data: a `Trainer`, or your own function.
      model: A built model; it holds the second of the trained networks at the end, and is wrapped if it is not yet.
      accuracy: As for `barrier`; by default the `train`, if it is a `Trainer`.
      seeds: The two orders.
      x, points: As for `barrier`.

    Raises:
      LotteryError: If `train` takes no seed, or trains the same network twice; else as for `barrier`.

    Examples:

    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(200, 4)).astype("float32"), rng.integers(0, 2, 200)
    >>> from tf_lottery import Trainer, find_ticket, wrap
    >>> model = wrap(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
    >>> trainer = Trainer(x, y, steps=20, batch_size=50, validation=(x, y), test=(x, y), eval_every=10)
    >>> *_, ticket = find_ticket(model, trainer, levels=1)
    >>> instability(ticket, trainer, model).stable
    True

    Reference: Frankle et al. (2020, arXiv 1912.05671), section 2: instability analysis.
    """
    check_seeds(train)
    if accuracy is None and not hasattr(train, "test_accuracy"):
        raise LotteryError("Expected accuracy=, a function of a model, because train measures none, but received none.")
    first, second = seeds
    masked = ticket.apply(model)
    own = ticket.in_paths_of(masked)
    one, other = (train_level(masked, functools.partial(train, seed=seed), own) for seed in (first, second))
    check_differ(one, other)
    return barrier(one, other, train if accuracy is None else accuracy, model=masked, x=x, points=points)


def sign_agreement(a: Ticket | keras.Model, b: Ticket | keras.Model | None = None) -> Signs:
    """The share of kept weights whose sign is the same in two networks, or at the start and the end of a ticket's training.

        share = |{i kept: sign(w_i) = sign(w'_i)}| / |{i kept}|

    A weight counts that both keep; one that is exactly 0 has the sign 0. Biases and other variables do not count.

    Args:
      a: A trained ticket: alone, its start weights are compared with its trained ones. Or a model.
      b: What to compare the trained weights with: those of another ticket or model of the same kernels.

    Raises:
      LotteryError: If a ticket is not trained, or their kernels do not meet.

    Examples:

    >>> start, end = np.array([1.0, -2.0, 3.0, 0.0]), np.array([0.5, 1.0, 2.0, 0.0])
    >>> sign_agreement(Ticket({"kernel": np.array([1, 1, 1, 0])}, {"kernel": start}, {"kernel": end}))
    Signs(layers={'kernel': 0.6666666666666666}, share=0.6666666666666666)

    Reference: Zhou et al. (2019), section 4, on what signs do; Frankle, Schwab & Morcos (2020, arXiv 2002.10365), section 5.
    """
    if b is None:
        if not isinstance(a, Ticket):
            raise LotteryError(
                "Expected a ticket, which has a start and an end, or two networks, but received one model."
            )
        kept, ends = a.masks, [drawn(a), _trained(a)]
    else:
        one, other = _kernels_of(a), _kernels_of(b)
        masks_lib.overlap(one.masks, other.masks)  # refuses kernels that do not meet
        names = dict(zip(one.masks, one.masks if one.masks.keys() == other.masks.keys() else other.masks))
        kept = {path: one.masks[path] * other.masks[name] for path, name in names.items()}
        ends = [one.values, {path: other.values[name] for path, name in names.items()}]
    agree = {
        path: (np.sign(ends[0][path]) == np.sign(ends[1][path]))[np.asarray(mask, bool)] for path, mask in kept.items()
    }
    count = sum(same.size for same in agree.values())
    right = sum(int(same.sum()) for same in agree.values())
    shares = {path: float(same.mean()) if same.size else float("nan") for path, same in agree.items()}
    return Signs(shares, right / count if count else float("nan"))


def mask_overlap(a, b) -> dict[str, Overlap]:
    """What two masks have in common, kernel by kernel, against chance.

        jaccard = |a and b| / |a or b|;    by chance: |a and b| = |a| |b| / size

    Args:
      a, b: Tickets, wrapped models, or masks by path; matched by path, or if these differ in order.

    Returns:
      For each kernel an `Overlap`: `jaccard` with `jaccard_by_chance`, that of random masks of the same densities; and `both`, the
      weights that both keep, with `by_chance` and their ratio, `against_chance`.

    Raises:
      LotteryError: If they do not mask the same kernels.

    Examples:

    >>> found = mask_overlap({"kernel": np.array([1, 1, 0, 0])}, {"kernel": np.array([1, 0, 1, 0])})["kernel"]
    >>> round(found.jaccard, 3), round(found.jaccard_by_chance, 3)
    (0.333, 0.333)

    Reference: Jaccard (1912); for masks of several searches Paul et al. (2023, arXiv 2210.03044), and Pham et al. (2023, arXiv 2204.02937).
    """
    given = [each.masks if isinstance(each, Ticket) else each for each in (a, b)]
    return masks_lib.overlap(*(each if isinstance(each, Mapping) else state.get_masks(each) for each in given))


def transfer(ticket: Ticket, train: Train, model: keras.Model, dense: Ticket, *, seed: int = 0) -> Transfer:
    """Trains a ticket on another data set of the same shapes, beside the dense network and a random mask: three trainings.

    The ticket keeps its masks and start weights; what it is worth there is `metrics` of `ticket` less those of `random`, and of `dense`.

    Args:
      ticket: A ticket that was found on one data set.
      train: As for `find_ticket`, on the other one.
      model: A built model; it holds the last of the networks at the end.
      dense: Level 0 of the ticket's search, for the start weights that the ticket prunes.
      seed: Decides the random mask.

    Raises:
      LotteryError: If `dense` prunes weights that the ticket keeps; a `TicketError` if their shapes do not meet, a `DataError` of the
        `Trainer` if the data do not fit the model.

    Examples:

    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(200, 4)).astype("float32"), rng.integers(0, 2, 200)
    >>> from tf_lottery import Trainer, find_ticket, wrap
    >>> model = wrap(keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)]))
    >>> here, there = (Trainer(x, labels, steps=20, validation=(x, labels), test=(x, labels)) for labels in (y, 1 - y))
    >>> dense, ticket = find_ticket(model, here, levels=1)
    >>> sorted(vars(transfer(ticket, there, model, dense)))
    ['dense', 'random', 'ticket']

    Reference: Morcos et al., "One ticket to win them all" (2019, arXiv 1906.02773), section 3.
    """
    masked = ticket.apply(model)
    own, start = ticket.in_paths_of(masked), dense.in_paths_of(masked)
    check_parent(own, start)
    found = {**ticket.found, "transferred": True}
    moved = train_level(masked, train, dataclasses.replace(own, found=found, final=None, metrics={}))
    whole = train_level(masked, train, dataclasses.replace(start, found=found, final=None, metrics={}))
    return Transfer(moved, whole, retrain_ticket(masked, train, own, start, random_mask=True, seed=seed))


def check_seeds(train: Train) -> None:
    """Refuses a train function that cannot train in another order.

    Raises:
      LotteryError: If it cannot.
    """
    if "seed" not in inspect.signature(train).parameters:
        raise LotteryError(
            "Expected a train function that takes another order of the data, as in train(model, callbacks, seed=0), for two trainings "
            f"that differ in nothing else, but received {getattr(train, '__qualname__', train)!r:.80}."
        )


def check_differ(one: Ticket, other: Ticket) -> None:
    """Refuses two trainings that ended in the same network: `train` did not do as its `seed` said."""
    pairs = zip(arrays(one.final).values(), arrays(other.final).values())
    if all(np.array_equal(a, b) for a, b in pairs):
        raise LotteryError(
            "Expected a train function whose seed decides the order of the data, but two seeds trained the same network to the bit."
        )


def check_parent(ticket: Ticket, dense: Ticket) -> None:
    """Refuses what is not the dense network of a ticket.

    Raises:
      LotteryError: If it prunes weights that the ticket keeps, or masks other kernels.
    """
    if ticket.masks.keys() != dense.masks.keys() or any(
        np.any(mask > dense.masks[path]) for path, mask in ticket.masks.items()
    ):
        raise LotteryError(f"Expected the dense network that {ticket} was pruned from, but received {dense}.")


def drawn(ticket: Ticket) -> Arrays:
    """A ticket's start weights of kernels, drawn where it has recipes for them."""
    return {path: recipes.whole(ticket.initial[path], path, ticket.masks[path]) for path in ticket.masks}


def _trained(ticket: Ticket) -> Arrays:
    if ticket.final is None:
        raise LotteryError(f"Expected a trained ticket, but {ticket} has no trained weights.")
    return ticket.final


def _network(given: Ticket | keras.Model, model: keras.Model) -> Network:
    """What is given, under the paths of the model."""
    if isinstance(given, Ticket):
        masks, values = given.masks, _trained(given)
    else:
        masks, values = state.get_masks(given) if isinstance(given, Masked) else {}, state.get_values(given)
    fitting = Ticket(masks, values).in_paths_of(model)
    return Network(fitting.masks, arrays(fitting.initial))


def _kernels_of(given: Ticket | keras.Model) -> Network:
    """The masks and trained values of the kernels; a plain model keeps what is not zero."""
    if isinstance(given, Ticket):
        return Network(given.masks, _trained(given))
    weights.check_keras_3(given)
    walk.check_whole(given)
    if isinstance(given, Masked):
        return Network(state.get_masks(given), state.get_values(given))
    values = {kernel.path: weights.value_of(kernel.variable) for kernel in weights.prunable_kernels(given)}
    return Network({path: (value != 0).astype(np.uint8) for path, value in values.items()}, values)


def _measure(accuracy: Accuracy | Any) -> tuple[Accuracy, Any]:
    """The function that measures a model, and the training inputs, if they are known."""
    if hasattr(accuracy, "test_accuracy"):
        return accuracy.test_accuracy, accuracy.sample(EXAMPLES)[0] if hasattr(accuracy, "sample") else None
    if not callable(accuracy):
        raise LotteryError(
            f"Expected accuracy to be a function of a model, or a Trainer, but received {accuracy!r:.80}."
        )
    return accuracy, None
