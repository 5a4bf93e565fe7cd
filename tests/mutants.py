"""Do tests see a change of the product? ``python tests/mutants.py --package nn`` prints JSON.

A mutant is one small change of one file: of a comparison, an operator, a condition, a number, a
returned value, or a statement left out. One seed makes the same mutants of the same package. Tests
run until the first fails; then the file is put back. ``--contexts`` names coverage data with
contexts (``pytest --cov --cov-context=test``): then only tests that reach the changed line run,
or files of tests whose fixtures do, at most a hundred and twenty, the package's own first.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch  # noqa: F401  # once for all, not once a mutant
from coverage import CoverageData

ROOT = Path(__file__).parents[1]
SHELVES = ("plugins", "adapters", "cli", "benchmarks")
PAIRS = "Lt GtE, Gt LtE, Eq NotEq, Is IsNot, In NotIn, And Or, Add Sub, Mult Div, FloorDiv Mult"
MOST = 120  # tests of one mutant
OTHER: dict[str, str] = {}
for one, other in map(str.split, PAIRS.split(", ")):
    OTHER |= {one: other, other: OTHER.get(other, one)}


def replacement(node: Any) -> Any:
    """What takes the node's place; None where nothing does."""
    new = copy.copy(node)
    match node:
        case ast.Compare(ops=[operator, *rest]) if type(operator).__name__ in OTHER:
            new.ops = [getattr(ast, OTHER[type(operator).__name__])(), *rest]
            return new
        case ast.BinOp(op=operator) | ast.BoolOp(op=operator) if type(operator).__name__ in OTHER:
            new.op = getattr(ast, OTHER[type(operator).__name__])()
            return new
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return operand
        case ast.Constant(value=bool() | int() | float() as value):
            return ast.Constant(not value if isinstance(value, bool) else value + 1)
        case ast.Return(value=ast.expr()):
            return ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise():
            return ast.Pass()
    return None


def changes(source: str) -> Iterator[tuple[str, range, str]]:
    """Every change of a file: its kind, the lines of its statement, the file's new text."""
    tree = ast.parse(source)
    lines: dict[int, range] = {}
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        types = (getattr(node, "annotation", None), getattr(node, "returns", None))
        for part in (*types, node if isinstance(node, ast.JoinedStr) else None):
            skipped.update(ast.walk(part) if isinstance(part, ast.AST) else ())
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            end = body[0].lineno if body else (node.end_lineno or node.lineno) + 1
            head = range(node.lineno, max(end, node.lineno + 1))
            lines.update(dict.fromkeys(head, head))
    text = source.encode()
    starts = list(accumulate(map(len, text.splitlines(keepends=True)), initial=0))
    place: Any
    for place in ast.walk(tree):
        new = None if place in skipped else replacement(place)
        if new is not None:
            start = starts[place.lineno - 1] + place.col_offset
            end = starts[place.end_lineno - 1] + place.end_col_offset
            code = ast.unparse(new) if isinstance(place, ast.stmt) else f"({ast.unparse(new)})"
            at = lines.get(place.lineno, range(place.lineno, place.lineno + 1))
            yield type(place).__name__, at, (text[:start] + code.encode() + text[end:]).decode()


def reaching(contexts: Path, path: Path, lines: range, folder: str) -> list[str]:
    """The tests that run these lines; the whole folder where importing a module runs them."""
    data = CoverageData(str(contexts))
    data.read()
    files = [f for f in data.measured_files() if f.endswith(f"/{path.relative_to(ROOT)}")]
    reached = [item for file in files for item in data.contexts_by_lineno(file).items()]
    found = {name.rpartition("|") for line, names in reached if line in lines for name in names}
    # A fixture of a module is set up for one test, and looked at by others.
    names = {test.partition("::")[0] if when == "setup" else test for test, _, when in found}
    return [folder] if "" in names else sorted(names, key=lambda n: (folder not in n, n))[:MOST]


def run_tests(tests: list[str]) -> None:
    """Leave with pytest's exit code, silently."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    options = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", "not slow"]
    os._exit(int(pytest.main([*options, *tests])))


def survives(tests: list[str], path: Path, changed: str) -> bool:
    """Whether tests pass on a changed file, which is put back whatever happens."""
    kept = path.read_bytes()
    child = multiprocessing.get_context("fork").Process(target=run_tests, args=(tests,))
    try:
        path.write_text(changed)
        child.start()
        child.join(timeout=900)
        return child.exitcode == 0
    finally:
        child.kill()
        path.write_bytes(kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", required=True, help="of gansynth/, or a shelf beside it")
    parser.add_argument("--tests", help="a folder of tests: tests/PACKAGE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--contexts", type=Path, help="coverage data with contexts of tests")
    parser.add_argument("--killed-in", type=Path, help="what this printed: try what was killed")
    asked = parser.parse_args()
    folder = asked.tests or f"tests/{asked.package}"
    below = asked.package if asked.package in SHELVES else f"gansynth/{asked.package}"
    files = sorted((ROOT / below).rglob("*.py"))
    mutants = [(path, *change) for path in files for change in changes(path.read_text())]
    chosen = random.Random(asked.seed).sample(mutants, min(asked.count, len(mutants)))
    earlier = json.loads(asked.killed_in.read_text())["mutants"] if asked.killed_in else []
    sys.dont_write_bytecode = True
    sys.path[:0] = folders = [str(ROOT), *(str(ROOT / shelf) for shelf in SHELVES)]
    os.environ |= {"PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"}
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # which puts the file back
    rows: list[dict[str, Any]] = []
    for index, (path, kind, lines, changed) in enumerate(chosen):
        row: dict[str, Any] = {"kind": kind, "line": lines.start, "killed": False}
        row["file"] = str(path.relative_to(ROOT))
        if not earlier or earlier[index]["killed"]:
            tests = reaching(asked.contexts, path, lines, folder) if asked.contexts else [folder]
            row["killed"] = bool(tests) and not survives(tests, path, changed)
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    killed = sum(row["killed"] for row in rows)
    print(json.dumps({"killed": killed, "of": len(rows), "mutants": rows}, indent=1))


if __name__ == "__main__":
    main()
