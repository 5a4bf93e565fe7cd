import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest

from gansynth.core.requests.fit import FitRequest
from gansynth.core.run_folder import RunFolder
from gansynth.core.source import SourceRequest
from gansynth.data.api import source_of
from gansynth.hosts.host import framework
from gansynth.runtime.errors import UsageFault
from gansynth_benchmark.estimate import learning
from gansynth_benchmark.requests import augment_request, data_words, fit_request
from gansynth_benchmark.study import (
    BenchmarkStudy,
    ComputationSpec,
    TrainingPoint,
    fit_spec,
    formulas,
)
from gansynth_benchmark.subject_split import DEVELOPMENT
from gansynth_cli.commands.augment import command as augment
from gansynth_cli.commands.fit import command as fit
from tests.benchmark.people import WHERE, design_of, plan_of

PASTED = {"name": "pasted", "from": "copy-paste", "offline": True, "bank_size": "3x"}
TUNED = {"name": "tuned", "tune": ["default", "pasted"]}
PLACE = TrainingPoint("pasted", 2, 0, 0)


def pasted(**changes: Any) -> Any:
    return ["default", {**PASTED, **changes}, "double"]


def fit_of(design: BenchmarkStudy, place: TrainingPoint) -> ComputationSpec:
    fit = design.fit_of(place)
    assert fit is not None
    return fit


def keys(design: BenchmarkStudy) -> dict[str, str]:
    fit = fit_of(design, PLACE)
    real = design.train(replace(PLACE, arm="default"))
    return {"real": real.key, "train": design.train(PLACE).key, "fit": fit.key}


USUAL = keys(design_of())


def changed(design: BenchmarkStudy) -> set[str]:
    return {name for name, key in keys(design).items() if key != USUAL[name]}


EQUAL: list[dict[str, Any]] = [
    {"title": "of the report", "open": ["a remark"]}, {"host": {"title": "for people"}},
    {"arms": pasted(title="for people", what="a sentence", candidate=True)},
    {"data": "people:/elsewhere/14"}, {"root": "/elsewhere"}, {"name": "another"},
    {"draws": 1, "seeds": 5}, {"margin": 0.1}, {"primary": "hd95/mean", "margin": 1.0},
    {"arms": [*pasted(), TUNED], "tune": {"folds": 2}},
    {"generators": {"paste": {"generator": "copypaste"}}, "arms": pasted(generator="paste")},
]  # fmt: skip
ALL = {"real", "train", "fit"}
OTHER_ARMS: list[dict[str, Any]] = [
    {"bank_size": "4x"}, {"ratio": "2:1"}, {"schedule": "anneal"}, {"edit": ["flip"]},
    {"filter": ["faithful"]}, {"host_augmentation": False}, {"heavier": True},
    {"reuse": 4, "offline": False},
    {"augment_synthetic": False}, {"set": {"width": 4}}, {"boxes": "training"},
    {"lesions": "count=2"}, {"condition_source": "nifti:x"},
]  # fmt: skip
OTHER_TRAININGS: list[dict[str, Any]] = [
    {"host": {"steps": 41}}, {"host": {"set": {"network": "unet", "width": 4}}},
    {"host": {"options": ["a=1"]}}, {"regions": {"WT": "1+2"}}, {"measures": ["dice", "nsd"]},
]  # fmt: skip
OTHER_FITS: list[dict[str, Any]] = [
    {"arms": pasted(generator="elastic")},
    {
        "generators": {"g": {"generator": "copypaste", "set": {"a": 1}}},
        "arms": pasted(generator="g"),
    },
]
OTHER_DATA: list[dict[str, Any]] = [
    {"read": {"size": "8"}}, {"plans": "small"}, {"configuration": "2d"}, {"split": {"seed": 1}},
    {"split": {"sealed": 2}}, {"data": "people:/data/of/mine/15"},
]  # fmt: skip
CHANGES = [
    *((changes, set()) for changes in EQUAL),
    *(({"arms": pasted(**arm)}, {"train"}) for arm in OTHER_ARMS),
    *((changes, {"real", "train"}) for changes in OTHER_TRAININGS),
    *((changes, {"train", "fit"}) for changes in OTHER_FITS),
    *((changes, ALL) for changes in OTHER_DATA),
]


