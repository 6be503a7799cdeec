"""TF-MOT's gradual magnitude pruning, for a Keras 3 model: any schedule, any criterion."""

import tempfile
from pathlib import Path

import keras
import tensorflow_model_optimization as tfmot

import tf_lottery as tfl

data = tfl.data.load("mnist1d")
keras.utils.set_random_seed(0)
model = keras.Sequential([keras.Input((40,)), keras.layers.Dense(300, "relu"), keras.layers.Dense(10)])

masked = tfl.wrap(model)
masked.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])

schedule = tfmot.sparsity.keras.PolynomialDecay(0.0, 0.8, begin_step=300, end_step=1_000)
pruning = tfl.callbacks.PruneBySchedule(schedule, scope="global")
masked.fit(*data.train, batch_size=60, epochs=20, verbose=0, callbacks=[pruning])
accuracy = masked.evaluate(*data.test, verbose=0, return_dict=True)["accuracy"]
print(f"{100 * tfl.masks.density(tfl.get_masks(masked)):.1f} % of the weights: {100 * accuracy:.1f} % right")

file = Path(tempfile.mkdtemp()) / "sparse.keras"
tfl.strip(masked).save(file)  # no wrapper left in it

# Fine-tuning a sparse model that was saved: its zeros stay zero.
again = tfl.wrap(keras.models.load_model(file), keep_zeros=True)
again.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
again.fit(*data.train, batch_size=60, epochs=5, verbose=0)
accuracy = again.evaluate(*data.test, verbose=0, return_dict=True)["accuracy"]
print(f"{100 * tfl.masks.density(tfl.get_masks(again)):.1f} % of them after fine-tuning: {100 * accuracy:.1f} % right")
