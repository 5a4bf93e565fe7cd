"""Cases of another source: of ``--label-source``, ``--unlabelled`` and ``--real``.

Each case looks as if it came from the
run's own source: channels have the run's order, labels the run's names, and names of channels match
in upper or lower case. A case without labels counts as background. A run that draws label maps of
images gets the images alone. A chain draws label maps of these cases, too (Shin et al. 2018, sec.
3.1), unless they come with tissue labels of their own.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import OUTSIDE, Case, LabelArray, Schema
from gansynth.core.source import (
    CaseHeader,
    CaseSource,
    DecodedCase,
    SourceRequest,
    StoredCase,
    WrappedSource,
)
from gansynth.data.grid import same_spacing
from gansynth.data.held_out import is_same_data, is_same_place
from gansynth.data.listing import places_of_channels
from gansynth.data.name_patterns import files_below, read_pattern
from gansynth.data.views import LabelDrawer, SourceView, of_channels_seen, open_plain, renamed
from gansynth.runtime.errors import DataFault, UsageFault, describe_error

log = logging.getLogger("gansynth")


class ConditionSource(WrappedSource):
    """Another source's training cases with the schema of the run's own.

    Unless ``labelled``, cases have no labels, and may have more channels than the run.
    """

    same_cases = False

    def __init__(self, base: CaseSource, schema: Schema, labelled: bool = True) -> None:
        super().__init__(base)
        self._schema, self._labelled = schema, labelled
        self._order = self._find_channels(schema)
        self._values = self._find_labels(schema) if labelled else {}
        if base.schema.has_outside and not schema.has_outside:
            raise UsageFault(
                "conditions.label-source-has-outside",
                f"{named(base)}: its cases have an outside (label -1), those of the run have none. "
                "Expected cases that are read like the run's own, by the same kind of source",
            )
        self._check_classes(schema)
        self._warned = False

    def _check_classes(self, schema: Schema) -> None:
        if schema.classes and self.base.schema.classes != schema.classes:
            raise UsageFault(
                "conditions.label-source-classes-differ",
                f"{named(self.base)}: its cases have the classes "
                f"{_names(self.base.schema.classes)}, those of the run {_names(schema.classes)}; "
                "expected the same. Read them so: --label-source-read classes=",
            )

    def _find_channels(self, schema: Schema) -> list[int]:
        return channel_order(self.base, schema, all_of_them=self._labelled)

    def _find_labels(self, schema: Schema) -> dict[int, int]:
        return label_values(self.base, schema)

    @property
    def shown(self) -> tuple[str, ...]:
        """Names of the channels that the cases have."""
        return self.schema.channels

    @property
    def schema(self) -> Schema:
        return self._schema

    def header(self, case_id: str) -> CaseHeader:
        """Header of the other source; without a class where the run has none."""
        header = self.base.header(case_id)
        return header if self._schema.classes else replace(header, label_class=None)

    def load(self, case_id: str) -> Case:
        """Read one case: channels as the run has them, labels too, and no boxes."""
        case = self.base.load(case_id)
        image = case.image
        if self._order != list(range(len(image))):
            image = np.ascontiguousarray(image[self._order])
        return replace(
            case,
            image=image,
            labels=self._labels(case) if self._labelled else None,
            boxes=None,
            label_class=case.label_class if self._schema.classes else None,
        )

    def decode(self, case_id: str) -> DecodedCase:
        """Return what the files of the other source hold, of the channels that the run has."""
        decoded = super().decode(case_id)
        labels = decoded.labels if self._labelled else None
        image = decoded.image[self._order]
        return replace(decoded, image=image, labels=labels, boxes=None, label_class=None)

    def files(self, case_id: str) -> StoredCase | None:
        return of_channels_seen(self.base.files(case_id), self._order)

    def _labels(self, case: Case) -> LabelArray:
        if case.labels is None:
            if not self._warned:
                self._warned = True
                log.warning(
                    "%s: cases without labels (%s, for one) count as wholly background",
                    named(self),
                    case.id,
                )
            return np.zeros(case.image.shape[1:], np.int16)
        if all(self._values.get(value) == value for value in self.base.schema.labels.values()):
            return case.labels
        return _mapped(case.labels, {OUTSIDE: OUTSIDE} | self._values)


class ChainConditionSource(ConditionSource):
    """Cases of another source in a chain, with the label maps that a generator draws of them."""

    def __init__(self, base: CaseSource, view: SourceView) -> None:
        labeller = view.labeller
        assert labeller is not None, "of views without one nothing is drawn"
        self.labeller: LabelDrawer = labeller
        self._merged = view.schema
        super().__init__(base, view.base.schema)
        # Label value in the other source -> that of the drawn label of the same name.
        self._tissues = {
            value: self.labeller.labels[name] + self.labeller.shift
            for name, value in base.schema.labels.items()
            if value > 0 and name in self.labeller.labels and name not in self._schema.labels
        }
        lacking = [c for c in self.labeller.given if c not in self.shown]
        if not self._tissues and lacking:
            raise UsageFault(
                "conditions.label-source-lacks-channels",
                f"{named(base)}: its channels are {', '.join(base.schema.channels)}, expected "
                f"{', '.join(lacking)} among them, of which {self.labeller.name} draws label "
                f"maps; name them so: --label-source-read channels={','.join(lacking)}",
            )

    @property
    def schema(self) -> Schema:
        """The run's own schema, with the labels that a part of the chain draws."""
        return self._merged

    @property
    def shown(self) -> tuple[str, ...]:
        return tuple(c for c in self._schema.channels if c in self.base.schema.channels)

    def _find_channels(self, schema: Schema) -> list[int]:
        return [self.base.schema.channels.index(name) for name in self.shown]

    def _find_labels(self, schema: Schema) -> dict[int, int]:
        return label_values(self.base, schema, self.labeller.labels)

    def load(self, case_id: str) -> Case:
        """Read one case: missing channels are zeros, labels are tissues and its own."""
        case = self.base.load(case_id)
        channels, own_labels = self._schema.channels, self._labels(case)
        image = np.zeros((len(channels), *case.image.shape[1:]), np.float32)
        for name, number in zip(self.shown, self._order, strict=True):
            image[channels.index(name)] = case.image[number]
        if not self._tissues or case.labels is None:
            drawn = self.labeller.draw(replace(case, image=image), self._schema)
            under = self.labeller.under(drawn)
        else:
            under = _mapped(case.labels, self._tissues)
        labels = np.where(own_labels != 0, own_labels, under)
        return replace(case, image=image, labels=labels, boxes=None, under=under, label_class=None)


