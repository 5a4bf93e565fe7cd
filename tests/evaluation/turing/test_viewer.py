"""Looking at an image: slices, planes, brightness, contrast, zoom, by mouse, keys and fingers."""
# mypy: disallow-untyped-calls=False

from typing import Any

import numpy as np
import pytest

from gansynth.evaluation.turing import open_session
from tests.evaluation.turing.browsing import PHONE, begun, drag, pixels, swipe
from tests.evaluation.turing.serving import raters_of, served


@pytest.fixture(scope="module")
def shown(browser, made, tmp_path_factory):
    """A page with the first volume, and its voxels (C, D, H, W)."""
    import shutil

    folder = tmp_path_factory.mktemp("viewer") / "deep"
    shutil.copytree(made.deep / "turing" / "session", folder)
    with served(folder) as site:
        page = begun(browser, site.link)
        first = raters_of(folder)[0].order[0]
        yield page, open_session(folder).images[first], site
        assert page.said == []
        page.context.close()


@pytest.fixture
def page(shown) -> Any:
    """The page, reset."""
    found = shown[0]
    found.keyboard.press("0")
    found.locator("#viewer").focus()
    return found


@pytest.fixture
def volume(shown) -> Any:
    return shown[1]


def windowed(values: Any, level: float, width: float) -> list[int]:
    """Grey values of a window: its level is half grey, black to white is its width."""
    grey = np.floor(((values - level) / width + 0.5) * 255 + 0.5)
    return [int(value) for value in np.clip(grey, 0, 255).ravel()]


def place(page: Any) -> int:
    """Number of the slice, from 0."""
    return int(page.locator("#place").inner_text().split(" of ")[0]) - 1


def test_the_middle_slice_is_shown_first_to_the_byte(page, volume):
    middle = volume.shape[1] // 2
    for channel in range(2):
        assert pixels(page, channel) == volume[channel, middle].ravel().tolist()


