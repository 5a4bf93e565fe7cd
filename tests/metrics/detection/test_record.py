"""The detections document: what is written is read again, and nonsense is named."""
# mypy: disallow-untyped-calls=False

import json
from dataclasses import replace

import numpy as np
import pytest

from gansynth.metrics.detection import record
from gansynth.metrics.detection.record import read_detections, write_detections
from gansynth.runtime.errors import DataFault
from tests.metrics.detection.simulated import document, drawn, seen

BOX = (10, 10, 20, 20)


def good():
    return document(
        seen("a", [BOX], [BOX], [0.5], subject="p", place=("v", 3)),
        seen("b", subject="p", place=("v", 4)),
        confidence=0.001,
        most_found=300,
        about={"ratio": "1:1"},
    )


def test_what_is_written_is_read_again(tmp_path):
    before = drawn(0)
    after = read_detections(write_detections(tmp_path / "new" / "d.json", before))
    assert replace(after, images=()) == replace(before, images=())
    for one, other in zip(before.images, after.images, strict=True):
        assert (one.id, one.subject, one.volume, one.slice) == (
            other.id, other.subject, other.volume, other.slice,
        )  # fmt: skip
        np.testing.assert_allclose(one.truth.boxes, other.truth.boxes, atol=5.1e-4)
        np.testing.assert_allclose(one.found.boxes, other.found.boxes, atol=5.1e-4)
        np.testing.assert_array_equal(one.found.scores, other.found.scores)
        np.testing.assert_array_equal(one.found.labels, other.found.labels)


def test_float32_scores_that_differ_still_differ(tmp_path):
    scores = np.nextafter(np.array([0.9, 0.9], np.float32), np.array([0, 1], np.float32))
    image = seen("a", found=[BOX, BOX], scores=scores.tolist())
    kept = read_detections(write_detections(tmp_path / "d.json", document(image)))
    np.testing.assert_array_equal(kept.images[0].found.scores, scores.astype(float))


BAD = {
    "version is 2, expected 1": lambda doc: doc.update(version=2),
    "names: missing": lambda doc: doc.pop("names"),
    "names is []": lambda doc: doc.update(names=[]),
    "images is []": lambda doc: doc.update(images=[]),
    "foo: unknown key": lambda doc: doc.update(foo=1),
    "iou_nms is 2": lambda doc: doc.update(iou_nms=2),
    "image 'a': subjct: unknown key": lambda doc: doc["images"][0].update(subjct="p"),
    "Did you mean 'boxes'?": lambda doc: doc["images"][0]["truth"].update(box=[]),
    "image 'a': truth.boxes.0.2: missing": lambda doc: doc["images"][0]["truth"].update(
        boxes=[[1, 2]]
    ),
    "image 'a': truth.boxes.0.0 is 'x'": lambda doc: doc["images"][0]["truth"].update(
        boxes=[["x", 1, 2, 3]]
    ),
    "image 'a': truth.boxes.0 is [10.0, 10.0, 10.0, 20.0]": lambda doc: doc["images"][0][
        "truth"
    ].update(boxes=[[10, 10, 10, 20]]),
    "within 64 x 64 pixels": lambda doc: doc["images"][0]["truth"].update(boxes=[[1, 1, 2, 66]]),
    "image 'a': truth.labels has 1, expected less than 1": lambda doc: doc["images"][0][
        "truth"
    ].update(labels=[1]),
    "truth has {'boxes': 1, 'labels': 2}": lambda doc: doc["images"][0]["truth"].update(
        labels=[0, 0]
    ),
    "image 'a': found.scores.0 is 1.5": lambda doc: doc["images"][0]["found"].update(scores=[1.5]),
    "image 'a': found.boxes.0 is [20.0, 10.0, 10.0, 20.0]": lambda doc: doc["images"][0][
        "found"
    ].update(boxes=[[20, 10, 10, 20]]),
    "image 'a': found.labels.0 is -1": lambda doc: doc["images"][0]["found"].update(labels=[-1]),
    "found has {'boxes': 1, 'scores': 0, 'labels': 1}": lambda doc: doc["images"][0][
        "found"
    ].update(scores=[]),
    "image 'a': shape.0 is 0": lambda doc: doc["images"][0].update(shape=[0, 64]),
    "expected both or none": lambda doc: doc["images"][0].update(slice=None),
    "image 'a': there 2 times": lambda doc: doc["images"][1].update(id="a"),
    "volume 'v': slice 3 is there 2 times": lambda doc: doc["images"][1].update(slice=3),
    "image 'b': subject is 'q', expected that of the other": lambda doc: doc["images"][1].update(
        subject="q"
    ),
    "image 1: id: missing": lambda doc: doc["images"][1].pop("id"),
    "image 1: the entry is 3": lambda doc: doc["images"].__setitem__(1, 3),
}


@pytest.mark.parametrize("says", BAD)
def test_nonsense_is_one_line_with_file_image_and_key(says, tmp_path):
    path = write_detections(tmp_path / "d.json", good())
    doc = json.loads(path.read_text())
    BAD[says](doc)
    path.write_text(json.dumps(doc))
    with pytest.raises(DataFault) as fault:
        read_detections(path)
    message = str(fault.value)
    assert message.startswith(f"{path}: ")
    assert says in message
    assert "\n" not in message


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000, '{"version": NaN}', "\xff"])
def test_what_is_no_document_is_refused(content, tmp_path):
    path = tmp_path / "d.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataFault, match=r"d\.json: "):
        read_detections(path)


def test_a_missing_or_huge_file_is_refused(tmp_path, monkeypatch):
    with pytest.raises(DataFault, match="no such file"):
        read_detections(tmp_path / "d.json")
    path = write_detections(tmp_path / "d.json", good())
    monkeypatch.setattr(record, "MOST_BYTES", 10)
    with pytest.raises(DataFault, match="larger than 10 bytes"):
        read_detections(path)
    with pytest.raises(DataFault, match="10 at most"):
        write_detections(path, good())


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (seen("b", [BOX], classes=([4], [])), "image 'b': truth.labels has 4"),
        (seen("b", found=[(9, 9, 8, 9)], scores=[1]), "image 'b': found.boxes.0"),
        (seen("b", found=[(9, 9, np.nan, 9)], scores=[1]), "NaN"),
        (seen("b", found=[BOX], scores=[7]), "image 'b': found.scores.0 is 7"),
    ],
)
def test_nonsense_is_not_written(image, says, tmp_path):
    path = write_detections(tmp_path / "d.json", good())
    before = path.read_bytes()
    with pytest.raises(DataFault, match=says):
        write_detections(path, document(image))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["d.json"]
