"""gansynth augment --target deepmedic -o DIR: folders that stock DeepMedic trains on by itself.

What every host's export has and refuses is in ``tests/adapters``.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from gansynth.bank.producer import ProducerConfig, run_producer
from gansynth.bank.reader import BankReader
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.resample import resample
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Sample
from gansynth.core.source import SourceRequest, lineage_of
from gansynth.core.space import Placement, Space
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from gansynth.runtime.files import read_json
from gansynth.runtime.progress import NullReporter
from gansynth_deepmedic.adapter import DeepMedicAdapter
from gansynth_deepmedic.configs import read_train_config
from gansynth_deepmedic.insertion import MISSING, HostCase, insert
from gansynth_deepmedic.layout import read_host, training_cases
from gansynth_deepmedic.source import DeepMedicSource, open_deepmedic
from gansynth_evaluate.audit import audit_exported
from tests.banks import write_bank
from tests.conftest import content
from tests.deepmedic_sets import Toy, stored, toy_deepmedic


def opened(data: Toy, **read: str) -> DeepMedicSource:
    """Of which samples of 16 voxels along each axis are cut."""
    return data.source(read={"size": "16,16,16", **read})


def make_bank(
    folder: Path,
    source: DeepMedicSource,
    samples: int = 12,
    *,
    whole: bool = False,
    first: Callable[[Sample], Any] = lambda sample: 0,
) -> Path:
    """Real crops, or whole volumes, the i-th with i quarters added, sorted by ``first``."""
    rng, made = np.random.default_rng(1), []
    for number in range(samples):
        case = source.load(source.train_ids[number % len(source.train_ids)])
        place = Placement() if whole else source.space.place(case, rng)
        cut = case if whole else source.space.to_generator(case, place)
        shape = list(case.image.shape[1:])
        told = {"case": case.id, "placement": place.to_json(), "shape": shape, "index": number}
        image = (cut.image + (number + 1) / 4).astype(np.float32)
        made.append(Sample(image, cut.labels, None, told))
    pairs: Any = [(sample, {}) for sample in sorted(made, key=first)]
    how: dict[str, Any] = {"dtype": "float32", "samples": SampleRequest(seed=7)}
    return write_bank(folder, source.schema, lineage_of(source), pairs, **how)


def export(of: tuple[Toy, Path], out: Path, ratio: str = "1:2", **asked: Any) -> dict[str, Any]:
    """Export a data set with samples of a bank."""
    data, bank = of
    adapter = DeepMedicAdapter(opened(data, **asked.pop("read", {})))
    words = {"ratio": ratio, "bank": bank, "export": str(out), **asked}
    return dict(adapter.export(AugmentRequest(target="deepmedic", **words)))


def executed(path: Path) -> dict[str, Any]:
    """What DeepMedic makes of a configuration."""
    values: dict[str, Any] = {}
    exec(path.read_text(), values)
    del values["__builtins__"]
    return values


def set_in(home: Path, roi: bool = True) -> tuple[Toy, Path]:
    """Three cases to train on, and a bank of them."""
    data = toy_deepmedic(home / "set", train=3, val=1, roi=roi)
    return data, make_bank(home / "bank", opened(data))


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> tuple[Toy, Path]:
    return set_in(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def exported(toy, tmp_path_factory) -> Path:
    """Three real cases at 1:2: six synthetic ones."""
    out: Path = tmp_path_factory.mktemp("exported") / "out"
    export(toy, out)
    return out


def test_real_cases_stay_where_they_are_and_slots_follow(exported, toy):
    config, before = (read_train_config(p) for p in (exported / "train.cfg", toy[0].train))
    assert config.train[:3] == before.train
    assert [case.case for case in config.train[3:]] == [f"slot_{n:04d}" for n in range(6)]
    assert all(file.is_file() for case in config.train for file in case.everything)
    assert config.validation == before.validation
    assert (config.cases, config.segments % 9, config.segments % config.batch) == (9, 0, 0)


def test_slots_are_samples_in_their_real_cases_with_their_headers(exported, toy):
    data, bank = toy
    source, reader = opened(data), BankReader(bank)
    for number, sample_id in enumerate(reader.ids()[:6]):
        sample = reader.read(sample_id)
        case = source.host_case(sample.provenance["case"])
        wanted = insert(case, read_host(case), sample)
        assert wanted.core is not None
        files = {"flair": wanted.image[0], "t1c": wanted.image[1], "labels": wanted.labels}
        for name, array in {**files, "roi": wanted.core.astype(np.int16)}.items():
            path = exported / "synth" / f"slot_{number:04d}" / f"{name}.nii.gz"
            real, image = (nib.Nifti1Image.from_filename(p) for p in (case.labels, path))
            assert np.array_equal(stored(path), array)
            assert np.array_equal(image.affine, real.affine)
            assert image.get_data_dtype() == array.dtype
            assert image.header["descrip"].item() == b"gansynth synthetic"
            assert path.read_bytes()[4:8] == b"\0" * 4  # gzip's time


def test_the_manifest_says_what_every_subepoch_sees(exported, toy):
    told = read_json(exported / "provenance.json") | read_json(exported / "manifest.json")
    bank = BankReader(toy[1])
    assert (told["ratio"], told["realised"], told["seed"]) == ("1:2", "3:6", 7)
    assert told["cases_per_subepoch"] == {"real": 3, "synthetic": 6}
    assert told["segments_per_subepoch"] == {"real": 30, "synthetic": 60}
    assert read_train_config(exported / "train.cfg").segments == 90
    assert told["said"][0].startswith("numOfCasesLoadedPerSubepoch: 6 in the file, 9 now")
    slot, sample = told["slots"]["slot_0002"], bank.read(bank.ids()[2])
    assert slot["case"] == sample.provenance["case"]
    assert slot["corner"] == list(sample.provenance["placement"]["corner"])
    assert 0 < slot["share_of_voxels"] < 0.2
    assert slot["provenance"]["index"] == 2


def test_train_cfg_has_the_users_values_in_their_order_and_says_what_differs(exported, toy):
    data = toy[0]
    before, after = executed(data.train), executed(exported / "train.cfg")
    assert list(after) == list(before)
    changed: dict[str, Any] = {
        "namesForPredictionsPerCaseVal": str(exported / "validation_names.cfg"),
        "folderForOutput": str(exported / "output"),
        "numOfCasesLoadedPerSubepoch": 9,
        "numberTrainingSegmentsLoadedOnGpuPerSubep": 90,
    }
    for part, lists in (("Training", "list"), ("Validation", "validation")):
        images = [str(exported / f"{lists}_{channel}.cfg") for channel in ("flair", "t1c")]
        changed |= {f"channels{part}": images}
        changed |= {f"gtLabels{part}": str(exported / f"{lists}_labels.cfg")}
        changed |= {f"roiMasks{part}": str(exported / f"{lists}_roi.cfg")}
    differing = {key: value for key, value in after.items() if before[key] != value}
    assert differing == changed
    comment = (exported / "train.cfg").read_text().partition("\nsession")[0]
    said = {line[4:].partition(":")[0] for line in comment.splitlines() if line[3:4] == " "}
    assert said == set(read_json(exported / "manifest.json")["changed"]) == {*changed}


def test_an_export_is_not_to_be_shared_and_no_data_for_a_generator(exported, toy):
    data, bank = toy
    found = audit_exported(exported, bank=bank, sources=opened(data)).findings
    lines = [line for line in found if line.startswith("list_flair.cfg")]
    assert any("holds a path" in line for line in lines)
    assert any(f"names case '{opened(data).train_ids[0]}'" in line for line in lines)
    with pytest.raises(IntegrityFault, match="made by gansynth, expected a real case"):
        open_deepmedic(SourceRequest("deepmedic", str(exported / "train.cfg")))


MAPS = {"weightedMapsForSamplingEachCategoryTrain": ["./map_0.cfg"]}
SCORES = {"norm_zscore_prms": {"apply_to_all_channels": True}}


@pytest.mark.parametrize(
    ("asked", "values", "says"),
    [
        ({"content": "synthetic"}, {}, "expected mixed"),
        ({}, MAPS, f"{next(iter(MAPS))} is set, so DeepMedic .*; expected sampling by labels"),
        ({"read": {"modality": "none"}}, SCORES, "norm_zscore_prms is set, so DeepMedic"),
    ],
)
def test_orders_that_make_no_data_set_are_refused(toy, tmp_path, asked, values, says):
    data, bank = toy
    data = toy_deepmedic(tmp_path / "set", train=3, val=1, values=values)
    with pytest.raises((UsageFault, DataFault), match=says):
        export((data, bank), tmp_path / "out", "1:1", **asked)
    assert not (tmp_path / "out").exists()


@pytest.mark.fault(29)
def test_a_generator_fills_the_folder_and_a_stopped_export_goes_on(
    crop_run, shared_deepmedic, tmp_path, monkeypatch
):
    out, kept = tmp_path / "out", dict[str, int]()
    asked = {"target": "deepmedic", "generator": crop_run, "ratio": "1:1", "seed": 3}
    request = AugmentRequest(**asked, export=str(out), real_in_generator_space=True)
    adapter = DeepMedicAdapter(opened(shared_deepmedic))

    def fill(config: ProducerConfig, *_: Any, **__: Any) -> BankReader:
        run_producer(config, lambda: False)  # in this process
        return BankReader(config.bank)

    def stop(*arguments: Any, **named: Any) -> Any:
        raise DataFault("stopped")

    def samples() -> dict[str, int]:
        return {str(p): p.stat().st_mtime_ns for p in tmp_path.glob(".*/bank/sample-*")}

    def look(*arguments: Any) -> Any:
        kept.update(samples())
        return training_cases(*arguments)

    monkeypatch.setattr("gansynth.bank.api.fill", fill)
    monkeypatch.setattr("os.nice", lambda by: 0)
    with monkeypatch.context() as patch:
        patch.setattr("gansynth_deepmedic.export.write_layout", stop)
        with pytest.raises(DataFault, match="stopped"):
            adapter.export(request)
    made = samples()
    monkeypatch.setattr("gansynth_deepmedic.export.training_cases", look)
    report = adapter.export(request)
    assert kept == made != {}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (report["realised"], report["real_in_generator_space"]) == ("4:4", True)
    config = read_train_config(out / "train.cfg")
    homes = [out / "real" / f"case_{n:04d}" for n in range(4)]
    assert [case.labels.parent for case in config.train[:4]] == homes
    assert all(file.is_file() for case in config.train for file in case.everything)


def test_without_regions_of_interest_real_cases_get_all_of_themselves(tmp_path):
    """In a folder whose name has every odd sign, too; but for one that no list can name."""
    home = tmp_path / 'it\'s "here" ü #1'
    home.mkdir()
    bare, out = set_in(home, roi=False), home / "out"
    with pytest.raises(UsageFault, match="one path per line"):
        export(bare, tmp_path / "two\nlines")
    told = export(bare, out)
    config = read_train_config(out / "train.cfg")
    for case in config.train[:3]:
        region = stored(str(case.roi))
        assert (region.shape, region.dtype.name) == (stored(case.labels).shape, "int16")
        assert region.all()
    for case in config.train[3:]:
        assert 0 < stored(str(case.roi)).mean() < 0.2
    assert "roiMasksTraining" in told["changed"]
    assert (out / "train.cfg").read_bytes().isascii()
    assert executed(out / "train.cfg")["roiMasksTraining"] == str(out / "list_roi.cfg")


def test_a_table_becomes_lists(tmp_path):
    data = toy_deepmedic(tmp_path / "set", train=2, val=1, roi=False)
    rows = ["channel_labels,channel_ä b,ground_truth"]
    for home in ("./data/pat_00", "./data/pat_01"):
        rows.append(",".join(f"{home}/{name}.nii.gz" for name in ("t1c", "flair", "labels")))
    (data.folder / "train.csv").write_text("\n".join(rows))
    lists = {"dataframe_train": "./train.csv", "roiMasksTraining": "./unused.cfg"}
    data.change(**lists)
    export((data, make_bank(tmp_path / "bank", opened(data), 2, whole=True)), tmp_path / "o", "1:1")
    train = tmp_path / "o" / "train.cfg"
    assert {executed(train)[key] for key in lists} == {None}
    found = [case.channels for case in read_train_config(train).train[:2]]
    assert found == [case.channels for case in read_train_config(data.train).train]
    names = [Path(path).name for path in executed(train)["channelsTraining"]]
    assert names == ["list_channel_0.cfg", "list_b.cfg"]  # `labels` is another list's name


def test_a_sample_that_leaves_no_segment_is_left_out(tmp_path):
    def lesion(sample: Any) -> bool:
        """Whether a lesion is where a sample is wholly its own."""
        return bool((sample.labels[4:-4, 4:-4, 4:-4] > 0).any())

    values: dict[str, Any] = {"typeOfSamplingForTraining": 0}
    values["proportionOfSamplesToExtractPerCategoryTraining"] = [1.0, 0.0]
    data = toy_deepmedic(tmp_path / "set", train=2, val=1, values=values)
    # Crops without lesion hold no centre where only the foreground is sampled.
    bank = make_bank(tmp_path / "bank", opened(data), 12, first=lesion)
    reader = BankReader(bank)
    bare = sum(not lesion(reader.read(sample_id)) for sample_id in reader.ids())
    assert 0 < bare < 9
    told = export((data, bank), tmp_path / "out", "1:2")
    assert told["left_out"] == {"leaves no place for a segment": bare}
    slots = read_json(tmp_path / "out" / "manifest.json")["slots"].values()
    assert [slot["sample"] for slot in slots] == reader.ids()[bare : bare + 4]
    with pytest.raises(DataFault, match=rf"{12 - bare} of 12 samples .* {bare} leaves no place"):
        export((data, bank), tmp_path / "more", "1:6")
    assert not (tmp_path / "more").exists()


CASES: Mapping[str, dict[str, Any]] = {
    "roi": {},
    "bare": {"roi": False},
    "uniform": {"values": {"typeOfSamplingForTraining": 1}},
    "foreground": {"values": {"typeOfSamplingForTraining": 0}},
}


@pytest.mark.deepmedic
@pytest.mark.parametrize("name", CASES)
def test_stock_deepmedic_sees_the_ratio_in_every_subepoch(tmp_path, name):
    data = toy_deepmedic(tmp_path / "set", **CASES[name])
    bank, out = make_bank(tmp_path / "bank", opened(data)), tmp_path / "out"
    told = export((data, bank), out, read={"model": str(data.model)})
    checkout = os.environ["GANSYNTH_DEEPMEDIC"]
    python = os.environ.get("GANSYNTH_DEEPMEDIC_PYTHON", sys.executable)
    words = (f"{checkout}/deepMedicRun", "-model", data.model, "-train", out / "train.cfg")
    log = subprocess.run(
        [python, *map(str, words), "-dev", "cpu"],
        env={**os.environ, "PYTHONPATH": checkout},
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    if "get_data() is deprecated" in log:
        pytest.skip("GANSYNTH_DEEPMEDIC_PYTHON has nibabel 5, which stock DeepMedic does not know")
    assert "ERROR" not in log, log[-3000:]
    paths = re.findall(r"\[TRA\|JOB.*Loading subject with 1st channel at: (.*)", log)
    found = re.findall(r"\[TRA\|JOB.*Samples per category: (.*)", log)
    counts = [sum(map(int, re.findall(r": (\d+)/\d+\]", line))) for line in found]
    assert set(counts) == {sum(told["segments_per_subepoch"].values()) // 12}
    assert len(paths) == len(counts) == 3 * 12
    for subepoch in range(3):
        part = paths[12 * subepoch :][:12]
        assert sorted(part) == sorted((out / "list_flair.cfg").read_text().split())
        assert sum("slot_" in path for path in part) == 8
    assert len(list((out / "output" / "saved_models").rglob("*.final.*.index"))) == 1


# -- real cases through a generator's space -------------------------------------------------------

TURNED = np.array([[0, 0, 2.0, 5], [-1, 0, 0, 7], [0, 3, 0, 1], [0, 0, 0, 1]])
"""Axes of the files that are none of gansynth's."""
WINDOW = ((-0.5, 1.0), (-1.0, 2.0))
CROP = Space("crop", (8, 8, 8), window=WINDOW)
Pairs = list[tuple[HostCase, HostCase]]


