"""Tickets: what is saved comes back, and nothing else is read."""

import collections
import json
import random
import subprocess
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from tf_lottery import Ticket, TicketError
from tf_lottery.base import container
from tf_lottery.base.container import digest
from tf_lottery.tickets import file as ticket_file
from tf_lottery.tickets.account import describe
from tf_lottery.tickets.file import FORMAT, read_header
from tf_lottery.tickets.values import Recipe


@pytest.fixture
def ticket(rng):
    mask = (rng.random((13, 7)) < 0.3).astype(np.uint8)
    weights = rng.normal(size=(2, 13, 7)).astype(np.float32)
    state = np.array([1, 2], np.uint32)
    return Ticket(
        {"a/kernel": mask},
        {"a/kernel": weights[0] * mask, "a/bias": np.zeros(7, np.float32), "seed": state},
        {"a/kernel": weights[1] * mask, "a/bias": np.ones(7, np.float32), "seed": state + 1},
        level=3,
        metrics={"accuracy": 0.5},
        found={"criterion": "large_final", "seed": 4},
    )


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


def test_round_trip(ticket, tmp_path):
    ticket.save(tmp_path / "a.ticket")
    back = Ticket.load(tmp_path / "a.ticket")
    assert same(back.masks, ticket.masks) and same(back.initial, ticket.initial) and same(back.final, ticket.final)
    assert (back.level, back.metrics, back.found) == (3, {"accuracy": 0.5}, {"criterion": "large_final", "seed": 4})
    assert back.density == ticket.density
    assert [path.name for path in tmp_path.iterdir()] == ["a.ticket"]  # no temporary file stays behind


def test_the_order_of_the_variables_comes_back(tmp_path, rng):
    """Tickets are put on models whose layers have other names by order, so the order is part of the ticket."""
    names = [f"dense_{i}/kernel" for i in (9, 10, 11)]  # not in alphabetical order
    values = {name: rng.normal(size=(2, 2)).astype(np.float32) for name in names}
    Ticket({name: np.ones((2, 2), np.uint8) for name in names}, values, values).save(tmp_path / "a.ticket")
    back = Ticket.load(tmp_path / "a.ticket")
    assert list(back.masks) == list(back.initial) == list(back.final) == names


def test_masks_without_weights_are_refused(ticket):
    with pytest.raises(TicketError, match="'a/kernel' has none"):
        Ticket(ticket.masks, {"b/kernel": np.ones(3)})


def test_frozen_values_and_untrained_tickets_come_back(ticket, tmp_path, rng):
    frozen = {**ticket.initial, "a/kernel": rng.normal(size=(13, 7)).astype(np.float32)}
    for recipes in ({}, {digest(frozen["a/kernel"]): recipe_for(frozen["a/kernel"])}):  # which draws no frozen ones
        Ticket(ticket.masks, frozen, recipes=recipes).save(tmp_path / "a.ticket")
        back = Ticket.load(tmp_path / "a.ticket")
        assert same(back.initial, frozen) and back.final is None


def test_a_sparse_ticket_is_small(tmp_path, rng):
    mask = (rng.random((300, 100)) < 0.05).astype(np.uint8)
    Ticket({"k": mask}, {"k": mask.astype(np.float32)}).save(tmp_path / "a.ticket")
    assert (tmp_path / "a.ticket").stat().st_size < 30_000 / 8 + 4 * mask.sum() + 1_000


def test_header_is_read_without_arrays(ticket, tmp_path):
    ticket.save(tmp_path / "a.ticket")
    header = read_header(tmp_path / "a.ticket")
    assert header["level"] == 3 and header["density"] == ticket.density
    assert [(v["name"], v["shape"], v["masked"]) for v in header["variables"]] == [
        ("a/kernel", [13, 7], True),
        ("a/bias", [7], False),
        ("seed", [2], False),
    ]


