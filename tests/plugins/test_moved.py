# mypy: disallow-untyped-calls=False

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import gansynth
from gansynth.bank.reader import BankReader, verify_bank
from gansynth.conditions.edit_chain import build_edits
from gansynth.conditions.sampler import ConditionSampler
from gansynth.core.generator import capabilities_of
from gansynth.core.registry import installed
from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import OUTSIDE, Case, Condition, Sample, Schema
from gansynth.core.source import SourceRequest
from gansynth.fitting.fit import fit
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.progress import NullReporter
from gansynth.sampling.open_run import load_run
from gansynth.sampling.request_parsing import Maker, check_request
from gansynth.testing import ToySource, check_generator
from gansynth_copypaste.model import CopyPaste
from gansynth_elastic.model import ElasticGenerator

EDITS = capabilities_of(ElasticGenerator).edits
CHANGED: dict[str, Any] = {"gamma": 0.4, "contrast": 0.3, "brightness": 0.5}
ROOMY = "where=anywhere,apart_mm=1,inside=0.5,tries=200"


def build(kind: str, ndim: int = 3, **options: Any) -> Any:
    source, cls = ToySource(ndim), installed().generator(kind)
    return cls(source.schema, source.space.size, cls.Options.model_validate(options))


def conditions(ndim: int = 3, edits=EDITS, count: int = 4) -> Any:
    source = ToySource(ndim)
    drawn = ConditionSampler(source, source.space, build_edits(edits), seed=5, moving=True)
    return [drawn.draw(i) for i in range(count)]


def drawn_of(generator: Any, asked: list[Condition]) -> list[Any]:
    return list(generator.sample(asked, [c.latent_seed for c in asked]))


@pytest.mark.parametrize("option", CHANGED)
def test_intensities_change_in_the_body_alone_by_the_seed_alone(option):
    asked, generator = conditions(), build("elastic", **{option: CHANGED[option]})
    together = drawn_of(generator, asked)
    alone = [drawn_of(generator, [c])[0] for c in asked]
    for sample, other, c in zip(together, alone, asked, strict=True):
        assert np.array_equal(sample.image, other.image)
        outside = c.labels == OUTSIDE
        assert outside.any()
        assert np.array_equal(sample.image[:, outside], c.moved[:, outside])
        assert (sample.image[:, ~outside] != c.moved[:, ~outside]).mean() > 0.9
        # All three keep the order of values.
        for channel, before in zip(sample.image, c.moved, strict=True):
            order = np.argsort(before[~outside])
            assert (np.diff(channel[~outside][order]) >= -1e-4).all()


@pytest.mark.parametrize(
    ("edit", "options", "rejected"),
    [
        ("elastic", {}, False),
        ("elastic:amplitude_mm=0", {}, True),
        ("elastic:amplitude_mm=0", {"least_voxels": 0}, True),
        ("elastic:amplitude_mm=0.1", {}, True),
        ("elastic:amplitude_mm=0.1", {"least_voxels": 0.05}, False),
        ("flip:probability=0", {}, True),
        ("flip:probability=1", {}, False),
    ],
)
def test_a_near_copy_is_a_flaw(edit, options, rejected):
    generator = build("elastic", **options)
    asked = conditions(edits=[edit])
    pairs = zip(drawn_of(generator, asked), asked, strict=True)
    traced = [replace(sample, provenance=c.provenance) for sample, c in pairs]
    found = {generator.reject_reason(sample) for sample in traced}
    assert {text[:11] for text in found} == ({"a near-copy"} if rejected else {""})
    assert len(found) == 1


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({}, ""),
        ({"where": "own", "room": True, "changed": False}, "a copy of a real case, expected"),
        ({"where": "own", "room": True, "changed": True}, ""),
    ],
)
def test_samples_that_are_copies_are_flaws(told, said):
    provenance = {"lesions": told} if told else {}
    sample = Sample(np.zeros((2, 4, 4), np.float32), provenance=provenance)
    reject_reason = build("copypaste").reject_reason(sample)
    assert reject_reason.startswith(said)
    assert bool(reject_reason) == bool(said)


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
    schema = Schema(("a",), {"background": 0, "spot": 1}, (1.0, 1.0), "HW")
    labels = np.zeros((32, 32), np.int16)
    labels[10:18, 10:18] = 1
    images = [np.where(labels, 5.0 + sign, 5.0)[None].astype(np.float32) for sign in signs]
    for image in images:
        image[:, 0, 0] = 0  # so dark a lesion is within the range of values
    generator = CopyPaste(schema, (32, 32), CopyPaste.Options(**options))
    state = generator.observe(Case(str(n), str(n), image, labels) for n, image in enumerate(images))
    dark = np.where(labels, 4.0, 5.0)[None].astype(np.float32)
    asked = Condition(labels, background=np.full_like(dark, 5), lesion=labels, donor=dark)
    again = CopyPaste(schema, (32, 32), CopyPaste.Options(**options))
    again.load_state(json.loads(json.dumps(state)))
    for made in (generator, again):
        (sample,) = made.sample([asked], [0])
        reason = made.reject_reason(sample)
        assert reason.startswith("a lesion's contrast is reversed") == rejected
        assert bool(reason) == rejected


