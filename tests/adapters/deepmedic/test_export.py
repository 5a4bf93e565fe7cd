"""gansynth augment --target deepmedic -o DIR: folders that stock DeepMedic trains on by itself.

What every host's export has and refuses is in ``tests/adapters``.
"""

import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from gansynth.bank.reader import BankReader, BankSpec, BankWriter
from gansynth.core.bank_options import BankSize
from gansynth.core.host_commands import ExportRequest
from gansynth.core.lineage import Lineage
from gansynth.core.mix_config import MixConfig
from gansynth.core.ratio import Ratio
from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schedule import Schedule
from gansynth.core.schema import Sample
from gansynth.core.source import SourceRequest, case_records
from gansynth.core.space import Placement
from gansynth.evaluation.audit import audit_exported
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from gansynth.runtime.files import read_json
from gansynth.runtime.progress import NullReporter
from gansynth_deepmedic.adapter import DeepMedicAdapter
from gansynth_deepmedic.configs import read_model_config, read_train_config
from gansynth_deepmedic.insertion import insert
from gansynth_deepmedic.layout import folder_names, read_host
from gansynth_deepmedic.real_space import training_cases
from gansynth_deepmedic.sampling_maps import SamplingMaps
from gansynth_deepmedic.source import DeepMedicSource, open_deepmedic
from tests.adapters.deepmedic.orders import run
from tests.conftest import content
from tests.deepmedic_sets import Toy, stored, toy_deepmedic

MAPS = "weightedMapsForSamplingEachCategoryTrain"
NORMALISED: Mapping[str, Any] = {"norm_zscore_prms": {"apply_to_all_channels": True}}


def opened(data: Toy, **read: str) -> DeepMedicSource:
    """Of which samples of 16 voxels along each axis are cut."""
    return data.source(read={"size": "16,16,16", **read})


def make_bank(folder: Path, source: DeepMedicSource, samples: int = 12, **changes: Any) -> Path:
    """A frozen bank of real crops, each with another number of quarters added to its image.

    ``changes`` are of the bank's own description; but ``whole`` for volumes that are not cut, and
    ``first``, a key to sort samples by.
    """
    rng, whole = np.random.default_rng(1), changes.pop("whole", False)
    first = changes.pop("first", lambda sample: 0)
    made: list[tuple[Sample, dict[str, Any]]] = []
    for number in range(samples):
        case = source.load(source.train_ids[number % len(source.train_ids)])
        place = Placement() if whole else source.space.place(case, rng)
        cut = case if whole else source.space.to_generator(case, place)
        shape = list(case.image.shape[1:])
        told = {"case": case.id, "placement": place.to_json(), "shape": shape, "index": number}
        image = (cut.image + (number + 1) / 4).astype(np.float32)
        made.append((Sample(image, cut.labels, None, told), {}))
    made.sort(key=lambda one: first(one[0]))
    seen = Lineage(source.name, "0", case_records(source, source.train_ids), source.space.host)
    spec = BankSpec(source.schema, seen, "toy", "0" * 64, True, samples, dtype="float32")
    spec = replace(spec, samples=SampleRequest(seed=7), **changes)
    with BankWriter.create(folder, spec) as writer:
        for pair in made:
            writer.publish(*pair)
        if spec.frozen:
            writer.finish()
    return folder


def export(of: tuple[Toy, Path], out: Path, ratio: str = "1:2", **asked: Any) -> dict[str, Any]:
    """Export a data set with samples of a bank."""
    data, bank = of
    given = {k: asked.pop(k) for k in ("content", "size", "dry_run") if k in asked}
    adapter = DeepMedicAdapter(opened(data, **asked.pop("read", {})))
    mix_config = MixConfig(None, Ratio.parse(ratio), **{"bank": bank, **asked})
    return dict(adapter.export(ExportRequest(mix_config, str(out), NullReporter(), **given)))


def manifest_of(folder: Path) -> Any:
    return read_json(folder / "provenance.json") | read_json(folder / "manifest.json")


