"""What a claim is, the list of all of them, and the verdict on one. No TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tf_lottery.base.errors import LotteryError
from tf_lottery.base.registry import Registry
from tf_lottery.claims.evidence import Evidence, percent
from tf_lottery.claims.plan import Plan

MARGIN = 0.5  # points by which a mean may miss a published figure, or a range over seeds, and still meet it
GROUPS = {
    "tickets": "Winning tickets",
    "one_shot": "Iterative or one-shot",
    "criteria": "What to keep: the criteria",
    "signs": "What survivors start from: the signs",
    "zeros": "What pruned weights hold: the zeros",
    "by_rule": "Supermasks by rule",
    "learned": "Supermasks by learning",
}


@dataclass(frozen=True)
class Measured:
    """What a claim measured.

    Attributes:
      values: One for each replicate, in the claim's unit.
      holds: Whether the rule is met.
      detail: The numbers that decide, in one sentence.
    """

    values: Sequence[float] | Any  # or an array
    holds: bool
    detail: str

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))


@dataclass(frozen=True)
class Claim:
    """A claim and how it is checked.

    Attributes:
      name: For `--claim`.
      check: `(evidence) -> Measured`.
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
        return _filled(self.check.__doc__ or "", plan)

    def in_words(self, plan: Plan) -> str:
        """The rule with the plan's numbers."""
        return _filled(self.rule, plan)

    def measured(self, plan: Plan) -> str:
        """What the measured figure is, with the plan's numbers."""
        return _filled(self.measures, plan)


@dataclass(frozen=True)
class Result:
    """A claim, its verdict and what was measured; `why` says what is missing if nothing was."""

    claim: Claim
    verdict: str  # holds, does not hold, not enough runs, not run
    replicates: int
    measured: Measured | None = None
    why: str = ""

    def figure(self) -> str:
        """Mean, smallest and largest value over replicates, with the unit."""
        if self.measured is None:
            return "–"
        digits = 2 if self.claim.unit != "times" or max(map(abs, self.measured.values)) < 100 else 0
        sign = "+" if self.claim.unit == "points" else ""
        mean, low, high = (
            f"{value:{sign}.{digits}f}"
            for value in (self.measured.mean, min(self.measured.values), max(self.measured.values))
        )
        unit = self.claim.unit
        return f"{mean} {unit}" if self.replicates == 1 else f"{mean} {unit} ({low} to {high})"

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
    source: str,
    published: str,
    rule: str,
    measures: str,
    unit: str = "points",
    seeds: tuple[float, float] | None = None,
    scales: Sequence[str] = ("quick", "full"),
    note: str = "",
) -> Callable[[Callable], Callable]:
    """Registers a function `(evidence) -> Measured` as a claim, under its name; the arguments are those of `Claim`."""

    def decorate(check: Callable[[Evidence], Measured]) -> Callable:
        made = Claim(
            check.__name__,
            check,
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


def chosen(plan: Plan, names: str | None) -> list[Claim]:
    """The claims of a list of names as in `reinit_is_worse,reinit_is_slower`, or all of the plan's scale.

    Raises:
      LotteryError: If a name is unknown, or the claim cannot be checked at this scale.
    """
    known = {made.name: made for made in of_scale(plan)}
    wanted = [name.strip() for name in names.split(",")] if names else list(known)
    for name in wanted:
        registry.get(name)
        if name not in known:
            raise LotteryError(
                f"Expected claims that --scale={plan.scale} can check ({', '.join(known)}), but received {name!r}: its runs are "
                f"those of --scale={' or '.join(registry[name].scales)}."
            )
    return [known[name] for name in wanted]


def measure(claim: Claim, folder: Path, plan: Plan, unavailable: Mapping[str, str] | None = None) -> Result:
    """Checks a claim against the result files in `folder`.

    Args:
      claim, folder, plan: Which, where and what was run there.
      unavailable: Data sets that could not be had, and why.
    """
    measured = {name: plan[name].measured(folder) for name in claim.runs}
    common = set.intersection(*measured.values())
    enough = min(plan.enough, *(plan[name].replicates for name in claim.runs))
    if len(common) >= enough:
        found = claim.check(Evidence(folder, plan, common, claim.seeds))
        return Result(claim, "holds" if found.holds else "does not hold", len(common), found)
    unfinished = [name for name in claim.runs if len(measured[name]) < enough] or list(claim.runs)
    for name in unfinished:
        if reason := (unavailable or {}).get(plan[name].trunk.settings.dataset):
            return Result(claim, "not run", len(common), why=f"Not run: {reason}")
    why = (
        f"It takes {enough} replicate{'s' * (enough > 1)} of {', '.join(unfinished)}, and there are not that many yet."
    )
    return Result(claim, "not enough runs", len(common), why=why)


def _filled(text: str, plan: Plan) -> str:
    densities = {name: percent(getattr(plan, name)) for name in ("best", "fastest", "small", "smallest", "cheap")}
    return text.format(**densities, tolerance=f"{plan.tolerance:g}", gain=f"{plan.gain:g}")
