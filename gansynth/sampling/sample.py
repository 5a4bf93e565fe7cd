"""The command ``gansynth sample``: generate samples of a run, write them, and show them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gansynth.conditions.condition_source import open_base
from gansynth.core.resample import pick
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Case, Sample
from gansynth.core.source import CaseSource
from gansynth.data.case_writer import file_name
from gansynth.data.views import draws_labels, given_channels
from gansynth.metrics.comparison import Measured, load_metrics, measure
from gansynth.report.image_grid import write_sample_grid
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import folder_name, whole_folder
from gansynth.runtime.progress import Reporter
from gansynth.sampling.dataset_writer import DatasetWriter, made_by
from gansynth.sampling.deidentify import (
    SharedSamples,
    check_new,
    check_sharing,
    forget_times,
    record_of,
    shareable,
)
from gansynth.sampling.identifiers import names_in
from gansynth.sampling.inspect import ROWS, write_interpolation, write_nearest
from gansynth.sampling.label_maps import LabelMapSampler, viewed
from gansynth.sampling.open_run import load_run
from gansynth.sampling.png_export import TOLD, PngOptions, check_export, export_pictures
from gansynth.sampling.quality_gate import reject_reason_of
from gansynth.sampling.replay import noted, regenerate, settings_of
from gansynth.sampling.run import Run
from gansynth.sampling.run_source import open_moved
from gansynth.sampling.sampler import Sampler

NUMBER = 16  # default number of samples
SHEET = 32  # most samples on a preview grid
COMPARED = 512  # most samples whose nearest training case is searched


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
    request: SampleRequest | None = None,
    for_sharing: bool = False,
    device: str = "auto",
    data: str | None = None,
    root: str | None = None,
    reporter: Reporter,
) -> dict[str, Any]:
    """Write ``n`` samples of a run as a data set, NIfTI or PNG, with optional preview grids.

    A run that generates label maps of images writes those, case by case: ``predict_cases``.

    Preview grids with real cases show patients. With PNG files and for sharing they are written
    into the run folder; nearest cases always are.

    Args:
        n: number of samples; None is 16, or every case of images for label maps.
        out: a new folder for the data set (``DatasetWriter``). None is ``RUN/samples/seed-S``, with
            classes ``seed-S-CLASS``, which is overwritten. With ``png`` it is ``seed-S-png``, for
            sharing ``seed-S-shared``, which must not exist.
        sheet: also write ``sheet.png``: samples beside real cases.
        interpolate: also write ``interpolation.png``, with so many samples from latent to latent.
        rows: pairs of latents there.
        nearest: also write ``nearest.png``: samples beside their nearest training cases.
        png: write PNG files with a manifest instead of NIfTI files.
        request: conditions and filters of the samples; None for the defaults.
        for_sharing: the files will be shared, as those of ``png`` always may be. The source cases
            are written into the run folder alone. Generators that keep parts of real images are
            refused.
        data: KIND:WHERE of the run's data set, if it was moved or renamed.
        root: overrides the root folder of the source.

    Returns:
        A JSON-able report: files written, preview grids, seconds per sample.

    Raises:
        UsageFault: a request that the run does not support, or real images would be shared.
        IntegrityFault: a sample for sharing repeats a real image.
    """
    opened = load_run(run, device)
    source = open_moved(opened, data, root)
    request = request or SampleRequest()
    if draws_labels(opened.generator.options) and png is None:
        options: dict[str, Any] = {
            "--edit": request.edits,
            "--class": request.classes,
            "--boxes": request.boxes,
            "--prevalence": request.prevalence,
            "--lesions": request.lesions,
            "--sampling-weights": request.weights,
            "--filter": request.filters,
            "--nearest": nearest,
            "--interpolate": interpolate,
            "--deidentify": for_sharing,
        }
        for option in (option for option, value in options.items() if value):
            raise UsageFault(
                f"{option}: {run} draws label maps of images and keeps the images; expected "
                f"--condition-source SOURCE, -n, -o and --sheet alone. Leave {option} out"
            )
        place = new_place(out, run / "samples" / "label-maps")
        return predict_cases(
            *(opened, source, place, n),
            conditions=request.conditions,
            sheet=sheet,
            anew=out is None,
            reporter=reporter,
        )
    n = NUMBER if n is None else n
    option = "--format png" if png is not None else "--deidentify" if for_sharing else ""
    drawer = Sampler(opened, source, request, reporter)
    drawer.measured = bool(option)
    name = "-".join((f"seed-{request.seed}", *map(folder_name, request.classes or ())))
    usual = run / "samples" / name
    kind = "-png" if png is not None else "-shared" if for_sharing else ""
    place = new_place(out, usual.with_name(f"{name}{kind}"))
    sheets = usual if kind else place
    report: dict[str, Any] = {"data": source.name, "fold": source.request.fold}
    if png is not None:
        check_export(drawer, place)
    shared = check_sharing(drawer, place, option, reporter) if option else None
    if interpolate is not None:  # refused before anything is generated
        drawer.interpolate(0, interpolate)
    drawn: list[Sample] = []
    if png is not None and shared is not None:
        report |= export_pictures(drawer, n, place, png, reporter, shared)
    else:
        anew = out is None and not kind
        report |= _write_volumes(drawer, n, place, anew, reporter, drawn, shared)
    if shared is not None:
        report["record"] = str(record_of(run, place))
    if interpolate is not None:
        report["interpolation"] = write_interpolation(drawer, sheets, rows, interpolate)
    if sheet:
        drawn = drawn or drawer.draw(0, min(n, SHEET))
        report["sheet"] = str(write_sheet(sheets / "sheet.png", drawer, drawn))
    if nearest:
        samples = [drawer.draw_raw(index, 1)[0] for index in range(min(n, COMPARED))]
        report["nearest"] = write_nearest(drawer, samples, usual, reporter)
    return report


def write_sheet(path: Path, drawer: Sampler, samples: Sequence[Sample]) -> Path:
    """Write a PNG of samples, each beside the real case of its condition."""
    real = [_placed(drawer, sample) for sample in samples]
    given = given_channels(drawer.run.generator.options)
    return write_sample_grid(path, samples, real, drawer.sampler.schema, given_channels=given)


def _write_volumes(
    drawer: Sampler,
    n: int,
    out: Path,
    anew: bool,
    reporter: Reporter,
    drawn: list[Sample],
    shared: SharedSamples | None,
) -> dict[str, Any]:
    """Write samples as a data set; the first go into ``drawn``, those for sharing to ``shared``."""
    seconds, reject_reasons = 0.0, Counter[str]()
    settings = settings_of(drawer, 1, "float32")
    names = names_in(drawer.lineage, drawer.source.schema)
    schema = replace(drawer.source.schema, spacing=drawer.sampler.cases.schema.spacing)
    made = made_by(drawer.run, drawer.source if shared is None else None)
    with whole_folder(out, anew=anew) as folder:
        writer = DatasetWriter(folder, schema, made)
        with reporter.task(n, "sample") as bar:
            for index in range(n):
                began = time.perf_counter()
                sample = noted(drawer.draw(index, 1)[0], settings)
                seconds += time.perf_counter() - began
                if reject_reason := sample.provenance.get("reject_reason"):
                    reject_reasons[reject_reason_of(str(reject_reason))] += 1
                name = f"sample-{index:04d}"
                facts = sample.provenance
                if shared is not None:
                    shared.add(name, sample.image, sample.provenance)
                    facts = shareable(drawer.run, sample, names)
                writer.add(name, sample.image, sample.labels, sample.boxes, provenance=facts)
                if index < SHEET:
                    drawn.append(sample)
                bar.advance(1)
        writer.finish(drawer.lineage if shared is None else None)
        if shared is not None:
            shared.finish()
            forget_times(folder)
    if reject_reasons:
        counts = "; ".join(
            f"{count} x {reject_reason}"
            for reject_reason, count in reject_reasons.most_common(TOLD)
        )
        reporter.warn(f"{out}: {reject_reasons.total()} of {n} samples fail admission: {counts}")
    return {
        "folder": str(out),
        "samples": n,
        "rejected": reject_reasons.total(),
        "reject_reasons": dict(reject_reasons),
        "seconds_per_sample": seconds / max(n, 1),
    }


def predict_cases(
    run: Run,
    source: CaseSource,
    out: Path,
    n: int | None,
    *,
    conditions: Mapping[str, Any] | None = None,
    sheet: bool = False,
    anew: bool = False,
    reporter: Reporter,
) -> dict[str, Any]:
    """Generate the label map of each case, and write a data set that ``nifti:`` reads.

    Images are the channels that the run takes, in their files' own units. Images and label maps
    have the grid of the case's own files, if it has some. A chain would generate the same label
    maps (Shin et al. 2018, fig. 1a and 1c).

    Args:
        n: number of cases, the first ones; None for all.
        conditions: another source of images, as in ``SampleRequest``; they need no labels.

    Raises:
        UsageFault: the folder is not empty, or images do not fit.
    """
    run_source = viewed(source, run.request.view)
    cases = run_source if conditions is None else open_base(conditions, run_source, labelled=False)
    ids = cases.train_ids[:n]
    labeller, pairs = LabelMapSampler(run, cases.schema), list[tuple[Sample, Case]]()
    began = time.perf_counter()
    schema = replace(cases.schema, labels=run.schema.labels)
    made = {"drawn_by": made_by(run, cases)["drawn_by"]}
    with whole_folder(out, anew=anew) as folder, reporter.task(len(ids), "label maps") as bar:
        writer = DatasetWriter(folder, schema, made, synthetic=False)
        for case_id in ids:
            case = cases.load(case_id)
            labels = labeller.draw(case, cases.schema)
            image, volume, affine = case.image, labels, None
            files = cases.files(case_id)
            if files is not None and files.shape is not None and files.arrays is not None:
                (image, _), volume, affine = files.arrays(), pick(labels, files.shape), files.affine
                if len(files.shape) == 2:
                    image, volume = image[:, None], volume[None]
            writer.add(file_name(case_id), image, volume, affine=affine)
            if sheet and len(pairs) < SHEET:
                pairs.append((Sample(case.image, labels), case))
            bar.advance(1)
        writer.finish()
    if ids and affine is None:
        reporter.warn(
            f"{out}: label maps lie on the grid of the arrays that {cases.name} reads, which knows "
            "no files of whole cases; for these read them with nifti:, msd:, nnunet-raw:, pictures:"
        )
    seconds = time.perf_counter() - began
    report = {"folder": str(out), "samples": len(ids), "of": cases.name}
    report["seconds_per_sample"] = seconds / max(len(ids), 1)
    if sheet:
        samples, real = [sample for sample, _ in pairs], [case for _, case in pairs]
        path = out / "sheet.png"
        names = schema.channels
        report["sheet"] = str(
            write_sample_grid(path, samples, real, schema, given_channels=names, drawn=True)
        )
    return report


def replay_run(
    run: Path,
    record: str,
    *,
    out: Path | None = None,
    device: str = "auto",
    root: str | None = None,
    reporter: Reporter,
) -> dict[str, Any]:
    """Replay a recorded sample (``gansynth.sampling.replay``), and write it as a data set.

    Args:
        record: ``FILE:LINE`` of a draw log, or ``FILE:NAME`` of a JSON file with provenance.
        out: a new folder; None is ``RUN/samples/replay``, which is overwritten.

    Returns:
        A JSON-able report: folder, number and seed, and whether it is the same to the bit.
    """
    place = new_place(out, run / "samples" / "replay")
    again = regenerate(run, record, device=device, root=root)
    sample, provenance = again.sample, again.sample.provenance
    made = {"normalised": True, "drawn_by": {"run": provenance["run"]}}
    with whole_folder(place, anew=out is None) as folder:
        writer = DatasetWriter(folder, again.schema, made)
        name = f"sample-{provenance['index']:04d}"
        writer.add(name, sample.image, sample.labels, sample.boxes, provenance=provenance)
        writer.finish()
    if again.differs:
        reporter.warn(again.differs)
    report = {"folder": str(place), "sample": provenance["index"], "seed": provenance["seed"]}
    return {**report, "case": provenance.get("case"), "same_to_the_bit": not again.differs}


def new_place(out: Path | None, usual: Path) -> Path:
    """Return the user's folder, which must be new, or the run's own."""
    if out is not None:
        check_new(out)
    return out or usual


def _placed(drawer: Sampler, sample: Sample) -> Case:
    """Return the real case of a sample's condition, at the same place, in the adapter's space."""
    case = drawer.matching_real_case(sample)
    placed = Sample(case.image, case.labels, case.boxes)
    host = drawer.run.space.to_host(placed, sample.provenance["shape"])
    return replace(case, image=host.image, labels=host.labels, boxes=host.boxes)


def measure_run(
    run: Path,
    names: Sequence[str],
    number: int,
    *,
    request: SampleRequest | None = None,
    device: str = "auto",
    data: str | None = None,
    root: str | None = None,
) -> Measured:
    """Evaluate samples of a run beside the real cases of their conditions.

    Raises:
        UsageFault: no run, an unknown metric, or one that fails.
    """
    metrics = load_metrics(names)
    opened = load_run(run, device)
    source = open_moved(opened, data, root)
    drawer = Sampler(opened, source, request)
    samples = drawer.draw_raw(0, number)
    real = [drawer.matching_real_case(sample) for sample in samples]
    return measure(metrics, samples, real, opened.generator.schema)
