"""Tickets that strangers made, by rule: whatever is in a file, reading and applying it ends in a ticket or in one sentence."""

import collections
import copy
import itertools
import json
import os
import struct
import time

import numpy as np
import pytest
import tensorflow as tf

import tf_lottery as tfl
from tf_lottery.base import container
from tf_lottery.base.errors import DataError, LotteryError, TicketError
from tf_lottery.problems import data
from tf_lottery.runs import problem
from tf_lottery.tickets.file import FORMAT, read_header

DTYPES = ["BOOL", "F4", "F6_E2M3", "F6_E3M2", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "I16", "U16", "F16", "BF16"]
DTYPES += ["I32", "U32", "F32", "C64", "F64", "I64", "U64", "X", "", "f32", None, 7, [], {}]
FOUND = {"model": "lenet_300_100", "input_shape": [4, 4, 1], "classes": 3, "dataset": "mnist1d"}
ODD = [
    None,
    True,
    -1,
    0,
    1,
    2**40,
    10**30,
    1.5,
    float("nan"),
    "",
    "4",
    "\0",
    [],
    [[]],
    [4, 5],
    [4, -4, 1],
    [2**20] * 3,
    {},
]
NAMES = [*tfl.models.registry, "Model", "lenet_300_100\n", "../lenet", "keras.applications:ResNet50", "os:system"]


@pytest.fixture(scope="module")
def ticket():
    """A true one, of a network that the command line builds."""
    model = tfl.models.get("lenet_300_100")((4, 4, 1), 3, seed=0)
    return tfl.Ticket(*_parts(tfl.prune(model, 0.3)), found=FOUND)


@pytest.fixture(scope="module")
def original(ticket, tmp_path_factory):
    path = tmp_path_factory.mktemp("attack") / "a.ticket"
    ticket.save(path)
    return path, *container.read(path, FORMAT, 10**7)


def _parts(masked):
    return tfl.get_masks(masked), {v.path: np.array(v.value) for v in masked.inner.variables}


