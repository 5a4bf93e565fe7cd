"""Samples of a run or a sample bank, and real crops to compare with, in one space."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.core.body_mask import shown_body
from gansynth.core.geometry import mask_of
from gansynth.core.identity import matches
from gansynth.core.lineage import Lineage
from gansynth.core.schema import Case, Sample, Schema
from gansynth.core.source import CaseSource
from gansynth.core.space import Space
from gansynth.core.units import IMAGES, UnitCheck, values_of
from gansynth.data.batches import CaseBatches, CaseCache
from gansynth.data.connected_components import parts
from gansynth.data.grid import same_spacing
from gansynth.data.held_out import held_out_of
from gansynth.imaging.box_contrast import ONE_WAY, contrasts
from gansynth.imaging.lesion_grain import LEAST_VOXELS, tissue_around, value_limits
from gansynth.metrics.comparison import EFFORTS, Comparison, Effort, Floats, Image, check_images
from gansynth.metrics.distances import BANDS, radial_power
from gansynth.metrics.lesions import COUNTED, LESION, MEAN, PART, SHARE, CountMetric
from gansynth.report.numbers import joined
from gansynth.runtime.errors import DataFault
from gansynth.runtime.progress import Reporter
from gansynth.sampling.manifest import Run
from gansynth.sampling.sampler import Sampler

TRIES = 20  # random positions tried in a case before it counts as empty
FEWEST = 4  # fewest samples for an evaluation


@dataclass
class KnownSubjects:
    """The cases of a source that were trained on, and those that were not."""

    members: tuple[str, ...]  # ids of cases in the lineage, by id or by image
    others: tuple[str, ...]  # ids of cases of subjects that are not in the lineage
    people: dict[str, str]

    @classmethod
    def of(cls, source: CaseSource, lineage: Lineage, cache: CaseCache) -> KnownSubjects:
        """Look up all cases of a source in a lineage and its ancestors."""
        ids = (*source.train_ids, *source.held_out_ids)
        people = {i: source.header(i).subject for i in ids}
        asked = held_out_of(source, [cache.record(i) for i in ids])
        seen: set[str] = set()
        theirs: set[str] = set()
        for maker in lineage.everyone():
            matched = matches(maker, asked)
            seen.update([i for i, match in matched.items() if match.kind != "subject"])
            theirs.update([people[i] for i in matched])
        members = [i for i in ids if i in seen]
        others = [i for i in ids if people[i] not in theirs]
        return cls(tuple(members), tuple(others), people)

    def like(self, samples: Sequence[Sample], source: CaseSource) -> KnownSubjects:
        """Select the classes of the samples, where each sample has one."""
        classes = {sample.provenance.get("class") for sample in samples}
        if not source.schema.classes or None in classes:
            return self
        numbers = {n for n, name in enumerate(source.schema.classes) if name in classes}

        def kept(ids: Sequence[str]) -> tuple[str, ...]:
            return tuple(i for i in ids if source.header(i).label_class in numbers)

        subset = KnownSubjects(kept(self.members), kept(self.others), self.people)
        if not subset.members and not subset.others:
            raise DataFault(
                "sampling.no-real-case-of-classes",
                f"{source.name}: has no case of the samples' classes "
                f"({', '.join(sorted(map(str, classes)))}), expected some; name other cases with "
                "--real",
            )
        return subset


@dataclass
class EvaluationData:
    """The evaluated samples, and the real cases they are compared with."""

    kind: str  # `run` or `bank`
    name: str  # of its folder
    generator: str
    samples: Sequence[Sample]  # in the generator's space (of a bank: as stored)
    drawn_of: Sequence[str]  # the subject whose case a sample is based on, or a unique name
    source: CaseSource
    space: Space
    schema: Schema
    known: KnownSubjects
    lineage: Lineage
    cache: CaseCache
    run: Run | None = None  # the opened run; None for a bank
    rejected: int = 0
    empty: int = 0  # skipped real crops: constant, or not what the generator learns from
    # the real case of each sample, at its place; none where no lesion was put into it
    beside: Sequence[Case | None] = ()

    @property
    def size(self) -> tuple[int, ...]:
        """Spatial size of a sample in voxels."""
        return tuple(self.samples[0].image.shape[1:])

    @cached_property
    def crops(self) -> CaseBatches:
        """Cuts cases as in training; whole resampled cases are cached."""
        return CaseBatches(self.cache, self.space)

    @property
    def reference(self) -> tuple[str, ...]:
        """Real cases to compare with: training cases, or all if there are none."""
        return self.known.members or self.known.others

    def cut(self, case_id: str, rng: np.random.Generator) -> Case:
        """A random crop that training would accept, if the case has one."""
        case = self.crops.cut(case_id, rng)
        for _ in range(TRIES if self.space.cuts else 0):
            constant = float(case.image.max()) == float(case.image.min())
            if not constant and (self.run is None or self.run.generator.accepts(case)):
                break
            case = self.crops.cut(case_id, rng)
            self.empty += 1
        return case

    def real(self, ids: Sequence[str], number: int, rng: np.random.Generator) -> list[Case]:
        """Crops of cases, balanced over subjects.

        Args:
            number: number of crops; fewer where a case yields one crop only.
            rng: of order and positions.
        """
        turns: dict[str, list[str]] = {}
        for n in rng.permutation(len(ids)).tolist():
            turns.setdefault(self.known.people[ids[n]], []).append(ids[n])
        most = number if self.space.cuts else min(number, len(ids))
        crops: list[Case] = []
        turn = 0
        while len(crops) < most:
            for subject_cases in list(turns.values()):
                if len(crops) < most and (self.space.cuts or turn < len(subject_cases)):
                    crops.append(self.cut(subject_cases[turn % len(subject_cases)], rng))
            turn += 1
        return [case for case in crops if float(case.image.max()) != float(case.image.min())]

    def comparison(
        self, number: int, seed: int, effort: Effort, device: str, reporter: Reporter
    ) -> Comparison:
        """Samples, and crops of the reference."""
        if len(self.samples) < FEWEST:
            raise DataFault(
                "sampling.too-few-samples-to-evaluate",
                f"{self.name}: {len(self.samples)} sample(s), expected at least {FEWEST} to "
                "evaluate; generate more with -n",
            )
        with reporter.task(number, "real crops") as bar:
            real = self.real(self.reference, number, np.random.default_rng((seed, 1)))
            bar.advance(number)
        names = [f"sample {n}" for n in range(len(self.samples))]
        check_images([s.image for s in self.samples], names, self.schema, self.size)
        names = [f"case {case.id!r}" for case in real]
        check_images([case.image for case in real], names, self.schema, self.size)
        people = [self.known.people[case.id] for case in real]
        return Comparison(
            self.samples,
            real,
            self.schema,
            self.drawn_of,
            self.beside,
            people,
            seed,
            effort,
            device,
            reporter,
        )

    def document_entries(self, comparison: Comparison) -> dict[str, Any]:
        """``of``, ``data`` and ``images`` of the document."""
        cases, people = self.known, self.known.people
        members = bool(cases.members)
        return {
            "of": {"kind": self.kind, "name": self.name, "generator": self.generator},
            "data": {
                "name": self.source.name,
                "fold": self.source.request.fold,
                "reference": "training cases" if members else "cases of another source",
                "subjects": len({people[i] for i in self.reference}),
                "cases": len(self.reference),
                "held_out_subjects": len({people[i] for i in cases.others}) if members else 0,
                "held_out_cases": len(cases.others) if members else 0,
            },
            "images": {
                "samples": len(self.samples),
                "rejected": self.rejected,
                "real": len(comparison.real),
                "empty": self.empty,
                "axes": self.schema.axes,
                "size": list(self.size),
                "spacing": list(self.schema.spacing),
                "channels": list(self.schema.channels),
                "labels": dict(self.schema.labels),
                "seed": comparison.seed,
            },
        }


def own_names(samples: Sequence[Sample], lineage: Lineage) -> list[str]:
    """Subject of each sample by its provenance; a unique name if there is none."""
    people = {case.id: case.subject for lin in lineage.everyone() for case in lin.cases}
    names = []
    for number, sample in enumerate(samples):
        case = sample.provenance.get("case")
        names.append(f"sample {number}" if case is None else people.get(str(case), str(case)))
    return names


def folder_kind(folder: Path) -> str:
    """``bank`` for a folder with ``bank.json``, else ``run``."""
    return "bank" if (folder / "bank.json").is_file() else "run"


# -- will samples harm? A handful beside training cases, in plain lines ----------------------------


DRAWN, REAL = 32, 64  # samples of a generator; training cases
AT_ONCE = 16  # batch size of sampling
MOST_TRIED = 4  # most samples generated for each one used, since some are rejected
SECONDS = 20.0  # after which a slow generator draws no further ones
FLAT, BLURRED = 2 / 3, 1 / 4
"""Deviation of samples, and power of their finest detail, as shares of those of training cases,
below which they are flat or blurred; docs/will_it_harm.md has what was measured."""
SIZED, OTHER_SIZE, FEWEST_SIZES = 0.8, 2 / 3, 12
"""Share of the larger median size of lesions from which the smaller one is alike, and below which
it differs; fewest lesions of samples and of training cases."""
BY_CHANCE = 0.05  # probability below which a difference from few people is none of chance
DETAILED = 16  # images of each kind whose detail is measured
LIKE, DIFFERS, UNCLEAR, NO_LIMIT = "like real", "unlike real", "unclear", ""
NOTES = {LIKE: ": as in the training cases", DIFFERS: ": differs"}
QUESTION = "will it harm?"


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
            if first == FEWEST:
                ends = time.monotonic() + seconds
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
            "sampling.all-samples-rejected",
            f"{sampler.run.folder}: all of {first} samples are rejected, expected some to "
            f"evaluate; look at them (gansynth sample {sampler.run.folder} --sheet), or evaluate "
            "them anyway: --filter none",
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
                "sampling.real-source-differs",
                f"--real {source.name}: its {key} are {value}, samples of {owner} have {expected}; "
                "expected the same. Read it in the same way: --real-read KEY=VALUE",
            )
    if not same_spacing(actual.spacing, schema.spacing):
        raise DataFault(
            "sampling.real-spacing-differs",
            f"--real {source.name}: its spacing is {_mm(actual.spacing)}, samples of {owner} have "
            f"{_mm(schema.spacing)}; expected the same. Resample it: --real-read spacing=...",
        )
    common = schema.labels.keys() & actual.labels.keys()
    differing = [name for name in sorted(common) if schema.labels[name] != actual.labels[name]]
    if differing:
        name = differing[0]
        raise DataFault(
            "sampling.real-label-differs",
            f"--real {source.name}: label {name!r} is {actual.labels[name]}, samples of {owner} "
            f"have {schema.labels[name]}; expected the same. Read it with --real-read labels=...",
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
    document["rejected"] = rejected
    for scans in sampler.others.unlabelled:
        if not scans.has_maps:
            _doubt(document, len(scans.train_ids), vouched=sampler.request.lesion_free)
    return document


def _doubt(document: dict[str, Any], scans: int, *, vouched: bool) -> None:
    """Say that nothing here knows whether scans are free of lesions; so samples may harm."""
    who = "your word alone says" if vouched else "nobody says (--lesion-free, if you know it)"
    name = "what the unlabelled scans show"
    words = f"{name}: {who} that these {scans} are free of lesions; one would be learnt as tissue"
    row = {"name": name, "needed": True, "finding": UNCLEAR, "words": words}
    document["lines"].append(words)
    document["figures"].append(row)
    if document["harms"] is False:
        document |= {"harms": None, "answer": f"{QUESTION} cannot tell: {words}"}


def compare_with_training(
    where: Path,
    samples: Sequence[Sample],
    source: CaseSource,
    space: Space,
    lineage: Lineage,
    reporter: Reporter,
) -> dict[str, Any]:
    """Return ``lines``, and their figures, of samples in a space beside training cases cut to it.

    A line ends in a judgement where there is a limit; ``answer`` follows from these. Lesions are of
    the classes that were put into real images, else of the whole foreground.
    """
    people = {case_id: source.header(case_id).subject for case_id in source.train_ids}
    known = KnownSubjects(tuple(people), (), people).like(samples, source)
    schema = space.generator_schema(source.schema)  # of nnU-Net's 2d: that of slices
    data = EvaluationData(
        kind="",
        name=str(where),
        generator="",
        samples=samples,
        drawn_of=own_names(samples, lineage),
        source=source,
        space=space,
        schema=schema,
        known=known,
        lineage=lineage,
        cache=CaseCache(source),
    )
    put = [s.provenance["lesions"] for s in samples if "lesions" in s.provenance]
    classes = {value for lesion in put for value in lesion["classes"]} or schema.foreground
    labels = {k: v for k, v in schema.labels.items() if v <= 0 or v in classes}
    comparison = data.comparison(REAL, 0, EFFORTS["standard"], "cpu", reporter)
    comparison = replace(comparison, schema=replace(schema, labels=labels))
    rows = [*_units(where, comparison), *_detail(comparison)]
    beside_own = [lesion for lesion in put if lesion["where"] != "own"]
    instead = [lesion for lesion in put if lesion.get("emptied")]  # as many as before: no advice
    try:
        rows += _lesion_rows(comparison, added=bool(beside_own) and not instead)
    except DataFault as fault:
        words = f"lesions: not compared: {fault}"
        rows.append({"name": "lesions", "needed": True, "finding": UNCLEAR, "words": words})
    cases = len({case.id for case in comparison.real})
    beside = f"{len(comparison.real)} real images, cut from {cases} training case(s)"
    lines = [f"{len(samples)} samples beside {beside}"]
    lines += [row["words"] for row in rows]
    return {
        "samples": len(samples),
        "real_images": len(comparison.real),
        "training_cases": cases,
        "figures": rows,
        "lines": lines,
        **answer_of(rows, where),
    }


def answer_of(rows: Sequence[Mapping[str, Any]], where: Path) -> dict[str, Any]:
    """Return whether samples will harm by the findings of ``rows``: ``harms``, and a sentence.

    Nobody can tell without a finding on a ``needed`` figure: ``harms`` is None. ``where``: what the
    samples are of.
    """
    names: dict[str, list[str]] = {}
    for row in rows:
        names.setdefault(row["finding"], []).append(row["name"])
    if DIFFERS in names:
        words = f"yes: samples differ from training cases in {joined(names[DIFFERS])}"
        return {"harms": True, "answer": f"{QUESTION} {words}"}
    unknown = joined(names.get(UNCLEAR, []))
    if LIKE not in [row["finding"] for row in rows if row.get("needed")]:
        words = f"cannot tell: too little is known of {unknown}"
        if "lesions" not in names.get(UNCLEAR, []):  # whose row says why nothing is compared
            words += f"; {shlex.join(['gansynth', 'evaluate', str(where)])} compares more samples"
        return {"harms": None, "answer": f"{QUESTION} {words}"}
    but = f"; too little is known of {unknown}" if unknown else ""
    like = f"{len(names[LIKE])} figures are as in the training cases, none differs{but}"
    return {"harms": False, "answer": f"{QUESTION} likely not: {like}"}


def _units(where: Path, comparison: Comparison) -> Iterator[dict[str, Any]]:
    """Yield median, deviation, least and most of each channel, of samples and of real images."""
    check, refused = UnitCheck(where), False
    sides = [[image.image for image in side] for side in (comparison.samples, comparison.real)]
    try:
        for images, synthetic in zip(sides, (True, False), strict=True):
            for image in images[:IMAGES]:
                check.look(image, synthetic=synthetic)
    except DataFault:
        refused = True
    medians = [np.median([values_of(image) for image in images], axis=0) for images in sides]
    limits = [value_limits(images).T for images in sides]
    for number, name in enumerate(comparison.schema.channels):
        values = [
            [*middle[number, :2].tolist(), *ends[number].tolist()]
            for middle, ends in zip(medians, limits, strict=True)
        ]
        mine, real = [deviation for _, deviation, *_ in values]
        finding, note = LIKE, "the same units"
        if refused:
            finding, note = DIFFERS, "other units, which a training refuses"
        elif mine < FLAT * real:
            share = 100 * mine / real
            finding, note = DIFFERS, f"flat, {share:.0f} % of their deviation; fit a network longer"
        text = "median {:.3g}, deviation {:.3g}, from {:.3g} to {:.3g}"
        texts = [text.format(*value) for value in values]
        yield _row(f"values of {name}", values, texts, finding, f": {note}")


def _detail(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """Yield the power of the finest third of frequencies over that of real images, by channel."""
    powers = []
    for images in (comparison.samples, comparison.real):
        each = [radial_power(i.image, comparison.schema.spacing) for i in images[:DETAILED]]
        powers.append(np.mean(each, axis=0)[:, -(BANDS // 3) :])  # (C, bands)
    shares = []
    for mine, real in zip(*powers, strict=True):
        known = real > 0  # neither a constant channel nor a band without a frequency
        shares += [float((mine[known] / real[known]).mean())] * bool(known.any())
    if not shares:
        return
    ends = [min(shares), max(shares)]
    finding, note = NO_LIMIT, ""
    if ends[0] < BLURRED:
        finding, note = DIFFERS, ": blurred; fit a network longer"
    percentages = [f"{end:.0%}" for end in ends]
    texts = [f"{' to '.join(dict.fromkeys(percentages))} of the power", "100%"]
    yield _row("finest detail", [ends, [1.0, 1.0]], texts, finding, note)


def _lesion_rows(comparison: Comparison, *, added: bool) -> Iterator[dict[str, Any]]:
    """Yield what is said of lesions; ``added``: set beside real ones, so that there is advice."""
    figures = {figure.name: figure for figure in CountMetric().figures(comparison)}
    word = PART if COUNTED[MEAN][0].format(PART) in figures else LESION
    elsewhere = "where=own" if word == PART else "swap"
    for of, text, way_out in (
        (SHARE, "{:.0%}", "see --prevalence"),
        (MEAN, "{:.1f}", f"see --lesions {elsewhere}"),
    ):  # of all lesions; those by size have no limits
        figure = figures[COUNTED[of][0].format(word)]
        values = [figure.value, figure.real]
        note = NOTES.get(figure.finding, "")
        more = (figure.difference or 0) > 0
        if added and more and figure.finding == DIFFERS:
            note += f"; {way_out}"
        texts = [text.format(value) for value in values]
        row = _row(figure.name, values, texts, figure.finding, note)
        row["needed"] = of == MEAN  # more lesions an image raise false alarms
        yield row
    yield from _lesion_looks(comparison, word)


def _lesion_looks(comparison: Comparison, word: str) -> Iterator[dict[str, Any]]:
    """Yield the size of lesions and, by channel, their contrast and the share that is darker."""
    each: list[list[Image]] = [list(comparison.samples), list(comparison.real)]
    unlabelled = [image for side in each for image in side if image.labels is None]
    of = _in_boxes if unlabelled else _in_labels
    found = [[rows for image in side for rows in of(image, comparison.schema)] for side in each]
    if not all(found):
        return
    sides = [np.concatenate(rows) for rows in found]
    people = len(set(comparison.people))  # each is cut several times
    sizes = [np.quantile(side[:, 0], (0.5, 0.1, 0.9)).round(1).tolist() for side in sides]
    unit = "pixels" if comparison.schema.ndim == 2 else "voxels"
    text = f"median {{:g}} {unit} (10 to 90%: {{:g}} to {{:g}})"
    finding = _same_size(*[size[0] for size in sizes], fewest=min(map(len, sides)))
    texts = [text.format(*size) for size in sizes]
    yield _row(f"size of {word}s", sizes, texts, finding, NOTES.get(finding, ""))
    for number, channel in enumerate(comparison.schema.channels, start=1):
        columns = [side[np.isfinite(side[:, number]), number] for side in sides]
        if not all(map(len, columns)):
            continue
        steps = [np.quantile(column, (0.5, 0.1, 0.9)).tolist() for column in columns]
        texts = ["median {:+.2g} (10 to 90%: {:+.2g} to {:+.2g})".format(*step) for step in steps]
        yield _row(f"contrast of {word}s in {channel}", steps, texts, NO_LIMIT)
        darker = [float((column < 0).mean()) for column in columns]
        finding = _same_way(*darker, people=people)
        name = f"{word}s darker than their surroundings in {channel}"
        texts = [f"{share:.0%}" for share in darker]
        yield _row(name, darker, texts, finding, NOTES.get(finding, ""))


def _same_size(mine: float, real: float, *, fewest: int) -> str:
    """Return the finding on the median sizes of samples' and of real lesions."""
    if fewest < FEWEST_SIZES:
        return NO_LIMIT
    share = min(mine, real) / max(mine, real)
    return LIKE if share >= SIZED else DIFFERS if share < OTHER_SIZE else UNCLEAR


