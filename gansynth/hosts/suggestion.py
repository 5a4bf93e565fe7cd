"""Which generator suits a data set, by what is known: the one place that ``next:`` asks."""

from __future__ import annotations

from dataclasses import dataclass

from gansynth.core.source import CaseSource
from gansynth.data.organs import organ_labels

NO_GAIN = (
    "look like organs: no gain is shown for them (gansynth help results), so compare with a "
    "training without samples: augment --compare"
)


@dataclass(frozen=True)
class Suggestion:
    """What to type after ``gansynth fit``, and what to know of it; empty where nothing is."""

    words: tuple[str, ...]
    note: str = ""


def suggested_generator(source: CaseSource) -> Suggestion:
    """Return the generator that suits a data set.

    Boxes: lesions in boxes. No labels: images from noise. Lesions: they are put into real images,
    as many as these have. Organs alone: whole images, with a warning.
    """
    schema = source.schema
    if schema.box_classes:
        return Suggestion(("cpggan",))
    if not schema.foreground:
        return Suggestion(("dcgan",))
    organs = organ_labels(source)
    lesions = [name for name, value in schema.labels.items()
               if value in schema.foreground and name not in organs]  # fmt: skip
    if not lesions:
        return Suggestion(("cgan3d",), f"{', '.join(organs)} {NO_GAIN}")
    named = ("--set", f"lesions={','.join(lesions)}") if organs else ()
    return Suggestion(("parametric", *named))
