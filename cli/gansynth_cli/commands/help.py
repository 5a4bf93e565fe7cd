"""``gansynth help`` and ``gansynth options``: pages of the docs, and tables of options."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from gansynth.runtime.errors import UsageFault, did_you_mean
from gansynth_cli.common import Output, examples, table, with_output
from gansynth_cli.help import complete_names

REGISTERED = (
    "generators",
    "hosts",
    "sources",
    "edits",
    "filters",
    "metrics",
    "recipes",
    "writers",
)
"""Kinds of what has options."""
PAGES = Path(__file__).parents[1] / "pages"
HEADING = re.compile(r"^#+ .*$", re.MULTILINE)
HIDDEN = re.compile(r"^(<!-- .*? -->|!\[.*\]\(.*\)|<img .*>)\n", re.MULTILINE)
"""Marks of tables and pictures."""


@click.command(epilog=examples("gansynth help faq", "gansynth help nifti bids"))
@click.argument("page", required=False, metavar="[PAGE]")
@click.argument("section", nargs=-1)
@with_output
def command(page: str | None, section: tuple[str, ...], out: Output) -> None:
    """Print a page of the docs, without a network.

    SECTION prints a part of the page. Without PAGE, all pages are listed.

    The options of a command: gansynth COMMAND --help. Those of a plugin: gansynth options NAME.
    """
    pages = {path.stem: path for path in sorted(PAGES.glob("*.md"))}
    if page is None:
        titles = {name: _text(path).partition("\n")[0][2:] for name, path in pages.items()}
        out.result({"pages": titles}, table(titles.items()))
        return
    name = page.removesuffix(".md").replace("-", "_")
    if name not in pages:
        raise UsageFault(
            "command.help-page-unknown",
            f"help {page}: no such page, expected one of gansynth help.{_meant(page, pages)}",
        )
    text = _text(pages[name])
    if section:
        text = section_of(text, " ".join(section), name)
    if sys.stdout.isatty() and not out.as_json:
        from rich.console import Console
        from rich.markdown import Markdown

        console = Console()
        with console.pager(styles=True):
            console.print(Markdown(text))
        return
    out.result({"page": name, "text": text}, [text])


def _meant(word: str, pages: Mapping[str, Path]) -> str:
    """Return the command that tells of a word which is no page; nothing if none is known."""
    from gansynth.core.registry import installed
    from gansynth_cli.main import commands

    if word in commands():
        return f" Its options: gansynth {word} --help"
    if any(word in installed().names(kind) for kind in REGISTERED):
        return f" Its options: gansynth options {word}"
    for name, path in pages.items():
        for _, heading in _headings(_text(path)):
            if _plain(word) in _plain(heading).split():
                return f" Did you mean: gansynth help {name} {word}"
    return did_you_mean(word.replace("-", "_"), [*pages, *commands()])


def _plain(text: str) -> str:
    # In small letters, without signs and plurals.
    return re.sub(r"s\b", "", re.sub(r"[\W_]+", " ", text.lower())).strip()


def _text(path: Path) -> str:
    return HIDDEN.sub("", path.read_text("utf-8"))


def section_of(text: str, section: str, page: str) -> str:
    """Return the first section whose heading holds the words, with all below it."""
    starts, headings = zip(*_headings(text), strict=True)
    for index, heading in enumerate(headings):
        if _plain(section) in _plain(heading):
            depth = heading.index(" ")
            later = zip(starts[index + 1 :], headings[index + 1 :], strict=True)
            ends = [at for at, other in later if other.index(" ") <= depth] + [len(text)]
            return text[starts[index] : ends[0]].rstrip()
    known = [heading.lstrip("# ") for heading in headings]
    words = " ".join(known).lower().split()
    raise UsageFault(
        "command.help-section-unknown",
        f"help {page} {section!r}: no such section, expected words of one of: {'; '.join(known)}."
        f"{did_you_mean(section.lower(), words)}",
    )


def _headings(text: str) -> Iterator[tuple[int, str]]:
    # In a block of code, # is no heading.
    plain = re.sub(r"```.*?```", lambda match: " " * len(match[0]), text, flags=re.DOTALL)
    for match in HEADING.finditer(plain):
        yield match.start(), match[0]


@click.command(epilog=examples("gansynth options cgan3d", "gansynth options nnunet --json"))
@click.argument("name", metavar="NAME", shell_complete=complete_names(*REGISTERED))
@with_output
def options(name: str, out: Output) -> None:
    """Print the options of a generator, framework, source, edit or filter.

    NAME is a registered name (see: gansynth plugins), or lesions, boxes. Each option
    has its key, its default and its meaning; of a recipe, the value that it sets.
    """
    from gansynth_cli.option_tables import tables_of

    tables = tables_of(name)
    out.result({"name": name, "tables": tables.to_json()}, repr(tables).splitlines())
