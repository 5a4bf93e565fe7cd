"""Every check between a generator or bank and a detector's training; all of them fail closed.

The size that images are read in is no part of the host's record, and hashes are of the files'
pixels: so a generator of any size is compared with held-out images as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from gansynth.core.adapter import Injection
from gansynth.core.lineage import CaseRecord
from gansynth.core.run_folder import RunFolder
from gansynth.core.source import CaseSource
from gansynth.hosts.checks import Takes, check_origin
from gansynth.hosts.origin import Origin, check_schema
from gansynth.runtime.errors import UsageFault

SAME = ("channels", "box_classes")
"""What samples have in common with the training images."""
BOXES = 4096
"""Bytes for the boxes of a sample and what it says of itself."""


def way_out(source: CaseSource) -> str:
    """How a generator is fitted whose samples are taken."""
    return (
        "Fit a generator on the training images of this data.yaml: gansynth fit cpggan --data "
        f"{source.request.kind}:{source.request.where}"
    )


def open_origin(
    injection: Injection, source: CaseSource, held_out: Sequence[CaseRecord]
) -> Origin | None:
    """Check what samples are to be drawn from; None if nothing synthetic is drawn.

    Raises:
        IntegrityFault: leakage, another data set, or damaged weights or samples.
        DataFault: other channels or classes.
        UsageFault: no run or bank there, one without weights, or one that knows no boxes.
    """
    if injection.ratio.p == 0:
        return None
    takes = Takes(
        "yolo",
        source,
        held_out,
        needs="boxes",
        same=SAME,
        way_out=way_out(source),
        check_run=lambda run: _check_run(run, injection, source),
    )
    return check_origin(injection, takes)


def _check_run(run: RunFolder, injection: Injection, source: CaseSource) -> None:
    if injection.samples.edits and run.manifest.get("labelling") != "asked":
        raise UsageFault(
            f"--edit {injection.samples.edits[0]}: {run.manifest['generator']} is asked for boxes, "
            "not for label maps that could be edited; leave --edit out, or see --boxes"
        )
    check_schema(run.folder, run.schema, source.schema, SAME, way_out(source))


# -- room in a bank --------------------------------------------------------------------------------


def sample_bytes(manifest: Mapping[str, Any]) -> int:
    """Bytes one sample of a run takes: its image in two bytes a value, and its boxes."""
    values = prod(map(int, manifest["space"]["size"])) * len(manifest["schema"]["channels"])
    return 2 * values + BOXES
