import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth import replay
from gansynth.core.mix_config import MixerConfig
from gansynth.core.ratio import Ratio
from gansynth_nnunet.mixed import MixedNnunetDataset, decode, encode, location_keys
from gansynth_nnunet.source import open_nnunet

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def real(toy_nnunet):
    """nnU-Net's own data set of the fold's training cases."""
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    source = open_nnunet(toy_nnunet.request())
    return nnUNetDatasetBlosc2(str(source.folder), list(source.train_ids))


def mix(real: Any, bank: Path, p: float, keys: Any = (), **plan: Any) -> MixedNnunetDataset:
    """Real cases (two channels) with the share p of a bank's samples, in batches of two."""
    told: MixerConfig[str] = MixerConfig(bank, Ratio(1 - p, p), **plan)
    return MixedNnunetDataset(real, told, 2, 2, keys)


def draw(mixed: MixedNnunetDataset, times: int) -> list[Any]:
    return [mixed.load_case(mixed.identifiers[i % len(mixed.identifiers)]) for i in range(times)]


def test_everything_else_is_the_real_data_sets(real, frozen_bank):
    mixed = mix(real, frozen_bank(), 0)
    image, *_, properties = mixed[real.identifiers[1]]
    assert np.array_equal(image[:], real.load_case(real.identifiers[1])[0][:])
    assert "spacing" in properties
    assert mixed.source_folder == real.source_folder
    assert mixed.identifiers is real.identifiers
    assert not hasattr(mixed, "no_such_thing")


def test_locations_come_back_for_regions_and_the_ignore_label():
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    names = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    keys = location_keys(LabelManager(names, regions_class_order=[1, 2]))
    labels = np.random.default_rng(0).integers(-1, 3, (9, 8, 7)).astype(np.int16)
    absent = (5,)
    found = decode(encode(labels, (*keys, absent)), (*keys, absent))
    assert set(found) == {(1, 2), 2, (-1, 0, 1, 2), absent}
    assert len(found.pop(absent)) == 0
    for key, voxels in found.items():
        assert (voxels[:, 0] == 0).all()
        drawn = labels[tuple(voxels[:, 1:].T)]
        assert set(drawn.tolist()) == set(key if isinstance(key, tuple) else (key,))


def test_an_exported_case_comes_back_from_the_exports_record(toy_copy, fitted, tmp_path, run_cli):
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    run = Path(shutil.copytree(fitted, tmp_path / "run"))
    command = ("augment", "--target", "nnunet", *toy_copy.options, "--generator", run)
    asked = ("--device", "cpu", "--ratio", "2:1", "--seed", "3", "--export", "Dataset510_Plus")
    result = run_cli(*command, *asked, "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["synthetic_cases"], report["rejected"]) == (2, {})
    assert report["record"] == str(Path(report["folder"]) / "provenance.json")
    data = nnUNetDatasetBlosc2(str(Path(report["folder"]) / "nnUNetPlans_3d_fullres"))
    for name in ("synthetic_0001", "synthetic_0002"):
        image, labels, *_ = data.load_case(name)
        again: Any = replay(run, f"{report['record']}:{name}")
        assert again.provenance["seed"] == 3
        assert np.array_equal(again.image, image[...])
        assert np.array_equal(again.labels, labels[0])
