"""Reads assignments of literals from a configuration file without executing it.

DeepMedic runs its configuration files as Python. Here the text is only parsed. Values are
constants, lists, tuples and dicts of them, and sums, products and small powers of numbers.
Everything else is rejected with file, line and key.
"""

from __future__ import annotations

import ast
import math
import operator
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import reading

MOST_BYTES = 1 << 20  # most bytes of a configuration file
MOST_VALUES = 100_000  # most numbers and texts of a file, after repetition of lists
DEEPEST = 64  # most nested brackets or operators
LARGEST = 2**63
EXPONENT = 64  # largest exponent of a power
_SHOWN = 60
_WAY_OUT = "write the value itself: configurations are never executed here"
_LITERAL = "a number, a text, True, False, None, or a list, tuple or dict of these"


class _NotALiteral(Exception):
    """Not a value; the message describes the code."""


def read_literals(path: Path) -> dict[str, Any]:
    """Return every assignment of a configuration file in order, without executing it.

    A later assignment replaces an earlier one of the same key, as in Python.
    """
    path = Path(path)
    if not os.path.isfile(path):
        expected = "expected a DeepMedic configuration file (.cfg)"
        if os.path.isdir(path):
            raise UsageFault(f"{path}: is a folder, {expected}")
        raise DataFault(f"{path}: no such file, {expected}")
    text = read_text(path, MOST_BYTES)
    values: dict[str, Any] = {}
    count = 0
    for statement in _statements(path, text):
        keys = _keys(path, text, statement)
        if not keys:
            continue
        assert isinstance(statement, ast.Assign)
        try:
            value = _value(statement.value, DEEPEST)
            count += _count(value)
            if count > MOST_VALUES:
                raise _NotALiteral(f"with it the file has more than {MOST_VALUES} values")
        except _NotALiteral as odd:
            source = excerpt(ast.get_source_segment(text, statement.value) or "")
            raise DataFault(
                f"{path}: line {statement.lineno}: {keys[0]} is {source}, {odd}; expected "
                f"{_LITERAL}; {_WAY_OUT}"
            ) from None
        values.update(dict.fromkeys(keys, value))
    return values


