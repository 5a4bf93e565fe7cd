"""Open a source, or a view: the part of it that one part of a composite run reads.

A view is recorded in ``SourceRequest.view``:

- ``names``: old -> new name of channels.
- ``channels``, ``classes``: names of those in the view; numbers stay the source's.
- ``labels_by``: folder of the run that draws label maps, relative to the run that reads them;
  ``labels_sha256``: of its manifest. The source's own labels win.
- ``home``: the folder of the reading run; never recorded, because runs can be moved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from gansynth.core.capabilities import Capabilities
from gansynth.core.case_store import CaseStore
from gansynth.core.lineage import Lineage
from gansynth.core.registry import installed
from gansynth.core.schema import Case, FloatArray, LabelArray, Schema
from gansynth.core.source import (
    CaseSource,
    DecodedCase,
    Provenance,
    SourceRequest,
    StoredCase,
    WrappedSource,
)
from gansynth.core.space import Space
from gansynth.data.folds import class_numbers
from gansynth.data.read_options import options_of
from gansynth.runtime.errors import UsageFault, did_you_mean
from gansynth.runtime.measuring import measuring

HOME = "home"


def needed(request: SourceRequest, capabilities: Capabilities) -> SourceRequest:
    """Limit the request of a generator that draws label maps to the channels it is given."""
    channels = capabilities.channels
    if capabilities.draws != "labels" or "channels" in request.view or not channels:
        return request
    return replace(request, view=dict(request.view, channels=list(channels)))


class LabelDrawer(Protocol):
    """Draws label maps of cases, ``shift`` above their own, and says how the two are joined."""

    name: str
    lineage: Lineage
    labels: Mapping[str, int]
    given: tuple[str, ...]
    shift: int

    def schema(self, source_schema: Schema) -> Schema:
        """A schema with the drawn labels after its own."""

    def draw(self, case: Case, schema: Schema) -> LabelArray:
        """The label map of a whole case, int16 (D, H, W) or (H, W), values of its own schema."""

    def under(self, drawn: LabelArray) -> LabelArray:
        """Drawn labels with values above those of the source, which lie over them."""


OpenLabeller = Callable[[CaseSource], LabelDrawer]
"""Opens what draws label maps of a source's cases."""


def open_view(source: CaseSource, view: Mapping[str, Any]) -> CaseSource:
    """A source through a view; as it is if there is none, or if it is a view already."""
    return source if not view or isinstance(source, SourceView) else SourceView(source, view)


class SourceView(WrappedSource):
    """A source with some of the channels, the cases of some classes, or more labels.

    Its records are those of the whole cases. ``labeller`` opens what draws label maps, if anything
    does.
    """

    def __init__(
        self, base: CaseSource, view: Mapping[str, Any], labeller: OpenLabeller | None = None
    ) -> None:
        super().__init__(renamed(base, view.get("names", {})))
        base = self.base
        self._open_labeller = labeller
        plain = {key: value for key, value in view.items() if key != HOME}
        self.request = replace(base.request, view=plain)
        self._seen = sorted(
            channel_numbers(base.schema, view.get("channels", base.schema.channels))
        )
        names = view.get("classes")
        self._classes = None if names is None else class_numbers(base, names, asked="classes")

    @property
    def schema(self) -> Schema:
        """The channels that are seen; the source's labels, then the drawn ones."""
        base, fill = self.base.schema, self.base.schema.outside_fill
        schema = replace(
            base,
            channels=tuple([base.channels[i] for i in self._seen]),
            outside_fill=None if fill is None else tuple([fill[i] for i in self._seen]),
        )
        return schema if self.labeller is None else self.labeller.schema(schema)

    @property
    def space(self) -> Space:
        """The source's space; its record fits only with all channels."""
        space = self.base.space
        if "channels" not in self.request.view:
            return space
        host = dict(space.host, channels_seen=list(self.schema.channels))
        return replace(of_channels(space, self._seen), host=host)

    @cached_property
    def train_ids(self) -> tuple[str, ...]:
        return self._of_classes(self.base.train_ids)

    @cached_property
    def held_out_ids(self) -> tuple[str, ...]:
        """The source's held-out cases of the view's classes; ``behind`` has all of them."""
        return self._of_classes(self.base.held_out_ids)

    def _of_classes(self, ids: tuple[str, ...]) -> tuple[str, ...]:
        if self._classes is None:
            return ids
        return tuple([i for i in ids if self.base.header(i).label_class in self._classes])

    def load(self, case_id: str) -> Case:
        """A case with the channels that are seen, and labels as drawn."""
        case = self.base.load(case_id)
        labels, under = case.labels, None
        if self.labeller is not None:
            under = self.labeller.under(self.labeller.draw(case, self.base.schema))
            labels = under if labels is None else np.where(labels != 0, labels, under)
        return replace(case, image=case.image[self._seen], labels=labels, under=under)

    def decode(self, case_id: str) -> DecodedCase:
        """What the source's files hold, of the channels that are seen."""
        decoded = super().decode(case_id)
        return replace(decoded, image=decoded.image[self._seen])

    def files(self, case_id: str) -> StoredCase | None:
        return of_channels_seen(self.base.files(case_id), self._seen)

    def store_of(self, case_id: str) -> CaseStore | None:
        """The source's; nothing is kept of drawn label maps."""
        return None if self.labeller is not None else self.base.store_of(case_id)

    @property
    def provenance(self) -> Provenance | None:
        """The run that draws label maps, and those behind it."""
        if self.labeller is None:
            return None
        lineages = self.labeller.lineage.everyone()
        return Provenance(ancestors=tuple([replace(each, ancestors=()) for each in lineages]))

    @cached_property
    def labeller(self) -> LabelDrawer | None:
        """The drawer of label maps, or None."""
        return None if self._open_labeller is None else self._open_labeller(self.base)


