"""The runs behind the claims: what each scale consists of, what of it is missing, and how to work on that. No TensorFlow.

Every experiment is an ordinary run, a branch of one, or masks by rule on one, in `<results_dir>/claims_<scale>/<name>`. So resuming
is that of `experiment`, and `tf-lottery report` draws each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tf_lottery.base.errors import LotteryError
from tf_lottery.claims import convolutional
from tf_lottery.claims.experiments import Branch, ByRule, Learned, Search
from tf_lottery.claims.planned import Plan
from tf_lottery.runs.settings import BranchSettings, Settings, SupermaskSettings

# What differs from a plain search, by the name of the run.
SWEEP: Mapping[str, Mapping[str, Any]] = {
    "large_final": {},
    **{
        name: {"survivors": name}
        for treatment in ("reinit", "reshuffle", "constant")
        for name in (treatment, f"{treatment}_same_sign")
    },
    **{
        name: {"pruned": name}
        for name in ("freeze_init", "variant_1", "variant_2", "variant_1_reshuffle", "variant_1_reverse")
    },
    **{
        name: {"criterion": name}
        for name in (
            "magnitude_increase",
            "movement",
            "large_init_large_final",
            "random",
            "large_init",
            "small_init",
            "small_final",
            "small_init_small_final",
        )
    },
    "one_shot": {"one_shot": True},
}
SIGN_CRITERIA = (
    "large_final_same_sign",
    "large_final_diff_sign",
    "magnitude_increase_same_sign",
    "magnitude_increase_diff_sign",
)
LEARNED: Mapping[str, Mapping[str, Any]] = {
    "learned_dwr": {"by": "learning"},
    "learned": {"by": "learning", "rescale": False},
    "learned_dwr_constant": {"by": "learning", "signed_constant": "std"},
    "learned_constant": {"by": "learning", "rescale": False, "signed_constant": "std"},
}


def _searches(runs: Mapping[str, Mapping[str, Any]], **base) -> Iterator[Search]:
    for name, changed in runs.items():
        yield Search(name, Settings(**{**base, **changed}).resolved())


def _controls(of: Search, levels: tuple[int, ...]) -> Iterator[Branch]:
    yield Branch(f"{of.name}/reinit", BranchSettings(survivors="reinit"), of, levels)
    yield Branch(f"{of.name}/random_mask", BranchSettings(random_mask=True), of, levels)


def _learned(runs: Mapping[str, Mapping[str, Any]], **base) -> Iterator[Learned]:
    for name, changed in runs.items():
        yield Learned(name, SupermaskSettings(**{**base, **changed}).resolved())


def _looked_at(steps: int) -> dict[str, int]:
    """So many steps, looked at fifty times."""
    return {"steps": steps, "eval_every": steps // 50, "test_every": steps // 50}


def _by_rule(of: Search, densities: tuple[float, ...] | None = None) -> ByRule:
    return ByRule("by_rule", SupermaskSettings(model=of.settings.model, by="rule", densities=densities).resolved(), of)


def full() -> Plan:
    """The papers' protocol: LeNet-300-100 on MNIST, 3 replicates."""
    lenet = {"model": "lenet_300_100", "replicates": 3}
    two_trainings = {"density": (0.0358,), "search": "iterative", "budget": 2.0, "dense": False}
    protocol, cheap = _searches({"protocol": {}, "two_trainings": two_trainings}, **lenet)
    runs = {**SWEEP, **{name: {"criterion": name} for name in SIGN_CRITERIA}}
    sweep = list(_searches(runs, **lenet, levels=15, steps=15_000, eval_every=200, test_every=15_000))
    drops = {"by": "edge_popup", "lr_drops": (14_000, 18_000)}
    masks = {**LEARNED, "edge_popup": {**drops, "rescale": True}, "edge_popup_unscaled": {**drops, "rescale": False}}
    long = {
        "learned_dwr_constant_long": {**LEARNED["learned_dwr_constant"], **_looked_at(110_000)},
        "learned_long": {**LEARNED["learned"], **_looked_at(440_000)},
    }
    conv2 = SupermaskSettings(
        model="conv2",
        replicates=3,
        steps=7_000,
        batch_size=128,
        learning_rate=200.0,
        by="learning",
        eval_every=350,
        test_every=350,
    )
    return Plan(
        "full",
        (
            protocol,
            *_controls(protocol, (3, 7, 9, 12, 15, 18, 24)),
            cheap,
            *sweep,
            *_learned({**masks, **long}, **lenet, steps=22_000, eval_every=220, test_every=220),
            Learned("conv2_learned_dwr", conv2.resolved()),
            _by_rule(protocol),
        ),
        enough=3,
        tolerance=0.2,
        because="the spread that Frankle et al. (2019, arXiv 1903.01611) give for this network",
        gain=0.3,
        best=0.135,
        fastest=0.211,
        small=0.07,
        smallest=0.036,
        cheap=0.036,
        published=True,
        about="LeNet-300-100 on MNIST (55,000 / 5,000 / 10,000 images). `protocol` is the papers' full protocol: 24 rounds, 25 "
        "trainings of 50,000 steps; `two_trainings` finds a ticket with `--search=iterative --budget=2`, in as long a training of its own. The sweep over criteria, signs, zeros and one-shot pruning uses 15 levels of 15,000 steps; a "
        "network that still learns then would end a little higher with more. Masks are learned in 22,000 steps (100 epochs), "
        "those of `learned_dwr_constant_long` in 110,000 (500 epochs) and those of `learned_long` in 440,000, the paper's 2,000 epochs. "
        "`conv2_learned_dwr` is Conv-2 on CIFAR-10 in 20 epochs. Where many weights have the same score "
        "(criteria by sign, and magnitude_increase of weights that never moved), a random order decides.",
    )


