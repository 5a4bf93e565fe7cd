"""One job in its own process: its command, how that ended, and what is measured then."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
import pytest
from PIL import Image

from gansynth.benchmark import worker
from gansynth.benchmark.worker import Work, going_on, over_labels, own_run
from gansynth.core.run_folder import MANIFEST
from gansynth.core.source import SourceRequest
from gansynth.data.flat import FlatSource
from gansynth.runtime.errors import EnvironmentFault, IntegrityFault, TrainingFault, UsageFault
from gansynth.runtime.files import read_json, write_json_atomic
from gansynth.sampling.opening import open_source
from tests.benchmark.jobs.small import gone
from tests.flat_sets import FLAT
from tests.processes import until

# -- commands --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_command_that_fails_raises_its_own_fault_with_its_last_line(capfd):
    with pytest.raises(UsageFault) as refused:
        worker.command(["fit", "nosuch", "--data", "nifti:nowhere", "-o", "run", "--json"])
    assert str(refused.value).startswith("generator 'nosuch' is unknown, expected one of: cgan3d")
    assert "error: generator 'nosuch'" in capfd.readouterr().err


@pytest.mark.slow
def test_a_command_that_ends_well_gives_what_it_printed():
    seconds, document = worker.command(["plugins", "list", "--json"])
    assert "cgan3d" in document["found"]["generators"]
    assert 0.05 < seconds < 60


HEAD = "import os, sys\nsay = lambda *words: print(*words, file=sys.stderr, flush=True)\n"


def test_what_a_command_prints_is_its_document(monkeypatch):
    monkeypatch.setattr(worker, "COMMAND", HEAD + "print('{\"words\": \"' + sys.argv[1] + '\"}')")
    seconds, document = worker.command(["fit"])
    assert document == {"words": "fit"}
    assert seconds > 0


@pytest.mark.parametrize(
    ("code", "fault", "line"),
    [
        ("say('error: no disk'); sys.exit(4)", EnvironmentFault, "no disk"),
        ("say('error: leak'); say('a thread: bye'); say(); sys.exit(6)", IntegrityFault, "leak"),
        ("say('error: one'); say('error: two'); sys.exit(2)", UsageFault, "two"),
        ("say('Traceback'); say('KeyError: 3'); sys.exit(1)", TrainingFault, "KeyError: 3"),
        ("sys.exit(7)", TrainingFault, "exit 7"),
        ("say('step 3'); os.kill(os.getpid(), 9)", TrainingFault, "step 3"),
    ],
)
def test_whatever_it_ended_with_is_one_line(monkeypatch, capfd, code, fault, line):
    monkeypatch.setattr(worker, "COMMAND", HEAD + code)
    with pytest.raises(fault) as ended:
        worker.command([])
    assert (type(ended.value), str(ended.value)) == (fault, line)
    assert line in capfd.readouterr().err or code.startswith("sys")


CHILD = """
import os, pathlib, sys, time
from gansynth.runtime.child import obey
obey()
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
time.sleep(60)
"""
PARENT = """
import sys
from gansynth.runtime import child
from gansynth.benchmark import worker
worker.COMMAND = sys.argv[1]
sys.exit(child.entry(lambda: worker.command([sys.argv[2]])))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_worker_that_is_ended_leaves_no_command_behind(tmp_path, number, code):
    file = tmp_path / "pid"
    words = [sys.executable, "-c", PARENT, CHILD, str(file)]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
        until(lambda: file.is_file() and file.read_text() != "", 60)
        child = psutil.Process(int(file.read_text()))
        assert child.ppid() == process.pid
        process.send_signal(number)
        assert process.wait(timeout=30) == code
        until(lambda: gone(child), 30)


def test_what_a_job_raises_is_its_exit_code(tmp_path):
    words = [sys.executable, "-m", "gansynth.benchmark.worker", tmp_path / "no.json", tmp_path]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stderr.startswith(f"error: {tmp_path / 'no.json'}")
    assert len(done.stderr.splitlines()) == 1


