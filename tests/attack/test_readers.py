"""Tables and settings that were edited: whoever reads a run looks as closely as who makes it."""

import hashlib
import json
import re
import shutil

from besieged import FIND, FLAGS, PLUGIN
from commands import call, same, tickets

from tf_lottery.runs.results import Run
from tf_lottery.runs.sound import Sound


def place(run):
    return [f"--results_dir={run.folder.parent}", f"--name={run.name}"]


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_report_draws_what_is_so_and_says_the_rest(finished, copy, capsys):
    """Rows without tickets, an edited density, NaN, a swapped level, an edited branch, verdict and table by rule; nothing is renamed."""
    run = copy("run")
    table = run.folder / "summary.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines, lines[-1].replace("1,3,", "1,7,", 1)]) + "\n")
    edit(table, "0,1,0.8,", "0,1,0.01,")
    edit(run.branch("reinit").folder / "summary.csv", "0,1,0.8,", "0,1,nan,")
    shutil.copy(run.level_folder(1, 2) / "level.ticket", run.level_folder(1, 3) / "level.ticket")
    (run.folder / "verify" / "level_02").mkdir(parents=True)
    (run.folder / "verify" / "level_02" / "verdict.json").write_text('{"sha256": "0", "level": 2}')
    (run.folder / "supermask_by_rule.csv").write_text("")
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    assert call("report", *place(run), PLUGIN, f"--output={run.folder.parent / 'page'}") == 0
    err = capsys.readouterr().err
    for said in (
        "summary.csv is damaged.*level 1 of replicate 0.*What the tickets say is shown",
        "reinit/summary.csv is damaged.*level 1 of replicate 0",
        "replicate_1/level_03/level.ticket is not what its folder says: it is of level 2. It is left out",
        "supermask_by_rule.csv is not as it was written. It is left out",
    ):
        assert re.search(said, err), err
    written = (run.folder.parent / "page" / "table.md").read_text()
    assert "is not what its folder says" in written and "| 7 |" not in written and "nan" not in written
    assert re.search(r"\| 1 \|.* 80", written), written
    page = (run.folder.parent / "page" / "index.html").read_text()
    assert "verdict.json, but it is damaged" in page
    assert before == {path: path.read_bytes() for path in before}
    assert Sound.of(Run(finished / "run")).complaints() == []
    edit(table, "0,1,0.01,", "0,1,0.8,")  # what is left: the row without a ticket
    assert "has rows without a ticket, of level 7 of replicate 1" in "".join(Sound.of(run).complaints())
    for path in run.folder.rglob("level.ticket"):  # a copy of the tables alone
        path.unlink()
    edit(table, "0,2,0.64,", "0,2,nan,")
    edit(run.level_folder(0, 2) / "curve.csv", "10,", "inf,")
    copied = Sound.of(run)
    assert [row["level"] for row in copied.summary() if row["replicate"] == 0] == [0, 1, 3] and not copied.curve(0, 2)
    said = "\n".join(copied.complaints())
    assert f"Line 4 of {table} tells density=nan" in said and "level 2 of replicate 0 holds what are no numbers" in said


def test_find_names_what_it_removes_and_writes_tables_of_0_bytes_again(finished, copy, trained, capsys):
    run = copy("run")
    table = run.folder / "summary.csv"
    whole = table.read_bytes()
    for spoilt, said in (
        (whole + whole.splitlines()[-1].replace(b"1,3,", b"1,9,", 1) + b"\n", "rows without a ticket, of level 9"),
        (b"", "is damaged"),
    ):
        table.write_bytes(spoilt)
        for empty in ("notes.csv", "supermask_by_rule.csv"):
            (run.folder / empty).write_bytes(b"")
        assert call(*FIND, *place(run), *FLAGS["run"]) == 0
        err = capsys.readouterr().err
        assert said in err and "notes.csv is damaged" in err and "supermask_by_rule.csv is damaged" in err
        assert table.read_bytes() == whole and not (run.folder / "supermask_by_rule.csv").exists()
    assert not trained and (run.folder / "summary.csv.damaged").exists()


