"""The settings and versions of a run on disk: `spec.json`, with a checksum, and what older ones leave out. No TensorFlow."""

from __future__ import annotations

import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_lottery.base.errors import LotteryError
from tf_lottery.base.files import whole_file
from tf_lottery.runs.settings import BranchSettings, Settings, SupermaskSettings, check_whole

# Settings that older runs do not name, and what they were, by a setting of the runs they belong to.
OLDER: dict[str, dict[str, Any]] = {
    "model": {"precision": "float32", "deterministic": False, "exclude": None},
    "levels": {
        "min_per_kernel": 1,
        **{"density": None, "budget": None, "level_steps": None, "search_steps": None, "dense": True},
    },
}


def read(path: Path) -> dict[str, Any] | None:
    """The settings and versions, or None if there is no such file.

    Raises:
      LotteryError: If it is damaged, or no command could have written it.
    """
    try:
        spec = json.loads(path.read_text("utf-8"))
        if spec.pop("sha256", None) not in (None, _digest(spec)):  # older runs have none
            raise ValueError("it is not as it was written: edited by hand, say; undo that, or remove its folder")
        for owner, were in OLDER.items():
            if owner in spec["settings"]:
                spec["settings"] = {**were, **spec["settings"]}
        if "one_shot" in spec["settings"]:
            road = "one_shot" if spec["settings"]["one_shot"] else "iterative"
            spec["settings"] = {"search": road, **spec["settings"]}
        _check(spec)
        return spec
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LotteryError(f"Expected the settings of a run in {path}, but it cannot be read ({error}).") from None


def write(path: Path, settings: Mapping[str, Any], versions: Mapping[str, str], **more: Any) -> None:
    """Writes the settings, the versions, and what else is to be remembered, as where data and plugins were, if there is any."""
    spec = {"settings": settings, "versions": versions, **{name: value for name, value in more.items() if value}}
    with whole_file(path) as unfinished:
        unfinished.write_text(json.dumps({**spec, "sha256": _digest(spec)}, indent=2) + "\n")


def in_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they come back from a file."""
    return json.loads(json.dumps(settings))


def difference(
    before: Mapping[str, Any], settings: Mapping[str, Any], growing: Sequence[str] = ()
) -> tuple[str, Any, Any] | None:
    """The first setting that differs, as it was and as it is; those that are `growing` may be larger than before."""
    now = in_json(settings)
    old: Any
    new: Any
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if old != new and not (key in growing and new > old):
            return key, old, new
    return None


def growing(settings: Mapping[str, Any]) -> Sequence[str]:
    """What may be larger than it was when a run of these settings was begun."""
    kind = next((kind for kind in (Settings, SupermaskSettings) if settings.keys() <= _HINTS[kind].keys()), None)
    return kind(**settings).growing if kind else ()


_HINTS = {kind: typing.get_type_hints(kind) for kind in (Settings, SupermaskSettings, BranchSettings)}


def _check(spec: Mapping[str, Any]) -> None:
    """
    Raises:
      ValueError: If something that is a setting of a command, or stands beside the settings, is of a type or size that it cannot have.
    """
    settings, begun_with = spec["settings"], spec.get("begun_with", {})
    for name, value in settings.items():
        hints = [hints[name] for hints in _HINTS.values() if name in hints]
        if hints and not any(_fits(value, hint) for hint in hints):
            raise ValueError(f"it has {name}={value!r:.60}")
    check_whole(settings)
    if (rate := settings.get("learning_rate")) is not None and rate <= 0:
        raise ValueError(f"it has learning_rate={rate}")
    words = [*spec.get("versions", {}).values(), begun_with.get("data_dir", ""), begun_with.get("data", "")]
    words += [*begun_with.get("plugins", []), *begun_with.get("code", {}).values()]
    if not all(isinstance(word, str) for word in words):
        raise ValueError("it has versions, or what it was begun with, that are no words")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value out of JSON is of a type."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is tuple:
        return isinstance(value, list) and all(_fits(each, parts[0]) for each in value)
    if origin is Mapping:
        return isinstance(value, dict) and all(_fits(each, parts[1]) for each in value.values())
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    return value is None if hint is type(None) else type(value) is hint


def _digest(spec: Mapping[str, Any]) -> str:
    """The SHA-256 of settings and versions as JSON writes them."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
