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
from tests.data import sets
from tests.data.sets import check, opened, save, volume

ESCAPE = [{"image": "../x.nii.gz", "label": "labelsTr/anna_1.nii.gz"}]


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """Six cases of two modalities in one 4D file each."""
    sets.msd(tmp_path / "Task01")
    edit(tmp_path / "Task01", {"modality": {"0": "FLAIR", "1": "CT"}})
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
    assert source.schema.labels == {"background": 0, "oedema": 1, "core": 2}
    assert [how.modality for how in source.intensities] == ["mr", "ct"]
    assert messages(task) == []


def test_a_modality_can_be_chosen(task):
    source = read(task, channels="CT", modality="none")
    assert np.array_equal(source.load("anna_2").image[0], volume(1, channels=2)[..., 1].T)
    with pytest.raises(UsageFault, match=r"no modality 'T9', expected among: FLAIR, CT"):
        read(task, channels="T9")


def test_a_file_without_its_modalities_is_found(task):
    save(task / "imagesTr/anna_2.nii.gz", volume())
    (message,) = messages(task)
    assert "1 channel(s) of shape (6, 7, 8), expected 2 as listed in dataset.json" in message
    with pytest.raises(DataFault, match=r"1 channel\(s\), expected 2"):
        read(task).load("anna_2")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training": ESCAPE}, "leads out of"),
        ({"training": [{"image": "imagesTr/anna_1.nii.gz"}]}, "expected image and label"),
        ({"training": []}, "no cases"),
        ({"labels": {"0": "background", "1": "edema"}}, "[2] are not in dataset.json"),
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


def test_a_raw_data_set_is_read_without_preprocessing_and_in_the_hosts_split(toy_nnunet):
    asked = SourceRequest("nnunet-raw", "501", root=str(toy_nnunet.root), read={"modality": "none"})
    source = open_source(asked)
    assert source.schema.labels == {"background": 0, "organ": 1, "lesion": 2}
    stored: Any = nib.load(toy_nnunet.raw / "imagesTr/p1_left_0001.nii.gz")
    assert np.array_equal(source.load("p1_left").image[1], np.asarray(stored.dataobj).T)
    path = toy_nnunet.preprocessed / SPLITS
    if path.is_file():
        assert sorted(json.loads(path.read_text())[0]["val"]) == list(source.held_out_ids)
