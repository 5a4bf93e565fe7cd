import gzip
import json
import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from gansynth import replay, write_volume
from gansynth.bank.reader import BankReader
from gansynth.bank.supervisor import ProducerSupervisor
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.source import lineage_of
from gansynth.hosts.contract.session import Session
from gansynth.sampling.writing import TIME
from gansynth_nnunet import export
from gansynth_nnunet.dataset import NnunetRoot
from gansynth_nnunet.intake import NnunetIntake
from gansynth_nnunet.source import NnunetSource
from tests.adapters.nnunet.conftest import run_stock
from tests.banks import write_bank
from tests.conftest import Toy, content, crop_samples
from tests.expected import raises_fault
from tests.producers import forked_producers

MIXED, ALONE, AGAIN = "Dataset510_Plus", "Dataset511_Alone", "Dataset512_Alone"
# nnU-Net and torch warn of each other's deprecations; which ones is not ours to say.
pytestmark = pytest.mark.filterwarnings("ignore")


@dataclass(frozen=True)
class Exports:
    """Exports of a bank of eight samples, and what there is then."""

    toy: Toy
    configuration: str
    bank: Path

    def __call__(self, name, *, ratio="1:2", content="mixed", **place):
        place = {"configuration": self.configuration, **place}
        words = {"bank": self.bank, "export": name, "content": content}
        request = AugmentRequest(target="nnunet", ratio=ratio, **words)
        return Session.of(request, NnunetSource(self.toy.request(**place))).export()

    @property
    def mixed(self) -> Path:
        return Path(self.toy.preprocessed.with_name(MIXED))

    @property
    def alone(self) -> Path:
        return Path(self.toy.raw.with_name(ALONE))

    @property
    def data(self) -> Path:
        """Where the mixed data set has its cases."""
        return self.mixed / f"nnUNetPlans_{self.configuration}"

    @property
    def split(self) -> Any:
        """The real cases' fold."""
        return read(self.toy.preprocessed / "splits_final.json")[0]


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def nnunets(folder: Path) -> Any:
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    return nnUNetDatasetBlosc2(str(folder))


def there(toy: Toy) -> list[str]:
    """What nnU-Net could take for a data set, and folders that something is built in."""
    return sorted(p.name for p in toy.root.glob("nnUNet_*/*") if p.is_dir())


@pytest.fixture(scope="module", params=["3d_fullres", "2d"])
def exports(request, toy_nnunet, tmp_path_factory) -> Exports:
    """With a mixed data set, and two of the same samples alone. Export under other names only."""
    home = tmp_path_factory.mktemp("exports")
    toy = replace(toy_nnunet, root=shutil.copytree(toy_nnunet.root, home / "toy"))
    intake = NnunetIntake(NnunetSource(toy.request(configuration=request.param)), "nnunet")
    schema, lineage, pairs = intake.schema, lineage_of(intake.source), crop_samples(intake, 8)
    bank = write_bank(home / "bank", schema, lineage, pairs, real=())
    made = Exports(toy, request.param, bank)
    report = made(MIXED)
    assert report["synthetic_share"] == pytest.approx(2 / 3)
    assert report["then"] == f"nnUNetv2_train 510 {request.param} 0 -p gansynthSmallPlans"
    for name in (ALONE, AGAIN):
        made(name, content="synthetic")
    assert set(there(toy)) == {toy.dataset, MIXED, ALONE, AGAIN}
    return made


def test_a_synthetic_case_is_the_banks_sample_with_all_that_nnunet_notes(exports):
    reader = BankReader(exports.bank)
    sample: Any = reader.read(reader.ids()[0])
    data = nnunets(exports.data)
    image, labels, _, properties = data.load_case("synthetic_0001")
    assert np.array_equal(image[...], sample.image.astype(np.float32))
    assert np.array_equal(labels[...], sample.labels[None])
    real = data.load_case("p1_left")[3]
    # What nnU-Net's readers add differs by reader.
    assert {k for k in real if not k.endswith("_stuff")} <= set(properties)
    assert set(properties["class_locations"]) == set(real["class_locations"])
    assert (image[...].dtype, labels[...].dtype) == (np.float32, np.int16)
    alone: Any = nib.load(exports.alone / "labelsTr" / "synthetic_0001.nii.gz")
    assert (sample.labels < 0).any()  # outside, which becomes background
    assert np.array_equal(np.asarray(alone.dataobj).transpose(2, 1, 0), sample.labels.clip(0))
    assert alone.get_data_dtype() == np.uint8


def test_real_files_are_linked_or_else_copied(exports, monkeypatch):
    def refuse(*arguments: Any) -> None:
        raise PermissionError

    own = exports.toy.preprocessed / exports.data.name / "p1_left.pkl"
    assert (exports.data / own.name).samefile(own)
    monkeypatch.setattr(os, "link", refuse)
    copy = Path(exports("Dataset513_Copied")["folder"]) / exports.data.name / own.name
    assert not copy.samefile(own)
    assert copy.read_bytes() == own.read_bytes()


def test_the_mixed_data_set_has_what_nnunet_needs_and_only_what_there_are_data_of(exports):
    plans = read(exports.mixed / f"{exports.toy.plans}.json")
    assert plans["dataset_name"] == MIXED
    assert list(plans["configurations"]) == [exports.configuration]
    assert read(exports.mixed / "dataset.json")["numTraining"] == 12
    names = ("dataset", "dataset_fingerprint", "gansynth", "gansynthSmallPlans", "provenance")
    files = {f"{name}.json" for name in (*names, "splits_final")}
    found = {path.name for path in exports.mixed.iterdir()}
    assert found == {*files, "gt_segmentations", exports.data.name}
    report = exports("Dataset514_Only", ratio="0:1")  # for validation, held-out cases are there
    cases = {p.stem for p in Path(report["folder"]).glob("nnUNetPlans_*/*.pkl")}
    assert cases == {*exports.split["val"], *(f"synthetic_{n:04d}" for n in range(1, 9))}


