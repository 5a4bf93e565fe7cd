"""Open the source that a run was fitted on.

A view of a source may have label maps that a run generates for its cases.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gansynth.core.lineage import LOOKS_ALONE, other_records, same_host
from gansynth.core.resample import crop_pad
from gansynth.core.run_folder import MANIFEST, RunFolder, manifest_sha256, read_manifest
from gansynth.core.schema import Case, Condition, FloatArray, LabelArray, Sample, Schema
from gansynth.core.source import CaseSource, Finding, SourceRequest, comparable_records, places_of
from gansynth.data.folds import site_of_cases
from gansynth.data.views import (
    HOME,
    SourceView,
    channel_numbers,
    merged_schema,
    of_channels,
    only_intensity,
    open_plain,
)
from gansynth.data.views import open_view as data_viewed
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault, describe_error
from gansynth.runtime.progress import Reporter
from gansynth.sampling.manifest import Run
from gansynth.sampling.open_run import load_run

if TYPE_CHECKING:
    from gansynth.core.intake import Intake
    from gansynth.core.run_folder import RunDescription
    from gansynth.core.schema import Sample


def viewed(source: CaseSource, view: Mapping[str, Any]) -> CaseSource:
    """Return a source through a view, with the label maps of the run that the view may name."""
    if "labels_by" not in view or isinstance(source, SourceView):
        return data_viewed(source, view)
    folder = (Path(view.get(HOME, ".")) / view["labels_by"]).resolve()
    view = dict(view, labels_sha256=_unchanged(folder, view.get("labels_sha256")))
    return SourceView(source, view, lambda cases: LabelMapSampler(load_run(folder), cases.schema))


def _unchanged(folder: Path, expected: str | None) -> str:
    """Return the SHA-256 of a run's manifest, if it is the expected one."""
    read_manifest(folder)
    digest = manifest_sha256(folder)
    if expected is not None and digest != expected:
        raise IntegrityFault(
            "sampling.label-run-changed",
            f"{folder}: SHA-256 of its manifest is {digest[:12]}, expected {expected[:12]}; the "
            "run has changed since it drew the label maps that another one learnt from. "
            "Restore it from a copy, or fit both again",
        )
    return digest


class LabelMapSampler:
    """A run that generates label maps from images, and joins them to a source's own.

    Args:
        source: schema of the cases. Its labels have priority; generated labels get higher values.
    """

    def __init__(self, run: Run, source: Schema) -> None:
        self.run, folder = run, run.folder
        self.name, self.lineage, self.labels = folder.name, run.lineage, run.schema.labels
        self.shift = max((0, *source.labels.values()))
        generator = self.run.generator
        if generator.capabilities.draws != "labels":
            raise UsageFault(
                "sampling.label-run-draws-images",
                f"labels_by: {folder.name} draws images, expected a part that draws label maps; "
                f"see: gansynth options {generator.name}",
            )
        self.given = generator.capabilities.channels
        self._given = channel_numbers(source, self.given)
        if generator.schema.ndim != source.ndim and self.run.space.grid != "slice":
            raise UsageFault(
                "sampling.label-run-axes-differ",
                f"labels_by: {folder.name} draws maps of {generator.schema.ndim} axes, the cases "
                f"have {source.ndim}; expected the same",
            )

    def schema(self, schema: Schema) -> Schema:
        """Return a schema with the generated labels after its own."""
        return merged_schema(schema, self.run.schema, self.run.folder.name, self.shift)

    def draw(self, case: Case, schema: Schema) -> LabelArray:
        """Generate the label map of a whole case; the same case gives the same map.

        A run that was trained on whole cases at another resolution gets them at that resolution.
        Outside its field of view there is background.

        Args:
            case: image (C, D, H, W) or (C, H, W), in the source's units.

        Returns:
            int16 (D, H, W) or (H, W), values of the run's own schema.
        """
        numbers = channel_numbers(self.run.schema, [schema.channels[i] for i in self._given])
        image, seed = case.image[self._given], zlib.crc32(case.id.encode())
        if self.run.space.grid == "resample":
            return self._resampled(image, numbers, seed)
        channels = only_intensity(self.run.space, numbers).to_generator(Case("", "", image)).image
        if self.run.generator.schema.ndim < schema.ndim:
            planes = [self._one(channels[:, i], seed + i) for i in range(channels.shape[1])]
            return np.stack(planes)
        return self._one(channels, seed)

    def _one(self, channels: FloatArray, seed: int) -> LabelArray:
        condition = Condition(given=np.ascontiguousarray(channels), latent_seed=seed)
        labels = self.run.generator.sample([condition], [seed])[0].labels
        assert labels is not None, "checked when the labeller was opened"
        return labels

    def _resampled(self, image: FloatArray, numbers: list[int], seed: int) -> LabelArray:
        """Generate in the run's space, and resample to the grid of the case."""
        space, shape = of_channels(self.run.space, numbers), image.shape[1:]
        channels = space.to_generator(Case("", "", image)).image
        drawn = space.to_host(Sample(channels, self._one(channels, seed)), shape).labels
        assert drawn is not None, "labels were given"
        corner = space.frame_corner(shape)
        return crop_pad(drawn, [-first for first in corner], shape, 0) if corner else drawn

    def under(self, drawn: LabelArray) -> LabelArray:
        """Return generated labels with values above the source's, whose labels cover them."""
        return np.where(drawn > 0, drawn + np.int16(self.shift), np.int16(0)).astype(np.int16)


