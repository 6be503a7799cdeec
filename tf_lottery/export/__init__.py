"""Models out of the door: the formats they leave in (`.keras`, SavedModel, TFLite), without masks, and what pruning bought.

What stands here, and after a colon the names that other rooms take from it:

    formats     `.keras` files and SavedModels, and the plain model that goes into them: check_model, first_line,
                functions_by_name, keras_file, load_keras, plain, uncompiled_copy
    before_after  a model before and after pruning, as one table: REPRESENTATIVE, Compared, with_files
    evaluation  what `evaluate` says of several models by one loss: arrays_of, evaluated
    variants    the variants of TFLite: how each is converted, and how far it may differ: Converter
    conversion  one conversion to TFLite, here or in a process of its own
    comparison  files that are loaded, run and compared before they count
    litert      TFLite files run by LiteRT: Loaded, latencies
    kernels     for which layers XNNPACK has a sparse kernel
    report      all formats of a model side by side
    remarks     what nobody should miss in the accuracies

- `keras_file`, `saved_model`: for servers and for those who train on; they need no tf_lottery to load.
- `tflite`: for phones, in the `VARIANTS`. A file counts only once LiteRT ran it and it agreed with the Keras model.
- `tfl.compare`: the model before and after, as one table: metrics, weights that are not zero, files.
- `side_by_side`: all of them in one folder, with a `Report`: sizes, zeros, latency, accuracy, and for each layer whether
  XNNPACK has a sparse kernel for it.

All take wrapped and plain models; pruned weights are exactly zero in what they write.
"""

from tf_lottery.export.comparison import Exported, tflite
from tf_lottery.export.formats import keras_file, saved_model
from tf_lottery.export.report import FORMATS, Report, side_by_side
from tf_lottery.export.variants import KNOWN_BAD, VARIANTS

__all__ = [
    "FORMATS",
    "KNOWN_BAD",
    "VARIANTS",
    "Exported",
    "Report",
    "keras_file",
    "saved_model",
    "side_by_side",
    "tflite",
]
