"""What ``mkdocs build`` adds to the pages of ``docs/``; ``mkdocs.yml`` names it as a hook.

README, CONTRIBUTING, the changelog and files that pages link outside of ``docs/`` become pages and
files of the site. Links to them are rewritten. The reference pages are made from the code.
"""

import inspect
import json
import os
import posixpath
import re
import textwrap
from collections.abc import Iterator
from html import escape, unescape
from pathlib import Path
from typing import Any

from tests.errors_page import errors_page

ROOT = Path(__file__).parents[1]
PLACES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "CODE_OF_CONDUCT.md": "code_of_conduct.md",
    "SECURITY.md": "security.md",
}
"""File of the repository -> page of the site, where another name is due."""
LINK = re.compile(r"(\]\(|<img src=\")([^)\"\s#]+)(?=[)\"#])")
MARK = re.compile(r"^<!-- (/?)(.+?) -->$", re.MULTILINE)
CODE = re.compile(r"^ *```.*?^ *```|`[^`\n]*`", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r'<div class="language-(\w+) highlight">(.*?)</div>', re.DOTALL)
SECTION = re.compile(r"^(Args|Returns|Raises|Yields|Attributes|Examples?):$")


# -- files of the repository -----------------------------------------------------------------------


def place_of(file: str) -> str:
    """Where a file of the repository stands on the site."""
    return PLACES.get(file, file.removeprefix("docs/"))


def file_of(place: str) -> str:
    """The file of the repository that a page of the site is made of."""
    named = {page: file for file, page in PLACES.items()}
    return named.get(place) or (place if (ROOT / place).exists() else f"docs/{place}")


def target_of(file: str, link: str) -> str | None:
    """The file of the repository that a link of a file leads to; None if it is none of it."""
    if re.match(r"[a-z]+:", link):
        return None
    target = posixpath.normpath(posixpath.join(posixpath.dirname(file), link))
    if target == "docs/decisions":
        return "docs/decisions/index.md"
    if (ROOT / target).is_dir():
        target = f"{target}/README.md"
    return target if (ROOT / target).is_file() else None


def linked(file: str, found: dict[str, None]) -> dict[str, None]:
    """Add all files that a page links, and that these link in turn."""
    if file in found:
        return found
    found[file] = None
    if file.endswith(".md"):
        for _, link in LINK.findall(CODE.sub("", (ROOT / file).read_text("utf-8"))):
            target = target_of(file, link)
            if target and (ROOT / target).is_file():
                linked(target, found)
    return found


# -- pages made from the code ----------------------------------------------------------------------


def commands_page() -> str:
    """The command line: usage, description, options and examples of every command."""
    import click

    from gansynth_cli.main import EPILOG, cli

    with click.Context(cli, info_name="gansynth", **cli.context_settings) as context:
        parts = [
            "# Command line",
            cli.help,
            "Made from the help of each command, `--help-all` where there is one.",
        ]
        parts += ["## Exit codes", _block(textwrap.dedent(EPILOG.split("Exit codes:")[1]))]
        for name in cli.list_commands(context):
            parts += _command(cli.get_command(context, name), name, context, "##")
    return "\n\n".join(filter(None, parts))


def _command(command: Any, name: str, parent: Any, level: str) -> Iterator[str]:
    with command.make_context(name, [], parent, resilient_parsing=True) as context:
        yield f"{level} {context.command_path}"
        yield _block(command.get_usage(context).removeprefix("Usage: "))
        yield inspect.cleandoc(command.help or "").replace("\b\n", "")
        records = [p.get_help_record(context) for p in command.params]
        options = [record for record in records if record and record[1]]
        rows = [f"| `{left}` | {_cell(right)} |" for left, right in options]
        yield "\n".join(["| option | meaning |", "| --- | --- |", *rows]) if rows else ""
        if command.epilog:
            yield _block(inspect.cleandoc(command.epilog.split("Examples:")[-1]))
        for inner in getattr(command, "commands", {}):
            yield from _command(command.commands[inner], inner, context, f"{level}#")


def python_page() -> str:
    """What ``import gansynth`` offers: functions, classes, errors."""
    import gansynth

    offered = {name: getattr(gansynth, name) for name in sorted(gansynth.__all__)}
    parts = ["# Python", "Made from the docstrings. [mixing.md](mixing.md) shows the use."]
    groups = {
        "Functions": inspect.isfunction,
        "Classes": lambda found: inspect.isclass(found) and not issubclass(found, Exception),
        "Errors": lambda found: inspect.isclass(found) and issubclass(found, Exception),
    }
    for title, belongs in groups.items():
        parts.append(f"## {title}")
        for name, found in offered.items():
            if belongs(found):
                parts += _described(name, found)
    return "\n\n".join(filter(None, parts))


def _described(name: str, found: Any) -> Iterator[str]:
    yield f"### {name}"
    if not (inspect.isclass(found) and issubclass(found, Exception)):
        yield _block(f"gansynth.{name}{_signature(found)}", "python")
    yield _docstring(found)
    if inspect.isclass(found):
        methods = [
            f"- `{key}{_signature(value)}`: {(inspect.getdoc(value) or '').partition(chr(10))[0]}"
            for key, value in vars(found).items()
            if not key.startswith("_") and inspect.isfunction(value)
        ]
        yield "\n".join(methods)


def _signature(found: Any) -> str:
    """The parameters without their types, which docstrings describe."""
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        return ""
    plain = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=plain, return_annotation=signature.empty))


def _docstring(found: Any) -> str:
    """A docstring as Markdown: sections are lists, double backticks single ones."""
    lines, inside = [], False
    for line in (inspect.getdoc(found) or "").replace("``", "`").splitlines():
        if SECTION.match(line):
            inside = True
            lines += ["", f"**{line.strip(':')}**", ""]
        elif inside and re.match(r" {4}\S", line):
            lines.append(f"- {line.strip()}")
        else:
            inside = inside and (line.startswith("    ") or not line)
            lines.append(f"  {line.strip()}" if inside and line else line)
    return "\n".join(lines)


