"""absl flags from settings: one flag per dataclass field, its help from the field's metadata."""

from __future__ import annotations

import dataclasses
import re
import shutil
import sys
import textwrap
import typing
from collections.abc import Callable, Mapping, Sequence

from absl import flags

from tf_lottery.base.errors import LotteryError


class _Fraction(flags.ArgumentParser):
    """A number, or `kind=number,kind=number`."""

    def parse(self, text):
        try:
            if not isinstance(text, str) or "=" not in text:
                return float(text)
            return {key: float(value) for key, _, value in (part.rpartition("=") for part in text.split(","))}
        except ValueError:
            raise ValueError(f"expected a number, or kind=number,kind=number, but received {text!r}") from None


class Steps(flags.ArgumentParser):
    """Whole numbers and ranges, as in `1,4-6`."""

    def parse(self, text):
        try:
            ends = [tuple(map(int, part.split("-"))) for part in text.split(",") if part]
            if any(end[0] > end[-1] for end in ends):
                raise ValueError
            return tuple(n for end in ends for n in range(end[0], end[-1] + 1))
        except ValueError:
            raise ValueError(f"expected whole numbers or ranges as in 1,4-6, but received {text!r}") from None


class _Numbers(flags.ArgumentParser):
    """Numbers, as in `0.5,0.2`."""

    def parse(self, text):
        try:
            return tuple(float(part) for part in text.split(","))
        except (AttributeError, ValueError):
            raise ValueError(f"expected numbers as in 0.5,0.2, but received {text!r}") from None


_DEFINE: Mapping[type, Callable] = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_boolean,
}


PLUGIN = "Modules, or .py files of your own, to import first, as in mine.py,my_package: what they register can be named in other flags."


def plugins(argv: list[str]) -> list[str]:
    """The values of --plugin, read before the other flags, whose help and choices they add to."""
    early = flags.FlagValues()
    flags.DEFINE_multi_string("plugin", [], PLUGIN, early)
    _read(early, argv, known_only=True)
    return [plugin for value in early.plugin for plugin in value.split(",") if plugin]


def known_of(argv: list[str], names: Sequence[str]) -> dict[str, str | None]:
    """The values of some flags, read before the others; None for those that are not given."""
    early = flags.FlagValues()
    for name in names:
        flags.DEFINE_string(name, None, "", early)
    _read(early, argv, known_only=True)
    return {name: early[name].value for name in names}


def _read(values: flags.FlagValues, argv: list[str], **how) -> list[str]:
    """What of the command line is no flag."""
    try:
        return values(["tf-lottery", *argv], **how)[1:]
    except flags.Error as error:
        message = str(error).replace(" ?", "?").rstrip(".")
        for plain, said in _SAID.items():
            message = re.sub(plain, said, message)
        raise LotteryError(f"{message}{'' if message.endswith('?') else '.'} --help lists the flags.") from None


_SAID = {  # what absl passes on from Python
    r"invalid literal for int\(\) with base \d+:": "expected a whole number, but received",
    r"could not convert string to float:": "expected a number, but received",
}


class Flags:
    """The flags of one command.

    Args:
      usage: What the command does: the first lines of its help.
      settings: Dataclasses whose fields become flags.
      words: Whether the command takes words that are no flags, as files; `parse` puts them into `self.words`.
    """

    def __init__(self, usage: str, *settings: type, words: bool = False):
        self.values, self.usage, self.settings = flags.FlagValues(), usage, settings
        self.order: list[str] = []
        self.words: list[str] | None = [] if words else None
        for cls in settings:
            hints = typing.get_type_hints(cls)
            for field in dataclasses.fields(cls):
                default = None if field.default is dataclasses.MISSING else field.default
                self.define(field.name, _kind(hints[field.name]), default, field.metadata["help"])
        self.define("plugin", str, None, PLUGIN)
        self.define("help", bool, False, "Show this help.")

    def define(self, name: str, kind: type | flags.ArgumentParser, default, help: str) -> None:
        self.order.append(name)
        if isinstance(kind, flags.ArgumentParser):
            flags.DEFINE(kind, name, default, help, self.values)
        else:
            _DEFINE[kind](name, default, help, flag_values=self.values)

    def parse(self, argv: list[str]) -> list:
        """Reads the command line (without the command's name) and returns an instance of each settings class.

        Raises:
          LotteryError: If a flag is unknown or its value cannot be read.
        """
        rest = _read(self.values, argv)
        if self.values["help"].value:
            print(self.help())
            sys.exit(0)
        if self.words is not None:
            self.words = rest
        elif rest:
            raise LotteryError(f"Expected flags only, as in --name=value, but received {rest[0]!r}.")
        return [cls(**{f.name: self.values[f.name].value for f in dataclasses.fields(cls)}) for cls in self.settings]

    def __getitem__(self, name: str):
        return self.values[name].value

    def help(self) -> str:
        width = min(shutil.get_terminal_size().columns, 110)
        lines = [self.usage.strip(), ""]
        for name in self.order:
            flag = self.values[name]
            switch = f"--[no]{name}" if isinstance(flag.default, bool) and name != "help" else f"--{name}"
            default = f" Default: {flag.default}." if flag.default not in (None, False, "", ()) else ""
            lines.append(f"  {switch}")
            lines += textwrap.wrap(flag.help + default, width, initial_indent=" " * 6, subsequent_indent=" " * 6)
        return "\n".join(lines)


def _kind(hint) -> type | flags.ArgumentParser:
    kinds = [kind for kind in typing.get_args(hint) or (hint,) if kind is not type(None)]
    if any(typing.get_origin(kind) is Mapping for kind in kinds):
        return _Fraction()
    if kinds[0] in _DEFINE:
        return kinds[0]
    return _Numbers() if float in typing.get_args(kinds[0]) else Steps()
