"""Jobs run what a user would type; every command here is one that the command line takes."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest

from gansynth.benchmark.specs import Place
from gansynth.benchmark.words import augment_words, each, fit_words, source_words
from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import SampleRequest
from gansynth.core.source import SourceRequest
from gansynth_cli.commands.augment import command as augment
from gansynth_cli.commands.augment import injection_from
from gansynth_cli.commands.fit import command as fit
from tests.benchmark.people import design_of, plan_of

REQUEST = SourceRequest("nifti", "cases")
DATA = "--data nifti:cases --fold 0"
RUN = Path("run")


def parsed(command: click.Command, words: list[str]) -> dict[str, Any]:
    """What the command line makes of words; nothing is run."""
    return command.make_context(words[0], words[1:]).params


def source_of(params: Mapping[str, Any]) -> SourceRequest:
    """The source that a command is told to open."""
    keys = ("configuration", "plans", "fold", "subjects", "root", "read")
    return SourceRequest.parse(params["data"], **{key: params[key] for key in keys})


def spec_of(arm: str = "default", **changes: Any) -> dict[str, Any]:
    """A training's document: its host, arm and seed."""
    design = design_of(plan_of(**changes))
    return dict(design.train(Place(arm, 2, 1, 1)).document)


def words_of(arm: str, **changes: Any) -> str:
    """The line of an arm's training, with a run wherever it draws samples."""
    spec = spec_of(arm, **changes)
    run = RUN if spec["generator"] else None
    words = augment_words(spec, REQUEST, run, Path("out"))
    parsed(augment, words)
    return shlex.join(words)


HEAD = f"augment --target segmenter {DATA}"
TAIL = "--set network=unet --set steps=40 --set output=out --seed 1001 --json"
SCHEDULE = "--schedule constant"
DRAWN = f"--ratio 1:1 {SCHEDULE} --generator run"


def arms(*others: Any) -> dict[str, Any]:
    return {"arms": ["default", *others]}


def mine(**changes: Any) -> str:
    return words_of("mine", **arms({"name": "mine", **changes}))


@pytest.mark.parametrize(
    ("arm", "middle"),
    [
        ("none", f"--ratio 1:0 {SCHEDULE} --no-usual-augmentation"),
        ("double", f"--ratio 1:0 {SCHEDULE}"),
        ("elastic", DRAWN),
        ("copy-paste", DRAWN),
        ("coarse-paste", DRAWN),
        ("whole", DRAWN),
        ("unedited", f"{DRAWN} --edit identity"),
        ("interpolated", f"{DRAWN} --edit interpolate"),
        ("synthetic-only", f"--ratio 0:1 {SCHEDULE} --generator run"),
        ("pretrain", "--ratio 0:1 --schedule finetune:10%@80% --generator run"),
    ],
)
def test_the_command_of_an_arm(arm, middle):
    assert words_of(arm, **arms(arm)) == f"{HEAD} {middle} {TAIL}"
    assert words_of("default", **arms(arm)) == f"{HEAD} --ratio 1:0 {SCHEDULE} {TAIL}"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, ""),
        ({"bank": "3x"}, "--frozen --bank-size 3x "),
        ({"bank": 64}, "--frozen --bank-size 64 "),
        ({"edits": ["identity", "shift:max_mm=2"]}, "--edit identity --edit shift:max_mm=2 "),
        ({"filters": ["faithful"]}, "--filter faithful "),
        ({"boxes": "training"}, "--boxes training "),
        ({"lesions": "count=2"}, "--lesions count=2 "),
        ({"augment_synthetic": False}, "--augment-synthetic no "),
    ],
    ids=str,
)
def test_what_an_arm_asks_of_samples(changes, says):
    assert f" --generator run {says}--set" in mine(generator="copypaste", **changes)


def test_heavier_augmentation_is_the_hosts_and_an_arms_settings_go_over_the_plans():
    line = words_of("heavier", **arms("heavier"))
    assert "--set rotate=30 --set shift=0.1 --set elastic=3" in line
    line = mine(set={"network": "pix2pix", "width": 4})
    assert "--set network=pix2pix --set steps=40 --set width=4 --set output=out" in line


