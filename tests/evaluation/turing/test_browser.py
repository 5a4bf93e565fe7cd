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
    begun,
    drag,
    given,
    opened,
    pixels,
    saved,
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


def test_a_whole_study_by_keyboard_alone_gives_a_file_that_is_counted(browser, flat_study):
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
    path = saved(page, flat_study)
    assert path.name == f"answers-{flat_study.id}-rater-1.json"
    document = json.loads(path.read_text())
    assert (document["name"], document["years"]) == ("Dr. Ito", 12.5)
    assert [one["answer"] for one in document["answers"]] == [said[key] for key in keys]
    assert all(one["ms"] >= 300 for one in document["answers"])
    truth = [flat_study.key[number]["truth"] for number in flat_study.codes(1).values()]
    right = sum(said[key] == kind for key, kind in zip(keys, truth, strict=True))
    assert results(flat_study, [path])["raters"][0]["table"]["correct"] == right
    assert page.said == []
    assert [url for url in page.asked if not url.startswith(("data:", "blob:"))] == [page.url]
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
    browser, flat_study, tmp_path
):
    link = (flat_study.folder / "pages" / "rater-1.html").as_uri()
    with in_a_profile(browser, tmp_path / "profile") as page:
        page.goto(link)
        page.fill("#name", "Dr. Ito")
        page.click("text=Begin")
        for number, key in enumerate("rr", 1):
            wait_for(page, number)
            page.keyboard.press(key)
        wait_for(page, 3)
        page.wait_for_timeout(1500)
    with in_a_profile(browser, tmp_path / "profile") as page:
        page.goto(link)
        wait_for(page, 3)
        page.keyboard.press("s")
        wait_for(page, 4)
        answers = given(page, flat_study)
    assert [one["answer"] for one in answers] == ["real", "real", "synthetic"]
    assert answers[2]["ms"] > 1500  # what was seen before it was closed counts


def answer_all(page):
    for number in range(1, 9):
        wait_for(page, number)
        page.keyboard.press("s")
    page.wait_for_selector("#end:not([hidden])")


NO_STORAGE = "() => { Storage.prototype.setItem = () => { throw new Error('full'); } }"


def test_a_browser_that_keeps_nothing_says_so_and_the_answers_can_be_saved(browser, flat_study):
    page = opened(browser, flat_study)
    page.evaluate(NO_STORAGE)
    page.fill("#name", "Dr. Ito")
    page.click("text=Begin")
    page.wait_for_selector("#trouble:has-text('This browser does not keep your answers')")
    answer_all(page)
    assert len(given(page, flat_study)) == 8
    page.context.close()


def test_each_rater_has_answers_of_their_own_which_can_be_deleted_once_saved(
    browser, made, flat_study
):
    make_study(made.flat, flat_study.folder, TuringOptions(n=4, origin="all"), raters=2)
    page = begun(browser, flat_study)
    answer_all(page)
    own = page.url
    page.goto(own.replace("rater-1", "rater-2"))
    page.wait_for_selector("#name:visible")
    page.goto(own)
    page.wait_for_selector("#end:not([hidden])")
    assert page.locator("#forget").is_hidden()
    saved(page, flat_study)
    page.click("#forget")
    assert page.evaluate("localStorage.length") == 0
    page.reload()
    page.wait_for_selector("#name:visible")
    page.context.close()


HOLD = """() => { for (let i = 0; i < 5; i++) document.activeElement.dispatchEvent(
  new KeyboardEvent("keydown", { key: "r", code: "KeyR", bubbles: true, repeat: i > 0 })); }"""


@pytest.mark.parametrize("how", ["double click", "held key"])
def test_one_answer_answers_one_image(rating, how):
    page, answers = rating
    page.dblclick("#real") if how == "double click" else page.evaluate(HOLD)
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


