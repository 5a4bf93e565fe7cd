"""A detector that learns nothing stands in for libreyolo, in this process."""

import json

import numpy as np
import pytest

from gansynth.core.schema import Boxes, Sample
from gansynth.hosts.contract.job import Job
from gansynth.hosts.contract.record import LOG
from gansynth.metrics.detection.record import read_detections
from gansynth.runtime.child import SHOWN_PREFIX
from gansynth_yolo.adapter import true_boxes
from tests.adapters.kits import Kit, command, in_this_process, kit_of
from tests.expected import raises_fault

REAL = 16
"""Training images of ``shared_yolo``."""


@pytest.fixture
def kit(request, tmp_path) -> Kit:
    return kit_of("yolo", tmp_path, request.getfixturevalue)


def test_a_sample_of_another_class_is_not_let_in(kit):
    image, coords = np.zeros((1, 8, 8), np.float32), np.array([[0, 0, 2, 2]], np.float32)
    finalise = kit.intake().finalise
    assert finalise(Sample(image, None, Boxes(coords, np.zeros(1, np.int16)))) == {}
    with raises_fault("intake.box-class-unknown"):
        finalise(Sample(image, None, Boxes(coords, np.ones(1, np.int16))))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--set epochs=0", "--set epochs=0~greater than or equal to 1"),
        ("--detector darknet", "--detector darknet~'libreyolo' or 'ultralytics'"),
        ("-- mosaic", "-- mosaic~KEY=VALUE"),
        ("-- mosaic=1 mosaic=0", "-- mosaic=0~each once"),
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
def test_what_cannot_be_is_refused(kit, refuse, words, says):
    asked = kit.words(*kit.where, "--generator", kit.run, "--dry-run", *words.split())
    refuse(*asked, code=2, says=says.split("~"))
    assert not kit.output.exists()


def test_every_epoch_is_counted_and_told_of_and_the_ratio_of_its_places_is_exact(kit, monkeypatch):
    notes: list[str] = []
    monkeypatch.setattr(Job, "note", lambda job, text: notes.append(text))
    in_this_process(monkeypatch)
    options = ("mosaic=0.5", "flipud=true", "scale=[0.5, 1]", "name=x")
    result = command(*kit.training(kit.bank(), "--json", "--", *options))
    assert result.exit_code == 0, result.stderr
    (session,) = kit.sessions()
    told = {"mosaic": 0.5, "flipud": True, "scale": [0.5, 1], "name": "x"}
    assert (session["licence"], session["options"]) == ("MIT", told)
    for number, epoch in enumerate(session["per_epoch"], 1):
        places = {"epoch": number, "places_real": REAL, "places_synthetic": REAL}
        drawn = {"real": REAL, "synthetic": REAL, "partners_fell_back": 0}
        assert epoch | places | drawn == epoch
        assert epoch["partners_real"] + epoch["partners_synthetic"] == 2 * REAL
        assert epoch["partners_synthetic"] > 0
    assert session["partners"]["real"] + session["partners"]["synthetic"] == 4 * REAL
    for split, count in (("", 8), ("_test", 4)):
        found = read_detections(kit.output / f"gansynth_detections{split}.json")
        assert len(found.images) == count
        for image in found.images:
            wanted = true_boxes(kit.intake().source.image(image.id)).boxes
            assert np.abs(image.truth.boxes - wanted).max(initial=0) < 0.001
    log = "\n".join(notes)
    assert "epoch 1 of 2 had places for 16 real and 16 synthetic samples" in log
    assert "trained on: 16 real, 16 synthetic, with" in log
    assert "loss 1; mAP50 0.5" in log
    assert "speed" not in log
    sent = [line.partition(SHOWN_PREFIX)[2] for line in (kit.output / LOG).read_text().splitlines()]
    first, *_, last = [message for text in sent if "done" in (message := json.loads(text or "{}"))]
    assert 0 < first["done"] < 1
    assert first["total"] == last["total"] == last["done"] == 2
    assert (last["synthetic"], last["loss"], last["mAP50"]) == ("50%", 1.0, 0.5)
