"""``gansynth.evaluate``: compute metrics, test for memorisation, and say what was found."""

from __future__ import annotations

import shlex
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gansynth.core.requests.base import function_of
from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Case, Schema
from gansynth.core.space import Space
from gansynth.data.folds import site_of_cases
from gansynth.fitting.run_report import write_run_report
from gansynth.metrics.comparison import (
    EFFORTS,
    Comparison,
    Effort,
    Estimate,
    Floats,
    Metric,
    guard_metric,
    load_metrics,
)
from gansynth.metrics.distances import BANDS, BINS, HistogramMetric, Spectrum, edges_of, frequencies
from gansynth.runtime.child import keep_to_cores
from gansynth.runtime.errors import DataFault, GansynthError, UsageFault
from gansynth.runtime.files import (
    digest_of,
    disk_errors,
    read_json,
    refuse_unwritable,
    sha256_file,
    write_json_atomic,
)
from gansynth.runtime.progress import ProgressTask, clock_text
from gansynth.runtime.signals import Interrupted, telling
from gansynth.runtime.version import build
from gansynth.sampling.evaluation_data import EvaluationData, folder_kind
from gansynth.sampling.request_checks import read_real, read_request
from gansynth_evaluate.open_samples import open_evaluated
from gansynth_evaluate.requests import EvaluateRequest
from gansynth_evaluate.sites import crops_by_site, dice_by_site, site_rows

if TYPE_CHECKING:
    from gansynth.metrics.comparison import Image
    from gansynth.metrics.faithfulness import FoldSegmenters
    from gansynth_evaluate.memorisation import Pairs


VERSION = 3

