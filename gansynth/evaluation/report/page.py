"""The report as a whole: what stands on top, and its sections in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gansynth.benchmark.report.blocks import Block, Items, Section, Terms, Words
from gansynth.benchmark.report.document import Node
from gansynth.benchmark.report.rendering import Report
from gansynth.benchmark.report.svg import Drawings
from gansynth.benchmark.report.words import Line, Linked, joined, whole
from gansynth.evaluation.report.curves import curves
from gansynth.evaluation.report.faithfulness import faithfulness
from gansynth.evaluation.report.found import RESULTS, shortest, told
from gansynth.evaluation.report.maps import WARNING, maps
from gansynth.evaluation.report.memorisation import memorisation
from gansynth.evaluation.report.parts import parts
from gansynth.evaluation.report.realism import figures
from gansynth.evaluation.report.records import identity, privacy, seconds

NO_WORDS = "What this evaluation shows is not put in words; see its parts, below."


def compose(document: Mapping[str, Any], pictures: Mapping[str, bytes]) -> Report:
    """Work out what a report says.

    Args:
        document: the evaluation; any part may be missing.
        pictures: name of a point of the maps -> PNG file.
    """
    root = Node(dict(document))
    not_shown = [[told(node)] for node in root["words"]["not_shown"] if node.text]
    return Report(
        name=f"Evaluation of {root['of']['name'].text or 'a generator without a name'}",
        sentence=_sentences(root["words"]["shown"]) or [NO_WORDS],
        scope=_scope(root),
        warnings=[
            *([told(alarm["text"])] for alarm in root["alarms"] if alarm["text"]),
            *([WARNING],) * bool(pictures),
        ],
        lead=[Items("Not shown:", not_shown)] if not_shown else [],
        parts=parts(root),
        parts_title="In short",
        sections=_sections(root, pictures),
        footer=[f"gansynth {root['gansynth'].text or 'of an unknown version'}"],
        maker="gansynth evaluate",
        results=RESULTS,
    )


def _sentences(node: Node) -> Line:
    """The document's own sentences, one behind the other."""
    return joined([[told(sentence)] for sentence in node if sentence.text], " ", " ")


def _scope(root: Node) -> Line:
    """What was evaluated, in one line."""
    of, data, images = root["of"], root["data"], root["images"]
    line: list[str | Linked] = [f"{of['kind'].text} {of['name'].text}".strip().capitalize()]
    line = ["Something unknown"] if not line[0] else line
    if of["generator"]:
        line.append(f", drawn by {of['generator'].text}")
    if data["name"]:
        line.append(f" · {data['name'].text}")
    if data["fold"]:
        line.append(f", fold {data['fold'].text}")
    if images["samples"]:
        line += [" · ", whole(images["samples"]), " samples"]
    if images["real"]:
        line += [" beside ", whole(images["real"]), " real images"]
    return [*line, *_people(data), *_images(images), "."]


def _people(data: Node) -> Line:
    """Whose images the real ones are."""
    line: list[str | Linked] = []
    if data["reference"]:
        line.append(f" · real: {data['reference'].text}")
    if data["subjects"]:
        line += [" of ", whole(data["subjects"]), " people"]
    if data["held_out_subjects"]:
        line += [", ", whole(data["held_out_subjects"]), " held out"]
    return line


def _images(images: Node) -> Line:
    """What an image is."""
    line: list[str | Linked] = []
    size = [whole(node) for node in images["size"] if node.number is not None]
    if size:
        line += [" · ", *joined([[one] for one in size], " × ", " × "), " voxels"]
    spacing = [shortest(node) for node in images["spacing"] if node.number is not None]
    if spacing:
        line += [" of ", *joined([[one] for one in spacing], " × ", " × "), " mm"]
    channels = [channel.text for channel in images["channels"] if channel.text]
    labels = [name for name, _ in images["labels"].members() if name != "background"]
    line += [f" · {', '.join(channels)}"] * bool(channels)
    line += [f" · labels: {', '.join(labels)}"] * bool(labels)
    if images["seed"].number is not None:
        line += [" · seed ", whole(images["seed"])]
    return line


def _sections(root: Node, pictures: Mapping[str, bytes]) -> tuple[Section, ...]:
    drawings = Drawings()
    return (
        Section("realism", "Realism", "Realism", figures(root, drawings)),
        Section("curves", "Spectra and intensities", "Curves", curves(root, drawings)),
        Section("maps", "Maps", "Maps", maps(root, pictures)),
        Section(
            "faithfulness", "Faithfulness to labels", "Faithfulness", faithfulness(root, drawings)
        ),
        Section("memorisation", "Memorisation", "Memorisation", memorisation(root, drawings)),
        Section("identity", "Exported files", "Exported files", identity(root)),
        Section("privacy", "Differential privacy", "Privacy", privacy(root)),
        Section("seconds", "Seconds", "Seconds", seconds(root)),
        Section("reading", "How to read this", "How to read", _reading()),
    )


def _reading() -> Sequence[Block]:
    lines = (
        "A distance of samples to real images says nothing by itself: images of other real people "
        "are not at distance zero either. So each figure is worked out twice: for samples, and for "
        "other real people in their place, against the same real people. Real people are dealt out "
        "in two halves, again and again, and nobody is in both; where such comparisons of real "
        "people lie is the band. Samples within it are as far from real people as these are from "
        "each other.",
        "A figure is unlike real if it lies outside the band on the wrong side and the interval of "
        "the difference leaves zero out (of a test: p is below 0.05). It is unclear if only one of "
        "both holds, or too little is known. Like real means: not told apart by this figure with "
        "so many images, no more.",
    )
    terms: tuple[tuple[str, Line], ...] = (
        ("band", ["drawn equally wide in each row of realism; right of it a row is logarithmic, "
                  "and 10× is ten half widths of the band from its middle"]),
        ("95 % CI", ["holds the true value in 95 % of such evaluations; of few people it is wide"]),
        ("p", ["how often chance alone would show as much; below 0.05 it is called shown"]),
        ("two-sample test", ["a classifier is to tell samples from real images: 0.5 is a coin, so "
                             "they are alike to it; 1 is always right"]),
        ("AUC", ["the chance that an attack holds a person that was trained on for a member rather "
                 "than one that was not: 0.5 is a coin, 1 gives everybody away"]),
        ("ratio", ["Dice of samples over that of real cases"]),
        ("shuffled", ["each sample with the labels of another: what a judge finds by chance, or by "
                      "what all samples have in common"]),
        ("usual distance", ["that of a real image to the nearest one of another person"]),
        ("numbers", [f"each is a link to its place in {RESULTS}, named by its JSON pointer"]),
    )  # fmt: skip
    return [*(Words([line]) for line in lines), Terms(terms)]