@pytest.fixture(scope="module")
def brought(tmp_path_factory) -> Callable[..., tuple[DeepMedicSource, Pairs]]:
    """Cases that were written through a space, each with the one it was made of."""
    folder = tmp_path_factory.mktemp("data")
    toy = toy_deepmedic(folder, train=2, val=1, shape=(20, 16, 14), affine=TURNED)
    (folder / "training_t1c.cfg").write_text("./data/pat_00/t1c.nii.gz\n-\n")

    def bring(out: Path, space: Space | None, **read: str) -> tuple[DeepMedicSource, Pairs]:
        source, before = toy.source(read=read), content(folder)
        run = SimpleNamespace(space=space or source.space)
        request: Any = SimpleNamespace(real_in_generator_space=True, run=run)
        cases = training_cases(source, request, out, NullReporter())
        assert content(folder) == before
        return source, [(case, source.host_case(case.id)) for case in cases]

    return bring


def test_of_crops_only_the_window_counts(brought, tmp_path):
    for case, original in brought(tmp_path, CROP)[1]:
        for (low, high), new, old in zip(WINDOW, case.channels, original.channels, strict=True):
            assert (new == MISSING) == (old == MISSING)
            if old != MISSING:
                np.testing.assert_allclose(stored(new), stored(old).clip(low, high), atol=1e-6)
                assert stored(old).max() > high
                assert stored(new).dtype == np.float32
        assert np.array_equal(stored(case.labels), stored(original.labels))
        assert np.array_equal(stored(case.roi), stored(original.roi))
        bare = [replace(one, channels=(), labels="", roi="") for one in (case, original)]
        assert bare[0] == bare[1]
    names = sorted(path.name for path in (tmp_path / "real").iterdir())
    assert names == ["case_0000", "case_0001", "real.json"]


