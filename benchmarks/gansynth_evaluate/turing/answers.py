"""Raters' answers: the files that their pages save, read without trust."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gansynth.runtime.errors import DataFault, IntegrityFault
from gansynth.runtime.files import reading
from gansynth_evaluate.turing.study import MOST_RATERS, Study

LARGEST = 4 << 20  # most bytes of a file of answers; one answer takes about 60
_EXPECTED = "expected a file that a rater saved with 'Save answers'"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Answer(_Strict):
    """What a rater said of an image."""

    image: str  # its code
    answer: Literal["real", "synthetic"]


class AnswerFile(_Strict):
    """The file that a page saves; the page checks a name by the same rule."""

    format: Literal["gansynth turing-test answers 2"]
    study: str
    rater: int = Field(ge=1, le=MOST_RATERS)
    name: str = Field(pattern=r"^[\p{L}\p{N}][\p{L}\p{N} .,'’()-]{0,39}$")
    years: Annotated[float, Field(ge=0, le=80)] | None  # of experience, if given
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Rater:
    """A rater's answers to all images of a study."""

    name: str
    years: float | None
    answers: Sequence[Answer]  # in the order shown
    images: Sequence[int]  # number of each answered image


def read_answers(study: Study, paths: Sequence[Path]) -> list[Rater]:
    """Read the answers of a study's raters, ordered by name."""
    raters: dict[str, Rater] = {}
    seen: dict[str, Path] = {}
    for path in paths:
        file = _read(path)
        rater = _rater(study, path, file)
        for who in (f"page rater-{file.rater}.html", f"rater {file.name.casefold()}"):
            if who in seen:
                raise DataFault(
                    "turing-test.two-files-of-rater",
                    f"{path}: has answers of {who}, and so has {seen[who]}; expected one file of "
                    "each rater. Leave one out",
                )
            seen[who] = path
        raters[file.name.casefold()] = rater
    return [raters[name] for name in sorted(raters)]


def _read(path: Path) -> AnswerFile:
    with reading(path):
        if path.stat().st_size > LARGEST:
            raise DataFault(
                "turing-test.answers-too-large", f"{path}: larger than {LARGEST} bytes, {_EXPECTED}"
            )
        data = path.read_bytes()
    try:
        return AnswerFile.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        words = f"{where}: {first['msg']}" if where else first["msg"]
        raise DataFault(
            "turing-test.answers-malformed", f"{path}: {' '.join(words.split()):.200}; {_EXPECTED}"
        ) from None


def _rater(study: Study, path: Path, file: AnswerFile) -> Rater:
    if file.study != study.id:
        raise DataFault(
            "turing-test.answers-of-other-study",
            f"{path}: answers to study {file.study!a:.20}, expected {study.id!r} of {study.folder}",
        )
    codes, given = study.codes(file.rater), [answer.image for answer in file.answers]
    if given != [*codes][: len(given)]:
        raise IntegrityFault(
            "turing-test.answers-to-other-images",
            f"{path}: its images are not those of the page that rater {file.rater} got, expected "
            "the file as the page saved it; leave this rater out, or ask for the file again",
        )
    if len(given) < len(codes):
        raise DataFault(
            "turing-test.answers-incomplete",
            f"{path}: {file.name} has answered {len(given)} of {len(codes)} images, expected all; "
            "open the page again to continue, or leave this rater out",
        )
    return Rater(file.name, file.years, file.answers, [*codes.values()])
