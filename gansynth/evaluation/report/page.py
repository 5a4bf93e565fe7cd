"""The whole report: summary, sections in order, and how to read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from markupsafe import Markup

from gansynth.evaluation.report.assessments import RESULTS, parts, shortest
from gansynth.evaluation.report.curves import curves
from gansynth.evaluation.report.faithfulness import faithfulness
from gansynth.evaluation.report.maps import WARNING, maps
from gansynth.evaluation.report.memorisation import memorisation
from gansynth.evaluation.report.realism import figures
from gansynth.report.blocks import (
    Block,
    BulletList,
    Definitions,
    Details,
    Drawing,
    Paragraph,
    Report,
    Section,
    Table,
    TableColumn,
    TableRow,
    data_uri,
)
from gansynth.report.document import JsonNode, pattern
from gansynth.report.numbers import Line, LinkedNumber, derived, joined, link_number, number, whole
from gansynth.report.svg import Drawings

Strip = Mapping[str, Sequence[bytes]]  # `real` and `synthetic` -> some PNG files
NO_STRIP: Strip = MappingProxyType({})
NO_WORDS = "What this evaluation shows is not put in words; see its parts below."
LINES = (
    "A distance of samples to real images says nothing by itself: images of other real subjects "
    "have a distance above zero, too. So each figure is computed twice against the same real "
    "subjects: for samples, and for other real subjects. Real subjects are repeatedly split in two "
    "halves that share nobody. The band holds 95 % of such comparisons of real subjects. Samples "
    "within it are as far from real subjects as these are from each other.",
    "A figure is like real if it lies within the band or on its better side. It is unlike real if "
    "it lies beyond it and the interval of the difference excludes zero. It cannot tell if that "
    "interval holds zero, if it is wider than twice the band, or of few images. A test "
    "is unlike real if p is below 0.05. Like real only means: not distinguishable by this figure, "
    "with so many images.",
)
TERMS: tuple[tuple[str, Line], ...] = (
    ("band", ["of equal width in each row of realism; right of it a row is logarithmic, "
              "and 10× is ten half widths of the band from its middle"]),
    ("95 % CI", ["holds the true value in 95 % of such evaluations; of few subjects it is wide"]),
    ("p", ["probability of such a result by chance alone; below 0.05 it counts as shown"]),
    ("two-sample test", ["a classifier distinguishes samples from real images: 0.5 is chance, "
                         "1 is always right"]),
    ("AUC", ["the probability that a training subject scores higher than another one: 0.5 is "
             "chance, 1 identifies everybody"]),
    ("ratio", ["Dice of samples over that of real cases"]),
    ("shuffled", ["each sample with the labels of another: what a segmenter finds by chance, or "
                  "because all samples have it in common"]),
    ("usual distance", ["that of a real image to the nearest one of another subject"]),
)  # fmt: skip
LINKS: tuple[tuple[str, Line], ...] = (
    ("numbers", [f"each is a link to its place in {RESULTS}, named by its JSON pointer"]),
)


def compose(
    document: Mapping[str, Any], pictures: Mapping[str, bytes], strip: Strip = NO_STRIP
) -> Report:
    """Compose the report: three answers and a strip of pictures, then the sections.

    Args:
        document: the evaluation; parts that were not asked for are missing.
        pictures: name of a point of the maps -> PNG file.
    """
    root = JsonNode(dict(document))
    words = [
        BulletList(title, sentences)
        for title, key in (("Shown:", "shown"), ("Not shown:", "not_shown"))
        if (sentences := [[link_number(node)] for node in root["words"][key]])
    ]
    return Report(
        name=f"Evaluation of {root['of']['name'].text}",
        sentence=[],
        scope=_scope(root),
        warnings=[
            *([link_number(alarm["text"])] for alarm in root["alarms"]),
            *([WARNING],) * bool(pictures or strip),
        ],
        lead=words or [Paragraph([NO_WORDS])],
        parts=parts(root),
        parts_title="In short",
        answers_first=True,
        pictures=[_shown(strip)] if strip else [],
        sections=_sections(root, pictures),
        footer=[f"gansynth {root['gansynth'].text}"],
        maker="gansynth evaluate",
        results=RESULTS,
    )


def _shown(strip: Strip) -> Drawing:
    """A row of pictures for each side."""
    rows = [
        Markup('<div class="row"><p>{}</p>{}</div>').format(
            side,
            Markup("").join(
                Markup('<img src="{}" alt="{} {}">').format(data_uri(png), side, number)
                for number, png in enumerate(images, 1)
            ),
        )
        for side, images in strip.items()
    ]
    return Drawing(Markup('<div class="strip">{}</div>').format(Markup("").join(rows)))


def _scope(root: JsonNode) -> Line:
    """The evaluated samples and data, in one line."""
    of, data, images = root["of"], root["data"], root["images"]
    line: list[str | LinkedNumber] = [f"{of['kind'].text} {of['name'].text}".capitalize()]
    if of["generator"]:
        line.append(f", generated by {of['generator'].text}")
    line.append(f" · {data['name'].text}")
    if data["fold"]:
        line.append(f", fold {data['fold'].text}")
    return [
        *(*line, " · ", whole(images["samples"]), " samples beside ", whole(images["real"])),
        *(f" real images · real: {data['reference'].text} of ", whole(data["subjects"])),
        *(" subjects, ", whole(data["held_out_subjects"]), " held out", *_images(images), "."),
    ]


def _images(images: JsonNode) -> Line:
    """Properties of an image."""
    size = joined([[whole(node)] for node in images["size"]], " × ", " × ")
    spacing = joined([[shortest(node)] for node in images["spacing"]], " × ", " × ")
    channels = ", ".join(channel.text for channel in images["channels"])
    line = [" · ", *size, " voxels of ", *spacing, f" mm · {channels}"]
    labels = [name for name, _ in images["labels"].members() if name != "background"]
    line += [f" · labels: {', '.join(labels)}"] * bool(labels)
    return [*line, " · seed ", whole(images["seed"])]


def _sections(root: JsonNode, pictures: Mapping[str, bytes]) -> tuple[Section, ...]:
    drawings = Drawings()
    return (
        Section("realism", "Realism", "Realism", figures(root, drawings)),
        Section("curves", "Spectra and intensities", "Curves", curves(root, drawings)),
        Section("maps", "Maps", "Maps", maps(root, pictures)),
        Section(
            "faithfulness", "Faithfulness to labels", "Faithfulness", faithfulness(root, drawings)
        ),
        Section("memorisation", "Memorisation", "Memorisation", memorisation(root, drawings)),
        Section("identity", "Exported files", "Exported files", _identity(root)),
        Section("seconds", "Seconds", "Seconds", _seconds(root)),
        Section("reading", "How to read this", "How to read", _reading()),
    )


def _identity(root: JsonNode) -> list[Block]:
    """Findings in exported files."""
    node = root["identity"]
    if not node:
        return [Paragraph(["No exported files were searched."], "note")]
    where = f" exported files in {node['folder'].text} were searched"
    looked: Line = [whole(node["files"]), where]
    if not node["findings"]:
        return [Paragraph([*looked, "; nothing that identifies anybody was found."])]
    rows = [TableRow([[finding.text]], pointer=finding.pointer) for finding in node["findings"]]
    table = Table("Found in exported files", [TableColumn("finding", "words")], rows)
    return [Paragraph([*looked, "."]), table]


def _seconds(root: JsonNode) -> list[Block]:
    """Time of the evaluation."""
    timed = list(root["seconds"].members())
    rows = [TableRow([[name], [number(node, 1)]]) for name, node in timed]
    of = pattern("seconds", [name for name, _ in timed])
    total = derived("sum", [node for _, node in timed], 1, of=of, holder="/seconds")
    table = Table(
        "What took how long", [TableColumn("part", "words"), TableColumn("seconds")], rows
    )
    return [Paragraph(["In all ", total, " s."]), Details("Part by part", [table])]


def _reading() -> Sequence[Block]:
    """How to read the report, in text and term by term."""
    return [*(Paragraph([line]) for line in LINES), Definitions((*TERMS, *LINKS), LINKS)]