def channel_order(base: CaseSource, schema: Schema, *, all_of_them: bool = True) -> list[int]:
    """Return the number of each of the run's channels in the other source."""
    base_channels, channels = base.schema.channels, schema.channels
    if base.schema.axes != schema.axes:
        raise UsageFault(
            "conditions.label-source-axes-differ",
            f"{named(base)}: its cases have the axes {base.schema.axes}, those of the run "
            f"{schema.axes}; expected the same",
        )
    if sorted(base_channels) != sorted(channels) and (
        all_of_them or not set(channels) <= set(base_channels)
    ):
        expected = "the same, in any order" if all_of_them else "these among them"
        raise UsageFault(
            "conditions.label-source-channels-differ",
            f"{named(base)}: its channels are {_names(base_channels)}, those of the run "
            f"{_names(channels)}; expected {expected}. Name them so, or choose among them: "
            f"--label-source-read channels={','.join(channels)}",
        )
    return [base_channels.index(name) for name in channels]


def label_values(base: CaseSource, schema: Schema, others: Collection[str] = ()) -> dict[int, int]:
    """Map label values of the other source to the run's; names in ``others`` are left out."""
    values, unknown = {0: 0}, []
    for name, value in base.schema.labels.items():
        if value == 0:
            continue
        if value == base.schema.ignore and schema.ignore is not None:
            values[value] = schema.ignore
        elif name in schema.labels:
            values[value] = schema.labels[name]
        elif name not in others:
            unknown.append(name)
    if base.schema.ignore is not None and schema.ignore is None:
        raise UsageFault(
            "conditions.ignore-label-unknown",
            f"{named(base)}: its label maps have places to ignore, those of the training cases "
            "have none; expected such a label in both. Name one, which no map needs to hold, "
            "--read labels=lesion:1,ignore:2, and fit the generator again",
        )
    if unknown:
        known = {name: value for name, value in schema.labels.items() if value}
        pairs = [f"{name}:{value}" for name, value in known.items()]
        raise UsageFault(
            "conditions.label-source-label-unknown",
            f"{named(base)}: its label {unknown[0]!r} is unknown to the run, expected names among "
            f"{_names(list(known))}. Name them so: --label-source-read labels={','.join(pairs)}",
        )
    return values


def named(base: CaseSource) -> str:
    """A source as ``--label-source`` names it, for messages."""
    return f"--label-source {base.request.kind}:{base.request.where}"


def _mapped(labels: LabelArray, values: Mapping[int, int]) -> LabelArray:
    out = np.zeros_like(labels)
    for value, new_value in values.items():
        out[labels == value] = new_value
    return out


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


