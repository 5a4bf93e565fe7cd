"""What ``gansynth sample`` does: draws samples of a run, writes them, and shows them."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.admission import reason_of
from gansynth.asking import Asking
from gansynth.box_text import csv_text
from gansynth.composite_spec import folder_name
from gansynth.composite_view import draws_labels, given_channels
from gansynth.integrity import whole_folder
from gansynth.looking import ROWS, write_interpolation, write_nearest
from gansynth.picture_export import TOLD, PngOptions, check_export, export_pictures
from gansynth.prediction import predict_cases, refuse_options
from gansynth.registry import installed
from gansynth.reporting import Reporter
from gansynth.run import load_run
from gansynth.sampling import SampleDrawer
from gansynth.schema import Case, Sample
from gansynth.sharing import Sharing, forget_times
from gansynth.sheets import write_sheet
from gansynth.synthetic import KEY, marked

NUMBER = 16
"""Samples unless another number is asked for."""
SHEET = 32
"""Most samples on a sheet."""
COMPARED = 512
"""Most samples whose nearest training case is looked for."""


def sample_run(
    run: Path,
    n: int | None,
    *,
    out: Path | None = None,
    sheet: bool = False,
    interpolate: int | None = None,
    rows: int = ROWS,
    nearest: bool = False,
    png: PngOptions | None = None,
    seed: int = 0,
    edits: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    boxes: str | None = None,
    judged: bool = True,
    asking: Asking | None = None,
    for_sharing: bool = False,
    device: str = "auto",
    root: str | None = None,
    reporter: Reporter,
) -> dict[str, Any]:
    """Draw ``n`` samples of a run and write them as NIfTI or PNG, and sheets if asked.

    A run that draws label maps of images writes those, case by case: ``predict_cases``.

    Sheets with real cases are pictures of patients: beside PNG files, and others that are to be
    handed on, they are written into the run folder, and the nearest cases always are.

    Args:
        run: run folder.
        n: how many; 16 if None, or every case of images that label maps are drawn of.
        out: folder for ``sample-0000_0000.nii.gz`` (one file a channel) with ``_seg`` or
            ``_boxes.csv`` and provenance JSON; ``RUN/samples/seed-S`` if None, of classes
            ``seed-S-CLASS``. For PNG files, and for sharing, one that is not there yet;
            ``RUN/samples/seed-S-png`` or ``seed-S-shared`` if None.
        sheet: also write ``sheet.png``: samples beside real cases.
        interpolate: also write ``interpolation.png``, with so many samples from latent to latent.
        rows: pairs of latents there.
        nearest: also write ``nearest.png``: samples beside their nearest training cases.
        png: write PNG files with a manifest instead of NIfTI files.
        seed: seeds conditions and latents.
        edits: condition edits; None takes the run's own.
        classes: names of the classes to draw samples of; None for all.
        boxes: which boxes are asked for; None for the usual ones.
        judged: whether samples are held against what the generator itself finds flawed.
        asking: what else is asked of samples; None for the usual.
        for_sharing: files are to be handed on: which cases samples came from is written into the
            run folder alone, and generators that keep parts of real images are refused.
        device: ``auto``, ``cpu``, ``cuda:0``.
        root: overrides where the source's host folders lie.
        reporter: shows progress.

    Returns:
        A JSON-able report: files written, sheets, seconds per sample.
    """
    opened = load_run(run, device)
    request = opened.request if root is None else replace(opened.request, root=root)
    source = installed().open_source(request)
    if draws_labels(opened.generator.options) and png is None:
        asking = asking or Asking()
        asked: dict[str, Any] = {
            "--edit": edits,
            "--class": classes,
            "--boxes": boxes,
            "--lesions": asking.lesions,
        }
        asked |= {"--weights": asking.weights, "--filter": asking.filters, "--nearest": nearest}
        asked |= {"--interpolate": interpolate, "--for-sharing": for_sharing}
        refuse_options(run, asked)
        where = asking.conditions
        return predict_cases(
            *(opened, source, out or run / "samples" / "label-maps", n),
            conditions=where,
            sheet=sheet,
            reporter=reporter,
        )
    n = NUMBER if n is None else n
    drawer = SampleDrawer(opened, source, edits, seed, classes, boxes, judged, asking, reporter)
    name = "-".join((f"seed-{seed}", *map(folder_name, classes or ())))
    own = run / "samples" / name
    kind = "-png" if png is not None else "-shared" if for_sharing else ""
    out = out or own.with_name(f"{name}{kind}")
    shown = own if kind else out
    report: dict[str, Any] = {}
    if png is not None:
        check_export(drawer, out)
    sharing = Sharing(drawer, out, reporter) if for_sharing else None
    if interpolate is not None:  # a generator that cannot says so before it draws anything
        report["interpolation"] = write_interpolation(drawer, shown, rows, interpolate)
    drawn: list[Sample] = []
    if png is not None:
        keep = None if sharing is None else sharing.keep
        report |= export_pictures(drawer, n, out, png, reporter, keep)
    elif sharing is not None:
        with whole_folder(out) as temporary:
            report |= _write_niftis(drawer, n, temporary, reporter, drawn, sharing)
            forget_times(temporary)
        report["folder"] = str(out)
    else:
        report |= _write_niftis(drawer, n, out, reporter, drawn)
    if sharing is not None:
        report["record"] = str(sharing.record)
    if sheet:
        drawn = drawn or drawer.draw(0, min(n, SHEET))
        real = [_placed(drawer, sample) for sample in drawn]
        given = given_channels(opened.generator.options)
        schema, path = drawer.sampler.schema, shown / "sheet.png"
        report["sheet"] = str(write_sheet(path, drawn, real, schema, given=given))
    if nearest:
        samples = [drawer.draw_raw(index, 1)[0] for index in range(min(n, COMPARED))]
        report["nearest"] = write_nearest(drawer, samples, own, reporter)
    return report


def _write_niftis(
    drawer: SampleDrawer,
    n: int,
    out: Path,
    reporter: Reporter,
    drawn: list[Sample],
    sharing: Sharing | None = None,
) -> dict[str, Any]:
    """Draw samples and write each; the first ones are also put into a list, for a sheet."""
    out.mkdir(parents=True, exist_ok=True)
    seconds, flaws = 0.0, Counter[str]()
    origins: dict[str, Mapping[str, Any]] = {}
    with reporter.task(n, "sample") as bar:
        for index in range(n):
            began = time.perf_counter()
            sample = drawer.draw(index, 1)[0]
            seconds += time.perf_counter() - began
            if flaw := sample.provenance.get("flaw"):
                flaws[reason_of(str(flaw))] += 1
            schema = drawer.sampler.source.schema
            stem = out / f"sample-{index:04d}"
            origins[stem.name] = sample.provenance
            told = sample.provenance if sharing is None else sharing.told(sample)
            write_nifti(sample, stem, schema.spacing, schema.box_classes, told)
            if index < SHEET:
                drawn.append(sample)
            bar.advance(1)
    if sharing is not None:
        sharing.keep(origins)
    if flaws:
        said = "; ".join(f"{count} x {flaw}" for flaw, count in flaws.most_common(TOLD))
        where = out if sharing is None else sharing.out
        reporter.warn(f"{where}: {flaws.total()} of {n} samples would enter no bank: {said}")
    return {
        "folder": str(out),
        "samples": n,
        "flawed": flaws.total(),
        "flaws": dict(flaws),
        "seconds_per_sample": seconds / max(n, 1),
    }


def _placed(drawer: SampleDrawer, sample: Sample) -> Case:
    """The real case a sample's condition came from, at the same place, in the host's space."""
    case = drawer.beside(sample)
    placed = Sample(case.image, case.labels, case.boxes)
    host = drawer.run.space.to_host(placed, sample.provenance["shape"])
    return replace(case, image=host.image, labels=host.labels, boxes=host.boxes)


def write_nifti(
    sample: Sample,
    stem: Path,
    spacing: Sequence[float],
    names: Sequence[str] = (),
    told: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write a sample as NIfTI: one float32 file per channel, int16 labels, provenance JSON.

    Its boxes, if it has any list of them, go into a CSV file that ``--boxes file:`` reads.

    Args:
        sample: image (C, D, H, W), labels (D, H, W) in the host's axes.
        stem: path without suffix.
        spacing: mm per axis.
        names: of the classes of boxes.
        told: what is written of its provenance; None for all of it.
    """
    import nibabel as nib

    affine = np.diag([*spacing, *[1.0] * (4 - len(spacing))])
    files = []
    for channel, volume in enumerate(sample.image):
        path = stem.with_name(f"{stem.name}_{channel:04d}.nii.gz")
        nib.save(marked(nib.Nifti1Image(volume.astype(np.float32), affine)), path)
        files.append(path)
    if sample.labels is not None:
        path = stem.with_name(f"{stem.name}_seg.nii.gz")
        nib.save(marked(nib.Nifti1Image(sample.labels.astype(np.int16), affine)), path)
        files.append(path)
    if sample.boxes is not None and names:
        path = stem.with_name(f"{stem.name}_boxes.csv")
        path.write_text(csv_text(sample.boxes, names), encoding="utf-8")
        files.append(path)
    path = stem.with_name(f"{stem.name}.json")
    document = {KEY: True, **(sample.provenance if told is None else told)}
    path.write_text(json.dumps(document, indent=1), encoding="utf-8")
    return [*files, path]
