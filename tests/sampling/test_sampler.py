import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

import gansynth
from gansynth import replay
from gansynth.core.run_folder import write_manifest
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Boxes, Sample, Schema
from gansynth.core.source import SourceRequest
from gansynth.core.space import Space
from gansynth.core.writer import Item
from gansynth.data.case_writer import NiftiWriter
from gansynth.sampling.open_run import load_run
from gansynth.sampling.replay import SampleRecord, read_record
from gansynth.sampling.run_source import open_source
from gansynth.sampling.sample import sample as write_samples
from gansynth.sampling.sampler import Sampler
from gansynth.sampling.sketch import Sketch
from gansynth.sampling.writing import write as write_items
from gansynth.testing import ToySource
from tests.expected import raises_fault
from tests.offered import offered

SPACING = (3.0, 1.5, 0.75)


@pytest.fixture(scope="module")
def runs(toy_fit, tmp_path_factory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("runs")
    toy_fit(base / "flat", steps=0)
    tiny = {"width": 4, "levels": 1, "d_width": 4, "d_levels": 1, "output": "tanh", "context": 2}
    toy_fit(base / "deep", data="3", steps=1, own=tiny, edits=("shift", "flip"))
    return {"flat": base / "flat", "deep": base / "deep"}


@pytest.fixture
def deep(runs) -> Any:
    return load_run(runs["deep"], "cpu")


@pytest.fixture
def drawer(deep) -> Any:
    return Sampler(deep, ToySource(3), SampleRequest(seed=4))


def load(path: Path) -> Any:
    return nib.load(path)


def sample(run: Path, n: int, **options: Any) -> Any:
    return write_samples(run, n=n, device="cpu", quiet=True, **options)


def test_a_sample_is_the_same_whatever_the_batch_and_leaves_the_random_state_alone(drawer, deep):
    before = torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    together = drawer.draw(0, 4)
    again: Any = Sampler(deep, ToySource(3), SampleRequest(seed=4))
    for index in (3, 0):
        alone = again.draw(index, 1)[0]
        assert np.array_equal(alone.image, together[index].image)
        assert np.array_equal(alone.labels, together[index].labels)
        assert alone.provenance == together[index].provenance
    assert torch.equal(torch.get_rng_state(), before[0])
    assert str(np.random.get_state()) == before[1]  # noqa: NPY002
    told = json.loads(json.dumps(together[1].provenance))
    assert told["run"] == deep.run_id
    assert told["case"] in ToySource(3).train_ids
    assert [step["edit"] for step in told["edits"]] == ["shift", "flip"]
    assert (told["index"], told["seed"], told["generator"]) == (1, 4, "cgan3d")
    assert told["latent_seed"] >= 0
    assert "admitted" not in told, "no filter was asked for"


def test_samples_go_back_to_the_sources_units(drawer, deep):
    """A window maps to [-1, 1]; the host's samples lie in the window, the outside at its fill."""
    raw, host = drawer.draw_raw(0, 1)[0], drawer.draw(0, 1)[0]
    assert np.abs(raw.image).max() <= 1
    for channel, (low, high) in enumerate(deep.space.window):
        assert low - 1e-5 <= host.image[channel].min()
        assert host.image[channel].max() <= high + 1e-5
    assert host.image[:, host.labels == -1] == pytest.approx(0, abs=1e-6)


# -- a source that is another ----------------------------------------------------------------------


TOY = ToySource(3)


def brighter(self: Any, case_id: str) -> Any:
    case = ToySource.load(self, case_id)
    return replace(case, image=case.image * np.float32(1.5))


@pytest.mark.fault(3)
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train_ids": (*TOY.train_ids, "toy_12")}, "sampling.source-cases-unseen"),
        (
            {"space": replace(TOY.space, host={"spacing": [2.0, 2.0, 2.0]})},
            "lineage.space-of-other-host",
        ),
        ({"schema": ToySource(2).schema}, "sampling.source-schema-differs"),
        (
            {"schema": replace(TOY.schema, channels=("second", "first"))},
            "sampling.source-schema-differs",
        ),
        ({"load": brighter}, "sampling.case-content-changed"),
    ],
    ids=["split", "spacing", "axes", "channels", "content"],
)
def test_a_source_that_is_not_its_own_is_refused(deep, changes, expected):
    other = type("Other", (ToySource,), changes)
    with raises_fault(expected):
        Sampler(deep, other(3)).draw(0, 1)


