"""Composite runs: several runs under one folder, which draw a sample together.

``parts/NAME/`` are ordinary run folders. The composite's own ``manifest.json`` names them in order
under ``parts`` and holds the SHA-256 of their manifests (which hold those of their weights), so
nothing can be exchanged unnoticed. Opened by ``load_run`` it is a generator like any other.

Two kinds are fitted (``gansynth.composite_fit``): one model per channel (Sun et al. 2020, MM-GAN),
and chains (Shin et al. 2018), whose later parts are given what earlier ones draw, or learn from
label maps that an earlier one draws from images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from gansynth.composite_view import (
    channel_numbers,
    draws_labels,
    given_channels,
    only_intensity,
)
from gansynth.errors import IntegrityFault, UsageFault
from gansynth.generator import Generator, GeneratorOptions, Phase
from gansynth.integrity import path_inside, sha256_file
from gansynth.run import MANIFEST, Run
from gansynth.schema import Case, Condition, FloatArray, LabelArray, Sample, Schema
from gansynth.space import Space

if TYPE_CHECKING:
    import torch
    from torch import nn

NAME, PARTS = "composite", "parts"


@dataclass(frozen=True)
class Part:
    """A part that draws image channels.

    Attributes:
        name: its folder's.
        run: opened.
        draws: channels it contributes, by name.
        given: channels that earlier parts have drawn for it.
        relabelled: whether it learnt from drawn label maps.
    """

    name: str
    run: Run
    draws: tuple[str, ...]
    given: tuple[str, ...]
    relabelled: bool

    @classmethod
    def of(cls, name: str, run: Run) -> Part:
        """What an opened run contributes."""
        given = given_channels(run.generator.options)
        draws = tuple(c for c in run.schema.channels if c not in given)
        return cls(name, run, draws, given, "labels_by" in run.request.view)


class Composite(Generator):
    """Draws all channels of a sample, one part after the other.

    Args:
        schema: of the composite's samples, in its space.
        space: of the composite; intensities are the source's own.
        parts: those that draw images, in order.
    """

    name: ClassVar[str] = NAME
    ema: ClassVar[tuple[str, ...]] = ()

    def __init__(self, schema: Schema, space: Space, parts: Sequence[Part]) -> None:
        self.parts = tuple(parts)
        self.space = space
        super().__init__(schema, space.size, GeneratorOptions())

    def networks(self) -> dict[str, nn.Module]:
        """Every part's networks, as ``PART/NETWORK``."""
        return {
            f"{part.name}/{name}": net
            for part in self.parts
            for name, net in part.run.generator.nets.items()
        }

    def phases(self) -> Sequence[Phase]:
        """None: its parts have been trained, each by itself."""
        return ()

    def to(self, device: torch.device) -> Composite:
        """Move every part to a device."""
        self.device = device
        for part in self.parts:
            part.run.generator.to(device)
        return self

    def sample(self, conditions: Sequence[Condition], seeds: Sequence[int]) -> list[Sample]:
        """Draw one sample per condition: every part's channels for the same label map."""
        drawn: dict[str, list[FloatArray]] = {}
        for number, part in enumerate(self.parts):
            asked = [self._ask(part, c, drawn, i) for i, c in enumerate(conditions)]
            own_seeds = [part_seed(seed, number) for seed in seeds]
            samples = part.run.generator.sample(asked, own_seeds)
            images = [self._in_source_units(part, sample.image) for sample in samples]
            for channel in part.draws:
                place = part.run.schema.channels.index(channel)
                drawn[channel] = [image[place] for image in images]
        return [self._joined(c, drawn, i, seeds[i]) for i, c in enumerate(conditions)]

    def _ask(
        self, part: Part, condition: Condition, drawn: Mapping[str, list[FloatArray]], index: int
    ) -> Condition:
        """What a part is asked: the same labels (as it knows them), and what was drawn so far."""
        labels = condition.labels if part.relabelled else self._own(condition.labels)
        given = None
        if part.given:
            image = np.stack([drawn[name][index] for name in part.given])
            numbers = channel_numbers(part.run.schema, part.given)
            space = only_intensity(part.run.space, numbers)
            given = space.to_generator(Case("", "", image)).image
        return replace(condition, labels=labels, given=given, context=None)

    def _in_source_units(self, part: Part, image: FloatArray) -> FloatArray:
        numbers = list(range(len(part.run.schema.channels)))
        return only_intensity(part.run.space, numbers).to_host(Sample(image)).image

    def _joined(
        self, condition: Condition, drawn: Mapping[str, list[FloatArray]], index: int, seed: int
    ) -> Sample:
        image = np.stack([drawn[name][index] for name in self.schema.channels])
        provenance = {
            **condition.provenance,
            "generator": self.name,
            "parts": {part.name: part.run.run_id for part in self.parts},
            "latent_seed": seed,
        }
        return Sample(image, self._own(condition.labels), None, provenance)

    def _own(self, labels: LabelArray | None) -> LabelArray | None:
        """A label map without labels that only a part knows (background instead)."""
        if labels is None or not any(part.relabelled for part in self.parts):
            return labels
        most = max((0, *self.schema.labels.values()))
        return np.where(labels > most, np.int16(0), labels)


