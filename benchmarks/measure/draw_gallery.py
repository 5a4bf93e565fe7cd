"""The pictures of ``docs/gallery.md``: generators without a network, filters and metrics.

    python benchmarks/measure/draw_gallery.py WORK [generators] [filters] [metrics]

Slices of phantoms, not patients, into ``docs/images/gallery``. ``WORK`` keeps phantoms and runs; a
second call goes on from there. ``draw_conditions.py`` draws the edits, ``draw_docs.py`` the rest.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from common import gansynth

from gansynth.core.filter import FilterRequest
from gansynth.core.registry import installed
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Case, Sample
from gansynth.core.source import CaseSource
from gansynth.metrics import METRICS
from gansynth.metrics.comparison import Comparison, Effort, Metric
from gansynth.metrics.features import features_of
from gansynth.report.png import outlined, png_bytes, scaled
from gansynth.runtime.files import write_bytes_atomic
from gansynth.sampling.open_run import load_run
from gansynth.sampling.run_source import open_source
from gansynth.sampling.sampler import Sampler
from gansynth.testing.phantoms import PhantomOptions, write_phantoms

FOLDER = Path(__file__).parents[2] / "docs" / "images" / "gallery"
READ = ("channels=flair", "slices=35%-65%", "foreground=with", "min_foreground=60")
READ = (*READ, "window=1%:99.8%", "resize=64x64")
GENERATORS = ("copypaste", "parametric", "elastic")
SUBJECTS, SPACING, EDGE, GAP = 16, 3.0, 128, 6
SHOWN = 3
"""Pairs in the picture of a generator."""
COMPARED = 32
"""Images on each side of a metric."""
EFFORT = Effort(splits=20, features=60)
"""Of the metrics' networks: a picture needs no more."""
LEFT_OUT = ("lesions", "c2st-cnn", "counts", "places")
"""Metrics of boxes, which these slices lack, and of a network that takes minutes for each side."""
FAR = 50
"""Where a figure is above that many times the smallest, the axis is logarithmic."""
FIGURES = {"spectrum": "distance", "histogram": "flair"}
FIGURES |= dict.fromkeys(("kid", "frechet"), "trained")
FIGURES |= {"manifold": "precision", "appearance": "flair edge in range"}
"""Figure of a metric that is drawn; else its first."""

Picture = npt.NDArray[np.uint8]


def source_and_runs(work: Path) -> dict[str, Path]:
    """Write phantoms, fit every generator without a network; the folders of the runs."""
    if not (work / "gliomas").exists():
        options = PhantomOptions(spacing_mm=SPACING, channels=("FLAIR",))
        write_phantoms("brats", work / "gliomas", SUBJECTS, options=options)
    runs = {name: work / name for name in GENERATORS}
    for name, run in runs.items():
        if not run.exists():
            read = [f"--read={text}" for text in READ]
            data = f"slices:nifti:{work / 'gliomas'}"
            gansynth("fit", name, "--data", data, *read, "-o", str(run))
    return runs


def sampler_of(folder: Path, *filters: str) -> Sampler:
    """A sampler of a run."""
    run = load_run(folder)
    return Sampler(run, open_source(run.request), SampleRequest(filters=filters, seed=1))


# -- pictures --------------------------------------------------------------------------------------


def panel(item: Sample | Case) -> Picture:
    """One slice with the outlines of its labels: uint8 (H, W, 3)."""
    grey = scaled(item.image[:1, ::-1], [(0.0, 1.0)], 8)[0][0]
    labels = None if item.labels is None else item.labels[::-1]
    return outlined(grey, labels, (1, 2, 4), edge=EDGE)


def save(name: str, panels: Sequence[Picture]) -> None:
    """Panels in a row."""
    gap = np.full((panels[0].shape[0], GAP, 3), 255, np.uint8)
    row = [part for each in panels for part in (each, gap)][:-1]
    data = png_bytes(np.concatenate(row, axis=1))
    write_bytes_atomic(FOLDER / f"{name}.png", data)
    print(f"{name}.png: {len(data) / 1000:.0f} kB")


def generators(work: Path) -> None:
    """Real case | sample, some pairs in a row."""
    for name, run in source_and_runs(work).items():
        sampler = sampler_of(run)
        panels: list[Picture] = []
        for sample in sampler.draw_raw(0, 24):
            if not sample.provenance.get("reject_reason") and len(panels) < 2 * SHOWN:
                panels += [panel(sampler.matching_real_case(sample)), panel(sample)]
        save(name, panels)


# -- filters ---------------------------------------------------------------------------------------


def shuffled(sample: Sample, real: Case) -> Sample:
    """The label map mirrored, the image not."""
    assert sample.labels is not None
    return replace(sample, labels=np.ascontiguousarray(sample.labels[:, ::-1]))