# -- as files --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("written")
    return out, sample(runs["deep"], 5, out=out, sheet=True, seed=4)


def read_back(folder: Path, kind: str = "nifti") -> Any:
    """What a user's next command opens, with nothing said but who has drawn it."""
    return open_source(SourceRequest(kind, str(folder), fold="all", synthetic="run"))


def test_samples_are_a_data_set(written):
    files = {str(p.relative_to(written[0])) for p in written[0].rglob("*") if p.is_file()}
    images = {f"images/sample-{i:04d}_{c:04d}.nii.gz" for i in range(5) for c in range(2)}
    labels = {f"labels/sample-{i:04d}.nii.gz" for i in range(5)}
    assert files == images | labels | {"dataset.json", "provenance.json", "sheet.png"}
    source = open_source(SourceRequest("nifti", str(written[0])))
    assert (len(source.train_ids), len(source.held_out_ids)) == (4, 1)  # folds to fit on
    own = ToySource(3).schema
    assert (source.schema.spacing, source.schema.labels) == (own.spacing, own.labels)
    told = json.loads((written[0] / "dataset.json").read_text())  # nnU-Net's
    assert told["channel_names"] == {"0": "first", "1": "second"}
    assert (told["numTraining"], told["file_ending"]) == (5, ".nii.gz")
    assert told["labels"] == dict(ToySource(3).schema.labels)


def test_written_provenance_replays_to_the_written_sample(written, runs, tmp_path):
    record = f"{written[0]}/provenance.json:sample-0001"
    again: Any = replay(runs["deep"], record)
    read = read_back(written[0]).load("sample-0001")
    assert np.array_equal(again.image, read.image)
    assert np.array_equal(np.maximum(again.labels, 0), read.labels)
    out = tmp_path / "again"
    report = write_samples(runs["deep"], replay=record, out=out, device="cpu", quiet=True)
    assert (report["sample"], report["same_to_the_bit"]) == (1, True)
    assert np.array_equal(read_back(out).load("sample-0001").image, read.image)


SOUND = "settings,,{}\nsynthetic,0-1,a,1,f\n"
REFUSED = [
    ("settings,,{\nsynthetic,0-1,a,1,f", ":2", "sampling.replay-settings-damaged"),
    ("settings,,[]\nsynthetic,0-1,a,1,f", ":2", "sampling.replay-settings-damaged"),
    ("settings\nsynthetic,0-1,a,1,f", ":2", "sampling.replay-line-without-number"),
    ('\nsynthetic,"' + "x" * 200000, ":2", "sampling.replay-line-damaged"),
    (SOUND, "", "sampling.replay-form-unknown"),
    (SOUND, ":999", "sampling.replay-line-unknown"),
    (SOUND, ":1", "sampling.replay-line-not-synthetic"),
]


@pytest.mark.parametrize(("text", "line", "expected"), REFUSED, ids=range(len(REFUSED)))
def test_a_record_that_is_none_is_refused(text, line, expected, tmp_path):
    log = tmp_path / "draws-host-1.csv"
    log.write_text(text)
    with raises_fault(expected, names=f"{log}{line}"):
        read_record(f"{log}{line}")


def test_a_record_that_says_otherwise_what_was_asked_is_refused():
    told = {"index": 0, "seed": 0, "sha256": "f", "settings": {"asking": {"lesions": "what=one"}}}
    with raises_fault("sampling.replay-record-of-other-version"):
        SampleRecord.of(told, "provenance")


