import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread, imsave

from gansynth.report.figures import read_metrics
from gansynth.training.loggers import TensorBoardLog

CONFIG = {"generator": "cgan3d", "size": [8, 8], "fit": {"steps": 4, "seed": 0}}


@pytest.fixture
def sheet(tmp_path) -> Path:
    """A PNG, red above and blue below."""
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:2, :, 0], pixels[2:, :, 2] = 255, 255
    path: Path = tmp_path / "sheet.png"
    imsave(path, pixels)
    return path


@pytest.mark.fault(44)
def test_a_missing_package_says_what_to_install(tmp_path, refuse, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    refuse("fit", "cgan3d", "--data", "example:2d", "-o", tmp_path / "run", "--tensorboard",
           code=4, says=["pip install '.[tensorboard]'"], keep=[tmp_path])  # fmt: skip


@pytest.mark.fault(42)
def test_a_log_that_fails_is_one_warning(tmp_path, sheet):
    said: list[str] = []
    (tmp_path / "logs").write_text("in the way")
    with TensorBoardLog(tmp_path, CONFIG, said.append) as opened:
        for step in range(5):
            opened.scalars(step, {"a": 1.0})
            opened.picture(step, sheet)
    assert len(said) == 1
    assert said[0].startswith("--tensorboard: left out from here on: NotADirectoryError: ")


def events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "logs" / "tensorboard"), {"scalars": 0, "images": 0})
    return found.Reload()


def test_tensorboard_has_every_step_once_after_a_resume_and_a_rollback_sheets_and_settings(
    tmp_path, sheet
):
    for steps, factor in (((1, 2, 3), 1.0), ((2, 3, 4), 10.0)):
        with TensorBoardLog(tmp_path, CONFIG, print) as opened:
            for step in steps:
                opened.scalars(step, {"generator/l1": factor * step, "lazy": float("nan")})
            opened.picture(steps[-1], sheet)
    found = events(tmp_path)
    logged = [(e.step, e.value) for e in found.Scalars("generator/l1")]
    assert logged == [(1, 1.0), (2, 20.0), (3, 30.0), (4, 40.0)]
    assert found.Tags()["scalars"] == ["generator/l1"]
    (tmp_path / "read.png").write_bytes(found.Images("samples")[-1].encoded_image_string)
    assert np.allclose(imread(tmp_path / "read.png")[..., :3], imread(sheet)[..., :3], atol=0.01)
    settings = found.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert '"generator": "cgan3d"' in settings
    with TensorBoardLog(tmp_path, CONFIG, print) as opened:
        for step, value in ((5, 5.0), (6, 6.0), (5, 50.0)):
            opened.scalars(step, {"a": value})
    assert [(e.step, e.value) for e in events(tmp_path).Scalars("a")] == [(5, 50.0)]


def test_a_fit_logs_what_metrics_csv_has(tmp_path, succeed, whole_fits):
    small = ("steps=2", "log_every=1", "width=4", "d_width=4", "levels=2", "diversity=0")
    fit = ("fit", "cgan3d", "--data", "example:2d", "-o", tmp_path, "--device", "cpu", "-q")
    succeed(*fit, "--tensorboard", *(f"--set={setting}" for setting in small))
    written = read_metrics(tmp_path / "metrics.csv")
    logged = [e.value for e in events(tmp_path).Scalars("generator/adversarial")]
    assert logged == pytest.approx(written["generator/adversarial"], rel=1e-4)
    assert events(tmp_path).Images("samples")
