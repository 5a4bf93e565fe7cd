"""``metrics.csv``, and ``--tensorboard``: losses and preview grids as TensorBoard's event files."""

from __future__ import annotations

import importlib.util
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gansynth.runtime.errors import EnvironmentFault, extra_hint
from gansynth.runtime.files import disk_errors, write_bytes_atomic

FILE = "metrics.csv"
FOLDER = "logs"
CLOCKS = "seconds", "waited", "loading"
"""Columns of times, which differ from run to run: since the start; the share of those since the
last line in which the device had no batch; to read a step's batch, in one thread."""


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
        lost = len(rows) - len(self._rows)
        if lost:
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

    def write(
        self, step: int, images: int, seconds: float, clocks: Mapping[str, float] | None = None
    ) -> dict[str, float]:
        """End a tick: write, with other ``CLOCKS``, and return the averages since the last tick."""
        means = {name: total / count for name, (total, count) in self._sums.items()}
        self._sums.clear()
        if self._path is not None:
            row = {"step": str(step), "images": str(images), "seconds": f"{seconds:.2f}"}
            row.update({name: f"{value:.3g}" for name, value in (clocks or {}).items()})
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
        return ",".join([row.get(column, "nan") for column in self._columns]) + "\n"


def _whole(row: Mapping[str, str], columns: Sequence[str]) -> bool:
    """Whether a line of ``metrics.csv`` has a number in each column."""
    try:
        return len([float(v) for v in row.values()]) == len(columns) and int(row["step"]) >= 0
    except (KeyError, ValueError):
        return False


def short_losses(values: Mapping[str, float]) -> dict[str, float]:
    """Return each player's loss, the sum of its terms: ``{"G": 0.41, "D": 0.52}``.

    A network that learns alone, such as a segmenter's, is no player: ``{"loss": 0.95}``.
    """
    losses: dict[str, float] = {}
    for name, value in values.items():
        player, slash, _ = name.partition("/")
        if slash:
            losses[player[0].upper()] = losses.get(player[0].upper(), 0.0) + value
    alone = len(losses) == 1
    return {"loss": sum(losses.values())} if alone else losses


class TensorBoardLog:
    """Losses and preview grids below ``logs/tensorboard``; a context manager.

    A resumed run continues the log. What fails later ends the log with one warning.

    Args:
        folder: of the run; None: nothing is logged.
        config: settings of the run, a JSON-able document.
        warn: called when the log fails later.
    """

    def __init__(
        self, folder: Path | None, config: Mapping[str, Any], warn: Callable[[str], None]
    ) -> None:
        self._folder = None if folder is None else folder / FOLDER / "tensorboard"
        self._config, self._warn = config, warn
        self._writer: Any = None
        self._step = -1
        if self._folder is None:
            return
        check_tensorboard()
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            text = " ".join(str(error).split())
            raise EnvironmentFault(
                "training.tensorboard-not-importable",
                f"--tensorboard: its package does not import ({text}); {extra_hint('tensorboard')}",
            ) from error
        self._make = SummaryWriter

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log named numbers of a step, without non-finite ones."""
        if self._folder is None:
            return
        with self._guarded():
            writer = self._at(self._folder, step, back=step <= self._step)
            self._step = step
            for name, value in values.items():
                if math.isfinite(value):
                    writer.add_scalar(name, float(value), step)
            writer.flush()

    def picture(self, step: int, path: Path) -> None:
        """Log a PNG as the preview grid of a step."""
        if self._folder is None:
            return
        from matplotlib.image import imread

        with self._guarded():
            pixels = imread(path)[..., :3]  # float (H, W, 3), 0 to 1
            writer = self._at(self._folder, step)
            writer.add_image("samples", pixels, step, dataformats="HWC")
            writer.flush()

    def close(self) -> None:
        """Write what is pending; a second time does nothing."""
        if self._writer is not None:
            with self._guarded():
                self._writer.close()
        self._writer = None

    def _at(self, folder: Path, step: int, *, back: bool = False) -> Any:
        if self._writer is not None and not back:
            return self._writer
        self.close()
        begun = any(folder.glob("events.*"))
        self._writer = self._make(str(folder), purge_step=step if begun else None)
        if not begun:
            self._writer.add_text("config", f"```\n{json.dumps(self._config, indent=2)}\n```", 0)
        return self._writer

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # e.g. a full disk: training continues
            self._folder = self._writer = None
            text = " ".join(str(error).split())
            self._warn(
                f"--tensorboard: left out from here on: {type(error).__name__}: {text}. The "
                "training goes on; metrics.csv has the losses"
            )

    def __enter__(self) -> TensorBoardLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_tensorboard() -> None:
    """Refuse a log that cannot be opened, before the training; nothing is imported."""
    if importlib.util.find_spec("tensorboard") is None:
        raise EnvironmentFault(
            "training.tensorboard-not-installed",
            f"--tensorboard: the package is not installed; {extra_hint('tensorboard')}",
        )


def flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a nested document: ``{"a": {"b": 1}}`` becomes ``{"a.b": 1}``."""
    result: dict[str, Any] = {}
    for key, value in document.items():
        nested = isinstance(value, Mapping)
        result.update(flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value})
    return result
