"""What the documents and examples show is what runs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_examples_run(path, tmp_path):
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d+\.\d % right", done.stdout)


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL), ids=lambda code: code[:30])
def test_python_of_the_readme_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})


def test_shell_commands_of_the_readme_exist():
    from tf_lottery.bin import main

    for command in re.findall(r"tf-lottery (\w+)", README):
        assert command in main.COMMANDS
    ci = (ROOT / ".ci" / "run").read_text()
    assert "README.md" in ci  # CI runs the README's own lines
    assert len(re.findall(r"^python -m pip install .*&&", README, re.MULTILINE)) == 2


def test_links_of_the_documents_lead_somewhere():
    for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#:\s]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_benchmark_figures_of_the_readme_are_the_measured_ones():
    results = json.loads((ROOT / "docs" / "results" / "benchmarks.json").read_text())["results"]
    measured = {f"{row['ratio']:.2f}" for rows in results.values() for row in rows}
    quoted = re.findall(r"\| \*\*([\d.]+)\*\* \|", README)
    assert quoted and set(quoted) <= measured
