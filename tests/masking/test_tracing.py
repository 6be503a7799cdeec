"""Traces that are found by shapes and dtypes alone, and values that are read without a copy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_lottery.masking.masked import view_of
from tf_lottery.masking.tracing import Traced


def test_a_trace_is_found_by_shapes_dtypes_and_what_is_no_tensor():
    traced, total = [], tf.Variable(0.0)

    def add(numbers, kind):
        traced.append(kind)
        total.assign_add(tf.reduce_sum(tf.cast(numbers["x"], tf.float32)) * (2.0 if kind == "twice" else 1.0))
        return total.read_value()

    compiled = Traced(tf.function(add))
    for _ in range(2):
        for x in (tf.ones(2), tf.ones(3), tf.ones(3, tf.int32)):
            for kind in ("once", "twice"):
                compiled({"x": x}, kind)
    assert float(compiled({"x": tf.ones(2)}, "once")) == 2 * 3 * (2 + 3 + 3) + 2
    assert len(traced) == 6
    tf.config.run_functions_eagerly(True)
    try:
        compiled({"x": tf.ones(2)}, "once")
    finally:
        tf.config.run_functions_eagerly(False)
    assert len(traced) == 7


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32"])
def test_a_view_is_the_value(dtype):
    variable = keras.Variable(np.arange(6).reshape(2, 3), dtype=dtype, trainable=False)
    seen = view_of(variable)
    assert seen.shape == (2, 3) and str(seen.dtype) == dtype
    assert np.array_equal(seen.astype(int), np.arange(6).reshape(2, 3))
    variable.assign(variable.value + variable.value)
    assert np.array_equal(view_of(variable).astype(int), 2 * np.arange(6).reshape(2, 3))
