"""The page of the claims: Markdown, a table as CSV, a figure for each section, and the tables behind them. No TensorFlow.

The page says what the result files say and nothing else: from the same files it is the same, byte for byte.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from tf_lottery.base.files import whole_file
from tf_lottery.claims import figures
from tf_lottery.claims.claim import GROUPS, Result
from tf_lottery.claims.plan import Learned, Plan

CAPTIONS = {
    "tickets": "Test accuracy at early stop and the early-stop step against the weights that remain. Collapsed networks are below "
    "the frame.",
    "one_shot": "Test accuracy at early stop of tickets found round by round and of tickets pruned at once.",
    "criteria": "Test accuracy at early stop by criterion. The panels have scales of their own; collapsed networks are below the "
    "frame.",
    "signs": "Test accuracy at early stop when survivors do not start from their own initial values: with the signs of those, and "
    "without.",
    "zeros": "Test accuracy at early stop by what pruned weights hold.",
    "by_rule": "Test accuracy of networks that were never trained, under masks that a criterion finds in the trained dense network.",
    "learned": "Test accuracy of untrained weights while their mask is learned: that of the most likely mask as a line; the marker at "
    "its end is the mean of sampled masks, which the claims are about. Longer runs are dashed.",
}
COLUMNS = (
    "claim",
    "statement",
    "source",
    "published",
    "measures",
    "unit",
    "mean",
    "low",
    "high",
    "replicates",
    "verdict",
    "rule",
    "numbers",
)


def write(results: Sequence[Result], plan: Plan, folder: Path, output: Path) -> Path:
    """Writes README.md, claims.csv, the figures and `runs/*.csv` into `output`.

    Args:
      results: All claims of the plan's scale.
      plan, folder: What was run, and where it lies.
      output: A folder; made if it is not there.

    Returns:
      The page.
    """
    drawn = figures.write(plan, folder, output)
    tables = _copy_tables(plan, folder, output / "runs")
    with whole_file(output / "claims.csv") as unfinished, unfinished.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(_row(result, plan) for result in results)
    with whole_file(output / "README.md") as unfinished:
        unfinished.write_text("\n".join(_page(results, plan, folder, drawn, tables)) + "\n")
    return output / "README.md"


def closing(results: Sequence[Result]) -> str:
    """One sentence: how many of the claims hold."""
    kinds = ("holds", "does not hold", "not enough runs", "not run")
    count = {kind: sum(result.verdict == kind for result in results) for kind in kinds}
    said = [
        f"{count['holds']} of {len(results)} claims hold{'s' * (len(results) == 1)}",
        f"{count['does not hold']} {'does' if count['does not hold'] == 1 else 'do'} not",
        *([f"{count['not enough runs']} lack runs"] if count["not enough runs"] else []),
        *([f"{count['not run']} could not be run"] if count["not run"] else []),
    ]
    return ", ".join(said) + "."


def _page(results, plan: Plan, folder: Path, figures, tables) -> Iterator[str]:
    yield f"# The claims of the papers, checked: `{plan.scale}`"
    yield ""
    yield plan.about
    yield ""
    yield "```sh"
    yield f"tf-lottery claims --scale={plan.scale}"
    yield "```"
    yield ""
    yield f"**{closing(results)}**"
    yield ""
    yield "| claim | source | published | measured: mean (smallest to largest) | replicates | verdict |"
    yield "|---|---|---|---|--:|---|"
    for result in results:
        claim = result.claim
        cells = (
            f"[{claim.sentence(plan)}](#{claim.name})",
            claim.source,
            claim.published,
            result.figure(),
            "one run" if result.replicates == 1 else str(result.replicates),
            _verdict(result),
        )
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield (
        "Trained networks are measured by their test accuracy at early stop, the step of the smallest validation loss; learned masks "
        "by the mean of sampled masks. *A beats B* means that A is higher in the mean over replicates, and in most of them. Two "
        f"accuracies count as the same within {plan.tolerance:g} points: {plan.because}. *5 seeds of their code* is a public "
        "reproduction of Zhou et al. with the authors' code on LeNet and MNIST; figures that are *recalled* were not checked against "
        "the paper. In the figures a line is the mean over replicates, its band goes from the smallest to the largest."
    )
    for group, title in GROUPS.items():
        own = [result for result in results if result.claim.group == group]
        if not own:
            continue
        yield from ("", f"## {title}", "")
        if group in figures:
            yield from (f"![{CAPTIONS[group]}]({group}.png)", "", f"*{CAPTIONS[group]}*", "")
        for result in own:
            yield from _section(result, plan)
    yield from ("", "## The numbers behind", "")
    yield "[claims.csv](claims.csv)" + "".join(f" · [{name}](runs/{name})" for name in tables)
    yield from _unfinished(plan, folder)
    yield from _made_with(plan, folder)


def _section(result: Result, plan: Plan) -> Iterator[str]:
    claim = result.claim
    yield f'<a id="{claim.name}"></a>**{claim.sentence(plan)}** Verdict: {_verdict(result)}.'
    yield ""
    yield f"- {claim.source}: {claim.published}."
    if result.measured:
        count = "one run" if result.replicates == 1 else f"{result.replicates} replicates"
        yield f"- Measured, {claim.measured(plan)}: {result.figure()}, {count}. {result.numbers(plan)}".rstrip()
    else:
        yield f"- {result.why}"
    yield f"- {claim.in_words(plan)}"
    if claim.note and result.verdict == "does not hold":
        yield f"- {claim.note}"
    yield ""


def _verdict(result: Result) -> str:
    return f"**{result.verdict}**" if result.verdict == "does not hold" else result.verdict


def _row(result: Result, plan: Plan) -> dict:
    claim, measured = result.claim, result.measured
    low_high = (
        {
            "mean": f"{measured.mean:.6g}",
            "low": f"{min(measured.values):.6g}",
            "high": f"{max(measured.values):.6g}",
        }
        if measured
        else {}
    )
    return {
        "claim": claim.name,
        "statement": claim.sentence(plan),
        "source": claim.source,
        "published": claim.published,
        "measures": claim.measured(plan),
        "unit": claim.unit,
        **low_high,
        "replicates": result.replicates,
        "verdict": result.verdict,
        "rule": claim.in_words(plan),
        "numbers": result.numbers(plan),
    }


def _copy_tables(plan: Plan, folder: Path, output: Path) -> list[str]:
    names = []
    for experiment in plan.experiments:
        table = experiment.run(folder).folder / experiment.table
        if table.is_file():
            names.append(experiment.name.replace("/", "_") + ".csv")
            with whole_file(output / names[-1]) as unfinished:
                unfinished.write_bytes(table.read_bytes())
        if isinstance(experiment, Learned) and (curves := figures.curves(experiment, folder)):
            names.append(f"{experiment.name}_curves.csv")
            with whole_file(output / names[-1]) as unfinished, unfinished.open("w", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(("replicate", "step", "test_accuracy"))
                writer.writerows(
                    (r, int(step), f"{value:.6g}") for r, curve in curves.items() for step, value in curve.items()
                )
    return names


def _unfinished(plan: Plan, folder: Path) -> Iterator[str]:
    """The runs of the plan that lack replicates."""
    done = [(experiment, len(experiment.measured(folder))) for experiment in plan.experiments]
    lacking = [f"{own.name} ({count} of {own.replicates})" for own, count in done if count < own.replicates]
    if lacking:
        yield ""
        yield f"Runs that lack replicates: {', '.join(lacking)}."


def _made_with(plan: Plan, folder: Path) -> Iterator[str]:
    """The versions that the runs were made with, and how long they trained."""
    versions: dict[str, set[str]] = {}
    seconds = 0.0
    for experiment in plan.experiments:
        run = experiment.run(folder)
        for package, version in ((run.spec() or {}).get("versions") or {}).items():
            versions.setdefault(package, set()).add(version)
        seconds += sum(row.get("seconds") or 0 for row in experiment.rows(folder))
    if versions:
        with_these = ", ".join(f"{package} {' and '.join(sorted(those))}" for package, those in versions.items())
        yield ""
        yield f"Made with {with_these}; {seconds / 3600:.1f} hours of training in all."
