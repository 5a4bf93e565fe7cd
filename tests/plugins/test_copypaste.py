"""``copypaste``: the generators' contract, blends, what is random, runs and banks."""
# mypy: disallow-untyped-calls=False

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import gansynth
from gansynth.bank.reader import BankReader, verify_bank
from gansynth.conditions.lesion_placement import lesion_drawer
from gansynth.conditions.sampler import ConditionSampler
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import OUTSIDE, Condition, Sample
from gansynth.core.source import SourceRequest
from gansynth.data.blending import drawn_in, hole, rim_voxels
from gansynth.fitting.fit import fit
from gansynth.runtime.errors import DataFault
from gansynth.runtime.progress import NullReporter
from gansynth.sampling.open_run import load_run
from gansynth.testing import ToySource, check_generator
from gansynth.testing.toy import without_blobs
from gansynth_copypaste.model import CopyPaste, change_image, change_lesion
from gansynth_copypaste.options import CopyPasteOptions

WAYS: dict[str, dict[str, Any]] = {
    "soft": {},
    "none": {"blend": "none", "object_intensity": 0},
    "poisson": {"blend": "poisson"},
    "matched": {"match": True},
    "carve": {"mixing": "carve"},
    "image": {"image_level": 0.5},
}


class Bodies(ToySource):
    """Toy bodies without lesions."""

    def load(self, case_id):
        return without_blobs(super().load(case_id), int(case_id[-2:]))


def build(ndim=3, **options):
    source = ToySource(ndim)
    return CopyPaste(source.schema, source.space.size, CopyPasteOptions(**options))


def condition(ndim=3, index=0, text="where=anywhere,inside=0.6,tries=300", **options):
    source = ToySource(ndim)
    drawer = lesion_drawer(text, build(ndim, **options).default_lesions)
    drawn = ConditionSampler(source, source.space, lesions=drawer, base=Bodies(ndim), seed=5)
    found = [drawn.draw(i) for i in range(12)]
    return [c for c in found if c.provenance["lesions"]["room"]][index]


# -- the contract ----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_it_keeps_the_contract(way):
    report = check_generator(CopyPaste, options=WAYS[way])
    assert [check for check in report.failed] == []
    skipped = {c.name: c.message for c in report.checks if c.verdict == "skipped"}
    wanted = {
        "none": {f"{n}d: seeds matter": "the condition holds all randomness" for n in (2, 3)},
        "image": {f"{n}d: background kept": "the whole image is changed" for n in (2, 3)},
    }
    assert skipped == wanted.get(way, {})


class Smears(CopyPaste):
    """Changes all of the image."""

    def _one(self, condition, seed):
        drawn = super()._one(condition, seed)
        return replace(drawn, image=np.where(condition.labels >= 0, 1.0001 * drawn.image, 0))


class Blank(CopyPaste):
    """Gives the background back."""

    def _one(self, condition, seed):
        image = condition.background.copy()
        return Sample(image, condition.labels.copy(), provenance=condition.provenance)


class Pale(CopyPaste):
    """Lesions of a quarter of their contrast."""

    def _one(self, condition, seed):
        drawn = super()._one(condition, seed)
        image = condition.background + 0.25 * (drawn.image - condition.background)
        return replace(drawn, image=image.astype(np.float32))


