"""gansynth augment --target deepmedic -o DIR: folders that stock DeepMedic trains on by itself."""

import errno
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from gansynth.bank.reader import BankReader
from gansynth.core.adapter import Injection
from gansynth.core.bank_options import BankSize
from gansynth.core.lineage import Lineage
from gansynth.core.ratio import Ratio
from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schedule import Schedule
from gansynth.core.source import SourceRequest
from gansynth.evaluation.audit import audit_exported
from gansynth.runtime.errors import DataFault, EnvironmentFault, IntegrityFault, UsageFault
from gansynth.runtime.files import sha256_file
from gansynth.runtime.progress import NullReporter
from gansynth_deepmedic.adapter import DeepMedicAdapter
from gansynth_deepmedic.configs import read_train_config
from gansynth_deepmedic.insertion import insert
from gansynth_deepmedic.layout import folder_names, read_host
from gansynth_deepmedic.slots import write_slots
from gansynth_deepmedic.source import open_deepmedic
from tests.adapters.deepmedic.exports import (
    MAPS,
    export,
    listed,
    make_bank,
    manifest_of,
    opened,
    stored,
)
from tests.conftest import content
from tests.deepmedic_sets import toy_deepmedic


@pytest.fixture(scope="module")
def exported(sets, tmp_path_factory) -> Path:
    """Three real cases at 1:2: six synthetic ones."""
    data, bank = sets.get("roi")
    out: Path = tmp_path_factory.mktemp("exported") / "out"
    before = content(data.folder)
    export((data, bank), out)
    assert content(data.folder) == before
    return out


def test_the_audit_finds_that_it_is_not_to_be_shared(exported, sets):
    data, bank = sets.get("roi")
    found = audit_exported(exported, bank=bank, sources=opened(data)).findings
    listed = [line for line in found if line.startswith("list_flair.cfg")]
    assert any("holds a path" in line for line in listed)
    assert any(f"names case '{opened(data).train_ids[0]}'" in line for line in found)


# -- what is in it ---------------------------------------------------------------------------------


def test_real_cases_stay_where_they_are_and_slots_follow(exported, sets):
    config, own = read_train_config(exported / "train.cfg"), sets.get("roi")[0]
    before = read_train_config(own.train)
    assert config.train[:3] == before.train
    assert [Path(str(case.labels)).parent.name for case in config.train[3:]] == [
        f"slot_{n:04d}" for n in range(6)
    ]
    assert all(file.is_file() for case in config.train for file in case.files)
    assert config.validation == before.validation
    assert (config.cases, config.segments % 9, config.segments % config.batch) == (9, 0, 0)


def test_slots_are_samples_in_their_real_cases(exported, sets):
    data, bank = sets.get("roi")
    source, reader = opened(data), BankReader(bank)
    for number, sample_id in enumerate(reader.ids()[:6]):
        sample = reader.read(sample_id)
        case = source.host_case(sample.provenance["case"])
        wanted = insert(case, read_host(case), sample)
        slot = exported / "synth" / f"slot_{number:04d}"
        found = np.stack([stored(slot / f"{name}.nii.gz") for name in ("flair", "t1c")])
        assert np.array_equal(found, wanted.image)
        assert found.max() > 90 * (number + 1)
        assert np.array_equal(stored(slot / "labels.nii.gz"), wanted.labels)
        assert wanted.core is not None
        assert np.array_equal(stored(slot / "roi.nii.gz"), wanted.core)