STRIP = 6  # images of each side at the top of the report
PARTS = ("realism", "faithfulness", "memorisation", "maps")
SECONDS: Mapping[int, Mapping[str, int]] = {
    2: {"realism": 130, "faithfulness": 18, "memorisation": 3, "maps": 5},
    3: {"realism": 33, "faithfulness": 50, "memorisation": 20, "maps": 7},
}
"""Axes of images -> seconds of each part (measure/results/evaluate_time.json), as shares of all."""


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of an evaluation."""

    parts: Sequence[str] = PARTS
    metrics: Sequence[str] = ()  # by name; all registered ones if empty
    effort: Effort = EFFORTS["standard"]
    pictures: bool = True  # whether the report shows thumbnails, which include patients
    exported: Path | None = None  # folder of samples to be shared, searched for names of patients
    sites: Mapping[str, str] = field(default_factory=dict)  # of the real cases, where it is known

    def __post_init__(self) -> None:
        unknown = sorted(set(self.parts) - set(PARTS))
        if unknown:
            raise UsageFault(
                "evaluate.part-unknown",
                f"--only {unknown[0]}: is no part of an evaluation, expected one of: "
                f"{', '.join(PARTS)}",
            )


@dataclass(frozen=True)
class EvaluationResult:
    """The result of an evaluation."""

    document: dict[str, Any]
    pictures: Mapping[str, bytes]
    pairs: Pairs
    strip: Mapping[str, Sequence[bytes]]
    stop: int = 0  # number of the signal that came after some part was finished
    left: Sequence[str] = ()  # parts that are not finished, then
    seconds_left: float = 0.0


def assess(
    gathered: EvaluationData,
    comparison: Comparison,
    metrics: Mapping[str, Metric],
    options: EvaluationOptions,
    clock: Timer | None = None,
) -> EvaluationResult:
    """Evaluate gathered images; a stop by a signal keeps the parts that are finished, if any."""
    clock = clock or Timer()
    document: dict[str, Any] = {"version": VERSION, "gansynth": build()}
    document |= gathered.document_entries(comparison)
    if options.exported is not None:
        document["identity"] = _audited(options.exported, gathered)
    sites = crops_by_site(gathered, options.sites, len(comparison.samples), comparison.seed)
    if sites:
        document["sites"] = site_rows(gathered, comparison, sites)
    lasts = SECONDS[comparison.real[0].image.ndim - 1]
    left, stop = [part for part in PARTS if part in options.parts], 0
    seconds_left, begun = 0.0, time.perf_counter()
    with comparison.reporter.task(sum(lasts[p] for p in left), "evaluation") as bar:
        work = _Parts(gathered, comparison, metrics, options, clock, document, bar, lasts, sites)
        try:
            while left:
                getattr(work, left[0])()
                del left[0]
        except (KeyboardInterrupt, Interrupted) as stopped:
            done = sum(lasts[p] for p in options.parts if p not in left)
            if not done:
                raise
            if "maps" in left and "faithfulness" in options.parts:  # which its networks draw
                left = [p for p in PARTS if p in (*left, "faithfulness")]
            pace = (work.finished_at - begun) / done
            stop = getattr(stopped, "number", signal.SIGINT)
            seconds_left = pace * sum(lasts[p] for p in left)
    _conclude(document, work.figures)
    document["seconds"] = {name: round(value, 2) for name, value in clock.seconds.items()}
    shown = options.pictures
    return EvaluationResult(
        document,
        work.pictures if shown else {},
        work.pairs if shown else (),
        _strip(comparison, gathered.space) if shown else {},
        stop,
        left,
        seconds_left,
    )


@dataclass
class _Parts:
    """The parts of an evaluation; each puts what it finds into the document when it is finished."""

    gathered: EvaluationData
    comparison: Comparison
    metrics: Mapping[str, Metric]
    options: EvaluationOptions
    clock: Timer
    document: dict[str, Any]
    bar: ProgressTask
    lasts: Mapping[str, int]  # each part, in units of the bar
    sites: Mapping[str, Sequence[Case]]  # crops of each site's real cases
    figures: Sequence[Estimate] = ()
    judges: FoldSegmenters | None = None
    pairs: Pairs = ()
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    finished_at: float = 0.0  # of time.perf_counter

    def realism(self) -> None:
        options, comparison = self.options, self.comparison
        figures, left_out, seconds = measure_realism(
            self.metrics, comparison, options.metrics, partial(self._advance, "realism")
        )
        found: dict[str, Any] = {"left_out": left_out}
        found["figures"] = [figure.to_json() for figure in figures]
        if not options.metrics:
            with self.clock("curves"):
                found["curves"] = curves(comparison)
        self.clock.seconds |= seconds
        self.figures = figures
        self._finish(found)

    def faithfulness(self) -> None:
        with self.clock("faithfulness"):
            found, self.judges = _faithfulness(self.gathered, self.comparison)
            if self.judges is not None and self.sites:
                found["sites"] = dice_by_site(self.judges, self.gathered, self.sites)
        self._finish({"faithfulness": found})
        self._advance("faithfulness")

    def memorisation(self) -> None:
        from gansynth_evaluate.memorisation import measure_memory

        with self.clock("memorisation"):
            found, self.pairs = measure_memory(self.gathered, self.comparison)
        self._finish({"memorisation": found})
        self._advance("memorisation")

    def maps(self) -> None:
        with self.clock("maps"):
            drawn = _maps(self.gathered, self.comparison, self.judges, self.options)
        self.pictures = drawn[1]
        self._finish({"maps": drawn[0]})
        self._advance("maps")

    def _advance(self, part: str, share: float = 1.0) -> None:
        self.bar.advance(share * self.lasts[part])

    def _finish(self, found: Mapping[str, Any]) -> None:
        self.document |= found
        self.finished_at = time.perf_counter()


def _conclude(document: dict[str, Any], figures: Sequence[Estimate]) -> None:
    from gansynth_evaluate.summary import alarms, differing_counts, sentences

    document["differs"] = differing_counts(figures)
    document["alarms"] = alarms(document, figures)
    document["words"] = sentences(document, figures)


def _strip(comparison: Comparison, space: Space) -> dict[str, list[bytes]]:
    """The first images of each side."""
    from gansynth.report.png import thumbnail

    sides_shown: dict[str, Sequence[Image]] = {
        "real": comparison.real,
        "synthetic": comparison.samples,
    }
    window, oriented = comparison.window, space.oriented
    strip: dict[str, list[bytes]] = {}
    for side, images in sides_shown.items():
        shown = [thumbnail(i.image, window, i.labels, oriented=oriented) for i in images[:STRIP]]
        strip[side] = shown
    return strip


def _faithfulness(
    gathered: EvaluationData, comparison: Comparison
) -> tuple[dict[str, Any], FoldSegmenters | None]:
    """``faithfulness`` of the document, or only the reason why there is none."""
    from gansynth.metrics.faithfulness import (
        EvaluationSegmenterOptions,
        map_of,
        recover,
        train_fold_segmenters,
    )

    cases, effort, steps = gathered.known, comparison.effort, comparison.effort.judge
    every: list[Image] = [*comparison.samples, *comparison.real]
    maps = [map_of(image, comparison.schema) for image in every]
    if any(labels is None for labels in maps):
        bare = [number for number, labels in enumerate(maps) if labels is None]
        side = "samples" if bare[0] < len(comparison.samples) else "real cases"
        return {"why": f"the {side} have neither label maps nor boxes"}, None
    people = {i: cases.people[i] for i in gathered.reference}
    try:
        options = EvaluationSegmenterOptions(steps, effort.batch, effort.width)
        judges = train_fold_segmenters(
            gathered.reference, people, gathered.cut, comparison, options
        )
    except DataFault as error:
        return {"why": " ".join(str(error).split())}, None
    count = len(set(people.values()))
    of_boxes = not comparison.schema.foreground
    target = "boxes, filled in" if of_boxes else "labels"
    judge = {
        "judge": f"two small U-Nets that find {target}, of {steps} steps, each trained on half of "
        f"the {count} subjects and tested on the other half",
        "steps": steps,
    }
    return judge | recover(judges, comparison), judges


def _maps(
    gathered: EvaluationData,
    comparison: Comparison,
    judges: FoldSegmenters | None,
    options: EvaluationOptions,
) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    from gansynth_evaluate.maps import MapImages, draw_maps

    mapped = MapImages.of(gathered, comparison)
    segmenter = None if judges is None else judges.segmenters[0]
    maps = draw_maps(gathered, comparison, mapped, segmenter=segmenter)
    return maps, mapped.pictures(comparison) if options.pictures else {}


def _audited(folder: Path, gathered: EvaluationData) -> dict[str, Any]:
    from gansynth_evaluate.audit import audit_export, state_bits

    audit = audit_export(folder, gathered.lineage, sources=gathered.source)
    bits = None if gathered.run is None else state_bits(gathered.run)
    return replace(audit, state_bits=bits).to_json()


class Timer:
    """Seconds by part of the evaluation."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add the seconds that a block takes."""
        began = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - began


