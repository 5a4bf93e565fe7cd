"""Options of a sample bank: its size, and how fast it is renewed."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gansynth.runtime.errors import UsageFault
from gansynth.runtime.serialise import Document

_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BYTES |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}
MOST_PRODUCERS = 64
OVERHEAD = 0.02  # default share by which a producer may slow its host down


def parse_producers(text: str) -> int | None:
    """Parse ``3``, or ``auto`` as None; UsageFault otherwise."""
    if text == "auto":
        return None
    if re.fullmatch(r"\d+", text) and 1 <= int(text) <= MOST_PRODUCERS:
        return int(text)
    raise UsageFault(
        "bank-options.producers-malformed",
        f"--producers {text!r}: expected auto, or a number of processes from 1 to {MOST_PRODUCERS}",
    )


@dataclass(frozen=True)
class BankSize:
    """Size of a bank: exactly one field is set. ``bytes``: limit on the bank's file system."""

    samples: int | None = None
    times: float | None = None
    bytes: int | None = None

    @classmethod
    def parse(cls, text: str) -> BankSize:
        """Parse ``64`` (samples), ``3x`` (per training case) or ``2GB``; UsageFault otherwise."""
        if re.fullmatch(r"\d+", text) and int(text) > 0:
            return cls(samples=int(text))
        match = re.fullmatch(r"(\d+(?:\.\d+)?)x", text)
        if match and float(match[1]) > 0:
            return cls(times=float(match[1]))
        match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?i?B)", text, re.IGNORECASE)
        if match:
            size = int(float(match[1]) * _BYTES[match[2].upper()])
            if size > 0:
                return cls(bytes=size)
        raise UsageFault(
            "bank-options.size-malformed",
            f"--bank-size {text!r}: expected a number of samples (64), of samples for each "
            "training case (3x), or bytes (2GB, 512MiB)",
        )

    def __str__(self) -> str:
        if self.times is not None:
            return f"{self.times:g}x"
        return str(self.samples) if self.bytes is None else f"{self.bytes}B"

    def capacity(self, cases: int, sample_bytes: int) -> int:
        """Samples the bank holds; UsageFault if the bytes do not fit two samples."""
        if self.samples is not None:
            return self.samples
        if self.times is not None:
            return max(1, round(self.times * cases))
        assert self.bytes is not None
        held = self.bytes // max(1, sample_bytes)
        if held < 2:
            raise UsageFault(
                "bank-options.size-below-two-samples",
                f"--bank-size {self}: holds {held} sample(s) of {sample_bytes} bytes, expected "
                f"room for two at least: {2 * sample_bytes}B",
            )
        return held


@dataclass(frozen=True)
class RefreshPolicy(Document):
    """Renewal rate of a live bank: one field is set; the default is an overhead of 2 %.

    ``reuse``: draws of a sample before it is replaced. ``refresh``: seconds to replace the whole
    bank once. ``overhead``: share by which the host's steps may slow down; the producer's rate is
    derived from measured step times.
    """

    reuse: float | None = None
    refresh: float | None = None
    overhead: float | None = None

    def __post_init__(self) -> None:
        if self.reuse is None and self.refresh is None and self.overhead is None:
            object.__setattr__(self, "overhead", OVERHEAD)

    @classmethod
    def parse(cls, text: str | None) -> RefreshPolicy:
        """Parse ``--refresh`` as ``2%``, ``4x`` or ``10min``; UsageFault otherwise."""
        if text is None:
            return cls()
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(%|x|s|min|h)", text)
        number = float(match[1]) if match else 0.0
        if match is None or number <= 0:
            raise UsageFault(
                "bank-options.refresh-malformed",
                f"--refresh {text!r}: expected the most slowdown of the training (2%), the uses of "
                "a sample (4x), or the time to replace the whole bank (90s, 10min, 1h)",
            )
        if match[2] == "%":
            return cls(overhead=number / 100)
        if match[2] == "x":
            return cls(reuse=number)
        return cls(refresh=number * _SECONDS[match[2]])

    def __str__(self) -> str:
        if self.reuse is not None:
            return f"each sample drawn {self.reuse:g} times"
        if self.refresh is not None:
            return f"renewed every {self.refresh:g} s"
        return f"at most {100 * (self.overhead or 0):g} % overhead"


@dataclass(frozen=True)
class BankCapacity:
    """Planned size of a bank; ``bytes`` includes samples that are being written."""

    held: int
    bytes: int
