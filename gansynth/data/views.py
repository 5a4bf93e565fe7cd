"""What one part of a composite run sees of its source: some channels, some classes, drawn labels.

A view is written down in ``SourceRequest.view``, so that whoever opens the request sees the same:

- ``names``: what channels are called here, where the source calls them otherwise: old -> new.
- ``channels``: names of the image channels that are seen, in the source's order.
- ``classes``: names of the classes whose cases are seen; their numbers stay the source's.
- ``labels_by``: folder of the run that draws label maps, relative to the folder of the run that
  sees them. The source's own labels win; what is drawn gets values above them.
- ``labels_sha256``: of that run's manifest; another run there is refused.
- ``home``: the folder of the run that sees them; never written down, because runs can be moved.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gansynth.core.lineage import Lineage
from gansynth.core.resample import crop_pad
from gansynth.core.schema import Case, Condition, FloatArray, LabelArray, Sample, Schema
from gansynth.core.source import CaseSource, SourceRequest, Wrapped
from gansynth.core.space import Space
from gansynth.data.classes import class_numbers
from gansynth.runtime.errors import IntegrityFault, UsageFault, did_you_mean

if TYPE_CHECKING:
    from gansynth.sampling.run import Run

HOME = "home"


def open_view(opener: Callable[[SourceRequest], CaseSource], request: SourceRequest) -> CaseSource:
    """Open a source and look at it through the request's view.

    Raises:
        UsageFault: a channel that the source does not have, or no run that draws labels.
    """
    return viewed(opener(replace(request, view={})), request.view)


def needed(request: SourceRequest, options: Any) -> SourceRequest:
    """A request that shows a generator no more than it needs.

    What draws label maps needs the channels they are drawn from; all others are left as they are.
    """
    given = given_channels(options)
    if not draws_labels(options) or "channels" in request.view or not given:
        return request
    return replace(request, view={**request.view, "channels": list(given)})


def viewed(source: CaseSource, view: Mapping[str, Any]) -> CaseSource:
    """A source through a view; as it is if there is none, or if it is a view already."""
    return source if not view or isinstance(source, View) else View(source, view)


class View(Wrapped):
    """A source with some of the channels, the cases of some classes, or more labels.

    Its records are those of the whole cases: whoever sees a channel has seen the case.

    Args:
        base: the source.
        view: see the module's description.
    """

    def __init__(self, base: CaseSource, view: Mapping[str, Any]) -> None:
        super().__init__(renamed(base, view.get("names", {})))
        base = self.base
        plain = {key: value for key, value in view.items() if key != HOME}
        self._home = Path(view.get(HOME, "."))
        if "labels_by" in view:
            plain["labels_sha256"] = self._check_labels(view)
        self.request = replace(base.request, view=plain)
        self._seen = sorted(
            channel_numbers(base.schema, view.get("channels", base.schema.channels))
        )
        names = view.get("classes")
        self._classes = None if names is None else class_numbers(base, names, asked="classes")

    @property
    def schema(self) -> Schema:
        """The channels that are seen; the source's labels, then the drawn ones."""
        schema = pick_channels(self.base.schema, self._seen)
        return schema if self.labeller is None else self.labeller.schema(schema)

    @property
    def space(self) -> Space:
        """The source's, whose host it fits only with all channels."""
        space = self.base.space
        if "channels" not in self.request.view:
            return space
        window = None if space.window is None else tuple(space.window[i] for i in self._seen)
        host = {**space.host, "channels_seen": list(self.schema.channels)}
        return replace(space, window=window, host=host)

    @cached_property
    def train_ids(self) -> tuple[str, ...]:
        """The source's, of the classes that are seen."""
        return self._of_classes(self.base.train_ids)

    @cached_property
    def held_out_ids(self) -> tuple[str, ...]:
        """The source's, of the classes that are seen; what is barred is told by ``behind``."""
        return self._of_classes(self.base.held_out_ids)

    def _of_classes(self, ids: tuple[str, ...]) -> tuple[str, ...]:
        if self._classes is None:
            return ids
        return tuple(i for i in ids if self.base.label_class(i) in self._classes)

    def load(self, case_id: str) -> Case:
        """A case with the channels that are seen, and labels as drawn."""
        case = self.base.load(case_id)
        labels, under = case.labels, None
        if self.labeller is not None:
            under = self.labeller.under(self.labeller.draw(case, self.base.schema))
            labels = under if labels is None else np.where(labels != 0, labels, under)
        return replace(case, image=case.image[self._seen], labels=labels, under=under)

    def stored(self, case_id: str) -> tuple[FloatArray, npt.NDArray[np.float64]]:
        """The source's, of the channels that are seen."""
        image, affine = self.base.stored(case_id)
        return image[self._seen], affine

    @property
    def ancestors(self) -> tuple[Lineage, ...]:
        """The source's; then what the label maps' maker has seen, and its ancestors."""
        if self.labeller is None:
            return self.base.ancestors
        seen = self.labeller.run.lineage
        drawn = tuple(replace(one, ancestors=()) for one in seen.everyone())
        return (*self.base.ancestors, *drawn)

    @cached_property
    def labeller(self) -> Labeller | None:
        """What draws label maps, if anything does."""
        folder = self.request.view.get("labels_by")
        if folder is None:
            return None
        from gansynth.sampling.run import load_run

        return Labeller(load_run((self._home / folder).resolve()), self.base.schema)

    def _check_labels(self, view: Mapping[str, Any]) -> str:
        """SHA-256 of what draws the label maps, if it is what it has always been."""
        from gansynth.sampling.run import manifest_sha256, read_manifest

        folder = (self._home / view["labels_by"]).resolve()
        read_manifest(folder)
        found = manifest_sha256(folder)
        wanted = view.get("labels_sha256", found)
        if found != wanted:
            raise IntegrityFault(
                f"{folder}: SHA-256 of its manifest is {found[:12]}, expected {wanted[:12]}; the "
                "run has changed since it drew the label maps that another one learnt from. "
                "Restore it from a copy, or fit both again"
            )
        return found


