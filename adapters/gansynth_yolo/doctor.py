"""Lines of ``gansynth doctor`` on the YOLO packages: releases and licences."""

from __future__ import annotations

from collections.abc import Iterator

from gansynth.core.host_commands import DoctorRequest
from gansynth.hosts.record import version_of
from gansynth.runtime.errors import extra_hint
from gansynth.runtime.machine import DoctorLine
from gansynth_yolo import libre_options
from gansynth_yolo.agpl import options
from gansynth_yolo.libraries import dotted, release_of


def lines(request: DoctorRequest) -> Iterator[DoctorLine]:
    """Check whether the release of each package is supported, without importing it."""
    for package, extra, releases, licence in (
        ("libreyolo", "yolo", (libre_options.LEAST, libre_options.BELOW), "MIT"),
        (
            "ultralytics",
            "ultralytics",
            (options.LEAST, options.BELOW),
            "AGPL-3.0: software built on it and offered to others must be open, too",
        ),
    ):
        cure = extra_hint(extra)
        if not (version := version_of(package)):
            text = f"not installed; only for augmenting YOLO ({licence})"
            yield DoctorLine("note", package, text, cure)
        elif releases[0] <= release_of(version) < releases[1]:
            yield DoctorLine("ok", package, f"{version} ({licence})")
        else:
            expected = f">={dotted(releases[0])},<{dotted(releases[1])}"
            text = f"{version}, gansynth augment needs {expected} ({licence})"
            yield DoctorLine("note", package, text, cure)
