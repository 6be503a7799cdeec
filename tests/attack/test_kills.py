"""Kills at random moments in the roads, in `prune` and in `verify`; those of a search of the papers are in `test_checkpoint`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.siege
def test_whatever_is_killed_ends_as_if_it_had_not_been(tmp_path):
    script = Path(__file__).parents[1] / "scripts" / "killed_roads.py"
    done = subprocess.run([sys.executable, str(script), str(tmp_path), "20"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3_000:]
    print(done.stdout)
    assert json.loads(done.stdout.splitlines()[-1])["kills"] == 20
