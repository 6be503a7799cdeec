"""What a level is, as its ticket says it: of which settings, which replicate, and made of which levels. No TensorFlow.

A level is known by that and not by the folder that it lies in. The training that it came from has a fingerprint of its own (`known`),
which is of the data and the device too, and takes TensorFlow to compute; what stands here is compared at every start.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tf_lottery.runs import spec

KEY = "level_of"  # in what a ticket tells of how it was found


def of_settings(settings: Mapping[str, Any]) -> str:
    """The fingerprint of the settings of a run, a SHA-256; the same when more replicates or levels are added to it.

    A setting that older runs do not name does not count where it is what it was for them.
    """
    growing = spec.growing(settings)
    older = {name: value for were in spec.OLDER.values() for name, value in were.items()}
    counted = {
        name: value
        for name, value in spec.in_json(settings).items()
        if name not in growing and (name not in older or value != older[name])
    }
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()


def parents(settings: Mapping[str, Any], level: int) -> list[int]:
    """The levels that a level of a search was pruned from: the one before it, the dense one, or none."""
    before = {"iterative": level - 1, "one_shot": 0}.get(settings.get("search", ""))
    return [] if not level or before is None else [before]


def of_level(settings: str, replicate: int, made_of: Sequence[str | None]) -> dict[str, Any]:
    """What a ticket is to say of its level.

    Args:
      settings: The fingerprint of those of its run.
      replicate: Which.
      made_of: The fingerprints of the levels that it was made of; None for one that is not there.
    """
    return {"settings": settings, "replicate": replicate, "made_of": list(made_of)}


def why_not(said: Any, settings: str | None, replicate: int) -> str | None:
    """Why a level is not of a run and replicate, in words that follow "it is"; None if nothing speaks against it.

    Args:
      said: What its ticket says, of `of_level`; older ones say nothing, and are believed.
      settings: The fingerprint of those of the run; None if they are not known.
      replicate: Which.
    """
    if said is None:
        return None
    if not isinstance(said, dict) or not isinstance(said.get("made_of"), list):
        return "of no run"
    if said.get("replicate") != replicate:
        return f"of replicate {said.get('replicate')!r:.20}"
    return "of a run with other settings" if settings not in (None, said.get("settings")) else None


def why_not_made_of(said: Mapping[str, Any], made_of: Sequence[str | None]) -> str | None:
    """The same for the levels that it was made of, by their fingerprints; what is not there any more cannot be compared."""
    pairs = list(zip(said["made_of"], made_of))
    same = len(said["made_of"]) == len(made_of) and all(was == there for was, there in pairs if was and there)
    return None if same else FOLLOWS


FOLLOWS = "made of another level than the one that is there now"
