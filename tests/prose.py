"""How long the sentences of docstrings, messages and docs are, and which names say nothing.

``python tests/prose.py`` prints a table by package; ``python tests/prose.py gansynth/data`` lists
what is to be mended there: file, line, what. ``--root FOLDER`` measures another checkout.

A sentence ends at a full stop, an exclamation or a question mark, at the end of a paragraph, of a
list's item or of a table's cell. A semicolon or a colon does not end it. Code does not count.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SHELVES = ("gansynth", "plugins", "adapters", "cli")
LONGEST = 25
PRONOUNS = {
    *("own", "told", "found", "said", "more", "one", "ones", "other"),
    *("asked", "whose", "what", "wanted", "shown", "seen", "known", "kept"),
    *("given", "such", "some", "rest", "less", "many", "much", "few"),
}
"""Names of variables that do not say what they hold."""
_END = re.compile(r"(?<=[.!?])[)\"'`*]*\s+(?=[\"'(`*]*[A-Z0-9`])")
_WORD = re.compile(r"[A-Za-z0-9]")
_ABBREVIATIONS = re.compile(
    r"\b(e\.g|i\.e|etc|al|vs|cf|sec|eq|fig|no|approx|resp)\.\s", re.IGNORECASE
)


@dataclass
class Prose:
    """What was counted.

    Attributes:
        lengths: words of each sentence.
        notes: (file, line, what is to be mended).
        counts: other figures, by name.
    """

    lengths: list[int] = field(default_factory=list)
    notes: list[tuple[str, int, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, file: str, line: int, text: str) -> None:
        """Count the sentences of a text."""
        for sentence in sentences(text):
            words = sum(bool(_WORD.search(word)) for word in sentence.split())
            if words:
                self.lengths.append(words)
            if words > LONGEST:
                self.notes.append((file, line, f"{words} words: {sentence:.90}"))

    @property
    def mean(self) -> float:
        """Words in a sentence."""
        return sum(self.lengths) / max(1, len(self.lengths))

    @property
    def long(self) -> float:
        """Share of sentences above ``LONGEST`` words."""
        return sum(length > LONGEST for length in self.lengths) / max(1, len(self.lengths))


def sentences(text: str) -> Iterator[str]:
    """Sentences of plain text or Markdown, without code."""
    text = re.sub(r"```.*?```", "\n\n", text, flags=re.DOTALL)
    text = re.sub(r"``[^`]*``|`[^`]*`", "CODE", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = _ABBREVIATIONS.sub(lambda match: match[0].replace(".", ""), text)
    for block in _blocks(text):
        yield from (part for part in _END.split(block) if part.strip())


def _blocks(text: str) -> Iterator[str]:
    """Paragraphs, items of lists, cells of tables, and entries of sections such as ``Args:``."""
    block: list[str] = []
    for line in [*text.splitlines(), ""]:
        bare = line.strip()
        new = re.match(r"([-*+]|\d+\.)\s|#|\|", bare) or re.match(r"\w[\w, *.]*:(\s|$)", bare)
        if (not bare or new or (line.startswith("    ") and not block)) and block:
            yield " ".join(block)
            block = []
        if bare.startswith("|"):
            yield from (cell for cell in bare.strip("|").split("|") if set(cell) - set(" -:"))
        elif bare:
            block.append(re.sub(r"^([-*+]|\d+\.|#+)\s+|^\w[\w, *.]*:\s", "", bare))


def read_python(path: Path, file: str, prose: Prose) -> None:
    """Docstrings, messages of raised errors, and names of variables of one module."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            _docstring(node, file, prose)
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            for value in node.exc.args[:1]:
                prose.add(file, node.lineno, _text_of(value))
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            _name(node.id, node.lineno, file, prose)
        elif isinstance(node, ast.arg):
            _name(node.arg, node.lineno, file, prose)


def _docstring(node: ast.AST, file: str, prose: Prose) -> None:
    assert isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    text = ast.get_docstring(node)
    if not text:
        return
    line = node.body[0].lineno
    prose.counts["docstring lines"] += len(text.splitlines())
    prose.add(file, line, text)
    name = getattr(node, "name", "")
    if name.startswith("_") and not name.startswith("__") and "\n" in text:
        prose.counts["private, longer than a line"] += 1
        prose.notes.append((file, line, f"{name}: private, docstring of more than one line"))


def _name(name: str, line: int, file: str, prose: Prose) -> None:
    if name in PRONOUNS:
        prose.counts["names that say nothing"] += 1
        prose.notes.append((file, line, f"name: {name}"))


def _text_of(node: ast.expr) -> str:
    """The words of a message, values as CODE."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(p.value) if isinstance(p, ast.Constant) else "`v`" for p in node.values)
    if isinstance(node, ast.BinOp):
        return _text_of(node.left) + _text_of(node.right)
    return ""


def read_tree(root: Path, within: Sequence[str] = ()) -> dict[str, Prose]:
    """Package -> what was counted there; ``docs`` are README and docs/*.md."""
    found: dict[str, Prose] = defaultdict(Prose)
    for shelf in SHELVES:
        for path in sorted((root / shelf).rglob("*.py")):
            file = path.relative_to(root).as_posix()
            if not within or any(file.startswith(prefix) for prefix in within):
                parts = file.split("/")
                read_python(path, file, found["/".join(parts[: min(2, len(parts) - 1)])])
    for path in [root / "README.md", *sorted((root / "docs").glob("*.md"))]:
        file = path.relative_to(root).as_posix()
        if not within or any(file.startswith(prefix) for prefix in within):
            for number, paragraph in _paragraphs(path.read_text("utf-8")):
                found["docs"].add(file, number, paragraph)
    return found


def _paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """Paragraphs with the line they begin at; blocks of code are left out."""
    kept, start, code = list[str](), 1, False
    for number, line in enumerate([*text.splitlines(), ""], 1):
        code ^= line.lstrip().startswith("```")
        if line.strip() and not code and "```" not in line:
            start = start if kept else number
            kept.append(line)
        elif kept:
            yield start, "\n".join(kept)
            kept = []


def table(found: dict[str, Prose]) -> Iterator[str]:
    """The table, as Markdown."""
    columns = ("docstring lines", "private, longer than a line", "names that say nothing")
    yield (
        f"| package | sentences | words in one | above {LONGEST} words | "
        + " | ".join(columns)
        + " |"
    )
    yield "|---" + "|--:" * (3 + len(columns)) + "|"
    total = Prose()
    for name, prose in [*sorted(found.items()), ("all", total)]:
        counts = " | ".join(f"{prose.counts[column]:,}" for column in columns)
        number = f"{len(prose.lengths):,}"
        yield f"| {name} | {number} | {prose.mean:.1f} | {prose.long:.1%} | {counts} |"
        total.lengths += prose.lengths
        total.counts += prose.counts


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("within", nargs="*", help="list what is to be mended below these paths")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1])
    args = parser.parse_args()
    found = read_tree(args.root, args.within)
    if args.within:
        for prose in found.values():
            for file, line, what in prose.notes:
                print(f"{file}:{line}: {what}")
    print(*table(found), sep="\n")


if __name__ == "__main__":
    main()
