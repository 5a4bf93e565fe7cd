"""The site of the docs, opened as a file in a real browser."""

import os
import subprocess
import sys

import pytest

from tests.benchmark.browsing import chromium
from tests.site_pages import ROOT, without_comments

SCHEME = "document.body.getAttribute('data-md-color-scheme')"
FOUND = "[...document.querySelectorAll('.md-search-result__link')].some(link => link.offsetHeight)"


@pytest.fixture(scope="module")
def page_of(tmp_path_factory):
    """Opens a page of the site in a window of a width."""
    pytest.importorskip("material", reason="mkdocs-material is not installed")
    site, shell = tmp_path_factory.mktemp("site"), {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(site)]
    with chromium() as browser:
        subprocess.run(words, cwd=ROOT, env=shell, check=True)

        def opened(name, width=1400):
            window = browser.new_context(viewport={"width": width, "height": 900})
            window.grant_permissions(["clipboard-read", "clipboard-write"])
            page = window.new_page()
            page.goto((site / name).as_uri())
            return page

        yield opened


@pytest.mark.ci
@pytest.mark.slow
@pytest.mark.extra("docs")
@pytest.mark.parametrize("width", [360, 800, 1100, 1400])
def test_search_finds_without_a_server_at_every_width(page_of, width):
    page = page_of("first_steps.html", width)
    opening = page.locator("label.md-header__button[for=__search], .md-search__input")
    opening.filter(visible=True).first.click()
    page.locator(".md-search__input").press_sequentially("resume")
    page.wait_for_function(FOUND)
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.ci
@pytest.mark.slow
@pytest.mark.extra("docs")
def test_colours_follow_the_system_while_the_page_is_open(page_of):
    page = page_of("index.html")
    for system, scheme in (("dark", "slate"), ("light", "default"), ("dark", "slate")):
        page.emulate_media(color_scheme=system)
        page.wait_for_function(f"{SCHEME} === '{scheme}'")


@pytest.mark.ci
@pytest.mark.slow
@pytest.mark.extra("docs")
def test_the_copy_button_leaves_comments_out(page_of):
    page = page_of("index.html")
    page.locator("button.md-code__button, button.md-clipboard").first.click()
    page.get_by_text("Copied to clipboard").first.wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "make demo\nmake test"


@pytest.mark.parametrize(
    ("language", "code", "copied"),
    [
        ("sh", "# a\nls '# x'   # b\n#SBATCH 1\nls ${x#y}", "ls '# x'\n#SBATCH 1\nls ${x#y}"),
        ("python", "# a\nif x:  # b\n    # c\n    y = '# d'\n", "if x:\n    y = '# d'"),
        ("yaml", "a: 1  # b\n# c\nd: 2", "a: 1\nd: 2"),
        ("text", "runs/g0  # a folder", "runs/g0  # a folder"),
    ],
)
def test_comments_are_those_of_the_language(language, code, copied):
    assert without_comments(code, language) == copied
