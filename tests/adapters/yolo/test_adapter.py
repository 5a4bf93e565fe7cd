import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.core.capabilities import Capabilities
from gansynth.core.mix_config import MixConfig
from gansynth.core.ratio import Ratio
from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Boxes, Sample
from gansynth.core.source import SourceRequest
from gansynth.hosts.api import as_long
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from gansynth.sampling.run_source import open_drawer
from gansynth.testing import check_adapter
from gansynth_yolo.adapter import YoloAdapter
from gansynth_yolo.config import YoloChoices, YoloConfig
from tests.adapters.kits import changed_run
from tests.yolo_sets import opened, toy_yolo


def adapter_of(data: Path, **asked: Any) -> YoloAdapter:
    return YoloAdapter(opened(data, **asked))


@pytest.fixture
def augment(refuse, shared_yolo, box_run, tmp_path):
    """A dry run that must be refused: ``augment("--set", "epochs=0", code=2, says=["epochs"])``."""

    def run(*more: object, code: int, says: list[str], data=shared_yolo, run=box_run):
        named = () if run is None else ("--generator", run)
        output = () if any("output=" in str(m) for m in more) else ("--set", f"output={tmp_path}/o")
        words = ("augment", "--target", "yolo", "--data", f"yolo:{data}", *named, *output)
        refuse(*words, "--ratio", "1:1", "--dry-run", *more, code=code, says=says)
        assert not (tmp_path / "o").exists()

    return run


def test_it_keeps_the_contract_of_adapters(shared_yolo, tmp_path):
    adapter = adapter_of(shared_yolo)
    report = check_adapter(adapter, workspace=tmp_path)
    assert report.passed, report.failed
    assert {check.verdict for check in report.checks} == {"passed"}


def test_a_sample_of_another_class_is_not_let_in(shared_yolo):
    adapter = adapter_of(shared_yolo)
    image, coords = np.zeros((1, 8, 8), np.float32), np.array([[0, 0, 2, 2]], np.float32)
    assert adapter.finalise(Sample(image, None, Boxes(coords, np.zeros(1, np.int16)))) == {}
    with pytest.raises(DataFault, match="box class 1, expected 0 to 0"):
        adapter.finalise(Sample(image, None, Boxes(coords, np.ones(1, np.int16))))


def test_samples_are_drawn_in_the_size_and_classes_the_generator_was_fitted_in(
    shared_yolo, box_run, tmp_path
):
    adapter = adapter_of(shared_yolo)
    drawer, bring = open_drawer(adapter, box_run, SampleRequest(), device="cpu")
    assert (adapter.host.resized, drawer.source.space.size) == ((64, 64), (32, 32))
    sample = Sample(np.zeros((1, 32, 32), np.float32))
    assert bring is not None
    assert bring(sample) is sample
    other = opened(toy_yolo(tmp_path / "other", names=("tumour",)))
    with pytest.raises(IntegrityFault, match="box_classes"):
        adapter.bring(other, other.space)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--set epochs=0", "--set epochs=0~greater than or equal to 1"),
        ("--set device=tpu", "--set device=tpu~cuda:N"),
        ("--set epoch=3", "--set epoch~Did you mean 'epochs'?"),
        ("--detector darknet", "--detector darknet~'libreyolo' or 'ultralytics'"),
        ("-- mosaic", "-- mosaic~KEY=VALUE"),
        ("-- mosaic=1 mosaic=0", "mosaic is given twice"),
        pytest.param(
            *("-- resume=true", "-- resume=True: gansynth sets it~the same command again"),
            marks=pytest.mark.extra("yolo"),
        ),
        ("--augment-synthetic no", "--augment-synthetic no~mosaics"),
        ("--fold all", "--fold all~expected fold 0"),
        ("--boxes nowhere", "--boxes nowhere"),
        ("--edit elastic", "--edit elastic"),
    ],
)
def test_what_cannot_be_is_refused(augment, words, says):
    augment(*words.split(), code=2, says=says.split("~"))


@pytest.mark.parametrize(("settings", "epochs"), [({"epochs": "3"}, "6"), ({}, "200")])
def test_a_comparison_trains_as_many_steps_without_samples(settings, epochs, shared_yolo):
    words = {"set": settings, "ratio": "1:1"}
    assert as_long(adapter_of(shared_yolo), words) == {"epochs": epochs}


@pytest.mark.extra("yolo")
def test_an_output_that_holds_something_is_left_alone(augment, shared_yolo, tmp_path):
    (tmp_path / "thesis.txt").touch()
    augment("--set", f"output={tmp_path}", code=2, says=["holds thesis.txt", "--set output="])


def test_generators_that_heed_no_boxes_are_refused(augment, shared_yolo, box_run, tmp_path):
    run = changed_run(box_run, tmp_path / "run", capabilities=Capabilities(frozenset()).to_json())
    augment(run=run, code=2, says=["takes no boxes", "cpggan"])
    samples = SampleRequest(boxes="training")
    asked = MixConfig(None, Ratio(1, 1), samples=samples, bank=tmp_path / "bank")
    with pytest.raises(UsageFault, match="--boxes training: samples come from the bank"):
        adapter_of(shared_yolo).check_origin(asked)


def test_options_of_the_detector_are_read_as_yaml():
    choices = YoloChoices.read({}, ["mosaic=0.5", "flipud=true", "scale=[0.5, 1]", "name=x"])
    assert choices.options == {"mosaic": 0.5, "flipud": True, "scale": [0.5, 1], "name": "x"}


def test_what_the_child_is_told_is_read_back(box_run, tmp_path):
    samples = SampleRequest(boxes="training", keep_flawed=True)
    mix_config = MixConfig(RunFolder(box_run), Ratio(1, 2), samples=samples)
    choices = YoloChoices.read({"imgsz": "64"}, ["mosaic=0"])
    request = SourceRequest("yolo", "data.yaml").to_json()
    config, file = YoloConfig(mix_config, choices, request, tmp_path, 2.5), tmp_path / "config.json"
    file.write_text(json.dumps(config.to_json()))
    assert YoloConfig.read(file) == config
    file.write_text("{}")
    with pytest.raises(IntegrityFault, match="mix_config"):
        YoloConfig.read(file)
