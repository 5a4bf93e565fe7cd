"""The controls of our own benchmarks: what others do with unlabelled scans, without a generator."""

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gansynth
from tests.benchmark.test_plan import BENCHMARKS
from tests.cli.test_unlabelled import save
from tests.expected import raises_fault
from tests.offered import registered

TINY = {"width": 4, "levels": 2, "batch_size": 2, "steps": 6, "precision": "fp32"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Any:
    """Trains on small pictures and returns the weights of the result."""
    home: Path = tmp_path_factory.mktemp("controls")
    for number in range(6):
        save(home / "ill", f"ill{number}", number, lesion=True)
        save(home / "free", f"free{number}", 50 + number, lesion=False)
        save(home / "dark", f"dark{number}", 90 + number, lesion=False, scale=0.4)
    colours = home / "colour"
    colours.mkdir()
    Image.fromarray(np.full((8, 8, 3), 40, np.uint8)).save(colours / "one.png")

    ids = [f"ill{number}" for number in range(6)]
    splits = home / "splits.json"  # as a benchmark divides its cases
    splits.write_text(json.dumps([{"train": ids[:4], "val": ids[4:]}]))

    def train(target: str, name: str, **settings: object) -> bytes:
        gansynth.augment(
            target=target,
            data=f"pictures:{home / 'ill'}",
            read={"splits": str(splits)},
            ratio="1:0",
            out=home / name,
            set={**TINY, **settings},
            quiet=True,
        )
        [weights] = (home / name).glob("checkpoints/step-*6/ema.safetensors")
        return weights.read_bytes()

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS / "controls")
        with registered(import_module("gansynth_controls"), "controls"):
            folders = {"scans": "free", "dark": "dark", "judged": "ill/images", "colour": "colour"}
            for name, folder in folders.items():
                setattr(train, name, f"pictures:{home / folder}")
            yield train


def test_without_a_control_it_is_the_segmenter_to_the_bit(trained: Callable[..., bytes]):
    assert trained("controls", "bare") == trained("segmenter", "segmenter")


@pytest.mark.parametrize("use", ["teacher", "pseudo", "self", "masked", "cutmix"])
def test_each_control_changes_what_is_learnt(trained: Any, use: str):
    asked = {"cutmix": 1} if use == "cutmix" else {"scans": trained.scans, "use": use}
    assert trained("controls", use, **asked) != trained("controls", f"{use}-bare")


@pytest.mark.parametrize("use", ["teacher", "pseudo", "self", "masked"])
def test_scans_of_a_target_site_keep_their_grey_values(trained: Any, use: str):
    """Else they would look like training cases, and nothing be learnt of the other site."""
    own = trained("controls", f"{use}-own", target_scans=trained.dark, use=use)
    assert own != trained("controls", f"{use}-as-here", scans=trained.dark, use=use)


@pytest.mark.parametrize(
    ("scans", "fault"),
    [
        ("judged", "lineage.held-out-case-seen"),
        ("colour", "controls.target-scans-differ"),
    ],
)
def test_scans_of_judged_people_or_of_other_channels_are_refused(
    trained: Any, scans: str, fault: str
):
    with raises_fault(fault):
        trained("controls", f"of-{scans}", target_scans=getattr(trained, scans))


def test_scans_are_of_one_kind(trained: Any):
    with pytest.raises(gansynth.UsageFault, match="expected one of them"):
        trained("controls", "both", scans=trained.scans, target_scans=trained.dark)
