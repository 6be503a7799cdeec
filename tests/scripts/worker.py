"""A small search as one of the workers in TF_CONFIG, or alone: run by test_distribution.

Arguments: a folder, steps, and perhaps a file; level 1 does not begin while that is there.
"""

import json
import os
import sys
import time
from pathlib import Path

from tf_lottery.masking import distribution
from tf_lottery.problems import models
from tf_lottery.runs import experiment
from tf_lottery.runs.levels import Display
from tf_lottery.runs.results import Run
from tf_lottery.runs.settings import Settings

strategy = distribution.get("multi_worker") if "TF_CONFIG" in os.environ else None


@models.register(models.Preset("mnist1d", 30, 50, 0.1))
def small(input_shape=(40,), classes=10, seed=0):
    import keras

    glorot = [keras.initializers.GlorotNormal(seed=10 * seed + i) for i in range(2)]
    hidden = keras.layers.Dense(16, "relu", kernel_initializer=glorot[0], name="hidden")
    output = keras.layers.Dense(classes, kernel_initializer=glorot[1], name="output")
    return keras.Sequential([keras.Input(input_shape), hidden, keras.layers.Dropout(0.0, seed=0), output], name="small")


class Silence(Display):
    def begin(self, replicate, level, density, steps=None, search=0):
        while level == 1 and any(Path(gate).exists() for gate in sys.argv[3:]):
            time.sleep(0.02)
        return []


settings = Settings(
    model="small",
    replicates=1,
    levels=2,
    steps=int(sys.argv[2]),
    batch_size=51,
    eval_every=10,
    test_every=10,
    optimizer="sgd_momentum",
    prune_fraction=0.5,
)
worked = experiment.run_find(Run(Path(sys.argv[1])), settings, Silence(), strategy=strategy)
print(json.dumps({"chief": distribution.Replicas(strategy).is_chief, "worked": worked}))
