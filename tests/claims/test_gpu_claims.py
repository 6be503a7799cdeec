"""The script that runs the convolutional claims in pieces: its order, that it stops in time, goes on, and travels in archives."""

import dataclasses
import importlib.util
import signal
import time
from pathlib import Path

import forked
import pytest

from tf_lottery.base.errors import LotteryError
from tf_lottery.claims import plan as plan_lib
from tf_lottery.runs.results import Run
from tf_lottery.training import loop

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_claims.py"
spec = importlib.util.spec_from_file_location("gpu_claims", SCRIPT)
gpu_claims = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gpu_claims)

ONE = "--only=resnet18_rewind_0,resnet18_rewind_0/instability"


def one_replicate(plan):
    """The first search and its instability, of one replicate."""
    searches = {}
    for own in plan.needed(["resnet18_rewind_0/instability"]):
        changed = dataclasses.replace(own, settings=dataclasses.replace(own.settings, replicates=1))
        searches[own.name] = dataclasses.replace(changed, of=own.of and searches[own.of.name])
    return dataclasses.replace(plan, experiments=tuple(searches.values()))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """All of it in one piece, in this process."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "xla_pays", lambda model: False)
        clock = gpu_claims.work(one_replicate(gpu_claims.tiny(plan_lib.plan("conv"))), folder / "claims_conv", 60)
    return folder, clock


def results(folder):
    return [row | {"seconds": 0} for row in Run(folder / "claims_conv" / "resnet18_rewind_0").summary()]


def test_the_most_valuable_comes_first():
    plan = plan_lib.plan("conv")
    order = gpu_claims.order(plan)
    assert order[:5] == [("resnet18_rewind_0", 0), ("resnet18_rewind_500", 0), ("conv2", 0), ("conv2", 1), ("conv2", 2)]
    assert set(order) == {(own.name, r) for own in plan.experiments for r in range(own.replicates)} and len(
        order
    ) == len(set(order))
    for name, replicate in order:  # what belongs to a search comes after it
        of = plan[name].of
        assert of is None or order.index((of.name, replicate)) < order.index((name, replicate))
    first = [plan[name].missing(Path("nowhere"), 0) for name in gpu_claims.FIRST]
    assert sum(map(len, first)) == 10 and plan["resnet18_rewind_0"].settings.prune_fraction["Conv2D"] == 0.36


def test_it_trains_what_is_missing_and_says_how_long_it_took(whole):
    folder, clock = whole
    plan = one_replicate(gpu_claims.tiny(plan_lib.plan("conv")))
    assert not list(gpu_claims.missing(plan, folder / "claims_conv")) and clock.levels == 5 + 2
    assert 0 < clock.training <= clock.wall and clock.per_step.keys() == {"residual_mlp"}
    assert (folder / "claims_conv" / "resnet18_rewind_0" / "instability.csv").read_text().count("\n") == 1 + 2


def test_it_stops_in_time_and_goes_on(whole, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loop, "xla_pays", lambda model: False)
    plan, folder, now = one_replicate(gpu_claims.tiny(plan_lib.plan("conv"))), tmp_path / "claims_conv", [0.0]
    monkeypatch.setattr(gpu_claims.time, "monotonic", lambda: now[0])
    done = gpu_claims.Clock.done

    def two_minutes_each(clock, row):
        now[0] += 120
        done(clock, row)

    monkeypatch.setattr(gpu_claims.Clock, "done", two_minutes_each)
    gpu_claims.work(plan, folder, 5)  # the third level would end after 6 minutes
    assert "Stopped in time: resnet18_rewind_0, replicate 0, level 2 would take about 144 s" in capsys.readouterr().out
    assert Run(folder / "resnet18_rewind_0").finished() == [(0, 0), (0, 1)]
    began = gpu_claims.Clock.begin

    def too_late(clock, *args, **kwargs):
        callbacks = began(clock, *args, **kwargs)
        now[0] += 1_000
        return callbacks

    with monkeypatch.context() as patch:  # what is under way when the time is over is stopped too
        patch.setattr(gpu_claims.Clock, "begin", too_late)
        gpu_claims.work(plan, folder, 5)
    assert "level 2 goes on from its checkpoint" in capsys.readouterr().out
    assert Run(folder / "resnet18_rewind_0").finished() == [(0, 0), (0, 1)]
    gpu_claims.work(plan, folder, 60)
    assert "Nothing is missing any more." in capsys.readouterr().out
    assert results(tmp_path) == results(whole[0])


def test_killed_it_goes_on_and_the_results_are_the_same(whole, tmp_path, monkeypatch):
    """In XLA's arithmetic the numbers may differ; which levels there are does not."""
    process = forked.Popen([SCRIPT, "--tiny", ONE, f"--results_dir={tmp_path}"])
    run = Run(tmp_path / "claims_conv" / "resnet18_rewind_0")
    try:
        until = time.monotonic() + 240
        while (0, 1) not in run.finished() and time.monotonic() < until:
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = {at: run.ticket(*at) for at in run.finished(0)}
    assert (0, 1) in before
    monkeypatch.setattr(loop, "xla_pays", lambda model: False)
    monkeypatch.setattr(gpu_claims, "order", lambda plan: [("resnet18_rewind_0", 0)])
    gpu_claims.work(gpu_claims.tiny(plan_lib.plan("conv")), tmp_path / "claims_conv", 60)
    assert len(run.finished(0)) == 5 and all(run.ticket(*at).metrics == old.metrics for at, old in before.items())
    assert [row["density"] for row in results(tmp_path)][:5] == [row["density"] for row in results(whole[0])]


def test_results_travel_in_small_archives(whole, tmp_path):
    count = gpu_claims.pack(whole[0], tmp_path / "parts", megabytes=0.5)
    parts = sorted((tmp_path / "parts").iterdir())
    assert count == len(parts) > 2 and all(part.stat().st_size <= 500_000 for part in parts)
    gpu_claims.unpack(tmp_path / "parts", tmp_path / "there")
    for path in whole[0].rglob("*"):
        if path.is_file() and path.name != ".lock":
            assert (tmp_path / "there" / path.relative_to(whole[0])).read_bytes() == path.read_bytes()
    parts[-1].unlink()
    with pytest.raises(LotteryError, match="Expected all archives that `pack` wrote, but they end too early"):
        gpu_claims.unpack(tmp_path / "parts", tmp_path / "cut")
    parts[0].unlink()
    with pytest.raises(LotteryError, match="Expected all archives that `pack` wrote, from archive.tar.000 on"):
        gpu_claims.unpack(tmp_path / "parts", tmp_path / "cut")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--minutes=0"], "Expected --minutes above 0"),
        (["--only=conv3"], "but received 'conv3'"),
        (["pack", "nowhere", "parts"], "Expected a folder to pack, but there is none at nowhere"),
    ],
    ids=str,
)
def test_bad_input_is_one_sentence(argv, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LotteryError, match=message) as error:
        gpu_claims.main(argv)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())
