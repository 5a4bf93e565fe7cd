"""DeepMedic: a source for its configuration files, and synthetic cases for its training.

The process of the real program imports ``host``, ``subepochs``, ``insertion`` and ``order``, which
need numpy and h5py only. It does not import this module.
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
    from gansynth_deepmedic.source import open_deepmedic

    return open_deepmedic


def _check() -> Check:
    from gansynth_deepmedic.check import check_deepmedic

    return check_deepmedic


def _adapter() -> type[Adapter]:
    from gansynth_deepmedic.adapter import DeepMedicAdapter

    return DeepMedicAdapter


@hookimpl
def register_sources(
    register: Callable[[str, Callable[[], Callable[[SourceRequest], CaseSource]]], None],
) -> None:
    register("deepmedic", _source)


@hookimpl
def register_checks(register: Callable[[str, Callable[[], Check]], None]) -> None:
    register("deepmedic", _check)


@hookimpl
def register_adapters(register: Callable[[str, Callable[[], type[Adapter]]], None]) -> None:
    register("deepmedic", _adapter)
