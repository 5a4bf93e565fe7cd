import csv
import errno
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gansynth.core.case_pool import TrainingCases
from gansynth.core.lineage import CaseRecord, Lineage
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Boxes, Sample, Schema
from gansynth.core.source import SourceRequest
from gansynth.core.space import Space
from gansynth.data.batches import CaseCache
from gansynth.data.picture_files import read_picture
from gansynth.data.pictures import open_pictures
from gansynth.report import png
from gansynth.runtime import files
from gansynth.runtime.options import read_settings
from gansynth.runtime.progress import NullReporter
from gansynth.sampling import png_writer
from gansynth.sampling.deidentify import REPEATED, SharedSamples
from gansynth.sampling.png_writer import PngOptions, PngWriter
from gansynth.sampling.sample import _Drawn
from gansynth.sampling.writing import TIME, check_writer, intensities_of, write
from gansynth.testing import ToySource
from tests.expected import raises_fault

LABELS = {"background": 0, "organ": 2, "lesion": 300}
TOLD = {"case": "Mustermann_03", "subject": "Mustermann", "dataset": "nifti:/home/clinic"}
FLAW = "filter 'novel': a copy, expected none, found 0.12 from case Mustermann_03"


class Drawer:
    """Draws noise with labels, as a run's drawer would; the first samples are ``flawed``."""

    def __init__(
        self, channels: tuple[str, ...] = ("T1",), flawed: int = 0, **changes: Any
    ) -> None:
        self.schema = Schema(channels, LABELS, (0.5, 0.75), "HW")
        self.flawed, self.changes = flawed, changes
        generator = SimpleNamespace(schema=self.schema, name="dcgan", size=(16, 24), device="cpu")
        self.run = SimpleNamespace(
            run_id="0123456789ab",
            manifest_sha256="0" * 64,
            generator=generator,
            space=Space("crop", (16, 24)),
            folder=Path("runs/g1"),
        )
        self.source = SimpleNamespace(schema=self.schema, train_ids=(), load=None)
        record = CaseRecord(TOLD["case"], TOLD["subject"], "0" * 64)
        self.request = SampleRequest(edits=())
        self.lineage = Lineage(TOLD["dataset"], "0", (record,))

    def draw(self, first: int, count: int) -> list[Sample]:
        return [self._draw(index) for index in range(first, first + count)]

    def _draw(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        image = rng.normal(0, 1, (len(self.schema.channels), 16, 24)).astype(np.float32)
        labels = np.zeros((16, 24), np.int16)
        labels[2:5, 3:9], labels[10:12, 20:24], labels[15] = 2, 300, -1
        told = {**TOLD, "index": index, "seed": 5, "placement": {"corner": [0, 0]}, REPEATED: 0.0}
        told["class"] = ("cyst", "glioma, rare")[index % 2]
        if index < self.flawed:
            told["reject_reason"] = FLAW
        return replace(Sample(image, labels, provenance=told), **self.changes)


def export(
    out: Path, drawer: Any, n: int = 3, heard: Any = None, keep: bool = False, **options: Any
) -> Any:
    heard, chosen = heard or NullReporter(), PngOptions(**{"window": "-2:2", **options})
    maker = {"run": drawer.run.run_id, "generator": drawer.run.generator.name}
    record = out.parents[1] / f"{out.parent.name}.json"
    shared = SharedSamples(out, drawer.source, None, drawer.lineage, maker, record, heard)
    drawn = _Drawn(drawer, n, PngWriter, keep, heard)
    made = {"normalised": True, "drawn_by": maker}
    how: Any = {"made": made, "shared": shared, "counts": drawn.counts}
    report = write(
        lambda f: PngWriter(f, drawer.schema, chosen), drawn.items(), drawer.schema, out, **how
    )
    drawn.warn_of_rejected(out)
    return report


def lines(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "manifest.csv").read_text().splitlines()))


def read_back(out: Path, number: int | None = None) -> Any:
    told = json.loads((out / "dataset.json").read_text())
    read = {} if number is None else told["read"][number]
    asked = SourceRequest("pictures", str(out), fold="all", read=read, synthetic="run")
    return open_pictures(asked)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, Any]:
    """An export of three samples with overlays, the first flawed; and its report."""
    out: Path = tmp_path_factory.mktemp("written") / "out"
    return out, export(out, Drawer(flawed=1), overlay=True, keep=True)


