"""Pages in a real browser: they work from disk, fetch nothing, and axe-core finds nothing to object to.

Needs the extra `browser` and Chromium. Skipped where one of them is missing, but not where HCNN_BROWSER_CHECKS is set.
"""

from __future__ import annotations

import importlib
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from tests.train.runs import Outcome
from train.attributes import report
from train.verification.report import page as verification_page

SITE = Path(__file__).resolve().parents[2] / "docs" / "_build" / "html" / "index.html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def needed(what: str) -> None:
    """Skip for the lack of something, or fail where all checks are to run."""
    reason = f"checks of pages need the extra browser and Chromium ({what})"
    if os.environ.get("HCNN_BROWSER_CHECKS"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        needed("there is no chromium on the path")
    try:
        playwright = importlib.import_module("playwright.sync_api")
        importlib.import_module("axe_playwright_python.sync_playwright")
    except ImportError as error:
        needed(str(error))
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"])  # root has no sandbox
        yield browser
        browser.close()


class Shown:
    """A page that was opened, what it asked for and what it complained of."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.page = browser.new_context(**options).new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(path.as_uri())

    def fetched(self) -> set[str]:
        """Where requests went."""
        return {url for url in self.requests if not url.startswith("data:")}


@pytest.fixture(scope="module")
def explored_page(explored: tuple[Path, Outcome]) -> Path:
    folder, outcome = explored
    assert outcome.status == 0, outcome
    return folder / report.PAGE


@pytest.fixture(scope="module")
def shown(browser: Any, explored_page: Path) -> Iterator[Shown]:
    """The explorer's page on a wide screen."""
    shown = Shown(browser, explored_page, viewport={"width": 1200, "height": 900})
    yield shown
    shown.page.context.close()


def test_the_page_opens_without_requests_and_complaints(shown: Shown, explored_page: Path) -> None:
    assert "Attributes" in shown.page.title()
    assert shown.page.locator("#stage").is_visible()
    assert shown.fetched() == {explored_page.as_uri()}
    assert shown.complaints == []


def test_the_slider_moves_the_array_and_the_image(shown: Shown) -> None:
    page = shown.page
    page.locator("#tau").focus()
    page.keyboard.press("Home")
    before = {name: page.locator(f"#{name}").get_attribute("src") for name in ("moved-array", "found-image")}
    assert page.locator("#tau-value").inner_text() == "0"
    assert page.locator("#x-image").get_attribute("src") == before["found-image"]  # x finds itself
    page.keyboard.press("ArrowRight")
    assert page.locator("#tau-value").inner_text() == "1"
    assert page.locator("#moved-array").get_attribute("src") != before["moved-array"]
    assert page.locator("#strip button[aria-pressed=true]").inner_text().startswith("τ = 1")
    page.locator("#strip button").nth(0).click()
    assert page.locator("#tau-value").inner_text() == "0"
    assert page.locator("#moved-array").get_attribute("src") == before["moved-array"]
    assert "distance" in (page.locator("#strip button").nth(1).get_attribute("title") or "")


def test_images_and_depths_are_chosen_by_keyboard(shown: Shown) -> None:
    page = shown.page
    first = page.locator("#x-image").get_attribute("alt")
    page.locator("input[name=image]").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#x-image").get_attribute("alt") != first
    scale = page.locator("#array-scale .ticks").inner_text()
    page.locator("input[name=depth]").last.focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#array-scale .ticks").inner_text() != scale
    assert shown.complaints == []


def test_the_page_fits_a_phone(browser: Any, explored_page: Path) -> None:
    shown = Shown(browser, explored_page, viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= 390
    button = shown.page.locator("#strip button").nth(1)
    button.tap()
    assert shown.page.locator("#tau-value").inner_text() == "1"
    shown.page.context.close()


def test_the_page_without_scripts_says_so(browser: Any, explored_page: Path) -> None:
    shown = Shown(browser, explored_page, java_script_enabled=False)
    assert "needs JavaScript" in shown.page.locator("noscript").inner_text()
    assert not shown.page.locator("#controls").is_visible()
    shown.page.context.close()


@pytest.mark.skipif(not SITE.exists(), reason="make docs has not built the site")
def test_the_bar_of_the_site_is_one_line(browser: Any) -> None:
    shown = Shown(browser, SITE, viewport={"width": 1200, "height": 900})
    assert shown.page.evaluate("document.documentElement.scrollWidth") == 1200
    entries = shown.page.locator(".bd-header a:visible, .bd-header button:visible").all()
    boxes = [entry.bounding_box() for entry in entries]
    assert len(boxes) > 6 and max(box["y"] for box in boxes) < min(box["y"] + box["height"] for box in boxes)
    shown.page.context.close()


@pytest.fixture(scope="module")
def verified_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.train.test_verification_report import measurements

    path = tmp_path_factory.mktemp("verified") / "verify.html"
    path.write_text(verification_page(measurements(), {"network": "hcnn"}), "utf-8")
    return path


@pytest.fixture(scope="module")
def report_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.train.test_run_report import classified, text_of

    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(text_of(classified()), "utf-8")
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_curves_follow_the_colours_of_the_page(browser: Any, report_page: Path, scheme: str) -> None:
    shown = Shown(browser, report_page, color_scheme=scheme, viewport={"width": 400, "height": 900})
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= 400
    for drawing in shown.page.locator("img.drawing").all():
        pixels = np.asarray(imread(io.BytesIO(drawing.screenshot()), format="png"))[..., :3].mean(axis=-1)
        assert pixels.shape[1] > 350, "as wide as the screen"
        back = np.median(pixels)
        assert back > 0.9 if scheme == "light" else back < 0.2
        assert np.abs(pixels - back).max() > 0.7, "letters are seen"
    assert shown.complaints == [] and len(shown.page.locator("img.drawing").all()) == 2
    shown.page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("which", ["explored_page", "verified_page", "report_page"])
def test_axe_finds_nothing(browser: Any, request: pytest.FixtureRequest, which: str, scheme: str) -> None:
    """Contrast, alternative texts, names of controls, order of headings and the rest of axe-core's rules."""
    axe = importlib.import_module("axe_playwright_python.sync_playwright")
    shown = Shown(browser, request.getfixturevalue(which), color_scheme=scheme)
    found = axe.Axe().run(shown.page)
    assert found.violations_count == 0, found.generate_report()
    assert len(found.response["passes"]) > 15
    shown.page.context.close()


def test_axe_notices_a_defect(browser: Any, explored_page: Path, tmp_path: Path) -> None:
    text = explored_page.read_text("utf-8").replace("--soft: #555", "--soft: #ccc").replace('id="x-image"', 'id="none"')
    broken = tmp_path / "broken.html"
    broken.write_text(text, "utf-8")
    shown = Shown(browser, broken, color_scheme="light")
    found = importlib.import_module("axe_playwright_python.sync_playwright").Axe().run(shown.page)
    assert "color-contrast" in {violation["id"] for violation in found.response["violations"]}
    assert shown.complaints != []  # the script misses its image
    shown.page.context.close()
