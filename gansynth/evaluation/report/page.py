"""The report as a whole: what stands on top, and its sections in order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gansynth.benchmark.report.blocks import Items, Section
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
from gansynth.evaluation.report.reading import reading
from gansynth.evaluation.report.realism import figures
from gansynth.evaluation.report.records import identity, seconds

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
        Section("seconds", "Seconds", "Seconds", seconds(root)),
        Section("reading", "How to read this", "How to read", reading()),
    )
