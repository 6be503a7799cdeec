"""Trainings of `Trainer` with a callback that changes masks, for tests that stop them in the middle and go on."""

import keras

import tf_lottery as tfl
from tf_lottery.masking import state


class Stop(Exception):
    """What stops them."""


def trainer(blobs, optimizer="adam", **options):
    sets = {"validation": (blobs[0][:60], blobs[1][:60])}
    options = {"steps": 60, "batch_size": 15, "eval_every": 10, "jit_compile": False, **sets, **options}
    return tfl.Trainer(*blobs, optimizer=optimizer, **options)


def trained(train, model, callback, stop=None):
    """Trains `model`, wrapped, up to step `stop`, where it raises `Stop`.

    Returns:
      (all of it, first): masks, values, metrics and curve, to be compared bit for bit; and the first step that was heard of.
    """

    def look(batch, logs):
        heard.append(logs["step"])
        if stop and logs["step"] >= stop:
            raise Stop

    heard, masked = [], tfl.wrap(model)
    metrics = train(masked, [callback, keras.callbacks.LambdaCallback(on_train_batch_end=look)])
    del metrics["seconds"]
    arrays = [*state.get_masks(masked).values(), *state.get_values(masked).values()]
    return ([array.tobytes() for array in arrays], metrics, train.curve), heard[0]
