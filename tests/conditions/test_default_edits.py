"""The edits that ``cgan3d`` applies unasked: labels stay in the body that the images show."""

from dataclasses import replace
from typing import Any

import numpy as np

from gansynth.conditions.edit_chain import build_edits
from gansynth.conditions.sampler import ConditionSampler
from gansynth.core.body_mask import body_mask, shown_body
from gansynth.core.generator import capabilities_of
from gansynth.core.schema import Schema
from gansynth.core.space import Placement, Space
from gansynth.testing import ToySource
from gansynth_cgan3d.whole import CGAN3D
from gansynth_elastic.model import ElasticGenerator

DRAWS = 16


class Stripped(ToySource):
    """Bodies in zeros, which no label tells apart; crops reach beyond the cases."""

    @property
    def schema(self) -> Schema:
        return replace(super().schema, has_outside=False, outside_fill=None)

    @property
    def space(self) -> Space:
        return Space("crop", (40, 40), pad_label=0)

    def load(self, case_id: str) -> Any:
        case: Any = super().load(case_id)
        image = np.pad(case.image, ((0, 0), (2, 2), (2, 2)))
        return replace(case, image=image, labels=np.pad(np.maximum(case.labels, np.int16(0)), 2))


def drawn(source: ToySource, generator: Any) -> list[Any]:
    edits = build_edits(capabilities_of(generator).edits)
    return list(map(ConditionSampler(source, source.space, edits).draw, range(DRAWS)))


def beyond(source: ToySource, condition: Any) -> bool:
    """Whether more labels lie on zeros than did in the case that a condition was drawn of."""
    told = condition.provenance
    place = Placement.from_json(told["placement"])
    placed: Any = source.space.to_generator(source.load(told["case"]), place)
    zero = (placed.image == 0).all(axis=0)
    return bool((condition.labels[zero] > 0).sum() > (placed.labels[zero] > 0).sum())


def test_no_more_labels_lie_beyond_a_stripped_body_than_in_its_case():
    source = Stripped(2)
    moved = [beyond(source, c) for c in drawn(source, ElasticGenerator)]
    assert sum(moved) >= DRAWS / 8  # else nothing is tested
    assert not any(beyond(source, c) for c in drawn(source, CGAN3D))


def test_speckled_air_is_no_body():
    """Air around a head is noise, cut off at zero, and a frame of zeros lies around that."""
    rng = np.random.default_rng(0)
    at = np.indices((64, 64)) - 31.5
    head = (at**2).sum(0) < 20**2
    image = np.where(head, 100, np.maximum(rng.normal(0, 2, head.shape), 0))
    image[[0, -1]] = image[:, [0, -1]] = 0
    shown = image[None].astype(np.float32)
    assert body_mask(shown).sum() > 1.5 * head.sum()
    assert (shown_body(shown) == head).mean() > 0.95
