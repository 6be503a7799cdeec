"""The notebook runs from top to bottom, and stands there as it ran."""

import json
import re
from pathlib import Path

import matplotlib

NOTEBOOK = Path(__file__).parents[1] / "examples" / "the_story.ipynb"
CODE = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
QUICK = {r"^STEPS = \d+": "STEPS = 10", r"^REPLICATES = range\(\d+\)": "REPLICATES = range(1)"}


def test_the_cells_run_in_order(monkeypatch, capsys):
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()) or plt.close("all"))
    first = "".join(CODE[0]["source"])
    for long, short in QUICK.items():
        first, found = re.subn(long, short, first, flags=re.MULTILINE)
        assert found == 1, long
    names = {"__name__": "notebook"}
    for number, source in enumerate([first, *("".join(cell["source"]) for cell in CODE[1:])], start=1):
        exec(compile(source, f"cell {number}", "exec"), names)
        printed, recorded = capsys.readouterr().out, _printed(CODE[number - 1])
        assert _words(printed) == _words(recorded), number
    assert len(shown) == sum("image/png" in output.get("data", {}) for cell in CODE for output in cell["outputs"])


def test_it_stands_as_it_ran():
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    assert all(cell["outputs"] for cell in CODE[1:])
    kinds = {(output["output_type"], output.get("name")) for cell in CODE for output in cell["outputs"]}
    assert kinds == {("stream", "stdout"), ("display_data", None)}  # no warnings, no errors
    assert NOTEBOOK.stat().st_size < 500_000
    text = re.sub(r'"image/png": "[^"]*"', "", NOTEBOOK.read_text())
    assert not re.search(r"(?<![\w.])/(?:home|root|tmp|usr|opt|work|mnt|var|Users)/|[A-Z]:\\\\", text)


def _printed(cell) -> str:
    return "".join("".join(output["text"]) for output in cell["outputs"] if output["output_type"] == "stream")


def _words(text: str) -> list[str]:
    """What was printed without its numbers, which a short training changes."""
    return re.sub(r"[\d.,]+", "", text).split()
