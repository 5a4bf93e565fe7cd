"""nnU-Net v2: reads its preprocessed training cases, and adds synthetic samples to its training.

nnU-Net's installation is not changed. Heavy modules are imported at their first use.
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
    from gansynth_nnunet.source import open_nnunet

    return open_nnunet


def _raw() -> Callable[[SourceRequest], CaseSource]:
    from gansynth_nnunet.raw import open_raw

    return open_raw


def _check() -> Check:
    from gansynth_nnunet.raw import check_nnunet

    return check_nnunet


def _adapter() -> type[Adapter]:
    from gansynth_nnunet.adapter import NnunetAdapter

    return NnunetAdapter


@hookimpl
def register_sources(
    register: Callable[[str, Callable[[], Callable[[SourceRequest], CaseSource]]], None],
) -> None:
    register("nnunet", _source)
    register("nnunet-raw", _raw)


@hookimpl
def register_checks(register: Callable[[str, Callable[[], Check]], None]) -> None:
    register("nnunet", _check)
    register("nnunet-raw", _check)


@hookimpl
def register_adapters(register: Callable[[str, Callable[[], type[Adapter]]], None]) -> None:
    register("nnunet", _adapter)