def quick() -> Plan:
    """The same questions on MNIST-1D, and on MNIST with little training: minutes on two cores."""
    two_trainings = {"levels": None, "density": (0.134,), "search": "iterative", "budget": 2.0, "dense": False}
    protocol, cheap = _searches({"protocol": {}, "two_trainings": two_trainings}, replicates=3, levels=16, steps=1_000)
    four_rounds = {"levels": 4, "prune_fraction": 1 - 0.8**4}  # in one: every fourth density of the protocol
    sweep = _searches(SWEEP, replicates=3, steps=600, eval_every=25, test_every=600, **four_rounds)
    lenet = {"model": "lenet_300_100", "replicates": 2}
    (dense,) = _searches({"lenet_dense": {}}, **lenet, levels=1, steps=2_000, eval_every=100, test_every=2_000)
    masks = {**LEARNED, "edge_popup": {"by": "edge_popup", "rescale": True, "lr_drops": (700, 900)}}
    return Plan(
        "quick",
        (
            protocol,
            *_controls(protocol, (4, 8, 12, 16)),
            cheap,
            *sweep,
            dense,
            *_learned(masks, **lenet, steps=1_100, eval_every=110, test_every=110),
            _by_rule(dense, tuple(0.8**k for k in range(0, 17, 2))),
        ),
        enough=2,
        tolerance=1.5,
        because="one standard error of an accuracy of 64 % on 1,000 test examples",
        gain=1.5,
        best=0.134,
        fastest=0.168,
        small=0.069,
        smallest=0.028,
        cheap=0.134,
        published=False,
        about="A small check of the same questions in minutes, not a reproduction: the published figures are those of "
        "LeNet-300-100 on MNIST by the full protocol (`--scale=full`), and only the order can be compared. Tickets and their "
        "controls are found on MNIST-1D (3,500 / 500 / 1,000 examples) with a residual 500-500-10 network: `protocol` has 16 "
        "rounds and trainings of 1,000 steps, `two_trainings` has `--search=iterative --budget=2`, the sweep over criteria, signs, zeros and one-shot pruning has 4 levels of 600 "
        "steps, at every fourth density of those. Supermasks are those of LeNet-300-100 on MNIST: by rule after 2,000 steps of dense "
        "training, learned in 1,100 steps (5 epochs).",
    )


PLANS: dict[str, Callable[[], Plan]] = {
    "quick": quick,
    "full": full,
    "conv": convolutional.conv,
    "rewinding": convolutional.rewinding,
}


def plan(scale: str) -> Plan:
    """The plan of that scale.

    Raises:
      LotteryError: If there is none.
    """
    if scale not in PLANS:
        raise LotteryError(f"Expected a scale ({', '.join(PLANS)}), but received {scale!r}.")
    return PLANS[scale]()
