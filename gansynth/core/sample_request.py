"""What a user requests of samples, and the filters that admit them: words, parsed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from gansynth.runtime.errors import UsageFault, describe_error
from gansynth.runtime.serialise import Document

if TYPE_CHECKING:  # a bank's reader imports no pydantic
    from gansynth.core.requests.sections import SampleSection

SETTINGS = "settings"
"""Key in a sample's provenance and in a draw log's line: the request it was generated with."""
DEFAULT, NONE = (
    "default",
    "none",
)  # values of `--filter`: apply the generator's own checks, or no checks
BOX_FILE = "file:"  # a value of `--boxes` begins so
_REQUEST = ("fold", "configuration", "plans", "subjects", "root")
"""Keys of ``--label-source-read`` that are not the source's own."""
MARKED = "self_training"
"""Provenance key of a sample of ``--self-train``: number of the source whose scan it is."""
REAL = "real"  # --prevalence of training cases
BACKGROUNDS = {"own": 0.0, "unlabelled": 1.0}  # words for --backgrounds


@dataclass(frozen=True)
class SampleRequest(Document, optional=("lesion_free", "self_train")):
    """A request of samples; the default sets no constraints.

    Attributes:
        seed: seeds conditions and latents.
        edits: condition edits as texts, in order; None for the run's own.
        boxes: rule for the samples' boxes (``gansynth.conditions.boxes``); None for the usual
            ones.
        classes: names of the classes to generate; None for all.
        label_source: a ``SourceRequest`` as JSON: cases that provide label maps instead of the
            run's own training cases.
        unlabelled: the same of sources of scans; lesions are drawn into those without any, too.
        lesion_free: whether the user vouches that these scans have no lesion.
        backgrounds: share of samples whose background is one of these scans.
        self_train: share of samples that are these scans with the labels of their maps.
        prevalence: share of samples with a lesion; None for the share of the training cases.
        lesions: how lesions are put into real images (``gansynth.conditions.lesion_placement``);
            None as usual.
        filters: filters of samples (``gansynth.sampling.filters``), each ``NAME`` or
            ``NAME:KEY=VALUE,...``; none admits all that the generator itself does not reject.
        keep_flawed: admit samples that the generator itself rejects, too.
    """

    seed: int = 0
    edits: tuple[str, ...] | None = None
    boxes: str | None = None
    classes: tuple[str, ...] | None = None
    label_source: Mapping[str, Any] | None = None
    unlabelled: tuple[Mapping[str, Any], ...] = ()
    lesion_free: bool = False
    backgrounds: float = 0.5
    self_train: float = 0.0
    prevalence: float | None = None
    lesions: str | None = None
    filters: tuple[str, ...] = ()
    keep_flawed: bool = False

    @property
    def others(self) -> tuple[tuple[str, Mapping[str, Any]], ...]:
        """The options that name other sources, with the first source of each."""
        named = {"--label-source": (self.label_source,), "--unlabelled": self.unlabelled}
        return tuple((option, each[0]) for option, each in named.items() if each and each[0])

    @classmethod
    def among(cls, doc: Mapping[str, Any]) -> Self:
        """Read the request from a document that has other keys, too."""
        return cls.from_json({f.name: doc[f.name] for f in fields(cls) if f.name in doc})

    @classmethod
    def of(cls, words: SampleSection, seed: int = 0) -> Self:
        """Parse what was typed; edits, boxes and filters are not looked up yet."""
        from gansynth.core.requests.sections import ClassSection

        filters = tuple(words.filter)
        if NONE in filters and len(set(filters)) > 1:
            [named, *_] = [text for text in filters if text != NONE]
            raise UsageFault(
                "sample-request.filter-none-not-alone",
                f"--filter {NONE} with --filter {named}: one lets every sample in; "
                "expected it alone; leave one of them out",
            )
        classes = words.classes if isinstance(words, ClassSection) else ()
        return cls(
            seed=seed,
            edits=tuple(words.edit) or None,
            boxes=absolute_boxes(words.boxes),
            classes=tuple(classes) or None,
            label_source=read_other(words.label_source, words.label_source_read),
            unlabelled=_unlabelled(words),
            lesion_free=words.lesion_free,
            backgrounds=_backgrounds(words.backgrounds),
            self_train=words.self_train or 0.0,
            prevalence=_prevalence(str(words.prevalence)),
            lesions=words.lesions,
            filters=tuple(text for text in filters if text not in (DEFAULT, NONE)),
            keep_flawed=NONE in filters,
        )


