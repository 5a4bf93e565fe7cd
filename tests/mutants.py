"""Random mutants of the product, and which of them the quick tests kill.

A mutant is the product with one small fault: a comparison, an operator, a number, a condition or a
call changed. A mutant is killed when a test fails that passes without it.

    make cov ARGS=--cov-context=test        # .coverage then says which test ran which line
    python tests/mutants.py choose -o mutants.json --number 200 --seed 0
    python tests/mutants.py run mutants.json -o after.json
    python tests/mutants.py table before.json after.json

Only lines that a quick test runs in its own process are chosen from. ``run`` changes one file at a
time and restores it, and runs the tests that reach the line: those of the same package first, the
fastest first, until ``--seconds`` of them are planned. A mutant is known by its file and by its
number among the places of that file, so names, comments and docstrings may change between two runs.
``--moved`` is a JSON file with the new paths of files.
"""

from __future__ import annotations

import argparse
import ast
import json
import multiprocessing
import os
import random
import sqlite3
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
SHELVES = ("gansynth", "plugins", "adapters", "cli")
SWAPS: Mapping[type, type] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt},
    **{ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In},
    **{ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult},
    **{ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult},
}
KILL_AFTER = 180  # seconds: a mutant that hangs is killed


class Fault(NamedTuple):
    """One possible fault: its kind, where it is, and the code that takes the place of the node."""

    kind: str
    node: ast.expr | ast.stmt
    code: str


def faults(tree: ast.Module) -> Iterator[Fault]:
    """All faults of a file that lie in functions, in the order of the code."""
    for function in _functions(tree):
        for statement in function.body:
            for node in _own_nodes(statement):
                yield from _faults_at(node)


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all below it, but for nested functions, annotations and the parts of f-strings."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.JoinedStr):
        return
    yield node
    for name, value in ast.iter_fields(node):
        if name != "annotation":
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _own_nodes(child)


def _faults_at(node: ast.AST) -> Iterator[Fault]:
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        yield _swapped("comparison", node, ops=[SWAPS[type(node.ops[0])](), *node.ops[1:]])
    elif isinstance(node, ast.BoolOp):
        yield _swapped("and-or", node, op=SWAPS[type(node.op)]())
    elif isinstance(node, ast.BinOp) and type(node.op) in SWAPS and not _is_text(node):
        yield _swapped("arithmetic", node, op=SWAPS[type(node.op)]())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield Fault("not", node, ast.unparse(node.operand))
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield Fault("truth", node, str(not node.value))
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield Fault("number", node, repr(node.value + 1))
    elif isinstance(node, ast.IfExp):
        yield _swapped("choice", node, body=node.orelse, orelse=node.body)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield Fault("call left out", node, "pass")


def _swapped(kind: str, node: ast.expr, **fields: Any) -> Fault:
    changed = copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return Fault(kind, node, ast.unparse(changed))


def _is_text(node: ast.BinOp) -> bool:
    sides = (node.left, node.right)
    return any(isinstance(side, ast.JoinedStr) for side in sides) or any(
        isinstance(side, ast.Constant) and isinstance(side.value, str) for side in sides
    )


def mutated(source: str, fault: Fault) -> str:
    """A file with a fault in it."""
    node, lines = fault.node, source.encode().splitlines(keepends=True)
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    start = sum(map(len, lines[: node.lineno - 1])) + node.col_offset
    end = sum(map(len, lines[: node.end_lineno - 1])) + node.end_col_offset
    code = fault.code if isinstance(node, ast.stmt) else f"({fault.code})"
    text = source.encode()
    return (text[:start] + code.encode() + text[end:]).decode()


class Coverage:
    """Which quick tests ran which line, from a coverage file with contexts."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise SystemExit(f"{path}: no such file; make it with make cov ARGS=--cov-context=test")
        self.database = sqlite3.connect(path)
        rows = self.database.execute("select id, path from file")
        self.files = {self._relative(name): number for number, name in rows}
        self.contexts = dict(self.database.execute("select id, context from context"))

    @staticmethod
    def _relative(name: str) -> str:
        parts = Path(name).parts
        starts = [i for i, part in enumerate(parts) if part in SHELVES and i >= 2]
        return "/".join(parts[starts[0] :]) if starts else name

    def tests_of(self, file: str) -> dict[int, set[str]]:
        """Line -> tests that ran it."""
        found: dict[int, set[str]] = defaultdict(set)
        query = "select context_id, fromno, tono from arc where file_id = ?"
        for context, start, end in self.database.execute(query, (self.files.get(file, -1),)):
            test, _, phase = self.contexts[context].partition("|")
            if test and phase:
                for line in (start, end):
                    found[abs(line)].add(test)
        return found


def choose(coverage: Coverage, number: int, seed: int) -> list[dict[str, Any]]:
    """Mutants drawn evenly from all faults on lines that a test runs."""
    places = []
    for shelf in SHELVES:
        for path in sorted((ROOT / shelf).rglob("*.py")):
            file = path.relative_to(ROOT).as_posix()
            tests = coverage.tests_of(file)
            for index, fault in enumerate(faults(ast.parse(path.read_text("utf-8")))):
                if tests.get(fault.node.lineno):
                    places.append({"file": file, "index": index, "kind": fault.kind})
    drawn = random.Random(seed).sample(places, min(number, len(places)))
    print(f"{len(drawn)} of {len(places)} faults on lines that quick tests run", file=sys.stderr)
    return drawn


def planned(coverage: Coverage, file: str, line: int, seconds: float, known: Mapping[str, float]):
    """Tests that reach a line: of the same package first, the fastest first."""
    parts = [part.removeprefix("gansynth_") for part in Path(file).with_suffix("").parts[1:]]

    def order(test: str) -> tuple[int, float]:
        near = sum(part in test.partition("::")[0] for part in parts)
        return -near, known.get(test, 1.0)

    chosen, total = list[str](), 0.0
    for test in sorted(coverage.tests_of(file).get(line, ()), key=order):
        total += known.get(test, 1.0)
        if chosen and total > seconds:
            break
        chosen.append(test)
    return chosen


def _tests_fail(tests: Sequence[str], log: str) -> None:
    """In a process of its own: ends with pytest's exit code."""
    import pytest

    with open(log, "w") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--no-cov", "-n0"]
    os._exit(int(pytest.main([*options[:4], *tests])))


