"""What the controls say: the intervals by hand, and each kind of answer."""

import statistics

import pytest

from tf_lottery.base.student import quantile
from tf_lottery.checks.line import Line
from tf_lottery.checks.verdict import CONTROLS, Measured, Verification

FLAT, HIGH = Line((0.0, 0.5, 1.0), (0.02, 0.03, 0.02)), Line((0.0, 0.5, 1.0), (0.02, 0.3, 0.04))
BETTER = {"dense": 0.97, **dict.fromkeys(CONTROLS, 0.95), "other_order": 0.98}


def verification(replicates=3, line=FLAT, examples=10_000, **accuracies):
    """The ticket has 98 %, give or take a little from one replicate to the next, and others what is given."""
    given = {"ticket": 0.98, **BETTER, **accuracies}
    rows = [
        Measured(
            name, r, 0.2, value + 0.0005 * r + (0.0002 * (-1) ** r if name != "ticket" else 0), 100.0, name != "ticket"
        )
        for name, value in given.items()
        for r in range(replicates)
        if value is not None
    ]
    not_run = {name: "there is none" for name, value in given.items() if value is None}
    return Verification(7, rows, {"instability": [line], "level_before": [FLAT]}, [0.8, 0.9], not_run, examples)


ANSWERS = [
    ({}, "A winning ticket:"),
    ({"dense": 0.9815}, "A winning ticket:"),  # within 0.2 points
    ({"replicates": 1}, "A winning ticket:"),
    ({"reinit": 0.98}, "A sparse network whose mask alone does it, not told apart from new weights under its mask ("),
    ({"reinit": 0.98, "random_mask": 0.98}, "Not told apart from new weights under its mask ("),
    ({"random_mask": 0.9798}, "Not told apart from its mask shuffled within each layer ("),
    ({"inverted": 0.99}, "Worse than its scores inverted ("),
    ({"dense": 0.9835}, "No winning ticket, though better than its controls: worse than the dense network ("),
    ({"line": HIGH}, "No winning ticket, though better than its controls: it is not stable:"),
    ({"inverted": None}, "A winning ticket, as far as it was looked at:"),
    ({"replicates": 2, "examples": None}, "Not yet known to be a ticket:"),
    ({"replicates": 1, "reinit": 0.977}, "A sparse network whose mask alone does it"),  # 0.3 points of 10,000 examples
    ({"replicates": 1, "reinit": 0.97}, "A winning ticket:"),
]


@pytest.mark.parametrize("given, answer", ANSWERS, ids=str)
def test_what_it_says(given, answer):
    found = verification(**given)
    assert found.sentence.startswith(answer)
    assert found.won == (answer == "A winning ticket:")
    assert "98.0" in found.sentence and "\n" not in found.sentence and found.sentence.endswith(").")


def test_intervals_are_those_of_welchs_t_test():
    found = verification(reinit=0.97)
    own, other = ([row.accuracy for row in found.of(name)] for name in ("ticket", "reinit"))
    a, b = (statistics.variance(each) / 3 for each in (own, other))
    freedom = (a + b) ** 2 / (a**2 / 2 + b**2 / 2)
    difference = found.difference("reinit")
    assert difference.mean == pytest.approx(statistics.fmean(own) - statistics.fmean(other))
    assert 3 < freedom < 4 and 2.776 < (difference.high - difference.mean) / (a + b) ** 0.5 < 3.182
    assert difference.high - difference.mean == pytest.approx(difference.mean - difference.low)
    assert found.difference("ticket").mean == 0 and found.difference("nothing") is None
    one = verification(replicates=1, reinit=0.97).difference("reinit")
    assert one.high - one.mean == pytest.approx(1.96 * ((0.98 * 0.02 + 0.9702 * 0.0298) / 10_000) ** 0.5)


@pytest.mark.parametrize(
    "freedom, t",
    [(2, 4.303), (2.5, 3.575), (3.6, 2.902), (4, 2.776), (7.5, 2.333), (20, 2.086), (25, 2.060), (1e9, 1.96)],
)
def test_students_t_between_whole_degrees_of_freedom(freedom, t):
    """Against a table; between its rows against the quantile function of SciPy."""
    assert quantile(freedom) == pytest.approx(t, rel=0.02)


def test_equal_differences_are_no_certainty():
    """Three replicates on ten examples, all apart by the same one."""
    rows = [Measured(name, r, 0.2, value) for name, value in (("ticket", 0.9), ("reinit", 0.8)) for r in range(3)]
    assert Verification(1, rows, examples=10).difference("reinit").low == pytest.approx(0)


def test_numbers_stand_in_the_table_and_the_sentence():
    found = verification()
    headings, rows = found.table()
    assert len(rows) == 7 and all(len(row) == len(headings) for row in rows)
    assert rows[1] == ["the ticket", "20", "100", "98.05 (98.00 to 98.10)", "", "0"]
    assert "barrier of 1.00 points" in found.sentence and "85 % of its weights keep their sign" in found.sentence
    assert found.trainings == 18 and str(found).splitlines()[-1] == found.sentence
    assert "not run: its scores inverted" in verification(inverted=None).sentence
    assert verification(inverted=None).remarks() == ["its scores inverted was not run: there is none"]
