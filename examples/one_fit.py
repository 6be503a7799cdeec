"""The whole lottery-ticket search in one Keras `fit`."""

import keras

import tf_lottery as tfl

data = tfl.data.load("mnist1d")
keras.utils.set_random_seed(0)
model = keras.Sequential([keras.Input((40,)), keras.layers.Dense(300, "relu"), keras.layers.Dense(10)])

masked = tfl.wrap(model)
masked.compile(
    keras.optimizers.Adam(1e-2), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
)

steps_per_epoch = -(-len(data.train[1]) // 60)
schedule = tfl.LotterySchedule(levels=5, steps_per_level=10 * steps_per_epoch, prune_fraction=0.4)
search = tfl.callbacks.LotteryTicket(schedule)
masked.fit(*data.train, batch_size=60, epochs=60, validation_data=data.validation, verbose=0, callbacks=[search])

for ticket in search.tickets:
    print(f"{100 * ticket.density:5.1f} % of the weights: {100 * ticket.metrics['val_accuracy']:.1f} % right")

plain = tfl.strip(masked)  # the last ticket, trained: an ordinary Keras model with exact zeros
