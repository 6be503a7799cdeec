"""Tickets of the command line, from the file alone: looked into, put on models, compared, packed."""

import dataclasses
import subprocess
import sys

import keras
import numpy as np
import pytest

from tf_lottery import Ticket, TicketError
from tf_lottery.base.container import digest
from tf_lottery.bin import main
from tf_lottery.masking import state, wrapping
from tf_lottery.problems import data, models
from tf_lottery.runs import problem
from tf_lottery.search import find
from tf_lottery.tickets import recipes
from tf_lottery.tickets.account import describe
from tf_lottery.tickets.values import Recipe

SHORT = ["--levels=2", "--replicates=1", "--steps=60", "--eval_every=30", "--test_every=60", "--quiet"]


def call(*argv):
    return main.dispatch(["ticket", *map(str, argv)])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    place = [f"--results_dir={folder}", "--name=short"]
    assert main.dispatch(["find", *place, *SHORT]) == 0
    assert main.dispatch(["branch", *place, "--random_mask", "--levels=2", "--quiet"]) == 0
    assert main.dispatch(["branch", *place, "--survivors=reinit", "--levels=2", "--quiet"]) == 0
    return folder / "short"


@pytest.fixture
def level_2(run):
    return run / "replicate_0" / "level_02" / "level.ticket"


def accuracy(model):
    x, y = data.load("mnist1d").test
    return np.mean(np.argmax(model.predict(x, verbose=0), axis=1) == y)


def test_tickets_of_the_command_line_are_enough_to_build_their_model(run):
    for file in (*run.glob("replicate_0/level_02/level.ticket"), *run.glob("branches/*/replicate_0/*/level.ticket")):
        ticket = Ticket.load(file)
        told = {"model": "residual_mlp", "dataset": "mnist1d", "input_shape": [40], "classes": 10}
        assert told.items() <= ticket.found.items()
        model = problem.model_of(ticket)
        ticket.apply(model, "final")
        assert accuracy(model) == pytest.approx(ticket.metrics["final_test_accuracy"], abs=1e-6)


def test_what_can_be_drawn_is_not_in_the_file(run):
    """Rewound weights and biases are recipes, of the dense network too; what was drawn anew is not, but its biases are."""
    start = state.get_values(models.get("residual_mlp")((40,), 10, 0))
    files = [run / "replicate_0" / f"level_0{k}" / "level.ticket" for k in (0, 1, 2)]
    for file in [*files, run / "branches" / "random_mask" / "replicate_0" / "level_02" / "level.ticket"]:
        ticket = Ticket.load(file)
        assert all(isinstance(value, Recipe) for value in ticket.initial.values())
        drawn = ticket.in_paths_of(models.get("residual_mlp")((40,), 10, 1))
        for path, value in drawn.initial.items():
            assert np.array_equal(value, start[path] * drawn.masks.get(path, 1))
    reinit = Ticket.load(run / "branches" / "reinit" / "replicate_0" / "level_02" / "level.ticket")
    assert {path.rpartition("/")[2]: isinstance(value, Recipe) for path, value in reinit.initial.items()} == {
        "kernel": False,
        "bias": True,
    }


def test_rewinding_to_a_step_keeps_values(blobs, dense_net):
    x, y = blobs

    def train(model, callbacks):
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model.fit(x, y, epochs=1, verbose=0, callbacks=callbacks)

    for rewind_to, known in ((0, True), (3, False)):
        tickets = list(find.find_ticket(dense_net(), train, levels=2, prune_fraction=0.5, rewind_to=rewind_to))
        assert all(isinstance(value, np.ndarray) for ticket in tickets for value in ticket.initial.values())
        assert [ticket.recipe("net/hidden/kernel") is not None for ticket in tickets] == [known] * 3
    loaded = dense_net()
    loaded.layers[0].kernel.assign(loaded.layers[0].kernel * 2)
    first = next(find.find_ticket(loaded, train, levels=1))
    assert [first.recipe(path) is None for path in first.initial] == [True, False, False, False]


