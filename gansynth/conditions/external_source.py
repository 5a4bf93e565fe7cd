"""``--conditions SOURCE``: cases of another source to draw from, or into, instead of one's own.

Tumour-free brains, say, that lesions are put into. Such a case is handed out as if the run's own
source had it; one without labels is wholly background. A run that draws label maps of images is
shown their images alone. A channel is the run's if it is called so in upper or lower case.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gansynth.conditions.external_views import BaseSource, ChainBase, named
from gansynth.core.source import CaseSource, SourceRequest, Wrapped
from gansynth.data.grid import same_spacing
from gansynth.data.views import View, renamed
from gansynth.runtime.errors import DataFault, UsageFault

log = logging.getLogger("gansynth")

NOT_INHERITED = frozenset(
    {"labels", "boxes", "least", "folds", "seed", "slices", "count_from", "foreground"}
    | {"min_foreground", "classes", "allow_absolute"}
)
"""What ``--read`` says of one data set, not of how arrays come about."""
_PER_CHANNEL = ("intensity", "normalization_schemes", "use_mask_for_norm", "window")
_WHOLE = ("orientation", "transpose_forward", "outside", "plane", "concat", "resize")
_OF_CT = "foreground_intensity_properties_per_channel"


def open_base(asked: Mapping[str, Any], source: CaseSource, *, labelled: bool = True) -> BaseSource:
    """Open what ``--conditions`` names: a ``SourceRequest`` as JSON, else as the run's own.

    Where labels are of no use, all cases of the run's own data set count: none is learnt from.

    Raises:
        UsageFault, DataFault: it does not open, has no case, or does not fit the run's own.
    """
    from gansynth.data.views import open_plain

    if not labelled and asked["kind"] != "h5":
        asked = {"fold": "all", **asked}
    request = inherited(asked, source.request)
    try:
        base = open_plain(request)
        if "fold" not in asked and base.name == source.name and request.fold != source.fold:
            base = open_plain(replace(request, fold=source.fold))
    except (UsageFault, DataFault) as fault:
        text = str(fault).replace("--read ", "--conditions-read ")
        text = text.replace("--fold ", "--conditions-read fold=").removeprefix("--data ")
        raise type(fault)(f"--conditions {request.kind}:{request.where}: {text}") from fault
    if not base.train_ids:
        raise DataFault(f"{named(base)}: it has no case, expected at least one; add cases")
    base = _called_alike(base, source.schema.channels)
    if labelled and isinstance(source, View) and source.labeller is not None:
        view: BaseSource = ChainBase(base, source)
    else:
        view = BaseSource(base, source.schema, labelled)
    _check_intensities(base, source, view.shown)
    spacings = [source.space.generator_schema(one).spacing for one in (base.schema, source.schema)]
    if not same_spacing(*spacings):
        wanted = ",".join(f"{mm:g}" for mm in source.schema.spacing)
        raise UsageFault(
            f"{named(base)}: its voxels are {_mm(spacings[0])}, those of {source.name} "
            f"{_mm(spacings[1])}; expected the same within 1 %. Resample them where its kind does: "
            f"--conditions-read spacing={wanted}"
        )
    return view


def _called_alike(base: CaseSource, wanted: Sequence[str]) -> CaseSource:
    """A source whose channels are spelt as the run's are, where only the case differs."""
    found = base.schema.channels
    spelt = {name.casefold(): name for name in wanted}
    names = {name: spelt.get(name.casefold(), name) for name in found}
    if len(set(names.values())) < len(found):
        return base
    return renamed(base, {old: new for old, new in names.items() if old != new})


def inherited(asked: Mapping[str, Any], own: SourceRequest) -> SourceRequest:
    """A request, with what was not asked for as in the run's own request, where that fits.

    All cases of another data set count, so its fold is ``all``; of a cache it is the cached one.
    """
    given = dict(asked)
    same = (given["kind"], given["where"]) == (own.kind, own.where)
    if given["kind"] == own.kind:
        read = {k: v for k, v in own.read.items() if same or k not in NOT_INHERITED}
        given["read"] = {**read, **given.get("read", {})}
        for key in ("configuration", "plans", "root"):
            given.setdefault(key, getattr(own, key))
    if "fold" not in given and not same and given["kind"] == "h5":
        from gansynth.data.h5_format import read_index

        given["fold"] = read_index(Path(given["where"]).expanduser()).fold
    given.setdefault("fold", own.fold if same else "all")
    if same:
        given.setdefault("subjects", own.subjects)
    return SourceRequest(**given)


def _check_intensities(base: CaseSource, source: CaseSource, shown: Sequence[str]) -> None:
    """Refuse intensities of another meaning, as far as the hosts' records say."""
    # A view of some channels has the host's record of all of them.
    whole = source.base if isinstance(source, Wrapped) else source
    one, other = (_intensities(s.host, s.schema.channels, shown) for s in (base, whole))
    if not one and not other:
        log.warning(
            "%s: whether its intensities mean what those of %s do cannot be known from either; "
            "samples of it show if they do not",
            *(named(base), source.name),
        )
    for key in sorted({*one, *other}):
        if one.get(key) != other.get(key):
            raise UsageFault(
                f"{named(base)}: {key} is {_brief(one.get(key))}, that of {source.name} "
                f"{_brief(other.get(key))}; expected the same, for intensities to mean the same. "
                "Read both alike, or preprocess both alike"
            )


def _intensities(
    host: Mapping[str, Any], channels: Sequence[str], shown: Sequence[str]
) -> dict[str, Any]:
    """What a host's record says of how intensities and axes came about; channels by name."""
    told = {**host, **host.get("slices", {})}
    found = {key: told[key] for key in _WHOLE if told.get(key) is not None}
    for key in _PER_CHANNEL:
        if told.get(key) is not None:
            by_name = _by_channel(told[key], channels)
            if isinstance(by_name, dict):
                by_name = {name: by_name[name] for name in shown if name in by_name}
            found[key] = by_name
    if _OF_CT in told and any("CT" in str(one) for one in told.get("normalization_schemes") or ()):
        properties = told[_OF_CT] or {}
        found[_OF_CT] = {c: properties.get(str(i)) for i, c in enumerate(channels)}
    return found


def _by_channel(value: Any, channels: Sequence[str]) -> Any:
    if isinstance(value, (list, tuple)) and len(value) == len(channels):
        return dict(zip(channels, value, strict=True))
    return value


def _mm(spacing: Sequence[float]) -> str:
    return " x ".join(f"{mm:g}" for mm in spacing) + " mm"


def _brief(value: Any) -> str:
    text = "not told" if value is None else str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
