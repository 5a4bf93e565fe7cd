"""Reports in a real browser: those of evaluations, and those of benchmarks."""

import pytest

from tests.benchmark.browsing import SIZES, chromium, opened_quietly
from tests.benchmark.test_report import SECTIONS as OF_BENCHMARK
from tests.benchmark.test_report import written
from tests.evaluation.pages import SECTIONS, write

pytestmark = pytest.mark.slow

NAMES = ("full", "hostile", "small", *(f"benchmark/{n}" for n in ("full", "hostile", "minimal")))
PAPER = "the-paper-s-numbers-beside-ours"


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    for name in NAMES:
        kind, _, own = name.rpartition("/")
        (folder / name).mkdir(parents=True)
        if kind:
            (folder / name / "report.html").write_text(written(own)[1], "utf-8")
        else:
            write(name, folder / name)
    return folder


def sections(name):
    if not name.startswith("benchmark"):
        return SECTIONS
    return [key for key in OF_BENCHMARK if key != PAPER or name.endswith("full")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_fits_is_quiet_and_asks_nobody(browser, folder, size, scheme):
    wide, high = SIZES[size]
    context = browser.new_context(viewport={"width": wide, "height": high}, color_scheme=scheme)
    for name in NAMES:
        page = opened_quietly(context, folder / name / "report.html", wide, scheme)
        shown = page.evaluate("[...document.querySelectorAll('section')].map(s => s.id)")
        assert shown == sections(name)
    context.close()


@pytest.mark.parametrize("wide", [600, 832, 960, 1088])
def test_it_fits_between_phone_and_desktop(browser, folder, wide):
    page = browser.new_page(viewport={"width": wide, "height": 700})
    page.goto((folder / "full" / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == wide
    page.close()


def test_what_is_folded_away_is_reached_by_keyboard_and_printed(browser, folder):
    page = browser.new_page(viewport={"width": 360, "height": 740})
    page.goto((folder / "benchmark/full" / "report.html").as_uri())
    folded = page.get_by_text("Wilcoxon p, Holm").first
    page.emulate_media(media="print")
    assert folded.is_visible()
    page.emulate_media(media="screen")
    assert not folded.is_visible()
    page.get_by_text("Every number of every comparison").first.focus()
    page.keyboard.press("Enter")
    assert folded.is_visible()
    page.close()
