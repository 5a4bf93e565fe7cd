"""One job of a benchmark: it fits or trains on one training subset, and evaluates the output."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from gansynth.core.requests.fit import FitRequest
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.run_folder import MANIFEST
from gansynth.core.source import CaseSource, FoldSplit, SourceRequest
from gansynth.fitting.command import run_fit
from gansynth.hosts.augment import run_augment
from gansynth.hosts.contract.host import framework
from gansynth.hosts.deciding.trials import trials_of
from gansynth.metrics.segmentation.evaluation import Prediction
from gansynth.metrics.segmentation.measures import OF_SIZES
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import write_bytes_atomic
from gansynth.sampling.run_source import open_source
from gansynth_benchmark.requests import RUN, augment_request, fit_request

PREDICTIONS = "predictions"
KEPT_COUNTS = ("ratio", "schedule", "drawn_real", "drawn_synthetic", "realised_synthetic_share")
KEPT_REMARKS = ("asked_synthetic_share", "fell_back", "supply", "warnings", "metrics_on_real_cases")


class WorkerJob:
    """One job.

    Args:
        document: its ``spec``, and ``places`` on this machine.
        folder: for its results; files of an interrupted attempt may be there.
    """

    def __init__(self, document: Mapping[str, Any], folder: Path) -> None:
        self.spec: Mapping[str, Any] = document["spec"]
        self.places: Mapping[str, Any] = document["places"]
        self.folder = folder
        self.request = SourceRequest(**self.places["request"])

    def run(self) -> dict[str, Any]:
        """Run the job and return its document."""
        kind = self.spec["kind"]
        if kind == "tune":
            from gansynth_benchmark.tuning import Tuning

            return Tuning(self.spec, self.places, self.folder).run()
        return self.fit() if kind == "fit" else self.train()

    def fit(self) -> dict[str, Any]:
        """Fit a generator, or resume its fit; the run is kept."""
        # A run stores the path of its cases, so they are not moved.
        division = Path(self.places["division"])
        try:
            request = self.divided(division)
        except UsageFault:
            # An unfinished fit for another test split, with other subjects held out.
            shutil.rmtree(self.folder / RUN, ignore_errors=True)
            shutil.rmtree(division, ignore_errors=True)
            request = self.divided(division)
        seconds, report = execute(self.asked(request, self.folder / RUN))
        return {"seconds": seconds, "told": report}

    def train(self) -> dict[str, Any]:
        """Train the host, evaluate it on the test cases, keep its label maps."""
        scratch = self.folder / "training"
        scratch.mkdir(parents=True, exist_ok=True)
        request = self.divided(scratch / "data")
        out = scratch / "out"
        # goes on with what an interrupted attempt has left
        seconds, report = execute(self.asked(request, out))
        source = open_source(request)
        measured = self.measured(source, Path(report["folder"]))
        provenance = {key: report.get(key) for key in (*KEPT_COUNTS, *KEPT_REMARKS)}
        gone = self.folder / "gone"  # at once: half of a training would be refused as another's
        shutil.rmtree(gone, ignore_errors=True)
        scratch.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
        document: dict[str, Any] = {"seconds": seconds}
        document.update(measured)
        document["told"] = provenance
        return document

    def asked(self, request: SourceRequest, out: Path) -> FitRequest | AugmentRequest:
        """Return the request of the fit or training on ``divided`` cases."""
        if self.spec["kind"] == "fit":
            return fit_request(self.spec["generator"], request, self.spec["seed"], out)
        run = self.places.get("run")
        run = None if run is None else own_run(Path(run))
        return augment_request(self.spec, request, run, out)

    def divided(self, folder: Path) -> SourceRequest:
        """Return the data set restricted to this job's training and test cases."""
        source = open_source(self.request)
        train = [case for case, *_ in self.spec["train"]]
        test_cases = [case for case, *_ in self.spec.get("judged", ())] or self.places["held_out"]
        split = FoldSplit(train=sorted(train), val=sorted(test_cases))
        return replace(source.divided([split], folder), fold="0")

    def measured(self, source: CaseSource, results: Path) -> dict[str, Any]:
        """Return scores by measure and case, and the files of the label maps.

        Scores of detectors and of slices are by subject: a single slice says little.
        """
        target = self.spec["augment"]["target"]
        if framework(target).Intake.needs == "boxes":
            from gansynth.metrics.detection.by_subject import measure_detections
            from gansynth.metrics.detection.record import FILE, read_detections

            boxes = measure_detections(read_detections(results / FILE))
            return {"scores": boxes["per_subject"], "pooled": boxes["pooled"], "by": "subject"}
        from gansynth.metrics.segmentation.evaluation import at_thresholds, measure_predictions
        from gansynth.metrics.segmentation.measures import regions_of, with_labels

        labels = source.schema.foreground
        regions = with_labels(regions_of(self.spec["regions"], labels), labels)
        pairs = trials_of(target).predictions(source, results)
        measures, ignore = tuple(self.spec["measures"]), source.schema.ignore
        evaluation = measure_predictions(pairs, regions, measures=measures, ignore=ignore)
        flat = any(prediction.position is not None for prediction in pairs.values())
        scores: dict[str, dict[str, float | None]] = {}
        for name, values in sorted(
            (evaluation.per_subject if flat else evaluation.per_case).items()
        ):
            measured = dict(values) | over_labels(values, labels)
            for key, value in measured.items():
                scores.setdefault(key, {})[name] = value
        units: dict[str, Any] = {"unit": evaluation.unit, "distances": evaluation.distances}
        by: Literal["subject", "case"] = "subject" if flat else "case"
        if "thresholds" in self.spec:
            units["at_thresholds"] = at_thresholds(pairs, labels, by, ignore)
        document = {"scores": scores, "predictions": self._keep(pairs), "by": by}
        document.update(units)
        return document

    def _keep(self, pairs: Mapping[str, Prediction]) -> dict[str, str]:
        """Copy label maps, and return case -> file below ``PREDICTIONS``."""
        files: dict[str, str] = {}
        for number, (case, prediction) in enumerate(sorted(pairs.items())):
            if prediction.file is None:
                continue
            # Several folders may have files of the same name.
            flat = prediction.position is not None
            files[case] = f"{number:05d}.png" if flat else prediction.file.name
            (self.folder / PREDICTIONS).mkdir(exist_ok=True)
            copy = self.folder / PREDICTIONS / files[case]
            write_bytes_atomic(copy, prediction.file.read_bytes())
        return files


