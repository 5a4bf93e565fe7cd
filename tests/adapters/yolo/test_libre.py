"""LibreYOLO really trains on places: in a process of its own, since it touches global state."""

import json
import os
import subprocess
import sys
from collections import Counter
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.bank.draw_log import PATTERN, summarise
from gansynth.core.injection import MixPlan
from gansynth.core.ratio import Ratio
from gansynth.runtime.errors import DataFault, EnvironmentFault, UsageFault
from gansynth_yolo import libre_options
from gansynth_yolo.detectors import DetectorJob, detector
from gansynth_yolo.mixed import PARTNERS, Slots
from tests.adapters.yolo.banks import write_bank
from tests.yolo_sets import toy_yolo

CHILD = Path(__file__).with_name("libre_child.py")
REAL, EPOCHS = 16, 2


def train(folder: Path, jobs: dict[str, dict[str, Any]], *, fails: bool = False) -> Any:
    """Train in a child; what each job came to, by name, or what the child said last."""
    for name, job in jobs.items():
        (folder / name).mkdir()
        job["folder"] = str(folder / name)
    file = folder / "jobs.json"
    file.write_text(json.dumps(list(jobs.values())))
    paths = os.pathsep.join((str(CHILD.parents[3]), os.environ.get("PYTHONPATH", "")))
    ran = subprocess.run(
        [sys.executable, CHILD, file],
        env={**os.environ, "PYTHONPATH": paths, "HTTPS_PROXY": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=False,
    )
    if fails:
        assert ran.returncode == 1
        return ran.stderr.strip().splitlines()[-1]
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert ran.stdout == ""
    return dict(zip(jobs, json.loads(file.with_suffix(".out.json").read_text()), strict=True))


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def drawn(folder: Path) -> Counter[str]:
    """How often each real image, by index, and each sample was drawn."""
    lines = [line for log in folder.glob(PATTERN) for line in log.read_text().splitlines()]
    return Counter(line.rpartition(",")[0] for line in lines)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A folder with a data set ``set`` and a bank ``bank``."""
    folder: Path = tmp_path_factory.mktemp("libre")
    toy_yolo(folder / "set", train=REAL)
    write_bank(folder / "bank", samples=50)
    return folder


def given(base: Path, **more: Any) -> dict[str, Any]:
    data, bank = str(base / "set" / "data.yaml"), str(base / "bank")
    return {"data": data, "bank": bank, "real": REAL, "epochs": EPOCHS, **more}


@pytest.fixture(scope="module")
def trained(base) -> dict[str, Any]:
    """Two trainings in one child: with mosaics and MixUp, and without any augmentation."""
    before = tree(base / "set")
    options = {"no_aug_epochs": 0, "mixup": 1.0}
    done: dict[str, Any] = train(
        base,
        {
            "mosaic": given(base, workers=2, options=options),
            "plain": given(base, ratio="2:3", batch=12, cache="ram", augment=False),
        },
    )
    assert tree(base / "set") == before, "the user's folder was written to"
    return done


@pytest.mark.parametrize(("job", "synthetic"), [("mosaic", 16), ("plain", 24)])
def test_every_epoch_has_exactly_its_primaries(base, trained, job, synthetic):
    counted = [(real, others) for _, _, _, real, others in trained[job]["epochs"]]
    assert counted == [(REAL * epoch, synthetic * epoch) for epoch in (1, 2)]
    counts = drawn(base / job / "log")
    assert [counts[f"real,{index}"] for index in range(REAL)] == [EPOCHS] * REAL


def test_partners_have_the_ratio_though_backgrounds_are_passed_over(base, trained):
    partners = summarise(base / "mosaic" / "log" / PARTNERS)
    count = partners.real + partners.synthetic
    assert count == EPOCHS * 2 * REAL * 4  # three in a mosaic, and MixUp's
    assert abs(partners.realised - 0.5) < 4 * sqrt(0.25 / count)
    texts = sorted((base / "set" / "labels" / "train").iterdir())
    empty = [i for i, text in enumerate(texts) if not text.read_text()]
    counts = drawn(base / "mosaic" / "log" / PARTNERS)
    assert empty
    assert not any(counts[f"real,{index}"] for index in empty)


def test_draws_are_distinct(base, trained):
    counts = summarise(base / "plain" / "log")
    assert counts.distinct > 24  # of 48 draws from 50
    assert not (base / "plain" / "log" / PARTNERS).exists()


def test_no_image_is_dropped_and_batches_are_even(trained):
    assert trained["plain"]["places"] == 40
    assert [steps for _, _, steps, _, _ in trained["plain"]["epochs"]] == [4, 8]


def test_the_watch_is_told(trained):
    done, metrics = trained["mosaic"]["epochs"][-1][:2]
    assert done == EPOCHS
    assert {"train/loss", "metrics/mAP50"} <= set(metrics)
    assert len(trained["mosaic"]["steps"]) == EPOCHS * 4
    assert all(0 < s < trained["mosaic"]["seconds"] for s in trained["mosaic"]["steps"])


def test_best_weights_find_boxes_in_pixels_of_the_file(trained):
    assert Path(trained["plain"]["weights"]).name == "best.pt"
    assert len(trained["plain"]["found"]) == 8
    for boxes, scores, labels in trained["plain"]["found"]:
        corners = np.array(boxes).reshape(-1, 4)
        assert len(corners) == len(scores) == len(labels) <= 300
        assert ((corners >= 0) & (corners <= 64)).all()


def test_libreyolo_is_left_as_it_was(trained):
    assert trained["mosaic"]["restored"]


# -- slow ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_other_ways_to_train(base, tmp_path):
    options = {"no_aug_epochs": 0}
    tuned = {"ratio": "0:1", "schedule": "finetune:20%@50%", "chosen": [1, 2]}
    done = train(
        tmp_path,
        {
            "yolo9": given(base, model="yolo9-t", options=options),
            "tuned": given(base, **tuned, options={**options, "eval_interval": 0}),
            "spawned": given(base, workers=2, start="spawn", options=options),
        },
    )
    assert [e[3:] for e in done["yolo9"]["epochs"]] == [[16, 16], [32, 32]]
    assert [e[3:] for e in done["spawned"]["epochs"]] == [[16, 16], [32, 32]]
    assert [e[3:] for e in done["tuned"]["epochs"]] == [[0, 16], [16, 16]]
    assert set(drawn(tmp_path / "tuned" / "log")) >= {"real,1", "real,2"}
    assert summarise(tmp_path / "tuned" / "log" / PARTNERS).real > 20
    # Its head is not decoded where a training was not validated: predicting opens weights anew.
    assert Path(done["tuned"]["weights"]).name == "last.pt"
    assert len(done["tuned"]["found"]) == 8


@pytest.mark.slow
def test_going_on_with_a_training(base, tmp_path):
    plain = {"augment": False, "output": str(tmp_path / "detector")}
    done = train(
        tmp_path,
        {
            "first": given(base, **plain, epochs=1),
            "then": given(base, **plain, epochs=3, resume=True),
            "again": given(base, **plain, epochs=3, resume=True),
            "whole": given(base, **{**plain, "output": str(tmp_path / "whole")}, epochs=3),
        },
    )
    assert [e[0] for e in done["then"]["epochs"]] == [2, 3]
    assert done["again"]["steps"] == []
    assert Path(done["again"]["weights"]).is_file()
    first, then, whole = (drawn(tmp_path / name / "log") for name in ("first", "then", "whole"))
    assert first + then == whole


@pytest.mark.slow
def test_a_training_begins_with_the_weights_it_is_given(base, tmp_path):
    import torch

    still = {"lr0": 0.0, "warmup_epochs": 0, "ema": False}
    begun = train(tmp_path, {"begun": given(base, epochs=1)})["begun"]["weights"]
    (tmp_path / "jobs.out.json").unlink()
    on = train(tmp_path, {"on": given(base, epochs=1, model=begun, options=still)})["on"]
    before, after = (
        torch.load(path, weights_only=True)["model"] for path in (begun, on["weights"])
    )
    key = "backbone.backbone.stem.conv.conv.weight"
    assert torch.equal(before[key], after[key])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_missing_sample_that_must_not_be_stops_the_training(base, tmp_path, workers):
    bank = str(write_bank(tmp_path / "bank", samples=0))
    job = {**given(base, strict=True, workers=workers), "bank": bank}
    said = train(tmp_path, {"job": job}, fails=True)
    assert said.startswith("gansynth.runtime.errors.TrainingFault: ")
    assert "no synthetic sample after 0 s (the bank is empty)" in said


# -- the training set itself -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def places() -> Any:
    """Our data set for LibreYOLO, imported here: it changes nothing by that."""
    libre_options.engine()
    from gansynth_yolo import libre_places

    return libre_places


def dataset(places: Any, base: Path) -> Any:
    slots = Slots(MixPlan(base / "bank", Ratio(1, 1)), REAL, 1)
    images = sorted((base / "set" / "images" / "train").iterdir(), reverse=True)
    labels = [base / "set" / "labels" / "train" / f"{path.stem}.txt" for path in images]
    return places.MixedDataset(slots, img_files=images, label_files=labels, img_size=128)


def test_pixels_and_boxes_are_of_the_same_draw(places, base):
    data = dataset(places, base)
    for index in (20, 20, 25):
        if index == 25:
            data.begin(index)
        image, labels, size, _ = data.pull_item(index)
        assert (image.shape, size) == ((128, 128, 3), (64, 64))
        number = int(image[0, 0, 0]) - 200
        assert labels.tolist() == [[16, 8, 2 * (9 + number), 40, 0]]


def test_real_images_come_as_libreyolo_reads_them(places, base):
    data = dataset(places, base)
    from libreyolo.data.dataset import YOLODataset

    stock = YOLODataset(img_files=data.img_files, label_files=data.label_files, img_size=128)
    assert data.img_files == sorted(data.img_files)
    for index in range(REAL):
        data.begin(index)
        mine, other = data.pull_item(index), stock.pull_item(index)
        assert np.array_equal(mine[0], other[0])
        assert np.array_equal(mine[1], other[1])
        assert mine[2:] == other[2:]


@pytest.mark.parametrize(("count", "batch", "sizes"), [(33, 8, [7, 7, 7, 6, 6]), (16, 8, [8, 8])])
def test_batches_hold_every_place_and_are_as_equal_as_can_be(places, count, batch, sizes):
    batches = list(places.EvenBatches(range(count), batch))
    assert [len(b) for b in batches] == sizes
    assert sorted(place for b in batches for place in b) == list(range(count))


# -- options ---------------------------------------------------------------------------------------


def job_of(base: Path, **more: Any) -> DetectorJob:
    usual: dict[str, Any] = {
        "epochs": 1,
        "imgsz": 64,
        "batch": 8,
        "workers": 0,
        "cache": "off",
        "device": "cpu",
    }
    fixed: dict[str, Any] = {"names": ("lesion",), "channels": 1, "seed": 0, "output": base / "out"}
    return DetectorJob(
        **{"data": base / "set" / "data.yaml", "model": "yolox-n", **usual, **fixed, **more}
    )


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"model": "rfdetr-n"}, "--set model=rfdetr-n: expected one of yolox-n"),
        ({"model": "yolox_n"}, "Did you mean 'yolox-n'?"),
        ({"model": "missing.pt"}, "--set model=missing.pt: no such file"),
        ({"model": __file__ + ".pt"}, "no such file; weights are not downloaded"),
        ({"imgsz": 100}, "--set imgsz=100: expected a multiple of 32, for example 96"),
        ({"device": "cuda:0,1"}, "--set device=cuda:0,1: expected cpu, cuda, or one CUDA device"),
        ({"options": {"mosiac": 1}}, "libreyolo's yolox has no such option. Did you mean"),
        ({"options": {"erasing": 0.5}}, "-- erasing=0.5: libreyolo's yolox has no such option"),
        ({"options": {"epochs": 3}}, "-- epochs=3: gansynth sets it, give --set epochs= instead"),
        ({"options": {"class_balanced": True}}, "-- class_balanced=True: expected"),
        ({"options": {"lr0": "fast"}}, "-- lr0=fast: libreyolo rejects the value"),
        ({"options": {"distill_model": "n.pt"}}, "-- distill_model=n.pt: no such file"),
    ],
)
def test_jobs_that_cannot_be_done_are_refused_in_one_line(base, told, says):
    with pytest.raises(DataFault if "no such file" in says else UsageFault) as caught:
        detector("libreyolo").check(job_of(base, **told))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_holds_no_weights_is_refused(base):
    (base / "no.pt").write_text("weights")
    with pytest.raises(UsageFault, match="not weights that libreyolo wrote"):
        detector("libreyolo").check(job_of(base, model=str(base / "no.pt")))


def test_a_missing_device_and_an_unknown_release_are_said(base, monkeypatch):
    with pytest.raises(EnvironmentFault, match="torch sees"):
        detector("libreyolo").check(job_of(base, device="cuda:99"))
    monkeypatch.setattr(libre_options, "BELOW", (1, 6))
    with pytest.raises(EnvironmentFault, match=r"expected >=1.6,<1.6: the adapter depends on"):
        detector("libreyolo").check(job_of(base))


@pytest.mark.parametrize("model", ["yolox-n", "yolo9-t"])
def test_augmentation_can_be_left_out(base, model):
    told = libre_options.settings(job_of(base, model=model, augment=False, options={"rot90": 0.1}
                                         if model == "yolo9-t" else {}))  # fmt: skip
    off = {"mosaic_prob", "mixup_prob", "hsv_prob", "flip_prob", "flipud"}
    assert {key: told[key] for key in off} == dict.fromkeys(off, 0.0)
    assert told.get("rot90", 0) == (0.1 if model == "yolo9-t" else 0)


def test_without_validation_images_nothing_is_validated(base, tmp_path):
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [lesion]\n")
    assert libre_options.settings(job_of(base))["eval_interval"] == 1
    assert libre_options.settings(job_of(base, data=tmp_path / "data.yaml"))["eval_interval"] == 0
