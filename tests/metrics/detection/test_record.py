import json
from dataclasses import replace

import numpy as np
import pytest

from gansynth.metrics.detection import record
from gansynth.metrics.detection.record import read_detections, write_detections
from gansynth.runtime.errors import DataFault
from tests.expected import raises_fault
from tests.metrics.detection.simulated import document, drawn, seen

BOX = (10, 10, 20, 20)


@pytest.fixture
def path(tmp_path):
    """A document of two slices of one volume."""
    images = (
        seen("a", [BOX], [BOX], [0.5], subject="p", place=("v", 3)),
        seen("b", subject="p", place=("v", 4)),
    )
    told = document(*images, confidence=0.001, most_found=300, about={"ratio": "1:1"})
    return write_detections(tmp_path / "d.json", told)


def test_what_is_written_is_read_again(tmp_path):
    scores = np.nextafter(np.array([0.9, 0.9], np.float32), np.array([0, 1], np.float32))
    close = seen("scores of float32", found=[BOX, BOX], scores=scores.tolist())
    before = drawn(0)
    before = replace(before, images=(*before.images, close))
    after = read_detections(write_detections(tmp_path / "new" / "d.json", before))
    assert replace(after, images=()) == replace(before, images=())
    for one, other in zip(before.images, after.images, strict=True):
        for key in ("id", "subject", "volume", "slice"):
            assert getattr(one, key) == getattr(other, key)
        np.testing.assert_allclose(one.truth.boxes, other.truth.boxes, atol=5.1e-4)
        np.testing.assert_allclose(one.found.boxes, other.found.boxes, atol=5.1e-4)
        np.testing.assert_array_equal(one.found.scores, other.found.scores)
        np.testing.assert_array_equal(one.found.labels, other.found.labels)


FIRST, SECOND = ("images", 0), ("images", 1)
TRUTH, HIT = ("annotations", 0), ("detections", 0)


@pytest.mark.parametrize(
    ("place", "key", "value", "says"),
    [
        (("info",), "version", 1, "info.version is 1"),
        ((), "categories", [], "categories is []"),
        ((), "images", [], "images is []"),
        ((), "foo", 1, "foo is 1: Extra inputs"),
        (("info",), "iou_nms", 2, "info.iou_nms is 2"),
        (TRUTH, "bbox", [1, 2], "annotations.0.bbox.2"),
        (TRUTH, "bbox", [10, 10, 0, 10], "annotations.0.bbox.2 is 0"),
        (TRUTH, "bbox", [1, 1, 1, 65], "within 64 x 64 pixels"),
        (TRUTH, "category_id", 2, "is of no image or category"),
        (HIT, "image_id", 3, "is of no image or category"),
        (HIT, "score", 1.5, "detections.0.score is 1.5"),
        (HIT, "bbox", [10, 10, -1, 20], "detections.0.bbox.2 is -1"),
        (FIRST, "height", 0, "images.0.height is 0"),
        (FIRST, "slice", None, "expected both or none"),
        (SECOND, "file_name", "a", "image 'a' is there 2 times"),
        (SECOND, "id", 1, "image 1 is there 2 times"),
        (SECOND, "slice", 3, "volume and slice ('v', 3) is there 2 times"),
        (SECOND, "subject", "q", "image 'b': subject is 'q', expected that of the other"),
    ],
)
def test_nonsense_is_one_line_with_file_key_and_value(path, place, key, value, says):
    doc = json.loads(path.read_text())
    part = doc
    for step in place:
        part = part[step]
    part[key] = value
    path.write_text(json.dumps(doc))
    with pytest.raises(DataFault) as fault:
        read_detections(path)
    assert str(fault.value).startswith(f"{path}: ")
    assert says in str(fault.value)
    assert "\n" not in str(fault.value)


VERSION_1 = b'{"version": 1, "detector": "toy", "names": ["x"], "images": []}'


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (VERSION_1, "write it again with gansynth augment"),
        *[(content, "") for content in (b"[]", b"{", b"[" * 100_000, b'{"version": NaN}', b"\xff")],
    ],
)
def test_what_is_no_document_is_refused(content, says, path):
    path.write_bytes(content)
    with raises_fault("metrics.detections-malformed", names=says):
        read_detections(path)


def test_a_missing_or_huge_file_is_refused(path, monkeypatch):
    good = read_detections(path)
    with raises_fault("nifti.file-missing"):
        read_detections(path.with_name("gone.json"))
    monkeypatch.setattr(record, "MOST_BYTES", 10)
    with raises_fault("metrics.detections-too-large"):
        read_detections(path)
    with raises_fault("metrics.detections-too-large-to-write"):
        write_detections(path, good)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (seen("b", [BOX], classes=([4], [])), "metrics.detections-malformed"),
        (seen("b", found=[(9, 9, np.nan, 9)], scores=[1]), "metrics.detections-not-written"),
        (seen("b", found=[BOX], scores=[]), "metrics.detections-not-written"),
    ],
)
def test_nonsense_is_not_written(image, expected, path):
    before = path.read_bytes()
    with raises_fault(expected):
        write_detections(path, document(image))
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["d.json"]
