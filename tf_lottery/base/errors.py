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
    """The training loss became NaN or infinite.

    Attributes:
      step: The training step, counted from 1, whose loss was the first not to be finite.
    """

    def __init__(self, step: int):
        self.step = step
        super().__init__(f"The loss was not finite at step {step}: expected a finite training loss.")


class WorkerLostError(LotteryError):
    """A worker of several that train together stopped, or cannot be reached any more."""
