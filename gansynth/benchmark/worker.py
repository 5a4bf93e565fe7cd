"""``python -m gansynth.benchmark.worker WORK FOLDER``: one job of a benchmark, in its own process.

It runs the documented command on the cases of one draw, measures what came out, and prints a JSON
document as its last line. What is kept lies in FOLDER; the command's own words go to stderr.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth.benchmark.words import RUN, augment_words, fit_words
from gansynth.core.registry import installed
from gansynth.core.run_folder import MANIFEST
from gansynth.core.source import CaseSource, SourceRequest, Split
from gansynth.runtime import child, processes
from gansynth.runtime.errors import FAULTS, TrainingFault, UsageFault
from gansynth.runtime.files import read_json
from gansynth.sampling.opening import open_source

if TYPE_CHECKING:
    from gansynth.core.prediction import Prediction

COMMAND = """
import runpy
from gansynth.runtime.child import obey
obey()  # it ends when this process does, even by kill -9
runpy.run_module("gansynth_cli", run_name="__main__")
"""
PREDICTIONS = "predictions"
RECORD = "gansynth_session.json"
"""What hosts with an output folder keep there of a training that has begun."""
KEPT = ("ratio", "schedule", "drawn_real", "drawn_synthetic", "realised_synthetic_share")
KEPT_TOO = ("asked_synthetic_share", "fell_back", "supply", "warnings", "metrics_on_real_cases")


class Work:
    """One job.

    Args:
        document: what ``gansynth.benchmark.specs.write_work`` wrote.
        folder: where its results are kept; what an interrupted attempt left is there.
    """

    def __init__(self, document: Mapping[str, Any], folder: Path) -> None:
        self.spec: Mapping[str, Any] = document["spec"]
        self.places: Mapping[str, Any] = document["places"]
        self.folder = folder
        self.request = SourceRequest(**self.places["request"])

    def run(self) -> dict[str, Any]:
        """Do it.

        Raises:
            GansynthError: with the command's own last words.
        """
        kind = self.spec["kind"]
        if kind == "tune":
            from gansynth.benchmark.tuning import tune

            document: dict[str, Any] = tune(self.spec, self.places, self.folder)
            return document
        return self.fit() if kind == "fit" else self.train()

    def fit(self) -> dict[str, Any]:
        """Fit a generator, or go on with it; its run is kept."""
        # A run remembers where its cases are, so they stay where they are.
        division = Path(self.places["division"])
        try:
            request = self.divided(division)
        except UsageFault:
            # A look at other people has begun it, who are held out of it; it never came to its end.
            shutil.rmtree(self.folder / RUN, ignore_errors=True)
            shutil.rmtree(division, ignore_errors=True)
            request = self.divided(division)
        words = fit_words(self.spec["generator"], request, self.spec["seed"], self.folder / RUN)
        seconds, told = command(words)
        return {"seconds": seconds, "told": told}

    def train(self) -> dict[str, Any]:
        """Train the host, measure it on the judged cases, keep its label maps."""
        scratch = self.folder / "training"
        request = self.divided(scratch / "data")
        target = self.spec["host"]["target"]
        cls = installed().adapter(target)
        out = scratch / "out" if "output" in cls.Options.model_fields else None
        run = self.places.get("run")
        words = augment_words(self.spec, request, None if run is None else own_run(Path(run)), out)
        if (scratch / "begun").exists() and (out is None or (out / RECORD).is_file()):
            words = going_on(words, cls.goes_on)
        elif out is not None:
            shutil.rmtree(out, ignore_errors=True)
        scratch.mkdir(parents=True, exist_ok=True)
        (scratch / "begun").touch()
        seconds, told = command(words)
        source = open_source(request)
        measured = self.measured(source, Path(told["folder"]))
        kept = {key: told.get(key) for key in (*KEPT, *KEPT_TOO)}
        shutil.rmtree(scratch, ignore_errors=True)
        return {"seconds": seconds, **measured, "told": kept}

    def divided(self, folder: Path) -> SourceRequest:
        """The data set with this job's training and judged cases alone."""
        source = open_source(self.request)
        train = [case for case, *_ in self.spec["train"]]
        judged = [case for case, *_ in self.spec.get("judged", ())] or self.places["held_out"]
        split = Split(train=sorted(train), val=sorted(judged))
        return replace(source.divided([split], folder), fold="0")

    def measured(self, source: CaseSource, results: Path) -> dict[str, Any]:
        """Scores by measure and case, and where label maps are kept.

        Those of detectors and of slices are by subject: one slice of a person says little.
        """
        if self.spec["host"]["target"] == "yolo":
            return _detections(results, self.spec["measures"])
        from gansynth.metrics.segmentation.evaluation import evaluate
        from gansynth.metrics.segmentation.regions import regions_of, with_labels

        labels = source.schema.foreground
        regions = with_labels(regions_of(self.spec["regions"], labels), labels)
        pairs = installed().adapter(self.spec["host"]["target"])(source).judged(results)
        asked = tuple(self.spec["measures"])
        found = evaluate(pairs, regions, measures=asked, ignore=source.schema.ignore)
        flat = any(one.position is not None for one in pairs.values())
        scores: dict[str, dict[str, float | None]] = {}
        for name, values in sorted((found.per_subject if flat else found.per_case).items()):
            for key, value in {**values, **over_labels(values, labels)}.items():
                scores.setdefault(key, {})[name] = value
        told = {"unit": found.unit, "distances": found.distances}
        by = "subject" if flat else "case"
        return {"scores": scores, "predictions": self._keep(pairs), "by": by, **told}

    def _keep(self, pairs: Mapping[str, Prediction]) -> dict[str, str]:
        """Copy label maps; case -> file below the folder of those kept."""
        kept: dict[str, str] = {}
        for number, (case, one) in enumerate(sorted(pairs.items())):
            if one.file is None:
                continue
            # Files of one name may lie in several folders.
            flat = one.position is not None
            kept[case] = f"{number:05d}.png" if flat else one.file.name
            (self.folder / PREDICTIONS).mkdir(exist_ok=True)
            shutil.copyfile(one.file, self.folder / PREDICTIONS / kept[case])
        return kept


