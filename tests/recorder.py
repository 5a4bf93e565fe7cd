"""A reporter that keeps what it was told."""

from gansynth.runtime.progress import NullReporter


class Recorder(NullReporter):
    """Keeps what was said and what was warned of, line by line."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warned.append(text)