def killed(tests: Sequence[str], log: Path) -> bool:
    """Whether one of some tests fails now; one that hangs has failed."""
    process = multiprocessing.get_context("fork").Process(
        target=_tests_fail, args=(tests, str(log))
    )
    process.start()
    process.join(KILL_AFTER)
    if process.exitcode is None:
        process.kill()
        process.join()
        return True
    return process.exitcode != 0


def run(
    mutants: Sequence[Mapping[str, Any]],
    coverage: Coverage,
    out: Path,
    moved: Mapping[str, str],
    seconds: float,
    known: Mapping[str, float],
) -> None:
    """Try each mutant; ``out`` is written after each, and what it holds is not tried again."""
    results = json.loads(out.read_text()) if out.exists() else []
    tried = {(each["file"], each["index"]) for each in results}
    for mutant in mutants:
        if (mutant["file"], mutant["index"]) in tried:
            continue
        start = time.monotonic()
        path = ROOT / moved.get(mutant["file"], mutant["file"])
        file, source = path.relative_to(ROOT).as_posix(), path.read_text("utf-8")
        fault = list(faults(ast.parse(source)))[mutant["index"]]
        assert fault.kind == mutant["kind"], (mutant, fault)
        tests = planned(coverage, file, fault.node.lineno, seconds, known)
        ended = False
        try:
            path.write_text(mutated(source, fault), "utf-8")
            ended = bool(tests) and killed(tests, out.with_suffix(".log"))
        finally:
            path.write_text(source, "utf-8")
        before = ast.unparse(fault.node).partition("\n")[0]
        results.append(
            {
                **mutant,
                "killed": ended,
                "line": fault.node.lineno,
                "change": f"{before:.60} -> {fault.code:.60}",
                "tests": len(tests),
                "seconds": round(time.monotonic() - start, 1),
            }
        )
        out.write_text(json.dumps(results, indent=1) + "\n")
        last = results[-1]
        print(len(results), last["killed"], file, last["line"], last["change"], flush=True)


def table(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """How many mutants of two runs were tried and killed, by package, as Markdown."""
    rows: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for column, run_results in ((0, before), (2, after)):
        for each in run_results:
            for name in ("/".join(Path(each["file"]).parts[:2]), "all"):
                rows[name][column] += 1
                rows[name][column + 1] += each["killed"]
    yield "| package | tried before | killed | tried after | killed |"
    yield "|---|--:|--:|--:|--:|"
    for name in sorted(rows, key=lambda name: (name == "all", name)):
        yield f"| {name} | {' | '.join(map(str, rows[name]))} |"


def _preload() -> None:
    """Import what takes long and is not the product's; each mutant's process has it then."""
    import h5py  # noqa: F401
    import nibabel  # noqa: F401
    import pydantic  # noqa: F401
    import pytest  # noqa: F401
    import scipy.ndimage  # noqa: F401
    import sklearn  # noqa: F401
    import torch

    torch.set_num_threads(1)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("command", choices=("choose", "run", "table"))
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("-o", "--out", type=Path)
    parser.add_argument("--coverage", type=Path, default=ROOT / ".coverage")
    parser.add_argument("--number", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--moved", type=Path, help="JSON: old path of a file -> new path")
    parser.add_argument("--durations", type=Path, help="JSON: test -> seconds")
    parser.add_argument("--killed-in", type=Path, help="only mutants that were killed in this run")
    args = parser.parse_args()
    if args.command == "table":
        before, after = (json.loads(path.read_text()) for path in args.files)
        print(*table(before, after), sep="\n")
        return
    coverage = Coverage(args.coverage)
    if args.command == "choose":
        args.out.write_text(json.dumps(choose(coverage, args.number, args.seed), indent=1) + "\n")
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    _preload()
    os.chdir(ROOT)
    mutants = json.loads(args.files[0].read_text())
    if args.killed_in:
        only = {
            (e["file"], e["index"]) for e in json.loads(args.killed_in.read_text()) if e["killed"]
        }
        mutants = [each for each in mutants if (each["file"], each["index"]) in only]
    moved = json.loads(args.moved.read_text()) if args.moved else {}
    known = json.loads(args.durations.read_text()) if args.durations else {}
    run(mutants, coverage, args.out, moved, args.seconds, known)


if __name__ == "__main__":
    main()
