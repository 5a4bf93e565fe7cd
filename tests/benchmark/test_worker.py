import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from gansynth.core.run_folder import MANIFEST
from gansynth.core.source import SourceRequest
from gansynth.data.case_writer import write_prediction
from gansynth.runtime.errors import (
    IntegrityFault,
    TrainingFault,
)
from gansynth.runtime.files import read_json, write_json_atomic
from gansynth.sampling.run_source import open_source
from gansynth_benchmark import worker
from gansynth_benchmark.worker import WorkerJob, over_labels, own_run
from tests.flat_sets import FLAT


@pytest.mark.parametrize(
    ("found", "labels", "means"),
    [
        ({"dice/1": 0.4, "dice/2": 0.8, "dice/WT": 0.1}, (1, 2), {"dice/mean": 0.6}),
        ({"dice/1": 0.4, "dice/2": None}, (1, 2), {"dice/mean": 0.4}),
        ({"dice/1": None, "dice/2": None}, (1, 2), {"dice/mean": None}),
        ({"dice/1": 0.4, "hd95/1": 2.0}, (1,), {}),
        (
            {"dice/1": 0.5, "dice/2": 0.5, "hd95/1": 2.0, "hd95/2": 4.0},
            (1, 2),
            {"dice/mean": 0.5, "hd95/mean": 3.0},
        ),
    ],
)
def test_means_over_labels(found, labels, means):
    assert over_labels(found, labels) == pytest.approx(means)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ((), "run"),
        ((MANIFEST,), "run"),
        ((f"T1/{MANIFEST}", "recipe.json"), "run/T1"),
        ((f"T1/{MANIFEST}", f"T2/{MANIFEST}"), "run"),
        ((MANIFEST, f"part/{MANIFEST}"), "run"),
    ],
)
def test_the_run_of_a_recipes_one_set_has_a_folder_of_its_own(tmp_path, files, expected):
    for file in files:
        (tmp_path / "run" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / file).touch()
    assert own_run(tmp_path / "run") == tmp_path / expected


CASES = ("p1_a", "p1_b", "p2_a", "p3_a", "p4_a", "p5_a")
TRAINED, JUDGED = list(CASES[:4]), list(CASES[4:])


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image: Any = nib.Nifti1Image(array, np.diag([1.0, 1.0, 2.0, 1.0]))
    path.write_bytes(gzip.compress(image.to_bytes(), 1))


def truth_of(case: str) -> np.ndarray:
    """Labels (X, Y, Z): eight voxels of label 1, and four of label 2."""
    labels = np.zeros((6, 6, 6), np.uint8)
    labels[1:3, 1:3, 1:3], labels[4, 3:5, 3:5] = 1, 2
    return np.roll(labels, CASES.index(case) % 2, axis=0)


@pytest.fixture
def data(tmp_path) -> SourceRequest:
    rng = np.random.default_rng(0)
    for case in CASES:
        save(tmp_path / f"set/images/{case}_0000.nii.gz", rng.normal(0, 1, (6, 6, 6)))
        save(tmp_path / f"set/labels/{case}.nii.gz", truth_of(case))
    return SourceRequest("nifti", str(tmp_path / "set"), subjects=r"(p\d)_")


def rows(cases: Iterable[str]) -> list[list[str]]:
    return [[case, case[:2], "0"] for case in cases]


def told(spec: Mapping[str, Any], request: SourceRequest, **places: Any) -> dict[str, Any]:
    """What a process is told of a job on the first three people; the last two are judged on."""
    return {
        "spec": {"train": rows(TRAINED), "seed": 3, **spec},
        "places": {"request": request.to_json(), **places},
    }


def training(request: SourceRequest, target: str = "segmenter", **places: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "kind": "train",
        "augment": {"target": target, "ratio": "1:0"},
        **{"generator": None, "measures": ["dice"], "regions": {"both": "1+2"}},
        "judged": rows(JUDGED),
    }
    return told(spec, request, **places)


@pytest.fixture
def job(tmp_path) -> Path:
    return Path(tmp_path) / "job"


@pytest.fixture
def typed(monkeypatch, job) -> Callable[[dict[str, Any]], list[str]]:
    """The words of a job's attempt, which is broken off."""
    lines: list[list[str]] = []

    def fail(request: Any) -> None:
        lines.append(request.command_line)
        raise TrainingFault("killed")

    def attempt(document: dict[str, Any]) -> list[str]:
        with pytest.raises(TrainingFault, match="killed"):
            WorkerJob(document, job).run()
        return lines[-1]

    monkeypatch.setattr(worker, "execute", fail)
    return attempt


@pytest.mark.parametrize("target", ["segmenter", "nnunet"])
def test_an_interrupted_training_is_the_same_command_again_on_what_it_left(
    data, typed, job, target
):
    first = typed(training(data, target))
    assert first[0] == "augment"
    out = job / "training/out"
    assert first[first.index("-o") + 1] == str(out)
    out.mkdir(parents=True)
    write_json_atomic(out / "left.json", {})
    assert typed(training(data, target)) == first
    assert (out / "left.json").exists()


