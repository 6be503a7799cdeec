"""What a run was begun with that its settings do not say: plugins, where data lie, and what is one's own: its code, its data. No TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tf_lottery.base import registry, source
from tf_lottery.problems import data, models
from tf_lottery.rules import criteria, treatments

REGISTRIES = {
    "model": models.registry,
    "dataset": data.registry,
    "criterion": criteria.registry,
    "survivors": treatments.survivors_registry,
    "pruned": treatments.pruned_registry,
}


def of(folder: Path, settings: Mapping[str, Any], examples: str | None) -> dict[str, Any]:
    """What is to be remembered of how a run begins, in the words of JSON.

    Args:
      folder: That of the run; paths are as seen from there.
      settings: Those of the run.
      examples: The fingerprint of its data, if they are loaded.
    """
    data_dir = data.given.get(settings.get("dataset") or "")
    files = [os.path.relpath(plugin, folder) if plugin.endswith(".py") else plugin for plugin in registry.imported]
    found = {
        "data_dir": os.path.relpath(data_dir, folder) if data_dir else None,
        "plugins": files,
        "code": code(settings),
        "data": examples,
    }
    return {name: value for name, value in found.items() if value}


def code(settings: Mapping[str, Any]) -> dict[str, str]:
    """The fingerprints of the functions of one's own that settings name, by the setting."""
    named = {key: settings.get(key) for key in REGISTRIES}
    own = {
        key: REGISTRIES[key][name] for key, name in named.items() if isinstance(name, str) and name in REGISTRIES[key]
    }
    return {key: digest for key, function in own.items() if (digest := source.digest(function))}


def edited(begun_with: Mapping[str, Any], settings: Mapping[str, Any]) -> str | None:
    """The setting whose function is written otherwise than when a run was begun; None if there is none, or nothing is known."""
    before = begun_with.get("code", {})
    return next((key for key, now in code(settings).items() if before.get(key, now) != now), None)
