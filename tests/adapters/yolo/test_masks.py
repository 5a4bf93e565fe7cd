"""``yolo:`` with label maps beside the boxes: generators of lesions feed detectors, too."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gansynth.core.mix_config import MixConfig
from gansynth.core.ratio import Ratio
from gansynth.core.run_folder import RunFolder
from gansynth.core.source import SourceRequest, case_record
from gansynth.data.read_options import refuse_idle_read
from gansynth.fitting.fit import fit
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.progress import NullReporter
from gansynth.sampling.open_run import load_run
from gansynth.sampling.sampler import Sampler
from gansynth_yolo.adapter import YoloAdapter
from tests.yolo_sets import opened, toy_yolo, write_yaml

MASKED = {"masks": "yes"}
FIRST = "train/p01_z000"


def source_of(data: Path, **asked: Any) -> Any:
    return opened(data, **asked)


def mask_of(data: Path, case: str = FIRST) -> Path:
    return data.parent / f"masks/{case}.png"


@pytest.fixture
def masked(tmp_path) -> Path:
    """``data.yaml`` of a tiny data set whose masks are the insides of its boxes."""
    data = toy_yolo(tmp_path / "set", train=8, val=4, test=0, backgrounds=0)
    source = source_of(data)
    for case in (*source.train_ids, *source.held_out_ids):
        labels = np.zeros(source.header(case).shape, np.uint8)
        for top, left, bottom, right in source.load(case).boxes.coords.round().astype(int):
            labels[top:bottom, left:right] = 1
        mask_of(data, case).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(labels).save(mask_of(data, case))
    return data


def test_a_case_has_its_label_map_and_the_same_content(masked):
    source, plain = source_of(masked, read=MASKED), source_of(masked)
    case = source.load(FIRST)
    case.validate(source.schema)
    assert dict(source.schema.labels) == {"background": 0, "lesion": 1}
    np.testing.assert_array_equal(case.labels, np.asarray(Image.open(mask_of(masked))))
    assert (case_record(source, FIRST), source.space.host) == (
        case_record(plain, FIRST),
        plain.space.host,
    )
    assert plain.load(FIRST).labels is None


def test_label_maps_are_padded_as_their_images(masked):
    source = source_of(masked, read={**MASKED, "size": "64x96"})
    labels = source.load(FIRST).labels
    np.testing.assert_array_equal(labels[:, 16:80], np.asarray(Image.open(mask_of(masked))))
    assert labels.sum() == labels[:, 16:80].sum()


def test_boxes_are_drawn_around_parts_that_are_large_enough(masked):
    labels = np.zeros((64, 64), np.int16)
    labels[4:10, 20:25], labels[40, 40] = 1, 1
    boxes = source_of(masked, read={**MASKED, "least": "2"}).boxes_around(labels)
    assert boxes.coords.tolist() == [[4, 20, 10, 25]]
    assert boxes.labels.tolist() == [0]
    assert source_of(masked).boxes_around(labels) is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (Path.unlink, "no such file, expected the label map"),
        (lambda path: Image.new("L", (64, 64), 2).save(path), r"numbers \[2\], expected among"),
        (lambda path: Image.new("L", (32, 64)).save(path), "64 x 32 pixels, its image 64 x 64"),
    ],
)
def test_an_unusable_label_map_is_refused(masked, change, says):
    change(mask_of(masked))
    with pytest.raises(DataFault, match=says):
        source_of(masked, read=MASKED).load(FIRST)


def test_keys_and_classes_that_do_not_fit_are_refused(masked):
    with pytest.raises(UsageFault, match="masks"):
        refuse_idle_read(SourceRequest("yolo", str(masked), read={"least": "2"}), ["least"])
    splits = {"train": "images/train", "val": "images/val"}
    write_yaml(masked.parent, {**splits, "names": {0: "background"}, "nc": 1, "channels": 1})
    with pytest.raises(UsageFault, match=r"masks=yes: .* names a class"):
        source_of(masked, read=MASKED)


@pytest.mark.parametrize("plugin", ["copypaste", "parametric"])
def test_pasted_lesions_feed_a_detector(masked, tmp_path, plugin):
    asked = SourceRequest("yolo", str(masked), read=MASKED)
    fit(plugin, asked, tmp_path / "run", settings={}, edits=None, reporter=NullReporter())
    source = source_of(masked, read=MASKED)
    adapter = YoloAdapter(source)
    adapter.check_origin(MixConfig(RunFolder(tmp_path / "run"), Ratio(1, 1)))
    run = load_run(RunFolder(tmp_path / "run"), "cpu")
    samples: Any = Sampler(run, source).draw(0, 4)
    for sample in samples:
        adapter.finalise(sample)
        assert len(sample.boxes.coords) == len(source.boxes_around(sample.labels).coords)
        covered = np.zeros_like(sample.labels)
        for top, left, bottom, right in sample.boxes.coords.astype(int):
            covered[top:bottom, left:right] = 1
        assert (sample.labels <= covered).all()