def own_run(folder: Path) -> Path:
    """Return the run in a fit's folder; a recipe with one set has it in a subfolder."""
    sets = [path.parent for path in sorted(folder.glob(f"*/{MANIFEST}"))]
    return sets[0] if len(sets) == 1 and not (folder / MANIFEST).exists() else folder


def execute(request: FitRequest | AugmentRequest) -> tuple[float, Mapping[str, Any]]:
    """Fit or train here; return the seconds, and what ``--json`` prints."""
    began = time.perf_counter()
    if isinstance(request, FitRequest):
        document: Mapping[str, Any] = run_fit(request).report
    else:
        # Who writes a plan vouches for its scans, unless a first training is to mark them.
        if request.unlabelled and not request.self_train:
            request = request.replace(lesion_free=True)
        done = run_augment(request)
        done.refuse_missing()
        document = done.document
    return time.perf_counter() - began, document


def over_labels(
    measures: Mapping[str, float | None], labels: Sequence[int]
) -> dict[str, float | None]:
    """Return means of a case's measures over labels, as ``dice/mean``, if there are several."""
    means: dict[str, float | None] = {}
    names = [key.partition("/")[0] for key in measures if key not in OF_SIZES]
    for name in dict.fromkeys(names):
        values = [measures.get(f"{name}/{label}") for label in labels]
        finite = [value for value in values if value is not None]
        if len(labels) > 1:
            means[f"{name}/mean"] = sum(finite) / len(finite) if finite else None
    return means


def run_job(document: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Run one job."""
    folder.mkdir(parents=True, exist_ok=True)
    return WorkerJob(document, folder).run()
