"""``gansynth augment --compare``: one pair of trainings, and the plan that proves something."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import gansynth
from gansynth.hosts import augment as api
from gansynth.hosts.deciding import dry_run
from gansynth.sampling import evaluation_data
from gansynth_benchmark.plan_file import read_plan
from tests.expected import raises_fault
from tests.flat_sets import pictures
from tests.producers import forked_producers

SEGMENTER: dict[str, Any] = {"target": "segmenter", "quiet": True, "seed": 3, "ratio": "1:1"}
MIXED: dict[str, Any] = {"prevalence": 1, "schedule": "anneal:50%-100%", "augment_synthetic": False}
SHORT: dict[str, Any] = {"steps": 2, "width": 4, "levels": 2, "batch_size": 2}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    data: dict[str, Any] = {"data": f"pictures:{folder}", "subjects": pictures(folder).subjects}
    return gansynth.fit("parametric", **data, out=folder / "run", quiet=True)


@pytest.fixture(scope="module")
def compared(run, tmp_path_factory):
    """A live producer feeds the training with samples."""
    out = tmp_path_factory.mktemp("arms") / "out"
    words = {**SEGMENTER, "generator": run, "bank_size": 4, "compare": True, **MIXED}
    with pytest.MonkeyPatch.context() as patch, forked_producers():
        patch.setattr(dry_run, "will_it_harm", lambda *_: {"lines": ["no"]})  # takes seconds
        patch.setattr(api, "time_of", pytest.fail)  # nobody reads it before a training
        return gansynth.augment(**words, out=out, **SHORT)


def test_both_arms_are_trained_and_their_difference_is_said(compared):
    arms = [compared[name] for name in ("without", "with")]
    assert [arm["realised_synthetic_share"] for arm in arms] == [0, 0.5]
    assert [Path(arm["folder"]).name for arm in arms] == ["without", "with"]
    without, with_ = (arm["metrics_on_real_cases"] for arm in arms)
    for name in ("dice", "lesion_sensitivity", "lesion_precision", "false_positive_volume"):
        difference = with_[name]["foreground"] - without[name]["foreground"]
        assert compared["difference"][name] == difference
    assert re.fullmatch(
        r"with samples: [+-].* points of Dice at equal false alarms, [+-].* points of Dice, "
        r"[+-].* points of lesion precision, [+-].* alarms per 100 lesion-free cases; "
        r"[+-].* points of sensitivity for lesions of 1-99 voxels; one pair has no interval",
        compared["sentence"],
    )


def test_a_finished_training_is_followed_by_the_missing_one_alone_and_that_by_a_benchmark(
    tmp_path, monkeypatch, run_cli
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dry_run, "will_it_harm", lambda *_: {"lines": []})
    length = [f"--{name.replace('_', '-')}={value}" for name, value in SHORT.items()]
    data = ("--data", "pictures:scans", "--subjects", pictures(Path("scans")).subjects)
    assert run_cli("fit", "parametric", *data, "-o", "run").exit_code == 0
    words = ("--target", "segmenter", "--generator", "run", "--ratio", "1:1", "-o", "out")
    with forked_producers():
        first = run_cli("augment", *words, "--bank-size", 4, *length)
        [line] = [line for line in first.stderr.splitlines() if line.startswith("next: ")]
        second = run_cli(*shlex.split(line)[2:])
    assert second.exit_code == 0, second.stderr
    assert "is finished: nothing is trained again" in second.stderr
    assert (Path("out/without").is_dir(), Path("out/with").exists()) == (True, False)
    assert "with samples: " in second.stdout
    assert "made equal: no probabilities were kept, as --compare keeps them" in second.stdout
    [line] = [line for line in second.stderr.splitlines() if line.startswith("next: ")]
    third = run_cli(*shlex.split(line)[2:], "--no-probe")
    assert third.exit_code == 0, (line, third.stderr)


def test_it_says_what_one_pair_proves_and_names_a_valid_plan(compared):
    assert "one pair of trainings proves nothing" in compared["warning"]
    assert compared["warning"].endswith(f"by the plan in {compared['plan_file']}")
    plan = read_plan(Path(compared["plan_file"]))
    *controls, arm = plan.arms
    assert [control.name for control in controls] == ["default", "again", "double"]
    asked = {"generator": "parametric", "ratio": "1:1", "bank_size": "4", **MIXED}
    assert {key: getattr(arm, key) for key in asked} == {**asked, "prevalence": "1"}


def test_a_dry_run_of_finished_trainings_says_so_and_measures_nothing(compared, run, monkeypatch):
    for slow in ("timed_sampler", "will_it_harm", "pace_of"):
        monkeypatch.setattr(dry_run, slow, pytest.fail)
    words = {**SEGMENTER, "generator": run, "bank_size": 4, "compare": True, **MIXED, **SHORT}
    out = Path(compared["with"]["folder"]).parent
    planned = gansynth.augment(**words, out=out, dry_run=True)
    for arm in ("without", "with"):
        assert planned[arm]["training"] == "is finished: nothing is trained again"


def test_a_dry_run_says_how_good_the_host_is_without_samples(compared, run, monkeypatch):
    monkeypatch.setattr(evaluation_data, "DRAWN", 8)
    folder = Path(compared["without"]["folder"])
    words = {"generator": run, "bank_size": 4, "out": folder.parent / "more", "dry_run": True}
    found = gansynth.augment(**SEGMENTER, **words, **SHORT)["will_it_harm"]
    dice = compared["without"]["metrics_on_real_cases"]["dice"]["foreground"]
    assert found["real_alone"]["dice"] == pytest.approx(dice)
    assert f"Dice {dice:.2f} of held-out cases, in {folder}" in found["real_alone"]["words"]
    lines = [line.split(":")[0] for line in found["lines"]]
    assert lines[2:5] == ["finest detail", "images with a lesion", "lesions per image"]
    assert found["answer"].startswith("will it harm? ")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"ratio": "1:0"}, "hosts.compare-without-samples"),
        ({"export": "Dataset001_X"}, "request.field-without-effect"),
        ({}, "hosts.training-folder-not-empty"),
    ],
    ids=["no sample", "export", "a folder in use"],
)
def test_what_cannot_be_compared_is_refused_before_either_arm_is_trained(
    words, expected, run, tmp_path, monkeypatch
):
    monkeypatch.setattr(dry_run, "will_it_harm", lambda *_: {"lines": []})
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "thesis.txt").touch()
    words = {**SEGMENTER, "generator": run, "compare": True, "out": tmp_path, **words}
    with raises_fault(expected):
        gansynth.augment(**words, **({} if "export" in words else SHORT))
    assert not (tmp_path / "with").exists()
