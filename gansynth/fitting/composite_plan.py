"""Planning a composite run: every part resolved, and refused if they cannot draw a whole sample."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gansynth.conditions.edit_chain import build_edits
from gansynth.core.generator import Generator, GeneratorOptions
from gansynth.core.registry import installed
from gansynth.core.run_folder import read_manifest
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.data.views import View, channel_numbers, draws_labels, given_channels
from gansynth.fitting.composite_spec import PartSpec, PerChannel, PerClass, Spec
from gansynth.fitting.pipeline import Step
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.options import split_settings
from gansynth.sampling.drawn_labels import viewed
from gansynth.sampling.opening import open_source
from gansynth.sampling.request_parsing import Asks, check_edits
from gansynth.sampling.run import COMPOSITE, PARTS
from gansynth.training.loop import FitOptions


@dataclass(frozen=True)
class PlannedPart(Step):
    """A part before it is fitted; the view that it learns from has no ``home`` yet.

    Attributes:
        draws: image channels it contributes; none if it draws label maps.
        own_data: whether it learns from a source of its own.
        classes: of the cases it sees; empty for all.
        init_from: the earlier part that it starts from, if any.
        begins: whether another part starts from it; it draws nothing then.
    """

    draws: tuple[str, ...]
    own_data: bool = False
    classes: tuple[str, ...] = ()
    init_from: str | None = None
    begins: bool = False


@dataclass(frozen=True)
class Plan:
    """A composite run, resolved and checked; ``labels_by`` draws label maps for other parts."""

    source: CaseSource
    parts: tuple[PlannedPart, ...]
    edits: tuple[str, ...]
    labels_by: str | None

    @property
    def view(self) -> Mapping[str, Any]:
        """What the composite's own conditions are drawn through."""
        own = self.source.request.view
        return own if self.labels_by is None else {"labels_by": f"{PARTS}/{self.labels_by}"}

    def config(self, init_from: Path | None) -> dict[str, Any]:
        """The resolved settings."""
        config: dict[str, Any] = {
            "generator": COMPOSITE,
            "data": self.source.request.to_json(),
            "size": list(self.source.space.size),
            "edits": list(self.edits),
            "parts": {
                part.name: {
                    "generator": part.generator,
                    "data": part.request.to_json(),
                    "set": dict(part.settings),
                    **({} if part.init_from is None else {"init_from": part.init_from}),
                }
                for part in self.parts
            },
        }
        if init_from is not None:
            config["init_from"] = read_manifest(init_from)["run_id"]
        return config


# -- planning --------------------------------------------------------------------------------------


def make_plan(
    spec: Spec,
    request: SourceRequest,
    settings: Mapping[str, str],
    edits: Sequence[str] | None,
) -> Plan:
    """Resolve a composite run. Arguments are as in ``fit_composite``.

    Raises:
        UsageFault: naming the part, and what is wrong with it.
    """
    source = open_source(request)
    if isinstance(spec, PerClass):
        return _plan_classes(spec, source, settings, edits)
    if isinstance(spec, PerChannel):
        spec = spec.chain(source.schema)
    planner = _Planner(source, {part.init_from for part in spec.parts} - {None})
    for asked in spec.parts:
        try:
            planner.add(asked, settings)
        except (DataFault, UsageFault) as fault:
            raise type(fault)(f"part {asked.name!r}: {fault}") from fault
    planner.check_whole()
    names = edits if edits is not None else spec.edits
    chosen = planner.default_edits if names is None else tuple(names)
    build_edits(chosen)
    return Plan(planner.source, tuple(planner.parts), chosen, planner.labels_by)


def _plan_classes(
    spec: PerClass, source: CaseSource, settings: Mapping[str, str], edits: Sequence[str] | None
) -> Plan:
    """One part for each class; the source of the whole has the cases of all of them."""
    cls = installed().generator(spec.generator)
    _, options = split_settings(settings, FitOptions, cls.Options, generator=spec.generator)
    if draws_labels(options) or given_channels(options):
        raise UsageFault(
            f"--per-class {spec.groups}: {spec.generator} is set to draw label maps, or to be "
            "given channels; expected parts that draw whole samples. Leave target and given out"
        )
    parts = spec.classes(source)
    built = _build(cls, options, source)
    check_edits(edits or (), Asks.by(built))
    together = [name for names in parts.values() for name in names]
    chosen = View(source, {"classes": together})
    whole = source if chosen.train_ids == source.train_ids else chosen
    channels, texts = source.schema.channels, dict(settings)
    planned = []
    for name, classes in parts.items():
        request = replace(source.request, view={"classes": list(classes)})
        step = (name, f"{PARTS}/{name}", spec.generator, texts, request)
        planned.append(PlannedPart(*step, channels, classes=classes))
    usual = cls.default_edits if built.labelling == "asked" else ()
    names = tuple(usual if edits is None else edits)
    build_edits(names)
    return Plan(whole, tuple(planned), names, None)


def _build(cls: type[Generator], options: GeneratorOptions, source: CaseSource) -> Generator:
    """A generator as a part will have it, to ask what it draws; torch's random state stays."""
    import torch

    with torch.random.fork_rng(devices=[]):
        return cls(source.space.generator_schema(source.schema), source.space.size, options)


