"""Recipes: the trainings of a paper as a YAML file, which one command repeats.

A recipe has a generator, reading options, settings, and the sets to fit::

    summary: WGAN on sagittal brain slices, one for each sequence and one for all together
    paper: Han et al. 2018, GAN-based synthetic brain MR image generation, ISBI
    generator: dcgan
    source: slices                   # volumes are cut into slices; 2D cases are taken as they are
    read: {plane: sagittal}          # as after --read; texts
    set: {objective: wgan, epochs: 25}
    runs:
      - name: "{channel}-128"        # a set for each channel of the source
        each: channel
        read: {channels: "{channel}", resize: 128x128}
      - name: Concat-64
        least_channels: 2            # left out where the source has fewer
        read: {concat: yes, resize: 64x64}
    open: [The paper does not say ..., here ...]
    scale: {tiny: {set: {steps: 40}}}
    reports: {...}                   # what the paper reports

``--set`` and ``--read`` of a user override all of it. Only a key with ``{channel}`` in its text
stays the recipe's: it picks among the channels that are left.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from gansynth.core.registry import installed
from gansynth.fitting.composite_spec import PartSpec, first_fault, texts
from gansynth.runtime.errors import GansynthError, UsageFault, did_you_mean
from gansynth.runtime.options import overlay, split_settings
from gansynth.runtime.yaml_text import read_yaml

CHANNEL = "{channel}"


def _yes_no(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {k: ("yes" if v else "no") if isinstance(v, bool) else v for k, v in value.items()}


# Numbers are refused: YAML reads -100:40 as a number in base sixty.
Read = Annotated[dict[str, str], BeforeValidator(_yes_no)]


class _StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RunSpec(_StrictModel):
    """One set of a recipe, or one for each channel."""

    name: str = Field(
        "run", pattern=r"^[A-Za-z0-9{][A-Za-z0-9._+{}-]*$", description="its folder's name"
    )
    each: Literal["channel", "none"] = Field(
        "none", description="a set for each channel of the source, for {channel} in all texts"
    )
    optional: bool = Field(False, description="fitted only if it is named (--only)")
    least_channels: int = Field(1, ge=1, description="left out where the source has fewer")
    read: Read = Field(default_factory=dict, description="over the recipe's")
    set: dict[str, Any] = Field(default_factory=dict, description="over the recipe's")
    per_channel: str | None = Field(
        None, description="one model per channel (each), or per group of them, as one run"
    )
    per_class: str | None = Field(None, description="likewise, per class of whole cases")
    parts: tuple[PartSpec, ...] | None = Field(None, description="a chain of parts, as one run")
    reports: dict[str, Any] = Field(
        default_factory=dict, description="what the paper reports of it; hours: of training"
    )

    @model_validator(mode="after")
    def _check_name_and_parts(self) -> RunSpec:
        if (self.each == "channel") != (CHANNEL in self.name):
            raise ValueError(f"name is {self.name!r}, expected {CHANNEL} in it with each: channel")
        if (self.per_channel, self.per_class, self.parts).count(None) < 2:
            raise ValueError("expected one of per_channel, per_class and parts")
        return self


class RecipeScale(_StrictModel):
    """Overrides for every set, for another amount of work."""

    summary: str = Field("", description="what it is for")
    read: Read = Field(default_factory=dict, description="over the sets'")
    set: dict[str, Any] = Field(default_factory=dict, description="over the sets'")


class RecipeSpec(_StrictModel):
    """Content of a recipe's file."""

    summary: str = Field(min_length=1, description="one line")
    paper: str = Field(min_length=1, description="citation")
    generator: str = Field(description="registered name")
    source: Literal["slices"] | None = Field(
        None, description="what volumes are wrapped into; null: cases are taken as they are"
    )
    read: Read = Field(default_factory=dict, description="as after --read")
    kinds: dict[str, Read] = Field({}, description="kinds it takes -> what else to --read of each")
    set: dict[str, Any] = Field(default_factory=dict, description="as after --set")
    edits: tuple[str, ...] | None = Field(
        None, description="condition edits by name; null: the generator's own"
    )
    channels: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="channels that its settings name, as <T1>: what data may call each, whatever "
        "the case of the letters",
    )
    needs: dict[str, str] = Field(
        default_factory=dict,
        description="further sources that parts name as their data, {tissues}: what each has to "
        "be; KIND:WHERE of them is said after --extra-source",
    )
    runs: tuple[RunSpec, ...] = Field(
        (RunSpec.model_validate({}),), min_length=1, description="its sets, in order"
    )
    open: tuple[str, ...] = Field(
        (), description="what the paper left open, and what was chosen; a sentence each"
    )
    scale: dict[str, RecipeScale] = Field(default_factory=dict, description="by name, for --scale")
    reports: dict[str, Any] = Field(default_factory=dict, description="what the paper reports")


