"""Densities by layer: how a density of the whole network is shared out over its kernels. NumPy only."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence

import numpy as np

from tf_lottery.base.errors import LotteryError


def erdos_renyi_kernel(shapes: Mapping[str, Sequence[int]], density: float) -> dict[str, float]:
    """Layer-wise densities that spare small and narrow kernels: each in proportion to (sum of its dimensions) / (their product).

        density_l = min(1, e * (n_in + n_out + w + h) / (n_in * n_out * w * h))

    with the one factor `e` that makes the density of the whole network `density`; kernels that would exceed 1 stay dense.

    Args:
      shapes: For each path the kernel's shape.
      density: Of all kernels together, in (0, 1].

    Examples:

    >>> densities = erdos_renyi_kernel({"large": (784, 300), "small": (100, 10)}, 0.1)
    >>> {path: round(density, 3) for path, density in densities.items()}
    {'large': 0.096, 'small': 1.0}

    Reference: Evci et al., "Rigging the Lottery" (2020, arXiv 1911.11134), section 3; kernels after Mocanu et al. (2018).
    """
    check_density(density)
    sizes = {path: int(np.prod(shape)) for path, shape in shapes.items()}
    sums = {path: sum(shape) for path, shape in shapes.items()}
    dense: set[str] = set()
    while True:
        room = density * sum(sizes.values()) - sum(sizes[path] for path in dense)
        free = [path for path in shapes if path not in dense]
        factor = room / sum(sums[path] for path in free) if free else 0.0
        densities = {path: 1.0 if path in dense else factor * sums[path] / sizes[path] for path in shapes}
        if not (over := {path for path in free if densities[path] > 1}):
            return densities
        dense |= over


def uniform(shapes: Mapping[str, Sequence[int]], density: float) -> dict[str, float]:
    """The same density for every kernel."""
    check_density(density)
    return dict.fromkeys(shapes, density)


def check_density(density: float) -> None:
    """Checks that it is a number in (0, 1]."""
    if not isinstance(density, numbers.Real) or not 0 < density <= 1:
        raise LotteryError(
            f"Expected a density in (0, 1], but received {density!r}: it is the share of the weights that stays."
        )
