"""msd: reads a Decathlon task as it is; nnunet-raw: does so with nnU-Net's raw data sets."""

import gzip
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from gansynth.core.registry import installed
from gansynth.core.source import SourceRequest
from gansynth.data.nifti_source import VolumeSource
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from gansynth.sampling.opening import open_source
from gansynth_nnunet.splits import SPLITS

SHAPE = (6, 7, 8)
CASES = ("brain_1", "brain_2", "brain_3")
DATA = Path(__file__).parents[2] / "../shared/data/msd_task04_hippocampus"


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(nib.Nifti1Image(array, np.eye(4)).to_bytes(), 1))


def image(case: str) -> np.ndarray:
    rng = np.random.default_rng(CASES.index(case))
    return rng.normal(100, 9, (*SHAPE, 2)).astype(np.float32)


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """Three cases of two modalities in one 4D file each."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:4], labels[4] = 1, 3
    for case in CASES:
        save(tmp_path / f"Task01/imagesTr/{case}.nii.gz", image(case))
        save(tmp_path / f"Task01/labelsTr/{case}.nii.gz", labels)
    document = {
        "modality": {"0": "FLAIR", "1": "CT"},
        "labels": {"0": "background", "1": "edema", "3": "core"},
        "training": [
            {"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"} for c in CASES
        ],
    }
    (tmp_path / "Task01/dataset.json").write_text(json.dumps(document))
    return tmp_path / "Task01"


def edit(task: Path, **changes: object) -> None:
    path = task / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def read(task: Path, kind: str = "msd", **keys: str) -> VolumeSource:
    source = open_source(SourceRequest(kind, str(task), read={"folds": "3", **keys}))
    assert isinstance(source, VolumeSource)
    return source


def messages(task: Path) -> list[str]:
    request = SourceRequest("msd", str(task), read={"folds": "3"})
    return [f.message for f in installed().check("msd")(request, lambda done, total: None).findings]


def test_names_come_from_dataset_json(task):
    source = read(task)
    assert source.name == "msd:Task01"
    assert source.schema.channels == ("FLAIR", "CT")
    assert source.schema.labels == {"background": 0, "edema": 1, "core": 3}
    assert [how.modality for how in source.intensities] == ["mr", "ct"]
    assert messages(task) == []


def test_a_modality_can_be_chosen(task):
    source = read(task, channels="CT", modality="none")
    assert np.array_equal(source.load("brain_2").image[0], image("brain_2")[..., 1].T)
    with pytest.raises(UsageFault, match=r"no modality 'T9', expected among: FLAIR, CT"):
        read(task, channels="T9")


def test_subjects_lie_beside_the_data(task):
    (task / "subjects.csv").write_text("case,subject_group\nbrain_1,x\nbrain_2,x\nbrain_3,y\n")
    assert read(task, folds="2").subject("brain_2") == "x"


def test_a_file_without_its_modalities_is_found(task):
    save(task / "imagesTr/brain_2.nii.gz", image("brain_2")[..., 0])
    (message,) = messages(task)
    assert "1 channel(s) of shape (6, 7, 8), expected 2 as listed in dataset.json" in message
    with pytest.raises(DataFault, match=r"1 channel\(s\), expected 2"):
        read(task).load("brain_2")


ESCAPE = [{"image": "../x.nii.gz", "label": "labelsTr/brain_1.nii.gz"}]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training": ESCAPE}, "leads out of"),
        ({"training": [{"image": "imagesTr/brain_1.nii.gz"}]}, "expected image and label"),
        ({"training": []}, "no cases"),
        ({"labels": {"0": "background", "1": "edema"}}, "[3] are not in dataset.json"),
    ],
)
def test_a_wrong_dataset_json_is_found(task, changes, said):
    edit(task, **changes)
    assert any(said in message for message in messages(task))


@pytest.mark.parametrize(
    "changes",
    [{"modality": {"1": "T1"}}, {"modality": []}, {"labels": ["a"]}, {"training": {"a": 1}}],
)
def test_a_dataset_json_that_says_nothing_is_one_line(task, changes):
    edit(task, **changes)
    with pytest.raises(DataFault, match=r"dataset\.json: (modality|labels|training) is"):
        messages(task)


def test_an_entry_that_leads_out_is_an_integrity_fault(task):
    edit(task, training=ESCAPE)
    with pytest.raises(IntegrityFault):
        read(task)


@pytest.mark.data
def test_the_hippocampus_is_in_order_and_split_by_person():
    request = SourceRequest("msd", str(DATA))
    assert not installed().check("msd")(request, lambda done, total: None).findings
    source = open_source(request)
    people = [{source.subject(c) for c in ids} for ids in (source.train_ids, source.held_out_ids)]
    assert people[0] & people[1] == set()
    assert source.space.size == (40, 56, 40)
    found = source.load(source.train_ids[0])
    assert found.image.std() == pytest.approx(1, abs=0.2)


# -- nnU-Net's raw data sets -----------------------------------------------------------------------


def raw(toy: Any, fold: str = "0", **keys: str) -> VolumeSource:
    request = SourceRequest("nnunet-raw", "501", fold=fold, root=str(toy.root), read=keys)
    source = open_source(request)
    assert isinstance(source, VolumeSource)
    return source


def test_a_raw_data_set_is_read_without_preprocessing(toy_nnunet):
    source = raw(toy_nnunet, modality="none")
    assert source.schema.labels == {"background": 0, "organ": 1, "lesion": 2}
    stored: Any = nib.load(toy_nnunet.raw / "imagesTr/p1_left_0001.nii.gz")
    assert np.array_equal(source.load("p1_left").image[1], np.asarray(stored.dataobj).T)


def test_a_raw_data_set_keeps_to_the_hosts_split(toy_nnunet, tmp_path):
    path = toy_nnunet.preprocessed / SPLITS
    source = raw(toy_nnunet)
    if path.is_file():
        assert sorted(json.loads(path.read_text())[0]["val"]) == list(source.held_out_ids)
    assert {*source.train_ids, *source.held_out_ids} <= {
        p.name[:-12] for p in toy_nnunet.raw.glob("imagesTr/*")
    }


def test_preprocessed_cases_have_no_read_keys(toy_nnunet):
    request = SourceRequest("nnunet", "501", root=str(toy_nnunet.root), read={"spacing": "1"})
    for ask in (open_source, lambda r: installed().check("nnunet")(r, print)):
        with pytest.raises(UsageFault, match="nnunet: has no such key"):
            ask(request)
