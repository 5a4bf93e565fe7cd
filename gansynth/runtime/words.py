"""Values of Python as the texts that a user would type for them."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from gansynth.runtime.errors import UsageFault
from gansynth.runtime.options import Needs, idle

Texts = str | Sequence[str]  # one text, or several: what a repeatable option takes


def as_tuple(value: Texts | None) -> tuple[str, ...]:
    """Return the values of a repeatable option; a text alone is one of them."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def as_texts(values: Mapping[str, Any] | None) -> dict[str, str]:
    """Return settings as typed after ``--set``: ``yes``, ``none``, ``64,64``, ``0.5``."""
    return {key: _text(value) for key, value in (values or {}).items()}


def as_path(folder: str | os.PathLike[str] | None) -> str | None:
    """Return an absolute path, or None."""
    return None if folder is None else os.path.abspath(os.path.expanduser(folder))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value))
    return "none" if value is None else str(value)


def changed(words: Mapping[str, Any], function: Callable[..., Any]) -> list[str]:
    """Return the words whose values are not the function's defaults; {} is None."""
    usual = function.__kwdefaults__ or {}
    return [k for k, v in words.items() if v != usual.get(k) and (v or usual.get(k))]


class Given:
    """The words of one command: values of all, and which of them the user gave."""

    def __init__(self, words: Mapping[str, Any], given: Collection[str]) -> None:
        self.words, self.given = words, given

    def called(self, name: str) -> str:
        """Return what is typed for a word."""
        if name == "options":
            return "host options after --"
        if name == "settings":
            return "--set"
        off = "no-" if self.words.get(name) is False else ""
        return f"--{off}{name.replace('_', '-')}"

    def typed(self, name: str) -> str:
        """Return a word with its value, as typed."""
        value = self.words.get(name)
        if isinstance(value, Mapping):
            value = tuple(f"{key}={text}" for key, text in value.items())
        values = value if isinstance(value, tuple | list) else (value,)
        texts = " ".join(str(each) for each in values if not isinstance(each, bool))
        return f"{self.called(name)} {texts}".strip()

    def idle(self, needs: Needs) -> Iterator[str]:
        """Yield messages about words without effect beside the others."""
        return idle(self.given, self.words, needs, self.typed, self.called)

    def refuse_idle(self, needs: Needs) -> None:
        """Refuse words without effect."""
        for message in self.idle(needs):
            raise UsageFault(message)
