"""What `search="auto"` looks at: how far the validation loss falls in the first short level of the dense network.

    python benchmarks/first_level.py        # about three minutes on two cores; goes on where it was stopped

Writes docs/results/cost/first_level.csv, a row for each problem of `cost.py` that needs no GPU, budget and replicate; docs/cost.md has what
it says, and `tf_lottery/search/auto.py` the rule.
"""

from __future__ import annotations

import csv

import cost

import tf_lottery as tfl
from tf_lottery.search.auto import FALL, Seen, fall_of

FILE = cost.RESULTS / "first_level.csv"
COLUMNS = ["problem", "budget", "replicate", "steps", "fall", "chosen"]
BUDGETS = (1.5, 2.0)  # their first levels are an eighth and a quarter of a training


def main() -> None:
    done = {(row["problem"], row["budget"], row["replicate"]) for row in cost.rows(FILE)}
    for name, problem in cost.PROBLEMS.items():
        for budget in BUDGETS if isinstance(problem, cost.Problem) else ():
            for seed in range(problem.replicates):
                if (name, str(budget), str(seed)) in done:
                    continue
                model, trainer = problem.made(seed)
                steps = int((budget - 1) * problem.steps / 4)
                seen = Seen(trainer)
                seen(tfl.wrap(model), [], steps=steps)
                fall = fall_of(seen.losses)
                row = [name, budget, seed, steps, f"{fall:.4f}", "gradual" if fall >= FALL else "iterative"]
                with FILE.open("a", newline="") as out:
                    writer = csv.writer(out)
                    if not out.tell():
                        writer.writerow(COLUMNS)
                    writer.writerow(row)
                print(*row, flush=True)


if __name__ == "__main__":
    main()
