"""Code can be walked through in a debugger: few expressions that hide a loop or a name.

Numbers for 1,000 lines; those of admired code bases are 0.3 splats, 1 to 3 generator expressions
and 0.1 walruses. Lower ``MOST`` when there have become fewer.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.house import PRODUCT, ROOT, parsed

MOST = {"splat": 6.5, "generator expression": 12.8, "walrus": 0.6, "unpacked literal": 0.0}


def dense(tree: ast.Module) -> Iterator[str]:
    """What of ``MOST`` is in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            yield from ("splat" for key in node.keys if key is None)
        elif isinstance(node, ast.GeneratorExp):
            yield "generator expression"
        elif isinstance(node, ast.NamedExpr):
            yield "walrus"
        elif isinstance(node, ast.Starred) and isinstance(node.value, ast.Tuple | ast.List):
            yield "unpacked literal"  # f(*(a, b), c)


@pytest.fixture(scope="module")
def found() -> dict[str, float]:
    files = [path for folder in PRODUCT for path in (ROOT / folder).rglob("*.py")]
    lines = sum(path.read_text("utf-8").count("\n") for path in files)
    counts = Counter(kind for path in files for kind in dense(parsed(path)))
    return {kind: 1000 * counts[kind] / lines for kind in MOST}


@pytest.mark.parametrize("kind", MOST)
def test_code_becomes_no_denser(found, kind):
    assert found[kind] <= MOST[kind]