def test_masks_by_rule_are_as_they_were_measured(finished, copy, capsys):
    run = copy("shot")
    rule = ["supermask", "--by=rule", *place(run), PLUGIN, "--criterion=random", "--quiet"]
    path = run.folder / "supermask_by_rule.csv"
    assert call(*rule, "--densities=0.5,0.2") == 0
    whole, spec = path.read_bytes(), run.spec()
    assert call(*rule, "--densities=0.5,0.2") == 0 and path.read_bytes() == whole
    edit(path, "0.5", "0.6")
    assert call("report", *place(run), PLUGIN, f"--output={run.folder.parent / 'page'}") == 0
    assert "supermask_by_rule.csv is not as it was written" in capsys.readouterr().err
    for spoilt in (None, b""):
        if spoilt is not None:
            path.write_bytes(spoilt)
        assert call(*rule, "--densities=0.5,0.2") == 0
        assert "supermask_by_rule.csv is damaged" in capsys.readouterr().err and path.read_bytes() == whole
    assert run.settings() == spec["settings"] and run.spec()["tables"].keys() == {path.name}
    assert call(*FIND, *place(run), *FLAGS["shot"]) == 0 and "damaged" not in capsys.readouterr().err


def test_commands_refuse_levels_that_are_not_what_they_should_be(finished, copy, trained, capsys):
    run = copy("run")
    for replicate in (0, 1):
        one, other = (run.level_folder(replicate, level) / "level.ticket" for level in (1, 2))
        kept = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(kept)
    for command in (
        ["branch", "--survivors=constant", "--levels=2"],
        ["verify", "--level=2"],
        ["export", "--level=2", "--format=keras"],
    ):
        assert call(command[0], *place(run), PLUGIN, *command[1:]) == 1, command
        err = capsys.readouterr().err
        assert "level_02/level.ticket" in err and err.count("\n") == 1, (command, err)
    (run.level_folder(1, 0) / "curve.csv").unlink()
    assert call("supermask", "--by=rule", *place(run), PLUGIN) == 1
    assert "level_00/level.ticket has lost its curve.csv" in capsys.readouterr().err
    assert not trained and not list(run.folder.rglob("*.damaged"))


def test_a_branch_that_was_spoilt_is_no_control(finished, copy, trained, capsys):
    """`verify` takes from branches what is there: what is not what it should be is trained again."""
    run = copy("run")
    branch = run.branch("reinit")
    shutil.copy(branch.level_folder(0, 1) / "level.ticket", branch.level_folder(0, 2) / "level.ticket")
    assert call("verify", *place(run), PLUGIN, "--level=2", "--dry_run") == 0
    assert "9 trainings of 20 steps" in capsys.readouterr().out  # of 10, one of two replicates is there
    assert call("branch", *place(run), PLUGIN, "--survivors=reinit", "--levels=1,2", "--quiet") == 0
    assert "reinit/replicate_0/level_02/level.ticket is not what its folder says" in capsys.readouterr().err
    assert len(trained) == 1 and same(tickets(finished / "run"), tickets(run.folder))


def sealed(spec):
    spec = {key: value for key, value in spec.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
    return json.dumps({**spec, "sha256": digest})


ABSURD = [
    {"levels": 10**9},
    {"levels": "3"},
    {"replicates": -1},
    {"replicates": 2.5},
    {"steps": None, "seed": None},
    {"seed": 10**30},
    {"model": 7},
    {"learning_rate": float("nan")},
    {"learning_rate": "fast"},
    {"learning_rate": -1.0},
    {"lr_drops": 5},
    {"lr_drops": list(range(2_000))},
    {"prune_fraction": {"Dense": "0.2"}},
    {"augment": "yes"},
    {"criterion": ["random"]},
    {"density": [0.5, "x"]},
]


def test_settings_that_no_command_writes_are_refused_by_every_command(finished, copy, capsys):
    run = copy("run")
    path = run.folder / "spec.json"
    whole = json.loads(path.read_text())
    texts = [sealed({**whole, "settings": {**whole["settings"], **absurd}}) for absurd in ABSURD]
    texts += [sealed({**whole, key: 7}) for key in ("settings", "versions", "begun_with")]
    texts += [
        sealed({**whole, "begun_with": {"plugins": [7]}}),
        "",
        "[]",
        "null",
        "7",
        "[" * 100_000,
        "\0",
        '{"settings": {}}',
    ]
    commands = [
        [*FIND, *FLAGS["run"]],
        ["branch", "--survivors=constant"],
        ["verify", "--level=2"],
        ["export", "--level=2"],
        ["supermask", "--by=rule"],
        ["report"],
    ]
    for at, text in enumerate(texts):
        path.write_text(text)
        for command in commands if at < 3 else [commands[at % len(commands)]]:
            if text == '{"settings": {}}' and command[0] == "report":
                continue
            status = call(command[0], *place(run), *command[1:])
            err = capsys.readouterr().err
            assert status == 1 and err.count("\n") == 1 and ("spec.json" in err or "Expected" in err), (
                text[:80],
                command,
                err,
            )
    assert not list(run.folder.rglob("*.damaged"))
