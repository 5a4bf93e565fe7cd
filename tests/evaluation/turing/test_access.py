"""What everybody needs of the pages: names, sizes, contrast, a focus that is seen, no motion."""
# mypy: disallow-untyped-calls=False

from typing import Any

import pytest

from tests.evaluation.turing.browsing import PHONE, READY, begun, opened
from tests.evaluation.turing.serving import change, served

DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
NAMED = {"button", "slider", "textbox", "spinbutton", "radio", "checkbox", "combobox", "image"}
SMALL = """least => [...document.querySelectorAll("button, select, summary, input, fieldset label")]
  .filter(e => e.offsetParent && !e.matches("[type=radio], [type=checkbox]"))
  .map(e => [e.id || e.textContent.trim(), e.getBoundingClientRect()])
  .filter(([, box]) => box.width < least || box.height < least)
  .map(([name, box]) => `${name}: ${box.width} x ${box.height}`)"""
FAINT = """least => {
  const light = text => {
    const parts = text.match(/[\\d.]+/g).map(Number);
    const linear = parts.slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const ground = e => {
    for (; e; e = e.parentElement) {
      const found = getComputedStyle(e).backgroundColor;
      if (!found.endsWith(", 0)") && found !== "transparent") return light(found);
    }
    return 1;
  };
  const apart = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const faint = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || !e.offsetParent) continue;
    const found = apart(light(getComputedStyle(e).color), ground(e));
    if (found < least) faint.push(`${e.tagName} ${walk.currentNode.textContent.trim()}: ${found}`);
  }
  for (const e of document.querySelectorAll("button:not(.main), select, input[name]")) {
    if (!e.offsetParent || e.type === "radio") continue;
    const found = apart(light(getComputedStyle(e).borderTopColor), ground(e.parentElement));
    if (found < 3) faint.push(`border of ${e.id}: ${found}`);
  }
  return faint;
}"""
MOVING = """() => [...document.querySelectorAll("*")].filter(e => {
  const style = getComputedStyle(e);
  return parseFloat(style.transitionDuration) > 0 || parseFloat(style.animationDuration) > 0;
}).length"""
FOCUSED = """() => {
  const e = document.activeElement, style = getComputedStyle(e);
  return [e.id || `${e.type} ${e.value}` || e.textContent.trim(), e.tagName,
          style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2];
}"""


@pytest.fixture(params=["desktop", "phone"])
def window(request) -> dict[str, Any]:
    return {"desktop": DESKTOP, "phone": PHONE}[request.param]


@pytest.fixture(params=["join", "slices", "volumes", "end"])
def page(request, browser, window, flat_session, deep_session):
    """Each page there is, with all that is folded away opened."""
    folder = flat_session if request.param == "slices" else deep_session
    change(folder, show_results=True, instructions="Look first.")
    with served(folder) as site:
        if request.param == "end":
            site.finish(site.join("Dr. Ito"))
            page = opened_with(browser, site, window)
            page.wait_for_selector("#end:not([hidden])")
        elif request.param == "join":
            page = opened(browser, site.link, **window)
        else:
            page = begun(browser, site.link, **window)
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        yield page
        assert page.said == []
        page.context.close()


def opened_with(browser: Any, site: Any, window: dict[str, Any]) -> Any:
    """A page with a visitor's cookies."""
    context = browser.new_context(**window)
    url = f"http://{site.host}"
    context.add_cookies([{"name": k, "value": v, "url": url} for k, v in site.cookies.items()])
    page = context.new_page()
    page.said = []
    page.on("console", lambda message: page.said.append(message.text))
    page.goto(url)
    return page


def test_every_page_can_be_used_by_everybody(page, window):
    assert page.locator("html").get_attribute("lang") == "en"
    for one in ("main:visible", "h1:visible"):
        assert page.locator(one).count() == 1
    assert nameless(page) == []
    assert page.evaluate(SMALL, 44) == []
    assert page.evaluate(FAINT, 4.5) == []
    assert page.evaluate(MOVING) == 0
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= window["viewport"]["width"]


def nameless(page: Any) -> list[str]:
    """What can be used, or is an image, and has no name for those who do not see it."""
    protocol = page.context.new_cdp_session(page)
    nodes = protocol.send("Accessibility.getFullAXTree")["nodes"]
    used = [node for node in nodes if node.get("role", {}).get("value") in NAMED]
    assert used
    return [
        node["role"]["value"]
        for node in used
        if not node.get("ignored") and not node.get("name", {}).get("value", "").strip()
    ]


def test_the_keyboard_reaches_everything_and_the_focus_is_seen(browser, deep_session):
    with served(deep_session) as site:
        page = begun(browser, site.link, **DESKTOP)
        page.locator("#viewer").focus()
        seen = []
        for _ in range(40):
            page.keyboard.press("Tab")
            name, tag, ring = page.evaluate(FOCUSED)
            if tag == "BODY" or name in seen:
                break
            assert ring, name
            seen.append(name)
        for name in ("slice", "real", "synthetic", "level", "width", "plane", "in", "reset"):
            assert name in seen
        assert seen.index("slice") < seen.index("real") < seen.index("level")
        page.context.close()


def test_arrow_keys_in_a_slider_move_the_slider_alone(browser, deep_session):
    with served(deep_session) as site:
        page = begun(browser, site.link)
        before = page.locator("#place").inner_text()
        page.locator("#level").focus()
        page.keyboard.press("ArrowDown")
        assert page.locator("#place").inner_text() == before
        assert page.locator("#level").input_value() == "127"
        page.context.close()


def test_what_goes_on_is_said(browser, flat_session):
    with served(flat_session) as site:
        page = begun(browser, site.link)
        assert page.locator("#live").get_attribute("aria-live") == "polite"
        assert page.locator("#live").inner_text() == "Image 1 of 8"
        assert page.locator("#trouble").get_attribute("role") == "alert"
        assert page.locator("#viewer").get_attribute("aria-label") == "Image 1 of 8"
        page.wait_for_selector(READY)
        page.wait_for_timeout(320)
        page.click("#synthetic")
        page.wait_for_selector("#live:text-is('Image 2 of 8')")
        assert page.evaluate("document.activeElement.id") == "synthetic"
        page.context.close()


def test_a_slip_in_the_form_is_said_beside_it(browser, flat_session):
    with served(flat_session) as site:
        page = opened(browser, site.link)
        page.click("text=Begin")
        page.wait_for_selector("#said:text('1 to 40 letters')")
        assert page.locator("#said").get_attribute("role") == "alert"
        assert page.evaluate("document.activeElement.id") == "name"
        assert page.locator("#name").get_attribute("aria-describedby") == "said"
        page.context.close()
