"""What the documents and examples show is what runs."""

import csv
import json
import re
import statistics
from pathlib import Path

import forked
import pytest

from tf_lottery.problems import data, models
from tf_lottery.rules import criteria, treatments
from tf_lottery.search import loggers

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
TFMOT = (ROOT / "docs" / "tfmot.md").read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_examples_run(path, tmp_path):
    done = forked.run([path], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d+\.\d % right", done.stdout)


BLOCKS = [
    pytest.param(code, page, id=f"{page.stem}-{at}")
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    for at, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


@pytest.mark.parametrize(("code", "page"), BLOCKS)
def test_python_of_the_pages_runs(code, page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for registry in (criteria, treatments.survivors_registry, treatments.pruned_registry, models, data, loggers):
        registry = getattr(registry, "registry", registry)
        monkeypatch.setattr(registry, "_functions", dict(registry._functions))  # what a page registers goes with it
    exec(compile(code, page.name, "exec"), {"__name__": "page"})


def test_a_function_of_ones_own_takes_few_lines():
    """The guide says how to add each kind in under 15 lines."""
    page = (ROOT / "docs" / "extend.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 6
    for code in blocks:
        lines = [line for line in code.splitlines() if line and not line.startswith(("import", "from"))]
        assert len(lines) < 15, code


def test_each_feature_of_tfmot_has_its_test():
    rows = [row for row in TFMOT.splitlines() if row.startswith("|") and "](../tests/" in row]
    assert len(rows) >= 25
    for name, file in re.findall(r"\[`(test_\w+)`\]\(\.\./(tests/[\w/]+\.py)\)", TFMOT):
        assert f"def {name}(" in (ROOT / file).read_text(), name


def test_three_roads_are_the_measured_ones():
    """The page's table is the committed one, and what is said of it follows from the committed numbers."""
    folder = ROOT / "docs" / "results" / "three_roads"
    assert (folder / "table.md").read_text() in TFMOT
    found: dict[str, dict[int, list[float]]] = {}
    for row in csv.DictReader((folder / "accuracy.csv").open()):
        levels = found.setdefault(row["road"], {})
        levels.setdefault(int(row["level"]), []).append(float(row["test_accuracy"]))
    assert len(found) == 3 and all(len(seeds) == 5 for levels in found.values() for seeds in levels.values())
    means = {road: {level: statistics.mean(seeds) for level, seeds in levels.items()} for road, levels in found.items()}
    overall = [statistics.mean(levels[level] for level in range(1, 11)) for levels in means.values()]
    assert max(overall) - min(overall) <= 0.4
    assert max(max(m[k] for m in means.values()) - min(m[k] for m in means.values()) for k in range(11)) <= 2.9
    scatter = statistics.mean(statistics.stdev(seeds) for levels in found.values() for seeds in levels.values())
    assert round(scatter, 1) == 1.7


def test_the_exports_of_the_phone_page_are_the_measured_ones():
    folder = ROOT / "docs" / "results" / "export"
    page = (ROOT / "docs" / "phone_measured.md").read_text()
    assert (folder / "overview.md").read_text() in page and (folder / "compaction.md").read_text() in page
    dense = json.loads((folder / "lenet_level_00.json").read_text())["networks"]["dense"]
    assert f"dense network has {100 * dense['accuracy']:.2f} %" in page
    from tf_lottery.export import VARIANTS

    page = (ROOT / "docs" / "phone.md").read_text()
    stated = re.findall(r"^\| ([\w, ]+) \| (0\.\d+) \|$", page, re.MULTILINE)
    assert {name: float(share) for names, share in stated for name in names.split(", ")} == {
        name: variant.tolerance for name, variant in VARIANTS.items()
    }


@pytest.mark.parametrize("measured", ["scale/scale.md", "gpu/gpu.md"])
def test_the_costs_of_the_scale_page_are_the_measured_ones(measured):
    table = (ROOT / "docs" / "results" / measured).read_text().rstrip()
    assert table.count("\n| ") >= 8 and table in (ROOT / "docs" / "scale.md").read_text()


def test_shell_commands_of_the_readme_exist():
    from tf_lottery.bin import main

    for command in re.findall(r"tf-lottery ([a-z]+)", README):
        assert command in main.COMMANDS
    ci = (ROOT / ".ci" / "run").read_text()
    assert "README.md" in ci  # CI runs the README's own lines
    assert len(re.findall(r"^python -m pip install .*&&", README, re.MULTILINE)) == 2


def test_links_of_the_documents_lead_somewhere():
    for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#:\s]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_accuracies_of_the_pages_are_those_of_the_result_files():
    """Every accuracy with two decimals that a page calls measured stands in the table drawn from its result files."""
    for folder in ("lenet_mnist", "conv2_cifar10"):
        page = (ROOT / "docs" / "results" / folder / "README.md").read_text()
        table = (ROOT / "docs" / "results" / folder / "table.md").read_text()
        measured = [row.split("|")[3] for row in page.splitlines() if row.startswith("|")] or [page]
        figures = re.findall(r"(?<![+.\d])\d\d\.\d\d(?= %|, | to )", " ".join(measured))
        assert figures and not [figure for figure in figures if figure not in table]
        verdict = table.partition("\n")[0]
        from tf_lottery.report import conclusion
        from tf_lottery.runs.results import Run

        assert verdict == conclusion(Run(ROOT / "docs" / "results" / folder))
    table = (ROOT / "docs" / "results" / "lenet_mnist" / "table.md").read_text()
    for row in re.findall(r"^\| [\d.]+ % \|.*$", README, re.MULTILINE):
        figures = re.findall(r"\d\d\.\d\d(?= %)", row)
        assert figures and all(figure in table for figure in figures)


def test_claims_of_the_readme_are_the_measured_ones():
    rows = list(csv.DictReader((ROOT / "docs" / "claims" / "claims.csv").open()))
    means = {f"{float(row['mean']):.2f}" for row in rows if row["mean"]}
    table = README.partition("| claim | published | measured |")[2].partition("\n\n")[0]
    figures = re.findall(r"(-?\d+\.\d\d) (?:%|points)", table)
    assert len(figures) == 10 and set(figures) <= means


def test_benchmark_figures_of_the_readme_are_the_measured_ones():
    results = json.loads((ROOT / "docs" / "results" / "benchmarks.json").read_text())["results"]
    measured = {f"{row['ratio']:.2f}" for rows in results.values() for row in rows}
    quoted = re.findall(r"\| \*\*([\d.]+)\*\* \|", README)
    assert quoted and set(quoted) <= measured


def test_what_the_verify_page_says_is_what_was_measured():
    """Tables and sentences are those of the committed results, and each follows from its rows as the code has it now."""
    from tf_lottery.runs import verified
    from tf_lottery.runs.results import Run

    page = (ROOT / "docs" / "verify.md").read_text()
    runs = [Run(path) for path in sorted((ROOT / "docs" / "results" / "verify").iterdir()) if path.is_dir()]
    found = [each for run in runs for each in verified.read_sound(run)[0]]
    assert len(found) >= 3
    for run in runs:
        for each in verified.read_sound(run)[0]:
            written = json.loads((verified.folder_of(run, each.level) / "verdict.json").read_text())
            written.pop("sha256", None)  # older ones have none
            assert written == json.loads(json.dumps(verified.as_json(each))) and each.sentence in page
            for row in each.table()[1]:
                assert " | ".join(row[:1] + row[2:5]).replace("|  |", "| |") in page
