"""Find supermasks on MNIST-1D: networks that were never trained, only masked."""

import sys
import tempfile
from pathlib import Path

import keras

import tf_lottery as tfl

data = tfl.data.load("mnist1d")


def network():
    return tfl.models.get("residual_mlp")(seed=0)  # any Keras 3 model will do


def trainer(optimizer, steps):
    sets = {"validation": data.validation, "test": data.test}
    return tfl.Trainer(*data.train, **sets, optimizer=optimizer, batch_size=100, steps=steps, eval_every=50)


# By rule: train once, and let a criterion choose among the weights the network started from.
adam = trainer(keras.optimizers.Adam(2e-2), steps=500)
dense = next(tfl.find_ticket(network(), adam, levels=1))
for criterion in ("large_final", "large_final_same_sign"):
    rows = tfl.supermask.evaluate(network(), dense, adam.test_accuracy, criterion=criterion)
    best = max(rows, key=lambda row: row.accuracy)
    print(f"{criterion} at {100 * best.density:.0f} % of the weights: {100 * best.accuracy:.1f} % right, untrained")

# By learning: the weights stay as they were drawn, and each has a probability to be kept.
folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
ticket = tfl.supermask.train(network(), trainer(keras.optimizers.SGD(30.0, momentum=0.9), steps=1_500))
ticket.save(folder / "supermask.ticket")
print(
    f"learned, {100 * ticket.density:.0f} % of the weights: {100 * ticket.metrics['mask_accuracy']:.1f} % right, and "
    f"{100 * ticket.metrics['sampled_accuracy']:.1f} % with sampled masks"
)

# The file holds the mask and a seed: put on any network of the same shape, it draws the weights again.
fresh = tfl.models.get("residual_mlp")(seed=1)
masked = tfl.Ticket.load(folder / "supermask.ticket").apply(fresh)
size = (folder / "supermask.ticket").stat().st_size
print(f"from a file of {size / 1000:.0f} kB: {100 * adam.test_accuracy(masked):.1f} % right")