@dataclass(frozen=True)
class Recipe:
    """A recipe that was read; a user's recipe has the name of its file, without the suffix."""

    name: str
    path: Path
    sha256: str
    spec: RecipeSpec

    @property
    def alone(self) -> bool:
        """Whether it is a single run, which needs no folder of its own below ``-o``."""
        return len(self.spec.runs) == 1 and self.spec.runs[0].each == "none"

    def named(self, channels: Sequence[str]) -> RecipeSpec:
        """Replace channels in the recipe, as ``<T1>``, by their names in the data.

        A list of ``<channels>`` alone means all channels. Raises UsageFault: one is missing.
        """
        names = self.called(channels)
        if not names:
            return self.spec
        document = self.spec.model_dump()
        words = {f"<{name}>": channel for name, channel in names.items()}
        for key in ("runs", "set"):
            document[key] = filled(document[key], words, list(channels))
        return RecipeSpec(**document)

    def called(self, channels: Sequence[str], *, of: str = "") -> dict[str, str]:
        """Return the data's names of the recipe's channels; ``of`` names the data in messages."""
        names: dict[str, str] = {}
        for name, others in self.spec.channels.items():
            aliases = {alias.casefold() for alias in (name, *others)}
            fitting = [channel for channel in channels if channel.casefold() in aliases]
            if len(fitting) != 1:
                where = f" of {of}" if of else ""
                raise UsageFault(
                    "fitting.recipe-channel-missing",
                    f"--recipe {self.name}: needs a channel {name}{where}, expected one of "
                    f"{', '.join(dict.fromkeys((name, *others)))} among {', '.join(channels)}; "
                    "rename the channels of your data, or choose them: --read channels=...",
                )
            names[name] = fitting[0]
        return names

    def read_of(self, kind: str) -> dict[str, str]:
        """Return how cases of a kind are read. Raises UsageFault: the recipe does not take it."""
        kinds = self.spec.kinds
        if kinds and kind not in kinds:
            taken = " or ".join([f"{name}:" for name in kinds])
            message = f"--data {kind}: recipe {self.name} does not say how to read it"
            raise UsageFault("fitting.recipe-source-kind-not-taken", f"{message}, expected {taken}")
        return dict(self.spec.read) | dict(kinds.get(kind, {}))

    def check(self) -> None:
        """Refuse wrong settings and unknown keys of ``read``, naming file, key and value."""
        from gansynth.conditions.edit_chain import build_edits

        spec = self.spec
        self._check_needs()
        try:
            installed().generator(spec.generator)
            build_edits(spec.edits or ())
        except GansynthError as fault:
            raise UsageFault(
                "fitting.recipe-generator-or-edits-wrong", f"{self.path}: {fault}"
            ) from fault
        for where, read in self._reads():
            with self._at(where):
                _check_read(spec, read)
        for where, name, settings in self._settings():
            with self._at(where):
                check_settings(name, settings)

    @contextmanager
    def _at(self, where: str) -> Iterator[None]:
        """Name the place in the file instead of a command-line option."""
        try:
            yield
        except UsageFault as fault:
            message = str(fault).removeprefix("--set ").removeprefix("--read ")
            raise UsageFault(
                "fitting.recipe-setting-or-read-wrong", f"{self.path}: {where}: {message}"
            ) from fault

    def _check_needs(self) -> None:
        for run in self.spec.runs:
            for part in run.parts or ():
                data = part.data or ""
                if data.startswith("{") and data[1:-1] not in self.spec.needs:
                    raise UsageFault(
                        "fitting.recipe-part-data-not-needed",
                        f"{self.path}: runs.{run.name}.parts.{part.name}.data is {data!r}, "
                        f"expected one of needs ({', '.join(self.spec.needs) or 'none'}) in {{}}",
                    )

    def _reads(self) -> Iterator[tuple[str, Mapping[str, str]]]:
        yield "read", self.spec.read
        for run in self.spec.runs:
            yield f"runs.{run.name}.read", run.read
        for name, scale in self.spec.scale.items():
            yield f"scale.{name}.read", scale.read

    def _settings(self) -> Iterator[tuple[str, str, Mapping[str, str]]]:
        spec = self.spec
        base = texts(spec.set)
        for run in spec.runs:
            where = f"runs.{run.name}.set" if run.set else "set"
            settings = overlay(base, texts(run.set))
            if run.parts is None:
                yield where, spec.generator, settings
            for part in run.parts or ():
                own = part.settings(settings, run.parts or ())
                yield f"runs.{run.name}.parts.{part.name}", part.generator, own
        for name, scale in spec.scale.items():
            yield f"scale.{name}.set", spec.generator, overlay(base, texts(scale.set))

    def scaled(self, name: str | None) -> RecipeScale:
        """Return the overrides of a scale, none for None. Raises UsageFault: it is unknown."""
        if name is None:
            return RecipeScale.model_validate({})
        if name not in self.spec.scale:
            scales = self.spec.scale
            raise UsageFault(
                "fitting.recipe-scale-unknown",
                f"--scale {name}: recipe {self.name} has no such scale, expected one of: "
                f"{', '.join(scales) or 'none'}.{did_you_mean(name, scales)}",
            )
        return self.spec.scale[name]


