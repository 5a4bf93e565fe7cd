"""Options of a target as flags of ``gansynth augment``, and what ``-o`` is for each target."""

import json
from typing import Any

import pytest

import gansynth
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.source import SourceRequest
from gansynth.hosts.api import host_settings
from gansynth.hosts.host import framework
from gansynth.runtime.errors import UsageFault
from gansynth.sampling.run_source import open_source

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
    ("target", "words", "says"),
    [
        ("nnunet", "--detector x", "No such option '--detector'"),
        ("yolo", "--engine torch", "No such option '--engine'"),
        ("segmenter", "--width 2", "--width 2: expected a number greater than or equal to 4"),
        ("segmenter", "--set width=2", "--set width=2: expected a number greater than or equal"),
        ("segmenter", "--width 8 --set width=9", "--width 8 and --set width=9: expected one of"),
        ("segmenter", "--l1 3", "--l1 3: has no effect without network=pix2pix"),
        ("segmenter", "--width 8 --export x", "--export with --width: nothing is trained"),
        ("segmenter", "--output a -o b", "-o b and --output a: expected one of them"),
        ("segmenter", "--real-in-generator-space", "--real-in-generator-space: segmenter"),
        ("segmenter", "--real-in-generator-space --export x", "in-generator-space: segmenter"),
    ],
)
def test_flags_that_cannot_be_are_refused_as_they_were_typed(refuse, target, words, says):
    refuse(*TRAINING, "--target", target, *words.split(), code=2, says=[says])


@pytest.mark.parametrize(
    ("target", "place"),
    [("nnunet", "results"), ("segmenter", "output"), ("deepmedic", "output"), ("yolo", "output")],
)
def test_o_is_the_folder_of_results_for_every_target(target, place):
    cls = framework(target)
    assert host_settings(cls, {"batch": "2"}, "out") == {"batch": "2", place: "out"}
    assert host_settings(cls, {}, None) == {}


def test_real_cases_stay_as_they_are_in_hosts_that_know_nothing_else(toy_source):
    host = framework("segmenter")(open_source(SourceRequest("toy", "3")))
    plain = AugmentRequest(target="segmenter", ratio="1:0")
    host.check_ways(plain)
    with pytest.raises(UsageFault, match=r"--real-in-generator-space: .*; leave it out"):
        host.check_ways(plain.but(real_in_generator_space=True))
