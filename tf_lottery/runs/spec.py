"""The settings and versions of a run on disk: `spec.json`, with a checksum, and what older ones leave out. No TensorFlow."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_lottery.base.errors import LotteryError
from tf_lottery.base.files import whole_file

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
      LotteryError: If it is damaged.
    """
    try:
        spec = json.loads(path.read_text())
        if spec.pop("sha256", None) not in (None, _digest(spec)):  # older runs have none
            raise ValueError("it is not as it was written")
        for owner, were in OLDER.items():
            if owner in spec["settings"]:
                spec["settings"] = {**were, **spec["settings"]}
        if "one_shot" in spec["settings"]:
            road = "one_shot" if spec["settings"]["one_shot"] else "iterative"
            spec["settings"] = {"search": road, **spec["settings"]}
        return spec
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LotteryError(f"Expected the settings of a run in {path}, but it cannot be read ({error}).") from None


def write(
    path: Path, settings: Mapping[str, Any], versions: Mapping[str, str], begun_with: Mapping[str, Any] | None = None
) -> None:
    """Writes the settings, the versions, and where data and plugins were, if that is to be remembered."""
    spec = {"settings": settings, "versions": versions, **({"begun_with": begun_with} if begun_with else {})}
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


def _digest(spec: Mapping[str, Any]) -> str:
    """The SHA-256 of settings and versions as JSON writes them."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
