"""The claims: each verdict on results made up for it, and the command from end to end with a small plan."""

import csv
import dataclasses
import json
import re

import numpy as np
import pytest
from miniature import CLAIMS, WORKED, miniature

from tf_lottery import claims
from tf_lottery.base.errors import DataError, LotteryError
from tf_lottery.bin import main
from tf_lottery.claims import claim as claim_lib
from tf_lottery.claims import evidence
from tf_lottery.claims import figures as figures_lib
from tf_lottery.claims import page as page_lib
from tf_lottery.claims import plan as plan_lib
from tf_lottery.claims.experiments import Branch, ByRule, Instability, Learned
from tf_lottery.claims.papers.convolutional import MASKS as MASKS_OF
from tf_lottery.claims.papers.criteria import CRITERIA_BAD
from tf_lottery.claims.papers.signs import TREATMENTS
from tf_lottery.rules import criteria, treatments
from tf_lottery.runs import experiment
from tf_lottery.runs import settings as settings_lib
from tf_lottery.runs.results import Run
from tf_lottery.runs.tables import RULE, SUMMARY, SUPERMASKS
from tf_lottery.runs.verified import INSTABILITY
from tf_lottery.training import loop

FULL = plan_lib.plan("full")
PLANS = {scale: plan_lib.plan(scale) for scale in plan_lib.PLANS}


def plan_of(name):
    """The plan that a claim is checked at in full."""
    return PLANS[claims.registry[name].scales[-1]]


NETS = ("conv2", "conv4", "conv6")

# Points by which a run is behind tickets at small sizes, in a world in which every claim holds.
BEHIND = {
    "protocol/reinit": 0.4,
    "protocol/random_mask": 0.8,
    "one_shot": 0.2,
    **dict.fromkeys(TREATMENTS, 0.8),
    **{f"{name}_same_sign": 0.1 for name in TREATMENTS},
    "freeze_init": 0.5,
    "variant_1": -0.1,
    "variant_2": -0.2,
    "variant_1_reshuffle": 0.2,
    "variant_1_reverse": 0.3,
    "magnitude_increase": 0.1,
    "movement": 0.3,
    "large_init_large_final": 0.2,
    **dict.fromkeys(CRITERIA_BAD, 0.7),
    **{f"{net}/reinit": 0.4 for net in NETS},
    **{f"{net}/random_mask": 0.4 for net in NETS},
    **{f"{net}_one_shot": 0.2 for net in NETS},
    **{f"{net}_dropout": -2.0 for net in NETS},
    "resnet18_rewind_0": 3.0,
    "resnet18_warmup_layer": 0.3,
    "resnet18_low": 0.5,
    "resnet8_rewind_0": 3.0,
}
STEPS = {"dense": 4_000, "protocol": 2_400, "protocol/reinit": 7_000}
MASKS = {
    "learned": 95.2,
    "learned_constant": 96.4,
    "learned_dwr": 97.8,
    "learned_dwr_constant": 98.0,
    "learned_dwr_constant_long": 98.1,
    "learned_long": 95.3,
    "edge_popup": 98.1,
    "edge_popup_unscaled": 96.0,
    "conv2_learned_dwr": 65.5,
    **{
        f"{net}_masks{kind}": figure
        for net, figures in MASKS_OF.items()
        for kind, figure in zip(("", "_dwr", "_dwr_constant"), figures)
    },
}
BARRIERS = {"dense": {0: 9.0, 500: 5.0}, "tickets": {0: 12.0}}  # points, by the step; elsewhere 0.5
BY_RULE = {("large_final", False): 40, ("large_final_same_sign", False): 79, ("large_final_same_sign", True): 86}