class _Renamed(Wrapped):
    """A source whose channels are called otherwise, as another data set calls the same ones."""

    def __init__(self, base: CaseSource, names: Mapping[str, str]) -> None:
        super().__init__(base)
        self._names = dict(names)

    @property
    def schema(self) -> Schema:
        """The source's, with other names."""
        schema = self.base.schema
        channels = tuple(self._names.get(channel, channel) for channel in schema.channels)
        return replace(schema, channels=channels)


def renamed(base: CaseSource, names: Mapping[str, str]) -> CaseSource:
    """A source with other names for its channels; as it is if there are none.

    Raises:
        UsageFault: a channel that it does not have.
    """
    if not names:
        return base
    channel_numbers(base.schema, names)
    return _Renamed(base, names)


def behind(source: CaseSource) -> CaseSource:
    """The source behind a view: all of its held-out cases are held out, whatever a view shows."""
    source = source.base if isinstance(source, View) else source
    return source.base if isinstance(source, _Renamed) else source


class Labeller:
    """A run that draws label maps from images, and how they join a source's own.

    Args:
        run: the run.
        source: schema of the cases it is asked about. Its labels win; everything drawn gets values
            above theirs.
    """

    def __init__(self, run: Run, source: Schema) -> None:
        self.run, folder = run, run.folder
        self.shift = max((0, *source.labels.values()))
        generator = self.run.generator
        if not draws_labels(generator.options):
            raise UsageFault(
                f"labels_by: {folder.name} draws images, expected a part that draws label maps; "
                "for cgan3d: set: {target: labels, given: [...]}"
            )
        self._given = channel_numbers(source, given_channels(generator.options))
        if generator.schema.ndim != source.ndim and self.run.space.grid != "slice":
            raise UsageFault(
                f"labels_by: {folder.name} draws maps of {generator.schema.ndim} axes, the cases "
                f"have {source.ndim}; expected the same"
            )

    def schema(self, own: Schema) -> Schema:
        """A schema with the drawn labels after its own."""
        return merged_schema(own, self.run.schema, self.run.folder.name, self.shift)

    def draw(self, case: Case, schema: Schema) -> LabelArray:
        """Draw the label map of a whole case; the same case gives the same map.

        A run that has learnt from whole cases at another resolution is shown them there; beyond its
        frame there is background.

        Args:
            case: image (C, D, H, W) or (C, H, W), in the source's units.
            schema: names its channels.

        Returns:
            int16 (D, H, W) or (H, W), values of the run's own schema.
        """
        numbers = channel_numbers(self.run.schema, [schema.channels[i] for i in self._given])
        image, seed = case.image[self._given], zlib.crc32(case.id.encode())
        if self.run.space.grid == "resample":
            return self._resampled(image, numbers, seed)
        given = only_intensity(self.run.space, numbers).to_generator(Case("", "", image)).image
        if self.run.generator.schema.ndim < schema.ndim:
            planes = [self._one(given[:, i], seed + i) for i in range(given.shape[1])]
            return np.stack(planes)
        return self._one(given, seed)

    def _one(self, given: FloatArray, seed: int) -> LabelArray:
        condition = Condition(given=np.ascontiguousarray(given), latent_seed=seed)
        labels = self.run.generator.sample([condition], [seed])[0].labels
        assert labels is not None, "checked when the labeller was opened"
        return labels

    def _resampled(self, image: FloatArray, numbers: list[int], seed: int) -> LabelArray:
        """Drawn where the run draws, and back on the grid of the case."""
        space, shape = of_channels(self.run.space, numbers), image.shape[1:]
        given = space.to_generator(Case("", "", image)).image
        drawn = space.to_host(Sample(given, self._one(given, seed)), shape).labels
        assert drawn is not None, "labels were given"
        corner = space.frame_corner(shape)
        return crop_pad(drawn, [-first for first in corner], shape, 0) if corner else drawn

    def under(self, drawn: LabelArray) -> LabelArray:
        """Drawn labels with values above those of the source, which lie over them."""
        return np.where(drawn > 0, drawn + np.int16(self.shift), np.int16(0)).astype(np.int16)


