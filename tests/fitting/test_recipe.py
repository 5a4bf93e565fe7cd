from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from gansynth.core.source import SourceRequest
from gansynth.core.space import ORIENTATION
from gansynth.fitting.composite_spec import ChainSpec, PerChannel, PerClass
from gansynth.fitting.recipe import find_recipe, read_recipe
from gansynth.fitting.recipe_plan import RecipePlan, plan_recipe
from gansynth.fitting.setup import resolve
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.options import overlay
from gansynth.sampling.run_source import open_source
from gansynth.testing import ToySource
from tests.expected import raises_fault
from tests.offered import offered

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(path.stem for path in ROOT.glob("plugins/*/recipes/*.yaml"))
GOOD: dict[str, Any] = {
    "summary": "Slices of toys",
    "paper": "Nobody 2020",
    "generator": "dcgan",
    "source": "slices",
    "read": {"plane": "axial", "slices": "4-11"},
    "set": {"width": 8, "epochs": 3, "batch_size": 8},
    "runs": [
        {"name": "{channel}-32", "each": "channel", "read": {"channels": "{channel}"}},
        {"name": "both", "least_channels": 2, "read": {"concat": True, "resize": "32x32"}},
    ],
    "open": ["Nothing."],
    "scale": {"tiny": {"set": {"steps": 2}, "read": {"resize": "16x16"}}},
}


@pytest.fixture
def write(tmp_path):
    """Writes ``GOOD`` with changes (None takes a key out) to ``mine.yaml``; returns its path."""

    def to_file(**changes: Any) -> Path:
        document = {k: v for k, v in {**GOOD, **changes}.items() if v is not None}
        path: Path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    return to_file


@pytest.fixture
def plan(write):
    """Plans ``GOOD`` with changes: ``plan(request, file={...}, read={...}, settings={...})``."""

    def planned(where="3d", *, file=None, read=None, settings=None, **rest) -> RecipePlan:
        recipe = find_recipe(str(write(**(file or {}))))
        request = SourceRequest("example", where, read=read or {})
        return plan_recipe(recipe, request, settings=settings or {}, edits=None, **rest)

    return planned


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_fits_its_generator_and_says_what_was_left_open(name):
    spec = find_recipe(name).spec
    assert all((spec.open, spec.reports, spec.scale["tiny"].set))


class Brats(ToySource):
    """Toys of BRATS's four sequences."""

    @property
    def schema(self):
        sequences = ("T1", "T1c", "T2", "FLAIR")
        return replace(super().schema, channels=sequences, outside_fill=(0.0,) * 4)

    @property
    def space(self):
        return replace(super().space, host={"orientation": ORIENTATION})