def listed(folder: Path, name: str) -> list[str]:
    return (folder / f"list_{name}.cfg").read_text().splitlines()


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> Callable[[str], tuple[Toy, Path]]:
    """Data sets with banks: ``roi``, ``bare`` (no regions of interest) or ``normalised``."""

    @cache
    def made(name: str) -> tuple[Toy, Path]:
        home, values = tmp_path_factory.mktemp(name), NORMALISED if name == "normalised" else None
        data = toy_deepmedic(home / "set", train=3, val=1, roi=name != "bare", values=values)
        return data, make_bank(home / "bank", opened(data))

    return made


@pytest.fixture(scope="module")
def exported(sets, tmp_path_factory) -> Path:
    """Three real cases at 1:2: six synthetic ones."""
    data, bank = sets("roi")
    out: Path = tmp_path_factory.mktemp("exported") / "out"
    before = content(data.folder)
    export((data, bank), out)
    assert content(data.folder) == before
    return out


def test_the_audit_finds_that_it_is_not_to_be_shared(exported, sets):
    data, bank = sets("roi")
    found = audit_exported(exported, bank=bank, sources=opened(data)).findings
    lines = [line for line in found if line.startswith("list_flair.cfg")]
    assert any("holds a path" in line for line in lines)
    assert any(f"names case '{opened(data).train_ids[0]}'" in line for line in lines)


def test_real_cases_stay_where_they_are_and_slots_follow(exported, sets):
    config, before = (read_train_config(p) for p in (exported / "train.cfg", sets("roi")[0].train))
    assert config.train[:3] == before.train
    homes = [Path(str(case.labels)).parent.name for case in config.train[3:]]
    assert homes == [f"slot_{n:04d}" for n in range(6)]
    assert all(file.is_file() for case in config.train for file in case.files)
    assert config.validation == before.validation
    assert (config.cases, config.segments % 9, config.segments % config.batch) == (9, 0, 0)


def test_slots_are_samples_in_their_real_cases(exported, sets):
    data, bank = sets("roi")
    source, reader = opened(data), BankReader(bank)
    for number, sample_id in enumerate(reader.ids()[:6]):
        sample = reader.read(sample_id)
        case = source.host_case(sample.provenance["case"])
        wanted = insert(case, read_host(case), sample)
        slot = exported / "synth" / f"slot_{number:04d}"
        flair, t1c, labels, roi = (
            stored(slot / f"{name}.nii.gz") for name in ("flair", "t1c", "labels", "roi")
        )
        assert np.array_equal([flair, t1c], wanted.image)
        assert np.array_equal(labels, wanted.labels)
        assert wanted.core is not None
        assert np.array_equal(roi, wanted.core)


def test_headers_tell_the_place_and_nothing_else(exported, sets):
    real: Any = nib.load(sets("roi")[0].folder / "data/pat_00/flair.nii.gz")
    slot = exported / "synth" / "slot_0000"
    kinds = {"flair": np.float32, "t1c": np.float32, "labels": np.int16, "roi": np.int16}
    for name, kind in kinds.items():
        image: Any = nib.load(slot / f"{name}.nii.gz")
        assert np.array_equal(image.affine, real.affine)
        assert image.get_data_dtype() == kind
        assert image.header["descrip"].item() == b"gansynth synthetic"
        for key in ("aux_file", "intent_name", "db_name"):
            assert image.header[key].item() == b""
        assert (slot / f"{name}.nii.gz").read_bytes()[4:8] == b"\0" * 4  # gzip's time


