"""What is made of cases stays as it is: numbers in ``reference.json``."""

from typing import Any

import numpy as np
import pytest
import torch

from gansynth.core.body_mask import organ_mask
from gansynth.core.schema import Schema
from gansynth.data.connected_components import boxes_of
from gansynth.data.label_statistics import LabelPriors, roughness
from gansynth.data.nifti import interpolate_slices
from gansynth.imaging.blending import dress, fade, paste_soft, poisson
from gansynth.imaging.box_contrast import LesionContrast, contrasts
from tests import spots
from tests.conftest import toy_case

SOLID = Schema(("T1",), {"background": 0, "organ": 1, "lesion": 2}, (1.0, 1.0, 1.0))


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


@pytest.mark.parametrize("shape", [(17, 22), (12, 13, 11)])
def test_blends_are_what_they_were(shape, unchanged):
    rng, rim = np.random.default_rng(1), (2, 3, 1)[: len(shape)]
    mask = torch.from_numpy(rng.random((2, 1, *shape)) > 0.99)
    here, there = noise(2, 2, *shape), 2 * noise(2, 2, *shape, seed=1) + 3
    made: dict[str, Any] = {
        "fade": fade(mask, rim),
        "soft": paste_soft(here, there, mask, rim),
    }
    inside = np.zeros(shape, bool)
    inside[tuple(slice(3, 9) for _ in shape)] = True
    known = rng.random(shape) > 0.3
    pair = here[0].numpy(), there[0].numpy()
    made["poisson"] = [poisson(*pair, inside), poisson(*pair, inside, known)]
    labels = torch.from_numpy(rng.integers(0, 3, (2, *shape)))
    told = torch.tensor([[-5.0] * 2, [7.0] * 2]), torch.tensor([[0.0] * 2, [0.5] * 2])
    more = {"deviations": told[1], "noise": noise(2, 2, *shape)}
    made["dressed"] = dress(labels, there, labels.flip(1), (1, 2), told[0], **more)
    unchanged(f"blends {len(shape)}", made)


def test_what_is_learnt_of_label_maps_is_what_it_was(unchanged):
    rng = np.random.default_rng(0)
    maps = [toy_case(rng)[1].astype(np.int16) for _ in range(12)]
    priors = LabelPriors.fit(maps, SOLID)
    unchanged("label priors", priors.to_json())
    noisy = [np.where(rng.random(m.shape) < p, rng.integers(0, 3, m.shape), m).astype(np.int16)
             for m, p in zip(maps, np.linspace(0, 0.3, 12), strict=True)]  # fmt: skip
    cleaned = [priors.clean(one) for one in noisy]
    pairs = zip(noisy, cleaned, strict=True)
    unchanged("label maps cleaned", cleaned)
    unchanged("label maps judged", [(priors.noise(*p), priors.reject_reason(p[0])) for p in pairs])
    unchanged("label maps compared", priors.compare(noisy))
    unchanged("boxes of parts", [boxes_of(one, SOLID, least=3) for one in maps[:3]])
    unchanged("roughness", [roughness(one > 0) for one in noisy])


def test_what_is_learnt_of_lesions_is_what_it_was(unchanged):
    one, two = (12, 12, 20, 22), (26, 24, 34, 36)
    cases = [spots.spotted(i, one, two, labels=[0, 1]) for i in range(30)]
    known = LesionContrast.fit(cases, ("core", "node"))
    unchanged("lesion contrast", known.to_json())
    loose = spots.boxes_of((9, 9, 23, 25), (24, 20, 36, 39), (30, 8, 38, 16), labels=[0, 1, 1])
    for index, case in enumerate(cases[:4]):
        found = [contrasts(case.image, loose), LesionContrast.tighten(case.image, loose)]
        unchanged(f"contrasts {index}", [*found, known.reject_reason(case.image, loose)])
        unchanged(f"bodies {index}", organ_mask(case.image))


def test_labels_between_slices_are_what_they_were(unchanged):
    labels = toy_case(np.random.default_rng(3))[1].astype(np.int16)
    labels[np.arange(len(labels)) % 4 > 0] = 0
    unchanged("between", interpolate_slices(labels))
