"""``gansynth augment --engine``, ``--detector``, ``-o``: who trains, and what ``-o`` is then."""

from pathlib import Path
from typing import Any

import pytest

from gansynth.core.adapter import MixConfig
from gansynth.core.null_adapter import NullAdapter
from gansynth.core.ratio import Ratio
from gansynth.core.source import SourceRequest
from gansynth.hosts.checks import check_mixing
from gansynth.hosts.words import host_settings
from gansynth.runtime.errors import UsageFault
from gansynth.sampling.run_source import open_source
from tests.yolo_sets import toy_yolo

KNOWN = {"engine": "", "deepmedic": "", "python": "", "output": ""}
OUT, DM = Path("out"), Path("dm")
HOME = {"GANSYNTH_DEEPMEDIC": "dm"}


def chosen(settings: dict[str, str] | None = None, **asked: Any) -> Any:
    keys = ("engine", "deepmedic", "python", "detector")
    said = {key: asked.pop(key) for key in keys if key in asked}
    usual: dict[str, Any] = {"host_options": said, "output": OUT, "options": (), "environ": {}}
    usual |= {"keys": KNOWN, "target": "deepmedic"}
    return host_settings(settings or {}, **{**usual, **asked})


@pytest.mark.parametrize(
    ("asked", "settings", "folder"),
    [
        # Without an engine -o is where a data set is written.
        ({}, {}, OUT),
        ({"environ": HOME}, {}, OUT),
        ({"output": None}, {}, None),
        ({"python": Path("py")}, {"python": "py"}, OUT),
        # With one it is for its results.
        ({"engine": "torch"}, {"engine": "torch", "output": "out"}, None),
        ({"settings": {"engine": "torch"}}, {"engine": "torch", "output": "out"}, None),
        ({"deepmedic": DM}, {"engine": "deepmedic", "deepmedic": "dm", "output": "out"}, None),
        (
            {"settings": {"deepmedic": "dm"}},
            {"engine": "deepmedic", "deepmedic": "dm", "output": "out"},
            None,
        ),
        (
            {"options": ("-dev", "cpu"), "environ": HOME},
            {"engine": "deepmedic", "output": "out"},
            None,
        ),
        # nnU-Net writes data sets by name, so -o is for results.
        ({"target": "nnunet", "keys": {"results": ""}, "exports": False}, {"results": "out"}, None),
        # Other targets have no engines, and keep what is theirs.
        ({"settings": {"a": "b"}, "target": "yolo", "keys": {}, "options": ("m=1",)},
         {"a": "b"}, OUT),
        ({"detector": "ultralytics", "target": "yolo", "keys": {"detector": ""}},
         {"detector": "ultralytics"}, OUT),
    ],
)  # fmt: skip
def test_what_trains_and_where_its_results_go(asked, settings, folder):
    assert chosen(**asked) == (settings, folder)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"options": ("-dev", "cpu")}, r"-- -dev: .* GANSYNTH_DEEPMEDIC"),
        (
            {"settings": {"engine": "torch"}, "engine": "deepmedic"},
            "--engine deepmedic and --set engine=torch: expected one of them",
        ),
        ({"settings": {"output": "a", "engine": "torch"}}, "-o out and --set output=a"),
        (
            {"settings": {"python": "a"}, "python": Path("b")},
            "--deepmedic-python b and --set python=a",
        ),
        ({"target": "yolo", "keys": {}, "engine": "torch"}, "engine torch: yolo has no engines"),
        ({"target": "yolo", "keys": {}, "deepmedic": DM}, "--deepmedic dm: yolo has no engines"),
        ({"target": "yolo", "keys": {}, "python": DM}, "--deepmedic-python dm: yolo has no engi"),
        (
            {"target": "nnunet", "keys": {}, "detector": "ultralytics"},
            "nnunet is no detector, expected --target yolo",
        ),
    ],
)
def test_what_a_target_does_not_know_or_is_said_twice_is_refused(asked, says):
    with pytest.raises(UsageFault, match=says):
        chosen(**asked)


def test_real_cases_stay_as_they_are_in_hosts_that_know_nothing_else(toy_source):
    host = NullAdapter(open_source(SourceRequest("toy", "3")))
    host.check_ways(MixConfig(None, Ratio(1, 0)))
    asked = MixConfig(None, Ratio(1, 0), real_in_generator_space=True)
    for check in (host.check_ways, lambda how: check_mixing(host, how)):
        with pytest.raises(UsageFault, match=r"--real-in-generator-space: .* deepmedic"):
            check(asked)


def test_hosts_of_this_package_refuse_what_they_cannot_do(refuse, tmp_path):
    data = toy_yolo(tmp_path / "set")
    asked = ("augment", "--target", "yolo", "--data", f"yolo:{data}", "--ratio", "1:0")
    for more in ((), ("-o", tmp_path / "new")):
        says = ["--real-in-generator-space: yolo"]
        refuse(*asked, "--real-in-generator-space", *more, code=2, says=says)
    refuse(*asked, "--engine", "torch", code=2, says=["--engine torch: yolo has no engines"])
