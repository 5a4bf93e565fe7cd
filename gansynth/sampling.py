"""Drawing samples from a run: conditions from its training source, images from its generator."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.composite_view import View, viewed
from gansynth.conditions.base import Edit
from gansynth.conditions.sampler import ConditionSampler
from gansynth.errors import IntegrityFault, UsageFault
from gansynth.generator import Generator
from gansynth.lineage import guard_host
from gansynth.registry import installed
from gansynth.reporting import Reporter
from gansynth.run import Run, load_run
from gansynth.schema import Case, Sample
from gansynth.sources.base import CaseSource
from gansynth.space import Placement

SHEET = 32
"""Most samples on a sheet."""


class SampleDrawer:
    """Draws samples of a run in its host's space; sample ``i`` of a seed is always the same.

    Args:
        run: an opened run.
        source: the run's training source, whose content must be what the run has seen.
        edits: condition edits by name; None takes the run's own.
        seed: seeds conditions and latents.

    Attributes:
        source: real cases with the channels and labels that samples have.
    """

    def __init__(
        self, run: Run, source: CaseSource, edits: Sequence[str] | None = None, seed: int = 0
    ) -> None:
        source = viewed(source, run.request.view)
        check_source(run, source)
        # A composite run's samples have the labels its source has, without those a part has drawn.
        composite = "parts" in run.manifest
        self.source = source.base if composite and isinstance(source, View) else source
        self.run = run
        self._unchecked = {case.id: case.sha256 for case in run.lineage.cases}
        generator = run.generator
        check_edits(generator, edits or ())
        names = run.edits if edits is None else tuple(edits)
        self.sampler = ConditionSampler(
            source,
            run.space,
            build_edits(names),
            seed=seed,
            context=generator.context,
            given=generator.given,
            labelled=generator.labelling == "asked",
        )

    def draw(self, first: int, count: int) -> list[Sample]:
        """Samples ``first`` to ``first + count - 1`` in the host's space.

        Returns:
            Samples with image float32 (C, D, H, W), labels int16 (D, H, W).
        """
        space = self.run.space
        return [space.to_host(s, s.provenance["shape"]) for s in self.draw_raw(first, count)]

    def draw_raw(self, first: int, count: int) -> list[Sample]:
        """The same samples in the generator's own space."""
        conditions = [self.sampler.draw(i) for i in range(first, first + count)]
        for case_id in {c.provenance["case"] for c in conditions} & self._unchecked.keys():
            self._check_content(case_id)
        samples = self.run.generator.sample(conditions, [c.latent_seed for c in conditions])
        # Where it was drawn from is ours to know, whatever the plugin hands on.
        told = [
            replace(s, provenance={**c.provenance, **s.provenance})
            for s, c in zip(samples, conditions, strict=True)
        ]
        return [self._finish(self._judged(s)) for s in told]

    def beside(self, sample: Sample) -> Case:
        """The real case a sample's condition came from, at the same place, in its own space."""
        placement = Placement.from_json(sample.provenance["placement"])
        # A composite run draws conditions through a view; its real cases are the source's own.
        own = self.source is self.sampler.source
        load = self.sampler.cache if own else self.source.load
        return self.run.space.to_generator(load(sample.provenance["case"]), placement)

    def _check_content(self, case_id: str) -> None:
        """Refuse a case that is not the one the run has seen; each is looked at once.

        Raises:
            IntegrityFault: naming the case.
        """
        source, wanted = self.sampler.source, self._unchecked[case_id]
        if source.record(case_id, self.sampler.cache).sha256 != wanted:
            raise IntegrityFault(
                f"{self.run.folder}: case {case_id!r} of {source.name} is not the one the run was "
                "fitted on; expected the same content. It has been preprocessed anew, or replaced: "
                "restore it, or fit again"
            )
        del self._unchecked[case_id]

    def _judged(self, sample: Sample) -> Sample:
        """The sample with its flaw in its provenance, if the generator finds one."""
        flaw = self.run.generator.flaw(sample)
        return replace(sample, provenance={**sample.provenance, "flaw": flaw}) if flaw else sample

    def _finish(self, sample: Sample) -> Sample:
        """Pad as the source's own crops are padded, and say which run it was."""
        if self.run.generator.labelling != "asked":  # it lies where no case does
            return replace(sample, provenance={**sample.provenance, "run": self.run.run_id})
        placement = Placement.from_json(sample.provenance["placement"])
        cleared = self.run.space.clear_padding(sample, sample.provenance["shape"], placement)
        return replace(cleared, provenance={**sample.provenance, "run": self.run.run_id})


def check_edits(generator: Generator, edits: Sequence[str]) -> None:
    """Refuse edits of label maps where none are asked of a generator.

    Raises:
        UsageFault: naming the first edit.
    """
    if edits and generator.labelling != "asked":
        made = "its own label maps" if generator.labelling == "drawn" else "no label maps"
        raise UsageFault(
            f"--edit {edits[0]}: {generator.name} draws {made}, so none is asked of it that could "
            "be edited; leave --edit out"
        )


