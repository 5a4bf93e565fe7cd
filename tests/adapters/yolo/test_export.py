"""gansynth augment --target yolo -o DIR: folders that stock detectors train on by themselves."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from gansynth.bank.reader import BankReader, BankSpec, BankWriter
from gansynth.core.adapter import Injection
from gansynth.core.bank_options import BankSize
from gansynth.core.lineage import Lineage
from gansynth.core.ratio import Ratio
from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schedule import Schedule
from gansynth.core.schema import Boxes, Sample
from gansynth.core.source import SourceRequest
from gansynth.evaluation.audit import audit_exported
from gansynth.runtime import torchvision_compat
from gansynth.runtime.errors import EnvironmentFault, IntegrityFault, UsageFault
from gansynth.runtime.files import sha256_file
from gansynth.runtime.progress import NullReporter
from gansynth_yolo.adapter import YoloAdapter
from gansynth_yolo.export import exact_counts
from gansynth_yolo.source import open_yolo
from tests.conftest import content
from tests.yolo_sets import toy_yolo

SIZE = 40
"""Rows and columns of the samples; those of the real images are 64."""


def opened(data: Path, **asked: Any) -> Any:
    return open_yolo(SourceRequest("yolo", str(data), **asked))


def make_bank(folder: Path, source: Any, samples: int = 20, **changes: Any) -> Path:
    """A frozen bank of random images with 0, 1, 2, 0, 1, 2, ... boxes at odd places."""
    rng = np.random.default_rng(1)
    made: list[tuple[Sample, dict[str, Any]]] = []
    for number in range(samples):
        low = rng.uniform(0, 0.7 * SIZE, (number % 3, 2))
        coords = np.hstack([low, low + rng.uniform(2, 0.3 * SIZE, low.shape)])
        boxes = Boxes(coords.astype(np.float32), np.zeros(len(coords), np.int16))
        image = rng.uniform(-0.1, 1.1, (1, SIZE, SIZE)).astype(np.float32)
        made.append((Sample(image, None, boxes, {"case": source.train_ids[0]}), {}))
    seen = Lineage(source.name, "0", source.records(source.train_ids[:2]), source.host)
    spec = BankSpec(source.schema, seen, "toy", "0" * 64, True, samples, dtype="float32")
    spec = replace(spec, samples=SampleRequest(seed=7), **changes)
    with BankWriter.create(folder, spec) as writer:
        while made:
            writer.publish(made[: writer.next_size or 1])
            del made[: writer.spec.segment_samples]
        if spec.frozen:
            writer.finish()
    return folder


@pytest.fixture(scope="module")
def bank(shared_yolo, tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("banks") / "bank"
    return make_bank(folder, opened(shared_yolo))


@pytest.fixture
def export(shared_yolo, bank, tmp_path):
    """Exports to ``tmp_path / "out"`` what a bank holds."""

    def run(ratio: str = "3:1", *, data: Path = shared_yolo, **asked: Any) -> dict[str, Any]:
        given = {k: asked.pop(k) for k in ("content", "size", "dry_run") if k in asked}
        out = asked.pop("out", tmp_path / "out")
        injection = Injection(None, Ratio.parse(ratio), **{"bank": bank, **asked})
        adapter = YoloAdapter(opened(data))
        return dict(adapter.export(injection, str(out), reporter=NullReporter(), **given))

    return run


@pytest.fixture(scope="module")
def exported(shared_yolo, bank, tmp_path_factory) -> Path:
    """16 real images and 3:1: each is listed three times, beside 16 synthetic ones."""
    out: Path = tmp_path_factory.mktemp("exported") / "out"
    before = content(shared_yolo.parent)
    injection = Injection(None, Ratio(3, 1), bank=bank)
    YoloAdapter(opened(shared_yolo)).export(injection, str(out), reporter=NullReporter())
    assert content(shared_yolo.parent) == before
    return out


def manifest_of(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return document


# -- how many --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "ratio", "counts"),
    [
        (2813, "2813:4000", (1, 4000)),
        (16, "2:1", (1, 8)),
        (15, "2:1", (2, 15)),
        (16, "3:1", (3, 16)),
        (7, "1:0.5", (2, 7)),
        (10, "1:2.5", (1, 25)),
    ],
)
def test_ratios_come_out_exactly(images, ratio, counts):
    asked = Ratio.parse(ratio)
    repeats, synthetic = exact_counts(images, asked)
    assert (repeats, synthetic) == counts
    assert repeats * images * asked.synthetic == synthetic * asked.real


@pytest.mark.parametrize(
    ("images", "ratio", "nearest"),
    [(500, "2813:4000", "500:711"), (16, "1000:1", "128:1"), (16, "9:1", "80:9")],
)
def test_ratios_that_cannot_are_refused_with_the_nearest(images, ratio, nearest):
    with pytest.raises(UsageFault, match=f"The nearest is --ratio {nearest}; "):
        exact_counts(images, Ratio.parse(ratio))
    real, synthetic = map(int, nearest.split(":"))
    repeats, count = exact_counts(images, Ratio.parse(ratio), nearest=True)
    assert (repeats * images, count) == (real, synthetic)
    assert exact_counts(images, Ratio.parse(nearest)) == (repeats, count)


# -- what is in it ---------------------------------------------------------------------------------


def test_the_list_has_every_real_image_thrice_and_every_synthetic_one_once(exported):
    lines = [Path(line) for line in (exported / "train.txt").read_text().splitlines()]
    counts = Counter(Counter(lines).values())
    assert counts == {3: 16, 1: 16}
    assert {line.parent.name: n for line, n in Counter(lines).items()} == {"real": 3, "synth": 1}
    assert all(line.is_absolute() and line.is_file() for line in lines)
    assert {line.parents[2] for line in lines} == {exported}


def test_data_yaml_is_what_detectors_read(exported, shared_yolo):
    document = yaml.safe_load((exported / "data.yaml").read_text())
    assert document == {
        "path": str(exported),
        "train": "train.txt",
        "val": "images/val",
        "test": "images/test",
        "nc": 1,
        "names": {0: "lesion"},
        "channels": 1,
    }


def test_real_images_are_the_users_own(exported, shared_yolo):
    source = opened(shared_yolo)
    for split, folder in (("train", "real"), ("val", "val"), ("test", "test")):
        for part in ("images", "labels"):
            found = sorted((exported / part / folder).iterdir())
            files = [i.image if part == "images" else i.label for i in source.images[split]]
            assert [f.read_bytes() for f in found] == [f.read_bytes() for f in files]


def test_pixels_are_those_of_the_samples_in_the_window_of_real_images(exported, bank):
    reader = BankReader(bank)
    pictures = sorted((exported / "images" / "synth").iterdir())
    for path, sample_id in zip(pictures, reader.ids(), strict=False):
        wanted = np.rint(np.clip(reader.read(sample_id).image[0], 0, 1) * 255)
        found = np.asarray(Image.open(path))
        assert found.dtype == np.dtype("u1")
        assert found.shape == (SIZE, SIZE)
        assert np.array_equal(found, wanted)


def test_boxes_come_back_as_they_were(exported, bank):
    reader, found = BankReader(bank), opened(exported, read={"allow_outside": "yes"})
    images = [i for i in found.images["train"] if i.image.parent.name == "synth"]
    for image, sample_id in zip(images, reader.ids(), strict=False):
        sample = reader.read(sample_id)
        assert sample.boxes is not None
        np.testing.assert_allclose(image.boxes / SIZE, sample.boxes.coords / SIZE, atol=1e-6)
        assert image.labelled


def test_images_without_lesion_have_an_empty_file_and_are_named(exported):
    free = manifest_of(exported)["lesion_free"]
    sizes = {p.stem: p.stat().st_size for p in (exported / "labels" / "synth").iterdir()}
    assert len(sizes) == 16
    assert free == sorted(name for name, size in sizes.items() if size == 0)
    assert len(free) == 6


def test_the_manifest_tells_both_ratios_and_where_all_came_from(exported, shared_yolo):
    told, source = manifest_of(exported), opened(shared_yolo)
    boxes = sum(len(i.rows) for i in source.images["train"])
    assert told["ratio"] == "3:1"
    assert told["images"] == {"real": 48, "synthetic": 16}
    assert told["lesions"] == {"real": 3 * boxes, "synthetic": 15}
    assert (told["seed"], told["each_real_image_listed"]) == (7, 3)
    assert told["lineage"]["cases"][0]["id"] == source.train_ids[0]
    assert told["samples"]["synth_00"]["case"] == source.train_ids[0]
    assert told["held_out"] == list(source.held_out_ids)


def test_the_manifest_has_the_hash_of_every_other_file(exported):
    files = [p for p in exported.rglob("*") if p.is_file() and p.name != "manifest.json"]
    assert manifest_of(exported)["files"] == {
        str(p.relative_to(exported)): sha256_file(p) for p in files
    }


def test_synthetic_ones_alone_are_listed_where_no_real_one_is_asked_for(export, tmp_path):
    export("0:1", size=BankSize(samples=5))
    lines = (tmp_path / "out" / "train.txt").read_text().splitlines()
    assert [Path(line).parent.name for line in lines] == ["synth"] * 5
    assert not (tmp_path / "out" / "images" / "real").exists()
    assert (tmp_path / "out" / "images" / "val").is_dir()


# -- to share --------------------------------------------------------------------------------------


def test_what_is_to_be_shared_names_no_case_and_no_place(export, tmp_path, shared_yolo):
    told = export("1:1", content="synthetic", size=BankSize(samples=6))
    out, source = tmp_path / "out", opened(shared_yolo)
    files = [p for p in out.rglob("*") if p.is_file()]
    assert {p.parent.name for p in files} == {"synth", "out"}
    assert not any(p.is_symlink() for p in files)
    secrets = [str(tmp_path), str(shared_yolo.parent), source.name, *source.listing.images]
    for path in files:
        found = path.read_bytes()
        assert [s for s in secrets if s.encode() in found or s in path.name] == [], path
    record = json.loads(Path(told["record"]).read_text())
    assert record["lineage"]["cases"]
    assert out not in Path(told["record"]).parents
    assert yaml.safe_load((out / "data.yaml").read_text())["train"] == "images/synth"


def test_the_audit_finds_nothing_in_what_is_to_be_shared(export, bank, tmp_path, shared_yolo):
    export("1:1", content="synthetic", size=BankSize(samples=6))
    audit = audit_exported(tmp_path / "out", bank=bank, sources=opened(shared_yolo))
    assert audit.findings == ()


def test_the_audit_finds_real_images_and_paths_in_a_mixed_folder(exported, bank, shared_yolo):
    found = audit_exported(exported, bank=bank, sources=opened(shared_yolo)).findings
    assert any("manifest.json: value of" in line for line in found)
    assert any(line.startswith("images/real") and "name: names file" in line for line in found)
    assert any(line.startswith("data.yaml: line 1: holds a path") for line in found)


def test_real_images_with_new_lesions_are_not_shared(shared_yolo, run, tmp_path):
    pasting = Path(shutil.copytree(run, tmp_path / "run"))
    told = manifest_of(pasting)
    (pasting / "manifest.json").write_text(json.dumps({**told, "heeds": ["boxes", "background"]}))
    injection = Injection(RunFolder(pasting), Ratio(0, 1), device="cpu")
    with pytest.raises(UsageFault, match=r"puts lesions into real cases.*--content mixed"):
        YoloAdapter(opened(shared_yolo)).export(
            *(injection, str(tmp_path / "out")),
            content="synthetic",
            size=BankSize(samples=2),
            reporter=NullReporter(),
        )


# -- what is refused -------------------------------------------------------------------------------


def test_a_dry_run_writes_nothing(export, tmp_path):
    told = export(dry_run=True)
    assert (told["dry_run"], told["images_per_epoch"]) == (True, 64)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_refused(export, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    with pytest.raises(UsageFault, match="exists already"):
        export()


def test_a_folder_within_the_data_set_is_refused(export, shared_yolo):
    with pytest.raises(UsageFault, match="data set's own folder"):
        export(out=shared_yolo.parent / "images" / "mixed")


def test_a_path_that_leads_detectors_astray_is_refused(export, tmp_path):
    with pytest.raises(UsageFault, match="called images or labels"):
        export(out=tmp_path / "images" / "out")


@pytest.mark.parametrize(
    ("ratio", "asked", "says"),
    [
        ("1:0", {}, "no synthetic image"),
        ("1:1", {"schedule": Schedule.parse("anneal:50%-100%")}, "constant ratio"),
        ("1:2", {}, "holds 20 samples, expected 32 beside 16"),
        ("1:1", {"size": BankSize(samples=9)}, "the ratio says how many"),
        ("999:1000", {}, "The nearest is --ratio 16:16"),
    ],
)
def test_orders_that_make_no_data_set_are_refused(export, tmp_path, ratio, asked, says):
    with pytest.raises(UsageFault, match=says):
        export(ratio, **asked)
    assert list(tmp_path.iterdir()) == []


def test_a_bank_that_is_kept_fresh_is_refused(export, shared_yolo, tmp_path):
    live = make_bank(tmp_path / "live", opened(shared_yolo), frozen=False)
    with pytest.raises(UsageFault, match="kept fresh"):
        export(bank=live)


def test_a_bank_that_has_seen_a_held_out_image_is_refused(export, shared_yolo, tmp_path):
    source = opened(shared_yolo)
    seen = Lineage(source.name, "0", source.records(source.held_out_ids[:1]), source.host)
    leaky = make_bank(tmp_path / "leaky", source, lineage=seen)
    with pytest.raises(IntegrityFault, match="leakage"):
        export(bank=leaky)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_nothing(export, tmp_path, monkeypatch):
    def full(*arguments: Any, **how: Any) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gansynth_yolo.export.png_bytes", full)
    with pytest.raises(EnvironmentFault, match="the disk is full"):
        export()
    assert list(tmp_path.iterdir()) == []


# -- the command -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--export", "Dataset510_Plus"], ["--export Dataset510_Plus", "-o DIR"]),
        (["-o", "new", "--export", "Dataset510_Plus"], ["leave one out"]),
        (["-o", "new", "--frozen"], ["--frozen: has no effect with --bank"]),
        (["-o", "new", "--", "mosaic=0"], ["-o with host options after --"]),
        (["--content", "synthetic"], ["--content synthetic", "-o DIR"]),
    ],
    ids=lambda value: None,
)
def test_options_that_mean_nothing_are_refused(refuse, shared_yolo, bank, more, says):
    command = ["augment", "--target", "yolo", "--data", f"yolo:{shared_yolo}", "--bank", bank]
    refuse(*command, "--ratio", "1:1", *more, code=2, says=says)


@pytest.fixture(scope="module")
def run(shared_yolo, tmp_path_factory) -> Path:
    """A tiny cpggan that has been fitted for a moment."""
    from gansynth.fitting.fit import fit

    request = SourceRequest("yolo", str(shared_yolo), read={"size": "16x16"})
    settings = {"steps": 4, "width": 4, "max_width": 8, "latent": 8, "batch_size": 4}
    settings |= {"stage_images": 4, "fade_images": 4}
    out: Path = tmp_path_factory.mktemp("fitted") / "run"
    asked = {key: str(value) for key, value in settings.items()} | {"precision": "fp32"}
    fit("cpggan", request, out, settings=asked, edits=None, device="cpu", reporter=NullReporter())
    return out


def test_a_generator_fills_the_folder_and_leaves_no_bank(run, run_cli, shared_yolo, tmp_path):
    before = content(shared_yolo.parent)
    command = ["augment", "--target", "yolo", "--data", f"yolo:{shared_yolo}", "--ratio", "2:1"]
    command += ["--generator", run, "--filter", "none", "-o", tmp_path / "out", "--json"]
    done = run_cli(*command, "--device", "cpu", "--seed", "3")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["synthetic_images"], told["real_images"]) == (8, 16)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert len(list((tmp_path / "out" / "images" / "synth").iterdir())) == 8
    assert manifest_of(tmp_path / "out")["seed"] == 3
    assert content(shared_yolo.parent) == before


# -- stock detectors -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "detector", ["libreyolo", pytest.param("ultralytics", marks=pytest.mark.slow)]
)
def test_a_stock_detector_trains_on_it_and_the_users_folder_stays(export, tmp_path, detector):
    out, data = tmp_path / "out", toy_yolo(tmp_path / "toy_yolo")
    export("3:1", data=data)
    before = content(data.parent)
    child = Path(__file__).with_name("stock_child.py")
    line = [sys.executable, child, detector, out / "data.yaml", tmp_path / "trained"]
    environ = {**os.environ, "PYTHONPATH": str(torchvision_compat.CPU_TORCH)}
    done = subprocess.run(line, env=environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told == {"folders": {"real": 48, "synth": 16}, "distinct": 32, "gansynth": False}
    assert content(data.parent) == before
    assert list((tmp_path / "trained").rglob("*.pt"))
