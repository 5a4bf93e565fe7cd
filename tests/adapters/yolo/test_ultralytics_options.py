"""What ultralytics is told and what is refused, before anything long starts."""

import importlib.metadata
import re
from pathlib import Path

import pytest

import gansynth_yolo
from gansynth.runtime.errors import EnvironmentFault
from gansynth_yolo.agpl.options import NO_AUGMENTATION, OURS, REFUSED, version
from tests.adapters.yolo.test_ultralytics import ask
from tests.yolo_sets import toy_yolo

GOOD = {
    "usual": {},
    "of the user": {"options": {"mosaic": 0.5, "amp": "bf16", "freeze": [1, 2], "rect": False}},
    "no augmentation": {"augment": False},
    "family": {"model": "yolo11s.yaml"},
    "automatic batch": {"batch": -1},
}
BAD = {
    "misspelt": ({"options": {"mosiac": 0.5}}, "-- mosiac=0.5: .* Did you mean 'mosaic'"),
    "ours": ({"options": {"epochs": 3}}, "-- epochs=3: .* --set epochs="),
    "rect": ({"options": {"rect": True}}, "-- rect=True: expected rect=False: "),
    "fraction": ({"options": {"fraction": 0.5}}, "-- fraction=0.5: expected fraction=1.0: "),
    "type": ({"options": {"mosaic": "much"}}, "'mosaic=much' is of invalid type str"),
    "range": ({"options": {"fliplr": 2.0}}, "'fliplr=2.0' is an invalid value"),
    "weights": ({"options": {"pretrained": "no.pt"}}, "-- pretrained=no.pt: no such file"),
    "no file": ({"model": "yolo11n.pt"}, "no such file; weights are not downloaded"),
    "no model": ({"model": "yolo11q"}, "no such model.* Did you mean 'yolo11"),
    "segments": ({"model": "yolo11n-seg.yaml"}, "its head is Segment, expected Detect"),
    "transformer": ({"model": "rtdetr-l.yaml"}, "its head is RTDETRDecoder, expected Detect"),
    "size": ({"imgsz": 100}, "--set imgsz=100: expected a multiple of 32, for example 96"),
    "devices": ({"device": "0,1"}, "expected one device"),
    "no device": ({"device": "cuda:77"}, "expected one with this number"),
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("options")
    data = toy_yolo(folder / "set", train=4, val=4, test=0)
    changes = [*GOOD.values(), *(change for change, _ in BAD.values())]
    return ask("check", data, folder, {"changes": changes})


@pytest.mark.parametrize("case", GOOD)
def test_accepted(answers, case):
    assert answers["said"][list(GOOD).index(case)] == ""


@pytest.mark.parametrize("case", BAD)
def test_refused_in_one_line(answers, case):
    said = answers["said"][len(GOOD) + list(BAD).index(case)]
    kinds = {"no device": "EnvironmentFault", "weights": "DataFault", "no file": "DataFault"}
    kind = kinds.get(case, "UsageFault")
    assert said.startswith(f"{kind}: ")
    assert "\n" not in said
    assert re.search(BAD[case][1], said), said


def test_no_file_outside_its_package_imports_it():
    root = Path(gansynth_yolo.__file__).parents[2]
    files = [
        f
        for shelf in ("gansynth", "adapters", "plugins", "cli")
        for f in (root / shelf).rglob("*.py")
    ]
    importing = {
        f.parent.name for f in files if re.search(r"(import|from) ultralytics", f.read_text())
    }
    assert importing == {"agpl"}


def test_naming_the_detector_does_not_import_ultralytics(answers):
    assert not answers["early"]


def test_it_believes_to_be_offline_with_settings_of_its_own(answers):
    assert not answers["online"]
    assert "Arial.ttf" in answers["config"]


def test_no_option_is_both_ours_and_refused():
    assert not set(OURS) & set(REFUSED)


def test_augmentation_off_is_off_throughout():
    assert not any(NO_AUGMENTATION.values())


@pytest.mark.parametrize("found", ["8.3.200", "8.5.0", "9.0.1", "7"])
def test_other_releases_are_refused(monkeypatch, found):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: found)
    with pytest.raises(EnvironmentFault, match=rf"version {found}, expected >=8\.4,<8\.5"):
        version()
