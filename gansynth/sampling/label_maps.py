"""Label maps that a run generates for a source's cases, seen through the source's view."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.core.resample import crop_pad
from gansynth.core.run_folder import manifest_sha256, read_manifest
from gansynth.core.schema import Case, Condition, FloatArray, LabelArray, Sample, Schema
from gansynth.core.source import CaseSource
from gansynth.data.views import (
    HOME,
    SourceView,
    channel_numbers,
    merged_schema,
    of_channels,
    only_intensity,
)
from gansynth.data.views import open_view as data_viewed
from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth.sampling.open_run import load_run
from gansynth.sampling.run import Run


def viewed(source: CaseSource, view: Mapping[str, Any]) -> CaseSource:
    """Return a source through a view, with the label maps of the run that the view may name.

    Raises:
        UsageFault: a channel or class that the source does not have.
        DataFault: the named run does not generate labels.
        IntegrityFault: that run has changed.
    """
    if "labels_by" not in view or isinstance(source, SourceView):
        return data_viewed(source, view)
    folder = (Path(view.get(HOME, ".")) / view["labels_by"]).resolve()
    view = {**view, "labels_sha256": _unchanged(folder, view.get("labels_sha256"))}
    return SourceView(source, view, partial(_open_labeller, folder))


def _open_labeller(folder: Path, source: CaseSource) -> LabelMapSampler:
    return LabelMapSampler(load_run(folder), source.schema)


def _unchanged(folder: Path, expected: str | None) -> str:
    """Return the SHA-256 of a run's manifest, if it is the expected one."""
    read_manifest(folder)
    digest = manifest_sha256(folder)
    if expected is not None and digest != expected:
        raise IntegrityFault(
            f"{folder}: SHA-256 of its manifest is {digest[:12]}, expected {expected[:12]}; the "
            "run has changed since it drew the label maps that another one learnt from. "
            "Restore it from a copy, or fit both again"
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
                f"labels_by: {folder.name} draws images, expected a part that draws label maps; "
                f"see: gansynth options {generator.name}"
            )
        self.given = generator.capabilities.channels
        self._given = channel_numbers(source, self.given)
        if generator.schema.ndim != source.ndim and self.run.space.grid != "slice":
            raise UsageFault(
                f"labels_by: {folder.name} draws maps of {generator.schema.ndim} axes, the cases "
                f"have {source.ndim}; expected the same"
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