@pytest.fixture
def told(written) -> Any:
    return json.loads((written[0] / "provenance.json").read_text())["samples"]["sample-0001"]


def test_another_run_does_not_replay_a_sample(runs, told, tmp_path):
    manifest = json.loads((runs["deep"] / "manifest.json").read_text())
    write_manifest(tmp_path, {**manifest, "run_id": "another"})
    with raises_fault("sampling.replay-run-changed"):
        replay(tmp_path, told)


@pytest.mark.parametrize(
    ("off", "mark", "equality", "level"),
    [
        (2e-4, "", "the same within 0.001", logging.INFO),
        (2e-2, "", "not the same: the image is off by", logging.WARNING),
        (0, "0" * 16, "not the same: other labels", logging.WARNING),
        (None, "", "too old to tell", logging.WARNING),
    ],
)
def test_a_replay_says_which_kind_of_equality_it_found(
    off, mark, equality, level, runs, told, caplog
):
    caplog.set_level(logging.INFO, "gansynth")
    gpu = {**told, "settings": {**told["settings"], "device": "cuda", "model": "X"}}
    if off is None:
        del gpu["sketch"]
    else:
        image = replay(runs["deep"], told).image
        noise = np.random.default_rng(0).standard_normal(image.shape, np.float32)
        drawn = Sketch.of(Sample(image + off * image.std() * noise, None))
        known = Sketch.read(told["sketch"])
        gpu["sketch"] = str(Sketch(drawn.sums, mark or known.mark))
    replay(runs["deep"], {**gpu, "sha256": "0" * 64})
    record = caplog.records[-1]
    assert (equality in record.message, record.levelno) == (True, level)
    assert "device cuda, now cpu" in record.message


