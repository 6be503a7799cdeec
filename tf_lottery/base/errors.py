"""What tf_lottery raises when it is asked for something it cannot do, and what it warns with.

Every message is one sentence: what was expected, and what came. All errors are `ValueError`s, so code that never
heard of tf_lottery can catch them; the command line prints them without a traceback.
"""

from collections.abc import Callable
from string import Formatter


class LotteryError(ValueError):
    """Base of all errors that tf_lottery raises on purpose."""


class TicketError(LotteryError):
    """A ticket file or a ticket that cannot be read, or does not fit the model it is applied to."""


class FormatError(TicketError):
    """A file of another kind, or one that another version wrote."""


class DataError(LotteryError):
    """A data set that is not known, cannot be had, or does not fit the model."""


class ExportError(LotteryError):
    """A model that cannot leave in the format asked for, or a file that did not pass its check."""


class NonFiniteLossError(LotteryError):
    """The training loss became NaN, infinite or larger than 1e30, or a weight NaN or infinite.

    Attributes:
      step: The training step, counted from 1, whose loss was the first not to be finite.
      variable: The path of the variable that is not finite after that step; None for the loss.
    """

    def __init__(self, step: int, variable: str | None = None):
        self.step, self.variable = step, variable
        if variable is None:
            super().__init__(f"The loss was not finite at step {step}: expected a finite training loss.")
        else:
            super().__init__(f"Expected finite weights, but {variable!r} holds NaN or infinity after step {step}.")


class WorkerLostError(LotteryError):
    """A worker of several that train together stopped, or cannot be reached any more."""


class LotteryWarning(UserWarning):
    """What tf_lottery warns with: something that is done as it was asked for, and may not be what was meant.

    Its sentence names arguments: in Python as they are called there, on the command line as flags.

    Args:
      sentence: With `{}` for each of `given`, and arguments as `{exclude}` or `{scope=layer}`.
      given: What else the sentence tells, as names and numbers.

    Examples:

    >>> warning = LotteryWarning("{} is empty; {exclude} or {scope=layer} spares it.", "net/kernel")
    >>> print(warning)
    net/kernel is empty; exclude or scope='layer' spares it.
    >>> print(warning.in_flags())
    net/kernel is empty; --exclude or --scope=layer spares it.
    """

    def __init__(self, sentence: str, *given: object):
        super().__init__(sentence, *given)

    def __str__(self) -> str:
        return self._with(_argument)

    def in_flags(self) -> str:
        """The sentence in the words of the command line."""
        return self._with(_flag)

    def _with(self, word: Callable[[str], str]) -> str:
        sentence, *given = self.args
        return Formatter().vformat(sentence, given, _Words(word))


class _Words(dict):
    def __init__(self, word: Callable[[str], str]):
        super().__init__()
        self.word = word

    def __missing__(self, argument: str) -> str:
        return self.word(argument)


def _argument(argument: str) -> str:
    name, given, value = argument.partition("=")
    return f"{name}={value!r}" if given else name


def _flag(argument: str) -> str:
    name, *value = argument.split("=")
    return "--" + "=".join([_FLAGS.get(name, name), *value])


_FLAGS = {"sparsity_m_by_n": "pattern=m:n"}  # flags that are not called as the arguments
