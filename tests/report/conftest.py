"""Figures of the reports, for tests."""

import matplotlib.pyplot as plt
import pytest

from tf_lottery import report


@pytest.fixture(autouse=True, scope="module")
def coarse():
    """Figures with few dots: most of the time of a report goes into those."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(report.STYLE, "savefig.dpi", 40)
        with plt.rc_context(report.STYLE):
            yield


@pytest.fixture(autouse=True)
def closed():
    """Figures that a test looks at and does not save are closed after it."""
    yield
    plt.close("all")
