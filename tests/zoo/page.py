"""Takes the zoo through its trials and writes docs/models.md.

usage: python tests/zoo/page.py [NAME ...]

Each model has a process of its own; what is found is kept in docs/results/zoo/models.json, so that an interrupted run goes on. Names take
these models again; `--all` takes all of them again, `--page` only writes the page.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATHS = [str(Path(__file__).parent), str(ROOT / "tests")]
RESULTS, PAGE = ROOT / "docs/results/zoo/models.json", ROOT / "docs/models.md"
ONE = "import json, sys; sys.path[:0] = sys.argv[1].split(':'); import specimens, trials; "
ONE += "print(json.dumps(trials.run(specimens.SPECIMENS[sys.argv[2]])))"
COLUMNS = {
    "wrap": "outputs and training as in Keras",
    "prune": "`prune`",
    "fit": "`fit`",
    "find": "a level of `find_ticket`",
    "save": "saved, loaded in a fresh process",
    "ticket": "ticket on a new model",
    "strip": "`strip`",
    "saved_model": "SavedModel",
    "tflite": "TFLite",
    "compact": "`compact`",
}
HEAD = """# Models that were tried

Models that nobody here wrote, built small and with random weights, each through the same trials. The table is what a run of them found:

```sh
python -m pip install -e '.[zoo]'
python tests/zoo/page.py          # writes this page; python -m pytest -m zoo is the same as tests
```

- **Outputs and training as in Keras**: the wrapped model has the plain model's outputs, and three steps of training have its losses.
- **`prune`**, **`fit`**: half of each kernel stays, by count; pruned weights are exactly zero after training.
- **A level of `find_ticket`**: a fifth of what is left goes, survivors are rewound.
- **Saved**: a `.keras` file gives the same outputs and masks in a fresh process. **Ticket**: a ticket file put on a model built anew gives
  the trained outputs. **`strip`**: the plain model has the same outputs.
- **SavedModel** and **TFLite** give the outputs of Keras; **`compact`**: what is left computes the same.

*yes*: holds. *refused*: one sentence says why, and nothing is left half done. *no*: it fails, or is wrong; the notes say how.
"""


def main(argv: list[str]) -> None:
    sys.path[:0] = PATHS
    import specimens

    names = [name for name in argv if not name.startswith("--")]
    there = [each.name for each in specimens.SPECIMENS.values() if find_spec(specimens.PACKAGES[each.source])]
    left = [name for name in there if "--all" in argv or name not in results()]
    for name in () if "--page" in argv else names or left:
        row = {"source": specimens.SPECIMENS[name].source, **one(name)}
        print(name, {k: v for k, v in row.items() if v != "holds"}, flush=True)
        found = {**results(), name: row}  # read again: several may work at once
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        ordered = {name: found[name] for name in specimens.SPECIMENS if name in found}
        RESULTS.write_text(json.dumps(ordered, indent=1) + "\n")
    PAGE.write_text("\n".join(page(results())) + "\n")


def results() -> dict[str, dict[str, str]]:
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}


def one(name: str) -> dict[str, str]:
    """The trials of one model, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", ONE, ":".join(PATHS), name],
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        return {"wrap": f"fails: exit status {done.returncode}: {last[:300]}"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def page(found: dict[str, dict[str, str]]):
    """The lines of the page, from what was found alone."""
    yield HEAD
    count = sum(all(row.get(name) == "holds" for name in COLUMNS) for row in found.values())
    yield f"Of {len(found)} models {count} hold in every trial."
    notes: list[str] = []
    for source in dict.fromkeys(row["source"] for row in found.values()):
        yield from (
            "",
            f"## {source}",
            "",
            f"| model | {' | '.join(COLUMNS.values())} |",
            "|---" * (len(COLUMNS) + 1) + "|",
        )
        for name, row in found.items():
            if row["source"] == source:
                yield f"| {name} | {' | '.join(cell(row.get(trial, 'not tried'), notes) for trial in COLUMNS)} |"
    yield from ("", "## Notes", "")
    yield from (f"{number}. {note}" for number, note in enumerate(notes, 1))
    yield ""
    yield f"Tried with {', '.join(f'{name} {number}' for name, number in versions().items())}."


def cell(result: str, notes: list[str]) -> str:
    kind, _, why = result.partition(": ")
    if kind == "holds":
        return "yes"
    if not why:
        return "-"
    why = re.sub(r"\x1b\[\d*m", "", why).replace("|", "\\|").replace("<", "&lt;")
    why = re.sub(r"'\w+' is subclassed \(\w+\)", "it is subclassed", why)  # one note for all of them
    if why not in notes:
        notes.append(why)
    return f"{'refused' if kind == 'refused' else '**no**'} ({notes.index(why) + 1})"


def versions() -> dict[str, str]:
    found = {}
    for name in ("keras", "tensorflow", "keras-hub", "kimm"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
