import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from gansynth.bank.reader import BankReader
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.resample import resample
from gansynth.core.source import SourceRequest
from gansynth.core.space import Space
from gansynth.hosts.contract.session import Session
from gansynth.runtime.errors import DataFault
from gansynth.runtime.files import read_json
from gansynth.runtime.progress import NullReporter
from gansynth_deepmedic.configs import MAPS, SCORES, SHARES, read_train_config
from gansynth_deepmedic.insertion import MISSING, insert
from gansynth_deepmedic.layout import read_host, training_cases
from gansynth_deepmedic.program import find_program
from gansynth_deepmedic.source import open_deepmedic
from gansynth_evaluate.audit import audit_exported
from tests.adapters.deepmedic.conftest import write_crops
from tests.deepmedic_sets import Toy, stored, toy_deepmedic
from tests.dividing import state
from tests.expected import raises_fault
from tests.producers import forked_producers


def export(data: Toy, bank: Path, out: Path, ratio: str = "1:2", **asked: Any) -> dict[str, Any]:
    source = data.source(read=asked.pop("read", {}))
    words = {"ratio": ratio, "bank": bank, "export": str(out), **asked}
    return dict(Session.of(AugmentRequest(target="deepmedic", **words), source).export())


def executed(path: Path) -> dict[str, Any]:
    """What DeepMedic makes of a configuration."""
    values: dict[str, Any] = {}
    exec(path.read_text(), values)
    del values["__builtins__"]
    return values


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Toy:
    """Three cases to train on, and a bank of them, and what was exported at 1:2, beside it."""
    home = tmp_path_factory.mktemp("toy")
    data = toy_deepmedic(home / "set", train=3, val=1)
    export(data, write_crops(home / "bank", data, 12), home / "out")
    return data


@pytest.fixture
def bank(toy) -> Path:
    found: Path = toy.folder.with_name("bank")
    return found


@pytest.fixture
def exported(toy) -> Path:
    found: Path = toy.folder.with_name("out")
    return found


def test_slots_are_samples_in_their_real_cases_with_their_headers(exported, toy, bank):
    source, reader = toy.source(), BankReader(bank)
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


def test_the_manifest_says_what_every_subepoch_sees(exported, bank):
    told = read_json(exported / "provenance.json") | read_json(exported / "manifest.json")
    reader = BankReader(bank)
    assert (told["ratio"], told["realised"]) == ("1:2", "3:6")
    assert told["cases_per_subepoch"] == {"real": 3, "synthetic": 6}
    assert told["segments_per_subepoch"] == {"real": 30, "synthetic": 60}
    assert told["said"][0].startswith("numOfCasesLoadedPerSubepoch: 6 in the file, 9 now")
    slot, sample = told["slots"]["slot_0002"], reader.read(reader.ids()[2])
    assert (slot["case"], slot["sample"]) == (sample.provenance["case"], reader.ids()[2])
    assert slot["corner"] == list(sample.provenance["placement"]["corner"])
    assert slot["provenance"]["shape"] == list(sample.provenance["shape"])
    assert 0 < slot["share_of_voxels"] < 0.2


def test_train_cfg_has_the_users_values_in_their_order_and_says_what_differs(exported, toy):
    before, after = executed(toy.train), executed(exported / "train.cfg")
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
    assert {key: value for key, value in after.items() if before[key] != value} == changed
    comment = (exported / "train.cfg").read_text().partition("\nsession")[0]
    said = {line[4:].partition(":")[0] for line in comment.splitlines() if line[3:4] == " "}
    assert said == set(read_json(exported / "manifest.json")["changed"]) == {*changed}
    # Real cases stay where they are, and slots follow.
    config, user = (read_train_config(p) for p in (exported / "train.cfg", toy.train))
    assert (config.train[:3], config.validation) == (user.train, user.validation)
    assert [case.case for case in config.train[3:]] == [f"slot_{n:04d}" for n in range(6)]


