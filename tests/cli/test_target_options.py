"""Options of a target as flags of ``gansynth augment``, and what ``-o`` is for each target."""

import json
from typing import Any

import pytest

import gansynth
from gansynth.hosts.api import host_settings
from gansynth.hosts.host import framework

TRAINING = ("augment", "--data", "example:3d", "--ratio", "1:0", "--dry-run")


@pytest.mark.parametrize(
    "words",
    [
        ("--width", "8", "--learning-rate=0.1", "--flip"),
        ("--width", "8", "--set", "learning_rate=0.1", "--flip", "yes"),
        ("--set", "width=8", "--set", "learning_rate=0.1", "--set", "flip=yes"),
    ],
)
def test_options_of_a_target_are_flags_settings_and_keywords(run_json, words):
    planned = run_json(*TRAINING, "--target", "segmenter", *words)
    options: dict[str, Any] = {"width": 8, "learning_rate": 0.1, "flip": True}
    by_python = gansynth.augment(
        target="segmenter", data="example:3d", ratio="1:0", dry_run=True, quiet=True, **options
    )
    assert planned["settings"] == {"width": "8", "learning_rate": "0.1", "flip": "yes"}
    assert planned == json.loads(json.dumps(by_python, default=str))


@pytest.mark.parametrize(
    ("target", "place"),
    [("nnunet", "results"), ("segmenter", "output"), ("deepmedic", "output"), ("yolo", "output")],
)
def test_o_is_the_folder_of_results_for_every_target(target, place):
    cls = framework(target)
    assert host_settings(cls, {"batch": "2"}, "out") == {"batch": "2", place: "out"}
    assert host_settings(cls, {}, None) == {}
