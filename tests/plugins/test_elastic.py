"""``elastic``: the generators' contract, what it flags, intensities, runs, banks and refusals."""
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
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import OUTSIDE, Condition, Sample
from gansynth.core.source import SourceRequest
from gansynth.fitting.fit import fit
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.progress import NullReporter
from gansynth.sampling.open_run import load_run
from gansynth.testing import ToySource, check_generator
from gansynth_cgan3d.model import CGAN3D
from gansynth_elastic.model import Elastic
from gansynth_elastic.options import ElasticOptions

ALL = {"gamma": 0.4, "contrast": 0.3, "brightness": 0.5}


def build(ndim=3, **options):
    source = ToySource(ndim)
    return Elastic(source.schema, source.space.size, ElasticOptions(**options))


def conditions(ndim=3, edits=Elastic.default_edits, count=4):
    source = ToySource(ndim)
    drawn = ConditionSampler(source, source.space, build_edits(edits), seed=5, moving=True)
    return [drawn.draw(i) for i in range(count)]


def drawn_of(generator: Elastic, asked: list[Condition]) -> list[Sample]:
    return generator.sample(asked, [c.latent_seed for c in asked])


# -- the contract ----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, ALL])
def test_it_keeps_the_contract(options):
    report = check_generator(Elastic, options=options)
    assert [check for check in report.failed] == []
    skipped = {c.name for c in report.checks if c.verdict == "skipped"}
    assert skipped == (set() if options else {"3d: seeds matter", "2d: seeds matter"})


def test_it_is_asked_for_the_shapes_that_a_gan_is_asked_for():
    *moves, clip = CGAN3D.default_edits
    assert (tuple(moves), clip) == (Elastic.default_edits, "clip:to=image")


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_sample_is_the_case_as_it_was_moved(ndim):
    asked = conditions(ndim)
    for sample, c in zip(drawn_of(build(ndim), asked), asked, strict=True):
        assert c.moved is not None
        assert sample.labels is not None
        assert np.array_equal(sample.image, c.moved)
        assert np.array_equal(sample.labels, c.labels)
        assert not np.shares_memory(sample.image, c.moved)


def test_a_condition_without_a_moved_image_is_refused():
    bare = replace(conditions(count=1)[0], moved=None)
    with pytest.raises(DataFault, match="no image that was moved along"):
        drawn_of(build(), [bare])


# -- intensities -----------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ALL)
def test_intensities_change_in_the_body_alone(option):
    asked = conditions()
    for sample, c in zip(drawn_of(build(**{option: ALL[option]}), asked), asked, strict=True):
        assert c.labels is not None
        assert c.moved is not None
        outside = c.labels == OUTSIDE
        assert outside.any()
        assert np.array_equal(sample.image[:, outside], c.moved[:, outside])
        assert (sample.image[:, ~outside] != c.moved[:, ~outside]).mean() > 0.9
        # All three keep the order of values.
        for channel, before in zip(sample.image, c.moved, strict=True):
            order = np.argsort(before[~outside])
            assert (np.diff(channel[~outside][order]) >= -1e-4).all()


def test_intensities_are_the_seeds_whatever_else_is_drawn():
    asked, generator = conditions(), build(**ALL)
    together = drawn_of(generator, asked)
    alone = [drawn_of(generator, [c])[0] for c in reversed(asked)][::-1]
    for one, other in zip(together, alone, strict=True):
        assert np.array_equal(one.image, other.image)


# -- near-copies -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edit", "options", "flawed"),
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
def test_a_near_copy_is_a_flaw(edit, options, flawed):
    generator = build(**options)
    found = {generator.flaw(s) for s in drawn_of(generator, conditions(edits=[edit]))}
    assert {text[:11] for text in found} == ({"a near-copy"} if flawed else {""})
    assert len(found) == 1


# -- runs ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted(toy_source, tmp_path_factory):
    out = tmp_path_factory.mktemp("elastic") / "run"
    quiet: dict[str, Any] = {"device": "cpu", "reporter": NullReporter()}
    fit("elastic", SourceRequest("toy", "3"), out, settings={}, edits=None, **quiet)
    return out


def test_a_run_has_the_lineage_of_its_cases_and_no_weights(fitted):
    manifest = json.loads((fitted / "manifest.json").read_text())
    assert manifest["heeds"] == ["image", "labels"]
    seen = {case["id"] for case in manifest["lineage"]["cases"]}
    assert seen == set(ToySource().train_ids)
    weights = list(fitted.rglob("*.safetensors"))
    assert all(path.stat().st_size < 64 for path in weights)  # a header


def test_a_run_is_sampled(fitted, run_cli, tmp_path):
    where = tmp_path / "samples"
    words = ("sample", fitted, "-n", "3", "-o", where, "--json", "--device=cpu")
    result = run_cli(*words, "--edit", "elastic:amplitude_mm=5")
    assert result.exit_code == 0, result.stderr
    told = json.loads((where / "provenance.json").read_text())["samples"]
    samples = [told[name] for name in sorted(told)]
    assert len(samples) == 3
    assert all(t["moved"]["mm"] > 1 for t in samples)
    assert [step["edit"] for step in samples[0]["edits"]] == ["elastic"]


@pytest.mark.parametrize("words", [("sample", "{run}", "-n", "1"), ("fit", "elastic")])
def test_an_edit_that_leaves_the_image_behind_is_refused(words, fitted, run_cli, tmp_path):
    words = [word.format(run=fitted) for word in words]
    data = ["--data", "toy:3"] if words[0] == "fit" else []
    asked = (*words, *data, "-o", tmp_path / "out", "--device=cpu", "--edit", "transplant")
    result = run_cli(*asked)
    assert result.exit_code == 2
    assert "--edit transplant: elastic moves real images whole" in result.stderr


def test_a_host_refuses_such_an_edit_before_it_starts(fitted):
    from gansynth.core.run_folder import RunFolder
    from gansynth.sampling.request_parsing import Asks, check_request

    asks = Asks.of(RunFolder(fitted))
    check_request(SampleRequest(edits=("rotate",)), asks)
    with pytest.raises(UsageFault, match="--edit enlarge: elastic moves"):
        check_request(SampleRequest(edits=("enlarge",)), asks)
    assert load_run(fitted, "cpu").edits == Elastic.default_edits


@pytest.mark.slow
def test_a_bank_is_filled(tmp_path):
    run = tmp_path / "run"
    quiet: dict[str, Any] = {"device": "cpu", "reporter": NullReporter()}
    fit("elastic", SourceRequest("example", "3d"), run, settings={}, edits=None, **quiet)
    bank = gansynth.fill_bank(run, tmp_path / "bank", samples=6, device="cpu")
    assert verify_bank(bank) == 6
    assert BankReader(bank).spec.lineage.cases
