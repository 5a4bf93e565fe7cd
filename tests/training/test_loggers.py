"""--log: what goes into each log, what a resumed run adds, and that no logger ends a training."""

import importlib.util
import os
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from matplotlib.image import imread, imsave

from gansynth.report.figures import read_metrics
from gansynth.runtime.errors import EnvironmentFault
from gansynth.training import loggers
from gansynth.training.loggers import Loggers, check_loggers, open_loggers

CONFIG = {"generator": "cgan3d", "size": [8, 8], "fit": {"steps": 4, "seed": 0}}


@pytest.fixture
def sheet(tmp_path) -> Path:
    """A PNG, red above and blue below."""
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:2, :, 0], pixels[2:, :, 2] = 255, 255
    path: Path = tmp_path / "sheet.png"
    imsave(path, pixels)
    return path


def log_two_sessions(name: str, folder: Path, sheet: Path) -> None:
    """Steps 1 to 3, then again from step 2 to 4, as a resumed run would."""
    for steps, factor in (((1, 2, 3), 1.0), ((2, 3, 4), 10.0)):
        with open_loggers([name], folder, CONFIG, warn=print) as opened:
            for step in steps:
                opened.scalars(step, {"generator/l1": factor * step, "lazy": float("nan")})
            opened.picture(steps[-1], sheet)


class Fragile:
    """A logger that fails from its second call on."""

    def __init__(self, *_: Any) -> None:
        self.calls, self.closed = 0, False

    def scalars(self, step: int, values: Any) -> None:
        self.calls += 1
        if self.calls > 1:
            raise OSError("no space\nleft")

    def picture(self, step: int, path: Path) -> None:
        self.scalars(step, {})

    def close(self) -> None:
        self.closed = True


@pytest.mark.fault(44)
def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentFault, match=r"pip install '\.\[wandb\]'"):
        check_loggers(["wandb"])


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (ImportError("libevents.so is missing"), r"libevents.*pip install '\.\[tensorboard\]'"),
        (ConnectionError("nobody"), "--log tensorboard: cannot be opened: ConnectionError"),
    ],
)
def test_a_logger_that_cannot_be_opened_ends_the_run_before_it_begins(
    tmp_path, monkeypatch, fault, says
):
    first, refuses = Fragile(), Mock(side_effect=fault)
    monkeypatch.setattr(loggers, "LOGGERS", {"json": lambda *_: first, "tensorboard": refuses})
    with pytest.raises(EnvironmentFault, match=says):
        open_loggers(["json", "tensorboard"], tmp_path, CONFIG, warn=print)
    assert first.closed


@pytest.mark.fault(42)
def test_a_logger_that_fails_is_one_warning_and_the_others_go_on():
    said: list[str] = []
    fragile, sturdy = Fragile(), Fragile()
    sturdy.calls = -100
    with Loggers({"fragile": fragile, "sturdy": sturdy}, said.append) as opened:
        for step in range(5):
            opened.scalars(step, {"a": 1.0})
            opened.picture(step, Path("sheet.png"))
    assert len(said) == 1
    assert said[0].startswith("--log fragile: left out from here on: OSError: no space left.")
    assert (fragile.calls, sturdy.calls) == (2, -90)


def events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "logs" / "tensorboard"), {"scalars": 0, "images": 0})
    return found.Reload()


def test_tensorboard_has_every_step_once_after_a_resume_and_a_rollback_sheets_and_settings(
    tmp_path, sheet
):
    log_two_sessions("tensorboard", tmp_path, sheet)
    found = events(tmp_path)
    logged = [(e.step, e.value) for e in found.Scalars("generator/l1")]
    assert logged == [(1, 1.0), (2, 20.0), (3, 30.0), (4, 40.0)]
    assert found.Tags()["scalars"] == ["generator/l1"]
    (tmp_path / "read.png").write_bytes(found.Images("samples")[-1].encoded_image_string)
    assert np.allclose(imread(tmp_path / "read.png")[..., :3], imread(sheet)[..., :3], atol=0.01)
    settings = found.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert '"generator": "cgan3d"' in settings
    with open_loggers(["tensorboard"], tmp_path, CONFIG, warn=print) as opened:
        for step, value in ((5, 5.0), (6, 6.0), (5, 50.0)):
            opened.scalars(step, {"a": value})
    assert [(e.step, e.value) for e in events(tmp_path).Scalars("a")] == [(5, 50.0)]


def test_a_fit_logs_what_metrics_csv_has(tmp_path, run_cli, whole_fits):
    small = ("steps=2", "log_every=1", "width=4", "d_width=4", "levels=2", "diversity=0")
    fit = ("fit", "cgan3d", "--data", "example:2d", "-o", tmp_path, "--device", "cpu", "-q")
    done = run_cli(*fit, "--log", "tensorboard", *(f"--set={setting}" for setting in small))
    assert done.exit_code == 0, done.stderr
    written = read_metrics(tmp_path / "metrics.csv")
    logged = [e.value for e in events(tmp_path).Scalars("generator/adversarial")]
    assert logged == pytest.approx(written["generator/adversarial"], rel=1e-4)
    assert events(tmp_path).Images("samples")


def test_a_slip_in_log_costs_no_time(tmp_path, refuse):
    said = ["--log tensorbord", "Did you mean 'tensorboard'?"]
    refuse("fit", "cgan3d", "--data", "example:2d", "-o", tmp_path / "run", "--log", "tensorbord",
           code=2, says=said, keep=[tmp_path])  # fmt: skip


THEIR_WARNINGS = pytest.mark.filterwarnings("ignore")


@THEIR_WARNINGS
@pytest.mark.extra("wandb")
def test_wandb_stays_on_this_machine_and_goes_on_under_the_same_id(tmp_path, sheet, monkeypatch):
    for name in ("WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    log_two_sessions("wandb", tmp_path, sheet)
    runs = [path.name for path in (tmp_path / "logs" / "wandb").glob("offline-run-*")]
    assert len(runs) == 2
    assert len({name.rpartition("-")[2] for name in runs}) == 1
    assert list((tmp_path / "logs" / "wandb").rglob("samples_*.png"))


@THEIR_WARNINGS
@pytest.mark.extra("mlflow")
def test_mlflow_writes_into_the_run_folder_and_goes_on_in_the_same_run(
    tmp_path, sheet, monkeypatch
):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_LOGGING_LEVEL"):
        monkeypatch.setenv(name, os.environ.get(name, "true" if "TELE" in name else "WARNING"))
    log_two_sessions("mlflow", tmp_path / "run", sheet)
    from mlflow.tracking import MlflowClient

    client: Any = MlflowClient(f"sqlite:///{tmp_path / 'run' / 'logs' / 'mlflow.db'}")
    experiments = [e.experiment_id for e in client.search_experiments()]
    (run,) = client.search_runs(experiments)
    found = [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "generator/l1")]
    assert sorted(found)[-1] == (4, 40.0)
    assert len(found) == 6
    assert run.data.params["fit.steps"] == "4"
    assert list((tmp_path / "run" / "logs" / "mlflow").rglob("sheet.png"))
    # A moved run does not write where it was.
    (tmp_path / "run").rename(tmp_path / "moved")
    log_two_sessions("mlflow", tmp_path / "moved", sheet)
    assert not (tmp_path / "run").exists()