def test_the_manifest_says_what_every_subepoch_sees(exported, sets):
    told, (data, bank) = manifest_of(exported), sets("roi")
    source = opened(data)
    assert (told["ratio"], told["realised"]) == ("1:2", "3:6")
    assert told["cases_per_subepoch"] == {"real": 3, "synthetic": 6}
    segments = told["segments_per_subepoch"]
    assert segments["synthetic"] == 2 * segments["real"] == 60
    assert read_train_config(exported / "train.cfg").segments == sum(segments.values())
    assert (told["seed"], told["manifest_sha256"]) == (7, "0" * 64)
    assert {"numOfCasesLoadedPerSubepoch", "folderForOutput"} < set(told["changed"])
    assert told["said"][0].startswith("numOfCasesLoadedPerSubepoch: 6 in the file, 9 now")
    slot, sample = told["slots"]["slot_0002"], BankReader(bank).read(BankReader(bank).ids()[2])
    assert slot["case"] == sample.provenance["case"] == source.train_ids[2]
    assert slot["corner"] == list(sample.provenance["placement"]["corner"])
    assert 0 < slot["share_of_voxels"] < 0.2
    assert slot["provenance"]["index"] == 2


def test_the_same_order_gives_the_same_bytes(exported, sets, tmp_path):
    export(sets("roi"), tmp_path / "out")
    files, found = (manifest_of(folder)["files"] for folder in (exported, tmp_path / "out"))
    apart = {key for key in files if files[key] != found[key]}
    assert apart == {
        "manifest.json",
        "train.cfg",
        *(f"list_{n}.cfg" for n in ("flair", "t1c", "labels", "roi")),
    }


def test_an_export_is_no_data_for_a_generator(exported):
    with pytest.raises(IntegrityFault, match="synthetic case"):
        open_deepmedic(SourceRequest("deepmedic", str(exported / "train.cfg")))


def test_synthetic_ones_alone_are_listed_where_no_real_one_is_asked_for(sets, tmp_path):
    told = export(sets("roi"), tmp_path / "out", "0:1", size=BankSize(samples=5))
    assert (told["real_cases"], told["cases_per_subepoch"]) == (0, {"real": 0, "synthetic": 5})
    assert "--bank-size 5" in told["said"][0]
    for name in ("flair", "labels", "roi"):
        homes = [Path(path).parent.name for path in listed(tmp_path / "out", name)]
        assert homes == [f"slot_{n:04d}" for n in range(5)]


def test_ratios_that_need_it_list_real_cases_repeatedly(sets, tmp_path):
    told = export(sets("roi"), tmp_path / "out", "2:1")
    assert (told["realised"], told["each_real_case_listed"]) == ("6:3", 2)
    assert sorted(Counter(listed(tmp_path / "out", "flair")).values()) == [1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("ratio", "asked", "says"),
    [
        ("1:1", {"schedule": Schedule.parse("anneal:50%-100%")}, "constant ratio"),
        ("1:1", {"size": BankSize(samples=9)}, "the ratio says how many"),
        ("1:1", {"content": "synthetic"}, "expected mixed"),
        ("1:1", {"real_in_generator_space": True}, "no run of a generator is named"),
    ],
    ids=["schedule", "twice", "share", "space"],
)
def test_orders_that_make_no_data_set_are_refused(sets, tmp_path, ratio, asked, says):
    with pytest.raises(UsageFault, match=says):
        export(sets("roi"), tmp_path / "out", ratio, **asked)
    assert list(tmp_path.iterdir()) == []


def test_maps_of_the_users_own_and_banks_that_are_kept_fresh_are_refused(sets, tmp_path):
    data, bank = sets("roi")
    live = make_bank(tmp_path / "live", opened(data), 6, frozen=False)
    maps = {MAPS: [f"./map_{n}.cfg" for n in range(3)]}
    mapped = toy_deepmedic(tmp_path / "set", train=3, val=1, values=maps)
    for of, says in (
        ((mapped, bank), "synthetic cases have no such maps"),
        ((data, live), "is refreshed"),
    ):
        with pytest.raises(UsageFault, match=says):
            export(of, tmp_path / "out")


@pytest.mark.parametrize(
    ("cases", "names"),
    [
        (("a", "b.1"), ("a", "b.1")),
        (("a", "A"), ("case_0000", "case_0001")),
        (("a/b", "c"), ("case_0000", "case_0001")),
        (("..", "c"), ("case_0000", "case_0001")),
    ],
    ids=["plain", "alike", "slash", "dots"],
)
def test_folders_of_cases(cases, names):
    assert folder_names(cases) == names


