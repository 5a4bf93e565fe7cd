"""The example ``examples/gansynth_translate``: cases in the look of another site's scans."""

import importlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gansynth
from gansynth.core.registry import installed
from gansynth.testing import check_generator
from tests.cli.test_sites import SUBJECTS, gamma, save
from tests.fitting.test_target_scans import scans_of
from tests.house import ROOT

SMALL = ("--set", "width=4", "--set", "steps=2", "--device", "cpu")


@pytest.fixture
def translate(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples/gansynth_translate"))
    installed().add(importlib.import_module("gansynth_translate"), "translate")
    yield installed().generator("translate")
    installed().remove("translate")


@pytest.mark.parametrize("axes", [2, 3])
def test_it_keeps_the_contract(translate, axes):
    options = {"width": 8}
    check_generator(translate, ndim=(axes,), steps=25, options=options).raise_if_failed()


def test_samples_have_the_grey_values_of_the_scans(translate, tmp_path):
    data, scans = save(tmp_path / "ours", "a"), scans_of(tmp_path)
    words: Any = {"data": data, "subjects": SUBJECTS, "target_scans": scans, "device": "cpu"}
    run = gansynth.fit("translate", **words, width=8, steps=60, out=tmp_path / "run", quiet=True)

    def body(images: Iterable[Any]) -> float:
        return float(np.mean([np.median(image[image > 0.1]) for image in images]))

    def of(folder: str) -> float:
        files = sorted((tmp_path / folder).glob("*.png"))
        return body([np.asarray(Image.open(path)) / 255 for path in files])

    ours, theirs = of("ours/images"), of("theirs/images")
    drawn = body([sample.image for sample in run.sample(8)])
    assert abs(drawn - theirs) < 0.4 * abs(ours - theirs)


def test_the_same_scans_give_the_same_samples(translate, tmp_path):
    data, scans = save(tmp_path / "ours", "a"), scans_of(tmp_path)
    words: Any = {"data": data, "target_scans": scans, "device": "cpu", "quiet": True}
    runs = [
        gansynth.fit("translate", **words, width=4, steps=3, out=tmp_path / name)
        for name in ("one", "other")
    ]
    one, other = (run.sample(1)[0].image for run in runs)
    assert np.array_equal(one, other)


def test_what_no_longer_stands_out_is_rejected(translate, tmp_path, run_json):
    data, scans = save(tmp_path / "ours", "a"), scans_of(tmp_path)
    words = ("--data", data, "--target-scans", scans, "-o", tmp_path / "run", *SMALL)
    run_json("fit", "translate", *words, "--set", "least_contrast=1")
    drawn = gansynth.load(tmp_path / "run").sample(8)
    reasons = [sample.provenance.get("reject_reason", "") for sample in drawn]
    faded = [sample.provenance["notes"]["contrast_kept"] for sample in drawn]
    assert [bool(reason) for reason in reasons] == [
        min(each.values(), default=1) < 1 for each in faded
    ]
    assert any(reasons)


def test_people_of_the_scans_count_as_seen(translate, tmp_path, run_json, run_cli):
    data, run, scans = save(tmp_path / "ours", "a"), tmp_path / "run", scans_of(tmp_path)
    run_json("fit", "translate", "--data", data, "--target-scans", scans, "-o", run, *SMALL)
    theirs = save(tmp_path / "theirs", "b", gamma)
    words = ("augment", theirs, "--subjects", SUBJECTS, "--generator", run, "--ratio", "1:1")
    refused = run_cli(*words, "--target", "segmenter", "-o", tmp_path / "mixed")
    assert refused.exit_code == 6
    assert "held-out" in refused.stderr


@pytest.mark.parametrize(
    ("scans", "fault"),
    [
        ("few", "translate.too-few-scans"),
        ("colour", "fitting.target-scans-differ"),
        ("volumes", "fitting.target-scans-differ"),
        (None, "fitting.target-scans-missing"),
    ],
)
def test_scans_that_do_not_fit_are_refused(translate, tmp_path, run_cli, scans, fault):
    data = save(tmp_path / "ours", "a")
    for name, shape, count in (("few", (40, 40), 3), ("colour", (40, 40, 3), 5)):
        (tmp_path / name).mkdir()
        for number in range(count):
            picture = np.full(shape, 40 * number, np.uint8)
            Image.fromarray(picture).save(tmp_path / name / f"{number}.png")
    kinds = {name: f"pictures:{tmp_path / name}" for name in ("few", "colour")}
    kinds["volumes"] = "example:3d"
    named = () if scans is None else ("--target-scans", kinds[scans])
    words = ("fit", "translate", "--data", data, *named, *SMALL, "-o", tmp_path / "run")
    refused = run_cli(*words, "--debug")
    assert refused.exit_code in (2, 3)
    assert fault in refused.stderr
