"""A real browser, and what any report must do in it."""

import contextlib
from pathlib import Path

import pytest

CHROMIUM = Path("/usr/bin/chromium")
SIZES = {"phone": (360, 740), "desktop": (1280, 900)}

BEYOND = """() => [...document.querySelectorAll('main *')]
  .filter(e => !e.closest('.scroll, .sheet, pre'))
  .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
  .map(e => e.textContent)"""
"""What runs out of the page, but for what scrolls on its own."""


@contextlib.contextmanager
def chromium():
    """The system's Chromium without a window; the test is skipped where it is not there."""
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not there")
    with sync.sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=str(CHROMIUM), headless=True, args=["--no-sandbox"]
        )
        yield found
        found.close()


def opened_quietly(window, path, width, scheme):
    """A page as wide as its window that shows its pictures, is quiet and asks nobody."""
    page = window.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(BEYOND) == []
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    assert page.evaluate(broken) == 0
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    channels = [int(c) for c in ground.removeprefix("rgb(").removesuffix(")").split(",")]
    assert (min(channels) > 200) if scheme == "light" else (max(channels) < 60)
    return page