def test_a_recipe_of_other_values_is_named(level_2):
    ticket = Ticket.load(level_2)
    path = next(iter(ticket.masks))
    wrong = dataclasses.replace(ticket.initial[path], digest=digest(np.zeros(3)))
    with pytest.raises(TicketError, match=f"values of '{path}'.*its recipe draws others"):
        dataclasses.replace(ticket, initial={**ticket.initial, path: wrong}).apply(problem.model_of(ticket))
    model = problem.model_of(ticket)  # the trained weights are there all the same
    dataclasses.replace(ticket, initial={**ticket.initial, path: wrong}).apply(model, "final")
    assert accuracy(model) == pytest.approx(ticket.metrics["final_test_accuracy"], abs=1e-6)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model": None}, "names its model.*lenet_300_100.*received neither"),
        ({"model": "no_such_model"}, "no_such_model"),
        ({"model": "conv2"}, "data that fit conv2, but the ticket has inputs of shape (40,)"),
        ({"input_shape": None}, "tells None and 10"),
        ({"input_shape": [40.0]}, "tells"),
        ({"input_shape": [2**40]}, "tells"),
        ({"classes": -1}, "tells"),
    ],
)
def test_what_no_model_can_be_built_from(change, message, level_2):
    ticket = Ticket.load(level_2)
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
        problem.model_of(dataclasses.replace(ticket, found={**ticket.found, **change}))


