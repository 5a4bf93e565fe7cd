"""docs/sources.md says what --read accepts, and names every kind there is."""

from pathlib import Path

import pytest

from gansynth.core.registry import installed
from gansynth.data import BUILT_IN

TEXT = (Path(__file__).parents[2] / "docs/sources.md").read_text(encoding="utf-8")

KINDS = (*BUILT_IN, "nnunet", "nnunet-raw", "yolo", "deepmedic")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_section(kind):
    assert f"\n## {kind}\n" in TEXT
    assert f"| [`{kind}`](#{kind}) |" in TEXT


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_ours_can_be_checked(kind):
    assert kind in installed().names("sources")
    assert kind in installed().names("checks")
