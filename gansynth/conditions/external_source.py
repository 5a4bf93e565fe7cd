"""``--conditions SOURCE``: cases of another source to draw from, or into, instead of one's own.

Tumour-free brains, say, that lesions are put into. Such a case is handed out as if the run's own
source had it: the same channels in the same order, labels by the same names; one without labels is
wholly background, which whoever names it as a source of conditions says of it. A run that draws
label maps of images is shown their images alone: whatever their own labels are, they say nothing of
what it draws.

A channel is the run's if it is called so, in upper or lower case: ``T1`` is ``t1``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.lineage import CaseRecord
from gansynth.core.schema import OUTSIDE, Case, FloatArray, LabelArray, Schema
from gansynth.core.source import CaseSource, SourceRequest, Wrapped
from gansynth.data.grid import same_spacing
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


class BaseSource(Wrapped):
    """Another source's training cases with the run's schema.

    Args:
        base: the other source.
        schema: of the run's own source.
        labelled: whether labels are of use; without, cases have none, and may have more channels
            than the run.

    Raises:
        UsageFault: other channels, axes, labels or classes, another spacing, or cases that know of
            an outside where the run's do not.
    """

    def __init__(self, base: CaseSource, schema: Schema, labelled: bool = True) -> None:
        super().__init__(base)
        self._schema, self._labelled = schema, labelled
        self._order = self._find_channels(schema)
        self._values = self._find_labels(schema) if labelled else {}
        if base.schema.has_outside and not schema.has_outside:
            raise UsageFault(
                f"{_said(base)}: its cases have an outside (label -1), those of the run have none; "
                "expected cases that are read like the run's own, by the same kind of source"
            )
        if schema.classes and base.schema.classes != schema.classes:
            raise UsageFault(
                f"{_said(base)}: its cases have the classes {_names(base.schema.classes)}, those "
                f"of the run {_names(schema.classes)}; expected the same. Read them so: "
                "--conditions-read classes="
            )
        self._told = False

    def _find_channels(self, schema: Schema) -> list[int]:
        """For each of the run's channels that there is, its number in the other source."""
        return channel_order(self.base, schema, all_of_them=self._labelled)

    def _find_labels(self, schema: Schema) -> dict[int, int]:
        """Label value in the other source -> that of the run."""
        return label_values(self.base, schema)

    @property
    def shown(self) -> tuple[str, ...]:
        """Names of the channels that its cases have."""
        return self.schema.channels

    @property
    def schema(self) -> Schema:
        """That of the run's own source."""
        return self._schema

    def label_class(self, case_id: str) -> int | None:
        """Number of a case's class; None where the run knows of no classes."""
        return self.base.label_class(case_id) if self._schema.classes else None

    def load(self, case_id: str) -> Case:
        """Read one case: channels as the run has them, labels too, and no boxes.

        Raises:
            DataFault: see the other source.
        """
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

    def stored(self, case_id: str) -> tuple[FloatArray, npt.NDArray[np.float64]]:
        """The other source's, channels as the run has them."""
        image, affine = self.base.stored(case_id)
        return image[self._order], affine

    def _labels(self, case: Case) -> LabelArray:
        if case.labels is None:
            if not self._told:
                self._told = True
                log.warning(
                    "--conditions %s:%s: cases without labels (%s, for one) count as wholly "
                    "background",
                    *(self.request.kind, self.request.where, case.id),
                )
            return np.zeros(case.image.shape[1:], np.int16)
        if all(self._values.get(value) == value for value in self.base.schema.labels.values()):
            return case.labels
        mapped = np.zeros_like(case.labels)
        for value, own in {OUTSIDE: OUTSIDE, **self._values}.items():
            mapped[case.labels == value] = own
        return mapped

    def record(self, case_id: str, load: Callable[[str], Case] | None = None) -> CaseRecord:
        """Lineage record of a case as it is handed out here."""
        return self.base.record(case_id, load or self.load)

    def content(self, case_id: str, load: Callable[[str], Case] | None = None) -> str:
        """As ``record`` has it."""
        return self.base.content(case_id, load or self.load)


