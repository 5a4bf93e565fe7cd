"""``check_writer``: gansynth's own formats keep the contract, and each breach is found."""

import itertools
from typing import Any

import pytest

from gansynth import Writer, check_writer, installed, write_volume


@pytest.mark.parametrize("name", installed().names("writers"))
def test_built_in_formats_keep_the_contract(name):
    check_writer(installed().writer(name)).raise_if_failed()


class Plain(Writer):
    name = "plain"
    ndim = frozenset({3})
    mark = True
    count: Any = itertools.repeat("")

    def add(self, item):
        path = self.folder / f"{item.name}.nii.gz"
        write_volume(path, item.image[0], item.affine, synthetic=self.mark)

    def finish(self, about):
        (self.folder / "about.txt").write_text(f"{about}{next(self.count)}")


def misplaced(self, item):
    Plain.add(self, item)
    (self.folder.parent / f"broken-{item.name}").touch()


def unreadable(self, item):
    (self.folder / f"{item.name}.txt").touch()


@pytest.mark.parametrize(
    ("members", "failed"),
    [
        ({}, set()),
        ({"mark": False}, {"writes, with the mark"}),
        ({"count": itertools.count()}, {"same bytes twice"}),
        ({"add": misplaced}, {"whole or nothing"}),
        ({"add": unreadable, "reader": "nifti"}, {"round trip"}),
    ],
)
def test_each_breach_is_found(members, failed):
    report = check_writer(type("Breach", (Plain,), members), ndim=(3,))
    assert {check.name.removeprefix("3d: ") for check in report.failed} == failed
