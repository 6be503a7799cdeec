"""The page of the claims: Markdown, a table as CSV, a figure for each section, and the tables behind them. No TensorFlow.

The page says what the result files say and nothing else: from the same files it is the same, byte for byte.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tf_lottery.base.files import whole_file
from tf_lottery.claims import figures
from tf_lottery.claims.claim import GROUPS, VERDICTS, Result
from tf_lottery.claims.experiments import Learned
from tf_lottery.claims.planned import Plan

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
    "conv": "Test accuracy at early stop against the weights that remain. Collapsed networks are below the frame.",
    "dropout": "Test accuracy at early stop with dropout and without.",
    "resnet18": "Left: test accuracy at early stop of tickets by the step that they rewind to. Right: the barrier between two trainings "
    "in different data order against that step; below the dotted line a network is called stable.",
    "resnet8": "Left: test accuracy at early stop of tickets by the step that they rewind to. Right: the barrier between two trainings "
    "in different data order against that step; below the dotted line a network is called stable.",
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
    "interval_low",
    "interval_high",
    "p",
    "verdict",
    "rule",
    "numbers",
)


@dataclass(frozen=True)
class Part:
    """A scale on the page: its plan, the folder of its runs, and all of its claims."""

    plan: Plan
    folder: Path
    results: Sequence[Result]


def write(parts: Sequence[Part], output: Path) -> Path:
    """Writes README.md, claims.csv, the figures and `runs/*.csv` into `output`.

    Args:
      parts: The scales, which have no claims in common.
      output: A folder; made if it is not there.

    Returns:
      The page.
    """
    drawn = [name for part in parts for name in figures.write(part.plan, part.folder, output)]
    tables = [name for part in parts for name in _copy_tables(part.plan, part.folder, output / "runs")]
    with whole_file(output / "claims.csv") as unfinished, unfinished.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(_row(result, part.plan) for part in parts for result in part.results)
    with whole_file(output / "README.md") as unfinished:
        unfinished.write_text("\n".join(_page(parts, drawn, tables)) + "\n")
    return output / "README.md"


def closing(results: Sequence[Result]) -> str:
    """One sentence: how many of the claims hold, and how many of those are sure."""
    count = {kind: sum(result.verdict == kind for result in results) for kind in VERDICTS}
    sure = sum(each.verdict == "holds" and each.measured.certainty.decided for each in results if each.measured)
    said = [
        f"{count['holds']} of {len(results)} claims hold{'s' * (len(results) == 1)}"
        + (f" ({sure} of them surely, by a paired test at 95 %)" if count["holds"] else ""),
        f"{count['does not hold']} {'does' if count['does not hold'] == 1 else 'do'} not",
        *([f"{count['not yet known']} not yet known"] if count["not yet known"] else []),
        *([f"{count['not run']} not run"] if count["not run"] else []),
    ]
    return ", ".join(said) + "."


def _page(parts: Sequence[Part], figures, tables) -> Iterator[str]:
    yield f"# The claims of the papers, checked: {', '.join(f'`{part.plan.scale}`' for part in parts)}"
    for part in parts:
        yield from ("", part.plan.about, "", "```sh", f"tf-lottery claims --scale={part.plan.scale}")
        if part.plan.hint:
            yield f"python {part.plan.hint}"
        yield from ("```", "", f"**{closing(part.results)}**")
    yield ""
    yield "| claim | source | published | measured: mean (smallest to largest) | replicates | how sure: 95 % interval; paired test | verdict |"
    yield "|---|---|---|---|--:|---|---|"
    for part in parts:
        for result in part.results:
            claim = result.claim
            cells = (
                f"[{claim.sentence(part.plan)}](#{claim.name})",
                claim.source,
                claim.published,
                result.figure(),
                "one run" if result.replicates == 1 else str(result.replicates),
                result.sure(),
                _verdict(result),
            )
            yield f"| {' | '.join(cells)} |"
    yield ""
    yield (
        "Trained networks are measured by their test accuracy at early stop, the step of the smallest validation loss; learned masks "
        "by the mean of sampled masks. *A beats B* means that A is higher in the mean over replicates, and in most of them. Two "
        f"accuracies count as the same within {'; '.join(_same(part, len(parts) > 1) for part in parts)}. *5 seeds of their code* is a public "
        "reproduction of Zhou et al. with the authors' code on LeNet and MNIST; figures that are *recalled* were not checked against "
        "the paper. In the figures a line is the mean over replicates, its band goes from the smallest to the largest."
    )
    yield ""
    yield (
        "A verdict says whether the rule of the claim is met. *How sure* is Student's 95 % interval of the mean of the measured figure, and p, the chance "
        "that replicates would be so far from the edge of the rule if they were spread around it: a t test of paired replicates, "
        "which begin with the same weights. Where a rule asks for several levels, it is that of the level whose figure is shown. With few replicates a rule may "
        "be met and the test not be sure. A claim with fewer replicates than its plan has is *not yet known*, whatever they say."
    )
    for group, title in GROUPS.items():
        own = [(result, part.plan) for part in parts for result in part.results if result.claim.group == group]
        if not own:
            continue
        yield from ("", f"## {title}", "")
        if group in figures:
            yield from (f"![{CAPTIONS[group]}]({group}.png)", "", f"*{CAPTIONS[group]}*", "")
        for result, plan in own:
            yield from _section(result, plan)
    yield from ("", "## The numbers behind", "")
    yield "[claims.csv](claims.csv)" + "".join(f" · [{name}](runs/{name})" for name in tables)
    for part in parts:
        yield from _unfinished(part.plan, part.folder)
    yield from _made_with(parts)


def _section(result: Result, plan: Plan) -> Iterator[str]:
    claim = result.claim
    yield f'<a id="{claim.name}"></a>**{claim.sentence(plan)}** Verdict: {_verdict(result)}.'
    yield ""
    yield f"- {claim.source}: {claim.published}."
    if result.measured:
        count = "one run" if result.replicates == 1 else f"{result.replicates} replicates"
        yield f"- Measured, {claim.measured(plan)}: {result.figure()}, {count}. {result.numbers(plan)}".rstrip()
        yield f"- {result.in_words()}"
    if result.why:
        yield f"- {result.why}"
    yield f"- {claim.in_words(plan)}"
    if claim.note and result.verdict == "does not hold":
        yield f"- {claim.note}"
    yield ""


def _verdict(result: Result) -> str:
    return f"**{result.verdict}**" if result.verdict == "does not hold" else result.verdict


def _row(result: Result, plan: Plan) -> dict:
    claim, measured = result.claim, result.measured
    certainty = measured.certainty if measured else None
    interval = (certainty and certainty.interval) or ("", "")
    low_high = (
        {
            "mean": f"{measured.mean:.6g}",
            "low": f"{min(measured.values):.6g}",
            "high": f"{max(measured.values):.6g}",
            **dict(zip(("interval_low", "interval_high"), (end and f"{end:.6g}" for end in interval))),
            "p": f"{certainty.p:.3g}" if certainty and certainty.p is not None else "",
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


def _same(part: Part, several: bool) -> str:
    where = f" (`{part.plan.scale}`)" if several else ""
    return f"{part.plan.tolerance:g} points{where}: {part.plan.because}"


def _unfinished(plan: Plan, folder: Path) -> Iterator[str]:
    """The runs of the plan that lack replicates."""
    done = [(experiment, len(experiment.measured(folder))) for experiment in plan.experiments]
    lacking = [f"{own.name} ({count} of {own.replicates})" for own, count in done if count < own.replicates]
    if lacking:
        yield ""
        yield f"Runs of `{plan.scale}` that lack replicates: {', '.join(lacking)}."


def _made_with(parts: Sequence[Part]) -> Iterator[str]:
    """The versions that the runs were made with, and how long they trained."""
    versions: dict[str, set[str]] = {}
    seconds = 0.0
    for part in parts:
        for experiment in part.plan.experiments:
            for package, version in ((experiment.run(part.folder).spec() or {}).get("versions") or {}).items():
                versions.setdefault(package, set()).add(version)
            seconds += sum(row.get("seconds") or 0 for row in experiment.rows(part.folder))
    if versions:
        with_these = ", ".join(f"{package} {' and '.join(sorted(those))}" for package, those in versions.items())
        yield ""
        yield f"Made with {with_these}; {seconds / 3600:.1f} hours of training in all."