def test_a_failed_save_leaves_the_old_file(ticket, tmp_path):
    path = tmp_path / "a.ticket"
    ticket.save(path)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        Ticket(ticket.masks, ticket.initial, metrics={"not json": object()}).save(path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def recipe_for(values, seed=7):
    return Recipe(
        {"class_name": "GlorotNormal", "config": {"seed": seed}}, values.shape, str(values.dtype), digest(values)
    )


def test_recipes_stand_in_the_file_for_the_values_they_give(ticket, tmp_path):
    """Only where they give these very values: of others the values are written."""
    recipe = recipe_for(np.ones((13, 7), np.float32))  # of the whole kernel; the ticket holds it under its mask
    known = {digest(ticket.initial["a/kernel"]): recipe, digest(ticket.initial["a/bias"]): recipe_for(np.zeros((7, 1)))}
    told = Ticket(ticket.masks, ticket.initial, ticket.final, recipes=known)
    told.save(tmp_path / "a.ticket")
    back = Ticket.load(tmp_path / "a.ticket")
    assert back.initial["a/kernel"] == recipe and same(back.final, ticket.final)
    assert np.array_equal(back.initial["a/bias"], ticket.initial["a/bias"])  # the recipe has another shape
    assert back.recipe("a/kernel") == recipe and back.recipe("a/bias") is None
    moved = {**ticket.initial, "a/kernel": ticket.initial["a/kernel"] * 2}
    Ticket(ticket.masks, moved, recipes=known).save(tmp_path / "b.ticket")
    assert same(Ticket.load(tmp_path / "b.ticket").initial, moved)
    back.save(tmp_path / "c.ticket")
    assert (tmp_path / "c.ticket").stat().st_size < (tmp_path / "b.ticket").stat().st_size * 2
    assert Ticket.load(tmp_path / "c.ticket").initial["a/kernel"] == recipe


def test_recipes_are_inherited_by_what_was_rewound(ticket):
    start, mask = np.arange(91, dtype=np.float32).reshape(13, 7) + 1, ticket.masks["a/kernel"]
    dense = Ticket({"k": np.ones_like(mask)}, {"k": start}, recipes={digest(start): recipe_for(start)})
    assert Ticket({"k": mask}, {"k": start * mask}).inheriting(dense).recipe("k") == recipe_for(start)
    assert Ticket({"k": mask}, {"k": start * mask + 1}).inheriting(dense).recipe("k") is None  # drawn anew, or held
    pruned = Ticket({"k": mask}, {"k": start * mask}).inheriting(dense)
    assert (
        Ticket({"k": np.ones_like(mask)}, {"k": start * mask}).inheriting(pruned).recipe("k") is None
    )  # weights came back
    assert Ticket({"k": 0 * mask}, {"k": 0 * start}).inheriting(pruned).recipe("k") == recipe_for(start)


@pytest.mark.parametrize(
    "final, dtype", [("exact", "float64"), ("float32", "float32"), ("float16", "float16"), (None, None)]
)
def test_trained_weights_in_less_precision(final, dtype, tmp_path, rng):
    mask = (rng.random((13, 7)) < 0.5).astype(np.uint8)
    values = {"k": rng.normal(size=(13, 7)) * mask, "b": rng.normal(size=7).astype(np.float16), "n": np.array(3)}
    Ticket({"k": mask}, values, values).save(tmp_path / "a.ticket", final=final)
    account = describe(tmp_path / "a.ticket")
    back = account.contents.final
    assert [part.final for part in account.parts] == ([dtype, "float16", "int64"] if final else [None] * 3)
    if final is None:
        assert back is None
    else:
        assert {name: value.dtype for name, value in back.items()} == {n: v.dtype for n, v in values.items()}
        assert np.array_equal(back["k"], values["k"].astype(dtype)) and back["n"].shape == ()
    assert same(account.contents.initial, values)


def test_what_does_not_fit_the_precision_is_refused(tmp_path):
    values = {"k": np.array([[1.0, 1e5]], np.float32)}
    ticket = Ticket({"k": np.ones((1, 2), np.uint8)}, values, values)
    with pytest.raises(TicketError, match="float16 can hold, up to 65504, but 'k' has 100000"):
        ticket.save(tmp_path / "a.ticket", final="float16")
    with pytest.raises(TicketError, match="one of exact, float32, float16, None, but received 'int8'"):
        ticket.save(tmp_path / "a.ticket", final="int8")
    with pytest.raises(TicketError, match="numbers that a ticket file holds, but received complex64"):
        Ticket({}, {"k": np.ones(2, np.complex64)}).save(tmp_path / "a.ticket")
    assert not list(tmp_path.iterdir())
    infinite = {"k": np.array([[1.0, np.inf]], np.float32)}
    Ticket(ticket.masks, values, infinite).save(tmp_path / "a.ticket", final="float16")
    assert same(Ticket.load(tmp_path / "a.ticket").final, infinite)


def test_every_type_of_variable_comes_back(tmp_path, rng):
    import ml_dtypes

    kinds = [np.dtype(kind) for kind in "?bBhHiIqQefd"] + [np.dtype(ml_dtypes.bfloat16)]
    values = {kind.name: rng.integers(0, 2, (3, 4)).astype(kind) for kind in kinds}
    masks = {"bfloat16": np.eye(3, 4, dtype=np.uint8), "int64": np.ones((3, 4), np.uint8)}
    values["bfloat16"] = values["bfloat16"] * masks["bfloat16"].astype(ml_dtypes.bfloat16)
    values |= {"scalar": np.array(2.5, np.float32), "empty": np.zeros((0, 3), np.float32)}
    Ticket(masks, values, values).save(tmp_path / "a.ticket")
    back = Ticket.load(tmp_path / "a.ticket")
    assert same(back.initial, values) and same(back.final, values) and same(back.masks, masks)
    assert all(back.initial[name].shape == value.shape for name, value in values.items())


def test_the_account_of_a_file(ticket, tmp_path):
    ticket.save(tmp_path / "a.ticket")
    account = describe(tmp_path / "a.ticket")
    kernel, bias, seed = account.parts
    assert account.bytes == (tmp_path / "a.ticket").stat().st_size and account.dense_bytes == 4 * (91 + 7)
    assert account.factor == account.dense_bytes / account.bytes
    assert (kernel.path, kernel.shape, kernel.density) == ("a/kernel", (13, 7), ticket.density)
    assert kernel.mask_bytes > 12 and 0 < kernel.entropy_bytes < 91 / 8 and kernel.initial == kernel.final == "float32"
    assert (bias.density, bias.mask_bytes, seed.initial) == (None, 0, "uint32")


def test_a_ticket_is_read_where_there_is_no_tensorflow(ticket, tmp_path):
    ticket.save(tmp_path / "a.ticket")
    code = (
        "import sys; from tf_lottery.tickets.ticket import Ticket; t = Ticket.load(sys.argv[1]); t.save(sys.argv[2]);"
        "print(t.level, {'tensorflow', 'keras'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.ticket"), str(tmp_path / "b.ticket")]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "3 set()\n"
    assert (tmp_path / "a.ticket").read_bytes() == (tmp_path / "b.ticket").read_bytes()