# -- sources ---------------------------------------------------------------------------------------


def open_source(request: SourceRequest) -> CaseSource:
    """Open the requested source, with the labels that a generator adds to its cases.

    Raises:
        UsageFault: an unknown kind, or ``--read`` keys that it does not have.
        GansynthError: what the source raises.
    """
    source = viewed(open_plain(replace(request, view={})), request.view)
    if request.sites is not None:
        ids = (*source.train_ids, *source.held_out_ids)
        source.sites = site_of_cases(request.sites, {i: source.header(i).subject for i in ids})
    return source


def open_real(request: Mapping[str, Any], source: CaseSource) -> CaseSource:
    """Open real cases of another source, a ``SourceRequest`` as JSON, in the run's own format."""
    from gansynth.conditions.condition_source import open_base

    with describe_error("--label-source", "--real"):  # both are read alike
        return open_base(request, source)


def source_of_run(run: RunDescription, host: CaseSource, *, any_size: bool = False) -> CaseSource:
    """Return the source of a run's training cases: the host's own source, or another one.

    Args:
        any_size: whether the host takes samples of other sizes than it reads its cases in.
    """
    if same_host(run.lineage.host, host.space.host):
        if not any_size or run.request.read == host.request.read:
            return host
        return open_source(replace(host.request, read=run.request.read))
    return open_matching_real(run, host)


def open_matching_real(run: RunDescription, host: CaseSource) -> CaseSource:
    """Open a run's own source, below the root of the host's where it names none."""
    return open_source(replace(run.request, root=run.request.root or host.request.root))


def source_for(
    run: Run, source: CaseSource, intake: Intake | None
) -> tuple[CaseSource, Callable[[Sample], Sample] | None]:
    """Return the source of a run's conditions, and a function that maps samples to the host.

    The function is None if both have the same source, or samples are for no host.
    """
    if intake is None:
        return source, None
    own = source_of_run(run, source, any_size=intake.any_size)
    return own, None if own is source else intake.converter(own, run.space)


def open_moved(run: RunDescription, data: str | None, root: str | None) -> CaseSource:
    """Open the source of a run at its present place; its content is compared when it is used."""
    request = run.request if root is None else replace(run.request, root=root)
    if data is None:
        return open_resolved(request)
    moved = SourceRequest.parse(data)
    return open_resolved(replace(request, kind=moved.kind, where=moved.where), by_user=True)


def open_resolved(request: SourceRequest, *, by_user: bool = False) -> CaseSource:
    """Open a source; if the user has not named it, a fault hints at moved data."""
    try:
        return open_source(request)
    except (UsageFault, DataFault) as fault:
        if by_user or places_of(request):
            raise
        hint = "If it was moved, say where it is: --data KIND:WHERE"
        raise fault.reworded(f"{fault}. {hint}") from fault


def wrong_records(run: RunFolder, source: CaseSource, reporter: Reporter) -> list[Finding]:
    """Return how the training cases of a run's source differ from those that the run records."""
    ids = source.train_ids
    reporter.say(f"{source.name} fold {source.request.fold}: reading {len(ids)} case(s)")
    found = comparable_records(run.lineage, source)
    hint = "fit the generator again, or restore the run from a copy"
    findings = [
        Finding("error", None, run.folder / MANIFEST, f"lineage: {line}; {hint}")
        for line in other_records(run.lineage.cases, found)
    ]
    if not run.lineage.as_stored:
        findings.append(Finding("warning", None, run.folder / MANIFEST, f"lineage: {LOOKS_ALONE}"))
    return findings
