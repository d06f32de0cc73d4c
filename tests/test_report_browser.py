"""The page of ``gfsim report`` in headless Chromium.

Skipped where playwright (extra ``dev``) or Chromium (Debian's package) is missing, unless GFSIM_REQUIRE_BROWSER=1
says that they must be there.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from report_tools import DIAGONAL, DIVERGING, HOSTILE, claim, figure, hostile_folder, simulate

from gfsim.cli import main

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")


def missing(what: str) -> None:
    """Skip, or fail where a browser is required."""
    if os.environ.get("GFSIM_REQUIRE_BROWSER", "") not in ("", "0"):
        pytest.fail(f"{what}, and GFSIM_REQUIRE_BROWSER is set")
    pytest.skip(what)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is not installed (pip install 'gfsim[dev]')")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        missing("Chromium is not installed (apt-get install chromium)")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium has none for root
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=sandbox)
        yield running
        running.close()


@pytest.fixture(scope="module")
def stairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with a figure, one claim of which does not hold, and the flow of docs/report.md."""
    folder = tmp_path_factory.mktemp("browser") / "out"
    figure(folder, claims=[claim(), claim(name="the error is tiny", bound=1e-12, holds=False)])
    return page_of(simulate(folder / "flow").parent)


def page_of(folder: Path) -> Path:
    assert main(["report", str(folder)]) == 0
    return folder / "report.html"


def wait_until(page: Page, true: Callable[[], bool]) -> None:
    """Within ten seconds; the page's own policy forbids playwright's wait_for_function."""
    for _ in range(200):
        if true():
            return
        page.wait_for_timeout(50)
    pytest.fail("it did not happen within ten seconds")


class Visit:
    """A page opened, with everything that went wrong there."""

    def __init__(self, browser: Browser, file: Path, **options: Any) -> None:
        self.troubles: list[str] = []
        self.page: Page = browser.new_page(**({"viewport": {"width": 1280, "height": 900}} | options))
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("requestfailed", lambda request: self.troubles.append(f"failed: {request.url[:80]}"))
        self.page.on("dialog", lambda dialog: (self.troubles.append(dialog.message), dialog.dismiss()))
        self.page.on("request", self._requested)
        self.page.goto(file.resolve().as_uri())

    def _said(self, message: Any) -> None:
        if "willReadFrequently" not in message.text:  # advice on what the tests do, not the page
            self.troubles.append(f"{message.type}: {message.text}")

    def _requested(self, request: Any) -> None:
        if not request.url.startswith(("data:", "file:///")) or (
            request.url.startswith("file:") and not request.url.split("#")[0].endswith("report.html")
        ):
            self.troubles.append(f"requested {request.url[:80]}")

    @property
    def slider(self) -> Locator:
        return self.page.get_by_role("slider").first

    def at(self) -> int:
        return int(self.slider.input_value())

    def last(self) -> int:
        return int(self.slider.get_attribute("max") or 0)

    def pictures(self) -> list[str]:
        """What the heat maps, the cursors and the words show."""
        maps = self.page.evaluate("[...document.querySelectorAll('canvas')].map((c) => c.toDataURL())")
        cursors = self.page.evaluate("[...document.querySelectorAll('.cursor')].map((c) => c.getAttribute('x1'))")
        return [*maps, *cursors, self.page.locator(".now").first.inner_text()]

    def close(self) -> None:
        assert self.troubles == []
        self.page.close()


@pytest.fixture
def visit(browser: Browser, stairs: Path) -> Iterator[Visit]:
    opened = Visit(browser, stairs)
    yield opened
    opened.close()


