"""Where a run's own training cases are, seen from the host that samples are drawn for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from gansynth.lineage import Lineage, same_host
from gansynth.sources.base import CaseSource, SourceRequest

if TYPE_CHECKING:
    from gansynth.adapter import Adapter
    from gansynth.run import Run
    from gansynth.schema import Sample


class Fitted(Protocol):
    """What of a run says where its training cases are."""

    @property
    def lineage(self) -> Lineage:
        """Every case it has seen."""

    @property
    def request(self) -> SourceRequest:
        """Where they came from."""


def own_source(run: Fitted, host: CaseSource, *, any_size: bool = False) -> CaseSource:
    """Where a run's training cases come from: the host's own source, or another one.

    Args:
        run: a run, or what is known of it.
        host: the host's source.
        any_size: whether the host takes samples of other sizes than it reads its cases in.
    """
    from gansynth.registry import installed

    if same_host(run.lineage.host, host.host):
        if not any_size or run.request.read == host.request.read:
            return host
        return installed().open_source(replace(host.request, read=run.request.read))
    root = run.request.root or host.request.root
    return installed().open_source(replace(run.request, root=root))


def source_for(run: Run, adapter: Adapter) -> tuple[CaseSource, Callable[[Sample], Sample] | None]:
    """Where a run's conditions come from; and what brings samples from there to the host, if
    that is elsewhere.
    """
    own = own_source(run, adapter.source, any_size=adapter.any_size)
    return own, None if own is adapter.source else adapter.bring(own, run.space)
