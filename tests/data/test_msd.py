import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from gansynth.core.source import SourceRequest
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.sampling.run_source import open_source
from gansynth_nnunet.dataset import SPLITS
from tests.conftest import DATA
from tests.data.sets import SHAPE, check, check_request, opened, request, save

CASES = ("brain_1", "brain_2", "brain_3")
ESCAPE = [{"image": "../x.nii.gz", "label": "labelsTr/brain_1.nii.gz"}]


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


def edit(task: Path, changes: dict[str, Any]) -> None:
    path = task / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def read(task: Path, **keys: str) -> Any:
    return opened(task, "msd", **{"folds": "3", **keys})


def messages(task: Path) -> list[str]:
    return [finding.message for finding in check(task, "msd", folds="3").findings]


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
    assert read(task, folds="2").header("brain_2").subject == "x"


def test_a_file_without_its_modalities_is_found(task):
    save(task / "imagesTr/brain_2.nii.gz", image("brain_2")[..., 0])
    (message,) = messages(task)
    assert "1 channel(s) of shape (6, 7, 8), expected 2 as listed in dataset.json" in message
    with pytest.raises(DataFault, match=r"1 channel\(s\), expected 2"):
        read(task).load("brain_2")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training": ESCAPE}, "leads out of"),
        ({"training": [{"image": "imagesTr/brain_1.nii.gz"}]}, "expected image and label"),
        ({"training": []}, "no cases"),
        ({"labels": {"0": "background", "1": "edema"}}, "[3] are not in dataset.json"),
        ({"modality": {"1": "T1"}}, "dataset.json: modality is"),
        ({"modality": []}, "dataset.json: modality is"),
        ({"labels": ["a"]}, "dataset.json: labels is"),
        ({"training": {"a": 1}}, "dataset.json: training is"),
    ],
)
def test_a_wrong_dataset_json_is_found(task, changes, said):
    edit(task, changes)
    if "dataset.json: " in said:
        with pytest.raises(DataFault, match=said):
            messages(task)
    else:
        assert any(said in message for message in messages(task))


@pytest.mark.data
def test_the_hippocampus_is_in_order_and_split_by_person():
    asked = request(DATA / "msd_task04_hippocampus", "msd")
    assert not check_request(asked).findings
    source = open_source(asked)
    people = [
        {source.header(c).subject for c in ids} for ids in (source.train_ids, source.held_out_ids)
    ]
    assert people[0] & people[1] == set()
    assert source.space.size == (40, 56, 40)
    found = source.load(source.train_ids[0])
    assert found.image.std() == pytest.approx(1, abs=0.2)


def test_a_raw_data_set_is_read_without_preprocessing_and_in_the_hosts_split(toy_nnunet):
    asked = SourceRequest("nnunet-raw", "501", root=str(toy_nnunet.root), read={"modality": "none"})
    source = open_source(asked)
    assert source.schema.labels == {"background": 0, "organ": 1, "lesion": 2}
    stored: Any = nib.load(toy_nnunet.raw / "imagesTr/p1_left_0001.nii.gz")
    assert np.array_equal(source.load("p1_left").image[1], np.asarray(stored.dataobj).T)
    path = toy_nnunet.preprocessed / SPLITS
    if path.is_file():
        assert sorted(json.loads(path.read_text())[0]["val"]) == list(source.held_out_ids)