@pytest.mark.fault(29)
def test_a_generator_fills_the_folder_and_a_stopped_export_goes_on(
    crop_run, shared_deepmedic, tmp_path, monkeypatch
):
    run, asked = RunFolder(crop_run), SampleRequest(seed=3)
    mix_config = MixConfig(run, Ratio(1, 1), samples=asked, device="cpu")
    mix_config = replace(mix_config, real_in_generator_space=True)
    out, before = tmp_path / "out", content(shared_deepmedic.folder)
    adapter, kept = DeepMedicAdapter(opened(shared_deepmedic)), dict[str, int]()

    def stop(*arguments: Any, **named: Any) -> Any:
        raise DataFault("stopped")

    def samples() -> dict[str, int]:
        return {p.name: p.stat().st_mtime_ns for p in (left / "bank").glob("sample-*")}

    def look(*arguments: Any) -> Any:
        kept.update(samples())
        return training_cases(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("gansynth_deepmedic.export.write_layout", stop)
        with pytest.raises(DataFault, match="stopped"):
            adapter.export(ExportRequest(mix_config, str(out), NullReporter()))
    (left,) = tmp_path.iterdir()
    made = samples()
    monkeypatch.setattr("gansynth_deepmedic.export.training_cases", look)
    told = adapter.export(ExportRequest(mix_config, str(out), NullReporter()))
    assert kept == made != {}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (told["realised"], told["real_in_generator_space"]) == ("4:4", True)
    config = read_train_config(out / "train.cfg")
    homes = [str(out / "real" / case) for case in adapter.source.train_ids]
    assert [str(case.files[0].parent) for case in config.train[:4]] == homes
    assert all(file.is_file() for case in config.train for file in case.files)
    assert str(left.name) not in (out / "list_flair.cfg").read_text()
    assert content(shared_deepmedic.folder) == before


def test_without_regions_of_interest_real_cases_get_all_of_themselves(sets, tmp_path):
    told = export(sets("bare"), tmp_path / "out")
    config = read_train_config(tmp_path / "out" / "train.cfg")
    for case, roi in list(zip(config.train, listed(tmp_path / "out", "roi"), strict=True))[:3]:
        region = stored(roi)
        assert region.shape == stored(str(case.labels)).shape
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
    data, bank = sets("normalised")
    out, source = tmp_path / "out", opened(data)
    export((data, bank), out, read={"model": str(data.model)})
    config = read_train_config(out / "train.cfg")
    assert config.values[MAPS] == [str(out / f"list_map_{n}.cfg") for n in range(3)]
    maps = [[stored(path) for path in listed(out, f"map_{n}")] for n in range(3)]
    slots = [slot["case"] for slot in manifest_of(out)["slots"].values()]
    for number, case in enumerate(config.train):
        labels, region = stored(str(case.labels)), stored(str(case.roi))
        core = np.sum([one[number] for one in maps], axis=0) > 0
        for value, one in enumerate(maps):
            derived = (labels == value) & (region > 0)  # what DeepMedic does without maps
            if number < 3:
                assert np.array_equal(one[number], derived)
            else:
                assert np.array_equal(one[number] > 0, derived & core)
        if number >= 3:
            assert 0 < core.mean() < 0.2
            assert np.array_equal(region, stored(str(source.listed(slots[number - 3]).roi)))


def test_maps_turn_with_the_label_maps(tmp_path):
    turned = {"augm_img_prms_tr": {"affine": {"prob": 0.5}}}
    data = toy_deepmedic(tmp_path / "set", train=3, val=1, values={**NORMALISED, **turned})
    told = export((data, make_bank(tmp_path / "bank", opened(data), 3)), tmp_path / "out", "1:1")
    config = read_train_config(tmp_path / "out" / "train.cfg")
    affine = {"prob": 0.5, "interp_order_wmaps": 0}
    assert config.values["augm_img_prms_tr"] == {"affine": affine}
    assert "numberOfOutputClasses" in told["said"][-1]


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        (0, [[0, 0, 0, 1, 0, 1, 0, 1], [0, 1, 0, 0, 0, 0, 0, 0]]),
        (1, [[0, 2] * 4]),
        (2, [[0, 2] * 4]),
        (3, [[int(n == 2 * value + 1) for n in range(8)] for value in range(4)]),
    ],
)
def test_maps_of_every_type_of_sampling(kind, wanted):
    labels = np.arange(4, dtype=np.int16).repeat(2).reshape(2, 2, 2)
    region = np.array([0, 2] * 4, np.int16).reshape(2, 2, 2)
    own = SamplingMaps(kind, len(wanted), (True,) * len(wanted), pad=True)
    assert [one.ravel().tolist() for one in own.maps(labels, region)] == wanted