def test_it_opens_whole_and_without_errors(visit: Visit) -> None:
    page = visit.page
    assert page.locator("h1").inner_text() == "Report on out"
    assert "2 of 3 claims held, 1 did not" in page.locator(".verdict").inner_text()
    assert page.locator("tr.failed").count() == 1
    red = page.locator("tr.failed .mark").evaluate("(cell) => getComputedStyle(cell).color")
    green = page.locator("tr.held .mark").first.evaluate("(cell) => getComputedStyle(cell).color")
    assert red != green
    widths = page.evaluate("[...document.images].map((image) => image.naturalWidth)")
    assert len(widths) == 2
    assert min(widths) > 0
    for curves in page.locator("svg.plot").all():
        assert curves.locator("path.curve").count() > 0
        assert all(len(path.get_attribute("d") or "") > 100 for path in curves.locator("path.curve.loud").all())
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((element) => element.id)")
    assert len(ids) == len(set(ids))


def test_the_slider_moves_every_picture(visit: Visit) -> None:
    before = visit.pictures()
    box = visit.slider.bounding_box()
    assert box is not None
    visit.slider.click(position={"x": 0.7 * box["width"], "y": 0.5 * box["height"]})
    assert 0.6 < visit.at() / visit.last() < 0.8
    after = visit.pictures()
    assert len(before) == 2 + 3 + 1  # W1 and W2; loss, norms and cosines; the words
    assert all(old != new for old, new in zip(before, after, strict=True))


def test_the_heat_map_shows_the_weights(visit: Visit) -> None:
    """At the last saddle three rows of W1 are alive: the others are white."""
    visit.page.get_by_label("Go to plateau 4").click()
    rows = visit.page.evaluate(
        """() => {
          const canvas = document.querySelector('canvas'), pen = canvas.getContext('2d');
          const cell = 26 * 2, out = [];  // drawn twice as sharp
          for (let row = 0; row < 8; row += 1) {
            const line = pen.getImageData(34 * 2 + 4, 20 * 2 + cell * row + cell / 2, 6 * cell - 8, 1).data;
            out.push(Math.min(...line));
          }
          return out;
        }"""
    )
    assert [row for row, darkest in enumerate(rows) if darkest < 200] == [1, 2, 6]


def test_it_works_by_keyboard_alone(visit: Visit) -> None:
    page = visit.page
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.type") == "range":
            break
    assert page.evaluate("document.activeElement.type") == "range"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    start = visit.slider.get_attribute("aria-valuetext")
    page.keyboard.press("ArrowRight")
    assert visit.at() == 1
    page.keyboard.press("PageUp")
    assert visit.at() > 2
    page.keyboard.press("End")
    assert visit.at() == visit.last()
    page.keyboard.press("Home")
    assert visit.at() == 0
    page.keyboard.press("ArrowLeft")
    assert visit.at() == 0
    page.keyboard.press("End")
    words = visit.slider.get_attribute("aria-valuetext") or ""
    assert words != start
    assert "loss 1.00e-12" in words
    live = page.locator("[aria-live=polite]")
    wait_until(page, lambda: live.text_content() == words)
    page.keyboard.press("Tab")  # the previous saddle
    page.keyboard.press("Enter")
    assert "on plateau 3 (2 active)" in (visit.slider.get_attribute("aria-valuetext") or "")


def test_the_buttons_go_from_saddle_to_saddle(visit: Visit) -> None:
    page = visit.page
    back, forth = page.get_by_label("Previous saddle"), page.get_by_label("Next saddle")
    assert back.is_disabled()  # the first plateau is the start
    seen = []
    while forth.is_enabled():
        forth.click()
        seen.append(visit.at())
        current = page.locator("button[aria-current=true]")
        assert current.count() == 1
        assert current.inner_text().startswith(f"{len(seen) + 1}:")
    assert len(seen) == 3
    assert seen == sorted(set(seen))
    assert "3 active" in page.locator(".now").inner_text()
    back.click()
    assert visit.at() == seen[1]
    table = page.locator(".points").inner_text()
    assert "layer 1, neuron 1" in table
    assert "yes" in table
    page.get_by_label("Go to plateau 2").click()
    assert visit.at() == seen[0]
    assert "layer 1, neuron 6" in page.locator(".points").inner_text()


