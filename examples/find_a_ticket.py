"""Find a winning ticket on MNIST-1D, save it, and put it on a fresh network."""

import sys
import tempfile
from pathlib import Path

import keras

import tf_lottery as tfl

data = tfl.data.load("mnist1d")
model = tfl.models.get("residual_mlp")(seed=0)  # any Keras 3 model will do

trainer = tfl.Trainer(
    *data.train,
    validation=data.validation,
    test=data.test,
    optimizer=keras.optimizers.Adam(2e-2),
    batch_size=100,
    steps=500,
    eval_every=25,
)

tickets = []
for ticket in tfl.find_ticket(model, trainer, levels=8, prune_fraction=0.3):
    tickets.append(ticket)
    print(
        f"{100 * ticket.density:5.1f} % of the weights: {100 * ticket.metrics['early_stop_test_accuracy']:.1f} % right"
    )

winner = max(tickets, key=lambda ticket: ticket.metrics["early_stop_validation_accuracy"])
folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
winner.save(folder / "winner.ticket")

fresh = tfl.models.get("residual_mlp")(seed=1)
masked = tfl.Ticket.load(folder / "winner.ticket").apply(fresh)  # its masks and its starting weights
trainer(masked)
print(f"The ticket, trained again alone: {100 * trainer.curve[-1]['test_accuracy']:.1f} % right")

plain = tfl.strip(masked)  # an ordinary Keras model, pruned weights exactly zero
plain.save(folder / "winner.keras")
