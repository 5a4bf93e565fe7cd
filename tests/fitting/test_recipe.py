"""Recipes: what is in the files that are shipped, what is refused, what they come to on data."""
# mypy: disallow-untyped-calls=False

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from gansynth.core.generator import Stage
from gansynth.core.hookspecs import hookimpl
from gansynth.core.registry import installed
from gansynth.core.source import SourceRequest
from gansynth.data.grid import ORIENTATION
from gansynth.fitting.composite_spec import ChainSpec, PerChannel, PerClass
from gansynth.fitting.recipe import find_recipe, read_recipe
from gansynth.fitting.recipe_plan import RecipePlan, plan_recipe
from gansynth.fitting.setup import resolve
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.options import overlay
from gansynth.sampling.opening import open_source
from gansynth.testing import ToySource
from gansynth.training.loop import steps_for

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
        path.write_text(yaml.safe_dump(document, sort_keys=False))
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


# -- those that are shipped ------------------------------------------------------------------------


def test_every_file_is_registered_under_its_name():
    ours = {
        name
        for name in installed().names("recipes")
        if str(installed().origins.get(installed().loaders["recipes"][name][0])).startswith(
            "gansynth "
        )
    }
    assert SHIPPED
    assert ours == set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_fits_its_generator_and_says_what_was_left_open(name):
    recipe = find_recipe(name)
    assert recipe.spec.open
    assert recipe.spec.reports
    assert recipe.spec.scale["tiny"].set


def test_han2018_is_what_its_section_3_says():
    gan, wgan = (find_recipe(f"han2018-{name}").spec for name in ("dcgan", "wgan"))
    for spec in (gan, wgan):
        assert (spec.read["plane"], spec.read["slices"]) == ("sagittal", "80-149")
        assert spec.read["count_from"] == "right"  # ours: the paper does not say
        assert [run.read["resize"] for run in spec.runs] == ["128x128", "128x128", "64x64"]
        assert [run.reports["hours"] for run in spec.runs] == [2, 2, 1]
        assert (spec.set["output"], spec.set["d_activation"]) == ("linear", "elu")
        assert (spec.set["batch_size"], spec.set["width"]) == (64, 64)
    assert (gan.set["objective"], gan.set["lr_generator"]) == ("gan", 2e-4)
    assert (wgan.set["objective"], wgan.set["lr_generator"]) == ("wgan", 5e-5)


class Brats(ToySource):
    """Toys of BRATS's four sequences."""

    def __init__(self, request):
        super().__init__(3)
        self.request = request

    @property
    def schema(self):
        sequences = ("T1", "T1c", "T2", "FLAIR")
        return replace(super().schema, channels=sequences, outside_fill=(0.0,) * 4)

    @property
    def space(self):
        return replace(super().space, host={"orientation": ORIENTATION})


@pytest.fixture
def brats():
    @hookimpl
    def register_sources(register):
        register("brats", lambda: Brats)

    installed().add(SimpleNamespace(register_sources=register_sources), "brats")
    yield SourceRequest("brats", "x")
    installed().remove("brats")


@pytest.mark.parametrize("name", ["han2018-dcgan", "han2018-wgan"])
def test_han2018_has_the_papers_six_sets(brats, name):
    recipe = find_recipe(name)
    planned = plan_recipe(recipe, brats, settings={}, edits=None).sets
    names = ["T1-128", "T1c-128", "T2-128", "FLAIR-128", "Concat-128", "Concat-64"]
    assert [one.name for one in planned] == names
    reads = [one.request.read for one in planned]
    assert [read.get("channels") for read in reads] == ["T1", "T1c", "T2", "FLAIR", None, None]
    assert [read.get("concat") for read in reads] == [None] * 4 + ["yes"] * 2
    assert set(recipe.spec.reports["visual_turing_test"]) == {"about", *names}


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sett": {}}, "sett is {}: Extra inputs are not permitted"),
        ({"summary": None}, "summary is"),
        ({"generator": "dcgun"}, "generator 'dcgun' is unknown"),
        ({"set": {"widht": 8}}, "set: widht=8: dcgan has no such setting"),
        ({"set": {"width": "wide"}}, "set: width=wide: expected a whole number"),
        ({"set": {"steps": 5, "epochs": 2}}, "epochs=2: cannot be combined with steps=5"),
        ({"read": {"plain": "axial"}}, "read: plain=axial: slices: has no such key"),
        ({"read": {"plane": "axail"}}, "read: plane=axail: expected 'axial'"),
        ({"read": {"slices": 12}}, "read.slices is 12: Input should be a valid string"),
        ({"edits": ["elastik"]}, "edit 'elastik' is unknown"),
        ({"runs": []}, "runs is []: Tuple should have at least 1 item"),
        ({"runs": [{"name": "../up"}]}, "runs.0.name is '../up'"),
        ({"runs": [{"name": "one", "each": "channel"}]}, "expected {channel} in it"),
        ({"runs": [{"name": "{channel}"}]}, "expected {channel} in it"),
        ({"runs": [{"name": "a", "set": {"clipp": 1}}]}, "runs.a.set: clipp=1"),
        ({"runs": [{"per_class": "each", "per_channel": "each"}]}, "expected one of per_channel"),
        ({"scale": {"tiny": {"set": {"stepz": 2}}}}, "scale.tiny.set: stepz=2"),
        ({"scale": {"tiny": {"read": {"sizes": "4"}}}}, "scale.tiny.read: sizes=4"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_slip_in_a_file_names_the_file_and_the_key(write, changes, says):
    path = write(**changes)
    with pytest.raises(UsageFault) as fault:
        find_recipe(str(path))
    assert str(fault.value).startswith(f"{path}: ")
    assert says in str(fault.value)


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "\x00"])
def test_what_is_no_recipe_is_one_line(tmp_path, text):
    (tmp_path / "odd.yaml").write_text(text)
    with pytest.raises(UsageFault, match=r"odd\.yaml: .*recipe"):
        read_recipe(tmp_path / "odd.yaml")


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(DataFault, match="no such file, expected a recipe"):
        find_recipe(str(tmp_path / "none.yaml"))


