"""What every process of `forked` begins with: TensorFlow loaded and at rest, the commands, and MNIST-1D made."""

import functools
import gc

from tf_lottery.bin import branch, export, find, prune, supermask, ticket, verify  # noqa: F401
from tf_lottery.problems import data
from tf_lottery.runs import experiment, instability, pruning, verification  # noqa: F401

data.load = functools.cache(data.load)
data.load("mnist1d")
gc.collect()
gc.freeze()  # what all share is neither looked through nor copied
