"""A study without images, and the files that raters' pages save."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gansynth.runtime.files import digest_of
from gansynth_evaluate.turing import Study, open_study
from gansynth_evaluate.turing.study import STUDY, VERSION

ABOUT = {"source": "nifti:phantoms", "from": "held-out", "cases": 50, "seen_by_run": 0}


def synthetic_study(folder: Path, key: list[dict[str, Any]], **about: Any) -> Study:
    """A study of images that are known by their truth only."""
    document = {
        **{"version": VERSION, "id": "0123abcd", "created": "2026-01-01", "secret": "00" * 32},
        "run": {"id": "r", "generator": "dcgan"},
        "about": {**ABOUT, "rejected": 0, "shared_with_samples": 0, **about},
        "key": key,
    }
    (folder / STUDY).write_text(json.dumps({**document, "digest": digest_of(document)}))
    return open_study(folder)


def answered(
    study: Study,
    rater: int,
    said: Sequence[str],
    *,
    name: str = "Dr. Ito",
) -> dict[str, Any]:
    """What a rater's page saves who says so of the images, by their number."""
    answers = [
        {"image": code, "answer": said[number]} for code, number in study.codes(rater).items()
    ]
    kind = "gansynth turing-test answers 2"
    who = {"format": kind, "study": study.id, "rater": rater, "name": name, "years": 12}
    return {**who, "answers": answers}


def write_answers(study: Study, document: dict[str, Any], name: str = "answers.json") -> Path:
    path = study.folder / name
    path.write_text(json.dumps(document))
    return path