def test_samples_lie_in_the_run_folder_unless_told_otherwise_and_a_full_one_is_left_alone(
    runs, tmp_path
):
    run = Path(shutil.copytree(runs["flat"], tmp_path / "run"))
    reports = [sample(run, n, seed=3) for n in (2, 1)]
    folder = run / "samples" / "seed-3"
    assert [report["folder"] for report in reports] == [str(folder)] * 2
    assert [path.name for path in (folder / "labels").iterdir()] == ["sample-0000.nii.gz"]
    assert "sheet" not in reports[1]
    drawn = Sampler(load_run(run, "cpu"), ToySource(2), SampleRequest(seed=3)).draw(0, 1)[0]
    assert np.array_equal(read_back(folder).load("sample-0000").image[:, 0], drawn.image)
    assert read_back(folder).schema.spacing == (1.0, *ToySource(2).schema.spacing)
    with raises_fault("sampling.export-folder-exists"):
        sample(run, 1, out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_resampled_samples_go_back_to_their_cases_shape(toy_fit, tmp_path, monkeypatch):
    monkeypatch.setattr(ToySource, "space", property(lambda self: Space("resample", (16, 20))))
    toy_fit(tmp_path / "run", steps=0)
    report = sample(tmp_path / "run", 1)
    images = load(Path(report["folder"]) / "images/sample-0000_0000.nii.gz")
    assert images.shape == (32, 32, 1)


def write(folder: Path, image: Any, labels: Any = None, **more: Any) -> Any:
    names = {"background": 0, "organ": 1}
    schema = Schema(("a", "b")[: len(image)], names, SPACING, **more.pop("schema", {}))
    items = [Item("case", image, labels, **more)]
    write_items(lambda f: NiftiWriter(f, schema), items, schema, folder, made={"normalised": True})
    return read_back(folder)


def test_spacing_is_in_the_header(tmp_path):
    image = np.random.default_rng(0).normal(size=(2, 4, 5, 6)).astype(np.float32)
    source = write(tmp_path, image, np.ones((4, 5, 6), np.int16))
    assert np.array_equal(source.load("case").image, image)
    assert source.schema.spacing == SPACING
    assert load(tmp_path / "labels/case.nii.gz").header.get_zooms() == SPACING[::-1]


def test_boxes_are_a_table_beside_images_without_labels(tmp_path):
    boxes = Boxes(np.array([[0, 1, 2, 2, 3, 4]], np.float32), np.zeros(1, np.int16))
    classes = {"box_classes": ("core",)}
    source = write(tmp_path, np.ones((1, 4, 5, 6), np.float32), boxes=boxes, schema=classes)
    table = (tmp_path / "boxes/case.csv").read_text().splitlines()
    assert table == ["class,xmin,ymin,zmin,xmax,ymax,zmax", "core,2,1,0,4,3,2"]
    assert source.load("case").labels is None
    assert not (tmp_path / "labels").exists()
    assert "labels" not in json.loads((tmp_path / "dataset.json").read_text())


# -- what nobody has labelled ----------------------------------------------------------------------

IGNORE, LIT = 9, np.float32(1000)


class Sparse(ToySource):
    """Toy cases with stripes that are to be ignored, and are lit to be known again."""

    @property
    def schema(self):
        toy = super().schema
        return replace(toy, labels={**toy.labels, "ignore": IGNORE}, ignore=IGNORE)

    def load(self, case_id):
        case: Any = super().load(case_id)
        unknown = (np.indices(case.labels.shape)[-1] // 6 % 2 == 0) & (case.labels >= 0)
        labels = np.where(unknown, np.int16(IGNORE), case.labels)
        return replace(case, image=case.image + LIT * unknown, labels=labels)


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    """The run of a generator on sparse cases, fitted once: ``sparse("elastic")``."""
    home: Path = tmp_path_factory.mktemp("sparse")

    def fitted(generator: str) -> Path:
        if not (home / generator).exists():
            gansynth.fit(generator, data="sparse:2", out=home / generator)
        return home / generator

    with offered("sparse", sources={"sparse": lambda request: Sparse(2)}):
        yield fitted


@pytest.mark.parametrize(
    ("generator", "lesions"),
    [
        *(("copypaste", way) for way in ("add", "swap", "in-place", "where=own", "add,sham=0.9")),
        *(("copypaste", "add,mixing=carve"), ("parametric", "swap"), ("elastic", None)),
    ],
)
def test_a_voxel_that_nobody_labelled_is_ignored_in_every_sample_that_shows_it(
    sparse, generator, lesions
):
    request = SampleRequest(seed=1, lesions=lesions, keep_flawed=True)
    samples = Sampler(load_run(sparse(generator), "cpu"), Sparse(2), request).draw(0, 12)
    shown = [sample.image.max(axis=0) > 0.75 * LIT for sample in samples]
    for lit, sample in zip(shown, samples, strict=True):
        assert lit.any()
        assert sample.labels is not None
        assert not (sample.labels[lit] == 0).any()  # a lesion there takes on the light
        assert (sample.labels[lit] == IGNORE).any()
        assert (sample.labels[~lit] == 0).any()


@pytest.mark.parametrize("generator", ["copypaste", "parametric"])
def test_a_lesion_drawn_in_a_window_is_that_drawn_in_the_whole(
    toy_fit, tmp_path, monkeypatch, generator
):
    toy_fit(tmp_path / "run", generator=generator, own={}, edits=None)
    run: Any = load_run(tmp_path / "run", "cpu")
    assert run.generator.lesion_margin() < 8  # of 32 voxels
    windowed: Any = Sampler(run, ToySource(2)).draw(0, 12)
    monkeypatch.setattr(type(run.generator), "lesion_margin", lambda self: None)
    whole: Any = Sampler(run, ToySource(2)).draw(0, 12)
    for one, other in zip(windowed, whole, strict=True):
        assert np.array_equal(one.image, other.image)
        assert np.array_equal(one.labels, other.labels)
        assert one.provenance == other.provenance
