"""`examples/multi_worker.sh`: two workers of one machine train a search together."""

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "examples" / "multi_worker.sh"


def test_two_workers_find_tickets_together(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    flags = ["--name=two", "--replicates=1", "--levels=1", "--steps=10", "--eval_every=10", "--test_every=10"]
    done = subprocess.run(
        [SCRIPT, *flags, f"--results_dir={tmp_path}"],
        env={**os.environ, "PATH": path, "PORT": str(port)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    with (tmp_path / "two" / "summary.csv").open() as file:
        assert [float(row["density"]) for row in csv.DictReader(file)] == [1.0, 0.8]