def test_whole_volumes_go_to_the_generators_shape_and_back(brought, tmp_path):
    source, pairs = brought(tmp_path, Space("resample", (7, 8, 10), pad_label=-1))
    for case, original in pairs:
        seen = source.load(case.id)
        image, labels = resample(*resample(seen.image, seen.labels, (7, 8, 10)), case.shape)
        for number, file in enumerate(case.channels):
            if file != MISSING:
                np.testing.assert_allclose(case.view(stored(file)), image[number], atol=1e-5)
        found, before = case.view(stored(case.labels)), case.view(stored(original.labels))
        assert np.array_equal(found, np.where(labels != -1, labels, before))
        assert not np.array_equal(found, before)
        assert np.array_equal(stored(case.roi), stored(original.roi))
        assert (stored(original.roi) == 0).any()


def test_what_is_there_of_the_same_order_is_taken_and_else_written_anew(brought, tmp_path):
    first = brought(tmp_path, CROP)[1]
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "real").rglob("*")}
    assert brought(tmp_path, replace(CROP, size=(4, 4, 4)))[1] == first
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "real").rglob("*")} == times
    case, old = brought(tmp_path, replace(CROP, window=((-9.0, 9.0),) * 2))[1][0]
    np.testing.assert_allclose(stored(case.channels[0]), stored(old.channels[0]), atol=1e-5)


def test_of_a_frame_the_middle_goes_through_the_space_and_the_rest_stays(brought, tmp_path):
    read = {"frame": "10,10,10", "whole": "5,5,5", "resampling": "nearest"}
    source, ((new, case), _) = brought(tmp_path, None, **read)
    before, after = (case.view(stored(c.channels[0])) for c in (case, new))
    there = tuple(slice(n, n + 10) for n in source.space.frame_corner(case.shape))
    beyond = np.ones(case.shape, bool)
    beyond[there] = False
    assert np.array_equal(after[beyond], before[beyond])
    middle = after[there]
    assert not np.array_equal(middle, before[there])
    # Twice the nearest voxel: blocks of two alike along each axis.
    assert np.array_equal(middle[::2], middle[1::2])
    assert set(np.unique(middle)) <= set(np.unique(before))
