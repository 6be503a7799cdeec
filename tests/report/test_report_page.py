"""The page of a report in a real browser, at the width of a desk and of a phone."""

import shutil

import pytest
from studies import write_sweep
from test_report import write_run

from tf_lottery import report
from tf_lottery.report import study as study_report
from tf_lottery.runs import study

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium; the test is skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright to drive a browser")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("needs a browser: none of " + ", ".join(BROWSERS) + " is installed")
    with sync_api.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    report.write(write_run(folder / ("a_long_name_" * 8), levels=6), folder / "out")
    return folder / "out" / "index.html"


MEASURE = """() => ({
    page: document.documentElement.scrollWidth,
    window: window.innerWidth,
    images: [...document.images].map(image => image.complete && image.naturalWidth > 0),
    sticking_out: [...document.querySelectorAll('main *')].filter(
        part => !part.closest('.wide') && part.getBoundingClientRect().right > window.innerWidth + 1).length,
    smallest_text: Math.min(...[...document.querySelectorAll('p, figcaption, td, th, dd, dt, li')].map(
        part => parseFloat(getComputedStyle(part).fontSize))),
})"""


@pytest.fixture(scope="module")
def study_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    write_sweep(folder, large_final=0.01, magnitude_increase=0.009, random=-0.02)
    study_report.write(study.read([folder / "cmp"]), folder / "out")
    return folder / "out" / "index.html"


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize(("which", "figures"), [("page_file", 13), ("study_file", 5)])
def test_the_page_fits_loads_and_is_silent(browser, which, figures, width, request):
    page_file = request.getfixturevalue(which)
    page = browser.new_page(viewport={"width": width, "height": 900})
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_file.as_uri(), wait_until="load")
    found = page.evaluate(MEASURE)
    page.close()
    assert found["page"] <= found["window"] == width and not found["sticking_out"]
    assert len(found["images"]) == figures and all(found["images"])
    assert found["smallest_text"] >= 12
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [page_file.as_uri()]


def test_the_page_prints(browser, page_file, tmp_path):
    page = browser.new_page()
    page.goto(page_file.as_uri(), wait_until="load")
    page.pdf(path=tmp_path / "page.pdf", format="A4")
    page.close()
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
