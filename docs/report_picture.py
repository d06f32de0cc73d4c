"""Draw docs/report.png: ``python docs/report_picture.py PAGE.html`` (docs/report.md says how the page is made).

Needs playwright and Debian's chromium.  The picture shows two parts of the page, one above the other: its head
with the claims, and the walk through the flow at the moment when the third neuron comes alive.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

CHROMIUM = "/usr/bin/chromium"
WIDTH, HEIGHT = 1180, 3200  # high enough for the whole page: nothing scrolls
MARGIN = 24
TARGET = Path(__file__).with_name("report.png")


def main(page_file: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto(page_file.resolve().as_uri())
        walk = page.locator("section.walk").first
        walk.get_by_label("Go to plateau 3").click()
        slider = walk.get_by_role("slider")
        for _ in range(80):  # on from the plateau, until the neuron has grown
            slider.press("ArrowRight")
        page.mouse.move(0, 0)
        slider.blur()
        places = (page.locator("header"), page.locator("main > section").first, walk)
        parts = [Image.open(io.BytesIO(place.screenshot())) for place in places]
        browser.close()
    size = (parts[0].width + 2 * MARGIN, sum(part.height + MARGIN for part in parts) + MARGIN)
    whole = Image.new("RGB", size, "white")
    top = MARGIN
    for part in parts:
        whole.paste(part, (MARGIN, top))
        top += part.height + MARGIN
    whole.save(TARGET, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
