import json
from dataclasses import replace

import numpy as np
import pytest

from gansynth.metrics.detection import record
from gansynth.metrics.detection.record import read_detections, write_detections
from gansynth.runtime.errors import DataFault
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
    before = drawn(0)
    after = read_detections(write_detections(tmp_path / "new" / "d.json", before))
    assert replace(after, images=()) == replace(before, images=())
    for one, other in zip(before.images, after.images, strict=True):
        for key in ("id", "subject", "volume", "slice"):
            assert getattr(one, key) == getattr(other, key)
        np.testing.assert_allclose(one.truth.boxes, other.truth.boxes, atol=5.1e-4)
        np.testing.assert_allclose(one.found.boxes, other.found.boxes, atol=5.1e-4)
        np.testing.assert_array_equal(one.found.scores, other.found.scores)
        np.testing.assert_array_equal(one.found.labels, other.found.labels)


def test_float32_scores_that_differ_still_differ(tmp_path):
    scores = np.nextafter(np.array([0.9, 0.9], np.float32), np.array([0, 1], np.float32))
    image = seen("a", found=[BOX, BOX], scores=scores.tolist())
    kept = read_detections(write_detections(tmp_path / "d.json", document(image)))
    np.testing.assert_array_equal(kept.images[0].found.scores, scores.astype(float))


FIRST, SECOND = ("images", 0), ("images", 1)
TRUTH, HIT = (*FIRST, "truth"), (*FIRST, "found")
GONE = object()


@pytest.mark.parametrize(
    ("place", "key", "value", "says"),
    [
        ((), "version", 2, "version is 2, expected 1"),
        ((), "names", GONE, "names: missing"),
        ((), "names", [], "names is []"),
        ((), "images", [], "images is []"),
        ((), "foo", 1, "foo: unknown key"),
        ((), "iou_nms", 2, "iou_nms is 2"),
        (FIRST, "subjct", "p", "image 'a': subjct: unknown key"),
        (TRUTH, "box", [], "Did you mean 'boxes'?"),
        (TRUTH, "boxes", [[1, 2]], "image 'a': truth.boxes.0.2: missing"),
        (TRUTH, "boxes", [["x", 1, 2, 3]], "image 'a': truth.boxes.0.0 is 'x'"),
        (
            *(TRUTH, "boxes", [[10, 10, 10, 20]]),
            "image 'a': truth.boxes.0 is [10.0, 10.0, 10.0, 20.0]",
        ),
        (TRUTH, "boxes", [[1, 1, 2, 66]], "within 64 x 64 pixels"),
        (TRUTH, "labels", [1], "image 'a': truth.labels has 1, expected less than 1"),
        (TRUTH, "labels", [0, 0], "truth has {'boxes': 1, 'labels': 2}"),
        (HIT, "scores", [1.5], "image 'a': found.scores.0 is 1.5"),
        (
            *(HIT, "boxes", [[20, 10, 10, 20]]),
            "image 'a': found.boxes.0 is [20.0, 10.0, 10.0, 20.0]",
        ),
        (HIT, "labels", [-1], "image 'a': found.labels.0 is -1"),
        (HIT, "scores", [], "found has {'boxes': 1, 'scores': 0, 'labels': 1}"),
        (FIRST, "shape", [0, 64], "image 'a': shape.0 is 0"),
        (FIRST, "slice", None, "expected both or none"),
        (SECOND, "id", "a", "image 'a': there 2 times"),
        (SECOND, "slice", 3, "volume 'v': slice 3 is there 2 times"),
        (SECOND, "subject", "q", "image 'b': subject is 'q', expected that of the other"),
        (SECOND, "id", GONE, "image 1: id: missing"),
        (("images",), 1, 3, "image 1: the entry is 3"),
    ],
)
def test_nonsense_is_one_line_with_file_image_and_key(path, place, key, value, says):
    doc = json.loads(path.read_text())
    part = doc
    for step in place:
        part = part[step]
    part[key] = value
    if value is GONE:
        del part[key]
    path.write_text(json.dumps(doc))
    with pytest.raises(DataFault) as fault:
        read_detections(path)
    message = str(fault.value)
    assert message.startswith(f"{path}: ")
    assert says in message
    assert "\n" not in message


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000, '{"version": NaN}', "\xff"])
def test_what_is_no_document_is_refused(content, path):
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataFault, match=r"d\.json: "):
        read_detections(path)


def test_a_missing_or_huge_file_is_refused(path, monkeypatch):
    good = read_detections(path)
    with pytest.raises(DataFault, match="no such file"):
        read_detections(path.with_name("gone.json"))
    monkeypatch.setattr(record, "MOST_BYTES", 10)
    with pytest.raises(DataFault, match="larger than 10 bytes"):
        read_detections(path)
    with pytest.raises(DataFault, match="10 at most"):
        write_detections(path, good)


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (seen("b", [BOX], classes=([4], [])), "image 'b': truth.labels has 4"),
        (seen("b", found=[(9, 9, 8, 9)], scores=[1]), "image 'b': found.boxes.0"),
        (seen("b", found=[(9, 9, np.nan, 9)], scores=[1]), "NaN"),
        (seen("b", found=[BOX], scores=[7]), "image 'b': found.scores.0 is 7"),
    ],
)
def test_nonsense_is_not_written(image, says, path):
    before = path.read_bytes()
    with pytest.raises(DataFault, match=says):
        write_detections(path, document(image))
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["d.json"]