def test_nothing_in_samples_alone_names_a_case_or_tells_a_time(exports, cheap_nnunet):
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    verify_dataset_integrity(str(exports.alone), 1)
    assert len(list((exports.alone / "imagesTr").iterdir())) == 16
    assert content(exports.alone) == content(exports.alone.with_name(AGAIN))
    for path in (p for p in exports.alone.rglob("*") if p.is_file()):
        data = path.read_bytes()
        text = gzip.decompress(data) if path.suffix == ".gz" else data
        named = [c for c in exports.split["train"] if c.encode() in text or c in path.name]
        assert named == [], path
    times = {p.stat().st_mtime for p in (exports.alone, *exports.alone.rglob("*"))}
    assert times == {TIME}
    packed = (exports.alone / "imagesTr" / "synthetic_0001_0000.nii.gz").read_bytes()
    assert packed[3:8] == bytes(5)  # gzip: no name, no time


@pytest.mark.parametrize("forward", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO"])
def test_axes_and_spacing_come_back_through_nnunets_readers(tmp_path, forward, reader):
    from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name

    volume, spacing = np.arange(24, dtype=np.float32).reshape(2, 3, 4), (3.0, 1.0, 2.0)
    order, affine = export.file_axes(spacing, forward)
    file = write_volume(tmp_path / "x.nii.gz", volume.transpose(order), affine)
    image, properties = recursive_find_reader_writer_by_name(reader)().read_images((str(file),))
    assert np.array_equal(image[0].transpose(forward), volume)
    assert [properties["spacing"][i] for i in forward] == pytest.approx(spacing)
    ours = export.case_properties(volume.astype(np.int16), [1, 2], spacing, forward)
    assert ours["spacing"] == pytest.approx(properties["spacing"])
    assert ours["shape_before_cropping"] == volume.shape


def test_units_come_back_and_outside_gets_what_nnunet_takes_for_outside(toy_nnunet):
    from nnunetv2.preprocessing.normalization.default_normalization_schemes import CTNormalization

    facts = {"mean": 50.0, "std": 20.0, "percentile_00_5": -10.0, "percentile_99_5": 120.0}
    units = np.linspace(-10, 120, 8, dtype=np.float32)  # Hounsfield's
    drawn = CTNormalization(False, facts).run(units.copy())
    assert export.denormalise(drawn, "CTNormalization", facts) == pytest.approx(units, abs=1e-3)
    far = np.array([99.0], np.float32)
    assert export.denormalise(far, "CTNormalization", facts) == 120
    host = NnunetSource(toy_nnunet.request())
    schemes, masks = ["CTNormalization", "ZScoreNormalization"], [False, False]
    host.config.update(normalization_schemes=schemes, use_mask_for_norm=masks)
    image = np.array([[[[5.0, 1.0, 2.0]]], [[[5.0, -3.0, 2.0]]]], np.float32)
    out = export.in_own_units(host, image, np.array([[[-1, 0, 1]]], np.int16))
    assert (out[0, 0, 0, 0], out[1, 0, 0, 0]) == (0, -3)


def test_an_order_that_makes_no_data_set_is_refused(exports):
    before = there(exports.toy)
    for name, order, expected in (
        ("Hippo", {}, "nnunet.export-name-invalid"),
        ("Dataset520_New", {"ratio": "100:1"}, "nnunet.export-without-synthetic-cases"),
        ("Dataset520_New", {"fold": "all"}, "nnunet.export-holds-nothing-out"),
    ):
        with raises_fault(expected):
            exports(name, **order)
        assert there(exports.toy) == before


def test_an_exported_case_comes_back_from_the_exports_record(
    toy_copy, fitted, tmp_path, succeed, monkeypatch
):
    monkeypatch.setattr(ProducerSupervisor, "messages", lambda self: ("restarted",))
    run = Path(shutil.copytree(fitted, tmp_path / "run"))
    command = ("augment", "--target", "nnunet", *toy_copy.options, "--generator", run)
    asked = ("--device", "cpu", "--ratio", "2:1", "--seed", "3", "--export", "Dataset510_Plus")
    with forked_producers():
        result = succeed(*command, *asked, "--json")
    assert "restarted" in result.stderr
    report = json.loads(result.stdout)
    assert (report["synthetic_cases"], report["rejected"]) == (2, {})
    assert report["record"] == str(Path(report["folder"]) / "provenance.json")
    data = nnunets(Path(report["folder"]) / "nnUNetPlans_3d_fullres")
    image, labels, *_ = data.load_case("synthetic_0002")
    again: Any = replay(run, f"{report['record']}:synthetic_0002")
    assert again.provenance["seed"] == 3
    assert np.array_equal(again.image, image[...])
    assert np.array_equal(again.labels, labels[0])


STOCK = """
import sys
sys.modules["gansynth"] = None  # any import of it fails

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
"""


@pytest.mark.slow
def test_stock_nnunet_trains_and_validates_where_there_is_no_gansynth(exports, tmp_path):
    script, homes = tmp_path / "stock.py", NnunetRoot.find(exports.toy.root).variables()
    script.write_text(STOCK)
    place = ("510", exports.configuration, "0", "-p", exports.toy.plans)
    said = run_stock(sys.executable, script, *place, **homes)
    assert "This split has 12 training and 2 validation cases" in said
    assert "Mean Validation Dice" in said