# -- realism ---------------------------------------------------------------------------------------

FIRST = "counts"
BARS = 64  # bars of a plotted histogram


def chosen_metrics(names: Sequence[str]) -> dict[str, Metric]:
    """Metrics by name; by default all registered ones that can be calibrated on real subjects."""
    from gansynth.core.registry import installed

    if names:
        return load_metrics(names)
    usual = load_metrics(sorted(installed().names("metrics"), key=lambda name: name != FIRST))
    return {name: metric for name, metric in usual.items() if "pairs" not in metric.needs}


def measure_realism(
    metrics: Mapping[str, Metric],
    comparison: Comparison,
    requested: Sequence[str],
    advance: Callable[[float], object],
) -> tuple[list[Estimate], list[dict[str, str]], dict[str, float]]:
    """Figures of all metrics.

    Args:
        metrics: by name.
        comparison: of the samples with real images.
        requested: names of metrics that the user asked for.
        advance: told after each metric which share of them it is.

    Returns:
        The figures; skipped metrics and why; seconds by metric.
    """
    figures: list[Estimate] = []
    left_out, seconds = [], dict[str, float]()
    with comparison.reporter.task(len(metrics), "realism") as bar:
        for name, metric in metrics.items():
            began = time.perf_counter()
            try:
                with guard_metric(name, len(comparison.samples)):
                    figures += metric.figures(comparison)
            except (DataFault, UsageFault) as error:  # too few images, or a plugin's metric fails
                if name in requested or len(metrics) == 1:
                    raise
                left_out.append({"metric": name, "why": " ".join(str(error).split())})
            seconds[name] = time.perf_counter() - began
            bar.advance()
            advance(1 / len(metrics))
    return figures, left_out, seconds


