"""What ``gansynth doctor`` says of the YOLO packages: their releases and their licences."""

from __future__ import annotations

from collections.abc import Iterator

from gansynth.hosts.record import version_of
from gansynth.runtime.machine import Line
from gansynth_yolo import libre_options
from gansynth_yolo.agpl import options
from gansynth_yolo.libraries import dotted, release_of


def lines() -> Iterator[Line]:
    """Whether the release of each package is one we know; neither is imported."""
    for package, extra, known, licence in (
        ("libreyolo", "yolo", (libre_options.LEAST, libre_options.BELOW), "MIT"),
        (
            "ultralytics",
            "ultralytics",
            (options.LEAST, options.BELOW),
            "AGPL-3.0: what you build on it and offer to others has to be open, too",
        ),
    ):
        cure = f"pip install 'gansynth[{extra}]'"
        if not (found := version_of(package)):
            said = f"not installed; only for augmenting YOLO ({licence})"
            yield Line("note", package, said, cure)
        elif known[0] <= release_of(found) < known[1]:
            yield Line("ok", package, f"{found} ({licence})")
        else:
            wanted = f">={dotted(known[0])},<{dotted(known[1])}"
            said = f"{found}, gansynth augment needs {wanted} ({licence})"
            yield Line("note", package, said, cure)
