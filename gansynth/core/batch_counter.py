"""Progress of a training, counted in batches of all its worker processes together.

Workers load ahead and do not know the epoch. Each appends one byte to a file for every batch; the
byte's offset is the batch's number. This needs no lock and no repair after a crash.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gansynth.runtime.errors import UsageFault


class BatchCounter:
    """Counts batches; can be pickled or forked, is not thread-safe; one file for each rank."""

    def __init__(self, file: Path | str, total: int, start: int = 0) -> None:
        if total < 1 or start < 0:
            raise UsageFault(
                f"clock: {total} batches from {start} on; expected at least 1, from 0 on"
            )
        self.file = Path(file)
        self.total, self.start = total, start
        self._pid, self._fd = 0, -1

    def to_json(self) -> list[Any]:
        """Return the constructor's arguments."""
        return [str(self.file.absolute()), self.total, self.start]

    @classmethod
    def from_json(cls, doc: Sequence[Any]) -> BatchCounter:
        """Construct a clock from ``to_json``."""
        return cls(*doc)

    def tick(self) -> float:
        """Count a batch; return progress at its beginning, 0 to 1. May raise OSError."""
        if self._pid != os.getpid():
            self._open()
        os.write(self._fd, b".")
        # After an append, the file position of this descriptor is behind its own byte.
        return self._progress(os.lseek(self._fd, 0, os.SEEK_CUR) - 1)

    def now(self) -> float:
        """Return progress without counting a batch."""
        try:
            return self._progress(self.file.stat().st_size)
        except FileNotFoundError:
            return self._progress(0)

    def _progress(self, batches: int) -> float:
        return min(1.0, (self.start + batches) / self.total)

    def _open(self) -> None:
        self._pid, self._fd = os.getpid(), -1
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self.file, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pid": 0, "_fd": -1}

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0 and self._pid == os.getpid():
            os.close(self._fd)