class Smears(CopyPaste):
    """Changes all of the image."""

    def _one(self, condition, seed):
        drawn = super()._one(condition, seed)
        return replace(drawn, image=np.where(condition.labels >= 0, 1.0001 * drawn.image, 0))


class Blank(CopyPaste):
    """Gives the background back."""

    def _one(self, condition, seed):
        image = condition.background.copy()
        return Sample(image, condition.labels.copy())


class Pale(CopyPaste):
    """Lesions of a quarter of their contrast."""

    def _one(self, condition, seed):
        drawn = super()._one(condition, seed)
        image = condition.background + 0.25 * (drawn.image - condition.background)
        return replace(drawn, image=image.astype(np.float32))


class Writes(CopyPaste):
    def _one(self, condition, seed):
        drawn = super()._one(condition, seed)
        condition.donor[...] = 0
        return drawn


@pytest.mark.parametrize(
    ("cls", "found"),
    [
        (Smears, {"background kept"}),
        (Blank, {"lesion shown", "lesion contrast"}),
        (Pale, {"lesion contrast"}),
        (Writes, {"inputs untouched"}),
    ],
)
def test_a_cheat_fails_by_name(cls, found):
    report = check_generator(cls, ndim=(2,))
    assert found <= {check.name.removeprefix("2d: ") for check in report.failed}


QUIET: dict[str, Any] = {"edits": None, "device": "cpu", "reporter": NullReporter()}


@pytest.fixture(scope="module")
def fitted(toy_source, tmp_path_factory):
    home = tmp_path_factory.mktemp("moved")
    for kind in ("copypaste", "elastic"):
        fit(kind, SourceRequest("toy", "2"), home / kind, settings={}, **QUIET)
    return home


@pytest.mark.parametrize("kind", ["copypaste", "elastic"])
def test_a_run_is_sampled_and_shown(kind, fitted, run_cli, tmp_path):
    asked = {"copypaste": ("--lesions", ROOMY), "elastic": ("--edit", "elastic:amplitude_mm=5")}
    where = ("-n", "6", "-o", tmp_path / "s", "--sheet", "--json", "--device=cpu")
    result = run_cli("sample", fitted / kind, *where, *asked[kind])
    assert result.exit_code == 0, result.stderr
    told = json.loads((tmp_path / "s" / "provenance.json").read_text())["samples"].values()
    assert len(told) == 6
    if kind == "elastic":
        assert all(t["moved"]["mm"] > 1 for t in told)
        assert {step["edit"] for t in told for step in t["edits"]} == {"elastic"}
    else:
        placed = [t["lesions"] for t in told if t["lesions"]["room"]]
        assert placed
        assert all(t["apart_mm"] == 1 and t["donor"] in ToySource().train_ids for t in placed)
        assert all(bool(t.get("reject_reason")) != t["lesions"]["room"] for t in told)
    assert run_cli("show", fitted / kind).exit_code == 0


def test_an_edit_that_leaves_the_image_behind_is_refused(fitted, refuse, tmp_path):
    run, says = fitted / "elastic", "--edit transplant: elastic moves real images whole"
    asked = ("-o", tmp_path / "out", "--device=cpu", "--edit", "transplant")
    refuse("sample", run, "-n", "1", *asked, code=2, says=[says])
    refuse("fit", "elastic", "--data", "toy:2", *asked, code=2, says=[says])
    maker = Maker.of(RunFolder(run))  # as a host does, before it starts
    check_request(SampleRequest(edits=("rotate",)), maker)
    with pytest.raises(UsageFault, match="--edit enlarge: elastic moves"):
        check_request(SampleRequest(edits=("enlarge",)), maker)
    assert load_run(run, "cpu").edits == EDITS


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["copypaste", "elastic"])
def test_a_bank_is_filled(kind, tmp_path):
    run, asked = tmp_path / "run", SampleRequest(lesions=ROOMY if kind == "copypaste" else None)
    fit(kind, SourceRequest("example", "3d"), run, settings={}, **QUIET)
    bank = gansynth.fill_bank(run, tmp_path / "bank", request=asked, samples=6, device="cpu")
    assert verify_bank(bank) == 6
    assert BankReader(bank).spec.samples.lesions == asked.lesions
    assert BankReader(bank).spec.lineage.cases