# What to change in that world for a claim not to hold.
BROKEN = {
    "tickets_match_dense": {"protocol": 0.7},
    "tickets_gain": {"protocol": 0.2},
    "tickets_learn_faster": {"steps": {"protocol": 4_500}},
    "reinit_is_worse": {"protocol/reinit": -0.1},
    "reinit_is_slower": {"steps": {"protocol/reinit": 2_000}},
    "random_masks_are_worse": {"protocol/random_mask": 0.3},
    "iterative_beats_one_shot": {"one_shot": 0.0},
    "two_trainings_are_enough": {"two_trainings": 0.6},
    "criteria_are_ranked": {"small_init": 0.25},
    "magnitude_increase_is_as_good": {"magnitude_increase": 0.3},
    "large_final_is_as_published": {"protocol": 0.8},
    "random_is_as_published": {"random": 2.0},
    "without_signs_treatments_fail": {"reshuffle": -0.1},
    "with_signs_treatments_work": {"constant_same_sign": 0.5},
    "freezing_at_init_hurts": {"freeze_init": -0.1},
    "variant_1_helps": {"variant_1": 0.1},
    "variant_2_helps_more": {"variant_2": -0.05},
    "which_weights_are_zero_matters": {"variant_1_reverse": -0.2},
    "same_sign_masks_work_untrained": {"rule": {("large_final", False): 80}},
    "signed_constants_lift_masks": {"rule": {("large_final_same_sign", True): 70}},
    "learned_masks_beat_rules": {"rule": {("large_final_same_sign", True): 96}},
    "rescaling_helps": {"masks": {"learned_dwr": 95}},
    "signed_constants_lift_learned_masks": {"masks": {"learned_dwr_constant": 97.5}},
    "learned_masks_reach_95": {"masks": {"learned_long": 94.7}},
    "rescaled_masks_reach_98": {"masks": {"learned_dwr": 97.2}},
    "longer_masks_reach_98": {"masks": {"learned_dwr_constant_long": 97.5}},
    "edge_popup_is_as_good": {"masks": {"edge_popup": 97.7}},
    "conv2_masks_reach_65": {"masks": {"conv2_learned_dwr": 64.4}},
    **{f"{net}_tickets_learn_faster": {"steps": {net: 4_500}} for net in NETS},
    **{f"{net}_tickets_gain": {net: 0.5} for net in NETS},
    **{f"{net}_reinit_is_worse": {f"{net}/reinit": -0.1} for net in NETS},
    **{f"{net}_reinit_rises_first": {f"{net}/reinit": 1.0} for net in NETS[:2]},
    **{f"{net}_random_masks_are_as_good": {f"{net}/random_mask": 1.0} for net in NETS},
    **{f"{net}_iterative_beats_one_shot": {f"{net}_one_shot": 0.0} for net in NETS},
    **{f"{net}_dropout_helps": {"dense": {f"{net}_dropout": -1.0}} for net in NETS},
    **{f"{net}_dropout_tickets_gain": {f"{net}_dropout": 1.0} for net in NETS},
    **{f"{net}_rescaling_helps": {"masks": {f"{net}_masks_dwr": 50}} for net in NETS},
    **{
        f"{net}_masks{kind}_reach_{figure:.0f}": {"masks": {f"{net}_masks{kind}": figure - 0.6}}
        for net, figures in MASKS_OF.items()
        for kind, figure in zip(("", "_dwr", "_dwr_constant"), figures)
    },
    "resnet18_warmup_tickets_match": {"resnet18_warmup": 1.0},
    "resnet18_low_rate_tickets": {"resnet18_low": 1.5},
    "resnet18_global_beats_layer": {"resnet18_warmup_layer": 0.0},
    **{f"{net}_rewinding_to_0_fails": {f"{net}_rewind_0": 0.0} for net in ("resnet18", "resnet8")},
    **{
        f"{net}_rewinding_to_{step}_{does}": {f"{net}_rewind_{step}": 4.0}
        for net, steps in (("resnet18", (500, 1_000)), ("resnet8", (100,)))
        for step in steps
        for does in ("holds", "helps")
    },
    **{name: {"barriers": 0.5 if "_unstable_" in name else 2.5} for name in claims.registry if "stable_at" in name},
}


