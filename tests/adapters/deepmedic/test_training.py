"""Trainings by a small program of our own, and by the real DeepMedic where a checkout is named.

GANSYNTH_DEEPMEDIC names the checkout, GANSYNTH_DEEPMEDIC_PYTHON a Python with its TensorFlow.
"""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.core.requests.hosts import AugmentRequest
from gansynth.hosts.contract.record import FILE, LOG, TrainingResult
from gansynth.hosts.contract.session import Session
from gansynth.runtime.files import read_json
from gansynth.runtime.progress import RichReporter
from gansynth_deepmedic import program as programs
from gansynth_deepmedic.configs import SHARES, read_values
from gansynth_deepmedic.program import CHECKPOINT, ORDER, DeepMedicProgram, find_program
from tests.adapters.deepmedic.conftest import write_crops
from tests.adapters.deepmedic.fake_deepmedic import write_fake
from tests.conftest import content
from tests.deepmedic_sets import Toy, stored, toy_deepmedic
from tests.expected import raises_fault
from tests.processes import family, until

REAL = pytest.param("real", marks=[pytest.mark.deepmedic, pytest.mark.slow])
HEAVY = "torch pydantic scipy yaml click pluggy rich filelock psutil safetensors pandas h5py"
BLOCK = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY.split()}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Blocker())
"""
PROBE = """
import functools, hashlib, json, os
from importlib import import_module
import numpy as np
from gansynth_deepmedic import hook
patch = hook.Hook.patch
def probing(self):
    patch(self)
    sampling = import_module("deepmedic.dataManagement.sampling")
    original = sampling.load_subj_and_sample
    @functools.wraps(original)
    def load_subj_and_sample(job, log, kind, *more):
        paths, labels = original(job, log, kind, *more)
        row = {"kind": kind, "subepoch": self.sampled[0] - 1, "synthetic": self.synthetic,
               "centres": [float(s[(0, *(n // 2 for n in s.shape[1:]))]) for s in paths[0]],
               "hash": [hashlib.sha256(np.float32(s).tobytes()).hexdigest() for s in paths[0]],
               "labels": [int(y[tuple(n // 2 for n in y.shape)]) for y in labels]}
        with open(os.environ["PROBE"], "a") as file:
            file.write(json.dumps(row) + "\\n")
        return paths, labels
    sampling.load_subj_and_sample = load_subj_and_sample
hook.Hook.patch = probing
"""
"""Writes down the segments of each case, before the process starts to train."""
IMPORT = programs._IMPORT
Train = Callable[..., TrainingResult]


@pytest.fixture(scope="module")
def fake(tmp_path_factory) -> DeepMedicProgram:
    checkout = write_fake(tmp_path_factory.mktemp("program") / "fake")
    return find_program(str(checkout), str(checkout / "python"))


@pytest.fixture(scope="module", params=["fake", REAL])
def program(request, fake) -> DeepMedicProgram:
    return fake if request.param == "fake" else find_program(None, None)


def trainer(
    program: DeepMedicProgram, data: Toy, bank: Path, output: Path, patch: pytest.MonkeyPatch
) -> Train:
    """Trains two epochs of two subepochs at 1:2: ``train({"processes": "2"}, seed=3)``."""
    blocked = BLOCK if "fake" in program.versions["tensorflow"] else ""
    before, hook, after = IMPORT.partition("from gansynth_deepmedic.hook")
    patch.setattr(programs, "_IMPORT", f"{before}{blocked}{PROBE}{hook}{after}")
    patch.setattr("gansynth_deepmedic.adapter.find_program", lambda *_: program)
    patch.setenv("PROBE", str(output.parent / "probe.jsonl"))
    source = data.source()

    def train(settings: dict[str, str] | None = None, **changes: Any) -> TrainingResult:
        asked = {"deepmedic": "dm", "epochs": "2", "subepochs": "2", "output": str(output)}
        words = {"ratio": "1:2", "bank": bank, **changes, "set": {**asked, **(settings or {})}}
        options = ["-model", str(data.model)]
        request = AugmentRequest(target="deepmedic", **words, options=options)
        return Session.of(request, source, RichReporter()).start()

    return train


@pytest.fixture
def train(fake, shared_deepmedic, tmp_path, monkeypatch) -> Train:
    """By the small program, into ``tmp_path / "out"``."""
    bank = write_crops(tmp_path / "bank", shared_deepmedic)
    return trainer(fake, shared_deepmedic, bank, tmp_path / "out", monkeypatch)


def probed(output: Path, kind: str = "train") -> list[dict[str, Any]]:
    lines = (output.parent / "probe.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["kind"] == kind]
    return sorted(rows, key=lambda row: (row["subepoch"], row["hash"]))


def last_of(output: Path) -> Any:
    return read_json(output / FILE)["sessions"][-1]


def is_sample(value: float) -> bool:
    """Whether a voxel is one of ``write_crops``, neither real nor augmented."""
    return value * 4 == round(value * 4)


# -- both programs ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(program, shared_deepmedic, tmp_path_factory) -> Callable[[str], Path]:
    """The output of a training in one of the ways that DeepMedic samples."""
    home, before = tmp_path_factory.mktemp("trained"), content(program.checkout)
    bank = write_crops(home / "bank", shared_deepmedic)

    def train(processes: str) -> Path:
        output: Path = home / processes / "out"
        if not output.exists():
            output.parent.mkdir()
            with pytest.MonkeyPatch.context() as patch:
                run = trainer(program, shared_deepmedic, bank, output, patch)
                run({"processes": processes})
            assert content(program.checkout) == before
        return output

    return train


def test_all_ways_of_sampling_have_the_ratio_in_every_subepoch_and_the_same_segments(trained):
    """In this thread, in another, and in forked processes."""
    output = trained("2")
    last, rows = last_of(output), probed(output)
    assert probed(trained("0")) == probed(trained("-1")) == rows
    told = {"cases_real": 2, "cases_synthetic": 4, "cases_fell_back": 0}
    told |= {"places_real": 2, "places_synthetic": 4, "segments_real": 20, "segments_synthetic": 40}
    for number, one in enumerate(last["per_epoch"], start=1):
        assert one | told | {"epoch": number} == one
    assert len(last["per_epoch"]) == 4
    counted = Counter((row["subepoch"], row["synthetic"]) for row in rows)
    assert counted == {(k, kind): 4 if kind else 2 for k in range(4) for kind in (False, True)}
    for row in rows:  # centred where the case is synthetic, and with its labels
        assert {is_sample(value) for value in row["centres"]} == {row["synthetic"]}
        assert not row["synthetic"] or set(row["labels"]) == {1}
    assert len({tuple(row["hash"]) for row in rows}) == len(rows)
    assert not any(is_sample(value) for row in probed(output, "val") for value in row["centres"])
    # It ends with checkpoints, predictions and a record.
    assert {"tensorflow", "deepmedic"} <= set(last["versions"])
    assert set(last["metrics_on_real_cases"]["dice"]) <= {"foreground", "1", "2"}
    assert (output / f"{read_json(output / CHECKPOINT)['file']}.index").is_file()
    assert len(list(output.glob("saved_models/toy/*final*.index"))) == 1
    assert len(list(output.glob("predictions/toy/predictions/*Segm.nii.gz"))) == 2
    said = (output / LOG).read_text("utf-8")
    assert "gansynth: subepoch 4 of 4 had places for 2 real and 4 synthetic samples" in said
    assert "gansynth: in all 16 of 24 samples drawn were synthetic" in said


AFFINE = {"affine": {"prob": 1.0, "max_rot_xyz": (40.0, 40.0, 40.0), "max_scaling": 0.1}}


@pytest.mark.slow
@pytest.mark.deepmedic
@pytest.mark.parametrize(
    ("kind", "roi", "values"),
    [
        (0, True, {}),
        (1, True, {"augm_img_prms_tr": AFFINE}),
        (2, False, {}),
        (3, False, {"augm_img_prms_tr": AFFINE, SHARES: [0.0, 0.5, 0.5]}),
    ],
    ids=["foreground", "uniform", "whole", "per class"],
)
def test_the_real_one_samples_and_augments_in_other_ways(tmp_path, monkeypatch, kind, roi, values):
    values = {"typeOfSamplingForTraining": kind, "augm_sample_prms_tr": None, **values}
    data = toy_deepmedic(tmp_path / "toy", roi=roi, values=values)
    bank, output = write_crops(tmp_path / "bank", data), tmp_path / "out"
    trainer(find_program(None, None), data, bank, output, monkeypatch)({"epochs": "1"})
    told = last_of(output)["per_epoch"]
    assert [(one["cases_real"], one["cases_synthetic"]) for one in told] == [(2, 4)] * 2
    rows = probed(output)
    assert {len(row["hash"]) for row in rows} == {10}
    centres = [value for row in rows if row["synthetic"] for value in row["centres"]]
    near = [abs(value * 4 - round(value * 4)) < 0.01 for value in centres]
    # By chance 4 % are; after turning, those at a sample's rim lie between. DeepMedic seeds its
    # turns by the clock.
    assert sum(near) > 0.4 * len(near)


# -- the small program -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "last_line"),
    [
        ("loading", "ValueError: could not broadcast"),
        pytest.param("exit", "RuntimeError: DeepMedic ends itself", marks=pytest.mark.slow),
        pytest.param("final", "Finished.", marks=pytest.mark.slow),
    ],
)
def test_a_failure_in_forked_processes_is_not_success(
    train, monkeypatch, tmp_path, where, last_line
):
    monkeypatch.setenv("FAKE", where)
    with raises_fault("deepmedic.program-failed", names=last_line) as fault:
        train({"processes": "2"})
    assert "\n" not in str(fault.value)
    assert not read_json(tmp_path / "out" / FILE)["complete"]
    until(lambda: not family(tmp_path / "out"), 30)


def test_a_patch_too_small_for_a_segment_is_sampled_around_and_said(fake, tmp_path, monkeypatch):
    """It lies at the volume's edge, and no segment fits there."""
    data, place = toy_deepmedic(tmp_path / "toy", roi=False), {"corner": [-7, 0, 0]}
    bank = write_crops(tmp_path / "bank", data, 1, (8, 8, 8), placement=place)
    result = trainer(fake, data, bank, tmp_path / "out", monkeypatch)()
    (said,) = [text for text in result.warnings if "whole case" in text]
    assert said.startswith("segments of 16 synthetic cases were taken")
    assert [one["spread"] for one in last_of(tmp_path / "out")["per_epoch"]] == [4] * 4


@pytest.mark.parametrize(("changes", "exact"), [({}, 0), ({"augment_synthetic": False}, 8)])
def test_synthetic_cases_are_augmented_as_asked(fake, tmp_path, monkeypatch, changes, exact):
    data = toy_deepmedic(tmp_path / "toy", values={"augm_sample_prms_tr": {"hist_dist": None}})
    bank, output = write_crops(tmp_path / "bank", data), tmp_path / "out"
    trainer(fake, data, bank, output, monkeypatch)({"epochs": "1"}, **changes)
    rows = probed(output)
    assert sum(all(map(is_sample, row["centres"])) for row in rows if row["synthetic"]) == exact
    assert read_values(output / "train.cfg")["augm_sample_prms_tr"] is not None


def test_real_cases_come_through_the_generators_space_and_nothing_is_augmented(
    fake, crop_run, shared_deepmedic, tmp_path, monkeypatch
):
    data, output = shared_deepmedic.copied(tmp_path / "toy"), tmp_path / "out"
    data.change(augm_sample_prms_tr={"hist_dist": None})
    bank = write_crops(tmp_path / "bank", data)
    how = {"real_in_generator_space": True, "generator": crop_run, "host_augmentation": False}
    trainer(fake, data, bank, output, monkeypatch)({"epochs": "1"}, **how)
    for case in read_json(output / ORDER)["cases"]:
        file = Path(case["channels"][0])
        assert file.is_relative_to(output / "real")
        own = stored(data.file("flair", case["id"]))  # whose voxels that space keeps
        assert np.corrcoef(stored(file).ravel(), own.ravel())[0, 1] > 0.99
        assert stored(file).std() == pytest.approx(own.std(), rel=0.05)
    assert read_values(output / "train.cfg")["augm_sample_prms_tr"] is None


@pytest.mark.parametrize("program", ["fake"], indirect=True)
def test_a_training_that_fails_keeps_its_record_and_is_gone_on_with(
    train, trained, monkeypatch, tmp_path
):
    failed = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setenv("FAKE", "training")
        with raises_fault("deepmedic.program-failed"):
            train()
    (index,) = failed.glob("saved_models/toy/toy.0.*.index")
    away = index.rename(index.with_suffix(".away"))
    with raises_fault("deepmedic.checkpoint-missing"):
        train()
    away.rename(index)
    train()
    first, second = read_json(failed / FILE)["sessions"]
    assert read_json(failed / FILE)["complete"]
    assert [first["epochs"], second["epochs"]] == [[0, 2], [2, 4]]
    assert [one["epoch"] for one in second["per_epoch"]] == [3, 4]
    arguments = read_json(failed / ORDER)["arguments"]
    assert arguments[arguments.index("-load") + 1].endswith("saved_models/toy/toy.0.model.ckpt")
    later = [row for row in probed(failed) if row["subepoch"] > 1]
    assert later == [row for row in probed(trained("-1")) if row["subepoch"] > 1]