def resealed(header, arrays, format=FORMAT, text=None):
    """The bytes of a file with a good checksum, whatever is in it."""
    text = json.dumps(header).encode() if text is None else text
    arrays = {**arrays, "header": np.frombuffer(zlib.compress(text), np.uint8)}
    return save(arrays, {format: container.checksum(format, arrays)})


@pytest.fixture
def parts(ticket, tmp_path):
    """A ticket file, its header and its arrays."""
    ticket.save(tmp_path / "a.ticket")
    return tmp_path / "a.ticket", *container.read(tmp_path / "a.ticket", FORMAT, 10**6)


def test_damaged_and_foreign_files_are_refused(parts, tmp_path):
    path, header, arrays = parts
    whole = path.read_bytes()
    for bad in (b"", b"hello", whole[:-10], whole[: len(whole) // 2], b"\xff" * 8 + whole[8:], whole + b"x"):
        path.write_bytes(bad)
        for read in (Ticket.load, read_header) if bad[8:] != whole[8:] else (Ticket.load,):
            with pytest.raises(TicketError, match="is damaged" if len(bad) > 9 else "is not one: it is (empty|a text)"):
                read(path)
    path.write_bytes(resealed(header, arrays, "tf_lottery.ticket/9"))
    for read in (Ticket.load, read_header):
        with pytest.raises(
            TicketError, match="Expected a file of format 'tf_lottery.ticket/2', but .* has 'tf_lottery.ticket/9'"
        ):
            read(path)
    for missing in (Ticket.load, read_header):
        with pytest.raises(FileNotFoundError):
            missing(tmp_path / "none.ticket")
        with pytest.raises(TicketError, match="is something else"):
            missing(tmp_path)


KERNEL = {"name": "a/kernel", "shape": [13, 7], "dtype": "float32", "masked": True}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"level": -1}, "no level"),
        ({"level": True}, "no level"),
        ({"level": "3"}, "no level"),
        ({"density": 2}, "no density"),
        ({"density": 0.5}, "not of the density"),
        ({"trained": 1}, "trained"),
        ({"metrics": []}, "metrics"),
        ({"metrics": {"a": [1]}}, "plain metrics"),
        ({"found": None}, "found"),
        ({"variables": {}}, "no variables"),
        ({"variables": [KERNEL, KERNEL]}, "different names"),
        ({"variables": [{**KERNEL, "shape": [13, 8]}]}, "damaged"),
        ({"variables": [{**KERNEL, "shape": [13, -7]}]}, "shapes"),
        ({"variables": [{**KERNEL, "shape": [13, 7.0]}]}, "shapes"),
        ({"variables": [{**KERNEL, "shape": [1] * 40}]}, "shapes"),
        ({"variables": [{**KERNEL, "shape": [0, 2**60]}]}, "shapes"),
        ({"variables": [{**KERNEL, "shape": [2**20, 2**20]}]}, "max_weights=268,435,456 weights, but .* tells of 1,099,511,627,785"),
        ({"variables": [{**KERNEL, "dtype": "object"}]}, "types of variables"),
        ({"variables": [{**KERNEL, "dtype": "float64"}]}, "float64"),
        ({"variables": [{**KERNEL, "masked": False}]}, "too many"),
        ({"variables": [{**KERNEL, "recipe": {"initializer": "Zeros"}}]}, "recipe"),
        ({"variables": [KERNEL]}, "too many"),
        ({"variables": [{"name": "a/kernel"}]}, "damaged"),
    ],
)  # fmt: skip
def test_headers_that_are_not_what_they_should_be(change, message, parts):
    path, header, arrays = parts
    rest = [] if "too many" in message and change["variables"] == [KERNEL] else header["variables"][1:]
    if "variables" in change and type(change["variables"]) is list and change["variables"] != [KERNEL, KERNEL]:
        change = {"variables": change["variables"] + rest}
    path.write_bytes(resealed({**header, **change}, arrays))
    with pytest.raises(TicketError, match=message):
        Ticket.load(path)


