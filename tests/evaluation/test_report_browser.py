import pytest

from tests.benchmark.browsing import SIZES, chromium, opened_quietly
from tests.benchmark.test_report import written
from tests.evaluation.pages import write

pytestmark = pytest.mark.slow

EVALUATIONS, BENCHMARKS = ("full", "hostile", "small"), ("full", "hostile", "minimal")


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    for name in EVALUATIONS:
        write(name, folder / "evaluation" / name)
    for name in BENCHMARKS:
        (folder / "benchmark" / name).mkdir(parents=True)
        (folder / "benchmark" / name / "report.html").write_text(written(name)[1], "utf-8")
    return folder


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_fits_is_quiet_and_asks_nobody(browser, folder, size, scheme):
    wide, high = SIZES[size]
    context = browser.new_context(viewport={"width": wide, "height": high}, color_scheme=scheme)
    for path in folder.glob("*/*/report.html"):
        opened_quietly(context, path, wide, scheme)
    context.close()


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
