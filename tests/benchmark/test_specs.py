"""Equal computations have equal keys, and whatever can change a result changes its key."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from gansynth.benchmark.division import DEVELOPMENT
from gansynth.benchmark.specs import Design, Place, Spec, described, formulas, write_work
from gansynth.core.registry import installed
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import read_json
from tests.benchmark.people import WHERE, design_of, plan_of

PASTED = {"name": "pasted", "from": "copy-paste", "bank": "3x"}
TUNED = {"name": "tuned", "tune": ["default", "pasted"]}
PLACE = Place("pasted", 2, 0, 0)


def pasted(**changes: Any) -> Any:
    """The arms of a plan, the synthetic one with other values."""
    return ["default", {**PASTED, **changes}, "double"]


def fit_of(design: Design, place: Place) -> Spec:
    fit = design.fit_of(place)
    assert fit is not None
    return fit


def keys(design: Design) -> dict[str, str]:
    """Keys of a training without and with samples, and of its fit."""
    fit = fit_of(design, PLACE)
    real = design.train(replace(PLACE, arm="default"))
    return {"real": real.key, "train": design.train(PLACE).key, "fit": fit.key}


USUAL = keys(design_of())


def changed(design: Design) -> set[str]:
    """Which of the three computations are others than usual."""
    return {name for name, key in keys(design).items() if key != USUAL[name]}


# -- equal -----------------------------------------------------------------------------------------


def test_twice_the_people_of_a_size_is_that_of_the_double_size():
    design = design_of()
    for draw, seed in ((0, 0), (0, 1), (1, 1)):
        double, plain = Place("double", 2, draw, seed), Place("default", 4, draw, seed)
        assert design.train(double).key == design.train(plain).key
    assert design.train(Place("double", 4, 0, 0)).key not in (
        design.train(Place("default", 4, 0, 0)).key,
        design.train(Place("double", 2, 0, 0)).key,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"title": "of the report", "open": ["a remark"]},
        {"host": {"title": "for people"}},
        {"arms": pasted(title="for people", what="a sentence", candidate=True)},
        {"data": "people:/elsewhere/14"},
        {"draws": 1, "seeds": 5},
        {"margin": 0.1},
        {"primary": "hd95/mean", "margin": 1.0},
        {"arms": [*pasted(), TUNED], "tune": {"folds": 2}},
        {"root": "/elsewhere"},
        {"name": "another"},
    ],
    ids=str,
)
def test_what_a_result_does_not_hang_on_is_not_in_its_key(changes):
    assert changed(design_of(plan_of(**changes))) == set()


def test_an_arm_of_another_name_is_the_same_computation():
    renamed = design_of(plan_of(arms=["default", {**PASTED, "name": "third"}, "double"]))
    place = replace(PLACE, arm="third")
    assert renamed.train(place).key == USUAL["train"]
    assert "third" in renamed.train(place).title


def test_a_generator_of_another_name_is_the_same_computation():
    own = plan_of(generators={"paste": {"plugin": "copypaste"}}, arms=pasted(generator="paste"))
    assert changed(design_of(own)) == set()


def test_a_chosen_arm_is_that_arm():
    design = design_of(plan_of(arms=[*pasted(), TUNED], tune={"folds": 2}))
    assert design.train(replace(Place("tuned", 2, 0, 0), arm="pasted")).key == USUAL["train"]


# -- other -----------------------------------------------------------------------------------------

ALL = {"real", "train", "fit"}


@pytest.mark.parametrize(
    ("changes", "others"),
    [
        ({"host": {"steps": 41}}, {"real", "train"}),
        ({"host": {"set": {"network": "unet", "width": 4}}}, {"real", "train"}),
        ({"host": {"options": ["a=1"]}}, {"real", "train"}),
        ({"regions": {"WT": "1+2"}}, {"real", "train"}),
        ({"measures": ["dice", "nsd"]}, {"real", "train"}),
        ({"arms": pasted(bank="4x")}, {"train"}),
        ({"arms": pasted(ratio="2:1")}, {"train"}),
        ({"arms": pasted(schedule="anneal")}, {"train"}),
        ({"arms": pasted(edits=["flip"])}, {"train"}),
        ({"arms": pasted(filters=["faithful"])}, {"train"}),
        ({"arms": pasted(augmentation="none")}, {"train"}),
        ({"arms": pasted(augmentation="heavier")}, {"train"}),
        ({"arms": pasted(augment_synthetic=False)}, {"train"}),
        ({"arms": pasted(set={"width": 4})}, {"train"}),
        ({"arms": pasted(generator="elastic")}, {"train", "fit"}),
        (
            {
                "generators": {"g": {"plugin": "copypaste", "set": {"a": 1}}},
                "arms": pasted(generator="g"),
            },
            {"train", "fit"},
        ),
        ({"read": {"size": "8"}}, ALL),
        ({"plans": "small"}, ALL),
        ({"configuration": "2d"}, ALL),
        ({"split": {"seed": 1}}, ALL),
        ({"split": {"sealed": 2}}, ALL),
        ({"data": "people:/data/of/mine/15"}, ALL),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_what_a_result_hangs_on_is_in_its_key(changes, others):
    assert changed(design_of(plan_of(**changes))) == others


@pytest.mark.parametrize("arm", ["default", "pasted"])
def test_seeds_draws_and_sizes_are_other_computations(arm):
    design = design_of()
    places = [Place(arm, n, d, s) for n in (2, 4) for d in (0, 1) for s in (0, 1)]
    assert len({design.train(place).key for place in places}) == len(places)
    trains, fits = zip(*((design.train(p), design.fit_of(p)) for p in places), strict=True)
    assert {spec.document["seed"] for spec in trains} == {0, 1, 1000, 1001}
    assert {fit.document["seed"] for fit in fits if fit} <= {0, 1, 1000, 1001}
    assert len({fit.key for fit in fits if fit}) == (0 if arm == "default" else len(places))


def test_other_judged_people_are_another_training_of_the_same_generator():
    assert changed(design_of(look=DEVELOPMENT)) == {"real", "train"}


def test_another_image_of_the_same_name_is_another_case():
    design = design_of()
    trained, judged = design.cases_of(PLACE)[0], design.judged[0]
    assert changed(design_of(changed=trained)) == ALL
    assert changed(design_of(changed=judged)) == {"real", "train"}
    (other,) = set(design.training_cases(8, 1)[:1])
    assert other not in {*design.cases_of(PLACE), *design.judged}
    assert changed(design_of(changed=other)) == set()


# -- generators ------------------------------------------------------------------------------------


def test_one_fit_of_a_draw_serves_all_seeds():
    design = design_of(plan_of(fits="draw"))
    fit = fit_of(design, PLACE)
    for seed in (0, 1):
        assert fit_of(design, replace(PLACE, seed=seed)) == fit
        assert design.train(replace(PLACE, seed=seed)).needs == (fit.key,)
    assert fit_of(design, replace(PLACE, draw=1)).key != fit.key


def test_a_fit_of_each_seed_serves_that_one():
    design = design_of(plan_of(fits="seed"))
    fits = [fit_of(design, replace(PLACE, seed=seed)) for seed in (0, 1)]
    assert fits[0].key != fits[1].key
    for seed, fit in enumerate(fits):
        train = design.train(replace(PLACE, seed=seed))
        assert train.needs == (fit.key,)
        assert train.document["generator"] == fit.key


def test_a_fit_learns_from_the_training_cases_alone():
    design = design_of()
    fit = fit_of(design, PLACE)
    assert "judged" not in fit.document
    assert [case for case, *_ in fit.document["train"]] == list(design.cases_of(PLACE))
    assert design.fit_of(replace(PLACE, arm="default")) is None
    assert design.train(replace(PLACE, arm="default")).document["generator"] is None


# -- documents -------------------------------------------------------------------------------------


def specs() -> list[Spec]:
    """One of each kind, of a plan whose data lies at an absolute path."""
    plan = plan_of(
        arms=[*pasted(), "heavier", TUNED],
        tune={"folds": 2},
        root="/root/of/mine",
        subjects="/people/of/mine.csv",
        regions={"WT": "1+2"},
    )
    design = design_of(plan)
    trains = [design.train(Place(arm, 2, 0, 0)) for arm in ("default", "pasted", "heavier")]
    return [fit_of(design, PLACE), *trains, design.tune(Place("tuned", 2, 0, 0))]


@pytest.mark.parametrize("spec", specs(), ids=lambda spec: spec.title)
def test_a_document_says_neither_where_nor_when(spec):
    text = json.dumps(spec.document)
    assert WHERE not in text
    assert "of/mine" not in text
    assert re.findall(r'"/', text) == []
    assert re.findall(r"\b20[2-9]\d-\d\d", text) == []
    assert re.fullmatch(r"[0-9a-f]{20}", spec.key)
    assert spec.title not in text


def test_a_document_names_each_case_with_its_person_and_content():
    design = design_of()
    train = design.train(PLACE).document["train"]
    assert [case for case, *_ in train] == sorted(case for case, *_ in train)
    records = [design.source.record(case) for case, *_ in train]
    assert train == [[one.id, one.subject, one.sha256] for one in records]
    assert [person for _, person, _ in train] == [design.source.subject(c) for c, *_ in train]


def test_regions_are_told_to_hosts_that_take_them():
    design = design_of(plan_of(regions={"WT": "1+2", "ET": "2"}))
    assert design.train(PLACE).document["host"]["set"]["regions"] == "WT:1+2,ET:2"
    assert "regions" not in design_of().train(PLACE).document["host"]["set"]
    assert formulas({}) == ""


def test_an_arm_is_described_without_its_name():
    told = described(plan_of().arm("pasted"))
    assert (told["ratio"], told["bank"], told["draws_from"]) == ("1:1", "3x", True)
    assert not {"name", "title", "what", "real", "generator"} & set(told)


def test_a_choice_knows_its_candidates_and_no_judged_case():
    tune = specs()[-1].document
    assert set(tune["arms"]) == set(tune["host"]) == {"default", "pasted"}
    assert tune["generators"] == {"copypaste": plan_of().generator("copypaste").model_dump()}
    assert {name: host["generator"] for name, host in tune["host"].items()} == {
        "default": None,
        "pasted": "copypaste",
    }
    judged = set(design_of().judged)
    assert judged
    assert not [case for case in judged if case in json.dumps(tune)]


def test_what_a_process_is_told_is_the_document_and_where_things_lie(tmp_path):
    spec = design_of().train(PLACE)
    path = write_work(spec, {"run": "/runs/g"}, tmp_path / "work")
    assert path.name == f"{spec.key}.json"
    assert read_json(path) == {"spec": spec.document, "places": {"run": "/runs/g"}}


def test_keys_are_the_same_in_every_process():
    code = "from tests.benchmark.test_specs import USUAL; print(*USUAL.values())"
    environ = {**os.environ, "PYTHONHASHSEED": "12345"}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, env=environ, check=True)
    assert done.stdout.split() == list(USUAL.values())


# -- what cannot be measured -----------------------------------------------------------------------


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
def test_what_the_label_maps_do_not_have_is_refused_before_anything_is_trained(changes, words):
    with pytest.raises(UsageFault) as refused:
        design_of(plan_of(**changes))
    line = str(refused.value)
    assert "\n" not in line
    assert [w for w in words if w not in line] == []


@pytest.mark.parametrize("primary", ["dice/foreground", "dice/1", "dice/mean", "dice/WT"])
def test_every_region_there_is_can_be_what_the_verdict_is_about(primary):
    design_of(plan_of(primary=primary, regions={"WT": "1+2"}))


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
    adapter = installed().adapter(target)
    if kept is not None:
        assert adapter.impartial(options, settings) == kept
        return
    with pytest.raises(UsageFault, match=r"judged on|images of the evaluation"):
        adapter.impartial(options, settings)
