"""``han2019-cpggan``: PGGAN's stages, how data are read, sets and figures.

Its layers, parameters and what its discriminator sees stand in ``test_paper_networks.py``.
"""
# mypy: disallow-untyped-calls=False

import re
from typing import Any

import pytest

from gansynth.core.schema import Schema
from gansynth.core.source import SourceRequest
from gansynth.fitting.composite_spec import PerClass, texts
from gansynth.fitting.recipe import find_recipe
from gansynth.fitting.recipe_plan import plan_recipe
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.options import split_settings
from gansynth.training.loop import FitOptions, steps_for
from gansynth_cli.commands.detections import paper_arms
from gansynth_cpggan.model import CPGGAN
from tests.conftest import DATA
from tests.yolo_sets import toy_yolo

SIZE = (256, 256)
BRAINS = Schema(("grey",), {"background": 0}, (1.0, 1.0), "HW", box_classes=("metastasis",))


def built(**over: str) -> CPGGAN:
    settings = {**texts(find_recipe("han2019-cpggan").spec.set), **over}
    _, own = split_settings(settings, FitOptions, CPGGAN.Options, generator="cpggan")
    return CPGGAN(BRAINS, SIZE, own)


def test_its_steps_are_those_of_pggans_stages():
    stages = built().stages()
    assert [stage.batch_size for stage in stages] == [16] * 6 + [14]
    images = 800_000 * (2 * len(stages) - 1)
    steps = find_recipe("han2019-cpggan").spec.set["steps"]
    assert 0 <= steps - steps_for(images, stages, 16) < 1000


def planned(data: Any, *only: str, kind: str = "yolo", **read: str) -> Any:
    request = SourceRequest(kind, str(data), read=read)
    recipe = find_recipe("han2019-cpggan")
    return plan_recipe(recipe, request, settings={}, edits=None, only=only)


def test_cases_are_brains_of_256_by_256(tmp_path):
    data = toy_yolo(tmp_path / "d")
    (one,) = planned(data).sets
    assert one.name == "joint"
    assert one.request.read == {"skull_strip": "yes", "size": "256x256", "fit": "stretch"}
    assert planned(data).source.space.size == SIZE


def test_one_generator_for_each_class_is_fitted_if_it_is_named(tmp_path):
    data = toy_yolo(tmp_path / "d", names=("glioma", "pituitary"))
    (one,) = planned(data, "per-class").sets
    assert one.composite == PerClass("cpggan", "each")
    assert one.request.read["classes"] == "boxes"


def test_pictures_with_masks_are_taken_too(tmp_path):
    recipe = find_recipe("han2019-cpggan")
    assert recipe.read_of("pictures") == {
        "skull_strip": "yes",
        "resize": "256x256",
        "boxes": "yes",
    }
    with pytest.raises(UsageFault, match="does not say how to read it, expected yolo: or pictures"):
        planned(tmp_path, kind="nifti")


def test_figures_are_the_papers_table():
    papers = DATA.parent / "seeds"
    found = next(papers.glob("003_*.txt"), None) if papers.is_dir() else None
    if found is None:
        pytest.skip("the papers are not at hand: ../shared/seeds")
    rows = re.findall(
        r"^(2,813 real.*?|\+ 4,000.*?)\t(.*)$", found.read_text("utf-8"), re.MULTILINE
    )
    told = {name: [float(re.sub("</?b>", "", v)) for v in row.split("\t")] for name, row in rows}
    assert find_recipe("han2019-cpggan").spec.reports["yolov3"] == told
    assert len(told) == 2
    assert [arm["at"]["0.25"] for arm in paper_arms()] == [(0.83, 3.59), (0.91, 7.18)]