def test_headers_tell_the_place_and_nothing_else(exported, sets):
    data, _ = sets.get("roi")
    real: Any = nib.load(data.folder / "data/pat_00/flair.nii.gz")
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
    told, (data, bank) = manifest_of(exported), sets.get("roi")
    source = opened(data)
    assert (told["ratio"], told["realised"]) == ("1:2", "3:6")
    assert told["cases_per_subepoch"] == {"real": 3, "synthetic": 6}
    segments = told["segments_per_subepoch"]
    assert segments["synthetic"] == 2 * segments["real"] == 60
    assert read_train_config(exported / "train.cfg").segments == sum(segments.values())
    assert (told["seed"], told["manifest_sha256"]) == (7, "0" * 64)
    assert told["held_out"] == list(source.held_out_ids)
    assert "numOfCasesLoadedPerSubepoch" in told["changed"]
    assert "folderForOutput" in told["changed"]
    assert told["said"][0].startswith("numOfCasesLoadedPerSubepoch: 6 in the file, 9 now")
    slot, sample = told["slots"]["slot_0002"], BankReader(bank).read(BankReader(bank).ids()[2])
    assert slot["case"] == sample.provenance["case"] == source.train_ids[2]
    assert slot["corner"] == list(sample.provenance["placement"]["corner"])
    assert 0 < slot["share_of_voxels"] < 0.2
    assert slot["provenance"]["index"] == 2
    assert told["lineage"]["cases"][0]["id"] == source.train_ids[0]


def test_the_manifest_has_the_hash_of_every_other_file(exported):
    files = [p for p in exported.rglob("*") if p.is_file() and p.name != "manifest.json"]
    assert manifest_of(exported)["files"] == {
        str(p.relative_to(exported)): sha256_file(p) for p in files
    }


def test_the_same_order_gives_the_same_bytes(exported, sets, tmp_path):
    export(sets.get("roi"), tmp_path / "out")
    found = manifest_of(tmp_path / "out")["files"]
    files = manifest_of(exported)["files"]
    apart = {key for key in files if files[key] != found[key]}
    assert apart == {"train.cfg", *(f"list_{n}.cfg" for n in ("flair", "t1c", "labels", "roi"))}


def test_an_export_is_no_data_for_a_generator(exported):
    with pytest.raises(IntegrityFault, match="synthetic case"):
        open_deepmedic(SourceRequest("deepmedic", str(exported / "train.cfg")))


def test_synthetic_ones_alone_are_listed_where_no_real_one_is_asked_for(sets, tmp_path):
    told = export(sets.get("roi"), tmp_path / "out", "0:1", size=BankSize(samples=5))
    assert (told["real_cases"], told["cases_per_subepoch"]) == (0, {"real": 0, "synthetic": 5})
    assert "--bank-size 5" in told["said"][0]
    for name in ("flair", "labels", "roi"):
        assert [Path(p).parent.name for p in listed(tmp_path / "out", name)] == [
            f"slot_{n:04d}" for n in range(5)
        ]


def test_ratios_that_need_it_list_real_cases_repeatedly(sets, tmp_path):
    told = export(sets.get("roi"), tmp_path / "out", "2:1")
    assert (told["realised"], told["each_real_case_listed"]) == ("6:3", 2)
    assert sorted(Counter(listed(tmp_path / "out", "flair")).values()) == [1, 1, 1, 2, 2, 2]


def test_missing_channels_stay_missing(tmp_path):
    data = toy_deepmedic(tmp_path / "set", train=2, val=1)
    (data.folder / "training_t1c.cfg").write_text("./data/pat_00/t1c.nii.gz\n-\n")
    bank = make_bank(tmp_path / "bank", opened(data), 4)
    export((data, bank), tmp_path / "out", "1:1")
    assert [p == "-" for p in listed(tmp_path / "out", "t1c")] == [False, True, False, True]
    slot = tmp_path / "out" / "synth" / "slot_0001"
    assert sorted(p.name for p in slot.iterdir()) == ["flair.nii.gz", "labels.nii.gz", "roi.nii.gz"]


# -- what is refused -------------------------------------------------------------------------------


