"""Weights & Biases: tf-lottery find --plugin=wandb_logger.py --logger=wandb; without a network WANDB_MODE=offline."""

import wandb

import tf_lottery as tfl


class WeightsAndBiases:
    """A run of W&B for each search, with a row for each level; the replicates of a run are a group."""

    def __init__(self, project="tf_lottery"):
        self.project = project

    def on_run_begin(self, run):
        names = {"project": self.project, "name": run.name, "group": run.name.rpartition("/")[0]}
        self.run = wandb.init(**names, id=run.id, resume="allow", config=run.settings)
        self.run.define_metric("*", step_metric="level")

    def on_level_end(self, level):
        self.run.log({"level": level.level, **level.metrics})

    def on_run_end(self, error=None):
        self.run.finish(exit_code=1 if error else 0)


tfl.loggers.register(WeightsAndBiases, "wandb")
