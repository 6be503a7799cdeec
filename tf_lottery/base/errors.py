"""What tf_lottery raises when it is asked for something it cannot do.

Every message is one sentence: what was expected, and what came. All of them are `ValueError`s, so code that never
heard of tf_lottery can catch them; the command line prints them without a traceback.
"""


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