# -- words and numbers -----------------------------------------------------------------------------

RESUME = ("--set", "resume=yes")


@pytest.mark.parametrize(
    ("words", "more", "expected"),
    [
        (["a", "b"], RESUME, ["a", "b", *RESUME]),
        (["a", "--", "b"], RESUME, ["a", *RESUME, "--", "b"]),
        (["a", "b"], ("--", "--c"), ["a", "b", "--", "--c"]),
        (["a", "--", "b"], ("--", "--c"), ["a", "--", "b", "--c"]),
        (["a", "--", "b"], (), ["a", "--", "b"]),
    ],
)
def test_a_command_that_goes_on_with_what_is_there(words, more, expected):
    assert going_on(words, more) == expected


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


# -- jobs ------------------------------------------------------------------------------------------

CASES = ("p1_a", "p1_b", "p2_a", "p3_a", "p4_a", "p5_a")
AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image: Any = nib.Nifti1Image(array, AFFINE)
    path.write_bytes(gzip.compress(image.to_bytes(), 1))


def truth_of(case: str) -> np.ndarray:
    """Labels (X, Y, Z): eight voxels of label 1, and four of label 2."""
    labels = np.zeros((6, 6, 6), np.uint8)
    labels[1:3, 1:3, 1:3], labels[4, 3:5, 3:5] = 1, 2
    return np.roll(labels, CASES.index(case) % 2, axis=0)


@pytest.fixture
def data(tmp_path) -> SourceRequest:
    """Six small volumes of five people."""
    rng = np.random.default_rng(0)
    for case in CASES:
        save(tmp_path / f"set/images/{case}_0000.nii.gz", rng.normal(0, 1, (6, 6, 6)))
        save(tmp_path / f"set/labels/{case}.nii.gz", truth_of(case))
    return SourceRequest("nifti", str(tmp_path / "set"), subjects=r"(p\d)_")


def told(spec: Mapping[str, Any], request: SourceRequest, **places: Any) -> dict[str, Any]:
    """What a process is told of a job on the first three people; the last two are judged on."""
    train = [[case, case[:2], "0"] for case in CASES[:4]]
    return {
        "spec": {"train": train, "seed": 3, **spec},
        "places": {"request": request.to_json(), **places},
    }


ARM = {
    **{"ratio": "1:0", "schedule": "constant", "bank": "live", "edits": [], "filters": []},
    **{"boxes": None, "lesions": None, "augmentation": "usual", "augment_synthetic": True},
}


def training(request: SourceRequest, target: str = "segmenter", **places: Any) -> dict[str, Any]:
    host: dict[str, Any] = {
        "target": target,
        "engine": None,
        "detector": None,
        "set": {},
        "options": [],
    }
    spec = {
        **{"kind": "train", "host": host, "arm": ARM, "generator": None, "measures": ["dice"]},
        **{"regions": {"both": "1+2"}, "judged": [[case, case[:2], "0"] for case in CASES[4:]]},
    }
    return told(spec, request, **places)


class Commands:
    """Takes commands down; each does what it is given, or fails."""

    def __init__(self, does: Callable[[list[str]], Any] | None = None) -> None:
        self.lines: list[list[str]] = []
        self.does = does

    def __call__(self, words: list[str]) -> tuple[float, Any]:
        self.lines.append(words)
        if self.does is None:
            raise TrainingFault("killed")
        return 12.5, self.does(words)

    def fail(self, work: Work) -> list[str]:
        """The words of an attempt that is broken off."""
        with pytest.raises(TrainingFault, match="killed"):
            work.run()
        return self.lines[-1]


@pytest.fixture
def commands(monkeypatch) -> Commands:
    made = Commands()
    monkeypatch.setattr(worker, "command", made)
    return made


