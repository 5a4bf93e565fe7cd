"""The report as a whole: what stands on top, and its sections in order."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from markupsafe import Markup

from gansynth.evaluation.report.curves import curves
from gansynth.evaluation.report.faithfulness import faithfulness
from gansynth.evaluation.report.found import RESULTS, shortest, told
from gansynth.evaluation.report.maps import WARNING, maps
from gansynth.evaluation.report.memorisation import memorisation
from gansynth.evaluation.report.parts import parts
from gansynth.evaluation.report.reading import reading
from gansynth.evaluation.report.realism import figures
from gansynth.evaluation.report.records import identity, seconds
from gansynth.report.blocks import Drawn, Items, Section, Words
from gansynth.report.document import Node
from gansynth.report.rendering import Report
from gansynth.report.svg import Drawings
from gansynth.report.words import Line, Linked, joined, whole

Strip = Mapping[str, Sequence[bytes]]
"""``real`` and ``synthetic`` -> some PNG files."""
NO_STRIP: Strip = MappingProxyType({})
NO_WORDS = "What this evaluation shows is not put in words; see its parts, below."


def compose(
    document: Mapping[str, Any], pictures: Mapping[str, bytes], strip: Strip = NO_STRIP
) -> Report:
    """Work out what a report says: three answers and a strip of pictures, then all else.

    Args:
        document: the evaluation; any part may be missing.
        pictures: name of a point of the maps -> PNG file.
        strip: some images of each side, as PNG files.
    """
    root = Node(dict(document))
    words = [
        Items(title, said)
        for title, key in (("Shown:", "shown"), ("Not shown:", "not_shown"))
        if (said := [[told(node)] for node in root["words"][key] if node.text])
    ]
    return Report(
        name=f"Evaluation of {root['of']['name'].text or 'a generator without a name'}",
        sentence=[],
        scope=_scope(root),
        warnings=[
            *([told(alarm["text"])] for alarm in root["alarms"] if alarm["text"]),
            *([WARNING],) * bool(pictures or strip),
        ],
        lead=words or [Words([NO_WORDS])],
        parts=parts(root),
        parts_title="In short",
        answers_first=True,
        pictures=[_shown(strip)] if strip else [],
        sections=_sections(root, pictures),
        footer=[f"gansynth {root['gansynth'].text or 'of an unknown version'}"],
        maker="gansynth evaluate",
        results=RESULTS,
    )


def _shown(strip: Strip) -> Drawn:
    """A row of pictures for each side."""
    rows = [
        Markup('<div class="row"><p>{}</p>{}</div>').format(
            side,
            Markup("").join(
                Markup('<img src="data:image/png;base64,{}" alt="{} {}">').format(
                    base64.b64encode(png).decode("ascii"), side, number
                )
                for number, png in enumerate(own, 1)
            ),
        )
        for side, own in strip.items()
    ]
    return Drawn(Markup('<div class="strip">{}</div>').format(Markup("").join(rows)))


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
