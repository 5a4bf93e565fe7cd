"""Checks between a generator or sample bank and a detector's training. All fail closed.

The data set's record does not hold the size that images are read in, and hashes are of the files'
pixels. So a generator of any size can be compared with the held-out images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from gansynth.core.lineage import CaseRecord
from gansynth.core.mix_config import MixConfig
from gansynth.core.run_folder import RunFolder
from gansynth.core.source import CaseSource
from gansynth.hosts.checks import HostLimits, check_origin
from gansynth.hosts.sample_source import SampleSource, check_schema
from gansynth.runtime.errors import UsageFault

SAME = ("channels", "box_classes")
"""Parts of the schema that samples share with the training images."""
BOXES = 4096  # bytes for a sample's boxes and metadata


def hint(source: CaseSource) -> str:
    """Return the hint how to fit a valid generator."""
    return (
        "Fit a generator on the training images of this data.yaml: gansynth fit cpggan --data "
        f"{source.request.kind}:{source.request.where}"
    )


def open_sample_source(
    mix_config: MixConfig, source: CaseSource, held_out: Sequence[CaseRecord]
) -> SampleSource | None:
    """Check the generator or bank of a training; None without synthetic samples."""
    if mix_config.ratio.p == 0:
        return None
    takes = HostLimits(
        "yolo",
        source,
        held_out,
        needs="boxes",
        same=SAME,
        hint=hint(source),
        check_run=lambda run: _check_run(run, mix_config, source),
    )
    return check_origin(mix_config, takes)


def _check_run(run: RunFolder, mix_config: MixConfig, source: CaseSource) -> None:
    if mix_config.samples.edits and not run.capabilities.from_labels:
        raise UsageFault(
            f"--edit {mix_config.samples.edits[0]}: {run.manifest['generator']} has boxes as its "
            "condition, not label maps that could be edited; leave --edit out, or see --boxes"
        )
    check_schema(run.folder, run.schema, source.schema, SAME, hint(source))


# -- room in a bank --------------------------------------------------------------------------------


def sample_bytes(manifest: Mapping[str, Any]) -> int:
    """Return the bytes of one sample of a run: two per value of the image, and its boxes."""
    values = prod(map(int, manifest["space"]["size"])) * len(manifest["schema"]["channels"])
    return 2 * values + BOXES
