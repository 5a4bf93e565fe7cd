"""Where DeepMedic takes segments of exported cases; stock DeepMedic does."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gansynth.bank.reader import BankReader
from gansynth.runtime.errors import DataFault
from gansynth_deepmedic.configs import read_model_config, read_train_config
from gansynth_deepmedic.weights import SamplingMaps
from tests.adapters.deepmedic.exports import (
    MAPS,
    NORMALISED,
    export,
    listed,
    make_bank,
    manifest_of,
    opened,
    stored,
)
from tests.deepmedic_sets import Toy, toy_deepmedic

# -- where segments are taken ----------------------------------------------------------------------


def test_without_regions_of_interest_real_cases_get_all_of_themselves(sets, tmp_path):
    data, bank = sets.get("bare")
    told = export((data, bank), tmp_path / "out")
    rois = listed(tmp_path / "out", "roi")
    config = read_train_config(tmp_path / "out" / "train.cfg")
    for case, roi in list(zip(config.train, rois, strict=True))[:3]:
        assert case.labels is not None
        region = stored(roi)
        assert region.shape == stored(case.labels).shape
        assert region.dtype == np.int16
        assert region.all()
    for case in config.train[3:]:
        assert 0 < stored(str(case.roi)).mean() < 0.2
    assert "roiMasksTraining" in told["changed"]


def test_whole_volumes_are_sampled_everywhere(tmp_path):
    data = toy_deepmedic(tmp_path / "set", train=2, val=1, roi=False)
    bank = make_bank(tmp_path / "bank", opened(data), 2, whole=True)
    told = export((data, bank), tmp_path / "out", "1:1")
    assert "anywhere" in told["segments_of"]
    assert not (tmp_path / "out" / "list_roi.cfg").exists()
    assert "roiMasksTraining" not in (tmp_path / "out" / "train.cfg").read_text()


def test_where_deepmedic_normalises_maps_restrict_and_regions_stay(sets, tmp_path):
    data, bank = sets.get("normalised")
    out, source = tmp_path / "out", opened(sets.get("normalised")[0])
    export((data, bank), out, read={"model": str(data.model)})
    config = read_train_config(out / "train.cfg")
    maps = [[stored(p) for p in listed(out, f"map_{n}")] for n in range(3)]
    assert config.values[MAPS] == [str(out / f"list_map_{n}.cfg") for n in range(3)]
    for number, case in enumerate(config.train):
        labels, region = stored(str(case.labels)), stored(str(case.roi))
        for value in range(3):
            derived = (labels == value) & (region > 0)  # what DeepMedic does without maps
            if number < 3:
                assert np.array_equal(maps[value][number], derived)
            else:
                assert np.array_equal(maps[value][number] > 0, derived & _core(out, number - 3))
    for number, slot in enumerate(manifest_of(out)["slots"].values()):
        region = stored(str(config.train[3 + number].roi))
        assert np.array_equal(region, stored(str(source.listed(slot["case"]).roi)))


def _core(out: Path, number: int) -> npt.NDArray[np.bool_]:
    maps = [stored(listed(out, f"map_{n}")[3 + number]) for n in range(3)]
    core: npt.NDArray[np.bool_] = np.sum(maps, axis=0) > 0
    assert 0 < core.mean() < 0.2
    return core


def test_maps_turn_with_the_label_maps(tmp_path, sets):
    turned = {"augm_img_prms_tr": {"affine": {"prob": 0.5}}}
    data = toy_deepmedic(tmp_path / "set", train=3, val=1, values={**NORMALISED, **turned})
    bank = make_bank(tmp_path / "bank", opened(data), 3)
    told = export((data, bank), tmp_path / "out", "1:1")
    config = read_train_config(tmp_path / "out" / "train.cfg")
    affine = {"prob": 0.5, "interp_order_wmaps": 0}
    assert config.values["augm_img_prms_tr"] == {"affine": affine}
    assert "numberOfOutputClasses" in told["said"][-1]


@pytest.mark.parametrize(("kind", "categories"), [(0, 2), (1, 1), (2, 1), (3, 4)])
def test_maps_of_every_type_of_sampling(kind, categories):
    labels = np.arange(4, dtype=np.int16).repeat(2).reshape(2, 2, 2)
    region = np.array([0, 2] * 4, np.int16).reshape(2, 2, 2)
    own = SamplingMaps(kind, categories, (True,) * categories, pad=True)
    found = [m.ravel().tolist() for m in own.maps(labels, region)]
    wanted = {
        0: [[0, 0, 0, 1, 0, 1, 0, 1], [0, 1, 0, 0, 0, 0, 0, 0]],
        1: [[0, 2] * 4],
        2: [[0, 2] * 4],
        3: [[int(n == 2 * value + 1) for n in range(8)] for value in range(4)],
    }
    assert found == wanted[kind]


def test_a_sample_that_leaves_no_segment_is_left_out(tmp_path):
    values: dict[str, Any] = {"typeOfSamplingForTraining": 0}
    values["proportionOfSamplesToExtractPerCategoryTraining"] = [1.0, 0.0]
    data = toy_deepmedic(tmp_path / "set", train=2, val=1, values=values)
    # Crops without lesion hold no centre where only the foreground is sampled.
    bank = make_bank(tmp_path / "bank", opened(data), 12, first=_lesion)
    reader = BankReader(bank)
    bare = sum(not _lesion(reader.read(sample_id)) for sample_id in reader.ids())
    told = export((data, bank), tmp_path / "out", "1:2")
    assert 0 < bare < 9
    assert told["left_out"] == {"leaves no place for a segment": bare}
    samples = [slot["sample"] for slot in manifest_of(tmp_path / "out")["slots"].values()]
    assert samples == reader.ids()[bare : bare + 4]
    with pytest.raises(DataFault, match=rf"{12 - bare} of 12 samples .* {bare} leaves no place"):
        export((data, bank), tmp_path / "more", "1:6")
    assert not (tmp_path / "more").exists()


def _lesion(sample: Any) -> bool:
    """Whether a lesion is where a sample is wholly its own."""
    return bool((sample.labels[4:-4, 4:-4, 4:-4] > 0).any())


@pytest.mark.parametrize("pad", [True, False], ids=["padded", "plain"])
def test_segments_are_centred_as_far_from_the_border_as_deepmedic_wants(toy_model, pad):
    config = replace(toy_model[0], pad=pad)
    shape = (20, 20, 20)
    labels, region = np.zeros(shape, np.int16), np.ones(shape, np.int16)
    centres = SamplingMaps.of(config, (0, 1, 2), toy_model[1]).centres(labels, region)
    border = 3 if pad else 6  # segments of 13 voxels, of which 3 on each side are padded
    wanted = np.zeros(shape, bool)
    wanted[(slice(border, -border),) * 3] = True
    assert np.array_equal(centres, wanted)
    maps = SamplingMaps.of(config, (0, 1, 2))
    centres = np.zeros(shape, bool)
    centres[8, 9, 3] = True
    assert maps.largest(centres) == 7


@pytest.fixture
def toy_model(sets):
    data, _ = sets.get("roi")
    return read_train_config(data.train), read_model_config(data.model)


# -- stock DeepMedic -------------------------------------------------------------------------------

CASES: Mapping[str, dict[str, Any]] = {
    "roi": {},
    "bare": {"roi": False},
    "normalised": {"values": {**NORMALISED, "augm_img_prms_tr": {"affine": {"prob": 0.5}}}},
    "uniform": {"values": {"typeOfSamplingForTraining": 1}},
    "foreground": {"values": {"typeOfSamplingForTraining": 0, **NORMALISED}},
}


@pytest.mark.deepmedic
@pytest.mark.parametrize("name", CASES)
def test_stock_deepmedic_sees_the_ratio_in_every_subepoch(tmp_path, name):
    data = toy_deepmedic(tmp_path / "set", **CASES[name])
    bank = make_bank(tmp_path / "bank", opened(data))
    told = export((data, bank), tmp_path / "out", read={"model": str(data.model)})
    log = trained(data, tmp_path / "out" / "train.cfg")
    paths = re.findall(r"\[TRA\|JOB.*Loading subject with 1st channel at: (.*)", log)
    counts = [
        sum(map(int, re.findall(r": (\d+)/\d+\]", line)))
        for line in re.findall(r"\[TRA\|JOB.*Samples per category: (.*)", log)
    ]
    assert len(paths) == len(counts) == 3 * 12
    for subepoch in range(3):
        part = slice(12 * subepoch, 12 * subepoch + 12)
        assert sorted(paths[part]) == sorted(listed(tmp_path / "out", "flair"))
        assert sum("slot_" in path for path in paths[part]) == 8
        assert set(counts[part]) == {sum(told["segments_per_subepoch"].values()) // 12}
    final = list((tmp_path / "out" / "output" / "saved_models").rglob("*.final.*.index"))
    assert len(final) == 1


def trained(data: Toy, config: Path) -> str:
    """What DeepMedic, unmodified, says of a training."""
    checkout = Path(os.environ["GANSYNTH_DEEPMEDIC"])
    python = os.environ.get("GANSYNTH_DEEPMEDIC_PYTHON", sys.executable)
    line: list[str | Path] = [
        python,
        checkout / "deepMedicRun",
        "-model",
        data.model,
        "-train",
        config,
    ]
    environ = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [*line, "-dev", "cpu"], env=environ, cwd=data.folder, capture_output=True, text=True,
        timeout=600,
    )  # fmt: skip
    if "get_data() is deprecated" in done.stdout:
        pytest.skip("GANSYNTH_DEEPMEDIC_PYTHON has nibabel 5, which stock DeepMedic does not know")
    assert "ERROR" not in done.stdout, done.stdout[-3000:]
    return str(done.stdout)
