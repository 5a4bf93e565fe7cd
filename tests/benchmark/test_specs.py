import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest

from gansynth.core.source import SourceRequest
from gansynth.hosts.deciding.trials import trials_of
from gansynth.runtime.errors import UsageFault
from gansynth_benchmark.estimate import learning
from gansynth_benchmark.requests import augment_request, fit_request
from gansynth_benchmark.study import BenchmarkStudy, ComputationSpec, TrainingPoint, fit_spec
from gansynth_benchmark.subject_split import DEVELOPMENT
from gansynth_cli.commands.augment import command as augment
from gansynth_cli.commands.fit import command as fit
from tests.benchmark.people import design_of, plan_of
from tests.expected import raises_fault

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


OTHER_FIT = {"g": {"generator": "copypaste", "set": {"a": 1}}}
CHANGES: dict[str, list[dict[str, Any]]] = {
    "": [
        {"title": "of the report", "open": ["a remark"], "host": {"title": "for people"}},
        {"arms": pasted(title="for people", what="a sentence", candidate=True)},
        {"data": "people:/elsewhere/14", "root": "/elsewhere", "name": "another"},
        {"subjects": "/people/of/mine.csv"},
        {"draws": 1, "seeds": 5, "margin": 1.0, "primary": "hd95/mean"},
        {"arms": [*pasted(), TUNED], "tune": {"folds": 2}},
        {"generators": {"paste": {"generator": "copypaste"}}, "arms": pasted(generator="paste")},
    ],
    "train": [
        *({"arms": pasted(ratio="2:1")}, {"arms": pasted(set={"width": 4})}),
    ],
    "real train": [
        *({"host": {"steps": 41}}, {"host": {"set": {"network": "unet", "width": 4}}}),
        *({"host": {"options": ["a=1"]}}, {"regions": {"WT": "1+2"}}),
        {"measures": ["dice", "nsd"]},
    ],
    "train fit": [
        {"arms": pasted(generator="elastic")},
        {"generators": OTHER_FIT, "arms": pasted(generator="g")},
    ],
    "real train fit": [
        *({"read": {"size": "8"}}, {"plans": "small"}, {"configuration": "2d"}),
        *({"split": {"seed": 1}}, {"data": "people:/data/of/mine/15"}),
    ],
}


@pytest.mark.parametrize(
    ("others", "changes"), [(key, one) for key, several in CHANGES.items() for one in several]
)
def test_a_results_key_changes_with_what_it_depends_on_alone(others, changes):
    assert changed(design_of(plan_of(**changes))) == set(others.split())


def test_other_judged_people_and_other_images_are_other_computations():
    assert changed(design_of(look=DEVELOPMENT)) == {"real", "train"}
    design = design_of()
    trained, judged = design.cases_of(PLACE)[0], design.test_cases[0]
    assert changed(design_of(changed=trained)) == {"real", "train", "fit"}
    assert changed(design_of(changed=judged)) == {"real", "train"}
    other = design.training_cases(8, 1)[0]
    assert other not in {*design.cases_of(PLACE), *design.test_cases}
    assert changed(design_of(changed=other)) == set()


def test_samples_of_another_way_to_draw_are_other_computations(monkeypatch):
    monkeypatch.setattr("gansynth_benchmark.study.SAMPLING", "of another version")
    assert changed(design_of()) == {"train", "fit"}


@pytest.mark.parametrize(("fits", "same"), [("draw", True), ("seed", False)])
def test_a_fit_serves_all_seeds_of_a_draw_or_one(fits, same):
    design = design_of(plan_of(fits=fits))
    keys = [fit_of(design, replace(PLACE, seed=seed)).key for seed in (0, 1)]
    assert (keys[0] == keys[1]) == same
    trains = [design.train(replace(PLACE, seed=seed)) for seed in (0, 1)]
    assert [train.needs for train in trains] == [(key,) for key in keys]
    assert [train.document["generator"] for train in trains] == keys
    assert [train.document["seed"] for train in trains] == [0, 1]
    assert trains[0].key != trains[1].key
    other = replace(PLACE, draw=1)
    assert fit_of(design, other).key not in keys
    assert design.train(other).document["seed"] == 1000


def test_the_control_again_is_the_control_with_a_seed_that_no_other_training_has():
    design = design_of(plan_of(arms=["default", "again"]))
    first, again = (design.train(replace(PLACE, arm=arm)).document for arm in ("default", "again"))
    assert again == {**first, "seed": first["seed"] + 500}


def test_fits_and_choices_know_nobody_who_is_judged_on():
    design = design_of(plan_of(arms=[*pasted(), TUNED], tune={"folds": 2}))
    fit, tune = fit_of(design, PLACE), design.tune(TrainingPoint("tuned", 2, 0, 0)).document
    assert [case for case, *_ in fit.document["train"]] == list(design.cases_of(PLACE))
    assert design.fit_of(replace(PLACE, arm="default")) is None
    assert tune["generators"] == {"copypaste": plan_of().generator("copypaste").document}
    generators = {name: arm["generator"] for name, arm in tune["arms"].items()}
    assert generators == {"default": None, "pasted": "copypaste"}
    judged = set(design.test_cases)
    assert judged
    for document in (fit.document, tune):
        assert [case for case in judged if case in json.dumps(document)] == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"primary": "dice/WT"}, ("primary dice/WT", "no such region", "dice/foreground")),
        ({"primary": "dice"}, ("primary dice:", "dice/mean", "dice/2")),
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
    ("target", "options", "settings", "expected"),
    [
        ("nnunet", ("--npz",), {}, ("--npz",)),
        ("nnunet", ("--npz", "--val_best"), {}, "nnunet.val-best-selects-on-evaluation"),
        ("yolo", ("mosaic=0",), {}, ("mosaic=0", "eval_interval=0")),
        ("yolo", ("eval_interval=5",), {}, "yolo.interval-selects-on-evaluation"),
        ("yolo", (), {"detector": "ultralytics"}, "yolo.detector-selects-on-evaluation"),
        ("segmenter", (), {}, ()),
    ],
)
def test_nothing_of_a_training_is_chosen_by_those_who_are_judged_on(
    target, options, settings, expected
):
    trials = trials_of(target)
    if isinstance(expected, tuple):
        assert trials.without_selection(options, settings) == expected
        return
    with raises_fault(expected):
        trials.without_selection(options, settings)


