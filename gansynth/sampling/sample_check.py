"""Will samples harm? A handful beside training cases, in the generator's space, in plain lines."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.core.body_mask import organ_mask
from gansynth.core.geometry import mask_of
from gansynth.core.lineage import Lineage
from gansynth.core.schema import OUTSIDE, Sample, Schema
from gansynth.core.source import CaseSource
from gansynth.core.space import Space
from gansynth.core.units import IMAGES, UnitCheck
from gansynth.data.cache import CaseCache
from gansynth.data.grid import same_spacing
from gansynth.data.lesion_contrast import ONE_WAY, contrasts
from gansynth.data.lesions import LEAST, parts, tissue_around, value_limits
from gansynth.metrics.comparison import EFFORTS, Comparison, Floats, Image
from gansynth.metrics.lesions import LESION, PART, CountMetric
from gansynth.runtime.errors import DataFault
from gansynth.runtime.progress import Reporter
from gansynth.sampling.evaluation_data import FEWEST, EvaluationData, KnownSubjects, own_names
from gansynth.sampling.sampler import Sampler

DRAWN, REAL = 32, 64  # samples of a generator; training cases
AT_ONCE = 16  # batch size of sampling
MOST_TRIED = 4  # most samples generated for each one used, since some are rejected
SECONDS = 20.0  # after which a slow generator draws no further ones
LIKE, DIFFERS = ": as in the training cases", ": differs"
VERDICTS = {"like real": LIKE, "unlike real": DIFFERS, "unclear": ""}


def draw_accepted(
    sampler: Sampler, number: int, reporter: Reporter, seconds: float = math.inf
) -> tuple[list[Sample], int]:
    """Generate samples in the generator's space, skip rejected ones, and count them.

    ``seconds``: so long after the first ``FEWEST`` no further ones are begun, unless fewer are
    there and few were rejected. The first take longer, as what they need is learnt with them.
    """
    samples: list[Sample] = []
    rejected = first = 0
    at_once = AT_ONCE if seconds == math.inf else FEWEST
    ends = math.inf
    with reporter.task(number, "samples") as bar:
        while len(samples) < number and first < MOST_TRIED * number:
            enough = len(samples) >= FEWEST or first >= MOST_TRIED * FEWEST
            if enough and time.monotonic() > ends:
                break
            ends = time.monotonic() + seconds if first == FEWEST else ends
            count = min(at_once, number - len(samples))
            for sample in sampler.draw_raw(first, count):
                if not sampler.request.keep_flawed and sample.provenance.get("reject_reason"):
                    rejected += 1
                    continue
                samples.append(sample)
                bar.advance(1)
            first += count
    if not samples:
        raise DataFault(
            f"{sampler.run.folder}: all of {first} samples are rejected, expected some to "
            "evaluate; look at them (gansynth sample --sheet), or evaluate them anyway: "
            "--filter none"
        )
    return samples, rejected


def check_alike(source: CaseSource, schema: Schema, owner: str) -> None:
    """Refuse real cases that samples cannot be compared with.

    Args:
        schema: of a bank's samples.
        owner: of the samples, for messages.
    """
    actual = source.schema
    pairs = (
        ("channels", ", ".join(actual.channels), ", ".join(schema.channels)),
        ("axes", actual.axes, schema.axes),
    )
    for key, value, expected in pairs:
        if value != expected:
            raise DataFault(
                f"--real {source.name}: its {key} are {value}, samples of {owner} have {expected}; "
                "expected the same. Read it in the same way: --real-read KEY=VALUE"
            )
    if not same_spacing(actual.spacing, schema.spacing):
        raise DataFault(
            f"--real {source.name}: its spacing is {_mm(actual.spacing)}, samples of {owner} have "
            f"{_mm(schema.spacing)}; expected the same. Resample it: --real-read spacing=..."
        )
    common = schema.labels.keys() & actual.labels.keys()
    differing = [name for name in sorted(common) if schema.labels[name] != actual.labels[name]]
    if differing:
        name = differing[0]
        raise DataFault(
            f"--real {source.name}: label {name!r} is {actual.labels[name]}, samples of {owner} "
            f"have {schema.labels[name]}; expected the same. Read it with --real-read labels=..."
        )


def _mm(spacing: Sequence[float]) -> str:
    return " x ".join(f"{mm:g}" for mm in spacing) + " mm"


def check_run(sampler: Sampler, reporter: Reporter) -> dict[str, Any]:
    """Compare samples of a run with its training cases; see ``compare_with_training``."""
    samples, rejected = draw_accepted(sampler, DRAWN, reporter, SECONDS)
    run, source, lineage = sampler.run, sampler.source, sampler.lineage
    document = compare_with_training(run.folder, samples, source, run.space, lineage, reporter)
    if rejected:
        document["lines"][0] += f", {rejected} more were rejected"
    if len(samples) < DRAWN:
        document["lines"][0] += f", not {DRAWN}: drawing is slow, or rejects many"
    return {**document, "rejected": rejected}


def compare_with_training(
    where: Path,
    samples: Sequence[Sample],
    source: CaseSource,
    space: Space,
    lineage: Lineage,
    reporter: Reporter,
) -> dict[str, Any]:
    """Return ``lines``, and their figures, of samples in a space beside training cases cut to it.

    A line ends in a judgement where there is a limit. Lesions are of the classes that were put into
    real images, else of the whole foreground.

    Raises:
        DataFault: fewer than four samples, or images that cannot be compared.
    """
    people = {case_id: source.header(case_id).subject for case_id in source.train_ids}
    known = KnownSubjects(tuple(people), (), people).like(samples, source)
    data = EvaluationData(
        *("", str(where), "", samples, own_names(samples, lineage), source, space, source.schema),
        *(known, lineage, CaseCache(source)),
    )
    put = [s.provenance["lesions"] for s in samples if "lesions" in s.provenance]
    classes = {value for lesion in put for value in lesion["classes"]} or source.schema.foreground
    labels = {k: v for k, v in source.schema.labels.items() if v <= 0 or v in classes}
    comparison = data.comparison(REAL, 0, EFFORTS["standard"], "cpu", reporter)
    comparison = replace(comparison, schema=replace(source.schema, labels=labels))
    rows = [*_units(where, comparison)]
    added = any(lesion["where"] != "own" for lesion in put)
    added &= not any(lesion.get("emptied") for lesion in put)  # which are matched already
    try:
        rows += _lesion_rows(comparison, added=added)
    except DataFault as fault:
        rows.append({"words": f"lesions: not compared: {fault}"})
    lines = [f"{len(samples)} samples beside {len(comparison.real)} training cases"]
    counted = {"samples": len(samples), "training_cases": len(comparison.real)}
    return {**counted, "figures": rows, "lines": [*lines, *(row["words"] for row in rows)]}


def _units(where: Path, comparison: Comparison) -> Iterator[dict[str, Any]]:
    """Yield median, deviation, least and most of each channel, of samples and of real images."""
    check, verdict = UnitCheck(where), "the same units"
    sides = [[image.image for image in side] for side in (comparison.samples, comparison.real)]
    try:
        for images, synthetic in zip(sides, (True, False), strict=True):
            for image in images[:IMAGES]:
                check.look(image, synthetic=synthetic)
    except DataFault:
        verdict = "other units, which a training refuses"
    limits = [value_limits(images).T for images in sides]
    for number, name in enumerate(comparison.schema.channels):
        pairs = zip(reversed(check.medians), limits, strict=True)
        values = [
            [*medians[number, :2].tolist(), *ends[number].tolist()] for medians, ends in pairs
        ]
        text = "median {:.3g}, deviation {:.3g}, from {:.3g} to {:.3g}"
        yield _row(f"units of {name}", values, [text.format(*v) for v in values], f": {verdict}")


def _lesion_rows(comparison: Comparison, *, added: bool) -> Iterator[dict[str, Any]]:
    """Yield what is said of lesions; ``added``: set beside real ones, so that there is advice."""
    figures = CountMetric().figures(comparison)
    word = PART if PART in figures[0].name else LESION
    advice = ("see --prevalence", f"see --lesions {'where=own' if word == PART else 'match'}")
    for figure, text, way_out in zip(figures, ("{:.0%}", "{:.1f}"), advice, strict=True):
        values = [figure.value, figure.real]
        told = VERDICTS[figure.finding]
        more = (figure.difference or 0) > 0
        told += f"; {way_out}" if added and more and told == DIFFERS else ""
        yield _row(figure.name, values, [text.format(value) for value in values], told)
    every: list[Image] = [*comparison.samples, *comparison.real]
    of = _in_labels if all(image.labels is not None for image in every) else _in_boxes
    each: list[list[Image]] = [list(comparison.samples), list(comparison.real)]
    found = [[rows for image in side for rows in of(image, comparison.schema)] for side in each]
    if not all(found):
        return
    sides = [np.concatenate(rows) for rows in found]
    sizes = [np.quantile(side[:, 0], (0.5, 0.1, 0.9)).round(1).tolist() for side in sides]
    unit = "pixels" if comparison.schema.ndim == 2 else "voxels"
    text = f"median {{:g}} {unit} (10 to 90%: {{:g}} to {{:g}})"
    yield _row(f"size of {word}s", sizes, [text.format(*size) for size in sizes])
    for number, channel in enumerate(comparison.schema.channels, start=1):
        columns = [side[np.isfinite(side[:, number]), number] for side in sides]
        if all(map(len, columns)):
            mine, real = shares = [float((column < 0).mean()) for column in columns]
            alike = mine if real >= ONE_WAY else 1 - mine
            known = max(real, 1 - real) >= ONE_WAY
            told = LIKE if alike >= ONE_WAY else DIFFERS if alike < 2 * ONE_WAY - 1 else ""
            name = f"{word}s darker than their surroundings in {channel}"
            yield _row(name, shares, [f"{share:.0%}" for share in shares], told if known else "")


def _row(name: str, values: Sequence[Any], texts: Sequence[str], told: str = "") -> dict[str, Any]:
    """Return a figure of samples and of training cases, in words, too."""
    mine, real = (text.replace("%", " %") for text in texts)
    words = f"{name}: samples {mine}; training cases {real}{told}"
    return {"name": name, "samples": values[0], "training_cases": values[1], "words": words}


def _in_boxes(image: Image, schema: Schema) -> Iterator[Floats]:
    """Yield (N, 1 + C), size and contrast to the rim of each box, by channel."""
    if image.boxes is not None and len(image.boxes.labels):
        low, high = np.split(image.boxes.coords, 2, axis=1)
        yield np.column_stack([(high - low).prod(axis=1), contrasts(image.image, image.boxes)])


def _in_labels(image: Image, schema: Schema) -> Iterator[Floats]:
    """Yield (1, 1 + C), voxels and contrast to the tissue near it of each lesion, by channel."""
    labels = np.asarray(image.labels)
    lesions = mask_of(labels, schema.foreground)
    tissue = organ_mask(image.image) & (labels != OUTSIDE) & ~lesions
    for part in parts(labels, schema, schema.foreground):
        contrast = np.full(len(image.image), np.nan)
        if part.voxels >= LEAST:
            _, near = tissue_around(part, image.image, tissue)
            inside = image.image[(slice(None), *part.box)][:, part.mask]
            contrast = inside.mean(axis=1, dtype=np.float64) - near
        yield np.array([[part.voxels, *contrast]])