def lesion(sample: Any) -> bool:
    """Whether a lesion is where a sample is wholly its own."""
    return bool((sample.labels[4:-4, 4:-4, 4:-4] > 0).any())


def test_a_sample_that_leaves_no_segment_is_left_out(tmp_path):
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
    samples = [slot["sample"] for slot in manifest_of(tmp_path / "out")["slots"].values()]
    assert samples == reader.ids()[bare : bare + 4]
    with pytest.raises(DataFault, match=rf"{12 - bare} of 12 samples .* {bare} leaves no place"):
        export((data, bank), tmp_path / "more", "1:6")
    assert not (tmp_path / "more").exists()


@pytest.mark.parametrize("pad", [True, False], ids=["padded", "plain"])
def test_segments_are_centred_as_far_from_the_border_as_deepmedic_wants(sets, pad):
    data, _ = sets("roi")
    config, model = (
        read_train_config(data.train).model_copy(update={"pad": pad}),
        read_model_config(data.model),
    )
    shape = (20, 20, 20)
    labels, region = np.zeros(shape, np.int16), np.ones(shape, np.int16)
    centres = SamplingMaps.of(config, (0, 1, 2), model).centres(labels, region)
    border = 3 if pad else 6  # segments of 13 voxels, of which 3 on each side are padded
    wanted = np.zeros(shape, bool)
    wanted[(slice(border, -border),) * 3] = True
    assert np.array_equal(centres, wanted)
    centres = np.zeros(shape, bool)
    centres[8, 9, 3] = True
    assert SamplingMaps.of(config, (0, 1, 2)).largest(centres) == 7


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
    bank, out = make_bank(tmp_path / "bank", opened(data)), tmp_path / "out"
    told = export((data, bank), out, read={"model": str(data.model)})
    log = trained(data, out / "train.cfg")
    paths = re.findall(r"\[TRA\|JOB.*Loading subject with 1st channel at: (.*)", log)
    found = re.findall(r"\[TRA\|JOB.*Samples per category: (.*)", log)
    counts = [sum(map(int, re.findall(r": (\d+)/\d+\]", line))) for line in found]
    assert set(counts) == {sum(told["segments_per_subepoch"].values()) // 12}
    assert len(paths) == len(counts) == 3 * 12
    for subepoch in range(3):
        part = paths[12 * subepoch :][:12]
        assert sorted(part) == sorted(listed(out, "flair"))
        assert sum("slot_" in path for path in part) == 8
    assert len(list((out / "output" / "saved_models").rglob("*.final.*.index"))) == 1


def trained(data: Toy, config: Path) -> str:
    """What DeepMedic, unmodified, says of a training."""
    checkout = os.environ["GANSYNTH_DEEPMEDIC"]
    python = os.environ.get("GANSYNTH_DEEPMEDIC_PYTHON", sys.executable)
    words = (f"{checkout}/deepMedicRun", "-model", data.model, "-train", config, "-dev", "cpu")
    done = run([python, *map(str, words)], {"PYTHONPATH": checkout})
    if "get_data() is deprecated" in done.stdout:
        pytest.skip("GANSYNTH_DEEPMEDIC_PYTHON has nibabel 5, which stock DeepMedic does not know")
    assert "ERROR" not in done.stdout, done.stdout[-3000:]
    return str(done.stdout)
