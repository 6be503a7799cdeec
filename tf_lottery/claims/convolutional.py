"""The runs behind the claims on convolutional networks, and on rewinding and stability: two scales. No TensorFlow.

`conv` is the papers' protocol on CIFAR-10, for a GPU; `rewinding` asks what can be asked of a small ResNet in an hour of a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tf_lottery.claims.experiments import Branch, Experiment, Instability, Learned, Search
from tf_lottery.claims.planned import Plan
from tf_lottery.runs.settings import BranchSettings, Settings, SupermaskSettings

COMPARED = {  # levels of Conv-2, 4 and 6 whose controls are trained: about 51, 27, 9-15, 5 and 2 % of the weights
    "conv2": (3, 6, 11, 14, 18),
    "conv4": (3, 6, 10, 12, 15, 21),
    "conv6": (4, 7, 10, 16, 21),
}
EPOCH = 352  # steps of 128 of CIFAR-10's 45,000 training images
ROUND = {"shortcut": 0.0, "output": 0.0, "Conv2D": 0.36}  # two of the paper's rounds in one
REWINDS = (0, 500, 1_000, 2_000)
SMALL_REWINDS = (0, 100)


def conv() -> Plan:
    """Conv-2, Conv-4, Conv-6 and ResNet-18 on CIFAR-10 by the papers' protocols, 3 replicates."""
    return Plan(
        "conv",
        (*_resnet18(), *(each for name in COMPARED for each in _plain(name))),
        enough=3,
        tolerance=0.5,
        because="a little more than the standard error of an accuracy of 80 to 90 % on 10,000 test images",
        published=True,
        about="Convolutional networks on CIFAR-10 (45,000 / 5,000 / 10,000 images), by the papers' protocols: Conv-2, 4 and 6 in 24 "
        "rounds of 20,000, 25,000 and 30,000 steps, without augmentation; with dropout in three times as many (the paper does not say "
        "which layers have it; here each dense one). `resnet18` is the 20-layer network of Frankle & Carbin, 30,000 steps of SGD at 0.1 "
        "with batches of 128; a round removes 36 %, two of the paper's at once, to 64, 41, 26 and 17 %. A level that is rewound to a "
        "step trains in full from there, from the first step of the learning rate's schedule; in the paper the schedule goes on. Masks "
        "are learned in 100 epochs at the rate of a re-implementation (SGD 200, batch 128): the paper's are not published. Layers compute in "
        "what is fastest on the device, which on a GPU is mixed precision.",
        hint="benchmarks/gpu_claims.py --minutes=60",
    )


def rewinding() -> Plan:
    """Late rewinding and stability of a small ResNet, and stability of LeNet and the network for MNIST-1D: 3 replicates."""
    dense = [
        Search("lenet_rewind_0", _settings("lenet_300_100", levels=7, steps=4_000, test_every=4_000)),
        Search("residual_mlp_rewind_0", _settings("residual_mlp", levels=7)),
    ]
    stable = [Instability(f"{search.name}/instability", search.settings, search, (0, 7)) for search in dense]
    return Plan(
        "rewinding",
        (*_rewound("resnet8", SMALL_REWINDS, 0.5, 5, (0, 5)), *dense, *stable),
        enough=3,
        tolerance=0.5,
        because="the standard error of an accuracy of 60 to 70 % on 10,000 test images",
        published=False,
        about="Late rewinding and stability where a CPU can ask for them, in about an hour: a ResNet-8 of 8, 16 and 32 filters on CIFAR-10, "
        "2,000 steps of SGD at 0.1 with batches of 64 and without warm-up, pruned globally by half a round; LeNet-300-100 on MNIST, 4,000 "
        "steps; and the network for MNIST-1D. The published figures are those of larger networks that train longer, and only the order "
        "can be compared. A level that is rewound to a step trains in full from there.",
    )


def _settings(model: str, **changed) -> Settings:
    return Settings(**{"model": model, "replicates": 3, **changed}).resolved()


def _rewound(
    model: str, rewinds: tuple[int, ...], rate: float, levels: int, tested: tuple[int, ...]
) -> Iterator[Experiment]:
    """Searches that rewind to these steps, each with the stability of these levels."""
    fractions = {"shortcut": 0.0, "output": 0.0, "Conv2D": rate}
    for step in rewinds:
        search = Search(
            f"{model}_rewind_{step}", _settings(model, levels=levels, prune_fraction=fractions, rewind_to=step)
        )
        yield search
        yield Instability(f"{search.name}/instability", search.settings, search, tested)


def _resnet18() -> Iterator[Experiment]:
    yield from _rewound("resnet18", REWINDS, 0.36, 4, (0, 4))
    warm = {"learning_rate": 0.03, "warmup": 20_000}
    for name, changed in (
        ("resnet18_warmup", warm),
        ("resnet18_warmup_layer", {**warm, "scope": "layer"}),
        ("resnet18_low", {"learning_rate": 0.01}),
    ):
        yield Search(name, _settings("resnet18", levels=4, prune_fraction=ROUND, **changed))


def _plain(name: str) -> Iterator[Experiment]:
    search = Search(name, _settings(name))
    yield search
    for control, settings in (
        ("reinit", BranchSettings(survivors="reinit")),
        ("random_mask", BranchSettings(survivors="reinit", random_mask=True)),
    ):
        yield Branch(f"{name}/{control}", settings, search, COMPARED[name])
    yield Search(f"{name}_one_shot", _settings(name, one_shot=True))
    yield Search(f"{name}_dropout", _settings(f"{name}_dropout"))
    masks = {"steps": 100 * EPOCH, "eval_every": 5 * EPOCH, "test_every": 5 * EPOCH}
    common: dict[str, Any] = {
        "model": name,
        "replicates": 3,
        "batch_size": 128,
        "learning_rate": 200.0,
        "by": "learning",
        **masks,
    }
    yield Learned(f"{name}_masks", SupermaskSettings(**common, rescale=False).resolved())
    yield Learned(f"{name}_masks_dwr", SupermaskSettings(**common).resolved())
    yield Learned(f"{name}_masks_dwr_constant", SupermaskSettings(**common, signed_constant="std").resolved())
