"""Draws the next subepoch's segments in a thread while the present one's are trained on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """Results of a function of whole numbers, each computed ahead if that was begun."""

    def __init__(self, draw: Callable[[int], T]) -> None:
        self._draw = draw
        self._number, self._thread = -1, threading.Thread()
        self._result: T | None = None
        self._error: BaseException | None = None

    def begin(self, number: int) -> None:
        """Compute the result of a number in a thread; one at a time."""
        self._number = number
        # A daemon: a draw may wait long for a sample, and nobody waits for it where training ends.
        self._thread = threading.Thread(
            target=self._work, args=(number,), name="gansynth-ahead", daemon=True
        )
        self._thread.start()

    def take(self, number: int) -> T:
        """The result of a number; computed now if it was not begun.

        Raises:
            Exception: what the function raised.
        """
        if self._number != number:
            return self._draw(number)
        self._thread.join()
        result, error = self._result, self._error
        self._number, self._result, self._error = -1, None, None
        if error is not None:
            raise error
        assert result is not None
        return result

    def _work(self, number: int) -> None:
        try:
            self._result = self._draw(number)
        except BaseException as error:  # raised where the result is taken
            self._error = error