def _same_way(mine: float, real: float, *, people: int) -> str:
    """Return the finding on the shares of samples' and of real lesions that are darker.

    Of few training ``people`` all may be of one sign by chance: four of four are in 0.2 of draws
    where 0.7 of all lesions are. It differs where chance is less than ``BY_CHANCE``.
    """
    if max(real, 1 - real) < ONE_WAY:
        return NO_LIMIT  # real ones go either way
    alike = mine if real >= ONE_WAY else 1 - mine
    if alike >= ONE_WAY:
        return LIKE
    return DIFFERS if alike < 2 * ONE_WAY - 1 and alike**people < BY_CHANCE else UNCLEAR


def _row(
    name: str, values: Sequence[Any], texts: Sequence[str], finding: str, note: str = ""
) -> dict[str, Any]:
    """Return a figure of samples and of training cases with its finding, in words, too."""
    mine, real = [text.replace("%", " %") for text in texts]
    return {
        "name": name,
        "samples": values[0],
        "training_cases": values[1],
        "finding": finding,
        "words": f"{name}: samples {mine}; training cases {real}{note}",
    }


def _in_boxes(image: Image, schema: Schema) -> Iterator[Floats]:
    """Yield (N, 1 + C), size and contrast to the rim of each box, by channel."""
    if image.boxes is not None and len(image.boxes.labels):
        low, high = np.split(image.boxes.coords, 2, axis=1)
        yield np.column_stack([(high - low).prod(axis=1), contrasts(image.image, image.boxes)])


def _in_labels(image: Image, schema: Schema) -> Iterator[Floats]:
    """Yield (1, 1 + C), voxels and contrast to the tissue near it of each lesion, by channel."""
    labels = np.asarray(image.labels)
    lesions = mask_of(labels, schema.foreground)
    tissue = shown_body(image.image, labels) & ~lesions
    for part in parts(labels, schema, schema.foreground):
        contrast = np.full(len(image.image), np.nan)
        if part.voxels >= LEAST_VOXELS:
            _, near = tissue_around(part, image.image, tissue)
            inside = image.image[(slice(None), *part.box)][:, part.mask]
            contrast = inside.mean(axis=1, dtype=np.float64) - near
        yield np.array([[part.voxels, *contrast]])