# -- opening it ------------------------------------------------------------------------------------


NOT_INHERITED = frozenset(
    {"labels", "boxes", "least", "splits", "folds", "seed", "slices", "count_from", "foreground"}
    | {"min_foreground", "classes", "allow_absolute"}
)
"""Keys of ``--read`` that describe one data set, not how its arrays are computed."""
_PER_CHANNEL = ("intensity", "normalization_schemes", "use_mask_for_norm", "window")
_WHOLE = ("orientation", "transpose_forward", "outside", "plane", "concat", "resize")
_OF_CT = "foreground_intensity_properties_per_channel"


def open_base(
    request_json: Mapping[str, Any], source: CaseSource, *, labelled: bool = True
) -> ConditionSource:
    """Open the source of ``--label-source``: a ``SourceRequest`` as JSON, with defaults.

    Unless ``labelled``, all cases of the run's own data set count, because none is learnt from.
    """
    if not labelled and request_json["kind"] != "h5" and "fold" not in request_json:
        request_json = dict(request_json, fold="all")
    base = open_other(request_json, source)
    if labelled and isinstance(source, SourceView) and source.labeller is not None:
        view: ConditionSource = ChainConditionSource(base, source)
    else:
        view = ConditionSource(base, source.schema, labelled)
    _check_intensities(base, source, view.shown)
    check_spacing(base, source)
    return view


def open_other(
    request_json: Mapping[str, Any], source: CaseSource, *, like: bool = False
) -> CaseSource:
    """Open another source, a ``SourceRequest`` as JSON, with names of channels as the run has.

    ``like``: its units and voxels are the run's, where they are learnt of cases.
    """
    request = inherited_request(request_json, source.request, scans=like)
    base = _opened(request)
    if (
        "fold" not in request_json
        and request.fold != source.request.fold
        and is_same_data(base, source)
    ):
        base = _opened(replace(request, fold=source.request.fold))
    if like:
        base = source.preparing(base)
    return _called_alike(base, source.schema.channels)


def differing_images(other: CaseSource, source: CaseSource) -> str:
    """Say which channels and axes another source has, and which were expected; empty if the same.

    ``other``: as ``open_other`` opens it.
    """
    theirs, ours = other.schema, source.schema
    if (theirs.channels, theirs.axes) == (ours.channels, ours.axes):
        return ""
    return (
        f"channels {', '.join(theirs.channels)}, axes {theirs.axes}; expected "
        f"{', '.join(ours.channels)}, {ours.axes}, as {source.name} has"
    )


def check_opens(samples: SampleRequest, own: SourceRequest) -> list[CaseSource]:
    """Open other sources before anything else is done with the own one; return ``unlabelled``."""
    if samples.label_source is not None:
        _opened(inherited_request(samples.label_source, own))
    with describe_error("--label-source", "--unlabelled"):
        return [_opened(inherited_request(asked, own, scans=True)) for asked in samples.unlabelled]


def _opened(request: SourceRequest) -> CaseSource:
    try:
        base = open_plain(request)
    except (UsageFault, DataFault) as fault:
        text = str(fault).replace("--read ", "--label-source-read ")
        text = text.replace("--fold ", "--label-source-read fold=").removeprefix("--data ")
        where = f"{request.kind}:{request.where}: "
        raise fault.reworded(f"--label-source {where}{text.removeprefix(where)}") from fault
    if not base.train_ids:
        raise DataFault(
            "conditions.label-source-without-cases",
            f"{named(base)}: it has no case, expected at least one; add cases",
        )
    return base


def check_spacing(base: CaseSource, source: CaseSource) -> None:
    """Refuse voxels of another size."""
    spacings = [
        source.space.generator_schema(schema).spacing for schema in (base.schema, source.schema)
    ]
    if not same_spacing(*spacings):
        spacing = ",".join(f"{mm:g}" for mm in source.schema.spacing)
        raise UsageFault(
            "conditions.label-source-spacing-differs",
            f"{named(base)}: its voxels are {_mm(spacings[0])}, those of {source.name} "
            f"{_mm(spacings[1])}; expected the same within 1 %. Resample them where its kind does: "
            f"--label-source-read spacing={spacing}",
        )


def _called_alike(base: CaseSource, channels: Sequence[str]) -> CaseSource:
    """Rename channels that differ from the run's in upper and lower case, or are numbered."""
    base_channels = base.schema.channels
    spelt = {name.casefold(): name for name in channels}
    names = {name: spelt.get(name.casefold(), name) for name in base_channels}
    places = places_of_channels(base_channels, channels)
    if places is not None:
        names |= {base_channels[place]: name for name, place in zip(channels, places, strict=True)}
    if len(set(names.values())) < len(base_channels):
        return base
    return renamed(base, {old: new for old, new in names.items() if old != new})


