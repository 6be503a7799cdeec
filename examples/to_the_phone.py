"""From a model to a checked TFLite file: train, prune, fine-tune, export."""

import sys
import tempfile
from pathlib import Path

import keras

import tf_lottery as tfl

data = tfl.data.load("mnist1d")
keras.utils.set_random_seed(0)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model = keras.Sequential(
    [
        keras.Input((40,)),
        keras.layers.Reshape((40, 1)),
        keras.layers.Conv1D(32, 5, strides=2, activation="relu"),
        keras.layers.Conv1D(64, 5, strides=2, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(100, "relu"),
        keras.layers.Dense(10),
    ]
)
model.compile("adam", loss)
model.fit(*data.train, epochs=20, verbose=0)

masked = tfl.prune(model, 0.1)  # the largest tenth of each kernel stays
masked.compile("adam", loss)
masked.fit(*data.train, epochs=20, verbose=0)

# Every file is run with LiteRT, and appears only if its outputs are near those of the Keras model. int8 may differ more: look at "right".
folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()) / "phone"
report = tfl.export.side_by_side(masked, folder, *data.test, formats=["tflite"], representative=data.train[0][:200])
print(report)
best = min(report.files, key=lambda file: file.gzip_bytes)
print(f"Smallest to download: {best.path.name}, {best.gzip_bytes:,} bytes, {100 * best.accuracy:.1f} % right")
