import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from gansynth.conditions.edit_chain import build_edits
from gansynth.conditions.sampler import ConditionSampler
from gansynth.core.generator import capabilities_of
from gansynth.core.registry import installed
from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import OUTSIDE, Case, Condition, Sample, Schema
from gansynth.sampling.open_run import load_run
from gansynth.sampling.request_checks import GeneratorInfo, check_request
from gansynth.testing import ToySource, check_generator
from gansynth_copypaste.model import CopyPaste
from gansynth_elastic.model import ElasticGenerator
from tests.expected import raises_fault

EDITS = capabilities_of(ElasticGenerator).edits


def build(kind: str, **options: Any) -> Any:
    source, cls = ToySource(3), installed().generator(kind)
    return cls(source.schema, source.space.size, cls.Options.model_validate(options))


@pytest.mark.parametrize(
    ("edit", "options", "rejected"),
    [
        ("elastic", {}, False),
        ("elastic:amplitude_mm=0", {"least_voxels": 0}, True),
        ("elastic:amplitude_mm=0.1", {}, True),
        ("elastic:amplitude_mm=0.1", {"least_voxels": 0.05}, False),
        ("flip:probability=0", {}, True),
        ("flip:probability=1", {}, False),
    ],
)
def test_a_near_copy_is_a_flaw(edit, options, rejected):
    generator = build("elastic", **options)
    source = ToySource(3)
    sampler = ConditionSampler(source, source.space, build_edits([edit]), seed=5, moving=True)
    asked = [sampler.draw(i) for i in range(4)]
    drawn = generator.sample(asked, [c.latent_seed for c in asked])
    pairs = zip(drawn, asked, strict=True)
    traced = [replace(sample, provenance=c.provenance) for sample, c in pairs]
    found = {generator.reject_reason(sample) for sample in traced}
    assert {text[:11] for text in found} == ({"a near-copy"} if rejected else {""})
    assert len(found) == 1


def test_samples_that_are_copies_are_flaws():
    generator, image = build("copypaste"), np.zeros((2, 4, 4), np.float32)
    placed = {"where": "own", "room": True, "changed": False}
    for told in ({}, {"lesions": {**placed, "changed": True}}):
        assert generator.reject_reason(Sample(image, provenance=told)) == ""
    reason = generator.reject_reason(Sample(image, provenance={"lesions": placed}))
    assert reason.startswith("a copy of a real case, expected")


SCHEMA = Schema(("a",), {"background": 0, "oedema": 1, "core": 2, "ring": 3}, (1.0, 1.0), "HW")
SQUARE = np.zeros((40, 40), np.int16)
SQUARE[16:24, 16:24] = 1


def paster(cases: Sequence[tuple[Any, Any]], **options: Any) -> Any:
    """It has seen label maps and images, of which two rows are dark: darker lesions may be."""
    made: Any = CopyPaste(SCHEMA, cases[0][0].shape, CopyPaste.Options(**options))
    seen = []
    for number, (labels, levels) in enumerate(cases):
        image = levels[None].astype(np.float32)
        image[:, :2] = 0
        seen.append(Case(str(number), str(number), image, labels))
    made.learnt = made.observe(seen)
    return made


def pasted(made: Any, labels: Any, levels: Any, around: float = 5) -> Any:
    """The sample of a lesion in tissue of another level."""
    donor = levels[None].astype(np.float32)
    even = np.full_like(donor, around)
    (sample,) = made.sample([Condition(labels, background=even, lesion=labels, donor=donor)], [0])
    return sample


@pytest.mark.parametrize(
    ("signs", "options", "rejected"),
    [
        ([1] * 12, {}, True),
        ([1] * 12, {"one_sign": False}, False),
        ([1, -1] * 6, {}, False),
        ([1] * 4, {}, False),
        ([-1] * 12, {}, False),
    ],
)
def test_a_paste_of_the_sign_that_training_lesions_have_not_is_rejected(signs, options, rejected):
    generator = paster([(SQUARE, 5.0 + sign * SQUARE) for sign in signs], **options)
    again = CopyPaste(SCHEMA, SQUARE.shape, CopyPaste.Options(**options))
    again.load_state(json.loads(json.dumps(generator.learnt)))
    for made in (generator, again):
        reason = made.reject_reason(pasted(made, SQUARE, 5.0 - SQUARE))
        assert reason.startswith("a lesion's contrast is reversed") == rejected
        assert bool(reason) == rejected