def test_a_dry_run_writes_nothing(sets, tmp_path):
    told = export(sets.get("roi"), tmp_path / "out", dry_run=True)
    assert (told["dry_run"], told["realised"]) == (True, "3:6")
    assert told["then"] == f"deepMedicRun -model MODEL -train {tmp_path / 'out' / 'train.cfg'}"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_refused(sets, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    with pytest.raises(UsageFault, match="exists already"):
        export(sets.get("roi"), tmp_path / "out")


@pytest.mark.parametrize(
    ("ratio", "asked", "says"),
    [
        ("1:0", {}, "no synthetic case"),
        ("1:1", {"schedule": Schedule.parse("anneal:50%-100%")}, "constant ratio"),
        ("1:5", {}, "holds 12 samples, expected 15 beside 3"),
        ("1:1", {"size": BankSize(samples=9)}, "the ratio says how many"),
        ("1:1", {"content": "synthetic"}, "expected mixed"),
        ("1:1", {"real_in_generator_space": True}, "no run of a generator is named"),
    ],
    ids=["none", "schedule", "few", "twice", "share", "space"],
)
def test_orders_that_make_no_data_set_are_refused(sets, tmp_path, ratio, asked, says):
    with pytest.raises(UsageFault, match=says):
        export(sets.get("roi"), tmp_path / "out", ratio, **asked)
    assert list(tmp_path.iterdir()) == []


def test_maps_of_the_users_own_are_refused(sets, tmp_path):
    lists = [f"./map_{n}.cfg" for n in range(3)]
    data = toy_deepmedic(tmp_path / "set", train=3, val=1, values={MAPS: lists})
    with pytest.raises(UsageFault, match="nobody knows such maps"):
        export((data, sets.get("roi")[1]), tmp_path / "out")


def test_a_bank_that_is_kept_fresh_is_refused(sets, tmp_path):
    data, _ = sets.get("roi")
    live = make_bank(tmp_path / "live", opened(data), 6, frozen=False)
    with pytest.raises(UsageFault, match="kept fresh"):
        export((data, live), tmp_path / "out")


def test_a_bank_that_has_seen_a_held_out_case_is_refused(sets, tmp_path):
    data, _ = sets.get("roi")
    source = opened(data)
    seen = Lineage(source.name, "0", source.records(source.held_out_ids), source.host)
    leaky = make_bank(tmp_path / "leaky", source, 6, lineage=seen)
    with pytest.raises(IntegrityFault, match="leakage"):
        export((data, leaky), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_nothing(sets, tmp_path, monkeypatch):
    def full(*arguments: Any, **how: Any) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gansynth_deepmedic.layout.nifti", full)
    with pytest.raises(EnvironmentFault, match="the disk is full"):
        export(sets.get("roi"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


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


# -- with a generator ------------------------------------------------------------------------------


def test_a_generator_fills_the_folder_and_a_stopped_export_goes_on(
    crop_run, shared_deepmedic, tmp_path, monkeypatch
):
    data = shared_deepmedic
    injection = Injection(
        RunFolder(crop_run),
        Ratio(1, 1),
        samples=SampleRequest(seed=3),
        device="cpu",
        real_in_generator_space=True,
    )
    adapter, before = DeepMedicAdapter(opened(data)), content(data.folder)

    def stop(*arguments: Any, **named: Any) -> Any:
        raise DataFault("stopped")

    with monkeypatch.context() as patch:
        patch.setattr("gansynth_deepmedic.export.write_layout", stop)
        with pytest.raises(DataFault, match="stopped"):
            adapter.export(injection, str(tmp_path / "out"), reporter=NullReporter())
    (left,) = tmp_path.iterdir()
    segments = {p.name: p.stat().st_mtime_ns for p in (left / "bank").glob("segment-*")}
    assert segments
    kept: dict[str, int] = {}

    def look(*arguments: Any) -> Any:
        kept.update({p.name: p.stat().st_mtime_ns for p in (left / "bank").glob("segment-*")})
        return write_slots(*arguments)

    monkeypatch.setattr("gansynth_deepmedic.export.write_slots", look)
    told = adapter.export(injection, str(tmp_path / "out"), reporter=NullReporter())
    assert kept == segments
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (told["realised"], told["real_in_generator_space"]) == ("4:4", True)
    config = read_train_config(tmp_path / "out" / "train.cfg")
    homes = [str(tmp_path / "out" / "real" / case) for case in adapter.source.train_ids]
    assert [str(case.files[0].parent) for case in config.train[:4]] == homes
    assert all(file.is_file() for case in config.train for file in case.files)
    assert str(left.name) not in (tmp_path / "out" / "list_flair.cfg").read_text()
    assert content(data.folder) == before