def merged_schema(own: Schema, drawn: Schema, by: str, shift: int) -> Schema:
    """A schema with another's foreground labels after its own."""
    added = {f"{by}:{name}": value + shift for name, value in drawn.labels.items() if value > 0}
    return replace(own, labels={**own.labels, **added})


def draws_labels(options: Any) -> bool:
    """Whether what a generator of these options draws is a label map."""
    return getattr(options, "target", "image") == "labels"


def given_channels(options: Any) -> tuple[str, ...]:
    """Names of the channels a generator of these options is given instead of drawing them."""
    return tuple(getattr(options, "given", ()))


def of_channels(space: Space, channels: list[int]) -> Space:
    """A space with the units of some channels."""
    if space.window is None:
        return space
    return replace(space, window=tuple(space.window[i] for i in channels))


def only_intensity(space: Space, channels: list[int]) -> Space:
    """A space that changes nothing but the units, of some channels."""
    return Space("native", window=of_channels(space, channels).window)


def channel_numbers(schema: Schema, names: Any) -> list[int]:
    """Where channels are in a schema's arrays.

    Raises:
        UsageFault: one is not there.
    """
    for name in names:
        if name not in schema.channels:
            raise UsageFault(
                f"channel {name!r} is unknown, expected among {', '.join(schema.channels)}."
                f"{did_you_mean(name, schema.channels)}"
            )
    return [schema.channels.index(name) for name in names]


def pick_channels(schema: Schema, numbers: list[int]) -> Schema:
    """A schema with some of its channels."""
    fill = schema.outside_fill
    return replace(
        schema,
        channels=tuple(schema.channels[i] for i in numbers),
        outside_fill=None if fill is None else tuple(fill[i] for i in numbers),
    )