@pytest.mark.parametrize("key", ["level", "density", "trained", "metrics", "found", "variables"])
def test_headers_that_lack_something(key, parts):
    path, header, arrays = parts
    path.write_bytes(resealed({name: value for name, value in header.items() if name != key}, arrays))
    for read in (Ticket.load, read_header):
        with pytest.raises(TicketError, match=f"damaged .*{key}"):
            read(path)


def test_arrays_that_are_not_what_they_should_be(parts):
    path, header, arrays = parts
    kept = arrays["initial/0"]
    for change, message in (
        ({"initial/0": kept[:-1]}, "has values of"),
        ({"initial/0": kept[None]}, "has values of"),
        ({"initial/0": kept.astype("float64")}, "has values of"),
        ({"final/0": kept.astype("int32")}, "has values of"),
        ({"held/0": np.ones(1, np.float32)}, "has values of"),
        ({"held/1": np.ones(1, np.float32)}, "too many"),
        ({"mask/0": arrays["mask/0"][:-4]}, "coded bytes of a mask"),
        ({"mask/0": arrays["mask/0"].astype(np.uint16)}, "a mask has bytes of uint16"),
        ({"mask/7": arrays["mask/0"]}, "too many"),
    ):
        path.write_bytes(resealed(header, {**arrays, **change}))
        with pytest.raises(TicketError, match=message):
            Ticket.load(path)
    for name in arrays:
        path.write_bytes(resealed(header, {other: array for other, array in arrays.items() if other != name}))
        with pytest.raises(TicketError, match=f"damaged .*{name}"):
            Ticket.load(path)


