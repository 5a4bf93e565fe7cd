"""Parse the options for samples of a command line into a ``SampleRequest``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth.core.capabilities import Capabilities, Input
from gansynth.core.registry import installed, such_as
from gansynth.core.requests.sections import ClassWords, SampleWords
from gansynth.core.sample_request import SampleRequest
from gansynth.runtime.errors import UsageFault, describe_error

if TYPE_CHECKING:
    from gansynth.core.run_folder import RunDescription

OWN, NONE = "own", "none"  # values of `--filter`: apply the generator's own checks, or no checks
_REQUEST = ("fold", "configuration", "plans", "subjects", "root")
"""Keys of ``--condition-source-read`` that are not the source's own."""
REAL = "real"  # --prevalence of training cases


def read_request(words: SampleWords, seed: int = 0) -> SampleRequest:
    """Check all options that need no run, and combine them."""
    weights, filters = words.sampling_weights, tuple(words.filter)
    if NONE in filters and len(set(filters)) > 1:
        named = next(text for text in filters if text != NONE)
        raise UsageFault(
            f"--filter {NONE} with --filter {named}: one lets every sample in; "
            "expected it alone; leave one of them out"
        )
    classes = words.classes if isinstance(words, ClassWords) else ()
    request = SampleRequest(
        seed=seed,
        edits=tuple(words.edit) or None,
        boxes=_boxes(words.boxes),
        classes=tuple(classes) or None,
        conditions=_conditions(words.condition_source, words.condition_source_read),
        prevalence=_prevalence(str(words.prevalence)),
        lesions=words.lesions,
        weights=None if weights is None else str(Path(weights).expanduser().absolute()),
        filters=tuple(text for text in filters if text not in (OWN, NONE)),
        keep_flawed=NONE in filters,
    )
    check_texts(request)
    return request


