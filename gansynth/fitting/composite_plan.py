"""Plan of a composite run: resolves every part, and checks that they give whole samples."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gansynth.conditions.edit_chain import build_edits
from gansynth.core.capabilities import Capabilities
from gansynth.core.generator import capabilities_of
from gansynth.core.registry import installed, such_as
from gansynth.core.run_folder import read_manifest
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.data.views import SourceView, channel_numbers
from gansynth.fitting.composite_spec import PartSpec, PerChannel, PerClass, Spec
from gansynth.fitting.pipeline import PipelineStep
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.options import split_settings
from gansynth.sampling.manifest import COMPOSITE, PARTS
from gansynth.sampling.request_checks import GeneratorInfo, check_edits
from gansynth.sampling.run_source import open_source, viewed
from gansynth.training.loop import FitOptions


@dataclass(frozen=True)
class PlannedPart(PipelineStep):
    """A part before it is fitted; its view has no ``home`` yet.

    Attributes:
        draws: image channels it generates; none if it generates label maps.
        own_data: whether it learns from its own source.
        classes: of the cases it sees; empty for all.
        init_from: the earlier part with its initial weights, if any.
        begins: whether another part starts from it; it then generates nothing.
    """

    draws: tuple[str, ...]
    own_data: bool = False
    classes: tuple[str, ...] = ()
    init_from: str | None = None
    begins: bool = False


@dataclass(frozen=True)
class CompositePlan:
    """A resolved and checked composite run; part ``labels_by`` generates label maps."""

    source: CaseSource
    parts: tuple[PlannedPart, ...]
    edits: tuple[str, ...]
    labels_by: str | None

    @property
    def view(self) -> Mapping[str, Any]:
        """Return the view of the composite's conditions."""
        view = self.source.request.view
        return view if self.labels_by is None else {"labels_by": f"{PARTS}/{self.labels_by}"}

    def config(self, init_from: Path | None) -> dict[str, Any]:
        """Return the resolved settings."""
        config: dict[str, Any] = {
            "generator": COMPOSITE,
            "data": self.source.request.to_json(),
            "size": list(self.source.space.size),
            "edits": list(self.edits),
            "parts": {},
        }
        for part in self.parts:
            entry: dict[str, Any] = {"generator": part.generator, "data": part.request.to_json()}
            entry["set"] = dict(part.settings)
            if part.init_from is not None:
                entry["init_from"] = part.init_from
            config["parts"][part.name] = entry
        if init_from is not None:
            config["init_from"] = read_manifest(init_from)["run_id"]
        return config


# -- planning --------------------------------------------------------------------------------------


def make_plan(
    spec: Spec,
    request: SourceRequest,
    settings: Mapping[str, str],
    edits: Sequence[str] | None,
) -> CompositePlan:
    """Resolve a composite run. Arguments are as in ``fit_composite``."""
    source = open_source(request)
    if isinstance(spec, PerClass):
        return _plan_classes(spec, source, settings, edits)
    if isinstance(spec, PerChannel):
        spec = spec.chain(source.schema)
    planner = _CompositePlanner(source, {part.init_from for part in spec.parts} - {None})
    for part_spec in spec.parts:
        try:
            planner.add(part_spec, part_spec.settings(settings, spec.parts))
        except (DataFault, UsageFault) as fault:
            raise fault.reworded(f"part {part_spec.name!r}: {fault}") from fault
    planner.check_whole()
    names = edits if edits is not None else spec.edits
    chosen = planner.default_edits if names is None else tuple(names)
    build_edits(chosen)
    return CompositePlan(planner.source, tuple(planner.parts), chosen, planner.labels_by)


def _plan_classes(
    spec: PerClass, source: CaseSource, settings: Mapping[str, str], edits: Sequence[str] | None
) -> CompositePlan:
    cls = installed().generator(spec.generator)
    _, options = split_settings(settings, FitOptions, cls.Options, generator=spec.generator)
    can = capabilities_of(cls, options)
    if can.draws == "labels" or can.channels:
        raise UsageFault(
            "fitting.class-part-not-whole-samples",
            f"--per-class {spec.groups}: {spec.generator} is set to generate label maps, or to be "
            "given channels; expected parts with whole samples",
        )
    parts = spec.classes(source)
    check_edits(edits or (), GeneratorInfo(spec.generator, can))
    all_classes = [name for names in parts.values() for name in names]
    chosen = SourceView(source, {"classes": all_classes})
    whole = source if chosen.train_ids == source.train_ids else chosen
    channels, texts = source.schema.channels, dict(settings)
    planned = []
    for name, classes in parts.items():
        request = replace(source.request, view={"classes": list(classes)})
        step = (name, f"{PARTS}/{name}", spec.generator, texts, request)
        planned.append(PlannedPart(*step, channels, classes=classes))
    usual = can.edits if can.from_labels else ()
    names = tuple(usual if edits is None else edits)
    build_edits(names)
    return CompositePlan(whole, tuple(planned), names, None)


