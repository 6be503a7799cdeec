"""What a claim is, the list of all of them, and the verdict on one. No TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tf_lottery.base.errors import LotteryError
from tf_lottery.base.registry import Registry
from tf_lottery.claims.certainty import Certainty
from tf_lottery.claims.evidence import Evidence, percent
from tf_lottery.claims.planned import Plan

MARGIN = 0.5  # points by which a mean may miss a published figure, or a range over seeds, and still meet it
GROUPS = {
    "tickets": "Winning tickets",
    "one_shot": "Iterative or one-shot",
    "criteria": "What to keep: the criteria",
    "signs": "What survivors start from: the signs",
    "zeros": "What pruned weights hold: the zeros",
    "by_rule": "Supermasks by rule",
    "learned": "Supermasks by learning",
    "conv": "Conv-2, Conv-4 and Conv-6",
    "dropout": "Dropout",
    "conv_masks": "Learned supermasks of convolutional networks",
    "resnet18": "ResNet-18: late rewinding, warm-up, stability",
    "resnet8": "A small ResNet: late rewinding and stability",
    "stability": "Stability of networks on MNIST and MNIST-1D",
}
VERDICTS = ("holds", "does not hold", "not yet known", "not run")


@dataclass(frozen=True)
class Measured:
    """What a claim measured.

    Attributes:
      values: One for each replicate, in the claim's unit.
      holds: Whether the rule is met.
      detail: The numbers that decide, in one sentence.
      margins: By how much each replicate meets the rule, for the paired test; by default the values.
    """

    values: Sequence[float] | Any  # or an array
    holds: bool
    detail: str
    margins: Sequence[float] | Any = None

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def certainty(self) -> Certainty:
        own = self.values if self.margins is None else self.margins
        return Certainty([*map(float, self.values)], [*map(float, own)])


@dataclass(frozen=True)
class Claim:
    """A claim and how it is checked.

    Attributes:
      name: For `--claim`.
      check: `(evidence) -> Measured`.
      says: The claim in one sentence.
      group: The section of the page, a key of GROUPS.
      runs: The experiments of the plan that it looks at.
      source: Where it was made.
      published: The published figure, in words.
      rule: When it holds, in one sentence.
      measures: What the measured figure is, in words.
      unit: %, points or times.
      seeds: The published figure's range over seeds, or the figure twice; None if it is not a figure to be met.
      scales: Where it can be checked.
      note: What to know where it does not hold: what was tried, and what is thought to be the cause.
    """

    name: str
    check: Callable[[Evidence], Measured]
    says: str
    group: str
    runs: tuple[str, ...]
    source: str
    published: str
    rule: str
    measures: str
    unit: str
    seeds: tuple[float, float] | Any
    scales: tuple[str, ...]
    note: str = ""

    def sentence(self, plan: Plan) -> str:
        return _filled(self.says, plan)

    def in_words(self, plan: Plan) -> str:
        """The rule with the plan's numbers."""
        return _filled(self.rule, plan)

    def measured(self, plan: Plan) -> str:
        """What the measured figure is, with the plan's numbers."""
        return _filled(self.measures, plan)


@dataclass(frozen=True)
class Result:
    """A claim, its verdict and what was measured; `why` says what is missing if there is no verdict yet."""

    claim: Claim
    verdict: str  # one of VERDICTS
    replicates: int
    measured: Measured | None = None
    why: str = ""

    def figure(self) -> str:
        """Mean, smallest and largest value over replicates, with the unit."""
        if self.measured is None:
            return "–"
        numbers = self.measured.mean, min(self.measured.values), max(self.measured.values)
        mean, low, high = map(self._in_digits, numbers)
        unit = self.claim.unit
        return f"{mean} {unit}" if self.replicates == 1 else f"{mean} {unit} ({low} to {high})"

    def sure(self) -> str:
        """The 95 % interval of the mean, and the p of the paired test that the rule is met, or how far it is from that."""
        if self.measured is None:
            return "–"
        certainty = self.measured.certainty
        if certainty.interval is None or certainty.p is None:
            return "not known"
        low, high = map(self._in_digits, certainty.interval)
        p = "p < 0.001" if certainty.p < 0.001 else f"p = {certainty.p:.2g}"
        return f"{low} to {high}; {p}"

    def in_words(self) -> str:
        """One sentence: how sure the figure is."""
        if self.measured is None:
            return ""
        certainty = self.measured.certainty
        if certainty.interval is None:
            return "How sure: nothing is known of the spread, of one run."
        said = f"How sure: {self.sure()} (95 % interval and paired t test, {self.replicates} replicates)"
        return (
            f"{said}."
            if certainty.decided
            else f"{said}: not told apart from the edge of the rule; more replicates would tell."
        )

    def _in_digits(self, value: float) -> str:
        assert self.measured is not None
        digits = 2 if self.claim.unit != "times" or max(map(abs, self.measured.values)) < 100 else 0
        return f"{value:{'+' if self.claim.unit == 'points' else ''}.{digits}f}"

    def numbers(self, plan: Plan) -> str:
        """The numbers that decide, and how the mean lies to the published figure."""
        return f"{self.measured.detail} {self.meets(plan)}".strip() if self.measured else ""

    def meets(self, plan: Plan) -> str:
        """One sentence: how the mean lies to the published figure; empty where there is none to be met."""
        if self.measured is None or self.claim.seeds is None or not plan.published:
            return ""
        low, high = self.claim.seeds
        name = f"{low:g} %" if low == high else f"range over seeds, {low:g} to {high:g} %"
        outside = max(low - self.measured.mean, self.measured.mean - high, 0.0)
        side = "below" if self.measured.mean < low else "above"
        if not outside:
            return f"The mean lies within the published {name}."
        met = "within half a point of" if outside <= MARGIN else f"{outside:.1f} points {side}"
        return f"The mean is {met} the published {name}."


