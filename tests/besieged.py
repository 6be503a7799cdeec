"""The runs that are attacked: their flags."""

from pathlib import Path

PLUGIN = f"--plugin={Path(__file__).parent / 'tiny.py'}"
FIND = ["find", PLUGIN, "--model=tiny", "--quiet", "--noreuse"]
FLAGS = {  # three roads: each level is made of the one before, of the dense one, or of none
    "run": ["--levels=3", "--replicates=2", "--steps=20"],
    "shot": ["--search=one_shot", "--levels=2", "--replicates=1", "--steps=20"],
    "gradual": ["--search=gradual", "--density=0.5,0.2", "--replicates=1", "--search_steps=20"],
}
OTHERS = {"seed": "--seed=1", "rate": "--learning_rate=0.03"}
