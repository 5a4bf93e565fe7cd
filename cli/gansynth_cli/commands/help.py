"""``gansynth help``: print a page of the docs, without a network."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from gansynth.runtime.errors import UsageFault, did_you_mean
from gansynth_cli.common import Output, examples, table, with_output

PAGES = Path(__file__).parents[1] / "pages"
HEADING = re.compile(r"^#+ ", re.MULTILINE)
HIDDEN = re.compile(r"^(<!-- .*? -->|!\[.*\]\(.*\)|<img .*>)\n", re.MULTILINE)
"""Marks of tables and pictures."""


@click.command(epilog=examples("gansynth help faq", "gansynth help sources nifti"))
@click.argument("page", required=False)
@click.argument("section", required=False)
@with_output
def command(page: str | None, section: str | None, out: Output) -> None:
    """Print a page of the docs in the terminal, without a network.

    SECTION prints a part of it. Without PAGE, all pages are listed.

    The options of a command: gansynth COMMAND --help. Those of a plugin: gansynth options NAME.
    """
    pages = {path.stem: path for path in sorted(PAGES.glob("*.md"))}
    if page is None:
        titles = {name: _text(path).partition("\n")[0][2:] for name, path in pages.items()}
        out.result({"pages": titles}, table(titles.items()))
        return
    name = page.removesuffix(".md").replace("-", "_")
    if name not in pages:
        hint = did_you_mean(name, pages)
        raise UsageFault(f"help {page!r}: there is no such page.{hint} See: gansynth help")
    text = _text(pages[name])
    if section is not None:
        text = section_of(text, section, name)
    if sys.stdout.isatty() and not out.as_json:
        from rich.console import Console
        from rich.markdown import Markdown

        console = Console()
        with console.pager(styles=True):
            console.print(Markdown(text))
        return
    out.result({"page": name, "text": text}, [text])


def _text(path: Path) -> str:
    return HIDDEN.sub("", path.read_text("utf-8"))


def section_of(text: str, section: str, page: str) -> str:
    """Return the first section whose heading holds the words, with all below it.

    Raises:
        UsageFault: no heading holds them.
    """
    starts = [
        match.start() for match in HEADING.finditer(re.sub(r"```.*?```", _blank, text, flags=re.S))
    ]
    headings = [text[start:].partition("\n")[0] for start in starts]
    for index, heading in enumerate(headings):
        if section.lower().replace("-", " ") in heading.lower().replace("-", " "):
            depth = heading.index(" ")
            later = zip(starts[index + 1 :], headings[index + 1 :], strict=True)
            end = next((at for at, other in later if other.index(" ") <= depth), len(text))
            return text[starts[index] : end].rstrip()
    raise UsageFault(
        f"help {page} {section!r}: no such section, expected words of one of: "
        f"{'; '.join(heading.lstrip('# ') for heading in headings)}"
    )


def _blank(match: re.Match[str]) -> str:
    """Blanks as long as a block of code, in which # is no heading."""
    return " " * len(match[0])