registry: Any = Registry("claim")  # its entries are claims, not functions


def claim(
    *,
    group: str,
    runs: Sequence[str],
    name: str | None = None,
    sentence: str | None = None,
    source: str,
    published: str,
    rule: str,
    measures: str,
    unit: str = "points",
    seeds: tuple[float, float] | None = None,
    scales: Sequence[str] = ("quick", "full"),
    note: str = "",
) -> Callable[[Callable], Callable]:
    """Registers a function `(evidence) -> Measured` as a claim, under its name and in the words of its docstring, unless others are given.

    The arguments are those of `Claim`.
    """

    def decorate(check: Callable[[Evidence], Measured]) -> Callable:
        made = Claim(
            name or check.__name__,
            check,
            sentence or check.__doc__ or "",
            group,
            tuple(runs),
            source,
            published,
            rule,
            measures,
            unit,
            seeds,
            tuple(scales),
            note,
        )
        registry.register(made, made.name)
        return check

    return decorate


def of_scale(plan: Plan) -> list[Claim]:
    """The claims that can be checked at the plan's scale, section by section."""
    order = list(GROUPS)
    return sorted((c for c in registry.values() if plan.scale in c.scales), key=lambda c: order.index(c.group))


def chosen(plans: Sequence[Plan], names: str | None) -> dict[str, list[Claim]]:
    """By scale, the claims of a list of names as in `reinit_is_worse,reinit_is_slower`, or all of the plans' scales.

    Raises:
      LotteryError: If two scales share a claim, a name is unknown, or the claim cannot be checked at these scales.
    """
    known = {plan.scale: {made.name: made for made in of_scale(plan)} for plan in plans}
    everything = [name for own in known.values() for name in own]
    scales = ",".join(plan.scale for plan in plans)
    if len(set(everything)) < len(everything):
        raise LotteryError(f"Expected scales that have no claims in common, for one page, but received {scales}.")
    wanted = [name.strip() for name in names.split(",")] if names else everything
    for name in wanted:
        registry.get(name)
        if name not in everything:
            raise LotteryError(
                f"Expected claims that --scale={scales} can check ({', '.join(everything)}), but received {name!r}: its runs are "
                f"those of --scale={' or '.join(registry[name].scales)}."
            )
    return {scale: [own[name] for name in wanted if name in own] for scale, own in known.items()}


def measure(claim: Claim, folder: Path, plan: Plan, unavailable: Mapping[str, str] | None = None) -> Result:
    """Checks a claim against the result files in `folder`.

    Args:
      claim, folder, plan: Which, where and what was run there.
      unavailable: Data sets that could not be had, and why.
    """
    measured = {name: plan[name].measured(folder) for name in claim.runs}
    common = set.intersection(*measured.values())
    enough = min(plan.enough, *(plan[name].replicates for name in claim.runs))
    found = claim.check(Evidence(folder, plan, common, claim.seeds)) if common else None
    if found and len(common) >= enough:
        return Result(claim, "holds" if found.holds else "does not hold", len(common), found)
    unfinished = [name for name in claim.runs if len(measured[name]) < enough] or list(claim.runs)
    for name in unfinished:
        if reason := (unavailable or {}).get(plan[name].trunk.settings.dataset):
            return Result(claim, "not run", len(common), found, why=f"Not run: {reason}")
    command = f"`tf-lottery claims --scale={plan.scale} --claim={claim.name}`{f', or `{plan.hint}` on a GPU,' * bool(plan.hint)} runs it."
    if not common:
        return Result(claim, "not run", 0, why=f"Not run, or not to its end: {command}")
    runs = ", ".join(unfinished)
    why = f"A verdict takes {enough} replicates of {runs}, and there {'is one' if len(common) == 1 else f'are {len(common)}'}: {command}"
    return Result(claim, "not yet known", len(common), found, why)


def _filled(text: str, plan: Plan) -> str:
    own = {name: getattr(plan, name) for name in ("best", "fastest", "small", "smallest", "cheap")}
    densities = {name: percent(density) for name, density in own.items() if density is not None}
    return text.format(**densities, tolerance=f"{plan.tolerance:g}", gain="" if plan.gain is None else f"{plan.gain:g}")
