"""Opening a source by its kind, and looking at it through a view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gansynth.core.registry import installed
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.data.reading import options_of
from gansynth.data.views import viewed


def open_plain(request: SourceRequest) -> CaseSource:
    """Open a source whose labels no generator draws; ``sampling.opening`` opens any other.

    Raises UsageFault: an unknown kind, ``--read`` keys that it does not have, or an unknown
    channel; GansynthError: what the source raises.
    """
    opener: Callable[[SourceRequest], CaseSource] = installed().load("sources", request.kind)
    options_of(opener, request)
    return viewed(opener(replace(request, view={})), request.view)