REQUEST = SourceRequest("nifti", "cases")
RUN = Path("run")


def parsed(command: click.Command, words: list[str]) -> dict[str, Any]:
    return command.make_context(words[0], words[1:]).params


def training_of(arm: Any, **changes: Any) -> str:
    """The line of an arm's training, with a run wherever it draws samples."""
    plan = plan_of(arms=["default", arm] if arm != "default" else ["default"], **changes)
    spec = design_of(plan).train(TrainingPoint(plan.arms[-1].name, 2, 1, 1)).document
    run = RUN if spec["generator"] else None
    words = augment_request(spec, REQUEST, run, Path("out")).command_line
    parsed(augment, words)
    return shlex.join(words)


DRAWN = "--ratio 1:1 --generator run"
UNET, LAST = "--set network=unet", "--set steps=40"


@pytest.mark.parametrize(
    ("arm", "asked", "settings"),
    [
        ("default", "--ratio 1:0", ""),
        ("none", "--ratio 1:0 --no-host-augmentation", ""),
        ("unedited", f"{DRAWN} --edit identity", ""),
        ("pretrain", "--ratio 0:1 --schedule finetune:10%@80% --generator run", ""),
        ("heavier", "--ratio 1:0", "--set rotate=30 --set shift=0.1 --set elastic=3"),
        (
            {**PASTED, "ratio": "2:1", "schedule": "anneal:50%-100%", "augment_synthetic": False},
            "--ratio 2:1 --schedule anneal:50%-100% --augment-synthetic no --generator run "
            "--offline --bank-size 3x",
            "",
        ),
        (
            {"name": "mine", "generator": "copypaste", "refresh": "4x", "allow_empty_bank": True},
            f"{DRAWN} --refresh 4x --allow-empty-bank",
            "",
        ),
        ({"name": "mine", "set": {"width": 4}}, "--ratio 1:0", "--set width=4"),
    ],
)
def test_the_command_of_an_arm(arm, asked, settings):
    line = training_of(arm)
    head, _, tail = line.partition(" --seed 1001 ")
    assert head == f"augment nifti:cases --target segmenter --fold 0 {asked} -o out"
    assert tail == f"{UNET} {LAST} {settings}".strip() + " --set save_levels=yes"


def test_the_hosts_own_words_and_regions_are_in_its_command_and_no_arm_has_another_length():
    line = training_of("default", host={"options": ["eval_interval=0", "--c"]})
    assert line.endswith(" -- eval_interval=0 --c")
    line = training_of("default", regions={"WT": "1+2", "ET": "2"})
    assert "--set regions=WT:1+2,ET:2" in line
    line = training_of({"name": "mine", "set": {"network": "pix2pix"}})
    assert "--set network=pix2pix" in line
    with raises_fault("benchmark.arm-sets-own-length"):
        training_of({"name": "mine", "set": {"steps": 5}})


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({"recipe": "mine.yaml", "scale": "tiny"}, "--recipe mine.yaml --scale tiny"),
        (
            {"set": {"a": 1, "b": "x y", "c": True, "d": [1, 2]}},
            "--set a=1 --set 'b=x y' --set c=yes --set d=1,2",
        ),
        ({"read": {"size": "16"}}, ""),
    ],
)
def test_the_command_of_a_fit(changes, asked):
    """What a generator reads goes over what the plan reads."""
    made = plan_of(generators={"mine": {"generator": "cgan3d", **changes}}).generator("mine")
    request = replace(REQUEST, read={"size": "32", "channels": "T1"})
    words = fit_request(made.document, request, 1001, RUN).command_line
    size = changes.get("read", request.read)["size"]
    head = f"fit cgan3d --data nifti:cases --fold 0 --read size={size} --read channels=T1 -o run"
    assert shlex.join(words) == " ".join([head, *[asked] * bool(asked), "--set seed=1001"])
    assert parsed(fit, words)["out"] == RUN


def test_a_dry_run_times_fits_with_training_steps_those_with_a_number_first():
    generators = [("copypaste", {}), ("cgan3d", {}), ("cgan3d", {"steps": "9"})]
    fits = [fit_spec({}, {"generator": name, "set": given}, 0, "") for name, given in generators]
    assert learning(fits) == [fits[2], fits[1]]


@pytest.mark.slow
def test_keys_are_the_same_in_every_process():
    code = "from tests.benchmark.test_specs import USUAL; print(*USUAL.values())"
    environ = {**os.environ, "PYTHONHASHSEED": "12345"}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, env=environ, check=True)
    assert done.stdout.split() == list(USUAL.values())
