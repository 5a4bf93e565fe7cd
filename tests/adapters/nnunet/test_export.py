"""gansynth augment --export: data sets that stock nnU-Net finds, loads and trains on by itself."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.bank.reader import BankReader
from gansynth.core.adapter import Injection
from gansynth.core.ratio import Ratio
from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schedule import Schedule
from gansynth.runtime import torchvision_compat
from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth.runtime.progress import NullReporter
from gansynth_nnunet.adapter import NnunetAdapter
from gansynth_nnunet.export import case_properties
from gansynth_nnunet.paths import NnunetRoot
from gansynth_nnunet.source import open_nnunet

NAME = "Dataset510_Plus"
# nnU-Net and torch warn of each other's deprecations; which ones is not ours to say.
pytestmark = pytest.mark.filterwarnings("ignore")


def read(path: Path) -> Any:
    return json.loads(path.read_text())


# -- mixed ---------------------------------------------------------------------------------------


def test_a_mixed_data_set_has_the_ratio_and_real_cases_to_validate_on(exports, toy_copy):
    report = exports()
    split = read(exports.mixed / "splits_final.json")
    before = read(toy_copy.preprocessed / "splits_final.json")[0]
    synthetic = [f"synthetic_{n:04d}" for n in range(1, 9)]
    assert split == [
        {"train": sorted((*before["train"], *synthetic)), "val": sorted(before["val"])}
    ]
    assert report["synthetic_share"] == pytest.approx(2 / 3)
    assert report["then"] == "nnUNetv2_train 510 3d_fullres 0 -p gansynthSmallPlans"
    assert (exports.there, exports.hidden) == ({NAME}, [])


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_nnunets_own_trainer_loads_it(exports, toy_copy, monkeypatch, tmp_path, configuration):
    exports(configuration=configuration)
    torchvision_compat.apply()
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    monkeypatch.setenv("nnUNet_raw", str(toy_copy.raw.parent))
    monkeypatch.setenv("nnUNet_preprocessed", str(toy_copy.preprocessed.parent))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    trainer = get_trainer_from_args(
        "510", configuration, 0, "nnUNetTrainer", toy_copy.plans, device=torch.device("cpu")
    )
    trainer.initialize()
    train, validation = trainer.get_dataloaders()
    drawn = {key for _ in range(20) for key in next(train)["keys"]}
    assert sum(key.startswith("synthetic") for key in drawn) >= 3
    assert not any(key.startswith("synthetic") for key in next(validation)["keys"])


def test_a_synthetic_case_is_the_banks_sample_with_all_that_nnunet_notes(exports, frozen_bank):
    bank = frozen_bank(samples=8)
    exports(bank=bank)
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    reader = BankReader(bank)
    sample = reader.read(reader.ids()[0])
    assert sample.labels is not None
    data = nnUNetDatasetBlosc2(str(exports.mixed / "nnUNetPlans_3d_fullres"))
    image, labels, _, properties = data.load_case("synthetic_0001")
    assert np.array_equal(image[...], sample.image.astype(np.float32))
    assert np.array_equal(labels[...], sample.labels[None])
    real = data.load_case("p1_left")[3]
    # What nnU-Net's readers add differs by reader.
    assert {k for k in real if not k.endswith("_stuff")} <= set(properties)
    assert set(properties["class_locations"]) == set(real["class_locations"])
    assert image[...].dtype == np.float32
    assert labels[...].dtype == np.int16


def test_properties_know_regions_and_the_ignore_label():
    labels = np.full((4, 5, 6), -1, np.int16)
    labels[1:3, 1:3] = 2
    keys = ((1, 2), 2, (-1, 0, 1, 2), 1)
    properties = case_properties(labels, keys, (3.0, 1.0, 2.0), (2, 0, 1))
    found = properties["class_locations"]
    assert set(found) == set(keys)
    assert (len(found[1, 2]), len(found[2]), len(found[-1, 0, 1, 2]), len(found[1])) == (
        24,
        24,
        120,
        0,
    )
    assert found[2].shape[1] == 4
    assert properties["spacing"] == [1.0, 2.0, 3.0]
    assert properties["shape_before_cropping"] == (4, 5, 6)


def test_real_files_are_linked_or_else_copied(exports, toy_copy, frozen_bank, monkeypatch):
    part, bank = Path("nnUNetPlans_3d_fullres") / "p1_left.pkl", frozen_bank(samples=8)
    exports(bank=bank)
    assert (exports.mixed / part).samefile(toy_copy.preprocessed / part)
    shutil.rmtree(exports.mixed)

    def refuse(*arguments: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    exports(bank=bank)
    assert not (exports.mixed / part).samefile(toy_copy.preprocessed / part)
    assert (exports.mixed / part).read_bytes() == (toy_copy.preprocessed / part).read_bytes()


def test_plans_name_the_new_data_set_and_only_what_there_are_data_of(exports, toy_copy):
    exports()
    plans = read(exports.mixed / f"{toy_copy.plans}.json")
    assert (plans["dataset_name"], list(plans["configurations"])) == (NAME, ["3d_fullres"])
    assert read(exports.mixed / "dataset.json")["numTraining"] == 12
    assert {p.name for p in exports.mixed.iterdir()} == {
        *("dataset.json", "dataset_fingerprint.json", "gansynth.json", "gansynthSmallPlans.json"),
        *("gt_segmentations", "nnUNetPlans_3d_fullres", "splits_final.json"),
    }


def test_without_real_cases_to_train_on_the_held_out_ones_are_there_all_the_same(exports, toy_copy):
    exports(ratio="0:1", size="2x")
    cases = {p.name for p in (exports.mixed / "nnUNetPlans_3d_fullres").glob("*.pkl")}
    val = read(toy_copy.preprocessed / "splits_final.json")[0]["val"]
    assert cases == {f"{c}.pkl" for c in val} | {f"synthetic_{n:04d}.pkl" for n in range(1, 9)}


def test_the_record_outside_of_it_says_where_each_sample_came_from(exports):
    report = exports()
    record = read(Path(report["record"]))
    assert not Path(report["record"]).is_relative_to(report["folder"])
    assert record["samples"]["synthetic_0001"]["case"] in {
        c["id"] for c in record["lineage"]["cases"]
    }


# -- refusing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ({"name": "Hippo"}, "expected DatasetNNN_Name with three digits"),
        ({"name": "Dataset501_Other"}, "Dataset501_Toy has that number"),
        ({"ratio": "1:0"}, "asks for no synthetic case"),
        ({"ratio": "1:3"}, "12 synthetic cases beside 4 training cases, the bank"),
        ({"ratio": "100:1"}, "0 synthetic cases beside 4 training cases"),
        ({"size": "4"}, "the ratio says how many already, 8 beside 4 training cases"),
        ({"fold": "all"}, "nothing is held out"),
        ({"schedule": Schedule.parse("anneal:50%-100%")}, "cannot change while nnU-Net trains"),
    ],
)
def test_an_order_that_makes_no_data_set_is_refused(exports, order, says):
    with pytest.raises(UsageFault, match=re.escape(says)):
        exports(order.pop("name", NAME), **order)
    assert (exports.there, exports.hidden) == (set(), [])


@pytest.mark.parametrize("folder", ["nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"])
def test_a_number_taken_anywhere_is_refused_and_nothing_overwritten(exports, toy_copy, folder):
    there = toy_copy.root / folder / "Dataset510_Mine"
    there.mkdir()
    with pytest.raises(UsageFault, match=r"Dataset510_Mine has that number.*free: 511"):
        exports()
    assert list(there.iterdir()) == []


def test_samples_of_a_generator_that_saw_held_out_cases_are_not_exported(exports, frozen_bank):
    with pytest.raises(IntegrityFault, match="held-out"):
        exports(bank=frozen_bank("other", samples=8, fold="1"))
    assert (exports.there, exports.hidden) == (set(), [])


def test_real_channels_are_not_shared(toy_copy, run_cli, tmp_path):
    run = tmp_path / "run"
    tiny = ("--set=width=4", "--set=d_width=4", "--set=levels=2", "--set=steps=1")
    how = ("--set=given=T1", *tiny, "--device", "cpu", "-q")
    fitted = run_cli("fit", "cgan3d", *toy_copy.options, "-o", run, *how)
    assert fitted.exit_code == 0, fitted.stderr
    adapter = NnunetAdapter(open_nnunet(toy_copy.request()))
    with pytest.raises(UsageFault, match=r"given the channels T1 of real cases"):
        adapter.export(
            Injection(RunFolder(run), Ratio.parse("1:1"), device="cpu"),
            NAME,
            content="synthetic",
            reporter=NullReporter(),
        )


def test_a_dry_run_counts_and_writes_nothing(exports, toy_copy):
    before = sorted(toy_copy.root.rglob("*"))
    report = exports(dry_run=True)
    voxels = 24**3
    assert (report["synthetic_cases"], report["real_training_cases"]) == (8, 4)
    assert report["bytes"] == 8 * voxels * (2 * 4 + 2)
    assert sorted(toy_copy.root.rglob("*")) == before


# -- a generator at work ---------------------------------------------------------------------------


def test_a_generators_samples_are_exported_as_it_draws_them(
    exports, export_command, toy_copy, tmp_path, run_cli
):
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    from gansynth.sampling.drawer import SampleDrawer
    from gansynth.sampling.open_run import load_run

    result = run_cli(*export_command, "--ratio", "2:1", "--seed", "3", "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["synthetic_cases"], report["rejected"]) == (2, {})
    assert report["record"] == str(tmp_path / "run" / "exports" / f"{NAME}.json")
    assert (exports.there, exports.hidden) == ({NAME}, [])
    drawer = SampleDrawer(
        load_run(tmp_path / "run", "cpu"), open_nnunet(toy_copy.request()), SampleRequest(seed=3)
    )
    data = nnUNetDatasetBlosc2(str(exports.mixed / "nnUNetPlans_3d_fullres"))
    for number, sample in enumerate(drawer.draw(0, 2), 1):
        image, labels = data.load_case(f"synthetic_{number:04d}")[:2]
        assert image[...] == pytest.approx(sample.image, abs=1e-4)
        assert sample.labels is not None
        assert np.array_equal(labels[0], sample.labels)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("--frozen",), "--export with --frozen: nothing is trained"),
        (("--schedule", "constant"), "--export with --schedule:"),
        (("--no-usual-augmentation",), "--export with --no-usual-augmentation:"),
        (("--set", "num_epochs=1"), "--export with --set:"),
        (("--", "--npz"), "--export with host options after --:"),
        (("--content", "real"), "'real' is not one of"),
        (("--bank-size", "4"), "the ratio says how many already, 4 beside 4"),
        (("--ratio", "0:1"), "does not say how many cases; give --bank-size N"),
    ],
)
def test_what_means_nothing_to_an_export_is_refused(export_command, toy_copy, refuse, given, says):
    refuse(*export_command, "--ratio", "1:1", *given, code=2, says=[says], keep=[toy_copy.root])


def test_content_without_an_export_is_a_slip(export_command, refuse):
    arguments = [
        *export_command[: export_command.index("--export")],
        "--ratio",
        "1:1",
        "--content",
        "mixed",
    ]
    refuse(*arguments, code=2, says=["--content mixed: expected --export DatasetNNN_Name or -o"])


def test_nnunet_has_names_and_no_folders(export_command, refuse):
    arguments = export_command[: export_command.index("--export")]
    says = ["-o new: nnunet finds data sets by name", "--export DatasetNNN_Name"]
    refuse(*arguments, "--ratio", "1:1", "-o", "new", code=2, says=says)


# -- stock nnU-Net ---------------------------------------------------------------------------------

STOCK = """
import sys


