"""DeepMedic both ways: its configuration files in, synthetic cases into its training.

What the real program's process imports (``host``, ``subepochs``, ``insertion``, ``order``) needs
numpy and h5py only; this module is not among it.
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