class _Planner:
    """Takes parts in order and keeps in mind what the earlier ones draw."""

    def __init__(self, source: CaseSource, beginnings: Collection[str | None] = ()) -> None:
        self.source = source
        self._beginnings = beginnings
        self.parts: list[PlannedPart] = []
        self.labels_by: str | None = None
        self.default_edits: tuple[str, ...] = ()
        self._labellers: list[str] = []
        self._drawn: dict[str, str] = {}

    def add(self, asked: PartSpec, over: Mapping[str, str]) -> None:
        """Resolve the next part; a UsageFault says what is wrong with it."""
        cls = installed().generator(asked.generator)
        texts = asked.settings(over)
        _, options = split_settings(texts, FitOptions, cls.Options, generator=asked.generator)
        if getattr(options, "context", 0):
            raise UsageFault("set context: composite runs have no context channels; leave it out")
        view: dict[str, Any] = {"names": dict(asked.names)} if asked.names else {}
        base = viewed(self._open(asked), view)
        channels = _seen(asked, options, base.schema.channels)
        channel_numbers(base.schema, channels)
        # In the source's order, whatever the order they are named in.
        channels = tuple(c for c in base.schema.channels if c in channels)
        if channels != base.schema.channels:
            view["channels"] = list(channels)
        if asked.labels_by is not None:
            view["labels_by"] = f"../{self._labeller(asked.labels_by)}"
        begins = asked.name in self._beginnings
        self._check_beginning(asked)
        draws = () if begins else self._draws(channels, options)
        # Built only where a plugin has a say in it: large networks take seconds.
        if cls.labelling is not Generator.labelling:
            _refuse_noise(_build(cls, options, viewed(base, view)))
        if draws and asked.data is not None:
            _check_same_arrays(base, self.source, draws)
        if draws and not self._drawn:
            self.default_edits = cls.default_edits
        if not draws and not begins:
            self._labellers.append(asked.name)
        self._drawn.update({channel: asked.name for channel in draws})
        request = replace(base.request, view=view)
        step = (asked.name, f"{PARTS}/{asked.name}", asked.generator, texts, request)
        own_data = asked.data is not None
        self.parts.append(
            PlannedPart(*step, draws, own_data, init_from=asked.init_from, begins=begins)
        )

    def _check_beginning(self, asked: PartSpec) -> None:
        """Refuse to start from a part that is not there yet."""
        earlier = [part.name for part in self.parts]
        if asked.init_from is not None and asked.init_from not in earlier:
            raise UsageFault(
                f"init_from {asked.init_from!r}: expected an earlier part, one of "
                f"{', '.join(earlier) or 'none so far'}; list it before"
            )

    def _open(self, asked: PartSpec) -> CaseSource:
        """The source a part learns from."""
        if asked.data is None:
            return self.source
        keys = ("read", "configuration", "plans", "fold", "subjects")
        given = {key: getattr(asked, key) for key in keys}
        return open_source(SourceRequest.parse(asked.data, **given, root=self.source.request.root))

    def _labeller(self, name: str) -> str:
        """The part that draws label maps, if it is one."""
        if name not in self._labellers:
            raise UsageFault(
                f"labels_by {name!r}: expected an earlier part that draws labels "
                f"({', '.join(self._labellers) or 'there is none'})"
            )
        if self.labels_by not in (None, name):
            raise UsageFault(
                f"labels_by {name!r}: another part has {self.labels_by!r}; expected one part that "
                "draws label maps for all"
            )
        self.labels_by = name
        return name

    def _draws(self, channels: Sequence[str], options: GeneratorOptions) -> tuple[str, ...]:
        """Channels a part draws; none if it draws label maps."""
        given = given_channels(options)
        if draws_labels(options):
            channel_numbers(self.source.schema, given)
            return ()
        for channel in given:
            if channel not in self._drawn:
                raise UsageFault(
                    f"given {channel!r}: no earlier part draws it, expected one of "
                    f"{', '.join(self._drawn) or 'none so far'}"
                )
        draws = tuple(channel for channel in channels if channel not in given)
        for channel in draws:
            if channel in self._drawn:
                raise UsageFault(
                    f"channel {channel!r} is drawn by part {self._drawn[channel]!r} already; "
                    "expected one part for each"
                )
        return draws

    def check_whole(self) -> None:
        """Refuse parts that leave a channel out."""
        missing = [c for c in self.source.schema.channels if c not in self._drawn]
        if missing:
            raise UsageFault(
                f"no part draws channel(s) {', '.join(missing)} of {self.source.name}; expected a "
                "part for each: add one, or name them under channels"
            )


def _seen(asked: PartSpec, options: GeneratorOptions, every: Sequence[str]) -> Sequence[str]:
    """Channels a part sees: as asked; of one that draws labels those it is given; else all."""
    if asked.channels is not None:
        return asked.channels
    return given_channels(options) if draws_labels(options) else every


def _refuse_noise(built: Generator) -> None:
    """Refuse parts that draw a patient each: channels of one sample must show the same one."""
    if built.labelling != "asked":
        raise UsageFault(
            f"generator {built.name!r} draws images from noise, so its channels would show another "
            "anatomy than those of the other parts; expected one that draws images of label maps "
            f"(cgan3d). Fit {built.name} on all channels together"
        )


def _check_same_arrays(own: CaseSource, source: CaseSource, draws: Sequence[str]) -> None:
    """What a part with data of its own draws must fit beside the other channels."""
    channel_numbers(source.schema, draws)
    pairs = {
        "size": (own.space.size, source.space.size),
        "grid": (own.space.grid, source.space.grid),
        "spacing": (own.schema.spacing, source.schema.spacing),
        "labels": (own.schema.label_values, source.schema.label_values),
    }
    for key, (found, wanted) in pairs.items():
        if found != wanted:
            raise UsageFault(
                f"data {own.name}: {key} is {found}, that of {source.name} {wanted}; expected the "
                "same for a part that draws images"
            )
