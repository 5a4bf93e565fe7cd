"""Made-up results documents: everything, next to nothing, and what goes wrong in between."""

from __future__ import annotations

import base64
from typing import Any

from gansynth.benchmark.report.overlays import Overlay, worst_cases
from tests.benchmark.making import ARMS, DICE, HD95, Made, made_up

__all__ = ["DICE", "EVERY", "HD95"]


def full() -> dict[str, Any]:
    """Everything there is, a failed run and a paper's table among it."""
    document = made_up(Made(noise=0.0035))
    document["paper"] = {
        "title": "Made-up et al., table I",
        "columns": ["WT", "TC", "ET"],
        "rows": [
            {"name": "real alone", "paper": [0.83, 0.74, 0.71], "ours": [0.801, 0.722, None]},
            {"name": "real and synthetic", "paper": [0.85, 0.77, 0.72], "ours": [0.8, 0.725, 0.7]},
        ],
    }
    document["warnings"] = ["two test subjects have a spacing that no training subject has"]
    return document


def minimal() -> dict[str, Any]:
    """Next to nothing."""
    return {"format": 1, "name": "nothing"}


def all_failed() -> dict[str, Any]:
    """Every run failed."""
    made = Made(sizes=(6,), arms={k: ARMS[k] for k in ("default", "unedited")}, draws=2, seeds=1)
    made.lost = tuple((arm, 6, draw, 0) for arm in made.arms for draw in range(2))
    return made_up(made)


def one_arm() -> dict[str, Any]:
    """The control alone."""
    return made_up(Made(arms={"default": ARMS["default"]}))


def development() -> dict[str, Any]:
    """A look at the development split, two arms, one size."""
    arms = {k: ARMS[k] for k in ("default", "elastic", "unedited")}
    return made_up(Made(arms=arms, sizes=(6,), split="development", lost=()))


def small() -> dict[str, Any]:
    """A little of everything."""
    arms = {k: ARMS[k] for k in ("default", "elastic", "unedited", "tuned")}
    lost = (("unedited", 12, 0, 0),)
    made = Made(arms=arms, draws=1, seeds=2, subjects=4, measures={"dice/foreground": DICE})
    made.lost = lost
    return made_up(made) | {"paper": full()["paper"], "warnings": ["a warning"]}


HOSTILE = "<script>alert(1)</script>\"'&{{7*7}}|`]("


def hostile() -> dict[str, Any]:
    """Names that are markup, pointers with every character that has a meaning somewhere."""
    made = Made(
        arms={"default": ARMS["default"], f"a/~{HOSTILE}": (HOSTILE, "cgan", 0.01)},
        case=HOSTILE.replace("{{7*7}}", "") + "/~,%{:d}",
        measures={"dice/foreground": {**DICE, "title": HOSTILE}},
        lost=(("default", 6, 0, 0),),
    )
    document = made_up(made)
    for key in ("name", "title", "gansynth"):
        document[key] = HOSTILE
    document["host"]["title"] = HOSTILE
    document["warnings"] = [HOSTILE]
    document["plan"]["note"] = HOSTILE
    document["failures"] = [{"title": HOSTILE, "error": HOSTILE, "log": "javascript:alert(1)"}]
    return document


def many() -> dict[str, Any]:
    """Ten arms at three sizes."""
    arms = dict(ARMS)
    for index, effect in enumerate((0.02, 0.008, -0.01)):
        arms[f"gan{index}"] = (f"a GAN with a title that takes more than a line {index}", "cgan",
                               effect)  # fmt: skip
    return made_up(Made(arms=arms, sizes=(6, 12, 24), subjects=12, random=1))


def detection() -> dict[str, Any]:
    """Boxes: sensitivity at matched false positives, mAP, and false positives per slice."""
    measures = {
        "sensitivity@FP=1": {"title": "sensitivity at one FP per slice", "region": "", "unit": "",
                             "better": "higher"},
        "mAP": {"title": "mAP", "region": "", "unit": "", "better": "higher"},
        "fp": {"title": "false positives", "region": "", "unit": "per slice", "better": "lower"},
    }  # fmt: skip
    arms = {"default": ARMS["default"], "paste": ("copy-paste", "paste", 0.011),
            "cpggan": ("CPGGAN", "cgan", 0.001)}  # fmt: skip
    document = made_up(Made(arms=arms, measures=measures, sizes=(20,), lost=()))
    document["host"] = {"target": "yolo", "title": "LibreYOLO nano", "steps": 800}
    return document


def lower_is_better() -> dict[str, Any]:
    """A distance is what the verdict is about; all arms are finished."""
    arms = {k: ARMS[k] for k in ("default", "unedited", "synthetic-only")}
    return made_up(Made(arms=arms, measures={"hd95/1": HD95}, lost=()))


PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)


def overlays(document: dict[str, Any]) -> list[Overlay]:
    """Pictures of the worst cases, of one pixel each."""
    return [Overlay(worst, PIXEL, "A case.") for worst in worst_cases(document)]


EVERY = {
    made.__name__: made
    for made in (
        full, minimal, all_failed, one_arm, development, hostile, many, detection, lower_is_better,
    )
}  # fmt: skip
