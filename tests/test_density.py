"""Code can be walked through in a debugger: few expressions that hide a loop or a name.

Numbers for 1,000 lines; those of admired code bases are 0.3 splats, 1 to 3 generator expressions
and 0.1 walruses.
"""

import re
from collections import defaultdict
from pathlib import Path

import pytest

from tests.house import ROOT, density, read_house

AIM = {"splat": 1.0, "generator expression": 5.0}
"""What a package may have at most."""
WHOLE = {"walrus": 0.1, "unpacked literal": 0.0}
"""What the product may have at most. Lower it when there have become fewer."""


@pytest.fixture(scope="module")
def packages() -> dict[str, list[Path]]:
    house, found = read_house(), defaultdict(list)
    for module, path in house.files.items():
        found[house.package(module)].append(path)
    del found["measure"]
    return found


def test_no_package_is_denser_than_the_aim(packages):
    denser: dict[tuple[str, str], float] = {}
    for package, files in packages.items():
        found = density(ROOT, files)
        denser |= {(package, kind): found[kind] for kind in AIM if found[kind] > AIM[kind]}
    assert denser == {}


def test_the_product_is_no_denser(packages):
    found = density(ROOT, [path for part in packages.values() for path in part])
    assert {kind: most for kind, most in WHOLE.items() if found[kind] > most} == {}


def test_constants_say_what_they_are_of(packages):
    vague = re.compile(r"^_?(LEAST|MOST|FEW|KEPT|SHOWN|USUAL|AGAIN)(, | = |: )", re.MULTILINE)
    files = [path for package in packages.values() for path in package]
    assert [path.name for path in files if vague.search(path.read_text("utf-8"))] == []