class Silent(CopyPaste):
    def flaw(self, sample):
        return ""


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
        (Silent, {"lesion missing"}),
        (Writes, {"lesion untouched"}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_cheat_fails_by_name(cls, found):
    report = check_generator(cls, ndim=(2,))
    assert found <= {check.name.removeprefix("2d: ") for check in report.failed}


# -- images ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("blend", ["none", "soft", "poisson"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_beyond_the_rim_it_is_the_background_to_the_bit(ndim, blend):
    asked, generator = condition(ndim), build(ndim, blend=blend, rim_mm=2)
    sample = generator.sample([asked], [3])[0]
    drawn = drawn_in(asked)
    rim = rim_voxels(0 if blend == "none" else 2, (1.0,) * ndim)
    hollow = hole(torch.from_numpy(drawn)[None, None], rim)[0, 0].numpy()
    assert np.array_equal(sample.image[:, ~hollow], asked.background[:, ~hollow])
    assert (sample.image[:, drawn] != asked.background[:, drawn]).any(axis=0).mean() > 0.95
    assert (sample.image[:, asked.labels == OUTSIDE] == 0).all()
    assert np.array_equal(sample.labels, asked.labels)


def test_a_plain_paste_is_the_donor():
    asked = condition()
    sample = build(blend="none", object_intensity=0).sample([asked], [0])[0]
    wanted = np.where(drawn_in(asked), asked.donor, asked.background)
    assert np.array_equal(sample.image, wanted)


def test_what_is_random_comes_from_the_seed_alone():
    asked = [condition(index=i) for i in range(3)]
    generator = build(object_intensity=1, image_level=1)
    together = generator.sample(asked, [1, 2, 3])
    for number, (c, sample) in enumerate(zip(asked, together, strict=True)):
        alone = generator.sample([c], [number + 1])[0]
        assert np.array_equal(alone.image, sample.image)
    other = generator.sample(asked[:1], [9])[0]
    assert not np.array_equal(other.image, together[0].image)


def test_a_lesions_intensities_change_by_what_the_lesion_shows():
    asked, drawn = condition(), drawn_in(condition())
    none = change_lesion(asked.donor, drawn, 0.0, np.random.default_rng(0))
    np.testing.assert_allclose(none, asked.donor, atol=1e-5)
    seen = [
        change_lesion(asked.donor, drawn, 1.0, np.random.default_rng(s))[:, drawn].std(axis=1)
        for s in range(20)
    ]
    assert np.std(seen, axis=0).min() > 0.01
    assert np.all(np.isfinite(seen))


def test_an_image_changes_in_the_body_only():
    asked = condition()
    body = asked.labels != OUTSIDE
    changed = change_image(asked.background, body, 1.0, np.random.default_rng(0))
    assert np.array_equal(changed[:, ~body], asked.background[:, ~body])
    assert not np.array_equal(changed, asked.background)


def test_flaws_are_samples_that_are_copies():
    generator = build()
    assert not generator.flaw(Sample(np.zeros((2, 4, 4), np.float32)))
    for told, said in (
        ({"where": "prior", "room": False}, "no room for a lesion, expected"),
        ({"where": "own", "room": True, "changed": False}, "a copy of a real case, expected"),
        ({"where": "own", "room": True, "changed": True}, ""),
    ):
        sample = Sample(np.zeros((2, 4, 4), np.float32), provenance={"lesions": told})
        assert generator.flaw(sample).startswith(said)
        assert bool(generator.flaw(sample)) == bool(said)


def test_conditions_of_whole_images_are_refused_in_a_line():
    case = next(iter(ToySource().cases()))
    with pytest.raises(DataFault, match="no background and donor, expected both"):
        build().sample([Condition(labels=case.labels)], [0])


# -- runs ------------------------------------------------------------------------------------------


def words(out, *more):
    return ["fit", "copypaste", "--data", "toy:3", "-o", out, "--device", "cpu", "-q", *more]


@pytest.fixture(scope="module")
def fitted(toy_source, tmp_path_factory):
    out = tmp_path_factory.mktemp("copypaste") / "run"
    report = fit(
        "copypaste",
        SourceRequest("toy", "3"),
        out,
        settings={"rim_mm": "1"},
        edits=None,
        device="cpu",
        reporter=NullReporter(),
    )
    return out, report


def test_a_fit_takes_no_steps_and_leaves_no_weights(fitted):
    out, report = fitted
    manifest = json.loads((out / "manifest.json").read_text())
    assert (report["steps"], manifest["complete"]) == (0, True)
    assert set(manifest["heeds"]) == {"labels", "lesion"}
    weights = list(out.rglob("*.safetensors"))
    assert all(path.stat().st_size < 64 for path in weights)  # a header
    held = [p for p in out.rglob("*") if p.is_file() and "samples" not in p.parts]
    assert sum(path.stat().st_size for path in held) < 50_000
    assert load_run(out, "cpu").generator.options == CopyPasteOptions(rim_mm=1)


def test_a_run_is_sampled_and_shown(fitted, run_cli, tmp_path):
    out, _ = fitted
    asked = "--lesions=where=anywhere,apart_mm=1,inside=0.5,tries=200"
    result = run_cli(
        "sample", out, "-n", "6", "-o", tmp_path / "s", "--sheet", "--json", asked, "--device=cpu"
    )
    assert result.exit_code == 0, result.stderr
    told = json.loads((tmp_path / "s" / "provenance.json").read_text())["samples"].values()
    lesions = [t["lesions"] for t in told]
    assert len(lesions) == 6
    placed = [t for t in lesions if t["room"]]
    assert placed
    assert all(t["apart_mm"] == 1 and t["donor"] in ToySource().train_ids for t in placed)
    assert all(bool(t.get("flaw")) != t["lesions"]["room"] for t in told)
    assert run_cli("show", out).exit_code == 0


def test_a_dry_run_says_what_a_fit_would_be(toy_source, run_cli, tmp_path):
    result = run_cli(*words(tmp_path / "run", "--dry-run", "--json"))
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["parameters"] == {}
    assert document["estimated_seconds"] < 60
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_bank_is_filled(tmp_path):
    request = SourceRequest("example", "3d")
    run = tmp_path / "run"
    quiet: dict[str, Any] = {"device": "cpu", "reporter": NullReporter()}
    fit("copypaste", request, run, settings={"rim_mm": "1"}, edits=None, **quiet)
    asked = SampleRequest(lesions="where=anywhere,apart_mm=1,inside=0.5,tries=200")
    bank = gansynth.fill_bank(run, tmp_path / "bank", request=asked, samples=6, device="cpu")
    assert verify_bank(bank) == 6
    assert BankReader(bank).spec.samples.lesions == asked.lesions