def _share(text: str) -> float | None:
    with suppress(ValueError):
        share = float(text)
        if 0 <= share <= 1:
            return share
    return None


def _prevalence(text: str) -> float | None:
    if text == REAL:
        return None
    share = _share(text)
    if share is not None:
        return share
    raise UsageFault(
        "sample-request.prevalence-malformed",
        f"--prevalence {text}: expected {REAL} (as many samples with a lesion as training cases), "
        "or a share of 0 to 1",
    )


def _backgrounds(asked: str | float | None) -> float:
    if asked is None:
        return SampleRequest.backgrounds
    text = str(asked)
    if text in BACKGROUNDS:
        return BACKGROUNDS[text]
    share = _share(text)
    if share is not None:
        return share
    raise UsageFault(
        "sample-request.backgrounds-malformed",
        f"--backgrounds {text}: expected own (training cases alone), unlabelled (scans of "
        "--unlabelled alone), or the share of the latter, 0 to 1",
    )


def _unlabelled(words: SampleSection) -> tuple[dict[str, Any], ...]:
    with describe_error("--label-source", "--unlabelled"):
        found = [read_other(text, words.unlabelled_read) for text in words.unlabelled]
    return tuple(request for request in found if request is not None)


def absolute_boxes(option: str | None) -> str | None:
    """Return the option ``--boxes`` with a file's absolute path, readable from any folder."""
    if option is None or not option.startswith(BOX_FILE):
        return option
    return f"{BOX_FILE}{Path(option.removeprefix(BOX_FILE)).absolute()}"


def read_other(text: str | None, how: Mapping[str, str]) -> dict[str, Any] | None:
    """Return ``--label-source`` as JSON of a ``SourceRequest``; None for the run's own."""
    if text is None:
        for key, value in how.items():
            raise UsageFault(
                "sample-request.label-source-missing",
                f"--label-source-read {key}={value}: expected --label-source "
                "KIND:WHERE beside it; add it, or see --read",
            )
        return None
    kind, colon, where = text.partition(":")
    if not (kind and colon and where):
        raise UsageFault(
            "sample-request.label-source-malformed",
            f"--label-source {text!r}: expected KIND:WHERE, for example nifti:healthy/",
        )
    from gansynth.core.registry import installed

    try:
        installed().load("sources", kind)
    except UsageFault as fault:
        raise UsageFault(
            "sample-request.label-source-kind-unusable", f"--label-source {text}: {fault}"
        ) from fault
    request: dict[str, Any] = {"kind": kind, "where": _anywhere(kind, where)}
    request |= {key: value for key, value in how.items() if key in _REQUEST}
    if request.get("root"):
        request["root"] = str(Path(request["root"]).expanduser().absolute())
    read = {key: value for key, value in how.items() if key not in _REQUEST}
    if read:
        request["read"] = read
    return request


def _anywhere(kind: str, where: str) -> str:
    from gansynth.core.registry import installed

    if getattr(installed().load("sources", kind), "by_name", False):
        return where
    inner, colon, location = where.partition(":")
    if colon and inner in installed().names("sources"):
        return f"{inner}:{_anywhere(inner, location)}"
    path = Path(where).expanduser()
    return str(path.absolute()) if path.exists() else where
