"""Trains the same on one device and on two logical ones, and prints what came out as JSON: run by test_distribution."""

# ruff: noqa: E402

import contextlib
import json
import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"], os.environ["CUDA_VISIBLE_DEVICES"] = "3", "-1"

import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

import keras
import numpy as np

import tf_lottery as tfl
from tf_lottery.masking import distribution, state

L = keras.layers
MIRRORED = distribution.get("mirrored")
SGD = keras.optimizers.SGD(0.1, momentum=0.9)
rng = np.random.default_rng(1)
Y = rng.integers(0, 3, 301).astype("int32")
X = (2 * rng.normal(size=(3, 6))[Y] + rng.normal(size=(301, 6))).astype("float32")
assert MIRRORED.num_replicas_in_sync == 2


def net(strategy, *between, activity=0.0, output=None):
    with strategy.scope() if strategy else contextlib.nullcontext():
        glorot = [keras.initializers.GlorotNormal(seed=i) for i in range(2)]
        regularizers = {"kernel_regularizer": keras.regularizers.L2(0.01)}
        if activity:
            regularizers["activity_regularizer"] = keras.regularizers.L2(activity)
        hidden = L.Dense(16, "relu", kernel_initializer=glorot[0], name="hidden", **regularizers)
        between = [layer() for layer in between]
        last = L.Dense(3, output, kernel_initializer=glorot[1], name="output")
        return keras.Sequential([keras.Input((6,)), hidden, *between, last], name="net")


def trainer(strategy, **options):
    sets = {"validation": (X, Y), "test": (X[:37], Y[:37])}
    options = {"steps": 30, "batch_size": 20, "eval_every": 10, "optimizer": SGD, "seed": 3, **sets, **options}
    return tfl.Trainer(X, Y, strategy=strategy, jit_compile=False if strategy is None else "auto", **options)


def half_masked(model):
    masked = tfl.wrap(model)
    tfl.set_masks(masked, {path: np.indices(mask.shape).sum(0) % 2 for path, mask in tfl.get_masks(masked).items()})
    return masked


def check_replicas(masked):
    """All variables are the same on both devices, and pruned weights exactly zero."""
    for variable in masked.variables:
        a, b = (part.numpy() for part in MIRRORED.experimental_local_results(variable.value))
        assert np.array_equal(a, b), variable.path
    for kernel, mask in zip(masked.kernels, masked._masks):
        assert not np.array(kernel.variable.value)[np.array(mask.value) == 0].any()


def difference(a, b):
    return max(float(np.abs(one - other).max()) for one, other in zip(a.values(), b.values(), strict=True))


def trained(layers=(), activity=0.0, output=None, **options):
    """How far the two end from one another: weights, and the measurements."""
    values, curves = [], []
    for strategy in (None, MIRRORED):
        masked, train = (
            half_masked(net(strategy, *layers, activity=activity, output=output)),
            trainer(strategy, **options),
        )
        train(masked)
        values.append(state.get_values(masked))
        curves.append(train.curve)
    check_replicas(masked)
    rows = [abs(a[key] - b[key]) for a, b in zip(*curves) for key in a if a[key] is not None]
    return {"weights": difference(*values), "measurements": max(rows)}


def searched(**options):
    found = [
        list(tfl.find_ticket(net(s), trainer(s), levels=2, prune_fraction=0.5, **options)) for s in (None, MIRRORED)
    ]
    masks = all(np.array_equal(a.masks[path], b.masks[path]) for a, b in zip(*found) for path in a.masks)
    return {
        "masks": masks,
        "weights": max(difference(a.final, b.final) for a, b in zip(*found)),
        "levels": len(found[1]),
    }


def learned(by):
    tickets = []
    for strategy in (None, MIRRORED):
        train = trainer(strategy, optimizer=keras.optimizers.SGD(5.0, momentum=0.9))
        tickets.append(tfl.supermask.train(net(strategy), train, by=by))
    loss = [ticket.metrics["final_train_loss"] for ticket in tickets]
    return {"masks": all(np.array_equal(*(t.masks[path] for t in tickets)) for path in tickets[0].masks), "loss": loss}


