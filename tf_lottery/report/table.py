"""The table of a report: tickets by level, or learned masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tf_lottery.base.table import Table
from tf_lottery.report.style import Series
from tf_lottery.runs.outcome import Statistic


def ticket_table(series: Series) -> Table:
    """A row for each level of the tickets and of the branches: mean, smallest and largest over replicates."""
    told = any(level.trainings for _, levels in series for level in levels)  # an older run does not say
    headings = [
        "",
        "level",
        "weights remaining (%)",
        "replicates",
        "early-stop step",
        "test accuracy at early stop (%)",
        "at the end (%)",
        *(["trainings"] if told else []),
    ]
    rows = [
        [
            name,
            f"{level.level}" if level.in_full else f"{level.level} (short)",
            f"{100 * level.density.mean:.3g}",
            str(level.replicates),
            _range(level.early_stop_step, "{:,.0f}"),
            _range(level.early_stop_test_accuracy, "{:.2f}", 100),
            _range(level.final_test_accuracy, "{:.2f}", 100),
            *([f"{level.trainings.mean:.4g}" if level.trainings else "-"] if told else []),
        ]
        for name, levels in series
        for level in levels
    ]
    note = "Mean, and in brackets the smallest and the largest replicate."
    if told:
        note += (
            " Trainings: the steps spent to have the ticket, its own training included, over the steps of one training."
        )
    if not all(level.in_full for _, levels in series for level in levels):
        note += " Short levels only lead to a ticket: they are trained for fewer steps."
    return Table(headings, rows, note)


def supermask_table(rows: Sequence[Mapping[str, float]]) -> Table:
    """A row for each learned mask."""
    headings = ["", "weights kept (%)", "test accuracy of the mask (%)", "of sampled masks (%)"]
    written = []
    for row in rows:
        sampled = "-"
        if row["sampled_accuracy"] is not None:
            ends = (row["sampled_accuracy"], row["sampled_accuracy_low"], row["sampled_accuracy_high"])
            sampled = _range(Statistic(*ends), "{:.2f}", 100)
        name, density, accuracy = f"replicate {row['replicate']:.0f}", 100 * row["density"], 100 * row["mask_accuracy"]
        written.append([name, f"{density:.3g}", f"{accuracy:.2f}", sampled])
    return Table(headings, written, "Of sampled masks the mean, and in brackets the least and the largest.")


def supermask_words(rows: Sequence[Mapping[str, float]]) -> str:
    """One sentence: what the learned masks reach."""
    accuracy = Statistic.of([100 * row["mask_accuracy"] for row in rows])
    density = Statistic.of([100 * row["density"] for row in rows])
    means = f"means of {len(rows)} replicates" if len(rows) > 1 else "one replicate"
    return (
        f"The supermask keeps {density.mean:.3g} % of the weights, and the untrained network reaches {accuracy.mean:.2f} % test "
        f"accuracy under it ({means})."
    )


def _range(value: Statistic, form: str, scale: float = 1) -> str:
    mean, low, high = (form.format(scale * number) for number in (value.mean, value.low, value.high))
    return f"{mean} ({low} to {high})"
