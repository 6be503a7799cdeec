"""Lottery tickets for Keras: find them, check them, take them apart, ship them.

>>> import tf_lottery as tfl
>>> tfl.Ticket.__name__
'Ticket'

Each folder is a room with one purpose; what stands in a room is listed in its `__init__`. Here the public names are mapped to
their rooms, and loaded when they are first used, so that reading a ticket or asking for `--help` loads no TensorFlow.
"""

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tf_lottery.base.errors import (
        DataError,
        ExportError,
        LotteryError,
        LotteryWarning,
        NonFiniteLossError,
        TicketError,
    )
    from tf_lottery.checks.verify import verify
    from tf_lottery.compaction import compact
    from tf_lottery.export.before_after import compare
    from tf_lottery.masking.layers import MaskedLayer, MaskedModel
    from tf_lottery.masking.state import get_masks, set_masks
    from tf_lottery.masking.summary import summary
    from tf_lottery.masking.wrapping import strip, wrap
    from tf_lottery.search.find import find_ticket, retrain_ticket
    from tf_lottery.search.pruning import prune
    from tf_lottery.search.schedules import LotterySchedule
    from tf_lottery.tickets.ticket import Ticket
    from tf_lottery.training.learning_rates import WarmUpThenDrop
    from tf_lottery.training.trainer import Trainer

__version__ = "0.1.0"

_HOMES = {
    "DataError": "base.errors",
    "ExportError": "base.errors",
    "LotteryError": "base.errors",
    "LotteryWarning": "base.errors",
    "LotterySchedule": "search.schedules",
    "MaskedLayer": "masking.layers",
    "MaskedModel": "masking.layers",
    "NonFiniteLossError": "base.errors",
    "Ticket": "tickets.ticket",
    "TicketError": "base.errors",
    "Trainer": "training.trainer",
    "WarmUpThenDrop": "training.learning_rates",
    "compact": "compaction",
    "compare": "export.before_after",
    "find_ticket": "search.find",
    "get_masks": "masking.state",
    "prune": "search.pruning",
    "retrain_ticket": "search.find",
    "set_masks": "masking.state",
    "strip": "masking.wrapping",
    "verify": "checks.verify",
    "summary": "masking.summary",
    "wrap": "masking.wrapping",
}
_MODULES = {
    "analysis": "checks.analysis",
    "callbacks": "search.callbacks",
    "contracts": "problems.contracts",
    "criteria": "rules.criteria",
    "data": "problems.data",
    "errors": "base.errors",
    "export": "export",
    "gradients": "masking.gradients",
    "loggers": "search.loggers",
    "masks": "rules.masks",
    "models": "problems.models",
    "patterns": "masking.patterns",
    "policies": "masking.policies",
    "results": "report.results",
    "supermask": "search.supermask",
    "tfmot": "search.tfmot",
    "treatments": "rules.treatments",
    "weights": "masking.weights",
}

__all__ = sorted([*_HOMES, *_MODULES])


class _PublicModules:  # no subclass of what is in importlib.abc, which takes as long to import as all of this
    """`from tf_lottery.criteria import register` finds the one module in its room, as `tfl.criteria` does."""

    def find_spec(self, fullname, path=None, target=None) -> ModuleSpec | None:
        name = fullname.removeprefix(f"{__name__}.")
        if name == fullname or _MODULES.get(name, name) == name:
            return None
        return ModuleSpec(fullname, self)  # type: ignore[arg-type]  # it has the methods of a Loader

    def create_module(self, spec):
        module = import_module(f"{__name__}.{_MODULES[spec.name.rpartition('.')[2]]}")
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module) -> None:
        module.__spec__ = module.__spec__.loader_state  # it has run, under its own name


sys.meta_path.append(_PublicModules())


def _register() -> None:
    """Makes what Keras saves of ours known to it, so that `keras.models.load_model` finds it after `import tf_lottery`.

    Only where Keras is loaded already: otherwise the first name that is used does it.
    """
    keras = sys.modules.get("keras")
    if keras is not None and keras.config.backend() == "tensorflow":
        for module in ("masking.layers", "masking.learned", "training.learning_rates"):
            import_module(f"{__name__}.{module}")


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name in _MODULES:
        return import_module(f"{__name__}.{_MODULES[name]}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]


_register()