@pytest.mark.parametrize(("objective", "rate"), [("gan", 2e-4), ("wgan", 5e-5)])
def test_han2018_is_what_its_section_3_says_and_has_its_six_sets(objective, rate):
    recipe = find_recipe(f"han2018-{'dcgan' if objective == 'gan' else objective}")
    spec = recipe.spec
    assert (spec.read["plane"], spec.read["slices"]) == ("sagittal", "80mm-150mm")
    assert spec.read["count_from"] == "right"  # ours: the paper does not say
    assert [run.read["resize"] for run in spec.runs] == ["128x128", "128x128", "64x64"]
    assert [run.reports["hours"] for run in spec.runs] == [2, 2, 1]
    wanted = {"output": "linear", "d_activation": "elu", "batch_size": 64, "width": 64}
    assert spec.set.items() >= {**wanted, "objective": objective, "lr_generator": rate}.items()
    with offered("brats", sources={"brats": lambda request: Brats(3)}):
        planned = plan_recipe(recipe, SourceRequest("brats", "x"), settings={}, edits=None).sets
    names = ["T1-128", "T1c-128", "T2-128", "FLAIR-128", "Concat-128", "Concat-64"]
    assert [one.name for one in planned] == names
    reads = [one.request.read for one in planned]
    assert [read.get("channels") for read in reads] == ["T1", "T1c", "T2", "FLAIR", None, None]
    assert [read.get("concat") for read in reads] == [None] * 4 + ["yes"] * 2
    assert set(spec.reports["visual_turing_test"]) == {"about", *names}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sett": {}}, "sett is {}: Extra inputs are not permitted"),
        ({"generator": "dcgun"}, "generator 'dcgun' is unknown"),
        ({"set": {"widht": 8}}, "set: widht=8: dcgan has no such setting"),
        ({"set": {"steps": 5, "epochs": 2}}, "epochs=2: cannot be combined with steps=5"),
        ({"read": {"plain": "axial"}}, "read: plain=axial: slices: has no such key"),
        ({"read": {"plane": "axail"}}, "read: plane=axail: expected 'axial'"),
        ({"edits": ["elastik"]}, "edit 'elastik' is unknown"),
        ({"runs": [{"name": "../up"}]}, "runs.0.name is '../up'"),
        ({"runs": [{"name": "one", "each": "channel"}]}, "expected {channel} in it"),
        ({"runs": [{"name": "{channel}"}]}, "expected {channel} in it"),
        ({"runs": [{"name": "a", "set": {"clipp": 1}}]}, "runs.a.set: clipp=1"),
        ({"runs": [{"per_class": "each", "per_channel": "each"}]}, "expected one of per_channel"),
        ({"scale": {"tiny": {"set": {"stepz": 2}}}}, "scale.tiny.set: stepz=2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_slip_in_a_file_names_the_file_and_the_key(write, changes, says):
    path = write(**changes)
    with pytest.raises(UsageFault) as fault:
        find_recipe(str(path))
    assert str(fault.value).startswith(f"{path}: ")
    assert says in str(fault.value)


def test_what_is_no_recipe_is_one_line(tmp_path):
    for text, expected in (
        ("a: [", "yaml.not-yaml"),
        ("", "fitting.recipe-file-malformed"),
        ("\x00", "yaml.not-yaml"),
    ):
        (tmp_path / "odd.yaml").write_text(text)
        with raises_fault(expected, names="odd.yaml"):
            read_recipe(tmp_path / "odd.yaml")
    with raises_fault("yaml.no-file"):
        find_recipe(str(tmp_path / "none.yaml"))


def test_there_is_a_set_for_each_channel_and_one_for_all(plan):
    sets = plan().sets
    assert [one.name for one in sets] == ["first-32", "second-32", "both"]
    assert [one.request.read.get("channels") for one in sets] == ["first", "second", None]
    assert {one.request.kind for one in sets} == {"slices"}
    opened = [open_source(one.request) for one in sets]
    channels = [source.schema.channels for source in opened]
    assert channels == [("first",), ("second",), ("first+second",)]
    assert [len(source.train_ids) for source in opened] == [12 * 8, 12 * 8, 2 * 12 * 8]
    typed = plan(read={"channels": "first,second"}).sets
    narrowed = [one.request.read["channels"] for one in typed]
    assert narrowed == ["first", "second", "first,second"]
    assert [one.name for one in plan(read={"channels": "second"}).sets] == ["second-32"]


TYPED = {"read": {"resize": "24x24", "slices": "5-6"}, "settings": {"epochs": "1"}}


@pytest.mark.parametrize(
    ("asked", "read", "settings"),
    [
        ({}, {"resize": "32x32"}, {"epochs": "3"}),
        ({"scale": "tiny"}, {"resize": "16x16"}, {"steps": "2"}),
        ({"scale": "tiny", **TYPED}, {"resize": "24x24", "slices": "5-6"}, {"epochs": "1"}),
    ],
    ids=["the set", "the scale", "typed"],
)
def test_what_was_typed_stands_before_the_scale_the_set_and_the_recipe(plan, asked, read, settings):
    (_, _, both) = plan(**asked).sets
    assert both.request.read.items() >= read.items()
    assert both.settings == {"width": "8", "batch_size": "8", **settings}


def test_cases_that_are_2d_or_slices_already_are_taken_as_they_are(plan, write):
    planned = plan("2d")
    (one,) = planned.sets
    assert (one.request.kind, dict(one.request.read)) == ("example", {})
    assert one.settings["width"] == "8"
    assert planned.alone
    assert "2D already" in planned.notes[0]
    request, recipe = SourceRequest("slices", "example:3d"), find_recipe(str(write()))
    wrapped = plan_recipe(recipe, request, settings={}, edits=None)
    assert [one.request.where for one in wrapped.sets] == ["example:3d"] * 3
    assert not wrapped.alone


def test_without_runs_it_is_one_run_by_itself_and_a_set_may_be_a_composite_run(plan):
    planned = plan(file={"runs": None})
    assert planned.alone
    assert [one.name for one in planned.sets] == ["run"]
    parts = [{"name": "p", "generator": "dcgan", "set": {"width": 4}}]
    kinds: list[dict[str, Any]] = [{"per_channel": "each"}, {"per_class": "a+b"}]
    kinds += [{"parts": parts}, {}]
    sets = plan(file={"runs": [{"name": f"r{n}", **kind} for n, kind in enumerate(kinds)]}).sets
    composites = [one.composite for one in sets]
    assert composites[:2] == [PerChannel("dcgan", "each"), PerClass("dcgan", "a+b")]
    assert isinstance(composites[2], ChainSpec)
    assert composites[3] is None


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"only": ("first-31",)}, "Did you mean 'first-32'?"),
        ({"scale": "tinny"}, "Did you mean 'tiny'?"),
        ({"settings": {"widht": "8"}}, "Did you mean 'width'?"),
        ({"read": {"plane": "round"}}, "plane=round"),
        ({"file": {"runs": [{"name": "a"}, {"name": "A"}]}}, "has two sets named 'a'"),
        ({"file": {"runs": [{"name": "a", "least_channels": 3}]}}, "has no set for channels first"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_refused_before_anything_begins(plan, asked, says):
    with pytest.raises(UsageFault) as fault:
        plan(**asked)
    assert says in str(fault.value)


def test_epochs_become_steps_over_the_training_cases_or_are_refused_beside_them():
    request, asked = SourceRequest("example", "2d"), {"epochs": "2.5", "batch_size": "8"}
    options = resolve("dcgan", request, asked, None, "cpu").options
    assert (options.steps, options.epochs) == (4, None)  # 30 images of 12 cases, in eights
    with raises_fault("options.epochs-with-steps"):
        resolve("dcgan", request, {**asked, "steps": "8"}, None, "cpu")
    assert overlay({"epochs": "3", "width": "8"}, {"steps": "2"}) == {"width": "8", "steps": "2"}
    assert overlay({"steps": "3"}, {"epochs": "2"}) == {"epochs": "2"}
    assert overlay({"steps": "3"}, {"width": "8"}) == {"steps": "3", "width": "8"}
