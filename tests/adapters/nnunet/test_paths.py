"""Where nnU-Net's folders are looked for, and what data sets in them are called."""

import pytest

from gansynth.runtime.errors import UsageFault
from gansynth_nnunet.paths import NnunetRoot


def test_an_explicit_root_wins_over_nnunets_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "elsewhere"))
    assert NnunetRoot.find(tmp_path).raw == tmp_path / "nnUNet_raw"


def test_nnunets_variables_win_over_our_default(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "elsewhere"))
    monkeypatch.delenv("nnUNet_results", raising=False)
    monkeypatch.setenv("GANSYNTH_NNUNET_ROOT", str(tmp_path))
    root = NnunetRoot.find()
    assert (root.raw, root.results) == (tmp_path / "elsewhere", tmp_path / "nnUNet_results")


def test_without_anything_named_the_folder_nnunet_is_taken(tmp_path, monkeypatch):
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "GANSYNTH_NNUNET_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    assert NnunetRoot.find().preprocessed == tmp_path / "nnunet" / "nnUNet_preprocessed"


def test_nnunet_looks_where_the_root_was_activated(tmp_path, monkeypatch):
    from nnunetv2.paths import nnUNet_raw

    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, "before")
    NnunetRoot.find(tmp_path).activate()
    assert str(nnUNet_raw) == str(tmp_path / "nnUNet_raw")


@pytest.mark.parametrize("where", ["4", "004", "Dataset004_A"])
def test_a_data_set_has_three_names(tmp_path, where):
    (tmp_path / "nnUNet_raw" / "Dataset004_A").mkdir(parents=True)
    assert NnunetRoot.find(tmp_path).dataset(where) == "Dataset004_A"


def test_an_id_of_two_data_sets_is_refused(tmp_path):
    for name in ("nnUNet_raw/Dataset004_A", "nnUNet_preprocessed/Dataset004_B"):
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(UsageFault, match=r"several data sets \(Dataset004_A, Dataset004_B"):
        NnunetRoot.find(tmp_path).dataset("4")
