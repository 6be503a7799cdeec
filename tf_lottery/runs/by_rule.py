"""Supermasks by rule: the untrained networks of a finished run, measured under the masks of criteria."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tf_lottery.base.errors import LotteryError
from tf_lottery.masking import wrapping
from tf_lottery.problems import data
from tf_lottery.rules import criteria
from tf_lottery.runs import problem
from tf_lottery.runs.results import Run
from tf_lottery.runs.settings import Settings, SupermaskSettings
from tf_lottery.runs.sound import Sound
from tf_lottery.search import supermask


def evaluate(
    run: Run, settings: SupermaskSettings, *, data_dir: str | None = None, replicate: int | None = None
) -> Iterator[dict[str, Any]]:
    """Measures the untrained networks of a run under masks by rule; see `supermask.evaluate`.

    Args:
      run: A run of `run_find` whose dense level is finished.
      settings: `criterion`, `densities`, `signed_constant` and `seed` count.
      data_dir, replicate: As for `run_find`.

    Yields:
      Rows: replicate, criterion, signed_constant, density, test_accuracy. All together are in the run's folder at the end.

    Raises:
      LotteryError: If the run has no dense level, or a criterion or density is not possible.
    """
    base = Settings.of(run)
    Sound.of(run, replicate, branches=False).check_finished(base.replicates, [0], replicate)
    if settings.signed_constant not in (None, "none", "std"):
        raise LotteryError(
            f"Expected signed_constant to be none or std with by='rule', but received {settings.signed_constant!r}."
        )
    dataset = data.load(base.dataset, data_dir)
    chosen = _criteria(settings.criterion)
    densities = settings.densities or _densities_of_rounds(base)
    rows = []
    for r in range(base.replicates) if replicate is None else [replicate]:
        model, trainer = problem.of_replicate(base, dataset, r)
        for row in supermask.evaluate(
            wrapping.wrap(model, base.prunable, exclude=base.exclude),
            run.ticket(r, 0),
            trainer.test_accuracy,
            criterion=chosen,
            densities=densities,
            probe=trainer.probe,
            signed_constant=settings.signed_constant == "std",
            seed=settings.seed + r,
        ):
            rows.append({"replicate": r, **row._asdict(), "test_accuracy": row.accuracy})
            yield rows[-1]
    run.write_rule(rows)


def _criteria(text: str) -> list[str]:
    """The criteria of `--criterion` for masks by rule: all that look at weights alone, or a list of names."""
    if text == "all":
        return criteria.of_weights()
    names = [name.strip() for name in text.split(",")]
    for name in names:
        criteria.get(name)  # known, before anything is measured
    return names


def _densities_of_rounds(base: Settings, rounds: int = 24) -> list:
    """What 1, 2, ... rounds of the run's own pruning leave of each kernel."""
    rates = base.prune_fraction
    if not isinstance(rates, Mapping):
        return [(1 - rates) ** k for k in range(rounds + 1)]
    return [{kind: (1 - rate) ** k for kind, rate in rates.items()} for k in range(rounds + 1)]
