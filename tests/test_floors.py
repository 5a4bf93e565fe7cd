import re
import tomllib

import pytest

from tests.house import FLOORS, PRODUCT, ROOT, TESTS, read_house


@pytest.fixture(scope="module")
def house():
    return read_house()


def test_imports_go_down(house):
    assert house.against_the_floors() == []


def test_no_distribution_imports_one_that_it_does_not_need(house):
    parts = tomllib.loads((ROOT / "gansynth" / "runtime" / "parts.toml").read_text("utf-8"))
    part_of = {package: part for part, table in parts.items() for package in table["packages"]}
    wrong = []
    for above, below in house.edges:
        high, low = (part_of.get(module.partition(".")[0]) for module in (above, below))
        scripts = "measure" in (house.shelf(above), house.shelf(below))
        if low not in (high, "gansynth-core") and not scripts and above != "gansynth":
            wrong.append((above, below))
    assert wrong == []


def test_no_module_is_in_a_circle(house):
    assert house.circle() == []


def test_nothing_lies_loose(house):
    assert house.loose() == ["gansynth"]


def test_every_package_is_on_a_floor(house):
    assert [module for module in house.files if house.floor(module) is None] == ["gansynth"]
    used = {
        house.package(m) if house.shelf(m) == "gansynth" else house.shelf(m) for m in house.files
    }
    assert used - {"gansynth"} == set(FLOORS)


def test_tests_grow_no_faster_than_the_product():
    def lines(*folders: str) -> int:
        files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
        return sum(path.read_text("utf-8").count("\n") for path in files)

    assert lines("tests") <= TESTS * lines(*PRODUCT)


def test_the_table_in_contributing_is_this_one():
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+) \| `(?:gansynth/|benchmarks/)?(\w+)/", text, flags=re.MULTILINE)
    assert {package: int(floor) for floor, package in rows} == FLOORS