def test_an_export_is_not_to_be_shared_and_no_data_for_a_generator(exported, toy, bank):
    found = audit_exported(exported, bank=bank, sources=toy.source()).findings
    for says in ("holds a path", "names case 'pat_00'"):
        assert any(line.startswith("list_flair.cfg") and says in line for line in found)
    with raises_fault("synthetic.case-made-by-gansynth"):
        open_deepmedic(SourceRequest("deepmedic", str(exported / "train.cfg")))


@pytest.mark.parametrize(
    ("asked", "values", "expected", "names"),
    [
        ({"content": "synthetic"}, {}, "deepmedic.synthetic-cases-disclose-real", "mixed"),
        ({}, {MAPS: ["./map_0.cfg"]}, "deepmedic.sampling-unusable-key", MAPS),
        ({"read": {"modality": "none"}}, {SCORES: {"apply_to_all_channels": True}},
         "deepmedic.sampling-unusable-key", SCORES),
    ],
    ids=["content", "maps", "scores"],
)  # fmt: skip
def test_orders_that_make_no_data_set_are_refused(
    toy, bank, tmp_path, asked, values, expected, names
):
    data = toy.copied(tmp_path / "set")
    data.change(**values)
    with raises_fault(expected, names=names):
        export(data, bank, tmp_path / "out", **asked)
    assert not (tmp_path / "out").exists()


@pytest.mark.fault(29)
def test_a_generator_fills_the_folder_and_a_stopped_export_goes_on(
    crop_run, shared_deepmedic, tmp_path, monkeypatch
):
    def stop(*_: Any, **__: Any) -> None:
        raise DataFault("test.fault", "stopped")

    def samples() -> dict[str, int]:
        return {str(p): p.stat().st_mtime_ns for p in tmp_path.glob(".*/bank/sample-*")}

    def look(*given: Any) -> Any:
        kept.append(samples())
        return training_cases(*given)

    kept, out = list[dict[str, int]](), tmp_path / "out"
    how: dict[str, Any] = {"generator": crop_run, "seed": 3, "real_in_generator_space": True}
    asked: Any = (shared_deepmedic, None, out, "1:1")
    with monkeypatch.context() as patch, forked_producers():
        patch.setattr("gansynth_deepmedic.export.write_layout", stop)
        with raises_fault("test.fault"):
            export(*asked, **how)
    made = samples()
    monkeypatch.setattr("gansynth_deepmedic.export.training_cases", look)
    with forked_producers():
        report = export(*asked, **how)
    assert kept == [made] != [{}]
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
    data, out = toy_deepmedic(home / "set", train=3, val=1, roi=False), home / "out"
    bank = write_crops(home / "bank", data)
    with raises_fault("deepmedic.path-not-listable"):
        export(data, bank, tmp_path / "two\nlines")
    told = export(data, bank, out)
    config = read_train_config(out / "train.cfg")
    for case in config.train[:3]:
        region = stored(str(case.roi))
        assert (region.shape, region.dtype.name) == (stored(case.labels).shape, "int16")
        assert region.all()
    assert all(0 < stored(str(case.roi)).mean() < 0.2 for case in config.train[3:])
    assert "roiMasksTraining" in told["changed"]
    assert (out / "train.cfg").read_bytes().isascii()
    assert executed(out / "train.cfg")["roiMasksTraining"] == str(out / "list_roi.cfg")


def test_a_table_becomes_lists(tmp_path):
    data = toy_deepmedic(tmp_path / "set", train=1, val=1, roi=False, shape=(20, 18, 16))
    files = (f"./data/pat_00/{name}.nii.gz" for name in ("t1c", "flair", "labels"))
    table = f"channel_labels,channel_ä b,ground_truth\n{','.join(files)}"
    (data.folder / "train.csv").write_text(table)
    lists = {"dataframe_train": "./train.csv", "roiMasksTraining": "./unused.cfg"}
    data.change(**lists)
    whole: dict[str, Any] = {"corner": [], "slice_index": None}
    bank = write_crops(tmp_path / "bank", data, 1, (16, 18, 20), placement=whole)
    export(data, bank, tmp_path / "out", "1:1")
    train = tmp_path / "out" / "train.cfg"
    assert {executed(train)[key] for key in lists} == {None}
    (real, _), (user,) = (read_train_config(path).train for path in (train, data.train))
    assert real.channels == user.channels
    names = [Path(path).name for path in executed(train)["channelsTraining"]]
    assert names == ["list_channel_0.cfg", "list_b.cfg"]  # `labels` is another list's name


