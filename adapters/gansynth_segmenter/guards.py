"""Checks between a generator or sample bank and a segmenter's training. All fail closed."""

from __future__ import annotations

from collections.abc import Sequence

from gansynth.bank.reader import BankReader, verify_bank
from gansynth.core.adapter import MixConfig
from gansynth.core.lineage import CaseRecord
from gansynth.core.run_folder import RunFolder
from gansynth.core.source import CaseSource
from gansynth.core.space import Space
from gansynth.hosts.checks import HostLimits, check_origin
from gansynth.hosts.sample_source import SampleSource
from gansynth.runtime.errors import UsageFault
from gansynth_segmenter.mixed import misfit


def open_sample_source(
    mix_config: MixConfig, source: CaseSource, space: Space, held_out: Sequence[CaseRecord]
) -> SampleSource | None:
    """Check the generator or bank of a training; None without synthetic samples."""
    if mix_config.ratio.p == 0:
        return None
    takes = HostLimits(
        "segmenter",
        source,
        held_out,
        same=("channels", "labels"),
        hint=(
            "Fit a generator on the training cases of this fold: gansynth fit cgan3d --data "
            f"{source.request.kind}:{source.request.where} --fold {source.request.fold}"
        ),
        check_run=lambda run: check_space(run, space, source),
        check_bank=lambda reader: _check_bank(reader, space),
    )
    return check_origin(mix_config, takes)


def check_space(run: RunFolder, space: Space, source: CaseSource) -> None:
    """Reject a generator whose samples cannot be cases of a segmenter."""
    folder, run_space = run.folder, run.space
    again = (
        f"fit one in the space of the segmenter: gansynth fit cgan3d --data {source.request.kind}:"
        f"{source.request.where} with the same --read"
    )
    if run_space.grid == "slice":
        raise UsageFault(
            f"{folder}: {run.manifest['generator']} generates slices, expected a generator of "
            f"volumes; {again}"
        )
    if run_space.grid == "native":
        return
    if space.grid == "resample" and run_space.grid != "resample":
        raise UsageFault(
            f"{folder}: generates crops of {run_space.size} voxels for a segmenter of whole cases "
            f"(--read whole=), expected a generator of whole cases; {again}"
        )
    if run_space.grid == "resample" and not run_space.frame:
        return
    if why := misfit(space, run_space.host_shape(())):
        raise UsageFault(f"{folder}: {why}; train on smaller crops (--set patch=), or {again}")


def _check_bank(reader: BankReader, space: Space) -> None:
    verify_bank(reader.folder)
    for sample_id in reader.ids()[:1]:
        sample = reader.read(sample_id)
        why = "samples have no labels" if sample.labels is None else ""
        if why := why or misfit(space, sample.image.shape[1:]):
            raise UsageFault(f"{reader.folder}: {why}; make the bank again, or see --set patch=")