# -- on data ---------------------------------------------------------------------------------------


def test_there_is_a_set_for_each_channel_and_one_for_all(plan):
    sets = plan().sets
    assert [one.name for one in sets] == ["first-32", "second-32", "both"]
    assert [one.request.read.get("channels") for one in sets] == ["first", "second", None]
    assert {one.request.kind for one in sets} == {"slices"}
    opened = [open_source(one.request) for one in sets]
    assert [source.schema.channels for source in opened] == [
        *(("first",), ("second",), ("first+second",))
    ]
    assert [len(source.train_ids) for source in opened] == [12 * 8, 12 * 8, 2 * 12 * 8]


def test_what_was_typed_stands_before_the_scale_the_set_and_the_recipe(plan):
    (_, _, both) = plan().sets
    assert (both.request.read["resize"], both.settings["epochs"]) == ("32x32", "3")
    (_, _, both) = plan(scale="tiny").sets
    assert (both.request.read["resize"], both.settings["steps"]) == ("16x16", "2")
    read = {"resize": "24x24", "slices": "5-6"}
    (_, _, both) = plan(scale="tiny", read=read, settings={"epochs": "1"}).sets
    assert (both.request.read["resize"], both.request.read["slices"]) == ("24x24", "5-6")
    assert both.settings == {"width": "8", "batch_size": "8", "epochs": "1"}


def test_typed_channels_are_narrowed_and_one_alone_has_no_set_for_all(plan):
    both = plan(read={"channels": "first,second"})
    assert [one.request.read["channels"] for one in both.sets] == [
        *("first", "second", "first,second")
    ]
    assert [one.name for one in plan(read={"channels": "second"}).sets] == ["second-32"]


def test_cases_that_are_2d_already_are_one_set_of_their_own(plan):
    planned = plan("2d")
    (one,) = planned.sets
    assert (one.request.kind, dict(one.request.read)) == ("example", {})
    assert one.settings["width"] == "8"
    assert planned.alone
    assert "2D already" in planned.notes[0]


def test_slices_are_not_wrapped_twice(write):
    request = SourceRequest("slices", "example:3d")
    recipe = find_recipe(str(write()))
    planned = plan_recipe(recipe, request, settings={}, edits=None)
    assert [one.request.where for one in planned.sets] == ["example:3d"] * 3
    assert not planned.alone


def test_without_runs_it_is_one_run_by_itself(plan):
    planned = plan(file={"runs": None})
    assert planned.alone
    assert [one.name for one in planned.sets] == ["run"]


def test_a_set_may_be_a_composite_run(plan):
    parts = [{"name": "p", "generator": "dcgan", "set": {"width": 4}}]
    kinds: list[dict[str, Any]] = [
        *({"per_channel": "each"}, {"per_class": "a+b"}, {"parts": parts}, {})
    ]
    sets = plan(file={"runs": [{"name": f"r{n}", **kind} for n, kind in enumerate(kinds)]}).sets
    assert [one.composite for one in sets[:2]] == [
        *(PerChannel("dcgan", "each"), PerClass("dcgan", "a+b"))
    ]
    assert isinstance(sets[2].composite, ChainSpec)
    assert sets[3].composite is None


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


# -- epochs ----------------------------------------------------------------------------------------

TINY = {"width": "4", "levels": "2", "d_width": "4", "d_levels": "1"}


def test_epochs_become_steps_over_the_training_cases():
    asked = {**TINY, "epochs": "2.5", "batch_size": "8"}
    options = resolve("cgan3d", SourceRequest("example", "2d"), asked, None, "cpu").options
    assert (options.steps, options.epochs) == (4, None)  # 30 images of 12 cases, in eights


def test_both_steps_and_epochs_are_refused():
    asked = {**TINY, "epochs": "2", "steps": "8"}
    with pytest.raises(UsageFault, match="epochs=2: cannot be combined with steps=8"):
        resolve("cgan3d", SourceRequest("example", "2d"), asked, None, "cpu")


def test_steps_put_over_epochs_take_their_place_and_the_other_way():
    assert overlay({"epochs": "3", "width": "8"}, {"steps": "2"}) == {"width": "8", "steps": "2"}
    assert overlay({"steps": "3"}, {"epochs": "2"}) == {"epochs": "2"}
    assert overlay({"steps": "3"}, {"width": "8"}) == {"steps": "3", "width": "8"}


def test_stages_of_other_batch_sizes_are_stepped_through_one_by_one():
    stages = [Stage(images=40, batch_size=16), Stage(images=20), Stage()]
    assert steps_for(10, stages, 4) == 1
    assert steps_for(40, stages, 4) == 3  # 48 images are shown
    assert steps_for(100, stages, 4) == 3 + 3 + 10
