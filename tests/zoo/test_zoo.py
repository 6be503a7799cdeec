"""Models that nobody here wrote go through everything; `python -m pytest -m zoo` takes them all, the default run a handful."""

import pytest
import trials
from specimens import PACKAGES, SPECIMENS

CASES = [pytest.param(each, id=each.name, marks=() if each.daily else pytest.mark.zoo) for each in SPECIMENS.values()]


@pytest.mark.parametrize("specimen", CASES)
def test_everything_holds(specimen):
    pytest.importorskip(PACKAGES[specimen.source])
    found = trials.run(specimen)
    short = {name: said for name, said in found.items() if said != "holds"}
    for name, word in specimen.known.items():
        assert word in short.pop(name, ""), f"{name} was known to say {word!r}"
    assert not short