def curves(comparison: Comparison) -> dict[str, Any]:
    """``curves`` of the document: power by frequency, and intensities by channel and label."""
    return {"spectrum": _spectra(comparison), "intensities": _intensities(comparison)}


def _spectra(comparison: Comparison) -> list[dict[str, Any]]:
    numbers, schema = Spectrum().numbers(comparison), comparison.schema
    rows = []
    for channel in schema.channels:
        bands = [numbers[f"{channel} band {band}"] for band in range(1, BANDS + 1)]
        keys = (
            ("ratio", "value"),
            ("low", "low"),
            ("high", "high"),
            ("real_low", "real_low"),
            ("real_high", "real_high"),
        )
        row: dict[str, Any] = {"channel": channel}
        row["frequency"] = [round(f, 5) for f in frequencies(schema.spacing)]
        for key, name in keys:
            row[key] = [_rounded(band.get(name)) for band in bands]
        rows.append(row)
    return rows


def _intensities(comparison: Comparison) -> list[dict[str, Any]]:
    sets = HistogramMetric().prepared(comparison)
    edges, names = edges_of(comparison), list(comparison.schema.channels)
    titles = {
        f"{channel}{', ' + label if label else ''}": (number, label)
        for number, channel in enumerate(names)
        for label in (None, *comparison.schema.labels)
    }
    step = BINS // BARS
    rows = []
    for title, (number, label) in titles.items():
        if title not in sets[0].counts:
            continue
        bar_edges = edges[number][::step]
        mine, real = [_density(s.counts[title].sum(0), bar_edges) for s in sets]
        rows.append(
            {
                "channel": names[number],
                "label": label,
                "edges": [_rounded(e) for e in bar_edges],
                "synthetic": mine,
                "real": real,
            }
        )
    return rows


def _density(counts: Floats, edges: Floats) -> list[float | None]:
    bars = counts.reshape(BARS, -1).sum(1)
    total = bars.sum()
    if not total:
        return [None] * BARS
    return [_rounded(v) for v in bars / total / np.diff(edges)]


def _rounded(value: float | None) -> float | None:
    if value is None or not np.isfinite(value):
        return None
    return float(f"{value:.5g}")


DOCUMENT, BANK = "evaluation.json", "bank.json"
MEASURES = ("curves", "faithfulness", "memorisation", "identity", "maps")
"""Keys of the document that are measures, besides the metrics' figures."""