def test_names_that_stand_twice_are_refused(parts):
    """In the container's table, whose own reader takes the last one, and in the header."""
    path, header, arrays = parts
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    table = whole[8 : 8 + length].strip()
    for entry in (b'"mask/0":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}', b'"__metadata__":{"other/1":""}'):
        twice = b"{" + entry + b"," + table[1:]
        path.write_bytes(len(twice).to_bytes(8, "little") + twice + whole[8 + length :])
        for read in (Ticket.load, read_header):
            with pytest.raises(TicketError, match="a name twice"):
                read(path)
    text = json.dumps(header).replace('"level": 3', '"level": 3, "level": 3').encode()
    path.write_bytes(resealed(header, arrays, text=text))
    with pytest.raises(TicketError, match="a name twice"):
        Ticket.load(path)


def test_what_a_stranger_claims_is_never_allocated(parts):
    """A header that unpacks to gigabytes, nesting without end, terabytes of weights, and a limit of one's own."""
    path, header, arrays = parts
    claims = {**header, "variables": [{**KERNEL, "shape": [2**40]}, *header["variables"][1:]]}
    empty = {**header, "variables": [{**KERNEL, "shape": [2**30, 0]}, *header["variables"][1:]], "density": 1.0}
    bombs = (
        (resealed(header, arrays, text=b" " * 10**8), "larger than"),
        (resealed(header, arrays, text=b"[" * 10**6), "damaged"),
        (resealed(header, arrays, text=b'{"level":' + b"9" * 10**5 + b"}"), "damaged"),
        (resealed(header, arrays, text=b"[1, 2]"), "no JSON object"),
        (resealed(claims, arrays), "max_weights"),
        (resealed(empty, arrays), "damaged"),
    )
    for data, message in bombs:
        path.write_bytes(data)
        tracemalloc.start()
        with pytest.raises(TicketError, match=message):
            Ticket.load(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**26
    path.write_bytes(resealed(header, arrays))
    with pytest.raises(TicketError, match="max_weights=99 weights, but .* tells of 100"):
        Ticket.load(path, max_weights=99)
    assert Ticket.load(path, max_weights=100).level == 3
    large = path.stat().st_size * 1000
    with path.open("ab") as file:
        file.truncate(large)
    with pytest.raises(TicketError, match="at most .* bytes"):
        Ticket.load(path, max_weights=100) if large > container.MOST_HEADER + 3200 else container.read(
            path, FORMAT, 999
        )


def test_a_header_that_no_reader_would_take_is_not_written(ticket, tmp_path):
    long = Ticket(ticket.masks, ticket.initial, found={"words": "x" * container.MOST_HEADER})
    with pytest.raises(TicketError, match="a header of at most"):
        long.save(tmp_path / "a.ticket")
    assert not list(tmp_path.iterdir())


# Fuzzing: 400 x 30 mutations of raw bytes, 400 x 20 of structure under a good checksum.

MASK = (np.random.default_rng(0).random((9, 6)) < 0.3).astype(np.uint8)
START = np.random.default_rng(1).normal(size=(9, 6)).astype(np.float32)
ORIGINAL = Ticket(
    {"a/kernel": MASK, "b/kernel": MASK.T.copy()},
    {"a/kernel": START * MASK, "a/bias": np.ones(6, np.float32), "b/kernel": START.T.copy()},
    {"a/kernel": START * MASK, "a/bias": np.ones(6, np.float32), "b/kernel": START.T.copy()},
    level=2,
    metrics={"accuracy": 0.5, "none": None},
    found={"criterion": "large_final", "input_shape": [3, 3]},
    recipes={digest(START * MASK): recipe_for(START)},
)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "a.ticket"
    ORIGINAL.save(path)
    return path, path.read_bytes(), *container.read(path, FORMAT, 10**6)


def equal_to_original(ticket):
    sound = [(ticket.level, ticket.metrics, ticket.found) == (ORIGINAL.level, ORIGINAL.metrics, ORIGINAL.found)]
    sound += [same(ticket.masks, ORIGINAL.masks), same(ticket.final, ORIGINAL.final)]
    return all(sound) and ticket.initial["a/kernel"] == recipe_for(START)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, removed, repeated or moved."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at, length = rng.randrange(len(data)), rng.choice([1, 1, 1, 4, 30])
        kind = rng.randrange(6)
        if kind <= 1:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            data[at : at + length] = rng.randbytes(length)
        elif kind == 3:
            del data[at : at + length]
        elif kind == 4:
            data[at:at] = data[at : at + length]
        else:
            del data[at + 1 :]
        data = data or bytearray(b"x")
    return bytes(data)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**63))