def test_an_export_is_images_masks_overlays_and_what_says_what_each_file_shows(written):
    out, report = written
    samples = [f"sample-000{i}.png" for i in range(3)]
    about = {"dataset.json", "manifest.csv", "provenance.json"}
    names = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    kinds = ("images", "masks", "overlays")
    assert names == {f"{kind}/{name}" for kind in kinds for name in samples} | about
    assert (report["samples"], report["rejected"]) == (3, 1)
    found = json.loads((out / "dataset.json").read_text())
    assert found["drawn_by"] == {"run": "0123456789ab", "generator": "dcgan"}
    assert (found["bits"], found["window"]) == (8, {"T1": [-2.0, 2.0]})
    assert found["synthetic"] is True
    told = json.loads((out / "provenance.json").read_text())["samples"]["sample-0001"]
    assert (told["sample"], told["seed"]) == (1, 5)
    one, two, _ = lines(out)
    assert one["reject_reason"] == FLAW.replace("Mustermann_03", "?")
    assert (two["case"], two["file"]) == ("sample-0001", "images/sample-0001.png")
    assert (two["mask"], two["areas"]) == ("masks/sample-0001.png", "organ:18;lesion:8")
    assert (two["boxes"], two["reject_reason"]) == ("organ:2 3 5 9;lesion:10 20 12 24", "")
    picture = read_picture(out / "overlays/sample-0000.png").astype(int)
    assert picture.shape == (16 * 21, 24 * 21, 3)
    assert 100 < (np.ptp(picture, axis=-1) > 50).sum() < 2000
    source = read_back(out, 0)
    assert source.schema.classes == ("cyst", "glioma, rare")
    assert [source.header(case).label_class for case in source.train_ids] == [0, 1, 0]


def test_nothing_names_a_patient_a_path_or_a_time(written):
    for path in written[0].rglob("*"):
        assert path.stat().st_mtime == TIME
        data = path.read_bytes() if path.is_file() else b""
        for word in ("Mustermann", "clinic", str(written[0].parent), "runs/g1", "placement"):
            assert word.encode() not in data, path
            assert word not in str(path.relative_to(written[0]))
        kinds, at = set(), 8
        while path.suffix == ".png" and at < len(data):
            kinds.add(data[at + 4 : at + 8])
            at += 12 + int.from_bytes(data[at : at + 4], "big")
        assert kinds <= {b"IHDR", b"tEXt", b"IDAT", b"IEND"}


@pytest.mark.parametrize("bits", [8, 16])
def test_a_picture_that_another_program_saved_again_is_no_real_case(tmp_path, bits):
    export(tmp_path / "out", Drawer(), n=1, bits=bits)
    again = tmp_path / "elsewhere"
    again.mkdir()
    with Image.open(tmp_path / "out/images/sample-0000.png") as picture:
        Image.fromarray(np.asarray(picture)).save(again / "scan.tif")
    source = open_pictures(SourceRequest("pictures", str(again), fold="all"))
    with raises_fault("synthetic.case-made-by-gansynth"):
        source.load("scan")


@pytest.mark.parametrize("bits", [8, 16])
def test_it_reads_back_as_pictures_exact_in_the_window(tmp_path, bits):
    drawer = Drawer()
    export(tmp_path / "out", drawer, bits=bits)
    source = read_back(tmp_path / "out")
    assert source.schema.labels == {"background": 0, "organ": 1, "lesion": 2}
    assert (source.schema.channels, source.schema.spacing) == (("T1",), (0.5, 0.75))
    samples: list[Any] = drawer.draw(0, 3)
    for case_id, sample in zip(source.train_ids, samples, strict=True):
        case: Any = source.load(case_id)
        wanted = (sample.image.clip(-2, 2) + 2) / 4
        away = np.abs(case.image - wanted).ravel() * (2**bits - 1)
        assert away[:64].max() <= 1.5 + 1e-2  # the mark: the lowest bit of 64 pixels
        assert away[64:].max() <= 0.5 + 1e-2
        numbers = np.array([0, 2, 300])[case.labels]
        assert np.array_equal(numbers, np.maximum(sample.labels, 0))
    mask = read_picture(tmp_path / "out/masks/sample-0000.png", "mask")
    assert np.unique(mask).tolist() == [0, 2, 300]


