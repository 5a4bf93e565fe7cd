"""What is drawn for a seed stays as it is: numbers in ``reference.json``."""

from typing import Any

import numpy as np
import pytest

from gansynth.conditions.boxes import box_drawer, own_boxes, place_boxes
from gansynth.conditions.edit_chain import build_edits
from gansynth.conditions.lesion_placement import lesion_drawer
from gansynth.conditions.location_prior import PlacementPrior
from gansynth.conditions.sampler import ConditionSampler
from gansynth.core.edit import EditContext
from gansynth.core.registry import installed
from gansynth.core.source import SourceRequest
from gansynth.data.connected_components import parts
from gansynth.testing import ToySource
from tests.boxed_heads import Heads
from tests.conditions.rooms import Maps, at, case_context, make, pool_of, schema, toy
from tests.spots import SpottedSource

CHOSEN: tuple[dict[str, Any], ...] = ({}, {"classes": (2,)}, {"classes": (1, 4)})
MORE: dict[str, tuple[dict[str, Any], ...]] = {
    "flip": ({"about": "centroid", "probability": 1.0},),
    "transplant": ({"where": "anywhere", "own": "keep"}, {"pairs": "ordered"},
                   {"pairs": "nearest", "among": 2}),
    "interpolate": ({"low": 0.9, "high": 1.0}, {"pairs": "nearest"}),
    "size": ({"like": "small", "bias": 2.0}, {"each": False}),
    "clip": ({"margin_mm": 4.0, "border": True},),
    "enlarge": ({"low": 2.0, "high": 4.0},),
    "shrink": ({"low": 0.2, "high": 0.4},),
}  # fmt: skip


@pytest.mark.parametrize("spacing", [(3.0, 0.8, 1.1), (1.0, 1.5)], ids=str)
@pytest.mark.parametrize("name", sorted(installed().names("edits")))
def test_edits_draw_and_make_what_they_did(name, spacing, unchanged):
    edit, names = installed().edit(name), schema(len(spacing), spacing)
    there = case_context(toy(len(spacing), spacing), names)
    channels = np.arange(there.labels.size, dtype=np.int16).reshape(there.labels.shape) % 7
    context = EditContext(there.labels, names, there, channels, there.case.image)
    chosen = CHOSEN if "classes" in edit.Options.model_fields else ({},)
    for seed, options in enumerate([*chosen, *MORE.get(name, ())]):
        made = make(name, **options)
        params = made.draw(context, np.random.default_rng(seed))
        unchanged(f"{name} {options} {spacing}", [params, made.apply(context, params)])


@pytest.mark.parametrize(
    "text",
    ["where=anywhere,inside=0.6", "where=prior,what=one,mixing=carve,inside=0.5", "where=own",
     "where=same,inside=0.5,apart_mm=1", "apart_mm=50"],
)  # fmt: skip
@pytest.mark.parametrize("ndim", [2, 3])
def test_lesions_are_what_they_were(text, ndim, unchanged):
    source = ToySource(ndim)
    drawer = lesion_drawer(text if text == "where=own" else f"add,{text}")
    edits = build_edits(["scale", "flip"])
    sampler = ConditionSampler(source, source.space, edits, lesions=drawer)
    for index in range(3 if ndim == 2 else 2):
        unchanged(f"lesions {ndim} {text} {index}", sampler.draw(index))


@pytest.fixture(scope="module")
def heads() -> Heads:
    return Heads()


@pytest.mark.parametrize(
    "text", ["jitter", "jitter:count=1,backgrounds=0.5,position=0.5,inside=no"]
)
def test_boxes_are_what_they_were(text, heads, unchanged):
    source = SpottedSource(SourceRequest("spotted", "any"))
    drawer = box_drawer(text)
    sampler = ConditionSampler(source, source.space, seed=3, labelled=False, boxes=drawer)
    placed = ConditionSampler(
        heads, heads.space, labelled=False, boxes=drawer, backgrounds=True, seed=1
    )
    for index in range(6):
        unchanged(f"boxes {text} {index}", sampler.draw(index))
        unchanged(f"boxes in heads {text} {index}", placed.draw(index))


def test_learnt_places_are_what_they_were(heads, unchanged):
    case_pool = pool_of(heads, heads.space)
    for label in (0, 1):
        unchanged(f"places of class {label}", PlacementPrior.learn_boxes(case_pool, label))
    rng, asked = np.random.default_rng(0), own_boxes(heads.load("h03"))
    put = place_boxes(asked, at(case_pool, "h01"), rng, as_asked=False)
    unchanged("boxes put", [put.boxes, put.present, put.moved])
    labels = {f"p{i}": toy(width=22 + 2 * i) for i in range(4)}
    pool = pool_of(Maps(labels, schema()))
    prior, rng = PlacementPrior.learn(pool, (1, 2)), np.random.default_rng(1)
    unchanged("places", [prior, [prior.draw(labels["p1"] >= 0, rng) for _ in range(20)]])
    unchanged("parts", [[p.box, p.labels, p.volume, p.cut_off] for p in parts(toy(), schema())])