def notebook_page() -> str:
    """The notebook: its texts, its code, and what it shows."""
    notebook = json.loads((ROOT / "examples" / "first_steps.ipynb").read_text("utf-8"))
    texts = []
    for cell in notebook["cells"]:
        code, text = cell["cell_type"] == "code", "".join(cell["source"])
        texts.append(_block(text, "python") if code else text)
        for data in (output["data"] for output in cell.get("outputs", ())):
            png, shown = data.get("image/png"), data.get("text/html", _block(data["text/plain"]))
            if shown.count("<tr>") > 20:
                shown = f"<details><summary>What it shows</summary>{shown}</details>"
            picture = f'<img src="data:image/png;base64,{png}" alt="preview grid">'
            texts.append(picture if png else shown)
    link = "To run it: [examples/first_steps.ipynb](examples/first_steps.ipynb)."
    return "\n\n".join([texts[0], link, *texts[1:]]).replace("](../docs/", "](")


def settings_page() -> str:
    """A list of all tables of settings, by the page that has them."""
    lines = [
        "# Settings and files",
        FILES + "\n\n## Settings\n\nAs `gansynth options NAME` prints them.",
    ]
    for page in sorted((ROOT / "docs").glob("*.md")):
        text = page.read_text("utf-8")
        names = [name for end, name in MARK.findall(text) if not end]
        marks = [name for name in names if f"<!-- {name} -->\n| key |" in text]
        if marks:
            links = ", ".join(f"[{name}]({page.name}#{_anchor(name)})" for name in marks)
            lines.append(f"- [{_title(text)}]({page.name}): {links}")
    return "\n\n".join(lines[:2]) + "\n\n" + "\n".join(lines[2:])


def decisions_page() -> str:
    """A list of all decisions."""
    pages = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    lines = [f"- [{_title(page.read_text('utf-8'))}]({page.name})" for page in pages]
    return "# Decisions\n\nWhy things are as they are.\n\n" + "\n".join(lines)


def _title(text: str) -> str:
    return text.partition("\n")[0].lstrip("# ")


def _anchor(name: str) -> str:
    return f"settings-{name.replace(' ', '-')}"


def _block(text: str, language: str = "text") -> str:
    text = text.strip("\n")
    return f"```{language}\n{text}\n```"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


FILES = """\
- [Run folder](training.md#what-a-run-leaves-behind), [samples](samples.md#what-is-written)
- [Data sources](sources.md): layouts of folders, keys of `--read`
- [Metrics of a training](measures.md#the-metrics-file-of-a-training)
- [Exit codes](commands.md#exit-codes), [errors](errors.md)
- [Recipes](recipes.md#writing-one), [plans of benchmarks](benchmark_plan.md#keys)"""

GENERATED = {
    "commands.md": commands_page,
    "errors.md": errors_page,
    "functions.md": python_page,
    "notebook.md": notebook_page,
    "settings.md": settings_page,
    "decisions/index.md": decisions_page,
}


# -- hooks of mkdocs -------------------------------------------------------------------------------


def on_config(config: Any) -> None:
    """Name the version in the header."""
    from gansynth import __version__

    config.site_name = f"gansynth {__version__}"


def on_files(files: Any, config: Any) -> Any:
    """Add what is made, and what is linked outside of ``docs/``."""
    from mkdocs.structure.files import File

    for place, make in GENERATED.items():
        files.append(File.generated(config, place, content=make()))
    found: dict[str, None] = {}
    for start in (*PLACES, *(file_of(file.src_uri) for file in files.documentation_pages())):
        if (ROOT / start).exists():
            linked(start, found)
    for file in found:
        if not file.startswith("docs/"):
            files.append(File.generated(config, place_of(file), abs_src_path=str(ROOT / file)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn links of the repository into those of the site, and marks of tables into anchors."""
    here = page.file.src_uri
    file = file_of(here)

    def relinked(match: re.Match[str]) -> str:
        target = target_of(file, match[2])
        if target is None:
            return match[0]
        return match[1] + os.path.relpath(place_of(target), posixpath.dirname(here) or ".")

    def marked(match: re.Match[str]) -> str:
        return "" if match[1] else f'<a id="{_anchor(match[2])}"></a>\n'

    if here not in GENERATED:
        markdown = _outside_code(LINK, relinked, markdown)
    return MARK.sub(marked, markdown)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Give each block of code to the copy button without its comments."""

    def copied(block: re.Match[str]) -> str:
        code = unescape(re.sub("<[^>]+>", "", block[2]))
        text = escape(without_comments(code, block[1]))
        return f'<div data-copy="{text}"{block[0].removeprefix("<div")}'

    return BLOCK.sub(copied, html)


def without_comments(code: str, language: str) -> str:
    """Code without what follows ``# `` in its language, and without lines of nothing else."""
    from pygments.lexers import get_lexer_by_name
    from pygments.token import Comment

    tokens = get_lexer_by_name(language).get_tokens(code)
    text = "".join(
        re.sub("^# .*", "\0", text) if kind in Comment else text for kind, text in tokens
    )
    lines = (line for line in text.splitlines() if line.strip() != "\0")
    return "\n".join(line.partition("\0")[0].rstrip() for line in lines).strip("\n")


def _outside_code(pattern: re.Pattern[str], change: Any, text: str) -> str:
    """Substitute in all of a text but its code."""
    parts, end = [], 0
    for code in CODE.finditer(text):
        parts += [pattern.sub(change, text[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, pattern.sub(change, text[end:])])