def write(path, columns, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def world(folder, plan, names, replicates=3, *, steps=(), masks=(), rule=(), dense=(), barriers=None, **behind):
    """Tables of runs that were never run, as a finished plan would leave them; tickets are not needed to read them."""
    behind, steps = {**BEHIND, **behind}, {**STEPS, **dict(steps)}
    ahead = {
        **{f"{net}_dropout": 2.0 for net in NETS},
        "resnet18_warmup": -7.5,
        "resnet18_warmup_layer": -7.5,
        "resnet18_low": -8.5,
        **dict(dense),
    }
    for name in names:
        own = plan[name]
        seeds = range(min(replicates, own.replicates))
        if isinstance(own, Learned):
            accuracy = {**MASKS, **dict(masks)}[name] / 100
            sampled = None if name.startswith("edge_popup") else accuracy
            rows = [
                {"replicate": r, "density": 0.3, "mask_accuracy": accuracy, "sampled_accuracy": sampled} for r in seeds
            ]
            write(own.run(folder).folder / "supermask.csv", SUPERMASKS, rows)
        elif isinstance(own, ByRule):
            accuracy = {**BY_RULE, **dict(rule)}
            rows = [
                dict(
                    zip(
                        RULE, (r, criterion, signs, density, accuracy.get((criterion, signs), 10) / 100 - density / 100)
                    )
                )
                for r in seeds
                for criterion in criteria.of_weights()
                for signs in (False, True)
                for density in (0.4, 0.2)
            ]
            write(own.run(folder).folder / "supermask_by_rule.csv", RULE, rows)
        elif isinstance(own, Instability):
            step = own.settings.rewind_to
            small = name.startswith(("lenet", "residual"))
            found = {k: 0.5 if small else BARRIERS["tickets" if k else "dense"].get(step, 0.5) for k in own.levels()}
            found = dict.fromkeys(found, barriers) if barriers is not None else found
            rows = [
                dict(zip(INSTABILITY, (r, k, 0.5**k, step, (barrier + 0.1 * r) / 100, 0.1)))
                for r in seeds
                for k, barrier in found.items()
            ]
            write(own.run(folder).folder / "instability.csv", INSTABILITY, rows)
        else:
            levels = len((own.of or own).levels())
            rows = [
                made_up(name, r, k, behind, steps, levels, ahead.get(name, 0.0)) for r in seeds for k in own.levels()
            ]
            write(own.run(folder).folder / "summary.csv", SUMMARY, rows)


def made_up(name, replicate, level, behind, steps, levels, ahead):
    """Tickets have 98.4 % in the middle and 98.1 % at 5 % and below; the dense network has 98 %."""
    density = 0.8**level if levels > 8 else 0.64**level
    accuracy = 98.0 + ahead if not level else (98.4 if density > 0.05 else 98.1)
    accuracy += (ahead - behind.get(name, 0)) * (0 < density < 0.55) if name.startswith("resnet18") else 0.0
    accuracy -= behind.get(name, 0) * (0 < density < 0.55) * (not name.startswith("resnet18"))
    return {
        "replicate": replicate,
        "level": level,
        "density": density,
        "early_stop_step": steps["dense"] if not level else steps.get(name, 3_000) + 10 * replicate,
        "early_stop_test_accuracy": (accuracy + 0.05 * replicate) / 100,
        "final_test_accuracy": 0.98,
        "seconds": 1.0,
    }


def test_every_claim_is_broken_once():
    assert BROKEN.keys() == claims.registry.keys()


@pytest.mark.parametrize("name", claims.registry)
def test_a_claim_holds_and_does_not_hold_and_needs_runs(name, tmp_path):
    claim, plan = claims.registry[name], plan_of(name)
    world(tmp_path / "held", plan, claim.runs)
    held = claims.measure(claim, tmp_path / "held", plan)
    assert held.verdict == "holds", held
    assert len(held.measured.values) == held.replicates == 3
    low, high = held.measured.certainty.interval
    assert low <= held.measured.mean <= high and np.mean(held.measured.certainty.margins) >= 0
    assert held.why == "" and " to " in held.sure() and held.sure() in held.in_words()

    world(tmp_path / "broken", plan, claim.runs, **BROKEN[name])
    broken = claims.measure(claim, tmp_path / "broken", plan)
    assert broken.verdict == "does not hold", broken

    world(tmp_path / "few", plan, claim.runs, replicates=2)
    few = claims.measure(claim, tmp_path / "few", plan)
    assert (few.verdict, few.replicates, len(few.measured.values)) == ("not yet known", 2, 2)
    assert claim.runs[0] in few.why and f"--scale={plan.scale} --claim={name}` " in few.why.replace("`,", "` ")
    none = claims.measure(claim, tmp_path / "none", plan)
    assert (none.verdict, none.measured, none.figure()) == ("not run", None, "–") and f"--claim={name}" in none.why


def test_how_sure_a_claim_is_says_its_interval_and_its_paired_test(tmp_path):
    """Of 0.3, 0.4 and 0.5 points: t = 6.93 with two degrees of freedom, p = 0.02; against the gain that the claim asks for t = 1.73."""
    claim = claims.registry["tickets_gain"]
    world(tmp_path, FULL, claim.runs)
    table = FULL["protocol"].run(tmp_path).folder / "summary.csv"
    rows = list(csv.DictReader(table.open()))
    for row in rows:
        if int(row["level"]):
            row["early_stop_test_accuracy"] = 0.98 + (0.3 + 0.15 * int(row["replicate"])) / 100
    write(table, SUMMARY, rows)
    result = claims.measure(claim, tmp_path, FULL)
    assert result.verdict == "holds" and result.measured.values == pytest.approx([0.3, 0.4, 0.5])
    assert result.measured.certainty.interval == pytest.approx(
        (0.4 - 4.303 * 0.1 / 3**0.5, 0.4 + 4.303 * 0.1 / 3**0.5), abs=1e-4
    )
    assert result.sure() == "+0.15 to +0.65; p = 0.23" and "more replicates would tell" in result.in_words()
    assert not result.measured.certainty.decided
    assert page_lib.closing([result]) == "1 of 1 claims holds (0 of them surely, by a paired test at 95 %), 0 do not."
    world(tmp_path / "one", FULL, claim.runs, replicates=1)
    one = claims.measure(claim, tmp_path / "one", FULL)
    assert one.sure() == "not known" and "of one run" in one.in_words() and one.verdict == "not yet known"


@pytest.mark.parametrize("name", claims.registry)
def test_a_claim_is_one_sentence_with_a_source_and_a_rule(name):
    claim = claims.registry[name]
    for scale in claim.scales:
        plan = PLANS[scale]
        assert all(plan[run] for run in claim.runs)
        for text in (claim.sentence(plan), claim.in_words(plan)):
            assert text.endswith(".") and "{" not in text and "None" not in text
    assert (
        claim.in_words(plan_of(name)).startswith("Holds if")
        and claim.source
        and claim.published
        and claim.group in claim_lib.GROUPS
    )


@pytest.mark.parametrize("scale", plan_lib.PLANS)
def test_the_settings_of_a_plan_are_possible(scale):
    for own in plan_lib.plan(scale).experiments:
        settings_lib.check_numbers(own.trunk.settings)
        if isinstance(own, Branch):
            assert set(own.levels()) <= set(own.of.levels())
        settings = own.settings
        assert getattr(settings, "survivors", "rewind") in treatments.survivors_registry
        assert getattr(settings, "pruned", "zero") in treatments.pruned_registry
        assert getattr(settings, "criterion", "all") in [*criteria.registry, "all"]


def test_only_replicates_that_all_runs_have_are_compared(tmp_path):
    claim = claims.registry["reinit_is_worse"]
    world(tmp_path, FULL, claim.runs)
    reinit = FULL["protocol/reinit"].run(tmp_path).folder / "summary.csv"
    reinit.write_text("".join(line for line in reinit.read_text().splitlines(True) if not line.startswith("1,24,")))
    assert FULL["protocol/reinit"].measured(tmp_path) == {0, 2}
    enough = dataclasses.replace(FULL, enough=2)
    assert claims.measure(claim, tmp_path, enough).replicates == 2
    assert claims.measure(claim, tmp_path, FULL).verdict == "not yet known"


@pytest.mark.parametrize(
    ("ahead", "beats"),
    [([0.1, 0.1, -0.1], True), ([0, 0, 0], False), ([1, -0.1, -0.1], False), ([0.1, 0.1, -0.3], False), ([0.1], True)],
)
def test_one_beats_another_in_the_mean_and_in_most_replicates(ahead, beats):
    assert evidence.beats(np.array(ahead)) == beats


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        (80.0, "within the published range"),
        (82.2, "within half a point"),
        (83.0, "1.1 points above"),
        (70, "6.3 points below"),
    ],
)
def test_a_published_range_is_met_or_not(measured, said, tmp_path):
    claim = claims.registry["same_sign_masks_work_untrained"]
    world(tmp_path, FULL, claim.runs, rule={("large_final_same_sign", False): measured + 0.2})
    assert said in claims.measure(claim, tmp_path, FULL).meets(FULL)
    quick = plan_lib.plan("quick")
    world(tmp_path / "quick", quick, claim.runs, replicates=2)
    result = claims.measure(claim, tmp_path / "quick", quick)
    assert result.verdict == "holds" and result.meets(quick) == ""  # another network: nothing to meet


