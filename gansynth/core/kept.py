"""Results that are kept while they fit into so many bytes; the least recently used go first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")
LEAST_BYTES = 1 << 10  # bytes that any result counts as, so that small ones are bounded, too


class Kept(Generic[T]):
    """Keeps results of up to ``most`` bytes, as ``size`` counts them, and the last one.

    Threads may share it: two that ask for what is not kept may both make it.
    """

    def __init__(self, most: int, size: Callable[[T], int]) -> None:
        self._most, self._size, self._held = most, size, 0
        self._kept: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the result of a key, made if it is not kept; equal keys must make equal ones."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = make()
        with self._lock:
            if key in self._kept:
                return self._kept[key]
            self._kept[key] = made
            self._held += max(self._size(made), LEAST_BYTES)
            while self._held > self._most and len(self._kept) > 1:
                _, gone = self._kept.popitem(last=False)
                self._held -= max(self._size(gone), LEAST_BYTES)
        return made
