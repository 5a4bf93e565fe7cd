"""One class is a command's Python signature, options, YAML section and JSON."""

import inspect
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import click
import pytest
import yaml

import gansynth
from gansynth.core.requests.base import Opt, as_texts, as_tuple, function_of, names_of
from gansynth.core.requests.fit import FitRequest
from gansynth.core.requests.hosts import AugmentRequest, DoctorRequest
from gansynth.core.requests.wording import words_of_python
from gansynth.run import run_file
from gansynth_cli.main import cli
from gansynth_cli.requests import request_command
from tests.expected import raises_fault

FIT: dict[str, Any] = {"generator": "cgan3d", "data": "example:2d", "out": "run"}
AUGMENT: dict[str, Any] = {"target": "segmenter", "ratio": "1:1", "bank": "b"}


def test_an_error_names_the_option_as_it_was_given(run_cli, tmp_path):
    words = {**AUGMENT, "bank_size": "64"}
    typed = "--bank-size 64: has no effect with --bank b; leave that out, or leave --bank-size out"
    called = "bank_size 64: has no effect with bank b; leave that out, or leave bank_size out"
    line = ("--target=segmenter", "--ratio=1:1", "--bank=b", "--bank-size=64")
    refused = run_cli("augment", *line)
    assert refused.stderr == f"error: {typed} [request.field-without-effect]\n"
    with pytest.raises(gansynth.UsageFault) as raised:
        gansynth.augment(**words)
    assert str(raised.value) == called
    file = tmp_path / "request.yaml"
    file.write_text(yaml.safe_dump({"augment": words}))
    with pytest.raises(gansynth.UsageFault) as raised:
        run_file(file)
    assert str(raised.value) == f"{file}: augment.{called}"


def test_a_command_within_an_error_is_a_call_in_python(tmp_path):
    none = tmp_path / "none"
    for wrong in (
        lambda: gansynth.augment(target="segmenter", ratio="1:1", generator=none),
        lambda: gansynth.load(none),
        lambda: gansynth.live_bank(none).__enter__(),
    ):
        with raises_fault("run-folder.no-manifest", names=f'gansynth.fit(..., out="{none}")'):
            wrong()


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("finish it with gansynth fit", "finish it with gansynth.fit"),
        ("(gansynth options cgan3d has keys)", '(gansynth.options("cgan3d") has keys)'),
        ("See: gansynth plugins list", "See in a shell: gansynth plugins list"),
        ("gansynth augment KIND:WHERE, alone", 'gansynth.augment("KIND:WHERE"), alone'),
        (
            "type gansynth check a:b --read 'x=a b'; or",
            'type gansynth.check("a:b", read="x=a b"); or',
        ),
        ("gansynth predict R IMAGES --sure .9", 'gansynth.predict("R", "IMAGES", sure=.9)'),
    ],
)
def test_a_sentence_about_a_command_is_one_about_its_function(written, shown):
    assert words_of_python(names_of(), written, calls=True) == shown


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("fit: {generator: a, data: b, out: c, fit_memry: 2GB}", "fit.fit_memry: unknown. Did you"),
        ("fti: {}", "fti: no command. Did you mean 'fit'"),
        ("fit: [1]", "fit: [1], expected keys and values"),
        ("[]", "holds list, expected commands and what they take"),
    ],
)
def test_a_file_that_is_no_request_is_refused_by_file_and_key(document, says, tmp_path):
    (tmp_path / "request.yaml").write_text(document)
    with pytest.raises(gansynth.UsageFault) as raised:
        run_file(tmp_path / "request.yaml")
    assert str(raised.value).startswith(f"{tmp_path / 'request.yaml'}: {says}")


