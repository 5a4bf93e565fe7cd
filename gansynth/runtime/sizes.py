"""Sizes as users type them; light, since hosts' programs read them, too."""

from __future__ import annotations

import re

from gansynth.runtime.errors import UsageFault


def bytes_of(text: str, named: str) -> int:
    """Return the bytes of a size as ``16GB``, ``800MB``, ``12GiB`` or ``5000000``.

    ``named``: the option or variable, for the message.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\s*", text, re.IGNORECASE)
    if match is None or float(match[1]) == 0:
        raise UsageFault(
            "sizes.not-a-size", f"{named} {text!r}: expected a size, for example 16GB or 800MiB"
        )
    power = " KMGT".index(match[2].upper() or " ")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)