def test_each_of_several_channels_has_a_folder_and_a_window_but_colours_are_one_file(tmp_path):
    drawer, out = Drawer(("T1", "T2/FLAIR")), tmp_path / "out"
    export(out, drawer, window="-2:2,-1:3")
    assert lines(out)[1]["file"] == "images/T1/sample-0001.png;images/T2_FLAIR/sample-0001.png"
    (sample,) = drawer.draw(1, 1)
    for number, (low, high) in enumerate(((-2, 2), (-1, 3))):
        case = read_back(out, number).load("sample-0001")
        wanted = (sample.image[number].clip(low, high) - low) / (high - low)
        assert np.abs(case.image[0] - wanted).max() < 0.006
        assert case.labels.max() == 2
    export(tmp_path / "coloured", Drawer(("red", "green", "blue")))
    assert read_picture(tmp_path / "coloured/images/sample-0000.png").shape == (16, 24, 3)
    assert read_back(tmp_path / "coloured").schema.channels == ("red", "green", "blue")


def test_images_alone_are_an_export_too(tmp_path):
    export(tmp_path / "out", Drawer(labels=None), overlay=True)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        *("dataset.json", "images", "manifest.csv", "provenance.json")
    ]
    assert read_back(tmp_path / "out").load("sample-0002").labels is None


def test_a_hosts_volume_of_one_slice_is_a_slice(tmp_path):
    flat: Any = Drawer()._draw(0)
    boxes = Boxes(np.array([[0, 2, 3, 1, 5, 9]], np.float32), np.array([2], np.int16))
    deep: Any = {"image": flat.image[:, None], "labels": flat.labels[None], "boxes": boxes}
    report = export(tmp_path / "out", Drawer(**deep), n=1, window="0:100")
    assert lines(tmp_path / "out")[0]["boxes"] == "organ:2 3 5 9"
    assert read_picture(tmp_path / "out/images/sample-0000.png").shape == (16, 24)
    assert report["clipped"] == pytest.approx(0.5, abs=0.05)


def test_flawed_samples_are_left_out_and_counted(tmp_path):
    said: list[str] = []
    heard: Any = NullReporter()
    heard.warn = said.append
    report = export(tmp_path / "out", Drawer(flawed=2), 5, heard)
    assert (report["samples"], report["rejected"]) == (3, 2)
    assert [line["case"] for line in lines(tmp_path / "out")] == [
        f"sample-000{i}" for i in (2, 3, 4)
    ]
    assert "2 of 5 samples fail admission, and are left out" in said[0]
    assert report["reject_reasons"] == {"filter 'novel': a copy": 2}


def test_percentiles_are_those_of_training_cases(tmp_path):
    source = ToySource(2)
    cases = TrainingCases(CaseCache(source))
    options, told = PngOptions(window="2%:98%"), lambda: intensities_of(cases)
    found = PngWriter(tmp_path, source.schema, options, told).windows
    images = np.concatenate([source.load(c).image.reshape(2, -1) for c in source.train_ids], axis=1)
    for window, channel in zip(found, images, strict=True):
        assert window == pytest.approx(np.percentile(channel, (2, 98)), abs=1e-5)


@pytest.mark.fault(14)
@pytest.mark.parametrize(
    ("window", "ndim", "expected"),
    [
        ("0:1,0:1,0:1", 2, "sampling.window-count-differs"),
        ("1:0", 2, "options.value-invalid"),
        ("dark:light", 2, "options.value-invalid"),
        ("1%:200%", 2, "options.value-invalid"),
        ("0:1", 3, "sampling.writer-needs-slices"),
    ],
)
def test_a_window_that_is_none_and_volumes_are_refused(window, ndim, expected):
    def asked():
        options = read_settings(PngOptions, {"window": window}, "png")
        check_writer(PngWriter, options, ToySource(ndim).schema, "runs/g1")

    with raises_fault(expected):
        asked()


@pytest.mark.fault(31)
def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    left, work = iter(range(4)), png.png_bytes

    def full(pixels: Any, **how: Any) -> bytes:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return work(pixels, **how)

    monkeypatch.setattr(png_writer, "png_bytes", full)
    with raises_fault("files.no-room-to-write"):
        export(tmp_path / "out", Drawer())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault(29)
def test_what_a_killed_export_left_is_no_obstacle(tmp_path):
    left = files.temporary_beside(tmp_path / "out") / "images"
    left.mkdir(parents=True)
    (left / "sample-9999.png").touch()
    export(tmp_path / "out", Drawer(), n=1)
    assert not (tmp_path / "out/images/sample-9999.png").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
