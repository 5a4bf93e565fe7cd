import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from gansynth.bank.reader import BankReader
from gansynth.core.capabilities import Capabilities
from gansynth.core.lineage import Lineage
from gansynth.core.ratio import Ratio
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.sample_request import SampleRequest
from gansynth.core.source import case_records
from gansynth.hosts.contract.session import Session
from gansynth.runtime import torchvision_compat
from gansynth.runtime.files import read_json
from gansynth_evaluate.audit import audit_exported
from gansynth_yolo.export import exact_counts
from tests.adapters.kits import changed_run
from tests.adapters.yolo.conftest import fill_bank
from tests.adapters.yolo.detector_child import needs
from tests.conftest import content
from tests.expected import raises_fault
from tests.yolo_sets import opened, toy_yolo

SIZE = 40
"""Rows and columns of the samples; those of the real images are 64."""


@pytest.fixture(scope="module")
def bank(shared_yolo, tmp_path_factory) -> Path:
    """A bank of 20 random images with 0, 1, 2, 0, 1, 2, ... boxes at odd places."""
    rng, source, drawn = np.random.default_rng(1), opened(shared_yolo), []
    for number in range(20):
        low = rng.uniform(0, 0.7 * SIZE, (number % 3, 2))
        boxes = np.hstack([low, low + rng.uniform(2, 0.3 * SIZE, low.shape)]).astype(np.float32)
        drawn.append((rng.uniform(-0.1, 1.1, (1, SIZE, SIZE)).astype(np.float32), boxes))
    seen = Lineage(source.name, "0", case_records(source, source.train_ids[:2]), source.space.host)
    how: dict[str, Any] = {"dtype": "float32", "samples": SampleRequest(seed=7)}
    folder = tmp_path_factory.mktemp("banks") / "bank"
    return fill_bank(folder, drawn, schema=source.schema, seen=seen, **how)


def export(data: Path, bank: Path | None, out: Path | str, ratio: str = "3:1", **asked: Any) -> Any:
    request = AugmentRequest(target="yolo", ratio=ratio, bank=bank, export=str(out), **asked)
    return Session.of(request, opened(data)).export()


@pytest.fixture(scope="module")
def exported(shared_yolo, bank, tmp_path_factory) -> Path:
    """16 real images and 3:1: each is listed three times, beside 16 synthetic ones."""
    out: Path = tmp_path_factory.mktemp("exported") / "out"
    before = content(shared_yolo.parent)
    export(shared_yolo, bank, out)
    assert content(shared_yolo.parent) == before
    return out


@pytest.mark.parametrize(
    ("images", "ratio", "counts", "nearest"),
    [
        (2813, "2813:4000", (1, 4000), ""),
        (15, "2:1", (2, 15), ""),
        (10, "1:2.5", (1, 25), ""),
        (500, "2813:4000", (1, 711), "500:711"),
    ],
)
def test_a_ratio_comes_out_exactly_or_is_refused_with_the_nearest(images, ratio, counts, nearest):
    asked = Ratio.parse(ratio)
    if nearest:
        with raises_fault("yolo.export-repeats-too-often", names=f"--ratio {nearest};"):
            exact_counts(images, asked)
        asked = Ratio.parse(nearest)
    assert exact_counts(images, Ratio.parse(ratio), nearest=True) == counts
    assert exact_counts(images, asked) == counts
    assert counts[0] * images * asked.synthetic == counts[1] * asked.real


def test_the_list_has_every_real_image_thrice_and_every_synthetic_one_once(exported, shared_yolo):
    lines = [Path(line) for line in (exported / "train.txt").read_text().splitlines()]
    assert all(line.is_file() and line.parents[2] == exported for line in lines)
    counts = Counter((line.parent.name, n) for line, n in Counter(lines).items())
    assert counts == {("real", 3): 16, ("synth", 1): 16}
    assert yaml.safe_load((exported / "data.yaml").read_text()) == {
        **{"path": str(exported), "train": "train.txt", "val": "images/val", "test": "images/test"},
        **{"nc": 1, "names": {0: "lesion"}, "channels": 1},
    }
    images = opened(shared_yolo).images
    for split, folder in (("train", "real"), ("val", "val"), ("test", "test")):
        for part in ("images", "labels"):
            found = sorted((exported / part / folder).iterdir())
            files = [i.image if part == "images" else i.label for i in images[split]]
            assert [f.read_bytes() for f in found] == [f.read_bytes() for f in files]


def test_pixels_and_boxes_are_those_of_the_samples_in_the_window_of_real_images(exported, bank):
    reader, found = BankReader(bank), opened(exported, read={"allow_outside": "yes"})
    images = [i for i in found.images["train"] if i.image.parent.name == "synth"]
    assert len(images) == 16
    for image, sample_id in zip(images, reader.ids(), strict=False):
        sample, pixels = reader.read(sample_id), np.asarray(Image.open(image.image))
        assert (pixels.dtype, pixels.shape) == (np.dtype("u1"), (SIZE, SIZE))
        away = np.abs(pixels - np.rint(np.clip(sample.image[0], 0, 1) * 255)).ravel()
        assert away[:64].max() <= 1  # the mark: the lowest bit of 64 pixels
        assert not away[64:].any()
        assert sample.boxes is not None
        np.testing.assert_allclose(image.boxes.coords / SIZE, sample.boxes.coords / SIZE, atol=1e-6)
        assert image.labelled


