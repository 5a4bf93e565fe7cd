"""The command ``gansynth sample``: generate samples of a run, write them, and show them."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from gansynth.conditions.condition_source import open_base
from gansynth.core.case_pool import TrainingCases
from gansynth.core.registry import installed
from gansynth.core.requests.base import function_of
from gansynth.core.requests.samples import SampleRunRequest
from gansynth.core.resample import pick
from gansynth.core.schema import Case, Sample
from gansynth.core.source import CaseSource, case_content
from gansynth.core.writer import Item, Writer, WriterOptions
from gansynth.data.batches import CaseCache
from gansynth.data.case_writer import NiftiWriter, file_name
from gansynth.metrics.comparison import load_metrics, measure
from gansynth.report.image_grid import write_sample_grid
from gansynth.runtime.child import keep_to_cores
from gansynth.runtime.files import folder_name
from gansynth.runtime.machine import hold_cases_in
from gansynth.runtime.options import read_settings
from gansynth.runtime.progress import Reporter
from gansynth.sampling.deidentify import (
    SharedSamples,
    real_parts,
    record_of,
    refuse_real_images,
)
from gansynth.sampling.inspect import write_nearest
from gansynth.sampling.manifest import Run
from gansynth.sampling.open_run import load_run, refuse_below_size
from gansynth.sampling.quality_gate import reject_reason_of
from gansynth.sampling.replay import SAMPLING, noted, regenerate, settings_of
from gansynth.sampling.request_checks import read_request
from gansynth.sampling.run_source import LabelMapSampler, open_moved, viewed
from gansynth.sampling.sampler import Sampler
from gansynth.sampling.writing import check_writer, held, intensities_of, write

AT_ONCE = 16  # slices generated at once
LISTED_FLAWS = 3  # kinds of flaws that a warning lists, the most common ones
NUMBER = 16  # default number of samples
SHEET = 32  # most samples on a preview grid
NEAR = 1.25  # times larger or smaller than asked that a lesion still counts as it was asked
COMPARED = 512  # most samples whose nearest training case is searched


def run_sample(words: SampleRunRequest) -> dict[str, Any]:
    """Write samples of a run in a registered format, with optional preview grids: ``sample``.

    A run that generates label maps of images writes those, case by case: ``predict_cases``.

    Preview grids with real cases show patients. With files for sharing they are written into the
    run folder; nearest cases always are. Without ``out``, samples are in ``RUN/samples/seed-S``,
    with classes ``seed-S-CLASS``, which is overwritten. Those of another format than NIfTI are in
    ``seed-S-FORMAT``, for sharing in ``seed-S-shared``, which is not. A folder that holds what is
    asked for, whole, stays as it is.

    Returns:
        A JSON-able report: files written, preview grids, seconds per sample.

    Raises:
        UsageFault: a request that the run or the format does not support, or real images would be
            shared.
        IntegrityFault: a sample for sharing repeats a real image.
    """
    reporter = words.reporter
    hold_cases_in(words.cache_memory)
    if words.replay is not None:
        words.check_alone()
        return replay_run(words, words.replay, reporter)
    keep_to_cores(reporter.say)
    metrics = load_metrics(words.metric)  # a wrong name must not cost the time to generate
    request = read_request(words, words.seed)
    writer_class = installed().writer(words.format)
    chosen = read_settings(writer_class.Options, words.set, words.format)
    run, out = Path(words.run), None if words.out is None else Path(words.out)
    opened = load_run(run, words.device)
    refuse_below_size(opened, request)
    source = open_moved(opened, words.data, words.root)
    if opened.capabilities.draws == "labels" and not writer_class.for_sharing:
        meant = ("run", "n", "out", "metric", "label_source", "label_source_read", "sheet")
        where = ("data", "root", "format", "set", "keep_flawed", "seed", "device")
        words.refuse_beside(
            *meant,
            *where,
            message=f"{{}}: {run} draws label maps of images and keeps the images; expected "
            "--label-source SOURCE, --format, -n, -o and --sheet alone. Leave {} out",
        )
        report = predict_cases(
            opened,
            source,
            out or run / "samples" / "label-maps",
            words.n,
            writer_class=writer_class,
            options=chosen,
            request=_asked(opened, words.format, chosen),
            conditions=request.label_source,
            sheet=words.sheet,
            anew=out is None,
            reporter=reporter,
        )
    else:
        drawer = Sampler(opened, source, request, reporter)
        report = _write_samples(words, source, drawer, writer_class, chosen, reporter)
    if metrics:
        drawer = Sampler(opened, source, request)
        samples = drawer.draw_raw(0, words.n or NUMBER)
        real = [drawer.matching_real_case(sample) for sample in samples]
        report["metrics"] = measure(metrics, samples, real, opened.generator.schema)
    return report


sample = function_of(SampleRunRequest, run_sample)


def _write_samples(
    words: SampleRunRequest,
    source: CaseSource,
    drawer: Sampler,
    writer_class: type[Writer],
    chosen: WriterOptions,
    reporter: Reporter,
) -> dict[str, Any]:
    """Draw samples, write them and the sheets that are asked for; see ``run_sample``."""
    opened = drawer.run
    run, out = Path(words.run), None if words.out is None else Path(words.out)
    n = NUMBER if words.n is None else words.n
    sharing = words.deidentify or writer_class.for_sharing
    drawer.measured = sharing
    names = [folder_name(name) for name in drawer.request.classes or ()]
    usual = run / "samples" / "-".join([f"seed-{drawer.request.seed}", *names])
    ending = "-shared" if words.deidentify else ""
    if words.format != "nifti":
        ending = f"-{words.format}"
    place = out or usual.with_name(f"{usual.name}{ending}")
    schema = replace(source.schema, spacing=drawer.sampler.cases.schema.spacing)
    if opened.generator.schema.ndim == 2 and 3 not in writer_class.ndim:
        schema = opened.space.generator_schema(source.schema)
    axes = opened.generator.schema.axes
    checked = replace(schema, axes=axes, spacing=schema.spacing[-len(axes) :])
    check_writer(writer_class, chosen, checked, run)
    record = record_of(run, place) if sharing else None
    request = _asked(opened, words.format, chosen) | drawer.request.to_json()
    request |= {"n": n, "keep_flawed": words.keep_flawed, "deidentify": words.deidentify}
    anew = out is None and not ending
    maker = {"run": opened.run_id, "generator": opened.generator.name}
    about = dict(maker, manifest_sha256=opened.manifest_sha256)
    if not sharing:
        about["of"] = source.name
    shared = None
    if record is not None:
        shared = _for_sharing(words, source, drawer, place, maker, record, reporter)
    real = TrainingCases(CaseCache(source, max_bytes=0))  # each is read once
    shown = SHEET if words.sheet else 0
    drawn = _Drawn(drawer, n, writer_class, words.keep_flawed, reporter, shown)
    there = held(place, request, record, anew=anew)
    written = there or write(
        lambda folder: writer_class(folder, schema, chosen, partial(intensities_of, real)),
        drawn.items(),
        schema,
        place,
        # The source has normalised the channels; normalising again would change them.
        made={"normalised": True, "drawn_by": about},
        shared=shared,
        lineage=drawer.lineage,
        anew=anew,
        request=request,
        counts=drawn.counts,
    )
    report: dict[str, Any] = {"sampled_already": there is not None}
    report.update(data=source.name, fold=source.request.fold, folder=str(place))
    report.update(written)
    if there is None:
        drawn.warn_of_rejected(place)
        drawn.warn_of_sizes(place)
        report["seconds_per_sample"] = drawn.seconds / max(n, 1)
    if record is not None:
        report["record"] = str(record)
    if words.sheet:
        samples = drawn.first or drawer.draw(0, min(n, SHEET))
        sheets = usual if sharing else place  # they show patients
        report["sheet"] = str(write_sheet(sheets / "sheet.png", drawer, samples))
    if words.nearest:
        samples = [drawer.draw_raw(index, 1)[0] for index in range(min(n, COMPARED))]
        report["nearest"] = write_nearest(drawer, samples, usual, reporter)
    return report


def _asked(run: Run, format: str, options: WriterOptions) -> dict[str, Any]:
    """Return what any samples of a run in a format depend on, beside what is drawn."""
    request = {"generator": run.manifest_sha256, "sampling": SAMPLING, "format": format}
    return request | {"options": options.model_dump(mode="json")}


def _for_sharing(
    words: SampleRunRequest,
    source: CaseSource,
    drawer: Sampler,
    place: Path,
    maker: Mapping[str, Any],
    record: Path,
    reporter: Reporter,
) -> SharedSamples:
    """Return what watches samples for sharing; refuse a generator that takes real images."""
    run, opened = Path(words.run), drawer.run
    option = "--deidentify" if words.deidentify else f"--format {words.format}"
    keep = f"leave {option} out, and keep them"
    refuse_real_images(real_parts(opened), run, option, keep)
    return SharedSamples(
        place,
        source,
        opened.space,
        drawer.lineage,
        maker,
        record,
        reporter,
        labels_given="labels" in opened.capabilities.takes,
    )


@dataclass(eq=False)
class _Drawn:
    """Draws samples as items to write, and counts those that were rejected.

    ``shown``: how many are held in memory for a sheet.
    """

    drawer: Sampler
    n: int
    writer_class: type[Writer]
    keep_flawed: bool
    reporter: Reporter
    shown: int = 0

    def __post_init__(self) -> None:
        self.kept = self.keep_flawed or self.writer_class.flawed
        self.batch = 1 if 3 in self.writer_class.ndim else min(AT_ONCE, self.n)
        self.seconds, self.written = 0.0, 0
        self.reject_reasons = Counter[str]()
        self.first: list[Sample] = []
        self.achieved = list[float]()  # voxels of lesions over those that were asked for
        self.showing = 0  # samples with a lesion, or a box

    def items(self) -> Iterator[Item]:
        """Yield them."""
        settings = settings_of(self.drawer, self.batch, "float32")
        with self.reporter.task(self.n, "sample") as bar:
            for start in range(0, self.n, self.batch):
                began = time.perf_counter()
                samples = self.drawer.draw(start, self.batch)[: self.n - start]
                self.seconds += time.perf_counter() - began
                for plain in samples:
                    bar.advance(1)
                    sample = noted(plain, settings)
                    facts = sample.provenance
                    reject_reason = facts.get("reject_reason")
                    if reject_reason:
                        self.reject_reasons[reject_reason_of(str(reject_reason))] += 1
                    if len(self.first) < self.shown:
                        self.first.append(sample)
                    if reject_reason and not self.kept:
                        continue
                    self.written += 1
                    self.achieved += _achieved(facts)
                    self.showing += _shows(sample)
                    name = f"sample-{facts['index']:04d}"
                    yield Item(name, sample.image, sample.labels, sample.boxes, facts=facts)

    def counts(self) -> dict[str, Any]:
        """Return what became of the samples, for the user and for the record."""
        counts: dict[str, Any] = {
            "samples": self.written,
            "rejected": self.reject_reasons.total(),
            "reject_reasons": dict(self.reject_reasons),
        }
        if self.achieved:
            near = sum(1 / NEAR < share < NEAR for share in self.achieved)
            middle = round(median(self.achieved), 3)
            counts["sizes"] = {"asked": len(self.achieved), "near": near, "median_ratio": middle}
        if self.drawer.request.prevalence is not None:
            counts["showing"] = {"asked": self.drawer.request.prevalence, "samples": self.showing}
        return counts

    def warn_of_sizes(self, out: Path) -> None:
        """Warn of lesions that are not as large as was asked for, if many are."""
        told = self.counts().get("sizes", {"asked": 0, "near": 0})
        missed = told["asked"] - told["near"]
        if 2 * missed > told["asked"]:
            self.reporter.warn(
                f"{out}: {missed} of {told['asked']} lesions are not of the size asked for; ask "
                "for sizes nearer to those of the real ones, or let --edit size scale them further "
                "by max_factor, at most 8"
            )

    def warn_of_rejected(self, out: Path) -> None:
        """Warn of rejected samples, if there are any."""
        rejected = self.reject_reasons.total()
        if rejected:
            common = self.reject_reasons.most_common(LISTED_FLAWS)
            counts = [f"{count} x {reason}" for reason, count in common]
            outcome = "" if self.kept else ", and are left out; --keep-flawed keeps them"
            self.reporter.warn(
                f"{out}: {rejected} of {self.n} samples fail admission{outcome}: "
                f"{'; '.join(counts)}"
            )


def _achieved(provenance: Mapping[str, Any]) -> Iterator[float]:
    """Yield the voxels of each lesion that edits made over those that were asked for."""
    for edit in provenance.get("edits", ()):
        params = edit["params"]
        if edit["edit"] == "size" and "asked" in params:
            for asked, made in zip(params["asked"], params["voxels"], strict=True):
                if asked is not None:
                    yield made / asked


def _shows(sample: Sample) -> bool:
    """Return whether a sample has a lesion, or a box."""
    if sample.labels is None:
        return sample.boxes is not None and len(sample.boxes.labels) > 0
    return bool((sample.labels > 0).any())


def write_sheet(path: Path, drawer: Sampler, samples: Sequence[Sample]) -> Path:
    """Write a PNG of samples, each beside the real case of its condition."""
    real = [_placed(drawer, sample) for sample in samples]
    without = [drawer.background_of(sample) for sample in samples]
    given = drawer.run.capabilities.channels
    return write_sample_grid(
        path,
        samples,
        real,
        drawer.sampler.schema,
        without=without,
        given_channels=given,
        oriented=drawer.run.space.oriented,
    )


def predict_cases(
    run: Run,
    source: CaseSource,
    out: Path,
    n: int | None,
    *,
    writer_class: type[Writer],
    options: WriterOptions,
    request: Mapping[str, Any],
    conditions: Mapping[str, Any] | None = None,
    sheet: bool = False,
    anew: bool = False,
    reporter: Reporter,
) -> dict[str, Any]:
    """Generate the label map of each case, and write both in a registered format.

    Images are the channels that the run takes, in their files' own units. Images and label maps
    have the grid of the case's own files, if it has some. A chain would generate the same label
    maps (Shin et al. 2018, fig. 1a and 1c).

    Args:
        n: number of cases, the first ones; None for all.
        request: what the files depend on, beside the cases; see ``write``.
        conditions: another source of images, as in ``SampleRequest``; they need no labels.
    """
    run_source = viewed(source, run.request.view)
    cases = run_source if conditions is None else open_base(conditions, run_source, labelled=False)
    ids = cases.train_ids[:n]
    labeller, pairs = LabelMapSampler(run, cases.schema), list[tuple[Sample, Case]]()
    began, affine = time.perf_counter(), None
    schema = replace(cases.schema, labels=run.schema.labels)
    check_writer(writer_class, options, schema, cases.name)

    def items() -> Iterator[Item]:
        nonlocal affine
        with reporter.task(len(ids), "label maps") as bar:
            for case_id in ids:
                case = cases.load(case_id)
                labels = labeller.draw(case, cases.schema)
                image, volume, affine = case.image, labels, None
                files = cases.files(case_id)
                if files is not None and files.shape is not None and files.arrays is not None:
                    (image, _), volume = files.arrays(), pick(labels, files.shape)
                    affine = files.affine
                    if len(files.shape) == 2:
                        image, volume = image[:, None], volume[None]
                if sheet and len(pairs) < SHEET:
                    pairs.append((Sample(case.image, labels), case))
                bar.advance(1)
                yield Item(file_name(case_id), image, volume, affine=affine, synthetic=False)

    about = {"run": run.run_id, "generator": run.generator.name}
    training = TrainingCases(CaseCache(cases, max_bytes=0))
    about |= {"manifest_sha256": run.manifest_sha256, "of": cases.name}
    contents = {case_id: case_content(cases, case_id) for case_id in ids}
    asked = dict(request, of=cases.name, cases=contents, label_source=conditions)
    there = held(out, asked, anew=anew)
    if there is None:
        write(
            lambda folder: writer_class(folder, schema, options, partial(intensities_of, training)),
            items(),
            schema,
            out,
            made={"drawn_by": about},
            anew=anew,
            request=asked,
        )
    if ids and affine is None and there is None:
        reporter.warn(
            f"{out}: label maps lie on the grid of the arrays that {cases.name} reads, which knows "
            "no files of whole cases; for these read the files themselves: nifti:, msd:, pictures:"
        )
    report: dict[str, Any] = {"sampled_already": there is not None, "folder": str(out)}
    report |= {"samples": len(ids), "of": cases.name}
    if there is None:
        report["seconds_per_sample"] = (time.perf_counter() - began) / max(len(ids), 1)
    if sheet:
        if there is not None:  # then these alone are drawn again
            deque(islice(items(), SHEET), maxlen=0)
        samples, real = [sample for sample, _ in pairs], [case for _, case in pairs]
        path = out / "sheet.png"
        names = schema.channels
        oriented = cases.space.oriented
        sheet_path = write_sample_grid(
            path, samples, real, schema, given_channels=names, drawn=True, oriented=oriented
        )
        report["sheet"] = str(sheet_path)
    return report


def replay_run(words: SampleRunRequest, record: str, reporter: Reporter) -> dict[str, Any]:
    """Replay a recorded sample (``gansynth.sampling.replay``), and write it as a data set.

    Args:
        record: ``FILE:LINE`` of a draw log, or ``FILE:NAME`` of a JSON file with provenance.

    Returns:
        A JSON-able report: folder, number and seed, and which kind of equality was found.
    """
    run, out = Path(words.run), None if words.out is None else Path(words.out)
    place = out or run / "samples" / "replay"
    again = regenerate(run, record, device=words.device, root=words.root)
    drawn, provenance = again.sample, again.sample.provenance
    name = f"sample-{provenance['index']:04d}"
    item = Item(name, drawn.image, drawn.labels, drawn.boxes, facts=provenance)
    made = {"normalised": True, "drawn_by": {"run": provenance["run"]}}
    request = {"replay": {key: provenance[key] for key in ("run", "index", "seed", "sha256")}}
    there = held(place, request, anew=out is None)
    if there is None:
        write(
            lambda folder: NiftiWriter(folder, again.schema),
            [item],
            again.schema,
            place,
            made=made,
            anew=out is None,
            request=request,
        )
    if again.equality not in ("bits", "tolerance"):
        reporter.warn(again.says)
    report = {"sampled_already": there is not None, "folder": str(place)}
    report |= {"sample": provenance["index"], "seed": provenance["seed"]}
    report |= {"case": provenance.get("case"), "same_to_the_bit": again.equality == "bits"}
    report["equality"] = again.says.removeprefix(f"{record}: ")
    return report


def _placed(drawer: Sampler, sample: Sample) -> Case:
    """Return the real case of a sample's condition, at the same place, in the host's space."""
    case = drawer.matching_real_case(sample)
    placed = Sample(case.image, case.labels, case.boxes)
    host = drawer.run.space.to_host(placed, sample.provenance["shape"])
    return replace(case, image=host.image, labels=host.labels, boxes=host.boxes)