HIDE = """hidden => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_time_in_which_the_page_was_hidden_is_counted_apart(rating, flat_study):
    page, _ = rating
    page.evaluate(HIDE, True)
    page.wait_for_timeout(1000)
    page.evaluate(HIDE, False)
    page.keyboard.press("r")
    wait_for(page, 2)
    (answer,) = given(page, flat_study)
    assert 990 < answer["hidden_ms"] < 3000
    assert answer["ms"] < 3000


def test_no_other_script_runs_and_nothing_is_sent(rating):
    page, _ = rating
    for script in ({"content": "document.title = 'taken'"}, {"url": "data:text/javascript,"}):
        with pytest.raises(Exception, match="TrustedScript"):
            page.add_script_tag(**script)
    assert page.title() == "Real or synthetic?"
    with pytest.raises(Exception, match=r"Failed to fetch|Content Security Policy"):
        page.evaluate("fetch('https://example.org/')")


NAMED = {"button", "slider", "textbox", "spinbutton", "radio", "checkbox", "combobox", "image"}


def usable(page: Any, wide: int) -> None:
    """Names, nothing beyond the edge, with all folds opened."""
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    used = [n for n in nodes if n.get("role", {}).get("value") in NAMED and not n.get("ignored")]
    assert used
    assert [n for n in used if not n.get("name", {}).get("value", "").strip()] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= wide
    assert page.said == []


@pytest.mark.parametrize("kind", ["desktop, slices, light", "phone, volumes, dark"])
def test_every_page_can_be_used_by_everybody(browser, kind, flat_study, deep_study):
    light = kind.endswith("light")
    study, window = (flat_study, DESKTOP) if light else (deep_study, PHONE)
    wide = window["viewport"]["width"]
    page = opened(browser, study, **window, color_scheme="light" if light else "dark")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == light
    usable(page, wide)
    page.click("text=Begin")
    page.wait_for_selector("#said:text('1 to 40 letters')")  # a slip is said beside it
    assert page.locator("#said").get_attribute("role") == "alert"
    assert page.evaluate("document.activeElement.id") == "name"
    page.fill("#name", "Dr. Ito")
    page.fill("#years", "99")
    page.get_by_role("button", name="Begin").click()
    page.wait_for_selector("#said:text('from 0 to 80')")
    page.fill("#years", "")
    page.get_by_role("button", name="Begin").click()
    page.wait_for_selector(READY)
    usable(page, wide)
    for image in range(1, len(study.key) + 1):
        wait_for(page, image)
        page.click("#synthetic")
    page.wait_for_selector("#end:not([hidden])")
    saved(page, study)
    usable(page, wide)
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


def test_keys_wheel_slider_and_mouse_lead_through_the_slices_to_the_byte(viewed):
    page, volume = viewed
    depth = volume.shape[1]
    middle = depth // 2

    def shows(wanted: int) -> None:
        page.wait_for_selector(f"#place:text-is('{wanted + 1} of {depth}')")
        assert pixels(page) == volume[0, wanted].ravel().tolist()
        page.locator("#viewer").focus()
        page.keyboard.press("0")

    assert pixels(page, 1) == volume[1, middle].ravel().tolist()
    pages = {"PageDown": min(middle + 10, depth - 1), "PageUp": max(middle - 10, 0)}
    steps = {"ArrowDown": middle + 1, "ArrowUp": middle - 1, "Home": 0, "End": depth - 1}
    for key, wanted in (pages | steps).items():
        page.keyboard.press(key)
        shows(wanted)
    page.locator("canvas").first.hover()
    page.mouse.wheel(0, 150)
    shows(middle + 3)
    drag(page, 0, page.locator(".frame").first.bounding_box()["height"] / depth * 2.5)
    shows(middle + 2)
    page.locator("#slice").focus()
    page.keyboard.press("ArrowRight")
    shows(middle + 1)
    for plane in (1, 2):
        page.select_option("#plane", str(plane))
        wanted = volume.shape[plane + 1] // 2
        assert pixels(page, 1) == np.take(volume[1], wanted, axis=plane).ravel().tolist()


def test_brightness_and_contrast_change_by_keys_sliders_and_mouse_in_all_channels(viewed):
    page, volume = viewed
    middle = volume[:, volume.shape[1] // 2]
    plain = pixels(page)
    for key, level, width in (("ArrowRight", 119.5, 255), ("Shift+ArrowLeft", 127.5, 255 * 1.1)):
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


ZOOM = "c => [getComputedStyle(c).imageRendering, getComputedStyle(c).transform]"


def test_zoom_changes_no_pixel_and_moves_within_the_frame_in_the_bodys_shape(viewed):
    page, volume = viewed
    before, size, canvas = pixels(page), volume.shape[1:], page.locator("canvas").first
    box = canvas.bounding_box()
    assert box["width"] / box["height"] == pytest.approx(size[2] / size[1], rel=0.03)
    names = [page.locator("canvas").nth(n).get_attribute("aria-label") for n in range(2)]
    assert names == ["T1", "FLAIR"]
    for _ in range(4):
        page.keyboard.press("+")
    rendering, transform = canvas.evaluate(ZOOM)
    assert rendering == "pixelated"
    zoom = float(transform.removeprefix("matrix(").split(",")[0])
    assert zoom == pytest.approx(1.25**4, rel=1e-3)
    assert pixels(page) == before
    page.check("#drag [value=move]")
    drag(page, 4000, 4000)
    inner, outer = canvas.bounding_box(), page.locator(".frame").first.bounding_box()
    assert (inner["x"], inner["y"]) == pytest.approx((outer["x"], outer["y"]), abs=1)
