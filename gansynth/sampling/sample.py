"""What ``gansynth sample`` does: draws samples of a run, writes them, and shows them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Case, Sample
from gansynth.data.views import draws_labels, given_channels
from gansynth.metrics.comparison import Measured, load_metrics, measure
from gansynth.report.sheets import write_sheet
from gansynth.runtime.files import folder_name, whole_folder
from gansynth.runtime.progress import Reporter
from gansynth.sampling.admission import reason_of
from gansynth.sampling.dataset_writer import DatasetWriter, made_by, write_provenance
from gansynth.sampling.drawer import SampleDrawer
from gansynth.sampling.inspect import ROWS, write_interpolation, write_nearest
from gansynth.sampling.open_run import load_run
from gansynth.sampling.opening import open_moved
from gansynth.sampling.png_export import TOLD, PngOptions, check_export, export_pictures
from gansynth.sampling.prediction import predict_cases, refuse_options
from gansynth.sampling.replay import draw_again, noted, settings_of
from gansynth.sampling.sharing import Sharing, check_new, forget_times, record_of

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
    request: SampleRequest | None = None,
    for_sharing: bool = False,
    device: str = "auto",
    data: str | None = None,
    root: str | None = None,
    reporter: Reporter,
) -> dict[str, Any]:
    """Draw ``n`` samples of a run as a data set, NIfTI or PNG, and sheets if asked.

    A run that draws label maps of images writes those, case by case: ``predict_cases``.

    Sheets with real cases are pictures of patients: beside PNG files, and others that are to be
    handed on, they are written into the run folder, and the nearest cases always are.

    Args:
        n: how many; 16 if None, or every case of images that label maps are drawn of.
        out: a new folder for the data set (``DatasetWriter``); ``RUN/samples/seed-S`` if None, of
            classes ``seed-S-CLASS``, which is written anew; of PNG files ``seed-S-png``, for
            sharing ``seed-S-shared``, which must not be there yet.
        sheet: also write ``sheet.png``: samples beside real cases.
        interpolate: also write ``interpolation.png``, with so many samples from latent to latent.
        rows: pairs of latents there.
        nearest: also write ``nearest.png``: samples beside their nearest training cases.
        png: write PNG files with a manifest instead of NIfTI files.
        request: what samples are asked to be; None for the usual.
        for_sharing: files are to be handed on: which cases samples came from is written into the
            run folder alone, and generators that keep parts of real images are refused.
        data: KIND:WHERE of the run's data set, if it was moved or renamed.
        root: overrides where the source's host folders lie.

    Returns:
        A JSON-able report: files written, sheets, seconds per sample.
    """
    opened = load_run(run, device)
    source = open_moved(opened, data, root)
    request = request or SampleRequest()
    if draws_labels(opened.generator.options) and png is None:
        asked: dict[str, Any] = {
            "--edit": request.edits,
            "--class": request.classes,
            "--boxes": request.boxes,
            "--lesions": request.lesions,
            "--weights": request.weights,
            "--filter": request.filters,
            "--nearest": nearest,
            "--interpolate": interpolate,
            "--for-sharing": for_sharing,
        }
        refuse_options(run, asked)
        place = new_place(out, run / "samples" / "label-maps")
        return predict_cases(
            *(opened, source, place, n),
            conditions=request.conditions,
            sheet=sheet,
            anew=out is None,
            reporter=reporter,
        )
    n = NUMBER if n is None else n
    drawer = SampleDrawer(opened, source, request, reporter)
    name = "-".join((f"seed-{request.seed}", *map(folder_name, request.classes or ())))
    own = run / "samples" / name
    kind = "-png" if png is not None else "-shared" if for_sharing else ""
    place = new_place(out, own.with_name(f"{name}{kind}"))
    shown = own if kind else place
    report: dict[str, Any] = {"data": source.name, "fold": source.fold}
    if png is not None:
        check_export(drawer, place)
    sharing = Sharing(drawer, place, reporter) if for_sharing else None
    if interpolate is not None:  # a generator that cannot says so before it draws anything
        drawer.interpolate(0, interpolate)
    drawn: list[Sample] = []
    if png is not None:
        keep = partial(_keep, drawer, place) if sharing is None else sharing.keep
        report |= export_pictures(drawer, n, place, png, reporter, keep)
        report["record"] = str(record_of(run, place))
    else:
        anew = out is None and not kind
        report |= _write_volumes(drawer, n, place, anew, reporter, drawn, sharing)
    if sharing is not None:
        report["record"] = str(sharing.record)
    if interpolate is not None:
        report["interpolation"] = write_interpolation(drawer, shown, rows, interpolate)
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


def _write_volumes(
    drawer: SampleDrawer,
    n: int,
    out: Path,
    anew: bool,
    reporter: Reporter,
    drawn: list[Sample],
    sharing: Sharing | None,
) -> dict[str, Any]:
    """Draw samples, one after the other, into a data set; the first ones into a list, too."""
    seconds, flaws = 0.0, Counter[str]()
    settings = settings_of(drawer, 1, "float32")
    origins: dict[str, Mapping[str, Any]] = {}
    with whole_folder(out, anew=anew) as folder:
        writer = writer_of(drawer, folder, shared=sharing is not None)
        with reporter.task(n, "sample") as bar:
            for index in range(n):
                began = time.perf_counter()
                sample = noted(drawer.draw(index, 1)[0], settings)
                seconds += time.perf_counter() - began
                if flaw := sample.provenance.get("flaw"):
                    flaws[reason_of(str(flaw))] += 1
                name = f"sample-{index:04d}"
                origins[name] = sample.provenance
                told = sample.provenance if sharing is None else sharing.told(sample)
                writer.add(name, sample.image, sample.labels, sample.boxes, told=told)
                if index < SHEET:
                    drawn.append(sample)
                bar.advance(1)
        writer.finish(drawer.lineage if sharing is None else None)
        if sharing is not None:
            sharing.keep(origins)
            forget_times(folder)
    if flaws:
        said = "; ".join(f"{count} x {flaw}" for flaw, count in flaws.most_common(TOLD))
        reporter.warn(f"{out}: {flaws.total()} of {n} samples would enter no bank: {said}")
    return {
        "folder": str(out),
        "samples": n,
        "flawed": flaws.total(),
        "flaws": dict(flaws),
        "seconds_per_sample": seconds / max(n, 1),
    }


def writer_of(drawer: SampleDrawer, folder: Path, *, shared: bool = False) -> DatasetWriter:
    """Writes samples of a run; what is handed on does not name the source."""
    spacing = drawer.sampler.source.schema.spacing
    schema = replace(drawer.source.schema, spacing=spacing)
    return DatasetWriter(folder, schema, made_by(drawer.run, None if shared else drawer.source))


def replay_run(
    run: Path,
    record: str,
    *,
    out: Path | None = None,
    device: str = "auto",
    root: str | None = None,
    reporter: Reporter,
) -> dict[str, Any]:
    """Draw a recorded sample again (``gansynth.sampling.replay``), and write it as a data set.

    Args:
        record: ``FILE:LINE`` of a draw log, or ``FILE:NAME`` of a JSON file with provenance.
        out: a new folder; ``RUN/samples/replay`` if None, which is written anew.

    Returns:
        A JSON-able report: folder, number and seed, and whether it is the same to the bit.
    """
    place = new_place(out, run / "samples" / "replay")
    again = draw_again(run, record, device=device, root=root)
    sample, told = again.sample, again.sample.provenance
    made = {"normalised": True, "drawn_by": {"run": told["run"]}}
    with whole_folder(place, anew=out is None) as folder:
        writer = DatasetWriter(folder, again.schema, made)
        name = f"sample-{told['index']:04d}"
        writer.add(name, sample.image, sample.labels, sample.boxes, told=told)
        writer.finish()
    if again.differs:
        reporter.warn(again.differs)
    report = {"folder": str(place), "sample": told["index"], "seed": told["seed"]}
    return {**report, "case": told.get("case"), "same_to_the_bit": not again.differs}


def _keep(drawer: SampleDrawer, out: Path, samples: Mapping[str, Mapping[str, Any]]) -> None:
    """Write into the run which cases the samples of a folder came from."""
    write_provenance(record_of(drawer.run.folder, out), samples, drawer.lineage, out)


def new_place(out: Path | None, own: Path) -> Path:
    """A folder that the user has named, which must be new, or the run's own.

    Raises:
        UsageFault: it holds something.
    """
    if out is not None:
        check_new(out)
    return out or own


def _placed(drawer: SampleDrawer, sample: Sample) -> Case:
    """The real case a sample's condition came from, at the same place, in the host's space."""
    case = drawer.beside(sample)
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
    """Measure samples of a run beside the real cases their labels came from.

    Raises:
        UsageFault: no run, an unknown metric, or one that fails.
    """
    metrics = load_metrics(names)
    opened = load_run(run, device)
    source = open_moved(opened, data, root)
    drawer = SampleDrawer(opened, source, request)
    samples = drawer.draw_raw(0, number)
    real = [drawer.beside(sample) for sample in samples]
    return measure(metrics, samples, real, opened.generator.schema)
