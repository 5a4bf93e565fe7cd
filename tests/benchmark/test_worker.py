import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.core.run_folder import MANIFEST
from gansynth.core.source import SourceRequest
from gansynth.data.case_writer import write_prediction
from gansynth.runtime.errors import TrainingFault
from gansynth.runtime.files import read_json, write_json_atomic
from gansynth.sampling.run_source import open_source
from gansynth_benchmark import worker
from gansynth_benchmark.worker import WorkerJob, over_labels, own_run
from tests.conftest import save_nifti
from tests.expected import raises_fault
from tests.flat_sets import FLAT


@pytest.mark.parametrize(
    ("found", "labels", "means"),
    [
        ({"dice/1": 0.4, "dice/2": 0.8, "dice/WT": 0.1}, (1, 2), {"dice/mean": 0.6}),
        ({"dice/1": 0.4, "dice/2": None}, (1, 2), {"dice/mean": 0.4}),
        ({"dice/1": None, "dice/2": None}, (1, 2), {"dice/mean": None}),
        ({"dice/1": 0.4, "hd95/1": 2.0}, (1,), {}),
    ],
)
def test_means_over_labels(found, labels, means):
    assert over_labels(found, labels) == pytest.approx(means)


@pytest.mark.parametrize(
    ("runs", "expected"), [((), ""), (("T1",), "T1"), (("T1", "T2"), ""), ((".", "part"), "")]
)
def test_the_run_of_a_recipes_one_set_has_a_folder_of_its_own(tmp_path, runs, expected):
    for run in runs:
        (tmp_path / run).mkdir(exist_ok=True)
        (tmp_path / run / MANIFEST).touch()
    assert own_run(tmp_path) == tmp_path / expected


CASES = ("p1_a", "p1_b", "p2_a", "p3_a", "p4_a", "p5_a")
TRAINED, JUDGED = list(CASES[:4]), list(CASES[4:])


def truth_of(case: str) -> np.ndarray:
    """Labels (X, Y, Z): eight voxels of label 1, and four of label 2."""
    labels = np.zeros((6, 6, 6), np.uint8)
    labels[1:3, 1:3, 1:3], labels[4, 3:5, 3:5] = 1, 2
    return np.roll(labels, CASES.index(case) % 2, axis=0)


@pytest.fixture
def data(tmp_path) -> SourceRequest:
    rng = np.random.default_rng(0)
    for case in CASES:
        save_nifti(tmp_path / f"set/images/{case}_0000.nii.gz", rng.normal(0, 1, (6, 6, 6)))
        save_nifti(tmp_path / f"set/labels/{case}.nii.gz", truth_of(case))
    return SourceRequest("nifti", str(tmp_path / "set"), subjects=r"(p\d)_")


def rows(cases: Iterable[str]) -> list[list[str]]:
    return [[case, case[:2], "0"] for case in cases]


def told(kind: str, request: SourceRequest, places: Any, **spec: Any) -> dict[str, Any]:
    """What a process is told of a job on the first three people; the last two are judged on."""
    training = {
        "augment": {"target": "segmenter", "ratio": "1:0"},
        **{"generator": None, "measures": ["dice"], "regions": {"both": "1+2"}},
        "judged": rows(JUDGED),
    }
    usual = {"kind": kind, "train": rows(TRAINED), "seed": 3}
    return {
        "spec": {**usual, **(training if kind == "train" else {}), **spec},
        "places": {"request": request.to_json(), **places},
    }


@pytest.fixture
def job(tmp_path) -> Path:
    return Path(tmp_path) / "job"


@pytest.fixture
def typed(monkeypatch, job) -> Callable[..., list[str]]:
    """The words of a job's attempt, which is broken off."""
    lines: list[list[str]] = []

    def fail(request: Any) -> None:
        lines.append(request.command_line)
        raise TrainingFault("test.fault", "killed")

    def attempt(*of: Any, **spec: Any) -> list[str]:
        with raises_fault("test.fault"):
            WorkerJob(told(*of, **spec), job).run()
        return lines[-1]

    monkeypatch.setattr(worker, "execute", fail)
    return attempt


def test_a_training_sees_its_own_cases_and_is_the_same_command_again_on_what_it_left(
    data, typed, job
):
    first = typed("train", data, {"run": "/runs/g"})
    assert first[0] == "augment"
    assert first[first.index("--generator") + 1] == "/runs/g"
    (splits,) = [word.partition("=")[2] for word in first if word.startswith("splits=")]
    (split,) = json.loads(Path(splits).read_text())
    assert (split["train"], split["val"]) == (TRAINED, JUDGED)
    out = job / "training/out"
    assert first[first.index("-o") + 1] == str(out)
    out.mkdir(parents=True)
    (out / "left").touch()
    assert typed("train", data, {"run": "/runs/g"}) == first
    assert (out / "left").exists()
    assert "--generator" not in typed("train", data, {})