def faint(sample: Sample, real: Case) -> Sample:
    """The lesion as bright as what lies around it."""
    assert sample.labels is not None
    lesion = sample.labels > 0
    around = sample.image[0][(sample.labels == 0) & (sample.image[0] > 0.1)]
    grain = np.random.default_rng(0).choice(around, int(lesion.sum()))
    image = sample.image.copy()
    image[0][lesion] = 0.5 * grain + 0.5 * np.median(around)
    return replace(sample, image=image)


def bright(sample: Sample, real: Case) -> Sample:
    """All of it brighter than any training case."""
    return replace(sample, image=np.clip(sample.image * 1.6 + 0.1, 0, 1.6).astype(np.float32))


def copied(sample: Sample, real: Case) -> Sample:
    """A training case."""
    return replace(sample, image=real.image, labels=real.labels)


FAULTS: dict[str, Callable[[Sample, Case], Sample]] = {
    "faithful": shuffled,
    "contrast": faint,
    "range": bright,
    "novel": copied,
}
"""Filter -> what is done to a sample that it then rejects."""


def filters(work: Path) -> None:
    """An admitted sample | the same with a fault, which is rejected."""
    run = source_and_runs(work)["elastic"]
    for name, spoil in FAULTS.items():
        sampler = sampler_of(run, name)
        for index in range(24):
            (sample,) = sampler.draw_raw(index, 1)
            real = sampler.matching_real_case(sample)
            condition = sampler.sampler.draw(index)
            request = FilterRequest(condition, partial(copy_of, real), sampler.sampler.case_pool)
            reason = sampler.filters.judge(spoil(sample, real), request).get("reject_reason")
            if reason and not _reason(sample):
                print(f"{name}: {reason}")
                save(name, [panel(sample), panel(spoil(sample, real))])
                break
        else:
            print(f"{name}: no sample was admitted and then rejected")


def copy_of(case: Case) -> Case:
    """The case itself."""
    return case


def _reason(sample: Sample) -> str:
    return str(sample.provenance.get("reject_reason", ""))


# -- metrics ---------------------------------------------------------------------------------------


def compared(work: Path) -> tuple[list[Case], dict[str, list[Sample]], CaseSource]:
    """Real cases of some subjects; samples and controls; their source."""
    from scipy.ndimage import gaussian_filter

    runs = source_and_runs(work)
    sampler = sampler_of(runs["elastic"])
    source, rng = sampler.source, np.random.default_rng(0)
    cases = [source.load(i) for i in source.train_ids]
    held_out = [_as_sample(source.load(i)) for i in source.held_out_ids]
    sides = {"unseen": held_out[:COMPARED]}
    sides |= {name: sampler_of(run).draw_raw(0, COMPARED) for name, run in runs.items()}
    blurred = [replace(s, image=gaussian_filter(s.image, (0, 1.5, 1.5))) for s in held_out]
    noise = [replace(s, image=rng.random(s.image.shape, np.float32)) for s in held_out]
    sides |= {"blurred": blurred[:COMPARED], "noise": noise[:COMPARED]}
    return cases[:: max(1, len(cases) // COMPARED)][:COMPARED], sides, source


def _as_sample(case: Case) -> Sample:
    provenance = {"case": case.id, "subject": case.subject}
    return Sample(case.image, case.labels, provenance=provenance)


def numbers(metric: Metric, both: Comparison) -> dict[str, float]:
    """A metric's numbers; the features' network is trained once for all."""
    return dict(metric.compute(*metric.prepared(both), both.schema))


def metrics(work: Path) -> None:
    """Bars of one figure of each metric: unseen subjects, samples, blurred and noise."""
    import matplotlib.pyplot as plt

    cases, sides, source = compared(work)
    sets = {
        side: Comparison(
            samples,
            cases,
            source.schema,
            drawn_of=[source.header(sample.provenance["case"]).subject for sample in samples],
            effort=EFFORT,
        )
        for side, samples in sides.items()
    }
    features = features_of(next(iter(sets.values())))
    for each in sets.values():
        each.once("features", lambda: features)
    colours = ["#888888", *["#3b6ea5"] * len(GENERATORS), *["#c0504d"] * 2]
    for name in METRICS:
        if name in LEFT_OUT:
            continue
        found = [numbers(installed().load("metrics", name)(), each) for each in sets.values()]
        key = FIGURES.get(name) or next(iter(found[0]))
        values = [each[key] for each in found]
        figure, axes = plt.subplots(figsize=(3.2, 1.9), dpi=100)
        axes.barh(list(sides), values, color=colours)
        if 0 < FAR * min(values) < max(values):
            axes.set_xscale("log")
        axes.invert_yaxis()
        axes.set_title(f"{name}: {key}", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        figure.tight_layout()
        figure.savefig(FOLDER / f"metric_{name}.png")
        plt.close(figure)
        print(f"metric_{name}.png: {key} {[round(value, 3) for value in values]}")


PARTS = {"generators": generators, "filters": filters, "metrics": metrics}


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for part in sys.argv[2:] or PARTS:
        PARTS[part](Path(sys.argv[1]))
