"""Every arm that a plan can name can be built, fitted and asked for."""

from __future__ import annotations

import pytest

from gansynth.benchmark.arms import PRESET_GENERATORS, PRESETS
from gansynth.benchmark.plan import ArmPlan, Plan
from gansynth.conditions.edit_chain import build_edits
from gansynth.core.ratio import Ratio
from gansynth.core.registry import installed
from gansynth.fitting.recipe import find_recipe
from gansynth.runtime.options import split_settings
from gansynth.training.loop import FitOptions
from tests.benchmark.people import plan_of

GENERATORS = sorted({str(p["generator"]) for p in PRESETS.values() if "generator" in p})


def plan_with(arm: object, **more: object) -> Plan:
    return plan_of(arms=["default", arm], **more)


def test_the_controls_and_the_ways_to_use_a_gan_are_there_and_no_two_are_the_same():
    assert {
        *("default", "none", "heavier", "double", "elastic", "copy-paste", "coarse-paste"),
        *("whole", "unedited", "interpolated", "dcgan", "cpggan", "synthetic-only", "pretrain"),
    } == set(PRESETS)
    words = {"title", "what"}
    bare = [{key: preset[key] for key in preset.keys() - words} for preset in PRESETS.values()]
    assert len({ArmPlan(name="a", **arm).model_dump_json() for arm in bare}) == len(PRESETS)


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "default"])
def test_an_arm_is_built_by_its_name(name):
    arm = plan_with(name).arm(name)
    assert arm.title
    assert arm.what
    assert (Ratio.parse(arm.asked_ratio).p > 0) == (arm.generator is not None)
    assert len(build_edits(arm.edits)) == len(arm.edits)


@pytest.mark.parametrize("generator", GENERATORS)
def test_its_generator_can_be_fitted_as_it_is(generator):
    made = plan_of().generator(generator)
    cls = installed().generator(made.plugin)
    split_settings(made.set, FitOptions, cls.Options, generator=made.plugin)
    if made.recipe is not None:
        assert find_recipe(made.recipe).spec.generator == made.plugin


def test_presets_bring_generators_that_are_more_than_a_plugin():
    lesion = plan_with("coarse-paste").generator("cgan3d-lesion")
    assert (lesion.plugin, lesion.recipe) == ("cgan3d", "lesion")
    assert plan_with("dcgan").generator("dcgan").set == {"with_mask": "yes"}
    assert plan_with("whole").generator("cgan3d").set == {}
    assert set(PRESET_GENERATORS) <= set(GENERATORS)


def test_a_generator_of_the_plan_goes_before_the_presets():
    own = plan_with("coarse-paste", generators={"cgan3d-lesion": {"plugin": "copypaste"}})
    assert own.generator("cgan3d-lesion").plugin == "copypaste"
    assert own.generator("cgan3d-lesion").recipe is None


def test_a_plan_may_change_any_key_of_an_arm_which_has_its_presets_name_unless_it_has_one():
    own = {"name": "mine", "from": "pretrain", "schedule": "finetune:50%@60%"}
    arm = plan_with(own).arm("mine")
    assert (arm.schedule, arm.ratio, arm.generator) == ("finetune:50%@60%", "0:1", "cgan3d")
    assert arm.title == PRESETS["pretrain"]["title"]
    assert plan_with({"from": "elastic", "bank": "4x"}).arm("elastic").bank == "4x"
