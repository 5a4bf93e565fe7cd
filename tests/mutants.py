"""Do tests see a change of the product? ``python tests/mutants.py nn cli`` prints JSON.

A mutant is one small change of one file: of a comparison, an operator, a condition, a number, a
returned value, or a statement left out. One seed makes the same mutants of the same package. Tests
of the package run until the first fails; then the file is put back. Without packages it tries all.
"""

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
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SHELVES = ("plugins", "adapters", "cli", "benchmarks")
PAIRS = "Lt GtE, Gt LtE, Eq NotEq, Is IsNot, In NotIn, And Or, Add Sub, Mult Div, FloorDiv Mult"
PACKAGES = (*sorted(path.parent.name for path in ROOT.glob("gansynth/*/__init__.py")), *SHELVES)
# Imported once for all, not once a mutant.
HEAVY = "torch scipy.ndimage scipy.stats scipy.optimize sklearn.cluster nibabel h5py pydantic yaml"
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


def changes(source: str) -> Iterator[tuple[str, int, str]]:
    """Every change of a file: its kind, its line, the file's new text."""
    tree = ast.parse(source)
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        types = (getattr(node, "annotation", None), getattr(node, "returns", None))
        for part in (*types, node if isinstance(node, ast.JoinedStr) else None):
            skipped.update(ast.walk(part) if isinstance(part, ast.AST) else ())
    text = source.encode()
    starts = list(accumulate(map(len, text.splitlines(keepends=True)), initial=0))
    place: Any
    for place in ast.walk(tree):
        new = None if place in skipped else replacement(place)
        if new is not None:
            start = starts[place.lineno - 1] + place.col_offset
            end = starts[place.end_lineno - 1] + place.end_col_offset
            code = ast.unparse(new) if isinstance(place, ast.stmt) else f"({ast.unparse(new)})"
            changed = (text[:start] + code.encode() + text[end:]).decode()
            yield type(place).__name__, place.lineno, changed


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


def mutants_of(package: str, seed: int, count: int) -> list[tuple[Path, str, int, str]]:
    """So many, drawn at random from all of a package."""
    below = package if package in SHELVES else f"gansynth/{package}"
    files = sorted((ROOT / below).rglob("*.py"))
    mutants = [(path, *change) for path in files for change in changes(path.read_text())]
    return random.Random(seed).sample(mutants, min(count, len(mutants)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", nargs="*", help="of gansynth/, or shelves beside it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=24, help="mutants of each package")
    asked = parser.parse_args()
    sys.dont_write_bytecode = True
    sys.path[:0] = folders = [str(ROOT), *(str(ROOT / shelf) for shelf in SHELVES)]
    os.environ |= {"PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"}
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # which puts the file back
    for name in HEAVY.split():
        import_module(name)
    rows: list[dict[str, Any]] = []
    for package in asked.packages or PACKAGES:
        folder = f"tests/{package}" if (ROOT / "tests" / package).is_dir() else "tests"
        for path, kind, line, changed in mutants_of(package, asked.seed, asked.count):
            file = str(path.relative_to(ROOT))
            killed = not survives([folder], path, changed)
            row = {"file": file, "line": line, "kind": kind, "killed": killed}
            rows.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
    print(json.dumps({"killed": sum(r["killed"] for r in rows), "of": len(rows), "mutants": rows}))


if __name__ == "__main__":
    main()
