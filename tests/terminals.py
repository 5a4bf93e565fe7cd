"""A stream that says it is a terminal, and a clock that is set by hand."""

import io


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now
