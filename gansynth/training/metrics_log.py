"""``metrics.csv``: averages of named values, a line per tick."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gansynth.runtime.files import disk_errors, write_bytes_atomic

FILE = "metrics.csv"
NO_PLAYERS = ("diversity",)
"""Whose values are no losses."""


def short_losses(values: Mapping[str, float]) -> dict[str, float]:
    """``{"G": 0.41, "D": 0.52}``: each player's loss, the sum of its terms, under its initial."""
    found: dict[str, float] = {}
    for name, value in values.items():
        player, slash, _ = name.partition("/")
        if slash and player not in NO_PLAYERS:
            found[player[0].upper()] = found.get(player[0].upper(), 0.0) + value
    return found


class MetricsLog:
    """Averages of named values, a line of ``metrics.csv`` per tick; ``nan`` where none came in.

    Args:
        folder: run folder; None writes nothing.
        start: step that is gone on from; later lines of an earlier run are dropped.
    """

    def __init__(self, folder: Path | None, start: int = 0) -> None:
        self._path = None if folder is None else folder / FILE
        self._sums: dict[str, list[float]] = {}
        self._columns: list[str] = []
        self._rows: list[dict[str, str]] = []
        if self._path is not None and self._path.exists():
            # What follows the last line's end was cut off by whatever ended the run.
            lines = self._path.read_text(encoding="utf-8").split("\n")[:-1]
            self._columns = lines[0].split(",") if lines else []
            rows = [dict(zip(self._columns, line.split(","), strict=False)) for line in lines[1:]]
            self._rows = rows
        self.rewind(start)

    def rewind(self, step: int) -> None:
        """Drop what came after a step: it will be written again."""
        self._sums.clear()
        self._rows = [row for row in self._rows if int(row["step"]) <= step]
        if self._path is not None and self._path.exists():
            self._rewrite(self._path)

    def add(self, values: Mapping[str, float]) -> None:
        """Values of one step."""
        for name, value in values.items():
            self._sums.setdefault(name, []).append(value)

    def write(self, step: int, images: int, seconds: float) -> dict[str, float]:
        """End a tick: write and return the averages since the last one."""
        means = {name: sum(v) / len(v) for name, v in self._sums.items()}
        self._sums.clear()
        if self._path is not None:
            row = {"step": str(step), "images": str(images), "seconds": f"{seconds:.2f}"}
            row.update({name: f"{mean:.6g}" for name, mean in means.items()})
            self._rows.append(row)
            # A term that came in for the first time (a lazy regulariser's) is a new column.
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