class _CompositePlanner:
    def __init__(self, source: CaseSource, beginnings: Collection[str | None] = ()) -> None:
        self.source = source
        self._beginnings = beginnings
        self.parts: list[PlannedPart] = []
        self.labels_by: str | None = None
        self.default_edits: tuple[str, ...] = ()
        self._labellers: list[str] = []
        self._drawn: dict[str, str] = {}

    def add(self, spec: PartSpec, texts: Mapping[str, str]) -> None:
        """Resolve the next part. Raises UsageFault: it does not fit."""
        cls = installed().generator(spec.generator)
        _, options = split_settings(texts, FitOptions, cls.Options, generator=spec.generator)
        can = capabilities_of(cls, options)
        if "context" in can.takes and can.body_channel is None:
            raise UsageFault(
                "fitting.part-takes-context-channels",
                f"{spec.generator} is set to take context channels, which composite runs do not "
                f"have; expected a part without, such as set: {dict(can.in_chain)}",
            )
        view: dict[str, Any] = {"names": dict(spec.names)} if spec.names else {}
        base = viewed(self._open(spec), view)
        channels = _seen(spec, can, base.schema.channels)
        channel_numbers(base.schema, channels)
        # In the order of the source.
        channels = tuple(c for c in base.schema.channels if c in channels)
        if channels != base.schema.channels:
            view["channels"] = list(channels)
        if spec.labels_by is not None:
            view["labels_by"] = f"../{self._labeller(spec.labels_by)}"
        begins = spec.name in self._beginnings
        self._check_beginning(spec)
        draws = () if begins else self._draws(channels, can)
        # All channels of a sample must show the same anatomy.
        if can.draws != "labels" and not can.from_labels:
            raise UsageFault(
                "fitting.part-draws-own-anatomy",
                f"generator {spec.generator!r} generates images from noise, so its anatomy would "
                "differ from that of the other parts; expected a generator from label maps "
                f"({such_as(lambda able: able.from_labels)}). Fit {spec.generator} on all channels "
                "together",
            )
        if draws and spec.data is not None:
            _check_same_arrays(base, self.source, draws)
        if draws and not self._drawn:
            self.default_edits = can.edits
        if not draws and not begins:
            self._labellers.append(spec.name)
        self._drawn.update({channel: spec.name for channel in draws})
        request = replace(base.request, view=view)
        step = (spec.name, f"{PARTS}/{spec.name}", spec.generator, texts, request)
        own_data = spec.data is not None
        self.parts.append(
            PlannedPart(*step, draws, own_data, init_from=spec.init_from, begins=begins)
        )

    def _check_beginning(self, spec: PartSpec) -> None:
        earlier = [part.name for part in self.parts]
        if spec.init_from is not None and spec.init_from not in earlier:
            raise UsageFault(
                "fitting.init-from-not-earlier-part",
                f"init_from {spec.init_from!r}: expected an earlier part, one of "
                f"{', '.join(earlier) or 'none so far'}; list it before",
            )

    def _open(self, spec: PartSpec) -> CaseSource:
        if spec.data is None:
            return self.source
        keys = ("read", "configuration", "plans", "fold", "subjects")
        reading = {key: getattr(spec, key) for key in keys}
        return open_source(SourceRequest.parse(spec.data, **reading, root=self.source.request.root))

    def _labeller(self, name: str) -> str:
        if name not in self._labellers:
            raise UsageFault(
                "fitting.labels-by-not-earlier-labeller",
                f"labels_by {name!r}: expected an earlier part that generates labels "
                f"({', '.join(self._labellers) or 'there is none'})",
            )
        if self.labels_by not in (None, name):
            raise UsageFault(
                "fitting.two-parts-label",
                f"labels_by {name!r}: another part has {self.labels_by!r}; expected one part that "
                "generates label maps for all",
            )
        self.labels_by = name
        return name

    def _draws(self, channels: Sequence[str], can: Capabilities) -> tuple[str, ...]:
        inputs = can.channels
        if can.draws == "labels":
            channel_numbers(self.source.schema, inputs)
            return ()
        for channel in inputs:
            if channel not in self._drawn:
                raise UsageFault(
                    "fitting.given-channel-not-generated-earlier",
                    f"given {channel!r}: no earlier part generates it, expected one of "
                    f"{', '.join(self._drawn) or 'none so far'}",
                )
        draws = tuple(channel for channel in channels if channel not in inputs)
        for channel in draws:
            if channel in self._drawn:
                raise UsageFault(
                    "fitting.channel-generated-twice",
                    f"part {self._drawn[channel]!r} generates channel {channel!r} already; "
                    "expected one part for each",
                )
        return draws

    def check_whole(self) -> None:
        """Refuse parts that leave out a channel."""
        missing = [c for c in self.source.schema.channels if c not in self._drawn]
        if missing:
            raise UsageFault(
                "fitting.channel-without-part",
                f"no part generates channel(s) {', '.join(missing)} of {self.source.name}; "
                "expected a part for each: add one, or name them under channels",
            )


def _seen(spec: PartSpec, can: Capabilities, channels: Sequence[str]) -> Sequence[str]:
    """Return the channels a part sees: as set, or those given to a label part, or all."""
    if spec.channels is not None:
        return spec.channels
    return can.channels if can.draws == "labels" else channels


def _check_same_arrays(part_source: CaseSource, source: CaseSource, draws: Sequence[str]) -> None:
    channel_numbers(source.schema, draws)
    pairs = {
        "size": (part_source.space.size, source.space.size),
        "grid": (part_source.space.grid, source.space.grid),
        "spacing": (part_source.schema.spacing, source.schema.spacing),
        "labels": (part_source.schema.label_values, source.schema.label_values),
    }
    for key, (value, expected) in pairs.items():
        if value != expected:
            raise UsageFault(
                "fitting.part-arrays-differ",
                f"data {part_source.name}: {key} is {value}, that of {source.name} {expected}; "
                "expected the same for a part that generates images",
            )