def fitted():
    """A search around Keras's `fit`."""
    found = []
    for strategy in (None, MIRRORED):

        def train(masked, callbacks):
            with masked.distribute_strategy.scope():
                masked.compile(SGD.from_config(SGD.get_config()), keras.losses.SparseCategoricalCrossentropy(True))
            return masked.fit(X[:300], Y[:300], batch_size=20, epochs=2, verbose=0, shuffle=False, callbacks=callbacks)

        found.append(list(tfl.find_ticket(net(strategy), train, levels=2, prune_fraction=0.5)))
    masks = all(np.array_equal(a.masks[path], b.masks[path]) for a, b in zip(*found) for path in a.masks)
    return {"masks": masks, "weights": max(difference(a.final, b.final) for a, b in zip(*found))}


def overflowing(where, train):
    """float16 training on data one of whose examples overflows on one of the replicas."""
    x = X[:40].copy()
    x[where] = 5e2
    keras.config.set_dtype_policy("mixed_float16")
    model = net(MIRRORED)
    with MIRRORED.scope():
        masked = half_masked(model)
        if train == "fit":
            masked.compile(SGD.from_config(SGD.get_config()), keras.losses.SparseCategoricalCrossentropy(True))
    keras.config.set_dtype_policy("float32")
    if train == "fit":
        masked.fit(x, Y[:40], batch_size=40, epochs=5, verbose=0, shuffle=False)
        optimizer = masked.optimizer
    else:
        trainer = tfl.Trainer(x, Y[:40], steps=5, batch_size=40, strategy=MIRRORED, optimizer=SGD)
        trainer(masked)
        optimizer = trainer._loop.optimizer
    check_replicas(masked)
    return {
        "finite": all(np.isfinite(value).all() for value in state.get_values(masked).values()),
        "updates": tfl.weights.step_of(optimizer),
        "scale": optimizer.dynamic_scale.value.numpy().item(),
    }


def refused():
    said = []
    for built, given in ((None, MIRRORED), (MIRRORED, None)):
        try:
            trainer(given)(net(built))
        except tfl.LotteryError as error:
            said.append(str(error))
    for attempt in (
        lambda: tfl.Trainer(X, Y, steps=1, strategy=MIRRORED, jit_compile=True)(net(MIRRORED)),
        lambda: trainer(MIRRORED, batch_size=1)(net(MIRRORED)),
        lambda: tfl.wrap(net(MIRRORED)).compile("sgd", "mse", jit_compile=True),
    ):
        try:
            attempt()
        except tfl.LotteryError as error:
            said.append(str(error))
    return said


def shifted(x, seed):
    return x + tf.random.stateless_normal(tf.shape(x), seed, alg="philox")


CASES = {
    "plain": lambda: trained(activity=0.01),
    "uneven": lambda: trained(activity=0.01, batch_size=21),
    "clipped": lambda: trained(optimizer=keras.optimizers.SGD(0.1, global_clipnorm=0.1), augment=shifted),
    "by_name": lambda: trained(output="softmax", loss="sparse_categorical_crossentropy", device_bytes=3_000),
    "synchronized": lambda: trained([lambda: L.BatchNormalization(synchronized=True)]),
    "normalized": lambda: trained([L.BatchNormalization, lambda: L.Dropout(0.3, seed=1)]),
    "search": searched,
    "search_late": lambda: searched(rewind_to=7, criterion="snip", survivors="reinit"),
    "learning": lambda: learned("learning"),
    "edge_popup": lambda: learned("edge_popup"),
    "fit": fitted,
    "overflow": lambda: {
        f"{train}_{where}": overflowing(where, train) for train, where in (("fit", 5), ("fit", 25), ("trainer", 25))
    },
    "refused": refused,
}
print(json.dumps({name: CASES[name]() for name in sys.argv[1:] or CASES}))
