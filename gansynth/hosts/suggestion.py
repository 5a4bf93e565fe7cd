"""What to type next for a data set: the generator that suits it, and the way to a framework."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from gansynth.core.registry import installed
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.data.organs import organ_labels
from gansynth.data.read_options import OF_ARRAYS, VolumeOptions, options_of

FREE = "500"  # id that hints name: nnU-Net's own tasks have lower ones

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


def way_to_nnunet(request: SourceRequest) -> str:
    """Return the command that makes a data set of nnU-Net of other data."""
    known = installed()
    opener = known.load("sources", request.kind) if request.kind in known.names("sources") else None
    idle = OF_ARRAYS if opener and type(options_of(opener, request)) is VolumeOptions else ()
    read = [(key, text) for key, text in request.read.items() if key not in idle]
    pairs = [("--subjects", request.subjects), ("--root", request.root)]
    typed = [word for flag, value in pairs if value for word in (flag, value)]
    if request.kind == "nnunet-raw":  # it is one, and lies there
        return shlex.join(["gansynth", "prepare", f"nnunet:{request.where}", *typed])
    typed += [word for key, text in read for word in ("--read", f"{key}={text}")]
    words = ["import", f"{request.kind}:{request.where}", f"nnunet:{FREE}", *typed]
    return shlex.join(["gansynth", *words])
