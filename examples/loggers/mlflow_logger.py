"""MLflow: tf-lottery find --plugin=mlflow_logger.py --logger=mlflow, or =mlflow=http://localhost:5000 for a server."""

from mlflow import MlflowClient

import tf_lottery as tfl


class MLflow:
    """A run of MLflow for each search, with a step for each level."""

    def __init__(self, tracking_uri="sqlite:///mlflow.db"):
        self.client = MlflowClient(tracking_uri)

    def on_run_begin(self, run):
        known = self.client.search_runs(["0"], f"tags.tf_lottery = '{run.id}'")  # one that was stopped goes on
        begun = known[0] if known else self.client.create_run("0", tags={"tf_lottery": run.id}, run_name=run.name)
        self.run_id = begun.info.run_id
        for name, value in run.settings.items():
            self.client.log_param(self.run_id, name, value)

    def on_level_end(self, level):
        for name, value in level.metrics.items():
            self.client.log_metric(self.run_id, name, value, step=level.level)

    def on_run_end(self, error=None):
        self.client.set_terminated(self.run_id, "FAILED" if error else "FINISHED")


tfl.loggers.register(MLflow, "mlflow")