@pytest.mark.parametrize(
    ("changes", "others"), CHANGES, ids=lambda value: repr(value) if isinstance(value, dict) else ""
)
def test_a_results_key_changes_with_what_it_depends_on_alone(changes, others):
    assert changed(design_of(plan_of(**changes))) == others


def test_an_arm_of_another_name_is_the_same_computation():
    arms = ["default", {**PASTED, "name": "third"}, "double"]
    renamed = design_of(plan_of(arms=arms)).train(replace(PLACE, arm="third"))
    assert renamed.key == USUAL["train"]
    assert "third" in renamed.title


@pytest.mark.parametrize("arm", ["default", "pasted"])
def test_seeds_draws_and_sizes_are_other_computations(arm):
    design = design_of()
    places = [TrainingPoint(arm, n, d, s) for n in (2, 4) for d in (0, 1) for s in (0, 1)]
    assert len({design.train(place).key for place in places}) == len(places)
    trains, fits = zip(*((design.train(p), design.fit_of(p)) for p in places), strict=True)
    assert {spec.document["seed"] for spec in trains} == {0, 1, 1000, 1001}
    assert {fit.document["seed"] for fit in fits if fit} <= {0, 1, 1000, 1001}
    assert len({fit.key for fit in fits if fit}) == (0 if arm == "default" else len(places))


def test_other_judged_people_and_other_images_are_other_computations():
    assert changed(design_of(look=DEVELOPMENT)) == {"real", "train"}
    design = design_of()
    trained, judged = design.cases_of(PLACE)[0], design.judged[0]
    assert changed(design_of(changed=trained)) == ALL
    assert changed(design_of(changed=judged)) == {"real", "train"}
    other = design.training_cases(8, 1)[0]
    assert other not in {*design.cases_of(PLACE), *design.judged}
    assert changed(design_of(changed=other)) == set()


@pytest.mark.parametrize(("fits", "same"), [("draw", True), ("seed", False)])
def test_a_fit_serves_all_seeds_of_a_draw_or_one(fits, same):
    design = design_of(plan_of(fits=fits))
    keys = [fit_of(design, replace(PLACE, seed=seed)).key for seed in (0, 1)]
    assert (keys[0] == keys[1]) == same
    for seed, key in enumerate(keys):
        train = design.train(replace(PLACE, seed=seed))
        assert train.needs == (key,)
        assert train.document["generator"] == key
    assert fit_of(design, replace(PLACE, draw=1)).key not in keys


def test_a_fit_learns_from_the_training_cases_alone():
    design = design_of()
    fit = fit_of(design, PLACE)
    assert "judged" not in fit.document
    assert [case for case, *_ in fit.document["train"]] == list(design.cases_of(PLACE))
    assert design.fit_of(replace(PLACE, arm="default")) is None
    assert design.train(replace(PLACE, arm="default")).document["generator"] is None


def specs() -> list[ComputationSpec]:
    """One of each kind, of a plan whose data lies at an absolute path."""
    plan = plan_of(
        arms=[*pasted(), "heavier", TUNED],
        tune={"folds": 2},
        root="/root/of/mine",
        subjects="/people/of/mine.csv",
        regions={"WT": "1+2"},
    )
    design = design_of(plan)
    trains = [design.train(TrainingPoint(arm, 2, 0, 0)) for arm in ("default", "pasted", "heavier")]
    return [fit_of(design, PLACE), *trains, design.tune(TrainingPoint("tuned", 2, 0, 0))]


@pytest.mark.parametrize("spec", specs(), ids=lambda spec: spec.title)
def test_a_document_says_neither_where_nor_when(spec):
    text = json.dumps(spec.document)
    assert WHERE not in text
    assert "of/mine" not in text
    assert re.findall(r'"/', text) == []
    assert re.findall(r"\b20[2-9]\d-\d\d", text) == []
    assert re.fullmatch(r"[0-9a-f]{20}", spec.key)
    assert spec.title not in text


def test_regions_are_told_to_hosts_that_take_them():
    design = design_of(plan_of(regions={"WT": "1+2", "ET": "2"}))
    assert design.train(PLACE).document["augment"]["set"]["regions"] == "WT:1+2,ET:2"
    assert "regions" not in design_of().train(PLACE).document["augment"]["set"]
    assert formulas({}) == ""