@pytest.mark.parametrize(("oedema", "rejected"), [(8.0, False), (4.5, False), (3.0, True)])
def test_a_class_is_judged_against_what_it_borders_on(oedema, rejected):
    labels = np.zeros((40, 40), np.int16)
    labels[12:28, 12:28], labels[17:23, 17:23] = 1, 2  # a core darker than oedema alone
    generator = paster([(labels, np.choose(labels, (5.0, 8.0, 6.5)))] * 8, object_intensity=0)
    sample = pasted(generator, labels, np.choose(labels, (5.0, oedema, oedema - 1.5)))
    assert bool(generator.reject_reason(sample)) == rejected


def test_a_class_is_not_judged_by_what_another_one_spills_into_it():
    levels, half = np.array([5.0, 8.0, 6.0, 30.0]), np.abs(np.indices((48, 48)) - 24).max(axis=0)

    def shown(core: int) -> tuple[Any, Any]:  # a core, a bright ring around it, and oedema
        labels = np.select([half < core, half < core + 2, half < core + 6], [2, 3, 1])
        return labels.astype(np.int16), gaussian_filter(levels[labels], 1.0)

    generator = paster([shown(8)] * 8, object_intensity=0)
    labels, donor = shown(2)
    assert donor[labels == 2].mean() > donor[labels == 1].mean()  # spilled into
    assert generator.reject_reason(pasted(generator, labels, donor)) == ""


@pytest.mark.parametrize("blend", ["none", "soft", "poisson"])
@pytest.mark.parametrize(("lesion", "level"), [(9.0, 2.0), (3.0, 9.0)])
def test_a_pasted_lesion_keeps_its_contrast_to_the_tissue_around_it(blend, lesion, level):
    donor = np.where(SQUARE, lesion, 6.0)
    cases = [(SQUARE, donor), (SQUARE, 4 * donor)]
    sample = pasted(paster(cases, object_intensity=0, blend=blend), SQUARE, donor, level)
    found = float(sample.image[0, 18:22, 18:22].mean())
    gain = np.clip(level / 6, 0.5, 2)
    assert found == pytest.approx(level + gain * (lesion - 6), rel=0.05)


CHEATS: list[Any] = [
    (lambda image, asked: np.where(asked.labels >= 0, 1.0001 * image, 0), {"background kept"}),
    (lambda image, asked: asked.background.copy(), {"lesion shown", "lesion contrast"}),
    (lambda image, asked: asked.background + (image - asked.background) / 4, {"lesion contrast"}),
    (lambda image, asked: asked.donor.fill(0) or image, {"inputs untouched"}),
]


@pytest.mark.parametrize(("change", "found"), CHEATS, ids=["smears", "blank", "pale", "writes"])
def test_a_cheat_fails_by_name(change, found):
    class Cheat(CopyPaste):
        def _one(self, condition, seed):
            drawn = super()._one(condition, seed)
            return replace(drawn, image=change(drawn.image, condition).astype(np.float32))

    report = check_generator(Cheat, ndim=(2,))
    assert found <= {check.name.removeprefix("2d: ") for check in report.failed}


def test_an_edit_that_leaves_the_image_behind_is_refused(toy_fit, refuse, tmp_path):
    run, says = tmp_path / "run", "--edit transplant: elastic moves real images whole"
    toy_fit(run, generator="elastic", own={}, edits=None)
    asked = ("-o", tmp_path / "out", "--device=cpu", "--edit", "transplant")
    refuse("sample", run, "-n", "1", *asked, code=2, says=[says])
    refuse("fit", "elastic", "--data", "toy:2", *asked, code=2, says=[says])
    maker = GeneratorInfo.of(RunFolder(run))  # as a host does, before it starts
    check_request(SampleRequest(edits=("rotate",)), maker)
    with raises_fault("conditions.edit-not-whole-image"):
        check_request(SampleRequest(edits=("enlarge",)), maker)
    assert load_run(run, "cpu").edits == EDITS


@pytest.mark.parametrize(("maps", "rises"), [("monotone", True), ("any", False)])
def test_a_random_map_keeps_the_range_of_values_and_their_order_only_if_it_is_monotone(maps, rises):
    generator, source = build("elastic", maps=maps), ToySource(3)
    sampler = ConditionSampler(source, source.space, build_edits(["flip"]), seed=5, moving=True)
    turned = []
    for condition in map(sampler.draw, range(4)):
        [sample] = generator.sample([condition], [condition.latent_seed])
        body = condition.labels != OUTSIDE
        assert condition.moved is not None
        for before, after in zip(condition.moved, sample.image, strict=True):
            assert np.ptp(after[body]) <= np.ptp(before[body]) * 1.0001
            order = np.argsort(before[body])
            turned.append(bool((np.diff(after[body][order]) < -1e-5).any()))
            assert np.array_equal(after[~body], before[~body])
    assert any(turned) != rises
