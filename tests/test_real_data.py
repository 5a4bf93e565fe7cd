"""Real data sets, as each source reads them: orientation, people, intensities, boxes."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import rotate, zoom

from gansynth.core.fingerprint import alike, prints_of, sharing
from gansynth.core.requests.hosts import ImportRequest
from gansynth.core.source import SourceRequest
from gansynth.core.volumes import read_volume
from gansynth.hosts.data_sets.data_commands import report_import
from gansynth.sampling.run_source import open_source
from gansynth_deepmedic.source import open_deepmedic
from tests.conftest import DATA
from tests.data.sets import request
from tests.deepmedic_sets import BRATS_FILES, TRAIN_VALUES, stored, write_config
from tests.yolo_sets import opened, write_yaml

pytestmark = pytest.mark.data
HIPPOCAMPUS = DATA / "msd_task04_hippocampus"
BRATS = DATA / "brats2015_deepmedic" / "brats_2013_pat0005_1"
FIGSHARE = DATA / "figshare_brain_tumor_axial_yolo"


def test_a_subject_of_brats_lies_as_deepmedic_reads_it(tmp_path: Path) -> None:
    for name, file in BRATS_FILES.items():
        (tmp_path / f"{name}.cfg").write_text(f"{(BRATS / file).resolve()}\n")
    lists = {"channelsTraining": ["flair.cfg", "t1c.cfg"], "gtLabelsTraining": "labels.cfg"}
    values = {**TRAIN_VALUES, **lists, "roiMasksTraining": "roi.cfg"}
    config = write_config(tmp_path / "trainConfig.cfg", values)
    source: Any = open_deepmedic(SourceRequest("deepmedic", str(config)))
    case, host = source.load(BRATS.name), source.host_case(BRATS.name)
    assert case.image.shape == (2, 155, 240, 240)
    inside = host.view(np.rint(stored(host.roi))) > 0
    assert 0.1 < inside.mean() < 0.25
    assert np.array_equal(host.view(stored(host.channels[1])), case.image[1])
    labels = host.view(np.rint(stored(host.labels)))
    assert np.array_equal(np.where(inside, labels, -1), case.labels)
    body = case.image[:, inside]
    assert np.allclose(body.mean(axis=1), 0, atol=0.3)
    assert np.allclose(body.std(axis=1), 1, atol=0.5)


def test_the_hippocampus_is_in_order_imported_for_nnunet_and_split_by_person(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = tmp_path / "hippocampus"
    document = json.loads((HIPPOCAMPUS / "dataset.json").read_text())
    document["training"] = document["training"][:20]
    for pair in document["training"]:
        for file in pair.values():
            (some / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(HIPPOCAMPUS / file, some / file)
    (some / "dataset.json").write_text(json.dumps(document))
    shutil.copy(HIPPOCAMPUS / "subjects.csv", some)
    asked: dict[str, Any] = {"root": str(tmp_path), "quiet": True}
    report = report_import(ImportRequest(source=f"msd:{some}", target="nnunet:4", **asked))
    found = report.document
    assert capsys.readouterr().err == ""  # the check found nothing
    assert (found["dataset"], found["cases"]) == ("Dataset004_Hippocampus", 20)
    assert (found["subjects"], found["copied"], found["written"]) == (13, 40, 0)
    assert {held_out for _, held_out in found["folds"]} == {4}
    source = open_source(request(some, "msd"))
    train, held_out = (
        {source.header(c).subject for c in ids} for ids in (source.train_ids, source.held_out_ids)
    )
    assert train & held_out == set()
    assert source.space.size == (40, 56, 40)
    assert source.load(source.train_ids[0]).image.std() == pytest.approx(1, abs=0.2)


def test_boxes_of_figshare_are_read_in_pixels(tmp_path: Path) -> None:
    numbers = sorted(map(str, (FIGSHARE / "images").iterdir()))
    (tmp_path / "train.txt").write_text("\n".join(numbers[:400]))
    (tmp_path / "val.txt").write_text("\n".join(numbers[410:]))
    lists = {split: str(tmp_path / f"{split}.txt") for split in ("train", "val")}
    names = (FIGSHARE / "classes.txt").read_text().split()
    data = write_yaml(tmp_path, {"path": str(FIGSHARE), "names": names, "channels": 1, **lists})
    source = opened(data, read={"allow_outside": "yes", "spacing": "0.49"})
    assert (len(source.train_ids), len(source.held_out_ids)) == (400, 125)
    assert (source.space.size, source.schema.spacing) == ((256, 256), (0.98, 0.98))
    boxes = source.load("0001").boxes
    assert boxes is not None
    wanted = np.array([[0.345, 0.52, 0.495, 0.74]]) * 256
    np.testing.assert_allclose(boxes.coords, wanted, atol=1e-3)


@pytest.mark.slow
def test_everyday_disguises_of_slices_are_found_among_hundreds() -> None:
    files = sorted((DATA / "lgg_flair256" / "images").glob("*.png"))[::5]
    images = [np.asarray(Image.open(file).convert("L"), np.float32) for file in files]
    known = [prints_of(image[None], (1, 1)) for image in images]
    disguises = {
        "window": lambda x: np.clip(x, *np.percentile(x, (20, 80))),
        "ranks": lambda x: np.searchsorted(np.sort(x.ravel()), x),
        "crop": lambda x: x[26:-26, 26:-26],
        "slab": lambda x: x[:, 102:180],
        "turn": lambda x: rotate(x, 10, reshape=False, order=1),
        "larger, flipped half": lambda x: zoom(x, 1.25, order=1)[:160, ::-1],
    }
    chosen = range(0, len(images), len(images) // 10)
    for name, change in disguises.items():
        changed = [np.asarray(change(images[n]), np.float32)[None] for n in chosen]
        found = sharing(known, [prints_of(image, (1, 1)) for image in changed])
        right = [
            files[found[k]].name[:12] == files[n].name[:12]
            for k, n in enumerate(chosen)
            if k in found
        ]
        assert all(right), name
        assert len(right) >= 0.9 * len(chosen), name


@pytest.mark.slow
def test_no_two_people_look_alike() -> None:
    volumes = [read_volume(file) for file in sorted(DATA.glob("lgg_flair3d128/images/*.nii.gz"))]
    prints = [prints_of(v.array[None], np.abs(np.diag(v.affine))[:3].tolist()) for v in volumes]
    assert len(prints) >= 77
    for number, one in enumerate(prints):
        assert len(one) == 2
        assert all(one)
        others = prints[number + 1 :]
        assert alike(others, [one]) == sharing(others, [one]) == {}
