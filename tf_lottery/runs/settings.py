"""The settings of experiments: frozen dataclasses whose field metadata is the help of the command line's flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tf_lottery.base.bounds import MOST, MOST_DROPS, MOST_LEVELS, MOST_REPLICATES, whole
from tf_lottery.base.errors import LotteryError
from tf_lottery.problems import data, models
from tf_lottery.rules import criteria, treatments
from tf_lottery.search import plan as plan_lib
from tf_lottery.search.plan import Kernels, Plan
from tf_lottery.search.rounds import Rounds


def setting(default, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Problem:
    """What is trained, on what, and how. None stands for the default of the model; see `models.preset`."""

    model: str = setting("residual_mlp", f"The network: {', '.join(models.registry)}.")
    dataset: str | None = setting(
        None, f"The data: {', '.join(data.names())}, or another classification data set of TFDS."
    )
    replicates: int = setting(3, "How many times the experiment is repeated, each with a seed of its own.")
    prunable: str | None = setting(None, "A regular expression over variable paths: what to prune, if not the kernels.")
    exclude: str | None = setting(None, "A regular expression over variable paths: what to leave out of that.")
    steps: int | None = setting(None, "Training steps of a level.")
    batch_size: int | None = setting(None, "Examples in a step.")
    optimizer: str | None = setting(None, "adam, sgd, sgd_momentum (0.9), or another optimizer of Keras by its name.")
    learning_rate: float | None = setting(None, "The learning rate, after warm-up.")
    warmup: int | None = setting(None, "Steps in which the learning rate rises from 0.")
    lr_drops: tuple[int, ...] | None = setting(
        None, "Steps at which the learning rate is divided by ten, as in 20000,25000."
    )
    augment: bool | None = setting(None, "Flip and shift training images at random.")
    precision: str | None = setting(
        None,
        "What layers compute in: float32, mixed_bfloat16 or mixed_float16. Default: the fastest of the device, which on a CPU is "
        "float32.",
    )
    deterministic: bool = setting(
        False,
        "Use only operations that give the same bits each time. On a CPU all do; on a GPU convolutions are slower then.",
    )
    eval_every: int | None = setting(None, "Steps between measurements of the validation set.")
    test_every: int | None = setting(
        None, "Steps between measurements of the test set; that of the early stop is exact in any case."
    )
    seed: int = setting(0, "Decides everything random; replicate r uses seed + r.")

    @property
    def growing(self) -> tuple[str, ...]:
        """What may be larger than it was when a run was begun, because it only adds to the results."""
        return ("replicates",)

    def resolved(self):
        """The settings with the model's own defaults in the place of None.

        Raises:
          LotteryError: If a number is out of range, or they do not go together.
        """
        settings = self._filled(vars(models.preset(self.model)))
        check_numbers(settings)
        return settings

    def _filled(self, defaults: Mapping[str, Any]):
        names = [f.name for f in dataclasses.fields(self) if getattr(self, f.name) is None and f.name in defaults]
        return dataclasses.replace(self, **{name: defaults[name] for name in names})


@dataclass(frozen=True)
class Settings(Problem):
    """What decides the results of `tf-lottery find`."""

    search: str = setting(
        "auto",
        "The road to a ticket: iterative, each level pruned from the one before; one_shot, each from the dense network; gradual, "
        "each pruned bit by bit within one training, and rewound then. Or regrow: no ticket, but a network that is sparse from the "
        "start. auto: iterative; with a budget short levels or gradual, by what the search sees of the network.",
    )
    density: tuple[float, ...] | None = setting(
        None,
        "What the last ticket is to keep, or several densities in falling order, as in 0.21,0.036: their tickets are trained in "
        "full.",
    )
    budget: float | None = setting(
        None, "With density: the trainings that the last ticket may cost, its own included, as in 2."
    )
    levels: int | None = setting(
        None,
        "How many pruning rounds; level 0 is the dense network. Default: the model's own, or as many as density and budget need.",
    )
    level_steps: int | None = setting(
        None, "Training steps of the levels that only lead to a ticket. Default: those of a level."
    )
    search_steps: int | None = setting(
        None,
        "With search=gradual or regrow: steps of the training that prunes. Default: half of those of a level, with regrow all.",
    )
    dense: bool = setting(True, "Train the dense network in full, as a reference, where the search does not need that.")
    prune_fraction: float | Mapping[str, float] | None = setting(
        None,
        "The share of the remaining weights that a round removes: a number, or one for each kind of kernel as in "
        "output=0.1,Conv2D=0.1,Dense=0.2 (output, a layer class, or a regular expression over variable paths; the first "
        "that fits decides).",
    )
    criterion: str = setting("large_final", f"What to keep: {', '.join(criteria.registry)}.")
    survivors: str = setting("rewind", f"What kept weights start from: {', '.join(treatments.survivors_registry)}.")
    pruned: str = setting("zero", f"What pruned weights hold: {', '.join(treatments.pruned_registry)}.")
    scope: str | None = setting(
        None,
        "Where scores compete: within each layer, or global; or whole channels and units, channels or global_channels.",
    )
    rewind_to: int = setting(0, "The step of level 0 whose weights the survivors rewind to.")
    one_shot: bool = setting(False, "The same as search=one_shot: prune every level directly from the dense network.")
    reset: str = setting(
        "each_level", "each_level, or at_end: train on between rounds and rewind only at the last level."
    )
    min_per_kernel: int = setting(
        1, "How many weights of each kernel are kept whatever their scores; 0 lets a kernel be emptied."
    )

    @property
    def growing(self) -> tuple[str, ...]:
        spread = (self.density, self.level_steps) != (None, None)  # over all levels there are
        return ("replicates",) if spread or self.reset != "each_level" else ("replicates", "levels")

    def resolved(self):
        """The settings with the model's own defaults in the place of None.

        `levels` stay None where they depend on the network; see `plan`.

        Raises:
          LotteryError: If a number is out of range, or they do not go together.
        """
        road = plan_lib.road_of(self.search, self.one_shot, self.budget)
        own = dataclasses.replace(self, search=road, one_shot=road == "one_shot")
        defaults = vars(models.preset(own.model))
        settings = own._filled({name: d for name, d in defaults.items() if name != "levels" or own.density is None})
        if own.prune_fraction is None and settings.density and settings.scope != "layer":
            settings = dataclasses.replace(settings, prune_fraction=0.2)  # one for all: scores compete across kernels
        check_numbers(settings)
        words = ("criterion", "survivors", "pruned", "scope", "reset", "one_shot")  # before anything is loaded or begun
        Rounds([], None, **{name: getattr(settings, name) for name in words})
        plan = settings.plan()
        plan_lib.check(
            plan,
            road,
            **{name: getattr(settings, name) for name in ("criterion", "reset", "min_per_kernel", "rewind_to")},
        )
        return dataclasses.replace(settings, levels=plan.levels) if plan else settings

    @property
    def first(self) -> int:
        """The first level: where each has a search of its own there may be no dense network."""
        return int(self.search in plan_lib.APART and not self.dense)

    def plan(self, kernels: Kernels | None = None) -> Plan | None:
        """The trainings of the search; of resolved settings.

        Args:
          kernels: Those of the network.

        Returns:
          The plan; None if it depends on the network, and that is not given.
        """
        plan = plan_lib.planned(
            *(self.search, self.levels, self.density, self.budget, self.level_steps, self.search_steps, self.dense),
            steps=lambda: self.steps or 1,
            least=self.eval_every or 1,
            kernels=kernels,
        )
        return plan and dataclasses.replace(plan, steps=self.steps)

    @classmethod
    def of(cls, run) -> Settings:
        """The settings that a run of `tf-lottery find` was begun with.

        Raises:
          LotteryError: If it was never begun, or is a run of another command.
        """
        known = run.settings()
        if unknown := known.keys() - {f.name for f in dataclasses.fields(cls)}:
            raise LotteryError(
                f"Expected a run of tf-lottery find in {run.folder}, but it was begun by another command, with {min(unknown)}."
            )
        return cls(**known)


@dataclass(frozen=True)
class SupermaskSettings(Problem):
    """What decides the results of `tf-lottery supermask`; the defaults of training are those of the rule in RULES."""

    by: str = setting(
        "learning",
        "learning: a probability for each weight; edge_popup: the highest scores of each kernel; rule: the masks of criteria "
        "on the dense network of a finished run.",
    )
    density: float = setting(0.5, "The probability that learning starts from, or the density of edge_popup.")
    signed_constant: str | None = setting(
        None,
        "Weights are their sign times a constant: none, std (of the kernel's initial weights) or kaiming (sqrt(2 / fan_in)). "
        "Default: none; with edge_popup kaiming.",
    )
    rescale: bool = setting(
        True,
        "Multiply kept weights: with learning by (weights / kept weights), Dynamic Weight Rescaling; with edge_popup by "
        "sqrt(1 / density).",
    )
    samples: int = setting(10, "How many sampled masks to measure at the end, with learning.")
    criterion: str = setting(
        "all", "With --by=rule: the criteria, as in large_final,snip. all: those that need no gradient."
    )
    densities: tuple[float, ...] | None = setting(
        None,
        "With --by=rule: the densities of each kernel, as in 0.5,0.2. Default: those of the run's rounds, up to 24.",
    )

    def resolved(self):
        """The settings with the defaults of the rule, then of the model, in the place of None."""
        if self.by not in RULES:
            raise LotteryError(f"Expected by to be one of {', '.join(RULES)}, but received {self.by!r}.")
        if self.by != "rule" and (self.criterion, self.densities) != ("all", None):
            raise LotteryError(
                "Expected criterion and densities with by='rule' only; the density of other masks is density."
            )
        return super(SupermaskSettings, self._filled(RULES[self.by])).resolved()


def check_whole(settings: Mapping[str, Any]) -> None:
    """
    Raises:
      LotteryError: If a whole number of some settings is none, or out of range.
    """
    most = {"replicates": MOST_REPLICATES, "levels": MOST_LEVELS}
    for name in ("replicates", "levels", "steps", "batch_size", "eval_every", "test_every"):
        if (value := settings.get(name)) is not None:
            whole(name, value, 1, most.get(name, MOST))
    for name in ("seed", "rewind_to", "warmup", "min_per_kernel"):
        whole(name, settings.get(name, 0))
    whole("seed + replicates", settings.get("seed", 0) + settings.get("replicates", 0))
    drops = settings.get("lr_drops") or ()
    whole("the number of lr_drops", len(drops), 0, MOST_DROPS)
    for drop in drops:
        whole("each of lr_drops", drop)


def check_numbers(settings: Any) -> None:
    """
    Raises:
      LotteryError: If a number is out of range.
    """
    check_whole(vars(settings))
    if not settings.learning_rate > 0:
        raise LotteryError(f"Expected a learning_rate above 0, but received {settings.learning_rate}.")
    fraction = getattr(settings, "prune_fraction", None)
    for value in fraction.values() if isinstance(fraction, Mapping) else [] if fraction is None else [fraction]:
        if not 0 <= value < 1 or value == fraction == 0:
            raise LotteryError(
                f"Expected prune_fraction, the share of the remaining weights that a round removes, in (0, 1), but received {value:g}."
            )
    if getattr(settings, "rewind_to", 0) > settings.steps:
        raise LotteryError(f"Expected rewind_to within the {settings.steps} steps, but received {settings.rewind_to}.")


RULES: dict[str, dict[str, Any]] = {
    "learning": {"optimizer": "sgd_momentum", "learning_rate": 100.0, "batch_size": 250},
    "edge_popup": {"optimizer": "sgd_momentum", "learning_rate": 1.0, "batch_size": 250},
    "rule": {},
}


@dataclass(frozen=True)
class BranchSettings:
    """What decides the results of `tf-lottery branch`."""

    survivors: str = setting("rewind", f"What kept weights start from: {', '.join(treatments.survivors_registry)}.")
    pruned: str = setting("zero", f"What pruned weights hold: {', '.join(treatments.pruned_registry)}.")
    random_mask: bool = setting(
        False, "Train random masks of the same layer-wise densities in the place of the tickets'."
    )
    seed: int = setting(0, "Decides everything random in the branch; replicate r uses seed + r.")