def build_edits(names: Sequence[str]) -> list[Edit]:
    """Edits by registered name, with their default options."""
    return [installed().edit(name)() for name in names]


def check_source(run: Run, source: CaseSource) -> None:
    """Refuse a source whose training cases are not the ones the run was fitted on.

    Raises:
        IntegrityFault: naming data set, fold, space or cases that differ.
    """
    seen = run.lineage
    if (seen.dataset, seen.fold) != (source.name, source.fold):
        raise IntegrityFault(
            f"{run.folder}: fitted on {seen.dataset} fold {seen.fold}, asked to draw conditions "
            f"from {source.name} fold {source.fold}; expected its own training source"
        )
    guard_host(seen.host, source.host)
    found, wanted = source.schema, run.schema
    # Of a composite run the source may have more labels, drawn by one of its parts.
    same_labels = wanted.labels.items() <= found.labels.items()
    if found.channels != wanted.channels or not same_labels:
        raise IntegrityFault(
            f"{run.folder}: fitted on the channels {', '.join(wanted.channels)} and labels "
            f"{dict(wanted.labels)}, the source has {', '.join(found.channels)} and "
            f"{dict(found.labels)}; expected the same. Fit again"
        )
    unseen = sorted(set(source.train_ids) - {c.id for c in seen.cases})
    if unseen:
        raise IntegrityFault(
            f"{run.folder}: {len(unseen)} training case(s) of the source were not in the fit, "
            f"first {unseen[0]}; the split has changed since. Fit again"
        )


def sample_run(
    run: Path,
    n: int,
    *,
    out: Path | None = None,
    sheet: bool = False,
    seed: int = 0,
    edits: Sequence[str] | None = None,
    device: str = "auto",
    root: str | None = None,
    reporter: Reporter,
) -> dict[str, Any]:
    """Draw ``n`` samples of a run and write them as NIfTI, and a sheet if asked.

    Args:
        run: run folder.
        n: how many.
        out: folder for ``sample-0000_0000.nii.gz`` (one file a channel) with ``_seg`` and
            provenance JSON; ``RUN/samples/seed-S`` if None.
        sheet: also write ``sheet.png``: samples beside real cases.
        seed: seeds conditions and latents.
        edits: condition edits; None takes the run's own.
        device: ``auto``, ``cpu``, ``cuda:0``.
        root: overrides where the source's host folders lie.
        reporter: shows progress.

    Returns:
        A JSON-able report: files written, sheet, seconds per sample.
    """
    import time

    opened = load_run(run, device)
    request = opened.request if root is None else replace(opened.request, root=root)
    source = installed().open_source(request)
    drawer = SampleDrawer(opened, source, edits, seed)
    out = out or run / "samples" / f"seed-{seed}"
    out.mkdir(parents=True, exist_ok=True)
    samples: list[Sample] = []
    seconds = 0.0
    with reporter.task(n, "sample") as bar:
        for index in range(n):
            began = time.perf_counter()
            sample = drawer.draw(index, 1)[0]
            seconds += time.perf_counter() - began
            write_nifti(sample, out / f"sample-{index:04d}", source.schema.spacing)
            samples.append(sample)
            bar.advance(1)
    report: dict[str, Any] = {
        "folder": str(out),
        "samples": n,
        "seconds_per_sample": seconds / max(n, 1),
    }
    if sheet:
        from gansynth.sheets import write_sheet

        path = out / "sheet.png"
        real = [_placed(drawer, s) for s in samples[:SHEET]]
        write_sheet(path, samples[:SHEET], real, drawer.source.schema)
        report["sheet"] = str(path)
    return report


def _placed(drawer: SampleDrawer, sample: Sample) -> Case:
    """The real case a sample's condition came from, at the same place, in the host's space."""
    case = drawer.beside(sample)
    host = drawer.run.space.to_host(Sample(case.image, case.labels), sample.provenance["shape"])
    return replace(case, image=host.image, labels=host.labels)


def write_nifti(sample: Sample, stem: Path, spacing: Sequence[float]) -> list[Path]:
    """Write a sample as NIfTI: one float32 file per channel, int16 labels, provenance JSON.

    Args:
        sample: image (C, D, H, W), labels (D, H, W) in the host's axes.
        stem: path without suffix.
        spacing: mm per axis.
    """
    import nibabel as nib

    affine = np.diag([*spacing, *[1.0] * (4 - len(spacing))])
    files = []
    for channel, volume in enumerate(sample.image):
        path = stem.with_name(f"{stem.name}_{channel:04d}.nii.gz")
        nib.save(nib.Nifti1Image(volume.astype(np.float32), affine), path)
        files.append(path)
    if sample.labels is not None:
        path = stem.with_name(f"{stem.name}_seg.nii.gz")
        nib.save(nib.Nifti1Image(sample.labels.astype(np.int16), affine), path)
        files.append(path)
    path = stem.with_name(f"{stem.name}.json")
    path.write_text(json.dumps(dict(sample.provenance), indent=1), encoding="utf-8")
    return [*files, path]