@pytest.mark.parametrize("scale", plan_lib.PLANS)
def test_the_page_of_a_finished_plan_is_whole(scale, tmp_path):
    plan = plan_lib.plan(scale)
    world(tmp_path / "runs", plan, [e.name for e in plan.experiments])
    results = [claims.measure(claim, tmp_path / "runs", plan) for claim in claims.of_scale(plan)]
    assert {result.verdict for result in results} <= {"holds", "does not hold"}
    page = page_lib.write([page_lib.Part(plan, tmp_path / "runs", results)], tmp_path / "page").read_text()
    assert all(claim.sentence(plan) in page and claim.in_words(plan) in page for claim in claims.of_scale(plan))
    assert all((tmp_path / "page" / link).is_file() for link in re.findall(r"\]\(([\w/]+\.(?:png|csv))\)", page))
    groups = {claim.group for claim in claims.of_scale(plan)} & figures_lib.FIGURES.keys()
    assert {f"{name}.png" for name in groups} == {path.name for path in (tmp_path / "page").glob("*.png")}
    with (tmp_path / "page" / "claims.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["claim"] for row in rows] == [claim.name for claim in claims.of_scale(plan)]
    assert all(float(row["low"]) <= float(row["mean"]) <= float(row["high"]) for row in rows)


# The command, with a plan whose runs take a moment


def in_a_moment(patch, plan=miniature):
    """The small plan in the place of `quick`; without XLA, whose compiling takes longer than ten steps."""
    patch.setitem(plan_lib.PLANS, "quick", plan)
    patch.setattr(loop, "xla_pays", lambda model: False)


def call(*argv):
    return main.dispatch(["claims", *argv])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished miniature, the replicates one after the other."""
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        in_a_moment(patch)
        for replicate in (0, 1):
            assert call(CLAIMS, f"--results_dir={folder}", f"--replicate={replicate}") == 0
    return folder


@pytest.fixture
def small(monkeypatch):
    in_a_moment(monkeypatch)


def files(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_the_command_runs_what_the_claims_need_and_nothing_else(finished):
    runs = finished / "claims_quick"
    assert {path.name for path in runs.iterdir()} == {"protocol", "dense", "learned", "page"}
    assert Run(runs / "protocol").branch("reinit").finished() == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert len(Run(runs / "dense").rule()) == 2 * 2 * 2 * len(criteria.of_weights())
    page = (runs / "page" / "README.md").read_text()
    measured = {claim.name for claim in claims.of_scale(miniature()) if {*claim.runs} <= WORKED}
    assert page.count("| not run |") == len(claims.of_scale(miniature())) - len(measured)
    assert measured > set(CLAIMS.partition("=")[2].split(","))  # what was not asked for is on the page if it can be


def test_a_second_start_trains_nothing_and_writes_the_same_page(finished, small, capsys):
    before = files(finished)
    assert call(CLAIMS, f"--results_dir={finished}") == 0
    out = capsys.readouterr().out
    assert "nothing was trained" in out and str(finished / "claims_quick" / "page" / "README.md") in out
    assert before.keys() == files(finished).keys()
    for path, (time, content) in files(finished).items():
        assert content == before[path][1] and ("page" in path.parts or time == before[path][0]), path


def test_what_is_interrupted_goes_on(finished, small, tmp_path, monkeypatch, capsys):
    """Stopped after two of three levels, started again: the same results as without."""
    command = ["--claim=tickets_gain", "--replicate=0", f"--results_dir={tmp_path}"]
    done = []

    def interrupted(run, *args, write=Run.write_level):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(write(run, *args))
        return done[-1]

    with monkeypatch.context() as patch:
        patch.setattr(Run, "write_level", interrupted)
        assert call(*command) == 130
    assert "not yet known" not in capsys.readouterr().out
    assert call(*command) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("1 of 1: protocol, replicate 0")]
    assert len(lines) == 1 and "at the last level" in lines[0]
    one, other = (Run(folder / "claims_quick" / "protocol").summary() for folder in (finished, tmp_path))
    assert [row | {"seconds": 0} for row in one[:3]] == [row | {"seconds": 0} for row in other]


def test_a_dry_run_says_what_is_missing_and_leaves_nothing(small, finished, tmp_path, capsys):
    assert call("--dry_run", f"--results_dir={tmp_path}", CLAIMS) == 0
    out = capsys.readouterr().out
    assert re.search(r"protocol +6 of 6 levels are missing", out) and "by_rule" in out and "one_shot" not in out
    assert not list(tmp_path.iterdir())
    assert call("--dry_run", f"--results_dir={finished}", CLAIMS) == 0
    assert re.search(r"protocol +finished", capsys.readouterr().out)


def test_without_training_the_page_is_that_of_what_there_is(small, tmp_path, capsys):
    assert call("--notrain", f"--results_dir={tmp_path}", f"--output={tmp_path / 'elsewhere'}") == 0
    assert "0 of 22 claims hold, 0 do not, 22 not run." in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "elsewhere").iterdir()} == {"README.md", "claims.csv"}
    assert not (tmp_path / "claims_quick").exists()


def test_without_mnist_the_rest_goes_on(tmp_path, monkeypatch, capsys):
    in_a_moment(monkeypatch, lambda: miniature(masks_on="mnist"))
    load, asked = experiment.data.load, []

    def no_mnist(name, data_dir=None):
        asked.append(name)
        if name == "mnist":
            raise DataError("Expected 'mnist' prepared in nowhere or a network to fetch it.")
        return load(name, data_dir)

    monkeypatch.setattr(experiment.data, "load", no_mnist)
    claim = "--claim=tickets_gain,learned_masks_beat_rules"
    assert call(claim, "--replicate=0", f"--results_dir={tmp_path}") == 0
    assert Run(tmp_path / "claims_quick" / "protocol").finished() == [(0, 0), (0, 1), (0, 2)]
    out = capsys.readouterr().out
    assert asked.count("mnist") == 1  # a data set that cannot be had is not asked for again
    assert "Not run: Expected 'mnist'" in out and "1 not run" in out
    page = (tmp_path / "claims_quick" / "page" / "README.md").read_text()
    assert "- Not run: Expected 'mnist' prepared in nowhere" in page


BAD = [
    (["--scale=tiny"], "Expected a scale (quick, full, conv, rewinding), but received 'tiny'"),
    (["--claim=reinit_is_bad"], "Did you mean 'reinit_is_worse'"),
    (["--claim=conv2_masks_reach_65"], "those of --scale=full"),
    (["--scale=quick,full"], "Expected scales that have no claims in common, for one page, but received quick,full"),
    (["--replicate=2"], "from 0 to 1, but received replicate=2"),
    (["--replicate=-1"], "from 0 to 1, but received replicate=-1"),
    (["--levels=2"], "levels"),
]


@pytest.mark.parametrize(("argv", "message"), BAD, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_bad_input_is_one_sentence_and_leaves_nothing(argv, message, small, tmp_path, capsys):
    assert call(*argv, f"--results_dir={tmp_path}") == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and "Traceback" not in error
    assert not list(tmp_path.iterdir())


def test_runs_with_other_settings_are_not_taken_for_the_plans(tmp_path):
    spec = tmp_path / "protocol" / "spec.json"
    spec.parent.mkdir()
    settings = dataclasses.asdict(FULL["protocol"].settings)
    spec.write_text(json.dumps({"settings": settings, "versions": {}}))
    FULL.check(tmp_path)
    spec.write_text(json.dumps({"settings": {**settings, "steps": 10}, "versions": {}}))
    with pytest.raises(LotteryError, match="protocol was made with steps=10 instead of 50000"):
        FULL.check(tmp_path)