@pytest.mark.parametrize(
    ("key", "to"),
    [
        ("ArrowDown", lambda m, n: m + 1),
        ("ArrowUp", lambda m, n: m - 1),
        ("PageDown", lambda m, n: min(m + 10, n - 1)),
        ("PageUp", lambda m, n: max(m - 10, 0)),
        ("Home", lambda m, n: 0),
        ("End", lambda m, n: n - 1),
    ],
)
def test_keys_lead_through_the_slices(page, volume, key, to):
    page.keyboard.press(key)
    depth = volume.shape[1]
    wanted = to(depth // 2, depth)
    assert pixels(page) == volume[0, wanted].ravel().tolist()
    assert place(page) == wanted
    assert f"slice {wanted + 1} of {depth}" in page.locator("#viewer").get_attribute("aria-label")


def test_the_wheel_leads_through_the_slices(page, volume):
    page.locator("canvas").first.hover()
    page.mouse.wheel(0, 150)
    wanted = volume.shape[1] // 2 + 3
    page.wait_for_selector(f"#place:text-is('{wanted + 1} of {volume.shape[1]}')")
    assert pixels(page) == volume[0, wanted].ravel().tolist()


def test_the_slider_leads_through_the_slices(page, volume):
    page.locator("#slice").focus()
    page.keyboard.press("ArrowRight")
    wanted = volume.shape[1] // 2 + 1
    assert pixels(page) == volume[0, wanted].ravel().tolist()
    label = f"{wanted + 1} of {volume.shape[1]}"
    assert page.locator("#slice").get_attribute("aria-valuetext") == label


def test_dragging_leads_through_the_slices(page, volume):
    height = page.locator(".frame").first.bounding_box()["height"]
    drag(page, 0, height / volume.shape[1] * 2.5)
    assert place(page) == volume.shape[1] // 2 + 2


@pytest.mark.parametrize(("plane", "axis"), [("1", 2), ("2", 3)])
def test_planes_are_cut_through_the_other_axes(page, volume, plane, axis):
    page.select_option("#plane", plane)
    cut = np.take(volume[1], volume.shape[axis] // 2, axis=axis - 1)
    assert pixels(page, 1) == cut.ravel().tolist()
    assert place(page) == volume.shape[axis] // 2
    page.locator("#viewer").focus()
    page.keyboard.press("Home")
    assert pixels(page, 1) == np.take(volume[1], 0, axis=axis - 1).ravel().tolist()


@pytest.mark.parametrize("key", ["ArrowRight", "ArrowLeft"])
def test_keys_change_brightness(page, volume, key):
    middle = volume[0, volume.shape[1] // 2]
    page.keyboard.press(key)
    assert pixels(page) == windowed(middle, 127.5 + (8 if key == "ArrowLeft" else -8), 255)


@pytest.mark.parametrize("key", ["Shift+ArrowRight", "Shift+ArrowLeft"])
def test_keys_change_contrast(page, volume, key):
    middle = volume[0, volume.shape[1] // 2]
    for _ in range(3):
        page.keyboard.press(key)
    width = 255 * 1.1 ** (3 if key.endswith("Left") else -3)
    assert pixels(page) == windowed(middle, 127.5, width)


@pytest.mark.parametrize("slider", ["level", "width"])
def test_sliders_change_the_window(page, slider):
    before = pixels(page)
    page.locator(f"#{slider}").focus()
    page.keyboard.press("PageUp")
    assert pixels(page) != before
    page.click("#reset")
    assert pixels(page) == before


def test_dragging_changes_the_window_if_it_is_to(page):
    before = pixels(page)
    page.check("#drag [value=window]")
    drag(page, 40, -60)
    assert pixels(page) != before
    page.check("#drag [value=slice]")


def test_all_channels_have_the_same_window(page, volume):
    page.locator("#level").focus()
    page.keyboard.press("PageUp")
    lut: dict[int, int] = {}
    for channel in range(2):
        cut = volume[channel, volume.shape[1] // 2].ravel().tolist()
        for value, grey in zip(cut, pixels(page, channel), strict=True):
            assert lut.setdefault(value, grey) == grey


def test_zoom_repeats_pixels_and_changes_none(page):
    before = pixels(page)
    for _ in range(4):
        page.keyboard.press("+")
    style = page.locator("canvas").first.evaluate(
        "c => [getComputedStyle(c).imageRendering, getComputedStyle(c).transform]"
    )
    assert style[0] == "pixelated"
    assert float(style[1].removeprefix("matrix(").split(",")[0]) == pytest.approx(1.25**4, rel=1e-3)
    assert pixels(page) == before


def test_a_larger_image_can_be_moved_but_not_out_of_its_frame(page):
    for _ in range(4):
        page.keyboard.press("+")
    page.check("#drag [value=move]")
    drag(page, 4000, 4000)
    inner = page.locator("canvas").first.bounding_box()
    outer = page.locator(".frame").first.bounding_box()
    assert (inner["x"], inner["y"]) == pytest.approx((outer["x"], outer["y"]), abs=1)
    page.check("#drag [value=slice]")


def test_voxels_have_the_shape_that_they_have_in_the_body(page, volume, shown):
    _, size = shown[0], volume.shape[1:]
    box = page.locator("canvas").first.bounding_box()
    assert box["width"] / box["height"] == pytest.approx(size[2] / size[1], rel=0.03)


def test_channels_stand_side_by_side_with_their_names(page):
    boxes = [page.locator(".frame").nth(n).bounding_box() for n in range(2)]
    assert boxes[0]["y"] == boxes[1]["y"]
    names = [page.locator("canvas").nth(n).get_attribute("aria-label") for n in range(2)]
    assert names == ["T1", "FLAIR"]


# -- fingers ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def phone(browser, shown):
    page = begun(browser, shown[2].link, "on a phone", **PHONE)
    yield page
    assert page.said == []
    page.context.close()


def test_a_finger_leads_through_the_slices(phone):
    before, images = place(phone), pixels(phone)
    swipe(phone, (0.5, 0.4, 0.5, 0.7))
    assert place(phone) > before
    assert pixels(phone) != images
    assert phone.evaluate("scrollY") == 0


def test_a_finger_changes_the_window_if_it_is_to(phone):
    phone.locator("#reset").tap()
    before = pixels(phone)
    phone.locator("#drag [value=window]").tap()
    phone.evaluate("scrollTo(0, 0)")
    swipe(phone, (0.5, 0.5, 0.8, 0.2))
    assert pixels(phone) != before
    phone.locator("#drag [value=slice]").tap()
    phone.evaluate("scrollTo(0, 0)")


def test_two_fingers_zoom(phone):
    phone.locator("#reset").tap()
    phone.evaluate("scrollTo(0, 0)")
    swipe(phone, (0.45, 0.5, 0.2, 0.5), (0.55, 0.5, 0.8, 0.5))
    found = phone.locator("canvas").first.evaluate("c => getComputedStyle(c).transform")
    assert float(found.removeprefix("matrix(").split(",")[0]) > 2
