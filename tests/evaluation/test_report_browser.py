import pytest

from tests.benchmark.browsing import SIZES, chromium, opened_quietly
from tests.evaluation.pages import SECTIONS, write

pytestmark = pytest.mark.slow

DOCUMENTS = ("full", "hostile", "small")


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


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_fits_is_quiet_and_asks_nobody(browser, folder, size, scheme):
    wide, high = SIZES[size]
    context = browser.new_context(viewport={"width": wide, "height": high}, color_scheme=scheme)
    for name in DOCUMENTS:
        page = opened_quietly(context, folder / name / "report.html", wide, scheme)
        shown = page.evaluate("[...document.querySelectorAll('section')].map(s => s.id)")
        assert shown == SECTIONS
    context.close()


@pytest.mark.parametrize("wide", [600, 832, 960, 1088])
def test_it_fits_between_phone_and_desktop(browser, folder, wide):
    page = browser.new_page(viewport={"width": wide, "height": 700})
    page.goto((folder / "full" / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == wide
    page.close()
