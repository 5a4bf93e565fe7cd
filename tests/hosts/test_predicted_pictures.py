"""Pictures are predicted with the numbers and the names that the training's pictures have."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from gansynth.data.picture_files import read_picture
from tests.data.sets import save_picture

NAMES = [f"{name}.{number}" for number in range(3) for name in ("Müller", "Möller")]


@pytest.mark.parametrize("number", [1, 255])
def test_a_predicted_mask_holds_what_training_masks_held(
    tmp_path, monkeypatch, succeed, run_cli, number
):
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(NAMES):
        image = np.random.default_rng(seed).integers(0, 50, (16, 16)).astype(np.uint8)
        image[4:12, 4 : 8 + seed] += 200
        mask = (image > 150).astype(np.uint8) * number
        save_picture(tmp_path / "set/images" / f"{name}.png", image)
        save_picture(tmp_path / "set/masks" / f"{name}.png", mask)
    train = ("augment", "--target", "segmenter", "--data", "pictures:set", "--ratio", "1:0")
    for out, steps in (("out/first", 1), ("out/second", 40)):
        succeed(*train, "--steps", steps, "-o", out, "--device", "cpu", "--set", "width=4")
    words = ("set/images", "-o", "predicted", "--device", "cpu")
    told = run_cli("predict", "out", *words).stderr
    (typed,) = re.findall(r"the newest: gansynth (.*) \(or take out/first\)", told)
    assert typed == shlex.join(["predict", "out/second", *words])
    succeed(*shlex.split(typed))
    files = sorted(Path("predicted").glob("*.png"))
    assert [file.stem for file in files] == sorted(NAMES)
    held = [np.unique(read_picture(file, "mask")).tolist() for file in files]
    assert held == [[0, number]] * len(NAMES)
    labels = json.loads(Path("predicted/gansynth_prediction.json").read_text())["labels"]
    assert labels == {"background": 0, "foreground": number}
