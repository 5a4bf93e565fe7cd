"""The report in a real browser: phone and desktop, light and dark, without a network."""
# mypy: disallow-untyped-calls=False

import pytest

from gansynth.benchmark.report import write_report
from tests.benchmark import documents
from tests.benchmark.browsing import SIZES, chromium, opened_quietly
from tests.benchmark.test_report import SECTIONS

DOCUMENTS = ("full", "hostile", "minimal")


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    for name in DOCUMENTS:
        document = documents.EVERY[name]()
        write_report(document, folder / name, documents.overlays(document))
    return folder


@pytest.fixture(params=["light", "dark"])
def scheme(request):
    return request.param


@pytest.fixture(params=SIZES)
def size(request):
    return SIZES[request.param]


@pytest.fixture
def window(browser, scheme, size):
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme
    )
    yield context
    context.close()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_it_fits_is_quiet_and_asks_nobody(name, window, folder, size, scheme):
    page = opened_quietly(window, folder / name / "report.html", size[0], scheme)
    missing = {"arms", "paper"} if name == "minimal" else {"paper"} if name == "hostile" else set()
    shown = page.evaluate("[...document.querySelectorAll('section')].map(s => s.id)")
    assert shown == [key for key in SECTIONS if key not in missing]


def test_numbers_and_what_is_folded_away_are_reached_by_keyboard(browser, folder):
    page = browser.new_page(viewport={"width": 360, "height": 740})
    page.goto((folder / "full" / "report.html").as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the verdict"
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("details").first.get_attribute("open") is not None
    number = page.locator(".forest a.n").nth(1)
    number.focus()
    page.keyboard.press("Enter")
    assert page.locator("#source").is_visible()
    assert page.locator("#source-place").inner_text() == number.get_attribute("title")
    assert page.locator("#source-open").get_attribute("href") == number.get_attribute("href")
    page.keyboard.press("Escape")
    assert page.locator("#source").is_hidden()
    assert number.evaluate("element => element === document.activeElement")
    page.close()


def test_it_reads_without_scripts(browser, folder):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((folder / "full" / "report.html").as_uri())
    assert page.locator(".verdict").is_visible()
    assert page.locator(".forest svg").first.is_visible()
    href = page.locator(".forest a.n").nth(1).get_attribute("href")
    assert href == "results.json#/comparisons/0/difference"
    context.close()