def part_seed(seed: int, number: int) -> int:
    """A part's own seed: parts that drew the same noise would draw the same texture."""
    words = np.random.SeedSequence((seed, number)).generate_state(2, np.uint32)
    return int(words[0]) << 31 ^ int(words[1])


# -- as a folder -----------------------------------------------------------------------------------


def load_composite(folder: Path, manifest: Mapping[str, Any], device: str) -> Composite:
    """Open the parts that draw images, each checked against the composite's manifest.

    Raises:
        UsageFault: not all parts are fitted yet.
        IntegrityFault: a part is not the one that was fitted, or the parts do not fit together.
    """
    from gansynth.run import load_run

    check_parts(folder, manifest)
    opened = [(p["name"], load_run(part_folder(folder, p), device)) for p in manifest[PARTS]]
    drawing = [(name, run) for name, run in opened if not draws_labels(run.generator.options)]
    parts = [Part.of(name, run) for name, run in drawing]
    space = Space.from_json(manifest["space"])
    schema = space.generator_schema(Schema.from_json(manifest["schema"]))
    missing = sorted(set(schema.channels) - {c for part in parts for c in part.draws})
    if missing:
        raise IntegrityFault(
            f"{folder / MANIFEST}: no part draws channel(s) {', '.join(missing)}; expected one for "
            "each. Fit the run again"
        )
    composite = Composite(schema, space, parts)
    composite.device = parts[0].run.generator.device
    return composite


def check_parts(folder: Path, manifest: Mapping[str, Any]) -> Path:
    """The folder of the parts, if every one of them is finished and the one that was fitted.

    Raises:
        UsageFault: one is not fitted yet.
        IntegrityFault: one is missing or another.
    """
    from gansynth.run import check_weights, read_manifest

    for part in manifest[PARTS]:
        if part["manifest_sha256"] is None:
            raise UsageFault(
                f"{folder}: part {part['name']!r} is not fitted yet; go on with the gansynth fit "
                "that began this run"
            )
        own = part_folder(folder, part)
        path = own / MANIFEST
        found = sha256_file(path) if path.is_file() else "of no file"
        if found != part["manifest_sha256"]:
            raise IntegrityFault(
                f"{path}: SHA-256 is {found[:12]}, expected {part['manifest_sha256'][:12]} by the "
                f"composite's {MANIFEST}; restore it from a copy, or fit the run again"
            )
        check_weights(own, read_manifest(own))
    return folder / PARTS


def part_folder(folder: Path, part: Mapping[str, Any]) -> Path:
    """Where a part lies.

    Raises:
        IntegrityFault: outside the run.
    """
    what = f"{folder / MANIFEST}: key 'parts'"
    return path_inside(folder, part["folder"], what=what)
