"""What is looked at before anything is imported or downloaded: the paths in the flags, and what the run of `--name` was begun with."""

from __future__ import annotations

import os
from pathlib import Path

from tf_lottery.base.errors import LotteryError
from tf_lottery.bin.flags import known_of

FILES = ("keras", "data", "ticket", "calibration")
REMEMBER = ("branch", "verify", "export", "report")  # what is said of a run that exists


def check_paths(argv: list[str]) -> None:
    """Refuses words that are no text, and files and folders that are not there.

    Raises:
      LotteryError: Names the first of them.
    """
    for word in argv:
        if any("\ud800" <= letter <= "\udfff" for letter in word):  # what Python makes of bytes that are no UTF-8
            raise LotteryError(f"Expected flags in UTF-8, but received {word!r:.80}.")
    given = known_of(argv, ("data_dir", *FILES))
    if (folder := given["data_dir"]) is not None and not Path(folder).is_dir():
        raise LotteryError(
            f"Expected --data_dir of prepared data sets, but there is no folder {folder!r}: nothing is made or fetched there."
        )
    for name in FILES:
        path = given[name]
        if path and name != "data" and not path.endswith(".h5") and not Path(path).exists():
            raise LotteryError(f"Expected a file for --{name}, but there is none at {path!r}.")
        if path and name == "data" and path.endswith(".npz") and not Path(path).is_file():
            raise LotteryError(f"Expected an .npz file for --data, but there is none at {path!r}.")


def remembered(command: str, argv: list[str]) -> list[str]:
    """The command line with the data folder and the plugins of the run that it names, where it gives none of its own."""
    if command not in REMEMBER:
        return argv
    given = known_of(argv, ("name", "results_dir", "data_dir", "plugin"))
    if not given["name"]:
        return argv
    from tf_lottery.runs.results import Run

    run = Run.at(given["results_dir"] or "results", given["name"])
    begun = run.begun_with()
    more = []
    if given["plugin"] is None and begun.get("plugins"):
        more.append("--plugin=" + ",".join(_from(run.folder, plugin) for plugin in begun["plugins"]))
    if given["data_dir"] is None and begun.get("data_dir") and command != "report":
        more.append(f"--data_dir={_from(run.folder, begun['data_dir'])}")
    return [*argv, *more]


def _from(folder: Path, path: str) -> str:
    """A path that was written down as seen from a run's folder; a module goes by its name."""
    return os.path.normpath(folder / path) if os.sep in path else path