def test_fuzzed_bytes(original, seed):
    path, whole, *_ = original
    rng, target = random.Random(seed), path.parent / "raw.ticket"
    for _ in range(30):
        data = damaged(whole, rng)
        target.unlink(missing_ok=True)  # some file systems wait for the disk when a file is cut off and written anew
        target.write_bytes(data)
        try:
            ticket = Ticket.load(target, max_weights=10_000)
        except TicketError:
            continue
        assert equal_to_original(ticket), data  # a change that says nothing, as of the space that fills up the table


STRANGE = [
    None,
    True,
    -1,
    0,
    1,
    3,
    2**31,
    2**63,
    1e308,
    float("nan"),
    "",
    "a/kernel",
    "float16",
    "bool",
    "\0",
    [],
    [0],
    [2**40],
    {},
]


def mutated(value, rng):
    """JSON with one thing in it changed, removed or repeated."""
    if rng.random() < 0.25 or not isinstance(value, dict | list) or not value:
        return STRANGE[rng.integers(len(STRANGE))]
    value = value.copy()
    key = list(value)[rng.integers(len(value))] if isinstance(value, dict) else int(rng.integers(len(value)))
    kind = rng.random()
    if kind < 0.1:
        del value[key]
    elif kind < 0.15 and isinstance(value, list):
        value.append(value[key])
    elif kind < 0.2 and isinstance(value, dict):
        value["strange"] = value.pop(key)
    else:
        value[key] = mutated(value[key], rng)
    return value


def rearranged(arrays, rng):
    """Arrays with one of them changed, removed, renamed, or in the place of another."""
    arrays = dict(arrays)
    one, other = (list(arrays)[i] for i in rng.integers(len(arrays), size=2))
    array, kind = arrays[one], rng.integers(8)
    if kind == 0:
        del arrays[one]
    elif kind == 1:
        arrays[other] = array
    elif kind == 2:
        arrays[f"{rng.choice(['mask', 'held', 'initial', 'final', 'x'])}/{rng.integers(-1, 5)}"] = array
    elif kind == 3:
        arrays[one] = array.ravel()[: rng.integers(array.size + 1)]
    elif kind == 4:
        arrays[one] = np.concatenate([array.ravel(), array.ravel()[:3]])
    elif kind == 5:
        arrays[one] = array.astype(rng.choice(["float16", "float32", "uint8", "int64", "bool"]))
    elif kind == 6:
        arrays[one] = array.reshape((1, *array.shape))
    else:
        raw = bytearray(array.tobytes())
        raw[int(rng.integers(len(raw)))] ^= 1 << int(rng.integers(8))
        arrays[one] = np.frombuffer(bytes(raw), array.dtype).reshape(array.shape)
    return arrays


def test_fuzzed_structure_under_a_good_checksum(original):
    path, _, header, arrays = original
    target, outcomes = path.parent / "structure.ticket", collections.Counter()

    @settings(max_examples=400, deadline=None, derandomize=True)
    @given(seed=st.integers(0, 2**63))
    def fuzz(seed):
        rng = np.random.default_rng(seed)
        for _ in range(20):
            both, which = rng.random() < 0.2, rng.random() < 0.6
            new = mutated(header, rng) if which or both else header
            target.unlink(missing_ok=True)
            target.write_bytes(resealed(new, rearranged(arrays, rng) if not which or both else arrays))
            try:
                ticket = Ticket.load(target, max_weights=10_000)
            except TicketError:
                outcomes["refused"] += 1
                continue
            outcomes["loaded"] += 1  # other numbers, but a ticket in itself
            assert ticket.level >= 0 and 0 <= ticket.density <= 1
            for kind in (ticket.initial, ticket.final or ticket.initial):
                assert all(kind[name].shape == mask.shape for name, mask in ticket.masks.items())
            assert all(mask.dtype == np.uint8 and mask.max(initial=0) <= 1 for mask in ticket.masks.values())

    fuzz()
    assert outcomes.total() >= 8_000 and outcomes["loaded"] > 500 and outcomes["refused"] > 4_000


def test_what_is_fuzzed_loads(original):
    assert equal_to_original(Ticket.load(original[0])) and equal_to_original(
        ticket_file.load(original[0], max_weights=200)
    )
