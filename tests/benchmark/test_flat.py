"""Benchmarks and choices on 2D cases: pictures, and slices of volumes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gansynth.benchmark.plan import Plan
from gansynth.benchmark.plan_file import read_plan
from gansynth.benchmark.study import Study
from gansynth.benchmark.tuning import Wanted, open_choice
from gansynth.runtime.errors import UsageFault
from tests.flat_sets import EACH, FLAT, slices


def plan_in(home: Path, kind: str, **changes: Any) -> Path:
    """A plan of two arms on a small data set beside it."""
    request = FLAT[kind](home / "set")
    host = {
        "target": "segmenter",
        "steps": 3,
        "set": {"width": "4", "levels": "2", "patch": "16", "precision": "fp32", "device": "cpu"},
    }
    plan = {
        **{"name": "flat", "data": f"{request.kind}:{request.where}", "read": dict(request.read)},
        **{"host": host, "arms": ["default", "copy-paste"], "sizes": [2], "draws": 1, "seeds": 1},
        **{"split": {"development": 2, "sealed": 2}, "measures": ["dice", "hd95"]},
        **{"tune": {"folds": 2, "rungs": [1.0]}},
        **({"subjects": request.subjects} if request.subjects else {}),
        **changes,
    }
    file = home / "plan.yaml"
    file.write_text(yaml.safe_dump(plan))
    return file


def planned(home: Path, kind: str, **changes: Any) -> Plan:
    return read_plan(plan_in(home, kind, **changes))


@pytest.mark.parametrize("kind", FLAT)
def test_people_are_dealt_out_with_all_their_slices(kind, tmp_path):
    study = Study(planned(tmp_path, kind), "development", tmp_path / "out")
    assert len(study.people) == 2
    assert len(study.judged) == 2 * EACH
    spec, _ = open_choice(planned(tmp_path, kind), Wanted(tmp_path / "tune"))
    assert {person for _, person, _ in spec.document["train"]}.isdisjoint(study.people)


@pytest.mark.parametrize("kind", FLAT)
def test_what_cannot_be_measured_is_refused_before_any_job(kind, tmp_path):
    plan = planned(tmp_path, kind)
    settings = {**plan.host.set, "save_predictions": "no"}
    plan = plan.model_copy(update={"host": plan.host.model_copy(update={"set": settings})})
    with pytest.raises(UsageFault, match="save_predictions=yes"):
        Study(plan, "development", tmp_path / "out")
    with pytest.raises(UsageFault, match="save_predictions=yes"):
        open_choice(plan, Wanted(tmp_path / "tune"))
    assert not (tmp_path / "out").exists()


def gansynth(*words: object) -> Any:
    line = [sys.executable, "-m", "gansynth_cli", *map(str, words), "--json"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "unit", "distances"), [("pictures", "px", "slices"), ("slices", "mm", "volumes")]
)
def test_a_benchmark_on_2d_cases_is_scored_by_subject(kind, unit, distances, tmp_path):
    gansynth("benchmark", plan_in(tmp_path, kind), "-o", tmp_path / "out")
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    people = set(document["subjects"].values())
    assert len(people) == 2
    for run in document["runs"]:
        assert (run["status"], run["by"], run["distances"]) == ("done", "subject", distances)
        assert set(run["scores"]["hd95/foreground"]) == people
    assert document["measures"]["hd95/foreground"]["unit"] == unit
    page = (tmp_path / "out" / "report.html").read_text()
    assert "data:image/png;base64," in page  # a picture of the worst subject
    assert ("nobody has said how large they are" in page) == (unit == "px")


@pytest.mark.slow
@pytest.mark.parametrize("kind", FLAT)
def test_an_arm_is_chosen_on_2d_cases(kind, tmp_path):
    found = gansynth("tune", plan_in(tmp_path, kind), "-o", tmp_path / "out")
    assert set(found["rungs"][0]["scores"]) == {"default", "copy-paste"}
    assert found["chosen"] in ("default", "copy-paste")
    assert any(line.startswith("gansynth augment") for line in found["use"])


def test_a_slice_knows_its_volume_and_its_place_there(tmp_path):
    from gansynth.sampling.opening import open_source

    source = open_source(slices(tmp_path / "set", folds="3"))
    found = [source.position(case) for case in source.held_out_ids]  # type: ignore[attr-defined]
    assert {(at.stack, at.thickness) for at in found} == {
        (person, 3.0) for person in map(source.subject, source.held_out_ids)
    }
    assert [at.index for at in found] == [0, 1, 2, 3] * 2