def test_axis_colours_and_play(visit: Visit) -> None:
    page = visit.page
    page.get_by_label("Go to plateau 3").click()
    first = page.locator("path.curve").first.get_attribute("d")
    page.get_by_label("Horizontal axis").select_option(label="physical time t")
    assert page.locator("path.curve").first.get_attribute("d") != first
    maps = visit.pictures()[:2]
    page.get_by_role("combobox", name="Colours").select_option(label="logarithmic, six decades")
    assert all(old != new for old, new in zip(maps, visit.pictures()[:2], strict=True))
    at = visit.at()
    page.get_by_role("button", name="Play").click()
    wait_until(page, lambda: visit.at() > at + 3)
    page.get_by_role("button", name="Pause").click()
    stopped = visit.at()
    page.wait_for_timeout(200)
    assert visit.at() == stopped


def test_a_link_opens_at_its_moment(browser: Browser, stairs: Path) -> None:
    visit = Visit(browser, stairs)
    visit.page.goto(f"{stairs.resolve().as_uri()}#flow-2:120")
    visit.page.reload()
    assert visit.at() == 120
    visit.close()


def test_it_prints_the_moment_that_the_slider_shows(visit: Visit) -> None:
    page = visit.page
    page.get_by_label("Go to plateau 3").click()
    document = page.pdf(prefer_css_page_size=True)
    assert document.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", document)) <= 8
    page.emulate_media(media="print")
    assert not visit.slider.is_visible()
    assert "on plateau 3" in page.locator(".now").inner_text()
    assert page.locator(".now").is_visible()
    assert page.locator("canvas").first.is_visible()
    assert page.get_by_text("SHA-256").first.is_visible()  # provenance is unfolded on paper
    for whole in ("figure.map", ".panel"):
        assert page.locator(whole).first.evaluate("(e) => getComputedStyle(e).breakInside") == "avoid"


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_it_fits_phones_and_dark_rooms(browser: Browser, stairs: Path, width: int, scheme: str) -> None:
    visit = Visit(browser, stairs, viewport={"width": width, "height": 840}, color_scheme=scheme)
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    light = visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert light == (scheme == "light")
    visit.close()


def test_no_text_can_inject_script(browser: Browser, tmp_path: Path) -> None:
    visit = Visit(browser, page_of(hostile_folder(tmp_path / "out")))
    page = visit.page
    for button in page.get_by_role("button").all():
        if button.is_enabled():
            button.click()
    page.wait_for_timeout(300)
    assert page.evaluate("window.pwned") is None
    assert page.locator("script").count() == 2
    assert page.locator("[onerror], [onload]").count() == 0
    assert HOSTILE[0] in page.locator("h2").last.inner_text()
    # and if a text had got through: the policy stops inline script, foreign images and inline style
    page.evaluate(
        """() => {
          const script = document.createElement('script');
          script.textContent = 'window.pwned = 2';
          const image = document.createElement('img');
          image.setAttribute('onerror', 'window.pwned = 3');
          image.src = 'file:///nowhere.png';
          document.body.append(script, image);
        }"""
    )
    page.wait_for_timeout(200)
    assert page.evaluate("window.pwned") is None
    refused = [trouble for trouble in visit.troubles if "Content Security Policy" in trouble]
    assert len(refused) >= 2
    page.close()


def test_flows_without_saddles_and_flows_that_diverge_open_too(browser: Browser, tmp_path: Path) -> None:
    simulate(tmp_path / "diagonal", DIAGONAL)
    simulate(tmp_path / "diverging", DIVERGING, expected=1)
    visit = Visit(browser, page_of(tmp_path))
    for slider in visit.page.get_by_role("slider").all():
        slider.press("End")
        assert slider.input_value() == slider.get_attribute("max")
    assert "did not" in visit.page.locator(".verdict").inner_text()
    assert visit.page.get_by_label("Next saddle").count() == visit.page.get_by_label("Go to plateau 1").count()
    visit.close()
