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


def swipe(page: Any, *fingers: tuple[float, float, float, float]) -> None:
    """Move fingers over the image, each from (x, y) to (x, y), in shares of it."""
    page.evaluate("scrollTo(0, 0)")
    box = page.locator(".frame").first.bounding_box()
    protocol = page.context.new_cdp_session(page)
    for step in range(-1, 9):
        share, points = max(step, 0) / 8, []
        for number, (a, b, c, d) in enumerate(fingers):
            x, y = a + share * (c - a), b + share * (d - b)
            at = {"x": box["x"] + box["width"] * x, "y": box["y"] + box["height"] * y}
            points.append({**at, "id": number})
        kind = "touchStart" if step < 0 else "touchMove"
        protocol.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    protocol.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    protocol.detach()
