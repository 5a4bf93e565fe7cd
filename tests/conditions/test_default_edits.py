"""The edits that ``cgan3d`` applies unasked: labels stay in the body that the images show."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gansynth.conditions.edit_chain import build_edits
from gansynth.conditions.sampler import ConditionSampler
from gansynth.core.body_mask import body_mask, organ_mask, shown_body
from gansynth.core.generator import capabilities_of
from gansynth.core.schema import Case, Schema
from gansynth.core.space import Placement, Space
from gansynth.testing import ToySource
from gansynth_cgan3d.model import CGAN3D
from gansynth_elastic.model import ElasticGenerator

DRAWS = 24


class Stripped(ToySource):
    """Bodies with zeros around them, which no label tells apart; crops reach beyond the cases."""

    @property
    def schema(self) -> Schema:
        return replace(super().schema, has_outside=False, outside_fill=None)

    @property
    def space(self) -> Space:
        return Space("crop", tuple(side + 8 for side in self._shape), pad_label=0)

    def load(self, case_id: str) -> Case:
        case = super().load(case_id)
        assert case.labels is not None
        labels = np.pad(np.maximum(case.labels, np.int16(0)), 2)
        image = np.pad(case.image, ((0, 0), *[(2, 2)] * labels.ndim))
        return replace(case, image=image, labels=labels)


class Within(Stripped):
    """Crops within an organ: there is no background anywhere."""

    def load(self, case_id: str) -> Case:
        case = super().load(case_id)
        noise = np.random.default_rng(0).normal(5, 1, case.image.shape)
        return replace(case, image=(case.image + noise).astype(np.float32))


def drawn(source: ToySource, edits: tuple[str, ...]) -> Any:
    sampler = ConditionSampler(source, source.space, build_edits(edits))
    return [sampler.draw(index) for index in range(DRAWS)]


def beyond(source: ToySource, condition: Any) -> tuple[int, int]:
    """Voxels of labels on zeros: a condition's, and those of the case it was drawn of."""
    told = condition.provenance
    place = Placement.from_json(told["placement"])
    placed: Any = source.space.to_generator(source.load(told["case"]), place)
    zero = (placed.image == 0).all(axis=0)
    return int((condition.labels[zero] > 0).sum()), int((placed.labels[zero] > 0).sum())


@pytest.mark.parametrize("ndim", [2, 3])
def test_no_more_labels_lie_beyond_a_stripped_body_than_in_its_case(ndim):
    source = Stripped(ndim)
    moved = [beyond(source, c) for c in drawn(source, capabilities_of(ElasticGenerator).edits)]
    assert sum(after > before for after, before in moved) >= DRAWS / 8  # else nothing is tested
    kept = [beyond(source, c) for c in drawn(source, capabilities_of(CGAN3D).edits)]
    assert all(after <= before for after, before in kept)


def test_labels_stay_whole_where_the_body_fills_the_image():
    source = Within()
    assert organ_mask(source.load("toy_00").image).all()
    pairs = zip(
        drawn(source, capabilities_of(CGAN3D).edits),
        drawn(source, capabilities_of(ElasticGenerator).edits),
        strict=True,
    )
    for kept, moved in pairs:
        assert np.array_equal(kept.labels, moved.labels)
        assert kept.latent_seed == moved.latent_seed


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
