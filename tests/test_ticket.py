"""Tickets: what is saved comes back, and nothing else is read."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tf_lottery import Ticket, TicketError
from tf_lottery.ticket import read_header


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
    Ticket(ticket.masks, frozen).save(tmp_path / "a.ticket")
    back = Ticket.load(tmp_path / "a.ticket")
    assert same(back.initial, frozen) and back.final is None


def test_a_sparse_ticket_is_small(tmp_path, rng):
    mask = (rng.random((300, 100)) < 0.05).astype(np.uint8)
    Ticket({"k": mask}, {"k": mask.astype(np.float32)}).save(tmp_path / "a.ticket")
    assert (tmp_path / "a.ticket").stat().st_size < 30_000 / 8 + 4 * mask.sum() + 1_000


def test_header_is_read_without_arrays(ticket, tmp_path):
    ticket.save(tmp_path / "a.ticket")
    header = read_header(tmp_path / "a.ticket")
    assert header["level"] == 3 and header["density"] == ticket.density and header["shapes"] == {"a/kernel": [13, 7]}


def test_a_failed_save_leaves_the_old_file(ticket, tmp_path):
    path = tmp_path / "a.ticket"
    ticket.save(path)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        Ticket(ticket.masks, ticket.initial, metrics={"not json": object()}).save(path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_damaged_and_foreign_files_are_refused(ticket, tmp_path):
    path = tmp_path / "a.ticket"
    ticket.save(path)
    whole = path.read_bytes()
    for bad in (b"", b"hello", whole[:-10], whole[: len(whole) // 2], b"\xff" * 8 + whole[8:]):
        path.write_bytes(bad)
        with pytest.raises(TicketError, match="Expected a"):
            Ticket.load(path)
    path.write_bytes(whole)
    header, arrays = read_header(path), load_file(path)
    for changed, message in (
        ({**header, "format": "other/9"}, "other/9"),
        ({**header, "shapes": {"a/kernel": [13, 8]}}, "damaged"),
        ({**header, "shapes": {"b/kernel": [13, 7]}}, "damaged"),
        ({**header, "variables": ["a/kernel", "none"]}, "damaged"),
        ({**header, "variables": ["a/bias"]}, "damaged"),
    ):
        save_file(arrays, path, metadata={"ticket": json.dumps(changed)})
        with pytest.raises(TicketError, match=message):
            Ticket.load(path)
    with pytest.raises(FileNotFoundError):
        Ticket.load(tmp_path / "none.ticket")