def read_recipe(path: Path, name: str | None = None) -> Recipe:
    """Read a recipe's file; ``Recipe.check`` checks its settings."""
    doc, data = read_yaml(path, "a recipe in YAML")
    try:
        spec = RecipeSpec.model_validate(doc)
    except ValidationError as error:
        keys, loc = RecipeSpec.model_fields, error.errors()[0]["loc"]
        hint = did_you_mean(str(loc[-1]), keys) if loc else ""
        message = f"{path}: {first_fault(error)}; a recipe has {', '.join(keys)}.{hint}"
        raise UsageFault("fitting.recipe-file-malformed", message) from None
    return Recipe(name or path.stem, path, hashlib.sha256(data).hexdigest(), spec)


def find_recipe(text: str) -> Recipe:
    """Return the recipe of ``--recipe``, checked: a registered one, or a YAML file.

    Raises:
        UsageFault: it is unknown, or does not fit its generator.
    """
    if text.endswith((".yaml", ".yml")):
        recipe = read_recipe(Path(text))
    else:
        recipe = read_recipe(installed().load("recipes", text), text)
    recipe.check()
    return recipe


def check_settings(
    generator: str, settings: Mapping[str, str], typed: Collection[str] = ()
) -> None:
    """Refuse wrong settings of a generator or its loop, and typed ones without effect."""
    from gansynth.training.loop import loop_options

    cls = installed().generator(generator)
    split_settings(settings, loop_options(cls), cls.Options, generator=generator, typed=typed)


def _check_read(spec: RecipeSpec, read: Mapping[str, str]) -> None:
    from gansynth.core.source import SourceRequest
    from gansynth.data.read_options import FileOptions, parse_read
    from gansynth.data.slices import SliceOptions

    if spec.source != "slices":  # other sources check their keys when opened
        return
    slice_keys = {k: v for k, v in read.items() if k in SliceOptions.model_fields}
    keys = {*SliceOptions.model_fields, *FileOptions.model_fields}
    for key in read.keys() - keys:
        if not key.startswith("inner."):
            raise UsageFault(
                "fitting.slices-read-key-unknown",
                f"{key}={read[key]}: slices: has no such key, expected one of "
                f"{', '.join(sorted(keys))}, or inner.KEY.{did_you_mean(key, keys)}",
            )
    parse_read(SliceOptions, SourceRequest("slices", "", read=slice_keys))


def filled(value: Any, words: Mapping[str, str], channels: list[str] | None = None) -> Any:
    """Replace words in all texts of a document; ``<channels>`` alone in a list becomes all."""
    if isinstance(value, str):
        for word, text in words.items():
            value = value.replace(word, text)
        return value
    if isinstance(value, Mapping):
        return {k: filled(v, words, channels) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        if channels is not None and list(value) == ["<channels>"]:
            return channels
        return [filled(v, words, channels) for v in value]
    return value
