"""``cpggan`` as a user runs it, on a yolo: data set: whole images, classes, lesions alone."""
# mypy: disallow-untyped-calls=False

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gansynth.core.sample_request import SampleRequest
from gansynth.sampling.drawer import SampleDrawer
from gansynth.sampling.open_run import load_run
from gansynth.sampling.opening import open_source
from gansynth_cpggan.drawing import WINDOWS

TINY = ("width=2", "max_width=4", "latent=4", "stage_images=4", "fade_images=4", "batch_size=4")
LOOP = ("diversity=0", "precision=fp32")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A data set of six images with a square of one of two classes, and three without."""
    root: Path = tmp_path_factory.mktemp("yolo")
    rng = np.random.default_rng(0)
    for split, first in (("train", 0), ("val", 20)):
        for number in range(first, first + 9):
            pixels = rng.normal(90, 8, (32, 32))
            pixels[:3], pixels[-3:], pixels[:, :3], pixels[:, -3:] = 0, 0, 0, 0
            text = ""
            if number % 3:
                y, x = rng.integers(6, 18, 2)
                pixels[y : y + 8, x : x + 8] += 80
                text = f"{number % 3 - 1} {(x + 4) / 32} {(y + 4) / 32} 0.25 0.25\n"
            for kind in ("images", "labels"):
                (root / split / kind).mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(root / split / "images" / f"{number:02d}.png")
            (root / split / "labels" / f"{number:02d}.txt").write_text(text)
    names = {"path": ".", "train": "train", "val": "val", "names": ["cyst", "tumour"]}
    (root / "data.yaml").write_text(json.dumps(names))
    return root / "data.yaml"


@pytest.fixture
def fit(data, tmp_path, run_cli) -> Callable[..., Path]:
    def run(*more: str, read: tuple[str, ...] = ()) -> Path:
        out: Path = tmp_path / "run"
        settings = [f"--set={s}" for s in (*TINY, *LOOP, *more) if "--" not in s]
        flags = [s for s in more if "--" in s]
        reads = [f"--read={r}" for r in ("size=32x32", *read)]
        where = ("fit", "cpggan", "--data", f"yolo:{data}", "-o", out, "--device", "cpu")
        done = run_cli(*where, *reads, *settings, *flags)
        assert done.exit_code == 0, done.output
        return out

    return run


def drawer(folder: Path, **options: Any) -> SampleDrawer:
    run = load_run(folder, "cpu")
    return SampleDrawer(run, open_source(run.request), SampleRequest(**options))


def test_samples_of_a_run_have_boxes_like_those_of_its_cases(fit):
    samples = drawer(fit("steps=10")).draw(0, 6)
    assert {s.image.shape for s in samples} == {(1, 32, 32)}
    counts = []
    for sample in samples:
        assert sample.labels is None
        assert sample.boxes is not None
        counts.append(len(sample.boxes.labels))
    # Training images without a box ask for none.
    assert set(counts) == {0, 1}


def test_a_run_that_ends_before_it_has_grown_says_so(data, tmp_path, run_cli):
    where = ("fit", "cpggan", "--data", f"yolo:{data}", "--read=size=32x32", "-o", tmp_path / "run")
    done = run_cli(*where, *(f"--set={s}" for s in (*TINY, *LOOP, "steps=3")), "--dry-run")
    # 4 + 8 + 8 images, and 4 that fade in, four at a time.
    assert "cpggan has grown to 32 x 32 after 6 steps only" in done.stderr


@pytest.mark.slow
def test_one_generator_per_class(fit):
    folder = fit("steps=8", "--per-class=each", read=("classes=boxes",))
    found = drawer(folder, classes=("tumour",)).draw(0, 4)
    assert {s.provenance["class"] for s in found} == {"tumour"}
    for sample in found:
        assert sample.boxes is not None
        assert set(sample.boxes.labels.tolist()) == {1}


def test_lesions_go_into_the_images_that_have_none(fit, data):
    folder = fit("steps=8", "mode=roi", "roi_size=16")
    drawn = drawer(folder)
    for sample in drawn.draw(0, 4):
        real = drawn.source.load(sample.provenance["case"])
        assert real.boxes is not None
        assert len(real.boxes.labels) == 0
        outside = np.ones((32, 32), bool)
        for top, left, bottom, right in sample.provenance[WINDOWS]:
            outside[top:bottom, left:right] = False
        assert np.array_equal(sample.image[:, outside], real.image[:, outside])
        assert sample.boxes is not None
        assert len(sample.boxes.labels) == len(sample.provenance[WINDOWS])
