"""Context of cases at their places, made once where that can be."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

from gansynth.core.case_store import Arrays
from gansynth.core.schema import Case, LabelArray
from gansynth.core.space import Placement, Space

if TYPE_CHECKING:
    from gansynth.core.generator import ContextOf

Mapped = Callable[[str, str, str, Callable[[], Arrays]], Arrays | None]
MOST_BYTES = 1 << 29  # of contexts that are kept; what comes later is made anew each time


class ContextMaps:
    """Makes the context of cases at places: what ``context`` returns of them, bit for bit.

    Contexts of cases that have only one place are kept. Of cases that crops are cut from, a
    generator's ``whole_context`` is kept, once making the crops' own has cost as much. Threads may
    share it.

    Args:
        mapped: see ``TrainingCases.mapped``; None keeps whole contexts in memory alone.
    """

    def __init__(
        self,
        space: Space,
        context: Callable[[Case], LabelArray | None],
        mapped: Mapped | None = None,
    ) -> None:
        self._space, self._context, self._mapped = space, context, mapped
        self._kept: dict[Hashable, LabelArray | None] = {}
        self._bytes = 0
        self._cut = Counter[str]()
        self._lock = threading.Lock()

    def __call__(
        self, placed: Case, at: Placement, shape: Sequence[int], read: Callable[[], Case]
    ) -> LabelArray | None:
        """Return the context of a case in the generator's space; nobody may write into it.

        ``at``: where it was cut from a whole case of this shape, which ``read`` returns.
        """
        size = self._space.size
        plane = shape[-len(size) :]
        if not self._space.cuts or all(n <= edge for n, edge in zip(plane, size, strict=True)):
            key = placed.id, at
            if key not in self._kept:
                return self._keep(key, self._context(placed))
            return self._kept[key]
        from gansynth.core.generator import ContextOf  # which needs torch

        if self._space.grid == "crop" and isinstance(self._context, ContextOf):
            whole = self._whole(placed.id, self._context, shape, read)
            if whole is not None:
                cut: LabelArray | None = self._context.cut(placed, whole, at.corner)
                return cut
        return self._context(placed)

    def _whole(
        self, case_id: str, context: ContextOf, shape: Sequence[int], read: Callable[[], Case]
    ) -> LabelArray | None:
        if case_id in self._kept:
            return self._kept[case_id]
        with self._lock:  # so that one thread makes it
            self._cut[case_id] += 1
            due = self._cut[case_id] == math.ceil(math.prod(shape) / math.prod(self._space.size))
        if not due:
            return None

        def make() -> Arrays:
            return {"whole": context.whole(self._space.uncut(read()))}

        if self._mapped is not None and context.key:
            kept = self._mapped(case_id, "context", context.key, make)
            if kept is not None:
                self._kept[case_id] = kept["whole"]  # takes no memory of this process
                return kept["whole"]
        return None if self._bytes > MOST_BYTES else self._keep(case_id, make()["whole"])

    def _keep(self, key: Hashable, made: LabelArray | None) -> LabelArray | None:
        with self._lock:
            if self._bytes <= MOST_BYTES and key not in self._kept:
                self._bytes += 0 if made is None else made.nbytes
                self._kept[key] = made
        return made
