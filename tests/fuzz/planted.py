"""Readers that do what no reader may do, to see that it is seen."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.formats import TEXTS, Format, texts
from tests.fuzz.mutate import TEXT


def write_outside(folder: Path) -> object:
    return (folder.parent / "outside").write_text("x")


def compute(folder: Path) -> object:
    return sum(range(10**12))


def take_memory(folder: Path) -> object:
    return bytearray(b"x") * (1100 << 20)


SINS: dict[str, Callable[[Path], object]] = {
    "untyped": lambda folder: dict[str, int]()["key"],
    "crashes": lambda folder: os.abort(),
    "hangs": compute,
    "memory": take_memory,
    "outside": write_outside,
    "outside, unpickled": lambda folder: pickle.loads(pickle.dumps(Path())),
}


def _format(sin: Callable[[Path], object]) -> Format:
    def read(folder: Path, file: Path) -> None:
        if file.read_bytes() != TEXTS[file.name].encode():
            sin(folder)

    return Format(texts, "chain.yaml", read, mutators=TEXT)


PLANTED = {f"planted: {how}": _format(sin) for how, sin in SINS.items()}
