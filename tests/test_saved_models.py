"""What ships in saved_models/ is what its page says."""

import re
from pathlib import Path

import numpy as np
import pytest

import tf_lottery as tfl
from tf_lottery.runs import problem
from tf_lottery.tickets.account import describe

FOLDER = Path(__file__).parents[1] / "saved_models"
PAGE = (FOLDER / "README.md").read_text()
FILE = FOLDER / "lenet_supermask.ticket"


def test_the_supermask_is_a_mask_and_a_seed():
    account = describe(FILE)
    assert account.factor > 30
    assert {part.initial for part in account.parts} == {"recipe"} and account.contents.final is None
    assert f"{account.bytes:,} bytes" in PAGE and f"{account.dense_bytes:,} bytes" in PAGE
    assert f"{100 * tfl.masks.density(account.contents.masks):.2f} % kept" in PAGE


def test_its_weights_are_signed_constants_that_were_never_trained():
    ticket = tfl.Ticket.load(FILE)
    plain = tfl.strip(ticket.apply(problem.model_of(ticket)))
    for kernel in tfl.weights.prunable_kernels(plain):
        values = np.abs(tfl.weights.value_of(kernel.variable))
        assert len(np.unique(values[values > 0])) == 1 and np.count_nonzero(values) == ticket.masks[kernel.path].sum()


def test_it_is_as_right_as_its_page_says(tfds_dir):
    data = tfl.data.load("mnist", tfds_dir)
    ticket = tfl.Ticket.load(FILE)
    trainer = tfl.Trainer(*data.train, test=data.test, steps=1)
    accuracy = trainer.test_accuracy(ticket.apply(problem.model_of(ticket)))
    assert accuracy == pytest.approx(float(re.search(r"([\d.]+) % of 10,000", PAGE)[1]) / 100, abs=2e-4)