def open_base(asked: Mapping[str, Any], source: CaseSource, *, labelled: bool = True) -> BaseSource:
    """Open what ``--conditions`` names.

    Args:
        asked: a ``SourceRequest`` as JSON; what is not in it is as for the run's own source.
        source: the run's own.
        labelled: whether labels are of use. Without, all cases of the run's own data set count,
            too: nothing is learnt of them.

    Raises:
        UsageFault, DataFault: it does not open, has no case, or does not fit the run's own.
    """
    from gansynth.data.opening import open_plain

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
        raise DataFault(f"{_said(base)}: it has no case, expected at least one; add cases")
    base = _called_alike(base, source.schema.channels)
    view = _as_of(base, source) if labelled else BaseSource(base, source.schema, labelled=False)
    _check_intensities(base, source, view.shown)
    spacings = [source.space.generator_schema(one).spacing for one in (base.schema, source.schema)]
    if not same_spacing(*spacings):
        wanted = ",".join(f"{mm:g}" for mm in source.schema.spacing)
        raise UsageFault(
            f"{_said(base)}: its voxels are {_mm(spacings[0])}, those of {source.name} "
            f"{_mm(spacings[1])}; expected the same within 1 %. Resample them where its kind does: "
            f"--conditions-read spacing={wanted}"
        )
    return view


def _called_alike(base: CaseSource, wanted: Sequence[str]) -> CaseSource:
    """A source whose channels are spelt as the run's are, where only the case differs."""
    from gansynth.data.views import renamed

    found = base.schema.channels
    spelt = {name.casefold(): name for name in wanted}
    names = {name: spelt.get(name.casefold(), name) for name in found}
    if len(set(names.values())) < len(found):
        return base
    return renamed(base, {old: new for old, new in names.items() if old != new})


def _as_of(base: CaseSource, source: CaseSource) -> BaseSource:
    """Another source's cases as the run's own source would have them."""
    from gansynth.conditions.external_chain import ChainBase
    from gansynth.data.views import View

    if isinstance(source, View) and source.labeller is not None:
        return ChainBase(base, source)
    return BaseSource(base, source.schema)


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


# -- what has to fit -------------------------------------------------------------------------------


def channel_order(base: CaseSource, schema: Schema, *, all_of_them: bool = True) -> list[int]:
    """For each of the run's channels, its number in the other source.

    Args:
        base: the other source.
        schema: of the run's own.
        all_of_them: refuse others beside them.
    """
    found, wanted = base.schema.channels, schema.channels
    if base.schema.axes != schema.axes:
        raise UsageFault(
            f"{_said(base)}: its cases have the axes {base.schema.axes}, those of the run "
            f"{schema.axes}; expected the same"
        )
    if sorted(found) != sorted(wanted) and (all_of_them or not set(wanted) <= set(found)):
        expected = "the same, in any order" if all_of_them else "these among them"
        raise UsageFault(
            f"{_said(base)}: its channels are {_names(found)}, those of the run {_names(wanted)}; "
            f"expected {expected}. Name them so, or choose among them: "
            f"--conditions-read channels={','.join(wanted)}"
        )
    return [found.index(name) for name in wanted]


def label_values(base: CaseSource, schema: Schema, others: Collection[str] = ()) -> dict[int, int]:
    """Label value in the other source -> that of the run.

    Args:
        base: the other source.
        schema: of the run's own.
        others: names that the run knows otherwise.
    """
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
    if unknown:
        known = ",".join(f"{name}:{value}" for name, value in schema.labels.items() if value)
        raise UsageFault(
            f"{_said(base)}: its label {unknown[0]!r} is unknown to the run, expected names among "
            f"{_names(tuple(n for n, v in schema.labels.items() if v))}. Name them so: "
            f"--conditions-read labels={known}"
        )
    return values


def _check_intensities(base: CaseSource, source: CaseSource, shown: Sequence[str]) -> None:
    """Refuse intensities of another meaning, as far as the hosts' records say.

    Args:
        base: the other source.
        source: the run's own.
        shown: the channels that both have.
    """
    # A view of some channels has the host's record of all of them.
    whole = source.base if isinstance(source, Wrapped) else source
    one, other = (_intensities(s.host, s.schema.channels, shown) for s in (base, whole))
    if not one and not other:
        log.warning(
            "%s: whether its intensities mean what those of %s do cannot be known from either; "
            "samples of it show if they do not",
            *(_said(base), source.name),
        )
    for key in sorted({*one, *other}):
        if one.get(key) != other.get(key):
            raise UsageFault(
                f"{_said(base)}: {key} is {_brief(one.get(key))}, that of {source.name} "
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


def _said(base: CaseSource) -> str:
    return f"--conditions {base.request.kind}:{base.request.where}"


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _mm(spacing: Sequence[float]) -> str:
    return " x ".join(f"{mm:g}" for mm in spacing) + " mm"


def _brief(value: Any) -> str:
    text = "not told" if value is None else str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