def test_a_training_that_had_begun_goes_on(data, commands, tmp_path):
    work = Work(training(data), tmp_path / "job")
    first = commands.fail(work)
    assert first[0] == "augment"
    assert "resume=yes" not in first
    out = tmp_path / "job/training/out"
    assert f"output={out}" in first
    out.mkdir()
    write_json_atomic(out / worker.RECORD, {})
    assert commands.fail(work) == [*first, *RESUME]
    assert (out / worker.RECORD).is_file()


def test_a_training_that_was_killed_before_it_began_begins_anew(data, commands, tmp_path):
    """It could not be resumed: hosts refuse to go on with what is not there."""
    work = Work(training(data), tmp_path / "job")
    first = commands.fail(work)
    out = tmp_path / "job/training/out"
    out.mkdir()
    (out / "half-written").touch()
    assert commands.fail(work) == first
    assert not out.exists()


def test_a_host_without_an_output_is_always_told_to_go_on(data, commands, tmp_path):
    """nnU-Net begins anew by itself where there is no checkpoint."""
    work = Work(training(data, "nnunet"), tmp_path / "job")
    first = commands.fail(work)
    assert not [word for word in first if word.startswith("output=")]
    assert commands.fail(work) == [*first, "--", "--c"]


def test_a_training_sees_its_own_cases_and_no_others(data, commands, tmp_path):
    words = commands.fail(Work(training(data), tmp_path / "job"))
    (splits,) = [word.partition("=")[2] for word in words if word.startswith("splits=")]
    (split,) = json.loads(Path(splits).read_text())
    assert (split["train"], split["val"]) == (list(CASES[:4]), list(CASES[4:]))


def test_a_generators_run_is_handed_on(data, commands, tmp_path):
    words = commands.fail(Work(training(data, run=str(tmp_path / "g")), tmp_path / "job"))
    assert words[words.index("--generator") + 1] == str(tmp_path / "g")
    assert "--generator" not in commands.fail(Work(training(data), tmp_path / "other"))


def test_a_finished_training_is_measured_and_tidied_up(data, monkeypatch, tmp_path):
    """The first judged case is right, in the second label 2 was missed."""

    def train(words: list[str]) -> dict[str, Any]:
        out = Path(next(w for w in words if w.startswith("output=")).removeprefix("output="))
        files = {case: f"{case}.nii.gz" for case in CASES[4:]}
        for case, file in files.items():
            labels = truth_of(case)
            labels[labels == 2] = 2 if case == CASES[4] else 0
            save(out / "predictions" / file, labels)
        write_json_atomic(out / "metrics.json", {"predictions": files})
        return {"folder": str(out), "ratio": "1:0", "drawn_real": 9, "secret": "of the host"}

    monkeypatch.setattr(worker, "command", Commands(train))
    found = Work(training(data), tmp_path / "job").run()
    right, missed = CASES[4:]
    assert found["seconds"] == 12.5
    assert found["scores"]["dice/1"] == {right: 1.0, missed: 1.0}
    assert found["scores"]["dice/2"] == {right: 1.0, missed: 0.0}
    assert found["scores"]["dice/mean"] == {right: 1.0, missed: 0.5}
    assert found["scores"]["dice/both"][missed] == pytest.approx(2 * 8 / (12 + 8))
    assert (found["told"]["drawn_real"], found["told"]["ratio"]) == (9, "1:0")
    assert "secret" not in found["told"]
    assert sorted(os.listdir(tmp_path / "job")) == ["predictions"]
    kept = {
        case: tmp_path / "job/predictions" / file for case, file in found["predictions"].items()
    }
    assert set(kept) == {right, missed}
    assert all(file.is_file() for file in kept.values())


