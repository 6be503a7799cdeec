"""`StandIns`: a scope in which some variables have other values, and everything else is as it always is.

`keras.StatelessScope` puts values in the place of variables, and keeps every assignment from reaching its variable. Here only the
first is wanted: what layers assign while they are called (the states of a recurrent layer, random seeds, metrics, statistics, also
within `while_loop` and `cond`, where nothing could be carried out) reaches its variable at once, as it does without a scope.

>>> import keras
>>> w, seen = keras.Variable(2.0), keras.Variable(0.0)
>>> with StandIns([(w, lambda: w.value * 10)]):
...     seen.assign_add(w.value)
<tf.Tensor: shape=(), dtype=float32, numpy=20.0>
>>> float(w), float(seen)
(2.0, 20.0)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import keras


class StandIns(keras.StatelessScope):
    """Values in the place of variables, for those who read them inside.

    A layer that assigns a variable which has a stand-in (as `SpectralNormalization` does with its kernel) assigns the
    variable itself, and from then on each reading makes the stand-in anew from what the variable holds: so it carries the
    gradients that it has without a scope. The losses that layers add are collected in `losses`.

    Args:
      values: (variable, function that makes its stand-in from the variables), outside of the scope.
    """

    def __init__(self, values: Sequence[tuple[keras.Variable, Callable]]):
        self._make = {id(variable): make for variable, make in values}
        self._assigned: set[int] = set()
        super().__init__([(variable, make()) for variable, make in values], collect_losses=True)

    @contextlib.contextmanager
    def _left(self) -> Iterator[None]:
        """Outside of the scope, in the one around it if there is one; variables that were made inside have values then."""
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()

    def add_update(self, update) -> None:
        variable, value = update
        with self._left():
            variable.assign(value)
        if id(variable) in self._make:
            self._assigned.add(id(variable))

    def get_current_value(self, variable):
        if id(variable) in self._assigned:
            with self._left():
                return self._make[id(variable)]()
        if id(variable) in self._make:
            return super().get_current_value(variable)
        with self._left():
            return variable.value
