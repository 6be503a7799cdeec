"""Numbers with ends: what is asked for is checked before anything is made of it.

>>> whole("levels", 10, least=1, most=MOST_LEVELS)
10
>>> whole("seed", -1)
Traceback (most recent call last):
tf_lottery.base.errors.LotteryError: Expected seed of 0 or more, a whole number, but received -1.
"""

from __future__ import annotations

import operator
from typing import Any

from tf_lottery.base.errors import LotteryError

MOST = 2**31 - 1  # of steps and seeds, which are int32 on the device
MOST_LEVELS = 10_000
MOST_REPLICATES = 10_000
MOST_DROPS = 1_000  # of the learning rate


def whole(name: str, value: Any, least: int = 0, most: int = MOST) -> int:
    """The value as an `int`.

    Raises:
      LotteryError: If it is no whole number, or out of bounds.
    """
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        bound = f"at least {least}" if least else "0 or more"
        raise LotteryError(f"Expected {name} of {bound}, a whole number, but received {value!r:.80}.")
    if number > most:
        raise LotteryError(f"Expected {name} of at most {most:,}, but received {str(value)[:80]}.")
    return number