class _RenamedChannels(WrappedSource):
    """A source whose channels are called otherwise, as another data set calls the same ones."""

    def __init__(self, base: CaseSource, names: Mapping[str, str]) -> None:
        super().__init__(base)
        self._names = dict(names)

    @property
    def schema(self) -> Schema:
        schema = self.base.schema
        channels = [self._names.get(channel, channel) for channel in schema.channels]
        return replace(schema, channels=tuple(channels))


def renamed(base: CaseSource, names: Mapping[str, str]) -> CaseSource:
    """A source with other names for its channels, if any; UsageFault for an unknown channel."""
    if not names:
        return base
    channel_numbers(base.schema, names)
    return _RenamedChannels(base, names)


def unwrap(source: CaseSource) -> CaseSource:
    """Return the source behind a view; all of its held-out cases stay held out."""
    source = source.base if isinstance(source, SourceView) else source
    return source.base if isinstance(source, _RenamedChannels) else source


def merged_schema(schema: Schema, drawn: Schema, by: str, shift: int) -> Schema:
    """A schema with another's foreground labels after its own."""
    labels = dict(schema.labels)
    for name, value in drawn.labels.items():
        if value > 0:
            labels[f"{by}:{name}"] = value + shift
    return replace(schema, labels=labels)


def of_channels(space: Space, channels: Sequence[int]) -> Space:
    """A space with the units of some channels."""
    if space.window is None:
        return space
    return replace(space, window=tuple([space.window[i] for i in channels]))


def only_intensity(space: Space, channels: list[int]) -> Space:
    """A space that changes nothing but the units, of some channels."""
    return Space("native", window=of_channels(space, channels).window)


def of_channels_seen(files: StoredCase | None, channels: Sequence[int]) -> StoredCase | None:
    """Return a case's files with some of the channels, in any order."""
    if files is None or files.arrays is None:
        return files
    read = files.arrays

    def arrays() -> tuple[FloatArray, LabelArray | None]:
        image, labels = read()
        return image[channels], labels

    return replace(files, arrays=arrays)


def channel_numbers(schema: Schema, names: Any) -> list[int]:
    """Where channels are in a schema's arrays. Raises UsageFault: one is not there."""
    for name in names:
        if name not in schema.channels:
            raise UsageFault(
                "views.channel-unknown",
                f"channel {name!r} is unknown, expected among {', '.join(schema.channels)}."
                f"{did_you_mean(name, schema.channels)}",
            )
    return [schema.channels.index(name) for name in names]


def open_plain(request: SourceRequest) -> CaseSource:
    """Open a source whose labels no generator draws; ``sampling.opening`` opens any other."""
    opener: Callable[[SourceRequest], CaseSource] = installed().load("sources", request.kind)
    options_of(opener, request)
    plain = replace(request, view={})
    opened = measuring().opened(f"{request.kind}:{request.where}", lambda: opener(plain))
    return open_view(opened, request.view)
