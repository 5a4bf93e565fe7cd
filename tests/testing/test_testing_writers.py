"""``check_writer``: gansynth's own formats keep the contract, and each breach is found."""

import itertools
from typing import Any

import pytest

from gansynth import Writer, check_writer, installed, write_volume


@pytest.mark.parametrize("name", installed().names("writers"))
def test_built_in_formats_keep_the_contract(name):
    check_writer(installed().writer(name)).raise_if_failed()


class Plain(Writer):
    """The least that a format does."""

    name = "plain"
    ndim = frozenset({3})
    mark, text = True, ""
    count: Any = itertools.repeat("")

    def add(self, item):
        path = self.folder / f"{item.name}{self.text}.nii.gz"
        write_volume(path, item.image[0], item.affine, synthetic=self.mark)

    def finish(self, about):
        (self.folder / "about.txt").write_text(f"{about}{next(self.count)}")


class Unmarked(Plain):
    mark = False


class Different(Plain):
    count = itertools.count()


class Elsewhere(Plain):
    def add(self, item):
        super().add(item)
        (self.folder.parent / f"broken-{item.name}").touch()


class Unreadable(Plain):
    reader = "nifti"

    def add(self, item):
        (self.folder / f"{item.name}.txt").touch()


@pytest.mark.parametrize(
    ("cls", "failed"),
    [
        (Plain, set()),
        (Unmarked, {"writes, with the mark"}),
        (Different, {"same bytes twice"}),
        (Elsewhere, {"whole or nothing"}),
        (Unreadable, {"round trip"}),
    ],
)
def test_each_breach_is_found(cls, failed):
    report = check_writer(cls, ndim=(3,))
    assert {check.name.removeprefix("3d: ") for check in report.failed} == failed