def test_info(run, level_2, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert call("info", level_2, run / "replicate_0" / "level_00" / "level.ticket") == 0
    shown = capsys.readouterr().out
    account = describe(level_2)
    assert "level 2, 64 % of 275,000 weights" in shown and f"{account.bytes:,} bytes" in shown
    assert f"{account.factor:.1f} times smaller than the dense float32 model" in shown
    for word in ("dense_1/kernel", "40x500", "recipe", "criterion large_final", "dataset mnist1d", "early_stop_step"):
        assert word in shown
    assert max(map(len, shown[shown.index("┏") : shown.index("┘")].splitlines())) <= 80


def test_info_steers_no_terminal(tmp_path, capsys):
    values = {"model/[red]a\x1b[2J": np.ones((2, 2), np.float32)}
    Ticket(
        {next(iter(values)): np.ones((2, 2), np.uint8)}, values, found={"\x1b]0;x": "[bold]y"}, metrics={"z": "\n\x07"}
    ).save(tmp_path / "a.ticket")
    assert call("info", tmp_path / "a.ticket") == 0 and call("diff", *[tmp_path / "a.ticket"] * 2) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "\x07" not in shown and "[bold]y" in shown and "[red]a" in shown


def test_apply_writes_a_plain_model(level_2, tmp_path, capsys):
    ticket, out = Ticket.load(level_2), tmp_path / "net.keras"
    assert call("apply", level_2, f"--output={out}", "--evaluate") == 0
    shown = capsys.readouterr().out
    assert f"{100 * ticket.metrics['final_test_accuracy']:.2f} % of 1,000 examples" in shown
    code = (
        "import sys, keras, numpy as np; model = keras.models.load_model(sys.argv[1]);"
        "print([float(np.mean(np.array(layer.kernel) != 0)) for layer in model.layers if hasattr(layer, 'kernel')],"
        "'tf_lottery' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True, check=True)
    assert done.stdout == "[0.64, 0.64, 0.64] False\n"
    before = out.read_bytes()
    assert call("apply", level_2, f"--output={out}") == 1 and "exists" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert call("apply", level_2, f"--output={out}", "--overwrite", "--weights=initial") == 0
    first = keras.models.load_model(out)
    again = tmp_path / "again.keras"
    assert call("apply", level_2, f"--output={again}", f"--model={out}") == 0
    final = keras.models.load_model(again)
    start = state.get_values(models.get("residual_mlp")((40,), 10, 0))
    assert np.array_equal(first.get_layer("dense_1").kernel, start["dense_1/kernel"] * ticket.masks["dense_1/kernel"])
    assert accuracy(final) == pytest.approx(ticket.metrics["final_test_accuracy"], abs=1e-6)


def test_pack(level_2, tmp_path, capsys):
    out = tmp_path / "small.ticket"
    assert call("pack", level_2, out, "--final=float16") == 0
    assert "times smaller than the dense model" in capsys.readouterr().out
    small, whole = describe(out), describe(level_2)
    assert small.bytes < 0.6 * whole.bytes and {part.final for part in small.parts} == {"float16"}
    assert {part.initial for part in small.parts} == {"recipe"}
    ticket = Ticket.load(out)
    model = problem.model_of(ticket)
    ticket.apply(model, "final")
    assert accuracy(model) == pytest.approx(whole.contents.metrics["final_test_accuracy"], abs=0.005)
    assert call("pack", level_2, out) == 1 and "exists" in capsys.readouterr().err
    assert call("pack", level_2, out, "--final=none", "--overwrite") == 0
    assert describe(out).contents.final is None and describe(out).bytes < small.bytes / 5
    assert call("pack", level_2, tmp_path / "same.ticket") == 0
    assert (tmp_path / "same.ticket").read_bytes() == level_2.read_bytes()


def test_diff(run, level_2, capsys):
    random = run / "branches" / "random_mask" / "replicate_0" / "level_02" / "level.ticket"
    assert call("diff", level_2, random) == 0
    rows = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    table = {row[0].strip(): [float(cell) for cell in row[1:]] for row in rows}
    assert list(table) == ["dense_1/kernel", "dense_2/kernel", "output/kernel", "all"]
    for a, b, shared, chance, jaccard in table.values():
        assert a == b == chance == 64 and abs(shared - 64) < 3 and abs(jaccard - 0.64 / 1.36) < 0.05
    assert call("diff", level_2, level_2) == 0
    assert capsys.readouterr().out.count("100.00") == 4
    assert call("diff", level_2, run / "replicate_0" / "level_00" / "level.ticket") == 0


@pytest.mark.parametrize(
    "argv, message",
    [
        ([], "an action (info, apply, diff, pack) and files, but received none"),
        (["show", "a"], "received show"),
        (["info"], "info with one or more files, but received 0"),
        (["diff", "a"], "diff with 2 files, but received 1"),
        (["apply", "TICKET"], "--output, a .keras file to write, or --evaluate"),
        (["apply", "TICKET", "--output=net.h5"], "to end in .keras"),
        (["apply", "TICKET", "--output=net.keras", "--model=none.keras"], "none.keras"),
        (["apply", "TICKET", "--output=net.keras", "--model=none"], "none"),
        (["apply", "TICKET", "--output=net.keras", "--model=lenet_300_100"], "Expected a model"),
        (["apply", "TICKET", "--output=net.keras", "--weights=last"], "weights='initial' or 'final'"),
        (["apply", "TICKET", "--evaluate", "--dataset=none"], "none"),
        (["pack", "TICKET", "out.ticket", "--final=int8"], "--final to be one of exact, float32, float16, none"),
        (["info", "TICKET", "--max_weights=1000"], "max_weights=1,000 weights"),
        (["info", "missing.ticket"], "No such file"),
        (["info", "--no_such_flag"], "no_such_flag"),
    ],
)
def test_what_the_command_refuses(argv, message, level_2, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call(*[level_2 if word == "TICKET" else word for word in argv]) == 1
    error = capsys.readouterr().err
    assert message in error and error.startswith("tf-lottery: ") and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_info_diff_and_pack_load_no_tensorflow(level_2, tmp_path):
    code = (
        "import sys; from tf_lottery.bin import main; file, out = sys.argv[1:];"
        "print([main.dispatch(['ticket', *words]) for words in (['info', file], ['diff', file, file], ['pack', file, out])],"
        "{'tensorflow', 'keras'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, str(level_2), str(tmp_path / "out.ticket")]
    assert subprocess.run(command, capture_output=True, text=True).stdout.endswith("[0, 0, 0] set()\n")


def test_a_supermask_is_its_mask_and_its_seed(tmp_path):
    place = [f"--results_dir={tmp_path}", "--name=mask", "--by=edge_popup", "--replicates=1", "--steps=5", "--quiet"]
    assert main.dispatch(["supermask", *place]) == 0
    file = tmp_path / "mask" / "replicate_0" / "level_00" / "level.ticket"
    account = describe(file)
    masks = sum(part.mask_bytes for part in account.parts)
    assert {part.initial for part in account.parts} == {"recipe"} and account.bytes < masks + 2_000
    ticket = Ticket.load(file)
    plain = wrapping.strip(ticket.apply(problem.model_of(ticket)))
    assert accuracy(plain) == pytest.approx(ticket.metrics["mask_accuracy"], abs=1e-6)
    assert all(digest(recipes.regenerate(r, p)) == r.digest for p, r in account.contents.initial.items())
