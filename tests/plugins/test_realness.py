"""How real each plugin's discriminator finds real cases; and that it remembers whom it has seen."""
# mypy: disallow-untyped-calls=False

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from gansynth.core.generator import Batch, Generator, Stage
from gansynth.core.schema import OUTSIDE, Boxes, Case, Schema
from gansynth.data.batches import batch_of
from gansynth.evaluation.memory import realness
from gansynth.testing._sample_checks import check_realness
from gansynth.testing.phantoms import LiverOptions, make_liver
from gansynth.training.loop import FitOptions, train
from gansynth_cgan3d.model import CGAN3D
from gansynth_cpggan.model import CPGGAN
from gansynth_dcgan.model import DCGAN, DCGANOptions

SIZE = (16, 16)
SCHEMA = Schema(
    ("T1", "T2"),
    {"background": 0, "organ": 1, "lesion": 2},
    (1.0, 1.0),
    "HW",
    has_outside=True,
    outside_fill=(-2.0, -2.0),
    classes=("a", "b"),
    box_classes=("lesion", "cyst"),
)
TINY: dict[type[Generator], dict[str, Any]] = {
    DCGAN: {"width": 4, "latent": 4},
    CGAN3D: {"width": 4, "levels": 2, "d_width": 4, "d_levels": 2},
    CPGGAN: {"width": 2, "max_width": 4, "latent": 4},
}
LESION = {"insert": "lesion", "lesions": ["lesion"], "rim_mm": 2, "local_size": 8}
CHANGES = ["brightness", "flip", "translation"]
EVERY: list[tuple[type[Generator], dict[str, Any]]] = [
    (DCGAN, {"objective": "gan"}),
    (DCGAN, {"objective": "wgan-gp", "with_mask": True, "condition": "class", "augment": CHANGES}),
    (DCGAN, {"objective": "gan", "condition": "foreground", "augment": ["flip"]}),
    (CGAN3D, {"augment": CHANGES, "augment_p": 1.0}),
    (CGAN3D, {"d_norm": "batch", "spectral_norm": False, "pool": 4}),
    (CGAN3D, {"body": True, "texture_head": False}),
    (CGAN3D, {"context": 2, "local": 1.0, "lesions": ["lesion"], "local_size": 8}),
    (CGAN3D, {"given": ["T1"], "feature_matching": 0}),
    (CGAN3D, {"given": ["T1"], "target": "labels"}),
    (CGAN3D, {**LESION}),
    (CGAN3D, {**LESION, "stage": "refine"}),
    (CPGGAN, {"flips": "hv", "minibatch": 4, "augment": CHANGES}),
    (CPGGAN, {"mode": "roi", "roi_size": 8, "condition": "class"}),
]
IDS = [f"{kind.name}-{'-'.join(map(str, own))}" for kind, own in EVERY]


def build(kind: type[Generator], **options: Any) -> Any:
    torch.manual_seed(0)
    own = kind.Options.model_validate({**TINY[kind], **options})
    made = kind(SCHEMA, SIZE, own)
    made.observe(cases())
    if isinstance(made, CPGGAN):
        made.painter.grown.fill_(len(made.stages()) - 1)
    return made


def case(seed: int) -> Case:
    """A disc of an organ with a lesion or two, boxes around them."""
    rng = np.random.default_rng(seed)
    at = np.indices(SIZE)
    labels = np.where(((at - 7.5) ** 2).sum(0) < 52, np.int16(1), np.int16(0))
    labels[:, :1] = OUTSIDE
    rows = []
    for number in range(1 + seed % 2):
        y, x = rng.integers(3, 6, 2) + 4 * number
        labels[y : y + 4, x : x + 4] = 2
        rows.append((y, x, y + 4, x + 4))
    image = rng.normal(size=(2, *SIZE)) + labels
    image[:, labels == OUTSIDE] = -2
    boxes = Boxes(np.array(rows, np.float32), np.arange(len(rows), dtype=np.int16) % 2)
    return Case(f"c{seed}", f"c{seed}", image.astype(np.float32), labels, boxes, seed % 2)


def cases(n: int = 4) -> list[Case]:
    return [case(i) for i in range(n)]


def asked(generator: Generator, of: list[Case] | None = None) -> Any:
    """Numbers of cases, which there must be."""
    found = realness(generator, of or cases())
    assert found is not None
    return found


@pytest.mark.parametrize(("kind", "own"), EVERY, ids=IDS)
def test_each_case_gets_one_number_in_any_company_and_nothing_changes(kind, own):
    check_realness(build(kind, **own), cases())


@pytest.mark.parametrize(("kind", "own"), EVERY, ids=IDS)
def test_it_is_the_same_again_and_of_each_case_another(kind, own):
    generator = build(kind, **own)
    torch.manual_seed(1)
    one, other = asked(generator), asked(generator)
    assert np.array_equal(one, other)
    assert len(np.unique(one)) == len(one)


@pytest.mark.parametrize(
    ("kind", "own"), [pair for pair in EVERY if "augment" in pair[1]], ids=lambda v: ""
)
def test_what_it_sees_is_not_augmented(kind, own):
    plain = {key: value for key, value in own.items() if not key.startswith("augment")}
    found = [asked(build(kind, **options)) for options in (own, plain)]
    np.testing.assert_array_equal(*found)


def test_dcgans_is_the_discriminators_value_at_rest():
    generator = build(DCGAN, objective="gan")
    seen = generator.intensities.standardised(batch_of(cases()).image)
    judge = generator.nets["discriminator"].eval()
    wanted = judge(seen)[:, 0].detach().numpy()
    np.testing.assert_allclose(asked(generator), wanted, rtol=1e-5)