def test_the_manifest_tells_both_ratios_and_where_all_came_from(exported, shared_yolo):
    told, source = read_json(exported / "manifest.json"), opened(shared_yolo)
    boxes, first = sum(len(i.rows) for i in source.images["train"]), source.train_ids[0]
    assert told["ratio"] == "3:1"
    assert told["images"] == {"real": 48, "synthetic": 16}
    assert told["lesions"] == {"real": 3 * boxes, "synthetic": 15}
    assert (told["seed"], told["each_real_image_listed"]) == (7, 3)
    record = read_json(exported / "provenance.json")
    assert record["lineage"]["cases"][0]["id"] == record["samples"]["synth_00"]["case"] == first
    sizes = {p.stem: p.stat().st_size for p in (exported / "labels" / "synth").iterdir()}
    assert told["lesion_free"] == sorted(name for name, size in sizes.items() if size == 0)
    assert (len(sizes), len(told["lesion_free"])) == (16, 6)


def test_what_is_to_be_shared_names_no_case_and_no_place(bank, tmp_path, shared_yolo):
    out, source = tmp_path / "out", opened(shared_yolo)
    told = export(shared_yolo, bank, out, "0:1", content="synthetic")
    files = [p for p in out.rglob("*") if p.is_file()]
    assert {p.parent.name for p in files} == {"synth", "out"}
    assert not any(p.is_symlink() for p in files)
    secrets = [str(tmp_path), str(shared_yolo.parent), source.name, *source.found.pictures]
    for path in files:
        found = path.read_bytes()
        assert [s for s in secrets if s.encode() in found or s in path.name] == [], path
    record = json.loads(Path(told["record"]).read_text())
    assert record["lineage"]["cases"]
    assert out not in Path(told["record"]).parents
    assert yaml.safe_load((out / "data.yaml").read_text())["train"] == "images/synth"
    assert audit_exported(out, bank=bank, sources=source).findings == ()


def test_real_images_with_new_lesions_are_not_shared(shared_yolo, box_run, tmp_path):
    takes = Capabilities(frozenset({"boxes", "background"})).to_json()
    run = changed_run(box_run, tmp_path / "run", capabilities=takes)
    asked = {"generator": run, "device": "cpu", "content": "synthetic", "bank_size": 6}
    with raises_fault("sampling.samples-hold-real-images"):
        export(shared_yolo, None, tmp_path / "out", "0:1", **asked)


@pytest.mark.parametrize(
    ("ratio", "out", "expected"),
    [
        ("999:1000", "out", "yolo.export-repeats-too-often"),
        ("1:1", "images/out", "yolo.path-part-images-or-labels"),
        ("1:1", "DATA/mixed", "yolo.export-inside-data-set"),
        ("1:1", "out --bank-size 6", "hosts.export-bank-size-with-ratio"),
    ],
)
def test_orders_that_make_no_data_set_write_nothing(
    shared_yolo, bank, box_run, tmp_path, monkeypatch, ratio, out, expected
):
    monkeypatch.chdir(tmp_path)
    folder, _, size = out.replace("DATA", str(shared_yolo.parent)).partition(" --bank-size ")
    asked = {"bank_size": int(size), "generator": box_run} if size else {}
    with raises_fault(expected):
        export(shared_yolo, None if size else bank, folder, ratio, **asked)
    assert list(tmp_path.iterdir()) == []


STOCK = """
import sys
import libreyolo
from libreyolo.training import trainer

class Watched(trainer.YOLODataset):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        print(*sorted(str(file) for file in self.img_files), sep="\\n", file=open("files", "w"))

trainer.YOLODataset = Watched
model = libreyolo.LibreYOLOX(None, size="n", device="cpu")
told = dict(epochs=1, batch=8, imgsz=64, device="cpu", workers=0, amp=False, pretrained=False)
model.train(data=sys.argv[1], project="trained", name="run", **told)
assert "gansynth" not in sys.modules
"""
"""Trains without gansynth for an epoch, and writes down what on."""


@needs("libreyolo")
@pytest.mark.slow
def test_a_stock_detector_trains_on_it_and_the_users_folder_stays(bank, tmp_path):
    out, data = tmp_path / "out", toy_yolo(tmp_path / "toy_yolo")
    export(data, bank, out)
    before = content(data.parent)
    line = [sys.executable, "-c", STOCK, out / "data.yaml"]
    environ = {**os.environ, "PYTHONPATH": str(torchvision_compat.CPU_TORCH)}
    done = subprocess.run(
        line, env=environ, capture_output=True, text=True, timeout=300, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    files = (tmp_path / "files").read_text().split()
    assert Counter(Path(file).parent.name for file in files) == {"real": 48, "synth": 16}
    assert len(set(files)) == 32
    assert content(data.parent) == before
    assert list((tmp_path / "trained").rglob("*.pt"))
