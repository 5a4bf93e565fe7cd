"""YOLO detectors: a source for their data sets, and synthetic images with boxes for their training.

The installed detectors are not modified. Heavy packages are imported on use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gansynth.core.hookspecs import hookimpl

if TYPE_CHECKING:
    from gansynth.core.adapter import Adapter
    from gansynth.core.findings import Check
    from gansynth.core.source import CaseSource, SourceRequest


def _source() -> Callable[[SourceRequest], CaseSource]:
    from gansynth_yolo.source import open_yolo

    return open_yolo


def _check() -> Check:
    from gansynth_yolo.check import check_yolo

    return check_yolo


def _adapter() -> type[Adapter]:
    from gansynth_yolo.adapter import YoloAdapter

    return YoloAdapter


@hookimpl
def register_sources(
    register: Callable[[str, Callable[[], Callable[[SourceRequest], CaseSource]]], None],
) -> None:
    register("yolo", _source)


@hookimpl
def register_checks(register: Callable[[str, Callable[[], Check]], None]) -> None:
    register("yolo", _check)


@hookimpl
def register_adapters(register: Callable[[str, Callable[[], type[Adapter]]], None]) -> None:
    register("yolo", _adapter)
