"""A package imports from lower floors only, no module is in a circle, and nothing lies loose."""

from __future__ import annotations

import pytest

from tests.house import FLOORS, read_house


@pytest.fixture(scope="module")
def house():
    return read_house()


def test_imports_go_down(house):
    assert house.against_the_floors() == []


def test_no_module_is_in_a_circle(house):
    assert house.circles() == []


def test_nothing_lies_loose(house):
    assert house.loose() == ["gansynth"]


def test_every_package_is_on_a_floor(house):
    assert [module for module in house.files if house.floor(module) is None] == ["gansynth"]
    used = {
        house.package(m) if house.shelf(m) == "gansynth" else house.shelf(m) for m in house.files
    }
    assert used - {"gansynth"} == set(FLOORS)
