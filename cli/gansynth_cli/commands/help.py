"""``gansynth help`` and ``gansynth options``: pages of the docs, words, and tables of options."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import click

from gansynth.runtime.errors import GansynthError, UsageFault
from gansynth_cli.common import Hint, Output, examples, table, with_output
from gansynth_cli.help import complete_names

REGISTERED = (
    *("generators", "hosts", "sources", "edits", "filters", "metrics", "recipes"),
    "writers",
)
"""Kinds of what has options."""
PAGES = Path(__file__).parents[1] / "pages"
HEADING = re.compile(r"^#+ .*$", re.MULTILINE)
HIDDEN = re.compile(r"^(<!-- .*? -->|!\[.*\]\(.*\)|<img .*>)\n", re.MULTILINE)
"""Marks of tables and pictures."""
ROW = re.compile(r"^\| ([^|]+) \| (.+) \|$", re.MULTILINE)  # of the glossary
LINK = re.compile(r" ?\(\[[^\]]*\]\((\w+)\.md#?([\w-]*)\)\)")  # of a row, to its page
APART = ("page", "option")  # kinds that may have settings of the same name beside them
EMPHASIS = re.compile(r"\*([\w -]+)\*")
MOST = 12  # answers shown


class Entry(NamedTuple):
    """Something with a name: what it is, one line about it, and where to read on."""

    name: str
    kind: str
    meaning: str
    more: str


@click.command(
    epilog=examples("gansynth help sources nifti", "gansynth help --schedule"),
    context_settings={"ignore_unknown_options": True},  # --schedule is a word here
)
@click.argument("page", required=False, metavar="[PAGE|WORD]")
@click.argument("section", nargs=-1)
@with_output
def command(page: str | None, section: tuple[str, ...], out: Output) -> None:
    """Print a page of the docs, or find a word, without a network.

    SECTION prints a part of the page. Without PAGE, all pages are listed. WORD, or several, is one
    of the glossary, an option, a setting, a command, a recipe, an arm, a generator or another
    plugin.

    The options of a command: gansynth COMMAND --help. Those of a plugin: gansynth options NAME.
    """
    pages = {path.stem: path for path in sorted(PAGES.glob("*.md"))}
    if page is None:
        titles = {name: _text(path).partition("\n")[0][2:] for name, path in pages.items()}
        out.result({"pages": titles}, table(titles.items()))
        return
    name = page.removesuffix(".md").replace("-", "_")
    if name not in pages:
        word, known = " ".join((page, *section)), [*entries(pages)]
        if not any(_plain(each.name) == _plain(word) for each in known if each.kind not in APART):
            known += settings()  # they take seconds
        found = search(word, known)
        out.result({"word": word, "found": [entry._asdict() for entry in found]}, _lines(found))
        return
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


def search(word: str, known: Sequence[Entry]) -> list[Entry]:
    """Return what is called a word, then what has it in its name; pages last.

    Raises:
        UsageFault: nothing; names the nearest.
    """
    asked, found = _plain(word), dict[tuple[str, str], Entry]()
    for entry in known:
        if f" {asked} " in f" {_plain(entry.name)} ":
            name = "" if entry.kind == "word" else entry.name  # others of a row mean the same
            found.setdefault((name, entry.meaning or entry.more), entry)
    if not found:
        near = difflib.get_close_matches(word, {entry.name: None for entry in known}, n=3)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise UsageFault(
            f"help {word!r}: nothing is called that.{hint} See: gansynth help glossary"
        )
    best = sorted(
        found.values(), key=lambda each: (each.kind == "page", _plain(each.name) != asked)
    )
    return [each._replace(meaning=each.meaning or _first_line(each)) for each in best[:MOST]]


def _plain(text: str) -> str:
    # In small letters, without signs and plurals.
    return re.sub(r"s\b", "", re.sub(r"[\W_]+", " ", text.lower())).strip()


def entries(pages: Mapping[str, Path]) -> Iterator[Entry]:
    """Yield all that has a name, but settings."""
    from gansynth.core.registry import installed
    from gansynth.fitting.inventory import recipes
    from gansynth_cli.main import cli, commands

    for words, meaning in ROW.findall(_text(pages["glossary"])):
        page, section = (*LINK.findall(meaning), ("glossary", ""))[0]
        for word in words.split(", "):
            more = f"gansynth help {page} {section}".rstrip()
            yield Entry(word, "word", EMPHASIS.sub(r"\1", LINK.sub("", meaning)), more)
    for name, (_, meaning) in commands().items():
        yield Entry(name, "command", meaning, f"gansynth {name} --help")
        for parameter in getattr(cli.get_command(click.Context(cli), name), "params", ()):
            if isinstance(parameter, click.Option):
                typed, more = max(parameter.opts, key=len), f"gansynth {name} --help"
                yield Entry(typed, "option", parameter.help or "", more)
    summaries = {name: str(recipe["summary"]) for name, recipe in recipes(installed()).items()}
    for kind in REGISTERED:
        for name in installed().names(kind):
            meaning = summaries.get(name, "") if kind == "recipes" else ""
            yield Entry(name, kind.removesuffix("s"), meaning, f"gansynth options {name}")
    for name in installed().names("arms"):
        yield Entry(name, "experiment arm", "", "gansynth help benchmark what-is-compared")
    for page, path in pages.items():
        title, *headings = (heading.lstrip("# ") for _, heading in _headings(_text(path)))
        yield Entry(page, "page", title, f"gansynth help {page}")
        for heading in headings:
            yield Entry(heading, "page", "", f"gansynth help {page} {heading.lower()!r}")


def settings() -> Iterator[Entry]:
    """Yield the settings of whatever has some."""
    from gansynth.core.registry import installed
    from gansynth_cli.option_tables import KINDS, options, others

    for name in (*others(), *(name for kind in KINDS for name in installed().names(kind))):
        with suppress(GansynthError):  # of a plugin that does not load
            for key, _, meaning in (row for of_name in options(name) for row in of_name.rows):
                yield Entry(key, f"setting of {name}", meaning, f"gansynth options {name}")


def _first_line(entry: Entry) -> str:
    from gansynth.core.registry import installed

    kind = f"{entry.kind}s"
    loaded = installed().load(kind, entry.name) if kind in REGISTERED else ""
    return str(loaded.__doc__).partition("\n")[0] if loaded else ""


def _lines(found: list[Entry]) -> Iterator[str]:
    for name, kind, meaning, more in found:
        yield f"{name} ({kind}){': ' * bool(meaning)}{meaning}"
        yield f"    {more}"


def _text(path: Path) -> str:
    return HIDDEN.sub("", path.read_text("utf-8"))


def section_of(text: str, section: str, page: str) -> str:
    """Return the first section whose heading holds the words, with all below it.

    Raises:
        UsageFault: no heading holds them.
    """
    starts, headings = zip(*_headings(text), strict=True)
    for index, heading in enumerate(headings):
        if _plain(section) in _plain(heading):
            depth = heading.index(" ")
            later = zip(starts[index + 1 :], headings[index + 1 :], strict=True)
            end = next((at for at, other in later if other.index(" ") <= depth), len(text))
            return text[starts[index] : end].rstrip()
    raise UsageFault(
        f"help {page} {section!r}: no such section, expected words of one of: "
        f"{'; '.join(heading.lstrip('# ') for heading in headings)}"
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

    NAME is a registered name (see: gansynth plugins), or lesions, boxes, hard-cases. Each option
    has its key, its default and its meaning; of a recipe, the value that it sets.
    """
    from gansynth_cli.option_tables import options as tables_of

    tables = tables_of(name)
    lines = repr(tables).splitlines()
    if tables[0].kind in ("generator", "recipe"):
        typed = tables[0].typed.partition(";")[0].removesuffix(" --set KEY=VALUE")
        lines.append(Hint(f"next: {typed} --data KIND:WHERE -o runs/{name}"))
    out.result({"name": name, "tables": tables.to_json()}, lines)
