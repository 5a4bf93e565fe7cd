"""``--condition-source SOURCE``: draw conditions from the cases of another source.

An example are tumour-free brains that lesions are put into. Each case looks as if it came from the
run's own source. A case without labels counts as background. A run that draws label maps of images
gets the images alone. Names of channels match in upper or lower case.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gansynth.conditions.condition_views import ChainConditionSource, ConditionSource, named
from gansynth.core.source import CaseSource, SourceRequest, WrappedSource
from gansynth.data.grid import same_spacing
from gansynth.data.views import SourceView, open_plain, renamed
from gansynth.runtime.errors import DataFault, UsageFault

log = logging.getLogger("gansynth")

NOT_INHERITED = frozenset(
    {"labels", "boxes", "least", "folds", "seed", "slices", "count_from", "foreground"}
    | {"min_foreground", "classes", "allow_absolute"}
)
"""Keys of ``--read`` that describe one data set, not how its arrays are computed."""
_PER_CHANNEL = ("intensity", "normalization_schemes", "use_mask_for_norm", "window")
_WHOLE = ("orientation", "transpose_forward", "outside", "plane", "concat", "resize")
_OF_CT = "foreground_intensity_properties_per_channel"


def open_base(
    request_json: Mapping[str, Any], source: CaseSource, *, labelled: bool = True
) -> ConditionSource:
    """Open the source of ``--condition-source``: a ``SourceRequest`` as JSON, with defaults.

    Unless ``labelled``, all cases of the run's own data set count, because none is learnt from.
    """
    if not labelled and request_json["kind"] != "h5":
        request_json = {"fold": "all", **request_json}
    request = inherited_request(request_json, source.request)
    try:
        base = open_plain(request)
        if (
            "fold" not in request_json
            and base.name == source.name
            and request.fold != source.request.fold
        ):
            base = open_plain(replace(request, fold=source.request.fold))
    except (UsageFault, DataFault) as fault:
        text = str(fault).replace("--read ", "--condition-source-read ")
        text = text.replace("--fold ", "--condition-source-read fold=").removeprefix("--data ")
        raise type(fault)(f"--condition-source {request.kind}:{request.where}: {text}") from fault
    if not base.train_ids:
        raise DataFault(f"{named(base)}: it has no case, expected at least one; add cases")
    base = _called_alike(base, source.schema.channels)
    if labelled and isinstance(source, SourceView) and source.labeller is not None:
        view: ConditionSource = ChainConditionSource(base, source)
    else:
        view = ConditionSource(base, source.schema, labelled)
    _check_intensities(base, source, view.shown)
    spacings = [
        source.space.generator_schema(schema).spacing for schema in (base.schema, source.schema)
    ]
    if not same_spacing(*spacings):
        spacing = ",".join(f"{mm:g}" for mm in source.schema.spacing)
        raise UsageFault(
            f"{named(base)}: its voxels are {_mm(spacings[0])}, those of {source.name} "
            f"{_mm(spacings[1])}; expected the same within 1 %. Resample them where its kind does: "
            f"--condition-source-read spacing={spacing}"
        )
    return view


def _called_alike(base: CaseSource, channels: Sequence[str]) -> CaseSource:
    """Rename channels that differ from the run's in upper and lower case only."""
    base_channels = base.schema.channels
    spelt = {name.casefold(): name for name in channels}
    names = {name: spelt.get(name.casefold(), name) for name in base_channels}
    if len(set(names.values())) < len(base_channels):
        return base
    return renamed(base, {old: new for old, new in names.items() if old != new})


def inherited_request(request_json: Mapping[str, Any], run_request: SourceRequest) -> SourceRequest:
    """Complete a request with the fields of the run's own request that apply to it.

    The fold of another data set is ``all``; that of a cache is the cached one.
    """
    fields = dict(request_json)
    same = (fields["kind"], fields["where"]) == (run_request.kind, run_request.where)
    if fields["kind"] == run_request.kind:
        read = {k: v for k, v in run_request.read.items() if same or k not in NOT_INHERITED}
        fields["read"] = {**read, **fields.get("read", {})}
        for key in ("configuration", "plans", "root"):
            fields.setdefault(key, getattr(run_request, key))
    if "fold" not in fields and not same and fields["kind"] == "h5":
        from gansynth.data.h5 import read_index

        fields["fold"] = read_index(Path(fields["where"]).expanduser()).fold
    fields.setdefault("fold", run_request.fold if same else "all")
    if same:
        fields.setdefault("subjects", run_request.subjects)
    return SourceRequest(**fields)


def _check_intensities(base: CaseSource, source: CaseSource, channels: Sequence[str]) -> None:
    """Refuse intensities of another meaning, as far as the sources' records tell."""
    # A view of some channels has the record of all of them.
    whole = source.base if isinstance(source, WrappedSource) else source
    base_record, run_record = (
        _intensities(s.space.host, s.schema.channels, channels) for s in (base, whole)
    )
    if not base_record and not run_record:
        log.warning(
            "%s: whether its intensities mean what those of %s do cannot be known from either; "
            "samples of it show if they do not",
            *(named(base), source.name),
        )
    for key in sorted({*base_record, *run_record}):
        if base_record.get(key) != run_record.get(key):
            raise UsageFault(
                f"{named(base)}: {key} is {_brief(base_record.get(key))}, that of {source.name} "
                f"{_brief(run_record.get(key))}; expected the same, for intensities to mean the "
                "same. Read both alike, or preprocess both alike"
            )


def _intensities(
    host: Mapping[str, Any], channels: Sequence[str], compared: Sequence[str]
) -> dict[str, Any]:
    """Return the entries of a source's record that define intensities and axes, by channel."""
    record = {**host, **host.get("slices", {})}
    values = {key: record[key] for key in _WHOLE if record.get(key) is not None}
    for key in _PER_CHANNEL:
        if record.get(key) is not None:
            by_name = _by_channel(record[key], channels)
            if isinstance(by_name, dict):
                by_name = {name: by_name[name] for name in compared if name in by_name}
            values[key] = by_name
    if _OF_CT in record and any(
        "CT" in str(scheme) for scheme in record.get("normalization_schemes") or ()
    ):
        properties = record[_OF_CT] or {}
        values[_OF_CT] = {c: properties.get(str(i)) for i, c in enumerate(channels)}
    return values


def _by_channel(value: Any, channels: Sequence[str]) -> Any:
    if isinstance(value, (list, tuple)) and len(value) == len(channels):
        return dict(zip(channels, value, strict=True))
    return value


def _mm(spacing: Sequence[float]) -> str:
    return " x ".join(f"{mm:g}" for mm in spacing) + " mm"


def _brief(value: Any) -> str:
    text = "not told" if value is None else str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
