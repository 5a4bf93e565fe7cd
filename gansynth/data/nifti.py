"""``nifti:WHERE``: a folder of pairs, a folder per case, BIDS, or a manifest of volumes."""

from __future__ import annotations

from collections.abc import Callable

from gansynth.core.findings import CheckReport
from gansynth.core.source import SourceRequest
from gansynth.data.check import check_volumes
from gansynth.data.folders import list_folder
from gansynth.data.folds import absolute
from gansynth.data.listing import VolumeSet, located
from gansynth.data.manifest import list_manifest
from gansynth.data.nifti_source import VolumeSource
from gansynth.data.read_options import VolumeOptions, parse_read, register_read_options


@register_read_options(VolumeOptions)
def open_nifti(request: SourceRequest) -> VolumeSource:
    """Open ``nifti:FOLDER`` or ``nifti:MANIFEST``. Raises what ``VolumeSource`` does."""
    options = parse_read(VolumeOptions, request)
    return VolumeSource(absolute(request), _list(request, options), options)


def check_nifti(request: SourceRequest, progress: Callable[[int, int], None]) -> CheckReport:
    """Check ``nifti:FOLDER`` or ``nifti:MANIFEST`` for all faults."""
    options = parse_read(VolumeOptions, request)
    return check_volumes(_list(request, options), request, options, progress)


def _list(request: SourceRequest, options: VolumeOptions) -> VolumeSet:
    where = located(request)
    listed = list_folder if where.is_dir() else list_manifest
    return listed(request.kind, where, options)