def sealed(header, arrays, change=lambda table: table) -> bytes:
    """A file with a good checksum, whose table of arrays was changed after it was sealed."""
    import zlib

    packed = {"header": np.frombuffer(zlib.compress(json.dumps(header).encode()), np.uint8), **arrays}
    names, at, table = {"U8": np.uint8, "F32": np.float32}, 0, {}
    for name, array in packed.items():
        kind = next(kind for kind, dtype in names.items() if array.dtype == dtype)
        table[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    table["__metadata__"] = {FORMAT: container.checksum(FORMAT, packed)}
    text = json.dumps(change(table)).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(array.tobytes() for array in packed.values())


def outcome(path) -> str:
    """What reading a file ends in; anything else than a ticket or a `TicketError` is a failure."""
    found = []
    for read in (read_header, lambda path: tfl.Ticket.load(path, max_weights=100_000)):
        try:
            read(path)
            found.append("read")
        except TicketError as error:
            assert str(error).startswith("Expected") and "\n" not in str(error) and len(str(error)) < 1_000
            found.append("refused")
    return found[-1]


def retyped(name, dtype):
    def change(table):
        return {**table, name: {**table[name], "dtype": dtype}}

    return change


def test_types_that_numpy_has_not_are_refused_in_a_sentence(original):
    path, header, arrays = original
    target, outcomes = path.with_name("dtype.ticket"), collections.Counter()
    some = [
        "header",
        next(n for n in arrays if n.startswith("mask")),
        next(n for n in arrays if n.startswith("initial")),
    ]
    for name, dtype in itertools.product(some, DTYPES):
        target.write_bytes(sealed(header, arrays, retyped(name, dtype)))
        outcomes[outcome(target)] += 1
    assert outcomes["read"] == 3  # the three as they are
    empty = {"dtype": "F8_E4M3", "shape": [0], "data_offsets": [0, 0]}
    for dtype in DTYPES:  # one too many
        target.write_bytes(sealed(header, arrays, lambda table, d=dtype: {"x": {**empty, "dtype": d}, **table}))
        assert outcome(target) == "refused"


def test_a_network_is_compared_before_it_is_made(ticket, monkeypatch):
    """A header of some bytes may name any network of any size: no variable is made for what does not fit."""
    built, outcomes = [], collections.Counter()
    build = problem._built

    def watched(*arguments, **options):
        built.append(tf.executing_eagerly())
        return build(*arguments, **options)

    monkeypatch.setattr(problem, "_built", watched)
    found = [
        {**FOUND, "model": "conv6", "input_shape": [4_000, 4_000, 1], "classes": 1},
        {**FOUND, "model": "conv2", "input_shape": [1_000, 1_000, 3]},
        {**FOUND, "input_shape": [2_000, 2_000, 1]},
        *({**FOUND, "classes": 10**n} for n in (1, 3, 6, 9)),
        *({**FOUND, key: odd} for key in ("model", "input_shape", "classes") for odd in ODD),
        *({**FOUND, "model": name} for name in NAMES if name not in ("lenet_300_100", "resnet18", "vgg19")),
        {key: value for key, value in FOUND.items() if key != "input_shape"},
    ]
    for each in found:
        stranger = tfl.Ticket(ticket.masks, ticket.initial, found=each)
        with pytest.raises(LotteryError, match="^Expected"):
            problem.model_of(stranger)
        outcomes["refused"] += 1
    assert outcomes["refused"] == len(found) and not any(built)
    model = problem.model_of(ticket)
    assert built[-2:] == [False, True]  # traced, then made
    assert tfl.Ticket.apply(ticket, model).count_params() == model.count_params()


@pytest.mark.parametrize(
    "name",
    [
        "../mnist",
        "/etc",
        "a/b",
        "mnist:3.0",
        "huggingface:imdb",
        "kaggle:x",
        "mnist/",
        ".",
        "",
        " ",
        "mnist\n",
        "é",
        "m\0",
        None,
        3,
        ["mnist"],
    ],
    ids=repr,
)
def test_a_name_of_data_goes_nowhere_before_it_is_checked(name, monkeypatch):
    monkeypatch.setattr(data, "_from_tfds", lambda *given: pytest.fail(f"{given} went to TFDS"))
    with pytest.raises(DataError, match="the plain name of another data set"):
        data.load(name)


def mutated(header, rng):
    """A header in which some of what it tells is something odd."""
    new = json.loads(json.dumps(header))
    places = [("found", key) for key in new["found"]] + [(key,) for key in new]
    places += [("variables", i, key) for i in range(len(new["variables"])) for key in new["variables"][i]]
    for _ in range(rng.integers(1, 4)):
        *way, last = places[rng.integers(len(places))]
        at = new
        try:
            for step in way:
                at = at[step]
            if rng.random() < 0.1:
                del at[last]
            else:
                at[last] = copy.deepcopy(ODD[rng.integers(len(ODD))])  # something else may be put into it next
        except (KeyError, TypeError, IndexError):
            continue  # it is something odd already
    return new


def besiege(original, seeds, seconds=float("inf")) -> collections.Counter:
    """Reads and applies one file for each seed."""
    path, header, arrays = original
    target, outcomes, began = path.with_name("siege.ticket"), collections.Counter(), time.monotonic()
    for seed in seeds:
        if time.monotonic() - began > seconds:
            break
        rng = np.random.default_rng(seed)
        strange = dict(arrays)
        if rng.random() < 0.3:
            strange.pop(list(strange)[rng.integers(len(strange))])
        table = lambda table: table  # noqa: E731
        if rng.random() < 0.3:
            table = retyped(["header", *strange][rng.integers(len(strange) + 1)], DTYPES[rng.integers(len(DTYPES))])
        target.unlink(missing_ok=True)
        target.write_bytes(sealed(mutated(header, rng), strange, table))
        found = outcome(target)
        if found == "read":
            stranger = tfl.Ticket.load(target, max_weights=100_000)
            try:
                stranger.apply(problem.model_of(stranger))
                found = "applied"
            except LotteryError as error:
                assert "\n" not in str(error)
                found = "read, not applied"
        outcomes[found] += 1
    return outcomes


def test_files_made_by_rule(original):
    outcomes = besiege(original, range(200))
    assert (
        outcomes.total() == 200 and outcomes["refused"] > 50 and outcomes["read, not applied"] + outcomes["applied"] > 5
    )


@pytest.mark.siege
def test_files_made_by_rule_at_length(original):
    seconds = float(os.environ.get("ATTACK_SECONDS", "3600"))
    outcomes = besiege(original, itertools.count(1_000), seconds)
    print(dict(outcomes))
    assert outcomes["refused"] > 0