def test_a_choice_knows_its_candidates_and_no_judged_case():
    tune = specs()[-1].document
    assert set(tune["arms"]) == {"default", "pasted"}
    assert tune["generators"] == {"copypaste": plan_of().generator("copypaste").document}
    assert {name: arm["generator"] for name, arm in tune["arms"].items()} == {
        "default": None,
        "pasted": "copypaste",
    }
    judged = set(design_of().judged)
    assert judged
    assert not [case for case in judged if case in json.dumps(tune)]


@pytest.mark.slow
def test_keys_are_the_same_in_every_process():
    code = "from tests.benchmark.test_specs import USUAL; print(*USUAL.values())"
    environ = {**os.environ, "PYTHONHASHSEED": "12345"}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, env=environ, check=True)
    assert done.stdout.split() == list(USUAL.values())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"primary": "dice/WT"}, ("primary dice/WT", "no such region", "dice/foreground")),
        ({"primary": "dice/3"}, ("primary dice/3", "dice/2")),
        ({"primary": "dice"}, ("primary dice:", "dice/mean")),
        ({"regions": {"WT": "1+3"}}, ("1+3",)),
        ({"regions": {"foreground": "1"}}, ("foreground",)),
        ({"regions": {"mean": "1"}}, ("regions: 'mean'",)),
    ],
)
def test_regions_and_labels_that_are_not_there_are_refused(changes, words):
    with pytest.raises(UsageFault) as refused:
        design_of(plan_of(**changes))
    line = str(refused.value)
    assert "\n" not in line
    assert [w for w in words if w not in line] == []


@pytest.mark.parametrize(
    ("target", "options", "settings", "kept"),
    [
        ("nnunet", ("--npz",), {}, ("--npz",)),
        ("nnunet", ("--npz", "--val_best"), {}, None),
        ("yolo", ("mosaic=0",), {}, ("mosaic=0", "eval_interval=0")),
        ("yolo", ("eval_interval=0",), {}, ("eval_interval=0",)),
        ("yolo", ("eval_interval=5",), {}, None),
        ("yolo", (), {"detector": "ultralytics"}, None),
        ("segmenter", (), {}, ()),
    ],
)
def test_nothing_of_a_training_is_chosen_by_those_who_are_judged_on(
    target, options, settings, kept
):
    adapter = framework(target)
    if kept is not None:
        assert adapter.impartial(options, settings) == kept
        return
    with pytest.raises(UsageFault, match=r"(cases|images) of the evaluation|evaluated on"):
        adapter.impartial(options, settings)


REQUEST = SourceRequest("nifti", "cases")
DATA = "--data nifti:cases --fold 0"
RUN = Path("run")


def parsed(command: click.Command, words: list[str]) -> dict[str, Any]:
    return command.make_context(words[0], words[1:]).params


def spec_of(arm: str = "default", **changes: Any) -> dict[str, Any]:
    design = design_of(plan_of(**changes))
    return dict(design.train(TrainingPoint(arm, 2, 1, 1)).document)


def words_of(arm: str, **changes: Any) -> str:
    """The line of an arm's training, with a run wherever it draws samples."""
    spec = spec_of(arm, **changes)
    run = RUN if spec["generator"] else None
    words = augment_request(spec, REQUEST, run, Path("out")).command_line
    parsed(augment, words)
    return shlex.join(words)


HEAD = f"augment --target segmenter {DATA}"
TAIL = "-o out --seed 1001 --set network=unet --set steps=40"
DRAWN = "--ratio 1:1 --generator run"


def arms(*others: Any) -> dict[str, Any]:
    return {"arms": ["default", *others]}


def mine(**changes: Any) -> str:
    return words_of("mine", **arms({"name": "mine", **changes}))


@pytest.mark.parametrize(
    ("arm", "middle"),
    [
        ("none", "--ratio 1:0 --no-host-augmentation"),
        ("double", "--ratio 1:0"),
        ("elastic", DRAWN),
        ("copy-paste", DRAWN),
        ("coarse-paste", DRAWN),
        ("whole", DRAWN),
        ("unedited", f"{DRAWN} --edit identity"),
        ("interpolated", f"{DRAWN} --edit interpolate"),
        ("synthetic-only", "--ratio 0:1 --generator run"),
        ("pretrain", "--ratio 0:1 --schedule finetune:10%@80% --generator run"),
    ],
)
def test_the_command_of_an_arm(arm, middle):
    assert words_of(arm, **arms(arm)) == f"{HEAD} {middle} {TAIL}"
    assert words_of("default", **arms(arm)) == f"{HEAD} --ratio 1:0 {TAIL}"


