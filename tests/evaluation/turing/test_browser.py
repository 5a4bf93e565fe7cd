import contextlib
import json
from typing import Any

import numpy as np
import pytest

from gansynth_evaluate.turing import TuringOptions, make_study, results
from tests.benchmark.browsing import CHROMIUM
from tests.evaluation.turing.browsing import (
    DESKTOP,
    PHONE,
    READY,
    WAIT_MS,
    begun,
    drag,
    given,
    opened,
    pixels,
    saved,
    swipe,
    wait_for,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def rating(browser, flat_study):
    """A page that shows the first slice, and answers so far."""
    page = begun(browser, flat_study)
    wait_for(page, 1)
    yield page, lambda: [one["answer"] for one in given(page, flat_study)]
    page.context.close()


def test_a_whole_study_by_keyboard_alone_gives_a_file_that_is_counted_then_the_browser_forgets(
    browser, flat_study
):
    keys, said = "rssrrsrs", {"r": "real", "s": "synthetic"}
    page = opened(browser, flat_study)
    page.keyboard.type("  Dr.  Ito ")  # the name has the focus
    page.keyboard.press("Tab")
    page.keyboard.type("12.5")
    page.keyboard.press("Enter")
    for number, key in enumerate(keys, 1):
        wait_for(page, number)
        assert page.locator("#live").inner_text() == f"Image {number} of 8"
        page.keyboard.press(key)
    page.wait_for_selector("#end:not([hidden])")
    assert page.evaluate("document.activeElement.textContent") == "Thank you"
    assert page.locator("#forget").is_hidden()
    path = saved(page, flat_study)
    assert path.name == f"answers-{flat_study.id}-rater-1.json"
    document = json.loads(path.read_text())
    assert (document["name"], document["years"]) == ("Dr. Ito", 12.5)
    assert [one["answer"] for one in document["answers"]] == [said[key] for key in keys]
    truth = [flat_study.key[number]["truth"] for number in flat_study.codes(1).values()]
    right = sum(said[key] == kind for key, kind in zip(keys, truth, strict=True))
    assert results(flat_study, [path])["raters"][0]["table"]["correct"] == right
    assert page.said == []
    assert [url for url in page.asked if not url.startswith(("data:", "blob:"))] == [page.url]
    page.click("#forget")
    assert page.evaluate("localStorage.length") == 0
    page.reload()
    page.wait_for_selector("#name:visible")
    page.context.close()


@contextlib.contextmanager
def in_a_profile(browser, folder):
    """A browser with a profile on disk; a page of it."""
    context = browser.browser_type.launch_persistent_context(
        folder, executable_path=str(CHROMIUM), headless=True, args=["--no-sandbox"]
    )
    yield context.new_page()
    context.close()


def test_a_browser_that_was_closed_goes_on_at_the_first_image_without_an_answer(
    browser, made, flat_study, tmp_path
):
    make_study(made, flat_study.folder, TuringOptions(n=4, origin="all"), raters=2)
    link = (flat_study.folder / "pages" / "rater-1.html").as_uri()
    with in_a_profile(browser, tmp_path / "profile") as page:
        page.goto(link)
        page.fill("#name", "Dr. Ito")
        page.click("text=Begin")
        for number, key in enumerate("rr", 1):
            wait_for(page, number)
            page.keyboard.press(key)
        wait_for(page, 3)
    with in_a_profile(browser, tmp_path / "profile") as page:
        page.goto(link)
        wait_for(page, 3)
        page.keyboard.press("s")
        wait_for(page, 4)
        answers = given(page, flat_study)
        page.goto(link.replace("rater-1", "rater-2"))  # who has answers of their own
        page.wait_for_selector("#name:visible")
    assert [one["answer"] for one in answers] == ["real", "real", "synthetic"]


NO_STORAGE = "() => { Storage.prototype.setItem = () => { throw new Error('full'); } }"


def test_a_browser_that_keeps_nothing_says_so_and_the_answers_can_be_saved(browser, flat_study):
    page = opened(browser, flat_study)
    page.evaluate(NO_STORAGE)
    page.fill("#name", "Dr. Ito")
    page.click("text=Begin")
    page.wait_for_selector("#trouble:has-text('This browser does not keep your answers')")
    for number in range(1, 9):
        wait_for(page, number)
        page.keyboard.press("s")
    page.wait_for_selector("#end:not([hidden])")
    assert len(given(page, flat_study)) == 8
    page.context.close()


def test_an_image_that_was_answered_in_another_window_is_passed_over(rating):
    page, answers = rating
    other = page.context.new_page()
    other.goto(page.url)
    wait_for(other, 1)
    other.keyboard.press("r")
    wait_for(other, 2)
    page.bring_to_front()
    page.keyboard.press("s")
    wait_for(page, 2)
    assert answers() == ["real"]


AT_ONCE = """() => {
  const button = document.getElementById("real");
  new MutationObserver(() => button.click()).observe(button, { attributes: true });
  button.click();
}"""
"""Presses the button, and again whenever an image can be answered, much sooner than anybody."""


@pytest.mark.parametrize("held", [False, True], ids=["pressed at once", "held key"])
def test_one_answer_answers_one_image(rating, held):
    page, answers = rating
    if not held:
        page.evaluate(AT_ONCE)
    for _ in range(3 if held else 0):  # what a key sends again and again until it is up
        page.keyboard.down("r")
        page.wait_for_timeout(2 * WAIT_MS)
    wait_for(page, 2)
    assert answers() == ["real"]


def test_keys_of_the_browser_are_no_answers_and_letters_can_be_switched_off(rating):
    page, answers = rating
    for key in ("Control+s", "Alt+r", "Meta+s"):
        page.keyboard.press(key)
    page.click("#keys summary")
    page.uncheck("#shortcuts")
    page.keyboard.press("r")
    page.click("#synthetic")
    wait_for(page, 2)
    assert answers() == ["synthetic"]


def test_no_other_script_runs_and_nothing_is_sent(rating):
    page, _ = rating
    for script in ({"content": "document.title = 'taken'"}, {"url": "data:text/javascript,"}):
        with pytest.raises(Exception, match="TrustedScript"):
            page.add_script_tag(**script)
    assert page.title() == "Real or synthetic?"
    with pytest.raises(Exception, match=r"Failed to fetch|Content Security Policy"):
        page.evaluate("fetch('https://example.org/')")


NAMED = {"button", "slider", "textbox", "spinbutton", "radio", "checkbox", "combobox", "image"}
SMALL = """least => [...document.querySelectorAll("button, select, summary, input, fieldset label")]
  .filter(e => e.offsetParent && !e.matches("[type=radio], [type=checkbox]"))
  .map(e => [e.id || e.textContent.trim(), e.getBoundingClientRect()])
  .filter(([, box]) => box.width < least || box.height < least)
  .map(([name, box]) => `${name}: ${box.width} x ${box.height}`)"""
FAINT = """least => {
  const light = text => {
    const linear = text.match(/[\\d.]+/g).map(Number).slice(0, 3).map(v => v / 255)
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
MOVING = """() => [...document.querySelectorAll("*")].map(e => getComputedStyle(e)).filter(style =>
  parseFloat(style.transitionDuration) > 0 || parseFloat(style.animationDuration) > 0).length"""
FOCUSED = """() => {
  const e = document.activeElement, style = getComputedStyle(e);
  return [e.id || `${e.type} ${e.value}` || e.textContent.trim(), e.tagName,
          style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2];
}"""


def usable(page: Any, wide: int) -> None:
    """Names, sizes, contrast, no motion, nothing beyond the edge, with all folds opened."""
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.locator("html").get_attribute("lang") == "en"
    assert [page.locator(one).count() for one in ("main:visible", "h1:visible")] == [1, 1]
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    used = [n for n in nodes if n.get("role", {}).get("value") in NAMED and not n.get("ignored")]
    assert used
    assert [n for n in used if not n.get("name", {}).get("value", "").strip()] == []
    assert page.evaluate(SMALL, 44) == []
    assert page.evaluate(FAINT, 4.5) == []
    assert page.evaluate(MOVING) == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= wide
    assert page.said == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["slices", "volumes"])
@pytest.mark.parametrize("window", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_page_can_be_used_by_everybody(browser, window, kind, scheme, flat_study, deep_study):
    study, wide = flat_study if kind == "slices" else deep_study, window["viewport"]["width"]
    page = opened(browser, study, **window, color_scheme=scheme)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
    usable(page, wide)
    page.click("text=Begin")
    page.wait_for_selector("#said:text('1 to 40 letters')")  # a slip is said beside it
    assert page.locator("#said").get_attribute("role") == "alert"
    assert page.evaluate("document.activeElement.id") == "name"
    assert page.locator("#name").get_attribute("aria-describedby") == "said"
    page.fill("#name", "Dr. Ito")
    page.fill("#years", "99")
    page.get_by_role("button", name="Begin").click()
    page.wait_for_selector("#said:text('from 0 to 80')")
    page.fill("#years", "")
    page.get_by_role("button", name="Begin").click()
    page.wait_for_selector(READY)
    usable(page, wide)
    assert page.locator("#live").get_attribute("aria-live") == "polite"
    assert page.locator("#trouble").get_attribute("role") == "alert"
    number = page.locator("#live").inner_text()
    assert page.locator("#viewer").get_attribute("aria-label").startswith(number)
    for image in range(1, len(study.key) + 1):
        wait_for(page, image)
        page.click("#synthetic")
        if image == 1:
            wait_for(page, 2)
            assert page.evaluate("document.activeElement.id") == "synthetic"
    page.wait_for_selector("#end:not([hidden])")
    saved(page, study)
    usable(page, wide)
    page.context.close()


def test_the_keyboard_reaches_everything_and_the_focus_is_seen(browser, deep_study):
    page = begun(browser, deep_study, **DESKTOP)
    page.locator("#viewer").focus()
    seen: list[str] = []
    for _ in range(40):
        page.keyboard.press("Tab")
        name, tag, ring = page.evaluate(FOCUSED)
        if tag == "BODY" or name in seen:
            break
        assert ring, name
        seen.append(name)
    assert {"slice", "real", "synthetic", "level", "width", "plane", "in", "reset"} <= set(seen)
    assert seen.index("slice") < seen.index("real") < seen.index("level")
    before = page.locator("#place").inner_text()
    page.locator("#level").focus()
    page.keyboard.press("ArrowDown")  # moves the slider alone
    assert page.locator("#place").inner_text() == before
    assert page.locator("#level").input_value() == "127"
    page.context.close()


@pytest.fixture
def viewed(browser, deep_study):
    """A page with the first volume, and its voxels (C, D, H, W)."""
    page = begun(browser, deep_study)
    first = next(iter(deep_study.codes(1).values()))
    page.locator("#viewer").focus()
    yield page, np.load(deep_study.folder / "images.npy")[first]
    assert page.said == []
    page.context.close()


def windowed(values: Any, level: float, width: float) -> list[int]:
    """Grey values of a window: its level is half grey, black to white is its width."""
    grey = np.floor(((values - level) / width + 0.5) * 255 + 0.5)
    return [int(value) for value in np.clip(grey, 0, 255).ravel()]


def place(page: Any) -> int:
    return int(page.locator("#place").inner_text().split(" of ")[0]) - 1


def test_keys_wheel_slider_and_mouse_lead_through_the_slices_to_the_byte(viewed):
    page, volume = viewed
    depth = volume.shape[1]
    middle = depth // 2

    def shows(wanted: int) -> None:
        page.wait_for_selector(f"#place:text-is('{wanted + 1} of {depth}')")
        assert pixels(page) == volume[0, wanted].ravel().tolist()
        label = page.locator("#viewer").get_attribute("aria-label")
        assert f"slice {wanted + 1} of {depth}" in label

    shows(middle)
    assert pixels(page, 1) == volume[1, middle].ravel().tolist()
    for key, wanted in {
        "ArrowDown": middle + 1,
        "ArrowUp": middle - 1,
        "PageDown": min(middle + 10, depth - 1),
        "PageUp": max(middle - 10, 0),
        "Home": 0,
        "End": depth - 1,
    }.items():
        page.keyboard.press(key)
        shows(wanted)
        page.keyboard.press("0")
    page.locator("canvas").first.hover()
    page.mouse.wheel(0, 150)
    shows(middle + 3)
    page.keyboard.press("0")
    drag(page, 0, page.locator(".frame").first.bounding_box()["height"] / depth * 2.5)
    shows(middle + 2)
    page.locator("#slice").focus()
    page.keyboard.press("ArrowRight")
    shows(middle + 3)
    label = f"{middle + 4} of {depth}"
    assert page.locator("#slice").get_attribute("aria-valuetext") == label


@pytest.mark.parametrize(("plane", "axis"), [("1", 1), ("2", 2)])
def test_planes_are_cut_through_the_other_axes(viewed, plane, axis):
    page, volume = viewed
    page.select_option("#plane", plane)
    page.locator("#viewer").focus()
    for key, wanted in (("", volume.shape[axis + 1] // 2), ("Home", 0)):
        if key:
            page.keyboard.press(key)
        assert pixels(page, 1) == np.take(volume[1], wanted, axis=axis).ravel().tolist()
        assert place(page) == wanted


def test_brightness_and_contrast_change_by_keys_sliders_and_mouse_in_all_channels(viewed):
    page, volume = viewed
    middle = volume[:, volume.shape[1] // 2]
    plain = pixels(page)
    for key, times, level, width in (
        *(("ArrowRight", 1, 119.5, 255), ("ArrowLeft", 1, 135.5, 255)),
        ("Shift+ArrowRight", 3, 127.5, 255 * 1.1**-3),
        ("Shift+ArrowLeft", 3, 127.5, 255 * 1.1**3),
    ):
        for _ in range(times):
            page.keyboard.press(key)
        for channel in range(2):
            assert pixels(page, channel) == windowed(middle[channel], level, width)
        page.click("#reset")
        page.locator("#viewer").focus()
    for slider in ("level", "width"):
        page.locator(f"#{slider}").focus()
        page.keyboard.press("PageUp")
        assert pixels(page) != plain
        page.click("#reset")
        assert pixels(page) == plain
    page.check("#drag [value=window]")
    drag(page, 40, -60)
    assert pixels(page) != plain


TRANSFORM = "c => [getComputedStyle(c).imageRendering, getComputedStyle(c).transform]"


def zoom(page: Any) -> float:
    rendering, transform = page.locator("canvas").first.evaluate(TRANSFORM)
    assert rendering == "pixelated"
    return float(transform.removeprefix("matrix(").split(",")[0])


def test_zoom_changes_no_pixel_and_moves_within_the_frame_in_the_bodys_shape(viewed):
    page, volume = viewed
    before, size = pixels(page), volume.shape[1:]
    box = page.locator("canvas").first.bounding_box()
    assert box["width"] / box["height"] == pytest.approx(size[2] / size[1], rel=0.03)
    boxes = [page.locator(".frame").nth(n).bounding_box() for n in range(2)]
    assert boxes[0]["y"] == boxes[1]["y"]
    names = [page.locator("canvas").nth(n).get_attribute("aria-label") for n in range(2)]
    assert names == ["T1", "FLAIR"]
    for _ in range(4):
        page.keyboard.press("+")
    assert zoom(page) == pytest.approx(1.25**4, rel=1e-3)
    assert pixels(page) == before
    page.check("#drag [value=move]")
    drag(page, 4000, 4000)
    inner, outer = (page.locator(n).first.bounding_box() for n in ("canvas", ".frame"))
    assert (inner["x"], inner["y"]) == pytest.approx((outer["x"], outer["y"]), abs=1)


def test_fingers_lead_through_the_slices_change_the_window_and_zoom(browser, deep_study):
    page = begun(browser, deep_study, **PHONE)
    before, images = place(page), pixels(page)
    swipe(page, (0.5, 0.4, 0.5, 0.7))
    assert place(page) > before
    assert pixels(page) != images
    assert page.evaluate("scrollY") == 0
    page.locator("#reset").tap()
    page.locator("#drag [value=window]").tap()
    swipe(page, (0.5, 0.5, 0.8, 0.2))
    assert pixels(page) != images
    page.locator("#reset").tap()
    swipe(page, (0.45, 0.5, 0.2, 0.5), (0.55, 0.5, 0.8, 0.5))
    assert zoom(page) > 2
    assert page.said == []
    page.context.close()
