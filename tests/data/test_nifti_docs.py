"""docs/sources.md says what --read accepts, and names every kind there is."""

import re
from pathlib import Path

import pytest

from gansynth.core.registry import installed
from gansynth.data import BUILT_IN
from gansynth.data.reading import VolumeOptions
from tests.options_table import options_table

TEXT = (Path(__file__).parents[2] / "docs/sources.md").read_text(encoding="utf-8")

KINDS = (*BUILT_IN, "nnunet", "nnunet-raw", "yolo", "deepmedic")


def test_the_keys_of_volumes_are_those_of_the_model():
    match = re.search(r"<!-- read: nifti msd nnunet-raw -->\n(.*?)\n<!-- end -->", TEXT, re.DOTALL)
    assert match is not None
    assert match[1].splitlines() == options_table(VolumeOptions)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_section(kind):
    assert f"\n## {kind}\n" in TEXT
    assert f"| [`{kind}`](#{kind}) |" in TEXT


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_ours_can_be_checked(kind):
    assert kind in installed().names("sources")
    assert kind in installed().names("checks")
