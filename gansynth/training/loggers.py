"""``metrics.csv``, and ``--log``: losses and preview grids for TensorBoard, W&B or MLflow.

Nothing leaves the machine unless the user's environment asks for it (``WANDB_MODE``,
``MLFLOW_TRACKING_URI``). Logs are below ``logs/``; a resumed run continues them. A logger that
fails later is dropped with one warning.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from gansynth.runtime.errors import EnvironmentFault, UsageFault, did_you_mean, extra_hint
from gansynth.runtime.files import disk_errors, read_json, write_bytes_atomic, write_json_atomic

FILE = "metrics.csv"
NO_PLAYERS = ("diversity",)  # prefixes of values that are not losses
FOLDER = "logs"
PROJECT = "gansynth"  # name of the W&B project and the MLflow experiment


class MetricsLog:
    """Averages of named values, one line of ``metrics.csv`` per tick; ``nan`` where missing.

    Args:
        start: step of the checkpoint that is resumed; later lines are dropped.
        sums: name -> sum and number of its values since the last tick, kept in checkpoints.
    """

    def __init__(
        self, folder: Path | None, start: int = 0, sums: dict[str, tuple[float, int]] | None = None
    ) -> None:
        self._path = None if folder is None else folder / FILE
        self._sums = {} if sums is None else sums
        self._columns: list[str] = []
        self._rows: list[dict[str, str]] = []
        self.notes: list[str] = []
        if self._path is not None and self._path.exists():
            self._read(self._path)
        self.rewind(start)

    def _read(self, path: Path) -> None:
        """Read the lines of an earlier process; a damaged file is kept under another name."""
        # An incomplete last line was cut off when the run ended.
        lines = path.read_bytes().decode("utf-8", "replace").split("\n")[:-1]
        columns = lines[0].split(",") if lines else []
        rows = [dict(zip(columns, line.split(","), strict=False)) for line in lines[1:]]
        self._rows = [row for row in rows if _whole(row, columns)]
        self._columns = columns if self._rows else []
        if lost := len(rows) - len(self._rows):
            kept = path.with_suffix(".damaged.csv")
            with disk_errors(kept):
                os.replace(path, kept)
            self.notes.append(f"{path}: {lost} damaged line(s) left out; the old file is {kept}")

    def rewind(self, step: int) -> None:
        """Drop lines after a step: they will be written again."""
        self._rows = [row for row in self._rows if int(row["step"]) <= step]
        if self._path is not None and self._columns:
            self._rewrite(self._path)

    def add(self, values: Mapping[str, float]) -> None:
        """Add the values of one step."""
        for name, value in values.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = total + value, count + 1

    def write(self, step: int, images: int, seconds: float) -> dict[str, float]:
        """End a tick: write and return the averages since the last tick."""
        means = {name: total / count for name, (total, count) in self._sums.items()}
        self._sums.clear()
        if self._path is not None:
            row = {"step": str(step), "images": str(images), "seconds": f"{seconds:.2f}"}
            row.update({name: f"{mean:.6g}" for name, mean in means.items()})
            self._rows.append(row)
            # A new term, e.g. of a lazy regulariser, is a new column.
            columns = list(dict.fromkeys([*self._columns, *row]))
            if columns != self._columns:
                self._columns = columns
                self._rewrite(self._path)
            else:
                line = self._line(row).encode()
                with disk_errors(self._path, len(line)), self._path.open("ab") as file:
                    file.write(line)
        return means

    def _rewrite(self, path: Path) -> None:
        header = ",".join(self._columns) + "\n" if self._columns else ""
        write_bytes_atomic(path, (header + "".join(map(self._line, self._rows))).encode())

    def _line(self, row: Mapping[str, str]) -> str:
        return ",".join(row.get(column, "nan") for column in self._columns) + "\n"


def _whole(row: Mapping[str, str], columns: Sequence[str]) -> bool:
    """Whether a line of ``metrics.csv`` has a number in each column."""
    try:
        return len([float(v) for v in row.values()]) == len(columns) and int(row["step"]) >= 0
    except (KeyError, ValueError):
        return False


def short_losses(values: Mapping[str, float]) -> dict[str, float]:
    """Return each player's loss, the sum of its terms: ``{"G": 0.41, "D": 0.52}``."""
    losses: dict[str, float] = {}
    for name, value in values.items():
        player, slash, _ = name.partition("/")
        if slash and player not in NO_PLAYERS:
            losses[player[0].upper()] = losses.get(player[0].upper(), 0.0) + value
    return losses


