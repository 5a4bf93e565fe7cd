"""``gansynth augment --compare``: one pair of trainings, and the plan that proves something."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import gansynth
from gansynth.hosts import dry_run
from gansynth.runtime import processes
from gansynth.sampling import evaluation_data
from gansynth_benchmark.plan_file import read_plan
from tests.adapters.kits import in_process
from tests.flat_sets import pictures

SEGMENTER: dict[str, Any] = {"target": "segmenter", "quiet": True, "seed": 3}
SHORT: dict[str, Any] = {"steps": 2, "width": 4, "levels": 2, "batch_size": 2}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    data: dict[str, Any] = {"data": f"pictures:{folder}", "subjects": pictures(folder).subjects}
    return gansynth.fit("parametric", **data, out=folder / "run", quiet=True)


@pytest.fixture(scope="module")
def compared(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("arms") / "out"
    words = {**SEGMENTER, "generator": run, "ratio": "1:1", "bank_size": 4, "compare": True}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "run", in_process)
        patch.setattr(evaluation_data, "DRAWN", 8)
        return gansynth.augment(**words, out=out, **SHORT)


def test_both_arms_are_trained_each_in_its_folder(compared):
    shares = [compared[name]["realised_synthetic_share"] for name in ("without", "with")]
    assert shares == [0, 0.5]
    assert compared["without"]["folder"].endswith("without")
    assert compared["with"]["folder"].endswith("with")


def test_a_dry_run_says_how_good_the_host_is_without_samples(compared, run, monkeypatch):
    monkeypatch.setattr(evaluation_data, "DRAWN", 8)
    words = {**SEGMENTER, "generator": run, "ratio": "1:1", "bank_size": 4, **SHORT}
    folder = Path(compared["without"]["folder"])
    found = gansynth.augment(**words, out=folder.parent / "more", dry_run=True)["will_it_harm"]
    dice = compared["without"]["metrics_on_real_cases"]["dice"]["foreground"]
    assert found["real_alone"]["dice"] == pytest.approx(dice)
    assert f"Dice {dice:.2f} of held-out cases, in {folder}" in found["real_alone"]["words"]
    assert [line.split(":")[0] for line in found["lines"]][2:4] == [
        "images with a lesion",
        "lesions per image",
    ]


def test_the_difference_is_said_with_what_it_costs_in_false_alarms(compared):
    found = [compared[name]["metrics_on_real_cases"] for name in ("with", "without")]
    for name in ("dice", "lesion_sensitivity", "lesion_precision", "false_positive_volume"):
        with_, without = (metrics[name]["foreground"] for metrics in found)
        assert compared["difference"][name] == with_ - without
    assert re.fullmatch(
        r"with samples: [+-].* points of Dice, [+-].* points of lesion precision, "
        r"[+-].* alarms per 100 lesion-free cases; one pair has no interval",
        compared["sentence"],
    )


def test_both_folders_are_looked_at_before_either_arm_is_trained(run, tmp_path, monkeypatch):
    monkeypatch.setattr(dry_run, "will_it_harm", lambda *_: {"lines": []})  # takes seconds
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "thesis.txt").touch()
    words = {**SEGMENTER, "generator": run, "ratio": "1:1", "bank_size": 4, "compare": True}
    with pytest.raises(gansynth.UsageFault, match="without: holds thesis"):
        gansynth.augment(**words, out=tmp_path, **SHORT)
    assert not (tmp_path / "with").exists()


def test_it_says_what_one_pair_proves_and_names_a_valid_plan(compared, tmp_path):
    assert "one pair of trainings proves nothing" in compared["warning"]
    (tmp_path / "plan.yaml").write_text(compared["plan"])
    plan = read_plan(tmp_path / "plan.yaml")
    assert [arm.name for arm in plan.arms] == ["default", "double", "mine"]
    assert yaml.safe_load(compared["plan"])["generators"]["mine"]["generator"] == "parametric"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"ratio": "1:0"}, "compare with ratio 1:0: no sample"),
        ({"ratio": "1:1", "export": "Dataset001_X"}, "compare: has no effect with export"),
    ],
)
def test_a_comparison_of_nothing_is_refused(words, says, run):
    with pytest.raises(gansynth.UsageFault, match=says):
        gansynth.augment(**SEGMENTER, generator=run, compare=True, **words)
