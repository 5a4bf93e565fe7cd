"""Check the options for samples of a command line, which ``SampleRequest.of`` parses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gansynth.core.capabilities import Capabilities, Input
from gansynth.core.registry import such_as
from gansynth.core.requests.sections import SampleSection
from gansynth.core.sample_request import SampleRequest, read_other
from gansynth.runtime.errors import UsageFault, describe_error

if TYPE_CHECKING:
    from gansynth.core.run_folder import RunDescription


def read_request(words: SampleSection, seed: int = 0) -> SampleRequest:
    """Check all options that need no run, and combine them."""
    check_boxes(words.boxes)
    request = SampleRequest.of(words, seed)
    check_texts(request)
    return request


def check_boxes(text: str | None) -> None:
    """Refuse boxes that cannot be read."""
    if text is not None:
        from gansynth.conditions.boxes import box_drawer

        box_drawer(text)


def read_real(text: str | None, how: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the source of ``--real``, as JSON of a ``SourceRequest``; None for the run's own.

    It is read like the run's own unless ``how`` says otherwise, as ``--label-source`` is.
    """
    with describe_error("--label-source", "--real"):
        return read_other(text, how)


def check_texts(request: SampleRequest) -> None:
    """Refuse edits, lesions and filters that no generator supports."""
    if request.edits:
        from gansynth.conditions.edit_chain import build_edits

        for text, edit in zip(request.edits, build_edits(request.edits), strict=True):
            edit.options.refuse_idle(f"--edit {text}")
    if request.lesions is not None:
        from gansynth.conditions.lesion_placement import lesion_drawer

        lesion_drawer(request.lesions).options.refuse_idle(f"--lesions {request.lesions}")
    if request.filters:
        from gansynth.sampling.filters.fitted import build_filters

        for text, item in zip(request.filters, build_filters(request.filters), strict=True):
            item.options.refuse_idle(f"--filter {text}")


@dataclass(frozen=True)
class GeneratorInfo:
    """What a request for samples is checked against: a generator, or several in one run.

    ``per_class``: whether it has a part for each class of whole cases.
    """

    name: str
    can: Capabilities
    per_class: bool = False

    @classmethod
    def of(cls, run: RunDescription) -> GeneratorInfo:
        """Return a run's, without loading its weights."""
        return cls(str(run.manifest["generator"]), run.capabilities, per_class(run.manifest))


def check_request(request: SampleRequest, maker: GeneratorInfo) -> None:
    """Refuse a request that a generator does not support."""
    name, takes = maker.name, maker.can.takes
    check_edits(request.edits or (), maker)
    if request.boxes is not None and "boxes" not in takes:
        raise UsageFault(
            "sampling.generator-takes-no-boxes",
            f"--boxes {request.boxes}: {name} takes no boxes, expected a generator that does, such "
            f"as {_that_take('boxes')}; leave --boxes out",
        )
    if request.lesions is not None and "lesion" not in takes:
        raise UsageFault(
            "sampling.generator-takes-no-lesions",
            f"--lesions {request.lesions}: {name} draws no lesions into real images, expected a "
            f"generator that does, such as {_that_take('lesion')}; leave --lesions out",
        )
    if request.prevalence is not None and takes.isdisjoint({"labels", "boxes"}):
        raise UsageFault(
            "sampling.prevalence-is-learnt",
            f"--prevalence {request.prevalence}: {name} draws lesions as often as it has learnt "
            "to, expected a generator that takes labels or boxes; leave --prevalence out",
        )
    if request.label_source is not None:
        _check_label_source(request.label_source, maker)
    if request.unlabelled:
        _check_unlabelled(request, maker)


def _that_take(part: Input) -> str:
    return such_as(lambda can: part in can.takes)


def check_edits(edits: Sequence[str], maker: GeneratorInfo) -> None:
    """Refuse unknown edits, and edits for a generator that takes no label maps."""
    if edits and not maker.can.from_labels:
        made = "its own label maps" if maker.can.labelled else "no label maps"
        raise UsageFault(
            "sampling.no-label-maps-to-edit",
            f"--edit {edits[0]}: {maker.name} draws {made}, so there is none to edit; leave --edit "
            "out",
        )
    if edits and "image" in maker.can.takes:
        from gansynth.conditions.edit_chain import build_edits
        from gansynth.conditions.edits.warps import check_warp

        check_warp(maker.name, build_edits(edits))


def _check_label_source(asked: Mapping[str, Any], maker: GeneratorInfo) -> None:
    option = f"--label-source {asked['kind']}:{asked['where']}"
    if maker.per_class:
        raise UsageFault(
            "sampling.label-source-with-per-class",
            f"{option}: {maker.name} is a generator for each class of its own source's cases, "
            "expected one for all cases; leave --label-source out",
        )
    if "boxes" in maker.can.takes:
        raise UsageFault(
            "sampling.label-source-with-boxes",
            f"{option}: {maker.name} takes boxes, which are those of its own training cases; leave "
            "--label-source out, or see --boxes",
        )
    if not maker.can.from_labels:
        raise UsageFault(
            "sampling.label-source-without-label-maps",
            f"{option}: {maker.name} takes no label maps that could be another source's, expected "
            f"a generator that does, such as {_that_take('labels')}; leave --label-source out",
        )
    if "lesion" in maker.can.takes:
        raise UsageFault(
            "sampling.label-source-with-inserted-lesions",
            f"{option}: {maker.name} inserts lesions into real images, expected lesion-free scans: "
            f"--unlabelled {asked['kind']}:{asked['where']}",
        )


def _check_unlabelled(request: SampleRequest, maker: GeneratorInfo) -> None:
    option = "--unlabelled {kind}:{where}".format(**request.unlabelled[0])
    if "lesion" not in maker.can.takes:
        raise UsageFault(
            "sampling.unlabelled-without-lesions",
            f"{option}: {maker.name} draws no lesions into real images, expected a generator that "
            f"does, such as {_that_take('lesion')}; leave --unlabelled out",
        )
    if maker.per_class:
        raise UsageFault(
            "sampling.unlabelled-with-per-class",
            f"{option}: {maker.name} is a generator for each class of whole cases, expected one "
            "for all cases, since scans have no class; leave --unlabelled out",
        )
    from gansynth.conditions.lesion_placement import lesion_drawer

    drawer = lesion_drawer(request.lesions, maker.can.lesions)
    for key, value in (("where", "own"), ("pairs", "ordered")):
        if getattr(drawer.options, key) == value:
            raise UsageFault(
                "sampling.unlabelled-with-own-positions",
                f"{option}: lesions are put by {key}={value} of --lesions, which is of training "
                f"cases alone; expected another {key}, or leave --unlabelled out",
            )


def per_class(manifest: Mapping[str, Any]) -> bool:
    """Return whether a run has a part for each class of whole cases."""
    return any("classes" in part for part in manifest.get("parts", ()))
