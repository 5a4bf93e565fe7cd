"""The page of all errors: id, exit code and sentence, read from where the code raises them."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gansynth.runtime.errors import FAULTS
from tests.house import PRODUCT

ROOT = Path(__file__).parents[1]
CODES = {kind.__name__: str(kind.exit_code) for kind in FAULTS.values()}
CODES["fault"] = "2 or 3"  # a parameter of read_yaml
HEAD = """\
# Errors

A command that cannot go on prints one line, the error's id behind it, and ends with an
[exit code](commands.md#exit-codes). `error.id` is the same in Python. Sentences may be improved
in any version, ids stay: scripts should ask for these. Words in braces are filled in.
`process.failed` is the error of another process whose id is not known.

Made from the code."""


class RaisedError(NamedTuple):
    """An error as the code raises it."""

    id: str
    exit_code: str
    sentence: str
    file: Path
    line: int


def raised_errors() -> Iterator[RaisedError]:
    """Find what constructs an error with an id in the code of the product."""
    for shelf in PRODUCT:
        for file in sorted((ROOT / shelf).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                match node:
                    case ast.Call(func=ast.Name(id=kind), args=args) if kind in CODES:
                        assert len(args) == 2, f"{file}:{node.lineno}: no id"
                        id, sentence = args
                        assert isinstance(id, ast.Constant), f"{file}:{node.lineno}"
                        words = " ".join(_words(sentence).split())
                        yield RaisedError(str(id.value), CODES[kind], words, file, node.lineno)


def _words(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(map(_words, parts))
        case ast.FormattedValue(value=value):
            return f"{{{ast.unparse(value)}}}"
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _words(left) + _words(right)
    return f"{{{ast.unparse(node)}}}"


def errors_page() -> str:
    """The page, a table for each area."""
    lines, area = [HEAD], ""
    for error in sorted(set((e.id, e.exit_code, e.sentence) for e in raised_errors())):
        id, exit_code, sentence = error
        if id.partition(".")[0] != area:
            area = id.partition(".")[0]
            lines.append(f"\n## {area}\n\n| id | exit code | sentence |\n| --- | --- | --- |")
        shown = sentence.replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
        lines.append(f"| `{id}` | {exit_code} | {shown} |")
    return "\n".join(lines)
