"""The command line from within a test: short runs, and whether two found the same."""

import contextlib
import functools

import numpy as np
import pytest

from tf_lottery.bin import main
from tf_lottery.problems import data
from tf_lottery.tickets.ticket import Ticket

SHORT = ["--levels=2", "--replicates=2", "--steps=40", "--eval_every=10", "--test_every=20", "--quiet"]


@contextlib.contextmanager
def data_loaded_once():
    """Making MNIST-1D takes longer than to train on it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", functools.cache(data.load))
        yield


def call(*argv):
    return main.dispatch(list(argv))


def tickets(folder):
    return {str(path.relative_to(folder)): Ticket.load(path) for path in sorted(folder.glob("**/level.ticket"))}


def same(a, b):
    """Whether two runs found the same tickets, bit for bit; only the time they took may differ."""
    if a.keys() != b.keys():
        return False
    for name, ticket in a.items():
        for kind in ("masks", "initial", "final"):
            one, other = getattr(ticket, kind), getattr(b[name], kind)
            if not all(np.array_equal(one[path], other[path]) for path in one):
                return False
        metrics = [{k: v for k, v in t.metrics.items() if k != "seconds"} for t in (ticket, b[name])]
        if metrics[0] != metrics[1]:
            return False
    return True
