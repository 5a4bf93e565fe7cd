import pytest

from tests.benchmark.browsing import SIZES, chromium, opened_quietly
from tests.evaluation.pages import SECTIONS, write

pytestmark = pytest.mark.slow

DOCUMENTS = ("full", "hostile", "small")
ANSWERS = "ul.arms"
"""Where an evaluation, which has no verdict of one sentence, says what came out."""
INSIDE = """() => {
  const [card, plot] = ['.card:not([hidden])', '.plot'].map(
    (name) => document.querySelector(name).getBoundingClientRect());
  return card.left >= plot.left && card.right <= plot.right && card.top >= plot.top;
}"""
WIDTH = "document.documentElement.scrollWidth"


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    for name in DOCUMENTS:
        write(name, folder / name)
    return folder


@pytest.fixture
def opened(browser, folder):
    contexts = []

    def open_page(**window):
        usual = {"viewport": {"width": 1280, "height": 900}}
        contexts.append(browser.new_context(**{**usual, **window}))
        page = contexts[-1].new_page()
        page.goto((folder / "full" / "report.html").as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_fits_is_quiet_and_asks_nobody(browser, folder, size, scheme):
    wide, high = SIZES[size]
    context = browser.new_context(viewport={"width": wide, "height": high}, color_scheme=scheme)
    for name in DOCUMENTS:
        page = opened_quietly(context, folder / name / "report.html", wide, scheme, ANSWERS)
        shown = page.evaluate("[...document.querySelectorAll('section')].map(s => s.id)")
        assert shown == SECTIONS
    context.close()


@pytest.mark.parametrize("wide", [600, 832, 960, 1088])
def test_it_fits_between_phone_and_desktop(opened, wide):
    assert opened(viewport={"width": wide, "height": 700}).evaluate(WIDTH) == wide


def card(page):
    return page.locator(".card:visible")


def shown(page):
    """The words of the card, once its picture is drawn."""
    assert card(page).locator("img").evaluate("img => img.decode().then(() => img.naturalWidth)")
    return card(page).locator(".who").inner_text()


def toggle(page, name):
    """What shows and hides one side or kind of the first map."""
    return page.locator(".map").first.get_by_role("checkbox", name=name)


def focused(page, what):
    return page.evaluate(f"document.activeElement.{what}")


def test_the_mouse_shows_a_points_picture_and_leaving_hides_it(opened):
    page = opened()
    assert card(page).count() == 0
    point = page.locator(".map").first.locator(".point.synthetic").nth(7)
    point.scroll_into_view_if_needed()
    point.hover(force=True)
    assert shown(page) == "sample 7, synthetic, glioma"
    assert page.evaluate(INSIDE)
    page.mouse.move(2, 2)
    assert card(page).count() == 0


def test_the_keyboard_goes_from_point_to_point_and_passes_hidden_ones_over(opened):
    page = opened()
    first = page.locator(".map").first
    assert first.locator(".point:visible").count() == 144
    for side in ("synthetic", "real, training"):
        toggle(page, side).uncheck()
    toggle(page, "pituitary").focus()
    page.keyboard.press("Tab")
    seen = {shown(page)}
    for _ in range(15):
        page.keyboard.press("ArrowRight")
        seen.add(focused(page, "getAttribute('aria-label')"))
    assert len(seen) == 16
    page.keyboard.press("ArrowDown")
    assert shown(page) == focused(page, "getAttribute('aria-label')")
    assert shown(page) in seen
    assert focused(page, "tabIndex") == 0
    assert page.locator('.map [tabindex="0"]').count() == 2  # one way in for each map
    page.keyboard.press("Tab")
    assert focused(page, "className") == "place"
    page.keyboard.press("Escape")
    assert card(page).count() == 0
    toggle(page, "synthetic").check()
    toggle(page, "glioma").uncheck()
    assert first.locator(".point:visible").count() == 16 - 5 + 32
    assert page.locator(".map").nth(1).locator(".point:visible").count() == 144
    first.locator('[tabindex="0"]').focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    assert "training" not in shown(page)
    assert "glioma" not in shown(page)


def test_a_tap_shows_a_points_picture_and_its_place(opened):
    page = opened(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    point = page.locator(".map").first.locator(".point.held-out").nth(2)
    point.scroll_into_view_if_needed()
    point.tap(force=True)
    assert "real, held-out" in shown(page)
    assert page.evaluate(INSIDE)
    link = card(page).locator(".place").get_attribute("href")
    assert link == "evaluation.json#/maps/0/points/66"
    assert page.evaluate(WIDTH) == 360
    page.locator(".plot").first.tap(position={"x": 4, "y": 4})
    assert card(page).count() == 0


def test_it_reads_without_scripts(opened):
    page = opened(java_script_enabled=False)
    assert page.locator(ANSWERS).is_visible()
    assert page.locator(".point").first.is_visible()
    title = page.locator(".point title").first.text_content()
    assert title == "case_000 #0, real, training, meningioma"
    toggle(page, "synthetic").uncheck()
    assert page.locator(".map").first.locator(".point.synthetic:visible").count() == 0


def test_paper_gets_what_is_folded_away_but_no_pictures(opened):
    page = opened()
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.get_by_role("table", name="Every number of every figure").is_visible()
    assert page.locator("img:visible").count() == 0