def test_options_of_the_host_come_last():
    spec = spec_of(host={"options": ["eval_interval=0", "--c"]})
    words = augment_words(spec, REQUEST, None, None)
    assert words[-3:] == ["--", "eval_interval=0", "--c"]
    assert parsed(augment, words)["options"] == ("eval_interval=0", "--c")
    assert not [word for word in words if word.startswith("output=")]


@pytest.mark.parametrize("option", ["engine", "detector"])
def test_the_hosts_engine_and_detector_are_told(option):
    spec = spec_of()
    assert f"--{option}" not in augment_words(spec, REQUEST, None, None)
    told = {**spec, "host": {**spec["host"], option: "torch"}}
    assert parsed(augment, augment_words(told, REQUEST, None, None))[option] == "torch"


def test_the_command_line_understands_what_is_meant():
    """Ratio, schedule, bank and seed arrive as the plan has them."""
    arm = {"name": "mine", "generator": "copypaste", "ratio": "2:1", "schedule": "anneal:50%-100%"}
    spec = spec_of("mine", **arms({**arm, "bank": "3x", "augment_synthetic": False}))
    params = parsed(augment, augment_words(spec, REQUEST, RUN, None))
    keys = ("ratio", "schedule", "bank", "frozen", "bank_size", "augment_synthetic")
    how = {k: params[k] for k in (*keys, "reuse", "refresh", "overhead")}
    run, samples = RunFolder(params["run"]), SampleRequest(params["seed"])
    told = injection_from({**how, "run": run, "samples": samples})
    assert (str(told.ratio), str(told.schedule)) == ("2:1", "anneal:50%-100%")
    assert (told.frozen, str(told.size), told.seed) == (True, "3x", 1001)
    assert (told.run, told.augment_synthetic) == (RunFolder(RUN), False)


def generator(**changes: Any) -> dict[str, Any]:
    own = {"plugin": "cgan3d", **changes}
    return plan_of(generators={"mine": own}).generator("mine").model_dump(mode="json")


@pytest.mark.parametrize(
    ("changes", "middle", "settings"),
    [
        ({}, "", ""),
        ({"set": {"steps": 400, "width": 16}}, "", "--set steps=400 --set width=16 "),
        ({"recipe": "lesion", "scale": "tiny"}, "--recipe lesion --scale tiny ", ""),
        ({"recipe": "mine.yaml", "only": "T1"}, "--recipe mine.yaml --only T1 ", ""),
    ],
)
def test_the_command_of_a_fit(changes, middle, settings):
    words = fit_words(generator(**changes), REQUEST, 1001, RUN)
    assert shlex.join(words) == f"fit cgan3d {middle}{DATA} {settings}--set seed=1001 -o run --json"
    assert parsed(fit, words)["run"] == RUN


def test_a_generators_reading_goes_over_the_plans():
    request = SourceRequest("nifti", "cases", read={"size": "32", "channels": "T1"})
    words = fit_words(generator(read={"size": "16"}), request, 0, RUN)
    assert " --read size=16 --read channels=T1 " in shlex.join(words)
    assert source_of(parsed(fit, words)).read == {"size": "16", "channels": "T1"}


def test_a_source_is_opened_as_it_was():
    request = SourceRequest(
        *("nnunet", "004"),
        fold="3",
        configuration="2d",
        plans="small",
        subjects=r"(p\d+)_",
        root="/a folder",
        read={"size": "32"},
    )
    words = ["fit", "cgan3d", *source_words(request), "-o", "run"]
    assert source_of(parsed(fit, words)) == request


def test_settings_of_any_kind_are_words():
    assert each("--set", {"a": 1, "b": "x y", "c": True, "d": [1, 2]}) == [
        *("--set", "a=1", "--set", "b=x y", "--set", "c=true", "--set", "d=[1, 2]"),
    ]
