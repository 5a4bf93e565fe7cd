"""``gansynth augment --engine``, ``--deepmedic``, ``-o``: who trains, and what ``-o`` is then."""

from pathlib import Path
from typing import Any

import pytest

from gansynth.core.null_adapter import NoHost
from gansynth.runtime.errors import UsageFault
from gansynth_cli.augment_options import host_settings

KNOWN = {"engine": "", "deepmedic": "", "python": "", "output": ""}
OUT = Path("out")


def chosen(
    settings: dict[str, str] | None = None, environ: dict[str, str] | None = None, **asked: Any
) -> tuple[dict[str, str], Path | None]:
    said = {key: asked.pop(key, None) for key in ("engine", "deepmedic", "python")}
    usual: dict[str, Any] = {"said": said, "output": OUT, "options": (), "environ": environ or {}}
    usual |= {"known": KNOWN, "target": "deepmedic"}
    return host_settings(settings or {}, **{**usual, **asked})


def test_an_output_alone_is_where_a_data_set_is_written():
    assert chosen() == ({}, OUT)
    assert chosen(environ={"GANSYNTH_DEEPMEDIC": "dm"}) == ({}, OUT)
    assert chosen(output=None) == ({}, None)


@pytest.mark.parametrize(
    ("asked", "engine"),
    [
        ({"engine": "torch"}, "torch"),
        ({"settings": {"engine": "torch"}}, "torch"),
        ({"deepmedic": Path("dm")}, "deepmedic"),
        ({"settings": {"deepmedic": "dm"}}, "deepmedic"),
        ({"options": ("-dev", "cpu"), "environ": {"GANSYNTH_DEEPMEDIC": "dm"}}, "deepmedic"),
    ],
    ids=["engine", "set-engine", "deepmedic", "set-deepmedic", "environment"],
)
def test_where_an_engine_is_chosen_the_output_is_for_its_results(asked, engine):
    settings, folder = chosen(**asked)
    assert folder is None
    assert settings["output"] == "out"
    assert settings["engine"] == engine


def test_a_python_alone_chooses_no_engine():
    settings, folder = chosen(python=Path("py"))
    assert (settings, folder) == ({"python": "py"}, OUT)


def test_options_of_a_program_that_nobody_names_are_refused():
    with pytest.raises(UsageFault, match=r"-- -dev: .* GANSYNTH_DEEPMEDIC"):
        chosen(options=("-dev", "cpu"))


def test_two_that_say_different_things_are_refused():
    for settings, asked, says in (
        ({"engine": "torch"}, {"engine": "deepmedic"}, "--engine deepmedic and --set engine=torch"),
        ({"output": "a", "engine": "torch"}, {}, "-o out and --set output=a"),
        ({"python": "a"}, {"python": Path("b")}, "--deepmedic-python b and --set python=a"),
    ):
        with pytest.raises(UsageFault, match=says):
            chosen(settings, **asked)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"engine": "torch"}, "--engine torch: yolo has no engines"),
        ({"deepmedic": Path("dm")}, "--deepmedic dm: yolo has no engines"),
        ({"python": Path("py")}, "--deepmedic-python py: yolo has no engines"),
    ],
    ids=["engine", "deepmedic", "python"],
)
def test_other_targets_have_no_engines_and_keep_what_is_theirs(asked, says):
    with pytest.raises(UsageFault, match=says):
        chosen(target="yolo", known={"detector": ""}, **asked)
    kept = chosen({"a": "b"}, target="yolo", known={}, options=("mosaic=1",))
    assert kept == ({"a": "b"}, OUT)


def test_real_cases_stay_as_they_are_in_hosts_that_know_nothing_else(toy_source):
    from gansynth.core.adapter import Injection
    from gansynth.core.ratio import Ratio
    from gansynth.core.source import SourceRequest
    from gansynth.hosts.checks import check_mixing
    from gansynth.sampling.opening import open_source

    host = NoHost(open_source(SourceRequest("toy", "3")))
    host.check_ways(Injection(None, Ratio(1, 0)))
    asked = Injection(None, Ratio(1, 0), real_in_generator_space=True)
    for check in (host.check_ways, lambda how: check_mixing(host, how)):
        with pytest.raises(UsageFault, match=r"--real-in-generator-space: .* deepmedic"):
            check(asked)


def test_hosts_of_this_package_refuse_what_they_cannot_do(refuse, tmp_path):
    from tests.yolo_sets import toy_yolo

    data = toy_yolo(tmp_path / "set")
    asked = ("augment", "--target", "yolo", "--data", f"yolo:{data}", "--ratio", "1:0")
    for more in ((), ("-o", tmp_path / "new")):
        says = ["--real-in-generator-space: yolo"]
        refuse(*asked, "--real-in-generator-space", *more, code=2, says=says)
    refuse(*asked, "--engine", "torch", code=2, says=["--engine torch: yolo has no engines"])