def test_a_fit_goes_on_with_its_run_and_one_of_a_look_at_other_people_begins_anew(data, typed, job):
    """Its held-out cases were others, and a run knows whom it was kept from."""
    division, elastic = job.with_name("division"), {"generator": "elastic"}
    places = [{"division": str(division), "held_out": [case]} for case in JUDGED]
    first = typed("fit", data, places[0], generator=elastic)
    assert first[:2] == ["fit", "elastic"]
    assert first[first.index("-o") + 1] == str(job / "run")
    (job / "run").mkdir(parents=True)
    assert typed("fit", data, places[0], generator=elastic) == first
    assert (job / "run").is_dir()
    typed("fit", data, places[1], generator=elastic)
    assert not (job / "run").exists()
    (split,) = read_json(division / "splits.json", expected=list)
    assert (split["train"], split["val"]) == (TRAINED, [JUDGED[1]])


def test_a_person_on_both_sides_is_refused(data, job, monkeypatch):
    monkeypatch.setattr(worker, "execute", lambda request: pytest.fail("it was run"))
    document = told("train", data, {}, judged=rows(["p1_b"]), train=rows(["p1_a"]))
    with raises_fault("lineage.subject-in-training-and-validation"):
        WorkerJob(document, job).run()


Predict = Callable[[Path], dict[str, str]]


@pytest.fixture
def finished(monkeypatch, job) -> Callable[..., dict[str, Any]]:
    """What is found of a training whose host predicted something: ``predict(folder)``."""

    def find(document: dict[str, Any], predict: Predict, **more: Any) -> dict[str, Any]:
        def train(request: Any) -> tuple[float, dict[str, Any]]:
            out = Path(request.out)
            (out / "predictions").mkdir(parents=True)
            files = predict(out / "predictions")
            write_json_atomic(out / "metrics.json", {"predictions": files, **more})
            return 12.5, {"folder": str(out), "ratio": "1:0", "drawn_real": 9, "secret": "a host's"}

        monkeypatch.setattr(worker, "execute", train)
        found = WorkerJob(document, job).run()
        assert sorted(os.listdir(job)) == ["predictions"]
        kept = {job / "predictions" / file for file in found["predictions"].values()}
        assert len(kept) == len(found["predictions"])
        assert all(file.is_file() for file in kept)
        return found

    return find


def test_a_finished_training_is_measured_and_put_aside_before_it_is_removed(
    data, finished, monkeypatch
):
    """The first judged case is right, in the second label 2 was missed.

    Killed while it is removed, a training leaves no half of itself to go on with.
    """
    right, missed = JUDGED
    removed, remove = [], shutil.rmtree

    def note(path: Path, **how: Any) -> None:
        removed.append(path.name)
        remove(path, **how)

    def predict(folder: Path) -> dict[str, str]:
        for case in JUDGED:
            labels = truth_of(case)
            labels[labels == 2] = 2 if case == right else 0
            save_nifti(folder / f"{case}.nii.gz", labels)
        return {case: f"{case}.nii.gz" for case in JUDGED}

    monkeypatch.setattr(shutil, "rmtree", note)
    found = finished(told("train", data, {}), predict)
    assert "gone" in removed
    assert "training" not in removed
    assert found["seconds"] == 12.5
    assert found["scores"]["dice/1"] == {right: 1.0, missed: 1.0}
    assert found["scores"]["dice/2"] == {right: 1.0, missed: 0.0}
    assert found["scores"]["dice/mean"] == {right: 1.0, missed: 0.5}
    assert found["scores"]["dice/both"][missed] == pytest.approx(2 * 8 / (12 + 8))
    assert (found["told"]["drawn_real"], found["told"]["ratio"]) == (9, "1:0")
    assert "secret" not in found["told"]
    assert set(found["predictions"]) == {right, missed}


@pytest.mark.parametrize(
    ("kind", "unit", "distances"), [("pictures", "px", "slices"), ("slices", "mm", "volumes")]
)
def test_trainings_on_slices_are_scored_by_subject(kind, unit, distances, finished, tmp_path):
    """Of the two people who are judged on, the second one's last lesion was missed."""
    request = FLAT[kind](tmp_path / "set")
    source = open_source(replace(request, fold="all"))
    people: dict[str, list[str]] = {}
    for case in source.train_ids:
        people.setdefault(source.header(case).subject, []).append(case)
    judged = [*people["p4"], *people["p5"]]

    def predict(folder: Path) -> dict[str, str]:
        for case in judged:
            labels = source.load(case).labels
            assert labels is not None
            found = labels * np.int16(case != people["p5"][2])
            assert write_prediction(source, case, found, folder) == folder / f"{case}.png"
            levels = (12 * (found > 0)).astype(np.int16)
            write_prediction(source, case, levels, folder.parent / "levels", numbers={})
        return {case: f"{case}.png" for case in judged}

    sides = {"judged": rows(judged), "train": rows([*people["p0"], *people["p1"]])}
    asked: dict[str, Any] = {"regions": {}, "measures": ["dice", "hd95"], "thresholds": []}
    found = finished(told("train", request, {}, **sides, **asked), predict, without_labels=[])
    assert found["scores"]["dice/1"] == {"p4": 1.0, "p5": pytest.approx(0.8)}
    assert found["scores"]["hd95/1"]["p4"] == 0.0
    cut = found["at_thresholds"]["dice@alarms/foreground"]["p5"]
    assert cut == [pytest.approx(0.8)] * 12 + [0] * 7
    assert (found["by"], found["unit"], found["distances"]) == ("subject", unit, distances)
    assert set(found["predictions"]) == set(judged)
    assert len(judged) == 8
