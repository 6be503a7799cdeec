"""Your own training loop, criterion and treatment: plain functions, handed to `find_ticket`."""

import keras
import numpy as np

import tf_lottery as tfl

data = tfl.data.load("mnist1d")


def train(model, callbacks):
    """Anything that trains the model: here Keras's own `fit`. What it returns becomes `ticket.metrics`."""
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model.fit(*data.train, validation_data=data.test, epochs=8, batch_size=100, verbose=0, callbacks=callbacks)


def smooth_rows(initial, final, *, rng):
    """A criterion: magnitude, averaged with the neighbouring inputs, which in MNIST-1D are neighbours in space."""
    size = np.abs(final)
    return size + 0.5 * (np.roll(size, 1, axis=0) + np.roll(size, -1, axis=0))


def half_way(initial, final, **_):
    """What survivors start from: half-way between their initial and their trained values."""
    return (initial + final) / 2


model = keras.Sequential([keras.Input((40,)), keras.layers.Dense(200, "relu"), keras.layers.Dense(10)])
search = tfl.find_ticket(
    model,
    train,
    levels=4,
    prune_fraction={"output": 0.2, "Dense": 0.4},  # the share of what is left that each round removes, by kind of layer
    criterion=smooth_rows,
    survivors=half_way,
)
for ticket in search:
    print(
        f"level {ticket.level}: {100 * ticket.density:5.1f} % of the weights, {100 * ticket.metrics['val_accuracy']:.1f} % right"
    )