def run_evaluation(request: EvaluateRequest) -> dict[str, Any]:
    """Evaluate the samples of a run or a sample bank: ``gansynth evaluate``.

    Returns:
        What ``--json`` prints; ``files`` has the paths of the report.

    Raises:
        GansynthError: typed by cause, see ``gansynth.runtime.errors``.
    """
    real = read_real(request.real, request.real_read)
    asked = read_request(request, request.seed)
    exported = None if request.exported is None else Path(request.exported)
    options = EvaluationOptions(
        tuple(request.only) or PARTS,
        tuple(request.metric),
        EFFORTS[request.preset],
        request.pictures,
        exported,
    )
    metrics = chosen_metrics(options.metrics)  # fail before the slow sampling
    if exported is not None and not exported.is_dir():
        raise DataFault(
            "evaluate.exported-folder-missing",
            f"--exported {exported}: no such folder; name one that is there",
        )
    folder, clock, reporter = Path(request.run), Timer(), request.reporter
    usual = _usual_folder(folder)
    target = usual if request.out is None else Path(request.out)
    if folder.is_dir():  # else something more is wrong
        refuse_unwritable(target)
    keep_to_cores(reporter.say)
    n, device = request.n, request.device
    with telling(reporter.warn, f"stopped; no part is finished, so {Interrupted.ANEW}"):
        with clock("samples"):
            gathered = open_evaluated(
                folder,
                real,
                n,
                asked,
                device=device,
                data=request.data,
                root=request.root,
                reporter=reporter,
            )
            sites = gathered.source.sites
            if request.sites is not None:
                sites = site_of_cases(request.sites, gathered.known.people)
            options = replace(options, sites=sites)
            comparison = gathered.comparison(n, asked.seed, options.effort, device, reporter)
        assessed = assess(gathered, comparison, metrics, options, clock)
    document = assessed.document
    document["origin"] = _origin(folder, document["data"], asked)
    whole = with_earlier(document, target / DOCUMENT)
    if (target / "report.html").exists():
        kept = f"; of it stay: {', '.join(whole['kept'])}" if whole["kept"] else ""
        reporter.say(
            f"{target}: the report of an earlier evaluation is replaced{kept}; -o keeps both"
        )
    files = _write(
        replace(assessed, document=whole),
        comparison.schema,
        target,
        oriented=gathered.space.oriented,
    )
    if gathered.kind == "run" and target == usual:
        write_run_report(RunFolder(folder), reporter)  # the measures go into its card
    if assessed.stop:
        without = () if "realism" in assessed.left else ("metric",)
        rest = request.replace(without=without, only=assessed.left).command_line
        took = clock_text(assessed.seconds_left)
        reporter.say(f"stopped; the finished parts are in {files['report.html']}")
        reporter.say(f"the other parts take about {took} more: {', '.join(assessed.left)}")
        reporter.say(f"next: {shlex.join(['gansynth', *rest])}")
        raise Interrupted(assessed.stop, told=True)
    return dict(document, files=files)


evaluate = function_of(EvaluateRequest, run_evaluation, "evaluate")


def _origin(folder: Path, data: Mapping[str, Any], asked: SampleRequest) -> str:
    """Return a digest of what samples are drawn by, and compared with; not of their seed."""
    bank = folder_kind(folder) == "bank"
    state = sha256_file(folder / BANK) if bank else RunFolder(folder).manifest_sha256
    return digest_of({"state": state, "data": data, "asked": replace(asked, seed=0).to_json()})


def with_earlier(document: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return a document with the measures of an earlier one that it has not made again.

    Those of another ``origin`` or format are left out: they say nothing of these samples. ``kept``
    names the others, and how many samples they are of.
    """
    earlier: dict[str, Any] = {}
    with suppress(GansynthError):  # a file that is no report is replaced
        earlier = read_json(path) if path.is_file() else {}
    whole = dict(document, kept={})
    if any(earlier.get(key) != document[key] for key in ("origin", "version")):
        return whole
    rows = ("figures", "left_out")
    made = {row["metric"] for key in rows for row in document.get(key, ())}
    names = [key for key in MEASURES if key in earlier and key not in document]
    whole |= {key: earlier[key] for key in names}
    for key in rows:
        kept = [row for row in earlier.get(key, ()) if row["metric"] not in made]
        names += [row["metric"] for row in kept]
        if key in earlier or key in document:
            whole[key] = [*kept, *document.get(key, ())]
    of = "{samples} samples, seed {seed}".format_map(earlier["images"])
    whole["kept"] = {name: earlier["kept"].get(name, of) for name in names}
    estimates = [{k: v for k, v in row.items() if k != "finding"} for row in whole.get(rows[0], ())]
    _conclude(whole, [Estimate(**each) for each in estimates])
    return whole


def _usual_folder(folder: Path) -> Path:
    if folder_kind(folder) == "run":
        return folder / "evaluation"
    return folder.with_name(f"{folder.resolve().name}-evaluation")


def _write(
    result: EvaluationResult, schema: Schema, out: Path, *, oriented: bool
) -> dict[str, str]:
    from gansynth_evaluate.memorisation import write_copies
    from gansynth_evaluate.report import write_report

    document = result.document
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    write_json_atomic(out / DOCUMENT, document)
    files = {DOCUMENT: out / DOCUMENT}
    files.update(write_report(document, out, result.pictures, result.strip))
    with disk_errors(out):
        memory = document.get("memorisation")
        files |= write_copies(out, memory, result.pairs, schema, oriented=oriented)
    return {name: str(path) for name, path in files.items()}