class Absent:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.startswith("gansynth"):
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, Absent)

if __name__ == "__main__":
    from nnunetv2.run.run_training import run_training_entry
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    whole = nnUNetTrainer.run_training

    def short(trainer):
        trainer.num_epochs, trainer.num_iterations_per_epoch = 1, 2
        trainer.num_val_iterations_per_epoch = 1
        whole(trainer)

    nnUNetTrainer.run_training = short
    run_training_entry()
    assert not [name for name in sys.modules if name.startswith("gansynth")]
"""


@pytest.mark.slow
@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_stock_nnunet_trains_and_validates_where_there_is_no_gansynth(
    exports, toy_copy, tmp_path, configuration
):
    exports(configuration=configuration)
    script = tmp_path / "stock.py"
    script.write_text(STOCK)
    environ = {
        **{k: v for k, v in os.environ.items() if not k.startswith("GANSYNTH")},
        **NnunetRoot.find(toy_copy.root).variables(),
        "nnUNet_n_proc_DA": "1",
        "nnUNet_def_n_proc": "1",
        "OMP_NUM_THREADS": "1",
    }
    line = [sys.executable, str(script), "510", configuration, "0", "-p", toy_copy.plans]
    ended = subprocess.run(
        [*line, "-device", "cpu"], env=environ, capture_output=True, text=True, timeout=280
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "This split has 12 training and 2 validation cases" in ended.stdout
    assert "Mean Validation Dice" in ended.stdout