def test_a_sample_that_leaves_no_segment_is_left_out(tmp_path):
    """Samples without lesion hold no centre where only the foreground is sampled."""
    values: dict[str, Any] = {"typeOfSamplingForTraining": 0, SHARES: [1.0, 0.0]}
    data = toy_deepmedic(tmp_path / "set", train=2, val=1, values=values)
    bank = write_crops(tmp_path / "bank", data, 8, bare=3)
    told = export(data, bank, tmp_path / "out", "1:2")
    assert told["left_out"] == {"leaves no place for a segment": 3}
    slots = read_json(tmp_path / "out" / "manifest.json")["slots"].values()
    assert [slot["sample"] for slot in slots] == BankReader(bank).ids()[3:7]
    with raises_fault("deepmedic.too-few-samples-become-cases"):
        export(data, bank, tmp_path / "more", "1:3")
    assert not (tmp_path / "more").exists()


@pytest.mark.deepmedic
@pytest.mark.parametrize(
    "made",
    [{}, {"roi": False}, *({"values": {"typeOfSamplingForTraining": kind}} for kind in (0, 1))],
    ids=["region", "bare", "foreground", "uniform"],
)
def test_stock_deepmedic_sees_the_ratio_in_every_subepoch(tmp_path, made):
    data, out = toy_deepmedic(tmp_path / "set", **made), tmp_path / "out"
    bank, program = write_crops(tmp_path / "bank", data, 12), find_program(None, None)
    told = export(data, bank, out, read={"model": str(data.model)})
    words = (program.checkout / "deepMedicRun", "-model", data.model, "-train", out / "train.cfg")
    environ = {**os.environ, "PYTHONPATH": str(program.checkout)}
    line = [program.python, *words, "-dev", "cpu"]
    log = subprocess.run(line, env=environ, capture_output=True, text=True, check=False).stdout
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


# -- real cases through a generator's space -------------------------------------------------------

TURNED = np.array([[0, 0, 2.0, 5], [-1, 0, 0, 7], [0, 3, 0, 1], [0, 0, 0, 1]])
"""Axes of the files that are none of gansynth's."""
WINDOW = ((-0.5, 1.0), (-1.0, 2.0))
CROP = Space("crop", (8, 8, 8), window=WINDOW)


@pytest.fixture(scope="module")
def brought(tmp_path_factory) -> Callable[..., Any]:
    """Cases that were written through a space, each with the one it was made of."""
    folder = tmp_path_factory.mktemp("data")
    toy = toy_deepmedic(folder, train=2, val=1, shape=(20, 16, 14), affine=TURNED)
    (folder / "training_t1c.cfg").write_text("./data/pat_00/t1c.nii.gz\n-\n")

    def bring(out: Path, space: Space | None, **read: str) -> Any:
        source, before = toy.source(read=read), state(folder)
        run = SimpleNamespace(space=space or source.space)
        request: Any = SimpleNamespace(real_in_generator_space=True, run=run)
        cases = training_cases(source, request, out, NullReporter())
        assert state(folder) == before
        return source, [(case, source.host_case(case.id)) for case in cases]

    return bring


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


def test_what_is_there_of_the_same_order_is_taken_and_else_written_anew(brought, tmp_path):
    first = brought(tmp_path, CROP)[1]
    for case, original in first:  # of crops only the window counts
        for (low, high), new, old in zip(WINDOW, case.channels, original.channels, strict=True):
            assert (new == MISSING) == (old == MISSING)
            if old != MISSING:
                np.testing.assert_allclose(stored(new), stored(old).clip(low, high), atol=1e-6)
        assert np.array_equal(stored(case.labels), stored(original.labels))
        assert np.array_equal(stored(case.roi), stored(original.roi))
    before = state(tmp_path / "real")
    assert brought(tmp_path, replace(CROP, size=(4, 4, 4)))[1] == first
    assert state(tmp_path / "real") == before
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
