"""Cases at hand: the most recently used ones stay in memory, up to a number of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict

from gansynth.schema import Case
from gansynth.sources.base import CaseSource


class CaseCache:
    """Keeps the most recently used cases of a source in memory, up to a number of bytes.

    Several threads may ask at once: the training loop's loader and a preview do.

    Args:
        source: where cases come from.
        max_bytes: bytes of images and labels to keep (2 GiB by default).
    """

    def __init__(self, source: CaseSource, max_bytes: int = 2 << 30) -> None:
        self.source = source
        self.max_bytes = max_bytes
        self._cases: OrderedDict[str, Case] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __call__(self, case_id: str) -> Case:
        """The case, read from the source if it is not at hand."""
        with self._lock:
            return self._get(case_id)

    def _get(self, case_id: str) -> Case:
        if case_id in self._cases:
            self._cases.move_to_end(case_id)
            return self._cases[case_id]
        case = self.source.load(case_id)
        self._cases[case_id] = case
        self._bytes += _size(case)
        while self._bytes > self.max_bytes and len(self._cases) > 1:
            _, dropped = self._cases.popitem(last=False)
            self._bytes -= _size(dropped)
        return case


def _size(case: Case) -> int:
    return case.image.nbytes + (0 if case.labels is None else case.labels.nbytes)