@pytest.mark.parametrize("kind", FLAT)
def test_trainings_on_slices_are_scored_by_subject(kind, monkeypatch, tmp_path):
    """Of the two people who are judged on, the second one's last lesion was missed."""
    request = FLAT[kind](tmp_path / "set")
    source = open_source(replace(request, fold="all"))
    assert isinstance(source, FlatSource)
    people = {person: [c for c in source.train_ids if source.subject(c) == person]
              for person in ("p0", "p1", "p4", "p5")}  # fmt: skip

    def train(words: list[str]) -> dict[str, Any]:
        out = Path(next(w for w in words if w.startswith("output=")).removeprefix("output="))
        files = {case: f"{case}.png" for person in ("p4", "p5") for case in people[person]}
        for case, file in files.items():
            labels = source.load(case).labels
            assert labels is not None
            missed = case == people["p5"][2]
            (out / "predictions" / file).parent.mkdir(parents=True, exist_ok=True)
            numbers = source.encode_labels(case, 0 * labels if missed else labels)
            Image.fromarray(numbers.astype(np.uint8)).save(out / "predictions" / file)
        write_json_atomic(out / "metrics.json", {"predictions": files, "without_labels": []})
        return {"folder": str(out), "ratio": "1:0"}

    monkeypatch.setattr(worker, "command", Commands(train))
    document = training(request)
    spec = document["spec"]
    spec["regions"], spec["measures"] = {}, ["dice", "hd95"]
    for key, names in (("train", ("p0", "p1")), ("judged", ("p4", "p5"))):
        spec[key] = [[case, person, "0"] for person in names for case in people[person]]
    found = Work(document, tmp_path / "job").run()
    assert found["by"] == "subject"
    assert found["scores"]["dice/1"] == {"p4": 1.0, "p5": pytest.approx(0.8)}
    assert found["scores"]["hd95/1"]["p4"] == 0.0
    assert (found["unit"], found["distances"]) == {
        "pictures": ("px", "slices"), "slices": ("mm", "volumes")
    }[kind]  # fmt: skip
    assert set(found["predictions"]) == {*people["p4"], *people["p5"]}
    kept = {tmp_path / "job/predictions" / file for file in found["predictions"].values()}
    assert len(kept) == 8
    assert all(file.is_file() for file in kept)


# -- fits ------------------------------------------------------------------------------------------


def fitting(request: SourceRequest, folder: Path, held_out: list[str]) -> dict[str, Any]:
    generator = {"plugin": "elastic", "recipe": None, "scale": None, "only": None}
    spec = {"kind": "fit", "generator": {**generator, "set": {}, "read": {}}}
    return told(spec, request, division=str(folder), held_out=held_out)


def test_a_fit_goes_on_with_its_run(data, commands, tmp_path):
    work = Work(fitting(data, tmp_path / "division", list(CASES[4:])), tmp_path / "job")
    first = commands.fail(work)
    assert first[:2] == ["fit", "elastic"]
    assert first[first.index("-o") + 1] == str(tmp_path / "job/run")
    (tmp_path / "job/run").mkdir(parents=True)
    assert commands.fail(work) == first
    assert (tmp_path / "job/run").is_dir()


def test_a_fit_that_a_look_at_other_people_began_begins_anew(data, commands, tmp_path):
    """Its held-out cases were others, and a run knows whom it was kept from."""
    division = tmp_path / "division"
    commands.fail(Work(fitting(data, division, [CASES[4]]), tmp_path / "job"))
    (tmp_path / "job/run").mkdir(parents=True)
    commands.fail(Work(fitting(data, division, [CASES[5]]), tmp_path / "job"))
    assert not (tmp_path / "job/run").exists()
    (split,) = read_json(division / "splits.json", expected=list)
    assert (split["train"], split["val"]) == (list(CASES[:4]), [CASES[5]])


def test_a_person_on_both_sides_is_refused(data, commands, tmp_path):
    spec = training(data)
    spec["spec"]["judged"] = [["p1_b", "p1", "0"]]
    spec["spec"]["train"] = [["p1_a", "p1", "0"]]
    with pytest.raises(IntegrityFault, match="p1"):
        Work(spec, tmp_path / "job").run()
    assert commands.lines == []