REQUESTS = {
    "fit": FitRequest(
        **FIT, edit="flip", set={"steps": 9, "flag": True}, resume=False, fold=2, read={"a": 1}
    ),
    "host options": AugmentRequest(target="nnunet", ratio="1:0", options=["--npz", "--c"]),
    "data alone": AugmentRequest("nifti:scans", dry_run=True),
    "words": AugmentRequest(target="yolo", generator="g", ratio="2:1", augment_synthetic=False),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_the_command_line_of_a_request_is_read_as_that_request(case):
    asked = REQUESTS[case]
    name, *words = asked.command_line
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    params = command.make_context(name, words).params
    own = {key: value for key, value in params.items() if key in type(asked).model_fields}
    assert type(asked)(**own).model_dump() == asked.model_dump(), shlex.join(words)


@pytest.mark.parametrize("case", ["fit", "data alone", "words"])
def test_the_call_of_a_command_line_is_that_request(case):
    asked = REQUESTS[case]
    call = words_of_python(names_of(), f"gansynth {shlex.join(asked.command_line)}", calls=True)
    made = eval(call, {"gansynth": SimpleNamespace(fit=FitRequest, augment=AugmentRequest)})
    assert made.model_dump() == asked.model_dump(), call


def test_a_request_is_the_same_through_json():
    asked = FitRequest(**FIT, read={"spacing": 1}, dry_run=True)
    out = str(Path("run").absolute())  # for processes elsewhere
    assert asked.to_json() == {**FIT, "out": out, "read": {"spacing": "1"}, "dry_run": True}
    assert FitRequest.from_json(asked.to_json()) == asked.replace(out=out)


def test_a_value_is_what_a_user_would_type():
    values = {"a": 3, "b": 0.5, "c": True, "d": None, "e": (64, False), "f": "1%"}
    assert list(as_texts(values).values()) == ["3", "0.5", "yes", "none", "64,no", "1%"]
    assert (as_tuple(None), as_tuple("flip")) == ((), ("flip",))


def test_a_changed_copy_is_checked():
    asked = AugmentRequest(**AUGMENT)
    changed = asked.replace(without=("bank",), generator="g", refresh="4x")
    assert set(changed.given) == {"ratio", "generator", "refresh", "target"}
    with raises_fault("request.field-without-effect"):
        asked.replace(refresh="4x")


class SlowRequest(DoctorRequest):
    pause: Annotated[float | None, Opt(metavar="SECONDS")] = None
    """Pause between lines."""


def run_slow(request: SlowRequest) -> dict[str, Any]:
    """Report slowly: ``gansynth slow``."""
    return request.to_json()


def test_a_new_field_is_an_argument_an_option_and_a_key_of_files(monkeypatch, tmp_path):
    slow, told = function_of(SlowRequest, run_slow), {"pause": 2.0}
    monkeypatch.setitem(sys.modules, "slow", SimpleNamespace(run_slow=run_slow))
    monkeypatch.setattr(gansynth, "COMMANDS", (*gansynth.COMMANDS, "slow"))
    monkeypatch.setattr(gansynth, "slow", slow, raising=False)
    assert inspect.signature(slow).parameters["pause"].default is None
    assert slow(pause=2) == SlowRequest.from_json(told).to_json() == told
    (tmp_path / "request.yaml").write_text("slow: {pause: 2}")
    assert run_file(tmp_path / "request.yaml") == {"slow": told}
    shown: list[Any] = []

    def show(request: SlowRequest, done: Any, out: Any) -> None:
        shown.append(done)

    command = request_command(SlowRequest, "slow:run_slow", show, epilog="")
    assert "--pause SECONDS  Pause between lines." in command.get_help(click.Context(command))
    command.main(["--pause", "2"], standalone_mode=False)
    assert shown == [told]


def test_a_file_of_requests_is_executed_in_its_order(tmp_path):
    document = {
        "fit": {"generator": "parametric", "data": "example:2d", "out": str(tmp_path / "run")},
        "sample": {"run": str(tmp_path / "run"), "n": 2, "out": str(tmp_path / "samples")},
    }
    (tmp_path / "request.yaml").write_text(yaml.safe_dump(document))
    found = run_file(tmp_path / "request.yaml")
    assert [*found] == ["fit", "sample"]
    assert found["sample"]["samples"] == 2
