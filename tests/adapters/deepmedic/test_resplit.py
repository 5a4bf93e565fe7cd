import shutil
from dataclasses import replace

import pytest

from gansynth.core.source import FoldSplit
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from gansynth_deepmedic.configs import read_train_config
from gansynth_deepmedic.source import DeepMedicSource, open_deepmedic
from tests.deepmedic_sets import toy_deepmedic, write_config
from tests.dividing import assert_same_cases, divided

SPLITS = [
    FoldSplit(train=["pat_05", "pat_01"], val=["pat_00"]),
    FoldSplit(train=["pat_00"], val=["pat_02", "pat_03"]),
]


@pytest.fixture
def source(shared_deepmedic) -> DeepMedicSource:
    """Four training cases and two to validate on."""
    source: DeepMedicSource = shared_deepmedic.source()
    return source


def test_folds_are_as_asked_and_cases_and_data_set_as_before(source, shared_deepmedic, tmp_path):
    request = divided(source, SPLITS, tmp_path / "new", shared_deepmedic.folder)
    files = [path for path in (tmp_path / "new").rglob("*") if path.is_file()]
    assert {file.suffix for file in files} == {".cfg", ".csv", ".json"}
    assert max(file.stat().st_size for file in files) < 8192
    for fold in ("2", "all"):
        with pytest.raises(UsageFault, match=f"--fold '{fold}'"):
            open_deepmedic(replace(request, fold=fold))


def test_what_deepmedic_is_told_is_the_users_but_for_lists_and_results(source, tmp_path):
    source.divided(SPLITS, tmp_path / "new")
    config = read_train_config(tmp_path / "new" / "fold_0" / "trainConfig.cfg")
    differing = {key for key, value in config.values.items() if source.config.values[key] != value}
    keys = ("channels", "gtLabels", "roiMasks")
    parts = {f"{key}{part}" for key in keys for part in ("Training", "Validation")}
    assert differing == {*parts, "namesForPredictionsPerCaseVal", "folderForOutput"}
    assert config.values["folderForOutput"].startswith(str(tmp_path))
    assert config.predictions == ("pat_00.nii.gz",)


def test_people_stay_who_they_are_and_on_one_side(shared_deepmedic, tmp_path):
    request = shared_deepmedic.source(subjects=r"pat_0(\d)").divided(SPLITS, tmp_path / "new")
    other = open_deepmedic(request)
    assert [other.header(case).subject for case in other.train_ids] == ["1", "5"]
    one = shared_deepmedic.source(subjects=r"pat_(\d)", fold="all")
    with pytest.raises(IntegrityFault, match="pat_00"):
        one.divided(SPLITS, tmp_path / "other")


def test_cases_keep_names_that_a_part_of_them_would_not_need(tmp_path):
    toy = toy_deepmedic(tmp_path / "toy", train=3, val=1)
    shutil.copytree(toy.folder / "data" / "pat_00", toy.folder / "more" / "pat_00")
    for name in ("flair", "t1c", "labels", "roi"):
        with (toy.folder / f"training_{name}.cfg").open("a") as file:
            file.write(f"./more/pat_00/{name}.nii.gz\n")
    path = toy.folder / "training_t1c.cfg"
    path.write_text(path.read_text().replace("./data/pat_01/t1c.nii.gz", "-"))
    source = toy.source()
    long = tuple(case for case in source.train_ids if "more" not in case)
    assert "pat_01" not in long  # for two folders are called pat_00, names are longer
    split = FoldSplit(train=list(long[:2]), val=list(long[2:]))
    other = open_deepmedic(source.divided([split], tmp_path / "new"))
    assert other.train_ids + other.held_out_ids == long
    assert not other.load(long[1]).image[1].any()  # what a case lacks stays missing


def test_tables_are_dealt_out_too(tmp_path):
    """Of a set that validated on nothing, too."""
    toy = toy_deepmedic(tmp_path / "toy", train=3, val=0, roi=False)
    rows = ["channel_b,channel_a,ground_truth"]
    for home in (f"data/pat_0{n}" for n in range(3)):
        rows.append(",".join(f"{home}/{name}.nii.gz" for name in ("t1c", "flair", "labels")))
    (toy.folder / "table.csv").write_text("\n".join(rows))
    no_lists = dict.fromkeys(("channelsTraining", "gtLabelsTraining"))
    values = {**read_train_config(toy.train).values, **no_lists}
    write_config(toy.train, {**values, "dataframe_train": "./table.csv"})
    source = toy.source()
    one, two, _ = source.train_ids
    other = open_deepmedic(source.divided([FoldSplit(train=[two], val=[one])], tmp_path / "new"))
    assert (other.name, other.held_out_ids) == (source.name, (one,))
    assert other.channels == source.channels == ("a", "b")
    assert_same_cases(source, other, (one, two))


def test_sampling_maps_are_refused(tmp_path):
    maps = {"weightedMapsForSamplingEachCategoryTrain": ["./training_flair.cfg"] * 2}
    source = toy_deepmedic(tmp_path / "toy", train=3, val=1, values=maps).source()
    with pytest.raises(UsageFault, match="weightedMapsForSamplingEachCategoryTrain"):
        source.divided([FoldSplit(train=["pat_00"], val=["pat_01"])], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_lists_changed_by_hand_no_longer_fit_their_names(source, tmp_path):
    request = source.divided(SPLITS, tmp_path / "new")
    for path in (tmp_path / "new" / "fold_0").glob("train_list_*.cfg"):
        path.write_text(path.read_text().splitlines()[0])
    with pytest.raises(DataFault, match=r"gansynth_cases\.csv: names other files"):
        open_deepmedic(request)
