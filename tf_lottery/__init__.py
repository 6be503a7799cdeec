"""Lottery tickets for Keras: find them, check them, take them apart, ship them.

>>> import tf_lottery as tfl
>>> tfl.Ticket.__name__
'Ticket'

Names are loaded when they are first used, so that reading a ticket or asking for `--help` loads no TensorFlow.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tf_lottery.compaction import compact
    from tf_lottery.errors import DataError, ExportError, LotteryError, NonFiniteLossError, TicketError
    from tf_lottery.find import find_ticket, retrain_ticket
    from tf_lottery.layers import MaskedLayer, MaskedModel, strip, wrap
    from tf_lottery.pruning import prune
    from tf_lottery.schedules import LotterySchedule
    from tf_lottery.state import get_masks, set_masks
    from tf_lottery.ticket import Ticket
    from tf_lottery.training import Trainer, WarmUpThenDrop

__version__ = "0.1.0"

_HOMES = {
    "DataError": "errors",
    "ExportError": "errors",
    "LotteryError": "errors",
    "LotterySchedule": "schedules",
    "MaskedLayer": "layers",
    "MaskedModel": "layers",
    "NonFiniteLossError": "errors",
    "Ticket": "ticket",
    "TicketError": "errors",
    "Trainer": "training",
    "WarmUpThenDrop": "training",
    "compact": "compaction",
    "find_ticket": "find",
    "get_masks": "state",
    "prune": "pruning",
    "retrain_ticket": "find",
    "set_masks": "state",
    "strip": "layers",
    "wrap": "layers",
}
_MODULES = (
    "callbacks",
    "contracts",
    "criteria",
    "data",
    "errors",
    "export",
    "gradients",
    "masks",
    "models",
    "policies",
    "supermask",
    "tfmot",
    "treatments",
    "weights",
)

__all__ = [*sorted(_HOMES), *_MODULES]


def _register() -> None:
    """Makes what Keras saves of ours known to it, so that `keras.models.load_model` finds it after `import tf_lottery`.

    Only where Keras is loaded already: otherwise the first name that is used does it.
    """
    keras = sys.modules.get("keras")
    if keras is not None and keras.config.backend() == "tensorflow":
        for module in ("layers", "learned", "training"):
            import_module(f"{__name__}.{module}")


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]


_register()
