"""The example of a host by a third party, ``examples/gansynth_monai``: as its user runs it."""

import importlib
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

import gansynth
from gansynth.core.registry import installed
from gansynth.core.schema import Sample
from gansynth.core.source import lineage_of
from gansynth.sampling.run_source import open_source
from gansynth.testing import ToySource, check_host
from tests.banks import write_bank
from tests.data.sets import pairs

MODULE = Path(__file__).parents[2] / "examples" / "gansynth_monai" / "gansynth_monai.py"
SMALL = ("width=4", "patch=16", "device=cpu", "checkpoint_every=2")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def monai(monkeypatch):
    pytest.importorskip("monai", reason="MONAI is not installed: pip install monai")
    monkeypatch.syspath_prepend(str(MODULE.parent))
    installed().add(importlib.import_module("gansynth_monai"), "monai")
    yield installed().host("monai")
    installed().remove("monai")


@pytest.fixture
def toy(tmp_path):
    """Small volumes, a bank of them, and the words that name the data."""
    asked = pairs(tmp_path / "data")
    source, rng = open_source(asked), np.random.default_rng(0)
    labels = rng.integers(0, 3, (16, 16, 16)).astype(np.int16)
    images = rng.normal(size=(4, 1, *labels.shape)).astype(np.float32)
    drawn: Any = [(Sample(image, labels), {}) for image in images]
    bank = write_bank(tmp_path / "bank", source.schema, lineage_of(source), drawn)
    data = ("--data", f"nifti:{asked.where}", "--subjects", asked.subjects, "--read=folds=3")
    return SimpleNamespace(source=source, bank=bank, data=data, out=tmp_path / "out")


def test_it_imports_public_names_only():
    (names,) = re.findall("^from gansynth import (.*)", MODULE.read_text(), re.MULTILINE)
    assert {*names.split(", ")} <= {*gansynth.__all__}


def test_it_keeps_the_contract_of_hosts(monai, tmp_path):
    settings = {"width": "4", "patch": "16"}
    report = check_host(monai, ToySource(3), workspace=tmp_path, settings=settings)
    assert {check.verdict for check in report.checks} == {"passed"}, report.failed


def command(toy: Any, *words: object) -> list[str]:
    usual = [f"--set={value}" for value in SMALL]
    target = ("augment", "--target", "monai", *toy.data, "--bank", toy.bank)
    return [str(word) for word in (*target, "--ratio", "1:1", *usual, "-o", toy.out, *words)]


def test_its_training_is_exact_recorded_evaluated_and_not_repeated(monai, toy, run_cli, succeed):
    words = command(toy, "--set", "steps=3", "--strict", "--set", "regions=WT:1+2", "--json")
    done = succeed(*words)
    found = json.loads(done.stdout)
    assert (found["drawn_real"], found["drawn_synthetic"], found["fell_back"]) == (3, 3, 0)
    (session,) = json.loads((toy.out / "gansynth_session.json").read_text())["sessions"]
    assert (session["epochs"], session["settings"]["steps"]) == ([0, 3], 3)
    assert {"python", "torch", "monai"} == set(session["versions"])
    metrics = json.loads((toy.out / "metrics.json").read_text())
    assert set(metrics["per_case"]) == set(toy.source.held_out_ids)
    assert {"WT", "foreground"} < set(metrics["dice"])
    predicted = {path.name for path in (toy.out / "predictions").iterdir()}
    assert predicted == {f"{case}.nii.gz" for case in toy.source.held_out_ids}
    again = run_cli(*words)
    assert json.loads(again.stdout) == found
    assert "is finished" in again.stderr


@pytest.mark.parametrize("off", ["--no-host-augmentation", "--augment-synthetic=no"])
def test_its_augmentation_is_switched_by_the_options_of_the_command(
    monai, toy, run_cli, monkeypatch, off
):
    seen: list[Any] = []
    augment = monai.augment

    def counting(self: Any, image: Any, labels: Any, rng: Any) -> Any:
        seen.append(image)
        return augment(self, image, labels, rng)

    monkeypatch.setattr(monai, "augment", counting)
    assert run_cli(*command(toy, "--set", "steps=2", off)).exit_code == 0
    assert len(seen) == (0 if off == "--no-host-augmentation" else 2)


def test_an_option_that_means_nothing_to_it_is_refused(monai, toy, refuse):
    for more, says in (
        ("--no-host-augmentation --set noise=0.2", ["noise=0.2", "--no-host-augmentation"]),
        ("--set save_levels=yes", ["--set save_levels=yes: monai has no probabilities"]),
    ):
        refuse(*command(toy, "--set", "steps=4", *more.split()), code=2, says=says)


def test_a_benchmark_of_it_is_planned(monai, toy, succeed, tmp_path):
    plan = {
        **{"name": "monai", "data": toy.data[1], "read": {"size": "16"}},
        "host": {"target": "monai", "steps": 4, "set": {"width": "4", "device": "cpu"}},
        "arms": ["default", "heavier", {"from": "copy-paste", "offline": True, "bank_size": "1x"}],
        **{"sizes": [2], "draws": 1, "seeds": 1},
        "split": {"pool": 3, "development": 1, "sealed": 2},
    }
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    succeed("benchmark", tmp_path / "plan.yaml", "--dry-run", "--no-probe")
