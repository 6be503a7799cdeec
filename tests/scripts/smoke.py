"""A look at an installed tf_lottery, in the current folder: find a ticket, keep it, export it, by the library and by the command."""

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import keras
import numpy as np

import tf_lottery as tfl

for name in ("py.typed", "report/page.html"):
    assert files("tf_lottery").joinpath(name).is_file(), name

data = tfl.data.load("mnist1d")
model = keras.Sequential([keras.Input((40,)), keras.layers.Dense(50, "relu"), keras.layers.Dense(10)])
trainer = tfl.Trainer(*data.train, validation=data.validation, test=data.test, steps=50, eval_every=25)
*_, ticket = tfl.find_ticket(model, trainer, levels=1, prune_fraction=0.5)
ticket.save("smoke.ticket")
loaded = tfl.Ticket.load("smoke.ticket")
assert all(np.array_equal(mask, loaded.masks[path]) for path, mask in ticket.masks.items())
plain = tfl.strip(loaded.apply(model, weights="final"))
assert round(np.mean(plain.layers[0].kernel != 0), 3) == 0.5

x, y = data.test
file = tfl.export.tflite(plain, "smoke.tflite", x, y)
assert Path("smoke.tflite").stat().st_size == file.bytes

command = Path(sys.executable).with_name("tf-lottery")
flags = ["--levels=1", "--steps=20", "--eval_every=10", "--replicates=1", "--results_dir=runs", "--name=smoke"]
subprocess.run([command, "find", *flags], check=True)
subprocess.run([command, "report", "--results_dir=runs", "--name=smoke"], check=True)
assert list(Path("runs").rglob("index.html"))
print(
    f"Python {sys.version.split()[0]}, Keras {keras.__version__}, NumPy {np.__version__}: tf_lottery {tfl.__version__} works."
)
