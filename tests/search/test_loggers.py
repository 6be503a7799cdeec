"""Loggers in Python: `find_ticket` and `LotteryTicket` tell of each level once, and survive what a logger does."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_lottery as tfl
from tf_lottery import LotteryError
from tf_lottery.search.logger import Log, level_of

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Spy:
    """Keeps what it is told; raises where it is told to; does with a ticket what nobody should."""

    def __init__(self, fails=""):
        self.fails, self.heard, self.levels, self.rows = fails, [], {}, []

    def on_run_begin(self, run):
        self.run = run
        self._hear("begin")

    def on_measurement(self, level, row):
        self.rows.append((level, row["step"]))

    def on_level_end(self, level):
        assert level.level not in self.levels
        self._hear(level.level)
        self.levels[level.level] = level
        for values in (level.ticket.masks, level.ticket.initial, level.ticket.final):
            for value in values.values():
                value[...] = 0

    def on_run_end(self, error=None):
        self._hear(f"end {type(error).__name__}" if error else "end")

    def _hear(self, what):
        if str(what) == self.fails:
            raise OSError("no network\nhere")
        self.heard.append(what)


def same(tickets, others):
    pairs = [(a, b, kind) for a, b in zip(tickets, others, strict=True) for kind in ("masks", "initial", "final")]
    return all(np.array_equal(getattr(a, k)[p], getattr(b, k)[p]) for a, b, k in pairs for p in getattr(a, k))


def test_find_ticket_tells_of_each_level_before_it_is_yielded(blobs, dense_net):
    trainer = tfl.Trainer(*blobs, validation=blobs, steps=8, eval_every=4, batch_size=50, jit_compile=False)

    def search(**more):
        return tfl.find_ticket(dense_net(), trainer, levels=2, prune_fraction=0.5, **more)

    alone, spy, weak, late = list(search()), Spy(), Spy(fails="1"), Spy(fails="begin")
    tickets = []
    with pytest.warns(UserWarning, match=r"the logger Spy' failed in on_level_end \(OSError: no network here\)"):
        for ticket in search(logger=[spy, weak, late]):
            assert spy.heard[-1] == ticket.level and spy.levels[ticket.level].metrics["density"] == ticket.density
            tickets.append(ticket)
    assert same(alone, tickets)  # whatever a logger raises, or writes into what it is given
    assert spy.heard == ["begin", 0, 1, 2, "end"] and weak.heard == ["begin", 0] and late.heard == []
    assert spy.rows == [(level, step) for level in range(3) for step in (4, 8)]
    assert [row["step"] for row in spy.levels[2].curve] == [4, 8] and spy.levels[2].metrics["trainings"] == 3
    assert spy.run.name == "net" and spy.run.settings["criterion"] == "large_final" and len(spy.run.id) == 32

    stopped, broken = Spy(), Spy()
    for _ in search(logger=stopped):
        break
    assert stopped.heard == ["begin", 0, "end"]
    levels = search(logger=broken, criterion=lambda initial, final, *, rng: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(levels)
    assert broken.heard == ["begin", 0, "end ZeroDivisionError"]


@pytest.mark.parametrize(
    ("logger", "said"),
    [
        ("nobody", "name of a logger"),
        (object(), "has no on_run_begin"),
        (lambda: 1 / 0, r"<lambda> failed \(ZeroDivisionError"),
    ],
)
def test_what_is_no_logger_is_refused_before_anything_is_trained(dense_net, logger, said):
    with pytest.raises(LotteryError, match=said):
        tfl.find_ticket(dense_net(), lambda model, callbacks: 1 / 0, logger=logger)
    with pytest.raises(LotteryError, match=said):
        tfl.callbacks.LotteryTicket(tfl.LotterySchedule(1, 2), logger=logger)


def test_one_fit_tells_too_and_goes_on_under_its_id(blobs, dense_net, tmp_path):
    def fit(epochs, spy):
        masked = tfl.wrap(dense_net())
        masked.compile("sgd", LOSS)
        schedule = tfl.LotterySchedule(levels=2, steps_per_level=4, prune_fraction=0.5)
        search = tfl.callbacks.LotteryTicket(schedule, directory=tmp_path, logger=spy)
        masked.fit(*blobs, batch_size=50, epochs=epochs, verbose=0, shuffle=False, callbacks=[search])
        return search.tickets

    first, second = Spy(), Spy()
    with pytest.warns(UserWarning, match="fit ended in level 1"):
        fit(1, first)
    tickets = fit(2, second)
    assert first.heard == ["begin", 0, "end"] and second.heard == ["begin", 1, 2, "end"]
    assert second.run.id == first.run.id and second.run.settings["steps_per_level"] == 4
    assert second.levels[2].metrics["density"] == tickets[-1].density and "loss" in second.levels[2].metrics
    assert all(ticket.final["net/output/kernel"].any() for ticket in tickets)  # the spy emptied copies


def test_tensorboard_has_a_level_that_another_process_trained(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    mask, values = np.array([[1, 0], [1, 1]]), np.array([[3.0, 0.0], [-1.0, 2.0]])
    ticket = tfl.Ticket({"k": mask}, {"k": values}, {"k": 2 * values}, 1, {"final_test_accuracy": 0.5})
    with Log({"tensorboard": tfl.loggers.TensorBoard(tmp_path)}, "r", {"criterion": "random", "levels": None}) as log:
        log.level(level_of(ticket, [{"step": 4, "train_loss": 0.5}, {"step": 8, "train_loss": 0.25}]))
    found = reader.EventAccumulator(str(tmp_path / "r" / "level_01"), size_guidance={"tensors": 0})
    found.Reload()
    assert [event.step for event in found.Tensors("train_loss")] == [4, 8]
    assert {event.step for event in found.Tensors("kept/k")} == {0, 8}
    assert [float(tf.make_ndarray(event.tensor_proto)) for event in found.Tensors("threshold/k")] == [1.0, 2.0]
