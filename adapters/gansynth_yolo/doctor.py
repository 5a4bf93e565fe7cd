"""Lines of ``gansynth doctor`` on the YOLO packages: releases and licences."""

from __future__ import annotations

from collections.abc import Iterator

from gansynth.core.host_commands import DoctorRequest
from gansynth.hosts.record import version_of
from gansynth.runtime.errors import extra_hint
from gansynth.runtime.machine import DoctorLine
from gansynth_yolo.detectors import DETECTORS


def lines(request: DoctorRequest) -> Iterator[DoctorLine]:
    """Check whether the release of each package is supported, without importing it."""
    for package, library in DETECTORS.items():
        cure, licence = extra_hint(library.extra), library.licence
        if not (version := version_of(package)):
            text = f"not installed; only for augmenting YOLO ({licence})"
            yield DoctorLine("note", package, text, cure)
        elif library.supports(version):
            yield DoctorLine("ok", package, f"{version} ({licence})")
        else:
            text = f"{version}, gansynth augment needs {library.releases} ({licence})"
            yield DoctorLine("note", package, text, cure)