def inherited_request(
    request_json: Mapping[str, Any], run_request: SourceRequest, *, scans: bool = False
) -> SourceRequest:
    """Complete a request with the fields of the run's own request that apply to it.

    The fold of another data set is ``all``; that of a cache is the cached one. A key of ``read``
    that is empty is not inherited. ``scans``: where label maps are is, only if files are there.
    """
    fields = dict(request_json)
    same = is_same_place(SourceRequest(fields["kind"], fields["where"]), run_request)
    if fields["kind"] == run_request.kind:
        read = {k: v for k, v in run_request.read.items() if same or k not in NOT_INHERITED}
        if scans:
            where = Path(fields["where"])
            read = {key: text for key, text in read.items() if _is_there(where, key, read)}
        read.update(fields.get("read", {}))
        fields["read"] = {key: text for key, text in read.items() if text}
        for key in ("configuration", "plans", "root"):
            fields.setdefault(key, getattr(run_request, key))
    if "fold" not in fields and not same and fields["kind"] == "h5":
        from gansynth.data.h5 import read_index

        fields["fold"] = read_index(Path(fields["where"]).expanduser()).fold
    fields.setdefault("fold", run_request.fold if same else "all")
    if same:
        for key in ("subjects", "sites"):
            fields.setdefault(key, getattr(run_request, key))
    return SourceRequest(**fields)


def _is_there(folder: Path, key: str, read: Mapping[str, str]) -> bool:
    """Whether files of a folder are where a key of ``read`` says, if it says where."""
    text = read[key]
    if not folder.is_dir():
        return True
    if key in ("images", "masks"):
        return (folder / text).is_dir()
    if key == "mask_suffix" or (key == "label" and "image" not in read):
        return any(f"{text}." in path.name for _, path in files_below(folder))
    if key == "label":
        pattern = read_pattern(text, of_labels=True)
        return any(pattern.fits(name) for name, _ in files_below(folder))
    return True


def check_whole(base: CaseSource, source: CaseSource) -> None:
    """Refuse arrays of another orientation or plane, as far as the sources' records tell."""
    whole = source.base if isinstance(source, WrappedSource) else source
    _compare(base, whole, _axes_record(base.space.host), _axes_record(whole.space.host))


def _check_intensities(base: CaseSource, source: CaseSource, channels: Sequence[str]) -> None:
    """Refuse intensities of another meaning, as far as the sources' records tell."""
    # A view of some channels has the record of all of them.
    whole = source.base if isinstance(source, WrappedSource) else source
    base_record = _intensities(base.space.host, base.schema.channels, channels)
    run_record = _intensities(whole.space.host, whole.schema.channels, channels)
    if not base_record and not run_record:
        log.warning(
            "%s: whether its intensities mean what those of %s do cannot be known from either; "
            "samples of it show if they do not",
            named(base),
            source.name,
        )
    _compare(base, source, base_record, run_record)


def _compare(
    base: CaseSource,
    source: CaseSource,
    base_record: Mapping[str, Any],
    run_record: Mapping[str, Any],
) -> None:
    for key in sorted({*base_record, *run_record}):
        if base_record.get(key) != run_record.get(key):
            raise UsageFault(
                "conditions.label-source-intensities-differ",
                f"{named(base)}: {key} is {_brief(base_record.get(key))}, that of {source.name} "
                f"{_brief(run_record.get(key))}; expected the same, for intensities to mean the "
                "same. Read both alike, or preprocess both alike",
            )


def _record(host: Mapping[str, Any]) -> dict[str, Any]:
    """Return a source's record; what it says of slices goes before what it says of whole cases."""
    record = dict(host)
    record.update(host.get("slices", {}))
    return record


def _axes_record(host: Mapping[str, Any]) -> dict[str, Any]:
    record = _record(host)
    return {key: record[key] for key in _WHOLE if record.get(key) is not None}


def _intensities(
    host: Mapping[str, Any], channels: Sequence[str], compared: Sequence[str]
) -> dict[str, Any]:
    """Return the entries of a source's record that define intensities and axes, by channel."""
    record, values = _record(host), _axes_record(host)
    for key in _PER_CHANNEL:
        if record.get(key) is not None:
            by_name = _by_channel(record[key], channels)
            if isinstance(by_name, dict):
                by_name = {name: by_name[name] for name in compared if name in by_name}
            values[key] = by_name
    schemes = record.get("normalization_schemes") or ()
    if _OF_CT in record and any("CT" in str(scheme) for scheme in schemes):
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
