"""Synthetic cases alone, for sharing: valid for nnU-Net, and without a trace of the source."""

import gzip
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from gansynth.bank.reader import BankReader
from gansynth.evaluation.audit import audit_exported
from gansynth.sampling.sharing import TIME
from gansynth_nnunet import export_raw
from gansynth_nnunet.adapter import NnunetAdapter
from gansynth_nnunet.source import open_nnunet

NAME = "Dataset510_Plus"
# nnU-Net and torch warn of each other's deprecations; which ones is not ours to say.
pytestmark = pytest.mark.filterwarnings("ignore")


def read(path: Path) -> Any:
    return json.loads(path.read_text())


# -- synthetic alone -------------------------------------------------------------------------------


def names(folder: Path) -> list[str]:
    """Every file below a folder."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def texts(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, decompressed."""
    data = {name: (folder / name).read_bytes() for name in names(folder)}
    return {n: gzip.decompress(d) if n.endswith(".gz") else d for n, d in data.items()}


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_nnunet_finds_nothing_wrong_with_it(exports, cheap_nnunet, configuration):
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    exports(content="synthetic", configuration=configuration)
    verify_dataset_integrity(str(exports.raw), 1)
    assert (exports.there, exports.hidden) == ({NAME}, [])
    assert len(list((exports.raw / "imagesTr").iterdir())) == 16


def test_nothing_in_it_names_a_case_or_tells_a_time(exports, toy_copy):
    exports(content="synthetic")
    found = texts(exports.raw)
    cases = [c.encode() for c in read(toy_copy.preprocessed / "splits_final.json")[0]["train"]]
    assert [
        n for n, data in found.items() if any(c in data or c in n.encode() for c in cases)
    ] == []
    times = {p.stat().st_mtime for p in (exports.raw, *exports.raw.rglob("*"))}
    assert times == {TIME}
    packed = (exports.raw / "imagesTr" / "synthetic_0001_0000.nii.gz").read_bytes()
    assert packed[3:8] == bytes(5)  # gzip: no name, no time


def test_the_audit_finds_nothing_in_it(exports, frozen_bank, toy_copy):
    bank = frozen_bank(samples=8)
    exports(content="synthetic", bank=bank)
    source = open_nnunet(toy_copy.request())
    assert audit_exported(exports.raw, bank=bank, sources=source).findings == ()


def test_the_audit_finds_real_cases_in_a_mixed_data_set(exports, frozen_bank, toy_copy):
    bank = frozen_bank(samples=8)
    exports(bank=bank)
    source = open_nnunet(toy_copy.request())
    found = audit_exported(exports.mixed, bank=bank, sources=source).findings
    assert any(".b2nd: not read: " in line for line in found)
    assert any("names case 'p1_left'" in line for line in found)


def test_an_edit_that_names_a_case_is_not_handed_on(exports, frozen_bank):
    bank = frozen_bank(samples=8)
    spec = read(bank / "bank.json")
    (bank / "bank.json").write_text(json.dumps({**spec, "edits": ["flip", "paste:of=p1_left"]}))
    exports(content="synthetic", bank=bank)
    assert read(exports.raw / "gansynth.json")["edits"] == ["flip", "paste:of=?"]


def test_the_same_samples_make_the_same_bytes(exports, frozen_bank):
    bank = frozen_bank(samples=8)
    exports(content="synthetic", bank=bank)
    exports("Dataset511_Plus", content="synthetic", bank=bank)
    one, other = (exports.raw.with_name(f"Dataset{n}_Plus") for n in (510, 511))
    assert {p: (one / p).read_bytes() for p in names(one)} == {
        p: (other / p).read_bytes() for p in names(other)
    }


def test_labels_outside_become_background(exports, frozen_bank):
    bank = frozen_bank(samples=8)
    exports(content="synthetic", bank=bank)
    reader = BankReader(bank)
    sample = reader.read(reader.ids()[0])
    volume: Any = nib.load(exports.raw / "labelsTr" / "synthetic_0001.nii.gz")
    assert sample.labels is not None
    found = np.asarray(volume.dataobj).transpose(2, 1, 0)
    assert (sample.labels < 0).any()
    assert np.array_equal(found, np.maximum(sample.labels, 0))
    assert volume.get_data_dtype() == np.uint8


@pytest.mark.parametrize("forward", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO"])
def test_axes_and_spacing_come_back_through_nnunets_readers(tmp_path, forward, reader):
    from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name

    volume = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    spacing = (3.0, 1.0, 2.0)
    file = tmp_path / "x.nii.gz"
    file.write_bytes(export_raw.nifti(volume, spacing, forward))
    image, properties = recursive_find_reader_writer_by_name(reader)().read_images((str(file),))
    assert np.array_equal(image[0].transpose(forward), volume)
    assert [properties["spacing"][i] for i in forward] == pytest.approx(spacing)


def test_ct_comes_back_in_hounsfield_units():
    from nnunetv2.preprocessing.normalization.default_normalization_schemes import CTNormalization

    facts = {"mean": 50.0, "std": 20.0, "percentile_00_5": -10.0, "percentile_99_5": 120.0}
    units = np.linspace(-10, 120, 8, dtype=np.float32)
    drawn = CTNormalization(False, facts).run(units.copy())
    assert export_raw.denormalise(drawn, "CTNormalization", facts) == pytest.approx(units, abs=1e-3)
    far = np.array([99.0], np.float32)
    assert export_raw.denormalise(far, "CTNormalization", facts) == 120


def test_outside_gets_what_nnunet_takes_for_outside(toy_copy):
    adapter = NnunetAdapter(open_nnunet(toy_copy.request()))
    schemes, masks = ["CTNormalization", "ZScoreNormalization"], [False, False]
    adapter.host.config.update(normalization_schemes=schemes, use_mask_for_norm=masks)
    image = np.array([[[[5.0, 1.0, 2.0]]], [[[5.0, -3.0, 2.0]]]], np.float32)
    labels = np.array([[[-1, 0, 1]]], np.int16)
    out = export_raw.in_own_units(adapter.host, image, labels)
    assert (out[0, 0, 0, 0], out[1, 0, 0, 0]) == (0, -3)