def own_run(folder: Path) -> Path:
    """The run in a folder that was fitted into: that of a recipe's one set has one of its own."""
    sets = [path.parent for path in sorted(folder.glob(f"*/{MANIFEST}"))]
    return sets[0] if len(sets) == 1 and not (folder / MANIFEST).exists() else folder


def going_on(words: Sequence[str], more: Sequence[str]) -> list[str]:
    """A command that takes up what an interrupted one has left; options of the host come last."""
    if "--" not in more:
        place = words.index("--") if "--" in words else len(words)
        return [*words[:place], *more, *words[place:]]
    return [*words, *(more[1:] if "--" in words else more)]


def command(words: Sequence[str]) -> tuple[float, dict[str, Any]]:
    """Run a command of gansynth's; its seconds and what it printed.

    Raises:
        GansynthError: it failed; of its own kind, with its last line.
    """
    ended = processes.run([sys.executable, "-c", COMMAND, *words], os.environ, document=True)
    processes.raise_if_stopped(ended)
    if ended.code != 0:
        faults = [line for line in ended.last if line.startswith(child.FAULT)]
        line = (faults or ended.last or [f"exit {ended.code}"])[-1]
        raise FAULTS.get(ended.code, TrainingFault)(line.removeprefix(child.FAULT))
    document: dict[str, Any] = json.loads(ended.output)
    return ended.seconds, document


def _detections(results: Path, asked: Sequence[str]) -> dict[str, Any]:
    from gansynth.metrics.detection.record import FILE, read_detections
    from gansynth.metrics.segmentation.detection import measure_detections

    found = measure_detections(read_detections(results / FILE))
    return {"scores": found["per_subject"], "pooled": found["pooled"], "by": "subject"}


def over_labels(
    found: Mapping[str, float | None], labels: Sequence[int]
) -> dict[str, float | None]:
    """Means over labels of a case's measures, ``dice/mean``, where there are several labels."""
    means: dict[str, float | None] = {}
    for name in dict.fromkeys(key.partition("/")[0] for key in found):
        values = [found.get(f"{name}/{label}") for label in labels]
        known = [value for value in values if value is not None]
        if len(labels) > 1:
            means[f"{name}/mean"] = sum(known) / len(known) if known else None
    return means


def main() -> None:
    """Run one job; what it raises becomes the exit code."""
    work, folder = map(Path, sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    print(json.dumps(Work(read_json(work), folder).run()))


if __name__ == "__main__":
    sys.exit(child.entry(main))
