"""nnU-Net v2, both ways: its preprocessed training cases in, synthetic samples into its training.

nnU-Net itself stays as it is installed. Everything heavy is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gansynth.hookspecs import hookimpl

if TYPE_CHECKING:
    from gansynth.adapter import Adapter
    from gansynth.sources.base import CaseSource, SourceRequest


def _source() -> Callable[[SourceRequest], CaseSource]:
    from gansynth_nnunet.source import open_nnunet

    return open_nnunet


def _adapter() -> type[Adapter]:
    from gansynth_nnunet.adapter import NnunetAdapter

    return NnunetAdapter


@hookimpl
def register_sources(
    register: Callable[[str, Callable[[], Callable[[SourceRequest], CaseSource]]], None],
) -> None:
    register("nnunet", _source)


@hookimpl
def register_adapters(register: Callable[[str, Callable[[], type[Adapter]]], None]) -> None:
    register("nnunet", _adapter)
