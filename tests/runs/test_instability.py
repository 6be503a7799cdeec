"""The instability of a run's levels: which trainings it takes, from where they begin, and that it goes on where it was stopped."""

import numpy as np
import pytest

import tf_lottery as tfl
from tf_lottery.base.errors import LotteryError
from tf_lottery.claims.experiments import Instability, Search
from tf_lottery.problems import data
from tf_lottery.runs import experiment, instability, problem, verified
from tf_lottery.runs.levels import Display
from tf_lottery.runs.results import Run
from tf_lottery.runs.settings import Settings
from tf_lottery.training import loop


class Quiet(Display):
    def __init__(self):
        self.began = []

    def begin(self, replicate, level, density, steps=None, search=0):
        self.began.append((replicate, level))
        return []


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search of one level that rewinds to step 5, and its instability, dense and pruned."""
    folder, display = tmp_path_factory.mktemp("runs"), Quiet()
    short = {"replicates": 1, "steps": 20, "eval_every": 10, "test_every": 20, "levels": 1, "prune_fraction": 0.5}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "xla_pays", lambda model: False)
        search = Search("late", Settings(rewind_to=5, **short).resolved())
        own = Instability("late/instability", search.settings, search, (0, 1))
        assert own.missing(folder) == [(0, 0), (0, 1)] and own.measured(folder) == set()
        search.work(experiment, folder, display)
        display.began.clear()
        own.work(experiment, folder, display)
    return folder, own, display


def test_a_dense_network_begins_again_where_tickets_rewind_to(searched):
    folder, own, display = searched
    run = own.run(folder)
    assert display.began == [(0, 0), (0, 0), (0, 1)]  # the dense network twice, the ticket once more
    dense, ticket = run.ticket(0, 0), run.ticket(0, 1)
    again, other, reordered = (
        run.branch(name).ticket(0, k) for name, k in (("same_order", 0), ("other_order", 0), ("other_order", 1))
    )
    for path, start in dense.initial.items():
        assert all(np.array_equal(start, each.initial[path]) for each in (again, other))
    path = next(iter(dense.masks))
    assert not np.array_equal(again.final[path], dense.final[path])  # 20 steps from step 5, not 15
    assert not np.array_equal(again.final[path], other.final[path])
    assert np.array_equal(ticket.masks[path], reordered.masks[path])
    rows = own.rows(folder)
    assert [(row["level"], row["rewind_to"]) for row in rows] == [(0, 5), (1, 5)] and own.measured(folder) == {0}
    model, trainer = problem.of_replicate(Settings.of(run), data.load("mnist1d"), 0)
    for row, ends in zip(rows, ((again, other), (ticket, reordered))):
        line = tfl.analysis.barrier(*ends, trainer, model=tfl.wrap(model))
        assert row["barrier"] == pytest.approx(line.barrier, rel=1e-5, abs=1e-6) and row["density"] == pytest.approx(
            ends[0].density
        )
        assert row["error"] == pytest.approx((line.errors[0] + line.errors[-1]) / 2, rel=1e-5)


def test_what_is_there_is_not_trained_again(searched):
    folder, own, display = searched
    run, before = own.run(folder), (own.run(folder).folder / "instability.csv").read_bytes()
    display.began.clear()
    own.work(experiment, folder, display)
    assert not display.began and (run.folder / "instability.csv").read_bytes() == before
    (run.folder / "instability.csv").unlink()  # stopped before the lines were measured
    instability.run_instability(run, [1], display, replicate=0)
    instability.run_instability(run, [0], display, replicate=0)
    assert not display.began and (run.folder / "instability.csv").read_bytes() == before


def test_a_level_that_is_not_there_is_one_sentence(searched, tmp_path):
    folder, own, display = searched
    with pytest.raises(LotteryError, match="Expected a run with level 3 of replicate 0, but .* has not finished that"):
        instability.run_instability(own.run(folder), [3], display)
    (tmp_path / "instability.csv").write_text("replicate,level\n0,x\n")
    with pytest.raises(LotteryError, match="Expected a table of numbers"):
        verified.read_instability(Run(tmp_path))