class Logger(Protocol):
    """A destination of logs."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log named finite numbers."""

    def picture(self, step: int, path: Path) -> None:
        """Log a PNG."""

    def close(self) -> None:
        """Write what is pending."""


class Loggers:
    """Several loggers as one; a context manager."""

    def __init__(self, opened: Mapping[str, Logger], warn: Callable[[str], None]) -> None:
        self._opened = dict(opened)
        self._warn = warn

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log named numbers of a step, without non-finite ones."""
        finite = {name: float(v) for name, v in values.items() if math.isfinite(v)}
        self._each(lambda logger: logger.scalars(step, finite))

    def picture(self, step: int, path: Path) -> None:
        """Log a PNG as the preview grid of a step."""
        self._each(lambda logger: logger.picture(step, path))

    def close(self) -> None:
        """Write what is pending; a second time does nothing."""
        self._each(lambda logger: logger.close())
        self._opened.clear()

    def _each(self, do: Callable[[Logger], None]) -> None:
        for name, logger in list(self._opened.items()):
            try:
                do(logger)
            except Exception as error:  # e.g. a full disk or a lost server: training continues
                del self._opened[name]
                text = " ".join(str(error).split())
                self._warn(
                    f"--log {name}: left out from here on: {type(error).__name__}: {text}. The "
                    "training goes on; metrics.csv has the losses"
                )

    def __enter__(self) -> Loggers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_loggers(
    names: Sequence[str], folder: Path, config: Mapping[str, Any], *, warn: Callable[[str], None]
) -> Loggers:
    """Open loggers for a run. ``warn``: called when one fails later.

    Raises UsageFault: an unknown name. EnvironmentFault: a package is missing, or a logger cannot
    be opened.
    """
    check_loggers(names)
    place = folder / FOLDER
    loggers = Loggers({}, warn)
    for name in dict.fromkeys(names):
        with disk_errors(place):
            place.mkdir(parents=True, exist_ok=True)
        try:
            loggers._opened[name] = LOGGERS[name](place, config)
        except Exception as error:
            loggers.close()
            raise _not_opened(name, error) from error
    return loggers


def check_loggers(names: Sequence[str]) -> None:
    """Refuse loggers that cannot be opened, before the training; nothing is imported.

    Raises UsageFault: an unknown name. EnvironmentFault: its package is not installed.
    """
    for name in names:
        if name not in LOGGERS:
            raise UsageFault(
                f"--log {name}: unknown, expected one of: {', '.join(LOGGERS)}."
                f"{did_you_mean(name, LOGGERS)}"
            )
        if importlib.util.find_spec(name) is None:
            raise EnvironmentFault(
                f"--log {name}: the package {name} is not installed; {extra_hint(name)}"
            )


def _not_opened(name: str, error: Exception) -> EnvironmentFault:
    text = " ".join(str(error).split())
    if isinstance(error, ImportError):
        return EnvironmentFault(
            f"--log {name}: its package does not import ({text}); {extra_hint(name)}"
        )
    return EnvironmentFault(
        f"--log {name}: cannot be opened: {type(error).__name__}: {text}; fix it, or leave "
        f"--log {name} out"
    )


# -- one class for each ----------------------------------------------------------------------------


class _TensorBoard:
    """Event files below ``logs/tensorboard``."""

    def __init__(self, place: Path, config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._make, self._folder, self._config = SummaryWriter, place / "tensorboard", config
        self._writer: Any = None
        self._step = -1

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        writer = self._at(step, back=step <= self._step)
        self._step = step
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    def picture(self, step: int, path: Path) -> None:
        from matplotlib.image import imread

        pixels = imread(path)[..., :3]  # float (H, W, 3), 0 to 1
        self._at(step).add_image("samples", pixels, step, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _at(self, step: int, *, back: bool = False) -> Any:
        if self._writer is not None and not back:
            return self._writer
        self.close()
        begun = any(self._folder.glob("events.*"))
        self._writer = self._make(str(self._folder), purge_step=step if begun else None)
        if not begun:
            self._writer.add_text("config", f"```\n{json.dumps(self._config, indent=2)}\n```", 0)
        return self._writer


class _Wandb:
    """A W&B run below ``logs/wandb``; ``wandb sync`` uploads an offline run."""

    def __init__(self, place: Path, config: Mapping[str, Any]) -> None:
        mode = os.environ.get("WANDB_MODE", "offline")
        if mode != "online":
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it would send crash reports
        import wandb

        self._wandb: Any = wandb
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=place.parent.resolve().name,
            id=_identity(place / "wandb.json"),
            resume="allow",
            dir=str(place),
            mode=mode,
            config=dict(config),
            save_code=False,
            settings=wandb.Settings(silent=True, console="off", disable_git=True),
        )
        # An own step metric: W&B's step cannot decrease, as a rollback needs.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({**values, "step": step})

    def picture(self, step: int, path: Path) -> None:
        self._run.log({"samples": self._wandb.Image(str(path)), "step": step})

    def close(self) -> None:
        self._run.finish()


class _Mlflow:
    """An MLflow run in ``logs/mlflow.db``, or at ``MLFLOW_TRACKING_URI``."""

    def __init__(self, place: Path, config: Mapping[str, Any]) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        logging.getLogger("alembic").setLevel(logging.WARNING)
        from mlflow.entities import Metric
        from mlflow.tracking import MlflowClient

        place = place.resolve()
        elsewhere = os.environ.get("MLFLOW_TRACKING_URI")
        self._metric: Any = Metric
        self._client: Any = MlflowClient(elsewhere or f"sqlite:///{place / 'mlflow.db'}")
        note = place / "mlflow.json"
        if note.exists():
            self._run = str(read_json(note)["run"])
            self._client.update_run(self._run, status="RUNNING")
            # In a moved run folder, MLflow would write to the old place.
            where = self._client.get_run(self._run).info.artifact_uri
            self._pictures = elsewhere is not None or where.startswith(place.as_uri())
            return
        artifacts = None if elsewhere else (place / "mlflow").as_uri()
        existing = self._client.get_experiment_by_name(PROJECT)
        experiment = (
            existing.experiment_id
            if existing is not None
            else self._client.create_experiment(PROJECT, artifact_location=artifacts)
        )
        self._run = self._client.create_run(experiment, run_name=place.parent.name).info.run_id
        for key, value in flat(config).items():
            self._client.log_param(self._run, key, str(value))
        self._pictures = True
        write_json_atomic(note, {"run": self._run})

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics = [self._metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def picture(self, step: int, path: Path) -> None:
        if self._pictures:
            self._client.log_artifact(self._run, str(path), "samples")

    def close(self) -> None:
        self._client.set_terminated(self._run)


LOGGERS: Mapping[str, Callable[[Path, Mapping[str, Any]], Logger]] = {
    "tensorboard": _TensorBoard,
    "wandb": _Wandb,
    "mlflow": _Mlflow,
}
"""Name -> constructor (folder, settings of the run); package and extra have that name."""


def _identity(note: Path) -> str:
    if not note.exists():
        write_json_atomic(note, {"id": secrets.token_hex(4)})
    return str(read_json(note)["id"])


def flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a nested document: ``{"a": {"b": 1}}`` becomes ``{"a.b": 1}``."""
    result: dict[str, Any] = {}
    for key, value in document.items():
        nested = isinstance(value, Mapping)
        result.update(flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value})
    return result
