from pathlib import Path
from typing import Any

import pytest

from gansynth.runtime.errors import UsageFault
from gansynth_deepmedic.configs import read_train_config
from gansynth_deepmedic.insertion import MISSING, HostCase
from gansynth_deepmedic.layout import TRAIN, SyntheticAdditions, file_names, write_layout
from gansynth_deepmedic.subepoch_shares import SubepochShare
from tests.deepmedic_sets import Toy, toy_deepmedic, write_config

SHARE = SubepochShare(cases=6, segments=60, real=2, synthetic=4)


def toy(folder: Path, **asked: Any) -> Toy:
    return toy_deepmedic(folder, train=2, val=1, shape=(12, 12, 12), **asked)


def laid_out(
    data: Toy, folder: Path, share: SubepochShare = SHARE, slots: int = 4, **asked: Any
) -> tuple[Path, dict[str, str]]:
    """Return ``train.cfg``, and what is changed in it."""
    config, cases = read_train_config(data.train), []
    for number, one in enumerate(config.train):
        channels = tuple(MISSING if path is None else str(path) for path in one.channels)
        roi, lies = None if one.roi is None else str(one.roi), ((0, 1), (1, 1), (2, 1))
        rest = ((20, 20, 20), lies, ((1.0, 0.0),) * len(channels))
        cases.append(HostCase(f"case {number}", channels, str(one.labels), roi, *rest))
    return folder / TRAIN, write_layout(config, folder, share, cases, slots, **asked)[1]


def executed(path: Path) -> dict[str, Any]:
    """What DeepMedic makes of a configuration."""
    values: dict[str, Any] = {}
    exec(path.read_text(), values)
    del values["__builtins__"]
    return values


def listed(train: Path, name: str) -> list[str]:
    """What DeepMedic makes of a list: lines without comments, stripped."""
    lines = train.with_name(f"list_{name}.cfg").read_text("utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def test_what_is_missing_stays_missing(tmp_path):
    data = toy(tmp_path / "set", roi=False)
    (data.folder / "training_t1c.cfg").write_text("./data/pat_00/t1c.nii.gz\n-\n")
    additions = SyntheticAdditions(lacking=[(), (1,), (), (1,)])
    train, _ = laid_out(data, tmp_path / "out", additions=additions)
    assert [path == MISSING for path in listed(train, "t1c")] == [False, True] + [False, True] * 2
    assert MISSING not in listed(train, "flair")
    assert not (tmp_path / "out/list_roi.cfg").exists()
    assert "roiMasksTraining" not in executed(train)


@pytest.mark.parametrize("name", ['it\'s "here" ü', "a b", "#1"], ids=["quotes", "space", "hash"])
def test_odd_folders_are_read_back(tmp_path, name):
    data = toy(tmp_path / name)
    train, _ = laid_out(data, tmp_path / f"{name} out")
    config = read_train_config(train)
    assert [str(case.channels[0]) for case in config.train] == listed(train, "flair")
    assert config.train[0] == read_train_config(data.train).train[0]
    assert executed(train)["folderForOutput"] == str(tmp_path / name / "output")
    assert train.read_bytes().isascii()
    with pytest.raises(UsageFault, match="one path per line"):
        laid_out(data, tmp_path / "two\nlines")


def test_names_of_channels_become_names_of_files():
    found = file_names(("flair", "t1 c/é", "labels", "FLAIR", "", "map_0", "x"))
    assert found == ("flair", "t1_c", "channel_2", "channel_3", "channel_4", "channel_5", "x")


def test_train_cfg_has_the_users_values_in_their_order(tmp_path):
    own = {
        "learningRate": 0.1 + 0.2,
        "L1_reg": 1e-06,
        "predefinedSchedule": [3, 5],
        "augm_img_prms_tr": {"affine": {"prob": 0.7, "max_rot_xyz": (45.0, 0.5, 1e-3)}},
        "tensorboard_log": True,
        "cnnModelFilePath": "./models/a.ckpt",
    }
    data = toy(tmp_path / "set")
    write_config(data.train, {**executed(data.train), **own})
    before = executed(data.train)
    after = executed(laid_out(data, tmp_path / "out")[0])
    assert list(after) == list(before)
    home, out = tmp_path / "set", tmp_path / "out"
    assert {key: value for key, value in after.items() if before[key] != value} == {
        "channelsTraining": [str(out / "list_flair.cfg"), str(out / "list_t1c.cfg")],
        "gtLabelsTraining": str(out / "list_labels.cfg"),
        "roiMasksTraining": str(out / "list_roi.cfg"),
        "folderForOutput": str(home / "output"),
        "cnnModelFilePath": str(home / "models/a.ckpt"),
        "namesForPredictionsPerCaseVal": str(home / "names.cfg"),
        "channelsValidation": [str(home / f"validation_{c}.cfg") for c in ("flair", "t1c")],
        "gtLabelsValidation": str(home / "validation_labels.cfg"),
        "roiMasksValidation": str(home / "validation_roi.cfg"),
    }


def test_cases_and_segments_are_those_of_the_share_and_said(tmp_path):
    share = SubepochShare(cases=12, segments=240, real=4, synthetic=8)
    train, changed = laid_out(toy(tmp_path / "set"), tmp_path / "out", share)
    values = executed(train)
    assert values["numOfCasesLoadedPerSubepoch"] == 12
    assert values["numberTrainingSegmentsLoadedOnGpuPerSubep"] == 240
    comment = [line for line in train.read_text().splitlines() if line[0] == "#"]
    for key, was in (("numOfCases", "6"), ("numberTrainingSegments", "60")):
        (line,) = [line for line in comment if line.startswith(f"#   {key}")]
        assert line.endswith(f"{was} in that file")
    assert set(changed) == {
        *("channelsTraining", "gtLabelsTraining", "roiMasksTraining"),
        *("numOfCasesLoadedPerSubepoch", "numberTrainingSegmentsLoadedOnGpuPerSubep"),
    }


def test_what_the_user_sets_beside_the_file_counts_but_the_share_counts_more(tmp_path):
    data = toy(tmp_path / "set", values={"numOfCasesLoadedPerSubepoch": None})
    asked = {"numberOfEpochs": 7, "folderForOutput": "/x", "numOfCasesLoadedPerSubepoch": 99}
    train, changed = laid_out(data, tmp_path / "out", values=asked)
    values = executed(train)
    assert (values["numberOfEpochs"], values["folderForOutput"]) == (7, "/x")
    assert list(values)[-1] == "numOfCasesLoadedPerSubepoch"
    assert values["numOfCasesLoadedPerSubepoch"] == SHARE.cases
    assert changed["numberOfEpochs"] == "as asked"


def test_a_table_becomes_lists(tmp_path):
    data = toy(tmp_path / "set", roi=False)
    rows = ["channel_b,channel_a,ground_truth"]
    for home in ("./data/pat_00", "./data/pat_01"):
        rows.append(",".join(f"{home}/{name}.nii.gz" for name in ("t1c", "flair", "labels")))
    (data.folder / "train.csv").write_text("\n".join(rows))
    lists = {"dataframe_train": "./train.csv", "roiMasksTraining": "./unused.cfg"}
    write_config(data.train, {**executed(data.train), **lists})
    train, _ = laid_out(data, tmp_path / "out")
    assert not lists.keys() & executed(train).keys()
    found = [case.channels for case in read_train_config(train).train[:2]]
    assert found == [case.channels for case in read_train_config(data.train).train]
    assert [path.name for path in found[0] if path] == ["flair.nii.gz", "t1c.nii.gz"]