def read_real(text: str | None, how: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the source of ``--real``, as JSON of a ``SourceRequest``; None for the run's own.

    It is read like the run's own unless ``how`` says otherwise, as ``--condition-source`` is.
    """
    with describe_error("--condition-source", "--real"):
        return _conditions(text, how)


def check_texts(request: SampleRequest) -> None:
    """Refuse edits, lesions, weights and filters that no generator supports."""
    if request.edits:
        from gansynth.conditions.edit_chain import build_edits

        for text, edit in zip(request.edits, build_edits(request.edits), strict=True):
            edit.options.refuse_idle(f"--edit {text}")
    if request.lesions is not None:
        from gansynth.conditions.lesion_placement import lesion_drawer

        lesion_drawer(request.lesions).options.refuse_idle(f"--lesions {request.lesions}")
    if request.weights is not None:
        from gansynth.conditions.sampling_weights import SamplingWeights

        SamplingWeights.read(Path(request.weights))
    if request.filters:
        from gansynth.sampling.filters.fitted import build_filters

        for text, item in zip(request.filters, build_filters(request.filters), strict=True):
            item.options.refuse_idle(f"--filter {text}")


def _prevalence(text: str) -> float | None:
    if text == REAL:
        return None
    with suppress(ValueError):
        if 0 <= (share := float(text)) <= 1:
            return share
    raise UsageFault(
        f"--prevalence {text}: expected {REAL} (as many samples with a lesion as training cases), "
        "or a share of 0 to 1"
    )


def _boxes(text: str | None) -> str | None:
    if text is None:
        return None
    from gansynth.conditions.boxes import anywhere, box_drawer

    box_drawer(text)
    return anywhere(text)


def _conditions(text: str | None, how: Mapping[str, str]) -> dict[str, Any] | None:
    if text is None:
        for key, value in how.items():
            raise UsageFault(
                f"--condition-source-read {key}={value}: expected --condition-source "
                "KIND:WHERE beside it; add it, or see --read"
            )
        return None
    kind, colon, where = text.partition(":")
    if not (kind and colon and where):
        raise UsageFault(
            f"--condition-source {text!r}: expected KIND:WHERE, for example nifti:healthy/"
        )
    try:
        installed().load("sources", kind)
    except UsageFault as fault:
        raise UsageFault(f"--condition-source {text}: {fault}") from fault
    request: dict[str, Any] = {"kind": kind, "where": _anywhere(kind, where)}
    request |= {key: value for key, value in how.items() if key in _REQUEST}
    if request.get("root"):
        request["root"] = str(Path(request["root"]).expanduser().absolute())
    read = {key: value for key, value in how.items() if key not in _REQUEST}
    return {**request, "read": read} if read else request


def _anywhere(kind: str, where: str) -> str:
    if getattr(installed().load("sources", kind), "by_name", False):
        return where
    inner, colon, location = where.partition(":")
    if colon and inner in installed().names("sources"):
        return f"{inner}:{_anywhere(inner, location)}"
    path = Path(where).expanduser()
    return str(path.absolute()) if path.exists() else where


@dataclass(frozen=True)
class Maker:
    """What a request for samples is checked against: a generator, or several in one run.

    ``per_class``: whether it has a part for each class of whole cases.
    """

    name: str
    can: Capabilities
    per_class: bool = False

    @classmethod
    def of(cls, run: RunDescription) -> Maker:
        """Return a run's, without loading its weights."""
        return cls(str(run.manifest["generator"]), run.capabilities, per_class(run.manifest))


def check_request(request: SampleRequest, maker: Maker) -> None:
    """Refuse a request that a generator does not support."""
    name, takes = maker.name, maker.can.takes
    check_edits(request.edits or (), maker)
    if request.boxes is not None and "boxes" not in takes:
        raise UsageFault(
            f"--boxes {request.boxes}: {name} takes no boxes, expected a generator that does, such "
            f"as {_that_take('boxes')}; leave --boxes out"
        )
    if request.lesions is not None and "lesion" not in takes:
        raise UsageFault(
            f"--lesions {request.lesions}: {name} draws no lesions into real images, expected a "
            f"generator that does, such as {_that_take('lesion')}; leave --lesions out"
        )
    if request.prevalence is not None and takes.isdisjoint({"labels", "boxes"}):
        raise UsageFault(
            f"--prevalence {request.prevalence}: {name} draws lesions as often as it has learnt "
            "to, expected a generator that takes labels or boxes; leave --prevalence out"
        )
    if request.weights is not None and not maker.can.from_labels:
        raise UsageFault(
            f"--sampling-weights {request.weights}: {name} takes no label maps to weight; expected "
            f"a generator that does, such as {_that_take('labels')}; leave --sampling-weights out"
        )
    if request.conditions is not None:
        _check_conditions(request.conditions, maker)


def _that_take(part: Input) -> str:
    return such_as(lambda can: part in can.takes)


def check_edits(edits: Sequence[str], maker: Maker) -> None:
    """Refuse unknown edits, and edits for a generator that takes no label maps."""
    if edits and not maker.can.from_labels:
        made = "its own label maps" if maker.can.labelled else "no label maps"
        raise UsageFault(
            f"--edit {edits[0]}: {maker.name} draws {made}, so there is none to edit; leave --edit "
            "out"
        )
    if edits and "image" in maker.can.takes:
        from gansynth.conditions.edit_chain import build_edits
        from gansynth.conditions.edits.warps import check_warp

        check_warp(maker.name, build_edits(edits))


def _check_conditions(conditions: Mapping[str, Any], maker: Maker) -> None:
    option = f"--condition-source {conditions['kind']}:{conditions['where']}"
    if maker.per_class:
        raise UsageFault(
            f"{option}: {maker.name} is a generator for each class of its own source's cases, "
            "expected one for all cases; leave --condition-source out"
        )
    if "boxes" in maker.can.takes:
        raise UsageFault(
            f"{option}: {maker.name} takes boxes, which are those of its own training cases; leave "
            "--condition-source out, or see --boxes"
        )
    if not maker.can.from_labels:
        raise UsageFault(
            f"{option}: {maker.name} takes no label maps that could be another source's, expected "
            f"a generator that does, such as {_that_take('labels')}; leave --condition-source out"
        )


def per_class(manifest: Mapping[str, Any]) -> bool:
    """Return whether a run has a part for each class of whole cases."""
    return any("classes" in part for part in manifest.get("parts", ()))