def test_a_training_sees_its_own_cases_and_no_others_and_its_generators_run(data, typed):
    words = typed(training(data, run="/runs/g"))
    (splits,) = [word.partition("=")[2] for word in words if word.startswith("splits=")]
    (split,) = json.loads(Path(splits).read_text())
    assert (split["train"], split["val"]) == (TRAINED, JUDGED)
    assert words[words.index("--generator") + 1] == "/runs/g"
    assert "--generator" not in typed(training(data))


Predict = Callable[[Path], tuple[dict[str, str], dict[str, Any]]]


@pytest.fixture
def finished(monkeypatch, job) -> Callable[..., dict[str, Any]]:
    """What is found of a training whose host predicted something: ``predict(folder)``."""

    def find(document: dict[str, Any], predict: Predict) -> dict[str, Any]:
        def train(request: Any) -> tuple[float, dict[str, Any]]:
            out = Path(request.out)
            (out / "predictions").mkdir(parents=True)
            files, more = predict(out / "predictions")
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


def test_a_finished_training_is_measured_and_tidied_up(data, finished):
    """The first judged case is right, in the second label 2 was missed."""
    right, missed = JUDGED

    def predict(folder: Path) -> tuple[dict[str, str], dict[str, Any]]:
        for case in JUDGED:
            labels = truth_of(case)
            labels[labels == 2] = 2 if case == right else 0
            save(folder / f"{case}.nii.gz", labels)
        return {case: f"{case}.nii.gz" for case in JUDGED}, {}

    found = finished(training(data), predict)
    assert found["seconds"] == 12.5
    assert found["scores"]["dice/1"] == {right: 1.0, missed: 1.0}
    assert found["scores"]["dice/2"] == {right: 1.0, missed: 0.0}
    assert found["scores"]["dice/mean"] == {right: 1.0, missed: 0.5}
    assert found["scores"]["dice/both"][missed] == pytest.approx(2 * 8 / (12 + 8))
    assert (found["told"]["drawn_real"], found["told"]["ratio"]) == (9, "1:0")
    assert "secret" not in found["told"]
    assert set(found["predictions"]) == {right, missed}


def test_a_training_is_put_aside_before_it_is_removed(data, finished, monkeypatch):
    """Killed while it is removed, it leaves no half of a training to go on with."""
    removed, remove = [], shutil.rmtree

    def note(path: Path, **how: Any) -> None:
        removed.append(path.name)
        remove(path, **how)

    def predict(folder: Path) -> tuple[dict[str, str], dict[str, Any]]:
        for case in JUDGED:
            save(folder / f"{case}.nii.gz", truth_of(case))
        return {case: f"{case}.nii.gz" for case in JUDGED}, {}

    monkeypatch.setattr(shutil, "rmtree", note)
    finished(training(data), predict)
    assert "gone" in removed
    assert "training" not in removed


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

    def predict(folder: Path) -> tuple[dict[str, str], dict[str, Any]]:
        files = {case: f"{case}.png" for case in judged}
        for case, file in files.items():
            labels = source.load(case).labels
            assert labels is not None
            found = labels * np.int16(case != people["p5"][2])
            assert write_prediction(source, case, found, folder) == folder / file
            levels = (12 * (found > 0)).astype(np.int16)
            write_prediction(source, case, levels, folder.parent / "levels", encode=False)
        return files, {"without_labels": []}

    document = training(request)
    document["spec"] |= {"regions": {}, "measures": ["dice", "hd95"], "judged": rows(judged)}
    document["spec"] |= {"train": rows([*people["p0"], *people["p1"]]), "thresholds": []}
    found = finished(document, predict)
    assert found["scores"]["dice/1"] == {"p4": 1.0, "p5": pytest.approx(0.8)}
    assert found["scores"]["hd95/1"]["p4"] == 0.0
    cut = found["at_thresholds"]["dice@alarms/foreground"]["p5"]
    assert cut == [pytest.approx(0.8)] * 12 + [0] * 7
    assert (found["by"], found["unit"], found["distances"]) == ("subject", unit, distances)
    assert set(found["predictions"]) == set(judged)
    assert len(judged) == 8


def fitting(request: SourceRequest, job: Path, held_out: str) -> dict[str, Any]:
    spec = {"kind": "fit", "generator": {"generator": "elastic"}}
    return told(spec, request, division=str(job.with_name("division")), held_out=[held_out])


def test_a_fit_goes_on_with_its_run_and_one_of_a_look_at_other_people_begins_anew(data, typed, job):
    """Its held-out cases were others, and a run knows whom it was kept from."""
    first = typed(fitting(data, job, JUDGED[0]))
    assert first[:2] == ["fit", "elastic"]
    assert first[first.index("-o") + 1] == str(job / "run")
    (job / "run").mkdir(parents=True)
    assert typed(fitting(data, job, JUDGED[0])) == first
    assert (job / "run").is_dir()
    typed(fitting(data, job, JUDGED[1]))
    assert not (job / "run").exists()
    (split,) = read_json(job.with_name("division") / "splits.json", expected=list)
    assert (split["train"], split["val"]) == (TRAINED, [JUDGED[1]])


def test_a_person_on_both_sides_is_refused(data, job, monkeypatch):
    monkeypatch.setattr(worker, "execute", lambda request: pytest.fail("it was run"))
    document = training(data)
    document["spec"] |= {"judged": rows(["p1_b"]), "train": rows(["p1_a"])}
    with pytest.raises(IntegrityFault, match="p1"):
        WorkerJob(document, job).run()
