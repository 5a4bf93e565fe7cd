"""Pictures of ``gansynth evaluate``'s report in docs/evaluate.md, of a run on phantoms.

    gansynth evaluate RUN -n 48
    python benchmarks/draw_evaluate.py RUN [--chromium /usr/bin/chromium]

RUN is one of simulated people (``bench_evaluate.py --sets phantoms --home HOME`` leaves some): its
report holds thumbnails of real images, and these are in the pictures.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from PIL import Image

IMAGES = Path(__file__).parents[1] / "docs" / "images"
WIDTH = 1180


def main() -> None:
    """Open the report in a browser, and save what it shows."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    args = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=args.chromium)
        window = {"width": WIDTH, "height": 900}
        page = browser.new_page(viewport=window, color_scheme="light", device_scale_factor=1)
        page.goto((args.run / "evaluation" / "report.html").resolve().as_uri())
        save(page.screenshot(clip=within(page, "#realism", 560)), "evaluate_realism.png")
        page.set_viewport_size(window)
        picture = page.locator(".map").first
        picture.evaluate("element => element.scrollIntoView({block: 'center'})")
        box = picture.locator(".point.synthetic").nth(7).bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.wait_for_timeout(300)
        save(page.screenshot(), "evaluate_maps.png")
        browser.close()


def within(page, name: str, most: float):  # type: ignore[no-untyped-def]
    """The place of a section on the page, no higher than so many pixels."""
    page.set_viewport_size({"width": WIDTH, "height": 6000})
    box = page.locator(name).bounding_box()
    return {**box, "x": 0, "width": WIDTH, "height": min(most, box["height"])}


def save(data: bytes, name: str) -> None:
    """As a small PNG."""
    picture = Image.open(io.BytesIO(data)).convert("RGB").quantize(128)
    picture.save(IMAGES / name, optimize=True)


if __name__ == "__main__":
    main()