def read_text(path: Path, most: int) -> str:
    """Read a small text file in UTF-8.

    Raises:
        DataFault: missing, not a file, too large, or no text.
        EnvironmentFault: reading is not permitted.
    """
    with reading(path):
        if path.exists() and not path.is_file():
            raise DataFault(f"{path}: is no file, expected a text file; correct the path")
        size = path.stat().st_size
        if size > most:
            raise DataFault(f"{path}: {size} bytes, expected a text file of at most {most}")
        data = path.read_bytes()
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataFault(
            f"{path}: line {line}: holds byte {data[error.start]:#04x}, expected UTF-8 text; save "
            "it as UTF-8"
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise DataFault(f"{path}: line {line}: holds a NUL byte, expected text; write it again")
    return text


def excerpt(text: str) -> str:
    """Shorten text for a message: one line, printable, limited in length."""
    line = " ".join(text.split())
    line = "".join(c if c.isprintable() else "?" for c in line)
    return line if len(line) <= _SHOWN else line[: _SHOWN - 3] + "..."


def _statements(path: Path, text: str) -> list[ast.stmt]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd backslashes, which Python only warns of
            return ast.parse(text).body
    except SyntaxError as error:
        where = "" if error.lineno is None else f"line {error.lineno}: "
        raise DataFault(
            f"{path}: {where}no Python: {excerpt(error.msg)}; expected lines KEY = VALUE; correct "
            "the line"
        ) from None
    except (RecursionError, MemoryError, ValueError):
        raise DataFault(
            f"{path}: nested too deeply to be read, expected lines KEY = VALUE; {_WAY_OUT}"
        ) from None


def _keys(path: Path, text: str, statement: ast.stmt) -> list[str]:
    """Return the assigned keys of a statement; none for a bare text, which is a comment."""
    if isinstance(statement, ast.Assign):
        targets = statement.targets
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        if len(names) == len(targets):
            return names
    elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return []
    source = excerpt(ast.get_source_segment(text, statement) or "")
    raise DataFault(
        f"{path}: line {statement.lineno}: {source}, {_named(statement)}; expected KEY = VALUE; "
        f"{_WAY_OUT}"
    )


_KINDS: Mapping[type[ast.AST], str] = {
    ast.Call: "a call",
    ast.Name: "another key's name",
    ast.Attribute: "an attribute",
    ast.JoinedStr: "a text with expressions in it",
    ast.Import: "an import",
    ast.ImportFrom: "an import",
    ast.AugAssign: "a change of an earlier value",
    ast.Subscript: "an index",
    ast.Lambda: "a function",
    ast.FunctionDef: "a function",
    ast.ClassDef: "a class",
    ast.If: "a condition",
    ast.IfExp: "a condition",
    ast.For: "a loop",
    ast.While: "a loop",
    ast.ListComp: "a loop",
    ast.Set: "a set",
}


def _named(node: ast.AST) -> str:
    return f"{_KINDS[type(node)]}" if type(node) in _KINDS else "code"


def _value(node: ast.expr, depth: int) -> Any:
    """Return the value of a literal (_Odd: not a literal)."""
    if depth == 0:
        raise _NotALiteral("nested too deeply")
    if isinstance(node, ast.Constant):
        return _constant(node.value)
    if isinstance(node, ast.List | ast.Tuple):
        items = [_value(item, depth - 1) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    if isinstance(node, ast.Dict):
        return _dict(node, depth)
    if isinstance(node, ast.UnaryOp) and type(node.op) in _SIGNS:
        return _SIGNS[type(node.op)](_number(_value(node.operand, depth - 1)))
    if isinstance(node, ast.BinOp):
        return _calculated(node, depth)
    raise _NotALiteral(_named(node))


def _constant(value: object) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        return _bounded(value)
    raise _NotALiteral(f"of type {type(value).__name__}")


def _dict(node: ast.Dict, depth: int) -> dict[Any, Any]:
    entries: dict[Any, Any] = {}
    for key, value in zip(node.keys, node.values, strict=True):
        if key is None:
            raise _NotALiteral("a dict with another one in it")
        name = _value(key, depth - 1)
        if isinstance(name, list | tuple | dict):
            raise _NotALiteral(f"a dict with a {type(name).__name__} for a key")
        entries[name] = _value(value, depth - 1)
    return entries


_SIGNS: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


def _calculated(node: ast.BinOp, depth: int) -> Any:
    left, right = _value(node.left, depth - 1), _value(node.right, depth - 1)
    if isinstance(left, list) or isinstance(right, list):
        return _joined(node.op, left, right)
    x, y = _number(left), _number(right)
    try:
        if isinstance(node.op, ast.Pow):
            if abs(y) > EXPONENT:
                raise _NotALiteral(f"a power of more than {EXPONENT}")
            return _bounded(x**y)
        if type(node.op) in _OPERATORS:
            return _bounded(_OPERATORS[type(node.op)](x, y))
    except ArithmeticError as error:
        raise _NotALiteral(f"no number: {error}") from None
    raise _NotALiteral("code")


def _joined(kind: ast.operator, left: Any, right: Any) -> list[Any]:
    """Concatenate lists, or repeat one."""
    if isinstance(kind, ast.Add) and isinstance(left, list) and isinstance(right, list):
        joined = left + right
    elif isinstance(kind, ast.Mult) and type(left) is not type(right):
        items, times = (left, right) if isinstance(left, list) else (right, left)
        if not isinstance(times, int) or times * _count(items) > MOST_VALUES:
            raise _NotALiteral("a list that is repeated too often")
        joined = items * times
    else:
        raise _NotALiteral("no sum of lists")
    if _count(joined) > MOST_VALUES:
        raise _NotALiteral(f"a list of more than {MOST_VALUES} values")
    return joined


def _count(value: Any) -> int:
    """Count the values in a nested value."""
    if isinstance(value, dict):
        return 1 + sum(_count(item) for item in value.values())
    return 1 + sum(map(_count, value)) if isinstance(value, list | tuple) else 1


def _number(value: Any) -> int | float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise _NotALiteral("calculated from what is no number")


def _bounded(value: object) -> int | float:
    if isinstance(value, int) and abs(value) < LARGEST:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise _NotALiteral("no finite number, or a whole one of more than 63 bits")