def test_cgan3ds_is_the_mean_over_patches_and_heads():
    generator = build(CGAN3D)
    batch = batch_of(cases())
    told = generator.conditions.channels(generator.conditions.of_batch(batch))
    with torch.no_grad():
        logits, _ = generator.nets["discriminator"].eval()(torch.cat((batch.image, told), 1))
    assert len(logits) == 2
    wanted = (logits[0].mean((1, 2, 3)) + logits[1].mean((1, 2, 3))) / 2
    np.testing.assert_allclose(asked(generator), wanted, rtol=1e-5)


@pytest.mark.parametrize(
    "own", [{}, {**LESION}, {"context": 2}], ids=["image", "lesion", "context"]
)
def test_the_label_map_beside_a_case_counts(own):
    generator = build(CGAN3D, **own)
    others = [replace(c, labels=np.roll(c.labels, 3, -1)) for c in cases() if c.labels is not None]
    assert (asked(generator) != asked(generator, others)).all()


def test_both_discriminators_of_a_lesion_count():
    generator = build(CGAN3D, **LESION)
    found = []
    for name in ("discriminator", "local"):
        before = asked(generator)
        with torch.no_grad():
            generator.nets[name].layout.bias += 1.0
        found.append(asked(generator) - before)
    # One of four heads each.
    np.testing.assert_allclose(found, 0.25, atol=1e-5)


def test_cpggans_lesions_count_alike():
    """Boxes far apart: the maps have every box that lies in a window."""
    generator = build(CPGGAN, mode="roi", roi_size=8)
    rows, kinds = np.array([[1, 1, 3, 3], [12, 12, 14, 14]], np.float32), np.arange(2)
    single = [Boxes(rows[i : i + 1], kinds[i : i + 1].astype(np.int16)) for i in range(2)]
    apart = [replace(case(1), boxes=box) for box in single]
    both = replace(case(1), boxes=Boxes(rows, kinds.astype(np.int16)))
    wanted = asked(generator, apart)
    assert wanted[0] != wanted[1]
    np.testing.assert_allclose(asked(generator, [both]), [wanted.mean()], rtol=1e-5)


def test_a_size_that_was_not_grown_to_is_not_asked_for():
    generator = build(CPGGAN)
    generator.painter.grown.fill_(0.9)
    batch, stages = batch_of(cases()), generator.stages()
    assert generator.realness(batch, stages[-1]) is None
    assert generator.realness(batch, stages[1]) is not None


@pytest.mark.parametrize(
    ("kind", "own", "lacks"),
    [
        (DCGAN, {"with_mask": True}, "labels"),
        (DCGAN, {"condition": "class"}, "classes"),
        (DCGAN, {"condition": "foreground"}, "labels"),
        (CGAN3D, {}, "labels"),
        (CGAN3D, {"context": 2}, "context"),
        (CPGGAN, {}, "box_labels"),
        (CPGGAN, {"condition": "class"}, "classes"),
    ],
)
def test_without_what_it_is_told_it_is_not_asked(kind, own, lacks):
    generator = build(kind, **own)
    batch: Batch = batch_of(cases(), generator.context)
    assert generator.realness(batch, generator.stages()[-1]) is not None
    setattr(batch, lacks, None)
    assert generator.realness(batch, generator.stages()[-1]) is None


def test_without_a_lesion_a_judge_of_lesions_is_not_asked():
    generator = build(CPGGAN, mode="roi", roi_size=8)
    none = Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.int16))
    assert realness(generator, [case(0), replace(case(1), boxes=none)]) is None


def test_without_networks_there_is_nobody_to_ask():
    assert realness(build(CGAN3D, **LESION, stage="coarse"), cases()) is None


# -- membership ------------------------------------------------------------------------------------


def slice_of(person: int) -> Case:
    """The middle slice of a simulated abdomen, 32 x 32 voxels of 8 mm."""
    options = LiverOptions(spacing_mm=(8.0, 8.0, 8.0), radius_mm=(16.0, 30.0))
    volume = make_liver(person, 0, options).image
    d, h, w = (n // 2 for n in volume.shape)
    image = volume[d, h - 16 : h + 16, w - 16 : w + 16] / np.float32(100)
    return Case(f"p{person}", f"p{person}", image[None].astype(np.float32))


def test_an_overfitted_discriminator_tells_those_it_has_seen_from_others():
    """Area under the ROC curve: the share of pairs in which the member's number is the larger."""
    known, others = [slice_of(i) for i in range(8)], [slice_of(i) for i in range(8, 24)]
    torch.manual_seed(0)
    own = {"width": 8, "latent": 8, "objective": "gan", "g_norm": "instance"}
    rates = {"d_norm": "instance", "lr_generator": 2e-3, "lr_discriminator": 1e-3}
    spec = Schema(("CT",), {"background": 0}, (8.0, 8.0), "HW")
    generator = DCGAN(spec, (32, 32), DCGANOptions.model_validate({**own, **rates}))
    generator.observe(known)
    batch = batch_of(known)

    def area() -> float:
        return float((asked(generator, known)[:, None] > asked(generator, others)).mean())

    before = area()
    train(
        generator,
        lambda step, stage, which: batch,
        FitOptions(steps=300, batch_size=8, precision="fp32"),
    )
    assert abs(before - 0.5) < 0.25
    assert area() > 0.85


def test_the_stage_of_one_that_does_not_grow_does_not_matter():
    generator = build(CGAN3D)
    batch = batch_of(cases())
    found = [generator.realness(batch, stage) for stage in (Stage(), Stage((8, 8)))]
    assert torch.equal(*found)