def test_what_an_arm_asks_of_samples_on_the_fly_is_in_its_command():
    line = mine(generator="copypaste", reuse=4, allow_empty_bank=True)
    assert {"--reuse 4", "--allow-empty-bank"} <= set(re.findall(r"--reuse \d|--allow\S+", line))


def test_heavier_augmentation_is_the_hosts_and_an_arms_settings_go_over_the_plans():
    line = words_of("heavier", **arms("heavier"))
    assert "--set rotate=30 --set shift=0.1 --set elastic=3" in line
    line = mine(set={"network": "pix2pix", "width": 4})
    assert "--set network=pix2pix --set steps=40 --set width=4" in line


def test_an_arm_may_not_change_the_length_of_its_training():
    with pytest.raises(UsageFault, match=r"^arms.mine.set.steps: '5', expected no length"):
        mine(set={"steps": 5})


def test_the_hosts_options_come_last():
    spec = spec_of(host={"options": ["eval_interval=0", "--c"]})
    words = augment_request(spec, REQUEST, None, None).command_line
    assert words[-3:] == ["--", "eval_interval=0", "--c"]
    assert parsed(augment, words)["options"] == ("eval_interval=0", "--c")
    assert "-o" not in words


def test_the_command_line_understands_what_is_meant():
    """Ratio, schedule, bank and seed arrive as the plan has them."""
    arm = {"name": "mine", "generator": "copypaste", "ratio": "2:1", "schedule": "anneal:50%-100%"}
    spec = spec_of(
        "mine", **arms({**arm, "offline": True, "bank_size": "3x", "augment_synthetic": False})
    )
    told = augment_request(spec, REQUEST, RUN, None)
    assert (told.ratio, told.schedule) == ("2:1", "anneal:50%-100%")
    assert (told.offline, told.bank_size, told.seed) == (True, "3x", 1001)
    assert (told.run, told.augment_synthetic) == (RunFolder(RUN), False)


def fitted_by(request: SourceRequest = REQUEST, **changes: Any) -> list[str]:
    own = {"generator": "cgan3d", **changes}
    made = plan_of(generators={"mine": own}).generator("mine").document
    return fit_request(made, request, 1001, RUN).command_line


@pytest.mark.parametrize(
    ("changes", "middle", "settings"),
    [
        ({}, "", ""),
        ({"set": {"steps": 400, "width": 16}}, "", "--set steps=400 --set width=16 "),
        (
            {"set": {"a": 1, "b": "x y", "c": True, "d": [1, 2]}},
            "",
            "--set a=1 --set 'b=x y' --set c=yes --set d=1,2 ",
        ),
        ({"recipe": "lesion", "scale": "tiny"}, "--recipe lesion --scale tiny ", ""),
        ({"recipe": "mine.yaml", "only": "T1"}, "--recipe mine.yaml --only T1 ", ""),
    ],
)
def test_the_command_of_a_fit(changes, middle, settings):
    words = fitted_by(**changes)
    assert shlex.join(words) == f"fit cgan3d {DATA} -o run {middle}{settings}--set seed=1001"
    assert parsed(fit, words)["out"] == RUN


def test_a_generators_reading_goes_over_the_plans():
    request = SourceRequest("nifti", "cases", read={"size": "32", "channels": "T1"})
    words = fitted_by(request, read={"size": "16"})
    assert " --read size=16 --read channels=T1 " in shlex.join(words)
    assert parsed(fit, words)["read"] == {"size": "16", "channels": "T1"}


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
    asked = FitRequest(generator="cgan3d", **data_words(request), out="run")
    assert source_of(asked) == request


def test_a_dry_run_times_fits_with_training_steps_those_with_a_number_first():
    generators = [("copypaste", {}), ("cgan3d", {}), ("cgan3d", {"steps": "9"})]
    fits = [fit_spec({}, {"generator": name, "set": given}, 0, "") for name, given in generators]
    assert learning(fits) == [fits[2], fits[1]]
