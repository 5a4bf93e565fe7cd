"""A rater with a real browser: pages opened, images answered, pixels read."""

import json
from pathlib import Path
from typing import Any

from gansynth_evaluate.turing import Study

DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
PHONE: dict[str, Any] = {
    "viewport": {"width": 360, "height": 740},
    "has_touch": True,
    "is_mobile": True,
    "device_scale_factor": 2,
}
READY = "#real[aria-disabled=false]"
PIXELS = """canvas => {
  const copy = new OffscreenCanvas(canvas.width, canvas.height);
  const drawing = copy.getContext("2d", { willReadFrequently: true });
  drawing.drawImage(canvas, 0, 0);
  const { data } = drawing.getImageData(0, 0, canvas.width, canvas.height);
  return Array.from(data.filter((_, i) => i % 4 == 0));
}"""
WAIT_MS = 320
"""An image cannot be answered before; see LEAST_MS in main.js."""


def opened(browser: Any, study: Study, **window: Any) -> Any:
    """The first rater's page from its file; ``page.said`` and ``page.asked`` collect."""
    page = browser.new_context(**window).new_page()
    page.said, page.asked = [], []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto((study.folder / "pages" / "rater-1.html").as_uri())
    page.wait_for_selector("#name")
    return page


def begun(browser: Any, study: Study, **window: Any) -> Any:
    page = opened(browser, study, **window)
    page.fill("#name", "Dr. Ito")
    page.click("text=Begin")
    page.wait_for_selector(READY)
    return page


def wait_for(page: Any, number: int) -> None:
    """Until an image of that number can be answered."""
    page.wait_for_selector(f"#progress:text-matches('^Image {number} of')")
    page.wait_for_selector(READY)
    page.wait_for_timeout(WAIT_MS)


def saved(page: Any, study: Study) -> Path:
    """The file of answers that the page saves, by the first such button in sight."""
    page.evaluate("document.getElementById('seat').open = true")
    with page.expect_download() as download:
        page.locator(".save:visible").first.click()
    path: Path = study.folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def given(page: Any, study: Study) -> list[dict[str, Any]]:
    """The answers so far, as a file saved now has them."""
    answers: list[dict[str, Any]] = json.loads(saved(page, study).read_text())["answers"]
    return answers


def pixels(page: Any, channel: int = 0) -> list[int]:
    found: list[int] = page.locator("canvas").nth(channel).evaluate(PIXELS)
    return found


def drag(page: Any, dx: float, dy: float) -> None:
    box = page.locator(".frame").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + dx, y + dy, steps=4)
    page.mouse.up()
