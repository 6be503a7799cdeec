"""A tf_keras model, pruned by TF-MOT itself, with one more callback: survivors rewind."""

import keras
import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras

import tf_lottery as tfl

data = tfl.data.load("mnist1d")
(x, y), (x_test, y_test) = data.train, data.test
tf_keras.utils.set_random_seed(0)
model = tf_keras.Sequential([tf_keras.layers.Dense(300, "relu", input_shape=(40,)), tf_keras.layers.Dense(10)])

schedule = tfl.LotterySchedule(levels=5, steps_per_level=600, prune_fraction=0.4)
pruned = tfmot.sparsity.keras.prune_low_magnitude(model, pruning_schedule=schedule)
pruned.compile(tf_keras.optimizers.Adam(1e-2), tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))

search = tfl.tfmot.RewindSurvivors()  # does the work of UpdatePruningStep too
pruned.fit(x, y, batch_size=60, epochs=60, verbose=0, callbacks=[search])
plain = tfmot.sparsity.keras.strip_pruning(pruned)

# A ticket that was found there is applicable here: on a Keras 3 model of the same layers.
fresh = keras.Sequential([keras.Input((40,)), keras.layers.Dense(300, "relu"), keras.layers.Dense(10)])
for ticket in search.tickets:
    masked = ticket.apply(fresh, weights="final")
    accuracy = np.mean(np.argmax(masked.predict(x_test, verbose=0), -1) == y_test)
    print(f"{100 * ticket.density:5.1f} % of the weights: {100 * accuracy:.1f} % right")
