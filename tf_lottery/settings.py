"""The settings of experiments: frozen dataclasses whose field metadata is the help of the command line's flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tf_lottery import criteria, models, treatments


def setting(default, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Settings:
    """What decides the results of `tf-lottery find`. None stands for the default of the model; see `models.presets`."""

    model: str = setting("residual_mlp", f"The network: {', '.join(models.registry)}.")
    dataset: str | None = setting(
        None, "The data: mnist1d, mnist, fashion_mnist, cifar10, or another classification data set of TFDS."
    )
    replicates: int = setting(3, "How many times the search is repeated, each with a seed of its own.")
    levels: int | None = setting(None, "How many pruning rounds; level 0 is the dense network.")
    prune_fraction: float | Mapping[str, float] | None = setting(
        None,
        "The share of the remaining weights that a round removes: a number, or one for each kind of kernel as in "
        "output=0.1,Conv2D=0.1,Dense=0.2 (output, a layer class, or a regular expression over variable paths; the first "
        "that fits decides).",
    )
    criterion: str = setting("large_final", f"What to keep: {', '.join(criteria.registry)}.")
    survivors: str = setting("rewind", f"What kept weights start from: {', '.join(treatments.survivors_registry)}.")
    pruned: str = setting("zero", f"What pruned weights hold: {', '.join(treatments.pruned_registry)}.")
    scope: str | None = setting(None, "Where scores compete: within each layer, or global.")
    rewind_to: int = setting(0, "The step of level 0 whose weights the survivors rewind to.")
    one_shot: bool = setting(False, "Prune every level directly from the dense network.")
    reset: str = setting(
        "each_level", "each_level, or at_end: train on between rounds and rewind only at the last level."
    )
    prunable: str | None = setting(None, "A regular expression over variable paths: what to prune, if not the kernels.")
    steps: int | None = setting(None, "Training steps of a level.")
    batch_size: int | None = setting(None, "Examples in a step.")
    optimizer: str | None = setting(None, "adam, sgd, sgd_momentum (0.9), or another optimizer of Keras by its name.")
    learning_rate: float | None = setting(None, "The learning rate, after warm-up.")
    warmup: int | None = setting(None, "Steps in which the learning rate rises from 0.")
    lr_drops: tuple[int, ...] | None = setting(
        None, "Steps at which the learning rate is divided by ten, as in 20000,25000."
    )
    augment: bool | None = setting(None, "Flip and shift training images at random.")
    eval_every: int | None = setting(None, "Steps between measurements of the validation set.")
    test_every: int | None = setting(
        None, "Steps between measurements of the test set; that of the early stop is exact in any case."
    )
    seed: int = setting(0, "Decides everything random; replicate r uses seed + r.")

    def resolved(self) -> Settings:
        """The settings with the model's own defaults in the place of None."""
        models.get(self.model)
        preset = models.presets[self.model]
        missing = {
            f.name: getattr(preset, f.name)
            for f in dataclasses.fields(self)
            if getattr(self, f.name) is None and hasattr(preset, f.name)
        }
        return dataclasses.replace(self, **missing)


@dataclass(frozen=True)
class BranchSettings:
    """What decides the results of `tf-lottery branch`."""

    survivors: str = setting("rewind", f"What kept weights start from: {', '.join(treatments.survivors_registry)}.")
    pruned: str = setting("zero", f"What pruned weights hold: {', '.join(treatments.pruned_registry)}.")
    random_mask: bool = setting(
        False, "Train random masks of the same layer-wise densities in the place of the tickets'."
    )
    seed: int = setting(0, "Decides everything random in the branch; replicate r uses seed + r.")
